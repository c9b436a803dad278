"""A scripted HTTP target and a waiter: what the tests of delivery share."""

import asyncio
import gzip
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tracefwd.settings import ExporterSettings, RetrySettings

FAST: dict[str, Any] = {"batch_age_max": 0.001, "connect_timeout": 2.0, "request_timeout": 2.0}
FAST_RETRY = RetrySettings(backoff_base=0.002, backoff_max=0.01, age_max=60.0)


@dataclass
class Request:
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> bytes:
        packed = self.headers.get("Content-Encoding") == "gzip"
        return gzip.decompress(self.raw) if packed else self.raw

    @property
    def lines(self) -> list[bytes]:
        return self.body.splitlines()


Answer = int | web.Response | str
"""A status, a response, or ``reset`` (close without an answer) or ``hang`` (never answer)."""


@dataclass
class ScriptedTarget:
    """Answers from ``script`` in turn, then with ``default``; keeps every request."""

    script: deque[Answer] = field(default_factory=deque)
    default: Answer = 202
    requests: list[Request] = field(default_factory=list)
    url: str = ""
    in_flight: int = 0
    in_flight_most: int = 0
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    choose: Callable[[Request], Answer | None] | None = None
    before_answer: Callable[[], Awaitable[None]] | None = None

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.in_flight += 1
        self.in_flight_most = max(self.in_flight_most, self.in_flight)
        try:
            return await self._answer(request)
        finally:
            self.in_flight -= 1

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        seen = Request(
            request.path, dict(request.query), dict(request.headers), await request.read()
        )
        self.requests.append(seen)
        self.arrived.set()
        if self.before_answer is not None:
            await self.before_answer()
        answer = self.choose(seen) if self.choose is not None else None
        if answer is None:
            answer = self.script.popleft() if self.script else self.default
        if answer == "hang":
            await asyncio.Event().wait()
        if answer == "reset":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if isinstance(answer, int):
            return web.Response(status=answer)
        assert isinstance(answer, web.Response)
        headers = {k: v for k, v in answer.headers.items() if k != "Content-Length"}
        return web.Response(status=answer.status, headers=headers, body=answer.body)

    @property
    def lines(self) -> list[bytes]:
        return [line for request in self.requests for line in request.lines]


@asynccontextmanager
async def serving(target: ScriptedTarget, **site: Any) -> AsyncIterator[ScriptedTarget]:
    # Inflating is the test's own business: what counts is what was on the wire.
    server = web.Server(target.handle, auto_decompress=False)
    runner = web.ServerRunner(server, shutdown_timeout=0.01)
    await runner.setup()
    place = web.TCPSite(runner, "127.0.0.1", 0, **site)
    await place.start()
    port = runner.addresses[0][1]
    target.url = f"{'https' if site.get('ssl_context') else 'http'}://127.0.0.1:{port}"
    try:
        yield target
    finally:
        await runner.cleanup()


@pytest.fixture
async def remote() -> AsyncIterator[ScriptedTarget]:
    """A target that takes everything until told otherwise."""
    async with serving(ScriptedTarget()) as target:
        yield target


@pytest.fixture
async def second_remote() -> AsyncIterator[ScriptedTarget]:
    async with serving(ScriptedTarget()) as target:
        yield target


@pytest.fixture
def exporter() -> ExporterSettings:
    return ExporterSettings(**FAST, retry=FAST_RETRY)


@pytest.fixture
def make_exporter() -> Callable[..., ExporterSettings]:
    """Fast settings with changes."""

    def make(**changes: Any) -> ExporterSettings:
        return ExporterSettings(**{**FAST, "retry": FAST_RETRY, **changes})

    return make


async def until_true(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    # Polls each loop turn: conditions span a server, timers and counters, and have no one event.
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


@pytest.fixture
def until() -> Callable[..., Awaitable[None]]:
    """Wait until a condition holds, at most 30 s."""
    return until_true


@pytest.fixture
def serve() -> Any:
    return serving


@pytest.fixture
def scripted() -> type[ScriptedTarget]:
    return ScriptedTarget


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("s3cret-token-1\n")
    return path


@pytest.fixture(autouse=True)
def _no_proxy_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
