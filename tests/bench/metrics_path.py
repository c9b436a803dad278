"""Samples per CPU-second from the bytes of a real /federate body to point lines, with the integration's own filters.

Beside it, in the same run and alternating with it: ``prometheus_client``'s parser alone (no filters, no points).  The
collector's figure is a recorded one (tests/fixtures/collector/README.md), of another machine of the same kind, fetching
included.  CPU time of this process; the median of the rounds.

    .venv/bin/python tests/bench/metrics_path.py [ROUNDS]
"""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

from prometheus_client.parser import text_string_to_metric_families  # noqa: E402

from tests.metricspath.parts import FEDERATE, NOW_S, SEED_FILTERS, translation  # noqa: E402
from tracefwd.metricspath.translate import Translation  # noqa: E402

# Recorded: CPU-seconds per 1,000 samples of this body with these filters.
COLLECTOR_CPU_S = 0.10
GOAL = 8
_PIECE_BYTES = 65_536


def scrape(of: Translation, body: bytes) -> tuple[int, int]:
    begun = of.begin(NOW_S)
    for start in range(0, len(body), _PIECE_BYTES):
        begun.feed(body[start : start + _PIECE_BYTES])
    begun.finish(complete=True)
    return begun.counts.samples, begun.counts.points


def cpu_s(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def main(rounds: int) -> None:
    body = (FEDERATE / "medium.txt").read_bytes()
    text = body.decode()
    warm = {mode: translation(mode, filters=SEED_FILTERS) for mode in ("default", "collector")}
    for each in warm.values():
        samples, points = scrape(each, body)
    rows: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, work in (
            ("default, later scrapes", lambda: scrape(warm["default"], body)),
            ("collector, later scrapes", lambda: scrape(warm["collector"], body)),
            ("default, first scrape", lambda: scrape(translation(filters=SEED_FILTERS), body)),
            (
                "prometheus_client, parser alone",
                lambda: sum(len(f.samples) for f in text_string_to_metric_families(text)),
            ),
        ):
            rows.setdefault(name, []).append(cpu_s(work))
    print(
        f"medium.txt: {len(body):,} bytes, {samples:,} samples, {points:,} points; {rounds} rounds"
    )
    print(f"{'':34}{'ms':>9}{'samples/CPU-s':>16}{'x collector':>13}")
    for name, times in rows.items():
        middle = statistics.median(times)
        rate = samples / middle
        print(f"{name:34}{middle * 1000:9.1f}{rate:16,.0f}{rate * COLLECTOR_CPU_S / 1000:13.1f}")
    print(f"{'collector (recorded)':34}{'':9}{1000 / COLLECTOR_CPU_S:16,.0f}{1.0:13.1f}")
    best = samples / statistics.median(rows["default, later scrapes"]) * COLLECTOR_CPU_S / 1000
    print(f"the goal of {GOAL} times the collector was {'met' if best >= GOAL else 'not met'}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
