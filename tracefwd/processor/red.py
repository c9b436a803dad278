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

from tracefwd.model import Centroids, Heartbeat, Identity, RedKey, RedPoint, WavefrontSpan
from tracefwd.processor.sketch import SHORT_US, Buckets, centroids, index_of, short_indexes
from tracefwd.settings import RedSettings

OVERFLOW_OPERATION = "_other"
_OVERFLOW_ALL = RedKey(
    Identity("_other", "_other", "none", "none", "none", "_other"), OVERFLOW_OPERATION, "", "", ()
)
# Measured: a series with its key, and a bucket with its list, two numbers and its place in a dict.
_SERIES_BYTES = 600
_BUCKET_BYTES = 220


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


class _Series:
    """What one series gathered since its last drain."""

    __slots__ = (
        "bad",
        "errors",
        "good",
        "invocations",
        "millis",
        "number",
        "sealed",
        "seen_s",
    )

    def __init__(self, number: int) -> None:
        self.number = number
        self.invocations = 0
        self.errors = 0
        self.millis = 0
        self.good: Buckets = {}
        self.bad: Buckets = {}
        self.sealed: list[tuple[int, Buckets, Buckets]] = []
        self.seen_s = 0

    def seal(self, minute_s: int) -> None:
        """Close the buckets of a minute that is over."""
        if self.good or self.bad:
            self.sealed.append((minute_s, self.good, self.bad))
            self.good = {}
            self.bad = {}


class RedAggregator:
    def __init__(self, settings: RedSettings) -> None:
        self._series: dict[RedKey, _Series] = {}
        self._overflow: dict[RedKey, _Series] = {}
        self.series_max = settings.series_max
        self._overflow_max = max(settings.series_max // 10, 10)
        self._expiry_s = settings.series_expiry
        self._centroids_max = settings.centroids_max
        self._minute_s = 0
        self.overflow_spans = 0
        # Buckets in all series: a client chooses durations, and with them how much a series weighs.
        self._buckets = 0
        self._number = 0
        self._short = short_indexes()
        self.book: KeyBook | None = None
        """Hears of every series from before its first fact to after its last."""

    @property
    def memory_bytes(self) -> int:
        """About what the tables weigh."""
        return self.active * _SERIES_BYTES + self._buckets * _BUCKET_BYTES

    @property
    def active(self) -> int:
        """Series in memory, overflow series included."""
        return len(self._series) + len(self._overflow)

    def observe(
        self, spans: Iterable[WavefrontSpan], now_s: int, facts: list[int] | None = None
    ) -> None:
        """Count spans that arrived now (epoch seconds).  The hot path: no call per span but for new series.

        ``facts`` gets two numbers for each span that counts: its series' number << 1 | error, and microseconds.
        """
        if now_s >= self._minute_s + 60 or now_s < self._minute_s:
            self._turn(now_s)
        find, short = self._series.get, self._short
        for span in spans:
            if not span.red:
                continue
            key = (span.identity, span.name, span.kind, span.http_status, span.red_tags)
            series = find(key) or self._admit(RedKey(*key))  # type: ignore[call-overload]
            duration_us = span.duration_us
            series.invocations += 1
            series.millis += span.duration_ms
            if facts is not None:
                facts += (series.number << 1 | span.error, duration_us)
            if span.error:
                series.errors += 1
                buckets = series.bad
            else:
                buckets = series.good
            if 0 <= duration_us < SHORT_US:
                index = short[duration_us]
            else:
                index = index_of(duration_us)
            bucket = buckets.get(index)
            if bucket is None:
                buckets[index] = [1, duration_us]
                self._buckets += 1
            else:
                bucket[0] += 1
                bucket[1] += duration_us

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
        if now_s >= self._minute_s + 60 or now_s < self._minute_s:
            self._turn(now_s)
        beats: dict[Heartbeat, None] = {}
        for table in (self._series, self._overflow):
            for key in list(table):
                series = table[key]
                if series.invocations:
                    series.seen_s = now_s
                    beats[Heartbeat(key.identity, key.kind, key.http_status, key.tags)] = None
                    yield self._take(key, series)
                elif now_s - series.seen_s >= self._expiry_s:
                    del table[key]
                    if self.book is not None:
                        self.book.forgotten(series.number)
        yield from beats

    def peek(self) -> Iterator[RedPoint]:
        """What ``drain`` would give just now, and still will; series by series, like it."""
        for table in (self._series, self._overflow):
            for key in list(table):
                series = table.get(key)
                if series is not None and series.invocations:
                    sealed = [*series.sealed, (self._minute_s, series.good, series.bad)]
                    yield RedPoint(
                        key,
                        series.invocations,
                        series.errors,
                        series.millis,
                        [self._centroids(minute, part) for minute, part, _ in sealed if part],
                        [self._centroids(minute, part) for minute, _, part in sealed if part],
                        series.number,
                    )

    def _take(self, key: RedKey, series: _Series) -> RedPoint:
        series.seal(self._minute_s)
        self._buckets -= sum(len(good) + len(bad) for _, good, bad in series.sealed)
        good = [self._centroids(minute, part) for minute, part, _ in series.sealed if part]
        bad = [self._centroids(minute, part) for minute, _, part in series.sealed if part]
        point = RedPoint(
            key, series.invocations, series.errors, series.millis, good, bad, series.number
        )
        series.invocations = series.errors = series.millis = 0
        series.sealed = []
        return point

    def _centroids(self, minute_s: int, buckets: Buckets) -> Centroids:
        return Centroids(minute_s, centroids(buckets, self._centroids_max)[0], buckets)

    def _turn(self, now_s: int) -> None:
        """A minute is over (or the clock was set back): later spans get buckets of their own."""
        for table in (self._series, self._overflow):
            for series in table.values():
                series.seal(self._minute_s)
        self._minute_s = now_s - now_s % 60

    def _admit(self, key: RedKey) -> _Series:
        if len(self._series) < self.series_max:
            return self._new(self._series, key)
        self.overflow_spans += 1
        other = RedKey(key.identity, OVERFLOW_OPERATION, key.kind, "", ())
        found = self._overflow.get(other)
        if found is None:
            if len(self._overflow) >= self._overflow_max:
                other = _OVERFLOW_ALL
            found = self._overflow.get(other) or self._new(self._overflow, other)
        return found

    def _new(self, table: dict[RedKey, _Series], key: RedKey) -> _Series:
        self._number += 1
        series = table[key] = _Series(self._number)
        if self.book is not None:
            self.book.admitted(self._number, key)
        return series
