"""What a lane holds: the open batch, the queue, the flights, and the batches that wait after a failure.

Every item is in exactly one of these four places; ``items`` and ``size_bytes`` are asked of them, for the ledger
and for the bound.  No policy and no clock here: the lane decides what moves.
"""

import asyncio
from collections import deque

from tracefwd.exporter.batch import Batch
from tracefwd.exporter.route import Flight
from tracefwd.model import Outcome


class Held:
    """A batch ``enter``s once and ``leave``s once; between the two it is in ``queue``, ``flights`` or ``waits``."""

    def __init__(self) -> None:
        self.queue: deque[Batch] = deque()
        self.flights: dict[asyncio.Task[Outcome], Flight] = {}
        self.waits: dict[Batch, asyncio.TimerHandle] = {}
        self.open_items = 0
        self.open_bytes = 0
        self._open: list[bytes] = []
        self._batch_bytes = 0

    @property
    def size_bytes(self) -> int:
        """As they will be sent; the open batch as it is."""
        return self._batch_bytes + self.open_bytes

    def items(self) -> int:
        """Costs a walk over all batches."""
        flying = sum(flight.batch.items for flight in self.flights.values())
        waiting = sum(batch.items for batch in self.waits)
        return self.open_items + sum(batch.items for batch in self.queue) + flying + waiting

    def is_empty(self) -> bool:
        return not (self._open or self.queue or self.flights or self.waits)

    def gather(self, data: bytes, items: int) -> None:
        self._open.append(data)
        self.open_bytes += len(data)
        self.open_items += items

    def take_open(self) -> tuple[bytes, int]:
        """The open batch's lines and their number; afterwards it is empty."""
        taken = b"".join(self._open), self.open_items
        self._open = []
        self.open_bytes = self.open_items = 0
        return taken

    def enter(self, batch: Batch) -> Batch:
        self._batch_bytes += len(batch.data)
        return batch

    def leave(self, batch: Batch) -> None:
        self._batch_bytes -= len(batch.data)

    def oldest(self) -> Batch | None:
        """The oldest batch that is not in flight."""
        candidates = [*self.waits, *((self.queue[0],) if self.queue else ())]
        return min(candidates, key=lambda batch: batch.born, default=None)

    def longest_waiting(self) -> Batch | None:
        """The batch whose wait ends first."""
        return min(self.waits, key=lambda batch: self.waits[batch].when(), default=None)

    def take_out(self, batch: Batch) -> None:
        """Out of the queue or of its wait; it still counts in bytes."""
        handle = self.waits.pop(batch, None)
        if handle is None:
            self.queue.remove(batch)
        else:
            handle.cancel()

    def clear(self) -> None:
        for handle in self.waits.values():
            handle.cancel()
        self.queue.clear()
        self.flights.clear()
        self.waits.clear()
        self.take_open()
        self._batch_bytes = 0
