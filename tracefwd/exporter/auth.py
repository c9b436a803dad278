"""Credentials: what stands in the Authorization header, and how to come by it.

Three ways: none (a proxy without ``authMethod``), a token in a file, or a token that CSP gives in exchange for an
API token or for an OAuth app's secret.

1. Files are read again when they change (Kubernetes rotates mounted secrets), and after the target refused a token.
2. At most one exchange is in flight; a token that is still good is used while the next one is fetched.
3. No secret leaves this module but through ``header`` and ``secrets`` (the latter to take them out of texts).
   Nothing here logs.
4. Whatever goes wrong is ``CredentialsError``: the batch stays, somebody may mend it.
"""

import asyncio
from base64 import b64encode
from pathlib import Path
from typing import Protocol
from urllib.parse import urlencode

import msgspec

from tracefwd.errors import TracefwdError
from tracefwd.exporter.endpoint import shown
from tracefwd.exporter.http_client import HttpClient, UnreachableError
from tracefwd.settings import TargetSettings

# A JWT with many claims has a few KiB; a file above this is the wrong file.
_TOKEN_BYTES_MAX = 65_536
# Between two exchanges, whatever came of the first: a target that refuses each new token, or a CSP that is
# down, is asked at most this often, however many batches wait.
EXCHANGE_PAUSE_S = 1.0
_CSP_API_TOKEN_PATH = "/csp/gateway/am/api/auth/api-tokens/authorize"  # noqa: S105  # a path
_CSP_APP_PATH = "/csp/gateway/am/api/auth/authorize"


class CredentialsError(TracefwdError):
    """There is no header to send right now; the message says what to mend, without secrets."""


class Credentials(Protocol):
    async def header(self) -> str:
        """The Authorization header's value, "" for none.  Raises ``CredentialsError``."""

    def refused(self, header: str) -> None:
        """The target did not accept ``header``: do not use it from memory again."""

    def secrets(self) -> tuple[str, ...]:
        """Texts that must not be shown."""

    def advice(self) -> str:
        """What a person should look at when the target refuses our credentials."""

    async def close(self) -> None: ...


def credentials(settings: TargetSettings, client: HttpClient) -> Credentials:
    """What the target's settings ask for."""
    if settings.token_file:
        return FileToken(settings.token_file)
    if settings.kind == "direct" and (settings.csp_token_file or settings.csp_app_id):
        return CspToken(settings, client)
    return NoCredentials(has_headers=bool(settings.headers or settings.header_files))


class NoCredentials:
    def __init__(self, *, has_headers: bool = False) -> None:
        """``has_headers``: an operator's own headers may be what a target lets in or not."""
        self._has_headers = has_headers

    async def header(self) -> str:
        return ""

    def refused(self, header: str) -> None:
        """Nothing to forget."""

    def secrets(self) -> tuple[str, ...]:
        return ()

    def advice(self) -> str:
        if self._has_headers:
            return "check the values in headers and header_files"
        return "it wants a token: set token_file"

    async def close(self) -> None:
        """Nothing to close."""


class SecretFile:
    """One secret in a file, read when it is first wanted and whenever the file has changed."""

    __slots__ = ("_blanks", "_path", "_stamp", "_value")

    def __init__(self, path: str, *, blanks: bool = False) -> None:
        """``blanks``: there may be some inside."""
        self._path = Path(path)
        self._blanks = blanks
        self._stamp: tuple[int, int, int] | None = None
        self._value = ""

    def read(self) -> str:
        """The secret without white space around it.  Costs a ``stat``.  Raises ``CredentialsError``."""
        try:
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_ino, status.st_size)
            if stamp != self._stamp:
                self._value = self._clean()
                self._stamp = stamp
        except OSError as problem:
            raise CredentialsError(
                f"{self._path} cannot be read ({problem.strerror}): mount the secret there, readable for this user"
            ) from problem
        return self._value

    def forget(self) -> None:
        """Read the file again next time, changed or not (a clock's tick may hide a change)."""
        self._stamp = None

    def known(self) -> str:
        return self._value

    def __str__(self) -> str:
        return str(self._path)

    def _clean(self) -> str:
        path = self._path
        with path.open("rb") as file:
            raw = file.read(_TOKEN_BYTES_MAX).strip()
        if not raw:
            raise CredentialsError(f"{path} is empty: put the token there")
        # A header takes visible ASCII; anything else is a wrong file (and would not reach the target whole).
        lowest = 0x20 if self._blanks else 0x21
        if any(byte < lowest or byte >= 0x7F for byte in raw):
            # Not "token:", behind which logs hide a word.
            raise CredentialsError(
                f"{path} holds no token, which is one line of visible ASCII; write it there alone"
            )
        return raw.decode("ascii")


class FileToken:
    """A token from a file."""

    def __init__(self, path: str) -> None:
        self._file = SecretFile(path)

    async def header(self) -> str:
        return f"Bearer {self._file.read()}"

    def refused(self, header: str) -> None:
        self._file.forget()

    def secrets(self) -> tuple[str, ...]:
        return (self._file.known(),)

    def advice(self) -> str:
        return f"check the token in {self._file} (it is read again at each attempt)"

    async def close(self) -> None:
        """Nothing to close."""


