"""What a span costs with 1 to 100,000 RED series behind it.

Run: ``python tests/bench/cardinality.py``.  "us/span" is without any tick; "tick s" is the CPU that sending all series
once costs, from a second run whose interval lies inside the load; "minute us" is both together at the default interval
of a minute and this row's rate of spans, which is what an operator pays.  Flat is within a tenth from 10 to 10,000.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench import harness
from tests.bench.bodies import SPANS, Traffic
from tests.bench.harness import Result, Rows, bench
from tests.bench.servers import tracefwd

SERIES = (1, 10, 100, 1_000, 10_000, 100_000)
_MINUTE_S = 60.0
# More series and names than the defaults allow, or the rows beyond would measure the overflow series.
_ROOM = {"RED__SERIES_MAX": "200000", "MAPPING__OPERATION__NAMES_MAX": "200000"}


def at(series: int, seconds: float) -> Rows:
    traffic = Traffic(series=series, spans=max(SPANS, series))
    with bench(tracefwd(RED__INTERVAL="1h", **_ROOM), traffic) as one:
        quiet = one.limit(seconds)
    # One tick falls into every window as long as the interval.
    with bench(tracefwd(RED__INTERVAL=f"{seconds:g}s", **_ROOM), traffic) as one:
        ticking = one.limit(seconds)
    spans = quiet["spans/s"] * seconds
    tick_s = max(ticking["us/span"] - quiet["us/span"], 0.0) * spans / 1e6
    minute_us = quiet["us/span"] + tick_s * 1e6 / (quiet["spans/s"] * _MINUTE_S)
    row = {
        "us/span": quiet["us/span"],
        "tick s": tick_s,
        "minute us": minute_us,
        "PSS MiB": ticking["largest"],
        "lost": quiet["lost"] + ticking["lost"],
    }
    return {f"{series:,}": row}


def measure(args: argparse.Namespace) -> Result:
    cells = [partial(at, series, args.seconds) for series in SERIES]
    result = harness.run_rounds("RED series", cells, args.rounds)
    result.notes = [result.flat("us/span", "10"), result.flat("minute us", "10")]
    return result


def arguments() -> argparse.ArgumentParser:
    return harness.parser(__doc__, seconds=4.0, rounds=3)


if __name__ == "__main__":
    sys.exit(harness.command(arguments(), measure))
