"""Which store for spooled batches?  A file for each, SQLite in WAL mode, or an append-only log, side by side.

    .venv/bin/python tests/bench/spool_store.py [FOLDER]

A batch here is about 1 MiB of span lines, packed.  Each store holds some, gives them back in order, and
forgets them, as an outage and its end do; then the same with small batches of a quiet mesh.
Columns: CPU and elapsed microseconds a batch to put, to read back and to remove (median of ROUNDS); the most bytes on
disk per byte held; MiB left when all is gone; and what one flipped bit in the middle costs, in batches.
"""

import os
import shutil
import sqlite3
import statistics
import struct
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from tracefwd.exporter.compress import gzip_or_plain
from tracefwd.model import Stored
from tracefwd.spool.batch_file import BatchFolder, DamagedError, name_of
from tracefwd.spool.disk import Disk

ROUNDS = 5
LARGE, SMALL = 60, 600


class Store(Protocol):
    def put(self, number: int, data: bytes) -> None: ...
    def read(self, number: int) -> bytes: ...
    def remove(self, number: int) -> None: ...
    def close(self) -> None: ...


class Files:
    """The one that is used."""

    def __init__(self, folder: Path, *, sync: bool) -> None:
        self._folder = BatchFolder(folder, Disk(), sync=sync)
        self._folder.create()

    def _stored(self, number: int) -> Stored:
        return Stored(number, "primary/spans", 5_000, 1_700_000_000_000, "gzip", [], False, 0)

    def put(self, number: int, data: bytes) -> None:
        self._folder.write(self._stored(number), data)

    def read(self, number: int) -> bytes:
        return self._folder.read(name_of(self._stored(number)))

    def remove(self, number: int) -> None:
        self._folder.remove(name_of(self._stored(number)))

    def close(self) -> None:
        """Nothing is open."""


class Sqlite:
    """A row per batch; ``synchronous=NORMAL`` syncs at checkpoints only, ``FULL`` at each commit."""

    def __init__(self, folder: Path, *, sync: bool) -> None:
        folder.mkdir()
        self._base = sqlite3.connect(folder / "batches.db", isolation_level=None)
        self._base.execute("PRAGMA auto_vacuum=INCREMENTAL")
        self._base.execute("PRAGMA journal_mode=WAL")
        self._base.execute(f"PRAGMA synchronous={'FULL' if sync else 'NORMAL'}")
        self._base.execute(
            "CREATE TABLE batch (number INTEGER PRIMARY KEY, lane TEXT, items INT, born INT,"
            " crc INT, data BLOB)"
        )

    def put(self, number: int, data: bytes) -> None:
        row = (number, "primary/spans", 5_000, 1_700_000_000_000, zlib.crc32(data), data)
        self._base.execute("INSERT INTO batch VALUES (?, ?, ?, ?, ?, ?)", row)

    def read(self, number: int) -> bytes:
        query = "SELECT crc, data FROM batch WHERE number = ?"
        crc, data = self._base.execute(query, (number,)).fetchone()
        if zlib.crc32(data) != crc:
            raise ValueError(number)
        return bytes(data)

    def remove(self, number: int) -> None:
        self._base.execute("DELETE FROM batch WHERE number = ?", (number,))
        self._base.execute("PRAGMA incremental_vacuum")

    def close(self) -> None:
        self._base.close()


class Log:
    """Segments of 16 MiB; one goes when all of its batches are removed."""

    SEGMENT_BYTES = 16 * 2**20

    def __init__(self, folder: Path, *, sync: bool) -> None:
        folder.mkdir()
        self._folder, self._sync = folder, sync
        self._places: dict[int, tuple[int, int, int, int]] = {}
        self._live: dict[int, int] = {}
        self._files: dict[int, int] = {}
        self._segment, self._end = -1, self.SEGMENT_BYTES

    def put(self, number: int, data: bytes) -> None:
        if self._end >= self.SEGMENT_BYTES:
            self._segment, self._end = self._segment + 1, 0
            path = self._folder / f"{self._segment:08}.log"
            self._files[self._segment] = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
            self._live[self._segment] = 0
        fd = self._files[self._segment]
        crc = zlib.crc32(data)
        head = struct.pack("<IIQ", len(data), crc, number)
        os.writev(fd, [head, data])
        if self._sync:
            os.fdatasync(fd)
        self._places[number] = (self._segment, self._end + len(head), len(data), crc)
        self._live[self._segment] += 1
        self._end += len(head) + len(data)

    def read(self, number: int) -> bytes:
        segment, offset, size, crc = self._places[number]
        data = os.pread(self._files[segment], size, offset)
        if zlib.crc32(data) != crc:
            raise ValueError(number)
        return data

    def remove(self, number: int) -> None:
        segment = self._places.pop(number)[0]
        self._live[segment] -= 1
        if not self._live[segment] and segment != self._segment:
            os.close(self._files.pop(segment))
            (self._folder / f"{segment:08}.log").unlink()

    def close(self) -> None:
        for fd in self._files.values():
            os.close(fd)


