"""Reads metric lines and distribution lines.

    "name" value [time] source="s" "key"="value" …
    !M [time] #count mean [#count mean …] "name" source="s" "key"="value" …

A name that begins with a delta sign is a counter's increment.  Tags form a map: of two with one key the last wins,
which is how a quoted ``source`` replaces the line's own.  Pure: the time of day is an argument.
"""

import math
from dataclasses import dataclass

from tracefwd.emulator.rules import DELTAS, Limits, Refused, is_blank, is_name, length
from tracefwd.emulator.tokens import Tokens, double, integer, whole

_BIN_MS = {"!M": 60_000, "!H": 3_600_000, "!D": 86_400_000}
# Below these a time is in seconds, milliseconds, microseconds; else in nanoseconds.
_SECONDS_BELOW = 10**12
_MILLIS_BELOW = 10**13
_MICROS_BELOW = 10**16

Tags = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class Point:
    """``tags`` are sorted by key and hold no source."""

    name: str
    value: float
    time_ms: int
    source: str
    tags: Tags
    warnings: tuple[str, ...]

    @property
    def is_delta(self) -> bool:
        return self.name.startswith(DELTAS)


@dataclass(slots=True)
class Distribution:
    """``centroids`` are (mean, count), as written; ``time_ms`` is the start of the bin."""

    name: str
    granularity: str
    time_ms: int
    centroids: list[tuple[float, int]]
    source: str
    tags: Tags
    warnings: tuple[str, ...]

    @property
    def count(self) -> int:
        return sum(count for _, count in self.centroids)

    @property
    def sum(self) -> float:
        return math.fsum(mean * count for mean, count in self.centroids)


class MetricReader:
    """The verdict on metric lines and on distribution lines."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    def read_point(self, line: str, now_ms: int) -> Point:
        """``Refused`` if Wavefront would not take the line; WF-300 is "cannot parse"."""
        try:
            tokens = Tokens(line)
            name = tokens.text("a metric name")
            value = double(tokens.text("a value"), "value")
            time_ms = _optional_time(tokens, now_ms)
            tags = _tags(tokens)
        except Refused as refused:
            raise Refused("WF-300", f"WF-300 Cannot parse metric: {refused}") from None
        source, warnings = _source(tags, self._limits.source_backend_max)
        self._check(name, source, tags, "WF-408: Metric name")
        if not math.isfinite(value):
            # Java would carry it on; no chart could show it.
            raise Refused("value_not_finite", f"The value is {value}")
        if name.startswith(DELTAS) and value <= 0:
            raise Refused("WF-404", "WF-404: Delta metrics cannot be non-positive")
        return Point(name, value, time_ms, source, tuple(sorted(tags.items())), warnings)

    def read_distribution(self, line: str, now_ms: int) -> Distribution:
        """``Refused`` if Wavefront would not take the line."""
        try:
            tokens = Tokens(line)
            granularity = _granularity(tokens)
            time_ms = _optional_time(tokens, now_ms)
            centroids = _centroids(tokens)
            name = tokens.text("a metric name")
            tags = _tags(tokens)
        except Refused as refused:
            raise Refused("WF-300", f"WF-300 Cannot parse histogram: {refused}") from None
        source, warnings = _source(tags, self._limits.source_backend_max)
        self._check(name, source, tags, "WF-409: Histogram name")
        if all(count == 0 for _, count in centroids):
            raise Refused("WF-405", "WF-405: Empty histogram")
        for mean, count in centroids:
            if count <= 0 or not math.isfinite(mean):
                raise Refused("centroid", f"A centroid of count {count} and mean {mean}")
        bin_ms = _BIN_MS[granularity]
        return Distribution(
            name=name,
            granularity=granularity,
            time_ms=time_ms // bin_ms * bin_ms,
            centroids=centroids,
            source=source,
            tags=tuple(sorted(tags.items())),
            warnings=warnings,
        )

    def _check(self, name: str, source: str, tags: dict[str, str], name_label: str) -> None:
        limits = self._limits
        if is_blank(source):
            raise Refused("WF-406", "WF-406: Source/host name is required")
        _check_length("WF-407: Source/host name", source, limits.span_source_max)
        _check_length(name_label, name, limits.point_name_max)
        if not is_name(name):
            raise Refused("WF-400", f"WF-400: Point metric has illegal character(s): {name}")
        if len(tags) > limits.point_tags_max:
            raise Refused(
                "WF-410",
                f"WF-410: Too many point tags ({len(tags)}, max {limits.point_tags_max})",
            )
        for key, value in tags.items():
            if (size := length(key) + length(value)) >= limits.point_pair_below:
                raise Refused(
                    "WF-411",
                    f"WF-411: Point tag (key+value) too long ({size + 1} characters, max: {limits.point_pair_below})",
                )
            _check_length("WF-412: Point tag key", key, limits.point_key_max)
            if not is_name(key):
                raise Refused("WF-401", f"WF-401: Point tag key has illegal character(s): {key}")
            if is_blank(value):
                raise Refused("WF-414", f"WF-414: Point tag value for {key} is empty or missing")
            _check_length("WF-413: Point tag value", value, limits.point_value_max)


def _check_length(label: str, text: str, length_max: int) -> None:
    if (size := length(text)) > length_max:
        message = f"{label} is too long ({size} characters, max: {length_max})"
        raise Refused(label.partition(":")[0], message)


def _optional_time(tokens: Tokens, now_ms: int) -> int:
    """In milliseconds."""
    token = tokens.peek
    if token is None or not token[:1].isdecimal():
        return now_ms
    number = tokens.time()
    integral = whole(number)
    if integral < _SECONDS_BELOW:
        return whole(number * 1000)
    if integral < _MILLIS_BELOW:
        return integral
    if integral < _MICROS_BELOW:
        return integral // 1000
    return integral // 1_000_000


def _granularity(tokens: Tokens) -> str:
    token = tokens.text("!M, !H or !D")
    if token not in _BIN_MS:
        raise Refused("syntax", f"'{token}' is not allowed here!")
    return token


def _centroids(tokens: Tokens) -> list[tuple[float, int]]:
    centroids = []
    while tokens.peek == "#":
        tokens.next()
        count = integer(tokens.text("centroid weight"), "centroid weight")
        centroids.append((double(tokens.text("centroid value"), "centroid value"), count))
    if not centroids:
        raise Refused("syntax", "Empty histogram (no centroids)")
    return centroids


def _tags(tokens: Tokens) -> dict[str, str]:
    tags: dict[str, str] = {}
    while tokens.peek is not None:
        key, value = tokens.pair()
        tags[key] = value
    return tags


def _source(tags: dict[str, str], backend_max: int) -> tuple[str, tuple[str, ...]]:
    """Takes ``source`` or ``host`` out of the tags, as the parser does."""
    if "tag" in tags:
        tags["_tag"] = tags.pop("tag")
    source, host = tags.pop("source", None), tags.pop("host", None)
    if source is None and host is None:
        return "unknown", ("source_missing",)
    if source is None:
        return host or "", ()
    if host is not None:
        tags["_host"] = host
    warnings = ("source_above_backend_limit",) if length(source) > backend_max else ()
    return source, warnings
