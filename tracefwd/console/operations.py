"""Operations: what RED gathered in the last minutes, by application, service and operation; rates and percentiles.

Workers tell what they drain (at each ``red.interval``) and, while somebody looks, what they have gathered since.  A
drained row adds up for ever; the others of a worker are replaced by its next, and by what it drains.

Percentiles come from log-spaced buckets, sixteen to a doubling: one read off is within 2.2 % of the true one (or as
near as ``red.centroids_max`` left it, where durations differ ten thousandfold).  Memory:
an operation weighs about 1.5 kB, so ``CONSOLE_OPERATIONS_MAX`` of them 15 MB; those beyond count as ``_other`` of their
service, and services beyond ``CONSOLE_SERVICES_MAX`` as one.

Pure: time is an argument.
"""

from array import array
from collections.abc import Iterable, Iterator, Mapping
from math import ceil, log2
from typing import Any

import msgspec

from tracefwd.console.seen import RedRow
from tracefwd.limits import CONSOLE_OPERATIONS_MAX, CONSOLE_SERVICES_MAX
from tracefwd.model import RedPoint

SCALE = 4
_PER_DOUBLING = 1 << SCALE
_ZERO = -2
WINDOW_MINUTES = 5
PLOT_MINUTES = 15
OTHER = "_other"
# Below this a rate would rest on too little.
_WINDOW_S_MIN = 10.0

Bins = dict[int, int]
Key = tuple[str, str, str]
_pack = msgspec.msgpack.encode
_unpack = msgspec.msgpack.Decoder(Bins).decode


def rows_of(points: Iterable[RedPoint]) -> list[RedRow]:
    """In the worker: one row for each series."""
    found = []
    for point in points:
        bins: Bins = {}
        minute = 0
        for part in (*point.good, *point.bad):
            minute = max(minute, part.minute_s)
            for count, micros in part.bins:
                index = _index(micros / count)
                bins[index] = bins.get(index, 0) + count
        identity = point.key.identity
        flat = [number for pair in bins.items() for number in pair]
        found.append(
            RedRow(
                identity.application,
                identity.service,
                point.key.operation,
                minute // 60,
                point.invocations,
                point.errors,
                flat,
            )
        )
    return found


def _index(micros: float) -> int:
    return _ZERO if micros <= 0 else max(-1, ceil(log2(micros) * _PER_DOUBLING) - 1)


def _millis(index: int) -> float:
    """The middle of a bucket, in milliseconds."""
    return 0.0 if index == _ZERO else float(2.0 ** ((index + 0.5) / _PER_DOUBLING)) / 1e3


def percentiles_ms(bins: Mapping[int, int]) -> dict[str, float | None]:
    """``p50_ms``, ``p95_ms``, ``p99_ms``; None without a duration."""
    whole = sum(bins.values())
    if not whole:
        return {"p50_ms": None, "p95_ms": None, "p99_ms": None}
    found: dict[str, float | None] = {}
    ordered = sorted(bins.items())
    for share in (50, 95, 99):
        rank, below = whole * share / 100, 0
        for index, count in ordered:
            below += count
            if below >= rank:
                found[f"p{share}_ms"] = round(_millis(index), 3)
                break
    return found


class Series:
    """Minutes of one operation, or of a whole service: spans and errors for the plot, buckets for the window."""

    __slots__ = ("_bins", "_last", "_plot", "operations")

    def __init__(self) -> None:
        self._plot = array("Q", bytes(8 * 2 * (PLOT_MINUTES + 1)))
        self._bins: dict[int, bytes] = {}
        self._last = 0
        self.operations = 0

    @property
    def last_minute(self) -> int:
        return self._last

    def add(self, minute: int, spans: int, errors: int, flat: list[int]) -> None:
        self._turn(minute)
        if minute <= self._last - PLOT_MINUTES - 1:
            return
        place = minute % (PLOT_MINUTES + 1) * 2
        self._plot[place] += spans
        self._plot[place + 1] += errors
        if minute > self._last - WINDOW_MINUTES - 1 and flat:
            held = self._bins.get(minute)
            bins = {} if held is None else _unpack(held)
            _merge(bins, flat)
            self._bins[minute] = _pack(bins)

    def _turn(self, minute: int) -> None:
        if minute <= self._last:
            return
        for passed in range(max(self._last + 1, minute - PLOT_MINUTES), minute + 1):
            place = passed % (PLOT_MINUTES + 1) * 2
            self._plot[place] = self._plot[place + 1] = 0
        self._last = minute
        for old in [each for each in self._bins if each <= minute - WINDOW_MINUTES - 1]:
            del self._bins[old]

    def at(self, minute: int) -> tuple[int, int]:
        """Spans and errors of a minute."""
        if not self._last - PLOT_MINUTES <= minute <= self._last:
            return 0, 0
        place = minute % (PLOT_MINUTES + 1) * 2
        return self._plot[place], self._plot[place + 1]

    def bins(self, first: int) -> Bins:
        """Buckets of the minutes from ``first`` on."""
        found: Bins = {}
        for minute, packed in self._bins.items():
            if minute >= first:
                for index, count in _unpack(packed).items():
                    found[index] = found.get(index, 0) + count
        return found


