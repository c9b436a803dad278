"""What the doctor says of targets: healthy ones, and every cross by a real fault on loopback."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.exporter.test_otlp_senders import Receiver, failing
from tests.service.answering import (
    accepting,
    answering,
    crosses,
    found,
    loaded,
    no_proxies,
    of,
    proxy,
)
from tests.service.exporters import Authority
from tracefwd.emulator.server import Emulator, EmulatorSettings
from tracefwd.service.doctor_findings import Mark

SECRET = "s3cret-t0ken-of-nobody-1"


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    no_proxies(monkeypatch)


@asynccontextmanager
async def stand_in(**settings: Any) -> AsyncIterator[Emulator]:
    emulator = Emulator(
        EmulatorSettings(listen="127.0.0.1:0", trace_listen="127.0.0.1:0", **settings)
    )
    await emulator.start()
    try:
        yield emulator
    finally:
        await emulator.stop()


@pytest.fixture
def token(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text(SECRET)
    return file


def direct(url: str, token: Path, **more: Any) -> dict[str, Any]:
    return {"kind": "direct", "url": url, "token_file": str(token), **more}


@asynccontextmanager
async def silence() -> AsyncIterator[str]:
    """Somebody who takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


# --- proxies ---------------------------------------------------------------------------------


async def test_a_healthy_proxy_has_no_cross_and_has_taken_what_is_marked_as_a_test() -> None:
    async with stand_in() as emulator:
        assert emulator.trace_url is not None
        findings = await found(loaded(proxy(emulator.trace_url, emulator.url)))
        totals = emulator.totals()
    assert crosses(findings) == []
    for check in ("spans", "span logs", "points", "distributions"):
        assert of(findings, check).mark is Mark.OK
        assert "acknowledged" in of(findings, check).detail
    signals = ("spans", "span_logs", "points", "distributions")
    assert [totals[name]["accepted"] for name in signals] == [1, 1, 2, 1]
    assert not any(totals[name]["rejected"] or totals[name]["warnings"] for name in signals)
    # Application and service of RED are the doctor's, one call that took a millisecond.
    assert totals["deltas"]["red"] == {
        "invocation.count": 1.0,
        "error.count": 0.0,
        "total_time.millis.count": 1.0,
    }


async def test_the_test_lines_bear_the_doctors_name() -> None:
    bodies: list[bytes] = []

    def say(_: web.BaseRequest, body: bytes) -> web.Response:
        bodies.append(body)
        return web.Response(status=202)

    async with answering(say) as url:
        await found(loaded(proxy(url), exporter__gzip=False))
    lines = [line for body in bodies for line in body.decode().splitlines()]
    assert len(lines) == 5
    for line in lines:
        if not line.startswith("{"):
            assert '"application"="tracefwd-doctor" "service"="tracefwd-doctor"' in line
            assert 'source="tracefwd-doctor"' in line
    assert any('"debug"="true"' in line for line in lines)


async def test_without_sending_only_empty_requests_go_out() -> None:
    async with stand_in() as emulator:
        assert emulator.trace_url is not None
        targets = loaded(proxy(emulator.trace_url, emulator.url))
        findings = await found(targets, sends=False)
        totals = emulator.totals()
    assert crosses(findings) == []
    assert "--no-send" in of(findings, "spans").detail
    assert (totals["requests"]["total"], totals["requests"]["body_bytes"]) == (7, 0)


async def test_a_closed_trace_port_is_a_cross_that_names_the_proxys_option() -> None:
    port = closed_port()
    async with stand_in() as emulator:
        targets = loaded(proxy(f"http://127.0.0.1:{port}", emulator.url))
        findings = await found(targets)
    check = f"port 127.0.0.1:{port}"
    assert crosses(findings) == [check]
    cross = of(findings, check)
    assert "connection refused" in cross.detail
    assert "traceListenerPorts=30000" in cross.advice
    # What lies behind it is not asked, and the other port is.
    assert of(findings, "spans").mark is Mark.SKIPPED
    assert of(findings, "points").mark is Mark.OK


async def test_an_unresolvable_name_is_a_cross() -> None:
    # Longer than any name may be: no name server is asked.
    host = ".".join(["x" * 60] * 5)
    findings = await found(loaded(proxy(f"http://{host}:30000")))
    assert crosses(findings) == [f"dns {host}"]
    assert "svc.cluster.local" in of(findings, "dns").advice


async def test_a_proxy_that_refuses_delta_counters_is_a_cross_that_names_the_port() -> None:
    async with stand_in() as emulator:
        assert emulator.trace_url is not None
        emulator._board.add(b'{"status": 400, "port": "metrics", "signal": "points"}', 0.0)
        findings = await found(loaded(proxy(emulator.trace_url, emulator.url)))
    assert crosses(findings) == ["points"]
    cross = of(findings, "points")
    assert "∆" in cross.detail
    assert "HTTP 400" in cross.detail
    assert "pushListenerPorts, 2878" in cross.advice


