"""The port for Wavefront span lines: HTTP on any path, and plain text over TCP, as the proxy's ``traceListenerPorts``.

The first two bytes of a connection decide: a method's name is HTTP (``http_connection.py``, whose whole conduct this
port shares), ``1f 8b`` is a gzip stream of lines, everything else is lines.

1. A line over TCP ends with LF.  One above ``LINE_BYTES_MAX`` is thrown away and counted, and the connection lives
   on; a last line without its LF is thrown away and counted.
2. Nothing is ever answered over TCP, so nothing but reading on or not can slow a client down: reading pauses while
   answers are held, or while a gzip stream is being worked off.
3. Memory: per connection one read and one unfinished line; of all connections together, unfinished lines of
   ``_UNFINISHED_BYTES_MAX``.
4. A TCP client that is to leave sees our side's end first, and what it still sends is taken: at once when the drain
   begins, or at the drain's end if it came later.  It is not sent away for its age, as nothing tells it in time.
"""

import asyncio
import zlib
from typing import Protocol

from tracefwd.doorways import Answer, HeldAnswer
from tracefwd.limits import REJECT_SAMPLE_BYTES_MAX
from tracefwd.model import Reject
from tracefwd.receiver.guard import Guard
from tracefwd.receiver.handler import Handlers, zipkin_handler
from tracefwd.receiver.http import HttpReceiver
from tracefwd.receiver.http_connection import Connection
from tracefwd.receiver.intake import Intake
from tracefwd.settings import ReceiverSettings

# The proxy's own (traceListenerMaxReceivedLength).
LINE_BYTES_MAX = 2**20
# Every one of 20,000 connections may wait in the midst of a span of 3 KiB, or 64 within the longest lines.
_UNFINISHED_BYTES_MAX = 64 * 2**20
# GET, POST, PUT, HEAD, OPTIONS, PATCH, DELETE, TRACE, CONNECT.
_HTTP = frozenset({b"GE", b"PO", b"PU", b"HE", b"OP", b"PA", b"DE", b"TR", b"CO"})
_GZIP = b"\x1f\x8b"
_GZIP_WBITS = 31
# Inflated at once; a read of 256 KiB may hold a thousand times as much, and others want their turn.
_BITE_BYTES = 64 * 2**10
_BITES_PER_TURN = 8
# Reads whose spans may wait for durability before we stop reading.
_HELD_MAX = 4


class LineSink(Protocol):
    """What the port needs of ``pipeline.Pipeline``."""

    def ingest_lines(self, body: bytes, content_type: str) -> Answer | HeldAnswer: ...
    def refuse_line(self, reject: Reject, *, is_log: bool) -> None: ...


class LinePort(HttpReceiver):
    """Serves one listening socket; bounds, drain and counts are ``HttpReceiver``'s."""

    def __init__(
        self,
        settings: ReceiverSettings,
        sink: LineSink,
        *,
        seed: int = 0,
        guard: Guard | None = None,
    ) -> None:
        everywhere = Handlers({}, everywhere=zipkin_handler(sink.ingest_lines))
        super().__init__(settings, sink.ingest_lines, seed=seed, handlers=everywhere, guard=guard)
        self._unfinished = Unfinished(sink)

    @property
    def memory_bytes(self) -> int:
        return super().memory_bytes + self._unfinished.bytes_kept

    def _connection(self) -> Connection:
        return LineConnection(self._intake, self._retire_at(), self._unfinished)


class Unfinished:
    """What the TCP connections of a port share: the room for unfinished lines, and where lost ones are told."""

    def __init__(self, sink: LineSink, bytes_max: int = _UNFINISHED_BYTES_MAX) -> None:
        self._sink = sink
        self._bytes_max = bytes_max
        self.bytes_kept = 0

    def has_room(self, size: int) -> bool:
        return self.bytes_kept + size <= self._bytes_max

    def refuse(self, reason: str, detail: str, line: bytes) -> None:
        is_log = line.lstrip()[:1] == b"{"
        reject = Reject(reason, "a line over TCP", detail, line[:REJECT_SAMPLE_BYTES_MAX])
        self._sink.refuse_line(reject, is_log=is_log)


class LineCutter:
    """Whole lines out of the pieces in which one connection's bytes come; no piece holds a longest line whole."""

    def __init__(self, unfinished: Unfinished) -> None:
        self._unfinished = unfinished
        self._rest = bytearray()
        # In the midst of a line that is lost already.
        self._skipping = False

    def cut(self, piece: bytes) -> bytes:
        """The lines that this piece completes, LFs included."""
        end = piece.rfind(b"\n") + 1
        whole, tail = piece[:end], piece[end:]
        if whole and (self._skipping or self._rest):
            first = whole.index(b"\n")
            if self._skipping or self._is_too_long(whole[:first]):
                whole = whole[first + 1 :]
            else:
                whole = bytes(self._rest) + whole
            self._skipping = False
            self._forget()
        if tail and not self._skipping:
            self._keep(tail)
        return whole

    def end(self) -> None:
        """Nothing more will come."""
        if self._rest.strip():
            detail = "the connection ended within it; end every line with LF"
            self._unfinished.refuse("syntax", detail, bytes(self._rest[:REJECT_SAMPLE_BYTES_MAX]))
        self._forget()

    def _is_too_long(self, last_part: bytes) -> bool:
        length = len(self._rest) + len(last_part)
        ends = last_part[-1:] or self._rest[-1:]
        if length - (ends == b"\r") <= LINE_BYTES_MAX:
            return False
        self._refuse_long(bytes(self._rest[:REJECT_SAMPLE_BYTES_MAX]))
        return True

    def _keep(self, tail: bytes) -> None:
        # One more for the CR of a line's end.
        if len(self._rest) + len(tail) > LINE_BYTES_MAX + 1:
            self._refuse_long(bytes(self._rest[:REJECT_SAMPLE_BYTES_MAX]) or tail)
        elif not self._unfinished.has_room(len(tail)):
            detail = "too many unfinished lines at once; send lines whole"
            self._unfinished.refuse("invalid", detail, bytes(self._rest) or tail)
        else:
            self._rest += tail
            self._unfinished.bytes_kept += len(tail)
            return
        self._forget()
        self._skipping = True

    def _refuse_long(self, line: bytes) -> None:
        self._unfinished.refuse("invalid", f"it is longer than {LINE_BYTES_MAX} bytes", line)

    def _forget(self) -> None:
        self._unfinished.bytes_kept -= len(self._rest)
        self._rest = bytearray()


