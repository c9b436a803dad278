"""The door to one scraped exposition: asks for it, and turns every way in which that can fail into ``ScrapeFailed``.

1. Nothing is held whole: a body is handed on in pieces of at most ``PIECE_BYTES``, inflated, up to
   ``metrics.body_bytes_max``; after each piece other tasks get their turn.
2. Credentials go to the URL's own origin and nowhere else: a redirect to another one fails the scrape.
3. Files (token, password, certificates) are looked at for each scrape: what rotates is used, what is missing fails
   the scrape.
4. Messages name causes and never repeat an exception's text, which may hold a URL with a password.
5. Anything but a 200 whose type is a text exposition is a failure, whatever its body looks like.
"""

import asyncio
import base64
from collections.abc import Callable
from urllib.parse import quote, unquote, urljoin, urlsplit
from urllib.request import getproxies_environment

import aiohttp
from yarl import URL

from tracefwd import __version__
from tracefwd.errors import Malformed, TooLarge
from tracefwd.exporter.http_client import environments_proxy
from tracefwd.service.masking import redact
from tracefwd.service.scrape_files import ScrapeFailed, TlsFiles, read_secret
from tracefwd.service.scrape_inflate import Inflater
from tracefwd.settings import PrometheusSourceSettings

# Text 0.0.4 first: in OpenMetrics an exporter writes other names for the same counters.
ACCEPT = "text/plain;version=0.0.4, application/openmetrics-text;version=1.0.0;q=0.5, */*;q=0.1"
TEXT_TYPES = frozenset({"text/plain", "application/openmetrics-text"})
_REDIRECTS_MAX = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# Of a refusal's body: Prometheus says in it what is wrong with a selector.
_REFUSAL_BYTES_MAX = 300
# No connection that is still worth waiting for takes longer, whatever the time for the whole scrape.
CONNECT_TIMEOUT_S = 10.0
# Printable ASCII but for the blank is sent as it is written; Go's servers take braces, quotes and pipes.
_AS_WRITTEN = "".join(chr(code) for code in range(33, 127))

# The first that fits decides: exception, reason (a label value), what to do.
_FAILURES: tuple[tuple[type[BaseException], str, str], ...] = (
    (aiohttp.ConnectionTimeoutError, "timeout", f"no connection within {CONNECT_TIMEOUT_S:g} s"),
    (TimeoutError, "timeout", "not done within collection.timeout"),
    (aiohttp.ClientProxyConnectionError, "http_proxy", "the HTTP proxy is not reachable"),
    (aiohttp.ClientHttpProxyError, "http_proxy", "the HTTP proxy refused to connect"),
    (aiohttp.ClientConnectorCertificateError, "tls", "its certificate is not trusted; see ca_file"),
    (aiohttp.ClientConnectorSSLError, "tls", "no TLS connection; is it an https port?"),
    (aiohttp.ClientSSLError, "tls", "no TLS connection; is it an https port?"),
    (aiohttp.ClientConnectorDNSError, "dns", "its name does not resolve; check the host"),
    (aiohttp.ClientConnectorError, "connect", "no connection; is it up, is the address right?"),
    (aiohttp.ClientPayloadError, "truncated", "the body broke off before its end"),
    (aiohttp.ServerDisconnectedError, "connection", "it closed the connection without an answer"),
    (aiohttp.ClientResponseError, "protocol", "its answer is not HTTP"),
    (aiohttp.InvalidURL, "url", "the URL (or the HTTP proxy's) cannot be used; check the settings"),
    (aiohttp.ClientError, "connection", "the connection broke"),
    (OSError, "connection", "the connection broke"),
    (ValueError, "url", "the URL (or the HTTP proxy's) cannot be used; check the settings"),
)


