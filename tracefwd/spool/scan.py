"""Scan: the frames of a file, in order, and what between them is none.  Pure: reading is an argument.

Behind damage the next frame is searched byte by byte: a flip costs the frame it is in.  Nothing raises for content;
what ``read`` raises passes through.  Memory: a window of 1 MiB, or the largest frame.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from tracefwd.spool.frames import (
    CHECKED_FROM,
    FRAME_BYTES_MAX,
    HEAD,
    HEAD_BYTES,
    MAGIC,
    Frame,
    body,
    crc32,
)

_WINDOW_BYTES = 2**20
# What may be checksummed in vain behind one piece of damage.  A client can put false heads with large lengths into
# durations; this makes them cost a second at most.  No candidate may take more than a quarter of what is left, so there
# is always something left for shorter ones.
_SEARCH_BYTES_MAX = 2**30


class Damage(NamedTuple):
    """Bytes that hold no frame.  ``torn``: one that begins well and whose end the file does not have."""

    offset: int
    size_bytes: int
    torn: bool


class _Reader:
    """Bytes at an offset, through a window."""

    def __init__(self, read: Callable[[int, int], bytes]) -> None:
        self._read = read
        self._at = 0
        self._window = b""

    def bytes_at(self, offset: int, size_bytes: int) -> bytes:
        """Fewer than asked for only where the file ends."""
        start = offset - self._at
        if start < 0 or start + size_bytes > len(self._window):
            self._at, start = offset, 0
            self._window = self._fill(offset, max(size_bytes, _WINDOW_BYTES))
        return self._window[start : start + size_bytes]

    def _fill(self, offset: int, size_bytes: int) -> bytes:
        data = self._read(offset, size_bytes)
        while 0 < len(data) < size_bytes and (
            more := self._read(offset + len(data), size_bytes - len(data))
        ):
            data += more
        return data


def scan(read: Callable[[int, int], bytes], size_bytes: int) -> Iterator[Frame | Damage]:
    """Everything in a file of ``size_bytes``; ``read(offset, size)`` as ``Disk.read_at``."""
    reader = _Reader(read)
    offset = 0
    while offset < size_bytes:
        frame = _frame_at(reader, offset, size_bytes)
        if frame is not None:
            yield frame
            offset += HEAD_BYTES + len(frame.payload)
            continue
        following = _search(reader, offset + 1, size_bytes)
        torn = following == size_bytes and _is_torn(reader, offset, size_bytes)
        yield Damage(offset, following - offset, torn)
        offset = following


def _frame_at(reader: _Reader, offset: int, end: int) -> Frame | None:
    length = _length_at(reader, offset, end)
    if length is None:
        return None
    data = reader.bytes_at(offset, HEAD_BYTES + length)
    if len(data) < HEAD_BYTES + length:
        return None
    _, crc, kind, _ = HEAD.unpack_from(data)
    if crc32(memoryview(data)[CHECKED_FROM:]) != crc:
        return None
    return Frame(kind, data[HEAD_BYTES:])


def _length_at(reader: _Reader, offset: int, end: int) -> int | None:
    """The payload's length, if a head stands here whose frame fits into the file."""
    head = reader.bytes_at(offset, HEAD_BYTES)
    if len(head) < HEAD_BYTES or not head.startswith(MAGIC):
        return None
    length: int = HEAD.unpack(head)[3]
    return length if length <= min(FRAME_BYTES_MAX, end - offset - HEAD_BYTES) else None


def _search(reader: _Reader, offset: int, end: int) -> int:
    """Where the next frame begins, or ``end``."""
    budget = _SEARCH_BYTES_MAX
    while end - offset >= HEAD_BYTES:
        window = reader.bytes_at(offset, min(_WINDOW_BYTES, end - offset))
        if len(window) < HEAD_BYTES:
            return end
        at = -1
        while (at := window.find(MAGIC, at + 1)) >= 0:
            if at + HEAD_BYTES > len(window):
                break  # the next window has the whole head
            length = HEAD.unpack_from(window, at)[3]
            if length > min(budget // 4, end - offset - at - HEAD_BYTES):
                continue
            if _frame_at(reader, offset + at, end) is not None:
                return offset + at
            budget -= length
        offset += len(window) - HEAD_BYTES + 1
    return end


def _is_torn(reader: _Reader, offset: int, end: int) -> bool:
    """Whether what stands here is the beginning of a frame, cut by the file's end."""
    head = reader.bytes_at(offset, HEAD_BYTES)
    if len(head) < HEAD_BYTES:
        return head[: len(MAGIC)] == MAGIC[: len(head)]
    if not head.startswith(MAGIC):
        return False
    _, crc, kind, length = HEAD.unpack(head)
    rest_bytes = end - offset - HEAD_BYTES
    if not rest_bytes < length <= FRAME_BYTES_MAX:
        return False
    # A whole last frame whose length was damaged looks the same, but for its checksum.
    checked = body(kind, rest_bytes) + reader.bytes_at(offset + HEAD_BYTES, rest_bytes)
    return bool(crc32(checked) != crc)
