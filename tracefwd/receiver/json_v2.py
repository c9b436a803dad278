"""Zipkin JSON v2: the strict reader, which is the hot path, and the lenient reader of one span.

Nearly every body is what Envoy posts: well-formed, with every field of the type that Zipkin's API says, and
nothing in it that anybody would have to look at twice.  The strict reader decodes such a body in one call into
``PlainSpan``s and looks at their ids all at once.  If something in the body is unusual it looks at each span
alone, so that one odd span does not slow the others down.  What it does not like at all it leaves to
``salvage.py`` by returning None; it never repairs more than the form of an id, and never rejects, because it does
not know where in the body a span stood.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from tracefwd.limits import MEMO_ENTRIES_MAX, TAG_VALUE_LENGTH_MAX
from tracefwd.model import Annotation, Decoded, Encoding, Endpoint, PlainSpan, Span
from tracefwd.receiver import fields
from tracefwd.receiver.fields import KINDS, PORT_MAX, BadIdError, Mends, Micros
from tracefwd.receiver.tag_records import TagRecords

_ZEROS_16 = "0" * 16
# More than any body has, so that no sum with it comes out right.
_BLANK_AT_EDGE = 1 << 40
# As a number: bytes that are asked for bytes raise and forget a TypeError first.
_BACKSLASH = ord("\\")
# What msgspec says of a key that the tags' record has no place for.
_NEW_KEY = "unknown field"
_KINDS_OR_NONE = KINDS | {None}

_Port = Annotated[int, Meta(ge=0, le=PORT_MAX)]
# Code points; only ASCII bodies can be plain, and there they are bytes.
_Short = Annotated[str, Meta(min_length=1, max_length=TAG_VALUE_LENGTH_MAX)]
_Hex16 = Annotated[str, Meta(min_length=16, max_length=16)]

_ENDPOINT_NAMES = {"service_name": "serviceName"}
_ANNOTATION_NAMES = {"timestamp_us": "timestamp"}
_SPAN_NAMES = {
    "trace_id": "traceId",
    "span_id": "id",
    "parent_id": "parentId",
    "timestamp_us": "timestamp",
    "duration_us": "duration",
    "local": "localEndpoint",
    "remote": "remoteEndpoint",
}


# The model's records with the constraints that only a decoder needs.  They add no member, so that a
# record can be given its model's class once it has been decoded.


class _Endpoint(Endpoint, gc=False, rename=_ENDPOINT_NAMES):
    port: _Port | None = None


class _Annotation(Annotation, gc=False, rename=_ANNOTATION_NAMES):
    timestamp_us: Micros


class _Span(Span, gc=False, rename=_SPAN_NAMES):
    timestamp_us: Micros | None = None
    duration_us: Micros | None = None
    local: _Endpoint | None = None
    remote: _Endpoint | None = None
    annotations: list[_Annotation] | None = None  # type: ignore[assignment]


class _PlainEndpoint(_Endpoint, gc=False, rename=_ENDPOINT_NAMES):
    service_name: _Short | None = None
    ipv6: None = None


class _PlainAnnotation(_Annotation, gc=False, rename=_ANNOTATION_NAMES):
    value: _Short


class _PlainSpan(PlainSpan, gc=False, rename=_SPAN_NAMES, kw_only=True):
    """What the decoder itself can prove of a plain span costs a fraction of looking at it afterwards."""

    trace_id: Annotated[str, Meta(min_length=16, max_length=32)]
    span_id: _Hex16
    parent_id: _Hex16 | None = None
    kind: Literal["CLIENT", "SERVER", "PRODUCER", "CONSUMER"] | None = None
    name: _Short
    timestamp_us: Annotated[int, Meta(ge=fields.START_US_MIN, le=fields.INT64_MAX)]
    duration_us: Annotated[int, Meta(ge=0, lt=fields.START_US_MIN)]
    local: _PlainEndpoint
    remote: None = None
    annotations: list[_PlainAnnotation] | None = None  # type: ignore[assignment]
    debug: None = None
    shared: None = None


class _Keys(msgspec.Struct, gc=False):
    tags: dict[str, msgspec.Raw] = {}


_decode_elements = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_keys = msgspec.json.Decoder(_Keys).decode
_decode_one = msgspec.json.Decoder(_Span).decode
# What the decoder raises, for bad syntax or types, invalid UTF-8, and nesting in unknown fields.
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

# --- strict ----------------------------------------------------------------------------------


class StrictReader:
    """Reads what is strictly Zipkin v2.  Its only state are bounded memos of addresses, keys and texts with blanks."""

    __slots__ = ("_blanks", "_decode", "_decode_one", "_ipv4", "_records")

    def __init__(self) -> None:
        self._records = TagRecords(_Short)
        self._take_record()
        # Names and user agents that repeat -> blanks inside.
        self._blanks: dict[str, int] = {}
        # Known to be what they seem.
        self._ipv4: set[str | None] = {None}

    def _take_record(self) -> None:
        """Decode into the tags' newest record."""
        record: Any = self._records.record
        span: Any = msgspec.defstruct(
            "PlacedSpan", [("tags", record)], bases=(_PlainSpan,), gc=False, kw_only=True
        )
        self._decode = msgspec.json.Decoder(list[span]).decode
        self._decode_one = msgspec.json.Decoder(span).decode

    def read(self, body: bytes) -> Decoded | None:
        """``body`` begins at its ``[``.  None: not strictly v2, let somebody look closer."""
        if _looks_odd(body):
            return self._read_apart(body)
        try:
            spans: list[Any] = self._decode(body)
        except msgspec.ValidationError as error:
            return self._read_apart(body, _place_of(error))
        except _UNREADABLE:
            return None
        if not self._are_plain(spans, body):
            return self._read_apart(body)
        return Decoded(Encoding.JSON_V2, spans)

    def _read_apart(self, body: bytes, odd_place: int = -1) -> Decoded | None:
        """Odd spans each by itself, the others together, so that these cost little more than without the odd ones."""
        parts = _parts(body)
        spans = self._read_each(parts, odd_place) if parts else None
        if spans is None:
            try:
                elements = [bytes(element) for element in _decode_elements(body)]
            except _UNREADABLE:
                return None
            spans = self._read_each(elements, odd_place)
        return None if spans is None else Decoded(Encoding.JSON_V2, spans)

    def _read_each(self, elements: list[bytes], odd_place: int) -> list[Span] | None:
        """Which are odd is guessed; a wrong guess costs time and nothing else.  None if one is not strictly v2."""
        odd = [at == odd_place or _looks_odd(text) for at, text in enumerate(elements)]
        others = [text for text, is_odd in zip(elements, odd, strict=True) if not is_odd]
        together = self._read_together(others) if 0 < len(others) < len(elements) else None
        spans: list[Span] = []
        for text, is_odd in zip(elements, odd, strict=True):
            if together is not None and not is_odd:
                spans.append(next(together))
                continue
            span = self._read_plain(text) or self.read_one(text)
            if span is None:
                return None
            spans.append(span)
        return spans

    def _read_together(self, elements: list[bytes]) -> Iterator[Span] | None:
        """Spans that are all plain, else None."""
        text = b"[%b]" % b",".join(elements)
        try:
            spans: list[Any] = self._decode(text)
        except _UNREADABLE:
            return None
        return iter(spans) if self._are_plain(spans, text) else None

    def _read_plain(self, element: bytes) -> Span | None:
        if _looks_odd(element):
            return None
        try:
            span: Any = self._decode_one(element)
        except msgspec.ValidationError as error:
            # A new key may be all that is odd.
            is_new = _NEW_KEY in str(error) and self._learn_keys(element)
            return self._read_plain(element) if is_new else None
        except _UNREADABLE:
            return None
        return span if self._are_plain([span], element) else None

    def _learn_keys(self, element: bytes) -> bool:
        """Whether this span's tags have keys that were new until now."""
        try:
            keys = _decode_keys(element).tags
        except _UNREADABLE:
            return False
        if not self._records.learn(keys):
            return False
        self._take_record()
        return True

    def read_one(self, element: bytes) -> Span | None:
        """One span, if it is strictly v2; for bodies of which only some spans are odd."""
        try:
            span: Any = _decode_one(element)
        except _UNREADABLE:
            return None
        return span if self._settle(span) else None

    def _are_plain(self, spans: list[Any], text: bytes) -> bool:
        """Whether ``spans``, all that stand in ``text``, are plain in what the decoder could not tell.

        ``text`` is ASCII without escapes.  On one screen and without calls, because this runs for every span there is.
        Every blank of it must stand inside a ``user_agent`` or a span's name: those two are where Envoy's are
        (``router ... egress``), and they repeat, so that adding up costs a fifth of a search for blanks next to quotes.
        """
        ids: list[str] = []
        add, blanks, inside = ids.append, self._blanks, 0
        trace_id = ipv4 = None
        try:
            for span in spans:
                # A post is one Envoy's, and often of few traces: comparing with the last span's costs less than a look.
                if span.trace_id != trace_id:
                    trace_id = span.trace_id
                    if len(trace_id) != 32 and len(trace_id) != 16:
                        return False
                    add(trace_id)
                span_id, parent_id = span.span_id, span.parent_id
                if parent_id == span_id:
                    return False
                add(span_id)
                if parent_id is not None:
                    add(parent_id)
                if span.local.ipv4 != ipv4:
                    ipv4 = span.local.ipv4
                    if ipv4 not in self._ipv4 and not self._learn_addresses(span.local):
                        return False
                inside += blanks[span.name] + blanks[span.tags.user_agent]
        except KeyError:
            self._learn_blanks(spans)
            return self._are_plain(spans, text)
        digits = "".join(ids)
        try:
            # There and back, because fromhex alone would take upper case and blanks.
            if bytes.fromhex(digits).hex() != digits or _ZEROS_16 in digits:
                return False
        except ValueError:
            return False
        # Replacing searches a vector at a time, ``count`` byte by byte: a quarter of the cost.
        return inside == len(text) - len(text.replace(b" ", b""))

    def _settle(self, span: Any) -> bool:
        """Make a decoded span a model's; False when it needs more than its ids' form settled."""
        if not _settle_ids(span) or span.kind not in _KINDS_OR_NONE:
            return False
        if span.local is None and span.tags is None and span.remote is None:
            # It may be a v1 span, whose own fields were skipped as unknown.
            return False
        span.__class__ = Span
        for endpoint in (span.local, span.remote):
            if endpoint is not None:
                endpoint.__class__ = Endpoint
                if not self._learn_addresses(endpoint):
                    return False
        for annotation in span.annotations or ():
            annotation.__class__ = Annotation
        return True

    def _learn_addresses(self, endpoint: Endpoint) -> bool:
        """Take a new address into the memo; False when an address is not what it should be."""
        ipv4, ipv6 = endpoint.ipv4, endpoint.ipv6
        if fields.addresses(ipv4, ipv6) != (ipv4, ipv6):
            return False
        if len(self._ipv4) >= MEMO_ENTRIES_MAX:
            self._ipv4.intersection_update({None})
        self._ipv4.add(ipv4)
        return True

    def _learn_blanks(self, spans: list[Any]) -> None:
        """Into the memo, texts of at most 128 characters each: how many blanks they have inside."""
        if len(self._blanks) >= MEMO_ENTRIES_MAX:
            self._blanks.clear()
        for span in spans:
            for text in (span.name, span.tags.user_agent):
                self._blanks[text] = text.count(" ") if text.strip() == text else _BLANK_AT_EDGE


