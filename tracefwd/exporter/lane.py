"""Lane: the way of one signal to one target: gather, queue, fly.

    offer -> open batch -> queue -> flight -> delivered | rejected
                             ^         |
                             +- wait <-+ (again later, or in halves)

1. Every item is in exactly one of the four places (``held`` asks them) or has been counted as delivered, rejected,
   dropped or blocked.  All moves happen in plain calls without ``await``, so this holds at every instant.
2. The bytes in all four places stay within ``queue_bytes_max``; what is too much pushes out the oldest batch that is
   not in flight.  Bytes are those that will be sent: a batch is compressed when it is closed.
3. At most ``concurrency`` requests are under way.  A batch that waits after a failure occupies none of them, so
   it does not keep fresh ones back; a short breath after each failure keeps those from hammering.
4. ``offer`` neither waits nor raises.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from math import inf
from random import Random

from tracefwd.exporter import verdicts
from tracefwd.exporter.batch import Batch, cut, halves
from tracefwd.exporter.breaker import probe_wait_s
from tracefwd.exporter.compress import gzip_or_plain, plain
from tracefwd.exporter.held import Held
from tracefwd.exporter.lane_log import LaneLog
from tracefwd.exporter.refusals import Refusals
from tracefwd.exporter.retry import backoff_s
from tracefwd.exporter.route import Flight, Route, choose
from tracefwd.ledger import Account
from tracefwd.metrics import Samples
from tracefwd.metrics import add as add_samples
from tracefwd.model import Outcome, Payload, Signal
from tracefwd.settings import ExporterSettings

# While draining nothing waits longer than this: there is no later for which to be patient.
DRAIN_WAIT_S = 1.0


class Lane:
    """``routes`` is the target's own first, then its failovers; empty when the target does not take the signal."""

    def __init__(
        self,
        name: str,
        signal: Signal,
        routes: list[Route],
        settings: ExporterSettings,
        random: Random,
    ) -> None:
        self._held = Held()
        self.account = Account(self._held.items)
        self._refusals = Refusals()
        self._at = (name, str(signal))
        self.routes = routes
        self._random = random
        # A queue of packed batches holds six times as much; failovers of another kind unpack.
        self._packs = settings.gzip and bool(routes) and routes[0].sender.takes_gzip
        self._queue_bytes_max = settings.queue_bytes_max
        self._batch_bytes_max = min(settings.batch_bytes_max, settings.queue_bytes_max)
        self._batch_items_max = settings.batch_items_max
        self._batch_age_max = settings.batch_age_max
        self._concurrency = settings.concurrency
        self._retry = settings.retry
        self._log = LaneLog(f"{name}/{signal}")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._draining = False
        self._stopped = False
        self._empty = asyncio.Event()
        self._age_timer: asyncio.TimerHandle | None = None
        self._wake_timer: asyncio.TimerHandle | None = None
        self._verdicts: dict[str, Callable[[Flight, Outcome], None]] = {
            verdicts.DELIVERED: self._delivered,
            verdicts.UNACKNOWLEDGED: self._delivered,
            verdicts.RETRY: self._failed,
            verdicts.SPLIT: self._too_large,
            verdicts.REJECTED: self._rejected,
        }

    # Gathering: the warm part, once per post.

    def offer(self, payload: Payload) -> None:
        """Take the lines, or drop and count what the bounds do not allow."""
        account = self.account
        items = payload.items
        account.received += items + payload.unsendable
        if payload.unsendable:
            account.reject("too_long_for_target", payload.unsendable)
        if not self.routes or self._stopped:
            self._turned_away(items)
            return
        data = payload.data
        size = len(data)
        if size > self._batch_bytes_max or items > self._batch_items_max:
            limits = {"bytes_max": self._batch_bytes_max, "items_max": self._batch_items_max}
            for piece, lines in cut(data, **limits):
                self._gather(piece, lines)
        elif items:
            self._gather(data, items)

    def _gather(self, data: bytes, items: int) -> None:
        held = self._held
        size = len(data)
        if (
            held.open_bytes + size > self._batch_bytes_max
            or held.open_items + items > self._batch_items_max
        ):
            self._close_batch()
        if held.size_bytes + size > self._queue_bytes_max and not self._make_room(size):
            self._drop("queue_full", items)
            return
        held.gather(data, items)
        if (
            held.open_items >= self._batch_items_max
            or held.open_bytes >= self._batch_bytes_max
            or self._draining
        ):
            self._close_batch()
        elif self._age_timer is None and self._loop is not None:
            self._age_timer = self._loop.call_later(self._batch_age_max, self._close_batch)

    def _turned_away(self, items: int) -> None:
        """The target takes no such signal (the settings give no URL for it), or has left already."""
        if not self.routes:
            self.account.blocked += items
        elif items:
            self._drop("drain_budget", items)

    def _close_batch(self) -> None:
        """The open batch goes to the queue."""
        if self._age_timer is not None:
            self._age_timer.cancel()
            self._age_timer = None
        if self._held.open_items:
            data, items = self._held.take_open()
            self._held.queue.append(self._packed(data, items, self._now()))
            self._pump()

    def _packed(self, data: bytes, items: int, born: float) -> Batch:
        """A batch that is held from now on; the caller puts it into one of the places."""
        body, encoding = gzip_or_plain(data) if self._packs else (data, "")
        return self._held.enter(Batch(body, encoding, items, born))

    def _make_room(self, size: int) -> bool:
        """Push out the oldest until ``size`` more bytes fit; False if what is in flight leaves no room."""
        if size > self._queue_bytes_max:
            return False  # pushing out everything would not help
        held = self._held
        while held.size_bytes + size > self._queue_bytes_max:
            if (oldest := held.oldest()) is not None:
                held.take_out(oldest)
                self._give_up(oldest, "queue_full")
            elif held.open_items:
                _, items = held.take_open()
                self._drop("queue_full", items)
            else:
                return False
        return True

    # Flying: everything below happens once per batch.

    def start(self) -> None:
        """From now on there is time: batches age and fly."""
        self._loop = asyncio.get_running_loop()
        self._log.open(self._loop)
        now = self._loop.time()
        for batch in self._held.queue:
            batch.born = now
        if self._held.open_items:
            self._age_timer = self._loop.call_later(self._batch_age_max, self._close_batch)
        self._pump()

    def _now(self) -> float:
        return self._loop.time() if self._loop is not None else 0.0

    def _pump(self) -> None:
        """Whatever has happened: launch what may be launched, and tell the drain when nothing is left."""
        if self._loop is None or self._stopped:
            return
        self._launch_all(self._loop)
        if self._draining and self._held.is_empty():
            self._empty.set()

    def _launch_all(self, loop: asyncio.AbstractEventLoop) -> None:
        """Launch while there are batches, requests to spare and a destination; else set a timer for it."""
        if self._wake_timer is not None:
            self._wake_timer.cancel()
            self._wake_timer = None
        now = loop.time()
        self._expire(now)
        while len(self._held.flights) < self._concurrency and (
            self._held.queue or self._held.waits
        ):
            route, ask_again_at = choose(self.routes, now)
            if route is None:
                if ask_again_at < inf:
                    self._wake_timer = loop.call_at(ask_again_at, self._pump)
                return
            batch = self._next(probe=route.breaker.down)
            if batch is None:
                return
            self._launch(loop, batch, route)

    def _expire(self, now: float) -> None:
        while self._held.queue and now - self._held.queue[0].born >= self._retry.age_max:
            self._give_up(self._held.queue.popleft(), "retries_exhausted")

    def _next(self, *, probe: bool) -> Batch | None:
        """The batch at the head; for a probe one that waits will do, so that a quiet lane notices recovery."""
        held = self._held
        if held.queue:
            return held.queue.popleft()
        batch = held.longest_waiting() if probe else None
        if batch is not None:
            held.take_out(batch)
        return batch

    def _launch(self, loop: asyncio.AbstractEventLoop, batch: Batch, route: Route) -> None:
        task = loop.create_task(route.sender.send(batch.data, batch.encoding))
        self._held.flights[task] = Flight(batch, route, loop.time())
        route.launched(batch)
        task.add_done_callback(self._landed)

    def _landed(self, task: asyncio.Task[Outcome]) -> None:
        flight = self._held.flights.pop(task, None)
        if flight is None:  # abandoned by the drain, and counted there
            return
        outcome = self._outcome(task)
        flight.route.attempted(flight.batch, outcome)
        self._verdicts[outcome.verdict](flight, outcome)
        self._pump()

    def _outcome(self, task: asyncio.Task[Outcome]) -> Outcome:
        """What the flight came to; a bug in a sender is a failed attempt, and loud."""
        if task.cancelled():
            return Outcome(verdicts.RETRY, "internal", "cancelled from outside")
        failure = task.exception()
        if failure is None:
            return task.result()
        self._log.fault(failure)
        name = type(failure).__name__
        return Outcome(verdicts.RETRY, "internal", f"a fault of tracefwd's own: {name}")

    # What an attempt came to.

    def _delivered(self, flight: Flight, outcome: Outcome) -> None:
        self._reached(flight)
        flight.route.finished(flight.batch, outcome)
        self._held.leave(flight.batch)
        self.account.delivered += flight.batch.items

    def _rejected(self, flight: Flight, outcome: Outcome) -> None:
        self._reached(flight)
        batch = flight.batch
        flight.route.finished(batch, outcome)
        self._held.leave(batch)
        reason = verdicts.ledger_reason(outcome)
        self.account.reject(reason, batch.items)
        where = flight.route.where
        text = f"{where} refused {self._at[1]} for good: {outcome.detail}"
        self._refusals.add(text, batch.items, self._now())
        self._log.rejected(reason, batch.items, where, outcome.detail)

    def _too_large(self, flight: Flight, outcome: Outcome) -> None:
        """Two batches in its place, at the head; a single line has no halves and never passes."""
        batch = flight.batch
        if batch.items < 2:
            refusal = Outcome(verdicts.REJECTED, outcome.reason, outcome.detail)
            self._rejected(flight, refusal)
            return
        self._reached(flight)
        flight.route.returned(batch)
        self._held.leave(batch)
        parts = halves(plain(batch.data, batch.encoding), batch.items)
        for data, items in reversed(parts):
            half = self._packed(data, items, batch.born)
            half.attempts = batch.attempts
            self._held.queue.appendleft(half)
        self._make_room(0)  # halves pack a little worse than the whole

    def _failed(self, flight: Flight, outcome: Outcome) -> None:
        """Again later: the lane takes a breath, the batch waits its own, longer one."""
        batch, route, launched_at = flight
        now = self._now()
        route.returned(batch)
        route.trouble = outcome.detail
        batch.attempts += 1
        breaker = route.breaker
        was_down = breaker.down
        breaker.failed(now, launched_at, outage=verdicts.is_outage(outcome))
        asked_s = (outcome.retry_after_ms or 0) / 1000
        breath_s = self._backoff_s(breaker.rounds)
        if breaker.down:
            breath_s = probe_wait_s(self._random.random())
        breaker.ready_at = now + self._bounded(max(breath_s, asked_s))
        self._log.failed(route, outcome, went_down=breaker.down and not was_down)
        if breaker.down and any(not other.breaker.down for other in self.routes):
            self._held.queue.appendleft(batch)  # somebody else takes it now
            return
        wait_s = self._bounded(max(self._backoff_s(batch.attempts), asked_s))
        left_s = batch.born + self._retry.age_max - now
        self._wait(batch, max(0.0, min(wait_s, left_s)))

    def _backoff_s(self, attempt: int) -> float:
        unit = self._random.random()
        return backoff_s(attempt, self._retry.backoff_base, self._retry.backoff_max, unit)

    def _bounded(self, wait_s: float) -> float:
        return min(wait_s, DRAIN_WAIT_S) if self._draining else wait_s

    def _wait(self, batch: Batch, wait_s: float) -> None:
        assert self._loop is not None
        self._held.waits[batch] = self._loop.call_later(wait_s, self._waited, batch)

    def _waited(self, batch: Batch) -> None:
        del self._held.waits[batch]
        self._held.queue.appendleft(batch)
        self._pump()

    def _reached(self, flight: Flight) -> None:
        """An answer that settles the batch: the destination is there."""
        route = flight.route
        if route.breaker.down:
            self._log.back(route)
        route.trouble = ""
        route.breaker.succeeded()

    # Losses.

    def _give_up(self, batch: Batch, reason: str) -> None:
        self._held.leave(batch)
        self._drop(reason, batch.items)

    def _drop(self, reason: str, items: int) -> None:
        self.account.drop(reason, items)
        self._log.dropped(reason, items)

    # Leaving.

    async def drain(self, budget_s: float) -> None:
        """Deliver within the budget; what is left then is dropped.  Whoever is cancelled here drops at once."""
        self._draining = True
        try:
            if self._loop is not None:
                self._hurry()
                with suppress(TimeoutError):  # what is left is counted next
                    async with asyncio.timeout(budget_s):
                        await self._empty.wait()
        finally:
            tasks = self._abandon()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _hurry(self) -> None:
        """Nobody waits any longer: not the open batch, not those that failed, not the breath."""
        now = self._now()
        for batch in sorted(self._held.waits, key=lambda waiting: -waiting.born):
            self._held.take_out(batch)
            self._held.queue.appendleft(batch)
        for route in self.routes:
            if route.breaker.ready_at < inf:  # else its probe is under way
                route.breaker.ready_at = min(route.breaker.ready_at, now)
        self._close_batch()
        self._pump()

    def _abandon(self) -> list[asyncio.Task[Outcome]]:
        """Count everything that is still held as dropped; returns the cancelled flights."""
        self._stopped = True
        left = self._held.items()
        flights = self._held.flights.copy()
        self._held.clear()
        for task, flight in flights.items():
            task.cancel()
            flight.route.returned(flight.batch)
        for handle in (self._age_timer, self._wake_timer):
            if handle is not None:
                handle.cancel()
        self._age_timer = self._wake_timer = None
        if left:
            self._drop("drain_budget", left)
        self._log.close()
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

    def refused(self) -> list[str]:
        """What was refused for good lately, in words."""
        return self._refusals.lines(self._now())

    def samples(self) -> Samples:
        """The lane's own figures and those of its routes."""
        prefix = "tracefwd_exporter_"
        dropped = self.account.dropped
        total: Samples = {
            f"{prefix}queue_items": {self._at: self._held.items()},
            f"{prefix}queue_bytes": {self._at: self._held.size_bytes},
            f"{prefix}queue_bytes_max": {self._at: self._queue_bytes_max},
            f"{prefix}dropped_items_total": {(*self._at, why): n for why, n in dropped.items()},
        }
        too_long = self.account.rejected.get("too_long_for_target", 0)
        if too_long:
            at = (*self._at, "too_long_for_target")
            total[f"{prefix}rejected_items_total"] = {at: too_long}
        for route in self.routes:
            add_samples(total, route.samples())
        return total
