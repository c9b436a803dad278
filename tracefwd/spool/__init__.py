"""What was accepted is written down before it is answered for.

Contract: an append-only journal per worker slot; what ``flush`` called durable is found again by ``recover``, whatever
byte of whatever file is damaged elsewhere; a disk that fails makes the journal degrade, never the intake stop; every
file call goes through ``Disk``.
"""
