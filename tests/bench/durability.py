"""What each level of durability costs.

Run: ``python tests/bench/durability.py [--spool FOLDER]``.  The folder decides what a sync costs: put it where the
spool would be.
"""

import argparse
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench import harness
from tests.bench.harness import Result, Rows, bench
from tests.bench.servers import tracefwd

LEVELS = ("memory", "disk", "fsync")


def at(level: str, folder: Path | None, seconds: float) -> Rows:
    with TemporaryDirectory(dir=folder) as spool:
        options = {"SPOOL__FOLDER": spool, "SPOOL__DURABILITY": level}
        with bench(tracefwd(**options)) as one:
            rows = {level: one.limit(seconds)}
            steady = one.at_rate(rows[level]["spans/s"] / 2, seconds)
    columns = ("spans/CPU-s", "us/span", "system us", "spans/s", "PSS MiB", "lost", "not 202")
    cut = harness.cut(rows, *columns)
    cut[level] |= {"half p50 ms": steady["p50 ms"], "half p99 ms": steady["p99 ms"]}
    return cut


def measure(args: argparse.Namespace) -> Result:
    cells = [partial(at, level, args.spool, args.seconds) for level in LEVELS]
    result = harness.run_rounds("durability", cells, args.rounds)
    result.notes = [result.flat("spans/CPU-s", "memory")]
    return result


def arguments() -> argparse.ArgumentParser:
    made = harness.parser(__doc__, seconds=4.0)
    made.add_argument("--spool", type=Path, help="where the spool's folder is made")
    return made


if __name__ == "__main__":
    sys.exit(harness.command(arguments(), measure))
