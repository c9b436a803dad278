"""Tokens and TLS on the intake: who shows nothing gets nothing, files may rotate, and no secret is ever told."""

import asyncio
import logging
import shutil
import ssl
import subprocess
import time
from pathlib import Path

import pytest

from tests.receiver.test_http import Server, both_loops, chunked, post, serving, until
from tracefwd.errors import StartError
from tracefwd.receiver import http
from tracefwd.receiver.credentials import Credentials
from tracefwd.settings import IntakeTlsSettings, ReceiverSettings

TOKEN, OTHER = "tok-51c0ffee-first", "tok-0ddba11-second"


def bearer(token: str) -> str:
    return f"Authorization: Bearer {token}\r\n"


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    file = tmp_path / "tokens"
    file.write_text(f"{TOKEN}\n\n  {OTHER}  \n")
    return file


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_REFRESH_S", 0.0)


def exchange(file: Path, text: str | bytes) -> None:
    """As Kubernetes does: another file takes the name."""
    new = file.with_suffix(".new")
    new.write_bytes(text.encode() if isinstance(text, str) else text)
    new.replace(file)


# --- tokens ---------------------------------------------------------------------------------------


@both_loops
async def test_only_a_request_with_a_token_comes_in(token_file: Path) -> None:
    async with serving(token_file=str(token_file)) as server:
        client = await server.connect()
        for headers in ("", bearer("wrong"), f"Authorization: Basic {TOKEN}\r\n"):
            reply = await client.ask(post(b"[1]", headers=headers))
            assert reply.status == 401
            assert reply.headers["www-authenticate"] == "Bearer"
            assert not reply.closes
        assert server.got == []
        for token in (TOKEN, OTHER):
            assert (await client.ask(post(headers=bearer(token)))).status == 202
        assert server.count("refused_requests_total", "token") == 3
        assert server.count("refused_bytes_total", "token") == 9


@both_loops
async def test_what_is_asked_for_is_asked_on_the_express_lane_too(token_file: Path) -> None:
    """A head that was good is remembered; it is good only for as long as its token."""
    good = chunked(b"[]", headers=bearer(TOKEN))
    async with serving(token_file=str(token_file), idle_timeout=0.1) as server:
        client = await server.connect()
        for _ in range(3):
            assert (await client.ask(good)).status == 202
        bad = chunked(b"[]", headers=bearer("x" * len(TOKEN)))
        for _ in range(2):
            assert (await client.ask(bad)).status == 401
        for _ in range(3):
            assert (await client.ask(good)).status == 202
        exchange(token_file, f"{OTHER}\n")
        while (await client.ask(good)).status == 202:  # noqa: ASYNC110 - it is asked each time
            await asyncio.sleep(0.01)
        assert (await client.ask(good)).status == 401
        assert (await client.ask(chunked(b"[]", headers=bearer(OTHER)))).status == 202


@both_loops
async def test_who_waits_for_a_100_without_a_token_is_told_before_the_body(
    token_file: Path,
) -> None:
    async with serving(token_file=str(token_file)) as server:
        client = await server.connect()
        client.send(post(b"x" * 10, headers="Expect: 100-continue\r\n")[:-10])
        reply = await client.reply()
        assert (reply.status, reply.closes) == (401, True)


