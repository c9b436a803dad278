"""tracefwd -> the real Wavefront proxy 13.8 -> a backend: everything that was sent arrives as it was sent.

Run: ``make real-proxy JAR=PROXY.jar`` or
``python tests/proxy/run.py --jar PROXY.jar [--java JAVA] [--seconds 5] [--rate 2000] [--keep FOLDER]``

For each profile ``tracefwd run`` gets every Envoy body (JSON and proto), the odd inputs and some seconds of mesh
traffic, and is told to stop.  Its lines go to the real proxy and, by a second target with the role tee, to our
stand-in, which writes them down: that is what was sent.  What the backend got from the proxy must say the same
(``books.py``), and the proxy must have refused nothing, by its log and by its own counters.  Every wait is for counts
and has a limit.

Exit code: 0 all equal, or SKIPPED (no Java, no jar named, no C compiler); 1 a difference; 2 wrong use.
"""

import argparse
import base64
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.e2e.parts import Forwarder, forwarder, stand_in  # noqa: E402
from tests.e2e.processes import plain_environment, request, tracefwd  # noqa: E402
from tests.proxy.backend import Backend  # noqa: E402
from tests.proxy.books import SIGNALS, Books, differences  # noqa: E402
from tests.proxy.doctor import CASES, doctored  # noqa: E402
from tests.proxy.real_proxy import RealProxy, c_compiler, real_proxy  # noqa: E402

ENVOY = ROOT / "tests/fixtures/envoy"
ODD = ROOT / "tests/fixtures/java-proxy/odd-inputs.json"
PROFILES = ("istio", "wavefront-proxy")
# The proxy's report format -> signal, and its counters' first word -> signal.
FORMATS = {
    "trace": "spans",
    "spanLogs": "span_logs",
    "wavefront": "points",
    "histogram": "distributions",
}
COUNTED = {
    "spans": "spans",
    "spanLogs": "span_logs",
    "points": "points",
    "histograms": "distributions",
}
LOST = ("rejected", "blocked", "discarded", "failed")
# From the drained forwarder to the last line at the backend; a flush is 0.2 s.
ARRIVAL_S = 30.0
# The proxy takes its own counters once a minute and hands them over within a second.
CHECKIN_S, CHECKIN_DELAY_S = 65.0, 2.0
TOLD_MAX = 10

NO_JAVA = (
    "JAVA: there is no such command; install a JDK 17 (Debian: openjdk-17-jdk) or give its path"
)
NO_JAR = """JAR: none was named; build it once from the public source, then say where it is:
          git clone https://github.com/wavefrontHQ/wavefront-proxy ../wavefront-proxy
          tests/proxy/build.sh ../wavefront-proxy ../wavefront-proxy.jar     # JDK 11 to 17 and Maven
          make real-proxy JAR=../wavefront-proxy.jar"""
NO_COMPILER = "C COMPILER: a few lines of C keep the proxy on loopback; install gcc"


@dataclass(frozen=True)
class Row:
    """One signal of one profile; ``told`` are its differences in words."""

    profile: str
    signal: str
    sent: str
    arrived: str
    rejected: int
    told: list[str]

    @property
    def verdict(self) -> str:
        return "DIFFERS" if self.told or self.rejected else "equal"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jar", default="", help="the proxy, as tests/proxy/build.sh builds it")
    parser.add_argument("--java", default="java", help="Java 11 to 17")
    parser.add_argument("--seconds", type=float, default=5.0, help="of mesh traffic per profile")
    parser.add_argument("--rate", type=float, default=2000.0, help="spans per second of it")
    parser.add_argument("--keep", type=Path, help="keep lines and logs in this folder")
    options = parser.parse_args()
    missing = what_is_missing(options.jar, options.java)
    if missing:
        print(skipped(missing))
        return 0
    jar = Path(options.jar).resolve()
    if not jar.is_file():
        print(f"run.py: there is no jar at {jar}; tests/proxy/build.sh builds it", file=sys.stderr)
        return 2
    with ExitStack() as stack:
        folder = options.keep
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        elif folder.exists() and any(folder.iterdir()):
            print(f"run.py: {folder} is not empty; give a new folder", file=sys.stderr)
            return 2
        folder.mkdir(parents=True, exist_ok=True)
        return run(folder.resolve(), jar, options)


def what_is_missing(jar: str, java: str) -> list[str]:
    needs = ((NO_JAVA, shutil.which(java)), (NO_JAR, jar), (NO_COMPILER, c_compiler()))
    return [what for what, is_there in needs if not is_there]


def skipped(missing: list[str]) -> str:
    bar = "*" * 100
    told = "\n".join(f"  missing {what}" for what in missing)
    return f"{bar}\nSKIPPED: tracefwd was NOT run against the real Wavefront proxy\n{told}\n{bar}"


