"""A target: four lanes to one destination and, for a primary, to the failovers that stand in for it.

Its accounts are the ledger's: what was offered here is delivered (by whichever destination), rejected, dropped,
blocked (the settings give this signal no URL), or held.  Failovers keep accounts of their own beside it.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any

from tracefwd.errors import StartError
from tracefwd.exporter.backlog import Shelf
from tracefwd.exporter.destination import Destination
from tracefwd.exporter.lane import Lane
from tracefwd.exporter.lane_books import Lacks
from tracefwd.exporter.route import Route
from tracefwd.ledger import Account
from tracefwd.limits import OTLP_BATCH_BYTES_MAX
from tracefwd.metrics import Samples, add
from tracefwd.model import Payload, Reject, Signal
from tracefwd.quarantine import Quarantine
from tracefwd.settings import ExporterSettings, TargetSettings


class Target:
    """``offer`` may be called from construction on; things move between ``start`` and the end of ``drain``.

    ``shelves`` gives each lane (TARGET/SIGNAL) its place in the spool; a tee has none.  ``done`` and ``launched`` tell
    the journal by lane, and ``lacks`` asks it, as in ``lane_books.py``.
    """

    def __init__(
        self,
        settings: TargetSettings,
        exporter: ExporterSettings,
        *,
        failovers: Sequence[TargetSettings] = (),
        seed: int = 0,
        shelves: Callable[[str], Shelf] | None = None,
        spool_after_s: float = 30.0,
        done: Callable[[str, int, int], None] | None = None,
        launched: Callable[[str, int, int, bool], None] | None = None,
        lacks: Lacks | None = None,
    ) -> None:
        self.name = settings.name
        self.role = settings.role
        chosen = (settings, *failovers)
        self._destinations = [Destination(each, exporter) for each in chosen]
        if any(each.kind == "otlp" for each in chosen):
            most = min(exporter.batch_bytes_max, OTLP_BATCH_BYTES_MAX)
            exporter = replace(exporter, batch_bytes_max=most)
        # Jitter, no secrets; seeded so that a test is the same every time.
        random = Random(seed)  # noqa: S311
        self._quarantine = Quarantine()
        self._lanes: dict[Signal, Lane] = {}
        for signal in Signal:
            lane = f"{self.name}/{signal}"
            self._lanes[signal] = Lane(
                self.name,
                signal,
                self._routes(signal),
                exporter,
                random,
                # A copy that nobody waits for must not take the room, nor the disk's time, of the others.
                shelf=None if shelves is None or self.role == "tee" else shelves(lane),
                spool_after_s=spool_after_s,
                done=None if done is None else partial(done, lane),
                launched=None if launched is None else partial(launched, lane),
                lacks=lacks,
                show=self._show,
            )
        self.accounts: dict[Signal, Account] = {s: lane.account for s, lane in self._lanes.items()}
        self.again = {signal: lane.books.again for signal, lane in self._lanes.items()}

    def _routes(self, signal: Signal) -> list[Route]:
        if signal not in self._destinations[0].senders:
            return []  # a failover stands in for its primary, and does no more
        return [
            Route(destination.name, signal, destination.senders[signal])
            for destination in self._destinations
            if signal in destination.senders
        ]

    def offer(self, payload: Payload, seq: int = 0) -> None:
        """Take a payload for delivery; never waits, never raises.  ``seq``: the journal entry that holds it."""
        self._lanes[payload.signal].offer(payload, seq)

    def takes(self, signal: Signal) -> bool:
        """Whether there is a URL for it; else everything offered is blocked."""
        return bool(self._lanes[signal].routes)

    def tell_found(self, told: Callable[[str, int], None]) -> None:
        """``told(lane, items)`` hears of lines of the spool in the moment in which their lane has received them."""
        for signal, lane in self._lanes.items():
            lane.books.tell_found = partial(told, f"{self.name}/{signal}")

    def has_room(self, signal: Signal) -> bool:
        """Whether its lane has room for what an earlier process left; else it is offered later."""
        return self._lanes[signal].has_room()

    def offered_again(self, payload: Payload) -> None:
        """Count what an earlier process may have sent already, and is now offered once more."""
        self._lanes[payload.signal].books.offered_again(payload)

    def _show(self, reject: Reject) -> None:
        self._quarantine.add((reject,), time.time_ns() // 1_000)

    async def start(self) -> None:
        """Raises ``StartError`` (a file of certificate authorities); an unreachable target is no error."""
        try:
            for destination in self._destinations:
                await destination.open()
        except StartError:
            await self._close()
            raise
        for lane in self._lanes.values():
            lane.start()

    async def drain(self, budget_s: float) -> None:
        """Deliver what is held within the budget, drop the rest, close everything.  Call it once."""
        try:
            await asyncio.gather(*(lane.drain(budget_s) for lane in self._lanes.values()))
        finally:
            await self._close()

    async def _close(self) -> None:
        for destination in self._destinations:
            await destination.close()

    def failover_accounts(self) -> dict[str, dict[Signal, Account]]:
        """By failover: received there is what was finished there or is in flight there."""
        own = self._destinations[0]
        return {
            destination.name: {
                route.signal: route.account
                for lane in self._lanes.values()
                for route in lane.routes
                if route.name == destination.name
            }
            for destination in self._destinations
            if destination is not own
        }

    def rejected_samples(self) -> list[dict[str, str]]:
        """The newest single lines that a destination refused, values masked, with its reasons."""
        return self._quarantine.show()

    def samples(self) -> Samples:
        total: Samples = {}
        for lane in self._lanes.values():
            add(total, lane.samples())
        return total

    def lanes(self) -> list[dict[str, Any]]:
        """Of each lane that takes anything: its oldest batch's age, its last error, whether that still holds."""
        found = []
        for signal, lane in self._lanes.items():
            if lane.routes:
                log, failing = lane.books.log, any(route.trouble for route in lane.failing())
                state = {"error": log.last_error, "error_at": log.last_error_at, "failing": failing}
                place = {"target": self.name, "signal": signal.value}
                found.append({**place, "oldest_s": lane.oldest_s(), **state})
        return found

    def problems(self) -> list[str]:
        """What fails right now, a line per destination and cause, and what was refused lately.  No secrets."""
        failing: dict[tuple[str, str], list[str]] = {}
        refused: list[str] = []
        for signal, lane in self._lanes.items():
            for route in lane.failing():
                failing.setdefault((route.where, route.trouble), []).append(signal)
            refused += lane.refused()
        lines = [
            f"{where} does not take {', '.join(signals)}: {trouble}"
            for (where, trouble), signals in failing.items()
        ]
        return lines + refused
