"""What an OTLP body says, span by span and member by member, for people: nothing is judged, nothing left out.

Each span comes with everything that its sender said of it, its resource and its scope, under OTLP's JSON names, and as
a body of its own, which the decoder can be given.  A body that is broken gives the spans before the break.  Pure.
"""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from tracefwd.receiver import otlp, otlp_json
from tracefwd.receiver.decode import json_at
from tracefwd.receiver.fields import BrokenError
from tracefwd.receiver.otlp_answers import varint
from tracefwd.receiver.otlp_values import ValueReader
from tracefwd.receiver.wire import FIXED32, FIXED64, FRAMED, VARINT

Fields = list[tuple[str, str]]


class Seen(NamedTuple):
    """``alone`` is an ExportTraceServiceRequest of this span only."""

    fields: Fields
    alone: bytes


def look(body: bytes) -> Iterator[Seen]:
    at = json_at(body)
    return _look_at_json(body[at:]) if at is not None else _look_at_proto(body)


# --- protobuf -------------------------------------------------------------------------------------

# By field number: name, and how its value is shown.
_Schema = dict[int, tuple[str, str]]
_SPAN: _Schema = {
    1: ("traceId", "hex"),
    2: ("spanId", "hex"),
    3: ("traceState", "text"),
    4: ("parentSpanId", "hex"),
    5: ("name", "text"),
    6: ("kind", "number"),
    7: ("startTimeUnixNano", "number"),
    8: ("endTimeUnixNano", "number"),
    9: ("attributes", "pair"),
    10: ("droppedAttributesCount", "number"),
    11: ("events", "event"),
    12: ("droppedEventsCount", "number"),
    13: ("links", "link"),
    14: ("droppedLinksCount", "number"),
    15: ("status", "status"),
    16: ("flags", "number"),
}
_RESOURCE: _Schema = {1: ("attributes", "pair"), 2: ("droppedAttributesCount", "number")}
_SCOPE: _Schema = {
    1: ("name", "text"),
    2: ("version", "text"),
    3: ("attributes", "pair"),
    4: ("droppedAttributesCount", "number"),
}
_STATUS: _Schema = {2: ("message", "text"), 3: ("code", "number")}


class _Viewer(ValueReader):
    def parts(self, at: int, end: int) -> Iterator[tuple[int, Any, int, int]]:
        """``(field number, value, begin, end)``: a number, or None for a frame between the two."""
        while at < end:
            tag, at = self.varint(at, end)
            number, wire_type = tag >> 3, tag & 7
            if wire_type == FRAMED:
                begin, at = self.frame(at, end)
                yield number, None, begin, at
            elif wire_type == VARINT:
                value, at = self.varint(at, end)
                yield number, value, 0, 0
            elif wire_type in (FIXED64, FIXED32):
                size = 8 if wire_type == FIXED64 else 4
                if at + size > end:
                    raise BrokenError(at, "it ends inside a number")
                yield number, int.from_bytes(self.body[at : at + size], "little"), 0, 0
                at += size
            else:
                at = self.skip(tag, at, end)
                yield number, "a group", 0, 0

    def show(self, schema: _Schema, prefix: str, at: int, end: int) -> Fields:
        shown: Fields = []
        counts: dict[str, int] = {}
        for number, value, begin, stop in self.parts(at, end):
            name, form = schema.get(number, (f"field {number}", "unknown"))
            place = counts[name] = counts.get(name, -1) + 1
            path = f"{prefix}{name}"
            if value is not None:
                shown.append((path, str(value)))
            elif form == "pair":
                key, said = self.pair(begin, stop)
                shown.append((f"{path}.{key}", said))
            elif form == "status":
                shown += self.show(_STATUS, f"{path}.", begin, stop)
            elif form == "event":
                event = self.event(begin, stop)
                members = {"time": event.timestamp_us, **event.fields}
                shown.append((f"{path}[{place}]", json.dumps(members, ensure_ascii=False)))
            elif form == "text":
                shown.append((path, self.text(begin, stop)))
            else:
                listed = f"{path}[{place}]" if form == "link" else path
                shown.append((listed, self.body[begin:stop].hex()))
        return shown

    def pair(self, begin: int, end: int) -> tuple[str, str]:
        return self.attribute(begin, end)


def _look_at_proto(body: bytes) -> Iterator[Seen]:
    viewer = _Viewer(body)
    try:
        for number, _, begin, end in viewer.parts(0, len(body)):
            if number == 1 and end:
                yield from _resource(viewer, begin, end)
    except (BrokenError, IndexError):
        return


