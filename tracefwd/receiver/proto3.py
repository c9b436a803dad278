"""Zipkin proto3 (``proto/zipkin.proto``), read by hand.

No protobuf library, for two reasons: they refuse a whole body for one tag value that is not UTF-8, which any
client of the mesh can bring about, and they would take half of a worker's memory.

On the wire a body is ``0a LENGTH SPAN`` again and again; a span is fields, each a tag varint
(``number << 3 | wire type``) and a value.  Lengths frame everything, so a span that is broken inside costs only itself;
a broken frame ends the body: the spans before it are taken, and the rest is one reject.

Unknown fields are skipped, whatever their wire type.  The span that Envoy writes all day has a path of its own
(``proto3_plain.py``); the complete path is here.  Bounded memos hold what comes again in every span.
"""

from ipaddress import ip_address

from tracefwd.limits import MEMO_ENTRIES_MAX, REJECT_SAMPLE_BYTES_MAX
from tracefwd.model import Annotation, Decoded, Encoding, Endpoint, Reject, Span
from tracefwd.receiver import fields
from tracefwd.receiver.fields import PORT_MAX, BadIdError, BrokenError, Mends
from tracefwd.receiver.proto3_plain import KINDS, PlainReader
from tracefwd.receiver.wire import FRAMED, VARINT, Wire

# Tags: number << 3 | wire type.  All of ours fit one byte.
_SPANS = 0x0A
_TRACE_ID, _PARENT_ID, _ID, _KIND = 0x0A, 0x12, 0x1A, 0x20
_NAME, _TIMESTAMP, _DURATION = 0x2A, 0x31, 0x38
_LOCAL, _REMOTE, _ANNOTATIONS, _TAGS = 0x42, 0x4A, 0x52, 0x5A
_DEBUG, _SHARED = 0x60, 0x68
_ENTRY_KEY, _ENTRY_VALUE = 0x0A, 0x12
_ANNOTATION_TIMESTAMP, _ANNOTATION_VALUE = 0x09, 0x12
_SERVICE_NAME, _IPV4, _IPV6, _PORT = 0x0A, 0x12, 0x1A, 0x20
# Entries of tags and endpoints from here on are not remembered; a shorter one's length is a single byte.
_BYTES_KNOWN = 128
_NUMBERS = frozenset({_KIND, _DURATION, _DEBUG, _SHARED})
_FRAMED = frozenset({_TRACE_ID, _PARENT_ID, _ID, _NAME, _LOCAL, _REMOTE, _ANNOTATIONS})
_ZEROS_16 = "0" * 16


class Memo:
    """What comes again in span after span; belongs to whoever decodes, and is bounded."""

    __slots__ = ("endpoints", "entries", "plain")

    def __init__(self) -> None:
        self.entries: dict[bytes, tuple[str, str]] = {}
        self.endpoints: dict[bytes, Endpoint] = {}
        self.plain = PlainReader()

    def remember_entry(self, raw: bytes, entry: tuple[str, str]) -> None:
        if len(self.entries) >= MEMO_ENTRIES_MAX:
            self.entries.clear()
        self.entries[raw] = entry

    def remember_endpoint(self, raw: bytes, endpoint: Endpoint) -> None:
        if len(self.endpoints) >= MEMO_ENTRIES_MAX:
            self.endpoints.clear()
        self.endpoints[raw] = endpoint


def decode(body: bytes, proto_ids: str, memo: Memo) -> Decoded:
    """``proto_ids``: ``auto``, ``keep`` or ``reverse``."""
    reader = _Reader(body, memo, proto_ids)
    reader.read_list()
    spans, rejects, repairs = reader.spans, reader.rejects, reader.repairs
    if reader.turns:
        repairs["ids_reversed"] = len(spans)
    if spans and rejects:
        repairs["batch_salvaged"] = 1
    return Decoded(Encoding.PROTO3, spans, rejects, repairs=repairs or None)


def _is_envoys(span: Span) -> bool:
    tags = span.tags
    return tags is not None and tags.get("component") == "proxy" and "node_id" in tags


def _reverse_ids(span: Span) -> None:
    """Envoy writes these two in its machine's byte order, little-endian nearly everywhere."""
    span.span_id = bytes.fromhex(span.span_id)[::-1].hex()
    if span.parent_id is not None:
        span.parent_id = bytes.fromhex(span.parent_id)[::-1].hex()


