"""Every benchmark of the service, one after the other: the tables that ``README.md`` has.

Run: ``python tests/bench/all.py [--peer NAME=PATH ...] [--json FILE] [--brief]``.  A quarter of an hour with three
peers on an idle machine, a third with ``--brief``, whose figures only show that everything runs.  Each benchmark is
a command of its own as well, with more rounds where one wants them.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench import (
    batch_size,
    cardinality,
    connections,
    console,
    durability,
    end_to_end,
    gen,
    harness,
    machine,
    memory,
    odd_input,
    pauses,
    stages,
    workers,
)
from tests.bench.harness import Measure, Result, progress

Arguments = Callable[[], argparse.ArgumentParser]
# With the rounds and seconds of a load that fit together into a quarter of an hour.
BENCHMARKS: tuple[tuple[Measure, Arguments, int, float], ...] = (
    (stages.measure, stages.arguments, 10, 0.0),
    (end_to_end.measure, end_to_end.arguments, 3, 3.0),
    (cardinality.measure, cardinality.arguments, 2, 3.0),
    (batch_size.measure, batch_size.arguments, 2, 2.0),
    (connections.measure, connections.arguments, 2, 2.0),
    (odd_input.measure, odd_input.arguments, 2, 2.0),
    (workers.measure, workers.arguments, 3, 3.0),
    (durability.measure, durability.arguments, 2, 3.0),
    (memory.measure, memory.arguments, 1, 10.0),
    (console.measure, console.arguments, 3, 5.0),
    (pauses.measure, pauses.arguments, 2, 17.0),
    (gen.measure, gen.arguments, 1, 3.0),
)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--json", metavar="FILE", type=Path)
    parser.add_argument("--brief", action="store_true", help="one short round of each")
    given = parser.parse_args()
    machine.stay_off_the_target()
    results: list[Result] = []
    failed = False
    for measure, arguments, rounds, seconds in BENCHMARKS:
        options = ["--rounds", str(rounds), "--seconds", str(seconds)]
        if given.brief:
            options = ["--rounds", "1", "--seconds", "1"]
        if measure is end_to_end.measure:
            options += [f"--peer={peer}" for peer in given.peer]
        begin = time.monotonic()
        try:
            result = measure(arguments().parse_args(options))
        except Exception as error:  # noqa: BLE001 - the others' quarter of an hour must not be lost
            failed = True
            result = Result(measure.__module__, notes=[f"failed: {error!r}"])
        results.append(result)
        progress(f"{result.title}: {time.monotonic() - begin:.0f} s")
    harness.publish(results, given.json)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
