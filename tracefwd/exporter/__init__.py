"""Facts become bytes at Wavefront.

Contract: what is offered is delivered, rejected or dropped, and counted as exactly one of them; queues are bounded
in bytes; what can never succeed is not retried; offering never waits.
"""
