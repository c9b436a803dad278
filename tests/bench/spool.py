"""What durability costs per post: the journal at its levels, against SQLite and against a file per batch.

Run: ``python tests/bench/spool.py [--seconds 1] [--turn 16] [--folder DIR]``

A post is an entry of five spans (5.5 kB of lines to one lane, five facts of 200 series); a turn of the loop brings one,
or ``--turn`` of them, and is durable before the next.  Each lane is done with its entries a batch of 200 at a time, so
segments come and go.  Wall and CPU time per post, medians of three rounds; syncs wait in a thread, as in the worker.
"""

import argparse
import asyncio
import os
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tracefwd.model import Identity, RedKey
from tracefwd.spool.disk import Disk
from tracefwd.spool.frames import pack_key
from tracefwd.spool.journal import Journal
from tracefwd.spool.recovery import recover

LANE = "primary/spans"
LINES = os.urandom(2_750).hex().encode()
COUNTS = b"\x01\x05"
SERIES = 200
BATCH = 200
FACTS = [[(5 * n + i) % SERIES << 1 | (i == 4), 1_000 + i] for n in range(40) for i in range(5)]
POSTS = [sum(FACTS[n * 5 : n * 5 + 5], []) for n in range(40)]  # noqa: RUF017 - five short lists

Turn = Callable[[int, int], Awaitable[None]]
"""Make posts ``first`` to ``first + number`` durable."""


def open_journal(folder: Path, *, fsync: bool) -> Journal:
    journal = Journal(
        folder,
        Disk(),
        lanes=[LANE],
        state=lambda: b"state",
        now=time.monotonic,
        bytes_max=2**30,
        recovered=recover(folder, Disk()),
        fsync=fsync,
    )
    assert journal.start()
    for number in range(SERIES):
        identity = Identity("application", f"service-{number}", "cluster", "none", "istio", "host")
        journal.key(number, pack_key(RedKey(identity, f"GET /path/{number}", "server", "200", ())))
    return journal


def journal_turn(folder: Path, *, fsync: bool) -> tuple[Turn, Callable[[], object]]:
    journal = open_journal(folder, fsync=fsync)
    lines = [bytes(bytearray(LINES)) for _ in range(40)]  # as different posts have different bytes
    begun = [1]

    async def turn(first: int, number: int) -> None:
        seq = 0
        for n in range(first, first + number):
            at = n % 40
            seq = journal.entry(COUNTS, [(0, 5, lines[at])], POSTS[at], 1_700_000_000 + n // 20_000)
        if seq - begun[0] >= BATCH:
            journal.done(0, begun[0], seq - 1)
            begun[0] = seq
        assert journal.flush()
        if fsync:
            assert await asyncio.to_thread(journal.sync)

    return turn, journal.close


def sqlite_turn(folder: Path, synchronous: str) -> tuple[Turn, Callable[[], object]]:
    base = sqlite3.connect(folder / "spool.db", isolation_level=None)
    base.execute("pragma journal_mode=wal")
    base.execute(f"pragma synchronous={synchronous}")
    base.execute("create table entries (seq integer primary key, lines blob, facts blob)")

    async def turn(first: int, number: int) -> None:
        base.execute("begin")
        for n in range(first, first + number):
            base.execute("insert into entries values (?, ?, ?)", (n, LINES, b"f" * 80))
        if first // BATCH != (first + number) // BATCH:
            base.execute("delete from entries where seq < ?", (first,))
        base.execute("commit")

    return turn, base.close


def files_turn(folder: Path, *, fsync: bool) -> tuple[Turn, Callable[[], object]]:
    async def turn(first: int, number: int) -> None:
        path = folder / f"{first}.batch"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        os.write(fd, LINES * number)
        if fsync:
            await asyncio.to_thread(os.fdatasync, fd)
        os.close(fd)
        old = folder / f"{first - number * 40}.batch"
        if old.exists():
            old.unlink()

    return turn, lambda: None


WAYS: dict[str, Callable[[Path], tuple[Turn, Callable[[], object]]]] = {
    "journal, disk": lambda folder: journal_turn(folder, fsync=False),
    "SQLite WAL, synchronous=off": lambda folder: sqlite_turn(folder, "off"),
    "a file per turn": lambda folder: files_turn(folder, fsync=False),
    "journal, fsync": lambda folder: journal_turn(folder, fsync=True),
    "SQLite WAL, synchronous=full": lambda folder: sqlite_turn(folder, "full"),
    "a file per turn, fsync": lambda folder: files_turn(folder, fsync=True),
}


async def measure(turn: Turn, posts_a_turn: int, seconds: float) -> tuple[float, float]:
    """Wall and CPU microseconds per post."""
    await turn(1, posts_a_turn)
    posts = posts_a_turn
    cpu, begin = time.process_time(), time.perf_counter()
    while time.perf_counter() - begin < seconds:
        for _ in range(8):
            await turn(posts + 1, posts_a_turn)
            posts += posts_a_turn
    wall = time.perf_counter() - begin
    number = posts - posts_a_turn
    return wall / number * 1e6, (time.process_time() - cpu) / number * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--turn", type=int, default=16, help="posts in a turn of a busy loop")
    parser.add_argument("--folder", type=Path, help="on the disk to measure")
    options = parser.parse_args()
    print(f"{'us per post':<32}{'posts/turn':>11}{'wall':>10}{'CPU':>10}")
    for name, make in WAYS.items():
        for posts_a_turn in (1, options.turn):
            found = []
            for _ in range(3):
                folder = Path(tempfile.mkdtemp(dir=options.folder))
                turn, close = make(folder)
                found.append(asyncio.run(measure(turn, posts_a_turn, options.seconds)))
                close()
                shutil.rmtree(folder)
            wall, cpu = (statistics.median(part) for part in zip(*found, strict=True))
            print(f"{name:<32}{posts_a_turn:>11}{wall:>10.2f}{cpu:>10.2f}")


if __name__ == "__main__":
    main()
