"""One worker, run inside the test with recording parts: start order, leave order, whole snapshots."""

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from tracefwd import ledger
from tracefwd.metrics import Samples
from tracefwd.service import worker as worker_module
from tracefwd.service.control import (
    EXIT_FAILED_TO_START,
    Ask,
    Channel,
    Drain,
    Failed,
    FromWorker,
    Leaving,
    Ready,
    Snapshot,
    Start,
)
from tracefwd.service.tally import empty_ledger
from tracefwd.service.worker import Worker
from tracefwd.service.worker_parts import Parts
from tracefwd.settings import RedSettings, ServiceSettings, Settings


class Recording:
    """Pipeline, receiver and target in one; says what was called in which order."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.budgets: list[float] = []
        self.lingers: list[float] = []
        self.account = ledger.Account(lambda: self.waiting)
        self.waiting = 0
        self.linger_until: asyncio.Event | None = None
        self.deliver_until: asyncio.Event | None = None
        self.ticked = asyncio.Event()
        self.lingering = asyncio.Event()
        self.delivering = asyncio.Event()
        self.tick_fails = False

    def parts(self, _: Settings, slot: int = 0) -> Parts:
        self.calls.append("composed")
        return Parts(self, _Receiver(self), [_Target(self)])

    def tick(self) -> Iterator[None]:
        self.calls.append("tick")
        self.ticked.set()
        if self.tick_fails:
            raise RuntimeError("a bug in the tick")
        yield
        self.calls.append("ticked")

    def ledger(self) -> dict[str, Any]:
        return {**empty_ledger(), **self.account.show()}

    def samples(self) -> Samples:
        return {"tracefwd_red_active_series": {(): 1}, "shared": {("a",): 1}}

    def rejected_samples(self) -> list[dict[str, str]]:
        return [{"at": "1"}]


class _Receiver:
    def __init__(self, seen: Recording) -> None:
        self.seen = seen

    async def start(self, sock: socket.socket) -> None:
        self.seen.calls.append("receiver started")

    def drain(self) -> None:
        self.seen.calls.append("receiver drains")

    def leave_port(self) -> None:
        self.seen.calls.append("receiver leaves its port")

    async def stop(self, linger_s: float) -> None:
        self.seen.lingers.append(linger_s)
        self.seen.lingering.set()
        if self.seen.linger_until is not None:
            await self.seen.linger_until.wait()
        self.seen.calls.append("receiver stopped")

    def samples(self) -> Samples:
        return {"tracefwd_receiver_connections": {(): 4}, "shared": {("a",): 2, ("b",): 1}}


class _Target:
    def __init__(self, seen: Recording) -> None:
        self.seen = seen

    async def start(self) -> None:
        self.seen.calls.append("target started")

    async def drain(self, budget_s: float) -> None:
        self.seen.budgets.append(budget_s)
        self.seen.delivering.set()
        if self.seen.deliver_until is not None:
            try:
                await self.seen.deliver_until.wait()
            except asyncio.CancelledError:
                self.seen.calls.append("target cut off")
                raise
        account = self.seen.account
        account.delivered += self.seen.waiting
        self.seen.waiting = 0
        self.seen.calls.append("target drained")

    def problems(self) -> list[str]:
        return ["primary: refused"]


class Parent:
    """The other end of the channel."""

    def __init__(self) -> None:
        self.got: list[FromWorker] = []
        self.news = asyncio.Event()
        self.channel: Channel[FromWorker] = Channel(FromWorker, self._receive)

    def _receive(self, message: FromWorker) -> None:
        self.got.append(message)
        self.news.set()

    async def until(self, kind: type[Any], number: int | None = None) -> Any:
        async with asyncio.timeout(10):
            while True:
                for message in self.got:
                    if isinstance(message, kind) and number in (None, getattr(message, "id", None)):
                        return message
                self.news.clear()
                await self.news.wait()

    @property
    def snapshots(self) -> list[Snapshot]:
        return [message for message in self.got if isinstance(message, Snapshot)]


SETTINGS = Settings(service=ServiceSettings(drain_timeout=4.0))


@asynccontextmanager
async def a_worker(
    seen: Recording, settings: Settings = SETTINGS, build: worker_module.Compose | None = None
) -> AsyncIterator[tuple[Parent, Worker, asyncio.Task[int]]]:
    ours, theirs = socket.socketpair()
    parent = Parent()
    await asyncio.get_running_loop().create_unix_connection(lambda: parent.channel, sock=ours)
    with socket.create_server(("127.0.0.1", 0)) as sock:
        worker = Worker({"spans": sock}, build or seen.parts)
        running = asyncio.create_task(worker.run(theirs))
        parent.channel.send(Start(0, msgspec.Raw(msgspec.json.encode(settings))))
        try:
            yield parent, worker, running
        finally:
            parent.channel.close()
            async with asyncio.timeout(10):
                await asyncio.wait({running})


async def test_targets_start_before_the_receiver_and_ready_comes_last() -> None:
    seen = Recording()
    async with a_worker(seen) as (parent, _, running):
        ready = await parent.until(Ready)
        assert seen.calls == ["composed", "target started", "receiver started"]
        assert ready.loop == "asyncio"
        assert not running.done()


async def test_leaves_in_order_and_its_last_snapshot_holds_nothing() -> None:
    seen = Recording()
    async with a_worker(seen) as (parent, _, running):
        await parent.until(Ready)
        seen.account.received = seen.waiting = 5
        parent.channel.send(Drain(4.0))
        assert await running == 0
        await parent.channel.closed.wait()
    assert seen.calls[3:] == [
        "receiver drains",
        "receiver stopped",
        "tick",
        "ticked",
        "target drained",
    ]
    assert parent.snapshots[-1].ledger["delivered"] == 5
    assert parent.snapshots[-1].ledger["held"] == 0


async def test_handed_over_ports_are_left_at_once_and_the_rest_goes_as_ever() -> None:
    seen = Recording()
    async with a_worker(seen) as (parent, _, running):
        await parent.until(Ready)
        parent.channel.send(Drain(4.0, handed_over=True))
        assert await running == 0
    assert sorted(seen.calls[3:5]) == ["receiver drains", "receiver leaves its port"]
    assert seen.calls[5:] == ["receiver stopped", "tick", "ticked", "target drained"]
    assert not any(isinstance(message, Leaving) for message in parent.got)


async def test_ports_are_kept_without_a_successor_and_left_when_it_has_come() -> None:
    seen = Recording()
    seen.linger_until = asyncio.Event()
    async with a_worker(seen) as (parent, worker, running):
        await parent.until(Ready)
        worker.leave(3.0, reason="SIGTERM")
        assert (await parent.until(Leaving)).reason == "SIGTERM"
        await seen.lingering.wait()
        assert "receiver leaves its port" not in seen.calls
        parent.channel.send(Drain(4.0, handed_over=True))
        parent.channel.send(Ask(1))
        await parent.until(Snapshot, 1)
        assert seen.calls[-1] == "receiver leaves its port"
        seen.linger_until.set()
        assert await running == 0


async def test_told_to_leave_while_it_starts_it_leaves_its_port_as_soon_as_it_has_one() -> None:
    seen = Recording()
    async with a_worker(seen) as (parent, _, running):
        parent.channel.send(Drain(0.0, handed_over=True))
        assert await running == 0
    assert seen.calls[2:4] == ["receiver started", "receiver leaves its port"]


async def test_without_any_time_an_idle_receiver_still_stops_and_is_not_told_as_cut_off(
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen = Recording()
    async with a_worker(seen) as (parent, _, running):
        parent.channel.send(Drain(0.0))
        assert await running == 0
    assert "receiver stopped" in seen.calls
    assert "were reset" not in caplog.text


class _Journal:
    """Recovers three spans, the last when ``more`` is set."""

    def __init__(self, seen: Recording) -> None:
        self.seen = seen
        self.more = asyncio.Event()
        self.tick_early = asyncio.Event()
        self.found = 0

    async def recover(self) -> None:
        self.seen.calls.append("recovering")
        self.take(2)
        await self.more.wait()
        self.take(1)
        self.seen.calls.append("recovered")

    def take(self, count: int) -> None:
        self.found += count
        self.seen.account.received += count
        self.seen.waiting += count

    @property
    def name(self) -> str:
        return "slot-0.2"

    @property
    def adopted(self) -> list[str]:
        return ["slot-0.1"] if self.more.is_set() else []

    async def open(self) -> None:
        self.seen.calls.append("journal opened")

    def each_second(self) -> None:
        """Nothing to look for."""

    async def close(self) -> None:
        self.seen.calls.append("journal closed")

    def samples(self) -> Samples:
        return {}

    def problems(self) -> list[str]:
        return []


async def test_what_the_dead_left_is_recovered_before_anything_is_received(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_module, "PUSH_INTERVAL_S", 0.01)
    seen = Recording()
    journal = _Journal(seen)

    def build(settings: Settings, slot: int = 0) -> Parts:
        parts = seen.parts(settings)
        parts.journal = journal
        return parts

    async with a_worker(seen, build=build) as (parent, _, running):
        # However long it takes, the parent hears how it goes, in whole snapshots.
        first = await parent.until(Snapshot)
        assert (first.adopted, first.ledger["held"]) == ([], 2)
        assert not any(isinstance(message, Ready) for message in parent.got)
        journal.more.set()
        await parent.until(Ready)
        last = parent.snapshots[-1]
        assert (last.adopted, last.ledger["held"]) == (["slot-0.1"], 3)
        assert last.journal == "slot-0.2"
        parent.channel.send(Drain(1.0))
        assert await running == 0
    assert seen.calls[-1] == "journal closed"
    assert seen.calls[:6] == [
        "composed",
        "journal opened",
        "target started",
        "recovering",
        "recovered",
        "receiver started",
    ]


async def test_a_journal_that_facts_fill_gets_its_tick_early() -> None:
    """Long before the interval's end: only a tick lets the facts go."""
    seen = Recording()
    journal = _Journal(seen)
    journal.more.set()

    def build(settings: Settings, slot: int = 0) -> Parts:
        parts = seen.parts(settings)
        parts.journal = journal
        return parts

    hourly = replace(SETTINGS, red=replace(SETTINGS.red, interval=3600.0))
    async with a_worker(seen, hourly, build=build) as (parent, _, running):
        await parent.until(Ready)
        journal.tick_early.set()
        await asyncio.wait_for(seen.ticked.wait(), 5)
        parent.channel.send(Drain(1.0))
        assert await running == 0


