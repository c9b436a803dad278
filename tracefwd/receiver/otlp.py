"""What OTLP's two encodings have in common: how a resource, a scope and a span become the model's span.

The rules are those of the Wavefront proxy's OTLP listener (tags of resource and scope on every span, ``service.name``
and the host's name off the resource, status, dropped counts), except where that loses spans: an attribute without a
value is left out.  What Envoy says in a tag of a Zipkin span it says in an attribute of the same name, so that the
mapping behind need not know which one it was.

Links are left out, as Wavefront has no place for them.  Pure.
"""

import base64
from math import isfinite
from typing import Any

import msgspec
from msgspec import Struct

from tracefwd.model import Endpoint, Event, Span
from tracefwd.receiver import fields
from tracefwd.receiver.fields import Mends, is_plain

# SpanKind by number; the first two are no kinds of Zipkin's.
KINDS = (None, None, "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
KIND_INTERNAL = 1
STATUS_ERROR = 2
# The first of them that a resource has is the span's source.
SOURCE_KEYS = ("source", "host.name", "hostname", "host.id")
# Attributes of a span that mean more than a tag.
SPECIAL_KEYS = frozenset({"service.name", "source"})
# What Envoy puts before the host's name where it has no route; its Zipkin tracer does not.
DIRECTIONS = ("egress ", "ingress ")


class Shared(Struct, gc=False):
    """What the spans of one scope of one resource share.

    ``tags`` stand in front of each span's own.  ``plain``: nothing in here keeps a span from being plain; ``record``
    and ``places`` are a reader's: the class for plain spans' tags, and a dictionary with a place for each of its keys.
    ``number`` tells it apart from all that the reader has had.
    ``blanks``: attributes without a value, per span.  ``mended``: something in here had to be, per span.
    """

    local: Endpoint
    tags: dict[str, str]
    plain: bool
    blanks: int
    field_type: bool = False
    utf8: bool = False
    record: Any = None
    places: dict[str, str] = {}
    number: int = 0


class Draft(Struct, gc=False):
    """A span's own part, as either encoding reads it; ``tags`` begin with the shared ones.

    Times are nanoseconds, 0 is absent; ids as hex, not yet looked at.  ``special``: one of the span's own
    attributes means more than a tag.
    """

    tags: dict[str, str]
    trace_id: str = ""
    span_id: str = ""
    parent_id: str = ""
    name: str = ""
    kind: int = 0
    start_ns: int = 0
    end_ns: int = 0
    trace_state: str = ""
    dropped_attributes: int = 0
    dropped_events: int = 0
    dropped_links: int = 0
    events: list[Event] | None = None
    status: int = 0
    status_message: str = ""
    special: bool = False


def share(
    resource: dict[str, str], scope_name: str, scope_version: str, *, blanks: int, mends: Mends
) -> Shared:
    """``resource`` are its attributes as texts; it is used up."""
    service_name = resource.pop("service.name", None)
    source = None
    for key in SOURCE_KEYS:
        source = resource.pop(key, None)
        if source is not None:
            break
    tags = resource
    if source is not None:
        tags["source"] = source
    if scope_name:
        tags["otel.scope.name"] = scope_name
    if scope_version:
        tags["otel.scope.version"] = scope_version
    plain = service_name is not None and all(map(is_plain, (service_name, *tags, *tags.values())))
    shared = Shared(Endpoint(service_name or None), tags, plain, blanks)
    shared.field_type, shared.utf8 = mends.field_type, mends.utf8
    return shared


def finish(draft: Draft, shared: Shared, mends: Mends, *, as_the_proxy: bool) -> Span:
    """Raises BadIdError when it has no usable trace or span id.

    ``as_the_proxy``: an attribute ``source`` is not the span's source, a kind that Zipkin has not is a tag, and names
    stay as they are.
    """
    tags = draft.tags
    local = shared.local
    if draft.special:
        local = _settle_special(tags, shared, as_the_proxy=as_the_proxy)
    kind = KINDS[draft.kind] if 0 <= draft.kind < len(KINDS) else None
    if kind is None:
        _tell_kind(draft, mends, as_the_proxy=as_the_proxy)
    if draft.status == STATUS_ERROR:
        # Envoy's status follows OpenTelemetry's rules for clients (4xx, every gRPC code).  What it holds for an error
        # it says in the attribute, as by Zipkin; the rest is the mapping's affair, whichever way a span came.
        if tags.get("component") != "proxy":
            tags.setdefault("error", "true")
        if draft.status_message:
            tags["otel.status_description"] = draft.status_message
    _tell_dropped(draft)
    name = draft.name
    if name.startswith(DIRECTIONS) and tags.get("component") == "proxy" and not as_the_proxy:
        name = name.partition(" ")[2]
    trace_id = fields.trace_id(draft.trace_id or None, mends)
    span_id = fields.span_id(draft.span_id or None, mends)
    parent_id = fields.parent_id(draft.parent_id or None, span_id, mends)
    start_us = draft.start_ns // 1000
    duration_us = (draft.end_ns - draft.start_ns) // 1000 if draft.end_ns else 0
    return Span(
        trace_id,
        span_id,
        parent_id,
        kind,
        name or None,
        start_us or None,
        duration_us,
        local,
        None,
        list(draft.events) if draft.events else None,
        tags or None,
    )


def _settle_special(tags: dict[str, str], shared: Shared, *, as_the_proxy: bool) -> Endpoint:
    """The endpoint that is meant, when a span has attributes of its own that mean more than a tag."""
    if as_the_proxy and tags.get("source") != shared.tags.get("source"):
        tags["_source"] = tags.pop("source")
        if "source" in shared.tags:
            tags["source"] = shared.tags["source"]
    service_name = tags.pop("service.name", None)
    return shared.local if service_name is None else Endpoint(service_name)


def _tell_kind(draft: Draft, mends: Mends, *, as_the_proxy: bool) -> None:
    """A kind that Zipkin has not becomes a tag; the proxy sends one for its absence, too."""
    if draft.kind == KIND_INTERNAL:
        draft.tags.setdefault("span.kind", "internal")
    elif draft.kind:
        mends.field_type = True
        if as_the_proxy:
            draft.tags.setdefault("span.kind", "unknown")
    elif as_the_proxy:
        draft.tags.setdefault("span.kind", "unspecified")


def _tell_dropped(draft: Draft) -> None:
    tags = draft.tags
    if draft.trace_state:
        tags["w3c.tracestate"] = draft.trace_state
    if draft.dropped_attributes:
        tags["otel.dropped_attributes_count"] = str(draft.dropped_attributes)
    if draft.dropped_events:
        tags["otel.dropped_events_count"] = str(draft.dropped_events)
    if draft.dropped_links:
        tags["otel.dropped_links_count"] = str(draft.dropped_links)


def event(time_ns: int, name: str, attributes: dict[str, str], dropped: int) -> Event:
    if dropped:
        attributes["otel.dropped_attributes_count"] = str(dropped)
    attributes["name"] = name
    return Event(time_ns // 1000, name, attributes)


def double(value: float) -> float | str:
    """What is no number in JSON, by its name in OTLP's JSON."""
    if isfinite(value):
        return value
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"


def text_of(value: Any) -> str:
    """An attribute's value as a tag's: ``[a, b]`` for a list, compact JSON for a map, base64 for bytes."""
    if type(value) is str:
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{', '.join(map(text_of, value))}]"
    if isinstance(value, dict):
        return msgspec.json.encode(value, enc_hook=text_of).decode()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    return "" if value is None else str(value)
