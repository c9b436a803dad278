"""The accounts that outlive a worker: what the journal has of them by now, and what of a dead worker's is yet to come.

    lines of a journal:   coming    --offered again--> held in the lane --> delivered | ...
    batches of a spool:   resting   --found--------->  held on the shelf --> delivered | ...

Both are received and held from the moment at which the dead worker's history is taken over, so that every read of the
ledger has all of it, however long it takes.  In our journal, too, batches are received from then on, wherever their
files are just now; lines are the dead one's until they come.

What may be doubled is no part of any balance and goes with them: the count of it must not die with a worker.
"""

from collections.abc import Callable
from typing import NamedTuple

from tracefwd import ledger
from tracefwd.exporter.doubled import Again
from tracefwd.ledger import Account
from tracefwd.service import history

# Lanes have all states of their lines; the pipeline's own pass lines on; failovers' lines are some lane's.
LANE, OWN, COPY = "lane", "own", "copy"
# Behind a lane's name.
_AGAIN = "#again"


class Book(NamedTuple):
    account: Account
    kind: str


class Books:
    """Names are as in ``history``.  ``balanced_with`` is the lane that the pipeline's own spans go to."""

    def __init__(self, balanced_with: str) -> None:
        self.books: dict[str, Book] = {}
        self.noted: history.Totals = {}
        self._balanced_with = balanced_with
        self._coming: dict[str, int] = {}
        self._resting: dict[str, int] = {}
        self._again: dict[str, Again] = {}

    def add(self, name: str, account: Account, kind: str, again: Again | None = None) -> None:
        self.books[name] = Book(account, kind)
        self._coming[name] = self._resting[name] = 0
        if again is not None:
            self._again[name + _AGAIN] = again
        if kind != OWN:  # those ask the lane
            held: Callable[[], int] = account.held
            account.held = lambda: held() + self._coming[name] + self._resting[name]

    def begin(self) -> None:
        """The journal has all of it as it is now."""
        self.noted = self.totals()

    def totals(self) -> history.Totals:
        """Without what is coming."""
        found = {}
        for name, (account, _) in self.books.items():
            found[name] = part = history.totals_of(account)
            part["received"] -= self._coming[name]
        for name, again in self._again.items():
            found[name] = {"items": again.items, "red": again.red}
        return found

    def gained(self) -> history.Totals:
        """What has changed since it was asked last."""
        now = self.totals()
        gains = history.gains(now, self.noted)
        if gains:
            self.noted = now
        return gains

    def note(self, gains: history.Totals) -> None:
        """These are written elsewhere."""
        ledger.add(self.noted, gains)

    def expect(self, name: str, items: int) -> None:
        self._coming[name] += items
        self.books[name].account.received += items

    def arrive(self, name: str, items: int) -> None:
        """They are about to be received as others are."""
        self._coming[name] -= items
        self.books[name].account.received -= items

    def found(self, name: str, items: int) -> None:
        """A lane has received batches of the spool; what rested is received by then."""
        known = min(items, self._resting[name])
        self._resting[name] -= known
        self.books[name].account.received -= known
        own = name.rpartition("/")[2]
        if name == self._balanced_with and own in self.books:
            self.books[own].account.received += items - known

    def restore(
        self, total: history.Totals, outstanding: dict[str, int], spooled: dict[str, int]
    ) -> history.Totals:
        """Dead workers' totals without what comes again, here as well; what they had ``spooled`` rests from now on."""
        gained: history.Totals = {}
        for name, book in self.books.items():
            if book.kind == COPY:
                part = total.get(name, {})
                gained[name] = history.settled(part, history.held_of(part))
            elif book.kind == LANE:
                rests = spooled.get(name, 0)
                gained[name] = history.settled(total.get(name, {}), outstanding.get(name, 0), rests)
                self._resting[name] += rests
        kept = gained.get(self._balanced_with, {}).get("received", 0)
        for name in [name for name, book in self.books.items() if book.kind == OWN]:
            passed = kept if name == self._balanced_with.rpartition("/")[2] else 0
            gained[name] = history.passed_on(total.get(name, {}), passed)
        for name, part in gained.items():
            history.restore(self.books[name].account, part)
        for name, again in self._again.items():
            gained[name] = part = total.get(name, {})
            again.items += part.get("items", 0)
            again.red += part.get("red", 0)
        return history.gains(gained, {})