async def test_a_journal_that_cannot_be_recovered_is_told_and_nothing_is_received() -> None:
    seen = Recording()

    class Broken(_Journal):
        async def recover(self) -> None:
            raise OSError(5, "Input/output error", "/spool/0")

    def build(settings: Settings, slot: int = 0) -> Parts:
        parts = seen.parts(settings)
        parts.journal = Broken(seen)
        return parts

    async with a_worker(seen, build=build) as (parent, _, running):
        failed = await parent.until(Failed)
        parent.channel.close()
        assert await running == EXIT_FAILED_TO_START
    assert "/spool/0" in failed.message
    assert "receiver started" not in seen.calls


async def test_the_receiver_gets_at_most_half_of_the_budget_and_the_targets_the_rest() -> None:
    seen = Recording()
    async with a_worker(seen) as (parent, _, running):
        await parent.until(Ready)
        parent.channel.send(Drain(4.0))
        await running
    assert 1.0 < seen.lingers[0] < 2.0
    assert 3.0 < seen.budgets[0] <= 4.0


async def test_with_time_enough_idle_connections_outlast_envoys_flush() -> None:
    seen = Recording()
    async with a_worker(seen) as (parent, _, running):
        await parent.until(Ready)
        parent.channel.send(Drain(20.0))
        await running
    assert seen.lingers == [worker_module.LINGER_S]
    assert worker_module.LINGER_S >= 6


