"""What odd spans cost, and whether the plain ones beside them pay for it.

Run: ``python tests/bench/odd_input.py``.  Odd is a span whose user agent has escapes, is not ASCII, or is longer than
Wavefront takes.  "apart" are as many odd spans in posts of their own: what more they cost among plain ones is what
these pay.  "expected us" is (1 - s) plain + s odd for a share s of odd spans, from the rows without and with only
odd spans of the same round; there an odd span finds its code in the caches, which a rare one does not.  "read" rows
are the decoder alone in this process: what is read a second time because of a neighbour is all that plain spans pay.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench import harness
from tests.bench.bodies import ODDITIES, Traffic
from tests.bench.harness import Result, Rows
from tests.bench.servers import tracefwd
from tracefwd.receiver.decode import make_decode

SHARES = (0.05, 1.0)
_READINGS = 6


def traffics() -> dict[str, Traffic]:
    found = {"plain": Traffic()}
    for oddity in ODDITIES:
        for share in SHARES:
            found[f"{oddity}, {share:.0%}"] = Traffic(oddity=oddity, odd_share=share)
        apart = Traffic(oddity=oddity, odd_share=SHARES[0], odd_posts=True)
        found[f"{oddity}, {SHARES[0]:.0%} apart"] = apart
    return found


def read(oddity: str) -> Rows:
    """The decoder alone, on posts with an odd span here and there and on as many odd spans in posts of their own."""
    return {
        f"{oddity}, {SHARES[0]:.0%} read{place}": {
            "us/span": _read_us(Traffic(oddity=oddity, odd_share=SHARES[0], odd_posts=is_apart))
        }
        for place, is_apart in (("", False), (" apart", True))
    }


def _read_us(traffic: Traffic) -> float:
    decode = make_decode()
    requests = [each for envoy in traffic.envoys(time.time_ns() // 1000) for each in envoy]
    best = float("inf")
    # The first time keys are learned.
    for _ in range(_READINGS):
        begin = time.process_time()
        for request in requests:
            decode(request.body, "application/json")
        best = min(best, time.process_time() - begin)
    return best * 1e6 / sum(request.spans for request in requests)


def expect(result: Result) -> None:
    """Adds the column; a round's rows belong together."""
    for number, row in enumerate(result.rounds["plain"]):
        for oddity in ODDITIES:
            odd = result.rounds[f"{oddity}, {1:.0%}"][number]["us/span"]
            for share in SHARES:
                expected = (1 - share) * row["us/span"] + share * odd
                result.rounds[f"{oddity}, {share:.0%}"][number]["expected us"] = expected


def measure(args: argparse.Namespace) -> Result:
    driven = {name: (tracefwd(), traffic) for name, traffic in traffics().items()}
    result = harness.side_by_side("odd input", driven, args)
    for oddity in ODDITIES:
        result.rounds |= {name: [row] for name, row in read(oddity).items()}
    expect(result)
    for oddity in ODDITIES:
        name = f"{oddity}, {SHARES[0]:.0%}"
        more = statistics.median(row["us/span"] / row["expected us"] for row in result.rounds[name])
        beside = result.ratio(name, f"{name} apart", "us/span")
        again = result.median(f"{name} read", "us/span") - result.median(
            f"{name} read apart", "us/span"
        )
        result.notes.append(
            f"{name}: {beside:.2f} of the cost apart, {more:.2f} of expected; reading: {again:+.2f} us a span"
        )
    return result


def arguments() -> argparse.ArgumentParser:
    return harness.parser(__doc__, seconds=3.0, rounds=3)


if __name__ == "__main__":
    sys.exit(harness.command(arguments(), measure))