async def test_an_account_without_histograms_is_a_cross_that_says_so() -> None:
    async with stand_in() as emulator:
        assert emulator.trace_url is not None
        emulator._board.add(b'{"status": 403, "port": "metrics", "signal": "distributions"}', 0.0)
        findings = await found(loaded(proxy(emulator.trace_url, emulator.url)))
    assert crosses(findings) == ["distributions", "account distributions"]
    assert "have histograms enabled for the account" in of(findings, "distributions").advice


async def test_an_account_without_tracing_is_a_cross_although_the_trace_port_says_yes() -> None:
    def say(request: web.BaseRequest, _: bytes) -> web.Response:
        # As the proxy does: it tells to who names the format.
        if request.query.get("f") in ("trace", "spanLogs"):
            text = "tracing feature has not been enabled for your account"
            return web.Response(status=403, text=text)
        return web.Response(status=202)

    async with answering(accepting) as traces, answering(say) as metrics:
        findings = await found(loaded(proxy(traces, metrics)))
    assert of(findings, "spans").mark is Mark.OK
    assert crosses(findings) == ["account spans", "account span logs"]
    assert "has not been enabled" in of(findings, "account spans").detail
    assert "have distributed tracing enabled" in of(findings, "account spans").advice


async def test_a_metrics_port_over_tcp_cannot_tell_of_the_account() -> None:
    async with stand_in() as emulator:
        assert emulator.trace_url is not None
        metrics = emulator.url.replace("http://", "tcp://")
        findings = await found(loaded(proxy(emulator.trace_url, metrics)))
    assert of(findings, "account").mark is Mark.SKIPPED
    assert crosses(findings) == []


async def test_lines_over_tcp_are_a_warning_because_nobody_acknowledges_them() -> None:
    async with stand_in() as emulator:
        assert emulator.trace_url is not None
        traces = emulator.trace_url.replace("http://", "tcp://")
        findings = await found(loaded(proxy(traces, emulator.url)))
    assert crosses(findings) == []
    assert of(findings, "spans").mark is Mark.WARNING
    assert "http://" in of(findings, "spans").advice


async def test_an_old_proxy_gets_no_span_log() -> None:
    async with answering(accepting) as url:
        findings = await found(loaded(proxy(url), exporter__proxy_version="4.35"))
    assert of(findings, "span logs").mark is Mark.SKIPPED
    assert "4.35" in of(findings, "span logs").detail


async def test_a_target_that_takes_connections_and_is_silent_ends_within_the_time_out() -> None:
    began = time.monotonic()
    async with silence() as url:
        findings = await found(loaded(proxy(url)), timeout_s=0.2)
    assert time.monotonic() - began < 2.0
    assert crosses(findings) == ["spans", "span logs", "points", "distributions"]
    assert "says nothing" in of(findings, "spans").advice


@pytest.mark.parametrize(
    ("traces", "metrics", "words"),
    [
        ("http://127.0.0.1:30001", "http://127.0.0.1:2878", "counts twice"),
        ("http://127.0.0.1:2878", "http://127.0.0.1:2878", "traceListenerPorts (30000)"),
        ("http://127.0.0.1:9411", "http://127.0.0.1:2878", "traceListenerPorts (30000)"),
        ("http://127.0.0.1:30000", "http://127.0.0.1:40000", "pushListenerPorts (2878)"),
    ],
)
def test_ports_that_mean_something_else_are_warnings(traces: str, metrics: str, words: str) -> None:
    from tracefwd.service.doctor_advice import oddities

    settings = loaded(proxy(traces, metrics)).settings
    ((_, advice),) = oddities(settings.exporter.targets[0], settings)
    assert words in advice


async def test_what_run_would_not_send_is_not_tried() -> None:
    async with answering(accepting) as url:
        findings = await found(loaded(proxy(url), red__enabled=False))
        assert of(findings, "points").mark is of(findings, "distributions").mark is Mark.SKIPPED
        source = {"url": "http://127.0.0.1:1/federate"}
        only = {"service__only": "metrics", "prometheus_sources": [source]}
        findings = await found(loaded(proxy(url), **only))
        assert of(findings, "spans").mark is Mark.SKIPPED
        assert of(findings, "points").mark is Mark.OK
        unscraped = {**only, "service__only": "spans", "red__enabled": False}
        findings = await found(loaded(proxy(url), **unscraped))
        assert of(findings, "points").mark is Mark.SKIPPED


# --- direct ingestion ------------------------------------------------------------------------


