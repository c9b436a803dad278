"""Globs as the collector's filters read them, without the faults of its library.

``*`` and ``**`` any run, empty too   ``?`` one character   ``[abc]`` ``[!abc]`` one of (or none of) these
``[a-z]`` one range, alone   ``{x,y}`` alternatives, nested at will   ``\\`` takes what follows as it is

Always the whole text, case-sensitive; dots are characters like others.  A comma separates inside braces and, as the
collector joins a list's entries to ``{p1,p2}``, at the top of any entry of a list of two or more.

Unlike there, what cannot be meant is refused: a brace that is not closed or not opened, a class that is not closed,
is empty or mixes a range with more, a backslash at the end.  Matching is by RE2: linear whatever the patterns.  Pure.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from tracefwd.errors import TracefwdError
from tracefwd.metricspath.memo import remember

# Longest pattern that is taken, and deepest nesting: operators write 40 characters and one level.
_LENGTH_MAX = 2_000
_DEPTH_MAX = 20


class GlobError(TracefwdError):
    """A pattern that is not one; the message says what is wrong with it, not which list it is in."""


class Globs:
    """One list of patterns, compiled to one expression.  Raises ``GlobError``."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self.patterns = tuple(patterns)
        # A list without entries matches nothing.
        self.any_text = "*" in self.patterns or "**" in self.patterns
        self._memo: dict[str, bool] = {}
        self._expression: Any = _compile(self.patterns) if self.patterns else None

    def matches(self, text: str) -> bool:
        known = self._memo.get(text)
        if known is None:
            # Lone surrogates are in no decoded body, but RE2 would refuse them.
            known = self._expression is not None and bool(
                self._expression.fullmatch(text.encode("utf-8", "replace"))
            )
            remember(self._memo, text, known, length=len(text))
        return known


def problems(patterns: Iterable[str]) -> list[str]:
    """What is wrong with each bad pattern of a list, as sentences; empty if the list can be used."""
    texts = list(patterns)
    found = []
    for text in texts:
        try:
            _Reader(text, is_list=len(texts) > 1).read()
        except GlobError as error:
            found.append(f"{text!r} is no glob: {error}")
    return found


def _compile(patterns: Sequence[str]) -> Any:
    import re2  # only who filters pays for the engine

    options = re2.Options()
    options.log_errors = False
    options.dot_nl = True
    # Expressions of a few hundred patterns; RE2's own default is the same.
    options.max_mem = 8 * 2**20
    source = "|".join(_Reader(text, is_list=len(patterns) > 1).read() for text in patterns)
    try:
        return re2.compile(f"(?:{source})".encode(), options)
    except re2.error as error:
        raise GlobError("the list is too large for one expression; write fewer patterns") from error


class _Reader:
    """One pattern -> the source of an RE2 expression."""

    def __init__(self, text: str, *, is_list: bool) -> None:
        self._text = text
        self._at = 0
        self._is_list = is_list

    def read(self) -> str:
        if len(self._text) > _LENGTH_MAX:
            raise GlobError(f"it is longer than {_LENGTH_MAX:,} characters")
        source = self._alternatives(0)
        if self._at < len(self._text):
            raise GlobError("a } has no { before it; write \\} for the character")
        return source

    def _next(self) -> str:
        char = self._text[self._at : self._at + 1]
        self._at += 1
        return char

    def _alternatives(self, depth: int) -> str:
        """Up to the closing brace or the end; commas separate inside braces and in lists."""
        parts = [""]
        while self._at < len(self._text):
            char = self._text[self._at]
            if char == "}":
                break
            self._at += 1
            if char == "," and (depth or self._is_list):
                parts.append("")
            else:
                parts[-1] += self._item(char, depth)
        return "|".join(parts) if len(parts) == 1 or not depth else f"(?:{'|'.join(parts)})"

    def _item(self, char: str, depth: int) -> str:
        if char == "*":
            return ".*"
        if char == "?":
            return "."
        if char == "[":
            return self._class()
        if char == "{":
            return self._braces(depth)
        if char == "\\":
            if self._at >= len(self._text):
                raise GlobError("it ends in a backslash; write \\\\ for the character")
            char = self._next()
        return re.escape(char)

    def _braces(self, depth: int) -> str:
        if depth >= _DEPTH_MAX:
            raise GlobError(f"more than {_DEPTH_MAX} braces inside each other")
        inner = self._alternatives(depth + 1)
        if self._next() != "}":
            raise GlobError("a { is not closed; write \\{ for the character")
        return inner

    def _class(self) -> str:
        negation = "^" if self._text[self._at : self._at + 1] == "!" else ""
        self._at += len(negation)
        low, dash = self._text[self._at : self._at + 1], self._text[self._at + 1 : self._at + 2]
        if dash == "-" and low:
            high = self._text[self._at + 2 : self._at + 3]
            if self._text[self._at + 3 : self._at + 4] != "]" or not high:
                raise GlobError("a range such as [a-z] stands alone in its brackets")
            if high < low:
                raise GlobError(f"the range {low}-{high} runs backwards")
            self._at += 4
            return f"[{negation}{re.escape(low)}-{re.escape(high)}]"
        chars = self._class_chars()
        if not chars:
            raise GlobError("a class [...] is empty; write \\[ for the character")
        return f"[{negation}{''.join(map(re.escape, chars))}]"

    def _class_chars(self) -> str:
        chars = ""
        while True:
            char = self._next()
            if char == "\\":
                char = self._next()
            elif char == "]":
                return chars
            if not char:
                raise GlobError("a [ is not closed; write \\[ for the character")
            chars += char
