"""Who may look at console and API.

1. On loopback anybody on this machine may, as ``/ledger`` was always open there; a page of a stranger in somebody's
   browser may not: it comes with a name that is not ours (DNS rebinding) or says that it comes from elsewhere.
2. Beyond loopback nobody may until the operator names a token or authorities; then whoever shows one.
3. Probes and ``/metrics`` are never asked: kubelets and Prometheus have neither, and they show no data.
4. A browser's event stream cannot show a token, so a page exchanges it for a cookie, which is signed with a key of this
   process, holds for 12 hours, and ends with the tokens that it was given for.

Tokens are compared in constant time, and guessing is slowed down for everybody.
"""

import hashlib
import hmac
import ipaddress
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import NamedTuple
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Middleware

from tracefwd.console import page
from tracefwd.receiver.credentials import Credentials
from tracefwd.settings import AdminSettings

COOKIE = "tracefwd_session"
SESSION_S = 12 * 3600
TRIES_MAX, TRIES_S = 10, 60.0
# Probes, and what the page that asks for a token is drawn with.
OPEN_PATHS = frozenset({"/livez", "/readyz", "/metrics", *page.ASSETS})
# Open beyond loopback, too, as long as nobody names a token: they were before there was a console.
_OLD_PATHS = frozenset({"/version", "/config", "/ledger", "/rejected", "/sources"})
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cache-Control": "no-store",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ApiError(Exception):
    """What the API answers instead of a document; ``error`` is one of the names in ``openapi.yaml``."""

    def __init__(self, status: int, error: str, message: str, todo: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.error = error
        self.message = message
        self.todo = todo

    def answer(self) -> web.Response:
        headers = {"WWW-Authenticate": 'Bearer realm="tracefwd"'} if self.status == 401 else {}
        document = {"error": self.error, "message": self.message, "todo": self.todo}
        return web.json_response(document, status=self.status, headers=headers)


class Pass(NamedTuple):
    """How a request proved that it may look; ``expires_at`` (epoch seconds) of a session."""

    by: str
    expires_at: float | None = None


class Access:
    """``credentials`` are the admin port's; ``is_loopback``: nobody beyond this machine reaches it."""

    def __init__(
        self,
        settings: AdminSettings,
        credentials: Credentials,
        *,
        is_loopback: bool,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._credentials = credentials
        self._is_loopback = is_loopback
        self._has_authorities = bool(settings.tls.client_ca_file)
        self._hosts = {"localhost", *(name.lower() for name in settings.allowed_hosts)}
        self._now_s = now_s
        self._key = secrets.token_bytes(32)
        self._tries: deque[float] = deque(maxlen=TRIES_MAX)

    @property
    def asks_for_token(self) -> bool:
        return self._credentials.tokens is not None

    @property
    def _is_asking(self) -> bool:
        return self.asks_for_token or self._has_authorities

    def guard(
        self, shown_refusal: Callable[[web.Request, ApiError], web.StreamResponse]
    ) -> Middleware:
        """The middleware; ``shown_refusal`` makes the answer."""

        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            if request.path in OPEN_PATHS:
                return await handler(request)
            try:
                self._check_origin(request)
                if (request.method, request.path) != ("POST", "/api/v1/session"):
                    self.admit(request)
                answer = await handler(request)
            except ApiError as refusal:
                answer = shown_refusal(request, refusal)
            except web.HTTPNotFound:
                answer = shown_refusal(request, ApiError(404, "not_found", "there is no such page"))
            except web.HTTPMethodNotAllowed as wrong:
                allowed = ", ".join(sorted(wrong.allowed_methods))
                problem = ApiError(405, "method", f"{request.method} is not possible here", allowed)
                answer = shown_refusal(request, problem)
                answer.headers["Allow"] = allowed
            if not answer.prepared:
                for name, value in HEADERS.items():
                    answer.headers.setdefault(name, value)
            return answer

        return guard

    def admit(self, request: web.Request) -> Pass:
        """How it may look, or a ``ApiError``."""
        if not self._is_asking:
            if self._is_loopback or request.path in _OLD_PATHS:
                return Pass("loopback")
            raise ApiError(
                403,
                "off",
                "console and API are off, because the admin port is reachable from other machines and asks for nothing",
                "set admin.token_file (or admin.tls.client_ca_file), or listen on loopback (admin.listen)",
            )
        if self._has_authorities and _shows_certificate(request):
            return Pass("certificate")
        scheme, _, shown = request.headers.get("Authorization", "").partition(" ")
        if shown and scheme.lower() == "bearer":
            self.check_token(shown.strip())
            return Pass("token")
        session = request.cookies.get(COOKIE, "")
        expires_at = self._expiry_of(session)
        if expires_at is not None:
            return Pass("session", expires_at)
        if not self.asks_for_token:
            raise ApiError(
                403, "off", "no certificate was shown", "show one of admin.tls.client_ca_file"
            )
        raise ApiError(
            401,
            "no_token",
            "console and API want a token of admin.token_file",
            "send 'Authorization: Bearer TOKEN', or sign in at /",
        )

    def check_token(self, shown: str) -> None:
        """A ``ApiError`` unless it is one of ours."""
        now = self._now_s()
        while self._tries and not 0 <= now - self._tries[0] < TRIES_S:
            self._tries.popleft()
        if len(self._tries) >= TRIES_MAX:
            raise ApiError(
                429, "too_many_tries", "too many wrong tokens within a minute", "wait for a minute"
            )
        given = shown.encode("utf-8", "replace")
        tokens = self._credentials.tokens or ()
        if not any([hmac.compare_digest(given, token) for token in tokens]):  # noqa: C419 - all
            self._tries.append(now)
            raise ApiError(
                401, "wrong_token", "this is no token of admin.token_file", "see the file's content"
            )

    def open_session(self, answer: web.StreamResponse, *, secure: bool) -> None:
        expires_at = int(self._now_s()) + SESSION_S
        answer.set_cookie(
            COOKIE,
            f"{expires_at}.{self._sign(expires_at)}",
            max_age=SESSION_S,
            path="/",
            httponly=True,
            samesite="Strict",
            secure=secure,
        )

    def _expiry_of(self, session: str) -> float | None:
        text, _, signature = session.partition(".")
        if not (text.isascii() and text.isdigit() and len(text) < 12) or not self.asks_for_token:
            return None
        expires_at = int(text)
        good = hmac.compare_digest(self._sign(expires_at).encode(), signature.encode())
        return float(expires_at) if good and self._now_s() < expires_at else None

    def _sign(self, expires_at: int) -> str:
        """Over the tokens, too: when they are exchanged, sessions end."""
        tokens = hashlib.sha256(b"\n".join(self._credentials.tokens or ())).digest()
        text = b"%d:" % expires_at + tokens
        return hmac.new(self._key, text, hashlib.sha256).hexdigest()

    def _check_origin(self, request: web.Request) -> None:
        """A stranger's page in a browser that can reach us is no reader of ours."""
        elsewhere = request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin")
        # A link on another page may lead here; nothing else may come from there.
        follows = request.headers.get("Sec-Fetch-Mode") == "navigate" and request.method == "GET"
        if elsewhere and not follows:
            raise ApiError(403, "wrong_host", "a page of another site asked", "open / itself")
        if self._is_asking or not self._is_loopback:
            return
        host = urlsplit(f"//{request.host}").hostname or ""
        if host.lower() not in self._hosts and not _is_address(host):
            raise ApiError(
                403,
                "wrong_host",
                "this name is not one under which the admin port is known",
                "use localhost or an address, or add the name to admin.allowed_hosts",
            )


def _shows_certificate(request: web.Request) -> bool:
    """OpenSSL has held it against the authorities."""
    transport = request.transport
    return transport is not None and bool(transport.get_extra_info("peercert"))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


__all__ = ["COOKIE", "HEADERS", "OPEN_PATHS", "Access", "ApiError", "Pass"]