class _TakeError(Exception):
    """The taker of the pieces failed: its own error must not pass for one of the network."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


class ScrapeClient:
    """A session of one source.  ``open`` before the first scrape, ``close`` after the last."""

    def __init__(self, source: PrometheusSourceSettings, *, body_bytes_max: int) -> None:
        self._http = source.httpConfig
        self._timeout_s = source.collection.timeout
        self._body_bytes_max = body_bytes_max
        parts = urlsplit(source.url)
        self._user = parts.netloc.rpartition("@")[0]
        # A client would make a header of its own from what stands before the '@'.
        head, mark, query = source.url.partition("?")
        bare = head.replace(f"{self._user}@", "", 1) if self._user else head
        self._url = quote(bare + mark + query, safe=_AS_WRITTEN)
        self._tls = TlsFiles(self._http.tls_config)
        self._session: aiohttp.ClientSession | None = None
        self._env_proxies: dict[str, str] = {}
        self.wire_bytes = 0
        self.date: str | None = None
        """What the clock of the latest answer's server said."""

    async def open(self) -> None:
        connector = aiohttp.TCPConnector(limit=2)
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(
                total=None, connect=min(CONNECT_TIMEOUT_S, self._timeout_s)
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            # Undone here, within a limit and piece by piece.
            auto_decompress=False,
            headers={
                "User-Agent": f"tracefwd/{__version__}",
                "Accept": ACCEPT,
                "Accept-Encoding": "gzip",
                "X-Prometheus-Scrape-Timeout-Seconds": f"{self._timeout_s:g}",
            },
        )
        self._env_proxies = getproxies_environment()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def scrape(self, begin: Callable[[str], Callable[[bytes], None]]) -> None:
        """Call ``begin`` with the content type when a body comes, and hand it to what that gives, piece by piece.

        Raises ``ScrapeFailed``, or what a callable of the caller's raised; pieces until then are the body's beginning.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._scrape(begin)
        except _TakeError as failure:
            raise failure.error from None
        except (aiohttp.ClientError, OSError, ValueError) as failure:
            raise _translated(failure) from None  # its text may repeat what must not be shown

    async def _scrape(self, begin: Callable[[str], Callable[[bytes], None]]) -> None:
        headers = self._authorization()
        context = self._tls.context(needed=urlsplit(self._url).scheme == "https")
        url = self._url
        for _ in range(_REDIRECTS_MAX + 1):
            assert self._session is not None, "open() comes first"
            async with self._session.get(
                URL(url, encoded=True),
                headers=headers,
                allow_redirects=False,
                proxy=self.proxy_for(url),
                ssl=context or True,
                server_hostname=self._http.tls_config.server_name or None,
            ) as answer:
                self.date = answer.headers.get("Date")
                if answer.status not in _REDIRECTS:
                    await _check(answer)
                    try:
                        take = begin(answer.headers.get("Content-Type", ""))
                    except Exception as error:
                        raise _TakeError(error) from error
                    await self._read(answer, take)
                    return
                url = _redirected(url, answer.headers.get("Location"))
        raise ScrapeFailed("redirect", f"it redirects more than {_REDIRECTS_MAX} times")

    async def _read(self, answer: aiohttp.ClientResponse, take: Callable[[bytes], None]) -> None:
        coding = answer.headers.get("Content-Encoding", "").strip().lower()
        if coding not in ("", "identity", "gzip", "x-gzip"):
            raise ScrapeFailed("encoding", "its body has a Content-Encoding that nobody asked for")
        inflater = Inflater("gzip" if coding in ("gzip", "x-gzip") else "", self._body_bytes_max)
        is_whole_line = True
        try:
            async for data in answer.content.iter_any():
                self.wire_bytes += len(data)
                for piece in inflater.feed(data):
                    try:
                        take(piece)
                    except Exception as error:
                        raise _TakeError(error) from error
                    is_whole_line = piece.endswith(b"\n")
                    await asyncio.sleep(0)
            inflater.end()
        except TooLarge as error:
            raise ScrapeFailed("too_large", str(error)) from None
        except Malformed as error:
            raise ScrapeFailed("encoding", str(error)) from None
        except (aiohttp.ClientError, ConnectionError):
            raise ScrapeFailed("truncated", "the body broke off before its end") from None
        if not is_whole_line and _ends_by_closing(answer):
            # 12 may have been 1234.
            reason = "the body ends within a line, and its answer did not say how long it is"
            raise ScrapeFailed("truncated", reason)

    def _authorization(self) -> dict[str, str]:
        """The one that counts: of the URL, basic, the token, the token's file.  Raises ``ScrapeFailed``."""
        http = self._http
        basic = http.basic_auth
        if self._user:
            user, _, password = self._user.partition(":")
            return _basic(unquote(user), unquote(password))
        if basic.username:
            password = basic.password
            if basic.password_file:
                password = read_secret(basic.password_file, "basic_auth.password_file")
            return _basic(basic.username, password)
        token = http.bearer_token
        if not token and http.bearer_token_file:
            token = read_secret(http.bearer_token_file, "bearer_token_file")
        return {"Authorization": f"Bearer {token}"} if token else {}

    def proxy_for(self, url: str) -> str | None:
        """The HTTP proxy on the way to ``url``; known once this is open."""
        return self._http.proxy_url or environments_proxy(url, self._env_proxies)


