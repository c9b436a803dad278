import asyncio
import gzip
import shutil
import socket
import ssl
import subprocess
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from email.utils import formatdate
from pathlib import Path
from time import time
from typing import Any

import pytest
from aiohttp import web

from tracefwd.errors import StartError
from tracefwd.exporter.auth import credentials
from tracefwd.exporter.compress import gzip_or_plain
from tracefwd.exporter.http_client import HttpClient, is_loopback
from tracefwd.exporter.http_sender import DETAIL_LENGTH_MAX, HttpSender
from tracefwd.model import Outcome
from tracefwd.settings import ExporterSettings, TargetSettings

LINES = b'"op" source="a" 1700000000000 1\n' * 20


@asynccontextmanager
async def sender_to(
    url: str, exporter: ExporterSettings, **settings: Any
) -> AsyncIterator[HttpSender]:
    target = TargetSettings(**settings)
    client = HttpClient(target, exporter)
    await client.open()
    tokens = credentials(target, client)
    try:
        yield HttpSender(client, tokens, target.kind, url)
    finally:
        await tokens.close()
        await client.close()


async def send(url: str, exporter: ExporterSettings, **settings: Any) -> Outcome:
    async with sender_to(url, exporter, **settings) as sender:
        return await sender.send(LINES, "")


def rewrite(path: Path, text: str) -> None:
    path.write_text(text)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# What is on the wire.


async def test_a_proxy_gets_plain_text_and_the_url_as_given(
    remote: Any, exporter: ExporterSettings
) -> None:
    assert await send(f"{remote.url}/a/b?x=1", exporter) == Outcome("delivered")
    [request] = remote.requests
    assert (request.path, request.query, request.raw) == ("/a/b", {"x": "1"}, LINES)
    assert request.headers["Content-Type"].startswith("text/plain")
    assert "Content-Encoding" not in request.headers
    assert "Authorization" not in request.headers


async def test_direct_ingestion_gets_an_octet_stream_and_the_token(
    remote: Any, exporter: ExporterSettings, token_file: Path
) -> None:
    await send(f"{remote.url}/report?f=trace", exporter, kind="direct", token_file=str(token_file))
    [request] = remote.requests
    assert request.headers["Content-Type"] == "application/octet-stream"
    assert request.headers["Authorization"] == "Bearer s3cret-token-1"


async def test_a_packed_body_says_so(remote: Any, exporter: ExporterSettings) -> None:
    async with sender_to(remote.url, exporter) as sender:
        await sender.send(*gzip_or_plain(LINES))
    [request] = remote.requests
    assert request.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(request.raw) == LINES


