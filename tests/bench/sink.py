"""A backend that only counts: it answers 202 to everything and counts lines by signal.

Run as ``python tests/bench/sink.py PORT_TRACES PORT_METRICS CORE``; prints one line when it listens, and on SIGTERM
one JSON object with the lines seen.  It gunzips and counts line ends, so that "delivered" is seen at the far side
and not believed.
"""

import asyncio
import json
import os
import signal
import sys
import zlib

import httptools

try:
    from isal import isal_zlib as fast
except ImportError:
    fast = zlib  # type: ignore[assignment]

ANSWER = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"


class Counting(asyncio.Protocol):
    """Counts spans and span logs on the trace port, metric lines on the other."""

    def __init__(self, counts: dict[str, int], port: str) -> None:
        self._counts = counts
        self._port = port
        self._parser = httptools.HttpRequestParser(self)
        self._parts: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)

    def on_message_complete(self) -> None:
        body = b"".join(self._parts)
        self._parts = []
        if body[:2] == b"\x1f\x8b":
            body = fast.decompress(body, 31)
        lines = body.count(b"\n")
        logs = body.count(b'\n{"') + body.startswith(b"{") if self._port == "spans" else 0
        self._counts[self._port] += lines - logs
        self._counts["span_logs"] += logs
        self._counts["requests"] += 1
        self._transport.write(ANSWER)


async def main(traces: int, metrics: int) -> None:
    counts = {"spans": 0, "span_logs": 0, "metrics": 0, "requests": 0}
    loop = asyncio.get_running_loop()
    await loop.create_server(lambda: Counting(counts, "spans"), "127.0.0.1", traces)
    await loop.create_server(lambda: Counting(counts, "metrics"), "127.0.0.1", metrics)
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGUSR1, lambda: print(json.dumps(counts), flush=True))
    print("listening", flush=True)
    await stop.wait()
    print(json.dumps(counts), flush=True)


if __name__ == "__main__":
    os.sched_setaffinity(0, {int(sys.argv[3])})
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
