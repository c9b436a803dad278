"""Meter: rates and percentiles out of counters that are read once a second.

Counters come as sums over all workers, which never go backwards; a sum that does all the same (a clock, a worker whose
account came late) gives a rate of 0, never a negative one.  Pure: time is an argument.
"""

from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

from tracefwd.metrics import Samples

# What a rate looks back: long enough for posts that come every 5 s, short enough for "now".
WINDOW_S = 10
_NOTHING: Mapping[tuple[str, ...], float] = {}


class Reading(NamedTuple):
    """Everything at one moment; ``at`` in seconds since 1970, ``ledger`` as ``/ledger`` has it."""

    at: float
    samples: Samples
    ledger: dict[str, Any]


class Meter:
    """The readings of the last ``WINDOW_S`` seconds."""

    def __init__(self) -> None:
        self._ring: deque[Reading] = deque(maxlen=WINDOW_S + 1)

    def take(self, reading: Reading) -> None:
        if self._ring and not 0.0 < reading.at - self._ring[-1].at < 3 * WINDOW_S:
            # The clock was set, or we slept: what came before says nothing about now.
            self._ring.clear()
        self._ring.append(reading)

    @property
    def latest(self) -> Reading | None:
        return self._ring[-1] if self._ring else None

    def value(self, name: str, *labels: str | None) -> float:
        """The sum of the series whose labels are these; None (and what is not given) stands for any."""
        return 0.0 if not self._ring else _sum(self._ring[-1].samples, name, labels)

    def gain(self, name: str, *labels: str | None) -> float:
        """By how much ``value`` grew within the window."""
        if len(self._ring) < 2:
            return 0.0
        before = _sum(self._ring[0].samples, name, labels)
        return max(0.0, self.value(name, *labels) - before)

    def rate(self, name: str, *labels: str | None) -> float:
        return self._per_s(self.gain(name, *labels))

    def by_label(self, name: str) -> dict[str, float]:
        """Values now by the first label."""
        found: dict[str, float] = {}
        for labels, value in self._series(name).items():
            found[labels[0]] = found.get(labels[0], 0.0) + value
        return found

    def ledger_rate(self, path: tuple[str, ...]) -> float:
        """Of the number at this place of the ledger; a mapping counts as the sum of its values."""
        return self._per_s(max(0.0, self.ledger_gain(path)))

    def ledger_gain(self, path: tuple[str, ...]) -> float:
        if len(self._ring) < 2:
            return 0.0
        return number_at(self._ring[-1].ledger, path) - number_at(self._ring[0].ledger, path)

    def change(self, name: str, *labels: str | None) -> float:
        """Of a gauge, a second; it may fall."""
        if len(self._ring) < 2:
            return 0.0
        grown = self.value(name, *labels) - _sum(self._ring[0].samples, name, labels)
        return grown / (self._ring[-1].at - self._ring[0].at)

    def percentiles_ms(self, histogram: str) -> dict[str, float | None]:
        """``p50``, ``p95`` and ``p99`` of what was observed within the window, in milliseconds.

        Within a bucket durations are taken to be spread evenly; the last one's are taken to be at its edge.
        """
        name = f"{histogram}_bucket"
        first = self._ring[0].samples.get(name, _NOTHING) if len(self._ring) > 1 else _NOTHING
        grown: dict[str, float] = {}
        for labels, value in self._series(name).items():
            edge = labels[-1]
            grown[edge] = grown.get(edge, 0.0) + max(0.0, value - first.get(labels, 0.0))
        edges = sorted(grown.items(), key=lambda item: float(item[0]))
        whole = edges[-1][1] if edges and len(self._ring) > 1 else 0.0
        return {
            f"p{share}": None if whole <= 0 else _read_off(edges, whole * share / 100) * 1e3
            for share in (50, 95, 99)
        }

    def _series(self, name: str) -> Mapping[tuple[str, ...], float]:
        return self._ring[-1].samples.get(name, _NOTHING) if self._ring else _NOTHING

    def _per_s(self, gain: float) -> float:
        if len(self._ring) < 2:
            return 0.0
        return round(gain / (self._ring[-1].at - self._ring[0].at), 3)


def number_at(ledger: dict[str, Any], path: tuple[str, ...]) -> float:
    """The number at this place; a mapping counts as the sum of its values, a missing place as 0."""
    place: Any = ledger
    for name in path:
        place = place.get(name, {}) if isinstance(place, dict) else {}
    return float(sum(place.values())) if isinstance(place, dict) else float(place)


def _sum(samples: Samples, name: str, wanted: tuple[str | None, ...]) -> float:
    series = samples.get(name, _NOTHING)
    if not any(wanted):
        return sum(series.values())
    return sum(
        value
        for labels, value in series.items()
        if all(mine in (None, theirs) for mine, theirs in zip(wanted, labels, strict=False))
    )


def _read_off(edges: list[tuple[str, float]], rank: float) -> float:
    """The duration (in seconds) below which ``rank`` observations lie; ``edges`` are cumulative."""
    lower, below = 0.0, 0.0
    for edge, count in edges:
        upper = float(edge)
        if count >= rank:
            if upper == float("inf"):
                return lower
            return lower + (upper - lower) * ((rank - below) / (count - below or 1.0))
        lower, below = upper, count
    return lower


__all__ = ["WINDOW_S", "Meter", "Reading", "number_at"]
