"""What the metric lines add up to, per series: increments, distributions, heartbeats, last values.

A series is (name, source, tags).  Totals over all series are exact whatever happens; the tables are bounded, and a
series that finds no room is counted as untracked.  Pure.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tracefwd.emulator.metric_reader import Distribution, Point, Tags

HEARTBEAT = "~component.heartbeat"
# A mesh of thousands of workloads; about 50 MB of tables at the most.
SERIES_MAX = 50_000
# Different means kept per distribution; count and sum stay exact beyond.
CENTROIDS_MAX = 2_000
# RED's three counters by the end of their names.
RED_ENDINGS = ("invocation.count", "error.count", "total_time.millis.count")

Key = tuple[str, str, Tags]


@dataclass(slots=True)
class Increments:
    sum: float = 0.0
    lines: int = 0


@dataclass(slots=True)
class Samples:
    """``centroids``: mean -> count, over all bins together."""

    granularity: str
    count: int = 0
    sum: float = 0.0
    lines: int = 0
    centroids: dict[float, int] = field(default_factory=dict)
    centroids_complete: bool = True


@dataclass(slots=True)
class Last:
    value: float
    time_ms: int
    lines: int = 0


class SeriesTable:
    """All series since the start or the last reset."""

    def __init__(self, series_max: int = SERIES_MAX) -> None:
        self._series_max = series_max
        self.deltas: dict[Key, Increments] = {}
        self.distributions: dict[Key, Samples] = {}
        self.heartbeats: dict[Key, Last] = {}
        self.points: dict[Key, Last] = {}
        self.delta_lines = 0
        self.delta_sum = 0.0
        self.red = dict.fromkeys(RED_ENDINGS, 0.0)
        self.distribution_count = 0
        self.distribution_sum = 0.0
        self.untracked = 0

    def add_point(self, point: Point) -> None:
        key = (point.name, point.source, point.tags)
        if point.is_delta:
            self.delta_lines += 1
            self.delta_sum += point.value
            for ending in RED_ENDINGS:
                if point.name.endswith(ending):
                    self.red[ending] += point.value
            if self._room(self.deltas, key):
                increments = self.deltas.setdefault(key, Increments())
                increments.sum += point.value
                increments.lines += 1
            return
        table = self.heartbeats if point.name == HEARTBEAT else self.points
        if self._room(table, key):
            last = table.setdefault(key, Last(point.value, point.time_ms))
            last.value, last.time_ms = point.value, point.time_ms
            last.lines += 1

    def add_distribution(self, line: Distribution) -> None:
        count, total = line.count, line.sum
        self.distribution_count += count
        self.distribution_sum += total
        key = (line.name, line.source, line.tags)
        if not self._room(self.distributions, key):
            return
        samples = self.distributions.setdefault(key, Samples(line.granularity))
        samples.count += count
        samples.sum += total
        samples.lines += 1
        for mean, weight in line.centroids:
            if mean in samples.centroids or len(samples.centroids) < CENTROIDS_MAX:
                samples.centroids[mean] = samples.centroids.get(mean, 0) + weight
            else:
                samples.centroids_complete = False

    def _room(self, table: dict[Key, Any], key: Key) -> bool:
        if key in table or len(table) < self._series_max:
            return True
        self.untracked += 1
        return False

    def shown(self, prefix: str) -> dict[str, Any]:
        """For the query API: names that begin with ``prefix``; a delta sign may be left out of it."""
        return {
            "delta_counters": [
                {**row, "sum": value.sum, "lines": value.lines}
                for row, value in _rows(self.deltas, prefix)
            ],
            "distributions": [
                {
                    **row,
                    "granularity": value.granularity,
                    "count": value.count,
                    "sum": value.sum,
                    "lines": value.lines,
                    "centroids": sorted(map(list, value.centroids.items())),
                    "centroids_complete": value.centroids_complete,
                }
                for row, value in _rows(self.distributions, prefix)
            ],
            "heartbeats": [
                {**row, "value": value.value, "lines": value.lines}
                for row, value in _rows(self.heartbeats, prefix)
            ],
            "points": [
                {**row, "value": value.value, "time_ms": value.time_ms, "lines": value.lines}
                for row, value in _rows(self.points, prefix)
            ],
            "untracked": self.untracked,
        }


def _rows(table: dict[Key, Any], prefix: str) -> Iterator[tuple[dict[str, Any], Any]]:
    for (name, source, tags), value in table.items():
        if name.startswith(prefix) or name[1:].startswith(prefix):
            yield {"name": name, "source": source, "tags": dict(tags)}, value
