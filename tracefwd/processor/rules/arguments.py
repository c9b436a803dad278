"""A rule's arguments as the file gives them: typed, and every mistake noted with what to do about it.

Reading goes on after a mistake with a stand-in, so that all mistakes of a rule are told at once; a rule with mistakes
is never run.
"""

from collections.abc import Mapping
from difflib import get_close_matches

from tracefwd.processor.rules.dialect import Refused
from tracefwd.processor.rules.keys import KeyTable
from tracefwd.processor.rules.predicate import read_predicate
from tracefwd.processor.rules.regex import Pattern, compile_java
from tracefwd.processor.rules.subject import Kind, Test, Text
from tracefwd.processor.rules.templates import Replacement, filler, pieces, replacement

# Replacements that go on while there is something to find: more than this is a loop.
_ITERATIONS_MAX = 1_000


class Arguments:
    """One rule's map.  ``mistakes`` are sentences without file, line and rule; ``keys`` is the file's."""

    def __init__(self, given: Mapping[str, object], kind: Kind, keys: KeyTable) -> None:
        self.given = given
        self.kind = kind
        self.keys = keys
        self.mistakes: list[str] = []

    def wrong(self, reason: str, suggestion: str = "") -> None:
        self.mistakes.append(f"{reason}; {suggestion}" if suggestion else reason)

    def refused(self, name: str, refused: Refused) -> None:
        """Note a refusal of ``name``'s text with its position, counted from 1."""
        place = f" (position {refused.position + 1})" if isinstance(self.given[name], str) else ""
        self.wrong(f"{name}: {refused.reason}{place}", refused.suggestion)

    def only(self, action: str, allowed: frozenset[str]) -> None:
        for name in self.given:
            if name not in allowed and name not in {"rule", "action"}:
                close = get_close_matches(str(name), allowed, 1)
                takes = f"{action} takes {', '.join(sorted(allowed)) or 'no arguments'}"
                suggestion = f"is it '{close[0]}'?" if close else takes
                self.wrong(f"{action} has no argument '{name}'", suggestion)

    def optional(self, name: str) -> str | None:
        """A text, or a number as its text; None when absent."""
        value = self.given.get(name)
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return str(value)
        self.wrong(f"{name} is no text ({type(value).__name__})", "put it in quotes")
        return None

    def text(self, name: str, *, empty: bool = False) -> str:
        """A text that must be there, "x" where it is not."""
        value = self.optional(name)
        if value is None:
            if self.given.get(name) is None:
                self.wrong(f"{name} is missing", f"add '{name}: ...'")
            return "x"
        if not value and not empty:
            self.wrong(f"{name} is empty", "give it a value, or remove the rule")
            return "x"
        return value

    def made_key(self, name: str) -> str:
        """The key of a tag that the rule makes."""
        key = self.text(name)
        self.keys.made.add(key)
        return key

    def pattern(self, name: str) -> Pattern:
        return self._compiled(name, self.text(name))

    def optional_pattern(self, name: str) -> Pattern | None:
        value = self.optional(name)
        return None if value is None else self._compiled(name, value)

    def _compiled(self, name: str, text: str) -> Pattern:
        try:
            return compile_java(text)
        except Refused as refused:
            self.refused(name, refused)
            return compile_java("x")

    def filled(self, name: str) -> Text:
        """A text with ``{{...}}``."""
        return filler(pieces(self.kind, self.text(name)))

    def replacement(self, name: str, pattern: Pattern) -> Replacement:
        return self._replacement(name, self.text(name, empty=True), pattern)

    def raw_replacement(self, name: str, pattern: Pattern) -> Replacement:
        """A replacement in which ``{{`` is a text."""
        return self._replacement(name, self.text(name, empty=True), pattern, raw=True)

    def optional_replacement(self, name: str, pattern: Pattern) -> Replacement | None:
        value = self.optional(name)
        return None if value is None else self._replacement(name, value, pattern)

    def _replacement(
        self, name: str, text: str, pattern: Pattern, *, raw: bool = False
    ) -> Replacement:
        if self.mistakes:
            # Its groups may be those of a stand-in.
            return Replacement([])
        try:
            return replacement(None if raw else self.kind, text, pattern)
        except Refused as refused:
            self.refused(name, refused)
            return Replacement([])

    def integer(self, name: str, default: int) -> int:
        value = self.given.get(name)
        if value is None:
            return default
        try:
            if isinstance(value, (str, int, float)) and not isinstance(value, bool):
                return int(value)
        except (ValueError, OverflowError):
            pass
        self.wrong(f"{name} is no whole number ('{value}')", f"write {name}: {default or 128}")
        return default or 128

    def iterations(self) -> int:
        value = self.integer("iterations", 1)
        if not 1 <= value <= _ITERATIONS_MAX:
            self.wrong(f"iterations is {value}", f"use 1 to {_ITERATIONS_MAX}")
        return value

    def flag(self, name: str) -> bool:
        value = self.given.get(name)
        if value is None or isinstance(value, bool):
            return bool(value)
        if isinstance(value, str) and value.lower() in {"true", "false"}:
            return value.lower() == "true"
        self.wrong(f"{name} is neither true nor false ('{value}')", "write true or false")
        return False

    def predicate(self) -> Test | None:
        value = self.given.get("if")
        if value is None:
            return None
        try:
            return read_predicate(self.kind, value)
        except Refused as refused:
            self.refused("if", refused)
            return None
