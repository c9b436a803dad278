"""Bodies judged as the Java proxy judges them (``mapping.exact``): all or nothing.

Where ``decode.py`` salvages, this refuses: one span that the proxy's Zipkin library would not read, and the batch is
gone, each of its spans counted as a reject.  What is taken means the same as to the library, which tells v1 from
v2 by words anywhere in the body.  The usual Envoy body still goes through the strict reader alone.

1. The first byte decides the format, before anything is skipped: no blank, no byte order mark.
2. A refused body comes back without spans and with the culprit's reject first; nothing here raises.
3. What stands behind the list's end is never looked at.
"""

import json
import re
from typing import Any

from tracefwd.doorways import Decode
from tracefwd.limits import (
    JSON_DEPTH_MAX,
    LENIENT_SPAN_BYTES_MAX,
    REJECT_SAMPLE_BYTES_MAX,
    REJECTS_PER_BODY_MAX,
)
from tracefwd.model import Decoded, Encoding, Reject, Span
from tracefwd.receiver import proto3, salvage
from tracefwd.receiver.exact_json import Members, Reader, RefusedError, read_v1, read_v2
from tracefwd.receiver.fields import BrokenError, Number
from tracefwd.receiver.json_v2 import StrictReader

# By these words anywhere in the body the library takes it for v2.
_V2_WORDS = (b'Endpoint"', b'"tags"')
# An id that the strict reader might mend and the library might refuse: upper case, short, long.
# Begins with two letters that all three names end in, because text is searched for fastest.
_ODD_ID = re.compile(
    rb'd"(?:(?<="traceId")|(?<="id")|(?<="parentId"))[ \t\r\n]*+:[ \t\r\n]*+'
    rb'(?!"[0-9a-f]{16}"|(?<="traceId":)"[0-9a-f]{32}"|null\b)'
)
# Of a member that comes twice the strict reader takes the last, and the library may not: it skips a null, joins lists
# and tags, keeps a flag, refuses an unknown kind, and an address may be none and leave the other.
_ODD_MEMBER = re.compile(rb'null|"ipv[46]"[^{}]*"ipv[46]"')
_ONCE_A_SPAN = (b'"annotations"', b'"tags"', b'"kind"', b'"debug"')
_LIST_END = re.compile(rb"[ \t\r\n]*+\]")
_SURROGATE = re.compile("[\ud800-\udfff]")
# TBinary: the type of a list of structs, or of a list.
_THRIFT_FIRST = (0x0B, 0x0C)
# Signed bytes up to 16 are "binary" to the library.
_BINARY_MAX, _NEGATIVE_MIN = 0x10, 0x80
_ID_DIGITS_MAX = 16

_NO_LIST = "Expected json, proto3 or thrift list encoding"
_NO_FORMAT = "Could not detect the span format"
_BEHIND = "it is in a batch that is refused as a whole for another span"


def _refuse_constant(text: str) -> Any:
    raise json.JSONDecodeError(f"{text} is no JSON", text, 0)


# Control characters pass inside strings, numbers keep their text, NaN is no JSON.
_read_json = json.JSONDecoder(
    strict=False,
    parse_int=Number,
    parse_float=Number,
    parse_constant=_refuse_constant,
    object_pairs_hook=Members,
).raw_decode


def make_exact_decode(proto_ids: str = "keep") -> Decode:
    """The decoder of ``mapping.exact``; ``proto_ids`` as for ``make_decode``.  The content type is never read."""
    strict = StrictReader()
    memo = proto3.Memo()

    def decode(body: bytes, _content_type: str) -> Decoded:
        first = body[:1]
        if first == b"[":
            usual = _read_usual(body, strict)
            return _read_list(body) if usual is None else usual
        if first == b"\n" and body[1:2] != b"\0" and len(body) > 1:
            return _whole(proto3.decode(body, proto_ids, memo))
        return _refused(Encoding.JSON_V2, [_not_detected(body)])

    return decode


def _not_detected(body: bytes) -> Reject:
    if not body:
        detail = "the body is empty"
    elif body[0] in _THRIFT_FIRST:
        detail = "Zipkin Thrift is not taken here; send Zipkin JSON or proto3"
    elif body[0] <= _BINARY_MAX or body[0] >= _NEGATIVE_MIN or body[:1] == b"{":
        detail = _NO_LIST
    else:
        detail = _NO_FORMAT
    return Reject("syntax", "byte 0", detail, body[:REJECT_SAMPLE_BYTES_MAX])


def _refused(encoding: Encoding, rejects: list[Reject]) -> Decoded:
    return Decoded(encoding, [], rejects)


# --- JSON -----------------------------------------------------------------------------------


def _read_usual(body: bytes, strict: StrictReader) -> Decoded | None:
    """A body that the strict reader and the library understand alike; None: look closer."""
    if not _is_v2(body) or b"\\u" in body or _ODD_ID.search(body) or _ODD_MEMBER.search(body):
        return None
    decoded = strict.read(body)
    if decoded is None or any(body.count(name) > len(decoded.spans) for name in _ONCE_A_SPAN):
        return None
    _mark_v2(decoded.spans)
    return decoded


