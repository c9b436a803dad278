"""Chaos: kill -9 of random processes under load, with a sink that misbehaves, and a judgement about every single span.

Run: ``python tests/chaos/run.py --rounds 1000 [--seed S] [--posts 60] [--keep FOLDER] [--otlp]``

Each round ends a process, or several, in one of the ways below, while the sink fails in one of its ways or not at all.
At the end all is calm, the service is stopped in order, and ``judge.py`` compares what clients were told with what the
sink has.  Exit code 1 if a promise was broken.  A seed gives the same events, but not the same timing.
"""

import argparse
import asyncio
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.chaos import sink as sinks  # noqa: E402
from tests.chaos.judge import Verdict, gaps, judge  # noqa: E402
from tests.chaos.load import Load  # noqa: E402
from tests.chaos.sink import Sink  # noqa: E402
from tests.chaos.tree import PATIENCE_S, Tree  # noqa: E402
from tests.chaos.truth import Truth  # noqa: E402

CONNECTIONS = 8
_LEDGER_EACH_S = 0.1
# A slot waits longer before each next worker; a new parent begins anew.
_WORKER_KILLS_MAX = 4
# Rounds from one long black hole to the next.
_LONG_HOLE_EACH, _LONG_HOLE_S = 100, 60.0
_FAULTS: tuple[tuple[str, ...], ...] = (
    (),
    (),
    (sinks.RESET, sinks.TAKEN_RESET),
    (sinks.BUSY,),
    (sinks.SLOW_DOWN, sinks.BUSY),
    (sinks.TOO_LARGE,),
    (sinks.DENIED,),
    (sinks.HOLE, sinks.TAKEN_HOLE),
    (sinks.DRIP,),
    sinks.MODES,
)


