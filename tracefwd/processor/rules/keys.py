"""Which tag keys the key expressions of a file's rules match.

A key expression would have to be asked for each of a span's keys; but the keys of all spans are few.  So each is asked
once, and a rule that drops tags looks whether a span has one of *its* keys.  At most ``MEMO_ENTRIES_MAX`` keys are
known; then all are forgotten.
"""

from collections.abc import Iterable

from tracefwd.limits import MEMO_ENTRIES_MAX
from tracefwd.processor.rules.regex import Pattern


class KeyTable:
    """``known`` holds every key that was asked for; ``made`` those that the rules themselves make."""

    __slots__ = ("_watched", "known", "made")

    def __init__(self) -> None:
        self.known: set[str] = set()
        self.made: set[str] = set()
        self._watched: list[tuple[Pattern, set[str]]] = []

    def watch(self, pattern: Pattern) -> set[str]:
        """The known keys that ``pattern`` matches: one set that changes as keys become known."""
        matching: set[str] = set()
        self._watched.append((pattern, matching))
        return matching

    def used(self) -> bool:
        return bool(self._watched)

    def learn(self, keys: Iterable[str]) -> None:
        """Make ``keys`` known, and those that rules make."""
        new = {*keys, *self.made} - self.known
        if len(self.known) + len(new) > MEMO_ENTRIES_MAX:
            new = {*keys, *self.made}
            self.known.clear()
            for _, matching in self._watched:
                matching.clear()
        self.known |= new
        for pattern, matching in self._watched:
            matching.update(key for key in new if pattern.full[key])
