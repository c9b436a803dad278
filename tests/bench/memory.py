"""What a worker weighs at a steady rate, and at the limit with many RED series.

Run: ``python tests/bench/memory.py``.  Proportional set size of the worker and of the whole tree (the parent is the
rest); taken while the load is on, after a tick has gone out.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench import harness
from tests.bench.bodies import Traffic
from tests.bench.harness import Result, Rows, bench
from tests.bench.servers import tracefwd

SERIES = 10_000
STEADY_SPANS_PER_S = 10_000


def at(name: str, traffic: Traffic, rate: float, seconds: float) -> Rows:
    """``rate`` 0 is the limit."""
    with bench(tracefwd(RED__INTERVAL="5s"), traffic) as one:
        row = one.at_rate(rate, seconds) if rate else one.limit(seconds)
    kept = {
        "worker MiB": row["largest"],
        "parent MiB": row["PSS MiB"] - row["largest"],
        "spans/s": row["spans/s"],
        "lost": row["lost"],
    }
    return {name: kept}


def measure(args: argparse.Namespace) -> Result:
    many = Traffic(series=SERIES)
    cells = [
        partial(at, "10,000 spans/s", Traffic(), STEADY_SPANS_PER_S, args.seconds),
        partial(at, "10,000 spans/s, 10,000 series", many, STEADY_SPANS_PER_S, args.seconds),
        partial(at, "limit", Traffic(), 0, args.seconds),
        partial(at, "limit, 10,000 series", many, 0, args.seconds),
    ]
    return harness.run_rounds("memory", cells, args.rounds)


def arguments() -> argparse.ArgumentParser:
    return harness.parser(__doc__, seconds=12.0, rounds=1)


if __name__ == "__main__":
    sys.exit(harness.command(arguments(), measure))
