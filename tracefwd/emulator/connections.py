"""Who is calling: HTTP, lines over plain TCP, or a gzip stream of lines; the first two bytes decide, as in the proxy.

Invariants: a TCP line ends with LF (a CR before it is cut off); one that is longer than the port takes is thrown away
and counted, and the connection lives on; an unterminated last line is thrown away and counted.  What waits for its LF
never exceeds the port's line limit plus one read.
"""

import asyncio
import zlib
from collections.abc import Callable
from typing import Protocol, cast

from tracefwd.emulator.intake import Intake
from tracefwd.emulator.ports import Port
from tracefwd.emulator.rules import TCP_TRIM
from tracefwd.emulator.store import Store

# GET, POST, PUT, HEAD, OPTIONS, PATCH, DELETE, TRACE, CONNECT.
_HTTP = {b"GE", b"PO", b"PU", b"HE", b"OP", b"PA", b"DE", b"TR", b"CO"}
_GZIP = b"\x1f\x8b"
# Inflated at once, so that a bomb is eaten in bites.
_INFLATE_BYTES_MAX = 65_536
# A refused line's sample.
_SAMPLE_BYTES_MAX = 2_048


class Strikes(Protocol):
    """Whether a fault wants this TCP connection reset."""

    def __call__(self, port: Port, head: bytes) -> bool: ...


class Sniffer(asyncio.Protocol):
    """Waits for two bytes, then hands the connection over for good."""

    def __init__(
        self,
        http: Callable[[], asyncio.Protocol],
        lines: Callable[[bool], asyncio.Protocol],
        connections: set[asyncio.Transport],
    ) -> None:
        self._http = http
        self._lines = lines
        self._connections = connections
        self._begun = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, not a check: uvloop's transports are no subclass.
        self._transport = cast("asyncio.Transport", transport)
        self._connections.add(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._connections.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        self._begun += data
        if len(self._begun) < 2:
            return
        first = self._begun[:2]
        protocol = self._http() if first in _HTTP else self._lines(first == _GZIP)
        # The next protocol tells its own set when the connection ends.
        self._connections.discard(self._transport)
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        protocol.data_received(self._begun)


class LineProtocol(asyncio.Protocol):
    """Lines over TCP.  Nothing is ever answered."""

    def __init__(
        self,
        *,
        port: Port,
        gzip: bool,
        intake: Intake,
        store: Store,
        strikes: Strikes,
        now_ms: Callable[[], int],
        connections: set[asyncio.Transport],
    ) -> None:
        self._port = port
        self._inflate = zlib.decompressobj(wbits=31) if gzip else None
        self._intake = intake
        self._store = store
        self._strikes = strikes
        self._now_ms = now_ms
        self._connections = connections
        self._line_bytes_max = intake.version.line_bytes_max(port)
        self._rest = b""
        # In the middle of a line that is too long already.
        self._skipping = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._connections.add(self._transport)
        self._store.requests.tcp_connections += 1

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._connections.discard(self._transport)
        if self._rest.strip():
            self._store.requests.tcp_unterminated += 1
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        if self._strikes(self._port, data):
            self._transport.abort()
            return
        if self._inflate is None:
            self._eat(data)
            return
        try:
            while data and not self._inflate.eof:
                self._eat(self._inflate.decompress(data, _INFLATE_BYTES_MAX))
                data = self._inflate.unconsumed_tail
        except zlib.error:
            self._store.requests.tcp_failed += 1
            self._transport.abort()

    def _eat(self, data: bytes) -> None:
        *ended, rest = (self._rest + data).split(b"\n")
        if ended and self._skipping:
            del ended[0]
            self._skipping = False
        if self._intake.count_only:
            if ended:
                self._intake.count(b"\n".join(ended) + b"\n", port=self._port, form=None)
        elif ended:
            self._take(ended)
        if len(rest) > self._line_bytes_max + 1 and not self._skipping:
            self._refuse(rest)
            self._skipping = True
        self._rest = b"" if self._skipping else rest

    def _take(self, ended: list[bytes]) -> None:
        lines = []
        for raw in ended:
            line = raw.removesuffix(b"\r")
            if len(line) > self._line_bytes_max:
                self._refuse(line)
            elif text := line.decode("utf-8", "replace").strip(TCP_TRIM):
                lines.append(text)
        self._intake.take(lines, port=self._port, form=None, now_ms=self._now_ms())

    def _refuse(self, line: bytes) -> None:
        sample = line[:_SAMPLE_BYTES_MAX].decode("utf-8", "replace")
        message = f"Received line is too long (max: {self._line_bytes_max} bytes)"
        self._intake.refuse(sample, self._port, "line_too_long", message)
