import asyncio
import base64
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from aiohttp import web

from tracefwd.exporter import auth
from tracefwd.exporter.auth import (
    CredentialsError,
    CspToken,
    FileToken,
    NoCredentials,
    credentials,
    refresh_after_s,
)
from tracefwd.exporter.http_client import HttpClient
from tracefwd.settings import ExporterSettings, TargetSettings


@pytest.fixture
async def client(exporter: ExporterSettings) -> AsyncIterator[HttpClient]:
    opened = HttpClient(TargetSettings(), exporter)
    await opened.open()
    yield opened
    await opened.close()


def granted(token: str, expires_in: float = 1800) -> web.Response:
    return web.json_response({"access_token": token, "expires_in": expires_in, "scope": "x"})


@pytest.fixture
async def csp(remote: Any, client: HttpClient, token_file: Path) -> AsyncIterator[CspToken]:
    settings = TargetSettings(
        kind="direct", csp_base=remote.url + "/", csp_token_file=str(token_file)
    )
    made = credentials(settings, client)
    assert isinstance(made, CspToken)
    yield made
    await made.close()


# Files.


def rewrite(path: Path, text: str) -> None:
    path.write_text(text)


async def test_a_token_comes_from_its_file_without_the_line_end(token_file: Path) -> None:
    assert await FileToken(str(token_file)).header() == "Bearer s3cret-token-1"


async def test_a_rotated_token_is_used_from_the_next_request_on(token_file: Path) -> None:
    token = FileToken(str(token_file))
    await token.header()
    # As Kubernetes does it: a new file takes the place of the old one.
    fresh = token_file.with_name("fresh")
    fresh.write_text("s3cret-token-2")
    fresh.replace(token_file)
    assert await token.header() == "Bearer s3cret-token-2"
    assert "s3cret-token-2" in token.secrets()


async def test_after_a_refusal_the_file_is_read_even_if_it_looks_unchanged(
    token_file: Path,
) -> None:
    token = FileToken(str(token_file))
    header = await token.header()
    status = os.stat(token_file)  # noqa: PTH116
    rewrite(token_file, "s3cret-token-9\n")
    os.utime(token_file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert await token.header() == header
    token.refused(header)
    assert await token.header() == "Bearer s3cret-token-9"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"one-secret\ntwo-secret\n", "holds no token"),
        (b"secret\x00", "holds no token"),
        ("sécret".encode(), "holds no token"),
    ],
)
async def test_a_file_that_cannot_serve_says_why_and_shows_nothing(
    tmp_path: Path, content: bytes | None, words: str
) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    token = FileToken(str(path))
    with pytest.raises(CredentialsError, match=words) as caught:
        await token.header()
    assert str(path) in str(caught.value)
    assert "one-secret" not in str(caught.value)
    path.write_text("good")
    assert await token.header() == "Bearer good"


def test_each_way_of_settings_has_its_credentials(token_file: Path, client: HttpClient) -> None:
    file = str(token_file)
    assert isinstance(credentials(TargetSettings(), client), NoCredentials)
    assert isinstance(credentials(TargetSettings(token_file=file), client), FileToken)
    assert isinstance(
        credentials(TargetSettings(kind="direct", token_file=file), client), FileToken
    )
    app = TargetSettings(kind="direct", csp_app_id="a", csp_app_secret_file=file)
    assert isinstance(credentials(app, client), CspToken)
    # A proxy knows nothing of CSP.
    assert isinstance(credentials(TargetSettings(csp_token_file=file), client), NoCredentials)


# The exchange.


def test_a_token_is_renewed_before_its_end() -> None:
    assert refresh_after_s(1800) == 1620
    assert refresh_after_s(600) == 420
    assert refresh_after_s(599) == 569
    assert refresh_after_s(40) == 20
    for lifetime in (0.1, 1, 30, 59, 100, 599, 600, 86400):
        assert lifetime / 2 <= refresh_after_s(lifetime) < lifetime


async def test_an_api_token_is_exchanged_as_the_vendors_sdk_does(
    csp: CspToken, remote: Any
) -> None:
    remote.default = granted("access-1")
    assert await csp.header() == "Bearer access-1"
    [request] = remote.requests
    assert request.path == "/csp/gateway/am/api/auth/api-tokens/authorize"
    assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert parse_qs(request.body.decode()) == {
        "grant_type": ["api_token"],
        "refresh_token": ["s3cret-token-1"],
    }
    assert "Authorization" not in request.headers


async def test_a_grant_with_two_long_tokens_is_read_whole(csp: CspToken, remote: Any) -> None:
    token = "a" * 20_000
    remote.default = web.json_response(
        {"id_token": "i" * 20_000, "expires_in": 1799, "access_token": token}
    )
    assert await csp.header() == f"Bearer {token}"