class FreeHeaders:
    """Further headers that an operator wants in each request; their values are secrets like tokens."""

    __slots__ = ("_files", "_fixed")

    def __init__(self, settings: TargetSettings) -> None:
        self._fixed = settings.headers
        self._files = {
            name: SecretFile(path, blanks=True) for name, path in settings.header_files.items()
        }

    def read(self) -> dict[str, str]:
        """By name.  Costs a ``stat`` for each that is in a file.  Raises ``CredentialsError``."""
        return self._fixed | {name: file.read() for name, file in self._files.items()}

    def refused(self) -> None:
        """The target did not accept them: the files are read again."""
        for file in self._files.values():
            file.forget()

    def secrets(self) -> tuple[str, ...]:
        """Texts that must not be shown."""
        return (*self._fixed.values(), *(file.known() for file in self._files.values()))


class Grant(msgspec.Struct):
    """What CSP answers; ``expires_in`` is in seconds."""

    access_token: str
    expires_in: float


def refresh_after_s(lifetime_s: float) -> float:
    """When to fetch the next token: 30 s before the end of a short life (under 10 min), else 3 min before.

    Never before half of the life, so that a very short one does not mean exchanges without pause.  (The Java
    SDK waits 60 s there, beyond the token's end.)
    """
    margin_s = 30.0 if lifetime_s < 600.0 else 180.0
    return max(lifetime_s - margin_s, lifetime_s / 2)


class CspToken:
    """An access token that CSP gives for an API token, or for an OAuth app's id and secret."""

    def __init__(self, settings: TargetSettings, client: HttpClient) -> None:
        self._client = client
        self._app_id = settings.csp_app_id
        self._org_id = settings.csp_org_id
        self._by_api_token = bool(settings.csp_token_file)
        self._file = SecretFile(settings.csp_token_file or settings.csp_app_secret_file)
        path = _CSP_API_TOKEN_PATH if self._by_api_token else _CSP_APP_PATH
        self._url = settings.csp_base.rstrip("/") + path
        self._exchange: asyncio.Task[None] | None = None
        self._header = ""
        self._problem = ""
        self._refresh_at = self._expires_at = self._exchange_at = 0.0

    async def header(self) -> str:
        loop = asyncio.get_running_loop()
        now = loop.time()
        if now >= self._refresh_at and now >= self._exchange_at and self._exchange is None:
            self._exchange = loop.create_task(self._run())
        if now >= self._expires_at and self._exchange is not None:
            # Shielded: a request that is given up must not take the token of the others with it.
            await asyncio.shield(self._exchange)
        if loop.time() >= self._expires_at:
            raise CredentialsError(self._problem)
        return self._header

    def refused(self, header: str) -> None:
        self._file.forget()
        if (
            header == self._header
        ):  # and not that of a request that was sent before the last exchange
            self._refresh_at = self._expires_at = 0.0
            self._problem = "the target refused the token that CSP gave; " + self.advice()

    def secrets(self) -> tuple[str, ...]:
        return (self._header.removeprefix("Bearer "), self._file.known(), self._basic())

    def advice(self) -> str:
        what = "" if self._by_api_token else "csp_app_id and "
        return f"check {what}the secret in {self._file}"

    async def close(self) -> None:
        if self._exchange is not None:
            self._exchange.cancel()
            await asyncio.gather(self._exchange, return_exceptions=True)

    async def _run(self) -> None:
        """One exchange; its failure is kept for those who wait."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            grant = await self._ask()
        except CredentialsError as problem:
            self._problem = str(problem)
        else:
            self._header = f"Bearer {grant.access_token}"
            self._refresh_at = started + refresh_after_s(grant.expires_in)
            self._expires_at = started + grant.expires_in
            self._problem = f"the token that CSP gave has expired after {grant.expires_in:g} s"
        finally:
            self._exchange = None
            self._exchange_at = loop.time() + EXCHANGE_PAUSE_S

    async def _ask(self) -> Grant:
        secret = self._file.read()
        headers = {
            "Content-Type": "application/x-www-form-urlencoded",
            "Accept": "application/json",
        }
        if self._by_api_token:
            form = {"grant_type": "api_token", "refresh_token": secret}
        else:
            form = {"grant_type": "client_credentials"}
            if self._org_id:
                form["orgId"] = self._org_id
            headers["Authorization"] = f"Basic {self._basic()}"
        where = f"CSP at {shown(self._url)}"
        try:
            answer = await self._client.post(self._url, urlencode(form).encode(), headers)
        except UnreachableError as failure:
            raise CredentialsError(f"{where}: {failure}; check csp_base") from failure
        if answer.status // 100 != 2:
            raise CredentialsError(f"{where} answers HTTP {answer.status}; {self.advice()}")
        return self._granted(where, answer.text)

    @staticmethod
    def _granted(where: str, text: str) -> Grant:
        try:
            grant = msgspec.json.decode(text, type=Grant)
        except msgspec.DecodeError:
            # Not "from": the decoder's message may quote the token.
            raise CredentialsError(f"{where} gave no access_token with expires_in") from None
        token = grant.access_token
        if not (token.isascii() and token.isprintable() and token.strip() == token and token):
            raise CredentialsError(f"{where} gave a token that no header can carry")
        return grant

    def _basic(self) -> str:
        return b64encode(f"{self._app_id}:{self._file.known()}".encode()).decode()
