"""RED: rate, errors and durations per series, from every span, before any sampling.

Invariants:
1. every span that is handed to ``observe`` counts in exactly one series: its own, or, when ``series_max`` is
   reached, the overflow series of its application and service (``operationName=_other``), so sums stay exact;
2. values are increments since the last drain, durations are binned by the minute of arrival: they add up
   across workers, replicas and repeated lines of a minute;
3. memory is bounded: series by ``series_max``, overflow series by a tenth of it (then one for all), buckets by
   what 64-bit durations can reach; a series without spans for ``series_expiry`` makes room.

Heartbeats are the same series without their operation, so they cost the hot path nothing.  Pure: time is an argument.
"""

from collections.abc import Iterable, Iterator
from typing import Protocol

from tracefwd.model import (
    Centroids,
    Heartbeat,
    Identity,
    RedKey,
    RedPoint,
    WavefrontSpan,
)
from tracefwd.processor.series import WAITING_MAX, Series, Siblings, Table, unpack
from tracefwd.processor.sketch import Buckets, centroids, short_indexes
from tracefwd.settings import RedSettings

OVERFLOW_OPERATION = "_other"
_OVERFLOW_ALL = RedKey(
    Identity("_other", "_other", "none", "none", "none", "_other"), OVERFLOW_OPERATION, "", "", ()
)
_NO_OPERATIONS: dict[str, Series] = {}
# Measured: a series with its places in the tables, and as many durations as may wait.
_SERIES_BYTES = 900


# One slice of a tick takes about 2 ms of merging and formatting (3 with what comes behind), so that a tick never delays
# an answer by more: measured, half a microsecond a bucket and 25 a series, on a slow day 100 with all that follows.
# Slices of 12 ms cost answers 50, because a mesh's connections were all used up meanwhile.
_SLICE_WEIGHT = 4_000
_SERIES_WEIGHT = 200


def slices(drained: Iterator[RedPoint | Heartbeat]) -> Iterator[list[RedPoint | Heartbeat]]:
    """What ``RedAggregator.drain`` gives, in pieces that cost about the same."""
    part: list[RedPoint | Heartbeat] = []
    weight = 0
    for item in drained:
        part.append(item)
        weight += _SERIES_WEIGHT
        if isinstance(item, RedPoint):
            weight += sum(len(each.buckets) for each in (*item.good, *item.bad))
        if weight >= _SLICE_WEIGHT:
            yield part
            part, weight = [], 0
    if part:
        yield part


class KeyBook(Protocol):
    """Who writes down facts, and so must know which number names which series."""

    def admitted(self, number: int, key: RedKey) -> None: ...

    def forgotten(self, number: int) -> None: ...