def _basic(user: str, password: str) -> dict[str, str]:
    pair = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"Authorization": f"Basic {pair}"}


def _redirected(url: str, location: str | None) -> str:
    if not location:
        raise ScrapeFailed("redirect", "it redirects without saying where")
    there = urljoin(url, quote(location, safe=_AS_WRITTEN))
    old, new = urlsplit(url), urlsplit(there)
    if (old.scheme, old.netloc) != (new.scheme, new.netloc):
        reason = "it redirects to another place, where no credentials are sent; write that URL"
        raise ScrapeFailed("redirect", f"{reason} ({new.scheme}://{new.netloc.rpartition('@')[2]})")
    return there


async def _check(answer: aiohttp.ClientResponse) -> None:
    """Raises ``ScrapeFailed`` unless the answer announces an exposition."""
    if answer.status != 200:
        said = await _beginning(answer)
        raise ScrapeFailed(
            f"http_{answer.status}", f"HTTP {answer.status}" + (f": {said}" if said else "")
        )
    given = answer.headers.get("Content-Type", "")
    kind = given.partition(";")[0].strip().lower()
    if kind and kind not in TEXT_TYPES:
        shown = kind if kind.isprintable() else "unreadable"
        raise ScrapeFailed("content_type", f"its type is {shown[:64]}, no text exposition")


def _ends_by_closing(answer: aiohttp.ClientResponse) -> bool:
    """Whether only the end of the connection, which a peer's death is too, says where the body ends.

    A gzip stream and OpenMetrics have an end of their own.
    """
    headers = answer.headers
    has_end = "gzip" in headers.get("Content-Encoding", "").lower()
    has_end = has_end or "openmetrics" in headers.get("Content-Type", "").lower()
    is_chunked = "chunked" in headers.get("Transfer-Encoding", "").lower()
    return not has_end and not is_chunked and "Content-Length" not in headers


async def _beginning(answer: aiohttp.ClientResponse) -> str:
    if answer.headers.get("Content-Encoding", "identity") != "identity":
        return ""
    try:
        data = await answer.content.read(_REFUSAL_BYTES_MAX)
    except (aiohttp.ClientError, OSError):
        return ""
    text = " ".join(data.decode("utf-8", "replace").split())
    return redact(text) if text.isprintable() else ""


def _translated(failure: BaseException) -> ScrapeFailed:
    reason, advice = next(
        (reason, advice) for kind, reason, advice in _FAILURES if isinstance(failure, kind)
    )
    cause = _cause(failure)
    return ScrapeFailed(reason, f"{advice} ({cause})" if cause else advice)


def _cause(failure: BaseException) -> str:
    """What the system said, where that is short and holds nothing of ours."""
    if isinstance(failure, aiohttp.ClientConnectorCertificateError):
        return str(getattr(failure.certificate_error, "verify_message", ""))
    if isinstance(failure, aiohttp.ClientHttpProxyError):
        return f"HTTP {failure.status}"
    if isinstance(failure, TimeoutError):
        return ""
    return (failure.strerror or "") if isinstance(failure, OSError) else ""


__all__ = ["ScrapeClient", "ScrapeFailed"]
