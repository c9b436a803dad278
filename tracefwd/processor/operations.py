"""Operation names with a bound.

Envoy names spans after the route and, without a route, after the client's Host header: anybody outside can invent
names.  So a name passes the operator's template and rules, and a cap on how many names are live; beyond
it the span is sent as ``_other`` and keeps its own name in a tag.

Names are remembered in two generations of half the expiry each: a name that was in neither is forgotten, which
makes room without keeping a time per name.  Pure but for that table; time is an argument.
"""

from collections.abc import Callable
from typing import Any

from tracefwd import naming
from tracefwd.limits import MEMO_ENTRIES_MAX, NAME_LENGTH_MAX
from tracefwd.settings import OperationSettings

OTHER = "_other"
UNNAMED = "unknown"
# Rules see at most this much of a name; the rest could not reach the line anyway.
_RULE_TEXT_MAX = 4 * NAME_LENGTH_MAX


class Operation:
    """A settled name.  ``name`` is what the line says; ``own`` is set when the cap replaced it."""

    __slots__ = ("cut", "name", "own")

    def __init__(self, name: str, *, own: str | None = None, cut: bool = False) -> None:
        self.name = name
        self.own = own
        self.cut = cut


class Operations:
    def __init__(self, settings: OperationSettings) -> None:
        self._rules = _compile(settings.rules)
        self._names_max = settings.names_max
        self._half_us = int(settings.expiry * 500_000)
        self._rotate_at_us = 0
        self._live: dict[str, Operation] = {}
        self._fading: dict[str, Operation] = {}
        self.memo: dict[str, Operation] = {}
        """Raw name -> operation, for names under the cap."""
        self.plain: dict[str, str] = {}
        """Raw name -> name, where nothing was cut; the hot path looks here first."""

    def rotate(self, now_us: int) -> None:
        """Forget names that neither generation of half an expiry has seen.  Cheap when it is not due."""
        if now_us >= self._rotate_at_us:
            self._rotate_at_us = now_us + self._half_us
            self._fading = self._live
            self._live = {}
            self.memo = {}
            self.plain = {}

    def settle(self, raw: str | None) -> Operation:
        """The operation of a name that is not in ``memo``."""
        text = (raw or "").strip()[:_RULE_TEXT_MAX]
        for rule in self._rules:
            text = rule(text)
        text = _fit(text.strip() or UNNAMED)
        operation = self._live.get(text) or self._admit(text)
        if operation.own is None and raw is not None and len(raw) <= _RULE_TEXT_MAX:
            if len(self.memo) >= MEMO_ENTRIES_MAX:
                self.memo = {}
                self.plain = {}
            self.memo[raw] = operation
            if not operation.cut:
                self.plain[raw] = operation.name
        return operation

    def _admit(self, text: str) -> Operation:
        operation = self._fading.pop(text, None)
        if operation is None:
            if len(self._live) + len(self._fading) >= self._names_max:
                return Operation(OTHER, own=text)
            name = text if naming.length(text) <= NAME_LENGTH_MAX else ""
            operation = Operation(name or _cut(text), cut=not name)
        self._live[text] = operation
        return operation


def _cut(text: str) -> str:
    return naming.cut(text, NAME_LENGTH_MAX - 3) + "..."


def _fit(text: str) -> str:
    """What a Wavefront name may not hold: ``*`` is refused, a last backslash would eat the quote."""
    return naming.guard_end(text.replace("*", "-"))


def _compile(rules: list[dict[str, str]]) -> list[Callable[[str], str]]:
    if not rules:
        return []
    import re2  # only operators with rules pay for the engine

    def rewrite(pattern: Any, replace: str) -> Callable[[str], str]:
        return lambda text: str(pattern.sub(replace, text))

    return [rewrite(re2.compile(rule["match"]), rule["replace"]) for rule in rules]
