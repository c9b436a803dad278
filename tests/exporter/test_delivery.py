"""Delivery rules against real HTTP servers: bad lines alone, refused credentials, probes, copies, doubles."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tracefwd.exporter import breaker, lane
from tracefwd.exporter.doubled import red_spans
from tracefwd.exporter.target import Target
from tracefwd.exporter.turns import Turns
from tracefwd.ledger import imbalance
from tracefwd.model import Payload, Signal
from tracefwd.settings import ExporterSettings, TargetSettings

Until = Callable[..., Awaitable[None]]
MakeExporter = Callable[..., ExporterSettings]


def span_line(number: int) -> bytes:
    return b'"op" source="a" "n"="%d" 1700000000000 1\n' % number


def spans(*numbers: int) -> Payload:
    return Payload(Signal.SPANS, b"".join(map(span_line, numbers)), len(numbers))


def direct(remote: Any, token_file: Path | str = "", **changes: Any) -> TargetSettings:
    return TargetSettings(kind="direct", url=remote.url, token_file=str(token_file), **changes)


def proxy(remote: Any, **changes: Any) -> TargetSettings:
    return TargetSettings(**{"traces": f"{remote.url}/t", "metrics": f"{remote.url}/m", **changes})


def refuse(*bad: int) -> Callable[[Any], web.Response | None]:
    """The backend's ways with a bad line: it names the first one of the request."""

    def choose(request: Any) -> web.Response | None:
        for number in bad:
            if span_line(number).rstrip() in request.lines:
                return web.Response(status=400, text=f"line {number} is bad")
        return None

    return choose


def check(target: Target) -> None:
    for account in target.accounts.values():
        assert imbalance(account.show()) == 0, account.show()


# Bad lines.


async def test_bad_lines_are_found_and_all_others_arrive_once(
    remote: Any, exporter: ExporterSettings, until: Until
) -> None:
    remote.choose = refuse(17, 18, 201)
    target = Target(direct(remote), exporter)
    await target.start()
    target.offer(spans(*range(256)))
    account = target.accounts[Signal.SPANS]
    await until(lambda: account.held() == 0)
    check(target)
    assert (account.delivered, account.rejected) == (253, {"refused": 3})
    delivered = [
        line
        for request in remote.requests
        if remote.choose(request) is None
        for line in request.lines
    ]
    assert sorted(delivered) == sorted(
        span_line(n).rstrip() for n in range(256) if n not in (17, 18, 201)
    )
    assert len(remote.requests) < 60
    shown = target.problems()
    assert any("refused spans for good: HTTP 400: line 201 is bad (1 lines)" in t for t in shown)
    samples = target.rejected_samples()
    assert {sample["detail"] for sample in samples} == {
        f"HTTP 400: line {n} is bad" for n in (17, 18, 201)
    }
    assert samples[0]["sample"].startswith('"***" source="***" "n"="***"')
    await target.drain(1)


async def test_a_backend_that_refuses_everything_is_not_asked_line_by_line(
    remote: Any, exporter: ExporterSettings, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "SEARCHES_MAX", 20)
    remote.default = web.Response(status=400, text="not with this account")
    target = Target(direct(remote), exporter)
    await target.start()
    account = target.accounts[Signal.SPANS]
    for number in range(5):
        target.offer(spans(*range(500)))
        await until(lambda: account.held() == 0)
        assert account.rejected == {"refused": 500 * (number + 1)}
    # The first search ends with its budget, and no other begins before a batch was delivered.
    assert len(remote.requests) <= 20 * 2 + 1 + 5
    assert any("too many bad lines" in text for text in target.problems())
    check(target)
    remote.default = 202
    target.offer(spans(1))
    await until(lambda: account.delivered == 1)
    remote.choose = refuse(3)
    target.offer(spans(1, 2, 3, 4))
    await until(lambda: account.held() == 0)
    assert account.delivered == 4
    await target.drain(1)


async def test_the_search_does_not_delay_fresh_batches(
    remote: Any, make_exporter: MakeExporter, until: Until
) -> None:
    target = Target(direct(remote), make_exporter(concurrency=4, batch_items_max=512))
    account = target.accounts[Signal.SPANS]
    in_search: list[int] = []

    async def slowly() -> None:
        await asyncio.sleep(0.005)

    remote.before_answer = slowly
    remote.choose = refuse(*range(0, 512, 8))
    await target.start()
    target.offer(spans(*range(512)))
    await until(lambda: len(remote.requests) > 4)
    loop = asyncio.get_running_loop()
    for number in range(1_000, 1_010):
        began = loop.time()
        target.offer(spans(number))
        wanted = span_line(number).rstrip()
        await until(lambda: any(wanted in r.lines for r in remote.requests[-12:]))  # noqa: B023
        in_search.append(account.held())
        assert loop.time() - began < 0.5
    assert in_search[0] > 0  # else nothing was shown
    await until(lambda: account.held() == 0)
    assert account.rejected == {"refused": 64}
    await target.drain(1)


