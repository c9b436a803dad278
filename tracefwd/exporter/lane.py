"""Lane: the way of one signal to one target: gather, queue, fly.

    offer -> open batch -> queue -> flight -> delivered | rejected
                             ^         |
                             +- wait <-+ (again later, or in halves)
                                  |
                      spool <-----+-> old -> flight

1. Every item is in exactly one of these places (``held`` asks them) or has been counted as delivered, rejected,
   dropped or blocked.  All moves happen in plain calls without ``await``, so this holds at every instant.
2. The bytes in memory stay within ``queue_bytes_max``, beside those that the disk is writing just now, and but for a
   lone batch of the spool that is larger, because ``queue_bytes_max`` was made smaller since.  Near it, and
   after ``spool.after``, batches go to the spool, if there is one (``backlog.py``); above it the oldest batch that is
   not in flight is pushed out.  Bytes are those that will be sent: a batch is compressed when it is closed.
3. At most ``concurrency`` requests are under way.  A batch that waits after a failure occupies none of them, so
   it does not keep fresh ones back; a short breath after each failure keeps those from hammering.  Old batches
   have a quarter of them while there are fresh ones (``turns.py``).
4. ``offer`` neither waits nor raises.
5. ``done`` is called exactly once for each range of journal entries that were offered, when all of their lines are
   over or safely in the spool (``origin.py``).
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from math import inf
from random import Random

from tracefwd.exporter import verdicts
from tracefwd.exporter.backlog import Backlog, Shelf
from tracefwd.exporter.batch import Batch, halves
from tracefwd.exporter.compress import plain
from tracefwd.exporter.gathering import Gathering
from tracefwd.exporter.held import Held
from tracefwd.exporter.lane_books import Done, Lacks, LaneBooks, Launched
from tracefwd.exporter.patience import Patience
from tracefwd.exporter.route import Flight, Route, choose, outcome_of
from tracefwd.exporter.turns import Turns
from tracefwd.metrics import Samples
from tracefwd.metrics import add as add_samples
from tracefwd.model import Outcome, Reject, Signal, Stored
from tracefwd.settings import ExporterSettings

# While draining nothing waits longer than this: there is no later for which to be patient.
DRAIN_WAIT_S = 1.0
# Of the time for leaving, what is for delivering; the rest is for bringing to the spool what was not delivered.
DRAIN_DELIVER_SHARE = 0.75
# Requests that the search for bad lines may cost until a batch is delivered whole again: enough for some fifty among
# 5,000.  A target that refuses everything is then refused in whole batches, not line by line.
SEARCHES_MAX = 1_024


class Lane:
    """``routes`` is the target's own first, then its failovers; empty when the target does not take the signal.

    ``shelf`` is the lane's place in the spool, ``spool_after_s`` when a batch goes there.  ``done``, ``launched`` and
    ``lacks`` are the journal's (``lane_books.py``); without, seqs are ignored.  ``show`` gets refused single lines.
    """

    def __init__(
        self,
        name: str,
        signal: Signal,
        routes: list[Route],
        settings: ExporterSettings,
        random: Random,
        *,
        shelf: Shelf | None = None,
        spool_after_s: float = 30.0,
        done: Done | None = None,
        launched: Launched | None = None,
        lacks: Lacks | None = None,
        show: Callable[[Reject], None] = lambda reject: None,
    ) -> None:
        self.books = LaneBooks(name, signal, self._items_held, done, launched, show, lacks)
        self.account = self.books.account
        self.lost = self.books.lost
        self._at = (name, str(signal))
        self.routes = routes
        # A queue of packed batches holds six times as much; failovers of another kind unpack.
        packs = settings.gzip and bool(routes) and routes[0].sender.takes_gzip
        self._held = Held(packs=packs)
        self._concurrency = settings.concurrency
        self._turns = Turns(settings.concurrency)
        self._patience = Patience(settings.retry, random)
        self._age_max = settings.retry.age_max
        self._searches = SEARCHES_MAX
        self._loop: asyncio.AbstractEventLoop | None = None
        self._draining = False
        self._saving = False
        self._stopped = False
        self._settled = asyncio.Event()
        self._wake_timer: asyncio.TimerHandle | None = None
        self._verdicts: dict[str, Callable[[Flight, Outcome], None]] = {
            verdicts.DELIVERED: self._delivered,
            verdicts.UNACKNOWLEDGED: self._delivered,
            verdicts.RETRY: self._failed,
            verdicts.SPLIT: self._too_large,
            verdicts.BISECT: self._has_bad_line,
            verdicts.REJECTED: self._rejected,
        }
        self._backlog: Backlog | None = None
        if shelf is not None and routes:
            self._backlog = Backlog(
                shelf, self._held, self, settings, after_s=spool_after_s, packs=packs
            )
        self._gathering = Gathering(
            self._held,
            self.books,
            settings,
            takes=bool(routes),
            packs=packs,
            backlog=self._backlog,
            pump=self.pump,
        )
        self.offer, self.has_room = self._gathering.offer, self._gathering.has_room

    def _items_held(self) -> int:
        items = self._held.items()
        return items if self._backlog is None else items + self._backlog.shelf.items

    # Flying: everything below happens once per batch.

    def start(self) -> None:
        """From now on there is time: batches age and fly."""
        self._loop = asyncio.get_running_loop()
        self.books.log.open(self._loop)
        self._gathering.start(self._loop)
        if self._backlog is not None:
            shelf = self._backlog.shelf
            self.books.remove = self._remove
            shelf.claim(self.lost, self._found)
            self._backlog.start(self._loop)
        self.pump()

    def _remove(self, stored: Stored) -> None:
        """In the next turn, when the journal has written what became of it."""
        if self._loop is not None and self._backlog is not None:
            self._loop.call_soon(self._backlog.shelf.remove, stored)

    def _now(self) -> float:
        return self._loop.time() if self._loop is not None else 0.0

    def pump(self) -> None:
        """Whatever has happened: launch what may be launched, and tell the drain when nothing is left to do."""
        if self._loop is None or self._stopped:
            return
        if self._backlog is not None:
            self._backlog.spill_excess()
        if not self._saving:
            self._launch_all(self._loop)
        if self._draining and self._is_settled():
            self._settled.set()

    def _is_settled(self) -> bool:
        """Whether a drain need not wait: all is away, or there is no hope and a safe place."""
        if self._saving:
            return not self._held.storing
        if self._held.is_empty():
            return True
        is_safe = self._can_spool() or self.books.keeps_all(self._held.all_batches())
        return is_safe and not self._held.flights and all(r.breaker.open for r in self.routes)

    def _can_spool(self) -> bool:
        return self._backlog is not None and self._backlog.shelf.usable

    def _launch_all(self, loop: asyncio.AbstractEventLoop) -> None:
        """Launch while there are batches, requests to spare and a destination; else set a timer for it."""
        if self._wake_timer is not None:
            self._wake_timer.cancel()
            self._wake_timer = None
        now = loop.time()
        self._expire(now)
        held = self._held
        while len(held.flights) < self._concurrency and self._has_work():
            route, ask_again_at = choose(self.routes, now)
            if route is None:
                self._wake_at(loop, ask_again_at)
                return
            if self._backlog is not None and not self._draining:
                most = self._turns.old_most if held.queue else self._concurrency
                self._backlog.load(now, most)
            batch = self._next(probe=route.breaker.open)
            if batch is None:
                if self._backlog is not None:
                    self._wake_at(loop, self._backlog.due_at(now))
                return
            self._launch(loop, batch, route)

    def _wake_at(self, loop: asyncio.AbstractEventLoop, moment: float) -> None:
        if moment < inf:
            self._wake_timer = loop.call_at(moment, self.pump)

    def _has_work(self) -> bool:
        held, backlog = self._held, self._backlog
        return any((held.queue, held.old, held.waits, backlog is not None and backlog.shelf.items))

    def _expire(self, now: float) -> None:
        for batch in self._held.take_aged(now, self._age_max):
            self.books.dropped(batch, "retries_exhausted")

    def _next(self, *, probe: bool) -> Batch | None:
        """Whose turn it is; for a probe one that waits will do, so that a quiet lane notices recovery."""
        held = self._held
        old_in_flight = sum(flight.batch.old for flight in held.flights.values())
        fresh_in_flight = len(held.flights) - old_in_flight
        if self._turns.takes_old(
            fresh=bool(held.queue), old=bool(held.old), old_in_flight=old_in_flight
        ):
            return held.old.popleft()
        if held.queue and self._turns.takes_fresh(
            old_coming=bool(held.loading), fresh_in_flight=fresh_in_flight
        ):
            return held.queue.popleft()
        batch = held.longest_waiting() if probe else None
        if batch is not None:
            held.take_out(batch)
        return batch

    def _launch(self, loop: asyncio.AbstractEventLoop, batch: Batch, route: Route) -> None:
        # The turn is written down before the request's first byte leaves: its task begins after the flush.
        self.books.launched(batch)
        if batch.maybe_sent:
            batch.maybe_sent = False
            self.books.sent_again(batch)
        task = loop.create_task(route.sender.send(batch.data, batch.encoding))
        self._held.flights[task] = Flight(batch, route, loop.time(), route.launched(batch))
        task.add_done_callback(self._landed)

    def _landed(self, task: asyncio.Task[Outcome]) -> None:
        flight = self._held.flights.pop(task, None)
        if flight is None:  # abandoned by the drain, and counted there
            return
        outcome = outcome_of(task, flight.batch.items, self.books.log.fault)
        if flight.is_probe:
            flight.route.breaker.probed()
        flight.route.attempted(flight.batch, outcome)
        self._verdicts[outcome.verdict](flight, outcome)
        self.pump()

    # What an attempt came to.

    def _delivered(self, flight: Flight, outcome: Outcome) -> None:
        batch = flight.batch
        self._reached(flight)
        flight.route.finished(batch, outcome)
        self._held.leave(batch)
        if batch.stored is not None or not batch.old:
            self._searches = SEARCHES_MAX
        if outcome.refused_items:
            self.books.refused_some(batch, outcome, flight.route.where, self._now())
        self.books.delivered(batch, outcome)

    def _rejected(self, flight: Flight, outcome: Outcome) -> None:
        self._reached(flight)
        flight.route.finished(flight.batch, outcome)
        self._held.leave(flight.batch)
        self.books.rejected(flight.batch, outcome, flight.route.where, self._now())

    def _too_large(self, flight: Flight, outcome: Outcome) -> None:
        """Two batches in its place, at the head; a single line has no halves and never passes."""
        if flight.batch.items < 2:
            self._rejected(flight, Outcome(verdicts.REJECTED, outcome.reason, outcome.detail))
        else:
            self._halve(flight, old=flight.batch.old)

    def _has_bad_line(self, flight: Flight, outcome: Outcome) -> None:
        """Search for it in halves, beside the fresh batches, until it is alone."""
        detail = outcome.detail
        if flight.batch.items > 1 and self._searches > 0:
            self._searches -= 1
            self._halve(flight, old=True)
            return
        if flight.batch.items > 1:
            detail = f"{detail} (too many bad lines to look for each: all lines of the batch are given up)"
        self._rejected(flight, Outcome(verdicts.REJECTED, outcome.reason, detail))

    def _halve(self, flight: Flight, *, old: bool) -> None:
        batch, held = flight.batch, self._held
        self._reached(flight)
        flight.route.returned(batch)
        held.leave(batch)
        parts = halves(plain(batch.data, batch.encoding), batch.items)
        for data, items in reversed(parts):
            half = self._gathering.packed(data, items, batch.born, batch.origin)
            half.attempts, half.maybe_sent, half.old = batch.attempts, batch.maybe_sent, old
            held.give_back(half)
        if batch.origin is not None:
            batch.origin.pieces += 1
        self._gathering.make_room(0)  # halves pack a little worse than the whole

    def _failed(self, flight: Flight, outcome: Outcome) -> None:
        """Again later: the lane takes a breath, the batch waits its own, longer one."""
        batch, route = flight.batch, flight.route
        now = self._now()
        route.returned(batch)
        route.trouble = outcome.detail
        batch.attempts += 1
        batch.maybe_sent = batch.maybe_sent or outcome.ambiguous
        self.books.returned(batch)
        breaker = route.breaker
        was_down = breaker.down
        breaker.failed(now, flight.launched_at, outage=verdicts.is_outage(outcome))
        breaker.paused = outcome.reason in verdicts.PAUSING
        asked_s = (outcome.retry_after_ms or 0) / 1000
        breaker.wait(now + self._bounded(max(self._patience.breath_s(breaker), asked_s)))
        self.books.log.failed(route, outcome, went_down=breaker.down and not was_down)
        elsewhere = breaker.down and any(not other.breaker.down for other in self.routes)
        wait_s = self._bounded(max(self._patience.backoff_s(batch.attempts), asked_s))
        if batch.stored is not None and self._backlog is not None:
            self._backlog.put_back(batch, now if elsewhere else now + wait_s)
        elif elsewhere:
            self._held.give_back(batch)  # somebody else takes it now
        else:
            left_s = batch.born + self._age_max - now
            self._wait(batch, max(0.0, min(wait_s, left_s)))

    def _bounded(self, wait_s: float) -> float:
        return min(wait_s, DRAIN_WAIT_S) if self._draining else wait_s

    def _wait(self, batch: Batch, wait_s: float) -> None:
        assert self._loop is not None
        self._held.waits[batch] = self._loop.call_later(wait_s, self._waited, batch)

    def _waited(self, batch: Batch) -> None:
        del self._held.waits[batch]
        self._held.give_back(batch)
        self.pump()

    def _reached(self, flight: Flight) -> None:
        """An answer that settles the batch: the destination is there."""
        route = flight.route
        if route.breaker.down:
            self.books.log.back(route)
        route.trouble = ""
        route.breaker.succeeded()

    # The spool's news.

    def spooled(self, batch: Batch, *, ok: bool) -> None:
        """The batch's way to the spool has ended; not ok: it is back in its queue."""
        if self._stopped:
            self._spooled_late(batch, ok=ok)
        elif ok:
            self._held.leave(batch)
            self.books.spooled(batch)
        else:
            self._gathering.make_room(0)  # there was more of it while the disk wrote

    def _spooled_late(self, batch: Batch, *, ok: bool) -> None:
        """After the time for leaving: it was counted as kept (the journal has it) or as dropped."""
        if ok:
            if self.books.keeps(batch):
                self._held.kept_items -= batch.items
            else:
                self.books.found(batch.items)
            self.books.spooled(batch)

    def _found(self, items: int) -> None:
        self.books.found(items)
        self.pump()

    # Leaving.

    async def drain(self, budget_s: float) -> None:
        """Deliver within the budget; what is left then is spooled, kept (the journal has it) or dropped.

        Whoever is cancelled here keeps or drops at once.
        """
        self._draining = True
        try:
            if self._loop is not None:
                self._hurry()
                saves = self._can_spool() and not self.books.keeps_all(self._held.all_batches())
                await self._settle(budget_s * (DRAIN_DELIVER_SHARE if saves else 1.0))
                if self._can_spool() and not self._held.is_empty():
                    self._save()
                    await self._settle(budget_s * (1.0 - DRAIN_DELIVER_SHARE))
        finally:
            tasks = self._abandon()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _settle(self, budget_s: float) -> None:
        with suppress(TimeoutError):  # what is left is counted next
            async with asyncio.timeout(budget_s):
                await self._settled.wait()

    def _hurry(self) -> None:
        """Nobody waits any longer: not the open batch, not those that failed, not the breath."""
        now = self._now()
        for batch in sorted(self._held.waits, key=lambda waiting: -waiting.born):
            self._held.take_out(batch)
            self._held.give_back(batch)
        if self._backlog is not None:
            self._backlog.unload()
        for route in self.routes:
            if route.breaker.ready_at < inf:  # else its probe is under way
                route.breaker.ready_at = min(route.breaker.ready_at, now)
        self._gathering.hurry()
        self.pump()

    def _save(self) -> None:
        """Bring to the spool what neither it nor the journal has; nothing is launched any more."""
        assert self._backlog is not None
        self._saving = True
        self._settled.clear()
        for task, flight in list(self._held.flights.items()):
            if not self.books.keeps(flight.batch):
                del self._held.flights[task]
                task.cancel()
                flight.route.returned(flight.batch)
                flight.batch.maybe_sent = True
                self._held.give_back(flight.batch)
        self._backlog.spill_loose()
        self.pump()

    def _abandon(self) -> list[asyncio.Task[Outcome]]:
        """Count everything that is still held as kept or dropped; returns the cancelled flights."""
        self._gathering.stop()
        self._stopped = True
        held = self._held
        flights = held.flights.copy()
        for task, flight in flights.items():
            task.cancel()
            flight.route.returned(flight.batch)
            flight.batch.maybe_sent = True
        if self._backlog is not None:
            self._backlog.stop()
        kept = dropped = 0
        for batch in [*held.all_batches(), *held.storing]:
            if batch.stored is not None and self._backlog is not None:
                self._backlog.put_back(batch, 0.0)
            elif self.books.keeps(batch):
                kept += batch.items
            else:
                dropped += batch.items
        held.clear()
        held.kept_items = kept
        if self._wake_timer is not None:
            self._wake_timer.cancel()
            self._wake_timer = None
        self.books.refused_entry(dropped, "dropped", "drain_budget")
        self.books.log.close()
        return list(flights)

    # What others ask.

    def failing(self) -> list[Route]:
        """Routes whose last attempt failed; a failover only while it is needed."""
        found = []
        for route in self.routes:
            if route.trouble:
                found.append(route)
            if not route.breaker.down:
                break
        return found

    def oldest_s(self) -> float | None:
        """The age of the oldest batch in memory."""
        born = self._held.oldest_born()
        return None if born is None else self._now() - born

    def refused(self) -> list[str]:
        """What was refused for good lately, in words."""
        return self.books.refusals.lines(self._now())

    def samples(self) -> Samples:
        """The lane's own figures and those of its routes."""
        prefix = "tracefwd_exporter_"
        total: Samples = {
            f"{prefix}queue_items": {self._at: self._held.items()},
            f"{prefix}queue_bytes": {self._at: self._held.size_bytes},
            f"{prefix}queue_bytes_max": {self._at: self._gathering.queue_bytes_max},
            f"{prefix}paused": {self._at: int(any(r.breaker.paused for r in self.routes))},
        }
        add_samples(total, self.books.samples())
        for route in self.routes:
            add_samples(total, route.samples())
        return total
