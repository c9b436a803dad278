"""``tracefwd spool ls|cat|verify|export``: what a spool holds, looked at from outside.

A folder of the spool belongs to one worker (``lives.py``); of those of running workers a moment is shown.  Nothing
here changes a file; sending and removing is ``spool_drain.py``'s affair.  Damage is told and passed over.
"""

import argparse
import json
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import BinaryIO, TextIO

from tracefwd.errors import ConfigError, StartError
from tracefwd.exporter import otlp_frames
from tracefwd.exporter.compress import plain
from tracefwd.model import Signal, Stored
from tracefwd.service import logs
from tracefwd.service.arguments import UsageError
from tracefwd.service.spool_roots import is_running, shown, worker_folders
from tracefwd.service.units import counted, format_duration, format_size
from tracefwd.settings import Settings
from tracefwd.spool.batch_file import BatchFolder, DamagedError, Named
from tracefwd.spool.disk import Disk
from tracefwd.spool.recovery import recover


@dataclass
class LaneContent:
    """``oldest_s`` is the age of the oldest batch; ``journal_lines`` are in the journal and in no batch."""

    batches: int = 0
    lines: int = 0
    size_bytes: int = 0
    oldest_s: float = 0.0
    journal_lines: int = 0


@dataclass
class FolderContent:
    """What one worker's folder holds, by lane; ``damaged`` files and places in words."""

    name: str
    running: bool
    lanes: dict[str, LaneContent] = field(default_factory=dict)
    journal_bytes: int = 0
    damaged: list[str] = field(default_factory=list)

    def lane(self, name: str) -> LaneContent:
        return self.lanes.setdefault(name, LaneContent())


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """The exit code of ``tracefwd spool ACTION``."""
    if not settings.spool.folder:
        raise ConfigError(["spool.folder: no spool is named; give its folder with --spool DIR."])
    root = Path(settings.spool.folder)
    logs.configure(settings.service)
    match arguments.action:
        case "ls":
            return ls(root, as_json=arguments.json)
        case "verify":
            return verify(root)
        case "cat":
            return cat(root, arguments.lane)
        case "export":
            if arguments.signal is None and arguments.output is None:
                raise UsageError("tracefwd spool", "export needs --signal, --output, or both")
            return export(root, arguments.signal or "", arguments.output)
    from tracefwd.service import spool_drain

    return spool_drain.drain(settings, root, arguments.seconds)


# ls


def ls(root: Path, *, as_json: bool) -> int:
    disk = Disk()
    contents = [_content(folder, disk) for folder in worker_folders(root)]
    if as_json:
        print(json.dumps([asdict(content) for content in contents]))
        return 0
    for content in contents:
        _show(content, sys.stdout)
    lines = sum(c.lines + c.journal_lines for each in contents for c in each.lanes.values())
    print(f"{counted(len(contents), 'folder')}, {counted(lines, 'line')}")
    return 0


def _content(folder: Path, disk: Disk) -> FolderContent:
    content = FolderContent(shown(folder), is_running(folder, disk))
    now_ms = time.time_ns() // 1_000_000
    for named, stored, problem in _batches(folder, disk):
        if stored is None:
            content.damaged.append(f"{named.name}: {problem} ({named.items} lines)")
            continue
        lane = content.lane(stored.lane)
        lane.batches += 1
        lane.lines += stored.items
        lane.size_bytes += stored.size_bytes
        lane.oldest_s = max(lane.oldest_s, (now_ms - stored.born_ms) / 1000)
    journal = recover(folder / "journal", disk)
    for line in journal.outstanding():
        content.lane(line.lane).journal_lines += line.items
    content.journal_bytes = sum(_size(path) for path in _files(folder / "journal"))
    content.damaged += _damage(folder, disk)
    return content


def _show(content: FolderContent, out: TextIO) -> None:
    state = "a worker runs on it" if content.running else "left behind"
    journal = format_size(content.journal_bytes)
    print(f"{content.name}  ({state}; journal {journal})", file=out)
    for name, lane in sorted(content.lanes.items()):
        age = format_duration(float(int(lane.oldest_s)))
        print(
            f"  {name:32} {lane.batches:>6} batches {lane.lines:>10,} lines "
            f"{lane.size_bytes:>13,} bytes  oldest {age:>6}  "
            f"journal {lane.journal_lines:>10,} lines",
            file=out,
        )
    for problem in content.damaged:
        print(f"  damaged: {problem}", file=out)


# verify


def verify(root: Path) -> int:
    """0 when every checksum fits, 1 when something is damaged."""
    disk = Disk()
    batches = damaged = 0
    for folder in worker_folders(root):
        for named, stored, problem in _batches(folder, disk):
            batches += 1
            if stored is not None:
                _, problem = _read(folder, disk, stored)
            if problem:
                damaged += 1
                print(f"{shown(folder)}/batches/{named.name}: {problem} ({named.items} lines)")
        for problem in _damage(folder, disk):
            damaged += 1
            print(f"{shown(folder)}/{problem}")
    print(f"{batches} batches and the journals read, {damaged} damaged")
    return 1 if damaged else 0


