"""What a span costs over 10 to 5,000 kept connections.

Run: ``python tests/bench/connections.py``.  All connections are busy in the closed loop of "us/span"; latency is from
an open loop at 20,000 spans/s.  Flat is within a tenth.  "KiB each" is what a kept connection weighs in the worker.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench import harness
from tests.bench.bodies import Traffic
from tests.bench.harness import Result, Rows, bench
from tests.bench.machine import allow_files
from tests.bench.servers import tracefwd

CONNECTIONS = (10, 100, 1_000, 5_000)
_RATE_SPANS_PER_S = 20_000


def at(connections: int, seconds: float) -> Rows:
    with bench(tracefwd(), Traffic(connections=connections)) as one:
        rows = {f"{connections:,}": one.limit(seconds)}
        steady = one.at_rate(_RATE_SPANS_PER_S, seconds)
    cut = harness.cut(rows, "spans/CPU-s", "us/span", "system us", "lost", "not 202")
    (row,) = cut.values()
    row |= {name: steady[name] for name in ("p50 ms", "p99 ms", "max ms")}
    row["worker MiB"] = steady["largest"]
    return cut


def measure(args: argparse.Namespace) -> Result:
    allow_files(max(CONNECTIONS))
    cells = [partial(at, connections, args.seconds) for connections in CONNECTIONS]
    result = harness.run_rounds("connections", cells, args.rounds)
    few, many = f"{CONNECTIONS[0]}", f"{CONNECTIONS[-1]:,}"
    more_kib = (result.median(many, "worker MiB") - result.median(few, "worker MiB")) * 1024
    each = more_kib / (CONNECTIONS[-1] - CONNECTIONS[0])
    result.notes = [result.flat("us/span", few), f"a connection weighs {each:.1f} KiB"]
    return result


def arguments() -> argparse.ArgumentParser:
    return harness.parser(__doc__, seconds=4.0, rounds=3)


if __name__ == "__main__":
    sys.exit(harness.command(arguments(), measure))
