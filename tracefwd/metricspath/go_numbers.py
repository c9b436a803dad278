"""Numbers as Go reads and writes them: the exposition format is defined by Go's parser, the collector is a Go program.

Python's ``float`` takes more (``1_000``, ``+nan``, digits of other scripts) and turns ``1e400`` into infinity.  Pure.
"""

import math
import re
from decimal import Decimal

_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?", re.ASCII)
_INFINITY = re.compile(r"([+-]?)inf(?:inity)?", re.ASCII | re.IGNORECASE)
_INTEGER = re.compile(r"[+-]?[0-9]+", re.ASCII)
_INT64_MAX = 2**63 - 1
_UINT64 = 2**64
# Go's %v changes to an exponent below and from here.
_EXPONENT_LOW, _EXPONENT_HIGH = -4, 6
# Text of a number beyond this is no number of ours: float() of a million digits is slow.
_LENGTH_MAX = 400


def parse(text: str) -> float | None:
    """``text`` as ``strconv.ParseFloat`` takes it, but for hex floats and ``_``; None where it is refused."""
    if len(text) > _LENGTH_MAX:
        return None
    if _NUMBER.fullmatch(text):
        value = float(text)
        return value if math.isfinite(value) else None
    if text.lower() == "nan":
        return math.nan
    infinity = _INFINITY.fullmatch(text)
    if infinity:
        return -math.inf if infinity[1] == "-" else math.inf
    return None


def parse_int64(text: str) -> int | None:
    """``text`` as ``strconv.ParseInt`` takes it; None where it is refused."""
    if len(text) > _LENGTH_MAX or not _INTEGER.fullmatch(text):
        return None
    value = int(text)
    return value if -_INT64_MAX - 1 <= value <= _INT64_MAX else None


def plain(value: float) -> str:
    """The shortest text that reads back as ``value``, without an exponent (Go's ``'f'``, -1)."""
    text = repr(value)
    if text.endswith(".0"):
        return text[:-2]
    if "e" in text:
        return format(Decimal(text), "f")
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return "NaN" if math.isnan(value) else text


def shortest(value: float) -> str:
    """Go's ``%v``: as ``plain`` or, for very small and large numbers, with an exponent of at least two digits."""
    if not math.isfinite(value) or value == 0:
        return plain(value)
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    assert isinstance(exponent, int), "the value is finite"
    power = len(digits) - 1 + exponent
    if _EXPONENT_LOW <= power < _EXPONENT_HIGH:
        return plain(value)
    mantissa = str(digits[0]) + ("." + "".join(map(str, digits[1:])) if len(digits) > 1 else "")
    return f"{'-' if sign else ''}{mantissa}e{'-' if power < 0 else '+'}{abs(power):02d}"


def unsigned(value: float) -> float:
    """What is left of ``value`` after a way through Go's ``uint64`` on amd64: the collector's counts and buckets."""
    if not math.isfinite(value):
        return float(2**63)
    whole = int(value)
    if whole < 0:
        # Through int64, where what does not fit becomes the lowest.
        return float(max(whole, -(2**63)) % _UINT64)
    return float(whole) if whole < _UINT64 else float(2**63)
