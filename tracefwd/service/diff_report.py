"""What a comparison found: tallies per signal, and kinds of difference with counts and examples.  Pure.

Differences are of one *kind* when the same field of the same signal differs for the same reason, so that ten thousand
of them are one sentence.  Kinds and counts are complete; examples are the first few.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

# Of a value in an example: enough to see what it is.
SHOWN_LENGTH_MAX = 160
# Kinds printed; a mesh of new tags can make thousands, and the most frequent tell the story.
KINDS_SHOWN_MAX = 100


class KindKey(NamedTuple):
    """``field``: ``tag error``, ``start``, ``line`` …; ``change``: what happened to it; ``why``: "" if nobody knows."""

    signal: str
    field: str
    change: str
    why: str


class Example(NamedTuple):
    """``where`` names the span or series; None is absent."""

    where: str
    a: str | None
    b: str | None


@dataclass
class Kind:
    count: int = 0
    examples: list[Example] = field(default_factory=list)


@dataclass
class Tally:
    """Of one signal: lines (or series) on both sides that are equal, that differ, and those on one side only."""

    equal: int = 0
    differing: int = 0
    only_a: int = 0
    only_b: int = 0


class Report:
    """Gathers differences."""

    def __init__(self, examples_max: int) -> None:
        self._examples_max = examples_max
        self.tallies: dict[str, Tally] = {}
        self.kinds: dict[KindKey, Kind] = {}
        # Things worth knowing that are no difference.
        self.notes: list[str] = []

    @property
    def is_equal(self) -> bool:
        return not self.kinds

    def tally(self, signal: str) -> Tally:
        return self.tallies.setdefault(signal, Tally())

    def add(
        self,
        signal: str,
        what: str,
        change: str,
        why: str,
        where: str,
        a: str | None = None,
        b: str | None = None,
        count: int = 1,
    ) -> None:
        kind = self.kinds.setdefault(KindKey(signal, what, change, why), Kind())
        kind.count += count
        if len(kind.examples) < self._examples_max:
            kind.examples.append(Example(where, _cut(a), _cut(b)))

    def sorted_kinds(self) -> list[tuple[KindKey, Kind]]:
        """Most frequent first."""
        return sorted(self.kinds.items(), key=lambda item: (-item[1].count, item[0]))

    def shown(self) -> dict[str, Any]:
        return {
            "equal": self.is_equal,
            "signals": {signal: vars(tally) for signal, tally in self.tallies.items()},
            "kinds": [
                {
                    **key._asdict(),
                    "count": kind.count,
                    "examples": [example._asdict() for example in kind.examples],
                }
                for key, kind in self.sorted_kinds()
            ],
            "notes": self.notes,
        }


def _cut(text: str | None) -> str | None:
    if text is None or len(text) <= SHOWN_LENGTH_MAX:
        return text
    return f"{text[:SHOWN_LENGTH_MAX]}… ({len(text)} characters)"
