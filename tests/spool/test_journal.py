"""What a worker may build on: removal, bounds, ticks, syncs, adoption."""

import errno
import time
from pathlib import Path

import msgspec
import pytest

from tests.spool.faulty_disk import FaultyDisk, Killed
from tests.spool.world import (
    COPY,
    LANES,
    POINTS,
    SPANS,
    World,
    facts_of,
    lines_of,
    make_small_journal,
)
from tracefwd.metrics import BY_NAME
from tracefwd.spool import frames
from tracefwd.spool.disk import Disk
from tracefwd.spool.frames import Origin
from tracefwd.spool.journal import Journal
from tracefwd.spool.recovered import Recovered
from tracefwd.spool.recovery import recover

# Another journal's name in ours.
ORIGIN = "slot-1"


def files(folder: Path, prefix: str) -> list[str]:
    return sorted(path.name for path in folder.glob(f"{prefix}-*.log"))


def opened(folder: Path, **options: object) -> World:
    world = World(folder, FaultyDisk(), **options)  # type: ignore[arg-type]
    world.open()
    return world


# Removal.


def test_segments_go_when_their_lanes_are_done(tmp_path: Path) -> None:
    world = opened(tmp_path)
    for _ in range(30):
        world.post([SPANS, COPY], [], size=200)
        world.flush()
    assert len(files(tmp_path, "data")) > 10
    world.done(SPANS, 0, 99)
    world.flush()
    assert len(files(tmp_path, "data")) > 10
    world.done(COPY, 0, 99)
    world.flush()
    assert len(files(tmp_path, "data")) == 1


def test_one_entry_that_stays_keeps_one_segment_only(tmp_path: Path) -> None:
    world = opened(tmp_path)
    stays = world.post([SPANS], [])
    for _ in range(60):
        world.post([SPANS], [], size=200)
        world.flush()
        world.done(SPANS, 1, 9)
    world.flush()
    assert len(files(tmp_path, "data")) <= 4
    found = world.reopen()
    assert [part.seq for part in found.outstanding()] == [stays]


def test_what_is_done_in_its_own_turn_keeps_no_segment(tmp_path: Path) -> None:
    world = opened(tmp_path)
    for _ in range(30):
        world.post([SPANS], [], size=200)
        world.done(SPANS, 0, 1)
        world.flush()
    assert len(files(tmp_path, "data")) <= 2
    assert lines_of(world.reopen()) == set()


def test_a_file_that_cannot_be_removed_is_tried_again(tmp_path: Path) -> None:
    world = opened(tmp_path)
    for _ in range(9):
        world.post([SPANS], [], size=200)
        world.flush()
    before = files(tmp_path, "data")
    world.done(SPANS, 0, 99)
    world.disk.fail(errno.EACCES, after=1)  # the write of what is done comes first
    world.flush()
    assert set(files(tmp_path, "data")) >= set(before[:-1])
    world.disk.mend()
    world.clock_s += 2
    world.flush()
    assert len(files(tmp_path, "data")) == 1


def test_with_fsync_nothing_goes_before_what_replaces_it_is_safe(tmp_path: Path) -> None:
    world = opened(tmp_path, fsync=True)
    for _ in range(9):
        world.post([SPANS], ["a"], size=200)
        assert world.flush()
    many = files(tmp_path, "data")
    world.done(SPANS, 0, 99)
    world.journal.flush()
    assert files(tmp_path, "data") == many
    assert world.journal.sync()
    world.journal.flush()
    assert len(files(tmp_path, "data")) == 1


# Syncs.


def test_a_failed_sync_says_so_and_goes_on_in_a_new_segment(tmp_path: Path) -> None:
    world = opened(tmp_path, fsync=True)
    world.post([SPANS], ["a"])
    assert world.journal.flush()
    world.disk.fail(errno.EIO, calls=1)
    assert not world.journal.sync()
    numbers = files(tmp_path, "data")
    world.post([SPANS], ["a"])
    assert world.flush()
    assert len(files(tmp_path, "data")) == len(numbers) + 1
    world.reopen()


def test_without_fsync_sync_touches_nothing(tmp_path: Path) -> None:
    world = opened(tmp_path)
    world.post([SPANS], [])
    world.journal.flush()
    calls = world.disk.calls
    assert world.journal.sync()
    assert world.disk.calls == calls


