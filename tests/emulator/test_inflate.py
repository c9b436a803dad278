"""Compressed bodies: what is read, what is refused, and never more than allowed."""

import gzip
import zlib

import pytest

from tracefwd.emulator.inflate import inflated

TEXT = b"some lines\n" * 100


def raw_deflate(data: bytes) -> bytes:
    return zlib.compress(data, wbits=-15)


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("", TEXT),
        ("identity", TEXT),
        ("gzip", gzip.compress(TEXT, mtime=0)),
        ("gzip", gzip.compress(TEXT[:50], mtime=0) + gzip.compress(TEXT[50:], mtime=0)),
        ("deflate", zlib.compress(TEXT)),
        ("deflate", raw_deflate(TEXT)),
    ],
)
def test_what_was_compressed_comes_back(encoding: str, body: bytes) -> None:
    assert inflated(body, encoding, len(TEXT)) == TEXT


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(TEXT, mtime=0)),
        ("gzip", gzip.compress(TEXT[:50], mtime=0) + gzip.compress(TEXT[50:], mtime=0)),
        ("deflate", zlib.compress(TEXT)),
    ],
)
def test_one_byte_too_many_is_too_many(encoding: str, body: bytes) -> None:
    with pytest.raises(OverflowError):
        inflated(body, encoding, len(TEXT) - 1)


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", b""),
        ("gzip", b"no gzip"),
        ("gzip", gzip.compress(TEXT, mtime=0)[:-1]),
        ("gzip", gzip.compress(TEXT, mtime=0) + b"x"),
        ("deflate", b""),
        ("deflate", zlib.compress(TEXT)[:-1]),
    ],
)
def test_broken_data_is_an_error(encoding: str, body: bytes) -> None:
    with pytest.raises(zlib.error):
        inflated(body, encoding, 10_000)