@both_loops
async def test_a_bad_exchange_keeps_the_old_tokens_and_says_so(
    token_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tracefwd.receiver")
    async with serving(token_file=str(token_file), idle_timeout=0.1) as server:
        client = await server.connect()
        exchange(token_file, "")
        await until(lambda: any(r.levelno == logging.ERROR for r in caplog.records))
        assert (await client.ask(post(headers=bearer(TOKEN)))).status == 202
        exchange(token_file, "\n")
        await until(lambda: sum(r.levelno == logging.ERROR for r in caplog.records) == 2)
        assert (await client.ask(post(headers=bearer(TOKEN)))).status == 202
        exchange(token_file, "third\n")
        await until(lambda: "read again" in caplog.text)
        assert (await client.ask(post(headers=bearer("third")))).status == 202
        assert TOKEN not in caplog.text
        assert "third" not in caplog.text


@pytest.mark.parametrize(
    "text", ["", "\n \n", "two words\n", "t\xe4g\n", "tok\x00en\n", "a\n" * 65]
)
def test_a_file_without_usable_tokens_keeps_it_from_starting(tmp_path: Path, text: str) -> None:
    file = tmp_path / "tokens"
    file.write_text(text)
    with pytest.raises(StartError, match=r"receiver\.token_file") as caught:
        Credentials(ReceiverSettings(token_file=str(file))).load()
    for word in text.split():
        assert len(word) < 3 or word not in str(caught.value)


def test_a_file_that_is_not_there_keeps_it_from_starting(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="cannot be read"):
        Credentials(ReceiverSettings(token_file=str(tmp_path / "none"))).load()


# --- TLS ------------------------------------------------------------------------------------------


class Authority:
    """A certificate authority in a folder, and what it signed."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self.cert = folder / f"{name}.pem"
        self._key = folder / f"{name}.key"
        _openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-nodes", "-days", "2", "-subj", f"/CN={name}"),
            # Without it Python's own clients refuse what it signed, since 3.13.
            *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
            *("-keyout", self._key, "-out", self.cert),
        )

    def issue(self, name: str) -> tuple[Path, Path]:
        """(certificate, key) for ``name`` at 127.0.0.1."""
        stem = self._folder / f"{self._name}-{name}"
        cert, key, request = (stem.with_suffix(end) for end in (".crt", ".key", ".csr"))
        _openssl(
            *("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-nodes", "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", key, "-out", request),
        )
        extensions = stem.with_suffix(".ext")
        extensions.write_text("authorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\n")
        _openssl(
            *("x509", "-req", "-in", request, "-days", "2", "-copy_extensions", "copy"),
            *("-extfile", extensions),
            *("-CA", self.cert, "-CAkey", self._key, "-CAcreateserial", "-out", cert),
        )
        return cert, key


def _openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> tuple[Authority, Authority]:
    if shutil.which("openssl") is None:
        pytest.skip("NO OPENSSL: certificates for the tests of TLS cannot be made")
    folder = tmp_path_factory.mktemp("authorities")
    return Authority(folder, "first"), Authority(folder, "second")


@pytest.fixture
def tls(tmp_path: Path, authorities: tuple[Authority, Authority]) -> IntakeTlsSettings:
    """The server's files, signed by the first authority, which clients must be signed by, too."""
    files = []
    cert, key = authorities[0].issue("server")
    for name, source in (("cert", cert), ("key", key), ("ca", authorities[0].cert)):
        (tmp_path / name).write_bytes(source.read_bytes())
        files.append(str(tmp_path / name))
    return IntakeTlsSettings(cert_file=files[0], key_file=files[1], client_ca_file=files[2])


def trusting(authority: Authority, cert: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.cert))
    if cert is not None:
        context.load_cert_chain(*map(str, cert))
    return context


async def is_let_in(server: Server, context: ssl.SSLContext) -> bool:
    """Whether a TLS connection carries a post to its 202; under TLS 1.3 a client learns of a refusal only then."""
    try:
        client = await server.connect(ssl=context)
        return (await client.ask(post())).status == 202
    except (ConnectionError, ssl.SSLError, asyncio.IncompleteReadError):
        return False


@both_loops
async def test_posts_come_over_tls(
    tls: IntakeTlsSettings, authorities: tuple[Authority, Authority]
) -> None:
    plain_clients = IntakeTlsSettings(cert_file=tls.cert_file, key_file=tls.key_file)
    async with serving(tls=plain_clients) as server:
        client = await server.connect(ssl=trusting(authorities[0]))
        for size in (2, 100, 40_000, 300_000):
            assert (await client.ask(chunked(b"x" * size))).status == 202
            assert len(server.bodies[-1]) == size
        assert (await client.ask(post(headers="Connection: close\r\n"))).closes
        assert await client.ended()


@both_loops
async def test_a_large_pipelined_read_over_tls_is_answered_in_order(
    tls: IntakeTlsSettings, authorities: tuple[Authority, Authority]
) -> None:
    plain_clients = IntakeTlsSettings(cert_file=tls.cert_file, key_file=tls.key_file)
    async with serving(tls=plain_clients) as server:
        client = await server.connect(ssl=trusting(authorities[0]))
        bodies = [b'["%d"]' % number for number in range(2_000)]
        client.send(b"".join(post(body) for body in bodies))
        for _ in bodies:
            assert (await client.reply()).status == 202
        assert server.bodies == bodies


@both_loops
async def test_mtls_asks_for_a_certificate_of_the_right_authority(
    tls: IntakeTlsSettings, authorities: tuple[Authority, Authority]
) -> None:
    first, second = authorities
    async with serving(tls=tls) as server:
        assert await is_let_in(server, trusting(first, first.issue("client")))
        assert not await is_let_in(server, trusting(first))
        assert not await is_let_in(server, trusting(first, second.issue("client")))
        assert len(server.got) == 1
        await until(lambda: server.closed("handshake") == 2)


