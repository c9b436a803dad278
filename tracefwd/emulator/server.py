"""The stand-in itself: its settings, its sockets, its life from start to stop.

Invariants: both ports are open when ``start`` returns, or neither is; nothing is listening and no task is left when
``stop`` returns.  May be started once.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from tracefwd.emulator.connections import LineProtocol, Sniffer
from tracefwd.emulator.csp import TokenDesk
from tracefwd.emulator.faults import FaultBoard
from tracefwd.emulator.intake import Intake
from tracefwd.emulator.ports import CURRENT, Port, ProxyVersion
from tracefwd.emulator.record import Recorder
from tracefwd.emulator.routes import BODY_BYTES_MAX, Routes
from tracefwd.emulator.rules import Limits
from tracefwd.emulator.store import Store

# An answer under way when the stand-in stops may take this long.
_STOP_SECONDS = 1.0
Handler = Callable[[web.BaseRequest], Any]


@dataclass(frozen=True, kw_only=True)
class EmulatorSettings:
    """What the stand-in plays, and where.

    ``listen``: the proxy's metrics port, direct ingestion (``/report?f=…``) and the query API.  ``trace_listen``: the
    proxy's trace port; None for none.  ``version``: the proxy release to imitate, such as ``4.35``; any but
    ``current`` leaves direct ingestion out.  ``record``: every line with its verdict is appended there.  ``token``:
    direct ingestion wants it (or one from the CSP exchange, which wants it too).  ``keep_lines``: newest lines kept
    per signal.  ``backend_limits``: refuse what a proxy passes on although the backend's documented limit is lower.
    ``count_only``: lines are counted, not read (for benchmarks).
    """

    listen: str = "127.0.0.1:2878"
    trace_listen: str | None = None
    version: str = CURRENT
    record: Path | None = None
    token: str | None = None
    tags_max: int = 50
    keep_lines: int = 20_000
    backend_limits: bool = False
    count_only: bool = False
    csp_expires_in: int = 1_800


class Emulator:
    """An embedded Wavefront: ports, verdicts, books."""

    def __init__(
        self, settings: EmulatorSettings, *, clock: Callable[[], float] = time.time
    ) -> None:
        """``ValueError`` for settings that mean nothing.  ``clock``: seconds since 1970, for tests."""
        self._settings = settings
        self._version = ProxyVersion.named(settings.version)
        self._addresses = [_address(settings.listen)]
        if settings.trace_listen is not None:
            self._addresses.append(_address(settings.trace_listen))
        self._now_ms = lambda: int(clock() * 1000)
        self._store = Store(keep_lines=settings.keep_lines)
        self._board = FaultBoard()
        self._desk = TokenDesk(settings.token, settings.csp_expires_in)
        self._recorder: Recorder | None = None
        self._servers: list[asyncio.Server] = []
        self._http: list[web.Server] = []
        self._connections: set[asyncio.Transport] = set()

    async def start(self) -> None:
        """Listens.  ``OSError`` says which port is taken, or why the record cannot be written."""
        settings = self._settings
        if settings.record is not None:
            self._recorder = Recorder(settings.record)
        intake = Intake(
            limits=Limits.chosen(
                tags_max=settings.tags_max, backend_limits=settings.backend_limits
            ),
            version=self._version,
            store=self._store,
            recorder=self._recorder,
            count_only=settings.count_only,
        )
        routes = Routes(
            intake=intake,
            store=self._store,
            board=self._board,
            desk=self._desk,
            totals=self.totals,
            now_ms=self._now_ms,
        )
        ports: tuple[tuple[Port, Handler], ...] = (
            ("metrics", routes.metrics),
            ("trace", routes.trace),
        )
        try:
            for (host, number), (port, handler) in zip(self._addresses, ports, strict=False):
                factory = self._factory(port, handler, intake, routes)
                self._servers.append(await _listen(factory, host, number))
        except OSError:
            await self.stop()
            raise

    def _factory(
        self, port: Port, handler: Handler, intake: Intake, routes: Routes
    ) -> Callable[[], Sniffer]:
        http = web.Server(handler, request_factory=_request, access_log=None, auto_decompress=False)
        self._http.append(http)

        def lines(gzip: bool) -> LineProtocol:
            return LineProtocol(
                port=port,
                gzip=gzip,
                intake=intake,
                store=self._store,
                strikes=routes.strikes_tcp,
                now_ms=self._now_ms,
                connections=self._connections,
            )

        return lambda: Sniffer(http, lines, self._connections)

    @property
    def url(self) -> str:
        """Of the metrics port, direct ingestion and the query API."""
        return _url(self._servers[0])

    @property
    def trace_url(self) -> str | None:
        return _url(self._servers[1]) if len(self._servers) > 1 else None

    def totals(self) -> dict[str, Any]:
        """What ``GET /totals`` answers; exact since the start or the last reset."""
        return {
            "mode": "count_only" if self._settings.count_only else "full",
            "version": self._version.text,
            **self._store.totals(),
            "csp_tokens_issued": self._desk.issued_total,
            "record_lost": self._recorder.lost if self._recorder is not None else 0,
        }

    async def stop(self) -> None:
        """Closes ports and connections; a second call does nothing."""
        servers, self._servers = self._servers, []
        for server in servers:
            server.close()
        for transport in list(self._connections):
            transport.abort()
        http, self._http = self._http, []
        for one in http:
            # Idle connections first: they would sit out the time for answers.
            one.pre_shutdown()
            await one.shutdown(_STOP_SECONDS)
        for server in servers:
            await server.wait_closed()
        if self._recorder is not None:
            self._recorder.close()
            self._recorder = None


async def _listen(factory: Callable[[], Sniffer], host: str, port: int) -> asyncio.Server:
    loop = asyncio.get_running_loop()
    try:
        return await loop.create_server(factory, host, port)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(
            error.errno,
            f"the stand-in cannot listen on {host}:{port}: {reason}; choose another port",
        ) from error


def _request(
    message: Any, payload: Any, protocol: Any, writer: Any, task: "asyncio.Task[None]"
) -> web.BaseRequest:
    """As aiohttp makes it, but for the bound on the body."""
    loop = asyncio.get_running_loop()
    return web.BaseRequest(
        message, payload, protocol, writer, task, loop, client_max_size=BODY_BYTES_MAX
    )


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65_535:
        raise ValueError(f"address {text!r}: expected HOST:PORT, such as 127.0.0.1:2878")
    return host.strip("[]") or "127.0.0.1", int(port)


def _url(server: asyncio.Server) -> str:
    """Where a client on this machine reaches it, whatever it listens on."""
    host, port = server.sockets[0].getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
