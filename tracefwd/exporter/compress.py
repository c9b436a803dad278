"""gzip, as fast as the machine has it: isal where it has a wheel, else zlib, both at their lowest level.

A MiB of span lines packs to a sixth (generated ones to a twelfth) in half a millisecond with isal, in 5 with zlib;
higher levels win under 2 % on such lines.  The stream carries no time, so equal bytes pack to equal bytes.
"""

import zlib
from typing import Any

try:
    from isal.isal_zlib import compress as _pack
    from isal.isal_zlib import compressobj as _stream
except ImportError:  # no wheel for this platform
    _pack = zlib.compress
    _stream = zlib.compressobj  # type: ignore[assignment]

_LEVEL = 1
# So much is packed at a time.  In pieces of 64 KiB, 3 % of a span's cost go into fetching gzip's tables and ours into
# the caches by turns; a MiB of lines has left the nearer ones when it is read again (3 %, too).  What is shorter may be
# longer when packed.
_PIECE_BYTES = 512 * 2**10
_GZIP_WINDOW_BITS = 31  # a 32 KiB window in a gzip container


def gzip_or_plain(data: bytes, *, packs: bool = True) -> tuple[bytes, str]:
    """``data`` packed and its content-encoding: ``gzip``, or "" where packing would not make it smaller.

    ``packs``: False leaves it as it is.
    """
    if not packs:
        return data, ""
    packed = _pack(data, _LEVEL, _GZIP_WINDOW_BITS)
    return (packed, "gzip") if len(packed) < len(data) else (data, "")


class Packer:
    """Lines of one batch, packed as they come.

    Its end then holds no answer up for a whole batch's packing, and it weighs a tenth.  ``packs``: False only gathers.
    """

    __slots__ = ("_packed", "_packs", "_plain", "_plain_bytes", "_stream")

    def __init__(self, *, packs: bool) -> None:
        self._packs = packs
        self._plain: list[bytes] = []
        self._plain_bytes = 0
        self._packed: list[bytes] = []
        self._stream: Any = None

    def add(self, data: bytes) -> None:
        self._plain.append(data)
        self._plain_bytes += len(data)
        if self._plain_bytes >= _PIECE_BYTES and self._packs:
            if self._stream is None:
                self._stream = _stream(_LEVEL, zlib.DEFLATED, _GZIP_WINDOW_BITS)
            self._packed.append(self._stream.compress(b"".join(self._plain)))
            self._plain.clear()
            self._plain_bytes = 0

    def finish(self) -> tuple[bytes, str]:
        """All of it and its content-encoding, like ``gzip_or_plain``; then nothing may be added any more."""
        data = b"".join(self._plain)
        if self._stream is None:
            return gzip_or_plain(data, packs=self._packs)
        return b"".join([*self._packed, self._stream.compress(data), self._stream.flush()]), "gzip"


def beginning(data: bytes, bytes_max: int) -> bytes:
    """The first bytes of what a gzip stream of a stranger holds, as far as it can be read; none if it is none."""
    try:
        return zlib.decompressobj(_GZIP_WINDOW_BITS).decompress(data, bytes_max)
    except zlib.error:
        return b""


def plain(data: bytes, encoding: str) -> bytes:
    """What ``gzip_or_plain`` was given."""
    return zlib.decompress(data, _GZIP_WINDOW_BITS) if encoding else data