async def test_an_accepted_token_is_a_tick_and_is_never_shown(token: Path) -> None:
    async with stand_in(token=SECRET) as emulator:
        findings = await found(loaded(direct(emulator.url, token)))
        assert emulator.totals()["spans"]["accepted"] == 1
    assert crosses(findings) == []
    assert of(findings, "token").mark is Mark.OK
    assert of(findings, "clock").mark is Mark.OK
    assert not [each for each in findings if SECRET in repr(each)]


@pytest.mark.parametrize(
    ("status", "words"), [(401, "put a valid token into"), (403, "Direct Data Ingestion")]
)
async def test_a_refused_token_is_a_cross_and_is_never_shown(
    token: Path, status: int, words: str
) -> None:
    def say(request: web.BaseRequest, _: bytes) -> web.Response:
        # Some gateways repeat the header.
        return web.Response(status=status, text=f"no: {request.headers['Authorization']}")

    async with answering(say) as url:
        findings = await found(loaded(direct(url, token)))
    cross = of(findings, "token")
    assert cross.mark is Mark.CROSS
    assert f"HTTP {status}" in cross.detail
    assert words in cross.advice
    assert not [each for each in findings if SECRET in repr(each)]


async def test_a_token_file_that_has_vanished_is_a_cross(token: Path) -> None:
    token.unlink()  # noqa: ASYNC240
    async with stand_in(token=SECRET) as emulator:
        findings = await found(loaded(direct(emulator.url, token)))
    assert {"files", "token"} <= set(crosses(findings))
    assert str(token) in of(findings, "token").detail


@pytest.mark.parametrize("ahead_s", [-3600, 90])
async def test_a_wrong_clock_is_a_cross(token: Path, ahead_s: int) -> None:
    def say(_: web.BaseRequest, __: bytes) -> web.Response:
        date = formatdate(time.time() + ahead_s, usegmt=True)
        return web.Response(status=202, headers={"Date": date})

    async with answering(say) as url:
        findings = await found(loaded(direct(url, token)))
    assert crosses(findings) == ["clock"]
    side = "behind" if ahead_s > 0 else "ahead of"
    assert f"ours is {abs(ahead_s):,} s {side} theirs" in of(findings, "clock").detail
    assert "chrony" in of(findings, "clock").advice


# --- TLS -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def context(authority: Authority, name: str, **options: Any) -> Any:
    import ssl

    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    made.load_cert_chain(*authority.issue(name, **options))
    return made


async def tls_finding(tls: Any, token: Path, **target: Any) -> Any:
    async with answering(accepting, tls) as url:
        findings = await found(loaded(direct(url, token, **target)))
    assert (of(findings, "token").mark is Mark.OK) == (of(findings, "tls").mark is not Mark.CROSS)
    return of(findings, "tls")


async def test_a_good_certificate_tells_its_days(authority: Authority, token: Path) -> None:
    tls = context(authority, "good", days=90)
    tick = await tls_finding(tls, token, ca_file=str(authority.ca_file))
    assert tick.mark is Mark.OK
    assert "ends in 90 days" in tick.detail


async def test_a_certificate_that_ends_soon_is_a_warning(authority: Authority, token: Path) -> None:
    warning = await tls_finding(context(authority, "soon"), token, ca_file=str(authority.ca_file))
    assert warning.mark is Mark.WARNING
    assert "renewed" in warning.advice


@pytest.mark.parametrize(
    ("name", "options", "trusted", "detail", "advice"),
    [
        ("expired", {"days": -1}, True, "has expired", "renew it"),
        ("stranger", {}, False, "does not know who signed", "name its file in ca_file"),
        ("other", {"alternatives": ("DNS:other.test",)}, True, "not for 127.0.0.1", "a name"),
    ],
)
async def test_a_bad_certificate_is_a_cross(
    authority: Authority,
    token: Path,
    name: str,
    options: dict[str, Any],
    trusted: bool,
    detail: str,
    advice: str,
) -> None:
    target = {"ca_file": str(authority.ca_file)} if trusted else {}
    cross = await tls_finding(context(authority, name, **options), token, **target)
    assert cross.mark is Mark.CROSS
    assert detail in cross.detail
    assert advice in cross.advice


async def test_a_self_signed_certificate_is_a_cross_that_says_where_to_put_it(
    authority: Authority, token: Path
) -> None:
    import ssl

    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(authority.ca_file, authority.ca_file.with_suffix(".key"))
    cross = await tls_finding(tls, token)
    assert "self-signed" in cross.detail
    assert "ca_file" in cross.advice


