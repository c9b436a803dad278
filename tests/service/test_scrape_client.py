"""What one scrape asks, takes and refuses, over real sockets."""

import base64
import gzip
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.service.exporters import BODY, Authority, Unfinished, answer, exporter
from tracefwd.service.scrape_client import ScrapeClient, ScrapeFailed
from tracefwd.service.scrape_inflate import PIECE_BYTES
from tracefwd.settings import (
    BasicAuthSettings,
    CollectionSettings,
    HttpConfigSettings,
    PrometheusSourceSettings,
    TlsConfigSettings,
)

SECRET = "s3cr3t-t0ken"


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@asynccontextmanager
async def client(
    url: str, *, body_bytes_max: int = 2**30, timeout_s: float = 10.0, **http: Any
) -> AsyncIterator[ScrapeClient]:
    source = PrometheusSourceSettings(
        url=url,
        httpConfig=HttpConfigSettings(**http),
        collection=CollectionSettings(timeout=timeout_s),
    )
    made = ScrapeClient(source, body_bytes_max=body_bytes_max)
    await made.open()
    try:
        yield made
    finally:
        await made.close()


async def fetched(url: str, **options: Any) -> bytes:
    pieces: list[bytes] = []
    async with client(url, **options) as made:
        await made.scrape(lambda _: pieces.append)
    return b"".join(pieces)


async def refused(url: str, **options: Any) -> tuple[str, str, bytes]:
    """Reason, message, and what was taken before it."""
    pieces: list[bytes] = []
    async with client(url, **options) as made:
        with pytest.raises(ScrapeFailed) as caught:
            await made.scrape(lambda _: pieces.append)
    return caught.value.reason, str(caught.value), b"".join(pieces)


# What is asked


async def test_the_query_goes_out_as_it_is_written() -> None:
    query = 'match[]={job=~"federate|kubernetes-pods"}&match[]={__name__=~"a_.*",x!="%41"}'
    async with exporter(answer()) as server:
        assert await fetched(f"{server.url}/federate?{query}") == BODY
        assert server.targets == [f"/federate?{query}"]


async def test_only_what_no_request_line_can_hold_is_escaped() -> None:
    async with exporter(answer()) as server:
        await fetched(f'{server.url}/federate?match[]={{job="a b",x="ä"}}')
        assert server.targets == ['/federate?match[]={job="a%20b",x="%C3%A4"}']


async def test_text_and_gzip_are_asked_for() -> None:
    async with exporter(answer()) as server:
        await fetched(f"{server.url}/metrics")
        assert server.header("accept-encoding") == "gzip"
        assert (server.header("accept") or "").startswith("text/plain;version=0.0.4")
        assert (server.header("user-agent") or "").startswith("tracefwd/")
        assert server.header("authorization") is None


async def test_a_token_file_is_read_again_for_each_scrape(tmp_path: Path) -> None:
    token = tmp_path / "token"
    async with exporter(answer()) as server:
        async with client(f"{server.url}/m", bearer_token_file=str(token)) as made:
            for value in ("first", "second"):
                token.write_text(f"{value}\n")
                await made.scrape(lambda _: lambda _: None)
                assert server.header("authorization") == f"Bearer {value}"
            token.unlink()
            with pytest.raises(ScrapeFailed) as caught:
                await made.scrape(lambda _: lambda _: None)
        assert caught.value.reason == "file"
        assert str(token) in str(caught.value)
        assert len(server.heads) == 2


@pytest.mark.parametrize("content", ["", " \n", "two\nlines", "\x00", "\udcff"])
async def test_a_token_file_that_holds_no_token_fails_the_scrape(
    tmp_path: Path, content: str
) -> None:
    token = tmp_path / "token"
    token.write_bytes(content.encode("utf-8", "surrogateescape"))
    async with exporter(answer()) as server:
        reason, message, _ = await refused(f"{server.url}/m", bearer_token_file=str(token))
        assert reason == "file"
        assert "two" not in message
        assert not server.heads


