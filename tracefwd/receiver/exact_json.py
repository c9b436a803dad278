"""JSON spans as the Java proxy's Zipkin library (2.23) reads them: what it takes, it takes here; what it refuses, too.

The opposite of ``fields.py``: nothing is mended.  A reader gets one parsed element of the list (numbers as
``fields.Number``) and returns its spans, or raises ``RefusedError`` in the library's words, upon which the whole batch
is lost.  Defects of the library are kept where they decide what is sent: a trace id of 15 digits is refused, v1
ids are cut to their right 16 digits.

Members are taken one by one as they stand, like there: each is judged, also one that comes again; of several the last
counts unless it is null, lists of annotations are joined, and so are tags.  Pure.
"""

import ipaddress
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from tracefwd.model import Annotation, Endpoint, Span
from tracefwd.receiver.fields import INT64_MAX, KINDS, PORT_MAX, Number
from tracefwd.receiver.v1_convert import (
    ADDRESS_KEYS,
    V1Annotation,
    V1BinaryAnnotation,
    V1Span,
    convert,
    telling,
)

_T = TypeVar("_T")

_HEX_DIGITS = "0123456789abcdef"
_INT32_MAX = 2**31 - 1
# Java's Long.parseLong, to which any script's digits are digits, and, behind it, Double.parseDouble, which forgives
# blanks around.
_WHOLE = re.compile(r"[+-]?\d{1,400}")
_DECIMAL = re.compile(
    r"[\x00-\x20]*([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)[dDfF]?[\x00-\x20]*"
)
# No number is longer; Python's own conversions would take quadratic time.
_NUMBER_LENGTH_MAX = 400
# Also one that is embedded in IPv6: the library goes by the text, so in hex digits it stays an IPv6 address.
_BYTE = "(?:25[0-5]|2[0-4][0-9]|[01]?[0-9]?[0-9])"
_IPV4 = re.compile(rf"(?:::(?:[fF0]{{4}}:)?)?((?:{_BYTE}\.){{3}}{_BYTE})")
_IPV6_LENGTH_MAX = 39


