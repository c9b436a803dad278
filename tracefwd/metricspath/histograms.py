"""Typed families that are put together before anything is sent: distributions, and the collector's own way.

The collector (``metrics.mode: collector``) gathers each histogram and summary by its labels, passes counts through an
unsigned integer, prints bounds anew, and sends a count and a sum of 0 where the body has none.

With ``convertHistograms`` a histogram becomes a Wavefront distribution of what came since the last scrape: in the
default mode each bucket's observations at its middle; in the collector's mode a rate per minute, smoothed over the
bounds.  Pure.
"""

import math
from hashlib import blake2b

from msgspec import Struct

from tracefwd.limits import FAMILY_POINTS_MAX
from tracefwd.metricspath import go_numbers
from tracefwd.metricspath.filters import Tags
from tracefwd.metricspath.names import NamePlan

# Histograms remembered for the next difference: at 20 buckets about 1 kB each.
_SERIES_MAX = 20_000
# As for delta counters: a pod that is away for longer is another one.
_EXPIRY_S = 3_600.0
# No counter gets there, but what a broken one says may.
_COUNT_MAX = 2.0**63
# Wavefront reads a bin's observations as a 32-bit integer, and refuses the whole distribution for a larger one.
_OBSERVATIONS_MAX = 2**31 - 1

Bin = tuple[int, float]
Part = tuple[str, Tags, str]
"""``(part, labels, value as text)``: one point of a family."""


class Group(Struct):
    """One histogram or summary: its labels without ``le`` and ``quantile``, and what the body said of it."""

    labels: Tags
    buckets: list[tuple[float, float]] = []
    quantiles: list[tuple[float, float]] = []
    count: float = 0.0
    sum: float = 0.0
    samples: int = 0

    def parts(self) -> list[Part]:
        """The collector's points."""
        labels = self.labels
        parts = [
            (
                "quantile",
                {**labels, "quantile": go_numbers.shortest(bound)},
                go_numbers.plain(value),
            )
            for bound, value in self.quantiles
            if not math.isnan(value)
        ]
        for bound, value in self.buckets:
            whole = go_numbers.plain(go_numbers.unsigned(value))
            parts.append(("bucket", {**labels, "le": go_numbers.shortest(bound)}, whole))
        parts.append(("count", labels, go_numbers.plain(go_numbers.unsigned(self.count))))
        parts.append(("sum", labels, go_numbers.plain(self.sum)))
        return parts


class Family:
    """The groups of one typed family while it is read."""

    def __init__(self, plan: NamePlan) -> None:
        self.kind = plan.type
        self.name = plan.family
        self._groups: dict[frozenset[tuple[str, str]], Group] = {}

    def add(self, plan: NamePlan, labels: Tags, value: float) -> bool:
        """Take a sample; False if its ``le`` or ``quantile`` is no number."""
        label = "quantile" if self.kind == "summary" else "le"
        bound_text = labels.get(label)
        own = {key: text for key, text in labels.items() if key != label}
        bound = go_numbers.parse(bound_text) if bound_text is not None else None
        if bound_text is not None and bound is None:
            return False
        group = self._groups.setdefault(frozenset(own.items()), Group(own))
        group.samples += 1
        if plan.part == "count":
            group.count = value
        elif plan.part == "sum":
            group.sum = value
        elif bound is not None:
            (group.quantiles if plan.part == "quantile" else group.buckets).append((bound, value))
        return True

    def take_all(self) -> list[Group]:
        groups = list(self._groups.values())
        self._groups.clear()
        return groups

    def take_all_but_last(self) -> list[Group]:
        """The newest group may be incomplete yet: what follows will be its own, unless it is too large by itself."""
        key, last = self._groups.popitem()
        groups = self.take_all()
        if last.samples < FAMILY_POINTS_MAX:
            self._groups[key] = last
        else:
            groups.append(last)
        return groups

    def take_last(self) -> Group | None:
        """The newest group, if there is one."""
        return self._groups.popitem()[1] if self._groups else None


