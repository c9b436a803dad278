"""OTLP out to receivers that ask for more: client certificates, headers of their own, packed requests or plain ones."""

import asyncio
import gzip
import os
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import pytest
from grpc import aio
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.exporter.conftest import ScriptedTarget, serving, until_true
from tests.exporter.test_otlp_senders import EXPORTER, Receiver, deliver, failing, running, spans
from tests.service.exporters import Authority
from tracefwd.errors import StartError
from tracefwd.exporter import breaker
from tracefwd.exporter.client_certificate import ClientCertificate
from tracefwd.exporter.target import Target
from tracefwd.model import Signal
from tracefwd.settings import TargetSettings

both = pytest.mark.parametrize("protocol", ["http", "grpc"])


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("other"))


@asynccontextmanager
async def asking(authority: Authority, protocol: str) -> AsyncIterator[tuple[str, list[str]]]:
    """A receiver that lets in only whom ``authority`` signed; its URL and whom it let in, once for each request."""
    seen: list[str] = []
    if protocol == "http":
        context = authority.server_context(client_certs=True)
        target = ScriptedTarget(default=200)

        async def note() -> None:
            seen.append("client")

        target.before_answer = note
        async with serving(target, ssl_context=context):
            yield target.url, seen
        return
    cert, key = authority.issue("server")
    credentials = grpc.ssl_server_credentials(
        [(key.read_bytes(), cert.read_bytes())],
        authority.ca_file.read_bytes(),
        require_client_auth=True,
    )
    receiver = Receiver()

    async def note_peer(context: Any) -> bytes:
        seen.extend(name.decode() for name in context.auth_context()["x509_common_name"])
        return b""

    receiver.script += [note_peer] * 9
    async with receiver.secure(credentials) as url:
        yield url, seen


def showing(cert: Path, key: Path, **settings: str) -> AbstractAsyncContextManager[Target]:
    """A target that shows this certificate."""
    return running(cert_file=str(cert), key_file=str(key), **settings)


@both
async def test_a_client_certificate_is_shown(authority: Authority, protocol: str) -> None:
    cert, key = authority.issue("client")
    async with (
        asking(authority, protocol) as (url, seen),
        showing(cert, key, url=url, protocol=protocol, ca_file=str(authority.ca_file)) as target,
    ):
        assert (await deliver(target, spans(3)))["delivered"] == 3
    assert seen == ["client"]


@both
async def test_without_the_right_certificate_nothing_is_taken_and_nothing_lost(
    authority: Authority, other: Authority, protocol: str
) -> None:
    """And the pair that is renewed in place is shown at the next attempt."""
    cert, key = other.issue("stranger")
    async with (
        asking(authority, protocol) as (url, seen),
        showing(cert, key, url=url, protocol=protocol, ca_file=str(authority.ca_file)) as target,
    ):
        target.offer(spans(3))
        await until_true(lambda: bool(target.problems()))
        assert seen == []
        assert target.accounts[Signal.SPANS].held() == 3
        for renewed, path in zip(authority.issue("client"), (cert, key), strict=True):
            renewed.replace(path)
        await until_true(lambda: not target.accounts[Signal.SPANS].held())
        assert target.accounts[Signal.SPANS].show()["delivered"] == 3