async def test_a_proxys_400_is_no_search_and_its_403_a_disabled_feature(
    remote: Any, exporter: ExporterSettings, until: Until
) -> None:
    remote.script.extend([400, 403])
    target = Target(proxy(remote), exporter)
    await target.start()
    account = target.accounts[Signal.SPANS]
    for count in (1, 2):
        target.offer(spans(1, 2))
        await until(lambda: len(remote.requests) == count and account.held() == 0)  # noqa: B023
    assert account.rejected == {"refused": 2, "feature_disabled": 2}
    await target.drain(1)


# Credentials.


@pytest.mark.parametrize("status", [401, 403])
async def test_refused_credentials_pause_the_destination_and_keep_the_lines(
    remote: Any,
    make_exporter: MakeExporter,
    until: Until,
    token_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    status: int,
) -> None:
    monkeypatch.setattr(breaker, "PAUSE_S", 0.2)

    def guard(request: Any) -> web.Response | None:
        good = request.headers["Authorization"] == "Bearer s3cret-token-2"
        return None if good else web.Response(status=status)

    remote.choose = guard
    target = Target(direct(remote, token_file), make_exporter(batch_items_max=1, concurrency=4))
    await target.start()
    account = target.accounts[Signal.SPANS]
    for number in range(20):
        target.offer(spans(number))
    paused = lambda: target.samples()["tracefwd_exporter_paused"][("primary", "spans")]  # noqa: E731
    await until(lambda: paused() == 1 and remote.in_flight == 0)
    first = len(remote.requests)
    assert first <= 4  # what flew when the first answer came
    await asyncio.sleep(0.5)
    # One probe at a time, 100 to 300 ms apart, however many batches wait.
    assert first < len(remote.requests) <= first + 5
    assert account.held() == 20
    assert not account.dropped
    assert "without valid credentials" in caplog.text
    assert caplog.records[0].levelno == logging.ERROR
    assert "check the token" in target.problems()[0]
    token_file.write_text("s3cret-token-2\n")  # noqa: ASYNC240
    await until(lambda: account.delivered == 20)
    assert paused() == 0
    await target.drain(1)


# Probes.


async def test_a_destination_that_is_down_gets_one_probe_at_a_time(
    remote: Any, make_exporter: MakeExporter, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker, "OUTAGE_S", 0.0)
    monkeypatch.setattr(breaker, "PROBE_S", 0.01)
    remote.default = 503
    target = Target(proxy(remote), make_exporter(batch_items_max=1, concurrency=8))
    await target.start()
    [route] = target._lanes[Signal.SPANS].routes
    for number in range(40):
        target.offer(spans(number))
    # Requests that were under way when it went down have landed.
    await until(lambda: route.breaker.down and remote.in_flight == 0)
    remote.in_flight_most = 0
    seen = len(remote.requests)

    async def slowly() -> None:
        await asyncio.sleep(0.02)

    remote.before_answer = slowly
    await until(lambda: len(remote.requests) >= seen + 6)
    assert remote.in_flight_most == 1
    remote.default = 202
    remote.before_answer = None
    await until(lambda: target.accounts[Signal.SPANS].delivered == 40)
    assert not route.breaker.down
    await target.drain(1)


def test_an_attempt_from_before_does_not_make_way_for_a_second_probe() -> None:
    state = breaker.Breaker()
    for moment in range(breaker.FAILURES_MIN):
        state.failed(moment * 10.0, moment * 10.0, outage=True)
    assert state.launched()
    state.failed(100.0, 39.0, outage=True)  # launched before it was down, lands during the probe
    state.wait(101.0)
    assert state.ready_at > 1e9
    state.probed()
    state.wait(105.0)
    assert state.ready_at == 105.0


# Copies.


async def test_a_tee_that_hangs_costs_the_primary_nothing(
    remote: Any, second_remote: Any, make_exporter: MakeExporter, until: Until
) -> None:
    second_remote.default = "hang"
    small = make_exporter(queue_bytes_max=3_000, batch_bytes_max=1_000, gzip=False)
    shelves: list[str] = []

    def shelf(name: str) -> Any:
        shelves.append(name)
        raise AssertionError("a tee must not ask")

    primary = Target(proxy(remote), make_exporter())
    tee = Target(proxy(second_remote, name="copy", role="tee"), small, shelves=shelf)
    await primary.start()
    await tee.start()
    loop = asyncio.get_running_loop()
    for number in range(200):
        for target in (primary, tee):
            target.offer(spans(*range(number * 10, number * 10 + 10)))
        if number % 10 == 0:
            began = loop.time()
            await until(lambda: primary.accounts[Signal.SPANS].held() == 0)
            assert loop.time() - began < 1.0
    await until(lambda: primary.accounts[Signal.SPANS].delivered == 2_000)
    assert primary.accounts[Signal.SPANS].dropped == {}
    assert tee.accounts[Signal.SPANS].dropped["queue_full"] > 1_000
    assert shelves == []
    check(tee)
    await primary.drain(1)
    await tee.drain(0)