async def test_a_receiver_that_does_not_end_does_not_take_the_targets_time() -> None:
    seen = Recording()
    seen.linger_until = asyncio.Event()
    async with a_worker(seen) as (parent, _, running):
        await parent.until(Ready)
        parent.channel.send(Drain(0.4))
        assert await running == 0
    assert "receiver stopped" not in seen.calls
    assert seen.calls[-1] == "target drained"
    assert seen.budgets[0] > 0.1


async def test_a_second_drain_with_less_time_hurries_receiver_and_targets() -> None:
    seen = Recording()
    seen.linger_until = asyncio.Event()
    seen.deliver_until = asyncio.Event()
    async with a_worker(seen) as (parent, _, running):
        await parent.until(Ready)
        parent.channel.send(Drain(3600.0))
        async with asyncio.timeout(10):
            await seen.lingering.wait()
            parent.channel.send(Drain(60.0))
            parent.channel.send(Drain(0.2))
            assert await running == 0
    assert "receiver stopped" not in seen.calls
    assert 0 < seen.budgets[0] < 0.2
    assert seen.calls[-1] == "target cut off"


async def test_more_time_than_before_changes_nothing() -> None:
    seen = Recording()
    seen.deliver_until = asyncio.Event()
    async with a_worker(seen) as (parent, worker, running):
        await parent.until(Ready)
        parent.channel.send(Drain(3.0))
        parent.channel.send(Drain(3600.0))
        async with asyncio.timeout(10):
            await seen.delivering.wait()
            worker.leave()
            parent.channel.send(Ask(1))
            await parent.until(Snapshot, 1)
        assert len(seen.budgets) == 1
        assert seen.budgets[0] <= 3.0
        seen.deliver_until.set()
        assert await running == 0