def batch(lines: int) -> bytes:
    """Span lines as a lane packs them."""
    return gzip_or_plain(b"".join(_lines(lines)))[0]


def _lines(count: int) -> Iterator[bytes]:
    for number in range(count):
        key = zlib.crc32(b"%d" % number)
        yield (
            f'"reviews.default.svc.cluster.local:9080/*" source="reviews-v{number % 3}" '
            f'spanId="00000000-0000-0000-{key & 0xFFFF:04x}-{key * 7919 & 0xFFFFFFFFFFFF:012x}" '
            f'traceId="{key:08x}-0000-0000-0000-{key * 31 & 0xFFFFFFFFFFFF:012x}" '
            f'"application"="default" "service"="reviews" "http.status_code"="{200 + key % 3}" '
            f"1700000{number:06d} {key % 900}\n"
        ).encode()


def timed(work: Callable[[int], object], count: int) -> tuple[float, float]:
    """CPU and elapsed microseconds each."""
    cpu, wall = time.process_time(), time.perf_counter()
    for number in range(1, count + 1):
        work(number)
    each = 1e6 / count
    return (time.process_time() - cpu) * each, (time.perf_counter() - wall) * each


def disk_bytes(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def lost_to_one_bit(kind: type, folder: Path, data: bytes) -> int:
    """Batches that cannot be read after a bit in the middle of what is on disk was flipped."""
    store = kind(folder, sync=False)
    for number in range(1, 21):
        store.put(number, data)
    store.close() if kind is Sqlite else None
    largest = max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    with largest.open("r+b") as file:
        file.seek(largest.stat().st_size // 2 + 57)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    if kind is Sqlite:
        store._base = sqlite3.connect(folder / "batches.db", isolation_level=None)
    lost = 0
    for number in range(1, 21):
        try:
            lost += store.read(number) != data
        except (DamagedError, ValueError, TypeError, sqlite3.DatabaseError):
            lost += 1
    store.close()
    return lost


def measure(kind: type, root: Path, data: bytes, count: int, *, sync: bool) -> list[float]:
    rows: list[list[float]] = []
    for turn in range(ROUNDS):
        folder = root / f"{kind.__name__}-{turn}"
        store: Store = kind(folder, sync=sync)
        row = [*timed(lambda n: store.put(n, data), count)]  # noqa: B023
        most = disk_bytes(folder) / (count * len(data))

        def back(number: int) -> None:
            assert store.read(number) == data  # noqa: B023

        row += timed(back, count)
        row += timed(store.remove, count)
        rows.append([*row, most, disk_bytes(folder) / 2**20])
        store.close()
        shutil.rmtree(folder)
    return [statistics.median(column) for column in zip(*rows, strict=True)]


def main() -> None:
    root = Path(tempfile.mkdtemp(dir=sys.argv[1] if len(sys.argv) > 1 else None))
    large, small = batch(4_000), batch(20)
    names = "put_cpu put read_cpu read remove_cpu remove disk/held left_MiB lost"
    for sync in (False, True):
        for data, count in ((large, LARGE), (small, SMALL)):
            print(f"\n{count} batches of {len(data):,} bytes, {'synced' if sync else 'not synced'}")
            print(" " * 8 + "".join(f"{name:>11}" for name in names.split()))
            for kind in (Files, Sqlite, Log):
                figures = measure(kind, root, data, count if not sync else count // 10, sync=sync)
                lost = lost_to_one_bit(kind, root / "flip", data)
                shutil.rmtree(root / "flip")
                cells = "".join(f"{figure:>11,.2f}" for figure in figures)
                print(f"{kind.__name__:8}{cells}{lost:>11}")
    shutil.rmtree(root)


if __name__ == "__main__":
    main()
