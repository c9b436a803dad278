"""Wavefront's limits and alphabet, as the vendor's Java parts apply them.

Written a second time on purpose: the exporter has its own copy, and a mistake there must be seen here.

Where the Java proxy's built-in limit and the backend's default differ, the backend's default refuses, unless a
recording of the real proxy shows that it sends such lines: sources of 129 to 1023 characters, and span logs above
32,768 bytes.  Those are accepted with a warning; ``backend_limits`` refuses them as well.

Pure.  All lengths are in UTF-16 units, because Java counts those.
"""

import re
from dataclasses import dataclass

# Character.isWhitespace: the space separators without the three non-breaking ones, and ASCII's own.
WHITESPACE = (
    " \t\n\x0b\x0c\r\x1c\x1d\x1e\x1f\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2008\u2009"
    "\u200a\u2028\u2029\u205f\u3000"
)
# What the proxy's HTTP side trims from a line: Guava's idea of whitespace.
HTTP_TRIM = (
    " \t\n\x0b\x0c\r\x85\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
# What its TCP side trims: String.trim().
TCP_TRIM = "".join(map(chr, range(0x21)))

_VISIBLE = re.compile(f"[^{re.escape(WHITESPACE)}]")
_NAME = re.compile("(?:[\u2206\u0394]~?|~)?[A-Za-z0-9,\\-./_]*")
# UUID.fromString takes shorter groups, too.
_UUID = re.compile(r"[0-9a-fA-F]{1,16}(?:-[0-9a-fA-F]{1,16}){4}")
DELTAS = ("\u2206", "\u0394")


class Refused(Exception):  # noqa: N818 - a verdict, not a fault of ours
    """A line that Wavefront would not take.

    ``reason`` comes from a closed set (the proxy's WF code where it has one), the message from the line.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Lengths in UTF-16 units, sizes in bytes; the numbers are the spec's (section 3.5)."""

    span_tags_max: int = 50
    span_name_max: int = 128
    span_key_max: int = 128
    span_value_max: int = 128
    span_source_max: int = 1023
    # Above it: a warning.
    source_backend_max: int = 128
    span_log_bytes_max: int | None = None
    span_log_backend_bytes_max: int = 32_768
    future_ms_max: int = 24 * 3600 * 1000
    point_tags_max: int = 20
    point_name_max: int = 256
    point_key_max: int = 64
    point_value_max: int = 255
    # A pair's key and value together must stay below it.
    point_pair_below: int = 255

    @classmethod
    def chosen(cls, *, tags_max: int, backend_limits: bool) -> "Limits":
        """``backend_limits`` turns the two warnings that are limits of the backend into refusals."""
        if not backend_limits:
            return cls(span_tags_max=tags_max)
        return cls(span_tags_max=tags_max, span_source_max=128, span_log_bytes_max=32_768)


def length(text: str) -> int:
    """In UTF-16 units; a lone surrogate is one."""
    if text.isascii():
        return len(text)
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def head(text: str, units: int) -> str:
    """The first UTF-16 units; half a pair at the end becomes ``?``, as in the proxy's output."""
    cut = text.encode("utf-16-le", "surrogatepass")[: units * 2].decode("utf-16-le", "replace")
    return cut.replace("\ufffd", "?") if cut[-1:] == "\ufffd" else cut


def is_blank(text: str) -> bool:
    """As Java means it: a no-break space is not blank, an ideographic space is."""
    return _VISIBLE.search(text) is None


def is_name(text: str) -> bool:
    """Whether ``text`` may be a metric's name or a tag's key."""
    return text != "" and text not in DELTAS and _NAME.fullmatch(text) is not None


def is_uuid(text: str) -> bool:
    return _UUID.fullmatch(text) is not None
