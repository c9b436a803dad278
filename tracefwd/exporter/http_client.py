"""The one door to HTTP: posts bytes, and turns every way in which that can fail into ``UnreachableError``.

One session per target, for lines and for token exchanges alike: the same TLS rules, the same HTTP proxy, the
same time-outs.  Redirects are not followed: they would carry the token to somebody else.  No cookies, no
``.netrc``.  Messages name causes and never repeat an exception's text, which may hold a URL with a password.

The environment's proxy variables are read once, at ``open``.  As in Go's and curl's practice NO_PROXY is honoured;
as in Go's, loopback is never reached through a proxy of the environment.
"""

import ipaddress
import ssl
from collections.abc import Mapping
from urllib.parse import urlsplit
from urllib.request import (  # type: ignore[attr-defined]  # typeshed leaves the second out
    getproxies_environment,
    proxy_bypass_environment,
)

import aiohttp
from msgspec import Struct

from tracefwd import __version__
from tracefwd.errors import StartError, TracefwdError
from tracefwd.exporter.client_certificate import CertificateError, ClientCertificate
from tracefwd.exporter.compress import beginning
from tracefwd.exporter.trust import trusting
from tracefwd.model import Signal
from tracefwd.settings import ExporterSettings, TargetSettings

# Of an answer's body.  Some are needed whole: a grant with two tokens of many claims, a partial success whose message
# names thousands of records.
ANSWER_BYTES_MAX = 2**20


class UnreachableError(TracefwdError):
    """No answer came.  ``reason`` is from the table below; the message is for a person.

    ``may_have_arrived``: there was a connection, and the request may have been read.
    """

    def __init__(self, reason: str, detail: str, *, may_have_arrived: bool = True) -> None:
        super().__init__(detail)
        self.reason = reason
        self.may_have_arrived = may_have_arrived


class Response(Struct, frozen=True):
    """An answer; ``body`` is the beginning of its body, ``date`` what its server's clock says."""

    status: int
    body: bytes = b""
    retry_after: str | None = None
    location: str | None = None
    date: str | None = None

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")


# Without a connection nothing can have arrived.
_UNSENT = (
    aiohttp.ConnectionTimeoutError,
    aiohttp.ClientConnectorError,
    aiohttp.ClientHttpProxyError,
)
# The first that fits decides: exception, reason (a label value), what to do.
_FAILURES: tuple[tuple[type[BaseException], str, str], ...] = (
    (aiohttp.ConnectionTimeoutError, "timeout", "no connection within exporter.connect_timeout"),
    (TimeoutError, "timeout", "no answer within exporter.request_timeout"),
    (aiohttp.ClientProxyConnectionError, "http_proxy", "the HTTP proxy is not reachable"),
    (aiohttp.ClientHttpProxyError, "http_proxy", "the HTTP proxy refused to connect"),
    (aiohttp.ClientConnectorCertificateError, "tls", "its certificate is not trusted; see ca_file"),
    (aiohttp.ClientConnectorSSLError, "tls", "no TLS connection; is it an https port?"),
    (aiohttp.ClientConnectorDNSError, "dns", "its name does not resolve; check the host"),
    (aiohttp.ClientConnectorError, "connect", "no connection; is it up, is the address right?"),
    (aiohttp.ServerDisconnectedError, "connection", "it closed the connection without an answer"),
    (aiohttp.ClientResponseError, "protocol", "its answer is not HTTP"),
    (aiohttp.InvalidURL, "url", "the URL (or the HTTP proxy's) cannot be used; check the settings"),
    (aiohttp.ClientError, "connection", "the connection broke"),
    (OSError, "connection", "the connection broke"),
    (ValueError, "url", "the URL (or the HTTP proxy's) cannot be used; check the settings"),
)


