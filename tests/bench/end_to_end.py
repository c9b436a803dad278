"""The whole service under load: spans delivered per CPU-second, answer latency, memory, loss.

Run: ``python tests/bench/end_to_end.py [--seconds 8] [--rounds 3] [--profile istio] [--json]``

The forwarder (parent and one worker) is pinned to the first core, generator and sink to the second.  A closed loop
finds the limit; open loops at 10,000 spans/s and at half of the limit give latency from the scheduled time and
memory; further rows are the limit with ten rules and at each level of durability.  "Delivered" is what the sink
counted; CPU is user and system time of the forwarder's whole process tree, between the first post and the last
delivery.  "Empty" is a server on the same loop that only answers 202: the floor, and the measure of the machine, whose
speed may vary threefold.  Rounds repeat all of it; medians are printed.
"""

import argparse
import asyncio
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tracefwd.generator.load import GenOptions, generate  # noqa: E402

FORWARDER_CORE, OTHER_CORE = 0, 1
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def tree(pid: int) -> list[int]:
    """A process and its descendants."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += tree(int(child))
    return found


def cpu_s(pid: int) -> float:
    """User and system time of a process tree, finished children included."""
    ticks = 0
    for process in tree(pid):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS_PER_S


def pss_mib(pid: int) -> float:
    """Proportional set size of a process tree."""
    total = 0
    for process in tree(pid):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total / 1024


class Sink(AbstractContextManager["Sink"]):
    """``sink.py`` on the second core."""

    def __enter__(self) -> Self:
        self.traces, self.metrics = free_port(), free_port()
        command = [sys.executable, str(Path(__file__).with_name("sink.py"))]
        self._process = subprocess.Popen(
            [*command, str(self.traces), str(self.metrics), str(OTHER_CORE)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "listening\n"
        return self

    def spans(self) -> int:
        self._process.send_signal(signal.SIGUSR1)
        assert self._process.stdout is not None
        return int(json.loads(self._process.stdout.readline())["spans"])

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()


class Forwarder(AbstractContextManager["Forwarder"]):
    """``tracefwd run`` with one worker, pinned to the first core."""

    def __init__(self, sink: Sink, options: list[str], environ: dict[str, str]) -> None:
        self._environ = {**os.environ, **environ}
        self.intake, self.admin = free_port(), free_port()
        self._command = [
            "taskset", "-c", str(FORWARDER_CORE), sys.executable, "-m", "tracefwd", "run",
            "--listen", f"127.0.0.1:{self.intake}", "--admin", f"127.0.0.1:{self.admin}",
            "--proxy-traces", f"http://127.0.0.1:{sink.traces}",
            "--proxy-metrics", f"http://127.0.0.1:{sink.metrics}", *options,
        ]  # fmt: skip

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, cwd=ROOT, env=self._environ, stderr=subprocess.DEVNULL
        )
        self.pid = self._process.pid
        deadline = time.monotonic() + 20
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/readyz", timeout=1).close()
            except OSError:
                assert time.monotonic() < deadline, "the forwarder did not become ready"
                time.sleep(0.05)
            else:
                return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(timeout=40)


EMPTY = """
import asyncio, sys, httptools, uvloop
class Empty(asyncio.Protocol):
    def connection_made(self, transport):
        self.write = transport.write
        self.feed = httptools.HttpRequestParser(self).feed_data
    def data_received(self, data):
        self.feed(data)
    def on_message_complete(self):
        self.write(b"HTTP/1.1 202 Accepted\\r\\ncontent-length: 0\\r\\n\\r\\n")
async def main():
    await asyncio.get_running_loop().create_server(Empty, "127.0.0.1", int(sys.argv[1]))
    print("listening", flush=True)
    await asyncio.Event().wait()
