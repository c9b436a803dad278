"""Damage costs what it hits: every byte of every file is flipped once, and every file cut at every length."""

import shutil
from pathlib import Path

import pytest

from tests.spool.faulty_disk import FaultyDisk
from tests.spool.world import (
    LANES,
    SPANS,
    World,
    facts_of,
    lines_of,
    make_small_journal,
    places,
)
from tracefwd.spool import frames
from tracefwd.spool.disk import Disk
from tracefwd.spool.recovered import Recovered
from tracefwd.spool.recovery import recover


class Reference:
    """What the undamaged folder gives, and what one frame of it carries."""

    def __init__(self, folder: Path) -> None:
        found = recover(folder, Disk(), LANES)
        self.lines, self.facts = lines_of(found), facts_of(found)
        self.files = {path: places(path) for path in sorted(folder.iterdir())}

    def lines_in(self, frame: frames.Frame) -> set[bytes]:
        if frame.kind != frames.ENTRY:
            return set()
        return {data for _, _, data in frames.read_entry(frame.payload).payloads}

    def facts_in(self, frame: frames.Frame) -> set[int]:
        return (
            set(frames.read_facts(frame.payload).pairs[1::2])
            if frame.kind == frames.FACTS
            else set()
        )


def check_no_invention(found: Recovered, world: World) -> None:
    assert lines_of(found) <= world.lines.keys()
    for fact in found.facts():
        assert world.facts[fact.duration_us] == (fact.key.identity.service, fact.error)


def test_the_small_journal_has_every_kind(tmp_path: Path) -> None:
    make_small_journal(tmp_path)
    kinds = {frame.kind for parts in Reference(tmp_path).files.values() for _, _, frame in parts}
    assert kinds >= {frames.START, frames.STATE, frames.ENTRY, frames.DONE, frames.OUTSTANDING}
    assert kinds >= {frames.RED_START, frames.KEYS, frames.FACTS, frames.DRAINED}
    assert len(Reference(tmp_path).files) == 4


@pytest.mark.parametrize("prefix", ["data", "red"])
def test_a_flipped_byte_costs_its_frame(tmp_path: Path, prefix: str) -> None:
    folder = tmp_path / "journal"
    world = make_small_journal(folder)
    whole = Reference(folder)
    assert whole.lines
    assert whole.facts
    for path, parts in whole.files.items():
        if not path.name.startswith(prefix):
            continue
        good = path.read_bytes()
        for at, end, frame in parts:
            for place in range(at, end):
                bad = bytearray(good)
                bad[place] ^= 1 << place % 8
                path.write_bytes(bad)
                found = recover(folder, Disk(), LANES)
                check_no_invention(found, world)
                assert found.damage.frames == 1
                lost = whole.lines_in(frame)
                assert lines_of(found) >= whole.lines - lost
                if frame.kind != frames.KEYS:
                    assert facts_of(found) >= whole.facts - whole.facts_in(frame)
                if frame.kind in {frames.ENTRY, frames.START, frames.STATE, frames.KEYS}:
                    assert lines_of(found) == whole.lines - lost
        path.write_bytes(good)


@pytest.mark.parametrize("prefix", ["data", "red"])
def test_a_cut_file_keeps_what_lies_before_the_cut(tmp_path: Path, prefix: str) -> None:
    folder = tmp_path / "journal"
    world = make_small_journal(folder)
    whole = Reference(folder)
    for path, parts in whole.files.items():
        if not path.name.startswith(prefix):
            continue
        good = path.read_bytes()
        for length in range(len(good)):
            path.write_bytes(good[:length])
            found = recover(folder, Disk(), LANES)
            check_no_invention(found, world)
            behind = [frame for _, end, frame in parts if end > length]
            lost = set().union(*(whole.lines_in(frame) for frame in behind))
            lost_facts = set().union(*(whole.facts_in(frame) for frame in behind))
            if prefix == "data" or found.discarded_entries == 0:
                assert lines_of(found) >= whole.lines - lost
            assert facts_of(found) >= whole.facts - lost_facts
        path.write_bytes(good)


def test_a_lost_mark_costs_only_entries_behind_the_last_one(tmp_path: Path) -> None:
    world = make_small_journal(tmp_path)
    path = max(tmp_path.glob("red-*"))
    at, _, frame = places(path)[-1]
    assert frame.kind == frames.FACTS
    with path.open("r+b") as file:
        file.truncate(at + 3)
    found = recover(tmp_path, Disk(), LANES)
    assert found.discarded_entries == 1
    assert found.damage.torn == 1
    assert found.damage.frames == 0
    newest = max(world.lines, key=world.lines.__getitem__)
    assert newest not in lines_of(found)
    # and it stays discarded when later marks follow
    world.maybe_done |= {newest}
    world.promised_facts.clear()
    world.faults = True
    world.reopen()
    world.post([SPANS], ["a"])
    assert world.flush()
    found = world.reopen()
    assert found.discarded_entries == 0
    assert newest not in lines_of(found)


@pytest.mark.parametrize("junk", [b"", b"\0" * 5_000, frames.MAGIC * 999, b"x" * (2**20 + 7)])
def test_a_file_of_junk_is_passed_over(tmp_path: Path, junk: bytes) -> None:
    world = make_small_journal(tmp_path)
    whole = Reference(tmp_path)
    (tmp_path / "data-00000999.log").write_bytes(junk)
    (tmp_path / "red-00000999.log").write_bytes(junk)
    (tmp_path / "data-1.txt").write_bytes(junk)
    found = recover(tmp_path, Disk(), LANES)
    assert lines_of(found) == whole.lines
    assert facts_of(found) == whole.facts
    assert found.damage.frames == (2 if junk else 0)
    world.options["bytes_max"] = 2**23
    world.reopen()
    world.post([SPANS], ["a"])
    assert world.flush()
    world.reopen()


def test_a_folder_that_cannot_be_read_starts_empty(tmp_path: Path) -> None:
    assert recover(tmp_path / "none", Disk()).is_empty
    file = tmp_path / "file"
    file.write_bytes(b"")
    found = recover(file, Disk())
    assert found.is_empty
    assert found.damage.files == 1
    world = World(file, FaultyDisk())
    world.faults = True
    world.open()
    world.post([SPANS], ["a"])
    assert not world.flush()
    file.unlink()
    world.clock_s += 61
    assert world.flush()


def test_files_that_cannot_be_read_cost_only_themselves(tmp_path: Path) -> None:
    world = make_small_journal(tmp_path / "good")
    calls = 0
    while True:
        folder = tmp_path / str(calls)
        shutil.copytree(tmp_path / "good", folder)
        disk = FaultyDisk()
        disk.fail(5, after=calls, calls=1, reads=True)
        found = recover(folder, disk, LANES)
        check_no_invention(found, world)
        assert found.damage.files <= 1
        assert not disk.open_fds
        if not disk.failures:
            break
        calls += 1
    assert calls > 20