async def test_the_parents_death_lets_it_drain_and_leave() -> None:
    seen = Recording()
    async with a_worker(seen) as (parent, _, running):
        await parent.until(Ready)
        parent.channel.close()
        assert await running == 0
    assert seen.calls[-1] == "target drained"
    assert 3.0 < seen.budgets[0] <= 4.0


async def test_a_parent_that_dies_before_its_first_word_ends_it() -> None:
    seen = Recording()
    ours, theirs = socket.socketpair()
    with socket.create_server(("127.0.0.1", 0)) as sock:
        ours.close()
        assert await Worker({"spans": sock}, seen.parts).run(theirs) == 0
    assert seen.calls == []


async def test_ticks_come_just_after_whole_intervals_of_the_wall_clock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = Recording()
    waits: list[float] = []
    monkeypatch.setattr(worker_module.time, "time", lambda: 1_000_000_017.75)

    async def remember(_: Worker, seconds: float) -> bool:
        waits.append(seconds)
        return len(waits) > 1

    monkeypatch.setattr(Worker, "_leaves_within", remember)
    settings = Settings(red=RedSettings(interval=10.0), service=ServiceSettings(drain_timeout=1.0))
    async with a_worker(seen, settings) as (_, _, running):
        assert await running == 0
    assert waits == pytest.approx([2.25 + worker_module.TICK_LATENESS_S] * 2)
    # One at its time, one at the end.
    assert seen.calls.count("ticked") == 2


async def test_a_failed_task_is_told_and_what_is_held_is_still_delivered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen = Recording()
    seen.account.received = seen.waiting = 3
    settings = Settings(red=RedSettings(interval=0.05), service=ServiceSettings(drain_timeout=1.0))
    async with a_worker(seen, settings) as (parent, _, running):
        await parent.until(Ready)
        seen.tick_fails = True
        await seen.ticked.wait()
        with pytest.raises(RuntimeError, match="a bug in the tick"):
            await running
        await parent.channel.closed.wait()
    assert seen.calls[-1] == "target drained"
    assert parent.snapshots[-1].ledger["delivered"] == 3
    assert [m.reason for m in parent.got if isinstance(m, Leaving)] == ["a task failed"]
    assert "task ticker failed" in caplog.text


