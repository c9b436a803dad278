"""How many spans' RED a batch of lines carries: what may count twice when it is sent twice.  Pure.

Delta counters and distributions have no key by which a back end would notice.  Reading the lines back is cheaper
than carrying the number along, because it is asked only after an answer was lost.
"""

import re

from tracefwd.exporter import otlp_frames
from tracefwd.model import Signal

# The counters of spans; errors and times count the same spans again.
_INVOCATIONS = re.compile(rb'\.invocation\.count" ([0-9]+) ')
# Counts of centroids stand before the name, which is the first quote.
_CENTROID = re.compile(rb"#([0-9]+) ")


class Again:
    """Lines that were sent once more although they may have arrived, and how many spans' RED was in them."""

    __slots__ = ("items", "red")

    def __init__(self) -> None:
        self.items = self.red = 0


def red_spans(signal: str, lines: bytes) -> int:
    """0 for lines that are no RED: spans, heartbeats."""
    if otlp_frames.is_framed(lines):
        return otlp_frames.red_spans(lines)
    if signal == Signal.POINTS:
        return sum(map(int, _INVOCATIONS.findall(lines)))
    if signal == Signal.DISTRIBUTIONS:
        heads = (line.partition(b'"')[0] for line in lines.split(b"\n"))
        return sum(int(count) for head in heads for count in _CENTROID.findall(head))
    return 0


__all__ = ["Again", "red_spans"]
