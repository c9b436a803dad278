"""Compares what metric lines add up to, series by series; send times are no part of it.  Pure.

    counters        exactly
    distributions   counts exactly, sums within 1e-9, quantiles as far as the sketches can tell
    heartbeats      a set of (source, tags)
    other points    a set of series with their last values

The Java library's metrics about itself are left out, with a note.

Quantiles.  A centroid stands for values between its neighbours' means, or within a bucket's width of its own; one that
counts a single value is that value.  Two sides agree on a quantile when what it may be on one side overlaps with
what it may be on the other.  For tracefwd's sketch this is the error it states (``processor/sketch.py``).
"""

from collections.abc import Iterable
from math import ceil, isclose, log2
from typing import Any

from tracefwd.processor.sketch import SCALE, width
from tracefwd.service.diff_report import Report

SUM_TOLERANCE = 1e-9
QUANTILES = (0.5, 0.75, 0.9, 0.95, 0.99, 0.999)
# The Java proxy's library counts its own work under these names.
_OWN = "~sdk.java."
# Half of red.centroids_max: a line of the sketch that was merged to fit holds more centroids than this.
_UNMERGED_MAX = 50

Centroids = list[tuple[float, int]]
"""(mean, count), not empty."""
Key = tuple[str, str, tuple[tuple[str, str], ...]]
Row = dict[str, Any]


def compare_series(a: dict[str, Any], b: dict[str, Any], report: Report) -> None:
    """Both as ``/series`` shows them; a table that is absent is empty."""
    for signal, check in (
        ("delta_counters", _counter),
        ("distributions", _distribution),
        ("heartbeats", _heartbeat),
        ("points", _point),
    ):
        ours, theirs = (_rows(side.get(signal, ()), report) for side in (a, b))
        tally = report.tally(signal)
        for key, row in ours.items():
            other = theirs.get(key)
            if other is None:
                tally.only_a += 1
                _alone(report, signal, key, row, theirs, in_a=True)
            elif check(report, _shown(key), row, other):
                tally.equal += 1
            else:
                tally.differing += 1
        for key, row in theirs.items():
            if key not in ours:
                tally.only_b += 1
                _alone(report, signal, key, row, ours, in_a=False)


def _rows(rows: Iterable[Row], report: Report) -> dict[Key, Row]:
    """By series.  A tag ``source`` is the line's second one, and wins, as in Wavefront's own reader."""
    found: dict[Key, Row] = {}
    for row in rows:
        if row.get("name", "").lstrip("\u2206\u0394").startswith(_OWN):
            note = f"metrics of the Java reporter about itself ({_OWN}*) were left out"
            if note not in report.notes:
                report.notes.append(note)
            continue
        tags = dict(row["tags"])
        source = tags.pop("source", row["source"])
        # Two characters look alike and mean the same: an increment.
        name = row.get("name", "").replace("\u0394", "\u2206")
        key = name, source, tuple(sorted(tags.items()))
        found[key] = _added(found[key], row) if key in found else row
    return found


def _added(a: Row, b: Row) -> Row:
    """Two rows of one series: written with either delta sign, or with the source in either place."""
    together: Row = {name: a[name] + b[name] for name in ("sum", "count", "centroids") if name in a}
    return {**b, **together, "lines": 2}


def _shown(key: Key) -> str:
    name, source, tags = key
    return " ".join([name, f"source={source}", *[f"{tag}={value}" for tag, value in tags]])


def _alone(
    report: Report, signal: str, key: Key, row: Row, others: dict[Key, Row], *, in_a: bool
) -> None:
    value = str(row.get("sum", row.get("value", "")))
    side = "A" if in_a else "B"
    why = ""
    name, _, tags = key
    near = [other for other in others if other[0] == name and other[2] == tags]
    if near:
        why = f"the other side has it from another source, such as {near[0][1]}"
    report.add(
        signal,
        "series",
        f"only in {side}",
        why,
        _shown(key),
        value if in_a else None,
        None if in_a else value,
    )


