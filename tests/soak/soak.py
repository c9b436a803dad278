"""The service under a steady load for as long as one likes: does memory stay flat, does latency, is anything lost?

Run: ``python tests/soak/soak.py --seconds 3600 [--rate 4000] [--workers 2] [--reload-every 300] [-- RUN OPTIONS]``

``tracefwd run`` takes the generator's spans, open loop, and delivers them to a sink that counts.  What stands behind
``--`` goes to ``tracefwd run`` as it is, such as ``--spool FOLDER``.  A row per interval says what that interval was
like; memory is proportional set size, of the parent and of all workers; latency counts from the time at which a post
was due.  At the end the service is drained, what was acknowledged is compared with what the sink counted, and the
second quarter of the run with the last one (the first warms up).  Exit code 1 if anything was lost or has grown.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.bench.machine import tree  # noqa: E402
from tests.e2e.processes import Process, get_json, tracefwd  # noqa: E402
from tracefwd.generator.load import GenOptions, generate  # noqa: E402
from tracefwd.generator.report import Latencies, Report  # noqa: E402

CONNECTIONS = 40
ROWS = 60
INTERVAL_S_MIN = 0.5
# What may come on top of the second quarter's median: allocators keep a little more as time goes by, and another
# process on the machine makes single answers wait for its time slice.
MEMORY_GROWTH_MAX, MEMORY_SLACK_MIB = 0.05, 4.0
LATENCY_GROWTH_MAX = 0.5
P50_SLACK_MS, P99_SLACK_MS = 3.0, 20.0
FILES_GROWTH_MAX, FILES_SLACK = 0.1, 64
NOISE_EACH_S = 0.01


@dataclass(frozen=True)
class Row:
    """One interval; ``at_s`` is its end, counted from the load's beginning, and memory is as of then.

    ``noise_ms`` is how late our own timers were, at the 99th percentile: what the machine did to everybody.
    """

    at_s: float
    spans_per_s: float
    p50_ms: float
    p99_ms: float
    pss_parent_mib: float
    pss_workers_mib: float
    files: int
    held: int
    posts_lost: int
    noise_ms: float = 0.0

    HEAD = "     at  spans/s   p50 ms   p99 ms  noise ms  parent MiB  workers MiB  files    held  posts lost"

    def __str__(self) -> str:
        return (
            f"{self.at_s:6.0f}s {self.spans_per_s:8,.0f} {self.p50_ms:8.2f} {self.p99_ms:8.2f} {self.noise_ms:9.2f}"
            f" {self.pss_parent_mib:11.1f} {self.pss_workers_mib:12.1f} {self.files:6}"
            f" {self.held:7,} {self.posts_lost:11,}"
        )


@dataclass(frozen=True)
class Judged:
    """One quantity, compared over the run."""

    name: str
    unit: str
    early: float
    late: float
    allowed: float

    @property
    def is_flat(self) -> bool:
        return self.late <= self.allowed

    def __str__(self) -> str:
        word = "flat" if self.is_flat else "GROWN"
        return (
            f"{self.name}: {self.early:.2f} {self.unit} in the second quarter,"
            f" {self.late:.2f} in the last (at most {self.allowed:.2f}): {word}"
        )


def judge(rows: Sequence[Row]) -> list[Judged]:
    """Medians, so that one bad moment says nothing and a slow growth everything.  At least four rows."""
    quarter = len(rows) // 4
    assert quarter, "too short to judge"
    early, late = rows[quarter : 2 * quarter], rows[-quarter:]

    def medians(name: str) -> tuple[float, float]:
        before, after = (
            statistics.median(getattr(row, name) for row in part) for part in (early, late)
        )
        return before, after

    def judged(name: str, unit: str, growth: float, slack: float) -> Judged:
        before, after = medians(name)
        return Judged(name, unit, before, after, before * (1 + growth) + slack)

    quiet, noisy = medians("noise_ms")
    # A post goes through two processes, whose turns come as late as ours.
    noise_ms = 2 * max(0.0, noisy - quiet)

    return [
        judged("pss_parent_mib", "MiB", MEMORY_GROWTH_MAX, MEMORY_SLACK_MIB),
        judged("pss_workers_mib", "MiB", MEMORY_GROWTH_MAX, MEMORY_SLACK_MIB),
        judged("p50_ms", "ms", LATENCY_GROWTH_MAX, P50_SLACK_MS),
        judged("p99_ms", "ms", LATENCY_GROWTH_MAX, P99_SLACK_MS + noise_ms),
        # An exchange of workers has a few dozen more for a while.
        judged("files", "files", FILES_GROWTH_MAX, FILES_SLACK),
    ]


class Soak:
    """Samples one running service while the load goes on."""

    def __init__(
        self, pid: int, admin: str, seconds: float, show: Callable[[object], None]
    ) -> None:
        self.rows: list[Row] = []
        self._pid = pid
        self._admin = admin
        self._interval_s = max(seconds / ROWS, INTERVAL_S_MIN)
        self._show = show
        self._began = time.perf_counter()
        self._row_began = self._began
        self._before: dict[int, int] = {}
        self._acked = 0
        self._late_ms: list[float] = []

    async def watch(self, report: Report) -> None:
        """Add a row per interval until it is cancelled; ``report`` grows meanwhile."""
        self._show(Row.HEAD)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen_to_noise())
            while True:
                await asyncio.sleep(self._interval_s)
                row = await self._row(report)
                self.rows.append(row)
                self._show(row)

    async def _listen_to_noise(self) -> None:
        while True:
            due = time.perf_counter() + NOISE_EACH_S
            await asyncio.sleep(NOISE_EACH_S)
            self._late_ms.append((time.perf_counter() - due) * 1000)

    def _noise_ms(self) -> float:
        late, self._late_ms = sorted(self._late_ms), []
        return late[int(0.99 * len(late))] if late else 0.0

    async def _row(self, report: Report) -> Row:
        now = time.perf_counter()
        latencies = self._since_last(report.latencies)
        acked, self._acked = report.acked - self._acked, report.acked
        took_s, self._row_began = now - self._row_began, now
        held, parent, workers, files = await asyncio.to_thread(self._look)
        return Row(
            now - self._began,
            acked / took_s,
            latencies.percentile_ms(0.5),
            latencies.percentile_ms(0.99),
            parent,
            workers,
            files,
            held,
            report.posts_lost,
            self._noise_ms(),
        )

    def _since_last(self, running: Latencies) -> Latencies:
        part = Latencies()
        counts = dict(running._counts)
        part._counts = {
            bucket: count - self._before.get(bucket, 0) for bucket, count in counts.items()
        }
        part.count = sum(part._counts.values())
        part.max_s = running.max_s
        self._before = counts
        return part

    def _look(self) -> tuple[int, float, float, int]:
        held: int = get_json(f"{self._admin}/ledger")["held"]
        total = parent = 0.0
        files = 0
        # A worker may end while we look.
        for pid in tree(self._pid):
            try:
                size = _pss_mib_alone(pid)
                files += len(list(Path(f"/proc/{pid}/fd").iterdir()))
            except (FileNotFoundError, ProcessLookupError):
                continue
            total += size
            parent += size if pid == self._pid else 0.0
        return held, parent, total - parent, files


def _pss_mib_alone(pid: int) -> float:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) / 1024


@contextmanager
def sink() -> Iterator[tuple[list[str], Callable[[], int]]]:
    """The flags that lead to it, and the spans that it has counted."""
    core = max(os.sched_getaffinity(0))
    command = [sys.executable, str(ROOT / "tests/bench/sink.py"), str(core)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            output = process.stdout
            # What stands behind a proxy, and OTLP, it serves as well.
            traces, metrics, *_ = json.loads(output.readline())

            def spans() -> int:
                process.send_signal(signal.SIGUSR1)
                return int(json.loads(output.readline())["spans"])

            yield (
                [
                    *("--proxy-traces", f"http://127.0.0.1:{traces}"),
                    *("--proxy-metrics", f"http://127.0.0.1:{metrics}"),
                ],
                spans,
            )
        finally:
            process.terminate()
            # Its last words, which nobody needs here.
            process.communicate()


async def load(options: argparse.Namespace, intake: str, soak: Soak, pid: int) -> Report:
    """The whole load; SIGHUPs and rows come meanwhile."""
    generated = GenOptions(
        to=intake,
        rate=options.rate,
        seconds=options.seconds,
        connections=CONNECTIONS,
        seed=1,
        json=False,
    )
    beside: list[asyncio.Task[None]] = []

    def begin(report: Report) -> None:
        # The running report is the same object each time.
        if not beside:
            beside.append(asyncio.create_task(soak.watch(report)))

    reloading = asyncio.create_task(_reload(pid, options.reload_every))
    try:
        return await generate(generated, progress=begin)
    finally:
        for task in (*beside, reloading):
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)


async def _reload(pid: int, every_s: float) -> None:
    while every_s:
        await asyncio.sleep(every_s)
        os.kill(pid, signal.SIGHUP)


def run(options: argparse.Namespace, show: Callable[[object], None]) -> int:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        target, spans = stack.enter_context(sink())
        arguments = ["run", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", *target]
        arguments += ["--workers", str(options.workers), *options.options]
        service = stack.enter_context(Process(tracefwd(*arguments), folder, "run"))
        found = service.find(r"ready: intake (http://\S+) .* admin (http://[^\s\"]+)")
        soak = Soak(service.pid, found[2], options.seconds, show)
        with asyncio.Runner() as runner:
            report = runner.run(load(options, found[1], soak, service.pid))
        code = service.stop()
        arrived = spans()
        log = [json.loads(line) for line in service.output.splitlines()]
    return conclude(report, soak.rows, arrived, code, log, show)


def conclude(
    report: Report,
    rows: Sequence[Row],
    arrived: int,
    code: int,
    log: Sequence[dict[str, Any]],
    show: Callable[[object], None],
) -> int:
    show("")
    for line in report.lines():
        show(line)
    errors = [entry["message"] for entry in log if entry["level"] == "error"]
    for message in errors:
        show(f"error: {message}")
    show(log[-1]["message"])
    show(f"acknowledged {report.acked:,}, arrived at the sink {arrived:,}")
    verdicts = judge(rows)
    for verdict in verdicts:
        show(verdict)
    is_whole = report.complete and arrived == report.acked and not code and not errors
    return 0 if is_whole and all(verdict.is_flat for verdict in verdicts) else 1


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Is the service after an hour what it was at the start?"
    )
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--rate", type=float, default=4000.0, help="spans per second")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--reload-every", type=float, default=0.0, help="seconds; 0 is never")
    parser.add_argument("options", nargs="*", help="for tracefwd run, behind --")
    return run(parser.parse_args(arguments), lambda line: print(line, flush=True))


if __name__ == "__main__":
    sys.exit(main())