class HttpClient:
    """A session of one target.  ``open`` before the first post, ``close`` after the last."""

    def __init__(self, settings: TargetSettings, exporter: ExporterSettings) -> None:
        self._settings = settings
        self._certificate = ClientCertificate(settings)
        self._context: ssl.SSLContext | None = None
        # A waiting request would spend its time-out in aiohttp's own queue: every flight has a connection, and the
        # token exchange one more.
        self._connections_max = exporter.concurrency * len(Signal) + 1
        self._timeout = aiohttp.ClientTimeout(
            total=exporter.request_timeout, connect=exporter.connect_timeout
        )
        self._session: aiohttp.ClientSession | None = None
        self._env_proxies: dict[str, str] = {}

    async def open(self) -> None:
        """Raises ``StartError`` if a file of certificates cannot be used."""
        self._context = self.tls_context()
        connector = aiohttp.TCPConnector(limit=self._connections_max, ssl=self._context)
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=self._timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": f"tracefwd/{__version__}", "Accept-Encoding": "gzip"},
            # It would take an answer whose coding it does not know for none.
            auto_decompress=False,
        )
        self._env_proxies = getproxies_environment()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Response:
        """Raises ``UnreachableError`` and nothing else; an answer of any status is a ``Response``."""
        assert self._session is not None, "open() comes first"
        assert self._context is not None
        try:
            if self._certificate.renewed():
                self._certificate.load(self._context)
            async with self._session.post(
                url, data=body, headers=headers, allow_redirects=False, proxy=self.proxy_for(url)
            ) as answer:
                return Response(
                    status=answer.status,
                    body=await _beginning(answer),
                    retry_after=answer.headers.get("Retry-After"),
                    location=_readable(answer.headers.get("Location")),
                    date=answer.headers.get("Date"),
                )
        except CertificateError as problem:
            raise UnreachableError("tls", str(problem), may_have_arrived=False) from problem
        except (aiohttp.ClientError, OSError, ValueError) as failure:
            raise _translated(failure) from None  # its text may repeat what must not be shown

    def tls_context(self) -> ssl.SSLContext:
        """A new one: whom this target's connections trust, and what they show.  Raises ``StartError`` as ``open``."""
        ca_file = self._settings.ca_file
        try:
            context = trusting(ca_file)
        except OSError as problem:  # SSLError is one, and speaks of OpenSSL's own lines
            what = "" if isinstance(problem, ssl.SSLError) else problem.strerror
            raise StartError(
                f"target {self._settings.name}: ca_file {ca_file} cannot be used "
                f"({what or 'no certificate in PEM'}): give a readable PEM file"
            ) from problem
        try:
            self._certificate.load(context)
        except CertificateError as problem:
            raise StartError(f"target {self._settings.name}: {problem}") from problem
        if not self._settings.tls_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def proxy_for(self, url: str) -> str | None:
        """The HTTP proxy on the way to ``url``; known once this is open."""
        if self._settings.http_proxy:
            return self._settings.http_proxy
        return environments_proxy(url, self._env_proxies)


def environments_proxy(url: str, proxies: dict[str, str]) -> str | None:
    """As Go and curl do: NO_PROXY is honoured, and loopback is never reached through one."""
    parts = urlsplit(url)
    proxy = proxies.get(parts.scheme)
    if not proxy or is_loopback(parts.hostname or ""):
        return None
    if proxy_bypass_environment(parts.netloc.rpartition("@")[2], proxies):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _readable(header: str | None) -> str | None:
    """Bytes that are no UTF-8 come as surrogates, which no log and no JSON can hold."""
    if header is None:
        return None
    return header.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


async def _beginning(answer: aiohttp.ClientResponse) -> bytes:
    """The first bytes of the body; none if it broke off or cannot be read: the status has said what matters."""
    data = bytearray()
    try:
        while len(data) < ANSWER_BYTES_MAX:
            chunk = await answer.content.read(ANSWER_BYTES_MAX - len(data))
            if not chunk:
                break
            data += chunk
    except (aiohttp.ClientError, OSError):
        return b""
    coding = answer.headers.get("Content-Encoding", "").strip().lower()
    if coding in ("", "identity"):
        return bytes(data)
    return beginning(bytes(data), ANSWER_BYTES_MAX) if coding in ("gzip", "x-gzip") else b""


def _translated(failure: BaseException) -> UnreachableError:
    reason, advice = next(
        (reason, advice) for kind, reason, advice in _FAILURES if isinstance(failure, kind)
    )
    cause = _cause(failure)
    sent = reason != "url" and not isinstance(failure, _UNSENT)
    return UnreachableError(
        reason, f"{advice} ({cause})" if cause else advice, may_have_arrived=sent
    )


def _cause(failure: BaseException) -> str:
    """What the system said, where that is short and holds nothing of ours."""
    if isinstance(failure, aiohttp.ClientConnectorCertificateError):
        return str(getattr(failure.certificate_error, "verify_message", ""))
    if isinstance(failure, aiohttp.ClientHttpProxyError):
        return f"HTTP {failure.status}"
    return (failure.strerror or "") if isinstance(failure, OSError) else ""
