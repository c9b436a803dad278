"""Gathering: from a post's lines to closed batches, within the bound in bytes.  The warm part, once per post.

    offer -> open batch -> queue

What does not fit makes room, or is dropped; both are counted in the same turn.  Lines of one journal entry have one
origin, whatever batches they end up in.
"""

import asyncio
from collections.abc import Callable

from tracefwd.exporter.backlog import SPILL_TO, Backlog
from tracefwd.exporter.batch import Batch, cut
from tracefwd.exporter.compress import gzip_or_plain
from tracefwd.exporter.held import Held
from tracefwd.exporter.lane_books import LaneBooks
from tracefwd.exporter.origin import Origin
from tracefwd.limits import STORING_BYTES_MAX
from tracefwd.model import Payload
from tracefwd.settings import ExporterSettings


class Gathering:
    """``takes``: whether the target takes the signal at all; ``packs``: whether batches are compressed.

    ``pump`` is called when a batch has come to the queue.
    """

    def __init__(
        self,
        held: Held,
        books: LaneBooks,
        settings: ExporterSettings,
        *,
        takes: bool,
        packs: bool,
        backlog: Backlog | None,
        pump: Callable[[], None],
    ) -> None:
        self._held = held
        self._books = books
        self._account = books.account
        self._takes = takes
        self._packs = packs
        self._backlog = backlog
        self._pump = pump
        self.queue_bytes_max = settings.queue_bytes_max
        self._batch_bytes_max = min(settings.batch_bytes_max, settings.queue_bytes_max)
        self._batch_items_max = settings.batch_items_max
        self._batch_age_max = settings.batch_age_max
        # The origin of the batch that was closed last, and the same while the open batch is a part of it.
        self._newest: Origin | None = None
        self._joined: Origin | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._age_timer: asyncio.TimerHandle | None = None
        self._hurries = False
        self._stopped = False

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on there is time: batches age."""
        self._loop = loop
        now = loop.time()
        for batch in self._held.queue:
            batch.born = now
        if self._held.open_items:
            self._age_timer = loop.call_later(self._batch_age_max, self.close_batch)

    def hurry(self) -> None:
        """Nothing is gathered any longer."""
        self._hurries = True
        self.close_batch()

    def stop(self) -> None:
        """Whoever offers now comes too late."""
        self.close_batch()
        self._stopped = True

    def has_room(self) -> bool:
        """Whether somebody who can wait should offer more; where it is spilled, the spool is waited for."""
        return not self._takes or self._held.size_bytes <= SPILL_TO * self.queue_bytes_max

    def offer(self, payload: Payload, seq: int = 0) -> None:
        """Take the lines, or drop and count what the bounds do not allow.

        ``seq`` is the journal entry that holds them (0: none); seqs never descend.
        """
        account = self._account
        items = payload.items
        unsendable = payload.unsendable
        account.received += items + unsendable
        if unsendable:
            account.reject("too_long_for_target", unsendable)
        if not self._takes or self._stopped:
            self._turned_away(items, seq)
            return
        data = payload.data
        if len(data) > self._batch_bytes_max or items > self._batch_items_max:
            self._gather_cut(data, items, seq)
        elif items:
            self._gather(data, items, seq)
        elif seq and unsendable:
            self._end_entry(0, seq, "dropped", "queue_full")

    def _gather(self, data: bytes, items: int, seq: int) -> None:
        held = self._held
        size = len(data)
        if (
            held.open_bytes + size > self._batch_bytes_max
            or held.open_items + items > self._batch_items_max
        ):
            self.close_batch()
        if held.size_bytes + size > self.queue_bytes_max and not self.make_room(size):
            self._end_entry(items, seq, "dropped", self._full_reason())
            return
        if seq and not held.open_items:
            self._join(seq)
        held.gather(data, items, seq)
        if (
            held.open_items >= self._batch_items_max
            or held.open_bytes >= self._batch_bytes_max
            or self._hurries
        ):
            self.close_batch()
        elif self._age_timer is None and self._loop is not None:
            self._age_timer = self._loop.call_later(self._batch_age_max, self.close_batch)

    def _gather_cut(self, data: bytes, items: int, seq: int) -> None:
        """More than a batch: its pieces are batches of their own, with one origin."""
        self.close_batch()
        self._join(seq)
        origin = self._newest = self._take_joined() or self._books.origin(seq, seq)
        if origin is not None:
            origin.gain(items, pieces=0)
        limits = {"bytes_max": self._batch_bytes_max, "items_max": self._batch_items_max}
        for piece, lines in cut(data, **limits):
            batch = self.packed(piece, lines, self._now(), origin)
            if origin is not None:
                origin.pieces += 1
            if self._held.size_bytes > self.queue_bytes_max and not self.make_room(0):
                self._held.leave(batch)
                self._books.dropped(batch, self._full_reason())
            else:
                self._held.queue.append(batch)
        self._pump()

    def _turned_away(self, items: int, seq: int) -> None:
        """The target takes no such signal (the settings give no URL for it), or has left already."""
        if not self._takes:
            self._end_entry(items, seq, "blocked", "")
        elif seq and self._books.has_journal:
            self._held.kept_items += items
        else:
            self._end_entry(items, seq, "dropped", "drain_budget")

    def _end_entry(self, items: int, seq: int, state: str, reason: str) -> None:
        """Lines that are over before they came into a batch."""
        self._join(seq)
        origin = self._take_joined() or self._books.origin(seq, seq)
        self._books.refused_entry(items, state, reason)
        if origin is not None and origin.is_over:
            self._books.finish(origin)

    def close_batch(self) -> None:
        """The open batch goes to the queue."""
        if self._age_timer is not None:
            self._age_timer.cancel()
            self._age_timer = None
        if self._held.open_items:
            origin = self._open_origin()
            self._held.queue.append(self._held.close_open(self._now(), origin))
            self._pump()

    def _open_origin(self) -> Origin | None:
        """Of the open batch, which ends here."""
        held = self._held
        first, last = held.open_seqs
        origin = self._take_joined() or self._books.origin(first, last)
        if origin is not None:
            origin.last = last
            origin.gain(held.open_items)
            self._newest = origin
        return origin

    def _join(self, seq: int) -> None:
        """Lines of one entry have one origin, even when a batch was closed between its payloads."""
        origin = self._newest
        if origin is not None and origin.last == seq and not origin.is_over:
            origin.held_open = True
            self._joined = origin

    def _take_joined(self) -> Origin | None:
        origin, self._joined = self._joined, None
        if origin is not None:
            origin.held_open = False
        return origin

    def packed(self, data: bytes, items: int, born: float, origin: Origin | None) -> Batch:
        """A batch that is held from now on; the caller puts it into one of the places."""
        body, encoding = gzip_or_plain(data, packs=self._packs)
        batch = Batch(body, encoding, items, born, plain_bytes=len(data), origin=origin)
        return self._held.enter(batch)

    def make_room(self, size: int) -> bool:
        """Push out the oldest until ``size`` more bytes fit.

        False: nothing can go, or the newest is to be dropped.
        """
        if size > self.queue_bytes_max:
            return False  # pushing out everything would not help
        held = self._held
        # What is on its way to the spool is safe in a moment: nothing acknowledged goes because a disk is slow.
        most = self.queue_bytes_max + min(held.storing_bytes, STORING_BYTES_MAX)
        while held.size_bytes + size > most:
            if self._backlog is not None and self._backlog.unload():
                continue
            if self._drops_newest:
                return False
            if (oldest := held.oldest()) is not None:
                held.take_out(oldest)
                held.leave(oldest)
                self._books.dropped(oldest, "queue_full")
            elif held.open_items:
                origin = self._open_origin()
                batch = Batch(b"", "", held.drop_open(), 0.0, origin=origin)
                self._books.dropped(batch, "queue_full")
            else:
                return False
        return True

    @property
    def _drops_newest(self) -> bool:
        shelf = None if self._backlog is None else self._backlog.shelf
        return shelf is not None and shelf.drops_newest and shelf.usable

    def _full_reason(self) -> str:
        return "spool_full" if self._drops_newest else "queue_full"

    def _now(self) -> float:
        return self._loop.time() if self._loop is not None else 0.0


__all__ = ["Gathering"]
