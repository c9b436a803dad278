"""Folders of a spool: who has one, who takes it over, and that it is there or gone, never half."""

import errno
import os
from pathlib import Path

import pytest

from tests.spool.faulty_disk import FaultyDisk, Killed
from tracefwd.service.lives import LOCK, Life, Lives
from tracefwd.spool.disk import Disk


def lives(root: Path, slot: int = 0, slots: int = 1, disk: Disk | None = None) -> Lives:
    return Lives(root, disk or Disk(), slot, slots)


def died(
    root: Path, slot: int = 0, slots: int = 1, content: str = "journal/data-00000001.log"
) -> Life:
    """A worker that has written something, and is gone."""
    of = lives(root, slot, slots)
    life = of.begin()
    file = life.folder / content
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x")
    of.release(life)
    return life


def names(found: list[Life] | None) -> list[str]:
    assert found is not None
    return [life.name for life in found]


def test_a_life_is_its_own_while_it_lasts(tmp_path: Path) -> None:
    one, other = lives(tmp_path), lives(tmp_path)
    life, beside = one.begin(), other.begin()
    assert life.name != beside.name
    assert other.dead(beside) == []
    one.release(life)
    assert names(other.dead(beside)) == [life.name]
    # And now it is somebody's.
    assert lives(tmp_path).dead(Life(tmp_path, 0, 0)) == []


def test_the_dead_come_oldest_first(tmp_path: Path) -> None:
    dead = [died(tmp_path) for _ in range(3)]
    of = lives(tmp_path)
    assert names(of.dead(of.begin())) == [life.name for life in dead]


def test_each_slot_takes_over_its_own(tmp_path: Path) -> None:
    zero, one = died(tmp_path, 0, 2), died(tmp_path, 1, 2)
    of = lives(tmp_path, 1, 2)
    assert names(of.dead(of.begin())) == [one.name]
    of = lives(tmp_path, 0, 2)
    assert names(of.dead(of.begin())) == [zero.name]


def test_slots_that_are_no_more_fall_to_others_and_stay_together(tmp_path: Path) -> None:
    died(tmp_path, 3, 4)
    of = lives(tmp_path, 1, 2)
    mine = of.begin()
    [taken] = of.dead(mine) or []
    assert (taken.slot, taken.folder) == (1, tmp_path / f"slot-1.{taken.number}")
    assert taken.journal.is_dir()
    of.release(taken)
    of.release(mine)
    # With three slots number 3 would be slot 0's, apart from what is known about it.
    of = lives(tmp_path, 1, 3)
    assert names(of.dead(of.begin())) == [taken.name, mine.name]


def test_only_one_looks_at_a_time(tmp_path: Path) -> None:
    died(tmp_path)
    of = lives(tmp_path)
    mine = of.begin()
    looking = Disk().lock(tmp_path / LOCK)
    assert of.dead(mine) is None
    os.close(looking)
    assert len(of.dead(mine) or []) == 1


def test_what_a_dying_worker_was_taking_over_is_found_with_it(tmp_path: Path) -> None:
    """It is passed by while the other lives, and set free with the other's own folder a moment later."""
    first, second = died(tmp_path), died(tmp_path)
    held = [Disk().lock(life.folder / LOCK) for life in (first, second)]

    class DyingDisk(Disk):
        def lock(self, path: Path) -> int:
            if path.parent == second.folder and held:
                while held:
                    os.close(held.pop())
            return super().lock(path)

    of = lives(tmp_path, disk=DyingDisk())
    assert names(of.dead(of.begin())) == [first.name, second.name]


def test_removed_is_gone(tmp_path: Path) -> None:
    died(tmp_path, content="batches/000000000001+1+1+primary+spans.batch.open")
    of = lives(tmp_path)
    mine = of.begin()
    [life] = of.dead(mine) or []
    life.journal.mkdir()
    (life.journal / "red-00000001.log").write_bytes(b"x")
    assert of.remove(life)
    assert {path.name for path in tmp_path.iterdir()} == {LOCK, mine.name}


def test_a_batch_that_is_left_keeps_its_folder(tmp_path: Path) -> None:
    died(tmp_path, content="batches/000000000001+1+1+primary+spans.batch")
    of = lives(tmp_path)
    mine = of.begin()
    [life] = of.dead(mine) or []
    assert not of.remove(life)
    assert life.batches.is_dir()
    # It is not found again and again, but by the next worker.
    assert of.dead(mine) == []
    of.release(life)
    assert len(of.dead(mine) or []) == 1


def test_whoever_dies_over_a_removal_leaves_a_whole_life_or_none(tmp_path: Path) -> None:
    call = 0
    while True:
        root = tmp_path / str(call)
        died(root)
        disk = FaultyDisk()
        of = lives(root, disk=disk)
        mine = of.begin()
        [life] = of.dead(mine) or []
        disk.kill(call)
        try:
            of.remove(life)
            was_killed = False
        except Killed:
            was_killed = True
        disk.mend()
        of.release(life)
        of.release(mine)
        heir = lives(root)
        its = heir.begin()
        for left in heir.dead(its) or []:
            if left.number == life.number:
                assert (left.journal / "data-00000001.log").exists()
            assert heir.remove(left)
        heir.clear()
        assert {path.name for path in root.iterdir()} == {LOCK, its.name}
        if not was_killed:
            break
        call += 1
    assert call > 2


def test_a_disk_that_refuses_gives_no_life(tmp_path: Path) -> None:
    disk = FaultyDisk()
    disk.fail(30)
    of = lives(tmp_path, disk=disk)
    with pytest.raises(OSError, match="EROFS"):
        of.begin()
    life = of.unborn()
    of.bear(life)
    assert life.lock == -1
    disk.mend()
    of.bear(life)
    other = lives(tmp_path)
    assert other.dead(other.begin()) == []


def test_a_number_is_never_used_twice(tmp_path: Path) -> None:
    """Though two begin in one millisecond, or the clock is set back."""
    of = lives(tmp_path)
    (tmp_path / "slot-7.99999999999990007").mkdir()
    numbers = []
    for _ in range(5):
        life = of.begin()
        of.release(life)
        numbers.append(life.number)
    assert numbers == sorted(set(numbers))
    assert numbers[0] > 99999999999990007


class Closed(Disk):
    """What another user may not open."""

    def __init__(self, name: str) -> None:
        self.name = name

    def _ask(self, path: Path) -> None:
        if self.name in str(path):
            raise PermissionError(errno.EACCES, "Permission denied")

    def lock(self, path: Path) -> int:
        self._ask(path)
        return super().lock(path)

    def open_read(self, path: Path) -> int:
        self._ask(path)
        return super().open_read(path)


@pytest.mark.parametrize("what", ["/lock", "data-00000001.log"])
def test_what_another_user_left_is_told_of_and_waits(tmp_path: Path, what: str) -> None:
    disk = Closed("nothing")
    life = died(tmp_path)
    of = lives(tmp_path, disk=disk)
    mine = of.begin()
    disk.name = f"{life.name}/{'journal/' * (what != '/lock')}{what.strip('/')}"
    assert of.dead(mine) == []
    [problem] = of.problems()
    assert f"{life.name} cannot be read (Permission denied)" in problem
    disk.name = "nothing"
    assert names(of.dead(mine)) == [life.name]
    assert of.problems() == []
