"""What a reload takes over, what it leaves for a restart, and that wishes are neither lost nor piled up."""

import asyncio
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tracefwd.errors import ConfigError, StartError
from tracefwd.model import Stored
from tracefwd.service.config import Loaded, load
from tracefwd.service.config_options import build, catalogue, get
from tracefwd.service.reload import NEEDS_RESTART, Reloader, change
from tracefwd.service.systemd import Systemd
from tracefwd.settings import Settings
from tracefwd.spool.batch_file import BatchFolder
from tracefwd.spool.disk import Disk

FLAGS = {"--proxy-traces": "http://p:1", "--proxy-metrics": "http://p:2"}


class Service:
    """Records what it is asked to take over; ``gate`` holds it up."""

    def __init__(self) -> None:
        self.loaded = load(None, {}, FLAGS)
        self.draining = False
        self.status = "serving"
        self.reloads_refused = 0
        self.took: list[Loaded] = []
        self.error: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = asyncio.Event()

    async def reload(self, loaded: Loaded) -> None:
        self.took.append(loaded)
        self.entered.set()
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.loaded = loaded


def test_nothing_new_changes_nothing() -> None:
    same = load(None, {}, FLAGS)
    result = change(load(None, {}, FLAGS), same)
    assert (result.changed, result.kept, result.summary) == ([], [], "nothing")
    assert result.loaded == same


def test_what_the_ports_depend_on_stays_with_its_origin_and_is_named() -> None:
    old = load(None, {}, {**FLAGS, "--listen": "127.0.0.1:1", "--workers": "2"})
    new = load(
        None,
        {"TRACEFWD_RED__INTERVAL": "7s", "TRACEFWD_SERVICE__WORKERS": "4"},
        {**FLAGS, "--listen": "127.0.0.1:9"},
    )
    result = change(old, new)
    assert result.changed == ["red.interval"]
    assert result.kept == ["receiver.listen", "service.workers"]
    settings = result.loaded.settings
    assert (settings.receiver.listen, settings.service.workers) == ("127.0.0.1:1", 2)
    assert settings.red.interval == 7.0
    assert result.loaded.origins["service.workers"] == "flag --workers"
    assert result.loaded.origins["red.interval"] == "environment TRACEFWD_RED__INTERVAL"


@pytest.mark.parametrize("key", NEEDS_RESTART)
def test_what_the_parent_used_before_there_were_workers_needs_a_restart(key: str) -> None:
    old = load(None, {}, FLAGS)
    other: Any = 9 if isinstance(get(old.settings, key), int) else "127.0.0.1:9"
    everything = {each: get(old.settings, each) for each in catalogue()}
    settings = build(Settings, {**everything, key: other, "red.interval": 1.0})
    result = change(old, replace(old, settings=settings))
    assert (result.kept, result.changed) == ([key], ["red.interval"])
    assert result.loaded.settings == build(Settings, {**everything, "red.interval": 1.0})


def test_the_ports_and_the_number_of_workers_are_among_them() -> None:
    ports = {"receiver.listen", "receiver.trace_listen", "admin.listen"}
    ports |= {"receiver.otlp.http.listen", "receiver.otlp.grpc.listen"}
    assert ports | {"service.workers"} <= set(NEEDS_RESTART)


async def test_wishes_during_a_reload_are_one_more_reload() -> None:
    service = Service()
    service.gate.clear()
    reloader = Reloader(service, None, Systemd({}, os.getpid()))  # type: ignore[arg-type]
    running = asyncio.create_task(reloader.run())
    async with asyncio.timeout(10):
        reloader.wish()
        await service.entered.wait()
        service.entered.clear()
        for _ in range(5):
            reloader.wish()
        service.gate.set()
        await service.entered.wait()
    for _ in range(20):
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait({running})
    assert len(service.took) == 2


@pytest.mark.parametrize(
    "error",
    [
        ConfigError(["red.interval = '1': give a unit", "x: unknown"]),
        StartError("no\ntoken"),
        OSError(5, "x"),
    ],
)
async def test_what_fails_is_told_on_one_line_and_the_next_wish_is_heard(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    service = Service()
    answers: list[Exception | None] = [error, None]
    asked = asyncio.Event()

    def reread() -> Loaded:
        answer = answers.pop(0)
        asked.set()
        if answer is not None:
            raise answer
        return service.loaded

    reloader = Reloader(service, reread, Systemd({}, os.getpid()))  # type: ignore[arg-type]
    running = asyncio.create_task(reloader.run())
    reloader.wish()
    async with asyncio.timeout(10):
        await asked.wait()
        assert service.took == []
        (record,) = [each for each in caplog.records if each.levelname == "ERROR"]
        assert "the one before it goes on" in record.getMessage()
        assert "\n" not in record.getMessage()
        reloader.wish()
        await service.entered.wait()
    running.cancel()
    await asyncio.wait({running})
    assert service.reloads_refused == (0 if isinstance(error, OSError) else 1)


async def test_nothing_is_read_while_draining() -> None:
    service = Service()
    service.draining = True
    reloader = Reloader(service, None, Systemd({}, os.getpid()))  # type: ignore[arg-type]
    running = asyncio.create_task(reloader.run())
    reloader.wish()
    for _ in range(20):
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait({running})
    assert service.took == []


@pytest.mark.parametrize("after", ["", "b"])
async def test_what_a_spool_holds_that_is_left_for_another_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, after: str
) -> None:
    service = Service()
    old, new = tmp_path / "a", str(tmp_path / after) if after else ""
    folder = BatchFolder(old / "slot-0.17" / "batches", Disk())
    folder.create()
    rests = Stored(7, "primary/spans", 3, 1_700_000_000_123, "gzip", [(4, 6)], True, 0)
    folder.write(rests, b"a\nb\nc\n")
    service.loaded = load(None, {}, {**FLAGS, "--spool": str(old)})
    answers = [service.loaded, load(None, {}, {**FLAGS, "--spool": new})]
    reloader = Reloader(service, lambda: answers.pop(0), Systemd({}, os.getpid()))  # type: ignore[arg-type]
    await reloader._reload()
    assert "holds" not in caplog.text
    await reloader._reload()
    assert f"{old} is no longer the spool and holds 3 lines" in caplog.text
    assert f"'tracefwd spool drain --spool {old}'" in caplog.text
