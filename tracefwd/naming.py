"""Wavefront's rules on names, shared by everybody who must foresee what a line may hold.

Pure, and the same rules as the Java proxy's and SDK's sanitisers (lengths count UTF-16 units there, so
they do here).  What is written where is the affair of ``exporter/lines.py`` and, for scraped points, of
``metricspath/points.py``.
"""

import re
from functools import lru_cache

from tracefwd.limits import MEMO_ENTRIES_MAX, TAG_KEY_LENGTH_MAX

_KEY_BAD = re.compile(r"[^A-Za-z0-9,\-._]")
_STEM_BAD = re.compile(r"[^A-Za-z0-9_.\-~]")
_DELTAS = ("\u2206", "\u0394")
# Character.isWhitespace: no no-break spaces (U+00A0, U+2007, U+202F), and no U+0085.
_WHITESPACE = (
    "\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f \u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006"
    "\u2008\u2009\u200a\u2028\u2029\u205f\u3000"
)
# What cleaning leaves as it is and nobody takes for a name: a sign of a delta and nothing behind it.
LONE_DELTAS = frozenset(_DELTAS)


def is_blank(text: str) -> bool:
    """Empty, or nothing but Java's white space: as a value it is refused."""
    return not text.strip(_WHITESPACE)


def clean_key(key: str) -> str:
    """A tag key, source or metric stem as Wavefront's alphabet allows it; ``key`` must not be empty.

    A leading ``~``, a leading delta sign, and a ``~`` after the delta pass.
    """
    return _clean_short(key) if len(key) <= TAG_KEY_LENGTH_MAX else _clean(key)


def _clean(key: str) -> str:
    lead = 0
    if key[0] in _DELTAS:
        lead = 2 if key[1:2] == "~" else 1
    elif key[0] == "~":
        lead = 1
    # An astral character is two UTF-16 units, hence two dashes.
    return key[:lead] + _KEY_BAD.sub(lambda m: "--" if ord(m[0]) > 0xFFFF else "-", key[lead:])


# A mesh has some fifty keys; remembering them makes this ten times faster on the paths that look at every tag.
_clean_short = lru_cache(maxsize=MEMO_ENTRIES_MAX)(_clean)


def clean_stem(application: str, service: str, operation: str) -> str:
    """``<application>.<service>.<operation>`` as the Java reporter writes it inside a RED metric's name."""
    joined = _clean(f"{application}.{service}.{operation}")
    return _STEM_BAD.sub("_", joined)


def length(text: str) -> int:
    """In UTF-16 units."""
    if text.isascii():
        return len(text)
    return len(text) + sum(1 for char in text if char > "\uffff")


def cut(text: str, length_max: int) -> str:
    """The longest head of ``text`` within ``length_max`` UTF-16 units that splits no character."""
    if text.isascii() or length(text) <= length_max:
        return text[:length_max]
    units = 0
    for index, char in enumerate(text):
        units += 2 if char > "\uffff" else 1
        if units > length_max:
            return text[:index]
    return text


def uuid(hex_id: str) -> str:
    """A hex id of up to 32 digits, padded to the left, as 8-4-4-4-12."""
    h = hex_id.zfill(32)
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"


def guard_end(text: str) -> str:
    """``text`` so that a quote may follow: Wavefront's parser takes a backslash before it for an escape.

    One full stop is added after the last backslash; nothing is taken away.
    """
    return text + "." if text.endswith("\\") else text


def quoted(text: str) -> str:
    """``text`` as it stands between quotes: Wavefront's parsers know these two escapes and no other."""
    if '"' in text or "\n" in text:
        return text.replace('"', '\\"').replace("\n", "\\n")
    return text
