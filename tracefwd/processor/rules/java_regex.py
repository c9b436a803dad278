"""A Java regular expression as one for RE2 with the same meaning, or a refusal that says where and why.

RE2 runs in linear time because it has no back-references, lookaround, atomic groups and possessive quantifiers;
these are refused.  What is only written differently is translated: ``\\Q..\\E``, ``(?<name>``, ``\\h \\v \\R \\s``,
``\\uXXXX``, octal and control characters, POSIX names, class unions and intersections, the dot (Java's stops at five
kinds of line end), ``\\Z``.

Accepted with a known difference: ``\\b`` looks at ASCII words only; ``(?i)`` folds all of Unicode where Java folds
ASCII unless ``(?u)`` is given; ``(?m)`` knows ``\\n`` as the only line end; ``\\R`` may match half of ``\\r\\n`` where
that helps; ``$`` and ``\\Z`` do not look past a final line end (values of spans hold no line ends: mapping writes them
as backslash and n).  Pure; ``regex.py`` compiles the outcome.
"""

import string

from tracefwd.processor.rules import java_classes
from tracefwd.processor.rules.dialect import Refused, Scanner

_GROUP_REFUSED = {
    "(?=": ("lookahead", "match the text itself and keep it with a group"),
    "(?!": ("negative lookahead", "use a second rule, or 'match'"),
    "(?<=": ("lookbehind", "match the text itself and keep it with a group"),
    "(?<!": ("negative lookbehind", "use a second rule, or 'match'"),
    "(?>": ("an atomic group", "use (?: ; it cannot run slowly here"),
}
_FLAGS = frozenset("imsu")
_QUANTIFIERS = frozenset("*+?")
_LINE_BREAK = "(?:\\r\\n|[\\n-\\r\\x{85}\\x{2028}\\x{2029}])"
# RE2 takes no more repetitions than this.
_REPETITIONS_MAX = 1_000


def translate(pattern: str, *, ignore_case: bool = False) -> str:
    """``pattern`` for RE2; raises ``Refused``."""
    body = _Translation(_unquoted(pattern)).run()
    return f"(?i){body}" if ignore_case else body


def _unquoted(pattern: str) -> str:
    """Without ``\\Q..\\E``: its text escaped."""
    pieces: list[str] = []
    scanner = Scanner(pattern)
    while not scanner.done():
        if scanner.take("\\Q"):
            stop = pattern.find("\\E", scanner.at)
            quoted = pattern[scanner.at :] if stop < 0 else pattern[scanner.at : stop]
            scanner.at = len(pattern) if stop < 0 else stop + 2
            pieces += [f"\\{char}" if char in string.punctuation else char for char in quoted]
        elif scanner.peek() == "\\":
            pieces.append(scanner.text[scanner.at : scanner.at + 2])
            scanner.at += 2
        else:
            pieces.append(scanner.next())
    return "".join(pieces)


