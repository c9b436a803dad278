"""The wire format of protobuf: varints, frames, and how to step over what one does not know.

A message is fields, each a tag varint (``number << 3 | wire type``) and a value: a varint, eight or four
bytes, a frame (a length and that many bytes), or a group (fields up to an end tag).  Whatever does not
fit into its stretch raises BrokenError with the offset in the body; nothing recurses.
"""

from collections.abc import Iterator

from tracefwd.receiver.fields import BrokenError

VARINT, FIXED64, FRAMED, GROUP, END_GROUP, FIXED32 = range(6)
_UINT64_MAX = 2**64 - 1


class Wire:
    """Reads ``body``; every method is given where to begin and the ``end`` that it must not cross."""

    __slots__ = ("body",)

    def __init__(self, body: bytes) -> None:
        self.body = body

    def varint(self, at: int, end: int) -> tuple[int, int]:
        """``(value, behind it)``."""
        body = self.body
        if at + 1 < end:
            # Nearly all are of one byte or two; this halves what those cost.
            first, second = body[at], body[at + 1]
            if first < 0x80:
                return first, at + 1
            if second < 0x80:
                return first - 0x80 + (second << 7), at + 2
        value = shift = 0
        while at < end:
            byte = body[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & _UINT64_MAX, at
            shift += 7
            if shift > 63:
                raise BrokenError(at, "a varint of more than ten bytes")
        raise BrokenError(at, "it ends inside a varint")

    def frame(self, at: int, end: int) -> tuple[int, int]:
        """``(begin, behind it)`` of the bytes whose length stands ``at``."""
        size, begin = self.varint(at, end)
        if size > end - begin:
            raise BrokenError(begin, f"a field of {size} bytes where {end - begin} are left")
        return begin, begin + size

    def fixed64(self, at: int, end: int) -> tuple[int, int]:
        if at + 8 > end:
            raise BrokenError(at, "it ends inside a number")
        return int.from_bytes(self.body[at : at + 8], "little"), at + 8

    def members(self, at: int, end: int) -> Iterator[tuple[int, int, int]]:
        """``(tag, begin, behind it)`` of every framed field, ``(tag, value, 0)`` of every number."""
        while at < end:
            tag, at = self.varint(at, end)
            wire_type = tag & 7
            if wire_type == FRAMED:
                begin, at = self.frame(at, end)
                yield tag, begin, at
            elif wire_type == VARINT:
                value, at = self.varint(at, end)
                yield tag, value, 0
            elif wire_type == FIXED64:
                value, at = self.fixed64(at, end)
                yield tag, value, 0
            else:
                at = self.skip(tag, at, end)

    def skip_field(self, at: int, end: int) -> int:
        tag, at = self.varint(at, end)
        return self.skip(tag, at, end)

    def skip(self, tag: int, at: int, end: int) -> int:
        """Behind the value of an unknown field; groups nest by a count, so that depth costs nothing."""
        depth = 0
        while True:
            wire_type = tag & 7
            if wire_type == VARINT:
                _, at = self.varint(at, end)
            elif wire_type == FRAMED:
                _, at = self.frame(at, end)
            elif wire_type in (FIXED64, FIXED32):
                at += 8 if wire_type == FIXED64 else 4
            elif wire_type == GROUP:
                depth += 1
            elif wire_type == END_GROUP and depth:
                depth -= 1
            else:
                raise BrokenError(at, f"no field has wire type {wire_type}")
            if at > end or tag < 8:
                raise BrokenError(
                    at, "it ends inside a field" if at > end else "no field has number 0"
                )
            if not depth:
                return at
            tag, at = self.varint(at, end)