@pytest.mark.parametrize("fsync", [False, True])
def test_close_leaves_no_descriptor_open(tmp_path: Path, fsync: bool) -> None:
    world = opened(tmp_path, fsync=fsync)
    for _ in range(5):
        world.post([SPANS], ["a"], size=300)
        world.flush()
    world.post([SPANS], ["a"], size=300)
    assert world.journal.close()
    assert not world.disk.open_fds
    world._settle(is_durable=True)
    before = files(tmp_path, "data")
    world.post([SPANS], ["a"])
    assert not world.flush()
    assert files(tmp_path, "data") == before
    world.reopen()


# Bounds.


def test_a_full_journal_degrades_and_comes_back_when_there_is_room(tmp_path: Path) -> None:
    world = opened(tmp_path, bytes_max=20_000)
    number = 0
    while world.flush():
        world.post([SPANS], [], size=500)
        number += 1
        assert number < 100
    assert world.journal.degraded
    assert 20_000 <= world.journal.bytes_held < 22_000
    world.faults = True
    world.done(SPANS, 0, 999)
    world.flush()
    world.clock_s += 61
    world.flush()
    world.post([SPANS], [], size=500)
    assert world.flush()
    assert world.journal.bytes_held < 3_000
    world.reopen()


def test_facts_that_fill_the_journal_ask_for_a_tick(tmp_path: Path) -> None:
    world = opened(tmp_path, bytes_max=20_000, segment_bytes_max=1_000)
    world.faults = True
    while world.flush():
        world.post([], ["a"] * 20)
    assert world.journal.wants_tick
    world.tick_begins()
    assert not world.journal.wants_tick
    world.tick_ends()
    world.flush()
    world.clock_s += 61
    world.flush()
    world.post([SPANS], ["a"])
    assert world.flush()
    assert world.journal.bytes_held < 5_000
    world.reopen()


def test_a_turn_of_any_size_is_put_down(tmp_path: Path) -> None:
    world = opened(tmp_path, segment_bytes_max=2**26, bytes_max=2**30)
    for _ in range(40):
        world.post([SPANS, SPANS, COPY], ["a"], size=2**18)
    assert world.flush()
    world.reopen()


def test_the_same_bytes_for_two_lanes_are_written_once(tmp_path: Path) -> None:
    world = opened(tmp_path)
    data = b"l" * 10_000
    before = world.journal.bytes_held
    world.journal.entry(b"", [(SPANS, 3, data), (COPY, 3, data)], None, 0)
    assert world.journal.flush()
    assert world.journal.bytes_held - before < 11_000
    found = recover(tmp_path, Disk())
    assert [(o.lane, o.items, o.data) for o in found.outstanding()] == [
        (LANES[SPANS], 3, data),
        (LANES[COPY], 3, data),
    ]


# Ticks.


def test_a_tick_lets_older_facts_go_and_keeps_younger_ones(tmp_path: Path) -> None:
    world = opened(tmp_path, segment_bytes_max=500)
    for _ in range(20):
        world.post([], ["a", "b", "c"])
        world.flush()
    many = files(tmp_path, "red")
    assert len(many) > 2
    world.tick_begins()
    for _ in range(20):
        world.post([], ["d"])
        world.flush()
    world.tick_ends()
    world.flush()
    assert not set(files(tmp_path, "red")) & set(many)
    found = world.reopen()
    assert len(facts_of(found)) == 20


@pytest.mark.parametrize("ticks", [1, 3])
def test_ticks_with_nothing_to_drain_keep_what_is_pending(tmp_path: Path, ticks: int) -> None:
    world = opened(tmp_path)
    world.post([SPANS], [])
    world.flush()
    for _ in range(ticks):
        world.tick_begins()
        world.tick_ends()
        world.flush()
    assert len(files(tmp_path, "red")) == 1
    assert len(lines_of(world.reopen())) == 1


def test_a_tick_that_ends_while_the_red_log_cannot_write_is_not_forgotten(tmp_path: Path) -> None:
    world = opened(tmp_path)
    world.post([SPANS], ["a", "b"])
    world.flush()
    world.tick_begins()
    world.tick_slice()
    assert world.flush()
    world.faults = True
    red_fd = world.journal._red.log._fd  # type: ignore[union-attr]
    world.disk.close(red_fd)  # writes to it fail from now on
    world.post([], ["c"])
    world.tick_ends()
    world.disk.open_fds.discard(red_fd)
    world.flush()
    found = recover(tmp_path, Disk(), LANES)
    assert {fact.key.identity.service for fact in found.facts()} == {"c"}