uvloop.run(main())
"""


def measure_empty(seconds: float, connections: int) -> dict[str, float]:
    """The same load on a server that does nothing."""
    port = free_port()
    process = subprocess.Popen(
        ["taskset", "-c", str(FORWARDER_CORE), sys.executable, "-c", EMPTY, str(port)],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    try:
        before = cpu_s(process.pid)
        report = load(port, 0, seconds, connections)
        cpu = cpu_s(process.pid) - before
    finally:
        process.terminate()
        process.wait()
    return row(report, report.acked, cpu, report.seconds, 0.0)


def load(port: int, rate: float, seconds: float, connections: int) -> Any:
    closed = rate == 0
    options = GenOptions(
        to=f"http://127.0.0.1:{port}/api/v2/spans",
        rate=rate or 1e6,
        seconds=seconds,
        connections=connections,
        seed=1,
        json=True,
        closed=closed,
    )
    return asyncio.run(generate(options))


def measure(
    options: list[str],
    rate: float,
    seconds: float,
    connections: int,
    environ: dict[str, str] | None = None,
) -> dict[str, float]:
    """One run; rate 0 is a closed loop."""
    with Sink() as sink, Forwarder(sink, options, environ or {}) as forwarder:
        load(
            forwarder.intake, 2_000, 1.0, connections
        )  # warm up: imports, memo tables, connections
        settle(sink)
        before, cpu_before, begin = sink.spans(), cpu_s(forwarder.pid), time.monotonic()
        report = load(forwarder.intake, rate, seconds, connections)
        memory = pss_mib(forwarder.pid)
        delivered = settle(sink) - before
        cpu = cpu_s(forwarder.pid) - cpu_before
        return row(report, delivered, cpu, time.monotonic() - begin, memory)


def row(report: Any, delivered: int, cpu: float, wall_s: float, memory: float) -> dict[str, float]:
    return {
        "spans_per_cpu_s": delivered / cpu,
        "us_per_span": cpu / delivered * 1e6,
        "spans_per_s": report.sent / report.seconds,
        "lost": report.acked - delivered,
        "not_202": report.non_202,
        "p50_ms": report.latencies.percentile_ms(0.50),
        "p99_ms": report.latencies.percentile_ms(0.99),
        "max_ms": report.latencies.max_s * 1e3,
        "pss_mib": memory,
        "cpu_share": cpu / wall_s,
    }


def settle(sink: Sink) -> int:
    """Wait until nothing more arrives (longer than a batch may wait), and say how much did."""
    seen = -1
    while (now := sink.spans()) != seen:
        seen = now
        time.sleep(1.5)
    return seen


def machine() -> dict[str, str]:
    cpu = [
        line
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "cpu": cpu[0].partition(":")[2].strip() if cpu else platform.machine(),
        "cores": str(os.cpu_count()),
        "python": platform.python_version(),
        "kernel": platform.release(),
    }


ROWS = ("10,000 spans/s", "half", "ten rules", "disk", "fsync")


def one_round(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    options = ["--profile", args.profile]
    rules = {
        "TRACEFWD_RULES__FILE": str(Path(__file__).with_name("ten_rules.yaml")),
        "TRACEFWD_RULES__PORT": "9411",
    }
    load = partial(measure, options, seconds=args.seconds, connections=args.connections)
    found = {"empty": measure_empty(args.seconds, args.connections), "limit": load(rate=0)}
    if "10,000 spans/s" in args.rows:
        found["10,000 spans/s"] = load(rate=10_000)
    if "half" in args.rows:
        found["half"] = load(rate=found["limit"]["spans_per_s"] / 2)
    if "ten rules" in args.rows:
        found["ten rules"] = load(rate=0, environ=rules)
    for level in {"disk", "fsync"}.intersection(args.rows):
        with TemporaryDirectory(dir=args.spool or None) as folder:
            spool = {"TRACEFWD_SPOOL__FOLDER": folder, "TRACEFWD_SPOOL__DURABILITY": level}
            found[level] = load(rate=0, environ=spool)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--profile", default="istio")
    parser.add_argument("--spool", default="", help="where the spool's folder is made")
    parser.add_argument(
        "--rows",
        default=",".join(ROWS),
        type=lambda text: text.split(","),
        help="which to measure; empty and limit always are (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    os.sched_setaffinity(0, {OTHER_CORE})
    rows: dict[str, list[dict[str, float]]] = {}
    for _ in range(args.rounds):
        for name, values in one_round(args).items():
            rows.setdefault(name, []).append(values)
    medians = {
        name: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        for name, runs in rows.items()
    }
    if args.json:
        print(
            json.dumps(
                {"machine": machine(), "profile": args.profile, "medians": medians, "rounds": rows},
                indent=2,
            )
        )
        return 0
    print(", ".join(f"{key}: {value}" for key, value in machine().items()))
    columns = [*medians["limit"]]
    print(f"{'':<16}" + "".join(f"{column:>16}" for column in columns))
    for name, values in medians.items():
        print(f"{name:<16}" + "".join(f"{values[column]:>16,.2f}" for column in columns))
    print(
        f"one span costs {medians['limit']['us_per_span'] / medians['empty']['us_per_span']:.1f} empty spans"
    )
    for name in ("ten rules", "disk", "fsync"):
        if name in medians:
            share = medians[name]["spans_per_cpu_s"] / medians["limit"]["spans_per_cpu_s"]
            print(f"{name}: {share:.0%} of the limit's spans per CPU-second")
    return 0


if __name__ == "__main__":
    sys.exit(main())