async def test_credentials_by_precedence(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("pass:word\n")
    basic = BasicAuthSettings(username="me", password_file=str(password))
    async with exporter(answer()) as server:
        host = server.url.removeprefix("http://")
        for url, http, wanted in (
            (f"http://u%40x:p%3A1@{host}/m", {"bearer_token": SECRET}, "u@x:p:1"),
            (f"http://{host}/m", {"basic_auth": basic}, "me:pass:word"),
            (f"http://{host}/m", {"bearer_token": SECRET, "bearer_token_file": "/none"}, None),
        ):
            await fetched(url, **http)
            said = server.header("authorization") or ""
            pair = base64.b64encode((wanted or "").encode()).decode()
            assert said == (f"Basic {pair}" if wanted else f"Bearer {SECRET}")
        assert all("@" not in (server.header("host") or "") for _ in server.heads)


# What is taken


async def test_zero_padding_behind_a_gzip_body_is_no_harm() -> None:
    padded = gzip.compress(BODY) + bytes(9)
    async with exporter(answer(padded, Content_Encoding="gzip")) as server:
        assert await fetched(f"{server.url}/m") == BODY


@pytest.mark.parametrize("coding", ["gzip", "x-gzip"])
async def test_gzip_is_inflated_in_pieces(coding: str) -> None:
    body = b"a_metric 1\n" * 50_000
    sizes: list[int] = []
    async with (
        exporter(answer(gzip.compress(body), Content_Encoding=coding)) as server,
        client(f"{server.url}/m") as made,
    ):
        await made.scrape(lambda _: lambda piece: sizes.append(len(piece)))
        assert made.wire_bytes == len(gzip.compress(body))
    assert sum(sizes) == len(body)
    assert max(sizes) <= PIECE_BYTES


async def test_a_bomb_costs_the_limit_and_no_more() -> None:
    bomb = gzip.compress(b"\n" * 50_000_000)
    async with exporter(answer(bomb, Content_Encoding="gzip")) as server:
        reason, _, taken = await refused(f"{server.url}/m", body_bytes_max=100_000)
    assert (reason, len(taken)) == ("too_large", 100_000)


async def test_a_plain_body_above_the_limit_is_refused_there() -> None:
    async with exporter(answer(b"x 1\n" * 1000)) as server:
        reason, _, taken = await refused(f"{server.url}/m", body_bytes_max=3_999)
        assert (reason, len(taken)) == ("too_large", 3_999)
        assert len(await fetched(f"{server.url}/m", body_bytes_max=4_000)) == 4_000


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (answer(length=1_000), "truncated"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n17\r\n"
            + BODY,
            "truncated",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nx 1\ny 12", "truncated"),
        (answer(gzip.compress(BODY)[:-9], Content_Encoding="gzip"), "encoding"),
        (answer(gzip.compress(BODY) + b"more", Content_Encoding="gzip"), "encoding"),
        (answer(b"no gzip at all", Content_Encoding="gzip"), "encoding"),
        (answer(BODY, Content_Encoding="br"), "encoding"),
        (answer(BODY, content_type="text/html; charset=utf-8"), "content_type"),
        (answer(BODY, content_type="application/vnd.google.protobuf"), "content_type"),
        (answer(BODY, status="401 Unauthorized"), "http_401"),
        (answer(BODY, status="500 Internal Server Error"), "http_500"),
        (answer(BODY, status="503 Service Unavailable"), "http_503"),
        (answer(BODY, status="206 Partial Content"), "http_206"),
        (answer(b"", status="204 No Content"), "http_204"),
        (b"SSH-2.0-x\r\n\r\n", "protocol"),
    ],
)
async def test_everything_but_a_whole_text_exposition_is_a_failure(
    said: bytes, reason: str
) -> None:
    async with exporter(said) as server:
        got, _, taken = await refused(f"{server.url}/m")
    assert got == reason
    assert not taken or reason in ("truncated", "encoding")


async def test_what_came_before_the_break_was_taken() -> None:
    async with exporter(answer(length=1_000)) as server:
        assert (await refused(f"{server.url}/m"))[2] == BODY