async def test_a_ca_file_that_holds_no_certificate_is_a_cross(tmp_path: Path, token: Path) -> None:
    junk = tmp_path / "ca.pem"
    junk.write_text("no certificate\n")
    findings = await found(loaded(direct("https://127.0.0.1:1", token, ca_file=str(junk))))
    assert crosses(findings) == ["tls"]
    assert str(junk) in of(findings, "tls").detail
    assert "readable PEM file" in of(findings, "tls").advice


async def test_plain_http_where_https_is_expected_is_a_cross(token: Path) -> None:
    async with answering(accepting) as url:
        findings = await found(loaded(direct(url.replace("http:", "https:"), token)))
    assert crosses(findings) == [url.replace("http://", "tls ")]
    assert "For plain text write http://" in of(findings, "tls").advice


async def test_a_certificate_that_nobody_verifies_is_a_warning(
    authority: Authority, token: Path
) -> None:
    warning = await tls_finding(context(authority, "any", days=90), token, tls_verify=False)
    assert warning.mark is Mark.WARNING
    assert "nobody verifies it" in warning.detail


async def test_a_target_that_wants_our_certificate_is_a_cross_until_it_gets_one(
    authority: Authority, token: Path
) -> None:
    tls = authority.server_context("mutual", client_certs=True)
    target = {"ca_file": str(authority.ca_file)}
    async with answering(accepting, tls) as url:
        findings = await found(loaded(direct(url, token, **target)))
        assert "token" in crosses(findings)
        assert "cert_file, key_file" in of(findings, "token").advice
        cert, key = authority.issue("client")
        ours = {"cert_file": str(cert), "key_file": str(key)}
        findings = await found(loaded(direct(url, token, **target, **ours)))
    assert crosses(findings) == []


async def test_an_http_proxy_is_what_is_looked_at_where_there_is_one(token: Path) -> None:
    port = closed_port()
    target = direct("https://x.test", token, http_proxy=f"http://127.0.0.1:{port}")
    findings = await found(loaded(target))
    assert crosses(findings) == [f"port 127.0.0.1:{port}"]
    assert "(the HTTP proxy's)" in of(findings, "port").detail
    assert "http_proxy" in of(findings, "port").advice


# --- OTLP ------------------------------------------------------------------------------------


async def test_otlp_over_http_takes_an_empty_export_and_a_test_span(token: Path) -> None:
    sizes: list[tuple[str, bool]] = []

    def say(request: web.BaseRequest, body: bytes) -> web.Response:
        sizes.append((request.path, bool(body)))
        return web.Response(status=200)

    async with answering(say) as url:
        target = {"kind": "otlp", "url": url, "token_file": str(token)}
        findings = await found(loaded(target))
    assert crosses(findings) == []
    assert sizes[0] == ("/v1/traces", False)
    assert sorted(sizes[1:]) == [("/v1/metrics", True)] * 2 + [("/v1/traces", True)]
    # They travel inside their spans.
    assert not [each for each in findings if each.check == "span logs"]


async def test_otlp_partial_success_is_a_cross() -> None:
    from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

    refusal = trace_service_pb2.ExportTraceServiceResponse()
    refusal.partial_success.rejected_spans = 1
    refusal.partial_success.error_message = "no room"

    def say(request: web.BaseRequest, _: bytes) -> web.Response:
        is_traces = request.path == "/v1/traces"
        return web.Response(body=refusal.SerializeToString() if is_traces else b"")

    async with answering(say) as url:
        findings = await found(loaded({"kind": "otlp", "url": url}))
    assert crosses(findings) == ["spans"]
    assert "no room" in of(findings, "spans").detail


async def test_otlp_over_grpc_tells_a_tick_from_a_refused_token(token: Path) -> None:
    import grpc

    receiver = Receiver()
    async with receiver as url:
        target = {"kind": "otlp", "protocol": "grpc", "url": url, "token_file": str(token)}
        assert crosses(await found(loaded(target))) == []
        receiver.script += [failing(grpc.StatusCode.UNAUTHENTICATED, SECRET)] * 4
        findings = await found(loaded(target))
    assert crosses(findings) == ["token", "spans", "points", "distributions"]
    assert "put a valid token into" in of(findings, "token").advice
    assert not [each for each in findings if SECRET in repr(each)]


async def test_all_targets_are_asked_at_once() -> None:
    count = 12
    came, all_there = 0, asyncio.Event()

    async def meet(_: web.BaseRequest, __: bytes) -> web.Response:
        # No first question is answered before everybody has asked one.
        nonlocal came
        came += 1
        if came == count:
            all_there.set()
        await all_there.wait()
        return web.Response(status=202)

    async with answering(meet) as url:
        targets = [proxy(url, name=f"t{number}", role="tee") for number in range(count)]
        targets[0]["role"] = "primary"
        findings = await found(loaded(*targets))
    assert {each.part for each in findings} >= {f"target t{number}" for number in range(count)}
    assert crosses(findings) == []
