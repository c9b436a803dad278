"""A worker's promises across its death: real parts, a real folder, a sink of its own, and disks that fail.

A ``Body`` is a worker without its process.  ``die`` is kill -9: from then on its disk does nothing, and its locks are
free.
"""

import asyncio
import errno
import os
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.chaos import sink as sinks
from tests.chaos import truth
from tests.chaos.judge import gaps
from tests.chaos.otlp_records import records
from tests.chaos.sink import Sink
from tests.exporter.test_otlp_senders import Receiver
from tests.spool.faulty_disk import FaultyDisk
from tracefwd.compose import make_pipeline
from tracefwd.doorways import Answer, HeldAnswer
from tracefwd.model import Signal
from tracefwd.service.durable import Durable
from tracefwd.service.worker_parts import make_targets
from tracefwd.settings import (
    ExporterSettings,
    RetrySettings,
    ServiceSettings,
    Settings,
    SpoolSettings,
    TargetSettings,
)
from tracefwd.spool import frames
from tracefwd.spool.disk import Disk

NOW_US = 1_795_400_000_000_000


class MortalDisk(FaultyDisk):
    """``die``: no call works any more.  ``dies_at`` is the call in which that happens by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.is_dead = False
        self.dies_at = 1 << 60
        self._locks: set[int] = set()

    def die(self) -> None:
        if not self.is_dead:
            self.is_dead = True
            for fd in [*self._locks, *self.open_fds]:
                os.close(fd)
            self._locks.clear()
            self.open_fds.clear()

    def _call(self, name: str, *, reads: bool = False) -> bool:
        if self.calls >= self.dies_at:
            self.die()
        if self.is_dead:
            raise OSError(errno.EIO, "dead")
        return super()._call(name, reads=reads)

    def lock(self, path: Path) -> int:
        self._call("lock", reads=True)
        fd = super().lock(path)
        self._locks.add(fd)
        return fd

    def replace(self, source: Path, target: Path) -> None:
        self._call("replace")
        super().replace(source, target)

    def close(self, fd: int) -> None:
        if self.is_dead:
            return
        self._locks.discard(fd)
        super().close(fd)


def settings(root: Path, sink: Sink, **changes: Any) -> Settings:
    spool = {"folder": str(root), "after": 60.0} | changes.pop("spool", {})
    exporter: dict[str, Any] = {
        "batch_age_max": 0.01,
        "request_timeout": 30.0,
        "retry": RetrySettings(backoff_base=0.01, backoff_max=0.05),
    }
    base = f"http://127.0.0.1:{sink.port}"
    kind = changes.pop("kind", "proxy")
    where = {"url": base} if kind == "otlp" else {"traces": base, "metrics": base}
    target = TargetSettings(name=changes.pop("name", "primary"), kind=kind, **where)
    return Settings(
        exporter=ExporterSettings(
            targets=[target, *changes.pop("targets", [])], **exporter | changes.pop("exporter", {})
        ),
        spool=SpoolSettings(**spool),
        service=ServiceSettings(workers=changes.pop("workers", 1)),
        **changes,
    )


class Body:
    def __init__(self, options: Settings, slot: int = 0, disk: Disk | None = None) -> None:
        self.disk = MortalDisk() if disk is None else disk
        self.durable = Durable(options, slot, disk=self.disk)
        targets = make_targets(options, self.durable)
        self.targets = [target for _, target in targets]
        self.pipeline = make_pipeline(options, targets, now_us=lambda: NOW_US)
        self.durable.connect(self.pipeline, self.targets)
        self.is_over = False

    async def start(self) -> "Body":
        await self.durable.open()
        for target in self.targets:
            await target.start()
        await self.durable.recover()
        return self

    async def post(self, numbers: range) -> Answer:
        held = self.pipeline.ingest(truth.body(numbers, NOW_US), "application/json")
        assert isinstance(held, HeldAnswer)
        released = asyncio.Event()
        held.when_released(released.set)
        async with asyncio.timeout(10):
            await released.wait()
        assert held.answer is not None
        return held.answer

    async def tick(self) -> None:
        for _ in self.pipeline.tick():
            await asyncio.sleep(0)

    def again(self, signal: str) -> int:
        """Lines that may be doubled; of RED the spans in them."""
        red = "red_maybe_doubled" if signal != "spans" else "maybe_duplicated_items"
        samples = self.targets[0].samples()[f"tracefwd_exporter_{red}_total"]
        return int(samples["primary", signal])

    @property
    def ledger(self) -> dict[str, Any]:
        """It balances whenever it is read."""
        found = self.pipeline.ledger()
        assert gaps(found) == {}
        return found

    async def until(self, look: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not look():
                assert self.ledger
                await asyncio.sleep(0.005)

    async def delivers(self, count: int) -> None:
        await self.until(lambda: self.ledger["delivered"] >= count and not self.ledger["held"])

    async def die(self) -> None:
        assert isinstance(self.disk, MortalDisk)
        self.disk.die()
        await self.end()

    async def end(self) -> None:
        self.is_over = True
        for target in self.targets:
            await target.drain(0.0)
        await self.durable.close()

    async def leave(self) -> None:
        """In order, with all the time in the world."""
        self.is_over = True
        for target in self.targets:
            await target.drain(10.0)
        await self.durable.close()


class World:
    def __init__(self, root: Path, sink: Sink) -> None:
        self.root, self.sink = root, sink
        self.kind = "proxy"
        self.bodies: list[Body] = []
        self._posted = 0

    async def body(self, slot: int = 0, disk: Disk | None = None, **changes: Any) -> Body:
        body = Body(settings(self.root, self.sink, kind=self.kind, **changes), slot, disk)
        self.bodies.append(body)
        return await body.start()

    def spans(self, count: int) -> range:
        first, self._posted = self._posted, self._posted + count
        return range(first, first + count)

    def outage(self) -> None:
        self.sink.trouble((sinks.HOLE,))

    def red(self) -> int:
        return sum(taken.invocations.total() for taken in self.sink.requests)

    def folders(self) -> list[str]:
        return sorted(path.name for path in self.root.glob("*-*"))


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with Sink(Random(1)) as sink:
        found = World(tmp_path / "spool", sink)
        yield found
        for body in found.bodies:
            if not body.is_over:
                await body.end()


both_kinds = pytest.mark.parametrize("kind", ["proxy", "otlp"])


@both_kinds
async def test_everything_acknowledged_is_there_after_a_crash_exactly_once(
    world: World, kind: str
) -> None:
    world.kind = kind
    world.outage()
    one = await world.body()
    for _ in range(20):
        assert (await one.post(world.spans(10))).status == 202
    before = one.ledger
    await one.die()
    heir = await world.body()
    assert heir.ledger["received"] == before["received"] == 200
    world.sink.calm()
    await heir.delivers(200)
    await heir.tick()
    await heir.leave()
    assert (heir.ledger["received"], heir.ledger["delivered"]) == (200, 200)
    assert heir.ledger["dropped"] == {}
    assert len(world.sink.first) == 200
    assert world.sink.again == []
    assert world.red() == 200


SLOW: dict[str, Any] = {"concurrency": 1, "batch_items_max": 10, "gzip": False}


@both_kinds
async def test_only_what_was_under_way_counts_as_maybe_doubled(world: World, kind: str) -> None:
    """One request of ten spans was taken, and its answer lost with the worker; forty wait behind it."""
    world.kind = kind
    world.sink.trouble((sinks.TAKEN_HOLE,))
    one = await world.body(exporter=SLOW)
    await one.post(world.spans(10))
    await one.until(lambda: len(world.sink.first) == 10)
    for _ in range(4):
        await one.post(world.spans(10))
    assert one.again("spans") == 0
    await one.die()
    world.sink.calm()
    heir = await world.body(exporter=SLOW)
    await heir.delivers(50)
    assert len(world.sink.first) == 50
    assert len(world.sink.again) == heir.again("spans") == 10
    # Its count of it dies with it no more than its ledger does.
    await heir.die()
    last = await world.body(exporter=SLOW)
    assert last.again("spans") == 10
    await last.leave()


async def test_a_call_that_died_with_its_worker_comes_again_over_grpc(tmp_path: Path) -> None:
    """Ten spans were taken by a call that is never answered; ten wait behind it."""
    receiver, silent = Receiver(), asyncio.Event()

    async def never(_: object) -> bytes:
        await silent.wait()
        return b""

    receiver.script.append(never)
    async with receiver as url, Sink(Random(1)) as sink:
        options = settings(tmp_path, sink, exporter=SLOW)
        target = TargetSettings(name="primary", kind="otlp", protocol="grpc", url=url)
        options = replace(options, exporter=replace(options.exporter, targets=[target]))
        one = await Body(options).start()
        await one.post(range(10))
        await one.until(lambda: len(receiver.requests) == 1)
        await one.post(range(10, 20))
        await one.die()
        heir = await Body(options).start()
        await heir.delivers(20)
        assert heir.again("spans") == 10
        await heir.leave()
        silent.set()
    came = Counter(
        truth.number_of(each.number)
        for method, body in receiver.requests
        if "TraceService" in method
        for each in records(b"/v1/traces", body)
    )
    assert came == Counter([*range(10), *range(20)])


async def test_what_an_answer_has_turned_down_is_not_maybe_doubled(world: World) -> None:
    world.sink.trouble((sinks.BUSY,))
    patient = {"retry": RetrySettings(backoff_base=10.0, backoff_max=10.0)}
    one = await world.body(exporter=patient)
    await one.post(world.spans(10))
    lane = one.targets[0]._lanes[Signal.SPANS]
    await one.until(lambda: lane._held.waits)
    # The turn in which that was heard is put down.
    await asyncio.sleep(0.01)
    await one.die()
    world.sink.calm()
    heir = await world.body()
    await heir.delivers(10)
    await heir.leave()
    assert (world.sink.again, heir.again("spans")) == ([], 0)


@both_kinds
async def test_red_under_way_is_counted_by_its_spans(world: World, kind: str) -> None:
    world.kind = kind
    one = await world.body()
    await one.post(world.spans(24))
    await one.delivers(24)
    world.sink.trouble((sinks.TAKEN_HOLE,))
    await one.tick()
    await one.until(lambda: world.red() == 24)
    await one.until(lambda: sum(taken.durations.total() for taken in world.sink.requests) == 24)
    await one.die()
    world.sink.calm()
    heir = await world.body()
    await heir.until(lambda: world.red() == 48)
    assert heir.again("points") == heir.again("distributions") == 24
    await heir.leave()


async def test_a_batch_that_its_journal_does_not_know_of_comes_once(world: World) -> None:
    """Death between the batch's rename and the journal's next turn; and once more while it is taken over."""
    one = await world.body(spool={"after": 0.02}, exporter={"request_timeout": 0.05})
    journal = one.durable._journal
    assert journal is not None
    world.sink.trouble((sinks.BUSY,))
    await one.post(world.spans(30))
    # From here on the disk takes batches and nothing else.
    journal.done = lambda *_: None  # type: ignore[method-assign]
    await one.until(lambda: one.durable.store.shelf("primary/spans").items == 30)
    await one.die()
    for dies_at in (*range(4, 60, 4), 1 << 60):
        disk = MortalDisk()
        disk.dies_at = dies_at
        heir = await world.body(disk=disk)
        if dies_at < 1 << 60:
            await heir.die()
    assert heir.ledger["received"] == 30
    world.sink.calm()
    await heir.delivers(30)
    await heir.leave()
    assert heir.ledger["received"] == 30
    assert len(world.sink.first) == 30
    assert world.sink.again == []


async def test_what_was_delivered_before_stays_counted(world: World) -> None:
    one = await world.body()
    await one.post(world.spans(50))
    await one.delivers(50)
    await one.tick()
    await one.until(lambda: world.red() == 50)
    await asyncio.sleep(0.05)
    world.outage()
    await one.post(world.spans(7))
    await one.die()
    world.sink.calm()
    heir = await world.body()
    assert heir.ledger["received"] == 57
    await heir.delivers(57)
    await heir.tick()
    await heir.leave()
    assert world.sink.again == []
    assert world.red() == 57


async def test_the_ledger_goes_on_after_an_orderly_leave(world: World) -> None:
    for count in (1, 2, 3):
        body = await world.body()
        await body.post(world.spans(10))
        await body.delivers(10 * count)
        await body.tick()
        await body.leave()
        assert body.ledger["received"] == 10 * count
    assert world.red() == 30


async def test_each_step_is_taken_once_however_often_a_successor_dies(world: World) -> None:
    world.outage()
    one = await world.body()
    for _ in range(15):
        await one.post(world.spans(4))
    await one.die()
    random = Random(3)
    died = 0
    for _ in range(40):
        disk = MortalDisk()
        # In the look for the dead, in the history, in RED, in the lines, or in the removal.
        disk.dies_at = random.randint(0, 70)
        heir = await world.body(disk=disk)
        await asyncio.sleep(0.01)
        died += disk.is_dead
        await heir.die()
    assert 10 < died < 40
    heir = await world.body()
    world.sink.calm()
    await heir.delivers(60)
    await heir.tick()
    await heir.leave()
    assert heir.ledger["received"] == 60
    assert heir.ledger["dropped"] == {}
    assert len(world.sink.first) == 60
    assert world.sink.again == []
    assert world.red() == 60


async def test_the_backlogs_of_several_fit_into_one(world: World) -> None:
    """Each of two workers held what one may hold; then there is only one, and the outage goes on."""
    small = {"queue_bytes_max": 64 * 1024, "batch_bytes_max": 8 * 1024, "gzip": False}
    world.outage()
    for slot in (0, 1):
        body = await world.body(slot, exporter=small, workers=2)
        # Without a spool's help: as much as stays in memory before it is asked.
        while (
            body.targets[0].samples()["tracefwd_exporter_queue_bytes"]["primary", "spans"] < 40_000
        ):
            await body.post(world.spans(10))
    for body in world.bodies:
        await body.die()
    heir = await world.body(exporter=small)
    total = len(world.spans(0)) + world._posted
    assert heir.ledger["received"] == heir.ledger["held"] == total
    assert (await heir.post(world.spans(1))).status == 202
    world.sink.calm()
    await heir.delivers(total + 1)
    assert heir.ledger["dropped"] == {}
    await heir.leave()
    assert len(world.sink.first) == total + 1


@both_kinds
async def test_batches_of_a_dead_workers_spool_are_received_once(world: World, kind: str) -> None:
    world.kind = kind
    world.outage()
    one = await world.body(spool={"after": 0.02}, exporter={"request_timeout": 0.05})
    await one.post(world.spans(30))
    shelf = one.durable.store.shelf("primary/spans")
    await one.until(lambda: shelf.items == 30)
    await one.die()
    world.sink.calm()
    heir = await world.body()
    assert heir.ledger["received"] == 30
    await heir.delivers(30)
    assert heir.ledger["received"] == 30
    await heir.leave()
    assert world.sink.again == []


@both_kinds
async def test_batches_of_a_target_that_has_another_name_now_go_to_the_primary(
    world: World, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    world.kind = kind
    world.outage()
    one = await world.body(
        name="old", spool={"after": 0.02}, exporter={"request_timeout": 0.05, "batch_age_max": 0.01}
    )
    await one.post(world.spans(30))
    shelf = one.durable.store.shelf("old/spans")
    await one.until(lambda: shelf.items == 30)
    await one.end()
    heir = await world.body(name="new", exporter={"request_timeout": 0.05})
    assert heir.ledger["held"] == heir.ledger["received"] == 30
    assert "old/spans, which is no target's any more, go to new/spans" in caplog.text
    # Whoever comes after one that did not deliver them finds them under their first name again.
    await heir.end()
    world.sink.calm()
    last = await world.body(name="new")
    await last.delivers(30)
    assert last.ledger["received"] == 30
    assert last.durable.problems() == []
    await last.leave()
    assert world.sink.again == []


async def test_lines_whose_lane_has_lost_its_name_are_a_counted_loss(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.outage()
    one = await world.body(name="old")
    await one.post(world.spans(30))
    await one.die()
    for path in world.root.rglob("data-*.log"):
        log = bytearray(path.read_bytes())
        # A segment begins with the lanes' names.
        assert frames.HEAD.unpack_from(log)[2] == frames.START
        log[frames.HEAD_BYTES] ^= 1
        path.write_bytes(log)
    world.sink.calm()
    heir = await world.body(name="new")
    await heir.until(lambda: not heir.ledger["held"])
    assert heir.ledger["received"] == 30
    assert heir.ledger["dropped"] == {"crash": 30}
    assert "30 lines of" in caplog.text
    await heir.post(world.spans(5))
    await heir.delivers(5)
    await heir.leave()


async def test_a_sibling_takes_over_late_and_says_whose(world: World) -> None:
    world.outage()
    one = await world.body()
    other = await world.body()
    await one.post(world.spans(10))
    name = one.durable.name
    await one.die()
    assert other.ledger["received"] == 0
    other.durable.each_second()
    await other.until(lambda: other.durable.adopted == [name])
    assert other.ledger["received"] == 10
    await other.die()
    # Nobody may have heard of it: its successor says it again.
    heir = await world.body()
    assert set(heir.durable.adopted) == {name, other.durable.name}
    world.sink.calm()
    await heir.delivers(10)
    assert heir.ledger["received"] == 10


async def test_a_folder_that_cannot_be_removed_is_taken_over_once(world: World) -> None:
    one = await world.body()
    await one.post(world.spans(5))
    await one.delivers(5)
    await one.die()
    disk = MortalDisk()

    def refuse(source: Path, target: Path) -> None:
        raise OSError(errno.EROFS, "refused")

    disk.replace = refuse  # type: ignore[method-assign]
    other = await world.body(disk=disk)
    for _ in range(3):
        other.durable.each_second()
        await asyncio.sleep(0.02)
    assert other.ledger["received"] == 5
    await other.die()
    heir = await world.body()
    assert heir.ledger["received"] == 5
    await heir.delivers(5)


async def test_a_disk_that_refuses_costs_the_promise_and_not_the_service(world: World) -> None:
    disk = MortalDisk()
    disk.fail(errno.EROFS)
    body = await world.body(disk=disk)
    assert (await body.post(world.spans(5))).status == 202
    batches, journal = body.durable.problems()
    assert batches.startswith("the spool ")
    assert journal.startswith("the journal ")
    assert "answers promise only memory" in journal
    await body.delivers(5)
    disk.mend()
    await asyncio.sleep(1.1)
    body.durable.each_second()
    await body.until(lambda: not body.durable.problems())
    # And from here on it is worth what it says.
    world.outage()
    await body.post(world.spans(6))
    await body.die()
    world.sink.calm()
    heir = await world.body()
    assert heir.ledger["received"] == 11
    await heir.delivers(11)


async def test_a_full_disk_is_said_and_gets_well_by_itself(world: World) -> None:
    disk = MortalDisk()
    body = await world.body(disk=disk)
    await body.post(world.spans(5))
    disk.fail(errno.ENOSPC)
    assert (await body.post(world.spans(5))).status == 202
    assert len(body.durable.problems()) == 1
    lost = body.durable.samples()["tracefwd_journal_unwritten_entries_total"][()]
    assert lost > 0
    disk.mend()
    await asyncio.sleep(1.1)
    await body.post(world.spans(5))
    await body.until(lambda: not body.durable.problems())
    await body.delivers(15)
    await body.die()
    heir = await world.body()
    assert heir.ledger["received"] == 15
    await heir.delivers(15)


async def test_what_the_disk_refused_is_spooled_by_who_leaves(world: World) -> None:
    """A target that is down, and a disk that was full for a moment: the journal lacks what came then."""
    world.sink.trouble((sinks.BUSY,))
    disk = MortalDisk()
    one = await world.body(disk=disk)
    await one.post(world.spans(5))
    disk.fail(errno.ENOSPC)
    await one.post(world.spans(5))
    disk.mend()
    await asyncio.sleep(1.1)
    await one.post(world.spans(5))
    await one.until(lambda: not one.durable.problems())
    await one.leave()
    assert (one.ledger["held"], one.ledger["dropped"]) == (15, {})
    world.sink.calm()
    heir = await world.body()
    await heir.delivers(15)
    assert heir.ledger["dropped"] == {}
    assert (len(world.sink.first), world.sink.again) == (15, [])


async def test_what_a_full_journal_refused_is_spooled_by_who_leaves(world: World) -> None:
    """Batches are packed, entries are not: the journal's bound is reached while the spool has room."""
    world.sink.trouble((sinks.BUSY,))
    one = await world.body(spool={"bytes_max": 512 * 1024})
    count = 0
    while not one.durable.problems():
        await one.post(world.spans(100))
        count += 100
    await one.post(world.spans(100))
    await one.leave()
    assert (one.ledger["held"], one.ledger["dropped"]) == (count + 100, {})
    world.sink.calm()
    heir = await world.body()
    await heir.delivers(count + 100)
    assert (len(world.sink.first), world.sink.again) == (count + 100, [])


