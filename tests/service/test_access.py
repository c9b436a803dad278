"""Who may look at console and API: nobody beyond loopback without a token, no stranger's page, and no guesser."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.receiver.test_credentials import Authority, authorities, exchange
from tests.service.watched import check
from tracefwd.service import admin as admin_module
from tracefwd.service import admin_door
from tracefwd.service import api as api_module
from tracefwd.service.access import COOKIE, HEADERS
from tracefwd.service.config import Loaded
from tracefwd.service.supervisor import Service
from tracefwd.settings import (
    AdminSettings,
    AdminTlsSettings,
    ExporterSettings,
    ReceiverSettings,
    ServiceSettings,
    Settings,
    TargetSettings,
)

__all__ = ["authorities"]  # a fixture

TOKEN, OTHER = "tok-51c0ffee-first", "tok-0ddba11-second"
OPEN = ("/livez", "/readyz", "/metrics")
OLD = ("/version", "/config", "/ledger", "/rejected", "/sources")
API = "/api/v1/flow"


@pytest.fixture(autouse=True)
def fake_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setattr(admin_module, "CREDENTIALS_EVERY_S", 0.02)


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    file = tmp_path / "tokens"
    file.write_text(f"{TOKEN}\n")
    return file


@asynccontextmanager
async def serving(listen: str = "127.0.0.1:0", **options: Any) -> AsyncIterator[Service]:
    settings = Settings(
        receiver=ReceiverSettings(listen="127.0.0.1:0"),
        admin=AdminSettings(listen=listen, **options),
        exporter=ExporterSettings(
            targets=[TargetSettings(name="primary", traces="tcp://127.0.0.1:9")]
        ),
        service=ServiceSettings(drain_timeout=1.0),
    )
    async with Service(Loaded(settings, {}), compose="fake_parts:compose") as service:
        yield service


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    # A jar that takes cookies of addresses, as browsers do.
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        yield session


async def ask(
    http: aiohttp.ClientSession, service: Service, path: str = API, **options: Any
) -> tuple[int, dict[str, Any]]:
    method = options.pop("method", "GET")
    options.setdefault("allow_redirects", False)
    async with http.request(method, service.admin_url + path, **options) as answer:
        is_json = answer.content_type == "application/json"
        document = await answer.json() if is_json else {"text": await answer.text()}
        return answer.status, document


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_beyond_loopback_console_and_api_are_off_and_probes_are_not(
    http: aiohttp.ClientSession,
) -> None:
    async with serving("0.0.0.0:0") as service:
        for path in (*OPEN, *OLD):
            assert (await ask(http, service, path))[0] == 200
        status, refusal = await ask(http, service)
        check("Error", refusal)
        assert (status, refusal["error"]) == (403, "off")
        assert "admin.token_file" in refusal["todo"]
        status, page = await ask(http, service, "/")
        assert status == 403
        assert "admin.token_file" in page["text"]
        for path in ("/api/v1/events", "/api/v1/tap", "/api/v1/spans/0-1-1"):
            assert (await ask(http, service, path))[0] == 403


async def test_with_a_token_everything_but_probes_demands_it(
    http: aiohttp.ClientSession, token_file: Path
) -> None:
    async with serving("0.0.0.0:0", token_file=str(token_file)) as service:
        for path in OPEN:
            assert (await ask(http, service, path))[0] == 200
        for path in ("/", API, *OLD):
            assert (await ask(http, service, path))[0] == 401
            assert (await ask(http, service, path, headers=bearer(TOKEN)))[0] == 200
        status, refusal = await ask(http, service, headers=bearer(TOKEN + "x"))
        check("Error", refusal)
        assert (status, refusal["error"]) == (401, "wrong_token")
        assert TOKEN not in str(refusal)


async def test_a_token_that_does_not_come_is_not_waited_for(
    token_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_module, "TOKEN_S_MAX", 0.02)
    async with serving(token_file=str(token_file)) as service:
        host, _, port = service.admin_url.rpartition("/")[2].partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            b"POST /api/v1/session HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20\r\n\r\n{"
        )
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408 ")
        writer.close()


async def test_half_tokens_keep_no_probe_out(
    http: aiohttp.ClientSession,
    token_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(admin_door, "ADMIN_CONNECTIONS_MAX", 8)
    async with serving(token_file=str(token_file)) as service:
        host, _, port = service.admin_url.rpartition("/")[2].partition(":")
        halves = []
        for _ in range(8):
            _, writer = await asyncio.open_connection(host, int(port))
            writer.write(b"POST /api/v1/session HTTP/1.1\r\nHost: localhost\r\n")
            writer.write(b"Content-Length: 20\r\n\r\n{")
            await asyncio.sleep(0.02)
            halves.append(writer)
        for _ in range(3):
            async with http.get(service.admin_url + "/livez") as answer:
                assert answer.status == 200
        for writer in halves:
            writer.close()
        await asyncio.sleep(0.05)
    assert "Traceback" not in caplog.text


async def test_what_cannot_be_read_is_not_told(
    token_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A parser's complaint quotes the header."""
    async with serving(token_file=str(token_file)) as service:
        host, _, port = service.admin_url.rpartition("/")[2].partition(":")
        for wrong in (
            b"GET / HTTP/1.1\r\nHost: x\r\nCookie: a=%s\x01\r\n\r\n" % TOKEN.encode(),
            b"POST /api/v1/session HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\nzz\r\n",
            b"POST /api/v1/session HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
        ):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(wrong)
            assert (await reader.readline()).split()[1] == b"400"
            writer.close()
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    assert TOKEN not in caplog.text