@pytest.mark.parametrize("org_id", ["", "org 1"])
async def test_an_oauth_app_is_exchanged_with_basic_authorization(
    remote: Any, client: HttpClient, token_file: Path, org_id: str
) -> None:
    remote.default = granted("access-2")
    settings = TargetSettings(
        kind="direct",
        csp_base=remote.url,
        csp_app_id="app",
        csp_app_secret_file=str(token_file),
        csp_org_id=org_id,
    )
    token = credentials(settings, client)
    assert await token.header() == "Bearer access-2"
    [request] = remote.requests
    assert request.path == "/csp/gateway/am/api/auth/authorize"
    basic = base64.b64encode(b"app:s3cret-token-1").decode()
    assert request.headers["Authorization"] == f"Basic {basic}"
    form = {"grant_type": ["client_credentials"]} | ({"orgId": [org_id]} if org_id else {})
    assert parse_qs(request.body.decode()) == form
    assert basic in token.secrets()


async def test_many_requests_share_one_exchange(csp: CspToken, remote: Any) -> None:
    remote.default = granted("access-1")
    headers = await asyncio.gather(*(csp.header() for _ in range(50)))
    assert set(headers) == {"Bearer access-1"}
    assert len(remote.requests) == 1
    await csp.header()
    assert len(remote.requests) == 1


async def test_a_request_that_is_given_up_does_not_take_the_exchange_with_it(
    csp: CspToken, remote: Any
) -> None:
    go_on = asyncio.Event()

    async def wait() -> None:
        await go_on.wait()

    remote.default, remote.before_answer = granted("access-1"), wait
    first, second = asyncio.create_task(csp.header()), asyncio.create_task(csp.header())
    await remote.arrived.wait()
    first.cancel()
    go_on.set()
    assert await second == "Bearer access-1"


async def test_the_old_token_is_used_while_the_next_one_is_fetched(
    csp: CspToken,
    remote: Any,
    monkeypatch: pytest.MonkeyPatch,
    until: Callable[..., Awaitable[None]],
) -> None:
    monkeypatch.setattr(auth, "EXCHANGE_PAUSE_S", 0.0)
    monkeypatch.setattr(auth, "refresh_after_s", lambda lifetime: 0.0)
    remote.script.extend([granted("access-1"), "hang"])
    assert await csp.header() == "Bearer access-1"
    assert await csp.header() == "Bearer access-1"
    await until(lambda: len(remote.requests) == 2)
    assert await csp.header() == "Bearer access-1"


async def test_a_failed_renewal_keeps_the_old_token_to_its_end(
    csp: CspToken,
    remote: Any,
    monkeypatch: pytest.MonkeyPatch,
    until: Callable[..., Awaitable[None]],
) -> None:
    monkeypatch.setattr(auth, "EXCHANGE_PAUSE_S", 0.0)
    monkeypatch.setattr(auth, "refresh_after_s", lambda lifetime: 0.0)
    remote.script.append(granted("access-1", expires_in=0.3))
    remote.default = 503
    assert await csp.header() == "Bearer access-1"
    assert await csp.header() == "Bearer access-1"
    await until(lambda: len(remote.requests) >= 2)
    ended = asyncio.get_running_loop().time() + 0.3
    await until(lambda: asyncio.get_running_loop().time() > ended)
    with pytest.raises(CredentialsError, match="HTTP 503"):
        await csp.header()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (500, "HTTP 500"),
        (401, "check the secret in"),
        (302, "HTTP 302"),
        ("reset", "closed the connection"),
        (web.Response(text="<html>s3cret"), "gave no access_token"),
        (web.json_response({"access_token": "s3cret"}), "gave no access_token"),
        (web.json_response({"access_token": "s3cret\n2", "expires_in": 9}), "no header can carry"),
        (web.json_response({"access_token": "", "expires_in": 9}), "no header can carry"),
    ],
)
async def test_a_failed_exchange_says_why_without_secrets_and_is_tried_again_later(
    csp: CspToken, remote: Any, answer: Any, words: str
) -> None:
    remote.script.append(answer)
    remote.default = granted("access-1")
    with pytest.raises(CredentialsError, match=words) as caught:
        await csp.header()
    assert "cret-token" not in str(caught.value)
    assert "s3cret" not in str(caught.value).replace(str(csp._file), "")
    # At once: not asked again, the same words.
    with pytest.raises(CredentialsError, match=words):
        await csp.header()
    assert len(remote.requests) == 1
    csp._exchange_at = 0.0
    assert await csp.header() == "Bearer access-1"


async def test_a_token_that_the_target_refused_is_exchanged_anew_but_not_at_once(
    csp: CspToken, remote: Any
) -> None:
    remote.script.extend([granted("access-1"), granted("access-2")])
    header = await csp.header()
    csp.refused("Bearer one-before")
    assert await csp.header() == header
    csp.refused(header)
    with pytest.raises(CredentialsError, match="refused the token that CSP gave"):
        await csp.header()
    csp._exchange_at = 0.0
    assert await csp.header() == "Bearer access-2"


async def test_no_representation_shows_a_secret(
    csp: CspToken, remote: Any, token_file: Path
) -> None:
    remote.default = granted("access-1")
    await csp.header()
    file = FileToken(str(token_file))
    await file.header()
    for thing in (csp, file, csp._file, csp._client):
        assert "cret-token" not in f"{thing!r} {thing}"
        assert "access-1" not in f"{thing!r} {thing}"
