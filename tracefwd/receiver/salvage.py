"""JSON that is not strictly a list of v2 spans: take whatever spans can be read, and say what could not.

Three steps, each slower and more forgiving than the one before:

1. the whole list at once, through a lenient JSON reader: odd types, v1 spans, invalid UTF-8;
2. element by element, when one of them is no span: the others are taken, the bad one is a reject;
3. broken syntax: the elements closed before the break are taken, and the rest, whose structure nobody can
   trust any more, is one reject with the byte where it broke.

Everything takes time linear in the body; nesting is bounded before anything recurses, and the objects
built at a time are those of at most ``LENIENT_SPAN_BYTES_MAX`` of text.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from tracefwd.limits import (
    JSON_DEPTH_MAX,
    LENIENT_SPAN_BYTES_MAX,
    REJECT_SAMPLE_BYTES_MAX,
)
from tracefwd.model import Decoded, Encoding, Reject, Span
from tracefwd.receiver import fields, json_v1, json_v2
from tracefwd.receiver.fields import BadIdError, BrokenError, Mends, Number
from tracefwd.receiver.json_v1_plain import StrictV1Reader
from tracefwd.receiver.json_v2 import StrictReader

_BLANKS = re.compile(rb"[ \t\r\n]*+")
# Up to the next bracket or brace outside of a string.  Possessive, so that it never goes back: a string
# without an end costs one pass.  At such a string it stops, in front of the quote.
_TO_BRACKET = re.compile(rb'[^"\[\]{}]*+(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"[^"\[\]{}]*+)*+', re.DOTALL)
_SCALAR = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[^\s,"\[\]{}]++', re.DOTALL)
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_OPEN, _CLOSE = b"[{", b"]}"
_CLOSING = (b"]", b"}")

# Control characters pass inside strings, numbers keep their text.
_read_json = json.JSONDecoder(
    strict=False, parse_int=Number, parse_float=Number, parse_constant=Number
).raw_decode


# --- elements of a list -------------------------------------------------------------------------


def elements(body: bytes, at: int) -> Iterator[tuple[int, int]]:
    """``(start, stop)`` of each element of the list whose ``[`` stands ``at``; ends behind its ``]``.

    A ``{`` there instead is a list of one.  Only the structure is looked at: an element may still be no
    JSON.  Raises BrokenError where the structure ends.
    """
    if body[at : at + 1] == b"{":
        yield at, _end_of_nested(body, at)
        return
    position = _skip_blanks(body, at + 1)
    while body[position : position + 1] != b"]":
        stop = _end_of_value(body, position)
        yield position, stop
        position = _skip_blanks(body, stop)
        following = body[position : position + 1]
        if following == b",":
            # A comma before the closing bracket separates nothing and costs nothing.
            position = _skip_blanks(body, position + 1)
        elif following != b"]":
            what = "the list is not closed" if not following else "no ',' or ']' after a span"
            raise BrokenError(position, what)


def _skip_blanks(body: bytes, position: int) -> int:
    found = _BLANKS.match(body, position)
    return position if found is None else found.end()


def _end_of_value(body: bytes, start: int) -> int:
    if body[start : start + 1] in (b"[", b"{"):
        return _end_of_nested(body, start)
    found = _SCALAR.match(body, start)
    if found is None:
        raise BrokenError(
            start, "the list is not closed" if start >= len(body) else "no JSON value"
        )
    return found.end()


def _end_of_nested(body: bytes, start: int) -> int:
    depth = 0
    position = start
    while True:
        found = _TO_BRACKET.match(body, position)
        position = len(body) if found is None else found.end()
        byte = body[position : position + 1]
        if not byte:
            raise BrokenError(position, "the body ends inside a span")
        if byte in _OPEN:
            depth += 1
            if depth > JSON_DEPTH_MAX:
                raise BrokenError(position, f"nested deeper than {JSON_DEPTH_MAX}")
        elif byte in _CLOSE:
            depth -= 1
        else:
            raise BrokenError(position, "a string is not closed")
        position += 1
        if depth == 0:
            return position


# --- values -----------------------------------------------------------------------------------


def _parse(element: bytes, mends: Mends) -> Any:
    """A JSON value, leniently; raises BrokenError with the offset inside ``element``."""
    try:
        text = element.decode()
    except UnicodeDecodeError:
        text = element.decode(errors="replace")
        mends.utf8 = True
    try:
        value, stop = _read_json(text)
    except json.JSONDecodeError as error:
        raise BrokenError(len(text[: error.pos].encode()), error.msg) from error
    except RecursionError as error:
        raise BrokenError(0, f"nested deeper than {JSON_DEPTH_MAX}") from error
    if stop != len(text):
        raise BrokenError(len(text[:stop].encode()), "more than one value")
    if _SURROGATE_ESCAPE.search(text):
        cleaned = fields.without_surrogates(value)
        mends.utf8 |= cleaned != value
        value = cleaned
    return value


class _NotASpanError(Exception):
    """An element that is no object; the message says what it is instead."""


def _read(value: Any, mends: Mends) -> tuple[list[Span], bool]:
    """The spans of one element, and whether it was v1.  Raises BadIdError or _NotASpanError."""
    if not isinstance(value, dict):
        raise _NotASpanError(f"is {_KIND_OF.get(type(value), 'no object')}, not an object")
    if json_v1.is_v1(value):
        return json_v1.read(value, mends), True
    return [json_v2.read_lenient(value, mends)], False


_KIND_OF = {list: "a list", str: "text", Number: "a number", bool: "a boolean", type(None): "null"}


# --- bodies -----------------------------------------------------------------------------------


class _Gathering:
    """What has been read of one body so far."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.rejects: list[Reject] = []
        self.repairs: dict[str, int] = {}
        self._v2 = False

    def take(self, spans: list[Span], *, v1: bool) -> None:
        self.spans += spans
        self._v2 |= not v1

    def decoded(self) -> Decoded:
        if self.spans and self.rejects:
            self.repairs["batch_salvaged"] = 1
        encoding = Encoding.JSON_V2 if self._v2 or not self.spans else Encoding.JSON_V1
        return Decoded(encoding, self.spans, self.rejects, repairs=self.repairs or None)


def read_body(body: bytes, at: int, strict: StrictReader, strict_v1: StrictV1Reader) -> Decoded:
    """A body that the strict reader of v2 did not take; ``at`` is where its ``[`` or ``{`` stands."""
    decoded = None
    if json_v1.HINT in body:
        decoded = strict_v1.read(body[at:])
    if decoded is None and len(body) <= LENIENT_SPAN_BYTES_MAX:
        decoded = _read_whole(body, at)
    return _read_elements(body, at, strict) if decoded is None else decoded


def _read_whole(body: bytes, at: int) -> Decoded | None:
    """The whole list at once; None when something in it is no span, or is broken."""
    gathering = _Gathering()
    mends = Mends()
    text = body[at:].rstrip()
    if text[-1:] not in _CLOSING:
        # Cut off: not worth a try.
        return None
    try:
        values = _parse(text, mends)
        if mends.utf8:
            # Which of the spans holds it is seen element by element.
            return None
        for value in values if isinstance(values, list) else [values]:
            spans, v1 = _read(value, mends)
            gathering.take(spans, v1=v1)
            mends.settle(gathering.repairs, taken=True)
    except (BrokenError, BadIdError, _NotASpanError, RecursionError):
        return None
    return gathering.decoded()


def _read_elements(body: bytes, at: int, strict: StrictReader) -> Decoded:
    gathering = _Gathering()
    rejects = gathering.rejects
    read_up_to = start = at
    try:
        for start, stop in elements(body, at):
            fields.bound_rejects(len(rejects), start)
            reject = _read_element(body[start:stop], start, gathering, strict)
            if reject is not None:
                rejects.append(reject)
            read_up_to = stop
    except BrokenError as broken:
        rest = max(start, read_up_to)
        sample = body[rest : rest + REJECT_SAMPLE_BYTES_MAX]
        rejects.append(Reject("syntax", f"byte {broken.offset}", f"broken JSON: {broken}", sample))
    return gathering.decoded()


def _read_element(
    element: bytes, start: int, gathering: _Gathering, strict: StrictReader
) -> Reject | None:
    span = strict.read_one(element)
    if span is not None:
        gathering.take([span], v1=False)
        return None
    where = f"byte {start}"
    sample = element[:REJECT_SAMPLE_BYTES_MAX]
    if len(element) > LENIENT_SPAN_BYTES_MAX:
        detail = f"not strictly Zipkin and larger than {LENIENT_SPAN_BYTES_MAX} bytes"
        return Reject("not_a_span", where, detail, sample)
    mends = Mends()
    try:
        spans, v1 = _read(_parse(element, mends), mends)
    except BrokenError as broken:
        raise BrokenError(start + broken.offset, str(broken)) from broken
    except BadIdError as bad:
        return Reject(bad.reason, bad.where, f"{bad.where} {bad} (span at {where})", sample)
    except _NotASpanError as not_a_span:
        return Reject("not_a_span", where, f"the element {not_a_span}", sample)
    gathering.take(spans, v1=v1)
    mends.settle(gathering.repairs, taken=True)
    return None
