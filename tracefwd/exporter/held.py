"""What a lane holds in memory: the open batch, those that wait for their turn, those under way, those that failed.

Every item is in exactly one of these places (or on the lane's shelf in the spool); ``items`` and ``size_bytes`` are
asked of them, for the ledger and for the bound.  No policy and no clock here: the lane decides what moves.
"""

import asyncio
from collections import deque
from collections.abc import Iterator
from itertools import chain

from tracefwd.exporter.batch import Batch
from tracefwd.exporter.compress import Packer
from tracefwd.exporter.origin import Origin
from tracefwd.exporter.route import Flight
from tracefwd.model import Outcome, Stored


class Held:
    """A batch ``enter``s once and ``leave``s once; between the two it is in one of the five places of batches.

    ``queue``: fresh ones.  ``old``: from the spool, and pieces in the search for a bad line.  ``flights``: being sent.
    ``waits``: failed, until their timer.  ``storing``: on their way to the spool.  ``loading`` are on their way back:
    their bytes are counted, so that there is room for them when they come.  ``packs``: whether batches are compressed.
    """

    def __init__(self, *, packs: bool) -> None:
        self.queue: deque[Batch] = deque()
        self.old: deque[Batch] = deque()
        self.flights: dict[asyncio.Task[Outcome], Flight] = {}
        self.waits: dict[Batch, asyncio.TimerHandle] = {}
        self.storing: set[Batch] = set()
        self.loading: set[Stored] = set()
        self.kept_items = 0
        self.storing_bytes = 0
        self._packs = packs
        self._batch_bytes = 0
        self._begin_open()

    def _begin_open(self) -> None:
        self._open = Packer(packs=self._packs)
        self.open_items = self.open_bytes = 0
        self.open_seqs = (0, 0)

    @property
    def size_bytes(self) -> int:
        """As they will be sent; the open batch before it is packed."""
        return self._batch_bytes + self.open_bytes

    def items(self) -> int:
        """Costs a walk over all batches."""
        flying = (flight.batch for flight in self.flights.values())
        batches = chain(self.queue, self.old, self.waits, self.storing, flying)
        loading = sum(stored.items for stored in self.loading)
        return self.open_items + self.kept_items + loading + sum([batch.items for batch in batches])

    def is_empty(self) -> bool:
        """Nothing is left that has to go somewhere."""
        return not (
            self.open_items or self.queue or self.old or self.flights or self.waits or self.storing
        )

    def gather(self, data: bytes, items: int, seq: int) -> None:
        self._open.add(data)
        self.open_bytes += len(data)
        self.open_items += items
        if seq:
            self.open_seqs = (self.open_seqs[0] or seq, seq)

    def close_open(self, born: float, origin: Origin | None) -> Batch:
        """The open batch, entered; afterwards there is an empty one.  The caller puts it into one of the places."""
        batch = Batch(
            *self._open.finish(), self.open_items, born, plain_bytes=self.open_bytes, origin=origin
        )
        self._begin_open()
        return self.enter(batch)

    def drop_open(self) -> int:
        """Forget the open batch's lines; how many they were."""
        items = self.open_items
        self._begin_open()
        return items

    def enter(self, batch: Batch) -> Batch:
        self._batch_bytes += len(batch.data)
        return batch

    def leave(self, batch: Batch) -> None:
        self._batch_bytes -= len(batch.data)

    def oldest(self) -> Batch | None:
        """The oldest batch that waits for something."""
        heads = [places[0] for places in (self.queue, self.old) if places]
        return min([*self.waits, *heads], key=lambda batch: batch.born, default=None)

    def oldest_born(self) -> float | None:
        """When the oldest batch was closed (loop time), flying ones included."""
        born = [flight.batch.born for flight in self.flights.values()]
        oldest = self.oldest()
        return min(born if oldest is None else [*born, oldest.born], default=None)

    def take_aged(self, now: float, age_max: float) -> Iterator[Batch]:
        """Out for good: those that are so old; what the spool has, whole or in pieces, stays."""
        for place in (self.queue, self.old):
            while place and now - place[0].born >= age_max and not place[0].in_spool:
                self.leave(place[0])
                yield place.popleft()

    def longest_waiting(self) -> Batch | None:
        """The batch whose wait ends first."""
        return min(self.waits, key=lambda batch: self.waits[batch].when(), default=None)

    def take_out(self, batch: Batch) -> None:
        """Out of the queues or of its wait; it still counts in bytes."""
        handle = self.waits.pop(batch, None)
        if handle is not None:
            handle.cancel()
        elif batch.old:
            self.old.remove(batch)
        else:
            self.queue.remove(batch)

    def give_back(self, batch: Batch) -> None:
        """To the head of its queue."""
        (self.old if batch.old else self.queue).appendleft(batch)

    def start_storing(self, batch: Batch) -> None:
        self.storing.add(batch)
        self.storing_bytes += len(batch.data)

    def end_storing(self, batch: Batch) -> None:
        self.storing.remove(batch)
        self.storing_bytes -= len(batch.data)

    def start_loading(self, stored: Stored) -> None:
        self.loading.add(stored)
        self._batch_bytes += stored.size_bytes

    def end_loading(self, stored: Stored) -> None:
        self.loading.remove(stored)
        self._batch_bytes -= stored.size_bytes

    def all_batches(self) -> list[Batch]:
        """But for those on their way to the spool."""
        flying = (flight.batch for flight in self.flights.values())
        return [*self.waits, *self.old, *self.queue, *flying]

    def clear(self) -> None:
        for handle in self.waits.values():
            handle.cancel()
        self.queue.clear()
        self.old.clear()
        self.flights.clear()
        self.waits.clear()
        self.storing.clear()
        self.loading.clear()
        self.drop_open()
        self._batch_bytes = self.storing_bytes = 0