def _merge(bins: Bins, flat: list[int]) -> None:
    for place in range(0, len(flat), 2):
        bins[flat[place]] = bins.get(flat[place], 0) + flat[place + 1]


class _Partial:
    """What a worker has gathered since it last drained."""

    __slots__ = ("coming", "rows")

    def __init__(self) -> None:
        self.rows: list[RedRow] = []
        self.coming: list[RedRow] = []


class Operations:
    """The parent's sum over all workers.  ``life`` names one of them."""

    def __init__(self, started_s: float) -> None:
        self._started_s = started_s
        self._fresh_s = started_s
        self._forgot = 0
        self._operations: dict[Key, Series] = {}
        self._services: dict[tuple[str, str], Series] = {}
        self._partials: dict[Any, _Partial] = {}

    def drained(self, life: Any, rows: Iterable[RedRow], now_s: float) -> None:
        self._partials.pop(life, None)
        self._fresh_s = now_s
        self._forget(int(now_s // 60))
        for row in rows:
            home, service = self._service(row.application, row.service)
            key = (*home, row.operation)
            if key not in self._operations and len(self._operations) >= CONSOLE_OPERATIONS_MAX:
                key = (*home, OTHER)
            series = self._operations.get(key)
            if series is None:
                # At most one for each service beyond the bound.
                series = self._operations[key] = Series()
                service.operations += 1
            for each in (series, service):
                each.add(row.minute, row.spans, row.errors, row.bins)

    def gathered(
        self, life: Any, rows: list[RedRow], now_s: float, *, first: bool, last: bool
    ) -> None:
        """A part of what a worker has gathered; with the last one it takes the place of the one before."""
        partial = self._partials.setdefault(life, _Partial())
        partial.coming = [*([] if first else partial.coming), *rows]
        if last:
            partial.rows, partial.coming = partial.coming, []
            self._fresh_s = now_s

    def retire(self, life: Any) -> None:
        """The worker is gone; what it had not drained was drained by its last tick, or is lost."""
        self._partials.pop(life, None)

    def _service(self, application: str, service: str) -> tuple[tuple[str, str], Series]:
        """What counts for it, and under which name."""
        key = (application, service)
        if key not in self._services and len(self._services) >= CONSOLE_SERVICES_MAX:
            key = (OTHER, OTHER)
        return key, self._services.setdefault(key, Series())

    def _forget(self, minute: int) -> None:
        """Make room where there is none: what has no span in all of the plot goes.  Looked for once a minute."""
        is_full = (
            len(self._operations) >= CONSOLE_OPERATIONS_MAX
            or len(self._services) >= CONSOLE_SERVICES_MAX
        )
        if not is_full or minute == self._forgot:
            return
        self._forgot = minute
        oldest = minute - PLOT_MINUTES
        for key in [k for k, s in self._operations.items() if s.last_minute < oldest]:
            del self._operations[key]
            self._services[key[:2]].operations -= 1
        # A service is as young as its youngest operation, so none is left of these.
        for home in [k for k, s in self._services.items() if s.last_minute < oldest]:
            del self._services[home]

    def known(self) -> Iterable[tuple[str, str]]:
        """Services that send spans themselves."""
        return [*self._services, *((r.application, r.service) for r in self._gathered_rows())]

    # What is shown

    def window_s(self, now_s: float) -> float:
        """How far back the numbers look: five minutes, the last of them as far as it is known."""
        begin = max(self._started_s, self._first_minute(now_s) * 60.0)
        return round(max(_WINDOW_S_MIN, self._fresh_s - begin), 1)

    def _first_minute(self, now_s: float) -> int:
        return int(now_s // 60) - WINDOW_MINUTES + 1

    def services(self, now_s: float, search: str = "") -> list[dict[str, Any]]:
        """Applications with their services, sorted: those that contain the text and have spans in the plot."""
        beside: dict[tuple[str, str], list[RedRow]] = {}
        for row in self._gathered_rows():
            beside.setdefault((row.application, row.service), []).append(row)
        found: dict[str, list[dict[str, Any]]] = {}
        wanted = search.casefold()
        for key in sorted({*self._services, *beside}):
            if wanted not in f"{key[0]} {key[1]}".casefold():
                continue
            series = self._services.get(key) or Series()
            red = self._red(series, beside.get(key, ()), now_s, percentiles=True)
            if red is None:
                continue
            operations = series.operations or len({row.operation for row in beside.get(key, ())})
            found.setdefault(key[0], []).append(
                {"service": key[1], "operations": operations, "red": red}
            )
        return [{"application": name, "services": services} for name, services in found.items()]

    def operations(
        self,
        now_s: float,
        *,
        application: str | None = None,
        service: str | None = None,
        search: str = "",
        sort: str = "rate",
        limit: int = 200,
    ) -> tuple[list[dict[str, Any]], int]:
        """The first ``limit`` of those that match, and how many more there are."""
        beside: dict[Key, list[RedRow]] = {}
        for row in self._gathered_rows():
            beside.setdefault((row.application, row.service, row.operation), []).append(row)
        wanted, by_percentile = search.casefold(), sort in ("p50", "p95", "p99")
        found: list[tuple[Key, dict[str, Any]]] = []
        for key in {*self._operations, *beside}:
            if application not in (None, key[0]) or service not in (None, key[1]):
                continue
            if wanted not in " ".join(key).casefold():
                continue
            series = self._operations.get(key) or Series()
            red = self._red(series, beside.get(key, ()), now_s, percentiles=by_percentile)
            if red is not None:
                found.append((key, red))
        if sort == "name":
            found.sort(key=lambda item: item[0])
        else:
            name = f"{sort}_ms" if by_percentile else sort
            found.sort(key=lambda item: (-(item[1][name] or 0.0), item[0]))
        shown = []
        for key, red in found[:limit]:
            if not by_percentile:
                series = self._operations.get(key) or Series()
                red = self._red(series, beside.get(key, ()), now_s, percentiles=True) or red
            names = zip(("application", "service", "operation"), key, strict=True)
            shown.append({**dict(names), "red": red})
        return shown, max(0, len(found) - limit)

    def _gathered_rows(self) -> Iterator[RedRow]:
        for partial in self._partials.values():
            yield from partial.rows

    def _red(
        self, series: Series, beside: Iterable[RedRow], now_s: float, *, percentiles: bool
    ) -> dict[str, Any] | None:
        """The document ``Red``; None where nothing is left to show."""
        first, this = self._first_minute(now_s), int(now_s // 60)
        minutes = [series.at(minute) for minute in range(this - PLOT_MINUTES, this + 1)]
        bins = series.bins(first) if percentiles else {}
        for row in beside:
            place = row.minute - (this - PLOT_MINUTES)
            if 0 <= place <= PLOT_MINUTES:
                spans, errors = minutes[place]
                minutes[place] = spans + row.spans, errors + row.errors
            if percentiles:
                _merge(bins, row.bins)
        if not any(spans for spans, _ in minutes):
            return None
        window = self.window_s(now_s)
        recent = minutes[-WINDOW_MINUTES:]
        spans, errors = sum(each[0] for each in recent), sum(each[1] for each in recent)
        return {
            "rate": round(spans / window, 3),
            "errors": round(errors / window, 3),
            "error_share": round(errors / spans, 4) if spans else 0.0,
            **percentiles_ms(bins),
            # The minute that is not over would look like a fall.
            "plot": {
                "spans": [each[0] for each in minutes[:-1]],
                "errors": [each[1] for each in minutes[:-1]],
            },
        }


__all__ = [
    "OTHER",
    "PLOT_MINUTES",
    "SCALE",
    "WINDOW_MINUTES",
    "Operations",
    "percentiles_ms",
    "rows_of",
]
