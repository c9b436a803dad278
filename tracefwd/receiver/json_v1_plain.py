"""The strict reader of Zipkin JSON v1, and its plain path: the span of one host with one call's two annotations.

In v1 an endpoint stands behind every tag, the same one each time, which makes a span three times as long as in v2.  So
the tags are cut out before msgspec reads the rest, and cut into pieces that have been seen before: a tag without its
endpoint, and the endpoint with what closes it.  Where each piece is one or the other, nothing else stood there.

Whatever is otherwise is left to the complete path (``json_v1.py``, ``v1_convert.py``); a property test holds that both
give the same.  Bounded memos hold what comes again in every span.  Pure.
"""

import re
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from tracefwd.limits import MEMO_ENTRIES_MAX, TAG_VALUE_LENGTH_MAX
from tracefwd.model import Decoded, Encoding, Endpoint, PlainSpan, Span
from tracefwd.receiver import fields, json_v1
from tracefwd.receiver.fields import INT64_MAX, PLAIN, PORT_MAX, START_US_MIN, Micros, is_plain
from tracefwd.receiver.tag_memo import Pair, TagMemo
from tracefwd.receiver.v1_convert import ADDRESS_KEYS, telling

_Text = Annotated[str, Meta(max_length=TAG_VALUE_LENGTH_MAX)]
_Hex16 = Annotated[str, Meta(min_length=16, max_length=16)]
_ZEROS_16 = "0" * 16
# Of two annotations: what kind of span they make, whose own times both are then.
_KINDS = {("cs", "cr"): "CLIENT", ("sr", "ss"): "SERVER"}
_PLAIN = PLAIN.encode()
_TAG = re.compile(rb'"key":"(' + _PLAIN + rb')","value":"(' + _PLAIN + rb')","endpoint":')
_NAME, _TAGS = b'"binaryAnnotations"', b',"binaryAnnotations":['
# Behind what the last tag's endpoint holds, and behind that of another.
_LIST_END, _NEXT_TAG = b"}}]", b"}},"
_ENDPOINT_BYTES_MAX = 400


class _Endpoint(Endpoint, gc=False, rename={"service_name": "serviceName"}):
    ipv6: None = None
    port: Annotated[int, Meta(ge=0, le=PORT_MAX)] | None = None


class _Note(Struct, gc=False):
    timestamp: Micros
    value: str
    endpoint: _Endpoint


class _Source(
    Struct,
    gc=False,
    rename={
        "trace_id": "traceId",
        "span_id": "id",
        "parent_id": "parentId",
        "notes": "annotations",
        "tagged": "binaryAnnotations",
        "local": "localEndpoint",
        "remote": "remoteEndpoint",
    },
):
    """What a plain span may look like, as far as msgspec can tell; members from ``kind`` on are v2's."""

    trace_id: _Text
    span_id: _Hex16
    name: _Text
    timestamp: Annotated[int, Meta(ge=START_US_MIN, le=INT64_MAX)]
    duration: Annotated[int, Meta(ge=1, lt=START_US_MIN)]
    notes: list[_Note]
    tagged: list[None]
    parent_id: _Hex16 | None = None
    debug: None = None
    kind: None = None
    shared: None = None
    local: None = None
    remote: None = None
    tags: None = None


