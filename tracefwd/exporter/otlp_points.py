"""Scraped points for targets of OTLP: our own point lines become gauges and sums.

The lines are those that Wavefront gets, after filters, translation and rules, so that both sides can be compared name
by name.  Prometheus' federation does not tell a counter from a gauge, but its names do: what ends in ``counter``, or in
``total``, ``count``, ``sum`` or ``bucket`` (before the ``.value`` that the integration's names end in), is a cumulative
sum, whose beginning nobody knows (0).  The buckets of Istio's three histograms are none: the integration's recording
rules make them rates per second, which are gauges.  Delta counters are delta sums; distributions become histograms of
count and sum.

The source of a point is its resource's ``source``, its tags are attributes.  Pure.
"""

import re

from tracefwd.exporter import otlp_frames
from tracefwd.exporter.otlp_encode import (
    LENGTH,
    attribute,
    bytes_field,
    double_field,
    fixed64_field,
    framed,
    number_field,
    text_field,
)
from tracefwd.model import Payload, Signal

_DELTAS = "\N{INCREMENT}\N{GREEK CAPITAL LETTER DELTA}"
# A quote is part of the text if, and only if, a backslash is before it; a backslash escapes nothing else.
_QUOTED = r'"((?:[^"]|(?<=\\)")*)"'
_PAIR = re.compile(rf' ({_QUOTED}|[^\s="]+)=(?:{_QUOTED}|(\S+))')
_POINT = re.compile(rf"(?:{_QUOTED}|(\S+)) (\S+) (\d+)(?= )")
_DISTRIBUTION = re.compile(rf"!M (\d+) ((?:#\d+ \S+ )+)(?:{_QUOTED}|(\S+))(?= )")
_CENTROID = re.compile(r"#(\d+) (\S+)")
_CUMULATIVE = re.compile(r"[._](?:total|count|sum|bucket)(?:\.value)?$|\.counter$")
_RATE = re.compile(
    r"\bistio\.(?:request\.duration\.milliseconds|request\.bytes|response\.bytes)\.bucket\.value$"
)
_POINT_ATTRIBUTE, _HISTOGRAM_ATTRIBUTE = (number << 3 | LENGTH for number in (7, 9))
_DELTA, _CUMULATIVE_FROM_THE_START = 1, 2
_SECOND = 1_000_000_000


def otlp_points(payload: Payload) -> Payload:
    """The same points as OTLP lines; what cannot be read as a line of ours is unsendable there."""
    read = _read_distribution if payload.signal is Signal.DISTRIBUTIONS else _read_point
    lines = []
    unsendable = payload.unsendable
    for text in payload.data.decode("utf-8", "replace").split("\n")[:-1]:
        record = read(text)
        if record is None:
            unsendable += 1
        else:
            lines.append(record)
    return Payload(payload.signal, b"".join(lines), len(lines), unsendable)


def _read_point(text: str) -> bytes | None:
    found = _POINT.match(text)
    if found is None:
        return None
    name = _plain(found[1]) if found[1] is not None else found[2]
    try:
        value = float(found[3])
    except ValueError:
        return None
    resource, attributes = _pairs(text, found.end())
    point = b"".join(
        [
            *[framed(_POINT_ATTRIBUTE, each) for each in attributes],
            fixed64_field(3, int(found[4]) * _SECOND),
            double_field(4, value),
        ]
    )
    data = bytes_field(1, point)
    if name[:1] in _DELTAS:
        return _line(resource, name[1:], 7, data + _temporality(_DELTA))
    if _CUMULATIVE.search(name) and not _RATE.search(name):
        return _line(resource, name, 7, data + _temporality(_CUMULATIVE_FROM_THE_START))
    return _line(resource, name, 5, data)


def _temporality(kind: int) -> bytes:
    """Of a sum that only grows."""
    return number_field(2, kind) + number_field(3, 1)


def _read_distribution(text: str) -> bytes | None:
    found = _DISTRIBUTION.match(text)
    if found is None:
        return None
    name = _plain(found[3]) if found[3] is not None else found[4]
    bins = [(int(count), float(mean)) for count, mean in _CENTROID.findall(found[2])]
    resource, attributes = _pairs(text, found.end())
    minute_ns = int(found[1]) * _SECOND
    point = b"".join(
        [
            *[framed(_HISTOGRAM_ATTRIBUTE, each) for each in attributes],
            fixed64_field(2, minute_ns),
            fixed64_field(3, minute_ns + 60 * _SECOND),
            fixed64_field(4, sum(count for count, _ in bins)),
            double_field(5, sum(count * mean for count, mean in bins)),
        ]
    )
    return _line(resource, name, 9, bytes_field(1, point) + number_field(2, _DELTA))


def _line(resource: bytes, name: str, kind: int, data: bytes) -> bytes:
    return otlp_frames.line(resource, text_field(1, name) + bytes_field(kind, data))


def _pairs(text: str, at: int) -> tuple[bytes, list[bytes]]:
    """The resource, and attributes; a key's first value counts."""
    source = ""
    tags: dict[str, str] = {}
    for found in _PAIR.finditer(text, at):
        key = _plain(found[2]) if found[2] is not None else found[1]
        value = _plain(found[3]) if found[3] is not None else found[4]
        if key == "source" and found[2] is None:
            source = value
        else:
            tags.setdefault(key, value)
    return (
        bytes_field(1, attribute("source", source)),
        [attribute(key, value) for key, value in tags.items()],
    )


def _plain(text: str) -> str:
    """Without the quotes' escapes; a line feed is two characters in a line, as in Wavefront."""
    return text.replace('\\"', '"').replace("\\n", "\n") if "\\" in text else text
