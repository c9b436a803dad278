"""A span's annotations as Wavefront's span log: one JSON object beside the span's line.  Pure."""

from collections.abc import Sequence
from typing import Any

import msgspec

from tracefwd import naming
from tracefwd.model import Annotation, Event, SpanLog, WavefrontSpan


def members(span: WavefrontSpan, customer: str, logs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """All of the object but ``span``, which only a writer knows; ``logs`` are its entries, times in microseconds."""
    return {
        "customer": customer,
        "traceId": naming.uuid(span.trace_id),
        "spanId": naming.uuid(span.span_id),
        "spanSecondaryId": span.secondary_id,
        "logs": logs,
    }


def of_annotations(span: WavefrontSpan, annotations: Sequence[Annotation]) -> dict[str, Any]:
    """The members of the log of these annotations."""
    entries = [
        {"timestamp": entry.timestamp_us, "fields": _fields_of(entry)} for entry in annotations
    ]
    return members(span, "default", entries)


def alone(span: WavefrontSpan) -> SpanLog | None:
    """The log of a span whose line is not sent, None without annotations: the Java proxy's check, which refuses the
    line, comes between the two."""
    if span.logs is None:
        return None
    found = of_annotations(span, span.logs)
    return SpanLog(
        {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in found.items()}, span
    )


def _fields_of(entry: Annotation) -> dict[str, str]:
    return entry.fields if isinstance(entry, Event) else {"annotation": entry.value}


__all__ = ["alone", "members", "of_annotations"]
