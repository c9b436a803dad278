"""What people who look cost a worker: ten open consoles and five taps, beside the same service with nobody looking.

Run: ``python tests/bench/console.py [--seconds 6] [--rounds 3]``

One service takes both loads one after the other, so that the machine's moods fall on both alike.  Each console reads
every view; the taps are for everything, for errors, for slow spans, for a service, and one that does not read.

What a worker does for lookers is bounded by time and not by load, so it is measured where the load itself makes little
noise: at 5,000 spans/s, which is more than are examined for taps.  ``worker core`` is what the worker's process
takes of a core; what it takes more when watched is gone from each of its CPU-seconds at the limit, too, and so is the
share of its spans per CPU-second that lookers cost.  The exit code is 0 when the median of the rounds' differences is
less than 3 %.  A last pair of rows is what parent and worker weigh with ten thousand operations, watched and not.
"""

import argparse
import http.client
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench import harness, machine
from tests.bench.bodies import Traffic
from tests.bench.harness import Bench, Result, Row, Rows, bench
from tests.bench.servers import tracefwd

LOSS_MAX = 0.03
STEADY_SPANS_PER_S = 5_000
CONSOLES = 10
OPERATIONS = 10_000
VIEWS = "flow,history,services,edges,spans,refused,metrics-path"
TAPS = ("rate=100", "error=true", "min_duration_ms=100", "service=reviews", "rate=1000")

# One process for all of them; the last one opens its stream and reads nothing of it.
READERS = """
import asyncio, sys
async def reader(port, path, reads):
    stream, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\n\\r\\n".encode())
    assert b"200" in await stream.readline()
    while reads and await stream.read(2**20):
        pass
    await asyncio.Event().wait()
async def main(port, paths):
    tasks = [asyncio.create_task(reader(port, path, path != paths[-1])) for path in paths]
    print("reading", flush=True)
    await asyncio.gather(*tasks)
asyncio.run(main(int(sys.argv[1]), sys.argv[2:]))
"""


def admin_port(one: Bench) -> int:
    """As its command line says."""
    words = Path(f"/proc/{one.running.pid}/cmdline").read_bytes().split(b"\0")
    return int(words[words.index(b"--admin") + 1].rpartition(b":")[2])


@contextmanager
def readers(port: int) -> Iterator[None]:
    paths = [f"/api/v1/events?views={VIEWS}"] * CONSOLES
    paths += [f"/api/v1/tap?{query}" for query in TAPS]
    command = [sys.executable, "-c", READERS, str(port), *paths]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(1.5)  # until workers know that somebody looks
        flow = get(port, "/api/v1/flow")
        assert flow["watchers"]["streams"] == CONSOLES + len(TAPS)
        yield
        assert process.poll() is None, "a reader has left"
    finally:
        process.kill()
        process.wait()


def get(port: int, path: str) -> dict[str, dict[str, int]]:
    client = http.client.HTTPConnection("127.0.0.1", port)
    client.request("GET", path)
    found: dict[str, dict[str, int]] = json.loads(client.getresponse().read())
    client.close()
    return found


def processes(one: Bench) -> tuple[int, int]:
    """Parent and worker."""
    task = Path(f"/proc/{one.running.pid}/task/{one.running.pid}/children")
    return one.running.pid, int(task.read_text().split()[0])


def steady(one: Bench, seconds: float) -> Row:
    parent, worker = processes(one)
    before, began = (machine.cpu(worker).total_s, machine.cpu(parent).total_s), time.monotonic()
    # Not until all is delivered: lookers cost most while spans flow.
    answers = one.answers_at_rate(STEADY_SPANS_PER_S, seconds)
    wall_s = time.monotonic() - began
    worker_s = machine.cpu(worker).total_s - before[0]
    # The parent's tree is both.
    parent_s = machine.cpu(parent).total_s - before[1] - worker_s
    return {
        "worker core": worker_s / wall_s,
        "parent core": parent_s / wall_s,
        "spans/s": answers.acked / answers.seconds,
        "p99 ms": answers.percentile_ms(0.99),
        "not 202": answers.not_202 + answers.unanswered,
    }


def cost(seconds: float) -> Rows:
    with bench(tracefwd(RED__INTERVAL="5s")) as one:
        alone = steady(one, seconds)
        with readers(admin_port(one)):
            return {"alone": alone, "watched": steady(one, seconds)}


def weight(seconds: float) -> Rows:
    """With ten thousand operations."""
    server = tracefwd(RED__INTERVAL="5s", RED__SERIES_MAX=str(2 * OPERATIONS))
    with bench(server, Traffic(series=OPERATIONS)) as one:
        alone = one.at_rate(10_000, seconds)
        with readers(admin_port(one)):
            watched = one.at_rate(10_000, seconds)
    return {
        f"{OPERATIONS:,} operations, {name}": {
            "worker MiB": row["largest"],
            "parent MiB": row["PSS MiB"] - row["largest"],
            "p99 ms": row["p99 ms"],
            "lost": row["lost"],
        }
        for name, row in (("alone", alone), ("watched", watched))
    }


def loss(result: Result) -> float:
    """Of a worker's CPU-second."""
    pairs = zip(result.rounds["watched"], result.rounds["alone"], strict=True)
    return statistics.median(one["worker core"] - other["worker core"] for one, other in pairs)


def measure(args: argparse.Namespace) -> Result:
    result = harness.run_rounds("console", [partial(cost, args.seconds)], args.rounds)
    lost = loss(result)
    result.notes.append(
        f"{CONSOLES} consoles and {len(TAPS)} taps cost the worker {lost:.1%} of its spans per CPU-second; "
        f"{'less' if lost < LOSS_MAX else 'NOT less'} than {LOSS_MAX:.0%}"
    )
    return result


def arguments() -> argparse.ArgumentParser:
    return harness.parser(__doc__, seconds=8.0)


def main() -> int:
    args = arguments().parse_args()
    machine.stay_off_the_target()
    console = measure(args)
    memory = harness.run_rounds("memory of the console", [partial(weight, args.seconds)], 1)
    harness.publish([console, memory], args.json)
    return 0 if loss(console) < LOSS_MAX else 1


if __name__ == "__main__":
    sys.exit(main())
