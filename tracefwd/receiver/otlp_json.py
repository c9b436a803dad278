"""OTLP in JSON: hex ids, 64-bit numbers as text, enums as numbers or names, members by both their names, unknown ones
passed over.

Three steps, each slower and more forgiving than the one before:

1. the frame of a well-formed body (resources, scopes, and where each span is) in one call, then span by span;
2. the whole of a short body that has odd types or invalid UTF-8, leniently;
3. broken syntax: resources, scopes and the elements of every ``spans`` list are searched in the order in which they
   stand, up to where it breaks; the rest is one reject with the byte where it broke.

Pure.
"""

import json
import re
from collections.abc import Iterator
from math import inf
from typing import Any

import msgspec

from tracefwd.limits import (
    JSON_DEPTH_MAX,
    LENIENT_SPAN_BYTES_MAX,
    REJECT_SAMPLE_BYTES_MAX,
    REJECTS_PER_BODY_MAX,
)
from tracefwd.model import Decoded, Encoding, Event, Reject, Span
from tracefwd.receiver import fields, otlp, salvage
from tracefwd.receiver.fields import BadIdError, BrokenError, Mends
from tracefwd.receiver.otlp import Draft, Shared

_KIND_NAMES = {
    f"SPAN_KIND_{name}": number
    for number, name in enumerate(
        ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
    )
}
_STATUS_NAMES = {"STATUS_CODE_UNSET": 0, "STATUS_CODE_OK": 1, "STATUS_CODE_ERROR": 2}
_UINT64_MAX = 2**64 - 1
_NUMBER = re.compile(r"-?[0-9]{1,20}")
_DECIMAL = re.compile(r"-?[0-9]{1,400}(?:\.[0-9]{1,400})?(?:[eE][+-]?[0-9]{1,5})?")
# Where parts of a body begin.  A member's name in a text has its quotes escaped.
_PARTS = re.compile(rb'"(resource|scope|spans)"[ \t\r\n]*:[ \t\r\n]*')
# The proto's own names of fields, which a parser of its JSON takes as well, and so does the Collector.  A text before a
# colon is a member's name, whatever stands in other texts.
_OWN_NAME_OF_LIST = b'"resource_spans"'
_OWN_NAMES = re.compile(
    rb'"(?:resource_spans|scope_spans|schema_url|(?:trace|span|parent_span)_id|trace_state'
    rb"|(?:start_|end_)?time_unix_nano|dropped_(?:attributes|events|links)_count"
    rb'|(?:string|bool|int|double|array|kvlist|bytes)_value)"(?=[ \t\r\n]*:)'
)
_CAMEL = re.compile(rb"_([a-z])")
_load = json.JSONDecoder(strict=False).raw_decode
_NOTHING = msgspec.Raw(b"null")


class _Scope(msgspec.Struct, gc=False, rename="camel"):
    scope: msgspec.Raw = _NOTHING
    spans: list[msgspec.Raw] = []


class _Resource(msgspec.Struct, gc=False, rename="camel"):
    resource: msgspec.Raw = _NOTHING
    scope_spans: list[_Scope] = []


class _Request(msgspec.Struct, gc=False, rename="camel"):
    resource_spans: list[_Resource] = []


_decode_frame = msgspec.json.Decoder(_Request).decode


def is_request(body: bytes) -> bool:
    """Whether an object in JSON looks like one of OTLP."""
    return b'"resourceSpans"' in body or _OWN_NAME_OF_LIST in body


def in_camel_case(body: bytes) -> bytes:
    """``body`` with its members under the names that OTLP's JSON has; texts stay as they are."""
    if _OWN_NAME_OF_LIST not in body:
        return body
    return _OWN_NAMES.sub(lambda found: _CAMEL.sub(_upper, found[0]), body)


def _upper(found: re.Match[bytes]) -> bytes:
    return found[1].upper()


def decode(body: bytes, at: int, *, as_the_proxy: bool = False) -> Decoded:
    """``body`` from its first bracket ``at`` on; ``as_the_proxy`` as in ``otlp.finish``."""
    body = in_camel_case(body)
    reader = _Reader(as_the_proxy=as_the_proxy)
    try:
        frame = _decode_frame(body[at:])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        reader.read_odd(body, at)
    else:
        reader.read_frame(frame)
    repairs = reader.repairs
    if reader.spans and reader.rejects:
        repairs["batch_salvaged"] = 1
    return Decoded(Encoding.OTLP_JSON, reader.spans, reader.rejects, repairs=repairs or None)


def _read(text: bytes, mends: Mends) -> Any:
    """One value and nothing behind it; ``ValueError`` for what is no JSON."""
    try:
        said = text.decode()
    except UnicodeDecodeError:
        mends.utf8 = True
        said = text.decode(errors="replace")
    value, end = _load(said)
    if said[end:].strip(" \t\r\n"):
        raise ValueError(f"something follows the end of the object at character {end}")
    return fields.without_surrogates(value) if "\\u" in said else value