# cat and export


def cat(root: Path, lane: str) -> int:
    """All lines of a lane (of all lanes if ""), batches before journals; 1 if some could not be read."""
    return _write(root, lambda name, _: sys.stdout.buffer if lane in ("", name) else None)


def export(root: Path, signal: str, output: Path | None) -> int:
    """One signal's lines to standard output, or every signal's to a file of its own in a folder.

    SIGNAL.txt has Wavefront's lines, SIGNAL.otlp.jsonl OTLP's records if there are any.
    """
    if output is None:
        return _write(root, lambda lane, _: sys.stdout.buffer if _signal(lane) == signal else None)
    with ExitStack() as stack:
        files: dict[str, BinaryIO] = {}

        def opened(name: str) -> BinaryIO:
            if name not in files:
                files[name] = stack.enter_context((output / name).open("wb"))
            return files[name]

        def place(lane: str, is_otlp: bool) -> BinaryIO | None:
            own = _signal(lane)
            if own not in wanted:
                return None
            return opened(f"{own}.otlp.jsonl" if is_otlp else f"{own}.txt")

        wanted = _wanted(signal)
        try:
            output.mkdir(parents=True, exist_ok=True)
            for each in wanted:
                opened(f"{each}.txt")
        except OSError as error:
            raise StartError(f"{output}: {error.strerror}: give a folder to write to") from error
        return _write(root, place)


def _wanted(signal: str) -> list[Signal]:
    return [Signal(signal)] if signal else list(Signal)


def _signal(lane: str) -> str:
    return lane.rpartition("/")[2]


def _write(root: Path, place: Callable[[str, bool], BinaryIO | None]) -> int:
    """Every lane's lines to the file that ``place`` gives for it and for whether they are OTLP."""
    disk = Disk()
    unread = 0
    for folder in worker_folders(root):
        for named, stored, problem in _batches(folder, disk):
            if place(named.lane, False) is None:
                continue
            lines = b""
            if stored is not None:
                lines, problem = _read(folder, disk, stored)
            _write_lines(named.lane, lines, place)
            if problem:
                unread += 1
                where = f"{shown(folder)}/batches/{named.name}"
                print(f"tracefwd: {where}: {problem} ({named.items} lines)", file=sys.stderr)
        for line in recover(folder / "journal", disk).outstanding():
            _write_lines(line.lane, line.data, place)
        for problem in _damage(folder, disk):
            unread += 1
            print(f"tracefwd: {shown(folder)}/{problem}", file=sys.stderr)
    sys.stdout.buffer.flush()
    return 1 if unread else 0


def _write_lines(lane: str, lines: bytes, place: Callable[[str, bool], BinaryIO | None]) -> None:
    is_otlp = otlp_frames.is_framed(lines)
    file = place(lane, is_otlp)
    if file is None:
        return
    if is_otlp:
        from tracefwd.exporter.otlp_shown import shown as readable

        lines = readable(_signal(lane), lines)
    file.write(lines)


# Reading


def _batches(folder: Path, disk: Disk) -> Iterator[tuple[Named, Stored | None, str]]:
    """Every batch by its name; without its header, and with a reason, where that cannot be read."""
    batches = BatchFolder(folder / "batches", disk)
    for named in _names(batches):
        try:
            yield named, batches.read_header(named), ""
        except FileNotFoundError:
            continue  # a running worker has just delivered it
        except DamagedError as damage:
            yield named, None, str(damage)
        except OSError as error:
            yield named, None, error.strerror or "cannot be read"


def _names(batches: BatchFolder) -> list[Named]:
    try:
        return batches.names()
    except OSError:
        return []  # ``_damage`` tells


def _read(folder: Path, disk: Disk, stored: Stored) -> tuple[bytes, str]:
    """A batch's lines, or why there are none."""
    try:
        data = BatchFolder(folder / "batches", disk).read(stored.file)
        return plain(data, stored.encoding), ""
    except DamagedError as damage:
        return b"", str(damage)
    except OSError as error:
        return b"", error.strerror or "cannot be read"
    except zlib.error:
        return b"", "its data cannot be inflated"


def _damage(folder: Path, disk: Disk) -> list[str]:
    """But for that of batches.  A torn end is none: a crash leaves it behind what was answered for."""
    damage = recover(folder / "journal", disk).damage
    found = []
    try:
        BatchFolder(folder / "batches", disk).names()
    except OSError as error:
        found.append(f"batches: {error.strerror}")
    if damage.frames:
        found.append(
            f"journal: {damage.frames} places with {damage.lost_bytes} bytes cannot be read"
        )
    if damage.files:
        found.append(f"journal: {damage.files} files cannot be read")
    return found


def _files(folder: Path) -> list[Path]:
    try:
        return [*folder.iterdir()]
    except OSError:
        return []


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


__all__ = ["run"]