def test_such_a_tick_with_nothing_to_drain_keeps_what_is_pending(tmp_path: Path) -> None:
    world = opened(tmp_path)
    world.post([SPANS], [])
    assert world.flush()
    world.tick_begins()
    world.disk.fail(errno.EIO, calls=5)  # write, write on, cut off, close, begin anew
    world.tick_ends()
    assert world.disk.failures == 5
    world.flush()
    assert len(files(tmp_path, "red")) == 2
    assert len(lines_of(recover(tmp_path, Disk(), LANES))) == 1


def test_a_forgotten_key_is_not_needed_for_a_new_segment(tmp_path: Path) -> None:
    world = opened(tmp_path)
    world.post([SPANS], ["a"])
    assert world.flush()
    world.tick_begins()
    world.tick_slice()
    assert world.flush()
    world.journal.forget_key(world.numbers["a"])
    world.disk.fail(errno.EIO, calls=2)
    world.post([SPANS], ["b"])
    world.tick_ends()
    assert world.flush()
    world.reopen()


def test_facts_come_back_when_the_entry_with_their_points_is_lost(tmp_path: Path) -> None:
    world = make_small_journal(tmp_path)
    drained = {fact for fact, points in world.points_of.items()}
    assert drained
    (points,) = set(world.points_of.values())
    for path in tmp_path.glob("data-*"):
        data = path.read_bytes()
        if points in data:
            path.write_bytes(data.replace(points, points.upper()))
    found = recover(tmp_path, Disk(), LANES)
    assert facts_of(found) >= drained
    assert len(found.void) == 1
    # and again after the entry's segment has gone
    world.faults = True
    world.promised_lines.clear()
    world.reopen()
    for lane in (SPANS, POINTS, COPY):
        world.done(lane, 0, 99)
    for _ in range(5):
        world.post([SPANS], [], size=300)
        world.flush()
        world.done(SPANS, 0, 99)
    assert facts_of(recover(tmp_path, Disk(), LANES)) >= drained


def test_an_entry_that_never_was_does_not_count(tmp_path: Path) -> None:
    world = opened(tmp_path)
    world.post([SPANS], ["a"])
    world.done(SPANS, 0, 1)
    world.disk.kill(1)  # between the two logs
    with pytest.raises(Killed):
        world.flush()
    world.disk.mend()
    found = recover(tmp_path, Disk(), LANES)
    assert found.discarded_entries == 1
    assert found.counts == {}


# Life after life.


def test_sequence_numbers_are_never_used_twice(tmp_path: Path) -> None:
    seen: set[int] = set()
    world = opened(tmp_path)
    for _ in range(5):
        for _ in range(3):
            seq = world.post([SPANS], ["a"])
            assert seq not in seen
            seen.add(seq)
            world.flush()
        world.done(SPANS, 0, 99)
        world.flush()
        world.reopen()


def test_lanes_are_known_by_name(tmp_path: Path) -> None:
    world = opened(tmp_path)
    world.post([SPANS, COPY], [])
    world.flush()
    found = recover(tmp_path, Disk())
    assert sorted(found.lanes) == ["copy/spans", "primary/spans"]
    journal = Journal(
        tmp_path,
        Disk(),
        lanes=["new/points", "copy/spans"],
        state=bytes,
        now=time.monotonic,
        bytes_max=2**20,
        recovered=found,
    )
    assert journal.lanes == ["new/points", "copy/spans", "primary/spans"]
    assert journal.start()
    journal.done(2, 1, 1)
    assert journal.flush()
    journal.close()
    again = recover(tmp_path, Disk())
    assert [part.lane for part in again.outstanding()] == ["copy/spans"]


def test_red_may_be_switched_off_and_on(tmp_path: Path) -> None:
    world = opened(tmp_path)
    world.post([SPANS], ["a"])
    world.flush()
    world.disk.forget()
    for red in (False, True):
        found = recover(tmp_path, Disk())
        assert len(list(found.outstanding())) == 1
        journal = Journal(
            tmp_path,
            Disk(),
            lanes=LANES,
            state=bytes,
            now=time.monotonic,
            bytes_max=2**20,
            recovered=found,
            red=red,
        )
        assert journal.start()
        journal.entry(b"", [], None, 0)
        assert journal.flush()
        journal.close()
        assert len(files(tmp_path, "red")) == int(red)