async def test_what_neither_journal_nor_spool_takes_is_a_counted_loss(world: World) -> None:
    world.sink.trouble((sinks.BUSY,))
    disk = MortalDisk()
    one = await world.body(disk=disk)
    await one.post(world.spans(5))
    await one.until(lambda: world.sink.used[sinks.BUSY])
    disk.fail(errno.ENOSPC)
    await one.post(world.spans(6))
    await one.end()
    assert (one.ledger["held"], one.ledger["dropped"]) == (5, {"drain_budget": 6})


async def test_what_was_taken_over_in_memory_alone_comes_again(world: World) -> None:
    """A full disk at the start: the lines go out, their folder stays, and nothing is lost whatever comes next."""
    world.outage()
    one = await world.body()
    await one.post(world.spans(20))
    folder = world.folders()
    await one.die()
    disk = MortalDisk()
    other = await world.body(disk=disk)
    await other.die()
    disk = MortalDisk()
    body = Body(settings(world.root, world.sink), disk=disk)
    world.bodies.append(body)
    disk.fail(errno.ENOSPC)
    await body.start()
    assert body.ledger["received"] == 20
    disk.mend()
    await asyncio.sleep(1.1)
    await body.post(world.spans(1))
    await body.die()
    world.sink.calm()
    heir = await world.body()
    await heir.until(lambda: len(world.sink.first) == 21)
    await heir.leave()
    assert folder[0] not in world.folders()


