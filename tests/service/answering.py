"""A target that answers what a test wants, and the doctor's findings about it."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from ssl import SSLContext
from typing import Any

from aiohttp import web

from tracefwd.service.config import Loaded, load
from tracefwd.service.doctor import DoctorOptions, examine
from tracefwd.service.doctor_findings import Finding, Mark

Answer = Callable[[web.BaseRequest, bytes], web.StreamResponse | Awaitable[web.StreamResponse]]


@asynccontextmanager
async def answering(say: Answer, tls: SSLContext | None = None) -> AsyncIterator[str]:
    """The URL of a server; ``say`` gets each request and its body."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        answer = say(request, await request.read())
        return answer if isinstance(answer, web.StreamResponse) else await answer

    runner = web.ServerRunner(web.Server(handle, access_log=None))
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        port = runner.addresses[0][1]
        yield f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


def accepting(_: web.BaseRequest, __: bytes) -> web.Response:
    return web.Response(status=202)


def loaded(*targets: Mapping[str, Any], **options: Any) -> Loaded:
    """Valid settings on ports that are free; sections of ``options`` are spelled ``spool__folder``."""
    given = {name.replace("__", "."): value for name, value in options.items()}
    flags = {"--listen": "127.0.0.1:0", "--admin": "127.0.0.1:0", **given}
    return load(None, {}, {**flags, "exporter.targets": list(targets)}, runnable=True)


def proxy(traces: str, metrics: str = "", **more: Any) -> dict[str, Any]:
    return {"kind": "proxy", "traces": traces, "metrics": metrics or traces, **more}


async def found(
    settings: Loaded, *, sends: bool = True, proxy_conf: Path | None = None, timeout_s: float = 10.0
) -> list[Finding]:
    options = DoctorOptions(timeout_s=timeout_s, sends=sends, proxy_conf=proxy_conf, json=False)
    return await examine(settings, options)


def of(findings: Sequence[Finding], check: str) -> Finding:
    """The one finding of a check, whose name may stand before an address."""
    (each,) = [each for each in findings if each.check == check] or [
        each for each in findings if each.check.partition(" ")[0] == check
    ]
    return each


def crosses(findings: Sequence[Finding]) -> list[str]:
    return [each.check for each in findings if each.mark is Mark.CROSS]


def no_proxies(monkeypatch: Any) -> None:
    """The environment's own HTTP proxies must not stand between a test and its target."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith("TRACEFWD_"):
            monkeypatch.delenv(name)
