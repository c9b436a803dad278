"""``tracefwd explain`` for OTLP: what becomes of every member of a span, its scope and its resource, and why."""

from collections.abc import Callable

from tracefwd import naming
from tracefwd.model import Span, WavefrontSpan
from tracefwd.receiver.otlp import SOURCE_KEYS

Judge = Callable[[str, Span, WavefrontSpan], tuple[str, str]]
JudgeTag = Callable[[str, str, WavefrontSpan], tuple[str, str]]
"""How an attribute is judged that is a tag like any other: ``(key, value, out) -> (fate, reason)``."""

_IDENTITY = ("application", "service", "cluster", "shard")


def fate(
    path: str, value: str, span: Span, out: WavefrontSpan, judge_tag: JudgeTag
) -> tuple[str, str]:
    """(what became of it, why)."""
    for prefix in ("resource.attributes.", "attributes."):
        if path.startswith(prefix):
            key = path.removeprefix(prefix)
            return _attribute(key, value, span, out, judge_tag, own=prefix == "attributes.")
    judge = _JUDGES.get(path.partition("[")[0])
    return ("dropped", _why_dropped(path)) if judge is None else judge(value, span, out)


def _why_dropped(path: str) -> str:
    for prefix, reason in _DROPPED.items():
        if path.startswith(prefix):
            return reason
    return "not a member of OTLP that Wavefront has a place for"


_DROPPED = {
    "links": "Wavefront has no place for links",
    "flags": "they are about the trace's transport",
    "scope.attributes": "of a scope only name and version are sent",
    "scope.dropped": "of a scope only name and version are sent",
    "resource.dropped": "only a span's own counts are sent",
    "resourceSpans.schemaUrl": "schemas are not sent",
    "scopeSpans.schemaUrl": "schemas are not sent",
}


def _attribute(
    key: str, value: str, span: Span, out: WavefrontSpan, judge_tag: JudgeTag, *, own: bool
) -> tuple[str, str]:
    tags = span.tags or {}
    if key == "service.name":
        head = dict(out.head)
        taken = [
            name
            for name in _IDENTITY
            if head.get(name, "") in (value, value.lower(), *value.split("."))
        ]
        return "used", f"read for {', '.join(taken) or 'service, which better tags told first'}"
    if not own and key in SOURCE_KEYS and (key == "source" or key not in tags):
        if tags.get("source") == value:
            return "became", f'source="{out.source}"'
        return "dropped", "the span's own attribute source wins"
    if not own and tags.get(key) not in (None, value):
        return "dropped", "the span's own attribute of this key wins"
    if own and key == "source" and "_source" in tags:
        return "renamed", "under '_source': only a resource names the source in this profile"
    if not value:
        return "dropped", "blank: Wavefront refuses tags without a value"
    return judge_tag(key, tags.get(key, value), out)


def _as_tag(key: str) -> Judge:
    def judge(value: str, span: Span, out: WavefrontSpan) -> tuple[str, str]:
        if (span.tags or {}).get(key) is None:
            return "dropped", "zero or empty says nothing"
        return "became", f'"{key}"="{out.tags.get(key, value)}"'

    return judge


def _id(name: str) -> Judge:
    def judge(value: str, span: Span, out: WavefrontSpan) -> tuple[str, str]:
        found = {"traceId": out.trace_id, "spanId": out.span_id, '"parent"': out.parent_id}[name]
        if found is None:
            return "dropped", "no parent: it is empty, zeros, no hex, or the span's own id"
        mark = '"' if name.startswith('"') else ""
        return "became", f'{mark}{name.strip(chr(34))}{mark}="{naming.uuid(found)}": an UUID'

    return judge


def _name(value: str, span: Span, out: WavefrontSpan) -> tuple[str, str]:
    if out.name == value:
        return "kept", "the span's name"
    return (
        "changed",
        f"the span's name is {out.name!r}: rules, Envoy's direction, * to -, length, cap",
    )


def _kind(value: str, span: Span, out: WavefrontSpan) -> tuple[str, str]:
    said = out.kind or out.tags.get("span.kind", "")
    if said:
        return "became", f'"span.kind"="{said}"'
    return "dropped", "unspecified says nothing"


def _start(value: str, span: Span, out: WavefrontSpan) -> tuple[str, str]:
    if span.timestamp_us is not None and span.timestamp_us // 1000 == out.start_ms:
        return "became", f"start {out.start_ms}: milliseconds"
    return "changed", f"start {out.start_ms}: it cannot be a start, so it is arrival minus duration"


def _end(value: str, span: Span, out: WavefrontSpan) -> tuple[str, str]:
    text = f"duration {out.duration_ms}: end minus start, RED counts {out.duration_us} microseconds"
    return ("became" if span.duration_us == out.duration_us else "changed"), text


def _event(value: str, span: Span, out: WavefrontSpan) -> tuple[str, str]:
    if out.logs:
        return "became", "an entry of the span's log"
    return "dropped", "span logs are switched off, or this is too long"


def _status(value: str, span: Span, out: WavefrontSpan) -> tuple[str, str]:
    is_error = value in ("2", "STATUS_CODE_ERROR")
    if is_error and out.error:
        return "became", '"error"="true": the span counts as an error'
    if is_error:
        return "used", "an Envoy's own status: its attribute error and mapping.errors decide"
    return "dropped", "only an error says anything at Wavefront"


_JUDGES: dict[str, Judge] = {
    "traceId": _id("traceId"),
    "spanId": _id("spanId"),
    "parentSpanId": _id('"parent"'),
    "name": _name,
    "kind": _kind,
    "startTimeUnixNano": _start,
    "endTimeUnixNano": _end,
    "events": _event,
    "status.code": _status,
    "status.message": _as_tag("otel.status_description"),
    "traceState": _as_tag("w3c.tracestate"),
    "scope.name": _as_tag("otel.scope.name"),
    "scope.version": _as_tag("otel.scope.version"),
    "droppedAttributesCount": _as_tag("otel.dropped_attributes_count"),
    "droppedEventsCount": _as_tag("otel.dropped_events_count"),
    "droppedLinksCount": _as_tag("otel.dropped_links_count"),
}