def run(folder: Path, jar: Path, options: argparse.Namespace) -> int:
    began = time.monotonic()
    rows: list[Row] = []
    sent_lines: Counter[str] = Counter()
    with Backend() as backend, real_proxy(folder, jar, options.java, backend.port) as proxy:
        say(began, f"the real proxy is up: traces {proxy.traces}, metrics {proxy.metrics}")
        for profile in PROFILES:
            found, sent = one_profile(folder, profile, backend, proxy, options)
            rows += found
            sent_lines += sent.lines
            say(began, f"profile {profile}: compared; next: {following(profile)}")
        counters = proxy_counters(backend)
        (folder / "counters.json").write_text(json.dumps(counters, indent=1))
        problems = [*backend.problems, *judge_counters(counters, sent_lines)]
        show(rows, counters, sent_lines, [*problems, *proxy.complaints()])
    for case in CASES:
        told = doctored(folder, jar, options.java, case)
        for each in told:
            print(each)
        problems += told
        say(began, f"doctor, {case.name}: {'DIFFERS' if told else 'says what the proxy does'}")
    is_good = not problems and all(row.verdict == "equal" for row in rows)
    say(began, "all equal, nothing rejected" if is_good else "DIFFERENCES, see above")
    return 0 if is_good else 1


def say(began: float, text: str) -> None:
    print(f"[{time.monotonic() - began:5.1f} s] {text}", flush=True)


def following(profile: str) -> str:
    after = PROFILES[PROFILES.index(profile) + 1 :]
    return f"profile {after[0]}" if after else "the proxy's own counters, which come once a minute"


def one_profile(
    folder: Path, profile: str, backend: Backend, proxy: RealProxy, options: argparse.Namespace
) -> tuple[list[Row], Books]:
    """Post, drain, wait for the backend, compare."""
    backend.forget_lines()
    before = {signal: len(lines) for signal, lines in proxy.refused().items()}

    def refused() -> dict[str, int]:
        now = proxy.refused()
        return {signal: len(now[signal]) - before[signal] for signal in SIGNALS}

    place = folder / profile
    place.mkdir()
    record = place / "sent.jsonl"
    with stand_in(place, record=record) as witness:
        targets = [
            target("real-proxy", "primary", proxy.traces, proxy.metrics),
            target("witness", "tee", witness.trace_url, witness.url),
        ]
        with forwarder(
            place, ["--profile", profile], exporter={"targets": targets}, red={"interval": "5s"}
        ) as tracer:
            answers = post_all(tracer)
            generated = generate(tracer, options)
            ledger = tracer.ledger()
            farewell = tracer.stop()
    print(f"{profile}: answers {answers}, generated {generated}; {farewell}")
    sent = read_sent(record)
    wait_until(lambda: has_all(sent, backend.lines(), refused()), ARRIVAL_S)
    lines = backend.lines()
    (place / "arrived.json").write_text(json.dumps(lines, ensure_ascii=False))
    taken = ledger["received"] - sum(ledger["rejected"].values())
    return compare(profile, sent, read_arrived(lines), refused(), taken), sent


def target(name: str, role: str, traces: str, metrics: str) -> dict[str, str]:
    return {"name": name, "kind": "proxy", "role": role, "traces": traces, "metrics": metrics}


def post_all(tracer: Forwarder) -> dict[int, int]:
    """Every body once; status -> how often."""
    answers: dict[int, int] = {}
    for body, headers in bodies():
        url = f"{tracer.intake}/api/v2/spans"
        status, answer = request("POST", url, body=body, headers=headers)
        # Taken, unreadable, unknown content-encoding: there is no other answer to a body.
        assert status in {202, 400, 415}, (status, answer, body[:200])
        answers[status] = answers.get(status, 0) + 1
    return answers


def bodies() -> Iterator[tuple[bytes, dict[str, str]]]:
    """Envoy's posts (OTLP apart), then the odd inputs that are a body and no matter of the transport."""
    types = {".json": "application/json", ".bin": "application/x-protobuf"}
    for file in sorted(ENVOY.rglob("*")):
        is_body = file.suffix in types and not file.name.endswith(".headers.json")
        if is_body and not file.name.startswith("otlp"):
            yield file.read_bytes(), {"content-type": types[file.suffix]}
    for case in json.loads(ODD.read_text()):
        if "method" in case or "path" in case:
            continue
        headers = case.get("headers", {"content-type": "application/json"})
        if "body_base64" in case:
            body = base64.b64decode(case["body_base64"])
        else:
            body = case["body"].encode()
        yield body, {key: value for key, value in headers.items() if key.startswith("content-")}


def generate(tracer: Forwarder, options: argparse.Namespace) -> dict[str, int]:
    command = tracefwd(
        "gen", "--to", f"{tracer.intake}/api/v2/spans", "--json",
        "--rate", str(options.rate), "--seconds", str(options.seconds),
    )  # fmt: skip
    limit = options.seconds + 60
    done = subprocess.run(
        command, cwd=ROOT, env=plain_environment(), capture_output=True, timeout=limit, check=True
    )
    report: dict[str, Any] = json.loads(done.stdout)
    return {key: report[key] for key in ("sent", "acked")}


def read_sent(record: Path) -> Books:
    """What the witness wrote down.  A line that it refused counts as unreadable: it should not have been sent."""
    books = Books()
    for row in filter(None, record.read_bytes().split(b"\n")):
        entry = json.loads(row)
        books.add(entry["signal"], [entry["line"]])
        if entry["verdict"] != "accepted":
            books.unreadable.append(f"the stand-in refused ({entry['reason']}): {entry['line']}")
    return books


