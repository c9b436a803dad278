"""A lane and its spool on a real disk: what memory cannot hold is late, not lost; and the journal hears of it once."""

import asyncio
import errno
import gzip
import shutil
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from math import inf
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.exporter.test_lane import BUSY, DELIVERED, payload
from tracefwd.exporter import backlog, breaker, gathering
from tracefwd.exporter.lane import Lane
from tracefwd.exporter.route import Route
from tracefwd.ledger import imbalance
from tracefwd.model import Outcome, Signal
from tracefwd.settings import ExporterSettings, RetrySettings, SpoolSettings
from tracefwd.spool.disk import Disk
from tracefwd.spool.store import BatchStore

Until = Callable[..., Awaitable[None]]
LANE = "primary/spans"
SPLIT = Outcome("split", "http_413", "HTTP 413")
BAD_LINE = Outcome("bisect", "http_400", "HTTP 400: bad line")


class Journal:
    """Keeps what a lane tells, and checks what can be checked at once."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int]] = []
        self.launched: list[tuple[int, int]] = []
        self.returned: list[tuple[int, int]] = []

    def done(self, first: int, last: int) -> None:
        assert first <= last
        self.told.append((first, last))

    def launch(self, first: int, last: int, under_way: bool) -> None:
        assert first <= last
        if under_way:
            self.launched.append((first, last))
        else:
            self.returned.append((first, last))

    def seqs(self) -> list[int]:
        """Every entry that is over, as often as it was told."""
        return [n for first, last in self.told if first for n in range(first, last + 1)]


class Room:
    """A lane with a spool in ``folder``; ``restart`` is the next process."""

    def __init__(self, folder: Path, sender: "Sink", **changes: Any) -> None:
        self.folder = folder / "batches"
        self.sender = sender
        self.after = changes.pop("after", 60.0)
        self.journal: Journal | None = Journal() if changes.pop("journal", False) else None
        self.spool = {k: changes.pop(k) for k in ("bytes_max", "full", "age_max") if k in changes}
        fast: dict[str, Any] = {"batch_age_max": 0.001, "gzip": False, "batch_bytes_max": 100}
        fast["retry"] = RetrySettings(backoff_base=0.001, backoff_max=0.004)
        self.settings = ExporterSettings(**{**fast, **changes})
        self.disk = FailingDisk()
        self.make()

    def make(self) -> None:
        self.store = BatchStore(
            self.folder,
            SpoolSettings(folder="x", **self.spool),
            wall_ms=lambda: 1_700_000_000_000,
            complain=lambda *said: None,
            disk=self.disk,
        )
        journal = self.journal
        self.lane = Lane(
            "primary",
            Signal.SPANS,
            [Route("primary", Signal.SPANS, self.sender)],
            self.settings,
            Random(1),
            shelf=self.store.shelf(LANE),
            spool_after_s=self.after,
            done=None if journal is None else journal.done,
            launched=None if journal is None else journal.launch,
        )

    async def start(self) -> "Room":
        await self.store.open()
        self.lane.start()
        return self

    async def stop(self, budget_s: float = 0.0) -> None:
        await self.lane.drain(budget_s)
        self.check()
        await self.store.close()

    async def fill_spool(self, batches: int, until: "Until") -> None:
        """While the target is busy offer batches of five lines, each when the disk has what it was given before."""
        self.sender.judge = lambda lines: BUSY
        for number in range(batches):
            self.lane.offer(payload(*[line(number)] * 5))
            await until(lambda: not self.lane._held.storing)

    async def restart(self, budget_s: float = 0.0) -> None:
        await self.stop(budget_s)
        self.make()
        await self.start()

    def check(self) -> None:
        account = self.lane.account.show()
        assert imbalance(account) == 0, account
        held = self.lane._held
        assert held.size_bytes <= self.settings.queue_bytes_max + held.storing_bytes

    @property
    def files(self) -> list[Path]:
        return sorted(self.folder.glob("*.batch"))

    @property
    def delivered(self) -> list[bytes]:
        """Lines that a request with a 2xx held, in order."""
        return [line for body in self.sender.taken for line in body.splitlines()]


class FailingDisk(Disk):
    error = 0
    reads_fail = False

    def __init__(self) -> None:
        self.is_quick = threading.Event()
        self.is_quick.set()
        self.reads = threading.Event()
        self.reads.set()

    def create(self, path: Path) -> int:
        self.is_quick.wait(10)
        if self.error:
            raise OSError(self.error, "refused")
        return super().create(path)

    def read_at(self, fd: int, offset: int, size_bytes: int) -> bytes:
        self.reads.wait(10)
        if self.reads_fail:
            raise OSError(errno.EIO, "refused")
        return super().read_at(fd, offset, size_bytes)


class Sink:
    """Answers as ``judge`` says of the lines; keeps what it took."""

    shown = "http://sink"
    takes_gzip = True

    def __init__(self) -> None:
        self.judge: Callable[[list[bytes]], Outcome] = lambda lines: DELIVERED
        self.taken: list[bytes] = []
        self.asked = 0
        self.in_flight = 0
        self.in_flight_most = 0
        self.gate: asyncio.Event | None = None

    async def send(self, data: bytes, encoding: str) -> Outcome:
        self.asked += 1
        self.in_flight += 1
        self.in_flight_most = max(self.in_flight_most, self.in_flight)
        try:
            await (asyncio.sleep(0) if self.gate is None else self.gate.wait())
        finally:
            self.in_flight -= 1
        body = gzip.decompress(data) if encoding else data
        outcome = self.judge(body.splitlines())
        if outcome.verdict == "delivered":
            self.taken.append(body)
        return outcome

    async def close(self) -> None:
        """Nothing to close."""


def line(number: int) -> str:
    return f"line {number:014}"  # twenty bytes with its end


def lines_of(*numbers: int) -> list[bytes]:
    return [line(number).encode() for number in numbers]


@pytest.fixture
async def room(tmp_path: Path) -> Any:
    made: list[Room] = []

    async def make(**changes: Any) -> Room:
        room = Room(tmp_path, Sink(), **changes)
        made.append(room)
        return await room.start()

    yield make
    for each in made:
        if not each.lane._stopped:
            await each.stop()


MakeRoom = Callable[..., Awaitable[Room]]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker, "PROBE_S", 0.004)
    monkeypatch.setattr(breaker, "OUTAGE_S", 0.0)


# To the spool and back.


async def test_what_memory_cannot_hold_is_late_and_not_lost(room: MakeRoom, until: Until) -> None:
    here = await room(queue_bytes_max=2_000)
    here.sender.judge = lambda lines: BUSY
    for number in range(500):
        here.lane.offer(payload(line(number)))
        here.check()
        if number % 10 == 0:
            await until(lambda: not here.lane._held.storing)
    await until(lambda: here.store.shelf(LANE).items > 300)
    assert here.lane.account.dropped == {}
    assert here.lane.account.held() == 500
    here.sender.judge = lambda lines: DELIVERED
    await until(lambda: here.lane.account.delivered == 500)
    assert sorted(here.delivered) == lines_of(*range(500))
    await until(lambda: not here.files)
    here.check()


@pytest.mark.parametrize("queue_bytes_max", [100, 60])
async def test_a_batch_that_nearly_fills_the_queue_comes_back_and_holds_up_none(
    room: MakeRoom, until: Until, queue_bytes_max: int
) -> None:
    here = await room(after=0.01)
    await here.fill_spool(3, until)
    await until(lambda: len(here.files) == 3)
    here.settings = replace(here.settings, queue_bytes_max=queue_bytes_max)
    await here.restart()
    here.sender.judge = lambda lines: DELIVERED
    await until(lambda: len(here.delivered) == 15)
    assert here.lane.account.dropped == {}


async def test_a_burst_is_not_lost_to_a_slow_disk(room: MakeRoom, until: Until) -> None:
    here = await room(queue_bytes_max=1_000)
    here.sender.judge = lambda lines: BUSY
    here.disk.is_quick.clear()
    for number in range(300):
        here.lane.offer(payload(line(number)))
        here.check()
        await asyncio.sleep(0)
    assert here.lane._held.storing_bytes > 1_000
    assert here.lane.account.dropped == {}
    here.disk.is_quick.set()
    here.sender.judge = lambda lines: DELIVERED
    await until(lambda: here.lane.account.delivered == 300)


async def test_what_is_on_its_way_to_the_disk_has_a_bound(
    room: MakeRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering, "STORING_BYTES_MAX", 500)
    here = await room(queue_bytes_max=1_000)
    here.sender.judge = lambda lines: BUSY
    here.disk.is_quick.clear()
    for number in range(300):
        here.lane.offer(payload(line(number)))
        assert here.lane._held.size_bytes <= 1_500
        await asyncio.sleep(0)
    assert here.lane.account.dropped["queue_full"] > 0
    here.check()
    here.disk.is_quick.set()


async def test_what_waits_too_long_is_spooled_in_few_files(room: MakeRoom, until: Until) -> None:
    here = await room(after=0.05, batch_bytes_max=2_000, gzip=True)
    here.sender.judge = lambda lines: BUSY
    for number in range(30):
        here.lane.offer(payload(line(number)))
        await asyncio.sleep(0.002)  # a batch of its own
    held = here.lane._held
    await until(lambda: all(batch.stored for batch in held.all_batches()) and not held.storing)
    assert here.lane.account.held() == 30
    assert 1 <= len(here.files) <= 10
    here.sender.judge = lambda lines: DELIVERED
    await until(lambda: here.lane.account.delivered == 30)
    assert sorted(here.delivered) == lines_of(*range(30))


async def test_the_next_process_takes_over_what_is_there(room: MakeRoom, until: Until) -> None:
    here = await room()
    here.sender.judge = lambda lines: BUSY
    for number in range(40):
        here.lane.offer(payload(line(number)))
    await here.stop(budget_s=0.4)
    assert here.lane.account.dropped == {}
    assert here.lane.account.held() == 40
    here.make()
    await here.start()
    assert here.lane.account.received == 40
    here.lane.offer(payload(line(40)))
    here.sender.judge = lambda lines: DELIVERED
    await until(lambda: here.lane.account.delivered == 41)
    assert sorted(here.delivered) == lines_of(*range(41))
    await until(lambda: not here.files)


async def test_a_drain_delivers_what_it_can_before_it_spools(room: MakeRoom) -> None:
    here = await room(batch_age_max=60.0)
    for number in range(10):
        here.lane.offer(payload(line(number)))
    await here.stop(budget_s=5)
    assert here.lane.account.delivered == 10
    assert here.files == []


async def test_a_drain_does_not_wait_for_a_target_that_is_down(
    room: MakeRoom, until: Until
) -> None:
    here = await room()
    here.sender.judge = lambda lines: BUSY
    here.lane.offer(payload(line(1)))
    await until(lambda: here.lane.routes[0].breaker.down)
    began = asyncio.get_running_loop().time()
    await here.stop(budget_s=30)
    assert asyncio.get_running_loop().time() - began < 5
    assert here.lane.account.held() == 1
    assert len(here.files) == 1


async def test_a_request_cut_off_by_the_end_is_spooled_and_may_come_twice(
    room: MakeRoom, until: Until
) -> None:
    here = await room()
    here.sender.gate = asyncio.Event()
    here.lane.offer(payload(line(1)))
    await until(lambda: here.sender.in_flight == 1)
    await here.stop(budget_s=0.1)
    assert here.lane.account.held() == 1
    here.sender.gate = None
    here.make()
    await here.start()
    await until(lambda: here.lane.account.delivered == 1)
    again = here.lane.samples()["tracefwd_exporter_maybe_duplicated_items_total"]
    assert again == {("primary", "spans"): 1}


async def test_a_batch_of_the_spool_that_was_under_way_when_its_process_died_is_counted(
    room: MakeRoom, until: Until
) -> None:
    here = await room(after=0.01)
    here.sender.judge = lambda lines: BUSY
    here.lane.offer(payload(line(1)))
    await until(lambda: here.files)
    # Tried, and surely not taken: no mark is left.
    await until(lambda: here.lane._backlog.shelf.due_at < inf and "+sent" not in here.files[0].name)
    here.sender.gate = asyncio.Event()
    await until(lambda: here.sender.in_flight == 1)
    assert "+sent" in here.files[0].name
    copy = here.folder.with_name("copy")
    shutil.copytree(here.folder, copy)
    here.sender.gate.set()
    here.sender.gate = None
    here.sender.judge = lambda lines: DELIVERED
    await until(lambda: here.lane.account.held() == 0)
    await here.stop()
    here.folder = copy
    here.make()
    await here.start()
    await until(lambda: here.lane.account.delivered == 1)
    again = here.lane.samples()["tracefwd_exporter_maybe_duplicated_items_total"]
    assert again == {("primary", "spans"): 1}


async def test_a_rename_that_fails_costs_a_count_and_not_the_batch(
    room: MakeRoom, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = await room(after=0.01)
    here.sender.judge = lambda lines: BUSY
    here.lane.offer(payload(line(1)))
    await until(lambda: here.lane._backlog.shelf.due_at < inf)

    def refuse(source: Path, target: Path) -> None:
        raise OSError(errno.EROFS, "refused")

    monkeypatch.setattr(here.disk, "replace", refuse)
    here.sender.judge = lambda lines: DELIVERED
    await until(lambda: here.lane.account.delivered == 1)
    await until(lambda: not here.files)
    assert here.store.samples()["tracefwd_spool_errors_total"][("mark",)] > 0


# Fair.


async def test_a_lane_that_waits_for_the_disk_lets_the_loop_rest(
    room: MakeRoom, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = await room(queue_bytes_max=1_000, concurrency=4)
    await here.fill_spool(40, until)
    here.disk.reads.clear()
    here.sender.judge = lambda lines: DELIVERED
    await until(lambda: here.lane._held.loading and not here.lane._held.flights)
    loop = asyncio.get_running_loop()
    call_at, timers = loop.call_at, [0.0]

    def counted(when: float, *args: Any, **more: Any) -> asyncio.TimerHandle:
        timers.append(when)
        return call_at(when, *args, **more)

    monkeypatch.setattr(loop, "call_at", counted)
    for _ in range(200):
        await asyncio.sleep(0)
    assert len(timers) < 20
    here.disk.reads.set()
    await until(lambda: here.lane.account.delivered == 200)


async def test_a_long_backlog_does_not_delay_fresh_lines_and_is_not_forgotten(
    room: MakeRoom, until: Until
) -> None:
    here = await room(queue_bytes_max=1_000, concurrency=4)
    await here.fill_spool(200, until)
    here.sender.judge = lambda lines: DELIVERED
    old = here.lane.account.held()
    loop = asyncio.get_running_loop()
    worst = 0.0
    for number in range(1_000, 1_060):
        began = loop.time()
        here.lane.offer(payload(*[line(number)] * 5))
        wanted = line(number).encode()
        await until(lambda: any(wanted in body for body in here.sender.taken[-60:]))  # noqa: B023
        worst = max(worst, loop.time() - began)
    # While fresh ones came in all the time, old ones went as well.
    assert here.lane.account.delivered > 60 * 5
    assert worst < 1.0
    await until(lambda: here.lane.account.delivered == old + 300)
    here.check()


async def test_old_batches_have_a_quarter_of_the_requests_while_there_are_fresh_ones(
    room: MakeRoom, until: Until
) -> None:
    here = await room(queue_bytes_max=10_000, concurrency=8, batch_age_max=60.0)
    await here.fill_spool(80, until)  # from three quarters on all but the newest half are spooled
    here.sender.gate = asyncio.Event()
    await until(lambda: here.sender.in_flight > 0)
    here.sender.judge = lambda lines: DELIVERED
    here.sender.gate.set()
    here.sender.gate = asyncio.Event()
    # More fresh ones than may fly, and requests that hang.
    for number in range(100, 115):
        here.lane.offer(payload(*[line(number)] * 5))
    await until(lambda: here.sender.in_flight == 8)
    flights = [flight.batch.old for flight in here.lane._held.flights.values()]
    assert here.lane._held.queue
    assert here.store.shelf(LANE).items
    assert sum(flights) == 2
    here.sender.gate.set()
    here.sender.gate = None
    await until(lambda: here.lane.account.held() == 0)


# A disk that fails.


async def test_without_a_disk_the_lane_is_as_without_a_spool_and_recovers(
    room: MakeRoom, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tracefwd.spool import store

    monkeypatch.setattr(store, "PROBE_S", 0.005)
    monkeypatch.setattr(store, "PROBE_MAX_S", 0.005)
    here = await room(queue_bytes_max=1_000)
    here.disk.error = errno.ENOSPC
    here.sender.judge = lambda lines: BUSY
    for number in range(100):
        here.lane.offer(payload(line(number)))
        here.check()
        await asyncio.sleep(0)
    # What the disk was asked to take, and did not, has its turn in the queue again.
    await until(lambda: set(here.lane.account.dropped) == {"queue_full"})
    assert here.files == []
    await until(lambda: not here.store.usable)
    here.disk.error = 0
    await until(lambda: here.store.usable)
    before = here.lane.account.dropped["queue_full"]
    for number in range(100, 300):
        here.lane.offer(payload(line(number)))
        await until(lambda: not here.lane._held.storing)
    assert here.lane.account.dropped["queue_full"] - before <= 50  # what was full when it came back
    assert len(here.files) > 5
    here.sender.judge = lambda lines: DELIVERED
    await until(lambda: here.lane.account.held() == 0)
    here.check()


async def test_reads_that_fail_are_tried_again(
    room: MakeRoom, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "REREAD_S", 0.01)
    here = await room()
    here.sender.judge = lambda lines: BUSY
    here.lane.offer(payload(line(1)))
    await here.restart(budget_s=0.2)
    here.disk.reads_fail = True
    await until(lambda: here.store.samples()["tracefwd_spool_errors_total"].get(("read",), 0) > 2)
    here.check()
    assert here.lane.account.held() == 1
    here.disk.reads_fail = False
    here.sender.judge = lambda lines: DELIVERED
    await until(lambda: here.lane.account.delivered == 1)


async def test_a_damaged_file_is_a_counted_loss_of_its_own_lines(
    room: MakeRoom, until: Until
) -> None:
    here = await room()
    here.sender.judge = lambda lines: BUSY
    for number in range(10):
        here.lane.offer(payload(line(number)))
    await here.stop(budget_s=0.2)
    here.journal = Journal()
    content = bytearray(here.files[0].read_bytes())
    content[-1] ^= 1
    here.files[0].write_bytes(content)
    here.make()
    await here.start()
    here.sender.judge = lambda lines: DELIVERED
    await until(lambda: here.lane.account.held() == 0)
    lost = here.lane.account.dropped["spool_damaged"]
    assert 1 <= lost <= 5
    assert here.lane.account.delivered == 10 - lost
    assert set(here.journal.told) == {(0, 0)}, "the accounts have changed"


async def test_drop_newest_keeps_the_beginning_of_an_outage(room: MakeRoom, until: Until) -> None:
    here = await room(queue_bytes_max=1_000, bytes_max=64 * 1024, full="drop_newest")
    here.sender.judge = lambda lines: BUSY
    for number in range(400):
        here.lane.offer(payload(*[line(number)] * 5))
        here.check()
        await until(lambda: not here.lane._held.storing)
    assert set(here.lane.account.dropped) == {"spool_full"}
    here.sender.judge = lambda lines: DELIVERED
    await until(lambda: here.lane.account.held() == 0)
    assert set(here.delivered) == set(lines_of(*range(here.lane.account.delivered // 5)))


async def test_drop_oldest_keeps_its_end(room: MakeRoom, until: Until) -> None:
    here = await room(queue_bytes_max=1_000, bytes_max=64 * 1024)
    here.sender.judge = lambda lines: BUSY
    for number in range(400):
        here.lane.offer(payload(*[line(number)] * 5))
        here.check()
        await until(lambda: not here.lane._held.storing)
    assert set(here.lane.account.dropped) == {"spool_full"}
    here.sender.judge = lambda lines: DELIVERED
    await until(lambda: here.lane.account.held() == 0)
    kept = {int(text.split()[1]) for text in here.delivered}
    assert 399 in kept
    assert 0 not in kept


async def test_a_batch_of_the_spool_that_is_too_large_keeps_its_file_until_both_halves_are_over(
    room: MakeRoom, until: Until
) -> None:
    here = await room()
    here.sender.judge = lambda lines: BUSY
    here.lane.offer(payload(*[line(number) for number in range(4)]))
    await here.restart(budget_s=0.2)
    assert len(here.files) == 1
    halves: list[int] = []

    def judge(lines: list[bytes]) -> Outcome:
        if len(lines) > 2:
            return SPLIT
        halves.append(len(here.files))
        return DELIVERED

    here.sender.judge = judge
    await until(lambda: here.lane.account.delivered == 4)
    assert halves == [1, 1]
    await until(lambda: not here.files)
    here.check()


# The journal.


def check_journal(here: Room, entries: int) -> None:
    assert here.journal is not None
    assert sorted(here.journal.seqs()) == list(range(1, entries + 1))


async def test_every_entry_is_told_exactly_once(room: MakeRoom, until: Until) -> None:
    here = await room(journal=True, batch_bytes_max=100)
    assert here.journal is not None
    for number in range(1, 51):
        here.lane.offer(payload(*[line(number)] * (1 + number % 3)), number)
        if number % 7 == 0:
            await asyncio.sleep(0.003)
    await until(lambda: here.lane.account.held() == 0)
    check_journal(here, 50)
    # Every range was said to be on its way before.
    assert sorted(here.journal.launched) == sorted(here.journal.told)


async def test_an_entry_larger_than_a_batch_is_over_when_its_last_piece_is(
    room: MakeRoom, until: Until
) -> None:
    here = await room(journal=True, concurrency=1)
    assert here.journal is not None
    here.lane.offer(payload(line(0)), 1)
    here.lane.offer(payload(*[line(number) for number in range(23)], unsendable=2), 2)
    here.lane.offer(payload(line(99)), 3)
    seen: list[int] = []

    def judge(lines: list[bytes]) -> Outcome:
        assert here.journal is not None
        if len(lines) > 1:
            seen.append(here.journal.seqs().count(2))
        return DELIVERED

    here.sender.judge = judge
    await until(lambda: here.lane.account.held() == 0)
    assert here.journal.told == [(1, 1), (2, 2), (3, 3)]
    assert seen == [0] * 5


async def test_two_payloads_of_one_entry_in_two_batches_are_told_once(
    room: MakeRoom, until: Until
) -> None:
    here = await room(journal=True, concurrency=1)
    here.lane.offer(payload(*[line(1)] * 3), 1)
    here.lane.offer(payload(*[line(2)] * 2), 2)
    here.lane.offer(payload(*[line(2)] * 4), 2)  # does not fit any more
    here.lane.offer(payload(line(3)), 3)
    await until(lambda: here.lane.account.held() == 0)
    check_journal(here, 3)
    assert len(here.sender.taken) == 2


async def test_rejected_dropped_and_blocked_lines_are_told(room: MakeRoom, until: Until) -> None:
    here = await room(journal=True, queue_bytes_max=200, bytes_max=1)
    journal = here.journal
    assert journal is not None
    here.sender.judge = lambda lines: Outcome("rejected", "http_404", "no")
    here.lane.offer(payload(line(1), line(1)), 1)
    await until(lambda: here.lane.account.held() == 0)
    here.lane.offer(payload("x" * 300), 2)  # never fits
    here.lane.offer(payload(unsendable=4), 3)
    assert journal.told == [(1, 1), (2, 2), (3, 3)]
    assert here.lane.account.rejected == {"refused": 2, "too_long_for_target": 4}
    assert here.lane.account.dropped == {"queue_full": 1}
    nowhere = Lane("primary", Signal.SPANS, [], here.settings, Random(1), done=journal.done)
    nowhere.offer(payload("a", "b"), 4)
    assert journal.told[-1] == (4, 4)
    assert nowhere.account.blocked == 2


async def test_what_is_pushed_out_of_memory_is_told(room: MakeRoom, until: Until) -> None:
    here = await room(journal=True, queue_bytes_max=500, bytes_max=1)
    here.sender.gate = asyncio.Event()
    for number in range(1, 101):
        here.lane.offer(payload(*[line(number)] * 2), number)
        here.check()
    here.sender.gate.set()
    await until(lambda: here.lane.account.held() == 0)
    check_journal(here, 100)
    assert here.lane.account.dropped["queue_full"] > 0


async def test_an_entry_is_over_for_the_journal_when_the_spool_has_it(
    room: MakeRoom, until: Until
) -> None:
    here = await room(journal=True, queue_bytes_max=1_000, after=0.03)
    journal = here.journal
    assert journal is not None
    here.sender.judge = lambda lines: BUSY
    for number in range(1, 101):
        here.lane.offer(payload(line(number)), number)
        await until(lambda: not here.lane._held.storing)
    await until(lambda: len(journal.seqs()) == 100)
    check_journal(here, 100)
    assert here.lane.account.held() == 100
    spooled = {n for first, last in here.store.shelf(LANE).seqs() for n in range(first, last + 1)}
    assert spooled <= set(range(1, 101))
    assert here.store.seq_next == 101
    files = len(here.files)
    removed_before_told: list[bool] = []
    told = journal.done

    def done(first: int, last: int) -> None:
        removed_before_told.append(len(here.files) < files - len(removed_before_told))
        told(first, last)

    here.lane.books._done = done
    here.sender.judge = lambda lines: DELIVERED
    await until(lambda: here.lane.account.held() == 0)
    assert here.lane.account.delivered == 100
    assert removed_before_told
    assert not any(removed_before_told)
    check_journal(here, 100)


async def test_halves_tell_once(room: MakeRoom, until: Until) -> None:
    here = await room(journal=True)
    bad = line(3).encode()
    here.sender.judge = lambda lines: BAD_LINE if bad in lines else DELIVERED
    here.lane.offer(payload(line(1), line(2)), 1)
    here.lane.offer(payload(line(3), line(4)), 2)
    await until(lambda: here.lane.account.held() == 0)
    assert here.journal is not None
    assert here.journal.told == [(1, 2)]
    assert (here.lane.account.delivered, here.lane.account.rejected) == (3, {"refused": 1})


async def test_what_the_journal_has_is_neither_dropped_nor_told_at_the_end(room: MakeRoom) -> None:
    here = await room(journal=True)
    here.sender.judge = lambda lines: BUSY
    for number in range(1, 11):
        here.lane.offer(payload(line(number)), number)
    here.lane.offer(payload(line(11)))  # while the journal was out of order
    await here.stop(budget_s=0.2)
    assert here.lane.account.dropped == {}
    assert here.lane.account.held() == 11
    assert here.journal is not None
    told = set(here.journal.seqs())
    assert told in (set(), {*range(1, 11)} & told)
    assert here.store.shelf(LANE).items >= 1
    here.lane.offer(payload(line(12)), 12)
    assert here.lane.account.held() == 12
    assert imbalance(here.lane.account.show()) == 0


async def test_without_a_journal_nothing_is_remembered() -> None:
    lane = Lane(
        "primary",
        Signal.SPANS,
        [Route("primary", Signal.SPANS, Sink())],
        ExporterSettings(),
        Random(1),
    )
    lane.offer(payload("a"), 1)
    lane._gathering.close_batch()
    assert lane._held.queue[0].origin is None
    await lane.drain(0)
