"""What ``tracefwd gen`` itself costs, and whether it keeps up with the rates that it is asked for.

Run: ``python tests/bench/gen.py``.  It posts to a server that only answers, alone on its core; "spans/s" is what it
sent, "late" the share of posts that left more than 10 ms after their time.  Every span is made anew, with fresh ids and
times; the benchmarks' own driver sends posts made ahead (``driver.py``) and its cost is in their tables.
"""

import argparse
import json
import subprocess
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench import harness
from tests.bench.harness import Result, Rows, Sink
from tests.bench.servers import EMPTY, ROOT, Running

RATES_SPANS_PER_S = (10_000, 70_000, 140_000)


def at(spans_per_s: int, seconds: float) -> Rows:
    with Sink() as sink, Running(EMPTY, sink.ports) as server:
        command = [
            sys.executable, "-m", "tracefwd", "gen", "--json", "--connections", "32",
            "--to", f"http://127.0.0.1:{server.port}/api/v2/spans",
            "--rate", str(spans_per_s), "--seconds", str(seconds),
        ]  # fmt: skip
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    report = json.loads(done.stdout)
    row = {
        "us/span": report["cpu_s"] / report["sent"] * 1e6,
        "spans/s": report["sent"] / report["seconds"],
        "late": report["late_posts"] / report["posts"],
        "p99 ms": report["p99_ms"],
    }
    return {f"{spans_per_s:,} spans/s": row}


def measure(args: argparse.Namespace) -> Result:
    cells = [partial(at, rate, args.seconds) for rate in RATES_SPANS_PER_S]
    return harness.run_rounds("generator", cells, args.rounds)


def arguments() -> argparse.ArgumentParser:
    return harness.parser(__doc__, seconds=4.0)


if __name__ == "__main__":
    sys.exit(harness.command(arguments(), measure))
