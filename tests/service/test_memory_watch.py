"""The watch: calm costs nothing, shortage sheds traces, then refuses, then lets everything back in, and says so."""

import logging
import os
from pathlib import Path

import pytest

from tests.service.test_memory import GIB, MIB, V2, machine
from tracefwd.metrics import BY_NAME
from tracefwd.processor.shed import Shedder
from tracefwd.service.memory import CALM, REFUSE, SHED, Machine, budget, worker_share
from tracefwd.service.memory_watch import MemoryWatch, make_memory_watch
from tracefwd.settings import PrometheusSourceSettings, ServiceSettings, Settings

PAGE = 4_096


class Intake:
    def __init__(self) -> None:
        self.said: list[bool] = []

    def set_overloaded(self, overloaded: bool) -> None:
        self.said.append(overloaded)


class World:
    """A worker's share of 400 MiB, of which 40 are its base; what its parts hold is up to the test."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.held = {"queues": 0, "red": 0}
        self.shed = 0
        self.intake = Intake()
        self.shedder = Shedder()
        self.own(40 * MIB)
        found: Machine = machine(root, V2 | {"sys/fs/cgroup/memory.max": str(512 * MIB)}, 8 * GIB)
        limit = budget(0, found)
        self.share = worker_share(limit, workers=1, scrapes=False)
        self.watch = MemoryWatch(
            limit,
            self.share,
            found,
            parts={
                "queues": lambda: self.held["queues"],
                "red": lambda: self.held["red"],
            },
            shedder=self.shedder,
            shed_spans=lambda: self.shed,
            intakes=[self.intake],
        )
        self.now = 0.0

    def own(self, size: int, process: str = "self") -> None:
        """What the kernel says this process has for itself."""
        file = self._root / f"proc/{process}/statm"
        file.parent.mkdir(parents=True, exist_ok=True)
        pages = size // os.sysconf("SC_PAGE_SIZE")
        file.write_text(f"{pages * 2} {pages + 100} 100 1 0 {pages} 0\n")

    def look(self, used: float, part: str = "queues") -> str:
        """One look while this part of the share is in use."""
        self.held = {"queues": 0, "red": 0} | {part: int(used * self.share) - 40 * MIB}
        self.now += 0.25
        self.watch.look(self.now)
        return self.watch.stage


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


class Reds:
    """A pipeline that holds nothing."""

    shedder = Shedder()
    red_bytes = shed_spans = 0


class Room:
    unfinished_bytes = 0


def share_of(only: str, *sources: PrometheusSourceSettings) -> int:
    service = ServiceSettings(only=only, memory_max=512 * MIB)
    settings = Settings(service=service, prometheus_sources=list(sources))
    return make_memory_watch(settings, Reds(), [], [], Room()).share_bytes


def test_memory_is_set_aside_for_the_scraper_only_where_one_is_started() -> None:
    source = PrometheusSourceSettings(url="http://p:9090/federate")
    assert share_of("spans", source) == share_of("all") > share_of("all", source)


def test_the_stages_act_and_end(world: World) -> None:
    assert world.look(0.5) == CALM
    assert (world.shedder.on, world.intake.said) == (False, [])
    assert world.look(0.75) == SHED
    assert (world.shedder.on, world.intake.said) == (True, [])
    assert world.look(0.92) == REFUSE
    assert world.look(0.95) == REFUSE
    assert world.intake.said == [True]
    assert world.look(0.75) == SHED
    assert world.intake.said == [True, False]
    assert world.look(0.3) == CALM
    assert not world.shedder.on


def test_what_no_part_counts_is_felt_through_the_kernel(world: World) -> None:
    world.own(int(0.93 * world.share))
    assert world.look(0.3) == REFUSE
    used = world.watch.samples()["tracefwd_memory_used_bytes"]
    assert used["other",] == pytest.approx(0.63 * world.share, abs=PAGE * 2)
    assert sum(used.values()) == pytest.approx(0.93 * world.share, abs=PAGE * 2)
    world.own(40 * MIB)
    assert world.look(0.3) == CALM


def test_a_worker_that_leaves_has_its_successors_share(world: World) -> None:
    """As long as it lives, and but for what an idle one has: that is the price of an exchange."""
    world.own(int(0.5 * world.share) + 40 * MIB, "77")
    world.watch._beside = 77
    assert world.look(0.3) == SHED
    used = world.watch.samples()["tracefwd_memory_used_bytes"]
    assert used["predecessor",] == pytest.approx(0.5 * world.share, abs=PAGE * 2)
    assert world.look(0.45) == REFUSE
    world.own(40 * MIB, "77")
    assert world.look(0.45) == CALM
    world.own(0, "77")
    assert world.look(0.45) == CALM
    # Another process with its number is none of ours.
    world.own(world.share, "77")
    assert world.look(0.45) == CALM


def test_large_red_tables_are_sent_early_but_not_all_the_time(world: World) -> None:
    world.look(0.8)
    assert not world.watch.tick_early.is_set()
    world.look(0.8, "red")
    assert world.watch.tick_early.is_set()
    world.watch.tick_early.clear()
    world.look(0.8, "red")
    assert not world.watch.tick_early.is_set()
    world.now += 10
    world.look(0.8, "red")
    assert world.watch.tick_early.is_set()


def test_each_stage_is_one_error_per_interval_that_says_what_is_lost(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tracefwd.service.memory_watch")
    for _ in range(40):
        world.look(0.75)
    [first] = caplog.records
    assert first.levelno == logging.ERROR
    assert "62 % of the traces are kept" in first.message
    assert "RED counts all" in first.message
    assert "queues" in first.message
    world.shed = 1_234
    world.now += 60
    world.look(0.75)
    assert "1234 span(s) shed" in caplog.records[1].message
    world.look(0.95)
    assert caplog.records[2].levelno == logging.ERROR
    assert "Envoy does not repeat" in caplog.records[2].message
    assert world.watch.problems()
    world.look(0.1)
    assert caplog.records[3].levelno == logging.INFO
    assert len(caplog.records) == 4
    assert world.watch.problems() == []


def test_its_metrics_are_in_the_catalogue_and_add_up_over_workers(world: World) -> None:
    world.look(0.75)
    samples = world.watch.samples()
    assert samples.keys() <= BY_NAME.keys()
    assert samples["tracefwd_memory_stage_workers"] == {(CALM,): 0, (SHED,): 1, (REFUSE,): 0}
    assert samples["tracefwd_memory_max_bytes"] == {(): world.share}
