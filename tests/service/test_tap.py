"""``tracefwd tap``: what matches comes, what does not is told, and no span says anything to the terminal."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.service.watched import HOSTILE, TURNED, post, span, until, watched
from tracefwd.errors import StartError
from tracefwd.service import admin_client, cli
from tracefwd.service.admin_client import Reach
from tracefwd.service.tap import TapOptions, follow, line_of

EVERYTHING = TapOptions("", error=False, min_duration_ms=0, rate=100, seconds=None, json=False)
ROW: dict[str, Any] = {
    "at": 1_700_000_000.25,
    "trace": "ab" * 16,
    "application": "default",
    "service": "shop",
    "operation": "get",
    "kind": "client",
    "duration_ms": 1.5,
    "status": "200",
    "error": False,
    "slow": False,
    "fate": "kept",
}


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def test_a_line_says_what_a_person_asks() -> None:
    tags = {"http.method": "GET", "response_flags": "-", "secret": "x"}
    line = line_of({**ROW, "error": True, "slow": True, "fate": "sampled_out"}, tags)
    assert line == (
        "22:13:20.250  default/shop  client  get  1.5 ms  200  ERROR  slow  sampled out  "
        f"http.method=GET  trace={'ab' * 16}"
    )


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_of_a_span_reaches_the_terminal_as_more_than_text(text: str) -> None:
    names = ("application", "service", "operation", "status", "trace")
    line = line_of({**ROW, **dict.fromkeys(names, text)}, {"http.url": text})
    assert line.isprintable()
    assert "\u202e" not in line
    assert len(line) < 700


async def test_both_forms_come_from_a_running_service(http: aiohttp.ClientSession) -> None:
    async with watched() as service:
        shown: list[str] = []
        told: list[str] = []
        as_json: list[str] = []
        where = Reach(service.admin_url)
        options = {"service": "", "error": False, "min_duration_ms": 0.0, "seconds": None}
        taps = [
            asyncio.create_task(follow(where, EVERYTHING, shown.append, told.append)),
            asyncio.create_task(
                follow(
                    where,
                    TapOptions(**options, rate=1.0, json=True),  # type: ignore[arg-type]
                    as_json.append,
                    told.append,
                )
            ),
        ]
        await until(lambda: service.views.streams.taps == 2)
        await asyncio.sleep(0.3)  # the wish is on its way to the worker, who does not answer it
        await post(http, service, [span(n, text) for n, text in enumerate(HOSTILE, 1)])
        await until(lambda: len(shown) == 4 and len(as_json) == 2)
        for tap in taps:
            tap.cancel()
            with suppress(asyncio.CancelledError):
                await tap
    assert all(line.isprintable() for line in shown)
    assert "\\x1b[31m" in "".join(shown)
    assert "\\u202e" in "".join(shown)
    first, missed = map(json.loads, as_json)
    assert first["type"] == "span"
    assert missed == {"type": "missed", "unexamined": 0, "over_rate": 3, "slow": 0}
    assert all(line.isascii() and line.isprintable() for line in as_json)


async def test_it_comes_again_when_the_connection_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin_client, "AGAIN_S", 0.01)
    connections = 0

    async def tap(request: web.Request) -> web.StreamResponse:
        nonlocal connections
        connections += 1
        answer = web.StreamResponse()
        await answer.prepare(request)
        line = json.dumps({"type": "span", "span": {**ROW, "operation": TURNED}, "tags": {}})
        await answer.write(line.encode() + b"\n\n")
        assert request.transport is not None
        request.transport.close()
        return answer

    application = web.Application()
    application.router.add_get("/api/v1/tap", tap)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        url = "http://{}:{}".format(*runner.addresses[0])
        shown: list[str] = []
        told: list[str] = []
        task = asyncio.create_task(follow(Reach(url), EVERYTHING, shown.append, told.append))
        await until(lambda: len(shown) >= 2)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    finally:
        await runner.cleanup()
    assert connections >= 2
    assert told[0].endswith("; trying again")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (
            "http://127.0.0.1:1",
            r"^http://127\.0\.0\.1:1: no connection \(Connection refused\); is tracefwd running",
        ),
        ("http://nosuch.invalid:1", "its name does not resolve; see --admin"),
        ("http://\x1b[2J", "no URL of an admin port"),
    ],
)
async def test_nothing_to_tap_is_said(url: str, words: str) -> None:
    with pytest.raises(StartError, match=words):
        await follow(Reach(url), EVERYTHING, print, print)


async def test_a_port_that_hangs_up_may_want_tls() -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(StartError, match="if it speaks TLS, write --admin https://"):
            await follow(Reach(f"http://127.0.0.1:{port}"), EVERYTHING, print, print)


@pytest.mark.parametrize(
    "url", ["ftp://h", "http://[::1", "", "http://h:99999", "http://http://h:1"]
)
@pytest.mark.parametrize("command", ["tap", "top", "report"])
def test_what_is_no_url_is_told_before_anything_is_asked(
    command: str, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([command, "--admin", url]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"tracefwd: --admin {url!r}: ")
    assert "http://HOST:9412" in said.err


@pytest.mark.parametrize("flag", ["--ca-file", "--cert-file"])
@pytest.mark.parametrize("command", ["tap", "top"])
def test_what_is_for_https_is_not_passed_over_in_silence(
    command: str, flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([command, "--admin", "127.0.0.1:1", flag, "nope"]) != 0
    assert "write --admin https://" in capsys.readouterr().err


def test_the_command_is_refused_by_a_guarded_port_in_words() -> None:
    """As a process: exit code 1 and what to do."""

    async def run() -> subprocess.CompletedProcess[str]:
        async with watched(**{"--admin": "0.0.0.0:0"}) as service:
            command = [sys.executable, "-m", "tracefwd", "tap", "--admin", service.admin_url]
            return await asyncio.to_thread(
                subprocess.run,
                [*command, "--seconds", "5"],
                capture_output=True,
                text=True,
                check=False,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )

    done = asyncio.run(run())
    assert done.returncode == 1
    assert "403" in done.stderr
    assert "admin.token_file" in done.stderr
