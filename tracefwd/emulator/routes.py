"""HTTP at the stand-in's ports: ingestion, the CSP exchange, the query API, faults.

A bad line never makes a bad answer: like the proxy, the stand-in says 2xx and shows the line under ``/rejects``.  Other
answers are about the request itself: 401, 405, 413, and 400 for an unknown ``f`` at direct ingestion.
"""

import asyncio
import time
import zlib
from collections.abc import Callable
from typing import Any

import msgspec
from aiohttp import web

from tracefwd.emulator import backend, csp, query
from tracefwd.emulator.faults import Fault, FaultBoard, Place
from tracefwd.emulator.inflate import inflated
from tracefwd.emulator.intake import Intake
from tracefwd.emulator.ports import Port, Signal, format_named
from tracefwd.emulator.rules import HTTP_TRIM
from tracefwd.emulator.store import Store

# Both listeners' default, after inflation.
BODY_BYTES_MAX = 16 * 2**20
# Lines between two looks at the other connections: about 5 ms.
_LINES_AT_ONCE = 500
_FIRST_BYTES: dict[bytes, Signal] = {b"{": "span_logs", b"!": "distributions"}

_encode = msgspec.json.Encoder(enc_hook=str).encode
TotalsSource = Callable[[], dict[str, Any]]


