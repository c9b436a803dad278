"""What bodies may be compressed with, and how little a bad one may cost."""

import gzip
import tracemalloc
import zlib
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracefwd.errors import Malformed, TooLarge, UnsupportedEncoding
from tracefwd.receiver import inflate as module
from tracefwd.receiver.inflate import coding_of, inflate

LIMIT = 1 << 20


@pytest.fixture(params=["fast", "zlib"], autouse=True)
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every promise holds for isal where it is there, and for zlib where it is not."""
    if request.param == "zlib":
        monkeypatch.setattr(module, "ENGINE", zlib)
    return str(request.param)


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    ("header", "coding"),
    [
        (b"gzip", "gzip"),
        (b" GZip ", "gzip"),
        (b"x-gzip", "gzip"),
        (b"deflate", "deflate"),
        (b"identity", ""),
        (b"", ""),
        (b"identity, gzip", "gzip"),
    ],
)
def test_codings_are_told_by_name(header: bytes, coding: str) -> None:
    assert coding_of(header) == coding


@pytest.mark.parametrize("header", [b"br", b"zstd", b"gzip, gzip", b"gzip;q=1", b"\xff" * 500])
def test_other_codings_are_named_in_the_refusal(header: bytes) -> None:
    with pytest.raises(UnsupportedEncoding, match="send gzip, deflate or no encoding") as refused:
        coding_of(header)
    assert len(str(refused.value)) < 300


# The engine is swapped once per test, which is all the same to the examples.
@settings(deadline=None, max_examples=40)
@given(parts=st.lists(st.binary(max_size=5_000), min_size=1, max_size=4), level=st.integers(0, 9))
def test_what_was_compressed_comes_back(parts: list[bytes], level: int) -> None:
    whole = b"".join(parts)
    assert inflate(b"".join(gzip.compress(part, level) for part in parts), "gzip", LIMIT) == whole
    assert inflate(zlib.compress(whole, level), "deflate", LIMIT) == whole
    assert inflate(raw_deflate(whole), "deflate", LIMIT) == whole


def test_bodies_larger_than_a_window_come_back() -> None:
    body = bytes(i * i % 251 for i in range(900_000))
    for packed in (
        gzip.compress(body, 0),
        gzip.compress(body[:400_000]) + gzip.compress(body[400_000:], 0),
    ):
        assert inflate(packed, "gzip", LIMIT) == body


def test_the_limit_itself_fits_and_one_byte_more_does_not() -> None:
    for pack, coding in (
        (gzip.compress, "gzip"),
        (zlib.compress, "deflate"),
        (raw_deflate, "deflate"),
    ):
        assert len(inflate(pack(bytes(LIMIT)), coding, LIMIT)) == LIMIT
        with pytest.raises(TooLarge):
            inflate(pack(bytes(LIMIT + 1)), coding, LIMIT)


def test_the_limit_counts_all_members_together() -> None:
    member = gzip.compress(bytes(1000))
    assert len(inflate(member * 10, "gzip", 10_000)) == 10_000
    with pytest.raises(TooLarge):
        inflate(member * 10, "gzip", 9_999)


def test_a_bomb_costs_no_more_than_the_limit() -> None:
    bomb = gzip.compress(bytes(256 << 20), 1)
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            inflate(bomb, "gzip", LIMIT)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Some copies while growing, but nothing near the 256 MiB.
    assert peak < 6 * LIMIT


def test_endless_empty_members_are_refused() -> None:
    with pytest.raises(Malformed, match="more than 1024 gzip members"):
        inflate(gzip.compress(b"") * 100_000, "gzip", LIMIT)


def test_zero_padding_behind_the_end_is_no_harm() -> None:
    assert inflate(gzip.compress(b"[]") + bytes(512), "gzip", LIMIT) == b"[]"
    assert inflate(zlib.compress(b"[]") + bytes(3), "deflate", LIMIT) == b"[]"


# Without the time: these bytes name tests, which must be the same for all who gather them.
WHOLE = gzip.compress(b"abc" * 500, mtime=0)


@pytest.mark.parametrize(
    ("body", "coding"),
    [
        (b"", "gzip"),
        (b"", "deflate"),
        (b"[]", "gzip"),
        (b"[{}]" * 9, "deflate"),
        (WHOLE[:-1], "gzip"),
        (WHOLE[:12], "gzip"),
        (WHOLE[:-8] + bytes(8), "gzip"),
        (WHOLE + b"x", "gzip"),
        (WHOLE + WHOLE[:-3], "gzip"),
        (zlib.compress(b"abc")[:-1], "deflate"),
        (zlib.compress(b"abc") + b"x", "deflate"),
        (raw_deflate(b"abc" * 99)[:-2], "deflate"),
    ],
)
def test_what_is_broken_is_malformed(body: bytes, coding: str) -> None:
    with pytest.raises(Malformed):
        inflate(body, coding, LIMIT)


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=300), st.sampled_from(["gzip", "deflate"]))
def test_junk_ends_in_one_of_our_errors(junk: bytes, coding: str) -> None:
    with suppress(Malformed, TooLarge):
        inflate(junk, coding, 1_000)
