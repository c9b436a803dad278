"""Frames: the journal's bytes, written and read.  Pure.

    magic   3 bytes   fe a5 f7
    crc     u32       CRC-32 of all that follows
    kind    u8
    length  u32       of the payload
    payload

All numbers are little-endian.  The magic cannot stand in UTF-8 text, nor where a length meets text, so what a client
sends cannot pass for a frame when a reader searches for the next one behind damage.

    data log                                             RED log
    START        msgpack [version, lane names]           RED_START  msgpack [version, swept below seq, void drains]
    STATE        msgpack [next seq, adopted, state]      KEYS       (id u32, length u32, packed RedKey)*
    ENTRY        see ``put_entry``                       FACTS      seq u64, now_s u64, (id << 1 | error u64, us u64)*
    DONE         lane u32, first u64, last u64           DRAINED    seq u64, id u32*
    OUTSTANDING  lane u32, below seq u64, seq u64*       SWEPT      seq u64
    LAUNCHED     lane u32, first u64, last u64
    RETURNED     lane u32, first u64, last u64

A lane is written as the CRC-32 of its name, so an entry can be read when the START of its segment cannot.
"""

import struct
import sys
from array import array
from collections.abc import Callable, Sequence
from struct import Struct
from typing import Final, NamedTuple, TypeVar

import msgspec

from tracefwd.model import RedKey

try:
    from isal.isal_zlib import crc32 as crc32
except ImportError:  # no wheel for this platform; three times slower
    from zlib import crc32 as crc32

_T = TypeVar("_T")
VERSION = 1
MAGIC: Final = b"\xfe\xa5\xf7"
START, STATE, ENTRY, DONE, OUTSTANDING, LAUNCHED, RETURNED = 1, 2, 3, 4, 5, 6, 7
RED_START, KEYS, FACTS, DRAINED, SWEPT = 17, 18, 19, 20, 21
# Flags of an ENTRY: valid only with a mark in the RED log; taken over from another journal.
MARKED, ADOPTED = 1, 2

# A body's lines come to a few times receiver.body_bytes_max (16 MiB), per writer and signal; a larger length is damage.
FRAME_BYTES_MAX = 256 * 2**20

_SEAL = Struct("<3sI")
HEAD = Struct("<3sIBI")
HEAD_BYTES = HEAD.size
# The checksum covers everything from here.
CHECKED_FROM = _SEAL.size
_BODY = Struct("<BI")
_ENTRY = Struct("<BIQBIH")
_ENTRY_ONE = Struct("<BIQBIHIII")
_ENTRY_REST = Struct("<QBIH")
_ENTRY_REST_BYTES = _ENTRY_REST.size
_PAYLOAD = Struct("<III")
_PAYLOAD_BYTES = _PAYLOAD.size
_ORIGIN = Struct("<QB")
_DONE = Struct("<IQQ")
_LANE_BELOW = Struct("<IQ")
_SEQ = Struct("<Q")
_FACTS = Struct("<QQ")
_KEY = Struct("<II")
# Instead of a length: the same bytes as the payload before, as a tee's often are.
_SAME = 0xFFFFFFFF

_pack_msg = msgspec.msgpack.Encoder().encode
pack_key = _pack_msg
unpack_key = msgspec.msgpack.Decoder(RedKey).decode
_unpack_start = msgspec.msgpack.Decoder(tuple[int, list[str]]).decode
_unpack_state = msgspec.msgpack.Decoder(tuple[int, dict[str, int], bytes]).decode
_unpack_red_start = msgspec.msgpack.Decoder(tuple[int, int, list[int]]).decode


class BadFrameError(ValueError):
    """A payload with a good checksum that is not what its kind says: written by another version."""


class Frame(NamedTuple):
    kind: int
    payload: bytes


class Origin(NamedTuple):
    """Which journal an adopted entry comes from, and how far into it: steps only grow."""

    name: str
    step: int


class Entry(NamedTuple):
    """``payloads`` are (lane id, items, data)."""

    seq: int
    marked: bool
    origin: Origin | None
    counts: bytes
    payloads: list[tuple[int, int, bytes]]


class Done(NamedTuple):
    lane_id: int
    first: int
    last: int