class Members(dict[str, Any]):
    """An object's members, the last of each name; ``pairs`` are all of them in their order."""

    __slots__ = ("pairs",)

    def __init__(self, pairs: Sequence[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.pairs = pairs

    def each(self, name: str) -> list[Any]:
        """All values of this name."""
        if len(self) == len(self.pairs):
            return [self[name]] if name in self else []
        return [value for key, value in self.pairs if key == name]


class RefusedError(Exception):
    """The library refuses the list for this element; the message says why, the members are a ``Reject``'s."""

    def __init__(self, where: str, detail: str, reason: str = "invalid") -> None:
        super().__init__(detail)
        self.reason = reason
        self.where = where


Reader = Callable[[Any], list[Span]]


def read_v2(value: Any) -> list[Span]:
    """The one span of a v2 element."""
    members = _object(value, "span")
    trace_id = _v2_trace_id(members)
    span_id = [_v2_span_id(said) for said in _needed(members, "id", "span_id")][-1]
    parent_id = _optional(members, "parentId", _v2_parent_id)
    return [
        Span(
            trace_id=trace_id,
            span_id=span_id,
            parent_id=None if parent_id == span_id else parent_id or None,
            kind=_optional(members, "kind", _kind),
            name=_optional(members, "name", _text),
            timestamp_us=_optional(members, "timestamp", _long),
            duration_us=_optional(members, "duration", _long),
            local=_optional(members, "localEndpoint", _endpoint),
            remote=_optional(members, "remoteEndpoint", _endpoint),
            annotations=_joined(members, "annotations", _v2_annotations),
            tags=_tags(members),
            debug=_flag(members, "debug"),
            shared=_flag(members, "shared"),
        )
    ]


def read_v1(value: Any) -> list[Span]:
    """The v2 spans of a v1 element; members that only v2 has, such as ``kind``, are skipped."""
    members = _object(value, "span")
    trace_id = _v1_id(members.each("traceId"), "traceId", "trace_id")
    span_id = _v1_id(members.each("id"), "id", "span_id")
    # An absent id is 0 to the library.
    if not trace_id.strip("0"):
        raise RefusedError("traceId", "traceId == 0", "trace_id")
    if not span_id.strip("0"):
        raise RefusedError("id", "id == 0", "span_id")
    parent_id = _v1_id(_present(members, "parentId"), "parentId", "invalid")[-16:]
    span_id = span_id[-16:]
    return convert(
        V1Span(
            trace_id=trace_id if trace_id[:16].strip("0") else trace_id[-16:],
            span_id=span_id,
            parent_id=parent_id if parent_id.strip("0") and parent_id != span_id else None,
            name=_optional(members, "name", _text),
            timestamp=_optional(members, "timestamp", _long),
            duration=_optional(members, "duration", _long),
            debug=_flag(members, "debug"),
            annotations=_joined(members, "annotations", _v1_annotations),
            binary_annotations=_joined(members, "binaryAnnotations", _binary_annotations),
        )
    )


# --- ids ------------------------------------------------------------------------------------


def _v2_trace_id(members: Members) -> str:
    digits = ""
    for said in _needed(members, "traceId", "trace_id"):
        digits = _hex(said, "traceId", 32, "trace_id")
        if not digits.strip("0"):
            raise RefusedError("traceId", "traceId is all zeros", "trace_id")
        if len(digits) == 15:
            raise RefusedError(
                "traceId", "WTF (a defect: it refuses every traceId of 15 digits)", "trace_id"
            )
    if len(digits) == 32 and not digits[:16].strip("0"):
        return digits[16:]
    return digits.rjust(16 if len(digits) <= 16 else 32, "0")


def _v2_span_id(value: Any) -> str:
    digits = _hex(value, "id", 16, "span_id")
    if digits == "0" * 16:
        raise RefusedError("id", "id is all zeros", "span_id")
    return digits.rjust(16, "0")


def _v2_parent_id(value: Any, where: str) -> str:
    """ "" for zeros, which mean that there is none."""
    digits = _hex(value, where, 16, "invalid").rjust(16, "0")
    return digits if digits.strip("0") else ""


def _v1_id(values: Sequence[Any], where: str, reason: str) -> str:
    """16 or 32 digits; only a trace id of exactly 32 has a left half that counts.  Without a value zeros."""
    digits = ["0", *(_hex(value, where, 32, reason) for value in values)][-1]
    return digits if len(digits) == 32 else digits[-16:].rjust(16, "0")


def _hex(value: Any, where: str, length_max: int, reason: str) -> str:
    digits = _text(value, where, reason)
    if not digits:
        raise RefusedError(where, f"{where} is empty", reason)
    if len(digits) > length_max:
        raise RefusedError(where, f"{where}.length > {length_max}", reason)
    if digits.strip(_HEX_DIGITS):
        detail = f"{digits} should be lower-hex encoded with no prefix"
        raise RefusedError(where, detail, reason)
    return digits


# --- values ---------------------------------------------------------------------------------


def _present(members: Members, where: str) -> list[Any]:
    """All values of this name but null."""
    return [value for value in members.each(where) if value is not None]


def _needed(members: Members, where: str, reason: str) -> list[Any]:
    """All values of this name, at least one."""
    values = members.each(where)
    if not values:
        raise RefusedError(where, f"Missing : {where}", reason)
    return values


def _optional(members: Members, where: str, read: Callable[[Any, str], _T | None]) -> _T | None:
    found = None
    for value in _present(members, where):
        found = read(value, where)
    return found


def _joined(members: Members, where: str, read: Callable[[Any, str], list[_T]]) -> list[_T] | None:
    """The lists of all values of this name as one; None without any."""
    values = _present(members, where)
    return [item for value in values for item in read(value, where)] if values else None


def _object(value: Any, where: str) -> Members:
    if not isinstance(value, Members):
        detail = f"Expected BEGIN_OBJECT but was {_token(value)}"
        raise RefusedError(where, detail, "not_a_span" if where == "span" else "invalid")
    return value


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise RefusedError(where, f"Expected BEGIN_ARRAY but was {_token(value)}")
    return value


def _token(value: Any) -> str:
    """The JSON reader's name for what it met."""
    if isinstance(value, str):
        return "NUMBER" if isinstance(value, Number) else "STRING"
    names = {Members: "BEGIN_OBJECT", list: "BEGIN_ARRAY", bool: "BOOLEAN"}
    return names.get(type(value), "NULL")


def _text(value: Any, where: str, reason: str = "invalid") -> str:
    """Text, or a number as it was written."""
    if not isinstance(value, str):
        raise RefusedError(where, f"Expected a string but was {_token(value)}", reason)
    # Drops the subclass: nobody downstream shall meet it.
    return str.__str__(value)


def _kind(value: Any, where: str) -> str:
    kind = _text(value, where)
    if kind not in KINDS:
        raise RefusedError(where, f"No enum constant zipkin2.Span.Kind.{kind[:60]}")
    return kind


def _flag(members: Members, where: str) -> bool | None:
    """True once is true for good."""
    values = _present(members, where)
    for value in values:
        if not isinstance(value, bool):
            raise RefusedError(where, f"Expected a boolean but was {_token(value)}")
    return any(values) if values else None


def _long(value: Any, where: str) -> int:
    """A signed 64-bit integer: a number or text of one, a fraction of zeros and an exponent are no harm."""
    if not isinstance(value, str):
        raise RefusedError(where, f"Expected a long but was {_token(value)}")
    number = _whole(value)
    if number is None:
        raise RefusedError(where, f"Expected a long but was {value[:60]}")
    return number


def _whole(text: str) -> int | None:
    if len(text) > _NUMBER_LENGTH_MAX:
        return None
    if _WHOLE.fullmatch(text) and -INT64_MAX - 1 <= int(text) <= INT64_MAX:
        return int(text)
    decimal = _DECIMAL.fullmatch(text)
    if decimal is None:
        return None
    # As a double, which may say what is a little too large for 64 bits, but fits once cut to them.
    rounded = float(decimal[1])
    if not rounded.is_integer() or not -INT64_MAX - 1 <= rounded <= INT64_MAX + 1:
        return None
    return min(int(rounded), INT64_MAX)


def _port(value: Any, where: str) -> int | None:
    port = _long(value, where)
    if not -_INT32_MAX - 1 <= port <= _INT32_MAX:
        raise RefusedError(where, f"Expected an int but was {port}")
    if port > PORT_MAX:
        raise RefusedError(where, f"invalid port {port}")
    return port if port >= 0 else None


# --- structures -----------------------------------------------------------------------------


def _endpoint(value: Any, where: str) -> Endpoint | None:
    """None if it tells nothing."""
    members = _object(value, where)
    endpoint = Endpoint(
        _optional(members, "serviceName", _text), port=_optional(members, "port", _port)
    )
    for name, said in members.pairs:
        if name in ("ipv4", "ipv6") and said is not None:
            _settle_address(endpoint, _text(said, name))
    return telling(endpoint)


def _settle_address(endpoint: Endpoint, said: str) -> None:
    """By what the text says; what is no address is absent, and nothing to complain about."""
    found = _IPV4.fullmatch(said)
    if found is not None:
        endpoint.ipv4 = found[1]
    elif ":" in said and len(said) <= _IPV6_LENGTH_MAX and not set(said) & {".", "%"}:
        try:
            endpoint.ipv6 = str(ipaddress.IPv6Address(said))
        except ValueError:
            return


def _tags(members: Members) -> dict[str, str] | None:
    values = _present(members, "tags")
    tags: dict[str, str] = {}
    for value in values:
        for key, said in _object(value, "tags").pairs:
            if said is None:
                raise RefusedError("tags", f"No value at tags.{key[:60]}")
            tags[key] = _text(said, "tags")
    return tags if values else None


def _event(item: Any, where: str) -> tuple[int, str, Members]:
    members = _object(item, where)
    times = [_long(value, where) for value in members.each("timestamp")]
    texts = [_text(value, where) for value in members.each("value")]
    if not times or not texts:
        raise RefusedError(where, "Incomplete annotation: it needs a timestamp and a value")
    return times[-1], texts[-1], members


def _v2_annotations(value: Any, where: str) -> list[Annotation]:
    return [Annotation(*_event(item, where)[:2]) for item in _list(value, where)]


def _v1_annotations(value: Any, where: str) -> list[V1Annotation]:
    found = []
    for item in _list(value, where):
        at, said, members = _event(item, where)
        found.append(V1Annotation(at, said, _optional(members, "endpoint", _endpoint)))
    return found


def _binary_annotations(value: Any, where: str) -> list[V1BinaryAnnotation]:
    """Tags are text; an address is text or ``true``; the library skips every other value."""
    found = []
    for item in _list(value, where):
        members = _object(item, where)
        key = _optional(members, "key", _text)
        if key is None:
            raise RefusedError(where, "No key at binaryAnnotations")
        said = members.each("value")
        texts = [value for value in said if type(value) is str]
        flags = [value for value in said if isinstance(value, bool)]
        endpoint = _optional(members, "endpoint", _endpoint)
        if texts:
            found.append(V1BinaryAnnotation(key, texts[-1], endpoint))
        elif flags[-1:] == [True] and key in ADDRESS_KEYS and endpoint is not None:
            found.append(V1BinaryAnnotation(key, True, endpoint))
    return found
