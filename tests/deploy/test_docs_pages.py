"""What deploy/docs says is so: options, metrics, alerts, files and values that it names are there.

Every loss is explained, and the sizes follow from what was measured.
"""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy import promql, sizing
from tests.deploy.parts import DEPLOY as PROMETHEUS
from tests.deploy.parts import ROOT
from tests.test_docs import blocks
from tracefwd import limits, metrics
from tracefwd.receiver import refusals
from tracefwd.service.config import option_rows

DEPLOY = ROOT / "deploy"
DOCS = sorted((DEPLOY / "docs").glob("*.md"))
each_page = pytest.mark.parametrize("page", DOCS, ids=lambda page: page.stem)
OPTIONS = {row.key for row in option_rows()}


def quoted(page: Path) -> list[str]:
    """What stands in backquotes outside of blocks."""
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"`([^`\n]+)`", text)


def shell(page: Path) -> str:
    return "\n".join(blocks(page, "sh")).replace("\\\n", " ")


def is_option(words: str) -> bool:
    """A key, a section, or a key of one of prometheus_sources."""
    for known in (words, f"prometheus_sources[].{words}", f"exporter.targets[].{words}"):
        if any(key == known or key.startswith((f"{known}.", f"{known}[")) for key in OPTIONS):
            return True
    return False


def _is_value(values: Any, key: str) -> bool:
    """One of the chart's."""
    for part in key.split("."):
        if not isinstance(values, dict) or part not in values:
            return False
        values = values[part]
    return True


@each_page
def test_options_that_pages_name_are_there(page: Path) -> None:
    # Attributes of OTLP are not options, and are there as well.
    writer = (ROOT / "tracefwd" / "exporter" / "otlp_writer.py").read_text()
    resource = set(re.findall(r'"(service\.\w+)"', writer))
    sections = {key.partition(".")[0].partition("[")[0] for key in OPTIONS} | {"deltas"}
    chart = yaml.safe_load((DEPLOY / "helm" / "tracefwd" / "values.yaml").read_text())
    for words in quoted(page):
        key = re.match(r"[a-z_]+(?:\.[a-z_0-9]+)+(?=$|: )", words)
        if key and key[0].partition(".")[0] in sections and not key[0].endswith(".yaml"):
            assert is_option(key[0]) or key[0] in resource or _is_value(chart, key[0]), words
    for name in re.findall(r"\bTRACEFWD_([A-Z_]+__[A-Z_]+)\b", page.read_text()):
        assert is_option(name.lower().replace("__", ".")), name


@each_page
def test_metrics_and_alerts_that_pages_name_are_there(page: Path) -> None:
    text = page.read_text()
    alerts = (PROMETHEUS / "tracefwd-alerts.yaml").read_text()
    for name in re.findall(r"\bTracefwd[A-Z]\w+", text):
        assert f"alert: {name}\n" in alerts
    for name, labels in re.findall(r"`(tracefwd_\w+)(\{[^}]*\})?`", text):
        assert name in metrics.BY_NAME
        if labels:
            promql.labels_of(name + labels)


@each_page
def test_files_targets_and_values_that_pages_name_are_there(page: Path) -> None:
    for path in re.findall(r"(?<![\w/.])(?:deploy|tests)/[a-z][\w./-]*\w", page.read_text()):
        assert (ROOT / path).exists(), path
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text(), re.MULTILINE):
        assert f"\n{target}:" in makefile, target
    values = yaml.safe_load((DEPLOY / "helm" / "tracefwd" / "values.yaml").read_text())
    named = re.findall(r"--set ([\w.]+)=", shell(page))
    named += [
        words for words in quoted(page) if re.fullmatch(r"(console|networkPolicy)\.\w+", words)
    ]
    for key in named:
        assert _is_value(values, key), key


