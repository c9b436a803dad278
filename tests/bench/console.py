"""What people who look cost a worker: ten open consoles and five taps, beside the same service with nobody looking.

Run: ``python tests/bench/console.py [--seconds 6] [--rounds 3]``

One service takes both loads one after the other, so that the machine's moods fall on both alike.  Each console reads
every view; the taps are for everything, for errors, for slow spans, for a service, and one that does not read.
``worker`` is spans per CPU-second of the worker's process alone; ``parent core`` is what the parent takes of a core
beside it.  The exit code is 0 when the median of the rounds' ratios is a loss of less than 3 %.  A last pair of rows is
what parent and worker weigh with ten thousand operations, watched and not.
"""

import argparse
import http.client
import json
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


def limit(one: Bench, seconds: float) -> Row:
    parent, worker = processes(one)
    before = machine.cpu(worker).total_s, machine.cpu(parent).total_s
    row = one.limit(seconds)
    worker_s = machine.cpu(worker).total_s - before[0]
    # The parent's tree is both.
    parent_s = machine.cpu(parent).total_s - before[1] - worker_s
    spans = row["spans/s"] * seconds
    return {
        "worker": spans / worker_s,
        "parent core": parent_s / seconds,
        "spans/s": row["spans/s"],
        "p99 ms": row["p99 ms"],
        "lost": row["lost"],
    }


def cost(seconds: float) -> Rows:
    with bench(tracefwd(RED__INTERVAL="5s")) as one:
        alone = limit(one, seconds)
        with readers(admin_port(one)):
            return {"alone": alone, "watched": limit(one, seconds)}


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


def measure(args: argparse.Namespace) -> Result:
    result = harness.run_rounds("console", [partial(cost, args.seconds)], args.rounds)
    loss = 1 - result.ratio("watched", "alone", "worker")
    result.notes.append(
        f"{CONSOLES} consoles and {len(TAPS)} taps cost the worker {loss:.1%} of its spans per CPU-second; "
        f"{'less' if loss < LOSS_MAX else 'NOT less'} than {LOSS_MAX:.0%}"
    )
    return result


def main() -> int:
    args = harness.parser(__doc__, seconds=6.0).parse_args()
    machine.stay_off_the_target()
    console = measure(args)
    memory = harness.run_rounds("memory of the console", [partial(weight, args.seconds)], 1)
    harness.publish([console, memory], args.json)
    return 0 if 1 - console.ratio("watched", "alone", "worker") < LOSS_MAX else 1


if __name__ == "__main__":
    sys.exit(main())