@pytest.mark.parametrize(
    ("head", "body", "taken"),
    [
        ("Content-Type: text/plain", BODY, BODY),
        ("Content-Type: application/openmetrics-text", b"x 1\n# EOF", b"x 1\n# EOF"),
        ("Content-Type: text/plain\r\nContent-Encoding: gzip", gzip.compress(b"x 12"), b"x 12"),
    ],
)
async def test_a_body_that_ends_by_closing_is_whole_with_its_own_end(
    head: str, body: bytes, taken: bytes
) -> None:
    async with exporter(f"HTTP/1.0 200 OK\r\n{head}\r\n\r\n".encode() + body) as server:
        assert await fetched(f"{server.url}/m") == taken


async def test_a_last_line_without_its_end_is_taken_where_the_length_was_told() -> None:
    async with exporter(answer(b"x 1\ny 12")) as server:
        assert await fetched(f"{server.url}/m") == b"x 1\ny 12"


async def test_an_answer_without_a_type_is_taken() -> None:
    async with exporter(answer(content_type="")) as server:
        assert await fetched(f"{server.url}/m") == BODY


async def test_prometheus_own_words_are_told() -> None:
    said = answer(b'1:5: parse error: "x"\n', status="400 Bad Request")
    async with exporter(said) as server:
        _, message, _ = await refused(f"{server.url}/m")
    assert message == 'HTTP 400: 1:5: parse error: "x"'


async def test_a_hung_scrape_ends_with_its_time() -> None:
    async with exporter(lambda _: None) as server:
        assert (await refused(f"{server.url}/m", timeout_s=0.2))[0] == "timeout"
    async with exporter(Unfinished(answer(length=1_000))) as server:
        reason, _, taken = await refused(f"{server.url}/m", timeout_s=0.3)
    assert (reason, taken) == ("timeout", BODY)


async def test_nobody_there() -> None:
    async with exporter(answer()) as server:
        url = server.url
    assert (await refused(f"{url}/m"))[0] == "connect"


async def test_a_failing_taker_is_no_failure_of_the_network() -> None:
    def take(_: bytes) -> None:
        raise ValueError("a bug")

    async with exporter(answer()) as server, client(f"{server.url}/m") as made:
        with pytest.raises(ValueError, match="a bug"):
            await made.scrape(lambda _: take)


# Where credentials go


async def test_a_redirect_within_the_origin_is_followed() -> None:
    def say(head: str) -> bytes:
        if head.startswith("GET /old"):
            return answer(b"", status="302 Found", Location="/new?match[]={a}")
        return answer()

    async with exporter(say) as server:
        assert await fetched(f"{server.url}/old", bearer_token=SECRET) == BODY
        assert server.targets == ["/old", "/new?match[]={a}"]
        assert server.header("authorization") == f"Bearer {SECRET}"


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"])
async def test_a_redirect_elsewhere_is_refused_and_gets_nothing(status: str) -> None:
    async with exporter(answer()) as other:
        location = f"http://u:pw@{other.url.removeprefix('http://')}/m"
        async with exporter(answer(b"", status=status, Location=location)) as server:
            reason, message, _ = await refused(f"{server.url}/m", bearer_token=SECRET)
        assert reason == "redirect"
        assert other.url in message
        assert "pw" not in message
        assert not other.heads


async def test_a_redirect_for_ever_is_refused() -> None:
    async with exporter(answer(b"", status="302 Found", Location="/m")) as server:
        assert (await refused(f"{server.url}/m"))[0] == "redirect"
        assert len(server.heads) < 10


async def test_no_message_holds_a_secret() -> None:
    echo = f"Authorization: Bearer {SECRET}".encode()
    async with exporter(answer(echo, status="401 Unauthorized")) as server:
        host = server.url.removeprefix("http://")
        for url, http in (
            (f"http://{host}/m", {"bearer_token": SECRET}),
            (f"http://user:{SECRET}@{host}/m", {}),
            (f"http://user:{SECRET}@127.0.0.1:1/m", {}),
            (f"http://{host}/m", {"proxy_url": f"http://user:{SECRET}@127.0.0.1:1"}),
        ):
            assert SECRET not in (await refused(url, **http))[1]


async def test_the_environments_proxy_is_used_but_not_for_loopback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with exporter(answer()) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        assert await fetched("http://prometheus.istio-system.svc.cluster.local:9090/m") == BODY
        assert proxy.targets == ["http://prometheus.istio-system.svc.cluster.local:9090/m"]
        monkeypatch.setenv("no_proxy", ".cluster.local")
        async with exporter(answer()) as server:
            await fetched(f"{server.url}/m")
        assert len(proxy.heads) == 1