@pytest.mark.parametrize("is_delivered", [False, True])
async def test_a_history_that_was_taken_over_in_memory_alone_is_counted_once(
    world: World, is_delivered: bool
) -> None:
    """The journal writes again before the next death: the accounts in it have the history already."""
    one = await world.body()
    await one.post(world.spans(20))
    await one.delivers(20)
    world.outage()
    await one.post(world.spans(7))
    await one.die()
    disk = MortalDisk()
    body = Body(settings(world.root, world.sink), disk=disk)
    world.bodies.append(body)
    disk.fail(errno.ENOSPC)
    if is_delivered:
        world.sink.calm()
    await body.start()
    if is_delivered:
        await body.delivers(27)
    world.outage()
    disk.mend()
    await asyncio.sleep(1.1)
    await body.post(world.spans(1))
    await body.until(lambda: not body.durable.problems())
    assert body.ledger["received"] == 28
    await body.die()
    world.sink.calm()
    heir = await world.body()
    await heir.until(lambda: not heir.ledger["held"])
    # What the disk did not hear of comes again, or died in memory, and is in the folder that stayed.
    twice = len(world.sink.again)
    assert twice == (7 if is_delivered else 0)
    assert heir.ledger["delivered"] == 28 + twice
    assert heir.ledger["dropped"] == ({} if is_delivered else {"crash": 7})


