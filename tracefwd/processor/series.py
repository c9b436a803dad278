"""RED's tables: a place for each series, found with few looks at memory that is not in the caches.

With thousands of series behind a span, waiting for memory is what counting costs, not Python.  Hence:
1. a table is nested, the operation innermost: a post's spans share all else of their key, so that the operation
   alone is looked for among thousands;
2. a span's duration is put at the end of its series' list, and counted when as many wait as are worth fetching the
   series' buckets for, or when it is drained; a bucket is one integer;
3. a minute ends identity by identity, at the first span of each in the next one, so nobody waits for all.

Measured with 10,000 series, against one table by the whole key and buckets of two numbers in a list: half as much a
span.  Pure.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from tracefwd.model import ZERO_INDEX, Identity, RedKey
from tracefwd.processor.sketch import SHORT_US, Buckets, index_of

WAITING_MAX = 16
"""Durations that wait in a series: up to 40 bytes each, 6 MB in the most series there may be by default.

Measured beside counting each at once: with 10,000 series RED costs a third less a span, with ten a tenth more.
"""

MICROS_SHIFT = 32
"""Of a bucket's integer: how many spans, and above so many bits, which no minute can fill, their microseconds."""
_COUNT_MASK = (1 << MICROS_SHIFT) - 1
ERRORS = 1 << 13
"""Added to the index of a bucket of errors; 64-bit durations reach 4,032."""
# Measured: a dict that has a bucket at all, with the series that may wait sealed; each bucket with its share of a dict
# that has just grown.
_MINUTE_BYTES = 260
_BUCKET_BYTES = 90
_ERRORS_MIN = ERRORS + ZERO_INDEX


def unpack(packed: dict[int, int]) -> tuple[Buckets, Buckets]:
    """The buckets of spans that went well, and of errors."""
    good: Buckets = {}
    bad: Buckets = {}
    for index, bucket in packed.items():
        pair = bucket & _COUNT_MASK, bucket >> MICROS_SHIFT
        if index < _ERRORS_MIN:
            good[index] = pair
        else:
            bad[index - ERRORS] = pair
    return good, bad


def _bytes(buckets: int) -> int:
    return _MINUTE_BYTES + buckets * _BUCKET_BYTES if buckets else 0


class Series(list[int]):
    """One series in its siblings' minute: durations (us) that wait to be counted, those of errors as their complement
    (``~``), and in ``buckets`` those that have been.

    ``millis``: whole milliseconds of what is counted.  ``sealed``: the same series in earlier minutes, waiting to be
    drained.  ``seen_s``: when it was last drained with spans in it.
    """

    __slots__ = ("buckets", "millis", "number", "sealed", "seen_s")

    def __init__(self, number: int) -> None:
        self.number = number
        self.sealed: list[tuple[int, Series]] = []
        self.seen_s = 0
        self.empty()

    def empty(self) -> None:
        self.clear()
        # A missing bucket is zero.
        self.buckets: defaultdict[int, int] = defaultdict(int)
        self.millis = 0

    @property
    def has_spans(self) -> bool:
        return bool(self or self.buckets)

    @property
    def buckets_bytes(self) -> int:
        """About what its buckets weigh."""
        return _bytes(len(self.buckets))

    def settle(self, short: Sequence[int]) -> int:
        """Count what waits; by how many bytes the buckets have grown.  ``short`` is ``short_indexes()``."""
        buckets, millis = self.buckets, self.millis
        before = len(buckets)
        for duration_us in self:
            if 0 <= duration_us < SHORT_US:
                index = short[duration_us]
            elif duration_us > 0:
                index = index_of(duration_us)
            else:
                duration_us = ~duration_us
                index = index_of(duration_us) + ERRORS
            millis += duration_us // 1000
            buckets[index] += duration_us << MICROS_SHIFT | 1
        self.millis = millis
        self.clear()
        return _bytes(len(buckets)) - _bytes(before)

    def successor(self, minute_s: int) -> "Series":
        """For a new minute; nothing is counted or copied: it costs the same whatever was gathered in this one."""
        new = Series(self.number)
        new.sealed = [*self.sealed, (minute_s, self)]
        new.seen_s = self.seen_s
        return new

    def parts(self, minute_s: int) -> list[tuple[int, "Series"]]:
        """All minutes with spans, the present one last."""
        return [*self.sealed, (minute_s, self)] if self.has_spans else self.sealed


Sort = tuple[str, str, tuple[tuple[str, str], ...]]
"""Of a series: kind, status, and the operator's dimensions."""


class Siblings(dict[Sort, dict[str, Series]]):
    """All series of one identity, by sort and operation, in one minute (epoch seconds)."""

    __slots__ = ("minute_s",)

    def __init__(self, minute_s: int) -> None:
        self.minute_s = minute_s

    def turn(self, minute_s: int) -> None:
        """The minute is over, or the clock was set back: later spans get buckets of their own."""
        for operations in self.values():
            for name, series in operations.items():
                if series.has_spans:
                    operations[name] = series.successor(self.minute_s)
        self.minute_s = minute_s


class Table(dict[Identity, Siblings]):
    """``active``: how many series there are, which its owner bounds."""

    __slots__ = ("active",)

    def __init__(self) -> None:
        self.active = 0

    def find(self, key: RedKey, minute_s: int) -> Series | None:
        siblings = self.get(key.identity)
        if siblings is None:
            return None
        if siblings.minute_s != minute_s:
            siblings.turn(minute_s)
        return siblings.get(_sort(key), {}).get(key.operation)

    def add(self, key: RedKey, number: int, minute_s: int) -> Series:
        siblings = self.get(key.identity)
        if siblings is None:
            siblings = self[key.identity] = Siblings(minute_s)
        series = siblings.setdefault(_sort(key), {})[key.operation] = Series(number)
        self.active += 1
        return series

    def forget(self, key: RedKey) -> None:
        """What is left empty goes, too: identities are invented as easily as operations."""
        siblings, sort = self[key.identity], _sort(key)
        del siblings[sort][key.operation]
        if not siblings[sort]:
            del siblings[sort]
        if not siblings:
            del self[key.identity]
        self.active -= 1

    def rows(self) -> Iterator[tuple[RedKey, int, Series]]:
        """Key, present minute and series of all that are there when their turn comes, while others come and go."""
        for identity, siblings in list(self.items()):
            for (kind, http_status, tags), operations in list(siblings.items()):
                for name in list(operations):
                    series = operations.get(name)
                    if series is not None:
                        key = RedKey(identity, name, kind, http_status, tags)
                        yield key, siblings.minute_s, series


def _sort(key: RedKey) -> Sort:
    return key.kind, key.http_status, key.tags
