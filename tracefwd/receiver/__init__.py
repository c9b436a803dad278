"""Bytes from the network become spans.

Contract: accept whatever can be read, because Envoy never sends anything twice and takes only 202 for
success; salvage the good spans of a bad batch and say of each bad one what and where; bound every byte, every
second and every nesting a client could use against us.  Nothing here knows Wavefront.
"""
