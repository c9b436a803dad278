"""Launches: of which entries lines may be at their destination although nobody said so.  Pure.

A range of entries is launched when its lines are about to be sent.  It is so no longer when an answer said that none of
them was taken, or when all of them are over.  What is launched when a process dies may come twice; nothing else can.
"""

from bisect import bisect_left, bisect_right, insort


class Launches:
    """Ranges of one lane do not overlap; there are as many as there are batches in memory, at most."""

    def __init__(self) -> None:
        self._firsts: dict[int, list[int]] = {}
        self._lasts: dict[tuple[int, int], int] = {}

    def begin(self, lane: int, first: int, last: int) -> None:
        """The same range may be launched again, and have grown."""
        if (lane, first) not in self._lasts:
            insort(self._firsts.setdefault(lane, []), first)
        self._lasts[lane, first] = last

    def end(self, lane: int, first: int, last: int) -> None:
        """Whatever was launched from ``first`` to ``last``."""
        firsts = self._firsts.get(lane)
        if not firsts:
            return
        start, stop = bisect_left(firsts, first), bisect_right(firsts, last)
        for gone in firsts[start:stop]:
            del self._lasts[lane, gone]
        del firsts[start:stop]

    def has(self, lane: int, seq: int) -> bool:
        firsts = self._firsts.get(lane)
        at = bisect_right(firsts, seq) - 1 if firsts else -1
        return at >= 0 and seq <= self._lasts[lane, self._firsts[lane][at]]

    def ranges(self, lane: int) -> list[tuple[int, int]]:
        return [(first, self._lasts[lane, first]) for first in self._firsts.get(lane, ())]
