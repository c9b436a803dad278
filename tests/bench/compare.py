"""This checkout beside another one: is it faster, and by how much?

Run: ``python tests/bench/compare.py OTHER [--rounds N] [--seconds S] [--what pipeline|limit]``.  OTHER is a second
checkout (``git worktree add``) whose ``.venv`` is made (``make .venv/bin/.dev``).  ``pipeline`` is ``pipeline.py`` in
one process, ``limit`` the service at its limit.  Rounds alternate; the ratio is taken within a round, and its median
shown: below 1 this checkout is cheaper.  Two equal checkouts show what the machine's own wandering is worth.
"""

import argparse
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench import harness
from tests.bench.harness import Result, Rows

HERE = Path(__file__).parents[2]


def pipeline_us(checkout: Path, seconds: float) -> float:
    found = _run(checkout, "pipeline.py", str(seconds))
    row = json.loads(found)
    return float(row["cpu_s"] / row["spans"] * 1e6)


def limit_us(checkout: Path, seconds: float) -> float:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "rounds.json"
        given = ["--rows", "", "--rounds", "1", "--seconds", str(seconds), "--json", str(file)]
        _run(checkout, "end_to_end.py", *given)
        return float(json.loads(file.read_text())[0]["medians"]["limit"]["us/span"])


WHAT = {"pipeline": pipeline_us, "limit": limit_us}


def _run(checkout: Path, script: str, *arguments: str) -> str:
    command = [str(checkout / ".venv/bin/python"), f"tests/bench/{script}", *arguments]
    return subprocess.run(
        command, cwd=checkout, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def of(name: str, checkout: Path, args: argparse.Namespace) -> Rows:
    return {name: {"us/span": WHAT[args.what](checkout, args.seconds)}}


def measure(args: argparse.Namespace) -> Result:
    cells = [partial(of, "this", HERE, args), partial(of, "other", args.other.resolve(), args)]
    result = harness.run_rounds(args.what, cells, args.rounds)
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