def test_every_reason_for_a_loss_says_what_to_do() -> None:
    text = (DEPLOY / "docs" / "troubleshooting.md").read_text()
    _, _, table = text.partition("## What each loss means")
    rows = re.findall(r"^\| ([a-z ]+) \| `(\w+)` \| (.+) \|$", table, re.MULTILINE)
    told: dict[str, set[str]] = {}
    for count, reason, advice in rows:
        assert reason not in told.setdefault(count, set()), reason
        told[count].add(reason)
        assert len(advice) > 8, reason
    refused = set(refusals._REQUESTS.values())
    assert all(
        reason in metrics.BY_NAME["tracefwd_receiver_refused_requests_total"].meaning
        for reason in refused
    )
    assert told == {
        "rejected": limits.REJECT_REASONS,
        "dropped": limits.DROP_REASONS,
        "refused": refused,
        "samples not sent": limits.SAMPLE_DROP_REASONS,
        "bad lines": limits.BAD_LINE_REASONS,
    }


def test_each_answer_that_the_intake_gives_is_explained() -> None:
    text = (DEPLOY / "docs" / "troubleshooting.md").read_text()
    told = {
        int(code)
        for row in re.findall(r"^\| ([\d, ]+) \|", text, re.MULTILINE)
        for code in row.split(",")
    }
    assert promql.REFUSALS
    assert {int(code) for code in promql.REFUSALS} <= told


def test_each_part_of_memory_is_explained() -> None:
    text = (DEPLOY / "docs" / "troubleshooting.md").read_text()
    _, _, section = text.partition("## Memory grows")
    parts = re.search(
        r"by part \(([^;]*); other", metrics.BY_NAME["tracefwd_memory_used_bytes"].meaning
    )
    assert parts is not None
    for part in parts[1].split(", "):
        assert f"`{part}`" in section.partition("## ")[0], part


# --- sizes -------------------------------------------------------------------------------------


def test_the_sizing_tables_are_what_the_figures_make() -> None:
    text = sizing.PAGE.read_text()
    assert sizing.render(text) == text, "run: make docs"


def test_figures_stand_where_they_are_said_to_be_from() -> None:
    measured = [each for each in sizing.FIGURES if each.words]
    assert len(measured) >= 10
    for each in measured:
        assert each.words in " ".join((ROOT / each.source).read_text().split()), each.meaning
        number = f"{each.value:,g}"
        if each.unit != "B" and each.value > 5:
            assert number in each.words, each.meaning


def test_sizes_are_right_by_hand() -> None:
    assert sizing.workers(140_000) == 4
    assert sizing.workers(140_001) == 5
    assert sizing.replicas(1) == 2
    assert sizing.proxy_spans_s() == 20_000
    tables = sizing.PAGE.read_text()
    # 140,000/5; /35,000; /39,763; that by 4 and 0.7, up to tens; 4*(43.8+51.5); *1,160*8/10⁶; *150*8/10⁶.
    assert "| 140,000 | 28,000 | 4 | 4 | 3.52 | 1260m | 381 | 1,299 | 168 |" in tables
    # 14,000,000/35,000; /39,763; /20,000; *1,160*8/10⁹; *150*8/10⁹; *86,400/10⁹; 100*2,000*2.
    assert "| 100 | 14,000,000 | 400 | 352 | 700 | 129.9 | 16.80 | 1,210 | 400,000 |" in tables
    # 35,000*150*3,600/2³⁰; 2³⁰/(35,000*150)/60.
    assert "| 35,000 | 17.6 | 3 |" in tables


def test_the_autoscaler_s_numbers_are_those_that_are_shipped() -> None:
    base = DEPLOY / "kubernetes" / "base"
    scaler = yaml.safe_load((base / "hpa.yaml").read_text())["spec"]
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (
        sizing.REPLICAS_MIN,
        sizing.REPLICAS_MAX,
    )
    [metric] = scaler["metrics"]
    assert metric["resource"]["target"]["averageUtilization"] == sizing.UTILIZATION * 100
    [container] = yaml.safe_load((base / "deployment.yaml").read_text())["spec"]["template"][
        "spec"
    ]["containers"]
    assert container["resources"]["requests"]["cpu"] == f"{sizing.REQUEST_CORES * 1000:.0f}m"
    # As its comment says.
    at_rest = sizing.PARENT_MIB.value + sizing.WORKER_MIB.value
    assert float(container["resources"]["requests"]["memory"].removesuffix("Mi")) >= 2 * at_rest