def _read_short(text: bytes, mends: Mends) -> Any:
    """``_read`` for text of which all objects may be held at once."""
    if len(text) > LENIENT_SPAN_BYTES_MAX:
        raise ValueError("its resources and scopes are not what they should be")
    return _read(text, mends)


class _Reader:
    def __init__(self, *, as_the_proxy: bool) -> None:
        self._as_the_proxy = as_the_proxy
        self.mends = Mends()
        self.spans: list[Span] = []
        self.rejects: list[Reject] = []
        self.repairs: dict[str, int] = {}

    def reject(self, reason: str, where: str, detail: str, sample: bytes) -> None:
        if len(self.rejects) < REJECTS_PER_BODY_MAX:
            cut = sample[:REJECT_SAMPLE_BYTES_MAX]
            self.rejects.append(Reject(reason, where, detail, cut))

    # --- bodies -----------------------------------------------------------------------------------

    def read_frame(self, frame: _Request) -> None:
        for resource_spans in frame.resource_spans:
            resource = self._value(bytes(resource_spans.resource))
            for scope_spans in resource_spans.scope_spans:
                shared = self._share(resource, self._value(bytes(scope_spans.scope)))
                for raw in scope_spans.spans:
                    self._take_text(bytes(raw), shared)

    def read_odd(self, body: bytes, at: int) -> None:
        """A body whose frame is broken, or not quite of the types that it should have."""
        offset = at
        try:
            message = _read_short(body[at:], self.mends)
        except (ValueError, RecursionError) as error:
            offset += getattr(error, "pos", 0)
            self._salvage(body, at)
            self.reject("syntax", f"byte {offset}", f"broken JSON: {error}", body[offset:])
        else:
            self._read_message(message, body)

    def _read_message(self, message: Any, body: bytes) -> None:
        if not isinstance(message, dict):
            detail = "an ExportTraceServiceRequest is an object with the member resourceSpans"
            self.reject("not_a_span", "body", detail, body)
            return
        utf8 = self.mends.utf8
        for resource_spans in _objects(message.get("resourceSpans")):
            resource = resource_spans.get("resource")
            for scope_spans in _objects(resource_spans.get("scopeSpans")):
                shared = self._share(resource, scope_spans.get("scope"))
                shared.utf8 |= utf8
                spans = scope_spans.get("spans")
                for span in spans if isinstance(spans, list) else ():
                    self._take(span, shared, b"")

    def _salvage(self, body: bytes, at: int) -> None:
        resource: Any = None
        shared = self._share(None, None)
        while part := _PARTS.search(body, at):
            name, at = part[1], part.end()
            if name == b"spans":
                if body[at : at + 1] == b"[":
                    at = self._salvage_spans(body, at, shared)
                continue
            try:
                _, end = next(salvage.elements(body, at))
            except (BrokenError, StopIteration):
                return
            value = self._value(body[at:end])
            resource = value if name == b"resource" else resource
            shared = self._share(resource, value if name == b"scope" else None)
            at = end

    def _salvage_spans(self, body: bytes, at: int, shared: Shared) -> int:
        try:
            for begin, end in salvage.elements(body, at):
                self._take_text(body[begin:end], shared)
                at = end
        except BrokenError:
            # Where, the whole body's reading has told.
            return len(body)
        return at

    def _take_text(self, text: bytes, shared: Shared) -> None:
        if len(text) > LENIENT_SPAN_BYTES_MAX:
            detail = f"larger than {LENIENT_SPAN_BYTES_MAX} bytes"
            self.reject("not_a_span", "span", detail, text)
            return
        try:
            members = _read(text, self.mends)
        except (ValueError, RecursionError) as error:
            self.reject("syntax", "span", f"broken JSON: {error}", text)
            self.mends.field_type = self.mends.utf8 = False
        else:
            self._take(members, shared, text)

    def _value(self, text: bytes) -> Any:
        """A resource or a scope; None for one that cannot be read."""
        try:
            return _read(text, self.mends)
        except (ValueError, RecursionError):
            return None

    # --- parts ------------------------------------------------------------------------------------

    def _share(self, resource: Any, scope: Any) -> Shared:
        mends = self.mends
        said = scope if isinstance(scope, dict) else {}
        members = resource if isinstance(resource, dict) else {}
        blanks: list[str] = []
        attributes = self._attributes(members.get("attributes"), blanks)
        name, version = self._text(said.get("name")), self._text(said.get("version"))
        shared = otlp.share(attributes, name, version, blanks=len(blanks), mends=mends)
        mends.field_type = mends.utf8 = False
        return shared

    def _take(self, members: Any, shared: Shared, text: bytes) -> None:
        mends, blanks = self.mends, list[str]()
        mends.field_type |= shared.field_type
        mends.utf8 |= shared.utf8
        taken = False
        try:
            draft = self._draft(members, shared, blanks)
            self.spans.append(otlp.finish(draft, shared, mends, as_the_proxy=self._as_the_proxy))
            taken = True
        except (BadIdError, RecursionError) as error:
            reason, where = "syntax", "span"
            if isinstance(error, BadIdError):
                reason, where = error.reason, error.where
            self.reject(reason, where, f"{where} {error}", text)
        if taken and (number := len(blanks) + shared.blanks):
            self.repairs["blank_value"] = self.repairs.get("blank_value", 0) + number
        mends.settle(self.repairs, taken=taken)

    def _draft(self, members: Any, shared: Shared, blanks: list[str]) -> Draft:
        if not isinstance(members, dict):
            raise BadIdError("not_a_span", "span", "is no object")
        own = self._attributes(members.get("attributes"), blanks)
        status = members.get("status")
        said = status if isinstance(status, dict) else {}
        events = [self._event(item) for item in _objects(members.get("events"))]
        return Draft(
            {**shared.tags, **own},
            self._text(members.get("traceId")),
            self._text(members.get("spanId")),
            self._text(members.get("parentSpanId")),
            self._text(members.get("name")),
            self._enum(members.get("kind"), _KIND_NAMES),
            self._number(members.get("startTimeUnixNano")),
            self._number(members.get("endTimeUnixNano")),
            self._text(members.get("traceState")),
            self._number(members.get("droppedAttributesCount")),
            self._number(members.get("droppedEventsCount")),
            self._number(members.get("droppedLinksCount")),
            events or None,
            self._enum(said.get("code"), _STATUS_NAMES),
            self._text(said.get("message")),
            not otlp.SPECIAL_KEYS.isdisjoint(own),
        )

    def _event(self, members: dict[str, Any]) -> Event:
        attributes = self._attributes(members.get("attributes"), None)
        dropped = self._number(members.get("droppedAttributesCount"))
        time_ns, name = self._number(members.get("timeUnixNano")), self._text(members.get("name"))
        return otlp.event(time_ns, name, attributes, dropped)

    def _attributes(self, value: Any, blanks: list[str] | None) -> dict[str, str]:
        """Keys and values as tags; those without a value go into ``blanks`` where that is given."""
        found: dict[str, str] = {}
        for item in _objects(value):
            key = self._text(item.get("key"))
            text = otlp.text_of(self._any(item.get("value"), JSON_DEPTH_MAX))
            if text or blanks is None:
                found[key] = text
            else:
                blanks.append(key)
        return found

    def _any(self, value: Any, depth_left: int) -> Any:
        """An AnyValue; what is nested too deep, or of an unknown kind, is left out."""
        if not isinstance(value, dict) or not depth_left:
            self.mends.field_type |= value is not None
            return None
        for member, said in value.items():
            match member:
                case "stringValue" | "bytesValue":
                    # Bytes are base64 already.
                    return self._text(said)
                case "boolValue":
                    return said if isinstance(said, bool | int | float) else self._text(said)
                case "doubleValue":
                    return self._double(said)
                case "intValue":
                    return self._integer(said)
                case "arrayValue":
                    return self._array(said, depth_left - 1)
                case "kvlistValue":
                    return self._map(said, depth_left - 1)
        return None

    def _array(self, said: Any, depth_left: int) -> Any:
        values = said.get("values") if isinstance(said, dict) else None
        return [self._any(item, depth_left) for item in _objects(values)]

    def _map(self, said: Any, depth_left: int) -> Any:
        values = said.get("values") if isinstance(said, dict) else None
        return {
            self._text(item.get("key")): self._any(item.get("value"), depth_left)
            for item in _objects(values)
        }

    # --- scalars ------------------------------------------------------------------------------------

    def _text(self, value: Any) -> str:
        if isinstance(value, str):
            return value
        self.mends.field_type |= value is not None
        return otlp.text_of(value) if isinstance(value, int | float) else ""

    def _double(self, value: Any) -> float | str:
        """A number, whole ones included, or its decimal text."""
        if isinstance(value, str) and _DECIMAL.fullmatch(value):
            value = float(value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return self._text(value)
        try:
            return otlp.double(float(value))
        except OverflowError:
            return otlp.double(inf if value > 0 else -inf)

    def _integer(self, value: Any) -> float | str:
        if isinstance(value, str) and _NUMBER.fullmatch(value):
            return int(value)
        return value if isinstance(value, int | float) else self._text(value)

    def _number(self, value: Any) -> int:
        """A count or a time: a number, or its decimal text."""
        if value is None:
            return 0
        if isinstance(value, str) and _NUMBER.fullmatch(value):
            value = int(value)
        if isinstance(value, float) and abs(value) <= _UINT64_MAX:
            self.mends.field_type = True
            value = int(value)
        if type(value) is int and 0 <= value <= _UINT64_MAX:
            return value
        self.mends.field_type = True
        return 0

    def _enum(self, value: Any, names: dict[str, int]) -> int:
        if isinstance(value, str) and value in names:
            return names[value]
        return self._number(value)


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    return (
        (item for item in value if isinstance(item, dict)) if isinstance(value, list) else iter(())
    )
