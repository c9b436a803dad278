"""Wavefront's text, cut into tokens by the rules of the vendor's own parser.

    token   quoted | "=" | "#" | bare
    quoted  from a quote (either kind) to the next one of its kind that no backslash precedes
    bare    anything else up to a space, a tab or "="

``\\"`` inside quotes is the only escape; a backslash is nothing special, so that a value that ends in one swallows
its closing quote.  A token does not remember whether it was quoted: ``"="`` in quotes separates as ``=`` does, and a
tag key of digits ends the tags.  Strictness would hide such accidents; the point here is to see what Wavefront sees.

Pure.
"""

import re

from tracefwd.emulator.rules import WHITESPACE, Refused

_TOKEN = re.compile(
    f"[{re.escape(WHITESPACE)}]*+"
    r"""(?:"((?:[^"\\]++|\\"|\\(?!"))*+)"|'((?:[^'\\]++|\\'|\\(?!'))*+)'|([=#]|[^"'=#][^ =\t]*+))"""
)
_BLANK_REST = re.compile(f"[{re.escape(WHITESPACE)}]*+")
# Double.parseDouble without hexadecimal numbers, which nobody sends.
_DOUBLE = re.compile(
    r"[\x00-\x20]*([+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|NaN|Infinity))[fFdD]?[\x00-\x20]*"
)
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
LONG_MAX = 2**63 - 1
INT_MAX = 2**31 - 1

Pairs = list[tuple[str, str]]


class Tokens:
    """A line's tokens, front to back.  ``peek`` is the next one, "" included; None at the end."""

    __slots__ = ("_at", "_line", "peek")

    def __init__(self, line: str) -> None:
        self._line = line
        self._at = 0
        self.peek: str | None = self._advance()

    def next(self) -> str | None:
        token = self.peek
        if token is not None:
            self.peek = self._advance()
        return token

    def _advance(self) -> str | None:
        match = _TOKEN.match(self._line, self._at)
        if match is None:
            rest = _BLANK_REST.match(self._line, self._at)
            if rest is not None and rest.end() == len(self._line):
                return None
            raise Refused("syntax", "Unmatched quote character")
        self._at = match.end()
        double, single, bare = match.groups()
        if bare is not None:
            return str(bare)
        if double is not None:
            return str(double.replace('\\"', '"') if "\\" in double else double)
        return str(single.replace("\\'", "'"))

    def text(self, what: str) -> str:
        token = self.next()
        if token is None:
            raise Refused("syntax", f"Expected {what}, found end of line")
        return token

    def pair(self) -> tuple[str, str]:
        """``key = value``."""
        key = self.text("a tag")
        sign = self.next()
        if sign != "=":
            found = f"nothing found after '{key}'" if sign is None else f"found {sign}"
            raise Refused("syntax", f"Tag keys and values must be separated by '=', {found}")
        value = self.next()
        if value is None:
            raise Refused("syntax", f"Value missing for {key}")
        return key, value

    def time(self) -> float:
        """A number that begins with a digit, in whatever unit."""
        token = self.peek
        if token is None or not token[:1].isdecimal():
            found = "end of line" if token is None else token
            raise Refused("syntax", f"Expected timestamp, found {found}")
        self.next()
        return double(token, "timestamp")

    def end(self) -> None:
        if self.peek is not None:
            raise Refused("syntax", f"Unexpected extra input: {self.peek}")


def double(token: str, what: str) -> float:
    match = _DOUBLE.fullmatch(token)
    if match is None:
        raise Refused("syntax", f"Invalid {what}: {token}")
    return float(match[1])


def integer(token: str, what: str) -> int:
    """A 32-bit one."""
    number = int(token) if _INTEGER.fullmatch(token) else INT_MAX + 1
    if not -INT_MAX - 1 <= number <= INT_MAX:
        raise Refused("syntax", f"Expected: {what}, got: {token}")
    return number


def whole(number: float) -> int:
    """Java's cast to long: towards zero, held at both ends, NaN is 0."""
    if number != number:
        return 0
    if abs(number) >= LONG_MAX:
        return LONG_MAX if number > 0 else -LONG_MAX - 1
    return int(number)
