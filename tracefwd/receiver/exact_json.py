"""JSON spans as the Java proxy's Zipkin library (2.23) reads them: what it takes, it takes here; what it refuses, too.

The opposite of ``fields.py``: nothing is mended.  A reader gets one parsed element of the list (numbers as
``fields.Number``) and returns its spans, or raises ``RefusedError`` in the library's words, upon which the whole batch
is lost.  Defects of the library are kept where they decide what is sent: a trace id of 15 digits is refused, v1
ids are cut to their right 16 digits.  Pure.
"""

import re
from collections.abc import Callable
from typing import Any, TypeVar

from tracefwd.model import Annotation, Endpoint, Span
from tracefwd.receiver.fields import INT64_MAX, KINDS, PORT_MAX, Mends, Number, settle_addresses
from tracefwd.receiver.v1_convert import (
    ADDRESS_KEYS,
    V1Annotation,
    V1BinaryAnnotation,
    V1Span,
    convert,
)

_T = TypeVar("_T")

_HEX_DIGITS = "0123456789abcdef"
_INT32_MAX = 2**31 - 1
# Java's Long.parseLong and, behind it, Double.parseDouble, which forgives blanks around.
_WHOLE = re.compile(r"[+-]?[0-9]{1,400}")
_DECIMAL = re.compile(
    r"[\x00-\x20]*([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)[dDfF]?[\x00-\x20]*"
)
# No number is longer; Python's own conversions would take quadratic time.
_NUMBER_LENGTH_MAX = 400


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
    span_id = _v2_id(members, "id", "span_id")
    if span_id == "0" * 16 and len(members["id"]) == 16:
        raise RefusedError("id", "id is all zeros", "span_id")
    parent_id = None
    if members.get("parentId") is not None:
        parent_id = _v2_id(members, "parentId", "invalid")
        if parent_id == span_id or not parent_id.strip("0"):
            parent_id = None
    kind = _optional(members, "kind", _text)
    if kind is not None and kind not in KINDS:
        raise RefusedError("kind", f"No enum constant zipkin2.Span.Kind.{kind[:60]}")
    return [
        Span(
            trace_id=trace_id,
            span_id=span_id,
            parent_id=parent_id,
            kind=kind,
            name=_optional(members, "name", _text),
            timestamp_us=_optional(members, "timestamp", _long),
            duration_us=_optional(members, "duration", _long),
            local=_optional(members, "localEndpoint", _endpoint),
            remote=_optional(members, "remoteEndpoint", _endpoint),
            annotations=_optional(members, "annotations", _v2_annotations),
            tags=_optional(members, "tags", _tags),
            debug=_optional(members, "debug", _flag),
            shared=_optional(members, "shared", _flag),
        )
    ]


def read_v1(value: Any) -> list[Span]:
    """The v2 spans of a v1 element; members that only v2 has, such as ``kind``, are skipped."""
    members = _object(value, "span")
    trace_id = _v1_id(members, "traceId", "trace_id")
    span_id = _v1_id(members, "id", "span_id")
    # An absent id is 0 to the library.
    if not trace_id.strip("0"):
        raise RefusedError("traceId", "traceId == 0", "trace_id")
    if not span_id.strip("0"):
        raise RefusedError("id", "id == 0", "span_id")
    parent_id = _v1_id(members, "parentId", "invalid")[-16:]
    span_id = span_id[-16:]
    return convert(
        V1Span(
            trace_id=trace_id if trace_id[:16].strip("0") else trace_id[-16:],
            span_id=span_id,
            parent_id=parent_id if parent_id.strip("0") and parent_id != span_id else None,
            name=_optional(members, "name", _text),
            timestamp=_optional(members, "timestamp", _long),
            duration=_optional(members, "duration", _long),
            debug=_optional(members, "debug", _flag),
            annotations=_optional(members, "annotations", _v1_annotations),
            binary_annotations=_optional(members, "binaryAnnotations", _binary_annotations),
        )
    )


