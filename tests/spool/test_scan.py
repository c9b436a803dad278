"""Frames are found behind any damage, at a bounded price."""

import struct
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from tracefwd.spool import frames
from tracefwd.spool.frames import Frame
from tracefwd.spool.scan import Damage, scan


def scan_bytes(data: bytes) -> list[Frame | Damage]:
    return list(scan(lambda offset, size: data[offset : offset + size], len(data)))


def whole(payloads: list[bytes]) -> bytes:
    return b"".join(frames.seal(frames.DONE, payload) for payload in payloads)


PAYLOADS = st.lists(st.binary(max_size=60), max_size=8)


@settings(deadline=None, max_examples=200)
@given(PAYLOADS, PAYLOADS, st.binary(min_size=1, max_size=80))
def test_junk_between_frames_costs_no_frame(
    before: list[bytes], after: list[bytes], junk: bytes
) -> None:
    found = scan_bytes(whole(before) + junk + whole(after))
    assert [item.payload for item in found if isinstance(item, Frame)] == before + after
    damage = [item for item in found if isinstance(item, Damage)]
    assert sum(item.size_bytes for item in damage) == len(junk)


@settings(deadline=None, max_examples=200)
@given(PAYLOADS, st.binary(max_size=60), st.data())
def test_a_cut_frame_is_torn_and_a_flipped_one_is_not(
    before: list[bytes], last: bytes, data: st.DataObject
) -> None:
    start, frame = whole(before), frames.seal(frames.DONE, last)
    cut = data.draw(st.integers(1, len(frame) - 1))
    *found, tail = scan_bytes(start + frame[:cut])
    assert [item.payload for item in found if isinstance(item, Frame)] == before
    assert tail == Damage(len(start), cut, torn=True)
    flipped = bytearray(frame)
    flipped[data.draw(st.integers(0, len(frame) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    *found, tail = scan_bytes(start + bytes(flipped))
    assert [item.payload for item in found if isinstance(item, Frame)] == before
    assert tail == Damage(len(start), len(frame), torn=False)


def test_windows_do_not_cut_frames() -> None:
    payloads = [bytes([n]) * size for n, size in enumerate((2**20 - 30, 9, 2**20, 3 * 2**20, 0, 1))]
    assert [item.payload for item in scan_bytes(whole(payloads))] == payloads  # type: ignore[union-attr]
    junk = b"\0" * (2**20 - 1)
    found = scan_bytes(junk + whole(payloads))
    assert [item.payload for item in found[1:]] == payloads  # type: ignore[union-attr]


def test_reads_that_bring_little_are_repeated() -> None:
    data = whole([b"one" * 99, b"two" * 99])
    found = list(scan(lambda offset, size: data[offset : offset + min(size, 7)], len(data)))
    assert len(found) == 2


def test_a_file_that_is_shorter_than_said_ends() -> None:
    data = whole([b"one", b"two"])
    found = list(scan(lambda offset, size: data[offset : offset + size], len(data) + 100))
    assert len(found) == 3
    assert isinstance(found[-1], Damage)


def test_false_heads_in_durations_cost_a_bounded_time() -> None:
    head = struct.pack("<3sIBI", frames.MAGIC, 1, frames.FACTS, 2**22)
    data = b"x" + head * (2**22 // len(head)) + b"\0" * 2**22 + whole([b"found"])
    begin = time.process_time()
    found = scan_bytes(data)
    # unbounded it would checksum 1.4 TB
    assert time.process_time() - begin < 20
    assert isinstance(found[-1], Frame)
