"""The parent over real worker processes: they share the port, die, are replaced, drain; the sums stay true."""

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tracefwd.errors import StartError
from tracefwd.service import child as child_module
from tracefwd.service import slot as slot_module
from tracefwd.service.config import Loaded
from tracefwd.service.supervisor import Service
from tracefwd.service.tally import balance
from tracefwd.settings import (
    AdminSettings,
    ExporterSettings,
    MappingSettings,
    PrometheusSourceSettings,
    ReceiverSettings,
    ServiceSettings,
    Settings,
    TargetSettings,
)

FAKE = "fake_parts:compose"


@pytest.fixture(autouse=True)
def _fake_parts_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers search where the parent searches."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def loaded(workers: int = 1, *, drain: float = 5.0, **changes: Any) -> Loaded:
    parts: dict[str, Any] = {
        "receiver": ReceiverSettings(listen="127.0.0.1:0"),
        "admin": AdminSettings(listen="127.0.0.1:0"),
        "service": ServiceSettings(workers=workers, drain_timeout=drain),
    }
    return Loaded(Settings(**{**parts, **changes}), {})


class Client:
    """One kept-alive connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def post(self, path: str = "/deliver") -> str | None:
        """The answering worker's process id; None if the connection broke."""
        self._writer.write(f"POST {path} HTTP/1.1\r\ncontent-length: 0\r\n\r\n".encode())
        try:
            head = await self._reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        return head.partition(b"x-pid: ")[2].split()[0].decode()

    async def close(self) -> None:
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except ConnectionError:
            return


@asynccontextmanager
async def connection(url: str) -> AsyncIterator[Client]:
    parts = urlsplit(url)
    client = Client(*await asyncio.open_connection(parts.hostname, parts.port))
    try:
        yield client
    finally:
        await client.close()


async def post_once(url: str, path: str = "/deliver") -> str | None:
    async with connection(url) as client:
        return await client.post(path)


async def until_ready(service: Service, restarts: int) -> None:
    async with asyncio.timeout(20):
        while sum(slot.restarts for slot in service.slots) < restarts or not service.ready:
            service._changed.clear()
            await service._changed.wait()


async def until_set(look: Callable[[], bool]) -> None:
    """For what nobody announces: turn by turn."""
    async with asyncio.timeout(20):
        while not look():  # noqa: ASYNC110
            await asyncio.sleep(0)


async def until_exit(pid: int) -> None:
    """A process that is not our child's child any more has ended."""
    descriptor = os.pidfd_open(pid)
    gone = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(descriptor, gone.set)
    try:
        async with asyncio.timeout(20):
            await gone.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


async def test_workers_share_the_port_and_the_ledger_sums_them() -> None:
    async with Service(loaded(workers=2), compose=FAKE) as service:
        assert service.ready
        pids = [await post_once(service.intake_url) for _ in range(40)]
        whole = await service.ledger()
        samples = await service.samples()
    assert set(pids) == {str(pid) for pid in set(pids) if pid}
    assert len(set(pids)) == 2
    assert whole["received"] == whole["delivered"] == 40
    assert whole["targets"]["primary"]["spans"]["delivered"] == 40
    assert samples["tracefwd_receiver_requests_total"] == {("202",): 40}
    assert samples["tracefwd_workers"] == {(): 2}
    assert samples["tracefwd_ledger_spans"][("received",)] == 40
    assert balance(whole)[0]


async def test_the_ledger_is_fresh_at_every_read() -> None:
    async with (
        Service(loaded(), compose=FAKE) as service,
        connection(service.intake_url) as client,
    ):
        for number in range(1, 20):
            await client.post()
            assert (await service.ledger())["received"] == number


