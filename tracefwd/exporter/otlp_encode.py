"""Protobuf's wire format, as far as OTLP out needs it: numbers, texts, framed messages, attributes.

Written by hand because a span through the generated classes costs ten times as much.  Tests hold every message to those
classes.  Pure.
"""

import struct

VARINT, FIXED64, LENGTH = 0, 1, 2

_pack_fixed64 = struct.Struct("<Q").pack
_pack_signed64 = struct.Struct("<q").pack
_pack_double = struct.Struct("<d").pack
_INT64 = 1 << 64


def varint(number: int) -> bytes:
    """``number`` is not negative."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def zigzag(number: int) -> int:
    """A ``sint32`` as the number that is written for it."""
    return number << 1 if number >= 0 else (-number << 1) - 1


def framed(tag: int, data: bytes) -> bytes:
    return varint(tag) + varint(len(data)) + data


def bytes_field(number: int, data: bytes) -> bytes:
    return framed(number << 3 | LENGTH, data)


def text_field(number: int, text: str) -> bytes:
    """Lone surrogates, which UTF-8 cannot hold, become ``?``."""
    return bytes_field(number, text.encode("utf-8", "replace"))


def number_field(number: int, value: int) -> bytes:
    return varint(number << 3 | VARINT) + varint(value % _INT64)


def fixed64_field(number: int, value: int) -> bytes:
    return varint(number << 3 | FIXED64) + _pack_fixed64(value)


def signed64_field(number: int, value: int) -> bytes:
    return varint(number << 3 | FIXED64) + _pack_signed64(value)


def double_field(number: int, value: float) -> bytes:
    return varint(number << 3 | FIXED64) + _pack_double(value)


def attribute(key: str, value: str | int) -> bytes:
    """A ``KeyValue``, not yet framed."""
    shown = number_field(3, value) if isinstance(value, int) else text_field(1, value)
    return text_field(1, key) + bytes_field(2, shown)