class _Reader(Wire):
    """One body being read.

    ``turns``: its ids are turned round.  If ``auto``, one span of Envoy's among them says so for all: those before it
    are turned when it is found, those behind it as they are read.
    """

    __slots__ = ("_auto", "_memo", "mends", "rejects", "repairs", "spans", "turns")

    def __init__(self, body: bytes, memo: Memo, proto_ids: str) -> None:
        super().__init__(body)
        self._memo = memo
        self._auto = proto_ids == "auto"
        self.turns = proto_ids == "reverse"
        self.spans: list[Span] = []
        self.rejects: list[Reject] = []
        self.repairs: dict[str, int] = {}
        self.mends = Mends()

    def read_list(self) -> None:
        body, size, plain = self.body, len(self.body), self._memo.plain
        at = 0
        try:
            while at < size:
                if self.rejects:
                    fields.bound_rejects(len(self.rejects), at)
                if body[at] != _SPANS:
                    at = self.skip_field(at, size)
                    continue
                begin, end = self.frame(at + 1, size)
                span = plain.read(body, begin, end, -1 if self.turns else 1)
                if span is None:
                    self._take(begin, end)
                else:
                    self.spans.append(span)
                    if self._auto and plain.is_envoys(span):
                        self._turn()
                at = end
        except BrokenError as broken:
            self._reject("syntax", f"byte {broken.offset}", f"broken proto3: {broken}", at, size)

    def _turn(self) -> None:
        self.turns, self._auto = True, False
        for span in self.spans:
            _reverse_ids(span)

    def _reject(self, reason: str, where: str, detail: str, begin: int, end: int) -> None:
        sample = self.body[begin : min(end, begin + REJECT_SAMPLE_BYTES_MAX)]
        self.rejects.append(Reject(reason, where, detail, sample))

    def _take(self, begin: int, end: int) -> None:
        mends = self.mends
        taken = False
        try:
            span = self._span(begin, end)
            taken = True
        except BadIdError as bad:
            detail = f"{bad.where} {bad} (span at byte {begin})"
            self._reject(bad.reason, bad.where, detail, begin, end)
        except (BrokenError, IndexError) as error:
            offset, why = end, "it ends inside a field"
            if isinstance(error, BrokenError):
                offset, why = error.offset, str(error)
            detail = f"broken proto3 in the span at byte {begin}: {why}"
            self._reject("syntax", f"byte {offset}", detail, begin, end)
        if mends.field_type or mends.utf8:
            mends.settle(self.repairs, taken=taken)
        if taken:
            self.spans.append(span)
            if self.turns:
                _reverse_ids(span)
            elif self._auto and _is_envoys(span):
                self._turn()

    # --- one span ---------------------------------------------------------------------------

    def _span(self, at: int, end: int) -> Span:
        """The forms that Envoy writes are read in line; a span has some 25 tags and ten other fields.

        May raise IndexError for a field that ends behind the body.  One that ends behind ``end`` is noticed
        once, at the end, because ``at`` can then never come out equal to it.
        """
        body, entries, endpoints = self.body, self._memo.entries, self._memo.endpoints
        span = Span("", "")
        tags: dict[str, str] = {}
        while at < end:
            tag = body[at]
            size = body[at + 1]
            if tag == _TAGS:
                begin = at + 2
                at = begin + size
                # Only entries below 128 bytes are known, so a longer length finds none.
                entry = entries.get(body[begin:at])
                if entry is None:
                    begin, at = self.frame(begin - 1, end)
                    entry = self._entry(begin, at)
                key, value = entry
                tags[key] = value
            elif tag == _TRACE_ID and size == 16:
                at += 18
                span.trace_id = body[at - 16 : at].hex()
            elif tag == _ID and size == 8:
                at += 10
                span.span_id = body[at - 8 : at].hex()
            elif tag == _PARENT_ID and size == 8:
                at += 10
                span.parent_id = body[at - 8 : at].hex()
            elif tag == _TIMESTAMP:
                at += 9
                span.timestamp_us = int.from_bytes(body[at - 8 : at], "little", signed=True) or None
            elif tag == _KIND and size < len(KINDS):
                at += 2
                span.kind = KINDS[size]
            elif tag == _NAME and size < 0x80:
                at += 2 + size
                span.name = self._text(at - size, at) or None
            elif tag == _LOCAL and size < 0x80:
                at += 2 + size
                raw = body[at - size : at]
                span.local = endpoints.get(raw) or self._endpoint(at - size, at)
            else:
                at = self._other_field(span, at, end)
        if at != end:
            raise BrokenError(end, "a field is longer than the span")
        if tags:
            span.tags = tags
        self._settle_ids(span)
        return span

    def _other_field(self, span: Span, at: int, end: int) -> int:
        tag, at = self.varint(at, end)
        if tag & 7 == VARINT and tag in _NUMBERS:
            value, at = self.varint(at, end)
            self._set_number(span, tag, value)
            return at
        if tag & 7 != FRAMED or tag not in _FRAMED:
            return self.skip(tag, at, end)
        begin, at = self.frame(at, end)
        if tag == _LOCAL:
            span.local = self._endpoint(begin, at)
        elif tag == _ANNOTATIONS:
            if span.annotations is None:
                span.annotations = []
            span.annotations.append(self._annotation(begin, at))
        elif tag == _NAME:
            span.name = self._text(begin, at) or None
        elif tag == _REMOTE:
            span.remote = self._endpoint(begin, at)
        elif tag == _TRACE_ID:
            span.trace_id = self.body[begin:at].hex()
        elif tag == _ID:
            span.span_id = self.body[begin:at].hex()
        else:
            span.parent_id = self.body[begin:at].hex()
        return at

    def _set_number(self, span: Span, tag: int, value: int) -> None:
        if tag == _DURATION:
            span.duration_us = _signed(value) or None
        elif tag == _KIND:
            span.kind = KINDS[value] if value < len(KINDS) else None
            self.mends.field_type |= value >= len(KINDS)
        elif tag == _DEBUG:
            span.debug = value != 0 or None
        else:
            span.shared = value != 0 or None

    def _settle_ids(self, span: Span) -> None:
        trace_id, span_id, parent_id = span.trace_id, span.span_id, span.parent_id
        if len(trace_id) != 32 or trace_id.startswith(_ZEROS_16):
            span.trace_id = fields.trace_id(trace_id or None, self.mends)
        if len(span_id) != 16 or span_id == _ZEROS_16:
            span.span_id = fields.span_id(span_id or None, self.mends)
        if parent_id is not None and (len(parent_id) != 16 or parent_id in (span_id, _ZEROS_16)):
            span.parent_id = fields.parent_id(parent_id or None, span.span_id, self.mends)

    # --- parts of a span ----------------------------------------------------------------------

    def _text(self, begin: int, end: int) -> str:
        raw = self.body[begin:end]
        try:
            return raw.decode()
        except UnicodeDecodeError:
            self.mends.utf8 = True
            return raw.decode(errors="replace")

    def _entry(self, begin: int, end: int) -> tuple[str, str]:
        """Key and value of a tag; either is empty when absent, as everywhere in proto3.

        Most tags of a mesh are the same in span after span, so an entry is remembered whole.
        """
        body, mends = self.body, self.mends
        before, mends.utf8 = mends.utf8, False
        key_end = begin + 2 + body[begin + 1] if end - begin > 3 else end
        if (
            key_end < end
            and body[begin] == _ENTRY_KEY
            and body[begin + 1] < 0x80
            and body[key_end] == _ENTRY_VALUE
            and body[key_end + 1] == end - key_end - 2 < 0x80
        ):
            key, value = self._text(begin + 2, key_end), self._text(key_end + 2, end)
        else:
            key = value = ""
            for tag, at, stop in self.members(begin, end):
                if tag == _ENTRY_KEY:
                    key = self._text(at, stop)
                elif tag == _ENTRY_VALUE:
                    value = self._text(at, stop)
        # One that was mended must be counted each time.
        if end - begin < _BYTES_KNOWN and not mends.utf8:
            self._memo.remember_entry(body[begin:end], (key, value))
        mends.utf8 |= before
        return key, value

    def _annotation(self, begin: int, end: int) -> Annotation:
        body = self.body
        # Envoy's form: a timestamp of nine bytes, then a value with a length of one byte.
        if (
            end - begin > 11
            and body[begin] == _ANNOTATION_TIMESTAMP
            and body[begin + 9] == _ANNOTATION_VALUE
            and body[begin + 10] == end - begin - 11 < 0x80
        ):
            timestamp = int.from_bytes(body[begin + 1 : begin + 9], "little", signed=True)
            return Annotation(timestamp, self._text(begin + 11, end))
        timestamp, value = 0, ""
        for tag, at, stop in self.members(begin, end):
            if tag == _ANNOTATION_TIMESTAMP:
                timestamp = _signed(at)
            elif tag == _ANNOTATION_VALUE:
                value = self._text(at, stop)
        return Annotation(timestamp, value)

    def _endpoint(self, begin: int, end: int) -> Endpoint:
        """An address of the wrong size and a bad port are absent."""
        mends = self.mends
        before = mends.field_type, mends.utf8
        mends.field_type = mends.utf8 = False
        endpoint = Endpoint()
        for tag, at, stop in self.members(begin, end):
            if tag == _SERVICE_NAME:
                endpoint.service_name = self._text(at, stop) or None
            elif tag == _IPV4 and stop > at:
                endpoint.ipv4 = self._address(at, stop, 4)
            elif tag == _IPV6 and stop > at:
                endpoint.ipv6 = self._address(at, stop, 16)
            elif tag == _PORT:
                endpoint.port = at if 0 < at <= PORT_MAX else None
                mends.field_type |= at > PORT_MAX
        fields.settle_addresses(endpoint, mends)
        # As with entries.  Whoever gets it must not write to it, as the model says of all records.
        if end - begin < _BYTES_KNOWN and not (mends.field_type or mends.utf8):
            self._memo.remember_endpoint(self.body[begin:end], endpoint)
        mends.field_type |= before[0]
        mends.utf8 |= before[1]
        return endpoint

    def _address(self, begin: int, end: int, size: int) -> str | None:
        if end - begin != size:
            self.mends.field_type = True
            return None
        return str(ip_address(self.body[begin:end]))


def _signed(value: int) -> int:
    """Zipkin's times are Java longs."""
    return value - (1 << 64) if value >> 63 else value
