"""What a pile of Wavefront lines says, in a form in which two piles can be compared.

Spans and span logs count as often as they came, with every field and the order of tags.  Delta counters add up per
series; distributions add up per series and minute, because the proxy may merge their centroids; heartbeats are the set
of those seen.  Pure: lines in, books out.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tracefwd.emulator.metric_reader import MetricReader, Tags
from tracefwd.emulator.rules import Limits, Refused
from tracefwd.emulator.span_reader import parse_span

SIGNALS = ("spans", "span_logs", "points", "distributions")
HEARTBEAT = "~component.heartbeat"
# Sums may go through the proxy's own rounding of means.
SUM_TOLERANCE = 1e-9

_metrics = MetricReader(Limits())
Series = tuple[str, str, Tags]
Identity = tuple[str, str, str]
# (identity, everything else)
Entry = tuple[Identity, tuple[Any, ...]]
K = TypeVar("K")
V = TypeVar("V")


@dataclass
class Books:
    """``distributions``: (series, minute in ms) -> [count, sum].  ``gauges``: points that are no RED of ours."""

    spans: Counter[Entry] = field(default_factory=Counter)
    span_logs: Counter[Entry] = field(default_factory=Counter)
    deltas: dict[Series, float] = field(default_factory=dict)
    distributions: dict[tuple[Series, int], list[float]] = field(default_factory=dict)
    heartbeats: set[Series] = field(default_factory=set)
    gauges: set[Series] = field(default_factory=set)
    unreadable: list[str] = field(default_factory=list)
    lines: Counter[str] = field(default_factory=Counter)

    def add(self, signal: str, lines: Iterable[str]) -> None:
        """``signal`` is one of ``SIGNALS``."""
        enter = {
            "spans": self._add_span,
            "span_logs": self._add_span_log,
            "points": self._add_point,
            "distributions": self._add_distribution,
        }[signal]
        for line in lines:
            self.lines[signal] += 1
            try:
                enter(line)
            except (Refused, ValueError, KeyError) as why:
                self.unreadable.append(f"{signal}: {why}: {line}")

    def _add_span(self, line: str) -> None:
        span, _ = parse_span(line)
        identity = (span.trace_id, span.span_id, span.value("span.kind") or "")
        rest = (span.name, span.source, span.start_ms, span.duration_ms, tuple(span.tags))
        self.spans[identity, rest] += 1

    def _add_span_log(self, line: str) -> None:
        log = json.loads(line)
        identity = (log["traceId"], log["spanId"], log.get("spanSecondaryId") or "")
        entries = tuple((one["timestamp"], *sorted(one["fields"].items())) for one in log["logs"])
        self.span_logs[identity, entries] += 1

    def _add_point(self, line: str) -> None:
        point = _metrics.read_point(line, 0)
        series = (point.name, point.source, point.tags)
        if point.is_delta:
            self.deltas[series] = self.deltas.get(series, 0.0) + point.value
        elif point.name == HEARTBEAT:
            self.heartbeats.add(series)
        else:
            self.gauges.add(series)

    def _add_distribution(self, line: str) -> None:
        one = _metrics.read_distribution(line, 0)
        key = ((one.name, one.source, one.tags), one.time_ms)
        total = self.distributions.setdefault(key, [0, 0.0])
        total[0] += one.count
        total[1] += one.sum

    def delta_sum(self) -> float:
        return math.fsum(self.deltas.values())

    def samples(self) -> int:
        """In all distributions."""
        return int(sum(count for count, _ in self.distributions.values()))


def differences(sent: Books, arrived: Books) -> dict[str, list[str]]:
    """Signal -> what differs, in words.  Points are told as "delta counters" and "heartbeats"."""
    return {
        "spans": _entries(sent.spans, arrived.spans),
        "span logs": _entries(sent.span_logs, arrived.span_logs),
        "delta counters": _values(sent.deltas, arrived.deltas, _close),
        "distributions": _values(
            sent.distributions,
            arrived.distributions,
            lambda a, b: a[0] == b[0] and _close(a[1], b[1]),
        ),
        "heartbeats": _names(sent.heartbeats | sent.gauges, arrived.heartbeats | arrived.gauges),
        "unreadable": [*sent.unreadable, *arrived.unreadable],
    }


def _close(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=SUM_TOLERANCE)


def _entries(sent: Counter[Entry], arrived: Counter[Entry]) -> list[str]:
    missing, extra = sent - arrived, arrived - sent
    others: dict[Identity, list[tuple[Any, ...]]] = {}
    for identity, rest in extra.elements():
        others.setdefault(identity, []).append(rest)
    told = []
    for identity, rest in missing.elements():
        found = others.get(identity)
        if found:
            told.append(f"{identity}: sent {rest}, arrived {found.pop()}")
        else:
            told.append(f"{identity}: sent {rest}, did not arrive")
    told += [
        f"{identity}: never sent so often, arrived {rest}"
        for identity, rests in others.items()
        for rest in rests
    ]
    return told


def _values(sent: Mapping[K, V], arrived: Mapping[K, V], same: Callable[[V, V], bool]) -> list[str]:
    told = []
    for key in sent.keys() | arrived.keys():
        a, b = sent.get(key), arrived.get(key)
        if a is None or b is None or not same(a, b):
            told.append(f"{key}: sent {a}, arrived {b}")
    return sorted(told)


def _names(sent: set[Series], arrived: set[Series]) -> list[str]:
    told = [f"{series}: did not arrive" for series in sent - arrived]
    told += [f"{series}: never sent" for series in arrived - sent]
    return sorted(told)
