"""What can be said of an expression without running it, in a tenth of the time.

Most expressions in rules are texts with ``.*`` around them: ``segments`` finds these, and whether a value matches is
then a matter of finding texts.  ``needle`` is a text without which nothing can be found.  Both are read off the Java
expression and give up (None, "") at whatever they do not know.
"""

from collections.abc import Callable, Sequence

_META = frozenset("\\^$.|?*+()[]{}")
_OPTIONAL = frozenset("*?{")


def segments(pattern: str) -> list[str] | None:
    """The texts between ``.*`` if the expression has nothing else (``^`` and ``$`` at its ends aside)."""
    found = [""]
    at = 1 if pattern.startswith("^") else 0
    end = len(pattern)
    while at < end:
        char = pattern[at]
        if char == "." and pattern[at + 1 : at + 2] == "*":
            found.append("")
            at += 2
        elif char == "\\" and _is_punctuation(pattern[at + 1 : at + 2]):
            found[-1] += pattern[at + 1]
            at += 2
        elif char == "$" and at == end - 1:
            at += 1
        elif char in _META:
            return None
        else:
            found[-1] += char
            at += 1
        # A quantifier of the lot is none that we know.
        if pattern[at : at + 1] in {"*", "+", "?", "{"}:
            return None
    return found


def _is_punctuation(char: str) -> bool:
    return "!" <= char <= "~" and not char.isalnum()


def whole_match(texts: Sequence[str]) -> Callable[[str], bool]:
    """Whether a value is the texts with anything between them."""
    first, *middle = texts
    if not middle:
        return lambda value: value == first
    last = middle.pop()
    ends = len(first) + len(last)

    def matches(value: str) -> bool:
        if len(value) < ends or not value.startswith(first) or not value.endswith(last):
            return False
        at, stop = len(first), len(value) - len(last)
        for text in middle:
            found = value.find(text, at, stop)
            if found < 0:
                return False
            at = found + len(text)
        return True

    return matches


def needle(pattern: str) -> str:
    """The longest text that every find of the expression holds, or ""."""
    if "|" in pattern or "(?" in pattern or "\\Q" in pattern:
        return ""
    # ``opened``: how many runs there were when each group began.
    runs: list[str] = [""]
    opened: list[int] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        following = at + 1
        literal = ""
        group = -1
        if char == "\\":
            following = at + 2
            literal = pattern[at + 1 : at + 2]
            if not _is_punctuation(literal):
                # \x41 and its like are longer than two: not known.
                if literal not in {"d", "D", "w", "W", "s", "S", "b", "B", "h", "v", "R"}:
                    return ""
                literal = ""
        elif char == "[":
            following = _class_end(pattern, at)
            if following < 0:
                return ""
        elif char == "{":
            following = pattern.find("}", at) + 1
            if not following:
                return ""
        elif char == "(":
            opened.append(len(runs))
        elif char == ")":
            if not opened:
                return ""
            group = opened.pop()
        elif char not in _META:
            literal = char
        after = pattern[following : following + 1]
        if after in _OPTIONAL and after:
            literal = ""
            if group >= 0:
                del runs[group:]
        if literal:
            runs[-1] += literal
        if not literal or after == "+":
            runs.append("")
        at = following
    return max(runs, key=len)


def _class_end(pattern: str, start: int) -> int:
    """Where a simple class ends; -1 for a nested or escaped-in one that has more to it."""
    end = pattern.find("]", start + 2)
    inside = pattern[start + 1 : end]
    if end < 0 or "[" in inside or "&&" in inside or inside.endswith("\\") or inside == "^":
        return -1
    return end + 1
