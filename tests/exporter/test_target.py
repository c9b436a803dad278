"""A whole target against real sockets: where each signal goes, and what becomes of it."""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tracefwd.errors import StartError
from tracefwd.exporter import auth, breaker
from tracefwd.exporter.target import Target
from tracefwd.ledger import imbalance
from tracefwd.metrics import BY_NAME
from tracefwd.model import Payload, Signal
from tracefwd.settings import ExporterSettings, RetrySettings, TargetSettings

Until = Callable[..., Awaitable[None]]
MakeExporter = Callable[..., ExporterSettings]
LINES = {
    Signal.SPANS: b'"op" source="a" 1700000000000 1\n',
    Signal.SPAN_LOGS: b'{"traceId":"a","logs":[]}\n',
    Signal.POINTS: '"∆n" 1 1700000000 source="a"\n'.encode(),
    Signal.DISTRIBUTIONS: b'!M 1700000000 #1 2 "n" source="a"\n',
}


def offer_all(target: Target, times: int = 1) -> None:
    for signal, line in LINES.items():
        target.offer(Payload(signal, line * times, times))


def proxy(remote: Any, **changes: Any) -> TargetSettings:
    return TargetSettings(**{"traces": f"{remote.url}/t", "metrics": f"{remote.url}/m", **changes})


def check(target: Target) -> None:
    for account in target.accounts.values():
        assert imbalance(account.show()) == 0, account.show()
    for accounts in target.failover_accounts().values():
        for account in accounts.values():
            assert imbalance(account.show()) == 0, account.show()


def total(target: Target, what: str) -> int:
    return sum(getattr(account, what) for account in target.accounts.values())


async def test_a_proxy_gets_traces_and_metrics_at_their_own_urls(
    remote: Any, exporter: ExporterSettings
) -> None:
    target = Target(proxy(remote), exporter)
    await target.start()
    offer_all(target, 20)
    await target.drain(5)
    assert (target.name, target.role) == ("primary", "primary")
    by_path: dict[str, set[bytes]] = {"/t": set(), "/m": set()}
    for request in remote.requests:
        assert request.query == {}
        assert request.headers["Content-Encoding"] == "gzip"
        by_path[request.path].add(request.body)
    assert by_path == {
        "/t": {LINES[Signal.SPANS] * 20, LINES[Signal.SPAN_LOGS] * 20},
        "/m": {LINES[Signal.POINTS] * 20, LINES[Signal.DISTRIBUTIONS] * 20},
    }
    assert {signal: account.delivered for signal, account in target.accounts.items()} == (
        dict.fromkeys(Signal, 20)
    )
    assert target.problems() == []
    check(target)


async def test_direct_ingestion_gets_a_format_for_each_signal(
    remote: Any, exporter: ExporterSettings, token_file: Path
) -> None:
    direct = TargetSettings(kind="direct", url=remote.url + "//", token_file=str(token_file))
    target = Target(direct, exporter)
    await target.start()
    offer_all(target)
    await target.drain(5)
    assert {request.path for request in remote.requests} == {"/report"}
    assert {request.query["f"]: request.body for request in remote.requests} == {
        "trace": LINES[Signal.SPANS],
        "spanLogs": LINES[Signal.SPAN_LOGS],
        "wavefront": LINES[Signal.POINTS],
        "histogram": LINES[Signal.DISTRIBUTIONS],
    }
    assert {request.headers["Authorization"] for request in remote.requests} == {
        "Bearer s3cret-token-1"
    }


async def test_tcp_lines_are_delivered_and_unacknowledged(exporter: ExporterSettings) -> None:
    received = b""

    async def read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal received
        while data := await reader.read(65536):
            received += data
        writer.close()

    server = await asyncio.start_server(read, "127.0.0.1", 0)
    url = f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        target = Target(TargetSettings(traces=url, metrics=url), exporter)
        await target.start()
        offer_all(target, 3)
        await target.drain(5)
    assert sorted(received.splitlines()) == sorted(
        line.rstrip(b"\n") for line in LINES.values() for _ in range(3)
    )
    assert total(target, "delivered") == 12
    samples = target.samples()
    assert sum(samples["tracefwd_exporter_unacknowledged_items_total"].values()) == 12
    assert sum(samples["tracefwd_exporter_sent_items_total"].values()) == 0


