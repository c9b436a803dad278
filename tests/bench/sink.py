"""The far side of everything that is measured: it answers at once and counts what came.

Run as ``python tests/bench/sink.py CORE``; prints its four ports (lines, metrics, backend, otlp) as a JSON list when it
listens, and a JSON object of counts on SIGUSR1.

* lines: Wavefront lines, as a proxy's tracing port takes them; a query that names the format goes before the port;
* metrics: metric lines;
* backend: what a Wavefront proxy has behind it: check-in, and reports by ``format``;
* otlp: an OTLP/HTTP receiver for traces and metrics.

It inflates and counts line ends (spans by their frames under OTLP), so that "delivered" is seen at the far side and
not believed, at a tenth of what the cheapest sender spends.
"""

import asyncio
import json
import os
import signal
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

import httptools

try:
    from isal import isal_zlib as fast
except ImportError:
    fast = zlib  # type: ignore[assignment]

KINDS = {
    "trace": "spans",
    "spanLogs": "span_logs",
    "wavefront": "metrics",
    "histogram": "metrics",
    "lines": "spans",
    "metrics": "metrics",
}


class Answered(NamedTuple):
    status: bytes
    content_type: bytes = b"application/json"
    body: bytes = b""

    def to_bytes(self) -> bytes:
        head = b"HTTP/1.1 %b\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n"
        return head % (self.status, self.content_type, len(self.body)) + self.body


_ACCEPTED = Answered(b"202 Accepted").to_bytes()
_OK = Answered(b"200 OK", body=b"{}").to_bytes()
_OTLP_OK = Answered(b"200 OK", b"application/x-protobuf").to_bytes()
# What Wavefront says when a proxy checks in; 50 is its own limit.
_CHECKIN = Answered(
    b"200 OK", body=b'{"validationConfiguration":{"spanAnnotationsCountLimit":50}}'
).to_bytes()


def take_lines(counts: Counter[str], url: str, body: bytes, otherwise: str) -> bytes:
    query = parse_qs(urlsplit(url).query)
    kind = KINDS[(query.get("format") or query.get("f") or [otherwise])[0]]
    lines = body.count(b"\n") + (body[-1:] not in (b"\n", b""))
    # Span logs are JSON objects among the lines of a tracing port.
    logs = body.count(b'\n{"') + body.startswith(b"{") if kind == "spans" else 0
    counts[kind] += lines - logs
    counts["span_logs"] += logs
    return _ACCEPTED


def take_backend(counts: Counter[str], url: str, body: bytes) -> bytes:
    if "/report" in url:
        take_lines(counts, url, body, "wavefront")
        return _ACCEPTED
    return _CHECKIN if "checkin" in url else _OK


def take_otlp(counts: Counter[str], url: str, body: bytes) -> bytes:
    if url.endswith("/v1/traces"):
        # ResourceSpans 1, ScopeSpans 2, Span 2.
        counts["spans"] += sum(
            number == 2
            for resource, begin, end in _frames(body, 0, len(body))
            if resource == 1
            for scope, first, last in _frames(body, begin, end)
            if scope == 2
            for number, _, _ in _frames(body, first, last)
        )
    else:
        counts["metrics"] += 1
    return _OTLP_OK


def _frames(data: bytes, place: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Field number, begin and end of each length-delimited field of a protobuf message."""
    while place < end:
        tag = data[place]
        place += 1
        if tag & 7 != 2 or tag > 127:
            raise ValueError(f"no frame of OTLP: tag {tag}")
        length = shift = 0
        while True:
            byte = data[place]
            place += 1
            length |= (byte & 127) << shift
            if byte < 128:
                break
            shift += 7
        yield tag >> 3, place, place + length
        place += length


Take = Callable[[str, bytes], bytes]


class Counting(asyncio.Protocol):
    def __init__(self, counts: Counter[str], take: Take) -> None:
        self._counts = counts
        self._take = take
        self._parser = httptools.HttpRequestParser(self)
        self._parts: list[bytes] = []
        self._url = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._url += url.decode()

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"expect":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)

    def on_message_complete(self) -> None:
        body, url = b"".join(self._parts), self._url
        self._parts, self._url = [], ""
        self._counts["requests"] += 1
        self._counts["wire_bytes"] += len(body)
        if body[:2] == b"\x1f\x8b":
            body = fast.decompress(body, 31)
        self._counts["bytes"] += len(body)
        self._transport.write(self._take(url, body))


async def main() -> None:
    counts: Counter[str] = Counter(spans=0, span_logs=0, metrics=0, requests=0)
    takes: tuple[Take, ...] = (
        lambda url, body: take_lines(counts, url, body, "lines"),
        lambda url, body: take_lines(counts, url, body, "metrics"),
        lambda url, body: take_backend(counts, url, body),
        lambda url, body: take_otlp(counts, url, body),
    )
    loop = asyncio.get_running_loop()
    ports = []
    for take in takes:
        server = await loop.create_server(lambda take=take: Counting(counts, take), "127.0.0.1", 0)  # type: ignore[misc]
        ports.append(server.sockets[0].getsockname()[1])
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGUSR1, lambda: print(json.dumps(counts), flush=True))
    print(json.dumps(ports), flush=True)
    await stop.wait()


if __name__ == "__main__":
    os.sched_setaffinity(0, {int(sys.argv[1])})
    # The driver has this core too, and would count what it waits for us as an answer's time.  The lowest niceness is
    # not enough: a slice that has begun is finished, and one takes up to 3 ms.
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    asyncio.run(main())