def _resource(viewer: _Viewer, at: int, end: int) -> Iterator[Seen]:
    body, parts = viewer.body, list(viewer.parts(at, end))
    resources = [(begin, stop) for number, _, begin, stop in parts if number == 1 and stop]
    fields = [field for each in resources for field in viewer.show(_RESOURCE, "resource.", *each)]
    fields += _others(viewer, parts, {3: "resourceSpans.schemaUrl"}, {1, 2}, "resourceSpans.")
    raw = b"".join(_framed(b"\x0a", body[begin:stop]) for begin, stop in resources[:1])
    for number, _, begin, stop in parts:
        if number != 2 or not stop:
            continue
        inner = list(viewer.parts(begin, stop))
        scopes = [(first, last) for kind, _, first, last in inner if kind == 1 and last]
        shown = [field for each in scopes for field in viewer.show(_SCOPE, "scope.", *each)]
        shown += _others(viewer, inner, {3: "scopeSpans.schemaUrl"}, {1, 2}, "scopeSpans.")
        scope = b"".join(_framed(b"\x0a", body[first:last]) for first, last in scopes[:1])
        for kind, _, first, last in inner:
            if kind == 2 and last:
                alone = scope + _framed(b"\x12", body[first:last])
                alone = _framed(b"\x0a", raw + _framed(b"\x12", alone))
                yield Seen([*fields, *shown, *viewer.show(_SPAN, "", first, last)], alone)


def _others(
    viewer: _Viewer,
    parts: list[tuple[int, Any, int, int]],
    names: dict[int, str],
    known: set[int],
    prefix: str,
) -> Fields:
    """Members beside those that are looked into."""
    return [
        (
            names.get(number, f"{prefix}field {number}"),
            viewer.text(begin, stop) if value is None else str(value),
        )
        for number, value, begin, stop in parts
        if number not in known
    ]


def _framed(tag: bytes, content: bytes) -> bytes:
    return tag + varint(len(content)) + content


# --- JSON -----------------------------------------------------------------------------------------


def _look_at_json(text: bytes) -> Iterator[Seen]:
    try:
        said = otlp_json.in_camel_case(text).decode("utf-8", "replace")
        message, _ = json.JSONDecoder(strict=False).raw_decode(said)
    except (ValueError, RecursionError):
        return
    for resource_spans in _objects(message.get("resourceSpans")):
        resource = resource_spans.get("resource")
        fields = _members(resource, "resource.")
        fields += _rest(resource_spans, {"resource", "scopeSpans"}, "resourceSpans.")
        for scope_spans in _objects(resource_spans.get("scopeSpans")):
            scope = scope_spans.get("scope")
            shown = _members(scope, "scope.")
            shown += _rest(scope_spans, {"scope", "spans"}, "scopeSpans.")
            spans = scope_spans.get("spans")
            for span in spans if isinstance(spans, list) else ():
                whole = {"scope": scope, "spans": [span]}
                alone = {"resourceSpans": [{"resource": resource, "scopeSpans": [whole]}]}
                yield Seen([*fields, *shown, *_members(span, "")], json.dumps(alone).encode())


def _members(said: Any, prefix: str) -> Fields:
    shown: Fields = []
    for key, value in said.items() if isinstance(said, dict) else ():
        path = f"{prefix}{key}"
        if key == "attributes" and isinstance(value, list):
            shown += [_pair(path, place, item) for place, item in enumerate(value)]
        elif key in ("events", "links") and isinstance(value, list):
            shown += [(f"{path}[{place}]", _text(item)) for place, item in enumerate(value)]
        elif key == "status" and isinstance(value, dict):
            shown += _members(value, f"{path}.")
        else:
            shown.append((path, _text(value)))
    return shown


def _pair(path: str, place: int, item: Any) -> tuple[str, str]:
    if isinstance(item, dict) and isinstance(item.get("key"), str):
        value = item.get("value")
        if isinstance(value, dict) and len(value) == 1:
            (said,) = value.values()
            return f"{path}.{item['key']}", _text(said)
        return f"{path}.{item['key']}", _text(value)
    return f"{path}[{place}]", _text(item)


def _rest(members: dict[str, Any], known: set[str], prefix: str) -> Fields:
    return [(f"{prefix}{key}", _text(value)) for key, value in members.items() if key not in known]


def _objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return otlp.text_of(value) if isinstance(value, bool) else json.dumps(value, ensure_ascii=False)
