"""Shelf: the spool as one lane sees it: which of its batches rest there, and which may be tried next.

What rests on a shelf is held there and nowhere else: ``next`` takes a batch away (its file stays), after which it is
put back, or removed because all of its lines are over.  Order is by number, which is by age of storing; batches that
failed lately wait.  Files, bounds and threads are the store's.  All of it belongs to the event loop.
"""

import asyncio
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import chain
from math import inf
from typing import Protocol

from tracefwd.model import Stored
from tracefwd.spool.batch_file import DamagedError

Make = Callable[[], tuple[bytes, str]]
"""Gives a batch's data and its encoding; called in the store's thread."""
Landed = Callable[[bool], None]
"""Called when a write has ended: whether the batch rests on its shelf now."""


class Keeper(Protocol):
    """What a shelf needs of its store."""

    age_max_s: float
    drops_newest: bool

    @property
    def usable(self) -> bool: ...

    def describe(
        self, lane: str, items: int, age_s: float, seqs: list[tuple[int, int]], *, maybe_sent: bool
    ) -> Stored: ...

    def write(
        self, shelf: "Shelf", stored: Stored, make: Make, landed: Landed, size_max: int
    ) -> bool: ...

    def read(self, stored: Stored) -> asyncio.Future[bytes]: ...

    def unmark(self, stored: Stored) -> None: ...

    def remove(self, stored: Stored) -> None: ...

    def expire(self, shelf: "Shelf") -> None: ...


class Shelf:
    """The batches of one lane, which is TARGET/SIGNAL."""

    def __init__(self, lane: str, store: Keeper) -> None:
        self.lane = lane
        self.items = 0
        self.size_bytes = 0
        self.drops_newest = store.drops_newest
        self._store = store
        self._resting: dict[int, Stored] = {}
        self._ready: list[int] = []
        self._waiting: list[tuple[float, int]] = []
        self._lost: Callable[[int, str], None] | None = None
        self._found: Callable[[int], None] | None = None
        self._lost_before: dict[str, int] = {}

    def claim(self, lost: Callable[[int, str], None], found: Callable[[int], None]) -> None:
        """From now on the lane answers for this shelf; what was found and lost before is told at once.

        ``lost(items, reason)``: resting batches were given up.  ``found(items)``: batches of an earlier process rest
        here now.
        """
        self._lost, self._found = lost, found
        gone = sum(self._lost_before.values())
        if self.items or gone:
            found(self.items + gone)
        for reason, items in self._lost_before.items():
            lost(items, reason)
        self._lost_before.clear()

    @property
    def claimed(self) -> bool:
        return self._lost is not None

    @property
    def batches(self) -> int:
        return len(self._resting)

    @property
    def usable(self) -> bool:
        """Whether ``put`` has a chance."""
        return self._store.usable

    @property
    def age_max_s(self) -> float:
        return self._store.age_max_s

    def put(
        self,
        make: Make,
        landed: Landed,
        *,
        items: int,
        age_s: float,
        size_max: int,
        seqs: list[tuple[int, int]],
        maybe_sent: bool,
    ) -> bool:
        """Store what ``make`` gives (data and its encoding, at most ``size_max`` bytes; it runs in the thread).

        False: there is no room or no disk, and nothing more happens.  Else ``landed`` is called in a later turn;
        with True the batch rests here from that moment on.
        """
        stored = self._store.describe(self.lane, items, age_s, seqs, maybe_sent=maybe_sent)
        return self._store.write(self, stored, make, landed, size_max)

    def next(self, now: float) -> Stored | None:
        """The oldest batch that may be tried at ``now`` (loop time); it rests here no more."""
        self._store.expire(self)
        while self._waiting and self._waiting[0][0] <= now:
            heappush(self._ready, heappop(self._waiting)[1])
        while self._ready:
            stored = self._resting.get(heappop(self._ready))
            if stored is not None:
                self._leave(stored)
                return stored
        return None

    @property
    def due_at(self) -> float:
        """When ``next`` is worth asking again (loop time), if it has just given nothing."""
        return self._waiting[0][0] if self._waiting else inf

    def put_back(self, stored: Stored, not_before: float) -> None:
        """It rests here again; ``next`` passes it over until ``not_before`` (loop time)."""
        if stored.marked and not stored.maybe_sent:
            self._store.unmark(stored)
        self._rest(stored)
        heappush(self._waiting, (not_before, stored.number))

    def read(self, stored: Stored) -> asyncio.Future[bytes]:
        """Its data.  Raises ``OSError``, or ``DamagedError`` where trying again cannot help."""
        return self._store.read(stored)

    def is_damage(self, failure: BaseException | None) -> bool:
        return isinstance(failure, DamagedError)

    def remove(self, stored: Stored) -> None:
        """All of its lines are over."""
        self._store.remove(stored)

    # What the store does.

    def add(self, stored: Stored) -> None:
        self._rest(stored)
        heappush(self._ready, stored.number)

    def add_found(self, stored: list[Stored]) -> None:
        for each in stored:
            self.add(each)
        if self._found is not None and stored:
            self._found(sum(each.items for each in stored))

    def oldest(self) -> Stored | None:
        """The oldest that rests here; of those that failed lately the one whose wait ends first."""
        while self._ready:
            stored = self._resting.get(self._ready[0])
            if stored is not None:
                return stored
            heappop(self._ready)
        while self._waiting:
            stored = self._resting.get(self._waiting[0][1])
            if stored is not None:
                return stored
            heappop(self._waiting)
        return None

    def give_up(self, stored: Stored, reason: str) -> None:
        self._leave(stored)
        self._lose(stored.items, reason)

    def lose_unseen(self, items: int, reason: str) -> None:
        """Lines of an earlier process that never came to rest here."""
        if self._found is not None:
            self._found(items)
        self._lose(items, reason)

    def seqs(self) -> list[tuple[int, int]]:
        return list(chain.from_iterable(stored.seqs for stored in self._resting.values()))

    def _lose(self, items: int, reason: str) -> None:
        if self._lost is not None:
            self._lost(items, reason)
        else:
            self._lost_before[reason] = self._lost_before.get(reason, 0) + items

    def _rest(self, stored: Stored) -> None:
        self._resting[stored.number] = stored
        self.items += stored.items
        self.size_bytes += stored.size_bytes

    def _leave(self, stored: Stored) -> None:
        del self._resting[stored.number]
        self.items -= stored.items
        self.size_bytes -= stored.size_bytes
