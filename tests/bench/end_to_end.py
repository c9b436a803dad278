"""The whole service under load, beside any peer that is built: spans delivered per CPU-second, latency, memory, loss.

Run: ``python tests/bench/end_to_end.py [--peer java=JAR] [--peer otel=BINARY] [--peer otel-wavefront=BINARY]``

What is measured is pinned to the first core; driver and sink share the other.  A closed loop finds the limit; open
loops at 10,000 spans/s, at nine tenths and at half of the limit give latency (from the time a post was due) and memory,
beside an empty server's at the same rate on the same loop; at nine tenths also beside a busy server's at its own, since
so little room a machine takes from any server now and then.  Further rows are the limit with another profile or
format, with ten rules, and at each level of durability.  ``README.md`` says how to read the columns.
"""

import argparse
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.bench import harness  # noqa: E402
from tests.bench.bodies import Traffic  # noqa: E402
from tests.bench.harness import Cell, Result, Rows, bench  # noqa: E402
from tests.bench.servers import BUSY, EMPTY, Server, peer, tracefwd  # noqa: E402

STEADY_SPANS_PER_S = 10_000
# The nearer to the limit, the sooner behind it: a machine's speed has not changed then.
SHARES = {"90 %": 0.9, "half": 0.5}
RULES = {
    "RULES__FILE": str(Path(__file__).with_name("ten_rules.yaml")),
    "RULES__PORT": "9411",
}
VARIANTS: dict[str, tuple[Server, Traffic]] = {
    "json v1": (tracefwd(), Traffic(encoding="v1")),
    "proto3": (tracefwd(), Traffic(encoding="proto3")),
    "wavefront-proxy": (tracefwd(profile="wavefront-proxy"), Traffic()),
    "ten rules": (tracefwd(**RULES), Traffic()),
}
"""How each variant of tracefwd's limit is started and driven."""
LEVELS = ("disk", "fsync")


def service(seconds: float) -> Rows:
    """tracefwd at each rate, the empty server at the same rates right after it, and the busy one near its own limit."""
    with bench(tracefwd()) as one:
        rows = {"10,000 spans/s": one.at_rate(STEADY_SPANS_PER_S, seconds)}
        rows["limit"] = one.limit(seconds)
        limit = rows["limit"]["spans/s"]
        for name, share in SHARES.items():
            rows[name] = one.at_rate(limit * share, seconds)
    with bench(BUSY) as busy:
        rows["busy"] = busy.limit(seconds)
        rows["busy, 90 %"] = busy.at_rate(rows["busy"]["spans/s"] * SHARES["90 %"], seconds)
    with bench(EMPTY) as floor:
        rows["empty"] = floor.limit(seconds)
        for name, share in SHARES.items():
            rows[f"empty, {name}"] = floor.at_rate(limit * share, seconds)
    return rows


def limit_only(seconds: float) -> Rows:
    with bench(tracefwd()) as one:
        return {"limit": one.limit(seconds)}


def at_limit(name: str, server: Server, traffic: Traffic, seconds: float) -> Rows:
    with bench(server, traffic) as one:
        return {name: one.limit(seconds)}


def durable(level: str, folder: Path | None, seconds: float) -> Rows:
    with TemporaryDirectory(dir=folder) as spool:
        server = tracefwd(SPOOL__FOLDER=spool, SPOOL__DURABILITY=level)
        return at_limit(level, server, Traffic(), seconds)


def other(server: Server, seconds: float) -> Rows:
    """A peer at its limit, and at half of what it delivered until it had delivered all."""
    with bench(server) as one:
        rows = {server.name: one.limit(seconds)}
        limit = rows[server.name]
        if limit["drain s"] < seconds:
            sustained = limit["spans/s"] * seconds / (seconds + limit["drain s"])
            rows[f"{server.name}, half"] = one.at_rate(sustained / 2, seconds)
    return rows


def cells(args: argparse.Namespace) -> list[Cell]:
    wanted = args.rows.split(",") if args.rows else []
    made: list[Cell] = [partial(service if "rates" in wanted else limit_only, args.seconds)]
    for name, (server, traffic) in VARIANTS.items():
        if name in wanted:
            made.append(partial(at_limit, name, server, traffic, args.seconds))
    made += [
        partial(durable, level, args.spool, args.seconds) for level in LEVELS if level in wanted
    ]
    return made + [partial(other, server, args.seconds) for server in args.peer]


def notes(result: Result, peers: list[Server]) -> list[str]:
    found = []
    for server in peers:
        ratio = result.ratio("limit", server.name, "spans/CPU-s")
        found.append(f"{ratio:.1f} times the spans per CPU-second of {server.name}")
    for name in (*VARIANTS, *LEVELS):
        share = result.ratio(name, "limit", "spans/CPU-s")
        found += [f"{name}: {share:.0%} of the limit's spans per CPU-second"] * bool(share)
    for name in SHARES:
        for kind, whose in (("empty", "an empty server's"), ("busy", "a busy server's")):
            if (other := f"{kind}, {name}") in result.rounds:
                more = result.median(name, "p99 ms") - result.median(other, "p99 ms")
                found.append(f"p99 at {name} of the limit: {more:+.1f} ms from {whose}")
    if "empty" in result.rounds:
        spans = result.ratio("limit", "empty", "us/span")
        found.append(f"one span costs {spans:.1f} empty spans")
    return found


ROWS = ("rates", *VARIANTS, *LEVELS)


def measure(args: argparse.Namespace) -> Result:
    result = harness.run_rounds("end to end", cells(args), args.rounds)
    result.notes = notes(result, args.peer)
    return result


def arguments() -> argparse.ArgumentParser:
    made = harness.parser(__doc__, seconds=6.0)
    made.add_argument("--peer", action="append", type=peer, default=[], metavar="NAME=PATH")
    made.add_argument("--spool", type=Path, help="where the spool's folder is made")
    made.add_argument(
        "--rows", default=",".join(ROWS), help="beside the limit and peers (default: %(default)s)"
    )
    return made


if __name__ == "__main__":
    sys.exit(harness.command(arguments(), measure))
