"""Tells the formats apart by content and hands the body to its reader.

The content decides, because Envoy is not the only sender and content types are often wrong; the content type
only sharpens what a refused client is told, and settles what the content leaves open.  Nothing here
raises: a body without a readable span comes back with at least one reject that says what and where.
"""

from itertools import islice

from tracefwd.doorways import Decode
from tracefwd.limits import REJECT_SAMPLE_BYTES_MAX, TAGS_PER_SPAN_MAX
from tracefwd.model import Decoded, Encoding, Reject
from tracefwd.receiver import proto3, salvage
from tracefwd.receiver.json_v1_plain import StrictV1Reader
from tracefwd.receiver.json_v2 import StrictReader

TAKEN = "Zipkin JSON v2 or v1 (a list of spans) and Zipkin proto3 (a ListOfSpans) are taken"

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_JSON_BLANKS = b" \t\r\n"
_BRACKETS = (b"[", b"{")
_LIST_OF_SPANS = 0x0A
# A Thrift list of structs in TBinary begins with the element's type (11 or 12) and four bytes of length.
_THRIFT_FIRST = (0x0B, 0x0C)
_GZIP = b"\x1f\x8b"
# How far behind a first bracket its content may begin: indentation, not more.
_PEEK_BYTES = 1_024
# Of this many bytes 10,000 tags of one span can be made; mapping those takes 40 ms.
TAGS_CHECKED_FROM_BYTES = 64 * 2**10


def make_decode(proto_ids: str = "auto") -> Decode:
    """``proto_ids``: ``receiver.proto_ids``, the byte order of span and parent ids in proto3 bodies."""
    strict = StrictReader()
    read_strict = strict.read
    strict_v1 = StrictV1Reader()
    memo = proto3.Memo()

    def decode(body: bytes, content_type: str) -> Decoded:
        decoded = read(body, content_type)
        if len(body) > TAGS_CHECKED_FROM_BYTES:
            bound_tags(decoded)
        return decoded

    def read(body: bytes, content_type: str) -> Decoded:
        if body[:1] == b"[":
            # A sender stays with its format; who sends v2 pays nothing for the question.
            decoded = (strict_v1.expects and strict_v1.read(body)) or read_strict(body)
            return decoded or salvage.read_body(body, 0, strict, strict_v1)
        at = json_at(body)
        if at is not None:
            decoded = read_strict(body[at:]) if body[at] == ord("[") else None
            return decoded or salvage.read_body(body, at, strict, strict_v1)
        if body[:1] == b"\n" or (body and "protobuf" in content_type.lower()):
            return proto3.decode(body, proto_ids, memo)
        return _refused(body, content_type.lower())

    return decode


def bound_tags(decoded: Decoded) -> None:
    """Leave out the tags of a span that would take seconds to map; what is shorter cannot have as many."""
    left_out = 0
    for span in decoded.spans:
        tags = span.tags
        if tags is not None and len(tags) > TAGS_PER_SPAN_MAX:
            left_out += len(tags) - TAGS_PER_SPAN_MAX
            span.tags = dict(islice(tags.items(), TAGS_PER_SPAN_MAX))
    if left_out:
        repairs = dict(decoded.repairs or {})
        repairs["tag_budget"] = repairs.get("tag_budget", 0) + left_out
        decoded.repairs = repairs


def json_at(body: bytes) -> int | None:
    """Where a JSON list or object begins behind a byte order mark and blanks.

    A newline is also the first byte of a proto3 list, and a first span of 91 or 123 bytes has a bracket for its length.
    Behind that comes the span's first field: never what may follow a bracket in JSON.
    """
    begin = len(_BYTE_ORDER_MARK) if body.startswith(_BYTE_ORDER_MARK) else 0
    at = len(body) - len(body[begin:].lstrip(_JSON_BLANKS))
    bracket = body[at : at + 1]
    if bracket not in _BRACKETS:
        return None
    if body[:1] == b"\n":
        inside = body[at + 1 : at + 1 + _PEEK_BYTES].lstrip(_JSON_BLANKS)[:1]
        if inside not in ((b"{", b"]") if bracket == b"[" else (b'"', b"}")):
            return None
    return at


def _refused(body: bytes, content_type: str) -> Decoded:
    if not body:
        detail = f"the body is empty; {TAKEN}"
    elif body[0] in _THRIFT_FIRST or "thrift" in content_type:
        detail = f"Zipkin Thrift is not taken; {TAKEN}"
    elif body.startswith(_GZIP):
        detail = f"the body is gzip, but no Content-Encoding says so; {TAKEN}"
    else:
        claim = f", though its Content-Type says {content_type[:60]}" if content_type else ""
        detail = f"the body is no list of spans{claim}; {TAKEN}"
    encoding = Encoding.JSON_V2
    reject = Reject("syntax", "byte 0", detail, body[:REJECT_SAMPLE_BYTES_MAX])
    return Decoded(encoding, [], [reject])
