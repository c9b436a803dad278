"""Backlog: a lane's way to the spool and back.

    queue, waits --spill--> shelf --load--> old

1. A batch is spilled when memory is three quarters full, when it has waited too long, or when the lane leaves; small
   ones are packed together.  It counts as held in memory until it is on disk, and on the shelf from then on.
2. A batch that is loaded keeps its file until all of its lines are over: whatever fails goes back to the shelf, and
   costs no memory there.
3. At most as many are loaded as may fly at once, and only where there is room for them without a new spill; one for
   which there never is goes alone.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Protocol

from tracefwd.exporter.batch import Batch
from tracefwd.exporter.compress import gzip_or_plain, plain
from tracefwd.exporter.held import Held
from tracefwd.exporter.lane_books import LaneBooks
from tracefwd.exporter.origin import Origin
from tracefwd.model import Stored
from tracefwd.settings import ExporterSettings

# Of queue_bytes_max: above the first batches are spilled until the second is reached.  The rest is for what comes
# while the disk writes.
SPILL_FROM, SPILL_TO = 0.75, 0.5
# How often the ages are looked at, as a share of spool.after, and at most.
_LOOK_SHARE, _LOOK_MAX_S = 0.25, 5.0
# After a read that the disk refused: it may be a passing fault, and others are not held up.
REREAD_S = 5.0
# Should nothing land meanwhile: seldom enough that asking costs nothing.
_LOAD_AGAIN_S = 0.05


class Shelf(Protocol):
    """The spool as one lane sees it; whoever composes hands it in."""

    items: int
    drops_newest: bool

    @property
    def usable(self) -> bool: ...

    @property
    def due_at(self) -> float: ...

    def claim(self, lost: Callable[[int, str], None], found: Callable[[int], None]) -> None: ...

    def put(
        self,
        make: Callable[[], tuple[bytes, str]],
        landed: Callable[[bool], None],
        *,
        items: int,
        age_s: float,
        size_max: int,
        seqs: list[tuple[int, int]],
        maybe_sent: bool,
    ) -> bool: ...

    def next(self, now: float) -> Stored | None: ...

    def put_back(self, stored: Stored, not_before: float) -> None: ...

    def read(self, stored: Stored) -> "asyncio.Future[bytes]": ...

    def is_damage(self, failure: BaseException | None) -> bool: ...

    def remove(self, stored: Stored) -> None: ...


class LanePart(Protocol):
    """What a backlog needs of its lane."""

    books: LaneBooks

    def spooled(self, batch: Batch, *, ok: bool) -> None:
        """The batch's way to the shelf has ended; not ok: it is back in its queue."""

    def lost(self, items: int, reason: str) -> None: ...

    def pump(self) -> None: ...


