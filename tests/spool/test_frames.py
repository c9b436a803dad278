"""What is written is what is read, and what is not a frame is never one."""

from array import array
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracefwd.model import Identity, RedKey
from tracefwd.spool import frames
from tracefwd.spool.frames import ADOPTED, MARKED, BadFrameError, Frame, Origin
from tracefwd.spool.scan import scan

U64 = st.integers(0, 2**64 - 1)
KEY = RedKey(Identity("a", "b", "c", "d", "e", "f"), "GET /é", "server", "200", (("k", "v"),))


def read_one(data: bytes) -> Frame:
    (frame,) = scan(lambda offset, size: data[offset : offset + size], len(data))
    assert isinstance(frame, Frame)
    return frame


@settings(deadline=None, max_examples=200)
@given(
    seq=U64,
    marked=st.booleans(),
    origin=st.none() | st.builds(Origin, st.text(max_size=60), U64),
    counts=st.binary(max_size=300),
    payloads=st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 2**32 - 1), st.binary(max_size=99)), max_size=5
    ),
)
def test_an_entry_reads_as_written(
    seq: int,
    marked: bool,
    origin: Origin | None,
    counts: bytes,
    payloads: list[tuple[int, int, bytes]],
) -> None:
    ids = [7, 2**32 - 1, 0]
    buffer: list[bytes] = []
    flags = marked * MARKED | (origin is not None) * ADOPTED
    head = frames.origin_head(*origin) if origin else b""
    size = frames.put_entry(buffer, seq, flags, counts, payloads, ids, head)
    data = b"".join(buffer)
    assert len(data) == size
    frame = read_one(data)
    assert frame.kind == frames.ENTRY
    expected = [(ids[lane], items, lines) for lane, items, lines in payloads]
    assert frames.read_entry(frame.payload) == (seq, marked, origin, counts, expected)


@given(first=U64, last=U64, lane=st.integers(0, 2**32 - 1), rest=st.binary(max_size=50))
def test_the_other_frames_read_as_written(first: int, last: int, lane: int, rest: bytes) -> None:
    payload = read_one(frames.done(lane, first, last)).payload
    assert frames.read_done(payload) == (lane, first, last)
    payload = read_one(frames.outstanding(lane, first, array("Q", [first, last]))).payload
    assert frames.read_outstanding(payload) == (lane, first, array("Q", [first, last]))
    payload = read_one(frames.facts(first, last, array("Q", [first, last]))).payload
    assert frames.read_facts(payload) == (first, last, array("Q", [first, last]))
    payload = read_one(frames.drained(first, [lane, 0])).payload
    assert frames.read_drained(payload) == (first, array("I", [lane, 0]))
    assert frames.read_seq(read_one(frames.swept(last)).payload) == last
    payload = read_one(frames.state(first, {"slot-1:4": last}, rest)).payload
    assert frames.read_state(payload) == (first, {"slot-1:4": last}, rest)
    payload = read_one(frames.red_start(first, [last])).payload
    assert frames.read_red_start(payload) == (first, [last])


def test_keys_and_lanes_read_as_written() -> None:
    payload = read_one(frames.keys([(7, frames.pack_key(KEY)), (8, frames.pack_key(KEY))])).payload
    assert frames.read_keys(payload) == [(7, KEY), (8, KEY)]
    assert frames.read_start(read_one(frames.start(["a/spans", "b"])).payload) == ["a/spans", "b"]


READERS = [
    frames.read_seq,
    frames.read_entry,
    frames.read_start,
    frames.read_state,
    frames.read_red_start,
    frames.read_done,
    frames.read_outstanding,
    frames.read_keys,
    frames.read_facts,
    frames.read_drained,
]


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(READERS), st.binary(max_size=80))
def test_a_strange_payload_is_a_bad_frame_and_nothing_else(reader: object, payload: bytes) -> None:
    with suppress(BadFrameError):
        reader(payload)  # type: ignore[operator]


@pytest.mark.parametrize("cut", range(1, 30, 3))
def test_an_entry_whose_parts_do_not_add_up_is_bad(cut: int) -> None:
    buffer: list[bytes] = []
    frames.put_entry(buffer, 1, 0, b"counts", [(0, 1, b"line\n")], [9])
    payload = read_one(b"".join(buffer)).payload
    with pytest.raises(BadFrameError):
        frames.read_entry(payload[:-cut])
    with pytest.raises(BadFrameError):
        frames.read_entry(payload + b"x" * cut)


@given(st.text(), st.text())
def test_no_text_holds_the_magic(one: str, two: str) -> None:
    assert frames.MAGIC not in one.encode("utf-8", "replace")
    # nor a length that precedes a text
    for length in range(256):
        assert frames.MAGIC not in bytes([length]) + two.encode("utf-8", "replace")
