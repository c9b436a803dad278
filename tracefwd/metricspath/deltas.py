"""Cumulative counters of single pods become delta counters: difference first, then the sum over pods.

A counter that is smaller than before has begun anew: all of it came since.  A series of a pod that an earlier whole
scrape knows has begun since; the first value of an unknown pod is only remembered, for nobody knows since when it
counts.  A vanished pod takes nothing away.  A value that is older than the one before it, by their exposed times, is
another copy of the series (one of two Prometheus replicas behind an address, external labels) and no new beginning.  So
nothing is invented across restarts of pods, of Prometheus and of tracefwd.

Sums over pods cannot be treated so (they shrink when a pod goes, and a restart hides in the others' growth):
``check`` refuses a configuration that would, and names the recording rule.  State changes in ``commit`` alone.  Pure.
"""

from hashlib import blake2b
from typing import NamedTuple
from urllib.parse import unquote

from tracefwd.metricspath import go_numbers
from tracefwd.metricspath.globs import Globs, problems
from tracefwd.metricspath.tags import Rendered, TagRules
from tracefwd.settings import DeltaSettings, PrometheusSourceSettings

# The aggregated series of the Istio integration: the rule federate:NAME makes them.
_HISTOGRAMS = (
    "istio_request_duration_milliseconds",
    "istio_request_bytes",
    "istio_response_bytes",
)
_QUANTILES = ("p50", "p75", "p90", "p95", "p99", "p999")
_PARTS = ("bucket", "sum", "count", *[f"bucket_{quantile}" for quantile in _QUANTILES])
AGGREGATED = (
    *[f"{stem}_{part}" for stem in _HISTOGRAMS for part in _PARTS],
    "istio_requests_total",
    "istio_tcp_sent_bytes_total",
    "istio_tcp_received_bytes_total",
    "istio_tcp_connections_opened_total",
    "istio_tcp_connections_closed_total",
)
_AGGREGATING_JOB = "federate"
# Endings of the final name that a rule's series may have.
_ENDINGS = (".value", ".counter")

SeriesKey = bytes


class _Reading(NamedTuple):
    """A series' value and when it was true by its exposed time: epoch seconds, not a number where it has none."""

    value: float
    moment_s: float


def check(source: PrometheusSourceSettings, where: str) -> list[str]:
    """One sentence for each pattern of ``deltas.names`` that cannot be used with this source."""
    patterns = source.deltas.names
    found = [f"{where}.deltas.names: {problem}" for problem in problems(patterns)]
    if not patterns or found:
        return found
    if source.deltas.series_max < 1 or source.deltas.expiry <= 0:
        found.append(f"{where}.deltas: series_max and expiry must be above zero")
    if not source.deltas.without:
        found.append(
            f"{where}.deltas.without: names no label that tells pods apart; write [instance]"
        )
    asked = unquote(source.url) + source.strip_prefix
    if _AGGREGATING_JOB not in asked.partition("?")[2] + source.strip_prefix:
        return found
    for text in patterns:
        globs = Globs([text] * min(2, len(patterns)))
        for series in AGGREGATED:
            stem = source.prefix + series.replace("_", ".")
            if any(globs.matches(stem + ending) for ending in _ENDINGS):
                found.append(
                    f"{where}.deltas.names: {text!r} would take differences of {stem}.value, which the recording rule "
                    f"federate:{series} sums over pods; scrape the pods' own series (without job=federate and "
                    "federate: names), or leave it out"
                )
                break
    return found