class RedAggregator:
    def __init__(self, settings: RedSettings) -> None:
        self._series = Table()
        self._overflow = Table()
        # Stays empty: where an identity has no series yet.
        self._none = Siblings(0)
        self.series_max = settings.series_max
        self._overflow_max = max(settings.series_max // 10, 10)
        self._expiry_s = settings.series_expiry
        self._centroids_max = settings.centroids_max
        self._minute_s = 0
        self.overflow_spans = 0
        # Of the buckets in all series: a client chooses durations, and with them how much a series weighs.
        self._buckets_bytes = 0
        self._number = 0
        self._short = short_indexes()
        self.book: KeyBook | None = None
        """Hears of every series from before its first fact to after its last."""

    @property
    def memory_bytes(self) -> int:
        """About what the tables weigh."""
        return self.active * _SERIES_BYTES + self._buckets_bytes

    @property
    def active(self) -> int:
        """Series in memory, overflow series included."""
        return self._series.active + self._overflow.active

    def observe(
        self, spans: Iterable[WavefrontSpan], now_s: int, facts: list[int] | None = None
    ) -> None:
        """Count spans that arrived now (epoch seconds).  The hot path: no call per span but for new series.

        ``facts`` gets two numbers for each span that counts: its series' number << 1 | error, and microseconds.
        """
        minute_s = self._minute_s = now_s - now_s % 60
        table, none, short = self._series, self._none, self._short
        waiting_max = WAITING_MAX
        identity: Identity | None = None
        siblings = none
        for span in spans:
            if not span.red:
                continue
            if span.identity is not identity:
                identity = span.identity
                siblings = table.get(identity, none)
                if siblings.minute_s != minute_s:
                    siblings.turn(minute_s)
            operations = siblings.get((span.kind, span.http_status, span.red_tags), _NO_OPERATIONS)
            series = operations.get(span.name)
            if series is None:
                series = self._admit(span)
                siblings = table.get(span.identity, none)
            duration_us = span.duration_us
            if facts is not None:
                facts += (series.number << 1 | span.error, duration_us)
            if duration_us < 0:
                duration_us = 0
            series.append(~duration_us if span.error else duration_us)
            if len(series) >= waiting_max:
                self._buckets_bytes += series.settle(short)

    def restore(self, key: RedKey, *, error: bool, duration_us: int, now_s: int) -> list[int]:
        """Count one fact of an earlier process, which came at ``now_s``; its facts as they are named here."""
        facts: list[int] = []
        span = WavefrontSpan(
            key.identity,
            key.operation,
            "",
            "",
            "",
            None,
            key.kind,
            key.http_status,
            error,
            0,
            duration_us // 1000,
            duration_us,
            (),
            {},
            red_tags=key.tags,
        )
        self.observe((span,), now_s, facts)
        return facts

    def drain(self, now_s: int) -> Iterator[RedPoint | Heartbeat]:
        """Take everything gathered, series by series, each at the moment it is asked for.

        Spans may be observed between two steps: a series holds increments, so what comes after its step
        is in the next drain.  Heartbeats come last, one for each (identity, kind, status, tags) that had spans.
        """
        beats: dict[Heartbeat, None] = {}
        for table in (self._series, self._overflow):
            for key, minute_s, series in table.rows():
                parts = series.parts(minute_s)
                if parts:
                    series.seen_s = now_s
                    beats[Heartbeat(key.identity, key.kind, key.http_status, key.tags)] = None
                    point = self._point(key, series.number, parts)
                    self._buckets_bytes -= sum(part.buckets_bytes for _, part in parts)
                    series.sealed = []
                    series.empty()
                    yield point
                elif now_s - series.seen_s >= self._expiry_s:
                    table.forget(key)
                    if self.book is not None:
                        self.book.forgotten(series.number)
        yield from beats

    def peek(self) -> Iterator[RedPoint]:
        """What ``drain`` would give just now, and still will; series by series, like it."""
        for table in (self._series, self._overflow):
            for key, minute_s, series in table.rows():
                parts = series.parts(minute_s)
                if parts:
                    yield self._point(key, series.number, parts)

    def _point(self, key: RedKey, number: int, parts: list[tuple[int, Series]]) -> RedPoint:
        good: list[Centroids] = []
        bad: list[Centroids] = []
        for minute_s, part in parts:
            self._buckets_bytes += part.settle(self._short)
            for into, buckets in zip((good, bad), unpack(part.buckets), strict=True):
                if buckets:
                    into.append(self._centroids(minute_s, buckets))
        errors = _count(bad)
        millis = sum(part.millis for _, part in parts)
        return RedPoint(key, _count(good) + errors, errors, millis, good, bad, number)

    def _centroids(self, minute_s: int, buckets: Buckets) -> Centroids:
        return Centroids(minute_s, centroids(buckets, self._centroids_max)[0], buckets)

    def _admit(self, span: WavefrontSpan) -> Series:
        """The new series of a span, or where there is no room for it, the overflow's."""
        key = RedKey(span.identity, span.name, span.kind, span.http_status, span.red_tags)
        if self._series.active < self.series_max:
            return self._add(self._series, key)
        self.overflow_spans += 1
        key = RedKey(span.identity, OVERFLOW_OPERATION, span.kind, "", ())
        found = self._overflow.find(key, self._minute_s)
        if found is None and self._overflow.active >= self._overflow_max:
            key = _OVERFLOW_ALL
            found = self._overflow.find(key, self._minute_s)
        return self._add(self._overflow, key) if found is None else found

    def _add(self, table: Table, key: RedKey) -> Series:
        self._number += 1
        if self.book is not None:
            self.book.admitted(self._number, key)
        return table.add(key, self._number, self._minute_s)


def _count(parts: list[Centroids]) -> int:
    return sum(count for part in parts for count, _ in part.bins)
