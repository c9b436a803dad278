"""The spool of batches: its bounds, what it survives, and that a disk's troubles stay the disk's."""

import asyncio
import errno
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tracefwd.metrics import BY_NAME
from tracefwd.model import Stored
from tracefwd.settings import SpoolSettings
from tracefwd.spool import store as store_module
from tracefwd.spool.batch_file import DamagedError
from tracefwd.spool.disk import Disk
from tracefwd.spool.shelf import Shelf
from tracefwd.spool.store import BLOCK_BYTES, BatchStore

SPANS, POINTS = "primary/spans", "primary/points"
NOW_MS = 1_700_000_000_000


class RefusingDisk(Disk):
    """Refuses whole kinds of calls with an errno; a write of a full disk takes a part first."""

    def __init__(self) -> None:
        self.refuses: dict[str, int] = {}

    def _ask(self, *kinds: str) -> None:
        for kind in kinds:
            if kind in self.refuses:
                raise OSError(self.refuses[kind], "refused")

    def make_folder(self, folder: Path) -> None:
        self._ask("folder")
        super().make_folder(folder)

    def names(self, folder: Path) -> list[str]:
        self._ask("folder")
        return super().names(folder)

    def create(self, path: Path) -> int:
        self._ask("create")
        return super().create(path)

    def write(self, fd: int, data: bytes | memoryview) -> int:
        if "write" in self.refuses and len(data) > 1:
            return super().write(fd, data[: len(data) // 2])
        self._ask("write")
        return super().write(fd, data)

    def replace(self, source: Path, target: Path) -> None:
        self._ask("replace")
        super().replace(source, target)

    def sync_folder(self, folder: Path) -> None:
        self._ask("sync_folder")
        super().sync_folder(folder)

    def remove(self, path: Path) -> None:
        self._ask("remove")
        super().remove(path)

    def read_at(self, fd: int, offset: int, size_bytes: int) -> bytes:
        self._ask("read")
        return super().read_at(fd, offset, size_bytes)


class Room:
    """A store, what it said, and what its shelves told."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.folder = folder
        self.disk = RefusingDisk()
        self.said: list[tuple[str, int, int, str]] = []
        self.wall_ms = NOW_MS
        self.lost: list[tuple[str, int, str]] = []
        self.found: list[tuple[str, int]] = []
        self.changes = changes
        self.store = self._make()

    def _make(self) -> BatchStore:
        return BatchStore(
            self.folder,
            SpoolSettings(**{"folder": "x", **self.changes}),
            wall_ms=lambda: self.wall_ms,
            complain=lambda *said: self.said.append(said),
            disk=self.disk,
        )

    async def again(self) -> None:
        """The next process."""
        await self.store.close()
        self.store = self._make()
        await self.store.open()

    def shelf(self, lane: str = SPANS) -> Shelf:
        shelf = self.store.shelf(lane)
        if not shelf.claimed:
            shelf.claim(
                lambda items, reason: self.lost.append((lane, items, reason)),
                lambda items: self.found.append((lane, items)),
            )
        return shelf

    async def put(
        self, data: bytes = b"a\n", *, lane: str = SPANS, age_s: float = 0.0, items: int = 1
    ) -> bool:
        """Whether it rests on its shelf now."""
        landed: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        taken = self.shelf(lane).put(
            lambda: (data, ""),
            landed.set_result,
            items=items,
            age_s=age_s,
            size_max=len(data),
            seqs=[(1, 2)],
            maybe_sent=False,
        )
        return await landed if taken else False

    async def idle(self) -> None:
        while self.store._pending:
            await asyncio.wait(self.store._pending)
            await asyncio.sleep(0)

    @property
    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir()) if self.folder.exists() else []

    def sample(self, name: str) -> dict[tuple[str, ...], float]:
        return self.store.samples()[f"tracefwd_spool_{name}"]


@pytest.fixture
async def room(tmp_path: Path) -> Any:
    made: list[Room] = []

    async def make(**changes: Any) -> Room:
        room = Room(tmp_path / "slot-0" / "batches", **changes)
        made.append(room)
        await room.store.open()
        return room

    yield make
    for each in made:
        await each.store.close()


MakeRoom = Callable[..., Awaitable[Room]]


def take(shelf: Shelf) -> Stored:
    stored = shelf.next(asyncio.get_running_loop().time())
    assert stored is not None
    return stored


async def test_a_batch_rests_until_it_is_taken_and_its_file_stays_until_it_is_removed(
    room: MakeRoom,
) -> None:
    here = await room()
    assert await here.put(b"first\n", items=2)
    assert await here.put(b"second\n", items=3)
    shelf = here.shelf()
    assert (shelf.items, shelf.batches, len(here.files)) == (5, 2, 2)
    first = take(shelf)
    assert (first.items, shelf.items) == (2, 3)
    assert await shelf.read(first) == b"first\n"
    assert len(here.files) == 2
    shelf.put_back(first, 0.0)
    assert shelf.items == 5
    assert take(shelf) is first
    shelf.remove(first)
    await here.idle()
    assert len(here.files) == 1
    assert await shelf.read(take(shelf)) == b"second\n"


async def test_what_failed_waits_and_others_go_before(room: MakeRoom) -> None:
    here = await room()
    for data in (b"1\n", b"2\n"):
        await here.put(data)
    shelf = here.shelf()
    now = asyncio.get_running_loop().time()
    first = take(shelf)
    shelf.put_back(first, now + 60)
    second = take(shelf)
    assert second is not first
    assert shelf.next(now) is None
    assert shelf.next(now + 60) is first


async def test_the_next_process_finds_everything_oldest_first(room: MakeRoom) -> None:
    here = await room()
    for number in range(5):
        await here.put(b"%d\n" % number, items=number + 1)
    await here.put(b"p\n", lane=POINTS)
    taken = take(here.shelf())
    assert taken.items == 1  # under way at the crash: found again
    await here.again()
    shelf = here.shelf()
    assert here.found == [(SPANS, 15)]
    assert here.shelf(POINTS).items == 1
    assert [await shelf.read(take(shelf)) for _ in range(5)] == [b"%d\n" % n for n in range(5)]
    # Numbers are never used twice.
    await here.put(b"new\n")
    assert max(here.files) == here.files[-1]
    assert len(here.files) == 7


async def test_seqs_survive_and_say_where_a_new_journal_must_begin(room: MakeRoom) -> None:
    here = await room()
    assert here.store.seq_next == 1
    await here.put()
    await here.again()
    assert here.store.shelf(SPANS).seqs() == [(1, 2)]
    assert here.store.seq_next == 3


async def test_a_slot_that_is_no_more_is_taken_over(room: MakeRoom, tmp_path: Path) -> None:
    here = await room()
    await here.put(b"ours\n")
    other = Room(tmp_path / "slot-1" / "batches")
    await other.store.open()
    await other.put(b"theirs\n", items=7)
    await other.store.close()
    await here.store.close()
    here.store = here._make()
    await here.store.open([other.folder, tmp_path / "slot-2" / "batches"])
    shelf = here.shelf()
    assert shelf.items == 8
    assert other.files == []
    assert [await shelf.read(take(shelf)) for _ in range(2)] == [b"ours\n", b"theirs\n"]


async def test_a_predecessor_that_ends_later_is_taken_over_while_we_work(
    room: MakeRoom, tmp_path: Path
) -> None:
    here = await room()
    other = Room(tmp_path / "slot-0.1" / "batches")
    await other.store.open()
    for number in range(3):
        await other.put(b"theirs %d\n" % number)
    await other.put(lane=POINTS)
    damaged = sorted(other.folder.iterdir())[1]
    damaged.write_bytes(damaged.read_bytes()[:-1])
    await other.store.close()
    assert await here.put(b"before\n")
    here.shelf(POINTS)
    putting = asyncio.create_task(here.put(b"meanwhile\n"))
    await here.store.take_over([other.folder, tmp_path / "none"])
    assert await putting
    assert other.files == []
    assert sorted(here.found) == [(POINTS, 1), (SPANS, 1), (SPANS, 2)]
    assert here.lost == [(SPANS, 1, "spool_damaged")]
    shelf = here.shelf()
    assert {await shelf.read(take(shelf)) for _ in range(4)} == {
        b"before\n",
        b"meanwhile\n",
        b"theirs 0\n",
        b"theirs 2\n",
    }
    await here.idle()
    assert here.sample("bytes") == {(): 5 * BLOCK_BYTES}


@pytest.mark.usefixtures("quick_probe")
async def test_a_take_over_waits_for_a_disk_that_refuses(tmp_path: Path) -> None:
    other = Room(tmp_path / "slot-0.1" / "batches")
    await other.store.open()
    await other.put()
    await other.store.close()
    here = Room(tmp_path / "mine")
    here.disk.refuses = {"folder": errno.EACCES}
    await here.store.open()
    await here.store.take_over([other.folder])
    assert len(other.files) == 1
    here.disk.refuses = {}
    await usable(here)
    assert here.shelf().items == 1
    assert other.files == []
    await here.store.close()


# Bounds.


async def test_the_oldest_of_the_lane_that_has_most_makes_room(room: MakeRoom) -> None:
    here = await room(bytes_max=20 * BLOCK_BYTES)
    await here.put(b"red\n", lane=POINTS)
    for number in range(30):
        assert await here.put(b"%d\n" % number)
        assert here.store._used_bytes - here.store._leaving_bytes <= 20 * BLOCK_BYTES
    await here.idle()
    assert len(here.files) * BLOCK_BYTES <= 20 * BLOCK_BYTES
    assert here.sample("bytes") == {(): len(here.files) * BLOCK_BYTES}
    assert here.shelf(POINTS).items == 1  # the oldest of all, but its lane is small
    lost = {items for _, items, reason in here.lost if reason == "spool_full"}
    assert lost == {1}
    assert await here.shelf().read(take(here.shelf())) == b"%d\n" % len(here.lost)
    assert here.shelf().items + 1 + len(here.lost) == 30


async def test_drop_newest_keeps_what_is_there(room: MakeRoom) -> None:
    here = await room(bytes_max=10 * BLOCK_BYTES, full="drop_newest")
    taken = [await here.put(b"%d\n" % number) for number in range(20)]
    kept = sum(taken)
    assert taken == [True] * kept + [False] * (20 - kept)
    assert 5 <= kept <= 10
    assert here.lost == []
    assert here.store.usable
    assert await here.shelf().read(take(here.shelf())) == b"0\n"


async def test_what_is_being_sent_is_not_pushed_out(room: MakeRoom) -> None:
    here = await room(bytes_max=6 * BLOCK_BYTES)
    taken = []
    while await here.put():
        taken.append(take(here.shelf()))
    assert here.lost == []
    for stored in taken:
        here.shelf().remove(stored)
    await here.idle()
    assert await here.put()


async def test_a_batch_larger_than_the_spool_is_refused_and_pushes_nothing_out(
    room: MakeRoom,
) -> None:
    here = await room(bytes_max=10 * BLOCK_BYTES)
    assert await here.put()
    assert not await here.put(b"x" * 11 * BLOCK_BYTES)
    assert here.lost == []
    assert here.store.usable


async def test_what_is_too_old_goes_and_is_counted(room: MakeRoom) -> None:
    here = await room(age_max=3600.0)
    await here.put(b"old\n", age_s=3599.9, items=4)
    await here.put(b"young\n")
    here.wall_ms += 200  # the next process begins later
    await here.again()
    shelf = here.shelf()
    assert await shelf.read(take(shelf)) == b"young\n"
    assert here.lost == [(SPANS, 4, "spool_expired")]
    await here.idle()
    assert len(here.files) == 1


async def test_a_wall_clock_that_jumps_while_we_run_expires_nothing(room: MakeRoom) -> None:
    here = await room(age_max=3600.0)
    await here.put()
    here.wall_ms += 10**9
    await here.put()
    assert here.shelf().next(asyncio.get_running_loop().time()) is not None
    assert here.lost == []


# Damage.


async def test_a_damaged_file_loses_itself_alone_and_blocks_nothing(room: MakeRoom) -> None:
    here = await room()
    for number in range(4):
        await here.put(b"%d\n" % number, items=number + 1)
    paths = sorted(here.folder.iterdir())
    paths[0].write_bytes(b"")
    paths[1].write_bytes(paths[1].read_bytes()[:-1])
    whole = bytearray(paths[2].read_bytes())
    whole[-1] ^= 1
    paths[2].write_bytes(whole)
    await here.again()
    shelf = here.shelf()
    # Empty and short are seen at once, the flipped bit when it is read.
    assert here.found == [(SPANS, 10)]
    assert here.lost == [(SPANS, 3, "spool_damaged")]
    flipped = take(shelf)
    with pytest.raises(DamagedError):
        await shelf.read(flipped)
    assert await shelf.read(take(shelf)) == b"3\n"
    await here.idle()
    assert here.sample("errors_total")[("damaged",)] == 3
    assert len(here.files) == 2
    assert [said[1:3] for said in here.said if said[0] == "damaged"] == [
        (logging.ERROR, 1),
        (logging.ERROR, 2),
        (logging.ERROR, 1),
    ]


async def test_a_file_that_the_disk_refuses_to_read_stays_for_the_next_start(
    room: MakeRoom,
) -> None:
    here = await room()
    await here.put(items=5)
    here.disk.refuses = {"read": errno.EIO}
    await here.again()
    assert here.shelf().items == 0
    assert here.sample("errors_total") == {("read",): 1}
    assert here.store.usable
    here.disk.refuses = {}
    await here.again()
    assert here.shelf().items == 5


# A disk that refuses.


@pytest.fixture
def quick_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "PROBE_S", 0.005)
    monkeypatch.setattr(store_module, "PROBE_MAX_S", 0.01)


async def usable(room: Room) -> None:
    async with asyncio.timeout(30):
        while not room.store.usable:  # noqa: ASYNC110  # a probe's timer has no event
            await asyncio.sleep(0.002)


@pytest.mark.usefixtures("quick_probe")
@pytest.mark.parametrize("kind", ["create", "write", "replace"])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EMFILE])
async def test_a_disk_that_refuses_shuts_the_spool_loudly_until_it_is_back(
    room: MakeRoom, kind: str, error: int
) -> None:
    here = await room()
    assert await here.put(b"before\n")
    here.disk.refuses = {kind: error}
    assert not await here.put(b"x" * 100_000)
    if kind != "replace":  # a probe does not rename
        assert not here.store.usable
        assert not await here.put()
        assert here.sample("refusing") == {(): 1}
        assert "is not written to: refused" in here.store.problems()[0]
    assert here.said[0][:3] == ("write", logging.ERROR, 1)
    here.disk.refuses = {}
    await usable(here)
    assert here.store.problems() == []
    assert await here.put(b"after\n")
    assert here.sample("refusing") == {(): 0}
    assert here.sample("errors_total")[("write",)] >= 1
    assert here.shelf().batches == 2
    await here.idle()
    assert here.sample("bytes") == {(): 2 * BLOCK_BYTES}
    await here.again()  # whatever half of a file was left
    assert len(here.files) == 2


@pytest.mark.usefixtures("quick_probe")
async def test_why_a_disk_refuses_is_said_for_as_long_as_it_does(room: MakeRoom) -> None:
    here = await room()
    here.disk.refuses = {"create": errno.EROFS}
    assert not await here.put()
    for _ in range(3):
        assert "is not written to: refused" in here.store.problems()[0]
        probes = here.sample("errors_total")[("write",)]
        while here.sample("errors_total")[("write",)] == probes:  # noqa: ASYNC110 - a probe tells nobody
            await asyncio.sleep(0.001)


async def test_what_was_not_synced_is_in_memory_alone(room: MakeRoom) -> None:
    here = await room(durability="fsync")
    here.disk.refuses = {"sync_folder": errno.EIO}
    assert not await here.put()
    assert here.files == []


@pytest.mark.usefixtures("quick_probe")
async def test_a_folder_that_cannot_be_used_at_the_start_is_looked_at_when_it_can(
    tmp_path: Path,
) -> None:
    here = Room(tmp_path / "batches")
    await here.store.open()
    await here.put(items=3)
    await here.store.close()
    here.disk.refuses = {"folder": errno.EACCES}
    here.store = here._make()
    await here.store.open()
    shelf = here.shelf()
    assert (here.store.usable, shelf.items) == (False, 0)
    here.disk.refuses = {}
    await usable(here)
    assert here.found == [(SPANS, 3)]
    assert shelf.items == 3
    await here.store.close()


@pytest.mark.usefixtures("quick_probe")
async def test_what_cannot_be_removed_is_removed_later(room: MakeRoom) -> None:
    here = await room()
    await here.put()
    stored = take(here.shelf())
    here.disk.refuses = {"remove": errno.EROFS, "create": errno.EROFS}
    here.shelf().remove(stored)
    await here.idle()
    assert len(here.files) == 1
    assert ("remove", logging.ERROR, 1) in [said[:3] for said in here.said]
    assert not await here.put()
    here.disk.refuses = {}
    await usable(here)
    await here.idle()
    assert here.files == []
    assert here.sample("bytes") == {(): 0}


async def test_a_write_under_way_at_the_end_is_finished(room: MakeRoom) -> None:
    here = await room()
    putting = asyncio.create_task(here.put())
    await asyncio.sleep(0)
    await here.store.close()
    assert await putting
    assert len(here.files) == 1
    assert not await here.put()


# What is seen.


async def test_batches_that_nobody_will_send_are_a_problem_in_words(room: MakeRoom) -> None:
    here = await room()
    await here.put(lane="east/spans", items=9)
    await here.again()
    [problem] = here.store.problems()
    assert problem.startswith("9 lines wait in ")
    assert "for east/spans, which is no target's lane any more" in problem
    here.shelf("east/spans")
    assert here.store.problems() == []


async def test_batches_that_nobody_asked_for_are_not_lost_without_a_word(room: MakeRoom) -> None:
    here = await room(age_max=60.0)
    await here.put(lane="east/spans", items=9)
    here.wall_ms += 61_000
    await here.again()
    assert await here.put(items=2)
    [(level, count, text)] = [said[1:] for said in here.said if said[0] == "unclaimed east/spans"]
    assert (level, count) == (logging.ERROR, 9)
    assert "for east/spans, which is no target's, are lost (spool_expired)" in text


async def test_samples_are_in_the_catalogue(room: MakeRoom) -> None:
    here = await room(bytes_max=2**20)
    await here.put(items=4)
    samples = here.store.samples()
    for name, series in samples.items():
        assert all(len(labels) == len(BY_NAME[name].labels) for labels in series), name
    assert samples["tracefwd_spool_items"] == {("primary", "spans"): 4}
    assert samples["tracefwd_spool_batches"] == {("primary", "spans"): 1}
    assert samples["tracefwd_spool_bytes_max"] == {(): 2**20}
