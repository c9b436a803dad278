"""Durable: what makes a worker's promises outlive it, put together from journal and spool.

    pipeline -- entry, hold --> journal <-- done -- lanes        flush: once per turn of the loop, then the answers
    dead lives --> recover --> pipeline's accounts, RED, lanes   in steps, each taken once however often we die

1. A held answer is released after everything that was done before it is written (``disk``), or survives a loss of
   power (``fsync``: one sync at a time, in a thread, for all who wait).  A disk that refuses costs the promise, not
   the service: answers are then worth what they are in memory, and ``problems`` says so.
2. Every flush writes what the accounts gained since the last one, so the journal's ledger is exact at each turn.
3. What a dead worker left is taken over in steps that are entries of our own journal; its folder goes at the end.
"""

import asyncio
import logging
import time
from array import array
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from tracefwd import ledger, metrics
from tracefwd.exporter.repeat_log import RepeatLog
from tracefwd.exporter.target import Target
from tracefwd.ledger import Account
from tracefwd.model import Answer, HeldAnswer, Payload, RedKey, Signal
from tracefwd.pipeline import Destination, Pipeline
from tracefwd.service import history
from tracefwd.service.lives import Life, Lives
from tracefwd.settings import Settings
from tracefwd.spool import frames
from tracefwd.spool.disk import Disk
from tracefwd.spool.journal import Journal
from tracefwd.spool.recovered import Recovered
from tracefwd.spool.recovery import recover, remove_folder
from tracefwd.spool.shelf import Shelf
from tracefwd.spool.store import BatchStore

LOG = logging.getLogger("tracefwd.spool")

# What closing may take when the disk hangs.
_CLOSE_S = 1.0


def durability(settings: Settings) -> str:
    """``memory``, ``disk`` or ``fsync``: what ``auto`` means here."""
    chosen = settings.spool.durability
    if not settings.spool.folder:
        return "memory"
    return "disk" if chosen == "auto" else chosen


