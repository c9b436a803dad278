"""Zipkin JSON v2: the strict reader, which is the hot path, and the lenient reader of one span.

Nearly every body is what Envoy posts: well-formed, with every field of the type that Zipkin's API says.  The
strict reader decodes such a body in one call and looks at each span's ids once.  Whatever it does not
like it leaves to ``salvage.py`` by returning None; it never repairs more than the form of an id, and never
rejects, because it does not know where in the body a span stood.

**plain** (see ``model.Decoded``) is decided here by means that cost a fraction of looking at each string: the
decoder's own length constraints, a memo of tag keys, and three searches of the raw bytes.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from tracefwd.limits import MEMO_ENTRIES_MAX, TAG_VALUE_LENGTH_MAX
from tracefwd.model import Annotation, Decoded, Encoding, Endpoint, Span
from tracefwd.receiver import fields
from tracefwd.receiver.fields import KINDS, PORT_MAX, BadIdError, Mends, Micros

_ZEROS_16 = "0" * 16
_KINDS_OR_NONE = KINDS | {None}

_Port = Annotated[int, Meta(ge=0, le=PORT_MAX)]
# Code points; only ASCII bodies can be plain, and there they are bytes.
_Short = Annotated[str, Meta(min_length=1, max_length=TAG_VALUE_LENGTH_MAX)]

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


class _ShortEndpoint(_Endpoint, gc=False, rename=_ENDPOINT_NAMES):
    service_name: _Short | None = None


class _ShortAnnotation(_Annotation, gc=False, rename=_ANNOTATION_NAMES):
    value: _Short


class _ShortSpan(_Span, gc=False, rename=_SPAN_NAMES):
    name: _Short | None = None
    local: _ShortEndpoint | None = None
    remote: _ShortEndpoint | None = None
    annotations: list[_ShortAnnotation] | None = None  # type: ignore[assignment]
    # Keys are looked up in a memo instead: a constraint on them would bypass the decoder's key cache.
    tags: dict[str, _Short] | None = None


_decode_short = msgspec.json.Decoder(list[_ShortSpan]).decode
_decode_any = msgspec.json.Decoder(list[_Span]).decode
_decode_one = msgspec.json.Decoder(_Span).decode
# What the decoder raises, for bad syntax or types, invalid UTF-8, and nesting in unknown fields.
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

# --- strict ----------------------------------------------------------------------------------


class StrictReader:
    """Reads what is strictly Zipkin v2.  Its only state are bounded memos of tag keys and addresses."""

    __slots__ = ("_blanks", "_ipv4", "_plain_keys")

    def __init__(self) -> None:
        # Names and user agents that repeat -> blanks inside, -1 for one at an edge.
        self._blanks: dict[str, int] = {}
        self._plain_keys: set[str] = set()
        # Known to be what they seem.
        self._ipv4: set[str | None] = {None}

    def read(self, body: bytes) -> Decoded | None:
        """``body`` begins at its ``[``.  None: not strictly v2, let somebody look closer."""
        try:
            spans: list[Any] = _decode_short(body)
            short = True
        except msgspec.ValidationError:
            # Most often one long value, such as a URL with a query.
            try:
                spans = _decode_any(body)
            except _UNREADABLE:
                return None
            short = False
        except _UNREADABLE:
            return None
        if not self._settle(spans):
            return None
        return Decoded(Encoding.JSON_V2, spans, (), short and self._is_plain(body, spans))

    def read_one(self, element: bytes) -> Span | None:
        """One span, if it is strictly v2; for bodies of which only some spans are odd."""
        try:
            span: Any = _decode_one(element)
        except _UNREADABLE:
            return None
        return span if self._settle([span]) else None

    def _settle(self, spans: list[Any]) -> bool:
        """Make model spans of decoded ones; False when one needs more than its ids' form settled.

        Nobody else has seen ``spans`` yet, so a False may leave some of them settled.  All on one screen
        and without calls, because this runs for every span there is.
        """
        fromhex = bytes.fromhex
        known_ipv4 = self._ipv4
        for span in spans:
            trace_id = span.trace_id
            span_id = span.span_id
            parent_id = span.parent_id
            ids = trace_id + span_id if parent_id is None else trace_id + span_id + parent_id
            try:
                # There and back, because fromhex alone would take upper case and blanks.
                settled = fromhex(ids).hex() == ids and _ZEROS_16 not in ids
            except ValueError:
                settled = False
            if (
                not settled
                or len(span_id) != 16
                or (len(trace_id) != 32 and len(trace_id) != 16)
                or (parent_id is not None and (len(parent_id) != 16 or parent_id == span_id))
            ) and not _settle_ids(span):
                return False
            if span.kind not in _KINDS_OR_NONE:
                return False
            span.__class__ = Span
            local = span.local
            if local is not None:
                local.__class__ = Endpoint
                if (
                    local.ipv6 is not None or local.ipv4 not in known_ipv4
                ) and not self._learn_addresses(local):
                    return False
            elif span.tags is None and span.remote is None:
                # It may be a v1 span, whose own fields were skipped as unknown.
                return False
            if span.annotations is not None:
                for annotation in span.annotations:
                    annotation.__class__ = Annotation
            if span.remote is not None:
                span.remote.__class__ = Endpoint
                if not self._learn_addresses(span.remote):
                    return False
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

    def _is_plain(self, body: bytes, spans: list[Span]) -> bool:
        """Whether the strings, known to be 1 to 128 long, also have no escape and no blank at an edge."""
        if b"\\" in body or not body.isascii():
            return False
        plain_keys = self._plain_keys
        for span in spans:
            tags = span.tags
            if tags is not None and not plain_keys.issuperset(tags) and not self._learn_keys(tags):
                return False
        return b" " not in body or self._blanks_are_inside(body, spans)

    def _blanks_are_inside(self, body: bytes, spans: list[Span]) -> bool:
        """Whether every blank of the body stands inside a ``user_agent`` or a span's name.

        Those two are where Envoy's blanks are (``router ... egress``), and they repeat, so that counting them costs a
        fifth of searching the body for blanks next to quotes.  Blanks elsewhere come out as not plain.
        """
        inside = 0
        known = self._blanks
        for span in spans:
            tags = span.tags
            for text in (span.name, None if tags is None else tags.get("user_agent")):
                if text is not None:
                    blanks = known.get(text)
                    if blanks is None:
                        blanks = self._learn_blanks(text)
                    if blanks < 0:
                        return False
                    inside += blanks
        return inside == body.count(b" ")

    def _learn_blanks(self, text: str) -> int:
        """How many blanks a text of at most 128 characters has inside; -1 if one is at its edge."""
        blanks = -1 if text[0] == " " or text[-1] == " " else text.count(" ")
        if len(self._blanks) >= MEMO_ENTRIES_MAX:
            self._blanks.clear()
        self._blanks[text] = blanks
        return blanks

    def _learn_keys(self, tags: dict[str, str]) -> bool:
        """Take new keys into the memo; False when one of them is not plain."""
        if len(self._plain_keys) + len(tags) > MEMO_ENTRIES_MAX:
            self._plain_keys.clear()
        for key in tags:
            if not 0 < len(key) <= TAG_VALUE_LENGTH_MAX or key != key.strip():
                return False
            if len(self._plain_keys) < MEMO_ENTRIES_MAX:
                self._plain_keys.add(key)
        return True


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