async def test_a_killed_worker_is_replaced_and_sums_never_go_backwards(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Service(loaded(workers=2), compose=FAKE) as service:
        for _ in range(20):
            await post_once(service.intake_url)
        async with connection(service.intake_url) as held, connection(service.intake_url) as idle:
            victim = await held.post("/hold")
            assert victim is not None
            assert await idle.post() is not None
            before = await service.ledger()
            assert before["held"] == 1
            os.kill(int(victim), signal.SIGKILL)
            # Not only afterwards: whatever is read meanwhile balances and holds what was there.
            while sum(slot.restarts for slot in service.slots) == 0:
                service._changed.clear()
                await service._changed.wait()
                during = await service.ledger()
                assert balance(during)[0]
                assert during["received"] >= before["received"]
            await until_ready(service, restarts=1)
        pids = {await post_once(service.intake_url) for _ in range(40)}
        after = await service.ledger()
        samples = await service.samples()
    assert None not in pids
    assert victim not in pids
    assert len(pids) == 2
    assert after["received"] == before["received"] + 40
    assert after["delivered"] == before["delivered"] + 40
    assert after["dropped"] == {"crash": 1}
    assert after["held"] == 0
    assert samples["tracefwd_worker_restarts_total"] == {(): 1}
    assert samples["tracefwd_exporter_dropped_items_total"] == {("primary", "spans", "crash"): 1}
    assert "was killed by signal 9; replaced at once" in caplog.text
    assert balance(after)[0]


async def test_connections_that_wait_for_a_dead_worker_are_served_by_the_next() -> None:
    async with Service(loaded(), compose=FAKE) as service:
        async with connection(service.intake_url) as client:
            assert await client.post("/die") is None
        # The slot has no worker now or a new one: nobody is refused either way.
        pids = await asyncio.gather(*(post_once(service.intake_url) for _ in range(20)))
        assert None not in pids
        assert (await service.ledger())["delivered"] == 20


async def test_replacing_waits_longer_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def remember(self: slot_module.Slot, seconds: float) -> bool:
        waits.append(seconds)
        return self._draining.is_set()

    async def dies(self: slot_module.Slot) -> child_module.End:
        if len(waits) == 9:
            self.drain(0.0)
        return child_module.End("died", well=False)

    monkeypatch.setattr(slot_module.Slot, "_drains_within", remember)
    monkeypatch.setattr(slot_module.Slot, "_one_worker", dies)
    slot = slot_module.Slot(
        0,
        {"spans": socket.socket()},
        Settings(),
        tally=None,  # type: ignore[arg-type]
        compose="",
        changed=lambda: None,
    )
    with slot._listening["spans"]:
        await slot.keep()
    assert waits == [0, 0.5, 1, 2, 4, 8, 10, 10, 10]


async def test_a_worker_that_dies_while_starting_is_replaced(tmp_path: Path) -> None:
    settings = loaded(mapping=MappingSettings(application_name=str(tmp_path / "marker")))
    async with Service(settings, compose="fake_parts:compose_dies_at_first") as service:
        assert service.slots[0].restarts == 1
        assert await post_once(service.intake_url)


async def test_a_worker_that_cannot_start_stops_everything_with_its_message() -> None:
    service = Service(loaded(workers=2), compose="fake_parts:compose_unreadable_token")
    with pytest.raises(StartError, match=r"^exporter.targets\[0\].token_file .* cannot be read$"):
        await service.start()
    with pytest.raises(ConnectionRefusedError):
        await post_once(service.intake_url)
    assert [slot.pid for slot in service.slots] == [None, None]


async def test_stopped_while_it_starts_it_delivers_what_the_first_worker_took(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(child_module, "DRAIN_GRACE_S", 0.2)
    service = Service(loaded(workers=2, drain=1.0), compose="fake_parts:compose_first_alone_starts")
    start = asyncio.create_task(service.start())
    await until_set(lambda: bool(service.slots) and service.slots[0].ready)
    # The port is everybody's: some wait for the worker that does not come.
    posts = [asyncio.create_task(post_once(service.intake_url, "/hold")) for _ in range(20)]
    async with asyncio.timeout(20):
        await asyncio.wait(posts, return_when=asyncio.FIRST_COMPLETED)
    start.cancel()
    await asyncio.wait({start, *posts})
    whole = await service.ledger()
    assert whole["received"] == whole["delivered"] > 0


async def test_a_bug_while_starting_stops_everything_too() -> None:
    with pytest.raises(StartError, match="RuntimeError: a bug"):
        await Service(loaded(), compose="fake_parts:compose_bug").start()


async def test_a_replacement_that_cannot_start_ends_the_service() -> None:
    async with Service(loaded(), compose=FAKE) as service:
        service.slots[0]._compose = "fake_parts:compose_unreadable_token"
        assert await post_once(service.intake_url, "/die") is None
        async with asyncio.timeout(20):
            assert "cannot be read" in str(await service.failed())
        assert not service.ready


async def test_taken_ports_are_told_and_nothing_is_started() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        for changes, words in (
            (
                {"receiver": ReceiverSettings(listen=address)},
                f"receiver.listen {address}: the port",
            ),
            ({"admin": AdminSettings(listen=address)}, f"admin.listen {address}: the port"),
        ):
            service = Service(loaded(**changes), compose=FAKE)
            with pytest.raises(StartError, match=words):
                await service.start()
            assert service.slots == []


async def test_a_worker_that_does_not_answer_is_shown_by_its_last_snapshot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(child_module, "ANSWER_TIMEOUT_S", 0.2)
    async with Service(loaded(), compose=FAKE) as service:
        await post_once(service.intake_url)
        fresh = await service.ledger()
        pid = service.slots[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            assert await service.ledger() == fresh
            assert service.slots[0].stale
            assert (await service.samples())["tracefwd_workers"] == {(): 0}
            assert service.ready
        finally:
            os.kill(pid, signal.SIGCONT)
        await service.ledger()
        assert not service.slots[0].stale


async def test_a_silent_worker_is_killed_and_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_module, "ANSWER_TIMEOUT_S", 0.2)
    async with Service(loaded(), compose=FAKE) as service:
        monkeypatch.setattr(child_module, "SILENCE_S_MAX", 0.1)
        async with connection(service.intake_url) as client:
            assert await client.post("/hang") is None
        monkeypatch.setattr(child_module, "SILENCE_S_MAX", 60.0)
        await until_ready(service, restarts=1)
        assert await post_once(service.intake_url)


async def test_what_is_held_is_delivered_or_counted_before_the_end() -> None:
    async with Service(loaded(workers=2), compose=FAKE) as service:
        for path in ("/hold", "/hold", "/lose", "/deliver"):
            await post_once(service.intake_url, path)
        assert (await service.ledger())["held"] == 3
        pids = [slot.pid for slot in service.slots]
    whole = await service.ledger()
    assert whole["held"] == 0
    assert whole["dropped"] == {"drain_budget": 1}
    assert balance(whole) == (
        True,
        "ledger balanced: received 4 = delivered 3 + dropped 1 (drain_budget 1)",
    )
    assert not service.ready
    for pid in pids:
        assert pid is not None
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def until(service: Service, look: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not look():
            service._changed.clear()
            await service._changed.wait()


async def test_a_worker_that_leaves_by_itself_has_a_successor_before_it_is_gone() -> None:
    async with Service(loaded(), compose=FAKE) as service:
        await post_once(service.intake_url, "/hold")
        (slot,) = service.slots
        leaver = slot._serving
        assert leaver is not None
        assert leaver.pid is not None
        os.kill(leaver.pid, signal.SIGTERM)
        await until(service, lambda: slot._serving is not leaver)
        assert service.ready
        assert slot.restarts == 1
        await leaver.ended
        whole = await service.ledger()
        assert await post_once(service.intake_url)
    assert (whole["delivered"], whole["held"], whole["dropped"]) == (1, 0, {})


async def test_a_reload_that_is_sent_to_all_processes_costs_no_span() -> None:
    """As by ``pkill -HUP -f tracefwd`` or ``systemctl kill -s HUP``: a worker leaves it to its parent."""
    async with Service(loaded(), compose=FAKE) as service:
        pid = await post_once(service.intake_url, "/hold")
        assert pid is not None
        os.kill(int(pid), signal.SIGHUP)
        assert await post_once(service.intake_url, "/hold") == pid
    whole = await service.ledger()
    assert (whole["delivered"], whole["dropped"]) == (2, {})


async def test_a_successor_is_told_whose_share_of_memory_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[int] = []

    async def start_child(*arguments: Any, beside: int, **options: Any) -> child_module.Child:
        told.append(beside)
        return await child_module.start_child(*arguments, beside=beside, **options)

    monkeypatch.setattr(slot_module, "start_child", start_child)
    async with Service(loaded(), compose=FAKE) as service:
        (slot,) = service.slots
        old = slot.pid
        await service.reload(service.loaded)
        assert told == [0, old]


async def test_exchanged_workers_both_count_until_the_old_one_has_left() -> None:
    async with Service(loaded(), compose=FAKE) as service:
        (slot,) = service.slots
        old = slot._serving
        assert old is not None
        async with connection(service.intake_url) as client:
            await client.post("/hold")
            os.kill(old.pid or 0, signal.SIGSTOP)
            # It cannot leave yet, and its successor serves.
            exchange = asyncio.create_task(service.reload(service.loaded))
            await until(service, lambda: slot._serving is not old)
            assert service.ready
            assert await post_once(service.intake_url, "/hold") != str(old.pid)
            os.kill(old.pid or 0, signal.SIGCONT)
            whole = await service.ledger()
            assert balance(whole)[0]
            assert whole["received"] == 2
            await exchange
        assert (await service.ledger())["received"] == 2
        assert old.ended.done()
        assert service.slots[0].restarts == 0
    whole = await service.ledger()
    assert (whole["received"], whole["delivered"]) == (2, 2)


async def test_a_successor_that_cannot_start_leaves_the_old_worker_in_its_place() -> None:
    async with Service(loaded(), compose=FAKE) as service:
        pid = service.slots[0].pid
        before = service.loaded
        service.slots[0]._compose = "fake_parts:compose_unreadable_token"
        with pytest.raises(StartError, match="cannot be read"):
            await service.reload(loaded(drain=1.0))
        assert service.loaded is before
        assert service.ready
        assert await post_once(service.intake_url) == str(pid)
        # And it can be exchanged as soon as that is mended.
        service.slots[0]._compose = FAKE
        await service.reload(service.loaded)
        assert await post_once(service.intake_url) not in {None, str(pid)}


async def test_a_successor_that_dies_while_starting_leaves_the_old_worker_in_its_place() -> None:
    async with Service(loaded(), compose=FAKE) as service:
        pid = service.slots[0].pid
        service.slots[0]._compose = "fake_parts:compose_dies"
        with pytest.raises(StartError, match="worker 0 left with exit code 1 while starting"):
            await service.reload(service.loaded)
        assert await post_once(service.intake_url) == str(pid)


async def test_a_worker_that_dies_while_its_successor_starts_is_followed_by_that_one() -> None:
    async with Service(loaded(), compose=FAKE) as service:
        (slot,) = service.slots
        old = slot._serving
        assert old is not None
        await post_once(service.intake_url, "/hold")
        await service.ledger()
        exchange = asyncio.create_task(service.reload(service.loaded))
        await until_set(lambda: bool(slot._others))
        (successor,) = slot._others
        os.kill(old.pid or 0, signal.SIGKILL)
        await exchange
        assert slot._serving is successor
        assert slot._lives == 2
        assert await post_once(service.intake_url) == str(successor.pid)
    whole = await service.ledger()
    assert (whole["received"], whole["delivered"], whole["dropped"]) == (2, 1, {"crash": 1})


async def test_a_successor_that_dies_while_the_old_one_leaves_is_replaced_at_once() -> None:
    async with Service(loaded(), compose=FAKE) as service:
        (slot,) = service.slots
        old = slot._serving
        assert old is not None
        os.kill(old.pid or 0, signal.SIGSTOP)
        exchange = asyncio.create_task(service.reload(service.loaded))
        await until(service, lambda: slot._serving is not old)
        os.kill(slot.pid or 0, signal.SIGKILL)
        await until(service, lambda: slot.restarts == 1 and slot.ready)
        assert not old.ended.done()
        assert await post_once(service.intake_url)
        os.kill(old.pid or 0, signal.SIGCONT)
        await exchange


async def test_stopping_during_an_exchange_sees_off_both_workers() -> None:
    async with Service(loaded(workers=2), compose=FAKE) as service:
        exchange = asyncio.create_task(service.reload(service.loaded))
        slot = service.slots[0]
        old = slot._serving
        await until(service, lambda: slot._serving is not old)
        await post_once(service.intake_url, "/hold")
        await service.stop()
        async with asyncio.timeout(10):
            await exchange
        assert all(child.ended.done() for each in service.slots for child in each._children())
    assert balance(await service.ledger())[0]
    assert (await service.ledger())["held"] == 0


async def test_a_worker_that_overstays_its_budget_is_killed_and_what_it_held_counts_as_crashed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(child_module, "DRAIN_GRACE_S", 0.2)
    async with Service(loaded(), compose=FAKE) as service:
        await post_once(service.intake_url, "/hold")
        await service.ledger()
        pid = service.slots[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        await service.stop(0.1)
    assert (await service.ledger())["dropped"] == {"crash": 1}


async def test_restarts_are_not_forgotten_with_the_scraper() -> None:
    """A counter that falls begins anew for Prometheus, which then adds all the workers' restarts once more."""
    target = TargetSettings(
        name="primary", traces="tcp://127.0.0.1:9", metrics="http://127.0.0.1:9"
    )
    exporter = ExporterSettings(targets=[target])
    sources = [PrometheusSourceSettings(url="http://127.0.0.1:9/federate")]
    before = loaded(exporter=exporter, prometheus_sources=sources)
    async with Service(before, compose=FAKE) as service:
        for slot in service.slots:
            slot.restarts = 1
        await service.reload(loaded(exporter=exporter))
        assert len(service.slots) == 1
        assert service.latest_samples()["tracefwd_worker_restarts_total"] == {(): 2}


class Running:
    """``supervisor.run`` in a process of its own, with the fake parts."""

    def __init__(self, process: asyncio.subprocess.Process, url: str, said: str) -> None:
        self.process = process
        self.url = url
        self.said = said

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    async def says(self, words: str) -> None:
        """Wait for it in the log."""
        assert self.process.stderr is not None
        async with asyncio.timeout(30):
            while words not in self.said:
                line = await self.process.stderr.readline()
                assert line, self.said
                self.said += line.decode()

    async def end(self) -> tuple[int, str]:
        assert self.process.stderr is not None
        async with asyncio.timeout(30):
            self.said += (await self.process.stderr.read()).decode()
            return await self.process.wait(), self.said


@asynccontextmanager
async def running(workers: int = 1, **changes: Any) -> AsyncIterator[Running]:
    code = f"""
    import sys
    sys.path.insert(0, {str(Path(__file__).parent)!r})
    from tracefwd.service import supervisor
    from tracefwd.service.config import Loaded
    from tracefwd.settings import *
    service = ServiceSettings(workers={workers}, drain_timeout=5.0, log_format="text")
    settings = Settings(
        receiver=ReceiverSettings(listen={changes.get("listen", "127.0.0.1:0")!r}),
        admin=AdminSettings(listen="127.0.0.1:0"),
        service=service,
    )
    plain = supervisor.Service
    supervisor.Service = lambda loaded: plain(loaded, compose={changes.get("compose", FAKE)!r})
    sys.exit(supervisor.run(Loaded(settings, {{}})))
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        textwrap.dedent(code),
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    url = ""
    assert process.stderr is not None
    said = b""
    async with asyncio.timeout(30):
        while line := await process.stderr.readline():
            said += line
            if found := re.search(rb"intake (http://\S+) ", line):
                url = found[1].decode()
                break
    try:
        yield Running(process, url, said.decode())
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


class TestRun:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    async def test_drains_and_says_that_the_ledger_balanced(self, number: int) -> None:
        async with running(workers=2) as service:
            for path in ("/hold", "/deliver", "/lose"):
                await post_once(service.url, path)
            service.signal(number)
            code, said = await service.end()
        assert code == 0, said
        assert (
            "ledger balanced: received 3 = delivered 2 + dropped 1 (drain_budget 1)"
            in said.splitlines()[-1]
        )

    async def test_ctrl_c_for_the_whole_group_still_drains(self) -> None:
        async with running() as service:
            await post_once(service.url, "/hold")
            os.killpg(service.process.pid, signal.SIGINT)
            code, said = await service.end()
        assert code == 0, said
        assert "ledger balanced: received 1 = delivered 1" in said
        assert "Traceback" not in said

    async def test_signals_that_come_when_all_is_done_do_not_spoil_the_exit_code(self) -> None:
        async with running() as service:
            end = asyncio.create_task(service.end())
            while not end.done():
                # Popen's own way of sending would take the exit code away from asyncio.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(service.process.pid, signal.SIGTERM)
                await asyncio.wait({end}, timeout=0.01)
            code, said = end.result()
        assert code == 0, said
        assert "ledger balanced" in said

    async def test_sighup_exchanges_the_workers_and_loses_nothing(self) -> None:
        async with running(workers=2) as service:
            before = {await post_once(service.url, "/hold") for _ in range(20)}
            service.signal(signal.SIGHUP)
            await service.says("2 workers exchanged; changed: nothing")
            after = {await post_once(service.url) for _ in range(20)}
            service.signal(signal.SIGTERM)
            code, said = await service.end()
        assert code == 0, said
        assert len(before) == len(after) == 2
        assert not before & after
        assert None not in after
        assert "ledger balanced: received 40 = delivered 40" in said.splitlines()[-1]

    async def test_its_sudden_death_lets_the_workers_drain_and_leave(self) -> None:
        async with running() as service:
            pid = await post_once(service.url, "/hold")
            assert pid is not None
            gone = asyncio.create_task(until_exit(int(pid)))
            await asyncio.sleep(0)
            service.signal(signal.SIGKILL)
            await gone

    async def test_a_worker_that_cannot_start_ends_it_with_1(self) -> None:
        async with running(compose="fake_parts:compose_unreadable_token") as service:
            code, said = await service.end()
        assert code == 1
        assert "token_file /run/secrets/wavefront: cannot be read" in said

    async def test_a_taken_port_ends_it_with_1(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            address = f"127.0.0.1:{other.getsockname()[1]}"
            async with running(listen=address) as service:
                code, said = await service.end()
        assert code == 1
        assert f"receiver.listen {address}: the port is taken" in said
