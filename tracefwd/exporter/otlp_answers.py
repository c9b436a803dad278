"""What OTLP's answers hold: partial success, statuses with details, and how long to wait.

Imported only where a target speaks OTLP: the generated classes weigh megabytes.
"""

from typing import NamedTuple

from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from tracefwd.exporter.retry import RETRY_AFTER_MAX_S
from tracefwd.model import Signal


class Partial(NamedTuple):
    """What of a successful request was not taken, and why; 0 with a message is advice."""

    refused: int
    message: str


def partial_success(signal: Signal, body: bytes) -> Partial:
    """Of an answer's body; one that cannot be read says nothing, as its status has said that all is well."""
    try:
        if signal is Signal.SPANS:
            told = ExportTraceServiceResponse.FromString(body).partial_success
            return Partial(max(told.rejected_spans, 0), told.error_message)
        points = ExportMetricsServiceResponse.FromString(body).partial_success
        return Partial(max(points.rejected_data_points, 0), points.error_message)
    except DecodeError:
        return Partial(0, "")


def status_message(body: bytes) -> str:
    """The words of a ``google.rpc.Status``, which is what HTTP errors carry; other bodies as text."""
    try:
        return str(Status.FromString(body).message) or body.decode("utf-8", "replace")
    except DecodeError:
        return body.decode("utf-8", "replace")


def retry_after_ms(details: bytes) -> int | None:
    """Of an encoded ``google.rpc.Status`` (``grpc-status-details-bin``); None without a ``RetryInfo``.

    Never negative, never above what a ``Retry-After`` may ask.
    """
    try:
        for detail in Status.FromString(details).details:
            info = RetryInfo()
            if detail.Unpack(info):
                wait_ms = (
                    int(info.retry_delay.seconds) * 1000 + int(info.retry_delay.nanos) // 1_000_000
                )
                return min(max(wait_ms, 0), int(RETRY_AFTER_MAX_S * 1000))
    except DecodeError:
        return None
    return None
