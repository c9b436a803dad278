"""The spool of batches of one worker slot: bounds, and the one thread that touches the disk.

1. At most ``bytes_max`` on disk, in blocks, with what is being written; no batch older than ``age_max``.  Room is
   made at the cost of the lane that has most, so that a flood of spans does not push out RED (``drop_oldest``), or not
   at all (``drop_newest``).
2. The event loop never waits for a disk: calls run one after another in a thread, and their ends come as callbacks.
   A batch counts as stored in the turn of the callback, which is after its rename.
3. A disk that refuses a write shuts the spool: batches stay in memory, loudly, until a probe has been written.
   Nothing that a disk does raises here.
4. Ages are measured by a clock that nobody sets; the wall clock is asked once, at ``open``.
5. ``heir`` says whose the batches are that are found under a lane's name; nothing is lost for a name.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tracefwd.metrics import Samples
from tracefwd.model import Stored
from tracefwd.settings import SpoolSettings
from tracefwd.spool.batch_file import BatchFolder, DamagedError, Named
from tracefwd.spool.disk import Disk
from tracefwd.spool.shelf import Landed, Make, Shelf

# What a file takes on nearly every file system, however small it is; also bounds the number of files.
BLOCK_BYTES = 4_096
# Beside the data: frame, header, and the block that is begun.
_FRAME_BYTES = 2 * BLOCK_BYTES
# The two numbers of a journal range in a header.
_SEQS_BYTES = 20
# From one probe of a refusing disk to the next: doubled from the first to the second.
PROBE_S, PROBE_MAX_S = 1.0, 30.0

Complain = Callable[[str, int, int, str], None]
"""``(key, level, count, text)``: says the text with the count, repeats of a key at most once per interval."""


class Found(NamedTuple):
    """What a look at the folder gave; ``damaged`` with the reason why, ``unread`` files that the disk refused."""

    whole: list[Stored]
    damaged: list[tuple[Named, str]]
    unread: int
    number_next: int

    def joined(self, other: "Found") -> "Found":
        return Found(
            self.whole + other.whole,
            self.damaged + other.damaged,
            self.unread + other.unread,
            other.number_next,
        )


class BatchStore:
    """``open`` before the lanes start, ``close`` after they have ended."""

    def __init__(
        self,
        folder: Path,
        settings: SpoolSettings,
        *,
        wall_ms: Callable[[], int],
        complain: Complain,
        disk: Disk | None = None,
        writer: str = "",
        heir: Callable[[str], str] = str,
    ) -> None:
        self.age_max_s = settings.age_max
        self.drops_newest = settings.full == "drop_newest"
        self._disk = Disk() if disk is None else disk
        sync = settings.durability == "fsync"
        self._folder = BatchFolder(folder, self._disk, sync=sync, writer=writer)
        self._bytes_max = settings.bytes_max
        self._wall_ms = wall_ms
        self._complain = complain
        self._heir = heir
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._others: list[BatchFolder] = []
        self._pending: set[asyncio.Future[Any]] = set()
        self._probe_timer: asyncio.TimerHandle | None = None
        self._probe_wait_s = PROBE_S
        self._shelves: dict[str, Shelf] = {}
        self._used_bytes = 0
        # Of these, what is being removed just now: room for the next write, which comes after it.
        self._leaving_bytes = 0
        self._number = 1
        self._errors: dict[str, int] = {}
        # Over but not yet gone, because the disk refuses to forget: at most all files there are.
        self._unforgotten: list[tuple[Callable[[], str], int]] = []
        self._refusal = ""
        # The wall clock minus the loop's, in seconds.
        self._wall_offset_s = 0.0
        self._is_scanned = self._is_closed = False

    async def open(self, take_over: Sequence[Path] = ()) -> None:
        """Find what an earlier process left, also in ``take_over``: ``batches`` folders of slots that are no more."""
        self._loop = asyncio.get_running_loop()
        self._wall_offset_s = self._wall_ms() / 1000 - self._loop.time()
        self._others = [BatchFolder(path, self._disk) for path in take_over]
        scan = self._in_thread(self._scan)
        await asyncio.wait({scan})
        self._scanned(scan)

    async def take_over(self, folders: Sequence[Path]) -> None:
        """The same later; what the disk refuses to hand over stays where it is, for the next start."""
        others = [BatchFolder(path, self._disk) for path in folders]
        if not self._is_scanned:
            self._others += others
            return
        for other in others:
            listing = self._in_thread(other.names)
            await asyncio.wait({listing})
            names = [] if _failure(listing) is not None else listing.result()
            if names:
                # Numbers of their own, before anything else gets them.
                number, self._number = self._number, self._number + len(names)
                scan = self._in_thread(partial(self._adopt, other, names, number))
                await asyncio.wait({scan})
                self._scanned(scan)

    async def close(self, budget_s: float = 1.0) -> None:
        """What is under way gets its time; a disk that hangs is left alone."""
        self._is_closed = True
        if self._probe_timer is not None:
            self._probe_timer.cancel()
        if self._pending:
            await asyncio.wait(self._pending, timeout=budget_s)
        self._thread.shutdown(wait=False, cancel_futures=True)

    def shelf(self, lane: str) -> Shelf:
        """``lane`` is TARGET/SIGNAL."""
        if lane not in self._shelves:
            self._shelves[lane] = Shelf(lane, self)
        return self._shelves[lane]

    @property
    def seq_next(self) -> int:
        """Above every journal entry that a batch here holds lines of: a new journal must not use those again."""
        ends = (last for shelf in self._shelves.values() for _, last in shelf.seqs())
        return 1 + max(ends, default=0)

    # For the shelves.

    @property
    def usable(self) -> bool:
        return self._is_scanned and not self._refusal and not self._is_closed

    def describe(
        self, lane: str, items: int, age_s: float, seqs: list[tuple[int, int]], *, maybe_sent: bool
    ) -> Stored:
        born_ms = max(0, self._now_ms() - int(age_s * 1000))
        return Stored(self._number, lane, items, born_ms, "", seqs, maybe_sent, 0)

    def write(
        self, shelf: Shelf, stored: Stored, make: Make, landed: Landed, size_max: int
    ) -> bool:
        wanted = _blocks(size_max + _FRAME_BYTES + _SEQS_BYTES * len(stored.seqs))
        if not self.usable or not self._make_room(wanted):
            return False
        self._number += 1
        self._used_bytes += wanted

        def work() -> int:
            data, stored.encoding = make()
            return self._folder.write(stored, data)

        def done(future: "asyncio.Future[int]") -> None:
            self._used_bytes -= wanted
            failure = _failure(future)
            if failure is None:
                stored.size_bytes = future.result()
                self._used_bytes += _blocks(stored.size_bytes)
                self._probe_wait_s = PROBE_S
                shelf.add(stored)
            else:
                self._refused(failure)
            landed(failure is None)

        self._in_thread(work).add_done_callback(done)
        return True

    def read(self, stored: Stored) -> "asyncio.Future[bytes]":
        # Who has its data may send it; one thread does both, in this order.
        self._mark(stored, sent=True)
        future = self._in_thread(lambda: self._folder.read(stored.file))
        future.add_done_callback(self._count_read)
        return future

    def unmark(self, stored: Stored) -> None:
        self._mark(stored, sent=False)

    def _mark(self, stored: Stored, *, sent: bool) -> None:
        if stored.marked == sent or self._is_closed:
            return
        stored.marked = sent

        def done(future: "asyncio.Future[None]") -> None:
            if (failure := _failure(future)) is not None and not future.cancelled():
                self._count("mark")
                text = f"batches in {self._where} could not be renamed ({_why(failure)})"
                advice = "what a crash sends again may be counted wrongly"
                self._complain("mark", logging.WARNING, 1, f"{text}: {advice}")

        marking = self._in_thread(partial(self._folder.mark, stored, sent=sent))
        marking.add_done_callback(done)

    def remove(self, stored: Stored) -> None:
        self._remove(lambda: stored.file, _blocks(stored.size_bytes))

    def expire(self, shelf: Shelf) -> None:
        oldest_ms = self._now_ms() - self.age_max_s * 1000
        while (stored := shelf.oldest()) is not None and stored.born_ms <= oldest_ms:
            self._give_up(shelf, stored, "spool_expired")

    # Room.

    def _make_room(self, wanted: int) -> bool:
        for shelf in self._shelves.values():
            self.expire(shelf)
        if wanted > self._bytes_max:
            return False
        while self._used_bytes - self._leaving_bytes + wanted > self._bytes_max:
            if self.drops_newest or not self._shelves:
                return False
            fullest = max(self._shelves.values(), key=lambda shelf: shelf.size_bytes)
            stored = fullest.oldest()
            if stored is None:
                return False  # everything is on its way to a target
            self._give_up(fullest, stored, "spool_full")
        return True

    def _give_up(self, shelf: Shelf, stored: Stored, reason: str) -> None:
        if not shelf.claimed:
            # Whoever claims the shelf counts them; if nobody ever does, this is all that is said.
            text = f"lines in {self._where} for {shelf.lane}, which is no target's, are lost"
            self._complain(
                f"unclaimed {shelf.lane}", logging.ERROR, stored.items, f"{text} ({reason})"
            )
        shelf.give_up(stored, reason)
        self.remove(stored)

    def _remove(self, name: Callable[[], str], size_bytes: int) -> None:
        """``name`` is asked in the thread: what was to be renamed before has that name by then."""
        if self._is_closed:
            return  # the next process finds it, and sends it again

        def done(future: "asyncio.Future[None]") -> None:
            self._leaving_bytes -= size_bytes
            failure = _failure(future)
            if failure is None:
                self._used_bytes -= size_bytes
                return
            self._unforgotten.append((name, size_bytes))
            self._count("remove")
            text = (
                f"batches that are over could not be removed from {self._where} ({_why(failure)})"
            )
            self._complain("remove", logging.ERROR, 1, f"{text}: a restart would send them again")

        self._leaving_bytes += size_bytes
        self._in_thread(lambda: self._folder.remove(name())).add_done_callback(done)

    # The look at the folder.

    def _scan(self) -> Found:
        """In the thread.  Raises ``OSError`` when the folder itself cannot be used."""
        folder = self._folder
        folder.create()
        folder.clear_unfinished()
        number = 1 + max((named.number for named in folder.names()), default=0)
        found = self._read_headers(folder.names(), number)
        for other in self._others:
            found = found.joined(self._adopt(other, other.names(), found.number_next))
        return found

    def _adopt(self, other: BatchFolder, names: list[Named], number: int) -> Found:
        """In the thread: another folder's files, numbered from ``number`` on."""
        moved, unread = self._folder.take_over(other, names, number)
        found = self._read_headers(moved, number + len(names))
        return found._replace(unread=found.unread + unread)

    def _read_headers(self, names: list[Named], number_next: int) -> Found:
        found = Found([], [], 0, number_next)
        unread = 0
        for named in names:
            try:
                found.whole.append(self._folder.read_header(named))
            except DamagedError as damage:
                found.damaged.append((named, str(damage)))
            except OSError:
                unread += 1
        return found._replace(unread=unread)

    def _scanned(self, future: "asyncio.Future[Found]") -> None:
        failure = _failure(future)
        if failure is not None:
            self._refused(failure)
            return
        found = future.result()
        self._is_scanned = True
        self._number = max(self._number, found.number_next)
        by_lane: dict[str, list[Stored]] = {}
        for stored in found.whole:
            by_lane.setdefault(stored.lane, []).append(stored)
            self._used_bytes += _blocks(stored.size_bytes)
        for lane, batches in by_lane.items():
            if (heir := self._heir(lane)) != lane:
                text = (
                    f"lines in {self._where} of {lane}, which is no target's any more, go to {heir}"
                )
                items = sum(stored.items for stored in batches)
                self._complain(f"inherited {lane}", logging.WARNING, items, text)
            self.shelf(heir).add_found(batches)
        for named, damage in found.damaged:
            self._count("damaged")
            text = f"lines lost in {self._where}/{named.name}: {damage}"
            self._complain("damaged", logging.ERROR, named.items, text)
            self.shelf(self._heir(named.lane)).lose_unseen(named.items, "spool_damaged")
            self._remove(partial(str, named.name), 0)
        if found.unread:
            self._errors["read"] = self._errors.get("read", 0) + found.unread
            text = f"files in {self._where} could not be read; they are tried at the next start"
            self._complain("read", logging.ERROR, found.unread, text)

    def _count_read(self, future: "asyncio.Future[bytes]") -> None:
        failure = _failure(future)
        if failure is None:
            return
        kind = "damaged" if isinstance(failure, DamagedError) else "read"
        self._count(kind)
        text = f"batches in {self._where} could not be read: {_why(failure)}"
        self._complain(kind, logging.ERROR, 1, text)

    # A disk that refuses.

    def _refused(self, failure: BaseException) -> None:
        """Nothing more is written until a probe has passed."""
        if self._is_closed:
            return
        self._count("write")
        self._refusal = _why(failure)
        text = f"writes to {self._where} failed ({self._refusal}): batches stay in memory"
        advice = "a crash would lose them; free space, or mount it writable"
        self._complain("write", logging.ERROR, 1, f"{text}, {advice}")
        if self._probe_timer is None and self._loop is not None:
            self._probe_timer = self._loop.call_later(self._probe_wait_s, self._probe)
            self._probe_wait_s = min(2 * self._probe_wait_s, PROBE_MAX_S)

    def _probe(self) -> None:
        def work() -> Found | None:
            found = None if self._is_scanned else self._scan()
            self._folder.probe()
            return found

        def done(future: "asyncio.Future[Found | None]") -> None:
            failure = _failure(future)
            if failure is not None:
                self._refused(failure)
                return
            self._refusal = ""
            self._complain("back", logging.WARNING, 1, f"probe written: {self._where} works again")
            if not self._is_scanned:
                self._scanned(future)  # type: ignore[arg-type]  # it is one, where there was no scan
            again, self._unforgotten = self._unforgotten, []
            for name, size_bytes in again:
                self._remove(name, size_bytes)

        self._probe_timer = None
        self._in_thread(work).add_done_callback(done)

    # Small change.

    def _in_thread(self, work: Callable[[], Any]) -> "asyncio.Future[Any]":
        assert self._loop is not None, "open() comes first"
        future = self._loop.run_in_executor(self._thread, work)
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)
        return future

    def _now_ms(self) -> int:
        assert self._loop is not None, "open() comes first"
        return int((self._loop.time() + self._wall_offset_s) * 1000)

    @property
    def _where(self) -> str:
        return str(self._folder.folder)

    def _count(self, kind: str) -> None:
        self._errors[kind] = self._errors.get(kind, 0) + 1

    # What others ask.

    def problems(self) -> list[str]:
        """In words, for a person: a disk that refuses, batches that nobody will send."""
        lines = []
        if self._refusal:
            lines.append(f"the spool {self._where} is not written to: {self._refusal}")
        lines += [
            f"{shelf.items} lines wait in {self._where} for {shelf.lane}, which is no target's lane "
            "any more: bring the target back, or take them with 'tracefwd spool export'"
            for shelf in self._shelves.values()
            if shelf.items and not shelf.claimed
        ]
        return lines

    def samples(self) -> Samples:
        prefix = "tracefwd_spool_"
        by_lane = {(*shelf.lane.split("/", 1),): shelf for shelf in self._shelves.values()}
        return {
            f"{prefix}items": {at: shelf.items for at, shelf in by_lane.items()},
            f"{prefix}batches": {at: shelf.batches for at, shelf in by_lane.items()},
            f"{prefix}bytes": {(): self._used_bytes},
            f"{prefix}bytes_max": {(): self._bytes_max},
            f"{prefix}refusing": {(): int(bool(self._refusal))},
            f"{prefix}errors_total": {(kind,): count for kind, count in self._errors.items()},
        }


def _blocks(size: int) -> int:
    """Bytes that a file of this size takes."""
    return -(-size // BLOCK_BYTES) * BLOCK_BYTES


def _failure(future: "asyncio.Future[Any]") -> BaseException | None:
    if future.cancelled():  # the store was closed before its turn came
        return OSError(0, "closed")
    return future.exception()


def _why(failure: BaseException) -> str:
    if isinstance(failure, OSError):
        return failure.strerror or type(failure).__name__
    return str(failure) if isinstance(failure, DamagedError) else type(failure).__name__
