"""The admin port: how tracefwd is doing, for probes, scrapers and people.

Everything here is a read.  ``/livez`` says that the parent's loop runs, ``/readyz`` that every worker listens;
neither depends on queues or backends, because a restart cures neither.  No page holds a secret: settings are
masked (they hold the paths of secret files, a scraped source's may hold more), samples of rejected spans are masked by
the worker.
"""

import asyncio
import json
import logging
import platform
import socket
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from tracefwd import __version__
from tracefwd.console import page
from tracefwd.receiver.credentials import Credentials
from tracefwd.service import exposition
from tracefwd.service.access import HEADERS, Access, ApiError, Handler
from tracefwd.service.admin_door import AdminDoor
from tracefwd.service.api import Api

if TYPE_CHECKING:
    from tracefwd.service.supervisor import Service

LOG = logging.getLogger(__name__)
_SERVER_LOG = logging.getLogger(f"{__name__}.server")

CREDENTIALS_EVERY_S = 1.0
# Answered at once, whoever else is.
_PROBES = frozenset({"/livez", "/readyz"})

_INDEX = """\
tracefwd {version}
/livez      alive
/readyz     all workers listen; ?verbose names the parts
/metrics    Prometheus metrics
/ledger     where every span has gone; ?verbose shows the workers
/rejected   newest spans that can never be delivered, and why
/sources    scraped sources: how they are doing, what is allowed but never seen, what came and is not sent
/config     effective settings and where each comes from
/version    version

In a browser this address is the console.  What it shows is under /api/v1/, described by /api/v1/openapi.json.
"""