class Deltas:
    """Remembers the last value of each series.  Bounded by ``series_max``; about 250 bytes a series."""

    def __init__(self, settings: DeltaSettings, rules: TagRules) -> None:
        self._without = frozenset(settings.without)
        self._series_max = settings.series_max
        self._expiry = settings.expiry
        self._rules = rules
        self._last: dict[SeriesKey, tuple[_Reading, float]] = {}
        self._pods: dict[tuple[str, ...], float] = {}
        # Once a series was refused, one that is new to us need not be new.
        self._was_full = False

    def begin(self) -> "DeltaScrape":
        return DeltaScrape(self)

    def pod(self, labels: dict[str, str]) -> tuple[str, ...] | None:
        """What tells this pod from others; None if the series is not of a single pod."""
        values = tuple(labels.get(key, "") for key in sorted(self._without))
        if not any(values) or labels.get("job") == _AGGREGATING_JOB:
            return None
        return values

    def last(self, key: SeriesKey) -> _Reading | None:
        """What the last scrape that had the series read."""
        kept = self._last.get(key)
        return None if kept is None else kept[0]

    def newer(self, last: _Reading | None, reading: _Reading) -> _Reading:
        """``reading``, or ``last`` if that was true later, but not by a clock that was far ahead."""
        if last is not None and 0 < last.moment_s - reading.moment_s <= self._expiry:
            return last
        return reading

    def difference(
        self, last: _Reading | None, pod: tuple[str, ...], value: float, room: int
    ) -> float | str:
        """What came since ``last``, or a drop reason; ``room``: how many new series fit in."""
        if last is not None:
            return value - last.value if value >= last.value else value
        if room <= 0:
            self._was_full = True
            return "series_max"
        is_new = pod in self._pods and not self._was_full
        return value if is_new else "first_seen"

    def render(self, labels: dict[str, str]) -> str | Rendered:
        return self._rules.render(
            {key: value for key, value in labels.items() if key not in self._without}
        )

    def room(self) -> int:
        return self._series_max - len(self._last)

    def commit(
        self,
        readings: dict[SeriesKey, _Reading],
        pods: set[tuple[str, ...]],
        now_s: float,
        *,
        complete: bool,
    ) -> None:
        for key, reading in readings.items():
            self._last[key] = (reading, now_s)
        if not complete:
            # Half of a pod's series would make the other half look new next time.
            return
        self._pods.update(dict.fromkeys(pods, now_s))
        oldest = now_s - self._expiry
        if any(seen < oldest for seen in self._pods.values()):
            self._pods = {pod: seen for pod, seen in self._pods.items() if seen >= oldest}
        if any(seen < oldest for _, seen in self._last.values()):
            self._last = {key: kept for key, kept in self._last.items() if kept[1] >= oldest}


class DeltaScrape:
    """One body's differences; nothing is remembered before ``finish``.

    ``repairs`` counts by kind what was changed of the samples' tags.
    """

    def __init__(self, deltas: Deltas) -> None:
        self.repairs: dict[str, int] = {}
        self._deltas = deltas
        self._readings: dict[SeriesKey, _Reading] = {}
        self._pods: set[tuple[str, ...]] = set()
        self._sums: dict[tuple[str, str], float] = {}
        self._room = deltas.room()

    def add(self, wire: str, labels: dict[str, str], value: float, moment_s: float) -> str:
        """Takes a sample; the reason why it became no point of its own: ``merged``, or why it was dropped.

        ``moment_s`` is its exposed time in epoch seconds, not a number if it has none.
        """
        deltas = self._deltas
        pod = deltas.pod(labels)
        if pod is None:
            return "not_per_pod"
        end = deltas.render(labels)
        if isinstance(end, Rendered):
            if end.reason:
                return end.reason
            for kind, number in (end.repairs or {}).items():
                self.repairs[kind] = self.repairs.get(kind, 0) + number
            end = end.text
        key = _digest(wire, labels)
        last = deltas.last(key)
        reading = deltas.newer(last, _Reading(value, moment_s))
        other = self._readings.get(key)
        if other is not None:
            if reading.moment_s > other.moment_s:
                self._readings[key] = reading
                self._replace((wire, end), last, pod, other, reading)
            return "duplicate"
        difference = deltas.difference(last, pod, reading.value, self._room)
        if difference == "series_max":
            return "series_max"
        # Whatever it is worth now: a series that a known pod began takes room, too.
        if last is None:
            self._room -= 1
        self._readings[key] = reading
        self._pods.add(pod)
        if isinstance(difference, str):
            return difference
        self._sums[wire, end] = self._sums.get((wire, end), 0.0) + difference
        return "merged"

    def _replace(
        self,
        point: tuple[str, str],
        last: _Reading | None,
        pod: tuple[str, ...],
        other: _Reading,
        newer: _Reading,
    ) -> None:
        """Of equal series in a body the newest counts; it has the other's room."""
        counted = self._deltas.difference(last, pod, other.value, 1)
        counts = self._deltas.difference(last, pod, newer.value, 1)
        if not isinstance(counted, str) and not isinstance(counts, str):
            self._sums[point] += counts - counted

    def finish(self, now_s: float, *, complete: bool) -> list[str]:
        """The lines of what grew; zeros are not sent, Wavefront would not count them."""
        self._deltas.commit(self._readings, self._pods, now_s, complete=complete)
        return [
            f"{wire} {go_numbers.plain(total)} {int(now_s)}{end}\n"
            for (wire, end), total in self._sums.items()
            if total > 0
        ]


def _digest(wire: str, labels: dict[str, str]) -> SeriesKey:
    text = wire + "\n".join([f"{key}={value}" for key, value in sorted(labels.items()) if value])
    return blake2b(text.encode("utf-8", "replace"), digest_size=16).digest()
