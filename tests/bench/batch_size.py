"""What a span costs in posts of 1 to 1,000 spans.

Run: ``python tests/bench/batch_size.py``.  Envoys post five; one is what an idle sidecar's timer sends, a thousand a
collector in front.  A post above 64 KiB waits for its turn (``receiver/turns.py``).
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

SIZES = (1, 5, 10, 100, 1_000)


def at(size: int, seconds: float) -> Rows:
    # Fewer connections, or their posts in flight alone would be 35 MB.
    connections = 4 if size > 100 else 32
    traffic = Traffic(post_spans=size, connections=connections)
    with bench(tracefwd(), traffic) as one:
        rows = {f"{size:,} a post": one.limit(seconds)}
    return harness.cut(rows, "spans/CPU-s", "us/span", "system us", "p50 ms", "p99 ms", "lost")


def measure(args: argparse.Namespace) -> Result:
    cells = [partial(at, size, args.seconds) for size in SIZES]
    result = harness.run_rounds("batch size", cells, args.rounds)
    result.notes = [result.flat("us/span", "5 a post")]
    return result


def arguments() -> argparse.ArgumentParser:
    return harness.parser(__doc__, seconds=4.0, rounds=3)


if __name__ == "__main__":
    sys.exit(harness.command(arguments(), measure))
