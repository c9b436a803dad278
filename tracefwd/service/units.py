"""How values with a unit are written: durations, sizes, addresses, URLs, proxy versions.

Rules:

1. A number of seconds or bytes never stands alone; ``0`` is the one exception, it is the same in every unit.
2. What ``format_*`` writes, ``parse_*`` reads back to the same value.
3. Every refusal is a ``UnitError`` whose text says what is wrong and what to write instead.  It repeats nothing of
   the given text except digits, because that text may hold a password.

Pure.
"""

import ipaddress
import re
from collections.abc import Mapping
from decimal import Decimal
from urllib.parse import urlsplit

_DURATION_US = {"us": 1, "ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000}
_SIZE_BYTES = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
# A year: above it a time-out is a mistake in the unit, and some timers of the kernel overflow.
DURATION_S_MAX = 8_760 * 3600
# A pebibyte: above every disk that could stand behind one process.
SIZE_BYTES_MAX = 2**50
# More digits than any bound needs; keeps a pasted file out of the number parser.
_TEXT_LENGTH_MAX = 40

_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:us|ms|s|m|h))+")
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(us|ms|s|m|h)")
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)([KMGT]i?B|B)")
_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?")
_FOUR_NUMBERS = re.compile(r"[0-9]+(?:\.[0-9]+){3}")
_VERSION = re.compile(r"[0-9]{1,4}(?:\.[0-9]{1,4}){1,3}")

CURRENT_VERSION = "current"
# The oldest Wavefront proxy that acknowledges lines over HTTP as tracefwd expects it.
PROXY_VERSION_MIN = (4, 35)


class UnitError(ValueError):
    """A value is not written as its unit wants; the text says how to write it."""


def parse_duration(text: str) -> float:
    """Seconds; units us, ms, s, m, h, also strung together as in ``1h30m``."""
    if text == "0":
        return 0.0
    if len(text) > _TEXT_LENGTH_MAX or not _DURATION.fullmatch(text):
        raise UnitError(f"not a duration; {_duration_suggestion(text)}")
    us = sum(
        (Decimal(n) * _DURATION_US[unit] for n, unit in _DURATION_PART.findall(text)), Decimal(0)
    )
    if us != us.to_integral_value():
        raise UnitError("finer than a microsecond; write whole microseconds, such as 500us")
    if us > DURATION_S_MAX * 1_000_000:
        raise UnitError("longer than a year; write at most 8760h")
    return float(us / 1_000_000)


def _duration_suggestion(text: str) -> str:
    if len(text) <= _TEXT_LENGTH_MAX and _NUMBER.fullmatch(text):
        return f"a bare number has no unit; write {text}s or {text}ms"
    return "write it as 500ms, 5s, 2m or 1h"


def format_duration(seconds: float) -> str:
    """In the largest unit that shows a whole number."""
    us = Decimal(repr(seconds)) * 1_000_000
    for unit in ("h", "m", "s", "ms", "us"):
        count, rest = divmod(us, _DURATION_US[unit])
        if us and not rest:
            return f"{count:f}{unit}"
    return f"{Decimal(repr(seconds)):f}s" if us else "0s"


def parse_size(text: str) -> int:
    """Bytes; KB, MB, GB, TB are decimal, KiB, MiB, GiB, TiB binary."""
    if text == "0":
        return 0
    match = _SIZE.fullmatch(text) if len(text) <= _TEXT_LENGTH_MAX else None
    if match is None:
        raise UnitError(f"not a size; {_size_suggestion(text)}")
    count = Decimal(match[1]) * _SIZE_BYTES[match[2]]
    if count != count.to_integral_value():
        raise UnitError("not a whole number of bytes; write it with a smaller unit")
    if count > SIZE_BYTES_MAX:
        raise UnitError("larger than 1024TiB; write a smaller size")
    return int(count)


def _size_suggestion(text: str) -> str:
    if len(text) <= _TEXT_LENGTH_MAX and _NUMBER.fullmatch(text):
        return f"a bare number has no unit; write {text}B, {text}KiB or {text}MiB"
    return "write it as 4096B, 64KB, 16MiB or 1GiB"


