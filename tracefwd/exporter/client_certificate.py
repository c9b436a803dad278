"""What a target that asks for a certificate is shown: a chain and its key, in two files that are renewed at any time.

A renewed pair holds for connections made from then on.  One that cannot be used stops new requests until it is mended,
as a token that cannot be read does.  Nothing here logs, and no message holds a file's content.
"""

import ssl
from pathlib import Path

from tracefwd.errors import TracefwdError
from tracefwd.settings import TargetSettings

Stamp = tuple[tuple[int, int, int], ...]


class CertificateError(TracefwdError):
    """The files cannot be used right now; the message says what to mend."""


class ClientCertificate:
    """``cert_file`` and ``key_file`` of a target, whose settings may name none."""

    __slots__ = ("_paths", "_stamp")

    def __init__(self, settings: TargetSettings) -> None:
        self._paths = [settings.cert_file, settings.key_file] if settings.cert_file else []
        self._stamp: Stamp = ()

    def renewed(self) -> bool:
        """Whether there is a pair that ``load`` or ``read`` has not seen; costs two calls of ``stat``.

        Raises ``CertificateError``.
        """
        return bool(self._paths) and self._look() != self._stamp

    def load(self, context: ssl.SSLContext) -> None:
        """Shows the pair in handshakes of ``context`` from now on.  Raises ``CertificateError``."""
        if not self._paths:
            return
        stamp = self._look()
        chain, key = self._paths
        try:
            context.load_cert_chain(chain, key, password=_no_password)
        except (OSError, ValueError) as problem:  # SSLError is an OSError
            raise self._unusable(problem) from None
        self._stamp = stamp

    def read(self) -> tuple[bytes, bytes] | tuple[None, None]:
        """Key and chain, each in PEM.  Raises ``CertificateError``."""
        if not self._paths:
            return None, None
        self.load(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))  # whether they can be used
        chain, key = self._paths
        try:
            return Path(key).read_bytes(), Path(chain).read_bytes()
        except OSError as problem:
            raise self._unusable(problem) from None

    def _look(self) -> Stamp:
        try:
            found = [Path(path).stat() for path in self._paths]
        except OSError as problem:
            raise self._unusable(problem) from None
        return tuple((each.st_ino, each.st_mtime_ns, each.st_size) for each in found)

    def _unusable(self, problem: Exception) -> CertificateError:
        what = "no certificate in PEM with its key, without a passphrase"
        if isinstance(problem, OSError) and not isinstance(problem, ssl.SSLError):
            what = problem.strerror or what
        cert_file = self._paths[0]
        return CertificateError(
            f"cert_file {cert_file} and key_file cannot be used ({what}): give readable PEM files"
        )


def _no_password() -> str:
    """Instead of OpenSSL's question on the terminal."""
    raise ValueError("the key is encrypted")


__all__ = ["CertificateError", "ClientCertificate"]