def _is_v2(body: bytes) -> bool:
    return any(word in body for word in _V2_WORDS)


def _mark_v2(spans: list[Span]) -> None:
    """Make the spans show that a word in the body made them v2: mappers look for an endpoint or tags."""
    if spans and all(s.local is None and s.remote is None and s.tags is None for s in spans):
        spans[0].tags = {}


def _read_list(body: bytes) -> Decoded:
    version_2 = _is_v2(body)
    encoding = Encoding.JSON_V2 if version_2 else Encoding.JSON_V1
    read: Reader = read_v2 if version_2 else read_v1
    spans: list[Span] = []
    stop = 1
    number = 0
    try:
        for start, stop in salvage.elements(body, 0):
            number += 1
            spans += _read_element(body, start, stop, read)
        if number:
            _check_end(body, stop)
    except RefusedError as error:
        sample = body[start : min(stop, start + REJECT_SAMPLE_BYTES_MAX)]
        detail = f"{error} (span {number} of the list, at byte {start})"
        culprit = Reject(error.reason, error.where, detail, sample)
    except BrokenError as broken:
        sample = body[stop : stop + REJECT_SAMPLE_BYTES_MAX]
        detail = f"Malformed reading List<Span> from json: {broken}"
        culprit = Reject("syntax", f"byte {broken.offset}", detail, sample)
    else:
        if version_2:
            _mark_v2(spans)
        return Decoded(encoding, spans)
    return _refused(encoding, [culprit, *_companions(_count(body) - 1)])


def _check_end(body: bytes, stop: int) -> None:
    """``elements`` forgives a comma in front of the closing bracket, the library does not."""
    if not _LIST_END.match(body, stop):
        raise BrokenError(stop, "a comma, and no span behind it")


def _read_element(body: bytes, start: int, stop: int, read: Reader) -> list[Span]:
    """The spans of one element; ``RefusedError`` or ``BrokenError``, the latter with an offset in the body."""
    if stop - start > LENIENT_SPAN_BYTES_MAX:
        detail = f"larger than {LENIENT_SPAN_BYTES_MAX} bytes in a body that needs a closer look"
        raise RefusedError("span", detail, "not_a_span")
    try:
        text = body[start:stop].decode(errors="replace")
        value, end = _read_json(text)
    except json.JSONDecodeError as error:
        offset = start + len(text[: error.pos].encode())
        raise BrokenError(offset, error.msg) from error
    except RecursionError as error:
        raise BrokenError(start, f"nested deeper than {JSON_DEPTH_MAX}") from error
    if end != len(text):
        raise BrokenError(start + len(text[:end].encode()), "more than one value")
    if "\\u" in text:
        value = _without_surrogates(value)
    return read(value)


def _without_surrogates(value: Any) -> Any:
    """What Java writes for half of a pair."""
    if isinstance(value, Members):
        return Members([(_without_surrogates(k), _without_surrogates(v)) for k, v in value.pairs])
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    return _SURROGATE.sub("?", value) if type(value) is str else value


def _count(body: bytes) -> int:
    """How many elements can be told apart, up to the bound of rejects; at least one."""
    number = 0
    try:
        for _ in salvage.elements(body, 0):
            number += 1
            if number >= REJECTS_PER_BODY_MAX:
                break
    except BrokenError:
        # The broken rest is one more.
        number += 1
    return max(number, 1)


def _companions(number: int) -> list[Reject]:
    """The same reject again and again: only their number matters."""
    return [Reject("invalid", "batch", _BEHIND)] * number


# --- proto3 ---------------------------------------------------------------------------------


def _leave_out_empty(span: Span) -> None:
    """What the library takes for absent: a tag without a key, an annotation without a value or time."""
    tags, notes = span.tags, span.annotations
    if tags and "" in tags:
        span.tags = {key: said for key, said in tags.items() if key}
    if notes and not all(note.value and note.timestamp_us for note in notes):
        span.annotations = [note for note in notes if note.value and note.timestamp_us] or None


def _whole(decoded: Decoded) -> Decoded:
    """All of a proto3 body, or none of it."""
    rejects = [*decoded.rejects]
    for span in decoded.spans:
        if len(rejects) >= REJECTS_PER_BODY_MAX:
            break
        parent = span.parent_id or ""
        if len(span.span_id) > _ID_DIGITS_MAX or len(parent) > _ID_DIGITS_MAX:
            where, reason = ("id", "span_id") if len(span.span_id) > 16 else ("parentId", "invalid")
            rejects.append(Reject(reason, where, f"{where}.length > {_ID_DIGITS_MAX}"))
    if not rejects:
        for span in decoded.spans:
            _leave_out_empty(span)
        return decoded
    total = min(len(decoded.rejects) + len(decoded.spans), REJECTS_PER_BODY_MAX)
    return _refused(Encoding.PROTO3, [*rejects, *_companions(total - len(rejects))])
