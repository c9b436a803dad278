"""Texts of rules with parts to fill in: ``{{spanName}}``, ``{{sourceName}}``, ``{{tagKey}}``, ``$1``, ``${name}``.

A filled-in value is a text and nothing else.  The proxy puts it into a regular expression's replacement, where a
``$`` or a backslash of a client throws or takes effect; that defect is not copied.
"""

import re
from collections.abc import Sequence

from tracefwd.processor.rules.dialect import Refused
from tracefwd.processor.rules.regex import Pattern, encoded
from tracefwd.processor.rules.subject import Kind, Subject, Text, reader

_PLACEHOLDER = re.compile(r"\{\{(.+?)\}\}")
_GROUP_NAME = re.compile(r"\{([A-Za-z][A-Za-z0-9]*)\}")


def placeholder(kind: Kind, name: str) -> Text:
    """What ``{{name}}`` stands for; a key may be quoted."""
    name = name.strip()
    if len(name) > 1 and name[0] == name[-1] and name[0] in "\"'":
        name = name[1:-1]
    return reader(kind, name)


def pieces(kind: Kind, text: str) -> list[str | Text]:
    """``text`` cut into texts and readers.  ``{{}}`` is a text."""
    parts: list[str | Text] = []
    last = 0
    for match in _PLACEHOLDER.finditer(text):
        if match.start() > last:
            parts.append(text[last : match.start()])
        parts.append(placeholder(kind, match[1]))
        last = match.end()
    if last < len(text):
        parts.append(text[last:])
    return parts


def filler(parts: Sequence[str | Text]) -> Text:
    """Fills ``pieces`` in."""
    if len(parts) == 1 and not isinstance(parts[0], str):
        return parts[0]
    if all(isinstance(part, str) for part in parts):
        constant = "".join(part for part in parts if isinstance(part, str))
        return lambda _: constant

    def fill(subject: Subject) -> str:
        return "".join([part if isinstance(part, str) else part(subject) for part in parts])

    return fill


class Replacement:
    """What ``$1 {{tag}}`` becomes: texts, group numbers, and readers that are called once per replacement."""

    __slots__ = ("_parts", "constant")

    def __init__(self, parts: list[str | int | Text]) -> None:
        self._parts: list[bytes | int | Text] = []
        for part in parts:
            last = self._parts[-1] if self._parts else None
            if not isinstance(part, str):
                self._parts.append(part)
            elif isinstance(last, bytes):
                self._parts[-1] = last + encoded(part)
            else:
                self._parts.append(encoded(part))
        self.constant = not any(callable(part) for part in parts)

    def parts_for(self, subject: Subject | None) -> list[bytes | int]:
        """As ``Pattern.replace_all`` takes them.  A constant replacement needs no subject."""
        parts: list[bytes | int] = []
        for part in self._parts:
            if isinstance(part, (bytes, int)):
                parts.append(part)
            else:
                assert subject is not None, "what is filled in comes from a subject"
                parts.append(encoded(part(subject)))
        return parts


def replacement(kind: Kind | None, text: str, pattern: Pattern) -> Replacement:
    """``text`` as Java's ``Matcher.replaceAll`` reads it for ``pattern``; raises ``Refused``.

    Without a kind of subject there are no placeholders.
    """
    parts: list[str | int | Text] = []
    for piece in [text] if kind is None else pieces(kind, text):
        if isinstance(piece, str):
            parts += _literal(piece, pattern)
        else:
            parts.append(piece)
    if text.endswith("\\") and (len(text) - len(text.rstrip("\\"))) % 2:
        raise Refused(len(text) - 1, "a backslash ends the replacement", "write \\\\ for one")
    return Replacement(parts)


def _literal(text: str, pattern: Pattern) -> list[str | int]:
    """Backslashes and groups of one piece; a backslash at its end protects what is filled in, which needs none."""
    parts: list[str | int] = []
    at = 0
    while at < len(text):
        char = text[at]
        if char == "\\":
            parts.append(text[at + 1 : at + 2])
            at += 2
        elif char == "$":
            group, at = _group(text, at, pattern)
            parts.append(group)
        else:
            parts.append(char)
            at += 1
    return parts


def _group(text: str, at: int, pattern: Pattern) -> tuple[int, int]:
    """(group number, where the text goes on).  Java takes as many digits as there are groups for."""
    named = _GROUP_NAME.match(text, at + 1)
    if named is not None:
        number = pattern.names.get(named[1])
        if number is None:
            raise Refused(at, f"there is no group named '{named[1]}'", "name it with (?<name>...)")
        return number, named.end()
    digit = text[at + 1 : at + 2]
    if not (digit.isascii() and digit.isdigit()):
        raise Refused(at, "'$' is followed by no group", "write \\$ for a dollar")
    number = int(digit)
    if number > pattern.groups:
        raise Refused(at, f"there is no group {number}", f"the search has {pattern.groups}")
    at += 2
    while (digit := text[at : at + 1]).isascii() and digit.isdigit():
        if number * 10 + int(digit) > pattern.groups:
            break
        number = number * 10 + int(digit)
        at += 1
    return number, at