class Facts(NamedTuple):
    """``pairs`` alternates id << 1 | error with a duration in microseconds."""

    seq: int
    now_s: int
    pairs: "array[int]"


def lane_id(name: str) -> int:
    return crc32(name.encode())


def _little_endian(values: "array[int]") -> bytes:
    if sys.byteorder == "big":
        values = values[:]
        values.byteswap()
    return values.tobytes()


def _numbers(typecode: str, data: bytes) -> "array[int]":
    values: array[int] = array(typecode)
    if len(data) % values.itemsize:
        raise BadFrameError(f"{len(data)} bytes are no whole numbers")
    values.frombytes(data)
    if sys.byteorder == "big":
        values.byteswap()
    return values


# --- writing ---------------------------------------------------------------------------------


def body(kind: int, length: int) -> bytes:
    """What the checksum covers before the payload."""
    return _BODY.pack(kind, length)


def seal(kind: int, payload: bytes) -> bytes:
    """One frame."""
    checked = body(kind, len(payload)) + payload
    return _SEAL.pack(MAGIC, crc32(checked)) + checked


def put_entry(
    buffer: list[bytes],
    seq: int,
    flags: int,
    counts: bytes,
    payloads: Sequence[tuple[int, int, bytes]],
    lane_ids: Sequence[int],
    origin: bytes = b"",
) -> int:
    """Append one ENTRY to ``buffer`` in pieces that share the payloads' bytes; returns its size.

    seq u64, flags u8, length of counts u32, number of payloads u16, (lane u32, items u32, length u32)*, [origin],
    counts, the payloads' bytes.  Payloads name lanes by their index in ``lane_ids``.
    """
    rest = origin + counts
    if len(payloads) == 1:  # the usual post: one pack, no loop
        lane, items, data = payloads[0]
        size = len(data)
        length = _ENTRY_REST_BYTES + _PAYLOAD_BYTES + len(rest) + size
        lane_id = lane_ids[lane]
        head = _ENTRY_ONE.pack(ENTRY, length, seq, flags, len(counts), 1, lane_id, items, size)
        head += rest
        buffer += (_SEAL.pack(MAGIC, crc32(data, crc32(head))) + head, data)
        return HEAD_BYTES + length
    heads, size, before = b"", 0, None
    pieces: list[bytes] = []
    for lane, items, data in payloads:
        if data is before:
            heads += _PAYLOAD.pack(lane_ids[lane], items, _SAME)
            continue
        heads += _PAYLOAD.pack(lane_ids[lane], items, len(data))
        size += len(data)
        pieces.append(data)
        before = data
    heads += rest
    length = _ENTRY_REST_BYTES + len(heads) + size
    head = _ENTRY.pack(ENTRY, length, seq, flags, len(counts), len(payloads)) + heads
    crc = crc32(head)
    for piece in pieces:
        crc = crc32(piece, crc)
    buffer.append(_SEAL.pack(MAGIC, crc) + head)
    buffer += pieces
    return HEAD_BYTES + length


def origin_head(name: str, step: int) -> bytes:
    """What ``put_entry`` takes as ``origin``, with the flag ADOPTED; names are shorter than 256 bytes."""
    text = name.encode()
    return _ORIGIN.pack(step, len(text)) + text


def start(lanes: Sequence[str]) -> bytes:
    return seal(START, _pack_msg((VERSION, list(lanes))))


def state(next_seq: int, adopted: dict[str, int], data: bytes) -> bytes:
    return seal(STATE, _pack_msg((next_seq, adopted, data)))


def done(lane: int, first: int, last: int) -> bytes:
    return seal(DONE, _DONE.pack(lane, first, last))


def launched(lane: int, first: int, last: int) -> bytes:
    return seal(LAUNCHED, _DONE.pack(lane, first, last))


def returned(lane: int, first: int, last: int) -> bytes:
    return seal(RETURNED, _DONE.pack(lane, first, last))


def outstanding(lane: int, below: int, seqs: "array[int]") -> bytes:
    return seal(OUTSTANDING, _LANE_BELOW.pack(lane, below) + _little_endian(seqs))


def red_start(swept: int, void: Sequence[int]) -> bytes:
    return seal(RED_START, _pack_msg((VERSION, swept, list(void))))


