"""Content codings of scraped bodies, undone piece by piece: neither input nor output is ever held whole.

1. ``feed`` gives pieces of at most ``PIECE_BYTES``, whatever the ratio, and stops at ``bytes_max`` bytes in all.
2. A stream that ends early, is broken, or has something behind its end is told by ``end`` or ``feed``; zeros there are
   the padding of gzip files.

Pure.
"""

from collections.abc import Iterator
from typing import Any

from tracefwd.errors import Malformed, TooLarge
from tracefwd.receiver.inflate import BROKEN, ENGINE

# A translation takes about 10 ms for it: others get their turn as often.
PIECE_BYTES = 64 * 2**10
_WBITS_GZIP = 31
# Exporters send one member.  Starting one costs microseconds, and a megabyte can hold fifty thousand.
_MEMBERS_MAX = 1_024


class Inflater:
    """One body under the coding ``gzip``, or under none ("")."""

    def __init__(self, coding: str, bytes_max: int) -> None:
        self._room = bytes_max
        self._stream: Any = ENGINE.decompressobj(_WBITS_GZIP) if coding else None
        self._members = 1
        self._begun = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Raises ``TooLarge`` after the last piece that fits, ``Malformed`` when the stream is broken."""
        if self._stream is None:
            for start in range(0, len(data), PIECE_BYTES):
                yield from self._within(data[start : start + PIECE_BYTES])
            return
        piece = b""
        # A full piece may leave output behind inside the engine although all input is taken.
        while data or (len(piece) == PIECE_BYTES and not self._stream.eof):
            if self._stream.eof:
                data = data.lstrip(b"\0")
                if not data:
                    return
                self._next_member()
            self._begun = True
            try:
                piece = self._stream.decompress(data, PIECE_BYTES)
            except BROKEN as error:
                raise Malformed(f"the body is no readable gzip stream ({error})") from error
            data = self._stream.unused_data if self._stream.eof else self._stream.unconsumed_tail
            yield from self._within(piece)

    def end(self) -> None:
        """Raises ``Malformed`` when the stream is not at its end."""
        if self._stream is not None and self._begun and not self._stream.eof:
            raise Malformed("the compressed body ends before its stream does")

    def _within(self, piece: bytes) -> Iterator[bytes]:
        fits = piece[: self._room]
        self._room -= len(fits)
        if fits:
            yield fits
        if len(fits) < len(piece):
            raise TooLarge("the body is larger than metrics.body_bytes_max after inflation")

    def _next_member(self) -> None:
        self._members += 1
        if self._members > _MEMBERS_MAX:
            raise Malformed(f"the body has more than {_MEMBERS_MAX} gzip members")
        self._stream = ENGINE.decompressobj(_WBITS_GZIP)


__all__ = ["PIECE_BYTES", "Inflater"]
