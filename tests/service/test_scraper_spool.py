"""What a scraper's targets did not take rests on disk, outlives its process, and is counted once."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.service.exporters import answer, exporter
from tracefwd.emulator.server import Emulator, EmulatorSettings
from tracefwd.ledger import imbalance
from tracefwd.service import cli
from tracefwd.service.config import Loaded
from tracefwd.service.scraper_spool import ScraperSpool
from tracefwd.service.spool_roots import SCRAPER
from tracefwd.service.supervisor import Service
from tracefwd.service.tally import sections
from tracefwd.settings import (
    AdminSettings,
    CollectionSettings,
    ExporterSettings,
    MetricsSettings,
    PrometheusSourceSettings,
    RetrySettings,
    ServiceSettings,
    Settings,
    SpoolSettings,
    TargetSettings,
)

PATIENCE_S = 20.0


@dataclass
class World:
    """A mesh that is scraped once, and a proxy's address at which nobody is yet."""

    settings: Settings
    scrapes: list[str]
    listen: str
    root: Path

    @asynccontextmanager
    async def proxy(self) -> AsyncIterator[Emulator]:
        emulator = Emulator(EmulatorSettings(listen=self.listen))
        await emulator.start()
        try:
            yield emulator
        finally:
            await emulator.stop()

    def batches(self) -> int:
        return len([*(self.root / SCRAPER).glob("slot-*/batches/*.batch")])


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    scrapes: list[str] = []

    def say(head: str) -> bytes | None:
        scrapes.append(head)
        if len(scrapes) > 1:
            return answer(b"gone", status="503 Service Unavailable")
        return answer(b"".join(b"a_%d 1\n" % number for number in range(10)))

    finder = Emulator(EmulatorSettings(listen="127.0.0.1:0"))
    await finder.start()
    url = finder.url
    await finder.stop()
    async with exporter(say) as server:
        source = PrometheusSourceSettings(
            url=f"{server.url}/m",
            name="mesh",
            collection=CollectionSettings(interval=0.1, timeout=5.0),
        )
        settings = Settings(
            admin=AdminSettings(listen="127.0.0.1:0"),
            service=ServiceSettings(only="metrics", drain_timeout=2.0),
            exporter=ExporterSettings(
                targets=[TargetSettings(traces=url, metrics=url)],
                batch_age_max=0.05,
                retry=RetrySettings(backoff_base=0.05, backoff_max=0.2),
            ),
            spool=SpoolSettings(folder=str(tmp_path / "spool"), after=0.1),
            metrics=MetricsSettings(age_max=0.0, ahead_max=0.0),
            prometheus_sources=[source],
        )
        yield World(settings, scrapes, url.removeprefix("http://"), tmp_path / "spool")


async def until(look: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not look():  # noqa: ASYNC110 - what is looked at is another process's
            await asyncio.sleep(0.02)


async def points_until(service: Service, look: Callable[[Any], bool]) -> Any:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            points: Any = (await service.ledger())["points"]
            if look(points):
                return points
            assert imbalance(points) == 0
            await asyncio.sleep(0.02)


def assert_balanced(ledger: dict[str, Any]) -> None:
    assert {name: gap for name, part in sections(ledger).items() if (gap := imbalance(part))} == {}


async def test_an_outage_goes_to_disk_and_the_next_start_delivers_it(world: World) -> None:
    async with Service(Loaded(world.settings, {})) as service:
        await until(lambda: world.batches() == 1)
    ledger = await service.ledger()
    assert_balanced(ledger)
    assert (ledger["points"]["received"], ledger["points"]["held"]) == (10, 10)
    assert ledger["points"]["dropped"] == {}
    async with world.proxy() as proxy, Service(Loaded(world.settings, {})) as service:
        points = await points_until(service, lambda points: points["delivered"] == 10)
        assert (points["received"], points["held"]) == (10, 0)
        assert proxy.totals()["points"]["accepted"] == 10
        await until(lambda: world.batches() == 0)
    assert_balanced(await service.ledger())


async def test_what_rests_on_disk_survives_a_killed_scraper_and_is_counted_once(
    world: World,
) -> None:
    async with Service(Loaded(world.settings, {})) as service:
        await until(lambda: world.batches() == 1)
        # The scraper has said so, and nothing is on its way.
        [scraper] = service.slots
        key = ("primary", "points")
        async with asyncio.timeout(PATIENCE_S):
            while (await service.samples()).get("tracefwd_spool_items", {}).get(key) != 10:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        pid = scraper.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await until(lambda: scraper.restarts == 1)
        async with world.proxy() as proxy:
            points = await points_until(service, lambda points: points["delivered"] >= 10)
            assert proxy.totals()["points"]["accepted"] == 10
        assert points["received"] - sum(points["dropped"].values()) == 10
    assert_balanced(await service.ledger())


async def test_a_predecessor_that_leaves_later_is_taken_over(tmp_path: Path) -> None:
    settings = Settings(
        exporter=ExporterSettings(targets=[TargetSettings()]),
        spool=SpoolSettings(folder=str(tmp_path)),
    )
    old, new = ScraperSpool(settings), ScraperSpool(settings)
    await old.open()
    await new.open()
    landed: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    data = b"a 1 1 source=s\n"
    assert old.shelf("primary/points").put(
        lambda: (data, ""), landed.set_result, items=1, age_s=0.0, size_max=99, seqs=[],
        maybe_sent=False,
    )  # fmt: skip
    assert await landed
    new.each_second()
    assert new.shelf("primary/points").items == 0, "it lives"
    await old.close()

    def taken() -> bool:
        new.each_second()
        return new.shelf("primary/points").items == 1

    await until(taken)
    await until(lambda: new._taking is None or new._taking.done())
    new.each_second()
    await new.close()
    folders = [path.name for path in (tmp_path / SCRAPER).iterdir() if path.is_dir()]
    assert len(folders) == 1, "the old one's is gone"


async def test_a_disk_that_refuses_costs_the_promise_and_not_the_service(world: World) -> None:
    world.root.mkdir()
    (world.root / SCRAPER).write_text("no folder")
    async with world.proxy(), Service(Loaded(world.settings, {})) as service:
        await points_until(service, lambda points: points["delivered"] == 10)
        await until(lambda: any("spool" in text for text in service.problems()["scraper"]))
    assert_balanced(await service.ledger())


async def test_the_spool_s_commands_know_the_scraper_s_folder(
    world: World, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    async with Service(Loaded(world.settings, {})):
        await until(lambda: world.batches() == 1)
    config = tmp_path / "tracefwd.yaml"
    url = world.settings.exporter.targets[0].metrics
    config.write_text(f"exporter: {{targets: [{{traces: '{url}', metrics: '{url}'}}]}}\n")
    flags = ["--config", str(config), "--spool", str(world.root)]
    assert await asyncio.to_thread(cli.main, ["spool", "ls", *flags]) == 0
    shown = capsys.readouterr().out
    assert f"{SCRAPER}/slot-0." in shown
    assert "10 lines" in shown
    assert await asyncio.to_thread(cli.main, ["spool", "verify", *flags]) == 0
    # What nobody takes stays as the scraper reads it.
    drain = ["spool", "drain", *flags]
    assert await asyncio.to_thread(cli.main, [*drain, "--seconds", "0.2"]) == 1
    assert world.batches() == 1
    assert not [*(world.root / SCRAPER).glob("slot-*/journal/*")]
    async with world.proxy() as proxy:
        assert await asyncio.to_thread(cli.main, drain) == 0
        assert proxy.totals()["points"]["accepted"] == 10
    assert world.batches() == 0