async def test_signals_without_a_url_are_blocked_even_if_a_failover_would_take_them(
    remote: Any, second_remote: Any, exporter: ExporterSettings
) -> None:
    target = Target(proxy(remote, metrics=""), exporter, failovers=[proxy(second_remote, name="b")])
    await target.start()
    offer_all(target)
    await target.drain(5)
    assert target.accounts[Signal.POINTS].blocked == 1
    assert target.accounts[Signal.SPANS].delivered == 1
    assert second_remote.requests == []
    check(target)


async def test_a_target_that_is_away_stops_nothing_and_is_a_problem_in_words(
    make_exporter: MakeExporter, until: Until
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://user:pa55@127.0.0.1:{port}/lines?key=s3cret"
    target = Target(TargetSettings(name="east", traces=url, metrics=url), make_exporter())
    await target.start()
    offer_all(target)
    await until(lambda: len(target.problems()) == 1 and "distributions" in target.problems()[0])
    [problem] = target.problems()
    assert problem.startswith(
        f"east (http://127.0.0.1:{port}/lines) does not take spans, span_logs, points, "
        "distributions: no connection; is it up, is the address right?"
    )
    assert sum(account.held() for account in target.accounts.values()) == 4
    await target.drain(0.01)
    assert {reason for account in target.accounts.values() for reason in account.dropped} == {
        "drain_budget"
    }
    check(target)


async def test_a_rotated_token_takes_effect_and_no_token_is_ever_shown(
    remote: Any,
    exporter: ExporterSettings,
    token_file: Path,
    until: Until,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(breaker, "PAUSE_S", 0.02)

    def guard(request: Any) -> web.Response | None:
        sent = request.headers.get("Authorization", "")
        if sent == "Bearer s3cret-token-2":
            return None
        return web.Response(status=403, text=f"not allowed: {sent}")

    remote.choose = guard
    direct = TargetSettings(kind="direct", url=remote.url, token_file=str(token_file))
    target = Target(direct, exporter)
    await target.start()
    offer_all(target)
    await until(lambda: len(remote.requests) >= 12)
    problems = target.problems()
    assert "check the token in" in problems[0]
    assert any(
        "attempts without valid credentials" in record.getMessage()
        for record in caplog.records
        if record.levelno == logging.ERROR
    )
    token_file.write_text("s3cret-token-2\n")  # noqa: ASYNC240
    await until(lambda: total(target, "delivered") == 4)
    assert target.problems() == []
    samples = target.samples()
    await target.drain(1)
    shown = f"{problems} {samples} {target!r} {vars(target)} {caplog.text}"
    assert "s3cret" not in shown


async def test_a_csp_token_is_fetched_once_for_all_lanes(
    remote: Any, second_remote: Any, exporter: ExporterSettings, token_file: Path
) -> None:
    second_remote.default = web.json_response({"access_token": "acc355", "expires_in": 1800})
    direct = TargetSettings(
        kind="direct",
        url=remote.url,
        csp_base=second_remote.url,
        csp_token_file=str(token_file),
    )
    target = Target(direct, exporter)
    await target.start()
    offer_all(target)
    await target.drain(5)
    assert total(target, "delivered") == 4
    assert len(second_remote.requests) == 1
    assert {r.headers["Authorization"] for r in remote.requests} == {"Bearer acc355"}


async def test_a_csp_that_fails_keeps_the_lines(
    remote: Any,
    second_remote: Any,
    exporter: ExporterSettings,
    token_file: Path,
    until: Until,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(auth, "EXCHANGE_PAUSE_S", 0.01)
    second_remote.default = 500
    direct = TargetSettings(
        kind="direct",
        url=remote.url,
        csp_base=second_remote.url,
        csp_token_file=str(token_file),
    )
    target = Target(direct, exporter)
    await target.start()
    offer_all(target)
    await until(lambda: any("HTTP 500" in problem for problem in target.problems()))
    assert remote.requests == []
    second_remote.default = web.json_response({"access_token": "acc355", "expires_in": 1800})
    await until(lambda: total(target, "delivered") == 4)
    await target.drain(1)


async def test_a_refused_batch_is_shown_but_does_not_repeat(
    remote: Any, exporter: ExporterSettings, until: Until
) -> None:
    remote.default = web.Response(status=400, text="I do not like these lines")
    target = Target(proxy(remote), exporter)
    await target.start()
    offer_all(target, 3)
    await until(lambda: sum(a.held() for a in target.accounts.values()) == 0)
    assert len(remote.requests) == 4
    assert target.accounts[Signal.SPANS].rejected == {"refused": 3}
    shown = f"primary ({remote.url}/t) refused spans for good: HTTP 400: I do not like these lines"
    assert f"{shown} (3 lines)" in target.problems()
    await target.drain(1)


async def test_failovers_keep_balanced_accounts_of_their_own(
    remote: Any,
    second_remote: Any,
    exporter: ExporterSettings,
    until: Until,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(breaker, "OUTAGE_S", 0.0)
    remote.default = "reset"
    target = Target(proxy(remote), exporter, failovers=[proxy(second_remote, name="backup")])
    await target.start()
    for _ in range(8):
        offer_all(target)
        check(target)
    await until(lambda: total(target, "delivered") == 32)
    backup = target.failover_accounts()["backup"]
    assert {signal: account.delivered for signal, account in backup.items()} == (
        dict.fromkeys(Signal, 8)
    )
    samples = target.samples()["tracefwd_exporter_sent_items_total"]
    assert samples[("backup", "spans")] == 8
    assert samples[("primary", "spans")] == 0
    # One line: all four lanes have the same trouble at the two URLs of one destination.
    assert all(problem.startswith("primary (") for problem in target.problems())
    await target.drain(5)
    check(target)


async def test_a_start_that_fails_leaves_nothing_open(
    remote: Any, exporter: ExporterSettings, tmp_path: Path
) -> None:
    failing = proxy(remote, name="backup", ca_file=str(tmp_path / "none"))
    target = Target(proxy(remote), exporter, failovers=[failing])
    with pytest.raises(StartError, match="target backup"):
        await target.start()  # an open session would be a ResourceWarning, and that an error


async def test_samples_are_in_the_catalogue(remote: Any, exporter: ExporterSettings) -> None:
    target = Target(proxy(remote), exporter)
    await target.start()
    offer_all(target)
    held = target.samples()
    assert held["tracefwd_exporter_queue_items"][("primary", "spans")] == 1
    assert held["tracefwd_exporter_queue_bytes_max"][("primary", "spans")] == 64 * 2**20
    await target.drain(5)
    for name, series in target.samples().items():
        assert all(len(labels) == len(BY_NAME[name].labels) for labels in series), name
    sent = target.samples()["tracefwd_exporter_sent_items_total"]
    assert set(sent) == {("primary", str(signal)) for signal in Signal}


LOOPS = [pytest.param(None, id="asyncio")]
with suppress(ImportError):  # no wheel on this platform
    import uvloop

    LOOPS.append(pytest.param(uvloop.new_event_loop, id="uvloop"))

BEHAVIOURS = st.sampled_from(
    [200, 202, 204, 301, 400, 401, 403, 404, 406, 413, 429, 500, 503, "reset", "hang"]
)


@pytest.mark.parametrize("loop_factory", LOOPS)
@given(script=st.lists(BEHAVIOURS, max_size=12), batches=st.integers(1, 12), kind=st.booleans())
@settings(
    deadline=None,
    max_examples=15,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_whatever_a_server_does_every_line_is_accounted_for(
    loop_factory: Any, scripted: Any, serve: Any, script: list[Any], batches: int, kind: bool
) -> None:
    async def run() -> None:
        async with serve(scripted()) as remote:
            remote.script.extend(script)
            settings = proxy(remote) if kind else TargetSettings(kind="direct", url=remote.url)
            exporter = ExporterSettings(
                batch_items_max=4,
                batch_age_max=0.001,
                concurrency=2,
                request_timeout=0.1,
                retry=RetrySettings(backoff_base=0.001, backoff_max=0.005),
            )
            target = Target(settings, exporter)

            async def look() -> None:
                check(target)

            remote.before_answer = look
            await target.start()
            for _ in range(batches):
                target.offer(Payload(Signal.SPANS, LINES[Signal.SPANS] * 3, 3))
                check(target)
                await asyncio.sleep(0)
            # Longer than all scripted failures together, so that the rest is delivered.
            await target.drain(10)
            check(target)
            account = target.accounts[Signal.SPANS]
            assert account.received == batches * 3
            assert account.dropped == {}
            assert account.delivered + sum(account.rejected.values()) == batches * 3

    logging.disable(logging.CRITICAL)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(breaker, "OUTAGE_S", 60.0)
            with asyncio.Runner(loop_factory=loop_factory) as runner:
                runner.run(run())
    finally:
        logging.disable(logging.NOTSET)
