"""Whatever happens to the process or the disk: what was called durable is found again."""

import errno
import logging
from contextlib import suppress
from pathlib import Path

import pytest

from tests.spool.faulty_disk import SHORT, FaultyDisk, Killed
from tests.spool.world import COPY, POINTS, SPANS, World, lines_of, scenario


def calls_of_scenario(folder: Path, **options: bool) -> int:
    disk = FaultyDisk()
    scenario(World(folder, disk, **options))  # type: ignore[arg-type]
    disk.forget()
    return disk.calls


@pytest.mark.parametrize("fsync", [False, True])
@pytest.mark.parametrize("red", [False, True])
def test_a_kill_at_any_call_loses_nothing_promised(tmp_path: Path, fsync: bool, red: bool) -> None:
    calls = calls_of_scenario(tmp_path / "whole", fsync=fsync, red=red)
    assert calls > 20
    for call in range(calls):
        disk = FaultyDisk()
        disk.kill(call)
        folder = tmp_path / str(call)
        world = World(folder, disk, fsync=fsync, red=red)
        with suppress(Killed):
            scenario(world)
        disk.mend()
        world.reopen()
        # and again, with traffic in between: what the first recovery settled stays so
        world.post([SPANS, COPY], ["a", "z"])
        world.flush()
        world.reopen()
        disk.forget()


ERRORS = [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EMFILE, SHORT]


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("number", [1, 3, 1 << 60])
def test_a_disk_that_fails_at_any_call_degrades_and_recovers(
    tmp_path: Path, error: int, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    calls = calls_of_scenario(tmp_path / "whole")
    for call in range(0, calls, 3 if number > 3 else 1):
        disk = FaultyDisk()
        disk.fail(error, after=call, calls=number)
        world = World(tmp_path / f"{call}", disk)
        world.faults = True
        scenario(world)
        disk.mend()
        world.clock_s += 61
        world.post([SPANS, POINTS], ["a"])
        assert world.flush()
        assert not world.journal.degraded
        world.post([SPANS], ["b"])
        assert world.flush()
        received = world.received
        world.reopen()
        assert world.received == received
        disk.forget()


def test_a_kill_while_the_disk_is_broken(tmp_path: Path) -> None:
    disk = FaultyDisk()
    world = World(tmp_path, disk)
    scenario(world)
    assert not world.journal.degraded
    world.faults = True
    disk.fail(errno.ENOSPC)
    world.post([SPANS], ["a"])
    world.tick_begins()
    world.tick_ends()
    assert not world.flush()
    assert world.journal.degraded
    disk.mend()
    world.reopen()


def test_a_turn_that_is_written_again_behind_its_torn_self_counts_once(tmp_path: Path) -> None:
    disk = FaultyDisk()
    world = World(tmp_path, disk, segment_bytes_max=5_000)
    world.open()
    world.post([SPANS, COPY], ["a"])
    world.post([SPANS], ["b"], size=900)
    world.done(SPANS, 0, 1)
    disk.fail(errno.EIO, calls=3)  # half of it, the rest, and cutting it off again
    disk.kill(9)  # the new state, behind the turn in a new segment
    with pytest.raises(Killed):
        world.flush()
    disk.mend()
    world.faults = True
    found = world.reopen()
    assert found.damage.torn == 2
    assert len(lines_of(found)) == 2
    assert world.received == 2