@pytest.mark.parametrize("level", ["disk", "fsync"])
async def test_a_folder_that_somebody_removes_is_made_anew(
    world: World, caplog: pytest.LogCaptureFixture, level: str
) -> None:
    """Else answers would go on to promise what is written to files without a name."""
    world.sink.trouble((sinks.BUSY,))
    one = await world.body(spool={"durability": level})
    await one.post(world.spans(5))
    shutil.rmtree(world.root)
    one.durable.each_second()
    assert "removed while in use" in caplog.text
    await one.post(world.spans(6))
    assert one.durable.problems() == []
    other = await world.body()
    assert other.ledger["received"] == 0
    await other.leave()
    await one.die()
    world.sink.calm()
    heir = await world.body()
    await heir.delivers(6)
    assert (heir.ledger["received"], heir.ledger["dropped"]) == (11, {"crash": 5})


async def test_lines_of_a_removed_folder_are_spooled_by_who_leaves(world: World) -> None:
    world.sink.trouble((sinks.BUSY,))
    one = await world.body()
    await one.post(world.spans(5))
    shutil.rmtree(world.root)
    one.durable.each_second()
    await one.leave()
    world.sink.calm()
    heir = await world.body()
    await heir.delivers(5)
    assert heir.ledger["dropped"] == {}


