"""This checkout beside another one: is it faster, and by how much?

Run: ``python tests/bench/compare.py OTHER [--rounds N] [--seconds S] [--what pipeline|limit]``.  OTHER is a second
checkout (``git worktree add``) whose ``.venv`` is made (``make .venv/bin/.dev``).  The ratio is taken within a round,
and its median shown: below 1 this checkout is cheaper.  Two equal ones show what the machine's own wandering is worth.

``pipeline`` is ``pipeline.py`` in one process, in turn.  ``limit`` is the service at its limit, both side by side.
"""

import argparse
import json
import subprocess
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench import harness
from tests.bench.bodies import Traffic
from tests.bench.harness import Result, Rows
from tests.bench.servers import ROOT, tracefwd


def pipeline_us(checkout: Path, seconds: float) -> float:
    command = [str(checkout / ".venv/bin/python"), "tests/bench/pipeline.py", str(seconds)]
    done = subprocess.run(command, cwd=checkout, check=True, stdout=subprocess.PIPE, text=True)
    row = json.loads(done.stdout)
    return float(row["cpu_s"] / row["spans"] * 1e6)


def pipelines(args: argparse.Namespace) -> Result:
    def of(name: str, checkout: Path) -> Rows:
        return {name: {"us/span": pipeline_us(checkout, args.seconds)}}

    cells = [partial(of, "this", ROOT), partial(of, "other", args.other.resolve())]
    return harness.run_rounds("pipeline", cells, args.rounds)


def limits(args: argparse.Namespace) -> Result:
    checkouts = {"this": ROOT, "other": args.other.resolve()}
    driven = {
        name: (tracefwd(name, checkout=checkout), Traffic()) for name, checkout in checkouts.items()
    }
    return harness.side_by_side("limit", driven, args)


WHAT = {"pipeline": pipelines, "limit": limits}


def measure(args: argparse.Namespace) -> Result:
    result = WHAT[args.what](args)
    pairs = zip(result.rounds["this"], result.rounds["other"], strict=True)
    ratios = [mine["us/span"] / other["us/span"] for mine, other in pairs]
    ratio = result.ratio("this", "other", "us/span")
    result.notes = [f"this of other: {ratio:.3f} ({min(ratios):.3f} to {max(ratios):.3f})"]
    return result


def arguments() -> argparse.ArgumentParser:
    made = harness.parser(__doc__, seconds=2.0, rounds=9)
    made.add_argument("other", type=Path)
    made.add_argument("--what", choices=WHAT, default="pipeline", help="(%(default)s)")
    return made


if __name__ == "__main__":
    sys.exit(harness.command(arguments(), measure))
