"""Durable: what makes a worker's promises outlive it, put together from journal and spool.

    pipeline -- entry, hold --> journal <-- done -- lanes        flush: once per turn of the loop, then the answers
    dead lives --> recover --> pipeline's accounts, RED, lanes   in steps, each taken once however often we die

1. A held answer is released after everything that was done before it is written (``disk``), or survives a loss of
   power (``fsync``: one sync at a time, in a thread, for all who wait).  A disk that refuses costs the promise, not
   the service: answers are then worth what they are in memory, and ``problems`` says so.
2. Every flush writes what the accounts gained since the last one, so the journal's ledger is exact at each turn.
3. What a dead worker left is taken over in steps that are entries of our own journal (``adoption.py``).
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from tracefwd import metrics
from tracefwd.doorways import Answer, HeldAnswer
from tracefwd.exporter.repeat_log import RepeatLog
from tracefwd.exporter.target import Target
from tracefwd.model import Payload, RedKey, Signal
from tracefwd.pipeline import Pipeline
from tracefwd.plan import Destination
from tracefwd.service import history
from tracefwd.service.adoption import Adoption, Estate, read_estate
from tracefwd.service.books import COPY, LANE, OWN, Books
from tracefwd.service.lives import Life, Lives
from tracefwd.service.settling import settle
from tracefwd.service.spool_roots import Foreign, heir_in, root_of
from tracefwd.settings import Settings
from tracefwd.spool import frames
from tracefwd.spool.disk import Disk
from tracefwd.spool.journal import Journal
from tracefwd.spool.recovered import Recovered
from tracefwd.spool.shelf import Shelf
from tracefwd.spool.store import BatchStore

LOG = logging.getLogger("tracefwd.spool")

# What closing may take when the disk hangs.
_CLOSE_S = 1.0
# A look for the dead takes milliseconds; what is not found at the start is found later.
_LOOK_S_MAX, _LOOK_AGAIN_S = 2.0, 0.02


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
        root = root_of(settings)
        # One of the workers tells.
        self._foreign = Foreign(settings) if slot == 0 else None
        self._lives = Lives(root, self._disk, slot, settings.service.workers)
        try:
            self._life = self._lives.begin()
        except OSError as error:
            LOG.error("%s cannot be used: %s; nothing is durable", root, error)  # noqa: TRY400 - its text says all
            self._life = self._lives.unborn()
        self._log = RepeatLog(LOG, "spool")
        self._heir = heir_in(settings)
        self.store = BatchStore(
            self._life.batches,
            settings.spool,
            wall_ms=lambda: time.time_ns() // 1_000_000,
            complain=self._log.note,
            disk=self._disk,
            writer=self._life.key,
            heir=self._heir,
        )
        self._pipeline: Pipeline | None = None
        self._primary: Target | None = None
        self._journal: Journal | None = None
        self.tick_early = asyncio.Event()
        # Answers of this turn, and those that wait for a sync.
        self._turn: list[tuple[HeldAnswer, Answer]] = []
        self._unsynced: list[tuple[HeldAnswer, Answer]] = []
        self._syncing = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._is_flush_due = False
        self._lanes: dict[str, int] = {}
        self._books = Books("")
        self._adoption: Adoption | None = None
        self._adopting: asyncio.Task[None] | None = None
        self._dead: list[Estate] = []
        # Folders whose journals wait for a worker that has one.
        self._left_alone: list[Life] = []
        self._is_closed = False
        # Problems that the log has.
        self._told: set[str] = set()

    # Composition

    @property
    def name(self) -> str:
        """This life's; a successor says it when it has taken over."""
        return self._life.key if self._level != "memory" else ""

    @property
    def adopted(self) -> list[str]:
        """Lives of which everything is counted here by now; those of long ago are left out."""
        return [] if self._adoption is None else [*self._adoption.names]

    def shelf(self, lane: str) -> Shelf:
        return self.store.shelf(lane)

    @property
    def done(self) -> Callable[[str, int, int], None] | None:
        """For lanes to tell; None without a journal."""
        return None if self._level == "memory" else self._done

    @property
    def launched(self) -> Callable[[str, int, int, bool], None] | None:
        return None if self._level == "memory" else self._launched

    @property
    def lacks(self) -> Callable[[int, int], bool] | None:
        """For lanes to ask when they leave; None without a journal."""
        return None if self._level == "memory" else self._lacks

    def connect(self, pipeline: Pipeline, targets: Sequence[Target]) -> None:
        """A tee is a copy that nobody waits for, and not worth writing everything twice."""
        self._pipeline = pipeline
        self._primary = next(target for target in targets if target.role == "primary")
        self._books = Books(f"{pipeline.primary.name}/{Signal.SPANS}")
        for name, account in pipeline.accounts.items():
            self._books.add(name, account, OWN)
        for target in targets:
            for signal, account in target.accounts.items():
                lane = f"{target.name}/{signal}"
                self._books.add(lane, account, LANE, target.again[signal])
                if target is self._primary:
                    self._lanes[lane] = len(self._lanes)
            target.tell_found(self._books.found)
            for name, accounts in target.failover_accounts().items():
                for signal, account in accounts.items():
                    self._books.add(f"{name}/{signal}", account, COPY)
        self._books.begin()
        if self._level != "memory":
            pipeline.journal = self
            if pipeline.red is not None:
                pipeline.red.book = self

    # Life

    async def open(self) -> None:
        """Before the targets start: the spool's batches, and the journal."""
        loop = asyncio.get_running_loop()
        self._log.open(loop)
        if self._foreign is not None:
            await loop.run_in_executor(None, self._foreign.look)
            for problem in self._foreign.problems():
                LOG.warning(problem)
        dead = await self._find_dead()
        self._dead = await self._read(dead)
        await self.store.open([life.batches for life in dead])
        if self._level == "memory":
            return
        assert self._pipeline is not None, "connect comes first"
        assert self._primary is not None
        next_seq = max([self.store.seq_next, *(each.found.next_seq for each in self._dead)])
        self._journal = Journal(
            self._life.journal,
            self._disk,
            lanes=[*self._lanes],
            state=lambda: history.pack(self._books.noted),
            now=time.monotonic,
            bytes_max=self._settings.bytes_max,
            recovered=Recovered(self._life.journal, next_seq=next_seq, disk=self._disk),
            fsync=self._level == "fsync",
            red=self._pipeline.red is not None,
        )
        self._adoption = Adoption(
            self._lives,
            self._journal,
            self._books,
            self._pipeline,
            self._primary,
            self._lanes,
            heir=self._heir,
            flush=self._flush,
            sync=self._survives,
        )
        if not self._journal.start():
            LOG.error("the journal in %s cannot be written: answers promise only memory", self.name)
        await self._adoption.take_histories(self._dead)

    async def recover(self) -> None:
        """Take over what the dead left; the targets have started.  Lines follow as their lanes have room."""
        dead, self._dead = self._dead, []
        if self._adoption is None:
            self._leave_alone(dead)
        else:
            await self._adoption.take_rest(dead)
        self._lives.clear()

    def each_second(self) -> None:
        """A predecessor that took leave while we lived has left something, too; and somebody may have tidied up."""
        self._lives.look(self._life)
        if self._life.lock < 0:
            self._lives.bear(self._life)
        if self._adoption is not None:
            self._want_flush()
            self._adoption.each_second()
            if self._journal is not None:
                self._journal.look()
                if self._journal.wants_tick:
                    self.tick_early.set()
            if self._level == "fsync" and not self._is_closed:
                self._sync(idle=True)
        if self._adopting is not None and self._adopting.done():
            # A failure here is one of ours, and ends the worker like that of any other task.
            self._adopting.result()
            self._adopting = None
        if self._adopting is None and not self._is_closed and (dead := self._dead_now()):
            self._adopting = asyncio.create_task(self._take_late(dead), name="late adoption")

    async def close(self) -> None:
        """After the targets' drain: what is not delivered is found by whoever comes next."""
        self._is_closed = True
        if self._adopting is not None:
            self._adopting.cancel()
            await asyncio.wait({self._adopting})
        if self._adoption is not None:
            await self._adoption.stop()
        await self.store.close(_CLOSE_S)
        if self._journal is not None:
            self._flush()
            closing = asyncio.get_running_loop().run_in_executor(self._thread, self._journal.close)
            await asyncio.wait({closing}, timeout=_CLOSE_S)
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._release(self._turn + self._unsynced)
        for life in (self._life, *self._left_alone, *(each.life for each in self._dead)):
            self._lives.release(life)
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

    def _done(self, lane: str, first: int, last: int) -> None:
        """What became of the lines is in the accounts; the journal need only know that they are over."""
        if self._journal is None:
            return
        if first and lane in self._lanes:
            self._journal.done(self._lanes[lane], first, last)
        # Also for a batch of the spool, whose file goes in the next turn: by then the accounts are written.
        self._want_flush()

    def _launched(self, lane: str, first: int, last: int, under_way: bool) -> None:
        if self._journal is None or lane not in self._lanes:
            return
        tell = self._journal.launched if under_way else self._journal.returned
        tell(self._lanes[lane], first, last)
        self._want_flush()

    def _lacks(self, first: int, last: int) -> bool:
        return self._journal is None or self._journal.lacks(first, last)

    # Putting down

    def _want_flush(self) -> None:
        if not self._is_flush_due and not self._is_closed:
            self._is_flush_due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> bool:
        """Put down the turn; whether it is on disk."""
        self._is_flush_due = False
        journal = self._journal
        if journal is None:
            return False
        if self._life.lock < 0:
            self._lives.bear(self._life)
        if gained := self._books.gained():
            journal.entry(history.pack(gained), (), None, time.time_ns() // 1_000_000_000)
        is_durable = journal.flush()
        turn, self._turn = self._turn, []
        if self._level == "fsync" and is_durable:
            self._unsynced += turn
            self._sync()
        else:
            self._release(turn)
        return is_durable

    async def _survives(self) -> bool:
        """Everything that was put down up to now survives whatever the level says."""
        assert self._journal is not None
        if self._level != "fsync":
            return True
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._journal.sync)

    def _sync(self, *, idle: bool = False) -> None:
        """For answers that wait; ``idle``: for the segments that may go only then."""
        if self._syncing or self._journal is None or not (self._unsynced or idle):
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

    # Taking over

    async def _find_dead(self) -> list[Life]:
        """At the start, when another worker that starts may be looking, too."""
        give_up_at = time.monotonic() + _LOOK_S_MAX
        while (found := self._dead_now()) is None and time.monotonic() < give_up_at:  # noqa: ASYNC110 - a lock has no event
            await asyncio.sleep(_LOOK_AGAIN_S)
        return found or []

    def _dead_now(self) -> list[Life] | None:
        """None while another worker looks."""
        try:
            dead = self._lives.dead(self._life)
        except OSError as error:
            self._log.note("lives", logging.ERROR, 1, f"the spool's folder cannot be read: {error}")
            return []
        self._say_closed()
        return dead

    def _say_closed(self) -> None:
        problems = self._lives.problems()
        for problem in set(problems) - self._told:
            LOG.error(problem)
        self._told = set(problems)

    async def _read(self, dead: Sequence[Life]) -> list[Estate]:
        loop = asyncio.get_running_loop()
        read = partial(read_estate, disk=self._disk, lanes=[*self._lanes], heir=self._heir)
        estates = [await loop.run_in_executor(None, read, life) for life in dead]
        # Before any batch is moved: what is on disk twice is so in one place then.
        await loop.run_in_executor(None, settle, estates, self._disk)
        return estates

    async def _take_late(self, dead: Sequence[Life]) -> None:
        estates = await self._read(dead)
        batches = [life.batches for life in dead]
        if self._adoption is None:
            await self.store.take_over(batches)
            self._leave_alone(estates)
        else:
            await self._adoption.take_histories(estates)
            await self.store.take_over(batches)
            await self._adoption.take_rest(estates)

    def _leave_alone(self, estates: Sequence[Estate]) -> None:
        for life, found in ((estate.life, estate.found) for estate in estates):
            if not found.is_empty:
                LOG.warning("%s waits for a worker with a journal (spool.durability)", life.journal)
            if not found.is_empty or not self._lives.remove(life):
                self._left_alone.append(life)

    # What is seen from outside

    def samples(self) -> metrics.Samples:
        total = self.store.samples()
        if self._journal is not None:
            metrics.add(total, self._journal.samples())
        return total

    def problems(self) -> list[str]:
        problems = self.store.problems() + self._lives.problems()
        if self._foreign is not None:
            problems += self._foreign.problems()
        if self._level == "memory" or (self._journal is not None and not self._journal.degraded):
            return problems
        return [
            *problems,
            f"the journal in {self._settings.folder} cannot be written: answers promise only memory",
        ]