async def test_a_browser_exchanges_the_token_for_a_cookie(
    http: aiohttp.ClientSession, token_file: Path
) -> None:
    async with serving(token_file=str(token_file)) as service:
        path = "/api/v1/session"
        bad: tuple[Any, ...] = (
            {"json": {"token": "x"}},
            {"data": b"nonsense"},
            {"data": b"x" * 9_000},
        )
        statuses = [(await ask(http, service, path, method="POST", **body))[0] for body in bad]
        assert statuses == [401, 400, 413]
        assert (await ask(http, service))[0] == 401
        url = service.admin_url + path
        async with http.post(url, json={"token": TOKEN}) as answer:
            assert answer.status == 204
            cookie = answer.headers["Set-Cookie"]
        assert TOKEN not in cookie
        for word in ("HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=43200"):
            assert word in cookie
        assert (await ask(http, service))[0] == 200
        _status, session = await ask(http, service, path)
        check("Session", session)
        assert session["by"] == "session"
        async with http.get(service.admin_url + "/api/v1/events") as stream:
            assert stream.status == 200
        assert (await ask(http, service, path, method="DELETE"))[0] == 204
        assert (await ask(http, service))[0] == 401
        form = {"data": {"token": TOKEN}, "method": "POST"}
        assert (await ask(http, service, path, **form))[0] == 303
        assert (await ask(http, service))[0] == 200


async def test_a_forged_or_outlived_cookie_opens_nothing(
    http: aiohttp.ClientSession, token_file: Path
) -> None:
    async with serving(token_file=str(token_file)) as service:
        for forged in (
            "",
            "x",
            "9999999999.",
            "9999999999." + "0" * 64,
            "\u0661\u0662.ab",
            "1." * 50,
        ):
            headers = {"Cookie": f"{COOKIE}={forged}"}
            assert (await ask(http, service, headers=headers))[0] == 401
        await ask(http, service, "/api/v1/session", method="POST", json={"token": TOKEN})
        assert (await ask(http, service))[0] == 200
        # Whoever knew the old token only is out with it.
        exchange(token_file, f"{OTHER}\n")
        async with asyncio.timeout(5):
            while (await ask(http, service))[0] == 200:  # noqa: ASYNC110 - it is asked each time
                await asyncio.sleep(0.01)
        assert (await ask(http, service, headers=bearer(OTHER)))[0] == 200


async def test_guessing_is_slowed_down(http: aiohttp.ClientSession, token_file: Path) -> None:
    async with serving(token_file=str(token_file)) as service:
        answers = [(await ask(http, service, headers=bearer(f"guess{n}")))[0] for n in range(12)]
        assert answers == [401] * 10 + [429] * 2
        status, refusal = await ask(http, service, headers=bearer(TOKEN))
        check("Error", refusal)
        assert status == 429


