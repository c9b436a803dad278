"""What the tags of plain spans come to by their keys alone: worked out once, found again by places.

A plain span's tags are a tuple of values with a place for each key (``tag_record.py``).  A ``Layout`` knows where
the mapping's keys are in it.  A ``Shape`` knows for one workload, one kind and one set of keys whether its spans can
take the mapper's plain path, and what of their lines is the same for all of them.

Memo tables are bounded and can be emptied at any time.  Pure.
"""

import copy
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

from msgspec import Struct

from tracefwd import naming
from tracefwd.limits import MEMO_ENTRIES_MAX
from tracefwd.model import LineShape
from tracefwd.processor import tags as tagging
from tracefwd.processor.workload import Workload
from tracefwd.tag_record import TagRecord

Values = tuple[str, ...]


class Layout:
    """Where in one class of records the mapping finds what it asks for; place 0 is empty in every record.

    ``workloads`` are remembered under what ``pick_workload`` and the local endpoint say, the last one beside them.
    """

    __slots__ = (
        "_url_field",
        "flags",
        "grpc",
        "last_said",
        "last_workload",
        "names",
        "patterns",
        "pick_workload",
        "status",
        "url",
        "workload_places",
        "workloads",
    )

    def __init__(self, record: type[TagRecord], workload_keys: Sequence[str]) -> None:
        self.names = record.names
        self.status = self._place("http.status_code")
        self.flags = self._place("response_flags")
        self.grpc = self._place("grpc.status_code")
        self.url = self._place("http.url")
        self._url_field = record.__struct_fields__[self.url]
        self.workload_places = [self._place(key) for key in workload_keys if key in self.names]
        self.pick_workload = picker(self.workload_places)
        self.patterns: dict[tuple[bool, ...], Pattern] = {}
        self.workloads: dict[Any, Workload] = {}
        self.last_said: Any = None
        self.last_workload: Any = None

    def with_url(self, tags: TagRecord, url: str) -> TagRecord:
        """A copy with another ``http.url``."""
        changed = copy.copy(tags)
        setattr(changed, self._url_field, url)
        return changed

    def forget(self) -> None:
        """Shapes of workloads may keep a layout for long whose records are no longer made."""
        self.patterns.clear()
        self.workloads.clear()

    def pattern_of(self, values: Values) -> "Pattern":
        """By which of them are empty."""
        there = (*map(bool, values),)
        pattern = self.patterns.get(there)
        if pattern is None:
            if len(self.patterns) >= MEMO_ENTRIES_MAX:
                self.patterns.clear()
            pattern = self.patterns[there] = self._make_pattern(there)
        return pattern

    def _make_pattern(self, there: tuple[bool, ...]) -> "Pattern":
        varying = [place for place in range(1, len(there)) if place not in self.workload_places]
        empty = [place for place in varying if not there[place]]
        return Pattern(
            self,
            picker(varying),
            picker(empty),
            ("",) * len(empty),
            len(empty),
            tuple(self.names[place] if there[place] else "" for place in varying),
        )

    def _place(self, key: str) -> int:
        return self.names.index(key) if key in self.names else 0


class Pattern(Struct, eq=False):
    """Which tags are there: one object for all workloads whose spans have the same.

    Of a record of this pattern ``pick_varying`` gives what is not the workload's, of which ``empty_count`` are empty,
    and ``pick_empty`` gives ``nothing``.  ``keys`` belong to what varies, "" where it is empty.
    """

    layout: Layout
    pick_varying: Callable[[Values], Values]
    pick_empty: Callable[[Values], Values]
    nothing: Values
    empty_count: int
    keys: tuple[str, ...]


class Shape(Struct, eq=False):
    """``line`` is None where spans of this shape need the complete path; the others are as in ``WavefrontSpan``."""

    pattern: Pattern
    line: LineShape | None
    kind: str
    head: tuple[tuple[str, str], ...]


class Shapes:
    """``watched`` keys must not be passed through unseen; ``tags_max`` is what a plain line has room for."""

    def __init__(self, watched: frozenset[str], tags_max: int) -> None:
        self._watched = watched
        self._tags_max = tags_max
        self._memo: dict[Any, Shape] = {}

    def find(self, workload: Workload, kind: str, layout: Layout, values: Values) -> Shape:
        pattern = layout.pattern_of(values)
        key = (workload, kind, pattern)
        shape = self._memo.get(key)
        if shape is None:
            if len(self._memo) >= MEMO_ENTRIES_MAX:
                self._memo.clear()
            shape = self._memo[key] = self._make(workload, kind, pattern, values)
        return shape

    def _make(self, workload: Workload, kind: str, pattern: Pattern, values: Values) -> Shape:
        layout = pattern.layout
        names = layout.names
        shared = layout.workload_places
        there = [place for place, value in enumerate(values) if value]
        line, head = None, workload.heads[kind]
        if (
            workload.repairs is None
            # A URL may have to be masked, so it cannot be among what is fixed.
            and layout.url not in shared
            and len(there) <= self._tags_max
            and self._are_fine([names[place] for place in there], head)
        ):
            line = LineShape(
                tuple((names[place], values[place]) for place in shared if values[place]),
                pattern.keys,
            )
        return Shape(pattern, line, kind, head)

    def _are_fine(self, keys: list[str], head: Sequence[tuple[str, str]]) -> bool:
        """Whether a line can have all these keys, as they are, beside its head."""
        taken = {naming.clean_key(key) for key, _ in head} | {"ipv4", "ipv6"}
        for key in keys:
            if key in self._watched or tagging.free_key(key, taken, {}) != key:
                return False
            taken.add(naming.clean_key(key))
        return True


def picker(places: Sequence[int]) -> Callable[[Values], Values]:
    """``itemgetter`` that gives a tuple however many there are; neighbours are a slice, at a fifth of the cost."""
    if not places:
        return lambda _: ()
    first, last = places[0], places[-1]
    if [*places] == [*range(first, last + 1)]:
        return itemgetter(slice(first, last + 1))
    return itemgetter(*places)
