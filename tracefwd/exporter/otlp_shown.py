"""OTLP records for people and other tools: one request in OTLP's JSON on each line, holding one record.

That is what the collector's file exporter writes and its ``otlpjsonfile`` receiver reads.  Imported only where somebody
looks: the generated classes weigh megabytes.
"""

import json
from base64 import b64decode
from typing import Any

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tracefwd.exporter import otlp_frames
from tracefwd.model import Signal

_IDS = ("traceId", "spanId", "parentSpanId")


def shown(signal: str, lines: bytes) -> bytes:
    """``lines`` are whole lines of ``otlp_frames``, and their number stays.

    Raises ``DecodeError`` (google.protobuf.message) for what is no record of this signal.
    """
    kind = ExportTraceServiceRequest if signal == Signal.SPANS else ExportMetricsServiceRequest
    return b"".join(
        [
            _json(kind.FromString(otlp_frames.request(line + b"\n")))
            for line in lines.split(b"\n")[:-1]
        ]
    )


def _json(request: Any) -> bytes:
    tree = MessageToDict(request, use_integers_for_enums=True)
    for part in tree.get("resourceSpans", ()):
        for scope in part["scopeSpans"]:
            for span in scope["spans"]:
                # OTLP's JSON has ids in hexadecimal digits, where protobuf's has base64.
                span |= {key: b64decode(span[key]).hex() for key in _IDS if key in span}
    return json.dumps(tree, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
