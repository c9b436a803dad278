"""The longest pauses of our own making: answers over ticks of 10,000 RED series, beside an empty server's.

Run: ``python tests/bench/pauses.py``.  RED is sent every 5 s, so the load crosses several ticks.  Each second's longest
latency (from the time a post was due) is put down as a tick's, if a tick fell into it or the second before, or as
another second's; the medians of both are shown beside their maxima, because a rented machine has pauses of its own
that no server can help: the empty server's row shows those.
"""

import argparse
import statistics
import sys
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench import harness
from tests.bench.bodies import Traffic
from tests.bench.harness import Result, Rows, bench
from tests.bench.servers import EMPTY, Server, tracefwd

SERIES = 10_000
INTERVAL_S = 5
RATE_SPANS_PER_S = 20_000


def longest(server: Server, seconds: float) -> dict[str, float]:
    with bench(server, Traffic(series=SERIES)) as one:
        begin = time.time()
        answers = one.answers_at_rate(RATE_SPANS_PER_S, seconds)
    ticks, others = [], []
    for second, millis in enumerate(answers.longest_ms()):
        # The last second is not whole.
        if second < int(seconds):
            since_tick_s = (begin + second + 1) % INTERVAL_S
            (ticks if since_tick_s < 2 else others).append(millis)
    return {
        "p50 ms": answers.percentile_ms(0.5),
        "p99 ms": answers.percentile_ms(0.99),
        "tick's ms": statistics.median(ticks),
        "tick's max": max(ticks),
        "others' ms": statistics.median(others),
        "others' max": max(others),
        "not 202": answers.not_202 + answers.unanswered,
    }


def at(name: str, server: Server, seconds: float) -> Rows:
    return {name: longest(server, seconds)}


def measure(args: argparse.Namespace) -> Result:
    server = tracefwd(RED__INTERVAL=f"{INTERVAL_S}s")
    # Less would meet no tick, or nothing else.
    seconds = max(args.seconds, 2.2 * INTERVAL_S)
    cells = [
        partial(at, "empty", EMPTY, seconds),
        partial(at, "tracefwd", server, seconds),
    ]
    result = harness.run_rounds("pauses", cells, args.rounds)
    tick, other = (result.median("tracefwd", column) for column in ("tick's ms", "others' ms"))
    result.notes = [
        f"a tick of {SERIES:,} series adds {tick - other:+.1f} ms to a second's longest"
    ]
    return result


def arguments() -> argparse.ArgumentParser:
    return harness.parser(__doc__, seconds=22.0, rounds=2)


if __name__ == "__main__":
    sys.exit(harness.command(arguments(), measure))
