"""What a span costs with 1, 2 and 4 workers.

Run: ``python tests/bench/workers.py``.  All processes share the target's core, so spans per CPU-second show what the
workers cost each other when they take turns.  What more cores bring is measured with a core for each of two workers
where there are at least four cores; where there are two, driver and sink share one of them with the second worker, so
that its spans per CPU-second still count, and its throughput does not.

Two processes that take turns on one core take each other's caches, whatever they are.  How much that is show "pipeline"
and "2 pipelines" (``pipeline.py``): the same work without sockets in one process, and in two that share nothing.  What
is left when they change places twenty times a second instead of some three hundred show the rows "in long slices".
"""

import argparse
import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench import harness, slices
from tests.bench.bodies import Traffic
from tests.bench.harness import Result, Rows, bench
from tests.bench.servers import SinkPorts, Started, tracefwd

WORKERS = (1, 2, 4)
_CORES_MIN = 4
# So many that each of four workers finds a whole bout of posts whenever it looks.
_CONNECTIONS = 128
_SLICE_MS = 50.0


def at(workers: int, seconds: float) -> Rows:
    with bench(tracefwd(SERVICE__WORKERS=str(workers)), Traffic(connections=_CONNECTIONS)) as one:
        rows = {f"{workers}": one.limit(seconds)}
    return harness.cut(rows, "spans/CPU-s", "us/span", "spans/s", "p99 ms", "PSS MiB", "lost")


def in_long_slices(workers: int, seconds: float) -> Rows:
    """On one core, which each process keeps for 50 ms while it has work."""
    server = tracefwd(SERVICE__WORKERS=str(workers))

    def start(port: int, sinks: SinkPorts, folder: Path) -> Started:
        started = server.start(port, sinks, folder)
        return replace(started, command=slices.long(started.command, _SLICE_MS))

    with bench(replace(server, start=start), Traffic(connections=_CONNECTIONS)) as one:
        rows = {f"{workers} in long slices": one.limit(seconds)}
    return harness.cut(rows, "spans/CPU-s", "us/span", "spans/s", "p99 ms", "PSS MiB", "lost")


def spread(workers: int, seconds: float, cores: str) -> Rows:
    """On cores of their own; driver and sink stay on the second one."""
    server = replace(tracefwd(SERVICE__WORKERS=str(workers)), cores=cores)
    with bench(server, Traffic(connections=_CONNECTIONS)) as one:
        rows = {f"{workers} on two cores": one.limit(seconds)}
    return harness.cut(rows, "spans/CPU-s", "us/span", "spans/s", "p99 ms", "PSS MiB", "lost")


def unrelated(processes: int, seconds: float) -> Rows:
    """As many processes that share nothing but the core."""
    command = [sys.executable, str(Path(__file__).with_name("pipeline.py")), str(seconds)]
    started = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(processes)
    ]
    found = [json.loads(process.communicate()[0]) for process in started]
    rate = sum(each["spans"] for each in found) / sum(each["cpu_s"] for each in found)
    name = "pipeline" if processes == 1 else f"{processes} pipelines"
    return {name: {"spans/CPU-s": rate, "us/span": 1e6 / rate}}


def measure(args: argparse.Namespace) -> Result:
    cells = [partial(at, workers, args.seconds) for workers in WORKERS]
    cells += [partial(unrelated, processes, args.seconds) for processes in (1, 2)]
    if slices.are_granted():
        cells += [partial(in_long_slices, workers, args.seconds) for workers in (1, 2)]
    many = (os.cpu_count() or 1) >= _CORES_MIN
    cores = "0,2" if many else "0,1"
    # Twice a round, because which worker has a core with the driver changes from start to start.
    cells += [partial(spread, workers, args.seconds, cores) for workers in (1, 2, 1, 2)]
    result = harness.run_rounds("workers", cells, args.rounds)
    share = result.ratio("2", "1", "spans/CPU-s")
    apart = result.ratio("2 pipelines", "pipeline", "spans/CPU-s")
    result.notes = [
        f"two workers: {share:.0%} of one worker's spans per CPU-second",
        f"two processes that share nothing but the core: {apart:.0%} of one",
    ]
    if slices.are_granted():
        seldom = result.ratio("2 in long slices", "1 in long slices", "spans/CPU-s")
        result.notes.append(f"two workers that seldom change places: {seldom:.0%} of one")
    spread_share = result.ratio("2 on two cores", "1 on two cores", "spans/CPU-s")
    result.notes.append(
        f"two workers on two cores: {spread_share:.0%} of one's spans per CPU-second"
    )
    more = result.ratio("2 on two cores", "1 on two cores", "spans/s")
    beside = (
        "" if many else f", with driver and sink beside one of them: {_CORES_MIN} cores are needed"
    )
    result.notes.append(f"two workers on two cores: {more:.2f} times the throughput of one{beside}")
    return result


def arguments() -> argparse.ArgumentParser:
    return harness.parser(__doc__, seconds=4.0, rounds=3)


if __name__ == "__main__":
    sys.exit(harness.command(arguments(), measure))