# Doubles.

POINTS = (
    '"∆tracing.derived.a.b.op.invocation.count" 37 1700000000 source="s" "k"="x 5 "\n'
    '"∆tracing.derived.a.b.op.error.count" 2 1700000000 source="s"\n'
    '"∆tracing.derived.a.b.op.total_time.millis.count" 999 1700000000 source="s"\n'
    '"~component.heartbeat" 1 1700000000 source="s"\n'
    '"∆tracing.derived.a.b.other.invocation.count" 5 1700000000 source="s"\n'
).encode()
DISTRIBUTIONS = (
    b'!M 1700000000 #30 1.5 #7 2 "tracing.derived.a.b.op.duration.micros" source="s" "k"="#9 x"\n'
    b'!M 1700000000 #5 8 "tracing.derived.a.b.other.duration.micros" source="s"\n'
)


def test_the_spans_behind_red_lines_are_counted() -> None:
    assert red_spans(Signal.POINTS, POINTS) == 42
    assert red_spans(Signal.DISTRIBUTIONS, DISTRIBUTIONS) == 42
    assert red_spans(Signal.SPANS, POINTS + DISTRIBUTIONS) == 0


@pytest.mark.parametrize("answer", ["reset", "hang", 502, 504])
async def test_what_may_have_arrived_and_is_sent_again_is_counted(
    remote: Any, make_exporter: MakeExporter, until: Until, answer: Any
) -> None:
    for _ in range(6):
        remote.script.append(answer)
    target = Target(proxy(remote), make_exporter(request_timeout=0.1 if answer == "hang" else 2.0))
    await target.start()
    target.offer(spans(1, 2, 3))
    target.offer(Payload(Signal.POINTS, POINTS, 5))
    target.offer(Payload(Signal.DISTRIBUTIONS, DISTRIBUTIONS, 2))
    await until(lambda: sum(a.delivered for a in target.accounts.values()) == 10)
    samples = target.samples()
    resent = samples["tracefwd_exporter_maybe_duplicated_items_total"]
    sizes = {"spans": 3, "points": 5, "distributions": 2}
    times = {}
    for signal, size in sizes.items():
        lines = [r for r in remote.requests if len(r.lines) == size]
        times[signal] = len(lines) - 1  # the last one was answered
        assert resent[("primary", signal)] == size * times[signal]
    assert sum(times.values()) >= 6
    doubled = samples["tracefwd_exporter_red_maybe_doubled_total"]
    assert doubled == {
        ("primary", "points"): 42 * times["points"],
        ("primary", "distributions"): 42 * times["distributions"],
    }
    target.offered_again(Payload(Signal.POINTS, POINTS, 5))
    doubled = target.samples()["tracefwd_exporter_red_maybe_doubled_total"]
    assert doubled[("primary", "points")] == 42 * (times["points"] + 1)
    await target.drain(1)


@pytest.mark.parametrize("answer", [503, 500, 429, 401])
async def test_a_clear_no_doubles_nothing(
    remote: Any, exporter: ExporterSettings, until: Until, answer: int, monkeypatch: Any
) -> None:
    monkeypatch.setattr(breaker, "PAUSE_S", 0.01)
    remote.script.extend([answer, answer])
    target = Target(proxy(remote), exporter)
    await target.start()
    target.offer(spans(1))
    await until(lambda: target.accounts[Signal.SPANS].delivered == 1)
    resent = target.samples()["tracefwd_exporter_maybe_duplicated_items_total"]
    assert set(resent.values()) == {0}
    await target.drain(1)


async def test_no_connection_doubles_nothing(exporter: ExporterSettings, until: Until) -> None:
    server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    url = f"http://127.0.0.1:{port}"
    target = Target(TargetSettings(traces=url, metrics=url), exporter)
    await target.start()
    target.offer(spans(1))
    requests = lambda: target.samples()["tracefwd_exporter_requests_total"]  # noqa: E731
    await until(lambda: requests().get(("primary", "spans", "connect"), 0) >= 3)
    resent = target.samples()["tracefwd_exporter_maybe_duplicated_items_total"]
    assert set(resent.values()) == {0}
    await target.drain(0)


# Turns.


def test_one_request_at_a_time_takes_every_fourth_turn_for_the_old() -> None:
    turns = Turns(1)
    taken = [turns.takes_old(fresh=True, old=True, old_in_flight=0) for _ in range(12)]
    assert sum(taken) == 3
    assert turns.takes_fresh(old_coming=True, fresh_in_flight=0)


def test_what_one_kind_does_not_need_is_the_others() -> None:
    turns = Turns(8)
    assert turns.takes_old(fresh=False, old=True, old_in_flight=7)
    assert not turns.takes_old(fresh=True, old=False, old_in_flight=0)
    assert turns.takes_fresh(old_coming=False, fresh_in_flight=7)
    assert not turns.takes_fresh(old_coming=True, fresh_in_flight=6)
