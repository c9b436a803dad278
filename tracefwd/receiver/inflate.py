"""Content codings of request bodies, undone within a limit.

Rules:
1. Output is bounded while inflating, never afterwards: a body that would grow past the limit costs the limit
   and not a byte more, whatever its ratio and however many gzip members it is cut into.
2. Work is bounded, too: input goes in by windows and members are counted, because starting a member costs
   microseconds and a megabyte can hold fifty thousand empty ones.
3. What does not end properly, or has something else behind its end, is malformed: half a batch would look whole.

Pure; isal inflates three times as fast as zlib and has wheels for the usual machines only, so zlib stands in.
"""

import zlib
from typing import Any, cast

from tracefwd.errors import Malformed, TooLarge, UnsupportedEncoding

ENGINE: Any = zlib
BROKEN: tuple[type[Exception], ...] = (zlib.error,)
try:
    from isal import isal_zlib
except ImportError:
    pass
else:
    ENGINE = isal_zlib
    BROKEN = (zlib.error, cast("type[Exception]", isal_zlib.error))

# Input per step: the tail that an engine hands back after a member's end is copied, so it must stay small.
_WINDOW_BYTES = 64 * 2**10
# Parallel compressors cut at 128 KiB, so that 16 MiB come in 128 members; eight times that is generous.
_MEMBERS_MAX = 1_024

_NAMES = {b"gzip": "gzip", b"x-gzip": "gzip", b"deflate": "deflate"}
_NOTHING = frozenset({b"", b"identity"})
_WBITS_GZIP, _WBITS_ZLIB, _WBITS_RAW = 31, 15, -15


def coding_of(header: bytes) -> str:
    """What a content-encoding header asks to undo: ``gzip``, ``deflate``, or "" for nothing.

    ``UnsupportedEncoding`` for any other coding and for two at once, which no client of ours has a reason for.
    """
    codings = [
        part for part in map(bytes.strip, header.lower().split(b",")) if part not in _NOTHING
    ]
    if not codings:
        return ""
    name = _NAMES.get(codings[0]) if len(codings) == 1 else None
    if name is None:
        said = b", ".join(codings)[:64].decode("ascii", "replace")
        raise UnsupportedEncoding(
            f"Content-Encoding {said!r} is not read here; send gzip, deflate or no encoding."
        )
    return name


def inflate(data: bytes, coding: str, bytes_max: int) -> bytes:
    """The body under ``coding`` (as from ``coding_of``, not "").

    ``TooLarge`` above ``bytes_max`` bytes of output, ``Malformed`` when the stream is broken, cut off, or followed by
    something else than zero padding.
    """
    try:
        if coding == "gzip":
            return _members(data, bytes_max)
        body, end = _stream(data, 0, _WBITS_ZLIB if _is_zlib(data) else _WBITS_RAW, bytes_max)
    except BROKEN as error:
        raise Malformed(
            f"The body is no readable {coding} stream ({error}); send what Content-Encoding says."
        ) from error
    if data[end:].strip(b"\0"):
        raise Malformed(f"Something follows the end of the deflate stream at byte {end}.")
    return body


def _is_zlib(data: bytes) -> bool:
    """Whether a zlib header stands in front; many clients send raw deflate under the same name (RFC 9110, 8.4.1.2)."""
    return len(data) >= 2 and data[0] & 0x0F == 8 and (data[0] << 8 | data[1]) % 31 == 0


def _members(data: bytes, bytes_max: int) -> bytes:
    body, offset = _stream(data, 0, _WBITS_GZIP, bytes_max)
    if offset == len(data):
        return body
    parts, room = [body], bytes_max - len(body)
    for _ in range(_MEMBERS_MAX):
        # gzip files may be padded with zeros to a block; nothing else may stand between members.
        if data[offset] == 0 and not data[offset:].strip(b"\0"):
            return b"".join(parts)
        part, offset = _stream(data, offset, _WBITS_GZIP, room)
        parts.append(part)
        room -= len(part)
        if offset == len(data):
            return b"".join(parts)
    raise Malformed(f"The body has more than {_MEMBERS_MAX} gzip members; send one.")


def _stream(data: bytes, offset: int, wbits: int, room: int) -> tuple[bytes, int]:
    """One stream from ``offset`` on: its output (at most ``room`` bytes) and where it ended."""
    engine = ENGINE.decompressobj(wbits)
    view = memoryview(data)
    parts: list[bytes] = []
    while not engine.eof:
        window = view[offset : offset + _WINDOW_BYTES]
        if not window:
            raise Malformed("The compressed body ends before its stream does.")
        # One byte more than there is room for, so that the limit itself still fits (and 0 would mean no limit).
        part: bytes = engine.decompress(window, room + 1)
        room -= len(part)
        if room < 0:
            raise TooLarge("The body is too large after inflation.")
        parts.append(part)
        offset += len(window) - len(engine.unused_data)
    return parts[0] if len(parts) == 1 else b"".join(parts), offset