def format_size(count: int) -> str:
    """In the largest unit, binary before decimal, that shows a whole number."""
    for unit in ("TiB", "GiB", "MiB", "KiB", "TB", "GB", "MB", "KB"):
        if count and count % _SIZE_BYTES[unit] == 0:
            return f"{count // _SIZE_BYTES[unit]}{unit}"
    return f"{count}B"


def counted(number: int, one: str, many: str = "") -> str:
    """``1 line``, ``1,000 lines``; ``many`` where it is not ``one`` with an s."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def parse_address(text: str) -> tuple[str, int]:
    """``HOST:PORT`` or ``[IPv6]:PORT``; port 0 lets the kernel choose.  The host comes without brackets."""
    host, colon, port = text.rpartition(":")
    if not colon or not host:
        bare = port if _is_port(port) else "9411"
        raise UnitError(
            f"not HOST:PORT; write 0.0.0.0:{bare} for all interfaces or 127.0.0.1:{bare} for this machine"
        )
    if not _is_port(port):
        raise UnitError("its port is no number from 0 to 65535; write HOST:PORT")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if not _is_ipv6(host):
            raise UnitError("what stands in brackets is no IPv6 address; write [::1]:9411")
    elif ":" in host:
        raise UnitError("an IPv6 address needs brackets; write [::1]:9411")
    elif not _is_host(host):
        raise UnitError("its host is no name or IP address; write 0.0.0.0:9411 or [::1]:9411")
    return host, int(port)


def format_address(host: str, port: int) -> str:
    """The inverse of ``parse_address``."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 65_535


def _is_host(text: str) -> bool:
    """A name, or an address of IPv4: four numbers are no name."""
    if not _FOUR_NUMBERS.fullmatch(text):
        return bool(_HOST_NAME.fullmatch(text))
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def check_query_url(text: str, examples: Mapping[str, str]) -> None:
    """The same for a URL with a query, which may hold blanks and whatever else is printable."""
    example = " or ".join(examples.values())
    head, mark, query = text.partition("?")
    if any(not char.isprintable() for char in query):
        raise UnitError(f"a URL holds no control characters; write {example}")
    if mark and "#" in query:
        raise UnitError("a '#' would end its query; write %23")
    check_url(head, examples)


def check_url(text: str, examples: Mapping[str, str]) -> None:
    """Refuses what no client could open.  ``examples`` maps each allowed scheme to a URL worth suggesting."""
    example = " or ".join(examples.values())
    if any(char.isspace() or not char.isprintable() for char in text):
        raise UnitError(f"a URL holds no blanks or control characters; write {example}")
    scheme, mark, _ = text.partition("://")
    if not mark or scheme.lower() not in examples:
        allowed = ", ".join(f"{name}://" for name in examples)
        raise UnitError(f"its scheme is not one of {allowed}; write {example}")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise UnitError(f"its host or port cannot be read; write {example}") from None
    if not host or not (_is_host(host) or _is_ipv6(host)):
        raise UnitError(f"it has no readable host; write {example}")
    # A colon with nothing behind it is what a scheme written twice leaves.
    if port == 0 or parts.netloc.endswith(":"):
        raise UnitError(f"it has no port behind its colon; write {example}")
    if parts.query or parts.fragment:
        raise UnitError(f"it must end before '?' or '#'; write {example}")
    if scheme.lower() == "tcp":
        if port is None:
            raise UnitError(f"a tcp:// URL needs a port; write {examples['tcp']}")
        if parts.path not in ("", "/") or "@" in parts.netloc:
            raise UnitError(f"a tcp:// URL is a host and a port only; write {examples['tcp']}")


def parse_version(text: str) -> tuple[int, ...] | None:
    """A Wavefront proxy's version as numbers; None is the current one."""
    if text == CURRENT_VERSION:
        return None
    if not _VERSION.fullmatch(text):
        raise UnitError("not a version; write current, or a version such as 4.35 or 13.8")
    numbers = tuple(int(part) for part in text.split("."))
    if numbers < PROXY_VERSION_MIN:
        raise UnitError("older than 4.35, the oldest that tracefwd can feed; write 4.35 or later")
    return numbers


__all__ = [
    "CURRENT_VERSION",
    "UnitError",
    "check_query_url",
    "check_url",
    "counted",
    "format_address",
    "format_duration",
    "format_size",
    "parse_address",
    "parse_duration",
    "parse_size",
    "parse_version",
]
