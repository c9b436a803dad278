"""The leniency table: how a field's value is read when it is not quite what Zipkin's API says.

Every decoder reads ids by the rules here, and the JSON decoders everything else, too, so that a span means
the same in every format.  A function returns the value as meant, or None for absent, and notes in ``Mends``
whatever it had to change; only trace and span ids are indispensable, and only they raise.

Pure but for one bounded memo of addresses, because a mesh has few and parsing one costs microseconds.
"""

import ipaddress
import re
from functools import lru_cache
from typing import Annotated, Any

from msgspec import Meta, Struct

from tracefwd.limits import (
    JSON_DEPTH_MAX,
    MEMO_ENTRIES_MAX,
    REJECTS_PER_BODY_MAX,
    START_MS_MIN,
    TAG_VALUE_LENGTH_MAX,
)
from tracefwd.model import Annotation, Endpoint

KINDS = frozenset({"CLIENT", "SERVER", "PRODUCER", "CONSUMER"})
PORT_MAX = 65_535
# Zipkin's times are signed 64-bit microseconds; more is no time.
INT64_MAX = 2**63 - 1
Micros = Annotated[int, Meta(ge=-INT64_MAX, le=INT64_MAX)]
START_US_MIN = START_MS_MIN * 1000

PLAIN = rf"[!#-\[\]-~](?:[ !#-\[\]-~]{{0,{TAG_VALUE_LENGTH_MAX - 2}}}[!#-\[\]-~])?"
"""A plain text (``model.PlainSpan``), as a regular expression."""
is_plain = re.compile(PLAIN).fullmatch

# Longest id that is looked at; what is longer is refused whatever it holds.
_ID_DIGITS_MAX = 32
_ZEROS_16 = "0" * 16
_NUMBER = re.compile(r"\s*([+-]?[0-9]+)(\.[0-9]*)?([eE][+-]?[0-9]+)?\s*")
_SURROGATE = re.compile("[\ud800-\udfff]")


class Number(str):
    """A JSON number as it was written, so that ``1.50`` as a tag value stays ``1.50``."""

    __slots__ = ()


class Mends(Struct, gc=False):
    """What was changed in the span being read; one object serves a whole body, ``settle`` per span."""

    field_type: bool = False
    utf8: bool = False

    def settle(self, repairs: dict[str, int], *, taken: bool) -> None:
        """Count this span's mends into ``repairs`` if it was taken, and begin the next span's."""
        if taken and self.field_type:
            repairs["field_type"] = repairs.get("field_type", 0) + 1
        if taken and self.utf8:
            repairs["utf8"] = repairs.get("utf8", 0) + 1
        self.field_type = self.utf8 = False


