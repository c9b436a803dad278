"""What a command shows to a port that asks for a token, and whom it trusts there."""

import ssl
from pathlib import Path

from tracefwd.errors import ConfigError, StartError
from tracefwd.exporter.trust import trusting
from tracefwd.service.masking import mask_secret_path


def token_of(path: Path | None) -> str:
    """The first of the tokens in ``--token-file``, "" without one; ``StartError`` for a file that has none."""
    if path is None:
        return ""
    try:
        words = path.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no ASCII text"
        shown = mask_secret_path(str(path))
        raise StartError(f"--token-file {shown}: {reason}; give the token's file") from error
    if not words:
        raise StartError(f"--token-file {path}: it is empty; write the token into it")
    return words[0]


def tls_to(
    url: str, ca_file: str | None, cert_file: str | None, option: str
) -> ssl.SSLContext | None:
    """For ``url``, the value of ``option``; None without TLS.

    ``StartError`` for files that cannot be used, ``ConfigError`` for files that have no use.
    """
    if not url.lower().startswith("https://"):
        if ca_file is not None or cert_file is not None:
            reason = f"--ca-file and --cert-file are for https: write {option} https://HOST:PORT"
            raise ConfigError([reason])
        return None
    try:
        tls = trusting(ca_file)
        if cert_file is not None:
            tls.load_cert_chain(cert_file, password=lambda: "")
    except OSError as error:
        reason = getattr(error, "reason", None) or error.strerror or type(error).__name__
        raise StartError(f"--ca-file or --cert-file cannot be used: {reason}") from error
    return tls


__all__ = ["tls_to", "token_of"]