class Chaos:
    """One run over ``rounds`` rounds."""

    def __init__(
        self,
        folder: Path,
        seed: int,
        rounds: int,
        posts_per_s: float,
        *,
        faults: Sequence[tuple[str, ...]] = _FAULTS,
        kills: bool = True,
        otlp: bool = False,
    ) -> None:
        """``faults`` are what the sink may do in a round; without ``kills`` processes end in order.

        ``otlp``: everything is delivered by OTLP, over HTTP.
        """
        self._kinds = ("otlp",) if otlp else ("proxy", "proxy", "direct")
        self._faults = faults
        self._kills = kills
        self._random = Random(seed)
        self._rounds = rounds
        self._posts_per_s = posts_per_s
        self.truth = Truth()
        self.sink = Sink(Random(seed + 1), folder / "spool")
        self._folder = folder
        self.events: Counter[str] = Counter()
        self.reads = 0
        self._unbalanced: list[str] = []
        self._worker_kills = 0
        self._deck: list[Callable[[], Awaitable[None]]] = []
        self._tree: Tree | None = None
        self.posts = 0

    @property
    def tree(self) -> Tree:
        assert self._tree is not None
        return self._tree

    async def run(self, say: Callable[[str], None] = lambda text: None) -> Verdict:
        async with self.sink:
            self._tree = Tree(self._folder, self.sink.port, self._random, self._kinds)
            try:
                return await self._run(say)
            finally:
                await self.tree.close()

    async def _run(self, say: Callable[[str], None]) -> Verdict:
        await self.tree.start(2)
        reading = asyncio.create_task(self._read_ledgers())
        load = Load(
            self.tree.intake,
            self.truth,
            self._random,
            connections=CONNECTIONS,
            posts_per_s=self._posts_per_s,
        )
        async with load:
            for number in range(1, self._rounds + 1):
                await self._round(number)
                if number % 10 == 0:
                    say(self._progress(number))
            self.sink.calm()
        self.posts = load.posts
        ledger = await self._calm_down()
        again = await self.tree.again()
        reading.cancel()
        await asyncio.wait({reading})
        code = await self.tree.stop()
        verdict = judge(self.truth, self.sink, ledger, again)
        verdict.expect(again is not None, "nobody said what may be doubled")
        verdict.expect(code == 0, f"after SIGTERM the exit code was {code}")
        verdict.expect(
            not self._unbalanced, f"ledgers that did not balance: {self._unbalanced[:3]}"
        )
        if not reading.cancelled():
            reading.result()
        return verdict

    def _progress(self, number: int) -> str:
        tree = self.tree
        return (
            f"round {number}: {tree.kills} kills, {tree.starts} starts, {len(self.truth.states)} spans, "
            f"{len(self.sink.first)} arrived, {len(self.sink.again)} again, {self.reads} ledgers read"
        )

    async def _round(self, number: int) -> None:
        faults = self._random.choice(self._faults)
        if faults:
            self.sink.trouble(faults, self._random.choice((0.3, 1.0)))
        if number % _LONG_HOLE_EACH == _LONG_HOLE_EACH // 2:
            self.sink.trouble((sinks.HOLE, sinks.TAKEN_HOLE))
            self.events["long hole"] += 1
            await asyncio.sleep(_LONG_HOLE_S)
        await asyncio.sleep(self._random.uniform(0.05, 1.2))
        event = self._draw()
        self.events[event.__name__.strip("_").replace("_", " ")] += 1
        await event()
        if self._random.random() < 0.7:
            self.sink.calm()

    def _draw(self) -> Callable[[], Awaitable[None]]:
        """Each event once before any comes again, so that a short run sees them, too."""
        if not self._kills:
            return self._random.choice((self._restart_in_order, self._reload))
        of_workers = (
            self._kill_worker,
            self._kill_all_workers,
            self._kill_successor,
            self._reload_and_kill,
        )
        of_all = (
            self._kill_parent_and_orphans,
            self._kill_parent,
            self._kill_everything_at_once,
            self._restart_in_order,
        )
        if not self._deck:
            self._deck = [*of_workers, *of_all]
            self._random.shuffle(self._deck)
        may_be = of_all if self._worker_kills >= _WORKER_KILLS_MAX else (*of_workers, *of_all)
        event = next((event for event in self._deck if event in may_be), None)
        if event is None:
            return self._random.choice(of_all)
        self._deck.remove(event)
        return event

    async def _kill_worker(self) -> None:
        self.tree.kill(self._random.choice(await self.tree.some_workers()))
        self._worker_kills += 1

    async def _kill_all_workers(self) -> None:
        for pid in await self.tree.some_workers():
            self.tree.kill(pid)
        self._worker_kills += 1

    async def _kill_successor(self) -> None:
        """While it starts, or takes over what the first one left."""
        before = set(self.tree.workers)
        await self._kill_worker()
        give_up_at = time.monotonic() + 5.0
        new: set[int] = set()
        while not new and time.monotonic() < give_up_at:
            new = set(self.tree.workers) - before
            await asyncio.sleep(0.005)
        await asyncio.sleep(self._random.uniform(0.0, 0.8))
        for pid in new:
            self.tree.kill(pid)
        self._worker_kills += 1

    async def _reload(self) -> None:
        self.tree.reload()
        await asyncio.sleep(1.0)

    async def _reload_and_kill(self) -> None:
        """Two workers of a slot live for a moment."""
        self.tree.reload()
        await asyncio.sleep(self._random.uniform(0.0, 1.0))
        await self._kill_worker()

    async def _kill_parent_and_orphans(self) -> None:
        orphans = await self.tree.kill_parent()
        for pid in orphans:
            await asyncio.sleep(self._random.uniform(0.0, 0.3))
            self.tree.kill(pid)
        await self._start()

    async def _kill_parent(self) -> None:
        """The orphans leave by themselves, beside the next service if it gets the port."""
        await self.tree.kill_parent()
        if self._random.random() < 0.5:
            await self.tree.see_orphans_off()
        await self._start()

    async def _kill_everything_at_once(self) -> None:
        workers = self.tree.workers
        for pid in workers:
            self.tree.kill(pid)
        for pid in await self.tree.kill_parent():
            self.tree.kill(pid)
        await self._start()

    async def _restart_in_order(self) -> None:
        await self.tree.stop()
        await self._start()

    async def _start(self) -> None:
        await self.tree.start(self._random.choice((1, 2, 2, 3)))
        await self.tree.see_orphans_off()
        self._worker_kills = 0

    # The ledger.

    async def _read_ledgers(self) -> None:
        while True:
            ledger = await self.tree.ledger()
            if ledger is not None:
                self.reads += 1
                if missing := gaps(ledger):
                    self._unbalanced.append(f"{missing}")
            await asyncio.sleep(_LEDGER_EACH_S)

    async def _calm_down(self) -> dict[str, Any] | None:
        """Until nothing is held, two ticks long: RED that was gathered leaves with a tick.

        Heartbeats never end, so of the points, which a 401 may have paused for long, it is enough to see them all gone.
        """
        give_up_at = time.monotonic() + PATIENCE_S
        settled = 0
        ledger = None
        while settled < 5 or ledger is None or ledger["points"]["held"]:
            await asyncio.sleep(0.5)
            ledger = await self.tree.ledger()
            held = ledger is None or ledger["held"] or ledger["distributions"]["held"]
            settled = 0 if held else settled + 1
            if time.monotonic() > give_up_at:
                raise AssertionError(f"something is held for ever: {ledger}")
        return ledger


def report(run: Chaos, verdict: Verdict) -> str:
    figures: dict[str, object] = {
        "kills": run.tree.kills,
        "starts of the service": run.tree.starts,
        "posts": run.posts,
        "spans": len(run.truth.states),
        **verdict.figures,
        "ledgers read": run.reads,
    }
    rows = [f"{name.replace('_', ' '):32} {value:>12}" for name, value in figures.items()]
    rows += [f"  {name:30} {count:>12}" for name, count in sorted(run.events.items())]
    rows += [f"  sink: {name:24} {count:>12}" for name, count in sorted(run.sink.used.items())]
    return "\n".join([*rows, *(f"BROKEN: {fault}" for fault in verdict.faults)])


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    parser.add_argument("--posts", type=float, default=60.0, help="posts per second")
    parser.add_argument("--keep", type=Path, help="a folder for log and spool, kept at the end")
    parser.add_argument("--otlp", action="store_true", help="deliver by OTLP")
    options = parser.parse_args(arguments)
    print(f"seed {options.seed}", flush=True)
    with TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        run = Chaos(folder, options.seed, options.rounds, options.posts, otlp=options.otlp)
        verdict = asyncio.run(run.run(lambda text: print(text, flush=True)))
    print(f"{options.rounds} rounds in {time.monotonic() - began:.0f} s, seed {options.seed}")
    print(report(run, verdict))
    return 1 if verdict.faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