def test_a_pair_is_loaded_again_only_when_it_has_changed(
    authority: Authority, other: Authority
) -> None:
    cert, key = authority.issue("client")
    shown = ClientCertificate(TargetSettings(cert_file=str(cert), key_file=str(key)))
    assert shown.renewed()
    for _ in range(2):
        shown.load(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        assert not shown.renewed()
        for renewed, path in zip(other.issue("client"), (cert, key), strict=True):
            renewed.replace(path)
        assert shown.renewed()
    assert not ClientCertificate(TargetSettings()).renewed()


@both
async def test_a_certificate_that_cannot_be_used_stops_the_start_and_later_only_waits(
    authority: Authority, tmp_path: Path, protocol: str
) -> None:
    cert, key = authority.issue("client")
    bad = tmp_path / "bad.pem"
    bad.write_text("no certificate")
    settings = {
        "kind": "otlp",
        "name": "east",
        "protocol": protocol,
        "ca_file": str(authority.ca_file),
    }
    async with asking(authority, protocol) as (url, _):
        target = Target(
            TargetSettings(**settings, url=url, cert_file=str(bad), key_file=str(key)), EXPORTER
        )
        with pytest.raises(StartError, match=r"target east: cert_file .*bad\.pem"):
            await target.start()
        await target.drain(0.1)
        kept = cert.read_bytes()
        target = Target(
            TargetSettings(**settings, url=url, cert_file=str(cert), key_file=str(key)), EXPORTER
        )
        await target.start()
        try:
            cert.write_text("half a certif")
            target.offer(spans(2))
            await until_true(lambda: bool(target.problems()))
            assert "cert_file" in target.problems()[0]
            cert.write_bytes(kept)
            await until_true(lambda: not target.accounts[Signal.SPANS].held())
        finally:
            await target.drain(1.0)
        assert target.accounts[Signal.SPANS].show()["delivered"] == 2


# Headers


@both
async def test_headers_of_an_operator_go_with_each_request(protocol: str, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("Api-Key k1\n")
    remote, receiver = ScriptedTarget(default=200), Receiver()
    async with serving(remote), receiver as grpc_url:
        url = remote.url if protocol == "http" else grpc_url
        async with running(
            url=url,
            protocol=protocol,
            headers={"X-Tenant": "blue"},
            header_files={"X-Key": str(key)},
        ) as target:
            await deliver(target, spans(1))
            key.write_text("Api-Key k2, renewed\n")
            await deliver(target, spans(1))
    if protocol == "http":
        got = [(each.headers["X-Tenant"], each.headers["X-Key"]) for each in remote.requests]
    else:
        got = [(each["x-tenant"], each["x-key"]) for each in receiver.metadata]
    assert got == [("blue", "Api-Key k1"), ("blue", "Api-Key k2, renewed")]


@both
async def test_their_values_are_never_shown(protocol: str, tmp_path: Path) -> None:
    """Not even where a receiver repeats them."""
    key = tmp_path / "key"
    key.write_text("fr0m-file")
    words = "the key fr0m-file of inl1ne is unknown"
    remote, receiver = ScriptedTarget(default=401), Receiver()
    remote.choose = lambda _: _saying(words)
    receiver.script += [failing(grpc.StatusCode.UNAUTHENTICATED, words)] * 9
    async with serving(remote), receiver as grpc_url:
        url = remote.url if protocol == "http" else grpc_url
        async with running(
            url=url, protocol=protocol, headers={"x-a": "inl1ne"}, header_files={"x-b": str(key)}
        ) as target:
            target.offer(spans(1))
            await until_true(lambda: bool(target.problems()))
            [problem] = target.problems()
    assert "the key *** of *** is unknown" in problem
    assert "check the values in headers and header_files" in problem


def _saying(words: str) -> Any:
    from aiohttp import web

    return web.Response(status=401, text=words)


@both
async def test_a_header_whose_file_is_missing_keeps_the_spans(
    protocol: str, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    remote, receiver = ScriptedTarget(default=200), Receiver()
    async with serving(remote), receiver as grpc_url:
        url = remote.url if protocol == "http" else grpc_url
        async with running(url=url, protocol=protocol, header_files={"x-b": str(key)}) as target:
            target.offer(spans(1))
            await until_true(lambda: bool(target.problems()))
            assert str(key) in target.problems()[0]
            key.write_text("k")
            await until_true(lambda: not target.accounts[Signal.SPANS].held())


@both
async def test_secrets_that_were_refused_are_read_again_although_their_files_look_unchanged(
    protocol: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker, "PAUSE_S", 0.05)
    token, key = tmp_path / "token", tmp_path / "key"
    files = {token: "t0ken-", key: "k3y-"}

    def write(number: str) -> None:
        for file, text in files.items():
            file.write_text(text + number)
            os.utime(file, ns=(0, 0))

    def are_new(shown: Mapping[str, str]) -> bool:
        named = {name.lower(): value for name, value in shown.items()}
        return (named["authorization"], named["x-key"]) == ("Bearer t0ken-2", "k3y-2")

    async def answer(context: aio.ServicerContext) -> bytes:
        if not are_new(receiver.metadata[-1]):
            await context.abort(grpc.StatusCode.UNAUTHENTICATED)
        return b""

    remote, receiver = ScriptedTarget(default=200), Receiver()
    remote.choose = lambda request: None if are_new(request.headers) else _saying("no")
    receiver.script += [answer] * 99
    write("1")
    async with (
        serving(remote),
        receiver as grpc_url,
        running(
            url=remote.url if protocol == "http" else grpc_url,
            protocol=protocol,
            token_file=str(token),
            header_files={"X-Key": str(key)},
        ) as target,
    ):
        target.offer(spans(1))
        await until_true(lambda: bool(target.problems()))
        write("2")
        await until_true(lambda: target.accounts[Signal.SPANS].delivered == 1)


# Compression


@pytest.mark.parametrize(("compression", "packed"), [("auto", True), ("gzip", True), ("none", False)])  # fmt: skip
async def test_http_is_packed_as_the_target_says(compression: str, packed: bool) -> None:
    remote = ScriptedTarget(default=200)
    async with serving(remote), running(url=remote.url, compression=compression) as target:
        await deliver(target, spans(40))
    [request] = remote.requests
    assert ("Content-Encoding" in request.headers) is packed
    body = gzip.decompress(request.raw) if packed else request.raw
    assert ExportTraceServiceRequest.FromString(body).resource_spans


@pytest.mark.parametrize(("compression", "packed"), [("auto", True), ("gzip", True), ("none", False)])  # fmt: skip
async def test_grpc_is_packed_as_the_target_says(compression: str, packed: bool) -> None:
    receiver = Receiver()
    async with (
        receiver as behind,
        wire(behind) as (url, sent),
        running(url=url, protocol="grpc", compression=compression) as target,
    ):
        await deliver(target, spans(40))
    [(_, request)] = receiver.requests
    assert b"service.namespace" in request
    assert (b"service.namespace" in sent) is not packed


@asynccontextmanager
async def wire(url: str) -> AsyncIterator[tuple[str, bytearray]]:
    """A relay to ``url``: its own URL, and what clients sent."""
    parts = urlsplit(url)
    sent = bytearray()

    async def pump(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: bytearray
    ) -> None:
        while data := await reader.read(65_536):
            seen += data
            writer.write(data)
        writer.close()

    relays: set[asyncio.Task[Any]] = set()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        relays.add(task)
        there, back = await asyncio.open_connection(parts.hostname, parts.port)
        try:
            await asyncio.gather(
                pump(reader, back, sent), pump(there, writer, bytearray()), return_exceptions=True
            )
        finally:
            for each in (writer, back):
                each.close()
                with suppress(OSError):
                    await each.wait_closed()

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", sent
    for task in relays:
        task.cancel()
    await asyncio.gather(*relays, return_exceptions=True)
