"""Byte-level mutation: seeds in, endless variants of them out, the same ones for the same seed.

What no grammar would think of comes from flips and cuts; what no flip would find comes from each format's own tokens.
"""

from collections.abc import Sequence
from random import Random

TOKENS: dict[str, Sequence[bytes]] = {
    "http": (
        b"\r\n",
        b"\n",
        b"\r\n\r\n",
        b"\r\n ",
        b"0\r\n\r\n",
        b"0\r\n",
        b"ffffffffffffffff\r\n",
        b"Content-Length: 0\r\n",
        b"Content-Length: 18446744073709551616\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Content-Encoding: gzip\r\n",
        b"Expect: 100-continue\r\n",
        b"Connection: close\r\n",
        b"Connection: keep-alive, Upgrade\r\nUpgrade: h2c\r\n",
        b"Authorization: Bearer x\r\n",
        b"POST /api/v2/spans HTTP/1.1\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"HTTP/1.0",
        b";ext=\xff",
        b"\0",
    ),
    "json": (
        b"[",
        b"]",
        b"{",
        b"}",
        b'"',
        b",",
        b"null",
        b"true",
        b"-1",
        b"1e999",
        b"9223372036854775808",
        b"0.1",
        b"\\u0000",
        b"\\ud800",
        b"\xed\xa0\x80",
        b"\xff",
        b"\xef\xbb\xbf",
        b"[" * 70,
        b'"traceId":',
        b'"id":""',
        b'"tags":{}',
        b'"annotations":[]',
        b'"binaryAnnotations":[]',
        b'"localEndpoint":null',
        b'"debug":true',
    ),
    "proto3": (
        b"\x0a",
        b"\x0a\x00",
        b"\xff\xff\xff\xff\x0f",
        b"\xff" * 10,
        b"\x80" * 10 + b"\x01",
        b"\x0b",
        b"\x0c",
        b"\x12\x08" + b"\0" * 8,
        b"\x0a\x10" + b"\xaa" * 16,
        b"\x09",
        b"[",
    ),
    "exposition": (
        b"\n",
        b"\r\n",
        b"# TYPE h gauge\n",
        b"# TYPE c_total histogram\n",
        b"# EOF\n",
        b' # {trace_id="a"} 1 2\n',
        b"{",
        b"}",
        b'"',
        b"\\",
        b'\\"',
        b",",
        b'le="0.5"',
        b'quantile="x"',
        b'__name__="n",',
        b"NaN",
        b"+Inf",
        b"-0",
        b"1_000",
        b"0x1p-3",
        b"1e999",
        b" 1795352600000",
        b" 99999999999999999999",
        b" ",
        b"\t",
        b"\0",
        b"\xff",
        "∆".encode(),
    ),
}
_SIZE_MAX = 24_000


def mutants(seeds: list[bytes], tokens: Sequence[bytes], random: Random) -> bytes:
    """One variant of a seed; ``seeds`` may grow between calls."""
    data = bytearray(random.choice(seeds))
    for _ in range(random.choice((1, 1, 1, 2, 3, 8))):
        _mutate(data, seeds, tokens, random)
    return bytes(data[:_SIZE_MAX])


def _mutate(data: bytearray, seeds: list[bytes], tokens: Sequence[bytes], random: Random) -> None:
    at = random.randint(0, len(data))
    size = min(random.choice((1, 1, 2, 4, 16, 200)), len(data) - at)
    match random.randrange(8):
        case 0 if data:
            data[at % len(data)] ^= 1 << random.randrange(8)
        case 1 if data:
            data[at % len(data)] = random.randrange(256)
        case 2:
            del data[at : at + size]
        case 3:
            data[at:at] = data[at : at + size] * random.choice((1, 2, 50))
        case 4 | 5:
            data[at:at] = random.choice(tokens)
        case 6:
            other = random.choice(seeds)
            begin = random.randint(0, len(other))
            data[at : at + size] = other[begin : begin + random.randint(0, 400)]
        case _:
            del data[at:]


__all__ = ["TOKENS", "mutants"]