async def test_on_loopback_a_stranger_s_name_or_page_is_refused(
    http: aiohttp.ClientSession,
) -> None:
    async with serving(allowed_hosts=["console.test"]) as service:
        for host, wanted in (
            ("localhost:9412", 200),
            ("127.0.0.1", 200),
            ("[::1]:1", 200),
            ("console.test", 200),
            ("evil.example", 403),
            ("127.0.0.1.evil.example", 403),
            ("", 403),
        ):
            for path in (API, "/", "/config"):
                status, _ = await ask(http, service, path, headers={"Host": host})
                assert status == wanted, (host, path)
            assert (await ask(http, service, "/livez", headers={"Host": host}))[0] == 200
        for site, mode, wanted in (
            ("same-origin", "cors", 200),
            ("none", "navigate", 200),
            ("cross-site", "cors", 403),
            ("same-site", "no-cors", 403),
            ("cross-site", "navigate", 200),
        ):
            headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode}
            assert (await ask(http, service, headers=headers))[0] == wanted, (site, mode)


async def test_every_guarded_answer_carries_the_security_headers(
    http: aiohttp.ClientSession,
) -> None:
    async with serving() as service:
        for path in (
            "/",
            API,
            "/config",
            "/api/v1/nothing",
            "/nothing",
            "/api/v1/events",
            "/api/v1/tap",
        ):
            async with http.get(service.admin_url + path) as answer:
                for name, value in HEADERS.items():
                    assert answer.headers[name] == value, path
        policy = HEADERS["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy


async def test_a_certificate_stands_for_a_token(
    http: aiohttp.ClientSession,
    authorities: tuple[Authority, Authority],
) -> None:
    ours, strangers = authorities
    cert, key = ours.issue("server")
    tls = AdminTlsSettings(cert_file=str(cert), key_file=str(key), client_ca_file=str(ours.cert))
    async with serving("0.0.0.0:0", tls=tls) as service:
        assert service.admin_url.startswith("https://")

        def shows(pair: tuple[Path, Path] | None) -> ssl.SSLContext:
            context = ssl.create_default_context(cafile=str(ours.cert))
            if pair is not None:
                context.load_cert_chain(*pair)
            return context

        nothing = shows(None)
        assert (await ask(http, service, "/livez", ssl=nothing))[0] == 200
        status, refusal = await ask(http, service, ssl=nothing)
        check("Error", refusal)
        assert status == 403
        assert (await ask(http, service, ssl=shows(ours.issue("someone"))))[0] == 200
        with pytest.raises(aiohttp.ClientError):
            await ask(http, service, ssl=shows(strangers.issue("someone")))


async def test_exchanged_certificates_hold_for_the_next_connection_to_the_admin_port(
    http: aiohttp.ClientSession,
    tmp_path: Path,
    authorities: tuple[Authority, Authority],
) -> None:
    first, second = authorities
    files = {name: tmp_path / name for name in ("cert", "key", "ca")}
    cert, key = first.issue("server")
    for name, source in (("cert", cert), ("key", key), ("ca", first.cert)):
        files[name].write_bytes(source.read_bytes())
    tls = AdminTlsSettings(
        cert_file=str(files["cert"]), key_file=str(files["key"]), client_ca_file=str(files["ca"])
    )

    async def is_served(service: Service, authority: Authority) -> bool:
        """By a certificate of this authority, for one of its own."""
        context = ssl.create_default_context(cafile=str(authority.cert))
        context.load_cert_chain(*authority.issue("someone"))
        try:
            headers = {"Connection": "close"}
            return (await ask(http, service, ssl=context, headers=headers))[0] == 200
        except aiohttp.ClientError:
            return False

    async with serving("0.0.0.0:0", tls=tls) as service:
        assert await is_served(service, first)
        cert, key = second.issue("server")
        for name, source in (("cert", cert), ("key", key), ("ca", second.cert)):
            exchange(files[name], source.read_bytes())
        async with asyncio.timeout(20):
            while not await is_served(service, second):
                pass
        assert not await is_served(service, first)
