"""Reads Java's properties format, in which the Wavefront proxy's ``wavefront.conf`` is written.

``key=value``, ``key: value`` or ``key value``; ``#`` and ``!`` begin comment lines; a backslash at the end continues a
line; ``\\t \\n \\r \\f \\uXXXX`` are escapes, and before any other character a backslash means that character.  The
file is ISO-8859-1, as in Java.  Nothing here knows what a key means, and nothing here repeats a value: it may be a
secret.

Pure.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_BLANKS = " \t\f"
_LINE_END = re.compile(r"\r\n|\r|\n")
# A key ends at the first of these that has no backslash before it.
_KEY = re.compile(r"(?:\\.|[^\\ \t\f=:])*", re.DOTALL)
_SEPARATOR = re.compile(r"[ \t\f]*[=:]?[ \t\f]*")
_ESCAPE = re.compile(r"\\(u[0-9A-Fa-f]{4}|.)", re.DOTALL)
_ESCAPED = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}


@dataclass(frozen=True)
class Entry:
    """One setting; ``line`` is where it begins, from 1."""

    key: str
    value: str = field(repr=False)
    line: int


def read_properties(data: bytes) -> tuple[list[Entry], list[int]]:
    """The settings in the order of the file, and the lines with an unreadable ``\\u`` escape."""
    text = data.removeprefix(b"\xef\xbb\xbf").decode("latin-1")
    entries: list[Entry] = []
    unreadable: list[int] = []
    for number, line in _logical_lines(text):
        key = _KEY.match(line)
        assert key is not None  # it matches the empty text, too
        separator = _SEPARATOR.match(line, key.end())
        assert separator is not None
        try:
            entry = Entry(_unescape(key[0]), _unescape(line[separator.end() :]), number)
        except ValueError:
            unreadable.append(number)
            continue
        entries.append(entry)
    return entries, unreadable


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines with their continuations joined and without comments; the number is the first one's."""
    number, parts = 0, list[str]()
    for count, raw in enumerate(_LINE_END.split(text), 1):
        line = raw.lstrip(_BLANKS)
        if not parts:
            if not line or line[0] in "#!":
                continue
            number = count
        backslashes = len(line) - len(line.rstrip("\\"))
        # An even number is so many escaped backslashes.
        continued = backslashes % 2 == 1
        parts.append(line[:-1] if continued else line)
        if not continued:
            if logical := "".join(parts):
                yield number, logical
            parts = []
    if logical := "".join(parts):
        yield number, logical


def _unescape(text: str) -> str:
    return _ESCAPE.sub(_character, text)


def _character(match: re.Match[str]) -> str:
    code = match[1]
    if len(code) == 1:
        if code == "u":
            raise ValueError("four hexadecimal digits must follow \\u")
        return _ESCAPED.get(code, code)
    return chr(int(code[1:], 16))


__all__ = ["Entry", "read_properties"]