class Durable:
    """For a worker of ``slot`` whose settings name a spool folder.

    Order: construct, ``connect``, ``open``, start the targets, ``recover``; at the end drain the targets, ``close``.
    """

    def __init__(self, settings: Settings, slot: int, *, disk: Disk | None = None) -> None:
        self._disk = Disk() if disk is None else disk
        self._settings = settings.spool
        self._level = durability(settings)
        root = Path(settings.spool.folder)
        self._lives = Lives(root, self._disk, slot, settings.service.workers)
        try:
            self._life = self._lives.begin()
        except OSError as error:
            LOG.error("%s cannot be used: %s; nothing is durable", root, error)  # noqa: TRY400 - its text says all
            self._life = self._lives.unborn()
        self._log = RepeatLog(LOG, "spool")
        self.store = BatchStore(
            self._life.batches,
            settings.spool,
            wall_ms=lambda: time.time_ns() // 1_000_000,
            complain=self._log.note,
            disk=self._disk,
        )
        self._pipeline: Pipeline | None = None
        self._targets: dict[str, Target] = {}
        self._journal: Journal | None = None
        # Answers of this turn, and those that wait for a sync.
        self._turn: list[tuple[HeldAnswer, Answer]] = []
        self._unsynced: list[tuple[HeldAnswer, Answer]] = []
        self._syncing = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._is_flush_due = False
        self._lanes: dict[str, int] = {}
        self._books: dict[str, tuple[Account, Callable[[], int]]] = {}
        self._noted: history.Totals = {}
        self._adopted: list[str] = []
        self._adopting: asyncio.Task[None] | None = None
        self._dead: list[tuple[Life, Recovered]] = []
        self._is_closed = False

    # Composition

    @property
    def name(self) -> str:
        """This life's; a successor says it when it has taken over."""
        return self._life.name if self._level != "memory" else ""

    @property
    def adopted(self) -> list[str]:
        """Lives of which everything is counted here by now."""
        return self._adopted

    def shelf(self, lane: str) -> Shelf:
        return self.store.shelf(lane)

    @property
    def done(self) -> Callable[[str, int, int, dict[str, Any]], None] | None:
        """For lanes to tell; None without a journal."""
        return None if self._level == "memory" else self._done

    def connect(self, pipeline: Pipeline, targets: Sequence[Target]) -> None:
        """A tee is a copy that nobody waits for, and not worth writing everything twice."""
        self._pipeline = pipeline
        self._targets = {target.name: target for target in targets if target.role != "tee"}
        for name, account in pipeline.accounts.items():
            self._books[name] = account, lambda: 0
        for target in self._targets.values():
            for signal, account in target.accounts.items():
                lane = f"{target.name}/{signal}"
                shelf = self.store.shelf(lane)
                self._books[lane] = account, partial(getattr, shelf, "items")
                self._lanes[lane] = len(self._lanes)
        self._noted = self._totals()
        if self._level != "memory":
            pipeline.journal = self
            if pipeline.red is not None:
                pipeline.red.book = self

    # Life

    async def open(self) -> None:
        """Before the targets start: the spool's batches, and the journal."""
        self._log.open(asyncio.get_running_loop())
        dead = self._lives.dead(self._life)
        await self.store.open([life.batches for life in dead])
        self._dead = await self._read(dead)
        if self._level == "memory":
            return
        next_seq = max([found.next_seq for _, found in self._dead], default=1)
        self._journal = Journal(
            self._life.journal,
            self._disk,
            lanes=[*self._lanes],
            state=lambda: history.pack(self._noted),
            now=time.monotonic,
            bytes_max=self._settings.bytes_max,
            recovered=Recovered(
                self._life.journal, next_seq=max(next_seq, self.store.seq_next), disk=self._disk
            ),
            fsync=self._level == "fsync",
            red=self._pipeline is not None and self._pipeline.red is not None,
        )
        if not self._journal.start():
            LOG.error("the journal in %s cannot be written: answers promise only memory", self.name)

    async def recover(self) -> None:
        """Take over what the dead left; the targets have started."""
        dead, self._dead = self._dead, []
        await self._adopt(dead)

    def each_second(self) -> None:
        """A predecessor that took leave while we lived has left something, too."""
        if self._journal is not None:
            self._want_flush()
        is_free = self._adopting is None or self._adopting.done()
        if is_free and (dead := self._lives.dead(self._life)):
            self._adopting = asyncio.create_task(self._adopt_late(dead), name="adoption")

    async def close(self) -> None:
        """After the targets' drain: what is not delivered is found by whoever comes next."""
        self._is_closed = True
        if self._adopting is not None:
            self._adopting.cancel()
            await asyncio.wait({self._adopting})
        await self.store.close(_CLOSE_S)
        if self._journal is not None:
            self._flush()
            closing = asyncio.get_running_loop().run_in_executor(self._thread, self._journal.close)
            await asyncio.wait({closing}, timeout=_CLOSE_S)
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._release(self._turn + self._unsynced)
        self._lives.release(self._life)
        self._log.close()

    # The pipeline's side

    def entry(
        self, offers: Sequence[tuple[Destination, Payload]], facts: Sequence[int] | None, now_s: int
    ) -> int:
        assert self._journal is not None, "the pipeline is connected before the journal is open"
        lanes = self._lanes
        payloads = [
            (lane, payload.items, payload.data)
            for target, payload in offers
            if payload.items and (lane := lanes.get(f"{target.name}/{payload.signal}")) is not None
        ]
        self._want_flush()
        return self._journal.entry(b"", payloads, facts, now_s)

    def hold(self, answer: Answer) -> HeldAnswer:
        held = HeldAnswer()
        self._turn.append((held, answer))
        self._want_flush()
        return held

    def tick_begins(self) -> None:
        if self._journal is not None:
            self._journal.tick_begins()

    def drained(self, seq: int, numbers: Sequence[int]) -> None:
        if self._journal is not None:
            self._journal.drained(seq, numbers)

    def tick_ended(self) -> None:
        if self._journal is not None:
            self._journal.tick_ended()

    def admitted(self, number: int, key: RedKey) -> None:
        if self._journal is not None:
            self._journal.key(number, frames.pack_key(key))

    def forgotten(self, number: int) -> None:
        if self._journal is not None:
            self._journal.forget_key(number)

    # The lanes' side

    def _done(self, lane: str, first: int, last: int, outcome: dict[str, Any]) -> None:
        """What became of the lines is in the accounts; the journal need only know that they are over."""
        if self._journal is not None and first and lane in self._lanes:
            self._journal.done(self._lanes[lane], first, last, b"")
            self._want_flush()

    # Putting down

    def _want_flush(self) -> None:
        if not self._is_flush_due and not self._is_closed:
            self._is_flush_due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flush_due = False
        journal = self._journal
        if journal is None:
            return
        now = self._totals()
        if gained := history.gains(now, self._noted):
            self._noted = now
            journal.entry(history.pack(gained), (), None, time.time_ns() // 1_000_000_000)
        is_durable = journal.flush()
        turn, self._turn = self._turn, []
        if self._level == "fsync" and is_durable:
            self._unsynced += turn
            self._sync()
        else:
            self._release(turn)

    def _sync(self) -> None:
        if self._syncing or not self._unsynced or self._journal is None:
            return
        self._syncing = True
        waiting, self._unsynced = self._unsynced, []
        syncing = asyncio.get_running_loop().run_in_executor(self._thread, self._journal.sync)

        def synced(future: "asyncio.Future[bool]") -> None:
            self._syncing = False
            if not future.cancelled() and (failure := future.exception()) is not None:
                LOG.error("the journal could not be synced", exc_info=failure)
            self._release(waiting)
            self._sync()

        syncing.add_done_callback(synced)

    def _release(self, answers: list[tuple[HeldAnswer, Answer]]) -> None:
        for held, answer in answers:
            held.release(answer)

    def _totals(self) -> history.Totals:
        return {
            name: history.totals_of(account, spooled())
            for name, (account, spooled) in self._books.items()
        }

    # Taking over

    async def _read(self, dead: list[Life]) -> list[tuple[Life, Recovered]]:
        loop, lanes = asyncio.get_running_loop(), [*self._lanes]
        return [
            (life, await loop.run_in_executor(None, recover, life.journal, self._disk, lanes))
            for life in dead
        ]

    async def _adopt_late(self, dead: list[Life]) -> None:
        await self.store.take_over([life.batches for life in dead])
        await self._adopt(await self._read(dead))

    async def _adopt(self, found: list[tuple[Life, Recovered]]) -> None:
        journal = self._journal
        if journal is None:
            # Their journals wait for a worker that has one.
            for life, _ in found:
                self._lives.release(life)
            return
        # How far one dead life had come with taking over another one.
        steps: dict[str, int] = {}
        for _, each in found:
            for name, step in each.adopted.items():
                steps[name] = max(step, steps.get(name, step))
        for life, each in found:
            self._adopt_one(journal, life, each, steps.get(each.origin, -1))

    def _adopt_one(self, journal: Journal, life: Life, found: Recovered, step: int) -> None:
        """In one turn of the loop, so that no read of the ledger sees half of it; a lane's queue bounds how much."""
        if step < 0 and not found.is_empty:
            outstanding: dict[str, int] = {}
            for line in found.outstanding():
                outstanding[line.lane] = outstanding.get(line.lane, 0) + line.items
            self._adopt_history(journal, found, outstanding)
            if outstanding:
                LOG.info("%s left %s", life.name, outstanding)
        for unit in found.units(max(step, 0)):
            self._adopt_unit(journal, found.origin, unit)
        self._adopted.append(life.name)
        self._flush()
        if journal.degraded:
            # Its folder is all that there is of it on disk.
            LOG.error("%s was taken over in memory only; its folder stays", life.name)
            return
        if remove_folder(found) and self._lives.remove(life):
            journal.adoption_ended(found.origin)

    def _adopt_history(
        self, journal: Journal, found: Recovered, outstanding: dict[str, int]
    ) -> None:
        """Step 0: the dead worker's accounts, without what comes again."""
        total, unread = history.fold(found.state, found.counts)
        if unread or found.damage.lost_bytes or found.damage.files:
            LOG.error(
                "the journal of %s is damaged (%d bytes in %d frames, %d files unreadable): "
                "its counts may be short",
                found.folder.parent.name,
                found.damage.lost_bytes,
                found.damage.frames,
                found.damage.files,
            )
        gained: history.Totals = {
            lane: history.settled(total.get(lane, {}), outstanding.get(lane, 0))
            for lane in self._lanes
            if lane in total
        }
        assert self._pipeline is not None
        kept = gained.get(f"{self._pipeline.primary.name}/{Signal.SPANS}", {}).get("received", 0)
        for name in self._pipeline.accounts:
            passed = kept if name == Signal.SPANS.value else 0
            gained[name] = history.passed_on(total.get(name, {}), passed)
        for name, part in gained.items():
            history.restore(self._books[name][0], part)
        origin = frames.Origin(found.origin, 0)
        self._step(journal, origin, gained, (), None, int(time.time()))

    def _adopt_unit(self, journal: Journal, name: str, unit: Any) -> None:
        assert self._pipeline is not None
        offers: list[tuple[Target, Payload]] = []
        gained: history.Totals = {}
        for lane, items, data in unit.payloads:
            target = self._target_of(lane)
            signal = Signal(lane.rpartition("/")[2])
            offers.append((target, Payload(signal, data, items)))
            books = [f"{target.name}/{signal}"]
            if target is self._pipeline.primary and signal is Signal.SPANS:
                books.append(signal.value)
            for book in books:
                ledger.add(gained, {book: {"received": items}})
        red = self._pipeline.red
        facts: list[int] = []
        now_s = int(time.time())
        for fact in unit.facts if red is not None else ():
            now_s = fact.now_s
            assert red is not None
            facts += red.restore(
                fact.key, error=fact.error, duration_us=fact.duration_us, now_s=now_s
            )
        payloads = [
            (self._lanes[f"{target.name}/{payload.signal}"], payload.items, payload.data)
            for target, payload in offers
        ]
        origin = frames.Origin(name, unit.step)
        seq = self._step(journal, origin, gained, payloads, facts or None, now_s)
        for target, payload in offers:
            # Whether the dead worker had sent it already nobody knows.
            target.offered_again(payload)
            self._pipeline.offer_again(target, payload, seq)

    def _step(
        self,
        journal: Journal,
        origin: frames.Origin,
        gained: history.Totals,
        payloads: Sequence[tuple[int, int, bytes]],
        facts: Sequence[int] | None,
        now_s: int,
    ) -> int:
        """One step, with what the accounts gain by it, so that a flush does not write that again."""
        ledger.add(self._noted, gained)
        self._want_flush()
        packed = array("Q", facts) if facts else None
        return journal.adopt(origin, history.pack(gained), payloads, packed, now_s)

    def _target_of(self, lane: str) -> Target:
        """A target that is configured no longer leaves its lines to the primary."""
        assert self._pipeline is not None
        name = lane.rpartition("/")[0]
        primary = self._targets[self._pipeline.primary.name]
        return self._targets.get(name, primary)

    # What is seen from outside

    def samples(self) -> metrics.Samples:
        total = self.store.samples()
        if self._journal is not None:
            metrics.add(total, self._journal.samples())
        return total

    def problems(self) -> list[str]:
        if self._level == "memory" or (self._journal is not None and not self._journal.degraded):
            return []
        return [
            f"the journal in {self._settings.folder} cannot be written: answers promise only memory"
        ]
