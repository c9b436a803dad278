"""Synthetic spans of a mesh, posted to any Zipkin endpoint as Envoys post them.

Contract: bodies look like Envoy's own in fields, tags, order and batching; nothing is ever sent twice; posts leave at
their scheduled times whether or not the receiver keeps up, and latency counts from those times, so that a stall
is seen by every post it delayed.  What was sent, acknowledged and lost is counted, span by span.
"""
