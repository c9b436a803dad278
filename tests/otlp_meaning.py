"""What mapped spans and their RED mean in OTLP, field by field: an account of its own, to hold to it what was sent.

It shares no code with tracefwd's writer; names and numbers are OpenTelemetry's.
"""

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from opentelemetry.proto.trace.v1 import trace_pb2

from tracefwd.model import Event, WavefrontSpan

SCALE = 6
_ELSEWHERE = {"application", "service", "cluster", "shard", "span.kind", "_spanSecondaryId"}
_NAMES = {
    "http.method": "http.request.method",
    "http.url": "url.full",
    "user_agent": "user_agent.original",
    "peer.address": "network.peer.address",
    "ipv4": "network.local.address",
}
_NUMBERS = {
    "http.status_code": "http.response.status_code",
    "grpc.status_code": "rpc.grpc.status_code",
    "request_size": "http.request.body.size",
    "response_size": "http.response.body.size",
}
_KINDS = {"": 0, "internal": 1, "local": 1, "server": 2, "client": 3, "producer": 4, "consumer": 5}


class Meaning(NamedTuple):
    """A span, comparable: attributes by key, events as (ns, name, attributes)."""

    resource: dict[str, Any]
    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: int
    start_ns: int
    end_ns: int
    status: tuple[int, str]
    attributes: dict[str, Any]
    events: list[tuple[int, str, dict[str, Any]]]


def meant(span: WavefrontSpan) -> Meaning:
    attributes: dict[str, Any] = {}
    message = ""
    for key, value in [*span.head, *span.tags.items(), *span.tail, *(span.oversize or {}).items()]:
        if key == "error.message":
            message = value
        elif key not in _ELSEWHERE:
            name, shown = _named(key, value)
            # A client's own word under that name stays, and the other one beside it.
            attributes |= {key: value} if name != key and name in span.tags else {name: shown}
    start_ns = (span.start_us or span.start_ms * 1000) * 1000
    return Meaning(
        _resource(span),
        span.trace_id.rjust(32, "0"),
        span.span_id.rjust(16, "0"),
        span.parent_id.rjust(16, "0") if span.parent_id else "",
        span.name,
        _KINDS[span.kind],
        start_ns,
        start_ns + span.duration_us * 1000,
        (2, message) if span.error else (0, ""),
        attributes,
        [
            (
                each.timestamp_us * 1000,
                each.value,
                {k: v for k, v in each.fields.items() if v != each.value}
                if isinstance(each, Event)
                else {},
            )
            for each in span.logs or ()
        ],
    )


def _named(key: str, value: str) -> tuple[str, Any]:
    if key in _NUMBERS and value.isascii() and value.isdecimal():
        return _NUMBERS[key], int(value)
    if key == "http.protocol" and value.startswith("HTTP/"):
        return "network.protocol.version", value[5:]
    return _NAMES.get(key, key), value


def _resource(span: WavefrontSpan) -> dict[str, Any]:
    who = span.identity
    said = {
        "service.name": who.service,
        "service.namespace": who.application,
        "service.version": who.shard,
        "k8s.cluster.name": who.cluster,
        "service.instance.id": span.source,
    }
    return {key: value for key, value in said.items() if value not in ("", "none")}


def arrived(resource: Any, span: trace_pb2.Span) -> Meaning:
    """A span as it was received."""
    return Meaning(
        values(resource.attributes),
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.name,
        span.kind,
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        (span.status.code, span.status.message),
        values(span.attributes),
        [(each.time_unix_nano, each.name, values(each.attributes)) for each in span.events],
    )


def values(attributes: Iterable[Any]) -> dict[str, Any]:
    found = [(each.key, getattr(each.value, each.value.WhichOneof("value"))) for each in attributes]
    assert len({key for key, _ in found}) == len(found), "a key stands there twice"
    return dict(found)


# RED


class Series(NamedTuple):
    """Whose RED it is; of resource and attributes all but who sent it."""

    resource: tuple[tuple[str, Any], ...]
    attributes: tuple[tuple[str, Any], ...]


class Sums(NamedTuple):
    """``buckets`` by index at ``SCALE``; ``sum_us`` of durations."""

    calls: int
    count: int
    sum_us: int
    zeros: int
    buckets: dict[int, int]


def bucket(duration_us: int) -> int:
    """(base**index, base**(index + 1)] with base 2**(2**-scale): of the specification's exponential histogram."""
    index = math.floor(math.log2(duration_us) * 2**SCALE)
    # Exact powers of two lie on a border, and belong below it.
    return index - 1 if duration_us & (duration_us - 1) == 0 else index


def red_meant(spans: Iterable[WavefrontSpan]) -> dict[Series, Sums]:
    by_series: dict[Series, list[int]] = {}
    for span in spans:
        by_series.setdefault(_series_of(span), []).append(span.duration_us)
    return {
        series: Sums(
            len(durations),
            len(durations),
            sum(durations),
            durations.count(0),
            dict(Counter(bucket(each) for each in durations if each)),
        )
        for series, durations in by_series.items()
    }


def _series_of(span: WavefrontSpan) -> Series:
    resource = {k: v for k, v in _resource(span).items() if k != "service.instance.id"}
    kind = trace_pb2.Span.SpanKind.Name(_KINDS[span.kind])
    attributes: dict[str, Any] = {
        "span.name": span.name,
        "span.kind": kind,
        "status.code": "STATUS_CODE_ERROR" if span.error else "STATUS_CODE_UNSET",
    }
    if span.http_status:
        name, shown = _named("http.status_code", span.http_status)
        attributes[name] = shown
    if span.identity.component != "none":
        attributes["component"] = span.identity.component
    return _series(resource, attributes)


def _series(resource: dict[str, Any], attributes: dict[str, Any]) -> Series:
    return Series(tuple(sorted(resource.items())), tuple(sorted(attributes.items())))


def red_arrived(parts: Iterable[Any]) -> dict[Series, Sums]:
    """The sum of all points in these ``ResourceMetrics``, which are deltas."""
    total: dict[Series, Sums] = {}
    for part in parts:
        resource = values(part.resource.attributes)
        resource.pop("service.instance.id", None)
        for metric in part.scope_metrics[0].metrics:
            points = metric.sum.data_points or metric.exponential_histogram.data_points
            for point in points:
                series = _series(resource, values(point.attributes))
                before = total.get(series, Sums(0, 0, 0, 0, {}))
                total[series] = _plus(before, metric.name, point)
    return total


def _plus(before: Sums, name: str, point: Any) -> Sums:
    if name == "traces.span.metrics.calls":
        return before._replace(calls=before.calls + point.as_int)
    assert name == "traces.span.metrics.duration"
    assert point.scale == SCALE
    counts = Counter(before.buckets)
    counts.update(dict(enumerate(point.positive.bucket_counts, point.positive.offset)))
    return before._replace(
        count=before.count + point.count,
        sum_us=before.sum_us + int(point.sum),
        zeros=before.zeros + point.zero_count,
        buckets={index: count for index, count in counts.items() if count},
    )