def test_one_process_at_a_time_holds_a_slot(tmp_path: Path) -> None:
    disk = Disk()
    held = disk.lock(tmp_path / "lock")
    with pytest.raises(BlockingIOError):
        disk.lock(tmp_path / "lock")
    disk.close(held)
    disk.close(disk.lock(tmp_path / "lock"))


# Adoption.


def adopt_all(journal: Journal, found: Recovered, after: int) -> list[int]:
    steps = []
    number = 1_000
    for unit in (*found.line_units(after), *found.fact_units(after)):
        payloads = [(LANES.index(lane), items, data) for lane, items, data in unit.payloads]
        facts: list[int] = []
        for fact in unit.facts:
            number += 1
            journal.key(number, frames.pack_key(fact.key))
            facts += [number << 1 | fact.error, fact.duration_us]
        now_s = unit.facts[0].now_s if unit.facts else 0
        counts = msgspec.msgpack.encode(0)
        journal.adopt(Origin(ORIGIN, unit.step), counts, payloads, facts, now_s)
        steps.append(unit.step)
    return steps


def test_another_journal_is_adopted_once_however_often_we_die(tmp_path: Path) -> None:
    other = make_small_journal(tmp_path / "slot-1" / "journal")
    found = recover(tmp_path / "slot-1" / "journal", Disk(), LANES)
    lines, facts = lines_of(found), facts_of(found)
    call = 0
    while True:
        folder = tmp_path / f"slot-0-{call}" / "journal"
        world = opened(folder)
        world.lines.update(other.lines)
        world.facts.update(other.facts)
        world.disk.kill(call)
        try:
            adopt_all(world.journal, found, -1)
            world.journal.flush()
            died = False
        except Killed:
            died = True
        world.disk.mend()
        own = world.reopen()
        adopt_all(world.journal, found, own.adopted.get(ORIGIN, -1))
        assert world.journal.flush()
        end = recover(folder, Disk(), LANES)
        assert sorted(part.data for part in end.outstanding()) == sorted(lines)
        assert sorted(fact.duration_us for fact in end.facts()) == sorted(facts)
        world.disk.forget()
        if not died:
            break
        call += 1
    assert call >= 2


def test_adoption_is_remembered_until_it_has_ended(tmp_path: Path) -> None:
    world = opened(tmp_path / "slot-0" / "journal")
    make_small_journal(tmp_path / "slot-1" / "journal")
    found = recover(tmp_path / "slot-1" / "journal", Disk(), LANES)
    steps = adopt_all(world.journal, found, -1)
    world.pending[SPANS] = [(seq, b"") for seq in range(1, 50)]
    world.pending[POINTS] = list(world.pending[SPANS])
    world.pending[COPY] = list(world.pending[SPANS])
    for lane in (SPANS, POINTS, COPY):
        world.done(lane, 0, 99)
    for _ in range(9):
        world.post([], [], size=300)
        world.journal.flush()
    own = recover(world.folder, Disk())
    assert own.adopted == {ORIGIN: steps[-1]}
    assert [*found.line_units(steps[-1]), *found.fact_units(steps[-1])] == []
    world.journal.adoption_ended(ORIGIN)
    world.journal._begin_data()
    assert recover(world.folder, Disk()).adopted == {}


# What is seen from outside.


def test_every_sample_is_in_the_catalogue(tmp_path: Path) -> None:
    world = opened(tmp_path)
    world.post([SPANS], ["a"])
    world.flush()
    samples = world.journal.samples()
    assert set(samples) == {name for name in BY_NAME if name.startswith("tracefwd_journal_")}
    assert samples["tracefwd_journal_entries_total"] == {(): 1}
    assert samples["tracefwd_journal_degraded"] == {(): 0}
    on_disk = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert samples["tracefwd_journal_bytes"] == {(): on_disk}


def test_accounts_are_the_state_and_what_came_since(tmp_path: Path) -> None:
    world = opened(tmp_path, segment_bytes_max=10_000)
    world.post([SPANS], [])
    world.post([SPANS], [])
    world.flush()
    world.done(SPANS, 0, 1)
    world.flush()
    found = recover(tmp_path, Disk(), LANES)
    assert found.state == msgspec.msgpack.encode(0)
    assert found.counts == {msgspec.msgpack.encode(1): 2}