class Routes:
    """One handler per port."""

    def __init__(
        self,
        *,
        intake: Intake,
        store: Store,
        board: FaultBoard,
        desk: csp.TokenDesk,
        totals: TotalsSource,
        now_ms: Callable[[], int],
    ) -> None:
        self._intake = intake
        self._store = store
        self._board = board
        self._desk = desk
        self._totals = totals
        self._now_ms = now_ms

    async def trace(self, request: web.BaseRequest) -> web.StreamResponse:
        return await self._ingest(request, "trace")

    async def metrics(self, request: web.BaseRequest) -> web.StreamResponse:
        """The proxy's metrics port, direct ingestion and the query API share this one."""
        path = request.path
        if request.method == "GET" or path in {"/reset", "/faults"}:
            return await self._query(request)
        if path in {csp.API_TOKEN_PATH, csp.OAUTH_PATH} and request.method == "POST":
            return await self._exchange(request)
        action = backend.action_of(path)
        if action is not None and self._intake.version.is_current:
            return await self._serve_proxy(request, action)
        is_report = path.strip("/") == "report" and self._intake.version.is_current
        return await self._ingest(request, "direct" if is_report else "metrics")

    async def _serve_proxy(self, request: web.BaseRequest, action: str) -> web.StreamResponse:
        """A Java proxy takes us for its backend."""
        if action == backend.REPORT:
            answer = await self._ingest(request, "direct")
            return _json(backend.answer_to(action)) if answer.status == 202 else answer
        await request.read()
        return _json(backend.answer_to(action))

    async def _ingest(self, request: web.BaseRequest, port: Port) -> web.StreamResponse:
        requests = self._store.requests
        requests.by_port[port] += 1
        answer = await self._ingested(request, port)
        if answer is None:
            requests.aborted += 1
            if request.transport is not None:
                request.transport.abort()
            # Nobody will read it; the server wants one.
            return web.Response(status=503)
        requests.by_status[answer.status] += 1
        return answer

    async def _ingested(self, request: web.BaseRequest, port: Port) -> web.Response | None:
        """None: abort the connection."""
        if request.method == "OPTIONS":
            return web.Response(status=204)
        if request.method not in {"POST", "PUT"}:
            return _text(405, "POST lines here")
        await _continue(request)
        try:
            encoding = request.headers.get("Content-Encoding", "").strip().lower()
            body = inflated(await request.read(), encoding, BODY_BYTES_MAX)
        except (web.HTTPRequestEntityTooLarge, OverflowError):
            return _text(413, f"more than {BODY_BYTES_MAX} bytes")
        except zlib.error as error:
            return _text(400, f"Decompression error: {error}")
        self._store.requests.body_bytes += len(body)
        names = [value for key, value in request.query.items() if key in {"f", "format"}]
        form = format_named(names[0]) if names else None
        if port == "direct":
            if names and form is None:
                return _text(400, f"unknown format {names[0]!r}")
            if not self._desk.admits(request.headers.get("Authorization"), time.monotonic()):
                return _text(401, "401 Unauthorized")
        fault = self._board.strike(
            "trace" if port == "trace" else "metrics",
            form or _guess(body, port),
            time.monotonic(),
        )
        if fault is not None:
            self._store.requests.faulted += 1
            await asyncio.sleep(fault.delay_ms / 1000)
        if fault is None or fault.accept or (fault.status is None and not fault.reset):
            await self._take(body, port, form)
        if fault is not None and (fault.reset or fault.status is not None):
            return _faulty(fault)
        return _text(202 if port == "direct" else self._intake.version.status, "")

    async def _take(self, body: bytes, port: Port, form: Signal | None) -> None:
        if self._intake.count_only:
            self._intake.count(body, port=port, form=form)
            return
        stripped = (line.strip(HTTP_TRIM) for line in body.decode("utf-8", "replace").split("\n"))
        lines = [line for line in stripped if line]
        now_ms = self._now_ms()
        for start in range(0, len(lines), _LINES_AT_ONCE):
            if start:
                await asyncio.sleep(0)
            some = lines[start : start + _LINES_AT_ONCE]
            self._intake.take(some, port=port, form=form, now_ms=now_ms)

    async def _exchange(self, request: web.BaseRequest) -> web.StreamResponse:
        form = {
            key: value for key, value in (await request.post()).items() if isinstance(value, str)
        }
        fault = self._board.strike("csp", None, time.monotonic())
        if fault is not None:
            await asyncio.sleep(fault.delay_ms / 1000)
            if fault.reset and request.transport is not None:
                request.transport.abort()
            if fault.reset or fault.status is not None:
                return _faulty(fault) or web.Response(status=503)
        authorization = request.headers.get("Authorization")
        status, answer = self._desk.exchange(request.path, form, authorization, time.monotonic())
        return _json(answer, status)

    async def _query(self, request: web.BaseRequest) -> web.StreamResponse:
        """Never touched by faults, never counted as a request."""
        path, method = request.path, request.method
        try:
            if path in query.ANSWERS and method == "GET":
                return _json(query.ANSWERS[path](self._store, request.query))
            if path == "/totals" and method == "GET":
                return _json(self._totals())
            if path == "/reset" and method == "POST":
                self._store.reset()
                return _json({"reset": True})
            if path == "/faults":
                return await self._faults(request)
        except ValueError as error:
            return _json({"error": str(error)}, 400)
        known = ["/totals", *query.ANSWERS, "/faults (GET, POST, DELETE)", "/reset (POST)"]
        return _json({"error": f"nothing at {method} {path}", "paths": known}, 404)

    async def _faults(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "POST":
            self._board.add(await request.read(), time.monotonic())
        elif request.method == "DELETE":
            self._board.clear()
        return _json({"faults": self._board.standing})

    def strikes_tcp(self, port: Port, head: bytes) -> bool:
        """Whether a fault resets this TCP connection now."""
        place: Place = "trace" if port == "trace" else "metrics"
        fault = self._board.strike(place, _guess(head, port), time.monotonic(), tcp=True)
        if fault is None:
            return False
        self._store.requests.faulted += 1
        return True


def _guess(body: bytes, port: Port) -> Signal:
    """The signal of a request that does not name it, by its first byte."""
    default: Signal = "spans" if port == "trace" else "points"
    return _FIRST_BYTES.get(body[:1], default)


def _faulty(fault: Fault) -> web.Response | None:
    if fault.reset or fault.status is None:
        return None
    headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
    return web.Response(status=fault.status, text="a fault on request", headers=headers)


async def _continue(request: web.BaseRequest) -> None:
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        # The interim answer is no part of the answer's size.
        request.writer.output_size = 0


def _text(status: int, text: str) -> web.Response:
    if not text:
        return web.Response(status=status)
    return web.Response(status=status, text=text)


def _json(answer: Any, status: int = 200) -> web.Response:
    return web.Response(status=status, body=_encode(answer), content_type="application/json")
