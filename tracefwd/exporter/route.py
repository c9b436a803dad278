"""Route: one destination as one lane uses it, with everything that is counted per destination.

A primary's lane has a route to the primary and one to each failover.  A failover keeps an account of its own:
what it received is what it finished and what is in flight there, so a batch that goes back to the lane was never
received (``received`` goes down again with it, in the same turn).
"""

import asyncio
from collections.abc import Callable
from typing import NamedTuple, Protocol

from msgspec.structs import replace

from tracefwd.exporter import verdicts
from tracefwd.exporter.batch import Batch
from tracefwd.exporter.breaker import Breaker
from tracefwd.ledger import Account
from tracefwd.metrics import Samples
from tracefwd.model import Outcome, Signal


class Sender(Protocol):
    """One way to one URL.  ``shown`` is the URL as it may stand in a log."""

    shown: str
    takes_gzip: bool

    async def send(self, data: bytes, encoding: str) -> Outcome:
        """Never raises for what the world outside can do.  ``encoding`` is ``gzip`` or ""."""

    async def close(self) -> None: ...


class Route:
    """``launched`` and then one of ``finished`` and ``returned`` for each attempt."""

    def __init__(self, name: str, signal: Signal, sender: Sender) -> None:
        self.name = name
        self.signal = signal
        self.sender = sender
        self.where = f"{name} ({sender.shown})"
        self.breaker = Breaker()
        self.trouble = ""  # the last failure in words; "" after a success
        self.account = Account(lambda: self._items_in_flight)
        self._items_in_flight = 0
        self._in_flight = 0
        self._sent_bytes = 0
        self._unacknowledged = 0
        self._acknowledged = 0
        self._results: dict[str, int] = {}

    def launched(self, batch: Batch) -> bool:
        """Whether this attempt is a probe."""
        self._in_flight += 1
        self._items_in_flight += batch.items
        self.account.received += batch.items
        return self.breaker.launched()

    def attempted(self, batch: Batch, outcome: Outcome) -> None:
        """Count an attempt's result, whatever it is."""
        result = outcome.reason or verdicts.DELIVERED
        self._results[result] = self._results.get(result, 0) + 1
        if outcome.reason == "" or outcome.reason.startswith(("http_", "grpc_")):
            self._sent_bytes += len(batch.data)

    def finished(self, batch: Batch, outcome: Outcome) -> None:
        """The batch ends here: delivered, or refused for good."""
        self._landed(batch)
        if outcome.verdict == verdicts.REJECTED:
            self.account.reject(verdicts.ledger_reason(outcome), batch.items)
            return
        if outcome.refused_items:
            self.account.reject("refused", outcome.refused_items)
        self.account.delivered += batch.items - outcome.refused_items
        if outcome.verdict == verdicts.UNACKNOWLEDGED:
            self._unacknowledged += batch.items
        else:
            self._acknowledged += batch.items - outcome.refused_items

    def returned(self, batch: Batch) -> None:
        """The batch goes back to the lane (or is given up there)."""
        self._landed(batch)
        self.account.received -= batch.items

    def _landed(self, batch: Batch) -> None:
        self._in_flight -= 1
        self._items_in_flight -= batch.items

    def samples(self) -> Samples:
        at = (self.name, str(self.signal))
        prefix = "tracefwd_exporter_"
        reasons = self.account.rejected.items()
        return {
            f"{prefix}sent_items_total": {at: self._acknowledged},
            f"{prefix}unacknowledged_items_total": {at: self._unacknowledged},
            f"{prefix}rejected_items_total": {(*at, why): count for why, count in reasons},
            f"{prefix}in_flight_requests": {at: self._in_flight},
            f"{prefix}requests_total": {(*at, r): n for r, n in self._results.items()},
            f"{prefix}sent_bytes_total": {at: self._sent_bytes},
        }


class Flight(NamedTuple):
    """One attempt under way; ``launched_at`` is loop time."""

    batch: Batch
    route: Route
    launched_at: float
    is_probe: bool


def outcome_of(
    task: "asyncio.Task[Outcome]", items: int, fault: Callable[[BaseException], None]
) -> Outcome:
    """What a send of so many lines came to; a bug in a sender is a failed attempt, and ``fault`` hears of it."""
    if task.cancelled():
        return Outcome(verdicts.RETRY, "internal", "cancelled from outside", ambiguous=True)
    failure = task.exception()
    if failure is None:
        outcome = task.result()
        # What is one line here may be several points there.
        most = min(outcome.refused_items, items)
        return outcome if most == outcome.refused_items else replace(outcome, refused_items=most)
    fault(failure)
    text = f"a fault of tracefwd's own: {type(failure).__name__}"
    return Outcome(verdicts.RETRY, "internal", text, ambiguous=True)


def choose(routes: list[Route], now: float) -> tuple[Route | None, float]:
    """The route for the next batch, or None and when to ask again (loop time, maybe infinite).

    The first destination that is up gets it, or waits for its breath: only one that is down is passed
    over, and even that gets its probe when one is due.
    """
    ask_again_at = float("inf")
    for route in routes:
        if route.breaker.ready_at <= now:
            return route, now
        ask_again_at = min(ask_again_at, route.breaker.ready_at)
        if not route.breaker.down:
            break
    return None, ask_again_at