def _parts(body: bytes) -> list[bytes]:
    """Cut where the objects of a list seem to meet, a tenth of an odd body's cost cheaper than by the decoder.

    If each part is JSON, they are the list's elements: it cannot be read in two ways.  A part of a string or of an
    inner list is none.  Empty: the list is not written like that.
    """
    if not (body.startswith(b"[{") and body.endswith(b"}]")):
        return []
    return [b"{%b}" % part for part in body[2:-2].split(b"},{")]


def _place_of(error: msgspec.ValidationError) -> int:
    """Which element of a list did not fit, as msgspec's message ends (``... - at `$[3].tags```); -1 if it says none."""
    _, said, place = str(error).rpartition("`$[")
    digits = place.partition("]")[0]
    return int(digits) if said and digits.isdecimal() else -1


def _looks_odd(text: bytes) -> bool:
    """Of a body or one span: it has escapes, or letters beyond ASCII."""
    return _BACKSLASH in text or not text.isascii()


def _settle_ids(span: Span) -> bool:
    """Bring short, upper-case and zero-led ids into their form; False when that would count as a mend."""
    mends = Mends()
    try:
        span.trace_id = fields.trace_id(span.trace_id, mends)
        span.span_id = fields.span_id(span.span_id, mends)
    except BadIdError:
        return False
    span.parent_id = fields.parent_id(span.parent_id, span.span_id, mends)
    return not mends.field_type


# --- lenient ---------------------------------------------------------------------------------


def read_lenient(members: dict[str, Any], mends: Mends) -> Span:
    """One span out of any JSON object; raises BadIdError when it has no usable trace or span id."""
    trace_id = fields.trace_id(members.get("traceId"), mends)
    span_id = fields.span_id(members.get("id"), mends)
    return Span(
        trace_id=trace_id,
        span_id=span_id,
        parent_id=fields.parent_id(members.get("parentId"), span_id, mends),
        kind=fields.kind(members.get("kind"), mends),
        name=fields.text(members.get("name"), mends),
        timestamp_us=fields.micros(members.get("timestamp"), mends),
        duration_us=fields.micros(members.get("duration"), mends),
        local=fields.endpoint(members.get("localEndpoint"), mends),
        remote=fields.endpoint(members.get("remoteEndpoint"), mends),
        annotations=fields.annotations(members.get("annotations"), mends),
        tags=fields.tags(members.get("tags"), mends),
        debug=fields.flag(members.get("debug"), mends),
        shared=fields.flag(members.get("shared"), mends),
    )
