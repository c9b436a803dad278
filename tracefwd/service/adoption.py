"""Adoption: how a worker takes over what dead ones left.

    history (all at once) --> RED facts --> lines, as their lanes have room --> the folder goes

1. Every step is an entry of our own journal that says so, so each is taken once however often we die, and whoever
   takes over from us goes on where we were.  A step that is not on disk does not count as taken.
2. With the history the ledger has all that the dead one had, in one turn of the loop; its lines are held until they are
   offered again (``books.py``).  That may take as long as an outage: two queues' worth does not fit into one.
3. RED does not wait for it, nor does the start of a worker.
4. A folder is removed when all of it is in our journal for good.  If the disk refuses that, it stays ours, and for the
   next worker to find: then lines come twice, and none is lost.
"""

import asyncio
import logging
import time
from array import array
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from tracefwd import ledger
from tracefwd.exporter.target import Target
from tracefwd.model import Payload, Signal
from tracefwd.pipeline import Pipeline
from tracefwd.service import history
from tracefwd.service.books import Books
from tracefwd.service.lives import Life, Lives
from tracefwd.service.spool_roots import is_named
from tracefwd.spool import frames
from tracefwd.spool.batch_file import BatchFolder
from tracefwd.spool.disk import Disk
from tracefwd.spool.journal import Journal
from tracefwd.spool.recovered import Recovered, Unit
from tracefwd.spool.recovery import recover

LOG = logging.getLogger("tracefwd.spool")

# What one turn of the loop may cost, so that answers are given in between.
_TURN_S = 0.002
# Until a full lane is asked again.
_ROOM_AGAIN_S = 0.05
# The parent has had a snapshot by then that says what was adopted.
_TOLD_S = 10.0
# RED's steps are counted apart: they do not wait for the lines.
_RED = "#red"


@dataclass
class Estate:
    """What one dead worker left.  ``step`` and ``red_step`` are the last ones that are taken, -1 if none is."""

    life: Life
    found: Recovered
    # Lines in its spool by the lane that takes them.
    spooled: dict[str, int]
    step: int = -1
    red_step: int = -1
    # Lines beyond ``step`` by lane, as the dead one called it.
    outstanding: dict[str, int] = field(default_factory=dict)
    # Everything of it that was taken is on disk.
    is_safe: bool = True

    @property
    def origin(self) -> str:
        return self.life.key

    def count(self) -> None:
        """Reads all of it: for a thread."""
        for line in self.found.outstanding():
            if line.seq > self.step:
                self.outstanding[line.lane] = self.outstanding.get(line.lane, 0) + line.items


def read_estate(
    life: Life, *, disk: Disk, lanes: Sequence[str], heir: Callable[[str], str]
) -> Estate:
    """For a thread.  ``lanes`` are names that may occur, ``heir`` is as in ``spool_roots.py``."""
    spooled: dict[str, int] = {}
    # A folder that cannot be read is not moved either: what is in it is found, and received, another time.
    with suppress(OSError):
        for named in BatchFolder(life.batches, disk).names():
            lane = heir(named.lane)
            spooled[lane] = spooled.get(lane, 0) + named.items
    return Estate(life, recover(life.journal, disk, lanes), spooled)