async def test_the_red_log_alone_may_be_removed(world: World) -> None:
    """The marks in it say which entries are whole."""
    world.sink.trouble((sinks.BUSY,))
    one = await world.body()
    await one.post(world.spans(5))
    for path in world.root.glob("*/journal/red-*"):
        path.unlink()
    one.durable.each_second()
    await asyncio.sleep(0.01)
    await one.die()
    world.sink.calm()
    heir = await world.body()
    await heir.delivers(5)
    assert heir.ledger["dropped"] == {}


async def test_fsync_answers_after_the_sync(world: World) -> None:
    synced = 0

    class Slow(MortalDisk):
        def sync(self, fd: int) -> None:
            nonlocal synced
            super().sync(fd)
            synced += 1

    body = await world.body(disk=Slow(), spool={"durability": "fsync"})
    before = synced
    held = body.pipeline.ingest(truth.body(world.spans(3), NOW_US), "application/json")
    assert isinstance(held, HeldAnswer)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await body.until(lambda: held.answer is not None)
    assert synced > before
    await body.delivers(3)
    await body.leave()


async def test_memory_leaves_journals_to_others(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.outage()
    one = await world.body()
    await one.post(world.spans(4))
    await one.die()
    other = await world.body(spool={"durability": "memory"})
    assert "waits for a worker with a journal" in caplog.text
    assert (other.durable.name, other.durable.adopted) == ("", [])
    for _ in range(3):
        other.durable.each_second()
        await asyncio.sleep(0.01)
    assert caplog.text.count("waits for") == 1
    await other.leave()
    world.sink.calm()
    heir = await world.body()
    await heir.delivers(4)


@pytest.mark.parametrize("jump_s", [-86_400, -3, 3_600])
async def test_a_wall_clock_that_jumps_loses_and_doubles_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, jump_s: int
) -> None:
    """While a worker lives, and again between two; lines are in the spool, in the journal, and RED in its log."""
    real_ns, jumps = time.time_ns, 0

    def time_ns() -> int:
        return real_ns() + jumps * jump_s * 1_000_000_000

    monkeypatch.setattr(time, "time_ns", time_ns)
    monkeypatch.setattr(time, "time", lambda: time_ns() / 1e9)
    world.sink.trouble((sinks.BUSY,))
    one = await world.body(spool={"after": 0.02})
    await one.post(world.spans(20))
    await one.until(lambda: one.durable.store.shelf("primary/spans").items == 20)
    jumps += 1
    await one.post(world.spans(20))
    await one.die()
    for _ in range(2):
        jumps += 1
        heir = await world.body()
        await heir.post(world.spans(20))
        await heir.die()
    world.sink.calm()
    heir = await world.body()
    await heir.delivers(80)
    await heir.tick()
    await heir.leave()
    assert heir.ledger["dropped"] == {}
    assert (len(world.sink.first), world.red()) == (80, 80)
    assert world.sink.again == []


async def test_tees_and_failovers_keep_their_history(world: World) -> None:
    base = f"http://127.0.0.1:{world.sink.port}"
    more = [
        TargetSettings(name="copy", role="tee", traces=base, metrics=base),
        TargetSettings(name="spare", role="failover", traces=base, metrics=base),
    ]
    one = await world.body(targets=more)
    await one.post(world.spans(8))
    await one.delivers(8)
    await one.until(lambda: one.ledger["targets"]["copy"]["spans"]["delivered"] == 8)
    await asyncio.sleep(0.05)
    shown = one.ledger["targets"]
    await one.die()
    heir = await world.body(targets=more)
    assert heir.ledger["targets"] == shown