def keys(pairs: Sequence[tuple[int, bytes]]) -> bytes:
    return seal(KEYS, b"".join(_KEY.pack(number, len(key)) + key for number, key in pairs))


def facts(seq: int, now_s: int, pairs: "array[int]") -> bytes:
    return seal(FACTS, _FACTS.pack(seq, now_s) + _little_endian(pairs))


def drained(seq: int, ids: Sequence[int]) -> bytes:
    return seal(DRAINED, _SEQ.pack(seq) + _little_endian(array("I", ids)))


def swept(seq: int) -> bytes:
    return seal(SWEPT, _SEQ.pack(seq))


# --- reading ---------------------------------------------------------------------------------


def read_seq(payload: bytes) -> int:
    """The first number of an ENTRY, FACTS, DRAINED or SWEPT."""
    if len(payload) < _SEQ.size:
        raise BadFrameError("too short for a seq")
    return int(_SEQ.unpack_from(payload)[0])


def read_entry(payload: bytes) -> Entry:
    try:
        seq, flags, counts_size, number = _ENTRY_REST.unpack_from(payload)
        at = _ENTRY_REST_BYTES
        heads = [_PAYLOAD.unpack_from(payload, at + n * _PAYLOAD_BYTES) for n in range(number)]
        at += number * _PAYLOAD_BYTES
        origin = None
        if flags & ADOPTED:
            step, size = _ORIGIN.unpack_from(payload, at)
            at += _ORIGIN.size
            origin = Origin(payload[at : at + size].decode(), step)
            at += size
    except (struct.error, UnicodeDecodeError) as error:
        raise BadFrameError(str(error)) from error
    counts = payload[at : at + counts_size]
    at += counts_size
    payloads: list[tuple[int, int, bytes]] = []
    data = b""
    for lane, items, size in heads:
        if size != _SAME:
            data = payload[at : at + size]
            at += size
        payloads.append((lane, items, data))
    if at != len(payload):
        raise BadFrameError("its parts do not add up")
    return Entry(seq, bool(flags & MARKED), origin, counts, payloads)


def read_start(payload: bytes) -> list[str]:
    """The lanes' names."""
    return _read(_unpack_start, payload)[1]


def read_state(payload: bytes) -> tuple[int, dict[str, int], bytes]:
    """Next seq, adopted steps by origin, state."""
    return _read(_unpack_state, payload)


def read_red_start(payload: bytes) -> tuple[int, list[int]]:
    """Everything with a seq below this is swept; the drains that count as not having happened."""
    return _read(_unpack_red_start, payload)[1:]


def _read(unpack: Callable[[bytes], _T], payload: bytes) -> _T:
    try:
        return unpack(payload)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadFrameError(str(error)) from error


def read_done(payload: bytes) -> Done:
    """Also of LAUNCHED and RETURNED."""
    if len(payload) < _DONE.size:
        raise BadFrameError("too short for a DONE")
    return Done(*_DONE.unpack_from(payload))


def read_outstanding(payload: bytes) -> tuple[int, int, "array[int]"]:
    """Lane id, below which seq, the seqs that are outstanding."""
    if len(payload) < _LANE_BELOW.size:
        raise BadFrameError("too short for an OUTSTANDING")
    lane, below = _LANE_BELOW.unpack_from(payload)
    return lane, below, _numbers("Q", payload[_LANE_BELOW.size :])


def read_keys(payload: bytes) -> list[tuple[int, RedKey]]:
    pairs: list[tuple[int, RedKey]] = []
    at = 0
    while at < len(payload):
        if at + _KEY.size > len(payload):
            raise BadFrameError("too short for a key")
        number, size = _KEY.unpack_from(payload, at)
        at += _KEY.size
        pairs.append((number, _read(unpack_key, payload[at : at + size])))
        at += size
    return pairs


def read_facts(payload: bytes) -> Facts:
    if len(payload) < _FACTS.size:
        raise BadFrameError("too short for FACTS")
    seq, now_s = _FACTS.unpack_from(payload)
    pairs = _numbers("Q", payload[_FACTS.size :])
    if len(pairs) % 2:
        raise BadFrameError("a fact without its duration")
    return Facts(seq, now_s, pairs)


def read_drained(payload: bytes) -> tuple[int, "array[int]"]:
    return read_seq(payload), _numbers("I", payload[_SEQ.size :])