class Admin:
    """Pages of one service; serves from ``start`` to ``stop``."""

    def __init__(self, service: "Service", *, is_loopback: bool = True) -> None:
        """``is_loopback``: nobody beyond this machine reaches the port."""
        self._service = service
        settings = service.loaded.settings.admin
        self._credentials = Credentials(settings, "admin", demands=False)
        access = Access(settings, self._credentials, is_loopback=is_loopback)
        application = self.application = web.Application(
            middlewares=[self._answer, access.guard(_refusal)]
        )
        Api(service, service.views, access, self._hearing).add_to(application.router)
        for path, handler in {
            "/": self._index,
            **dict.fromkeys(page.ASSETS, _asset),
            "/livez": self._livez,
            "/readyz": self._readyz,
            "/metrics": self._metrics,
            "/version": self._version,
            "/config": self._config,
            "/ledger": self._ledger,
            "/rejected": self._rejected,
            "/sources": self._sources,
        }.items():
            application.router.add_get(path, handler)
        self._door: AdminDoor | None = None
        self._refreshing: asyncio.Task[None] | None = None
        _SERVER_LOG.addFilter(_is_no_clients_fault)
        # A probe a second is no news.  Whoever reads while we stop gets a second to finish.
        self._runner = web.AppRunner(
            application,
            access_log=None,
            logger=_SERVER_LOG,
            # A token is short; nothing else has a body.
            auto_decompress=False,
            shutdown_timeout=1.0,
        )

    async def start(self, sock: socket.socket) -> None:
        """Raises ``StartError`` when tokens or certificates cannot be used."""
        self._credentials.load()
        await self._runner.setup()
        # Each connection gets the certificate of its day.
        self._door = AdminDoor(sock, self._connection, lambda: self._credentials.tls)
        self._door.open()
        if self._credentials.are_asked_for:
            self._refreshing = asyncio.create_task(self._refresh(), name="admin credentials")

    def _connection(self) -> asyncio.Protocol:
        assert self._runner.server is not None, "the port is not open"
        return self._runner.server()

    @web.middleware
    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        assert self._door is not None, "the port is not open"
        if self._door.is_busy and request.path not in _PROBES:
            busy = ApiError(503, "busy", "too many are being answered", "come again in a second")
            answer = _refusal(request, busy)
            answer.headers.update(HEADERS)
            return answer
        with self._door.answering(request.transport):
            return await handler(request)

    def _hearing(self, request: web.Request) -> AbstractContextManager[None]:
        assert self._door is not None, "the port is not open"
        return self._door.hearing(request.transport)

    async def _refresh(self) -> None:
        """Secrets are exchanged while we run."""
        while True:
            await asyncio.sleep(CREDENTIALS_EVERY_S)
            if self._credentials.refresh():
                LOG.info("sessions of the console that showed another token have ended")

    async def stop(self) -> None:
        if self._refreshing is not None:
            self._refreshing.cancel()
        if self._door is not None:
            self._door.close()
        await self._runner.cleanup()

    async def _index(self, request: web.Request) -> web.Response:
        if not _wants_html(request):
            return web.Response(text=_INDEX.format(version=__version__))
        shown = page.console(self._service.views.flow())
        return web.Response(text=shown, content_type="text/html", charset="utf-8")

    async def _livez(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, request: web.Request) -> web.Response:
        service = self._service
        ready = service.ready
        lines = ["ready" if ready else "draining" if service.draining else "not ready"]
        if "verbose" in request.query:
            lines += [
                f"{slot.name}: {'listens' if slot.ready else 'does not listen'}"
                for slot in service.workers
            ]
            lines += [
                f"{slot.name}: {'works' if slot.ready else 'does not work'}"
                for slot in service.slots[len(service.workers) :]
            ]
            lines += [
                f"{name}: {problem} (does not count)"
                for name, problems in service.problems().items()
                for problem in problems
            ]
        return web.Response(status=200 if ready else 503, text="\n".join(lines) + "\n")

    async def _metrics(self, _: web.Request) -> web.Response:
        page = exposition.render(await self._service.samples())
        return web.Response(body=page.encode(), headers={"Content-Type": exposition.CONTENT_TYPE})

    async def _version(self, _: web.Request) -> web.Response:
        loops = sorted({slot.loop for slot in self._service.slots if slot.loop})
        return _json(
            {
                "version": __version__,
                "python": platform.python_version(),
                "workers": len(self._service.workers),
                "event_loop": ", ".join(loops),
            }
        )

    async def _config(self, _: web.Request) -> web.Response:
        from tracefwd.service import config

        loaded = self._service.loaded
        shown = config.show(loaded.settings, loaded.origins, format="json", origins_shown=True)
        return web.Response(text=shown, content_type="application/json")

    async def _ledger(self, request: web.Request) -> web.Response:
        whole = await self._service.ledger()
        if "verbose" in request.query:
            problems = self._service.problems()
            whole["workers"] = [
                {
                    "slot": slot.number,
                    "name": slot.name,
                    "pid": slot.pid,
                    "ready": slot.ready,
                    "stale": slot.stale,
                    "restarts": slot.restarts,
                    "problems": problems.get(slot.name, []),
                }
                for slot in self._service.slots
            ]
        return _json(whole)

    async def _rejected(self, _: web.Request) -> web.Response:
        return _json(await self._service.rejected_samples())

    async def _sources(self, _: web.Request) -> web.Response:
        return _json(await self._service.sources())


def _is_no_clients_fault(record: logging.LogRecord) -> bool:
    """aiohttp tells what it cannot read as an error, in the client's words; a header may hold its secret."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError)


async def _asset(request: web.Request) -> web.Response:
    name, content_type = page.ASSETS[request.path]
    text = page.asset(name)
    return web.Response(text=text, content_type=content_type, charset="utf-8", headers=HEADERS)


def _wants_html(request: web.Request) -> bool:
    """A browser that shows a page, and not a command or a script."""
    return "text/html" in request.headers.get("Accept", "")


def _refusal(request: web.Request, problem: ApiError) -> web.StreamResponse:
    """For programs as JSON, for people as text, for browsers without a token as the page that asks for it."""
    if _wants_html(request) and problem.status in (401, 429):
        tried = problem.message if request.method == "POST" else ""
        return web.Response(
            status=problem.status,
            text=page.sign_in(tried),
            content_type="text/html",
            charset="utf-8",
        )
    if request.path.startswith("/api/"):
        return problem.answer()
    answer = problem.answer()
    text = f"{problem.message}\n{problem.todo}\n" if problem.todo else f"{problem.message}\n"
    headers = (
        {"WWW-Authenticate": answer.headers["WWW-Authenticate"]} if problem.status == 401 else {}
    )
    return web.Response(status=problem.status, text=text, headers=headers)


def _json(value: Any) -> web.Response:
    return web.Response(
        text=json.dumps(value, indent=2, ensure_ascii=False) + "\n",
        content_type="application/json",
    )
