"""A batch's file: what was written comes back, and whatever is damaged is told, never guessed."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracefwd.model import Stored
from tracefwd.spool.batch_file import BatchFolder, DamagedError, name_of
from tracefwd.spool.disk import Disk


def stored(**changes: object) -> Stored:
    values: dict[str, object] = {
        "number": 7,
        "lane": "primary/spans",
        "items": 3,
        "born_ms": 1_700_000_000_123,
        "encoding": "gzip",
        "seqs": [(4, 9), (11, 11)],
        "maybe_sent": True,
        "size_bytes": 0,
    }
    return Stored(**{**values, **changes})  # type: ignore[arg-type]


def folder_at(path: Path, **options: bool) -> BatchFolder:
    folder = BatchFolder(path / "batches", Disk(), **options)
    folder.create()
    return folder


@pytest.mark.parametrize("sync", [False, True])
def test_what_was_written_comes_back(tmp_path: Path, sync: bool) -> None:
    folder = folder_at(tmp_path, sync=sync)
    one = stored()
    size = folder.write(one, b"a\nb\nc\n" * 50_000)
    [named] = folder.names()
    assert (named.number, named.items, named.lane) == (7, 3, "primary/spans")
    assert (folder.folder / named.name).stat().st_size == size
    found = folder.read_header(named)
    assert [getattr(found, name) for name in Stored.__struct_fields__ if name != "size_bytes"] == [
        getattr(one, name) for name in Stored.__struct_fields__ if name != "size_bytes"
    ]
    assert found.size_bytes == size
    assert folder.read(name_of(found)) == b"a\nb\nc\n" * 50_000


def test_files_are_their_owners_alone(tmp_path: Path) -> None:
    folder = folder_at(tmp_path)
    folder.write(stored(), b"secret\n")
    assert folder.folder.stat().st_mode & 0o077 == 0
    assert (folder.folder / name_of(stored())).stat().st_mode & 0o077 == 0


def test_a_header_with_thousands_of_seqs_is_read_whole(tmp_path: Path) -> None:
    folder = folder_at(tmp_path)
    many = [(n * 3, n * 3 + 1) for n in range(1, 5_000)]
    folder.write(stored(seqs=many), b"x\n")
    assert folder.read_header(folder.names()[0]).seqs == many


def test_names_come_oldest_first_and_foreign_files_are_left_alone(tmp_path: Path) -> None:
    folder = folder_at(tmp_path)
    for number in (10, 9, 100, 1):
        folder.write(stored(number=number), b"x\n")
    for foreign in ("notes.txt", "1+2+3.batch", "x+1+1+a+spans.batch", "1+1+1+../a+spans.batch"):
        if "/" not in foreign:
            (folder.folder / foreign).write_bytes(b"")
    folder.clear_unfinished()
    assert [named.number for named in folder.names()] == [1, 9, 10, 100]
    assert (folder.folder / "notes.txt").exists()


def test_what_a_dead_writer_left_is_cleared(tmp_path: Path) -> None:
    folder = folder_at(tmp_path)
    folder.write(stored(), b"x\n")
    half = folder.folder / (name_of(stored(number=8)) + ".open")
    half.write_bytes(b"TFW")
    assert len(folder.names()) == 1
    folder.clear_unfinished()
    assert not half.exists()
    assert len(folder.names()) == 1


def test_a_folder_that_is_not_there_is_empty_and_a_file_that_is_gone_is_damage(
    tmp_path: Path,
) -> None:
    folder = BatchFolder(tmp_path / "none", Disk())
    assert folder.names() == []
    folder.clear_unfinished()
    folder.remove(name_of(stored()))
    with pytest.raises(DamagedError, match="gone"):
        folder.read(name_of(stored()))


def test_a_folder_that_somebody_has_removed_is_made_anew(tmp_path: Path) -> None:
    folder = folder_at(tmp_path)
    folder.folder.rmdir()
    folder.write(stored(), b"x\n")
    assert len(folder.names()) == 1


def test_another_slots_files_get_numbers_of_our_own(tmp_path: Path) -> None:
    ours, theirs = folder_at(tmp_path / "a"), folder_at(tmp_path / "b")
    ours.write(stored(number=3), b"ours\n")
    theirs.write(stored(number=3), b"their first\n")
    theirs.write(stored(number=5), b"their second\n")
    moved, left = ours.take_over(theirs, theirs.names(), 4)
    assert ([named.number for named in moved], left) == ([4, 5], 0)
    assert theirs.names() == []
    lines = [ours.read(name_of(ours.read_header(named))) for named in ours.names()]
    assert lines == [b"ours\n", b"their first\n", b"their second\n"]


def test_that_it_may_have_been_sent_stands_in_its_name_and_goes_with_it(tmp_path: Path) -> None:
    ours, theirs = folder_at(tmp_path / "a"), folder_at(tmp_path / "b")
    one = stored(maybe_sent=False)
    theirs.write(one, b"a\n")
    theirs.mark(one, sent=True)
    theirs.mark(one, sent=True)
    [named] = theirs.names()
    assert (named.sent, named.name, theirs.read(one.file)) == (True, one.file, b"a\n")
    ours.take_over(theirs, theirs.names(), 1)
    [named] = ours.names()
    found = ours.read_header(named)
    assert (found.maybe_sent, found.marked, ours.read(found.file)) == (True, True, b"a\n")
    ours.mark(found, sent=False)
    [named] = ours.names()
    assert not ours.read_header(named).maybe_sent


def test_a_header_says_whose_entries_it_covers_wherever_the_file_is(tmp_path: Path) -> None:
    theirs = BatchFolder(tmp_path / "b" / "batches", Disk(), writer="17")
    theirs.create()
    theirs.write(stored(), b"a\n")
    ours = folder_at(tmp_path / "a")
    ours.take_over(theirs, theirs.names(), 1)
    found = ours.read_header(ours.names()[0])
    assert (found.writer, found.seqs) == ("17", [(4, 9), (11, 11)])


DATA = b'"op" source="a" 1700000000000 1\n' * 5


@given(data=st.data())
@settings(deadline=None, max_examples=300)
def test_any_flipped_bit_and_any_lost_end_is_damage(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = folder_at(tmp_path_factory.getbasetemp() / "flips")
    one = stored()
    folder.write(one, DATA)
    path = folder.folder / name_of(one)
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        changed = whole[:at]
    else:
        flipped = whole[at] ^ (1 << data.draw(st.integers(0, 7)))
        changed = whole[:at] + bytes([flipped]) + whole[at + 1 :]
    path.write_bytes(changed)
    with pytest.raises(DamagedError):
        folder.read(name_of(one))
    # Its name still says what was lost.
    assert [(named.items, named.lane) for named in folder.names()] == [(3, "primary/spans")]
    path.unlink()


@given(content=st.binary(max_size=200))
@settings(deadline=None, max_examples=200)
def test_foreign_bytes_never_raise_anything_else(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    folder = folder_at(tmp_path_factory.getbasetemp() / "foreign")
    for start in (b"", b"TFWB\x01"):
        (folder.folder / name_of(stored())).write_bytes(start + content)
        with pytest.raises(DamagedError):
            folder.read_header(folder.names()[0])
        with pytest.raises(DamagedError):
            folder.read(name_of(stored()))
