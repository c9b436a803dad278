"""The tables of deploy/docs/sizing.md: arithmetic on measured figures, each with the words of the page that it is from.

``python -m tests.deploy.sizing`` writes them (``make docs``).
"""

import math
from dataclasses import dataclass
from pathlib import Path

from tests.tables import fill

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "deploy" / "docs" / "sizing.md"
BENCH = "tests/bench/README.md"
KUBERNETES = "deploy/kubernetes/README.md"
# What is from no page of ours.
VENDOR = "the Java proxy's defaults"
ISTIO = "Istio's performance page"


@dataclass(frozen=True)
class Figure:
    """One constant.  ``words`` stand in ``source``, so that the page cannot lag behind a new measurement."""

    meaning: str
    value: float
    unit: str
    source: str
    words: str


SPANS_PER_WORKER = Figure(
    "a worker takes, half of its limit", 35_000, "spans/s", BENCH, "35,000 spans/s a core"
)
SPANS_PER_CPU_S = Figure(
    "a CPU-second does, at half of the limit", 39_763, "spans", BENCH, "39,763"
)
SPANS_PER_CPU_S_LOW = Figure(
    "a CPU-second does, at 10,000 spans/s", 25_641, "spans", BENCH, "25,641"
)
BYTES_IN = Figure("a span on the way in", 1_160, "B", BENCH, "1.16 kB on the way in")
BYTES_OUT = Figure("a span on the way out, packed", 150, "B", BENCH, "reckon with 150 B")
WORKER_MIB = Figure("a worker", 51.5, "MiB", BENCH, "51.5 MiB with 10,000 RED series")
PARENT_MIB = Figure("the parent", 43.8, "MiB", BENCH, "the parent 33 to 43.8 MiB")
CONNECTION_KIB = Figure("a kept connection", 12.5, "KiB", BENCH, "12.5 KiB in the worker")
CONNECTIONS = Figure("a sidecar holds", 2, "connections", KUBERNETES, "holds two connections")
SPANS_PER_POST = Figure("an Envoy's post", 5, "spans", KUBERNETES, "one post for five spans")
PROXY_FLUSH = Figure("a Java proxy sends a second and thread", 5_000, "spans", VENDOR, "")
PROXY_CPUS = Figure("its threads, one a CPU, 4 to 16", 4, "threads", VENDOR, "")
MESH_SPANS = Figure(
    "a reference mesh: 70,000 requests/s, two spans each", 140_000, "spans/s", ISTIO, ""
)
MESH_SIDECARS = Figure("its sidecars", 2_000, "sidecars", ISTIO, "")
FIGURES = (
    SPANS_PER_WORKER,
    SPANS_PER_CPU_S,
    SPANS_PER_CPU_S_LOW,
    BYTES_IN,
    BYTES_OUT,
    WORKER_MIB,
    PARENT_MIB,
    CONNECTION_KIB,
    CONNECTIONS,
    SPANS_PER_POST,
    PROXY_FLUSH,
    PROXY_CPUS,
    MESH_SPANS,
    MESH_SIDECARS,
)

# 1 % of a mesh, which is Istio's default; then up to all of it.
RATES = (1_400, 10_000, 35_000, 70_000, 140_000)
MESHES = (1, 10, 100)
# As deploy/kubernetes/base has them: two, so that a node may go; the most; and when the autoscaler adds one.
REPLICAS_MIN, REPLICAS_MAX = 2, 10
REQUEST_CORES, UTILIZATION = 0.25, 0.7
GIGABIT_BYTES = 1e9 / 8


def workers(spans_s: float) -> int:
    return math.ceil(spans_s / SPANS_PER_WORKER.value)


def replicas(spans_s: float) -> int:
    """Of one worker each."""
    return max(REPLICAS_MIN, workers(spans_s))


def cores(spans_s: float) -> float:
    """CPU that is used; a worker with little to do does less of it at a time."""
    is_low = spans_s / replicas(spans_s) <= 10_000
    return spans_s / (SPANS_PER_CPU_S_LOW if is_low else SPANS_PER_CPU_S).value


def request_millicores(spans_s: float) -> float:
    """What a replica asks for, so that the autoscaler has these replicas and no more."""
    return 10 * math.ceil(cores(spans_s) / replicas(spans_s) / UTILIZATION * 100)