async def test_one_connection_serves_one_request_after_the_other(
    remote: Any, exporter: ExporterSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote.default = web.Response(status=202, text="x" * 100)
    peers = set()
    inner = remote._answer

    async def noting(request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        peers.add(request.transport.get_extra_info("peername"))
        return await inner(request)  # type: ignore[no-any-return]

    monkeypatch.setattr(remote, "_answer", noting)
    async with sender_to(remote.url, exporter) as sender:
        for _ in range(5):
            await sender.send(LINES, "")
    assert len(peers) == 1


# What the answers mean (the whole table is in test_verdicts).


@pytest.mark.parametrize(
    ("status", "kind", "verdict", "words"),
    [
        (202, "proxy", "delivered", ""),
        (204, "proxy", "delivered", ""),
        (301, "proxy", "rejected", "redirects are not followed"),
        (400, "proxy", "rejected", "HTTP 400"),
        (401, "proxy", "retry", "set token_file"),
        (401, "direct", "retry", "set token_file"),
        (403, "direct", "retry", "set token_file"),
        (403, "proxy", "rejected", "HTTP 403"),
        (404, "proxy", "rejected", "check the URL"),
        (406, "direct", "retry", "slow down"),
        (407, "proxy", "retry", "http_proxy"),
        (408, "proxy", "retry", "HTTP 408"),
        (413, "proxy", "split", "HTTP 413"),
        (429, "direct", "retry", "slow down"),
        (500, "proxy", "retry", "HTTP 500"),
        (503, "direct", "retry", "HTTP 503"),
    ],
)
async def test_every_answer_has_its_outcome(
    remote: Any, exporter: ExporterSettings, status: int, kind: str, verdict: str, words: str
) -> None:
    remote.default = status
    outcome = await send(remote.url, exporter, kind=kind)
    assert outcome.verdict == verdict
    assert outcome.reason == ("" if verdict == "delivered" else f"http_{status}")
    assert words in outcome.detail


async def test_a_redirect_is_not_followed_and_its_goal_is_shown(
    remote: Any, second_remote: Any, exporter: ExporterSettings, token_file: Path
) -> None:
    goal = second_remote.url.replace("http://", "http://u:p@") + "/x?secret=1"
    remote.default = web.Response(status=307, headers={"Location": goal})
    outcome = await send(remote.url, exporter, token_file=str(token_file))
    assert outcome.verdict == "rejected"
    assert second_remote.requests == []
    assert f"{second_remote.url}/x;" in outcome.detail
    assert "secret" not in outcome.detail
    assert "u:p" not in outcome.detail


@pytest.mark.parametrize(
    ("goal", "shown"),
    [
        (b"http://[half/x", "to what is no URL;"),
        ("http://a\u2100b/".encode(), "to what is no URL;"),
        (b"http://other/caf\xe9", "to http://other/caf\ufffd;"),
        (b"http://other/" + b"z" * 5_000, "...;"),
    ],
)
async def test_a_redirect_to_nonsense_is_a_refusal_in_words_that_json_can_hold(
    exporter: ExporterSettings, goal: bytes, shown: str
) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 302 Found\r\nLocation: " + goal + b"\r\nContent-Length: 0\r\n\r\n")
        await reader.read()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        outcome = await send(f"http://127.0.0.1:{port}", exporter)
    assert (outcome.verdict, outcome.reason) == ("rejected", "http_302")
    assert shown in outcome.detail
    assert len(outcome.detail.encode()) < 400


async def test_retry_after_is_passed_on(remote: Any, exporter: ExporterSettings) -> None:
    remote.script.extend(
        web.Response(status=503, headers={"Retry-After": after})
        for after in ("3", formatdate(time() + 100, usegmt=True), "soon")
    )
    async with sender_to(remote.url, exporter) as sender:
        seconds = await sender.send(LINES, "")
        date = await sender.send(LINES, "")
        junk = await sender.send(LINES, "")
    assert seconds.retry_after_ms == 3000
    assert date.retry_after_ms is not None
    assert 95_000 < date.retry_after_ms <= 100_000
    assert junk.retry_after_ms is None


async def test_what_a_target_says_is_shown_cut_on_one_line_and_without_our_secret(
    remote: Any, exporter: ExporterSettings, token_file: Path
) -> None:
    said = "bad\r\n\x1b[31mline; you sent s3cret-token-1, Bearer abc.def " + "z" * 20_000
    remote.default = web.Response(status=400, text=said)
    outcome = await send(remote.url, exporter, token_file=str(token_file))
    assert "you sent ***, Bearer ***" in outcome.detail
    assert "s3cret" not in outcome.detail
    assert "\n" not in outcome.detail
    assert "\x1b" not in outcome.detail
    assert len(outcome.detail) < DETAIL_LENGTH_MAX + 40
    assert outcome.detail.endswith("...")


# When no answer comes.


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip", "x-gzip", "deflate", "none of them"])
@pytest.mark.parametrize("status", [200, 503])
async def test_the_status_counts_whatever_coding_the_answer_has(
    remote: Any, exporter: ExporterSettings, coding: str, status: int
) -> None:
    headers = {"Content-Encoding": coding}
    remote.default = web.Response(status=status, body=b"\x1b\x03 not as it says", headers=headers)
    outcome = await send(remote.url, exporter)
    reason = "" if status == 200 else "http_503"
    assert (outcome.verdict, outcome.reason) == ("delivered" if status == 200 else "retry", reason)
    assert "\\x" not in outcome.detail
    assert "not as" not in outcome.detail


@pytest.mark.parametrize("coding", ["gzip", "X-GZip"])
async def test_a_packed_answers_words_are_read_within_bounds(
    remote: Any, exporter: ExporterSettings, coding: str
) -> None:
    headers = {"Content-Encoding": coding}
    words = b"slow down" + b" " * 50_000_000
    remote.default = web.Response(status=429, body=gzip.compress(words, 1), headers=headers)
    tracemalloc.start()
    try:
        outcome = await send(remote.url, exporter)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert outcome.detail.endswith(": slow down")
    assert peak < 20 * 2**20
    assert remote.requests[0].headers["Accept-Encoding"] == "gzip"


async def test_a_closed_port_is_a_failed_connection(exporter: ExporterSettings) -> None:
    outcome = await send(f"http://127.0.0.1:{free_port()}", exporter)
    assert (outcome.verdict, outcome.reason) == ("retry", "connect")
    assert "is it up" in outcome.detail


async def test_silence_is_a_time_out(
    remote: Any, make_exporter: Callable[..., ExporterSettings]
) -> None:
    remote.default = "hang"
    outcome = await send(remote.url, make_exporter(request_timeout=0.05))
    assert (outcome.verdict, outcome.reason) == ("retry", "timeout")


async def test_a_connection_that_closes_is_tried_again(
    remote: Any, exporter: ExporterSettings
) -> None:
    remote.default = "reset"
    outcome = await send(remote.url, exporter)
    assert (outcome.verdict, outcome.reason) == ("retry", "connection")


async def test_a_url_that_nobody_can_use_says_so(exporter: ExporterSettings) -> None:
    outcome = await send("http://user:pw@:99999/", exporter)
    assert (outcome.verdict, outcome.reason) == ("retry", "url")
    assert "pw" not in outcome.detail


async def test_a_token_that_cannot_be_read_is_a_failed_attempt_and_nothing_is_sent(
    remote: Any, exporter: ExporterSettings, tmp_path: Path
) -> None:
    outcome = await send(remote.url, exporter, token_file=str(tmp_path / "none"))
    assert (outcome.verdict, outcome.reason) == ("retry", "auth")
    assert "cannot be read" in outcome.detail
    assert remote.requests == []


async def test_a_401_makes_the_token_be_read_again(
    remote: Any, exporter: ExporterSettings, token_file: Path
) -> None:
    remote.script.append(401)
    async with sender_to(remote.url, exporter, kind="direct", token_file=str(token_file)) as sender:
        outcome = await sender.send(LINES, "")
        assert "read again at each attempt" in outcome.detail
        rewrite(token_file, "s3cret-token-2")
        assert await sender.send(LINES, "") == Outcome("delivered")
    assert remote.requests[1].headers["Authorization"] == "Bearer s3cret-token-2"


# TLS.


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``ca.pem``, and ``server.pem`` (certificate and key for 127.0.0.1) that it signed."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("SKIPPED, NOT PROVED: TLS verification, because there is no openssl command")
    folder = tmp_path_factory.mktemp("authority")

    def run(*words: str) -> None:
        subprocess.run([openssl, *words], cwd=folder, check=True, capture_output=True)

    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    basic = ("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=keyCertSign")
    run("req", "-x509", *new_key, "-subj", "/CN=test authority", "-keyout", "ca.key",
        "-out", "ca.pem", "-days", "2", *basic)  # fmt: skip
    run("req", *new_key, "-subj", "/CN=proxy", "-keyout", "server.key", "-out", "server.csr")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    run("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
        "-CAcreateserial", "-extfile", "names", "-days", "2", "-out", "server.crt")  # fmt: skip
    whole = (folder / "server.crt").read_text() + (folder / "server.key").read_text()
    (folder / "server.pem").write_text(whole)
    return folder


@pytest.fixture
async def tls_remote(authority: Path, serve: Any, scripted: Any) -> AsyncIterator[Any]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(authority / "server.pem")
    async with serve(scripted(), ssl_context=context) as target:
        yield target


async def test_an_unknown_authority_is_not_trusted(
    tls_remote: Any, exporter: ExporterSettings
) -> None:
    outcome = await send(tls_remote.url, exporter)
    assert (outcome.verdict, outcome.reason) == ("retry", "tls")
    assert "ca_file" in outcome.detail
    assert tls_remote.requests == []


async def test_the_operators_own_authority_is_trusted(
    tls_remote: Any, exporter: ExporterSettings, authority: Path
) -> None:
    outcome = await send(tls_remote.url, exporter, ca_file=str(authority / "ca.pem"))
    assert outcome == Outcome("delivered")


async def test_the_name_in_the_certificate_must_fit(
    tls_remote: Any, exporter: ExporterSettings, authority: Path
) -> None:
    by_name = tls_remote.url.replace("127.0.0.1", "localhost")
    outcome = await send(by_name, exporter, ca_file=str(authority / "ca.pem"))
    assert (outcome.verdict, outcome.reason) == ("retry", "tls")
    assert tls_remote.requests == []


async def test_verification_can_be_switched_off(
    tls_remote: Any, exporter: ExporterSettings
) -> None:
    assert await send(tls_remote.url, exporter, tls_verify=False) == Outcome("delivered")


async def test_https_at_a_plain_port_says_so(remote: Any, exporter: ExporterSettings) -> None:
    outcome = await send(remote.url.replace("http:", "https:"), exporter)
    assert (outcome.verdict, outcome.reason) == ("retry", "tls")


@pytest.mark.parametrize("content", [None, "not a certificate"])
async def test_a_bad_file_of_authorities_stops_the_start_and_says_what_to_do(
    exporter: ExporterSettings, tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    client = HttpClient(TargetSettings(name="east", ca_file=str(path)), exporter)
    with pytest.raises(StartError, match=r"target east: ca_file .*PEM"):
        await client.open()


# HTTP proxies.  A plain request through one is an absolute URL at the proxy.

FAR = "http://wavefront-proxy.example:2878/lines"


async def test_the_http_proxy_of_the_settings_is_used(
    remote: Any, exporter: ExporterSettings
) -> None:
    through = remote.url.replace("http://", "http://user:pa55@")
    assert await send(FAR, exporter, http_proxy=through) == Outcome("delivered")
    [request] = remote.requests
    assert request.headers["Host"] == "wavefront-proxy.example:2878"
    assert request.headers["Proxy-Authorization"].startswith("Basic ")


async def test_the_environments_proxy_is_used_and_no_proxy_is_honoured(
    remote: Any, exporter: ExporterSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", remote.url.removeprefix("http://"))
    assert await send(FAR, exporter) == Outcome("delivered")
    assert len(remote.requests) == 1
    monkeypatch.setenv("no_proxy", "wavefront-proxy.example")
    outcome = await send(FAR, exporter)
    assert outcome.verdict == "retry"
    assert len(remote.requests) == 1


async def test_loopback_is_never_reached_through_the_environments_proxy(
    remote: Any, exporter: ExporterSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    assert await send(remote.url, exporter) == Outcome("delivered")
    assert is_loopback("localhost")
    assert is_loopback("::1")
    assert not is_loopback("example.com")


async def test_tls_goes_through_a_tunnel_and_a_refused_tunnel_is_tried_again(
    remote: Any, exporter: ExporterSettings
) -> None:
    remote.default = 502
    through = remote.url.replace("http://", "http://user:pa55@")
    outcome = await send("https://far.example/report", exporter, http_proxy=through)
    assert (outcome.verdict, outcome.reason) == ("retry", "http_proxy")
    assert "HTTP 502" in outcome.detail
    assert "pa55" not in outcome.detail


async def test_an_http_proxy_that_is_away_is_named_as_the_cause(exporter: ExporterSettings) -> None:
    outcome = await send(FAR, exporter, http_proxy=f"http://u:pa55@127.0.0.1:{free_port()}")
    assert (outcome.verdict, outcome.reason) == ("retry", "http_proxy")
    assert "pa55" not in outcome.detail
