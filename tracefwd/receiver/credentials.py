"""A port's secrets: tokens and TLS, from files that may be exchanged while we run.

1. At the start a file that cannot be used is a ``StartError``; later, what held before goes on and the log says why.
2. Files are looked at by identity, time and size, because Kubernetes exchanges a mounted secret by a link.
3. Sessions are not resumed: each connection proves itself against the authorities that hold now.
4. No content of these files, and nothing of what a client showed, is ever logged or answered.
"""

import logging
import os
import ssl
from pathlib import Path

from tracefwd.errors import StartError
from tracefwd.settings import AdminSettings, ReceiverSettings

_log = logging.getLogger("tracefwd.receiver")

# A token is looked for in each of them at each new head.
_TOKENS_MAX = 64
_Seen = tuple[tuple[int, int, int] | None, ...]


class Credentials:
    """``tokens`` is None when none is asked for, ``tls`` when the port speaks plain text.

    ``section`` names the port's options for people.  ``demands``: whether whoever shows no certificate is sent away
    where authorities are named; else somebody looks later.
    """

    def __init__(
        self,
        settings: ReceiverSettings | AdminSettings,
        section: str = "receiver",
        *,
        demands: bool = True,
    ) -> None:
        self._section = section
        self._demands = demands
        self._token_file = settings.token_file
        self._files = settings.tls
        self._seen: _Seen = ()
        self.tokens: tuple[bytes, ...] | None = None
        self.tls: ssl.SSLContext | None = None
        self.are_asked_for = bool(self._token_file or self._files.cert_file)

    def load(self) -> None:
        """Read everything; ``StartError`` says what cannot be used."""
        seen = self._look()
        tokens = _read_tokens(self._token_file, self._section) if self._token_file else None
        tls = self._make_context() if self._files.cert_file else None
        self._seen, self.tokens, self.tls = seen, tokens, tls

    def refresh(self) -> bool:
        """Read again what has changed; whether anything has.  Never raises."""
        seen = self._look()
        if seen == self._seen:
            return False
        try:
            self.load()
        except StartError as error:
            self._seen = seen
            _log.error("%s; what held before goes on", error)  # it names no secret
            return False
        _log.info("tokens and certificates of the %s port were read again", self._section)
        return True

    def _look(self) -> _Seen:
        files = self._files
        names = (self._token_file, files.cert_file, files.key_file, files.client_ca_file)
        return tuple(_identity(name) for name in names if name)

    def _make_context(self) -> ssl.SSLContext:
        files = self._files
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
        context.num_tickets = 0
        context.set_alpn_protocols(["http/1.1"])
        try:
            # A key with a passphrase would otherwise ask for it on the terminal.
            context.load_cert_chain(files.cert_file, files.key_file, password=lambda: "")
        except (OSError, ValueError) as error:
            raise StartError(
                f"{self._section}.tls: cert_file and key_file cannot be used ({_reason(error)}); give a PEM chain "
                "and its key without a passphrase"
            ) from error
        if files.client_ca_file:
            try:
                context.load_verify_locations(files.client_ca_file)
            except (OSError, ValueError) as error:
                raise StartError(
                    f"{self._section}.tls.client_ca_file cannot be used ({_reason(error)}); give PEM certificates"
                ) from error
            context.verify_mode = ssl.CERT_REQUIRED if self._demands else ssl.CERT_OPTIONAL
        return context


def _read_tokens(path: str, section: str) -> tuple[bytes, ...]:
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise StartError(
            f"{section}.token_file cannot be read ({error.strerror}); give a file that this user may read"
        ) from error
    tokens = tuple(line for line in map(bytes.strip, text.splitlines()) if line)
    if not tokens or len(tokens) > _TOKENS_MAX:
        raise StartError(
            f"{section}.token_file has {len(tokens)} tokens; write 1 to {_TOKENS_MAX}, one a line"
        )
    if any(byte <= 0x20 or byte >= 0x7F for token in tokens for byte in token):
        raise StartError(
            f"{section}.token_file: a token has visible ASCII characters only; write each alone on its line"
        )
    return tokens


def _identity(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - asked each second
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _reason(error: Exception) -> str:
    """OpenSSL's word or the operating system's; neither quotes the file."""
    if isinstance(error, ssl.SSLError):
        return error.reason or "no readable PEM"
    return getattr(error, "strerror", None) or type(error).__name__


__all__ = ["Credentials"]