class Distributions:
    """From cumulative buckets to what came since; remembers each histogram's last buckets."""

    def __init__(self, *, is_collector: bool) -> None:
        self._is_collector = is_collector
        self._last: dict[bytes, tuple[float, list[tuple[float, float]]]] = {}

    def bins(self, name: str, group: Group, now_s: float) -> list[Bin] | str:
        """``(observations, value)`` by value; empty if there were none; or a drop reason, as for a first time."""
        for _, number in group.buckets:
            if not abs(number) <= _COUNT_MAX:
                return "nan" if math.isnan(number) else "infinite"
        found = self._bins(name, group, now_s)
        if isinstance(found, str):
            return found
        return "infinite" if any(number > _OBSERVATIONS_MAX for number, _ in found) else found

    def _bins(self, name: str, group: Group, now_s: float) -> list[Bin] | str:
        key = _digest(name, group.labels)
        buckets = sorted(group.buckets)
        last = self._last.get(key)
        if last is None and len(self._last) >= _SERIES_MAX:
            self._forget(now_s)
            if len(self._last) >= _SERIES_MAX:
                return "series_max"
        self._last[key] = (now_s, buckets)
        if last is None or [bound for bound, _ in last[1]] != [bound for bound, _ in buckets]:
            return "first_seen"
        then_s, before = last
        shrank = any(new < old for (_, new), (_, old) in zip(buckets, before, strict=True))
        if self._is_collector:
            minutes = (int(now_s) - int(then_s)) / 60
            if shrank or minutes <= 0:
                return "first_seen"
            rates = [
                (bound, (new - old) / minutes)
                for (bound, new), (_, old) in zip(buckets, before, strict=True)
            ]
            return _smoothed(_single(rates))
        if shrank:
            # It has begun anew: all of it came since.
            return _middles(_single(buckets))
        grown = [(bound, new - old) for (bound, new), (_, old) in zip(buckets, before, strict=True)]
        return _middles(_single(grown))

    def _forget(self, now_s: float) -> None:
        self._last = {key: kept for key, kept in self._last.items() if kept[0] >= now_s - _EXPIRY_S}


def _single(cumulative: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Each bucket's own count."""
    before = [0.0, *[number for _, number in cumulative]]
    return [
        (bound, number - earlier)
        for (bound, number), earlier in zip(cumulative, before, strict=False)
    ]


def _middles(buckets: list[tuple[float, float]]) -> list[Bin]:
    bins: dict[float, int] = {}
    lower = 0.0
    for bound, number in buckets:
        if math.isinf(bound):
            value = lower
        else:
            value = bound if bound <= lower else (lower + bound) / 2
            lower = bound
        if number >= 0.5:
            bins[value] = bins.get(value, 0) + round(number)
    return [(number, value) for value, number in sorted(bins.items())]


def _smoothed(buckets: list[tuple[float, float]]) -> list[Bin]:
    """The collector's way: a quarter at each bound, a half between, all scaled so that the smallest is one."""
    if len(buckets) == 1 and buckets[0][0] == math.inf:
        return []
    smallest = min((number for _, number in buckets if number > 0), default=math.inf)
    scale = max(1.0, min(1 / smallest, _COUNT_MAX))
    bins: dict[float, float] = {}
    for index, (bound, number) in enumerate(buckets):
        if bound <= 0 or number == 0:
            continue
        lower = buckets[index - 1][0] if index else 0.0
        upper = lower if bound == math.inf else bound
        scaled = max(1.0, number * scale)
        low, middle = math.floor(scaled / 4), math.floor(scaled / 2)
        for value, share in (
            (lower, low),
            ((upper + lower) / 2, middle),
            (upper, math.floor(scaled - low - middle)),
        ):
            bins[value] = bins.get(value, 0) + share
    return [(int(number), value) for value, number in sorted(bins.items()) if number]


def _digest(name: str, labels: Tags) -> bytes:
    text = name + "\n".join([f"{key}={value}" for key, value in sorted(labels.items()) if value])
    return blake2b(text.encode("utf-8", "replace"), digest_size=16).digest()