def _counter(report: Report, where: str, a: Row, b: Row) -> bool:
    if a["sum"] == b["sum"]:
        return True
    low, high = sorted((a["sum"], b["sum"]))
    why = ""
    if high == 2 * low:
        why = "exactly twice: RED may be derived once more behind it (the proxy's custom tracing port 30001 does)"
    what = f"sum of {_ending(where)}"
    report.add(
        "delta_counters", what, "another value", why, where, f"{a['sum']:.15g}", f"{b['sum']:.15g}"
    )
    return False


def _ending(where: str) -> str:
    """The counter's own name, without application, service and operation."""
    name = where.partition(" ")[0]
    for ending in ("invocation.count", "error.count", "total_time.millis.count"):
        if name.endswith(ending):
            return ending
    return "counter"


def _heartbeat(report: Report, where: str, a: Row, b: Row) -> bool:
    return True


def _point(report: Report, where: str, a: Row, b: Row) -> bool:
    if a["value"] == b["value"]:
        return True
    report.add(
        "points",
        "last value",
        "another value",
        "",
        where,
        f"{a['value']:.15g}",
        f"{b['value']:.15g}",
    )
    return False


def _distribution(report: Report, where: str, a: Row, b: Row) -> bool:
    if a["count"] != b["count"]:
        report.add(
            "distributions", "count", "another value", "", where, str(a["count"]), str(b["count"])
        )
        return False
    fine = True
    if not isclose(a["sum"], b["sum"], rel_tol=SUM_TOLERANCE):
        values = f"{a['sum']:.15g}", f"{b['sum']:.15g}"
        report.add("distributions", "sum", "another value", "", where, *values)
        fine = False
    if not (a.get("centroids_complete", True) and b.get("centroids_complete", True)):
        note = "some distributions have more centroids than a stand-in keeps: their quantiles were not compared"
        if note not in report.notes:
            report.notes.append(note)
        return fine
    mine, theirs = _sorted(a["centroids"]), _sorted(b["centroids"])
    if mine == theirs:
        return fine
    for quantile in QUANTILES:
        low, high = bounds(mine, quantile, a.get("lines", 0))
        other_low, other_high = bounds(theirs, quantile, b.get("lines", 0))
        if low > other_high or other_low > high:
            ours, others = f"{low:.6g} to {high:.6g}", f"{other_low:.6g} to {other_high:.6g}"
            what = f"quantile {quantile:g}"
            report.add("distributions", what, "another value", "", where, ours, others)
            fine = False
    return fine


def _sorted(centroids: Iterable[list[Any]]) -> Centroids:
    return sorted((float(mean), int(count)) for mean, count in centroids)


def bounds(centroids: Centroids, quantile: float, lines: int = 1) -> tuple[float, float]:
    """Between what the quantile (nearest rank) may lie; ``centroids`` ascend and came in so many ``lines``."""
    rank = ceil(quantile * sum(count for _, count in centroids))
    index = 0
    while index < len(centroids) - 1 and rank > centroids[index][1]:
        rank -= centroids[index][1]
        index += 1
    mean, count = centroids[index]
    if count == 1:
        return mean, mean
    margin = abs(mean) * _bucket_width(centroids, lines)
    below = centroids[index - 1][0] if index else mean
    above = centroids[index + 1][0] if index + 1 < len(centroids) else mean
    return min(below, mean - margin), max(above, mean + margin)


def _bucket_width(centroids: Centroids, lines: int) -> float:
    """Relative.  A line that was merged to fit holds more than half of the centroids that it may hold.

    So many buckets were occupied among those that the range has at the line's scale, which tells the scale.
    """
    positive = [mean for mean, _ in centroids if mean > 0]
    if len(positive) <= _UNMERGED_MAX:
        return width(SCALE)
    # Of several lines together nobody knows which had how many.
    occupied = len(positive) if lines == 1 else _UNMERGED_MAX + 1
    doublings = log2(positive[-1] / positive[0])
    # Two buckets may be occupied at their edges only.
    return width(min(SCALE, ceil(log2((occupied - 2) / max(doublings, 1e-9)))))