class _Translation:
    """One pass over one expression.  ``dot_all`` is a stack: a flag lasts until its group ends."""

    def __init__(self, pattern: str) -> None:
        self.scanner = Scanner(pattern)
        self.pieces: list[str] = []
        self.dot_all = [False]
        self.names: set[str] = set()
        # Whether a quantifier may come next.
        self.atom = False

    def run(self) -> str:
        scanner = self.scanner
        while not scanner.done():
            start = scanner.at
            char = scanner.next()
            if char == "\\":
                self._escape(start)
            elif char == "[":
                self._add(java_classes.bracketed(scanner))
            elif char == "(":
                self._open(start)
            elif char == ")":
                self._close(start)
            elif char in _QUANTIFIERS or char == "{":
                self._quantifier(start, char)
            elif char == ".":
                self._add("(?s:.)" if self.dot_all[-1] else java_classes.DOT)
            elif char in "|^":
                self._add(char, atom=False)
            elif char == "$":
                self._add(char)
            else:
                self._add(char if char.isalnum() else java_classes.code_point(ord(char)))
        if len(self.dot_all) > 1:
            raise Refused(0, "a group is not closed", "close it with ), or write \\(")
        return "".join(self.pieces)

    def _add(self, piece: str, *, atom: bool = True) -> None:
        self.pieces.append(piece)
        self.atom = atom

    def _escape(self, start: int) -> None:
        scanner = self.scanner
        letter = scanner.peek()
        if letter in {"p", "P"}:
            scanner.next()
            item, _ = java_classes.named(scanner, negative=letter == "P")
            self._add(f"[{item}]")
            return
        known = java_classes.escaped_set(letter)
        if known is not None:
            scanner.next()
            self._add(f"[{java_classes.text_of(known)}]")
        elif letter in {"b", "B", "A", "z", "Z", "R"}:
            scanner.next()
            if letter == "b" and scanner.peek() == "{":
                raise Refused(start, "\\b{g} is not supported", "use \\b")
            self._add({"Z": "\\z", "R": _LINE_BREAK}.get(letter, f"\\{letter}"), atom=letter == "R")
        elif letter in set("123456789k"):
            raise Refused(start, "back-references are not supported", "write the text out again")
        elif letter in {"G", "X", "N"}:
            raise Refused(start, f"\\{letter} is not supported", "")
        else:
            self._add(java_classes.code_point(scanner.escape()))

    def _open(self, start: int) -> None:
        scanner = self.scanner
        for opening, (what, suggestion) in _GROUP_REFUSED.items():
            if scanner.text.startswith(opening, start):
                raise Refused(start, f"{what} is not supported", suggestion)
        self.dot_all.append(self.dot_all[-1])
        if not scanner.take("?"):
            self._add("(", atom=False)
        elif scanner.take("<"):
            name = scanner.until(">")
            if not (name.isascii() and name.isalnum() and name[0].isalpha()):
                raise Refused(start, f"'{name}' cannot name a group", "use letters and digits")
            if name in self.names:
                raise Refused(start, f"two groups are named '{name}'", "rename one")
            self.names.add(name)
            self._add(f"(?P<{name}>", atom=False)
        elif scanner.take(":"):
            self._add("(?:", atom=False)
        else:
            self._flags(start)

    def _flags(self, start: int) -> None:
        """``(?im-s)`` to the end of the surrounding group, or ``(?im-s:...)``."""
        scanner = self.scanner
        written: list[str] = []
        off = False
        while (letter := scanner.next()) not in {")", ":"}:
            if letter == "-" and not off:
                off = True
                written.append("-")
            elif letter in _FLAGS:
                # RE2 always folds Unicode; (?u) alone does nothing in Java.
                if letter != "u":
                    written.append(letter)
                if letter == "s":
                    self.dot_all[-1] = not off
            else:
                raise Refused(start, f"flag {letter} is not supported", "use i, m or s")
        kept = "".join(written).removesuffix("-")
        if letter == ":":
            self._add(f"(?{kept}:", atom=False)
            return
        flag = self.dot_all.pop()
        self.dot_all[-1] = flag
        if kept:
            self._add(f"(?{kept})", atom=False)

    def _close(self, start: int) -> None:
        if len(self.dot_all) == 1:
            raise Refused(start, "there is no group to close", "write \\) for a parenthesis")
        self.dot_all.pop()
        self._add(")")

    def _quantifier(self, start: int, char: str) -> None:
        scanner = self.scanner
        if not self.atom:
            raise Refused(
                start,
                f"nothing that repeats stands before '{char}'",
                f"write \\{char} for the character",
            )
        text = char
        if char == "{":
            bounds = scanner.until("}")
            low, comma, high = bounds.partition(",")
            if not low.isdecimal() or (high and not high.isdecimal()):
                raise Refused(start, f"'{{{bounds}}}' is no repetition", "write \\{ for a brace")
            if int(high or low) > _REPETITIONS_MAX or (high and int(high) < int(low)):
                raise Refused(
                    start, f"'{{{bounds}}}' is not supported", f"at most {_REPETITIONS_MAX}"
                )
            text = f"{{{int(low)}{comma}{high and int(high)}}}"
        if scanner.take("+"):
            raise Refused(
                start, "possessive quantifiers are not supported", "leave the second + away"
            )
        if scanner.take("?"):
            text += "?"
        self._add(text, atom=False)
