"""How a figure is taken: servers started, warmed up, driven and waited for; rounds, medians, tables, JSON.

1. "Delivered" is what the sink counted.  CPU is user and system time of the server's whole process tree from the first
   post until the last delivery, whenever that is.
2. Rounds repeat everything, every other one in reverse order, and medians are shown; a ratio is taken within a round
   and then its median, because a rented machine's speed changes from minute to minute.
3. ``lost`` is what was acknowledged and not delivered.
"""

import argparse
import gc
import json
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

from tests.bench import machine
from tests.bench.bodies import Traffic
from tests.bench.driver import Answers, Driver
from tests.bench.servers import Running, Server, SinkPorts

Row = dict[str, float]
Rows = dict[str, Row]
# After it, what was acknowledged and did not come is lost; the Java proxy delivers long after it has answered.
_DELIVERY_TIMEOUT_S = 90.0
_LOOK_EACH_S = 0.1
# Of a load that is driven in turn with others.
_SLICE_S = 0.25
# Of a core, at least, that a server has while it is warmed up; with less it takes longer, so many times at most.
_WARM_SHARE, _WARM_UP_PATIENCE = 0.7, 4


class Sink(AbstractContextManager["Sink"]):
    """``sink.py`` on the other core."""

    def __enter__(self) -> Self:
        script = str(Path(__file__).with_name("sink.py"))
        self._process = subprocess.Popen(
            [sys.executable, script, str(machine.OTHER_CORE)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.ports = SinkPorts(*json.loads(self._process.stdout.readline()))
        return self

    def counts(self) -> dict[str, int]:
        self._process.send_signal(signal.SIGUSR1)
        assert self._process.stdout is not None
        return dict(json.loads(self._process.stdout.readline()))

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()


class Bench(AbstractContextManager["Bench"]):
    """One server with a sink behind it and a driver in front; loads follow each other on the same connections."""

    def __init__(self, server: Server, traffic: Traffic) -> None:
        self._server = server
        self._traffic = traffic
        self._sink = Sink()

    def __enter__(self) -> Self:
        envoys = self._traffic.envoys(time.time_ns() // 1000)
        # The collector's pauses over all these requests would be read as the server's.
        gc.collect()
        gc.disable()
        self._sink.__enter__()
        self.running = Running(self._server, self._sink.ports)
        try:
            self.running.__enter__()
            self._driver = Driver(self.running.port, envoys)
        except BaseException:
            self._sink.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._driver.close()
        self.running.__exit__()
        self._sink.__exit__()
        gc.enable()

    def warm_up(self, seconds: float | None = None) -> None:
        """Imports, memo tables, connections; a JVM's compilers.  Not measured."""
        before, pid = self._sink.counts()["spans"], self.running.pid
        wanted_s = self._server.warm_up_s if seconds is None else seconds
        used_s, began, acked = machine.cpu(pid).total_s, time.monotonic(), 0
        # CPU-seconds, because compilers need them; others may want the core as well, but not for ever.
        while (
            machine.cpu(pid).total_s - used_s < wanted_s * _WARM_SHARE
            and time.monotonic() - began < _WARM_UP_PATIENCE * wanted_s
        ):
            acked += self._driver.closed(wanted_s / 4).acked
        self._delivered(before, acked)

    def limit(self, seconds: float) -> Row:
        return self._measure(lambda: self._driver.closed(seconds))

    def slice(self, seconds: float) -> tuple[int, float]:
        """Spans taken, and CPU-seconds, of a short closed loop; what is still to be sent is not waited for."""
        pid = self.running.pid
        before = machine.cpu(pid)
        acked = self._driver.closed(seconds).acked
        return acked, machine.cpu(pid).since(before).total_s

    def at_rate(self, spans_per_s: float, seconds: float) -> Row:
        return self._measure(lambda: self._driver.open(spans_per_s, seconds))

    def answers_at_rate(self, spans_per_s: float, seconds: float) -> Answers:
        return self._driver.open(spans_per_s, seconds)

    def _measure(self, load: Callable[[], Answers]) -> Row:
        pid = self.running.pid
        before = self._sink.counts()["spans"]
        cpu_before, begin, stolen_s = machine.cpu(pid), time.monotonic(), machine.stolen_s()
        answers = load()
        stolen = (machine.stolen_s() - stolen_s) / answers.seconds
        memory = machine.pss_mib(pid), machine.pss_largest_mib(pid)
        delivered, cpu, at = self._delivered(before, answers.acked)
        row = _row(answers, delivered, cpu.since(cpu_before), at - begin, memory)
        return row | {"stolen %": stolen * 100}

    def _delivered(self, before: int, acked: int) -> tuple[int, machine.Cpu, float]:
        """Spans delivered since ``before``; the CPU and the time when the last of anything came."""
        pid = self.running.pid
        if not self._server.delivers:
            return acked, machine.cpu(pid), time.monotonic()
        quiet_s, complete_s = self._server.quiet_s, self._server.complete_s
        seen = self._sink.counts()
        cpu, at = machine.cpu(pid), time.monotonic()
        deadline = at + _DELIVERY_TIMEOUT_S
        while (now := time.monotonic()) < deadline:
            time.sleep(_LOOK_EACH_S)
            counts = self._sink.counts()
            if _signals(counts) != _signals(seen):
                seen, cpu, at = counts, machine.cpu(pid), time.monotonic()
            elif now - at > (complete_s if seen["spans"] - before >= acked else quiet_s):
                break
        return seen["spans"] - before, cpu, at


def _signals(counts: dict[str, int]) -> tuple[int, int]:
    """Metrics come for ever; spans and their logs end."""
    return counts["spans"], counts["span_logs"]


def cut(rows: Rows, *columns: str) -> Rows:
    """Only what a table is about."""
    return {name: {column: row[column] for column in columns} for name, row in rows.items()}


def _row(
    answers: Answers, delivered: int, cpu: machine.Cpu, wall_s: float, memory: tuple[float, float]
) -> Row:
    spans = max(delivered, 1)
    return {
        "spans/CPU-s": delivered / max(cpu.total_s, 0.01),
        "us/span": cpu.total_s / spans * 1e6,
        "system us": cpu.system_s / spans * 1e6,
        "spans/s": answers.acked / answers.seconds,
        "drain s": max(wall_s - answers.seconds, 0.0),
        "lost": answers.acked - delivered,
        "not 202": answers.not_202 + answers.unanswered,
        "p50 ms": answers.percentile_ms(0.50),
        "p99 ms": answers.percentile_ms(0.99),
        "max ms": answers.percentile_ms(1.0),
        "PSS MiB": memory[0],
        "largest": memory[1],
        "core": cpu.total_s / wall_s,
        "driver us": answers.cpu_s / max(answers.sent, 1) * 1e6,
    }


@contextmanager
def bench(
    server: Server, traffic: Traffic | None = None, warm_up_s: float | None = None
) -> Iterator[Bench]:
    """Started and warmed up."""
    with Bench(server, traffic or Traffic()) as one:
        one.warm_up(warm_up_s)
        yield one


def in_turn(driven: Mapping[str, tuple[Server, Traffic]], seconds: float) -> Rows:
    """us/span of each at its limit: all run at once and are driven in turn, so that a neighbour's work slows all alike.

    Each is started anew, because where a process's memory lies is worth 2 % for as long as it lives.
    """
    spans, cpu_s = Counter[str](), Counter[str]()
    with ExitStack() as stack:
        running = [(name, stack.enter_context(bench(*how))) for name, how in driven.items()]
        for _ in range(max(round(seconds / _SLICE_S), 1)):
            # There and back: nobody is always the one that comes behind another.
            for name, one in [*running, *reversed(running)]:
                taken, used_s = one.slice(_SLICE_S)
                spans[name] += taken
                cpu_s[name] += used_s
    return {name: {"us/span": cpu_s[name] / spans[name] * 1e6} for name in driven}


# --- rounds --------------------------------------------------------------------------------------

Cell = Callable[[], Rows]
"""Measures something once and names its rows."""


@dataclass
class Result:
    """Rows of every round, by name; ``notes`` are sentences that a reader wants beside the table."""

    title: str
    rounds: dict[str, list[Row]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def median(self, name: str, column: str) -> float:
        return statistics.median(row[column] for row in self.rounds[name])

    def medians(self) -> Rows:
        return {
            name: {column: self.median(name, column) for column in rows[0]}
            for name, rows in self.rounds.items()
        }

    def flat(self, column: str, base: str) -> str:
        """How far each row is from ``base``, for a note."""
        parts = [f"{name} {self.ratio(name, base, column):.2f}" for name in self.rounds]
        return f"{column} against {base}: {', '.join(parts)}"

    def ratio(self, name: str, base: str, column: str) -> float:
        """The median of the rounds' own ratios; 0 without both rows."""
        pairs = zip(self.rounds.get(name, []), self.rounds.get(base, []), strict=False)
        ratios = [row[column] / other[column] for row, other in pairs if other[column]]
        return statistics.median(ratios) if ratios else 0.0

    def to_json(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "machine": machine.facts(),
            "medians": self.medians(),
            "rounds": self.rounds,
            "notes": self.notes,
        }

    def to_markdown(self) -> str:
        medians = self.medians()
        columns = list(dict.fromkeys(key for row in medians.values() for key in row))
        head = ["", *columns]
        body = [
            [name, *(_shown(row[key]) if key in row else "" for key in columns)]
            for name, row in medians.items()
        ]
        widths = [max(len(line[place]) for line in [head, *body]) for place in range(len(head))]
        lines = [_line(head, widths), _line(["-" * width for width in widths], widths)]
        lines += [_line(line, widths) for line in body]
        return "\n".join([f"### {self.title}", "", *lines, "", *(f"* {n}" for n in self.notes)])


def _shown(value: float) -> str:
    if value == 0:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(cells, widths, strict=True)
    texts = [first[0].ljust(first[1]), *(text.rjust(width) for text, width in others)]
    return f"| {' | '.join(texts)} |"


def run_rounds(title: str, cells: Sequence[Cell], rounds: int) -> Result:
    result = Result(title)
    for number in range(rounds):
        for cell in cells if number % 2 == 0 else reversed(cells):
            rows = cell()
            for name, row in rows.items():
                result.rounds.setdefault(name, []).append(row)
            progress(f"{title}, round {number + 1} of {rounds}: {', '.join(rows)}")
    return result


def side_by_side(
    title: str, driven: Mapping[str, tuple[Server, Traffic]], args: argparse.Namespace
) -> Result:
    """``in_turn`` in rounds; who came first, and was started first, comes last in the next one."""
    backwards = dict(reversed(driven.items()))
    cells = [partial(in_turn, order, args.seconds) for order in (driven, backwards)]
    return run_rounds(title, cells, -(-args.rounds // 2))


def progress(text: str) -> None:
    """For the one who waits, not for the report."""
    print(text, file=sys.stderr, flush=True)


# --- the command ---------------------------------------------------------------------------------


Measure = Callable[[argparse.Namespace], Result]


def parser(doc: str | None, *, seconds: float, rounds: int = 3) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--seconds", type=float, default=seconds, help="of each load (%(default)s)")
    made.add_argument("--rounds", type=int, default=rounds, help="(%(default)s)")
    made.add_argument("--json", metavar="FILE", type=Path, help="write every round there as well")
    return made


def command(arguments: argparse.ArgumentParser, measure: Measure) -> int:
    """A benchmark on its own."""
    args = arguments.parse_args()
    machine.stay_off_the_target()
    publish([measure(args)], args.json)
    return 0


def publish(results: Iterable[Result], file: Path | None) -> None:
    """Tables on standard output, everything as JSON in ``file``."""
    found = list(results)
    print(", ".join(f"{key}: {value}" for key, value in machine.facts().items()))
    for result in found:
        print(f"\n{result.to_markdown()}")
    if file:
        file.write_text(json.dumps([result.to_json() for result in found], indent=2) + "\n")
