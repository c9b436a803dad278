"""The files of a scraped source: secrets that rotate, certificates that are renewed.

Read when a scrape needs them, so that Kubernetes may exchange them at any time; certificates are read again only when a
file has changed, because that costs milliseconds.  No message holds a file's content.
"""

import os
import ssl
from pathlib import Path

from tracefwd.errors import TracefwdError
from tracefwd.exporter.trust import trusting
from tracefwd.service.masking import mask_secret_path
from tracefwd.settings import TlsConfigSettings

# A service account's token has 1 to 4 KiB.
_SECRET_BYTES_MAX = 64 * 2**10


class ScrapeFailed(TracefwdError):  # noqa: N818 - it says what happened to the scrape
    """A scrape came to nothing, or to less than the whole.  ``reason`` is a label value, the message for a person."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def read_secret(path: str, option: str) -> str:
    """A file's content without blanks around it.  Raises ``ScrapeFailed``."""
    shown = f"{option} {mask_secret_path(path)!r}"
    try:
        with Path(path).open("rb") as stream:
            data = stream.read(_SECRET_BYTES_MAX + 1)
    except (OSError, ValueError) as error:
        what = error.strerror if isinstance(error, OSError) else "no path"
        raise ScrapeFailed("file", f"{shown} cannot be read ({what})") from None
    try:
        text = data.strip().decode()
    except UnicodeDecodeError:
        text = ""
    if not text or not text.isprintable() or len(data) > _SECRET_BYTES_MAX:
        raise ScrapeFailed("file", f"{shown} holds no secret: one line of text is expected")
    return text


class TlsFiles:
    """A TLS context that follows its files."""

    def __init__(self, settings: TlsConfigSettings) -> None:
        self._settings = settings
        self._paths = [
            path for path in (settings.ca_file, settings.cert_file, settings.key_file) if path
        ]
        self._seen: list[tuple[int, int, int]] | None = None
        self._context: ssl.SSLContext | None = None

    def context(self, *, needed: bool) -> ssl.SSLContext | None:
        """Raises ``ScrapeFailed`` when a file cannot be used now.

        Also for an http URL, which needs none: a file that is named and not there is a mistake that should show.
        """
        if not needed and not self._paths:
            return None
        seen = [self._look(path) for path in self._paths]
        if self._context is None or seen != self._seen:
            self._context = self._make()
            self._seen = seen
        return self._context

    def _look(self, path: str) -> tuple[int, int, int]:
        try:
            found = os.stat(path)  # noqa: PTH116 - asked at each scrape
        except (OSError, ValueError) as error:
            raise self._unusable(path, error) from None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def _make(self) -> ssl.SSLContext:
        settings = self._settings
        path = settings.ca_file
        try:
            context = trusting(path)
            if settings.cert_file:
                path = settings.cert_file
                context.load_cert_chain(
                    settings.cert_file, settings.key_file, password=_no_password
                )
        except (OSError, ValueError) as error:  # SSLError is an OSError
            raise self._unusable(path, error) from None
        if settings.insecure_skip_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def _unusable(self, path: str, error: Exception) -> ScrapeFailed:
        option = next(
            name
            for name in ("ca_file", "cert_file", "key_file")
            if getattr(self._settings, name) == path
        )
        what = "no PEM that can be used"
        if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
            what = error.strerror or what
        shown = mask_secret_path(path)
        return ScrapeFailed("file", f"tls_config.{option} {shown!r} cannot be used ({what})")


def _no_password() -> str:
    """Instead of OpenSSL's question on the terminal."""
    raise ValueError("the key is encrypted")


__all__ = ["ScrapeFailed", "TlsFiles", "read_secret"]