_decode = msgspec.json.Decoder(list[_Source]).decode
_decode_elements = msgspec.json.Decoder(list[Raw]).decode
_decode_endpoint = msgspec.json.Decoder(_Endpoint).decode
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class StrictV1Reader:
    """Belongs to one decoder.  ``expects``: the last body was v1, so the next one will be."""

    __slots__ = ("_endpoints", "_names", "_tags", "expects")

    def __init__(self) -> None:
        self._tags = TagMemo(_read_tag)
        self._endpoints: dict[bytes, tuple[Endpoint, bytes]] = {}
        self._names: set[str] = set()
        self.expects = False

    def read(self, body: bytes) -> Decoded | None:
        """``body`` begins at its ``[``.  None: not strictly v1 throughout, let somebody look closer."""
        found = self._read_plain(body)
        spans = self._read_each(body, found) if found is None or None in found else found
        self.expects = bool(spans)
        return Decoded(Encoding.JSON_V1, spans) if spans else None

    def _read_each(self, body: bytes, found: list[Any] | None) -> list[Any] | None:
        """Span by span, plain or not; those that were ``found`` already as they are."""
        if json_v1.HINT not in body:
            return None
        if found is not None and not any(found):
            # Spans with an address of the other side never are plain: reading such a sender's bodies takes a third
            # longer than without the question, and would take three fifths longer one by one.
            decoded = json_v1.read_strict(body)
            return None if decoded is None else decoded.spans
        try:
            elements = _decode_elements(body)
        except _UNREADABLE:
            return None
        spans: list[Span] = []
        for place, element in enumerate(elements):
            alone = b"[%b]" % bytes(element)
            known = self._read_plain(alone) if found is None else found[place : place + 1]
            if known is not None and None not in known:
                spans += known
                continue
            decoded = json_v1.read_strict(alone)
            if decoded is None:
                return None
            spans += decoded.spans
        return spans

    def _read_plain(self, body: bytes) -> list[Any] | None:
        """For each span the plain one, or None where it is not; None if that cannot be told of the body as a whole."""
        rest, tagged = _cut(body)
        try:
            sources = _decode(rest)
        except _UNREADABLE:
            return None
        if len(sources) != len(tagged):
            return None
        spans = [*map(self._plain, sources, tagged)]
        ids: list[str] = []
        for source in sources:
            span_id = source.span_id
            ids += (source.trace_id, span_id, source.parent_id or span_id)
        digits = "".join(ids)
        try:
            # There and back, because fromhex alone would take upper case and blanks.
            fine = bytes.fromhex(digits).hex() == digits and _ZEROS_16 not in digits
        except ValueError:
            fine = False
        return spans if fine else None

    def _plain(self, source: _Source, tagged: bytes) -> PlainSpan | None:
        """Its ids' digits are still to be looked at.  On one screen, because this runs for every span there is."""
        notes = source.notes
        # Behind each brace a tag up to its endpoint, behind the next what the endpoint holds and what closes it.
        pieces = tagged.split(b"{")
        endpoints = pieces[2::2]
        if len(notes) != 2 or not endpoints or pieces[0] != b"[" or source.tagged:
            return None
        closing = endpoints[-1]
        local, following = self._endpoints.get(closing) or self._learn_endpoint(closing)
        first, last = notes
        kind = _KINDS.get((first.value, last.value))
        name, trace_id = source.name, source.trace_id
        if (
            kind is None
            or local is None
            or first.endpoint != local
            or last.endpoint != local
            # Counting costs a tenth of looking each of them up.
            or endpoints.count(following) != len(endpoints) - 1
            or (name not in self._names and not self._learn_name(name))
            or (len(trace_id) != 32 and len(trace_id) != 16)
            or source.parent_id == source.span_id
        ):
            return None
        tags = self._tags.record_of(pieces[1::2])
        if tags is None:
            return None
        return PlainSpan(
            trace_id=trace_id,
            span_id=source.span_id,
            parent_id=source.parent_id,
            kind=kind,
            name=name,
            timestamp_us=source.timestamp,
            duration_us=source.duration,
            local=local,
            tags=tags,
        )

    def _learn_endpoint(self, closing: bytes) -> tuple[Endpoint | None, bytes]:
        """The last tag's endpoint, from within its braces to the list's end, and how it stands behind the others."""
        inside = closing.removesuffix(_LIST_END)
        if len(inside) == len(closing):
            return None, b""
        try:
            endpoint = _decode_endpoint(b"{%b}" % inside)
        except _UNREADABLE:
            return None, b""
        name, ipv4 = endpoint.service_name, endpoint.ipv4
        if telling(endpoint) is None:
            return None, b""
        if (name is not None and not is_plain(name)) or fields.addresses(ipv4, None)[0] != ipv4:
            return None, b""
        learned = endpoint, inside + _NEXT_TAG
        if len(closing) <= _ENDPOINT_BYTES_MAX:
            if len(self._endpoints) >= MEMO_ENTRIES_MAX:
                self._endpoints.clear()
            self._endpoints[closing] = learned
        return learned

    def _learn_name(self, name: str) -> bool:
        if not is_plain(name):
            return False
        if len(self._names) >= MEMO_ENTRIES_MAX:
            self._names.clear()
        self._names.add(name)
        return True


def _cut(body: bytes) -> tuple[bytes, list[bytes]]:
    """The body with an empty list of tags in each span, and the lists: half of what stepping over them costs msgspec.

    A list ends at its first bracket; if that stands in a value, what is left is no JSON.  Wherever else a member of
    this name may stand, and however it may be written, there are more lists than spans, or none; of two in one object
    the last counts, for msgspec too.
    """
    rest: list[bytes] = []
    lists: list[bytes] = []
    at = 0
    while True:
        # Where Envoys have it, it follows the annotations' bracket: a tenth of the cost of a search for the name.
        begin = body.find(b"]", at + 1) + 1
        if not body.startswith(_TAGS, begin):
            place = body.find(_NAME, at)
            if place < 0:
                break
            begin = place - 1
            if not body.startswith(_TAGS[1:], place):
                return body, []
        begin += len(_TAGS)
        end = body.find(b"]", begin)
        if end < 0:
            return body, []
        rest.append(body[at:begin])
        lists.append(body[begin - 1 : end + 1])
        at = end
    rest.append(body[at:])
    whole = b"".join(rest)
    # Without escapes there is no other way to write the name.
    return whole, [] if b"\\" in whole else lists


def _read_tag(piece: bytes) -> Pair | None:
    found = _TAG.fullmatch(piece)
    if found is None:
        return None
    key = found[1].decode()
    return None if key in ADDRESS_KEYS else (key, found[2].decode())
