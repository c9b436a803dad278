"""Point lines: ``"name" value seconds source="s" "k"="v" …``, put together family by family.

A ``PointBuffer`` holds the rows of the family that is being read, finds duplicates, and hands out payloads.  A row is
(end of the line, value, seconds, timestamp as exposed, labels as exposed), all texts.  Pure.
"""

import math
from collections.abc import Callable, Sequence

from msgspec import Struct

from tracefwd.limits import FAMILY_POINTS_MAX
from tracefwd.metricspath.names import NamePlan
from tracefwd.metricspath.parser import read_labels
from tracefwd.model import Payload, Signal

Row = tuple[str, str, str, str, str]

# A quarter of an exporter's batch, so that batches fill well and little is held here.
_PAYLOAD_CHARS = 2**18
_LINES_AT_ONCE = 500


class Counts(Struct):
    """What one body came to.

    ``samples + added == points - delta_points + sum(dropped.values())``; what is no sample is in ``bad_lines``.
    A sample whose name or tags are filtered is counted as such without reading the rest of its line.  ``added`` are the
    zeros that the collector's mode sends for missing sums and counts; delta counters (``delta_points``, part of
    ``points``) and ``distributions`` are made of ``merged`` samples.  ``repairs`` is by ``limits.REPAIR_KINDS``.
    """

    bytes: int = 0
    samples: int = 0
    points: int = 0
    added: int = 0
    delta_points: int = 0
    distributions: int = 0
    families: int = 0
    dropped: dict[str, int] = {}
    bad_lines: dict[str, int] = {}
    repairs: dict[str, int] = {}


def count(table: dict[str, int], reason: str, number: int = 1) -> None:
    table[reason] = table.get(reason, 0) + number


class PayloadBuffer:
    """Lines of one signal become payloads of a modest size."""

    def __init__(self, signal: Signal) -> None:
        self._signal = signal
        self._texts: list[str] = []
        self._chars = 0
        self._items = 0
        self._payloads: list[Payload] = []

    def add_lines(self, lines: Sequence[str]) -> None:
        """Lines that are ready, each ended by LF."""
        for start in range(0, len(lines), _LINES_AT_ONCE):
            part = lines[start : start + _LINES_AT_ONCE]
            text = "".join(part)
            self._texts.append(text)
            self._items += len(part)
            self._chars += len(text)
            if self._chars >= _PAYLOAD_CHARS:
                self.cut()

    def cut(self) -> None:
        """Make a payload of what there is."""
        if self._items:
            data = "".join(self._texts).encode("utf-8", "replace")
            self._payloads.append(Payload(self._signal, data, self._items))
        self._texts, self._items, self._chars = [], 0, 0

    def take(self) -> list[Payload]:
        payloads, self._payloads = self._payloads, []
        return payloads


class PointBuffer(PayloadBuffer):
    """``finds_duplicates``: of equal series in a family the newest is sent, later lines win ties.

    ``sent`` hears of every name and how many points it came to.
    """

    def __init__(
        self,
        counts: Counts,
        *,
        finds_duplicates: bool,
        sent: Callable[[str, int], None] = lambda name, number: None,
    ) -> None:
        super().__init__(Signal.POINTS)
        self._sent = sent
        self._counts = counts
        self._finds_duplicates = finds_duplicates
        self._rows: dict[NamePlan, list[Row]] = {}

    def rows(self, plan: NamePlan) -> list[Row]:
        """The list to append a name's rows to, until ``end_family``."""
        rows = self._rows.get(plan)
        if rows is None:
            rows = self._rows[plan] = []
        return rows

    def end_full_family(self) -> None:
        """A family that is as large as one may be goes in parts."""
        if sum(map(len, self._rows.values())) >= FAMILY_POINTS_MAX:
            self.end_family()

    def end_family(self) -> None:
        for plan, rows in self._rows.items():
            if not rows:
                continue
            if self._finds_duplicates and len({row[0] for row in rows}) < len(rows):
                rows = self._newest(rows)
            name = plan.wire
            for start in range(0, len(rows), _LINES_AT_ONCE):
                part = rows[start : start + _LINES_AT_ONCE]
                self.add_lines([f"{name} {value} {when}{end}\n" for end, value, when, _, _ in part])
            self._counts.points += len(rows)
            self._sent(plan.final, len(rows))
        self._rows.clear()

    def _newest(self, rows: list[Row]) -> list[Row]:
        """One row for each end of a line; counts the others as duplicates, or as collisions of different series."""
        kept: dict[str, Row] = {}
        for row in rows:
            other = kept.get(row[0])
            if other is None:
                kept[row[0]] = row
                continue
            is_same = row[4] == other[4] or _identity(row[4]) == _identity(other[4])
            count(self._counts.dropped, "duplicate" if is_same else "collided")
            if is_same and _moment(row) >= _moment(other):
                kept[row[0]] = row
        return list(kept.values())


def _identity(block: str) -> frozenset[tuple[str, str]]:
    """The series that a block of labels means: in any order, an empty label is none."""
    labels = read_labels(block)
    assert labels is not None, "only what was read is in a row"
    return frozenset((key, value) for key, value in labels.items() if value)


def _moment(row: Row) -> float:
    """When a row's value was true; without a timestamp it is now."""
    return float(row[3]) if row[3] else math.inf
