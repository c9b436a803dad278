"""This checkout beside another one: is it faster, and by how much?

Run: ``python tests/bench/compare.py OTHER [--rounds N] [--seconds S] [--what pipeline|limit]``.  OTHER is a second
checkout (``git worktree add``) whose `.venv` is made (``make .venv/bin/.dev``).  ``pipeline`` is ``pipeline.py`` in one
process, ``limit`` the service at its limit.  Rounds alternate; the ratio is taken within a round, and its median shown:
below 1 this checkout is cheaper.  Two equal checkouts show what the machine's own wandering is worth.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

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


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("other", type=Path)
    parser.add_argument("--rounds", type=int, default=9, help="(%(default)s)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each run (%(default)s)")
    parser.add_argument("--what", choices=WHAT, default="pipeline", help="(%(default)s)")
    given = parser.parse_args()
    measure = WHAT[given.what]
    mine: list[float] = []
    others: list[float] = []
    for number in range(given.rounds):
        turns = [(HERE, mine), (given.other.resolve(), others)]
        for checkout, found in turns if number % 2 == 0 else reversed(turns):
            found.append(measure(checkout, given.seconds))
        print(f"this {mine[-1]:.2f}, other {others[-1]:.2f} us/span", flush=True)
    ratios = sorted(one / other for one, other in zip(mine, others, strict=True))
    print(
        f"{given.what}: this {statistics.median(mine):.2f}, other {statistics.median(others):.2f} us/span; "
        f"ratio {statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