def read_arrived(lines: dict[str, list[str]]) -> Books:
    books = Books()
    for form, some in lines.items():
        if form in FORMATS:
            books.add(FORMATS[form], some)
        else:
            books.unreadable += [f"format {form}: {line}" for line in some]
    return books


def has_all(sent: Books, lines: dict[str, list[str]], refused: dict[str, int]) -> bool:
    """As many lines as were sent and not refused."""
    return all(
        len(lines.get(form, [])) + refused[signal] >= sent.lines[signal]
        for form, signal in FORMATS.items()
    )


def wait_until(look: Callable[[], bool], seconds: float) -> None:
    """Until it is true, or for so long: what is missing then shows in the comparison."""
    give_up_at = time.monotonic() + seconds
    while not look() and time.monotonic() < give_up_at:
        time.sleep(0.1)


def compare(
    profile: str, sent: Books, arrived: Books, refused: dict[str, int], taken: int
) -> list[Row]:
    """``taken``: the spans that tracefwd's ledger owes."""
    told = differences(sent, arrived)
    if sent.spans.total() != taken:
        told["spans"].append(f"the ledger owes {taken} spans, sent were {sent.spans.total()}")
    texts: dict[str, tuple[Callable[[Books], str], str]] = {
        "spans": (lambda books: f"{books.spans.total()}", "spans"),
        "span logs": (lambda books: f"{books.span_logs.total()}", "span_logs"),
        "delta counters": (
            lambda books: f"{len(books.deltas)} series, sum {books.delta_sum():.0f}",
            "points",
        ),
        "heartbeats": (lambda books: f"{len(books.heartbeats | books.gauges)} series", ""),
        "distributions": (
            lambda books: f"{len(books.distributions)} series x minutes, {books.samples()} samples",
            "distributions",
        ),
        "unreadable": (lambda books: f"{len(books.unreadable)}", ""),
    }
    return [
        Row(profile, signal, text(sent), text(arrived), refused.get(key, 0), told[signal])
        for signal, (text, key) in texts.items()
    ]


def proxy_counters(backend: Backend) -> dict[str, float]:
    """The proxy's own counters, taken after everything had arrived; empty if it never handed them over."""
    since = time.time() + CHECKIN_DELAY_S
    wait_until(lambda: bool(backend.counters(since)), CHECKIN_S)
    return backend.counters(since)


def judge_counters(counters: dict[str, float], sent_lines: Counter[str]) -> list[str]:
    """What it counts as lost must be zero; what it received and delivered must be what was sent."""
    if not counters:
        return [f"the proxy's counters did not come within {CHECKIN_S:g} s"]
    problems = [
        f"the proxy counts {name} = {value:g}"
        for name, value in sorted(counters.items())
        if value and name.rpartition(".")[2] in LOST
    ]
    problems += [
        f"the proxy counts {lines} {kind} {what}, sent were {sent_lines[signal]} lines"
        for kind, signal in COUNTED.items()
        for what in ("received", "delivered")
        if (lines := counted(counters, kind, what)) != sent_lines[signal]
    ]
    return problems


def counted(counters: dict[str, float], kind: str, *endings: str) -> int:
    """Sum of ``KIND.PORT.ENDING`` (what came in) and ``KIND.PORT.central.ENDING`` (what went out)."""
    total = 0.0
    for name, value in counters.items():
        path = name.split(".")
        if path[0] == kind and path[-1] in endings and path[2:-1] in ([], ["central"]):
            total += value
    return int(total)


def show(
    rows: list[Row], counters: dict[str, float], sent_lines: Counter[str], problems: list[str]
) -> None:
    for row in rows:
        for told in row.told[:TOLD_MAX]:
            print(f"{row.profile}: {row.signal}: {told}")
        if len(row.told) > TOLD_MAX:
            print(f"{row.profile}: {row.signal}: and {len(row.told) - TOLD_MAX} more")
    for problem in problems[: 3 * TOLD_MAX]:
        print(f"the proxy: {problem}")
    table = [("", "signal", "sent", "arrived", "rejected", "verdict")]
    table += [
        (row.profile, row.signal, row.sent, row.arrived, str(row.rejected), row.verdict)
        for row in rows
    ]
    for kind, signal in COUNTED.items():
        # Its "blocked" are the rejected and those that a rule of its own stopped.
        sent, lost = sent_lines[signal], counted(counters, kind, "blocked", "discarded")
        delivered = counted(counters, kind, "delivered")
        verdict = "equal" if (delivered, lost) == (sent, 0) else "DIFFERS"
        counts = (f"{sent} lines", f"{delivered} lines", str(lost))
        table.append(("proxy's counters", kind, *counts, verdict))
    widths = [max(len(row[index]) for row in table) for index in range(6)]
    for cells in table:
        padded = [f"{cell:{width}}" for cell, width in zip(cells, widths, strict=True)]
        print("  ".join(padded).rstrip())


if __name__ == "__main__":
    sys.exit(main())