def memory_mib(spans_s: float) -> float:
    """At rest: queues are empty while the target takes what comes."""
    return replicas(spans_s) * (PARENT_MIB.value + WORKER_MIB.value)


def proxy_spans_s() -> float:
    return PROXY_FLUSH.value * PROXY_CPUS.value


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows))


def _megabits(spans_s: float, size: Figure) -> str:
    return f"{spans_s * size.value * 8 / 1e6:,.0f}"


def figures() -> str:
    rows = [(each.meaning, f"{each.value:,g}", each.unit, each.source) for each in FIGURES]
    return _table(("what", "figure", "unit", "from"), rows)


def sizes() -> str:
    rows = [
        (
            f"{rate:,}",
            f"{rate / SPANS_PER_POST.value:,.0f}",
            f"{workers(rate)}",
            f"{replicas(rate)}",
            f"{cores(rate):.2f}",
            f"{request_millicores(rate):.0f}m",
            f"{memory_mib(rate):,.0f}",
            _megabits(rate, BYTES_IN),
            _megabits(rate, BYTES_OUT),
        )
        for rate in RATES
    ]
    head = ("spans/s", "posts/s", "workers", "replicas of one", "cores used")
    return _table((*head, "CPU to ask for, each", "MiB at rest", "Mbit/s in", "Mbit/s out"), rows)


def meshes() -> str:
    rows = []
    for count in MESHES:
        rate = count * MESH_SPANS.value
        rows.append(
            (
                f"{count}",
                f"{rate:,.0f}",
                f"{count * replicas(MESH_SPANS.value):,}",
                f"{cores(rate):,.0f}",
                f"{math.ceil(rate / proxy_spans_s()):,}",
                f"{rate * BYTES_IN.value / GIGABIT_BYTES:,.1f}",
                f"{rate * BYTES_OUT.value / GIGABIT_BYTES:,.2f}",
                f"{rate * 86_400 / 1e9:,.0f}",
                f"{count * MESH_SIDECARS.value * CONNECTIONS.value:,.0f}",
            )
        )
    head = ("meshes", "spans/s", "workers", "cores used", "Java proxies behind", "Gbit/s in")
    return _table((*head, "Gbit/s out", "10⁹ spans a day", "connections"), rows)


def walls() -> str:
    carried = (
        ("a Java proxy of four CPUs at its defaults", proxy_spans_s()),
        ("a worker of tracefwd", SPANS_PER_WORKER.value),
        ("a node's 1 Gbit/s, coming in", GIGABIT_BYTES / BYTES_IN.value),
        (
            f"{REPLICAS_MAX} replicas (`maxReplicas`) of {REQUEST_CORES * 1000:.0f}m at {UTILIZATION:.0%}",
            REPLICAS_MAX * REQUEST_CORES * UTILIZATION * SPANS_PER_CPU_S.value,
        ),
        (f"{REPLICAS_MAX} workers", REPLICAS_MAX * SPANS_PER_WORKER.value),
        ("1 Gbit/s to Wavefront, packed", GIGABIT_BYTES / BYTES_OUT.value),
        ("a node's 10 Gbit/s, coming in", 10 * GIGABIT_BYTES / BYTES_IN.value),
    )
    rows = [
        (what, f"{rate:,.0f}", f"{rate / MESH_SPANS.value:.2f}")
        for what, rate in sorted(carried, key=lambda pair: pair[1])
    ]
    return _table(("what", "carries spans/s", "of a reference mesh"), rows)


def outage() -> str:
    rows = []
    for rate in (1_000, 10_000, 35_000):
        bytes_s = rate * BYTES_OUT.value
        rows.append((f"{rate:,}", f"{bytes_s * 3600 / 2**30:,.1f}", f"{2**30 / bytes_s / 60:,.0f}"))
    return _table(("spans/s and worker", "GiB an hour", "minutes a GiB lasts"), rows)


TABLES = {
    "figures": figures,
    "sizes": sizes,
    "meshes": meshes,
    "walls": walls,
    "outage": outage,
}


def render(text: str) -> str:
    return fill(text, TABLES, "tests/deploy/sizing.py")


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text()))
