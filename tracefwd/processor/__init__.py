"""Spans become facts: Wavefront spans, sampling verdicts, RED series, heartbeats.

Contract: pure.  No sockets, clocks, randomness or logs; time is an argument; memory is bounded whatever
clients send.  RED observes every span once, before any sampling.
"""