async def test_what_keeps_it_from_starting_is_told_to_the_parent() -> None:
    def refuse(_: Settings, slot: int = 0) -> Parts:
        raise OSError(13, "Permission denied", "/etc/token")

    async with a_worker(Recording(), build=refuse) as (parent, _, running):
        failed = await parent.until(Failed)
        parent.channel.close()
        assert await running == EXIT_FAILED_TO_START
    assert failed.message == "[Errno 13] Permission denied: '/etc/token'"


async def test_snapshots_are_whole_and_balance_whenever_they_are_asked_for() -> None:
    seen = Recording()
    chance = random.Random(7)
    account = seen.account

    async def traffic() -> None:
        while True:
            for _ in range(chance.randrange(4)):
                count = chance.randrange(1, 6)
                account.received += count
                match chance.randrange(4):
                    case 0:
                        seen.waiting += count
                    case 1:
                        account.reject("syntax", count)
                    case 2:
                        account.drop("queue_full", count)
                    case _:
                        account.delivered += count
            account.delivered += seen.waiting
            seen.waiting = 0
            await asyncio.sleep(0)

    async with a_worker(seen) as (parent, _, _running):
        await parent.until(Ready)
        busy = asyncio.create_task(traffic())
        for number in range(1, 200):
            parent.channel.send(Ask(number))
            await parent.until(Snapshot, number)
        busy.cancel()
    assert len(parent.snapshots) >= 200
    received = [snapshot.ledger["received"] for snapshot in parent.snapshots]
    assert received == sorted(received)
    assert received[-1] > received[0]
    assert [ledger.imbalance(snapshot.ledger) for snapshot in parent.snapshots] == [0] * len(
        received
    )  # type: ignore[arg-type]


async def test_a_snapshot_sums_the_parts_and_carries_problems_and_rejected_only_when_wanted() -> (
    None
):
    async with a_worker(Recording()) as (parent, _, _):
        await parent.until(Ready)
        parent.channel.send(Ask(1))
        parent.channel.send(Ask(2, rejected=True))
        plain = await parent.until(Snapshot, 1)
        wanted = await parent.until(Snapshot, 2)
    assert ("shared", ("a",), 3) in plain.samples
    assert ("shared", ("b",), 1) in plain.samples
    assert plain.problems == ["primary: refused"]
    assert plain.rejected_samples is None
    assert wanted.rejected_samples == [{"at": "1"}]


async def test_pushes_a_snapshot_each_second_without_being_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert worker_module.PUSH_INTERVAL_S == 1.0
    monkeypatch.setattr(worker_module, "PUSH_INTERVAL_S", 0.01)
    async with a_worker(Recording()) as (parent, _, _), asyncio.timeout(10):
        while len(parent.snapshots) < 4:
            parent.news.clear()
            await parent.news.wait()
    assert {snapshot.id for snapshot in parent.snapshots} == {0}


def test_every_setting_survives_the_way_to_the_worker() -> None:
    settings = Settings(red=RedSettings(interval=1.5, tags=["a"]))
    assert msgspec.json.decode(msgspec.json.encode(settings), type=Settings) == settings


def test_the_process_does_not_heed_ctrl_c_and_never_imports_what_it_does_not_use() -> None:
    code = (
        "import sys, tracefwd.service.worker; "
        "print([m for m in ('grpc', 'yaml', 're2', 'aiohttp.web', 'tracefwd.service.supervisor')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_sigint_is_ignored_from_the_first_moment() -> None:
    ours, theirs = socket.socketpair()
    before = signal.getsignal(signal.SIGINT)
    with socket.create_server(("127.0.0.1", 0)) as sock:
        ours.close()
        handed = [f"spans={os.dup(sock.fileno())}", str(theirs.detach())]
        try:
            assert worker_module.main(handed) == 0
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        finally:
            signal.signal(signal.SIGINT, before)
