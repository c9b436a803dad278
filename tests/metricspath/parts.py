"""What the tests of the metrics path share: settings, one-call scrapes, and readers of lines and of recordings."""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from tracefwd.emulator.metric_reader import MetricReader
from tracefwd.emulator.rules import Limits
from tracefwd.metricspath.points import Counts
from tracefwd.metricspath.translate import Scrape, Translation
from tracefwd.model import Payload, Signal
from tracefwd.settings import FilterSettings, MetricsSettings, PrometheusSourceSettings

FIXTURES = Path(__file__).parent.parent / "fixtures"
FEDERATE = FIXTURES / "federate"
COLLECTOR = FIXTURES / "collector"
# A minute after the newest timestamp of the bodies.
NOW_S = 1795352610.0

# The filters of the Wavefront Istio integration.
SEED_FILTERS = FilterSettings(
    metricTagDenyList={"destination_principal": ["*"]},
    metricAllowList=[
        "istio.requests.*",
        "istio.request.*",
        "istio.response.*",
        "istio.tcp.*",
        "go.goroutines.value",
        "go.memstats.alloc.bytes.value",
        "go.memstats.heap.alloc.bytes.value",
        "go.memstats.heap.inuse.bytes.value",
        "go.memstats.heap.sys.bytes.value",
        "go.memstats.stack.inuse.bytes.value",
        "istio.build.value",
        "pilot.conflict.*.listener.*",
        "pilot.proxy.convergence.time.bucket.value",
        "pilot.services.value",
        "pilot.total.xds.internal.errors.value",
        "pilot.total.xds.rejects.value",
        "pilot.virt.services.value",
        "pilot.xds.*.reject.value",
        "pilot.xds.push.context.errors.value",
        "pilot.xds.pushes.value",
        "pilot.xds.write.timeout.value",
        "pilot.xds.value",
        "process.cpu.seconds.total.value",
        "process.resident.memory.bytes.value",
        "process.virtual.memory.bytes.value",
        "citadel.server.*",
        "galley.validation.*",
        "sidecar.*",
    ],
)


class Line(NamedTuple):
    """A point line taken apart by the strict reader of the stand-in."""

    name: str
    value: float
    time_s: int
    tags: dict[str, str]
    source: str


class Result(NamedTuple):
    lines: list[str]
    counts: Counts
    scrape: Scrape
    payloads: list[Payload]

    def points(self) -> list[Line]:
        """Every line, accepted by a reader that refuses what Wavefront would."""
        reader = MetricReader(Limits())
        points = [reader.read_point(line, int(NOW_S * 1000)) for line in self.lines]
        return [Line(p.name, p.value, p.time_ms // 1000, dict(p.tags), p.source) for p in points]


def translation(mode: str = "default", **options: Any) -> Translation:
    """Options of ``prometheus_sources`` and of ``metrics`` by their names; ``common_`` marks those that both have."""
    metrics_names = set(MetricsSettings.__dataclass_fields__) - {"prefix", "tags", "filters"}
    common = {
        name.removeprefix("common_"): options.pop(name)
        for name in list(options)
        if name.startswith("common_") or (name in metrics_names and name != "source")
    }
    base: dict[str, Any] = {"age_max": 0.0, "ahead_max": 0.0, "cluster": "oracle", "source": "NODE"}
    return Translation(
        PrometheusSourceSettings(**options), MetricsSettings(**{**base, **common, "mode": mode})
    )


def scrape(
    body: bytes | str,
    of: Translation | None = None,
    *,
    complete: bool = True,
    now_s: float = NOW_S,
    content_type: str = "",
    chunk: int = 65_536,
    **options: Any,
) -> Result:
    """One body from bytes to lines; the counts must balance."""
    data = body.encode() if isinstance(body, str) else body
    begun = (of or translation(**options)).begin(now_s, content_type)
    payloads: list[Payload] = []
    for start in range(0, len(data), chunk):
        payloads += begun.feed(data[start : start + chunk])
    payloads += begun.finish(complete=complete)
    counts = begun.counts
    plain_points = counts.points - counts.delta_points
    assert counts.samples + counts.added == plain_points + sum(counts.dropped.values()), counts
    lines = [
        line
        for payload in payloads
        if payload.signal is Signal.POINTS
        for line in payload.data.decode().split("\n")[:-1]
    ]
    assert len(lines) == counts.points
    return Result(lines, counts, begun, payloads)


def read_tsv(path: Path) -> list[tuple[str, str, str, dict[str, str]]]:
    """Rows of name, value, timestamp, tags."""
    rows = []
    for line in path.read_text().splitlines():
        name, value, stamp, tags = line.split("\t")
        rows.append((name, value, stamp, json.loads(tags)))
    return rows


def timeless(lines: list[str]) -> list[str]:
    """Lines with ``T`` for the time and with runs of equal characters cut short, as in the recordings, sorted."""
    return sorted(
        re.sub(
            r"(.)\1{999,}",
            lambda run: f"<{run[1]}*{len(run[0])}>",
            re.sub(r'^("[^"]*" \S+|!M) \d+ ', r"\1 T ", line),
        )
        for line in lines
    )


def split_line(line: str) -> tuple[str, str, dict[str, str]]:
    """Name, value and tags of a line as the collector writes it, where a backslash is no escape but before a quote."""
    head, _, rest = line.partition(' source="')
    name, value, _ = re.fullmatch(r'"([^"]*)" (\S+) (\S+)', head).groups()  # type: ignore[union-attr]
    pairs = re.findall(r' "([^"]+)"="((?:[^"\\]|\\.)*)"(?= "|$)', rest)
    tags = {key: text.replace('\\"', '"').replace("\\n", "\n") for key, text in pairs}
    return name, value, tags