class Adoption:
    """``flush`` puts down the turn and says whether it is on disk; ``sync`` until it survives what it is to survive."""

    def __init__(
        self,
        lives: Lives,
        journal: Journal,
        books: Books,
        pipeline: Pipeline,
        primary: Target,
        lanes: Mapping[str, int],
        *,
        heir: Callable[[str], str],
        flush: Callable[[], bool],
        sync: Callable[[], Awaitable[bool]],
    ) -> None:
        self._lives = lives
        self._journal = journal
        self._books = books
        self._pipeline = pipeline
        self._lanes = lanes
        self._flush = flush
        self._sync = sync
        self._primary = primary
        self._heir = heir
        # Estates whose lines are yet to be offered, oldest first.
        self._waiting: deque[Estate] = deque()
        self._offering: asyncio.Task[None] | None = None
        self.names: dict[str, None] = {}
        """Keys of lives whose whole account is ours by now."""
        self._ended: deque[tuple[float, str]] = deque()
        # Folders that stay, ours until we end: nobody takes them over from a worker that lives.
        self._kept: list[Life] = []

    async def take_histories(self, estates: Sequence[Estate]) -> None:
        """Before their batches are moved and found."""
        steps = dict(self._journal.adopted)
        for estate in estates:
            for origin, step in estate.found.adopted.items():
                steps[origin] = max(step, steps.get(origin, step))
        loop = asyncio.get_running_loop()
        for estate in estates:
            estate.step = steps.get(estate.origin, -1)
            estate.red_step = steps.get(estate.origin + _RED, -1)
            await loop.run_in_executor(None, estate.count)
        if estates:
            self._take_histories(estates)

    async def take_rest(self, estates: Sequence[Estate]) -> None:
        """RED; the lines follow by and by."""
        for estate in estates:
            await self._take_red(estate)
        self._waiting += estates
        if self._waiting and (self._offering is None or self._offering.done()):
            self._offering = asyncio.create_task(self._offer_all(), name="adoption")

    async def stop(self) -> None:
        """What is not offered by now is the next worker's."""
        if self._offering is not None:
            self._offering.cancel()
            await asyncio.wait({self._offering})
            if not self._offering.cancelled() and (error := self._offering.exception()) is not None:
                LOG.error("what dead workers left was not taken over", exc_info=error)
        for life in [*self._kept, *(estate.life for estate in self._waiting)]:
            self._lives.release(life)

    def each_second(self) -> None:
        """Forget what the parent knows by now.  Raises what the taking over has failed with."""
        if self._offering is not None and self._offering.done():
            self._offering.result()
        while self._ended and self._ended[0][0] + _TOLD_S < time.monotonic():
            _, origin = self._ended.popleft()
            for name in (origin, origin + _RED):
                self._journal.adoption_ended(name)
            self.names.pop(origin, None)

    # In one turn of the loop.

    def _take_histories(self, estates: Sequence[Estate]) -> None:
        now_s = int(time.time())
        ours = {estate.origin for estate in estates}
        for estate in estates:
            # What it had taken over itself is taken with it, and its word for that goes with its folder.
            for origin, taken in estate.found.adopted.items():
                step = max(taken, self._journal.adopted.get(origin, taken))
                self._journal.adopt(frames.Origin(origin, step), b"", (), None, now_s)
                key = origin.removesuffix(_RED)
                self.names[key] = None
                if key not in ours:
                    self._ended.append((time.monotonic(), key))
            self.names[estate.life.key] = None
        new = [estate for estate in estates if estate.step < 0]
        # As one: a file may be in the folder of one and in the account of the other.
        gained = self._restored(estates, new)
        for estate in new:
            self._step(estate, Unit(0, [], []), estate.origin, gained, ())
            gained = {}
        for estate in estates:
            for lane, items in estate.outstanding.items():
                for name in self._names_of(lane):
                    self._books.expect(name, items)
            if estate.outstanding:
                LOG.info("%s left %s", estate.life.name, estate.outstanding)
        for estate in new:
            estate.step = 0
        if not self._flush():
            for estate in estates:
                # Step 0 stays taken: wherever the accounts are written again, they have the history.
                self._not_taken(estate, estate.origin, estate.step)

    def _restored(self, estates: Sequence[Estate], new: Sequence[Estate]) -> history.Totals:
        """Step 0: the dead workers' accounts, without what comes again."""
        if not new:
            return {}
        total: history.Totals = {}
        outstanding: dict[str, int] = {}
        spooled: dict[str, int] = {}
        for estate in new:
            ledger.add(total, self._history_of(estate))
            ledger.add(outstanding, estate.outstanding)
        for estate in estates:
            # Of those whose history was taken before, by one of the new.
            ledger.add(spooled, estate.spooled)
        return self._books.restore(total, outstanding, spooled)

    def _history_of(self, estate: Estate) -> history.Totals:
        found = estate.found
        total, unread = history.fold(found.state, found.counts)
        if unread or found.damage.lost_bytes or found.damage.files:
            LOG.error(
                "the journal of %s is damaged (%d bytes in %d frames, %d files unreadable): "
                "its counts may be short",
                estate.life.name,
                found.damage.lost_bytes,
                found.damage.frames,
                found.damage.files,
            )
        return total

    # Slice by slice.

    async def _take_red(self, estate: Estate) -> None:
        origin = estate.origin + _RED
        if self._pipeline.red is None:
            return
        before, began = estate.red_step, time.monotonic()
        for unit in estate.found.fact_units(estate.red_step):
            self._take_facts(estate, unit, origin)
            estate.red_step = unit.step
            if time.monotonic() - began > _TURN_S:
                self._put_down(estate, origin, before)
                await asyncio.sleep(0)
                before, began = estate.red_step, time.monotonic()
        self._put_down(estate, origin, before)

    def _take_facts(self, estate: Estate, unit: Unit, origin: str) -> None:
        red = self._pipeline.red
        assert red is not None
        facts: list[int] = []
        for fact in unit.facts:
            facts += red.restore(
                fact.key, error=fact.error, duration_us=fact.duration_us, now_s=fact.now_s
            )
        self._step(estate, unit, origin, {}, (), array("Q", facts))

    async def _offer_all(self) -> None:
        while self._waiting:
            estate = self._waiting[0]
            await self._offer_lines(estate)
            await self._finish(estate)
            self._waiting.popleft()

    async def _offer_lines(self, estate: Estate) -> None:
        before, began = estate.step, time.monotonic()
        for unit in estate.found.line_units(estate.step):
            has_room = self._has_room(unit)
            if not has_room or time.monotonic() - began > _TURN_S:
                self._put_down(estate, estate.origin, before)
                await asyncio.sleep(0)
                while not self._has_room(unit):  # noqa: ASYNC110 - lanes and disk make it
                    await asyncio.sleep(_ROOM_AGAIN_S)
                before, began = estate.step, time.monotonic()
            self._take_lines(estate, unit)
            estate.step = unit.step
        self._lose_unread(estate)
        self._put_down(estate, estate.origin, before)

    def _has_room(self, unit: Unit) -> bool:
        return all(self._primary.has_room(self._signal_of(lane)) for lane, _, _ in unit.payloads)

    def _take_lines(self, estate: Estate, unit: Unit) -> None:
        offers: list[Payload] = []
        payloads: list[tuple[int, int, bytes]] = []
        gained: history.Totals = {}
        for lane, items, data in unit.payloads:
            if not is_named(lane):
                continue
            payload = Payload(self._signal_of(lane), data, items)
            offers.append(payload)
            payloads.append((self._lanes[self._heir(lane)], items, data))
            if estate.found.was_launched(lane, unit.step):
                # Of all others it is known that they were not sent.
                self._primary.offered_again(payload)
            estate.outstanding[lane] = estate.outstanding.get(lane, 0) - items
            for name in self._names_of(lane):
                self._books.arrive(name, items)
                ledger.add(gained, {name: {"received": items}})
        seq = self._step(estate, unit, estate.origin, gained, payloads)
        for payload in offers:
            self._pipeline.offer_again(self._primary, payload, seq)

    def _lose_unread(self, estate: Estate) -> None:
        """Lines that could be counted, and then not be read, or of which nobody knows what they are."""
        for lane, items in estate.outstanding.items():
            if items <= 0:
                continue
            LOG.error("%d lines of %s cannot be read any more", items, estate.life.name)
            for name in self._names_of(lane):
                self._books.arrive(name, items)
                self._books.books[name].account.received += items
            self._primary.accounts[self._signal_of(lane)].drop("crash", items)

    async def _finish(self, estate: Estate) -> None:
        name = estate.life.name
        if not estate.is_safe or not await self._sync():
            LOG.error("%s was taken over in memory only; its folder stays", name)
        elif self._lives.remove(estate.life):
            self._ended.append((time.monotonic(), estate.origin))
            return
        else:
            LOG.error("%s was taken over, but its folder could not be removed", name)
        self._kept.append(estate.life)

    # Steps.

    def _step(
        self,
        estate: Estate,
        unit: Unit,
        origin: str,
        gained: history.Totals,
        payloads: Sequence[tuple[int, int, bytes]],
        facts: "array[int] | None" = None,
    ) -> int:
        """One step, with what the accounts gain by it, so that a flush does not write that again."""
        self._books.note(gained)
        counts = history.pack(gained)
        now_s = unit.facts[0].now_s if unit.facts else int(time.time())
        if not estate.is_safe:
            return self._journal.entry(counts, payloads, facts, now_s)
        return self._journal.adopt(frames.Origin(origin, unit.step), counts, payloads, facts, now_s)

    def _put_down(self, estate: Estate, origin: str, before: int) -> None:
        """The steps since ``before``, which were all taken in this turn."""
        if not self._flush() and estate.is_safe:
            self._not_taken(estate, origin, before)

    def _not_taken(self, estate: Estate, origin: str, before: int) -> None:
        """They are in memory alone: whoever takes over from us finds them where they are."""
        estate.is_safe = False
        if before < 0:
            self._journal.adopted.pop(origin, None)
        else:
            self._journal.adopted[origin] = before

    # Names.

    def _signal_of(self, lane: str) -> Signal:
        return Signal(self._heir(lane).rpartition("/")[2])

    def _names_of(self, lane: str) -> list[str]:
        """The books in which its lines are."""
        names = [self._heir(lane)]
        if self._signal_of(lane) is Signal.SPANS:
            names.append(Signal.SPANS)
        return names