class Backlog:
    def __init__(
        self,
        shelf: Shelf,
        held: Held,
        lane: LanePart,
        settings: ExporterSettings,
        *,
        after_s: float,
        packs: bool,
    ) -> None:
        self.shelf = shelf
        self._held = held
        self._lane = lane
        self._after_s = after_s
        self._queue_bytes_max = settings.queue_bytes_max
        self._batch_bytes_max = settings.batch_bytes_max
        self._batch_items_max = settings.batch_items_max
        self._packs = packs
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._look()

    def stop(self) -> None:
        """What is on its way to memory rests on the shelf again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for stored in self._held.loading.copy():
            self._held.end_loading(stored)
            self.shelf.put_back(stored, 0.0)
        self.unload()

    # To the spool.

    def spill_excess(self) -> None:
        held, full = self._held, self._queue_bytes_max
        if held.size_bytes - held.storing_bytes <= SPILL_FROM * full or not self.shelf.usable:
            return
        waiting = self._waiting()
        if not waiting:
            return
        self.unload()
        most = held.size_bytes - held.storing_bytes - SPILL_TO * full
        chosen: list[Batch] = []
        for batch in waiting:
            if most <= 0:
                break
            most -= len(batch.data)
            chosen.append(batch)
        self._spill(chosen)

    def spill_loose(self) -> None:
        """Everything that is neither in the journal nor, as part of a batch there, in the spool."""
        self._spill([batch for batch in self._waiting() if not self._lane.books.keeps(batch)])

    def _look(self) -> None:
        """Spill what waits for too long, and with it what soon would: one file instead of several."""
        assert self._loop is not None
        now = self._loop.time()
        if self.shelf.usable:
            old = [b for b in self._waiting() if now - b.born >= self._after_s / 2]
            if old and now - old[0].born >= self._after_s:
                self._spill(old)
        wait_s = min(_LOOK_MAX_S, self._after_s * _LOOK_SHARE)
        self._timer = self._loop.call_later(wait_s, self._look)

    def _waiting(self) -> list[Batch]:
        """Oldest first; without those that are on disk already."""
        held = self._held
        batches = [b for b in (*held.waits, *held.old, *held.queue) if b.stored is None]
        return sorted(batches, key=lambda batch: batch.born)

    def _spill(self, batches: Sequence[Batch]) -> None:
        for group in self._packets(batches):
            if not self._put(group):
                return

    def _packets(self, batches: Sequence[Batch]) -> Iterator[list[Batch]]:
        """Groups of neighbours that fit into one batch."""
        group: list[Batch] = []
        size = items = 0
        for batch in batches:
            size += batch.plain_bytes
            items += batch.items
            if group and (size > self._batch_bytes_max or items > self._batch_items_max):
                yield group
                group, size, items = [], batch.plain_bytes, batch.items
            group.append(batch)
        if group:
            yield group

    def _put(self, group: list[Batch]) -> bool:
        assert self._loop is not None
        pieces = [(batch.data, batch.encoding) for batch in group]
        taken = self.shelf.put(
            partial(_packed, pieces, packs=self._packs),
            partial(self._landed, group),
            items=sum(batch.items for batch in group),
            age_s=self._loop.time() - group[0].born,
            # Plain, because unpacked and packed together they might be larger than apart.
            size_max=max(len(data) for data, _ in pieces)
            if len(pieces) == 1
            else sum(batch.plain_bytes for batch in group),
            seqs=_whole_seqs(group),
            maybe_sent=any(batch.maybe_sent for batch in group),
        )
        if taken:
            for batch in group:
                self._held.take_out(batch)
                self._held.start_storing(batch)
                if batch.origin is not None and batch.origin.pieces > 1:
                    self._lane.books.launched(batch)
        return taken

    def _landed(self, group: list[Batch], ok: bool) -> None:
        for batch in reversed(group):
            if batch in self._held.storing:
                self._held.end_storing(batch)
                if not ok:
                    self._held.give_back(batch)
            self._lane.spooled(batch, ok=ok)
        self._lane.pump()

    # And back.

    def load(self, now: float, most: int) -> None:
        """Have up to ``most`` old batches in memory, ready to fly."""
        held = self._held
        while self.shelf.items and len(held.loading) + len(held.old) < most:
            stored = self.shelf.next(now)
            if stored is None:
                return
            if not self._has_room_for(stored):
                self.shelf.put_back(stored, now)
                return
            held.start_loading(stored)
            self.shelf.read(stored).add_done_callback(partial(self._loaded, stored))

    def _has_room_for(self, stored: Stored) -> bool:
        """One that is larger than all of the queue, which was made smaller, comes when nothing else is there."""
        held = self._held
        is_alone = held.size_bytes == held.open_bytes
        most = self._queue_bytes_max * (1.0 if is_alone else SPILL_FROM)
        return held.size_bytes + stored.size_bytes <= most or held.size_bytes == 0

    def due_at(self, now: float) -> float:
        """When ``load`` is worth calling again, if nothing has landed before.

        What is due already was kept out for want of room or because enough are on their way: their landing is the
        moment.  Asked again at once, the loop would spin, and leave the disk's thread no time to bring them.
        """
        due_at = self.shelf.due_at
        return due_at if due_at > now else now + _LOAD_AGAIN_S

    def _loaded(self, stored: Stored, reading: "asyncio.Future[bytes]") -> None:
        held = self._held
        if stored not in held.loading or self._loop is None:
            return  # the lane has left
        held.end_loading(stored)
        now = self._loop.time()
        failure = None if reading.cancelled() else reading.exception()
        if reading.cancelled() or (failure is not None and not self.shelf.is_damage(failure)):
            self.shelf.put_back(stored, now + REREAD_S)
        elif failure is not None:
            self.shelf.remove(stored)
            self._lane.lost(stored.items, "spool_damaged")
        else:
            held.old.append(held.enter(_batch_of(stored, reading.result(), now)))
        self._lane.pump()

    def put_back(self, batch: Batch, not_before: float) -> None:
        """A batch of the spool that failed waits there."""
        assert batch.stored is not None
        batch.stored.attempts = batch.attempts
        batch.stored.maybe_sent = batch.maybe_sent
        self._held.leave(batch)
        self.shelf.put_back(batch.stored, not_before)

    def unload(self) -> bool:
        """Make room by putting back what is loaded and does not fly; whether there was any."""
        loaded = [batch for batch in self._held.old if batch.stored is not None]
        for batch in loaded:
            self._held.old.remove(batch)
            self.put_back(batch, 0.0)
        return bool(loaded)


def _packed(pieces: list[tuple[bytes, str]], *, packs: bool) -> tuple[bytes, str]:
    """Several batches as one, in the thread of the spool."""
    if len(pieces) == 1:
        return pieces[0]
    lines = b"".join([plain(data, encoding) for data, encoding in pieces])
    return gzip_or_plain(lines, packs=packs)


def _whole_seqs(group: list[Batch]) -> list[tuple[int, int]]:
    """Ranges of journal entries that have no line of this lane elsewhere."""
    origins = [batch.origin for batch in group if batch.origin is not None]
    return [
        (origin.first, origin.last)
        for origin in origins
        if origin.first and origin.pieces == 1 and not origin.held_open
    ]


def _batch_of(stored: Stored, data: bytes, now: float) -> Batch:
    origin = Origin(0, 0, stored)
    origin.gain(stored.items)
    batch = Batch(data, stored.encoding, stored.items, now, origin=origin)
    batch.stored = stored
    batch.old = True
    batch.attempts = stored.attempts
    batch.maybe_sent = stored.maybe_sent
    return batch


__all__ = ["Backlog", "Shelf"]