# --- ids ------------------------------------------------------------------------------------


def _v2_trace_id(members: dict[str, Any]) -> str:
    digits = _hex(members, "traceId", 32, "trace_id")
    if not digits.strip("0"):
        raise RefusedError("traceId", "traceId is all zeros", "trace_id")
    if len(digits) == 15:
        raise RefusedError(
            "traceId", "WTF (a defect: it refuses every traceId of 15 digits)", "trace_id"
        )
    if len(digits) == 32 and not digits[:16].strip("0"):
        return digits[16:]
    return digits.rjust(16 if len(digits) <= 16 else 32, "0")


def _v2_id(members: dict[str, Any], where: str, reason: str) -> str:
    return _hex(members, where, 16, reason).rjust(16, "0")


def _v1_id(members: dict[str, Any], where: str, reason: str) -> str:
    """16 or 32 digits; only a trace id of exactly 32 has a left half that counts."""
    if where not in members or (where == "parentId" and members[where] is None):
        return "0" * 16
    digits = _hex(members, where, 32, reason)
    return digits if len(digits) == 32 else digits[-16:].rjust(16, "0")


def _hex(members: dict[str, Any], where: str, length_max: int, reason: str) -> str:
    if where not in members:
        raise RefusedError(where, f"Missing : {where}", reason)
    digits = _text(members[where], where, reason)
    if not digits:
        raise RefusedError(where, f"{where} is empty", reason)
    if len(digits) > length_max:
        raise RefusedError(where, f"{where}.length > {length_max}", reason)
    if digits.strip(_HEX_DIGITS):
        detail = f"{digits} should be lower-hex encoded with no prefix"
        raise RefusedError(where, detail, reason)
    return digits


# --- values ---------------------------------------------------------------------------------


def _optional(
    members: dict[str, Any], where: str, read: Callable[[Any, str], _T | None]
) -> _T | None:
    value = members.get(where)
    return None if value is None else read(value, where)


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
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
    names = {dict: "BEGIN_OBJECT", list: "BEGIN_ARRAY", bool: "BOOLEAN"}
    return names.get(type(value), "NULL")


def _text(value: Any, where: str, reason: str = "invalid") -> str:
    """Text, or a number as it was written."""
    if not isinstance(value, str):
        raise RefusedError(where, f"Expected a string but was {_token(value)}", reason)
    # Drops the subclass: nobody downstream shall meet it.
    return str.__str__(value)


def _flag(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise RefusedError(where, f"Expected a boolean but was {_token(value)}")
    return value


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


def _endpoint(value: Any, where: str) -> Endpoint:
    members = _object(value, where)
    endpoint = Endpoint(
        _optional(members, "serviceName", _text),
        _optional(members, "ipv4", _text),
        _optional(members, "ipv6", _text),
        _optional(members, "port", _port),
    )
    # What is no address is absent for the library, too, and nothing to complain about.
    settle_addresses(endpoint, Mends())
    return endpoint


def _tags(value: Any, where: str) -> dict[str, str]:
    members = _object(value, where)
    for key, said in members.items():
        if said is None:
            raise RefusedError(where, f"No value at tags.{key[:60]}")
    return {key: _text(said, where) for key, said in members.items()}


def _event(item: Any, where: str) -> tuple[int, str, dict[str, Any]]:
    members = _object(item, where)
    if "timestamp" not in members or "value" not in members:
        raise RefusedError(where, "Incomplete annotation: it needs a timestamp and a value")
    return _long(members["timestamp"], where), _text(members["value"], where), members


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
        said = members.get("value")
        endpoint = _optional(members, "endpoint", _endpoint)
        if type(said) is str:
            found.append(V1BinaryAnnotation(key, said, endpoint))
        elif said is True and key in ADDRESS_KEYS and endpoint is not None:
            found.append(V1BinaryAnnotation(key, True, endpoint))
    return found
