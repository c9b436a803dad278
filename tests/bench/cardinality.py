"""What a span costs with 1 to 100,000 RED series behind it.

Run: ``python tests/bench/cardinality.py``.  "us/span" is the service at its limit, between two ticks; "tick s" is the
CPU that draining, rendering and packing all series costs once, in this process, after a minute's worth of spans;
"minute us" is both together at this row's rate and the default interval of a minute, which is what an operator pays.
Flat is within a tenth from 10 to 10,000, which is told side by side.
"""

import argparse
import sys
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench import harness
from tests.bench.bodies import SPANS, Traffic
from tests.bench.harness import Result, Rows, bench
from tests.bench.servers import Server, tracefwd
from tracefwd.exporter.compress import gzip_or_plain
from tracefwd.exporter.lines import LineWriter
from tracefwd.model import Heartbeat, RedPoint
from tracefwd.processor.istio import make_istio_mapper
from tracefwd.processor.red import RedAggregator
from tracefwd.receiver.decode import make_decode
from tracefwd.settings import MappingSettings, OperationSettings, RedSettings

SERIES = (1, 10, 100, 1_000, 10_000, 100_000)
_FLAT = (10, 1_000, 10_000)
_MINUTE_S = 60.0
# More series and names than the defaults allow, or the rows beyond would measure the overflow series.
_SERIES_MAX, _NAMES_MAX = 200_000, 200_000
# A minute at this rate is counted before the tick; more spans find the same buckets.
_COUNTED_SPANS_PER_S = 20_000
_NOW_S = 1_795_400_000


def with_series(series: int) -> tuple[Server, Traffic]:
    options = {
        "RED__INTERVAL": "1h",
        "RED__SERIES_MAX": str(_SERIES_MAX),
        "MAPPING__OPERATION__NAMES_MAX": str(_NAMES_MAX),
    }
    return tracefwd(**options), Traffic(series=series, spans=max(SPANS, series))


def at(series: int, seconds: float) -> Rows:
    server, traffic = with_series(series)
    with bench(server, traffic) as one:
        row = one.limit(seconds)
    tick = tick_s(traffic)
    shown = {
        "us/span": row["us/span"],
        "tick s": tick,
        "minute us": row["us/span"] + tick * 1e6 / (row["spans/s"] * _MINUTE_S),
        "worker MiB": row["largest"],
        "lost": row["lost"],
    }
    return {f"{series:,}": shown}


def tick_s(traffic: Traffic) -> float:
    """CPU-seconds of sending every series once."""
    settings = RedSettings(series_max=_SERIES_MAX)
    mapping = MappingSettings(operation=OperationSettings(names_max=_NAMES_MAX))
    decode, map_spans = make_decode(), make_istio_mapper(mapping, settings)
    red, writer = RedAggregator(settings), LineWriter()
    spans = [
        span
        for envoy in traffic.envoys(_NOW_S * 1_000_000)
        for request in envoy
        for span in map_spans(decode(request.body, ""), _NOW_S * 1_000_000).spans
    ]
    for turn in range(int(_COUNTED_SPANS_PER_S * _MINUTE_S / len(spans))):
        for span in spans:
            # Latencies vary; those of the generator repeat.
            span.duration_us += 97 * turn
        red.observe(spans, _NOW_S)
    assert red.active >= min(traffic.series, len(spans))
    begin = time.process_time()
    drained = list(red.drain(_NOW_S + 1))
    points = [item for item in drained if isinstance(item, RedPoint)]
    beats = [item for item in drained if isinstance(item, Heartbeat)]
    payloads = [*writer.write_red(points, _NOW_S), *writer.write_heartbeats(beats, _NOW_S)]
    gzip_or_plain(b"".join(payload.data for payload in payloads))
    return time.process_time() - begin


def measure(args: argparse.Namespace) -> Result:
    cells = [partial(at, series, args.seconds) for series in SERIES]
    result = harness.run_rounds("RED series", cells, args.rounds)
    driven = {f"{series:,}": with_series(series) for series in _FLAT}
    beside = harness.side_by_side("RED series side by side", driven, args)
    result.notes = [
        f"side by side, {beside.flat('us/span', '10')}",
        result.flat("minute us", "10"),
    ]
    return result


def arguments() -> argparse.ArgumentParser:
    return harness.parser(__doc__, seconds=4.0, rounds=3)


if __name__ == "__main__":
    sys.exit(harness.command(arguments(), measure))
