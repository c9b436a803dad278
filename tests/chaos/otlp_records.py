"""OTLP requests as the chaos sink reads them: which spans, and how much RED, told by OpenTelemetry's own classes."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

CALLS, DURATION = "traces.span.metrics.calls", "traces.span.metrics.duration"


class Record(NamedTuple):
    """``kind`` is spans, calls or durations (other metrics have their name); ``whole`` tells it from all others.

    ``number`` is the span's id, or the series of ``count`` spans.
    """

    kind: str
    whole: bytes
    number: int
    count: int = 1
    is_error: bool = False


def records(path: bytes, body: bytes) -> list[Record]:
    return [*(_spans(body) if path.endswith(b"/traces") else _metrics(body))]


def _spans(body: bytes) -> Iterator[Record]:
    for part in ExportTraceServiceRequest.FromString(body).resource_spans:
        for span in part.scope_spans[0].spans:
            yield Record("spans", span.SerializeToString(), int.from_bytes(span.span_id))


def _metrics(body: bytes) -> Iterator[Record]:
    for part in ExportMetricsServiceRequest.FromString(body).resource_metrics:
        for metric in part.scope_metrics[0].metrics:
            whole = part.resource.SerializeToString() + metric.SerializeToString()
            if metric.name == CALLS:
                [point] = metric.sum.data_points
                series, is_error = _series(point)
                yield Record("calls", whole, series, point.as_int, is_error)
            elif metric.name == DURATION:
                [times] = metric.exponential_histogram.data_points
                series, is_error = _series(times)
                yield Record("durations", whole, series, times.count, is_error)
            else:
                yield Record(metric.name, whole, 0)


def _series(point: Any) -> tuple[int, bool]:
    """Of spans whose operation is op-SERIES, and whether they are its errors."""
    said = {each.key: each.value.string_value for each in point.attributes}
    series = int(said["span.name"].removeprefix("op-"))
    return series, said["status.code"] == "STATUS_CODE_ERROR"
