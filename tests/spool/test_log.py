"""A segment is whole frames, a failure is cut off, and a broken disk is tried again in time."""

import errno
import logging
from itertools import pairwise
from pathlib import Path

import pytest

from tests.spool.faulty_disk import SHORT, FaultyDisk
from tracefwd.spool.log import Log, Segment, number_of


class Clock:
    now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def make_log(folder: Path, *, fsync: bool = False) -> tuple[Log, FaultyDisk, Clock]:
    disk, clock = FaultyDisk(), Clock()
    return Log(folder, "data", disk, fsync=fsync, now=clock), disk, clock


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_segments_are_numbered_on_from_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "data-00000041.log").touch()
    (tmp_path / "data-note.log").touch()
    (tmp_path / "red-00000099.log").touch()
    log, _, _ = make_log(tmp_path)
    assert log.open(b"head")
    log.buffer += [b"one", b"two"]
    assert log.write()
    assert log.open(b"next")
    assert content(tmp_path)["data-00000042.log"] == b"headonetwo"
    assert content(tmp_path)["data-00000043.log"] == b"next"
    assert log.held_bytes == 14
    assert log.written_bytes == 14


def test_what_is_inherited_is_closed_although_nothing_was_opened_since(tmp_path: Path) -> None:
    """A full disk may open nothing, and must let old segments go all the same."""
    log, _, _ = make_log(tmp_path)
    log.inherit([Segment(number, tmp_path / f"{number}", 5) for number in (6, 7)])
    assert (log.oldest_open, log.held_bytes) == (8, 10)


def test_a_short_write_is_continued(tmp_path: Path) -> None:
    log, disk, _ = make_log(tmp_path)
    log.open(b"head")
    disk.fail(SHORT, calls=2)
    log.buffer.append(b"0123456789")
    assert log.write()
    assert content(tmp_path) == {"data-00000001.log": b"head0123456789"}


def test_a_failed_write_is_cut_off_and_its_buffer_kept(tmp_path: Path) -> None:
    log, disk, _ = make_log(tmp_path)
    log.open(b"head")
    disk.fail(errno.ENOSPC, calls=2)  # half of it, then nothing
    log.buffer.append(b"0123456789")
    assert not log.write()
    assert not log.is_open
    assert content(tmp_path) == {"data-00000001.log": b"head"}
    assert log.buffer == [b"0123456789"]
    assert log.may_open()
    assert log.open(b"head")
    assert log.write()
    assert content(tmp_path)["data-00000002.log"] == b"head0123456789"


def test_nothing_is_written_behind_a_tail_that_cannot_be_cut(tmp_path: Path) -> None:
    log, disk, _ = make_log(tmp_path)
    log.open(b"head")
    disk.fail(errno.EIO, calls=3)  # the truncation, too
    log.buffer.append(b"0123456789")
    assert not log.write()
    log.open(b"head")
    assert log.write()
    assert content(tmp_path)["data-00000001.log"] == b"head01234"
    assert content(tmp_path)["data-00000002.log"] == b"head0123456789"


def test_a_new_segment_that_cannot_begin_leaves_the_old_one_open(tmp_path: Path) -> None:
    log, disk, _ = make_log(tmp_path)
    log.open(b"head")
    for call in range(3):
        disk.fail(errno.EMFILE, after=call, calls=2)
        assert not log.open(b"next")
        disk.mend()
        log.buffer.append(b"1")
        assert log.write()
    assert content(tmp_path)["data-00000001.log"] == b"head111"
    assert len(disk.open_fds) == 1


def test_a_broken_disk_is_tried_with_growing_waits_and_told_of_once_a_minute(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log, disk, clock = make_log(tmp_path)
    disk.fail(errno.EROFS)
    tries = []
    for tenth in range(6_000):
        clock.now_s = 1_000 + tenth / 10
        if log.may_open():
            tries.append(tenth / 10)
            assert not log.open(b"head")
    waits = [b - a for a, b in pairwise(tries)]
    assert waits[:7] == pytest.approx([0.1, 1, 2, 4, 8, 16, 32], abs=0.2)
    assert max(waits) == pytest.approx(60, abs=0.2)
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert 8 <= len(errors) <= 11
    disk.mend()
    clock.now_s += 60
    assert log.open(b"head")
    log.buffer.append(b"1")
    assert log.write()
    assert "writes again" in caplog.text


def test_sync_covers_what_was_written_and_closes_what_was_sealed(tmp_path: Path) -> None:
    log, disk, _ = make_log(tmp_path, fsync=True)
    log.open(b"head")
    assert log.synced < log.writes
    assert log.sync()
    assert log.synced == log.writes
    log.buffer.append(b"1")
    log.write()
    log.open(b"next")
    assert len(disk.open_fds) == 2
    assert log.sync()
    assert len(disk.open_fds) == 1
    assert log.synced == log.writes
    log.buffer.append(b"1")
    log.write()
    disk.fail(errno.EIO, calls=1)
    assert not log.sync()
    assert log.synced < log.writes
    log.buffer.append(b"2")
    assert not log.write()  # not behind what may be lost


def test_removing_what_is_gone_already_is_fine(tmp_path: Path) -> None:
    log, _, _ = make_log(tmp_path)
    log.open(b"head")
    log.seal()
    (segment,) = log.sealed
    segment.path.unlink()
    assert log.remove(segment)
    assert log.held_bytes == 0


@pytest.mark.parametrize(
    "name", ["data-.log", "data-1", "red-1.log", "data-1.log.damaged", "data--1.log", "data-²3.log"]
)
def test_other_files_are_no_segments(name: str) -> None:
    assert number_of(name, "data") is None


def test_a_segment_that_somebody_has_removed_is_given_up(tmp_path: Path) -> None:
    log, disk, _ = make_log(tmp_path)
    assert log.look()
    log.open(b"head")
    assert log.look()
    (tmp_path / "data-00000001.log").unlink()
    disk.fail(errno.EIO, reads=True)
    assert log.look()  # a disk that cannot say
    disk.mend()
    assert not log.look()
    assert not log.is_open
    assert log.may_open()
    log.buffer.append(b"turn")
    assert log.open(b"next")
    assert log.write()
    assert content(tmp_path) == {"data-00000002.log": b"nextturn"}