class GzipStream:
    """Inflates a stream of gzip members bite by bite.  ``zlib.error`` when it is broken."""

    def __init__(self) -> None:
        self._engine = zlib.decompressobj(wbits=_GZIP_WBITS)
        self._input = b""
        self._is_cut_short = False

    @property
    def has_more(self) -> bool:
        """Whether ``bite`` has something to do without further input."""
        return bool(self._input) or self._is_cut_short

    def feed(self, data: bytes) -> None:
        self._input += data

    def bite(self) -> bytes:
        if self._engine.eof:
            # gzip files may be padded with zeros to a block.
            self._input = self._input.lstrip(b"\0")
            if not self._input:
                return b""
            self._engine = zlib.decompressobj(wbits=_GZIP_WBITS)
        bite = self._engine.decompress(self._input, _BITE_BYTES)
        self._input = self._engine.unused_data or self._engine.unconsumed_tail
        # The engine may hold output back although it has eaten all input.
        self._is_cut_short = len(bite) == _BITE_BYTES and not self._engine.eof
        return bite


class LineConnection(Connection):
    """``Connection`` for HTTP, and beside it a client that sends lines."""

    __slots__ = ("_begun", "_cutter", "_gzip", "_held", "_is_raw", "_unfinished", "_working")

    def __init__(self, intake: Intake, retire_at: float, unfinished: Unfinished) -> None:
        super().__init__(intake, retire_at)
        self._unfinished = unfinished
        # None until two bytes have come.
        self._is_raw: bool | None = None
        self._begun = b""
        self._cutter: LineCutter | None = None
        self._gzip: GzipStream | None = None
        self._held = 0
        # The next turn of the loop goes on inflating.
        self._working = False

    # What the transport tells.

    def data_received(self, data: bytes) -> None:
        if self._is_raw:
            self._take(data)
        elif self._is_raw is not None or self._turned_away:
            super().data_received(data)
        else:
            self._begun += data
            if len(self._begun) >= len(_GZIP):
                begun, self._begun = self._begun, b""
                self._decide(begun)

    def eof_received(self) -> bool:
        if self._is_raw is None and self._begun:
            self._decide(self._begun)
        if not self._is_raw:
            return super().eof_received()
        self._eof = True
        # False: the transport closes, as there is nothing to say.
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self._cutter is not None:
            self._cutter.end()
        self._gzip = None
        super().connection_lost(exc)

    # What the receiver tells.

    def retire(self, reason: str) -> None:
        super().retire(reason)
        if self._is_raw and reason == "drain" and self._transport is not None:
            # Our side's end is all that can be said to a client that does not listen for answers.
            self._half_close(self._transport)

    # Lines.

    def _decide(self, begun: bytes) -> None:
        self._is_raw = begun[:2] not in _HTTP
        if not self._is_raw:
            super().data_received(begun)
            return
        if self._intake.guard.asks_for_token:
            # Lines have no place to show one.
            self._intake.closed["no_token"] += 1
            self._intake.refusals.connection("no_token")
            self.abort()
            return
        self._cutter = LineCutter(self._unfinished)
        if begun.startswith(_GZIP):
            self._gzip = GzipStream()
        self._take(begun)

    def _take(self, data: bytes) -> None:
        self._intake.bytes_read += len(data)
        if not self._lingering:
            # Whoever sends is not idle.
            self._deadline = 0.0
        if self._gzip is None:
            self._eat(data)
        else:
            self._gzip.feed(data)
            self._work_off()

    def _work_off(self) -> None:
        """Inflate and take some of what is there; the rest in the next turn of the loop."""
        self._working = False
        gzip = self._gzip
        if gzip is None:
            return
        try:
            for _ in range(_BITES_PER_TURN):
                if not gzip.has_more:
                    break
                self._eat(gzip.bite())
        except zlib.error as error:
            self._unfinished.refuse("syntax", f"the gzip stream is broken: {error}", b"")
            self._intake.closed["protocol"] += 1
            self._gzip = None
            self.abort()
            return
        if gzip.has_more:
            self._working = True
            asyncio.get_running_loop().call_soon(self._work_off)
        self._balance_reading()

    def _eat(self, data: bytes) -> None:
        assert self._cutter is not None
        whole = self._cutter.cut(data)
        if not whole:
            return
        handler = self._intake.handlers.find(b"/")
        assert handler is not None, "lines are taken everywhere"
        answer = self._intake.take(handler, whole, "", "")
        if isinstance(answer, HeldAnswer) and answer.answer is None:
            self._held += 1
            answer.when_released(self._released)
            self._balance_reading()

    def _released(self) -> None:
        self._held -= 1
        self._balance_reading()

    def _is_full(self) -> bool:
        if self._is_raw:
            overloaded = self._intake.guard.overloaded
            return overloaded or self._working or self._held >= _HELD_MAX
        return super()._is_full()


__all__ = ["LINE_BYTES_MAX", "GzipStream", "LineConnection", "LineCutter", "LinePort", "Unfinished"]
