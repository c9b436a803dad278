"""The thirteen ways a rule compares two texts, with Java's idea of letter case.

``against`` is for a right side that is known at start, which all of them take; ``between`` is for one that is filled
in for each subject, which the two kinds of patterns do not take: a client's value must not become an expression.
"""

from collections.abc import Callable

from tracefwd.processor.rules.dialect import Refused
from tracefwd.processor.rules.regex import compile_java

Compare = Callable[[str, str], bool]

_PLAIN: dict[str, Compare] = {
    "=": str.__eq__,
    "equals": str.__eq__,
    "startsWith": str.startswith,
    "endsWith": str.endswith,
    "contains": str.__contains__,
}
_IGNORE_CASE = "IgnoreCase"
_PATTERNS = ("matches", "regexMatch")
OPERATORS = frozenset(_PLAIN) | {
    f"{name}{suffix}"
    for name in ("equals", "startsWith", "endsWith", "contains", *_PATTERNS)
    for suffix in ("", _IGNORE_CASE)
}


def folded(text: str) -> str:
    """``text`` so that Java's IgnoreCase comparisons are equality: each character to upper, then to lower case."""
    if text.isascii():
        return text.lower()
    return "".join(map(_folded_char, text))


def _folded_char(char: str) -> str:
    upper = char.upper()
    # Java folds character by character; one that would become two stays.
    # Only the dotted capital I becomes two in Python, its plain i and the dot; in Java it becomes the i.
    return (upper if len(upper) == 1 else char).lower()[0]


def between(operator: str) -> Compare:
    """Compares two texts; raises ``Refused`` for the operators that take patterns."""
    base = operator.removesuffix(_IGNORE_CASE)
    if base in _PATTERNS:
        raise Refused(
            0, f"{operator} wants a text without {{{{...}}}}", "compare with equals or contains"
        )
    plain = _PLAIN[base]
    if base == operator:
        return plain
    return lambda left, right: plain(folded(left), folded(right))


def against(operator: str, right: str) -> Callable[[str], bool]:
    """Compares a text with ``right``; raises ``Refused``."""
    base = operator.removesuffix(_IGNORE_CASE)
    ignore_case = base != operator
    if base == "regexMatch":
        return compile_java(right, ignore_case=ignore_case).full.__getitem__
    if base == "matches":
        return _glob(right, ignore_case=ignore_case)
    plain = _PLAIN[base]
    if ignore_case:
        right = folded(right)
        return lambda left: plain(folded(left), right)
    return lambda left: plain(left, right)


def _glob(pattern: str, *, ignore_case: bool) -> Callable[[str], bool]:
    """``*`` stands for any text; the pattern is trimmed, and so is the value if case is ignored and only the
    ends of the pattern have a ``*``: as in the proxy."""
    pattern = pattern.strip()
    if not pattern:
        raise Refused(0, "the pattern is empty", 'use isEmpty\'s equal: = ""')
    pattern = pattern.lower() if ignore_case else pattern
    first, *middle = pattern.split("*")
    last = middle.pop() if middle else None
    trim = ignore_case and "*" not in pattern[1:-1]

    def matches(text: str) -> bool:
        if ignore_case:
            text = text.lower().strip() if trim else text.lower()
        if last is None:
            return text == first
        if not text.startswith(first) or len(text) < len(first) + len(last):
            return False
        at = len(first)
        stop = len(text) - len(last)
        for part in middle:
            found = text.find(part, at, stop)
            if found < 0:
                return False
            at = found + len(part)
        return text.endswith(last)

    return matches