class BadIdError(Exception):
    """A trace or span id without which a span is none; the message says why, for a person."""

    def __init__(self, reason: str, where: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.where = where


class BrokenError(Exception):
    """The syntax breaks at ``offset`` of the body: nothing from there on can be read."""

    def __init__(self, offset: int, detail: str) -> None:
        super().__init__(detail)
        self.offset = offset


def bound_rejects(count: int, offset: int) -> None:
    """Raises BrokenError at ``offset`` once a body has had its share of rejects."""
    if count >= REJECTS_PER_BODY_MAX:
        raise BrokenError(offset, f"over {REJECTS_PER_BODY_MAX} elements are no spans")


# --- ids ------------------------------------------------------------------------------------


def trace_id(value: Any, mends: Mends) -> str:
    """16 or 32 lower-case digits.  32 that begin with 16 zeros are a 64-bit id, as Zipkin has it."""
    digits = _digits(value, mends, "trace_id", "traceId")
    if not digits.strip("0"):
        raise BadIdError("trace_id", "traceId", "is all zeros")
    if len(digits) <= 16:
        return digits.rjust(16, "0")
    if len(digits) == 32 and digits.startswith(_ZEROS_16):
        return digits[16:]
    return digits.rjust(32, "0")


def span_id(value: Any, mends: Mends) -> str:
    """16 lower-case digits, or 32 when more than 16 came.

    A short id of zeros is taken and only one of 16 zeros or more refused: that is the Java proxy's rule.
    """
    digits = _digits(value, mends, "span_id", "id")
    if len(digits) >= 16 and not digits.strip("0"):
        raise BadIdError("span_id", "id", "is all zeros")
    return digits.rjust(16 if len(digits) <= 16 else 32, "0")


def parent_id(value: Any, own: str, mends: Mends) -> str | None:
    """Like ``span_id``; zeros and the span's ``own`` id mean that there is no parent."""
    if value is None:
        return None
    try:
        digits = _digits(value, mends, "span_id", "parentId")
    except BadIdError:
        mends.field_type = True
        return None
    parent = digits.rjust(16 if len(digits) <= 16 else 32, "0")
    return None if parent == own or not parent.strip("0") else parent


def _digits(value: Any, mends: Mends, reason: str, where: str) -> str:
    if value is None:
        raise BadIdError(reason, where, "is absent")
    if not isinstance(value, str):
        raise BadIdError(reason, where, "is not text of hex digits")
    if isinstance(value, Number):
        # The Java proxy takes a number's digits for hex digits.
        mends.field_type = True
    length = len(value)
    if not 0 < length <= _ID_DIGITS_MAX:
        raise BadIdError(reason, where, f"has {length} digits, not 1 to {_ID_DIGITS_MAX}")
    digits = value.lower()
    if digits.strip("0123456789abcdef"):
        raise BadIdError(reason, where, "is not hex")
    return str(digits)


# --- other scalars ---------------------------------------------------------------------------


def micros(value: Any, mends: Mends) -> int | None:
    """A time in whole microseconds: a number, or text that holds one; real fractions are cut off."""
    if value is None:
        return None
    found = _NUMBER.fullmatch(value) if isinstance(value, str) and len(value) <= 400 else None
    if found is None:
        mends.field_type = True
        return None
    whole, fraction, exponent = found.groups()
    # A float holds every microsecond until the year 2255 exactly; int() of text is exact and costs less.
    number = float(value) if exponent else int(whole)
    if not -INT64_MAX <= number <= INT64_MAX:
        mends.field_type = True
        return None
    cut_off = number != int(number) or (fraction and not exponent and fraction.strip(".0"))
    if cut_off or not isinstance(value, Number):
        mends.field_type = True
    return int(number)


def text(value: Any, mends: Mends) -> str | None:
    """Text as it is; a number or boolean as its JSON text; anything else is absent."""
    if value is None or type(value) is str:
        return value
    mends.field_type = True
    return scalar_text(value)


def scalar_text(value: Any) -> str | None:
    if isinstance(value, Number):
        # Drops the subclass: nobody downstream shall meet it.
        return str.__str__(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return None


def flag(value: Any, mends: Mends) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    mends.field_type = True
    said = value.strip().lower() if isinstance(value, str) else ""
    return {"true": True, "1": True, "false": False, "0": False}.get(said)


def kind(value: Any, mends: Mends) -> str | None:
    if value is None:
        return None
    if isinstance(value, str):
        if value in KINDS:
            return value
        value = value.strip().upper()
    mends.field_type = True
    return value if isinstance(value, str) and value in KINDS else None


# --- structures ------------------------------------------------------------------------------


def endpoint(value: Any, mends: Mends) -> Endpoint | None:
    if not isinstance(value, dict):
        mends.field_type |= value is not None
        return None
    service_name = text(value.get("serviceName"), mends)
    ipv4, ipv6 = text(value.get("ipv4"), mends), text(value.get("ipv6"), mends)
    found = Endpoint(service_name, ipv4, ipv6, _port(value.get("port"), mends))
    settle_addresses(found, mends)
    return found


def _port(value: Any, mends: Mends) -> int | None:
    port = micros(value, mends)
    if port is None or 0 <= port <= PORT_MAX:
        return port
    mends.field_type = True
    return None


def settle_addresses(found: Endpoint, mends: Mends) -> None:
    """Put each address into the member of its family; one that is none of either is absent."""
    settled = addresses(found.ipv4, found.ipv6)
    if settled != (found.ipv4, found.ipv6):
        found.ipv4, found.ipv6 = settled
        mends.field_type = True


@lru_cache(maxsize=MEMO_ENTRIES_MAX)
def _address(said: str) -> tuple[str | None, str | None]:
    try:
        address = ipaddress.ip_address(said)
    except ValueError:
        return None, None
    if isinstance(address, ipaddress.IPv4Address):
        return said, None
    # An IPv4 address in IPv6's clothes (mapped, or the older compatible form), as Zipkin reads it.
    mapped = address.ipv4_mapped
    if mapped is None and 1 < int(address) < 2**32:
        mapped = ipaddress.IPv4Address(int(address))
    return (None, said) if mapped is None else (str(mapped), None)


def addresses(ipv4: str | None, ipv6: str | None) -> tuple[str | None, str | None]:
    """``(ipv4, ipv6)`` as they are meant: Zipkin goes by what the text says, not by its member."""
    four: str | None = None
    six: str | None = None
    for said in (ipv6, ipv4):
        # Longer text is no address, and must not stay in the memo.
        if said is not None and len(said) <= 64:
            as_four, as_six = _address(said)
            four, six = as_four or four, as_six or six
    return four, six


def annotations(value: Any, mends: Mends) -> list[Annotation] | None:
    """Those that have a time and a value."""
    if not isinstance(value, list):
        mends.field_type |= value is not None
        return None
    found = []
    for item in value:
        members = item if isinstance(item, dict) else {}
        at = micros(members.get("timestamp"), mends)
        said = text(members.get("value"), mends)
        if at is None or said is None:
            mends.field_type = True
        else:
            found.append(Annotation(at, said))
    return found


def tags(value: Any, mends: Mends) -> dict[str, str] | None:
    """Values that are no text become their JSON text; a key without a value is kept out."""
    if not isinstance(value, dict):
        mends.field_type |= value is not None
        return None
    found = {}
    for key, said in value.items():
        if type(said) is not str:
            mends.field_type = True
            if said is None:
                continue
            said = json_text(said)
        found[key] = said
    return found


def json_text(value: Any, depth_left: int = JSON_DEPTH_MAX) -> str:
    """Compact JSON of what the lenient reader read; RecursionError when that is nested too deep."""
    if isinstance(value, Number | bool) or value is None:
        return scalar_text(value) or "null"
    if not depth_left:
        raise RecursionError(f"nested deeper than {JSON_DEPTH_MAX}")
    if isinstance(value, dict):
        pairs = (f"{_quoted(key)}:{_member(said, depth_left - 1)}" for key, said in value.items())
        return "{" + ",".join(pairs) + "}"
    return "[" + ",".join(_member(said, depth_left - 1) for said in value) + "]"


def _member(value: Any, depth_left: int) -> str:
    return _quoted(value) if type(value) is str else json_text(value, depth_left)


def _quoted(said: str) -> str:
    escaped = said.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", escaped) + '"'


_CONTROL = re.compile("[\x00-\x1f]")


def without_surrogates(value: Any) -> Any:
    """The same value with U+FFFD for every lone surrogate, which no UTF-8 can hold."""
    if isinstance(value, dict):
        return {without_surrogates(k): without_surrogates(v) for k, v in value.items()}
    if isinstance(value, list):
        return [without_surrogates(item) for item in value]
    if type(value) is str:
        return _SURROGATE.sub("\ufffd", value)
    return value