@both_loops
async def test_plain_text_at_a_tls_port_is_closed_and_counted(tls: IntakeTlsSettings) -> None:
    async with serving(tls=tls) as server:
        client = await server.connect()
        client.send(post())
        assert b"202" not in await client.reader.read()
        await until(lambda: server.closed("handshake") == 1)
        assert server.got == []


@both_loops
async def test_an_endless_handshake_is_cut_off(tls: IntakeTlsSettings) -> None:
    async with serving(tls=tls, header_timeout=0.1) as server:
        client = await server.connect()
        client.send(b"\x16\x03\x01")
        assert await client.reader.read() == b""
        assert server.closed("handshake") == 1


@both_loops
async def test_handshakes_under_way_count_as_connections_of_their_address(
    tls: IntakeTlsSettings,
) -> None:
    async with serving(tls=tls, connections_per_address_max=2, header_timeout=0.2) as server:
        stalled = [await server.connect() for _ in range(2)]
        await until(lambda: server.receiver._intake.addresses["127.0.0.1"] == 2)
        late = await server.connect()
        assert await late.reader.read() == b""
        assert server.closed("per_address") == 1
        for client in stalled:
            assert await client.reader.read() == b""
        await until(lambda: server.receiver._intake.addresses["127.0.0.1"] == 0)


@both_loops
async def test_rotated_files_hold_for_the_next_connection(
    tls: IntakeTlsSettings, authorities: tuple[Authority, Authority]
) -> None:
    first, second = authorities
    old = trusting(first, first.issue("client"))
    async with serving(tls=tls, idle_timeout=0.1, connection_age_max=0) as server:
        assert await is_let_in(server, old)
        cert, key = second.issue("server")
        for name, source in (
            (tls.cert_file, cert),
            (tls.key_file, key),
            (tls.client_ca_file, second.cert),
        ):
            exchange(Path(name), source.read_bytes())
        new = trusting(second, second.issue("client"))
        begun = time.monotonic()
        while not await is_let_in(server, new):
            assert time.monotonic() - begun < 5
            await asyncio.sleep(0.01)
        assert not await is_let_in(server, old)


@both_loops
async def test_half_rotated_files_keep_the_old_ones(
    tls: IntakeTlsSettings,
    authorities: tuple[Authority, Authority],
    caplog: pytest.LogCaptureFixture,
) -> None:
    first, second = authorities
    client = trusting(first, first.issue("client"))
    async with serving(tls=tls, idle_timeout=0.1) as server:
        exchange(Path(tls.cert_file), second.issue("server")[0].read_bytes())
        await until(lambda: "what held before goes on" in caplog.text)
        assert await is_let_in(server, client)


@both_loops
async def test_a_session_is_not_resumed(
    tls: IntakeTlsSettings, authorities: tuple[Authority, Authority]
) -> None:
    """Else a client would get past an authority that no longer signs for it."""
    first, _ = authorities
    context = trusting(first, first.issue("client"))
    async with serving(tls=tls) as server:
        one = await server.connect(ssl=context)
        assert (await one.ask(post())).status == 202
        found = one.writer.get_extra_info("ssl_object")
        assert found.session is None or not found.session.has_ticket


def test_files_that_cannot_be_used_keep_it_from_starting(
    tmp_path: Path, tls: IntakeTlsSettings, authorities: tuple[Authority, Authority]
) -> None:
    junk = tmp_path / "junk"
    junk.write_text("-----BEGIN CERTIFICATE-----\nsecret stuff\n-----END CERTIFICATE-----\n")
    _, foreign_key = authorities[1].issue("server")
    locked = tmp_path / "locked"
    _openssl("ec", "-in", tls.key_file, "-aes256", "-passout", "pass:abc", "-out", locked)
    for changed in (
        {"cert_file": str(junk)},
        {"key_file": str(foreign_key)},
        {"key_file": str(tmp_path / "none")},
        {"key_file": str(locked)},
        {"client_ca_file": str(junk)},
    ):
        given = {"cert_file": tls.cert_file, "key_file": tls.key_file} | changed
        with pytest.raises(StartError, match=r"receiver\.tls") as caught:
            Credentials(ReceiverSettings(tls=IntakeTlsSettings(**given))).load()
        assert "secret stuff" not in str(caught.value)
