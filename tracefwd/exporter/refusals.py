"""The newest reasons why a target refused lines for good, for a person to read; bounded.

Equal reasons are one entry with a count, so a target that refuses everything in the same words does not push
the others out.
"""

# A person reads a handful; each is under 400 characters.
REFUSALS_MAX = 8
# Long enough to be seen by somebody who was called; then it is history, and the ledger has the count.
SHOWN_S = 600.0


class Refusals:
    """Times are loop time."""

    def __init__(self) -> None:
        self._newest: dict[str, tuple[int, float]] = {}

    def add(self, text: str, items: int, now: float) -> None:
        before, _ = self._newest.pop(text, (0, 0.0))
        self._newest[text] = (before + items, now)
        if len(self._newest) > REFUSALS_MAX:
            del self._newest[next(iter(self._newest))]

    def lines(self, now: float) -> list[str]:
        """One line per reason, oldest first."""
        return [
            f"{text} ({items} lines)"
            for text, (items, at) in self._newest.items()
            if now - at < SHOWN_S
        ]