async def test_credentials_in_its_url_do_not_hide_a_host_from_no_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The doctor asks about the URL as it is written."""
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", "prometheus.example")
    url = "http://user:password@prometheus.example:9090/m"
    client = ScrapeClient(PrometheusSourceSettings(url=url), body_bytes_max=1)
    await client.open()
    assert client.proxy_for(url) is None
    assert client.proxy_for(url.replace("prometheus", "other")) == "http://proxy.example:3128"
    await client.close()


async def test_a_sources_own_proxy_is_used() -> None:
    async with exporter(answer()) as proxy:
        await fetched("http://prometheus.example:9090/m?match[]={a}", proxy_url=proxy.url)
        assert proxy.targets == ["http://prometheus.example:9090/m?match[]={a}"]


# TLS


async def test_tls_by_its_options(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "one")
    ca_file = str(authority.ca_file)
    async with exporter(answer(), authority.server_context()) as server:
        url = f"{server.url}/m"
        assert (await refused(url))[0] == "tls"
        assert await fetched(url, tls_config=TlsConfigSettings(ca_file=ca_file)) == BODY
        lax = TlsConfigSettings(insecure_skip_verify=True)
        assert await fetched(url, tls_config=lax) == BODY
        assert await fetched(url.replace("https", "HTTPS"), tls_config=lax) == BODY
        wrong_name = TlsConfigSettings(ca_file=ca_file, server_name="prometheus.example")
        assert (await refused(url, tls_config=wrong_name))[0] == "tls"
    assert (await refused(url.replace("https", "http")))[0] == "connect"


async def test_a_server_name_stands_for_the_host(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.issue("named", ["DNS:prometheus.example"])
    context = authority.server_context()
    context.load_cert_chain(cert, key)
    tls = TlsConfigSettings(ca_file=str(authority.ca_file), server_name="prometheus.example")
    async with exporter(answer(), context) as server:
        assert await fetched(f"{server.url}/m", tls_config=tls) == BODY


async def test_a_client_certificate_is_shown(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.issue("client")
    ca_file = str(authority.ca_file)
    context = authority.server_context(client_certs=True)
    async with exporter(answer(), context) as server:
        tls = TlsConfigSettings(ca_file=ca_file, cert_file=str(cert), key_file=str(key))
        assert await fetched(f"{server.url}/m", tls_config=tls) == BODY
        reason, _, _ = await refused(
            f"{server.url}/m", tls_config=TlsConfigSettings(ca_file=ca_file)
        )
        assert reason in ("tls", "connection")


async def test_a_renewed_authority_is_read_again(tmp_path: Path) -> None:
    old, new = Authority(tmp_path / "old"), Authority(tmp_path / "new")
    trusted = tmp_path / "ca.crt"
    trusted.write_bytes(old.ca_file.read_bytes())
    async with (
        exporter(answer(), new.server_context()) as server,
        client(f"{server.url}/m", tls_config=TlsConfigSettings(ca_file=str(trusted))) as made,
    ):
        with pytest.raises(ScrapeFailed) as caught:
            await made.scrape(lambda _: lambda _: None)
        assert caught.value.reason == "tls"
        renewed = tmp_path / "renewed"
        renewed.write_bytes(new.ca_file.read_bytes())
        renewed.replace(trusted)
        await made.scrape(lambda _: lambda _: None)
        trusted.unlink()
        with pytest.raises(ScrapeFailed) as caught:
            await made.scrape(lambda _: lambda _: None)
        assert caught.value.reason == "file"


@pytest.mark.parametrize("content", [None, "", "no certificate"])
async def test_an_authority_that_cannot_be_read_fails_the_scrape(
    tmp_path: Path, content: str | None
) -> None:
    ca_file = tmp_path / "ca.crt"
    if content is not None:
        ca_file.write_text(content)
    async with exporter(answer()) as server:
        tls = TlsConfigSettings(ca_file=str(ca_file), insecure_skip_verify=True)
        reason, message, _ = await refused(f"{server.url}/m", tls_config=tls)
        assert reason == "file"
        assert "tls_config.ca_file" in message
        assert not server.heads
