"""What systemd hears, over a real datagram socket, from the real service as well."""

import asyncio
import os
import re
import signal
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ENVOY
from tests.e2e.parts import Forwarder, forwarder
from tests.e2e.processes import eventually, get_json
from tracefwd.service.systemd import Systemd

BODY = (ENVOY / "json-batch-5.json").read_bytes()
NOBODY = ["--proxy-traces", "http://127.0.0.1:1", "--proxy-metrics", "http://127.0.0.1:1"]


class Manager:
    """systemd's end: what was said, oldest first."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.bind("\0" + address[1:] if address.startswith("@") else address)
        self._sock.setblocking(False)
        self.heard: list[dict[str, str]] = []

    def listen(self) -> list[dict[str, str]]:
        while True:
            try:
                text = self._sock.recv(65_536).decode()
            except BlockingIOError:
                return self.heard
            self.heard.append(dict(line.split("=", 1) for line in text.split("\n")))

    def states(self) -> list[str]:
        """Without the watchdog's pings."""
        return [next(iter(each)) for each in self.listen() if "WATCHDOG" not in each]

    def pings(self) -> int:
        return sum("WATCHDOG" in each for each in self.listen())

    def until(self, state: str, count: int = 1) -> dict[str, str]:
        """Wait for the ``count``-th message that begins so."""

        def look() -> dict[str, str] | None:
            found = [each for each in self.listen() if next(iter(each)) == state]
            return found[count - 1] if len(found) >= count else None

        return eventually(look, lambda: f"{state} in {self.heard}")

    def close(self) -> None:
        self._sock.close()


@pytest.fixture(params=["file", "abstract"])
def manager(request: pytest.FixtureRequest) -> Iterator[Manager]:
    # Socket names are short: pytest's own folders may be too deep.
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        name = f"{folder}/notify"
        listening = Manager(name if request.param == "file" else f"@{name}")
        yield listening
        listening.close()


def test_each_state_is_one_datagram(manager: Manager) -> None:
    systemd = Systemd({"NOTIFY_SOCKET": manager.address}, os.getpid())
    systemd.ready("two\nlines")
    before_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000
    systemd.reloading()
    after_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000
    systemd.stopping("draining", 23.5)
    ready, reloading, stopping = manager.listen()
    assert ready == {"READY": "1", "STATUS": "two lines"}
    assert reloading["RELOADING"] == "1"
    assert before_us <= int(reloading["MONOTONIC_USEC"]) <= after_us
    assert stopping == {
        "STOPPING": "1",
        "STATUS": "draining",
        "EXTEND_TIMEOUT_USEC": "23500000",
    }


def test_without_systemd_nothing_is_said_or_watched() -> None:
    systemd = Systemd({"WATCHDOG_USEC": "1000000"}, os.getpid())
    systemd.ready("fine")
    assert systemd.watchdog_s is None


@pytest.mark.parametrize(
    ("environ", "watchdog_s"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "77"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "78"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_a_watchdog_is_heeded_only_if_it_is_ours(
    environ: dict[str, str], watchdog_s: float | None
) -> None:
    assert Systemd({"NOTIFY_SOCKET": "/x", **environ}, 77).watchdog_s == watchdog_s


def test_a_manager_that_is_gone_is_told_once_and_stops_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    systemd = Systemd({"NOTIFY_SOCKET": "/nowhere/notify"}, os.getpid())
    systemd.ready("fine")
    systemd.stopping("draining", 1.0)
    assert caplog.text.count("systemd does not hear us") == 1


@asynccontextmanager
async def watched(systemd: Systemd, answers: list[bool]) -> AsyncIterator[asyncio.Event]:
    """Runs the watch over these answers; the event is set when they are used up."""
    used_up = asyncio.Event()

    async def answer() -> bool:
        if not answers:
            used_up.set()
            return False
        return answers.pop(0)

    watching = asyncio.create_task(systemd.watch(answer))
    try:
        yield used_up
    finally:
        watching.cancel()
        await asyncio.wait({watching})


async def test_pings_thrice_a_period_and_only_while_all_answer(manager: Manager) -> None:
    environ = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "60000"}
    systemd = Systemd(environ, os.getpid())
    began = time.monotonic()
    async with watched(systemd, [True, False, True, True, False]) as used_up, asyncio.timeout(10):
        await used_up.wait()
    assert time.monotonic() - began >= 5 * 0.02
    assert manager.pings() == 3


def stop_and_go(service: Forwarder, number: int) -> None:
    (worker,) = get_json(f"{service.admin}/ledger?verbose")["workers"]
    os.kill(worker["pid"], number)


@pytest.mark.parametrize("manager", ["file"], indirect=True)
def test_the_service_tells_its_life_and_a_deaf_worker_stops_the_pings(
    manager: Manager, tmp_path: Path
) -> None:
    environment = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "1500000"}
    config: dict[str, Any] = {"service": {"drain_timeout": "1s", "pre_stop_delay": "1s"}}
    with forwarder(tmp_path, NOBODY, environment=environment, **config) as service:
        status = manager.until("READY")["STATUS"]
        assert re.fullmatch(r"intake http://\S+, 1 workers, admin http://\S+", status)
        eventually(lambda: manager.pings() >= 2, "two pings")
        stop_and_go(service, signal.SIGSTOP)
        # The one that was about to be said, and no more while three would be due.
        time.sleep(0.5)
        before = manager.pings()
        time.sleep(1.5)
        assert manager.pings() - before <= 1
        stop_and_go(service, signal.SIGCONT)
        eventually(lambda: manager.pings() >= before + 3, "pings again")
        service.process.signal(signal.SIGHUP)
        assert int(manager.until("RELOADING")["MONOTONIC_USEC"]) > 0
        manager.until("READY", 2)
        (tmp_path / "run.yaml").write_text("{sampling: {rate: 7}}")
        service.process.signal(signal.SIGHUP)
        assert "refused: sampling.rate" in manager.until("READY", 3)["STATUS"]
        pings = manager.pings()
        service.process.terminate()
        stopping = manager.until("STOPPING")
        # Enough for the delay, the drain and the goodbye.
        assert int(stopping["EXTEND_TIMEOUT_USEC"]) >= 2_000_000 + 3_000_000
        assert service.process.wait() == 0
    assert manager.pings() > pings
    assert manager.states() == [
        "READY", "RELOADING", "READY", "RELOADING", "READY", "STOPPING"
    ]  # fmt: skip
