"""Pending: which entries each lane still has to do something for, segment by segment.  Pure.

The journal keeps it while it writes, recovery makes it again from the frames; a segment that has none can go.  Eight
bytes an entry and lane.  A seq may stand twice for a lane: an entry may have two payloads for it.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator


class Share:
    """What is pending of one segment's entries: lane id -> seqs, ascending."""

    __slots__ = ("first", "lanes", "number")

    def __init__(self, number: int, first: int) -> None:
        self.number = number
        self.first = first
        self.lanes: dict[int, array[int]] = {}

    @property
    def is_empty(self) -> bool:
        return not any(self.lanes.values())


class Pending:
    def __init__(self) -> None:
        self._shares: list[Share] = []

    def begin(self, number: int, first: int) -> None:
        """A new segment; its entries' seqs are ``first`` and above."""
        self._shares.append(Share(number, first))

    def add(self, lane: int, seqs: Iterable[int]) -> None:
        """Entries of the newest segment."""
        lanes = self._shares[-1].lanes
        if lane not in lanes:
            lanes[lane] = array("Q")
        lanes[lane].extend(seqs)

    def done(self, lane: int, first: int, last: int) -> None:
        """Nothing is left to do for ``first`` to ``last``; seqs that are not pending are passed over."""
        shares = self._shares
        at = max(0, bisect_right(shares, first, key=_first_of) - 1)
        while at < len(shares) and shares[at].first <= last:
            seqs = shares[at].lanes.get(lane)
            if seqs:
                del seqs[bisect_left(seqs, first) : bisect_right(seqs, last)]
            at += 1

    def keep_only(self, lane: int, below: int, kept: "array[int]") -> None:
        """Of the seqs below ``below`` only those in ``kept`` are pending, if they were."""
        kept_set = frozenset(kept)
        for share in self._shares:
            if share.first >= below:
                return
            seqs = share.lanes.get(lane)
            if seqs:
                share.lanes[lane] = array("Q", (s for s in seqs if s >= below or s in kept_set))

    def has(self, number: int, lane: int, seq: int) -> bool:
        """Whether the entry that stands in segment ``number`` is pending."""
        share = next((share for share in self._shares if share.number == number), None)
        seqs = share.lanes.get(lane) if share is not None else None
        if not seqs:
            return False
        at = bisect_left(seqs, seq)
        return at < len(seqs) and seqs[at] == seq

    def touches(self, lane: int, first: int, last: int) -> bool:
        """Whether anything from ``first`` to ``last`` is pending."""
        parts = (share.lanes.get(lane) for share in self._shares)
        return any(seqs and bisect_left(seqs, first) < bisect_right(seqs, last) for seqs in parts)

    def seqs(self, lane: int) -> "array[int]":
        """All that is pending for a lane, ascending."""
        found: array[int] = array("Q")
        for share in self._shares:
            if lane in share.lanes:
                found += share.lanes[lane]
        return found

    def lanes(self) -> list[int]:
        """Lanes with something pending."""
        return list({lane: None for share in self._shares for lane, s in share.lanes.items() if s})

    def empty(self, below_number: int) -> Iterator[int]:
        """Segments older than ``below_number`` that nobody needs, oldest first."""
        for share in self._shares:
            if share.number < below_number and share.is_empty:
                yield share.number

    def forget(self, number: int) -> None:
        self._shares = [share for share in self._shares if share.number != number]


def _first_of(share: Share) -> int:
    return share.first
