"""RED's tables: a place for each series, found with few looks at memory that is not in the caches.

With thousands of series behind a span, waiting for memory is what counting costs, not Python.  Hence:
1. a table is nested, the operation innermost: a post's spans share all else of their key, so that the operation
   alone is looked for among thousands;
2. a series is its own dict of buckets, and a bucket is one integer;
3. a minute ends identity by identity, at the first span of each in the next one, so nobody waits for all.

Measured with 10,000 series, against one table by the whole key and buckets of two numbers in a list: a third less a
span, half the memory.  Pure.
"""

from collections.abc import Iterator

from tracefwd.model import ZERO_INDEX, Identity, RedKey
from tracefwd.processor.sketch import Buckets

MICROS_SHIFT = 32
"""Of a bucket's integer: how many spans, and above so many bits, which no minute can fill, their microseconds."""
_COUNT_MASK = (1 << MICROS_SHIFT) - 1
ERRORS = 1 << 13
"""Added to the index of a bucket of errors; 64-bit durations reach 4,032."""
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


class Series(dict[int, int]):
    """Buckets of one series in its siblings' minute; ``sealed`` are those of earlier minutes that wait to be drained.

    ``millis``: whole milliseconds of all its spans since then.  ``seen_s``: when it was last drained with spans in it.
    """

    __slots__ = ("millis", "number", "sealed", "seen_s")

    def __init__(self, number: int) -> None:
        self.number = number
        self.millis = 0
        self.sealed: list[tuple[int, dict[int, int]]] = []
        self.seen_s = 0

    def successor(self, minute_s: int) -> "Series":
        """For a new minute; nothing is copied, so that it costs the same whatever was gathered in this one."""
        new = Series(self.number)
        new.millis = self.millis
        new.sealed = [*self.sealed, (minute_s, self)]
        new.seen_s = self.seen_s
        return new

    def parts(self, minute_s: int) -> list[tuple[int, dict[int, int]]]:
        """All minutes with spans, the present one last."""
        return [*self.sealed, (minute_s, self)] if self else self.sealed


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
                if series:
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
