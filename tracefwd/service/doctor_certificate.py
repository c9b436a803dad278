"""When a certificate ends, and whether a file of ours can be used: what Python's ssl tells of verified peers only.

A certificate's time is at a fixed place in its DER (RFC 5280, section 4.1):

    SEQUENCE { SEQUENCE { [0] version?, serial, algorithm, issuer, SEQUENCE { notBefore, notAfter }, … }, … }
"""

import re
import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from tracefwd.service.doctor_findings import Finding, Rows
from tracefwd.settings import Settings

# Renewal is somebody's job for the next weeks; certificates of a mesh that live for days are renewed by themselves.
DAYS_MIN = 14.0
_DAY_S = 86_400.0
_FIRST = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_VERSION, _UTC_TIME = 0xA0, 0x17


def ends_at(der: bytes) -> float:
    """Seconds since 1970; ``ValueError`` for what is no certificate."""
    _, certificate, _ = _element(der)
    _, rest, _ = _element(certificate)
    tag, _, after = _element(rest)
    rest = after if tag == _VERSION else rest
    for _ in ("serial", "algorithm", "issuer"):
        _, _, rest = _element(rest)
    _, validity, _ = _element(rest)
    _, _, rest = _element(validity)
    tag, text, _ = _element(rest)
    year = "%y" if tag == _UTC_TIME else "%Y"
    written = text.decode("ascii").replace("Z", "+0000")
    return datetime.strptime(written, f"{year}%m%d%H%M%S%z").timestamp()


def _element(data: bytes) -> tuple[int, bytes, bytes]:
    """Tag, content, and what follows."""
    if len(data) < 2:
        raise ValueError("cut short")
    size, start = data[1], 2
    if size & 0x80:
        start += size & 0x7F
        size = int.from_bytes(data[2:start], "big")
    if start + size > len(data):
        raise ValueError("cut short")
    return data[0], data[start : start + size], data[start + size :]


def judged(rows: Rows, check: str, der: bytes, fine: str) -> Finding:
    """How long it still holds."""
    ends = ends_at(der)
    days = (ends - time.time()) / _DAY_S
    day = datetime.fromtimestamp(ends, UTC).date()
    if days < 0:
        return rows.cross(check, f"{fine}; the certificate has ended ({day})", "renew it")
    detail = f"{fine}; the certificate ends in {days:,.0f} days ({day})"
    if days < DAYS_MIN:
        return rows.warning(check, detail, "see that it is renewed in time")
    return rows.ok(check, detail)


def own(rows: Rows, settings: Settings) -> Iterator[Finding]:
    """The certificates that tracefwd itself shows: at its ports, and to targets that ask for one."""
    pairs = [
        ("receiver.tls", settings.receiver.tls.cert_file, settings.receiver.tls.key_file),
        ("admin.tls", settings.admin.tls.cert_file, settings.admin.tls.key_file),
    ]
    pairs += [
        (f"target {target.name}", target.cert_file, target.key_file)
        for target in settings.exporter.targets
    ]
    for name, cert_file, key_file in pairs:
        if cert_file:
            yield _of_files(rows, f"certificate of {name}", cert_file, key_file)


def _of_files(rows: Rows, check: str, cert_file: str, key_file: str) -> Finding:
    todo = "give a certificate (PEM, its chain behind it) and its own key without a passphrase"
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert_file, key_file, password=_no_password)
        first = _FIRST.search(Path(cert_file).read_bytes())
    except (OSError, ValueError) as error:  # SSLError is an OSError
        is_file = isinstance(error, OSError) and not isinstance(error, ssl.SSLError)
        what = error.strerror if is_file else "no certificate in PEM with its key"  # type: ignore[union-attr]
        return rows.cross(check, f"{cert_file} and its key cannot be used ({what})", todo)
    assert first is not None, "OpenSSL has found one"
    der = ssl.PEM_cert_to_DER_cert(first[0].decode("ascii"))
    return judged(rows, check, der, f"{cert_file} fits its key")


def _no_password() -> str:
    """Instead of OpenSSL's question on the terminal."""
    raise ValueError("the key is encrypted")


__all__ = ["DAYS_MIN", "ends_at", "judged", "own"]
