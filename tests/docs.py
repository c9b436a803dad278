"""The README's tables, made from the code they describe.

``python tests/docs.py`` writes them between their markers; ``tests/test_docs.py`` fails while they differ.
"""

import ast
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.tables import fill  # noqa: E402
from tracefwd import limits, metrics  # noqa: E402
from tracefwd.metricspath.collector import DEVIATIONS  # noqa: E402
from tracefwd.processor.wavefront_proxy_rules import REPAIRED  # noqa: E402
from tracefwd.service.config import option_rows  # noqa: E402

README = ROOT / "README.md"

# Where else we differ from the Java proxy: (the option that decides, or "" for always; what it does).
ELSEWHERE = (
    (
        "mapping.exact",
        (
            "Off: the good spans of a bad batch are taken, and the answer names the bad ones (the "
            "proxy: one span that cannot be read fails its batch)."
        ),
    ),
    (
        "mapping.exact",
        (
            "Off: a rule's `if`, `match` and scope hold in every action, and its cuts split no "
            "character (the proxy's list form of `spanAllowTag` forgets its `if`, `limitLength` of a "
            "point with `drop` its `match`; `spanLimitLength` of a source measures the name)."
        ),
    ),
    (
        "mapping.exact",
        (
            "Off: half a character in JSON, such as a lone surrogate, becomes U+FFFD (the proxy: "
            "`?`)."
        ),
    ),
    (
        "mapping.exact",
        (
            "Off: on the span line ports rules with `scope: pointLine` look at the line in a span "
            "log's `span` (the proxy's `block` and `allow` at the whole JSON)."
        ),
    ),
    (
        "mapping.exact",
        (
            "Off: RED's names are cut to the 256 characters that the back end takes, and a tilde in "
            "them becomes `_` (the proxy's series are refused)."
        ),
    ),
    (
        "",
        (
            "An EOT (0x04) in a value of RED becomes `?`: port 2878 throws such lines away (the "
            "proxy's own RED does not come through a port)."
        ),
    ),
    (
        "sampling.as_documented",
        (
            "Rate 0 keeps nothing, and a duration without a rate keeps only slow spans (the proxy: 1 "
            "in 10,000, and everything); always off with `mapping.exact`."
        ),
    ),
    (
        "red.series_max",
        (
            "RED series are bounded; further ones count under `operationName=_other` (the proxy's "
            "memory grows with them)."
        ),
    ),
    (
        "",
        (
            "In rules, `$` and backslashes of a value that `{{...}}` fills in are text, a quoted key "
            "in `{{...}}` is the key, an expression made of a value stops the start, and what cannot "
            "be applied leaves the span as it is (the proxy: 400 for the batch, or another result)."
        ),
    ),
    (
        "",
        (
            "On the span line ports a span with a trace or span id that is no UUID is refused alone, and so "
            "is a span log with such an id, with `logs` that are no list, with an entry without `fields` or "
            "whose `timestamp` is no whole number of 64 bits, or with something behind its last brace (the "
            "proxy: such a trace id of a span fails the rest of its post; everything else it sends on: ids "
            "as they are, no list as an empty one, times as numbers)."
        ),
    ),
    (
        "",
        (
            "A gzip body without its last bytes, or with something but zeros behind it, is a 400 (the proxy "
            "takes it when no more than the checksum is missing, or up to nine bytes are too many)."
        ),
    ),
    (
        "",
        (
            "Proto3 is read by its own rules: unknown fields are skipped, whatever their type, and a span "
            "with a length that runs over its end is refused (the proxy takes every field of the list for a "
            "span, fails the batch for a group, and answers 202 where such a length makes it lose the spans "
            "behind)."
        ),
    ),
    ("", "Thrift bodies are answered with a 400 that names Thrift (the proxy reads them)."),
    (
        "",
        (
            "Centroids of a distribution are other ones when a series has many spans in a minute; "
            "counts and sums are the same, quantiles within the sketch's error."
        ),
    ),
    ("", "RED and heartbeats leave at other moments; totals per series are the same."),
)


def options() -> str:
    lines = ["| option | default | meaning |", "|---|---|---|"]
    for row in option_rows():
        choices = (
            f" One of {', '.join(f'`{choice}`' for choice in row.choices)}." if row.choices else ""
        )
        default = f"`{row.default}`" if row.default not in ("", None) else ""
        lines.append(f"| `{row.key}` | {_cell(default)} | {_cell(row.doc)}{choices} |")
    return "\n".join(lines)


def metric_families() -> str:
    lines = ["| metric | kind | labels | meaning |", "|---|---|---|---|"]
    for metric in metrics.CATALOGUE:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        lines.append(f"| `{metric.name}` | {metric.kind} | {labels} | {_cell(metric.meaning)} |")
    return "\n".join(lines)


def reasons() -> str:
    """The closed sets of labels, with the comments that stand beside them in ``limits.py``."""
    source = (ROOT / "tracefwd" / "limits.py").read_text()
    lines = ["| count | reason | meaning |", "|---|---|---|"]
    for title, name, known in (
        ("rejected", "REJECT_REASONS", limits.REJECT_REASONS),
        ("dropped", "DROP_REASONS", limits.DROP_REASONS),
        ("repairs", "REPAIR_KINDS", limits.REPAIR_KINDS),
        ("samples not sent", "SAMPLE_DROP_REASONS", limits.SAMPLE_DROP_REASONS),
        ("bad lines", "BAD_LINE_REASONS", limits.BAD_LINE_REASONS),
    ):
        block = source.split(f"\n{name} = frozenset(", 1)[1].split("\n)\n", 1)[0]
        for line in block.splitlines():
            reason, _, meaning = line.strip().partition(",")
            if reason.strip('"') in known:
                text = meaning.strip().removeprefix("#").strip() or "as it says"
                lines.append(f"| {title} | `{reason.strip(chr(34))}` | {_cell(text)} |")
    return "\n".join(lines)


def deviations() -> str:
    """The switches of the profile wavefront-proxy with the texts below them, then what is decided elsewhere."""
    source = (ROOT / "tracefwd" / "processor" / "wavefront_proxy_rules.py").read_text()
    lines = ["| switch | default | what it does |", "|---|---|---|"]
    for name, text in _field_texts(source, "Deviations").items():
        default = "on" if getattr(REPAIRED, name) else "off"
        lines.append(f"| `{name}` | {default} | {_cell(text.replace('``', '`'))} |")
    defaults = {row.key: row.default for row in option_rows()}
    for key, text in ELSEWHERE:
        switch = f"`{key}`" if key else "(always)"
        default = f"`{defaults[key]}`" if key else ""
        lines.append(f"| {switch} | {default} | {_cell(text)} |")
    return "\n".join(lines)


def istio_metrics() -> str:
    """What there is of each metric that the Wavefront Istio integration documents."""
    data = yaml.safe_load((ROOT / "tracefwd" / "metricspath" / "istio_metrics.yaml").read_text())
    lines = [
        "| metric | Prometheus series | Istio | comes | what to know |",
        "|---|---|---|---|---|",
    ]
    for row in data["metrics"]:
        series = f"`{row['series']}` ({row['type']})" if row["series"] else ""
        comes = {"raw": "raw", "rules": "summed by rules"}[row["comes"]] if row["series"] else ""
        lines.append(
            f"| `{row['metric']}` | {series} | {_releases(row)} | {comes} | {_cell(row.get('note', ''))} |"
        )
    return "\n".join(lines)


def _releases(row: dict[str, str | None]) -> str:
    """The first and the last release that counts it."""
    since, gone = row["since"], row.get("gone")
    if since is None:
        return "never"
    if gone is None:
        return f"{since} on"
    major, _, minor = gone.partition(".")
    return f"{since} to {major}.{int(minor) - 1}"


def collector() -> str:
    """What ``metrics.mode: collector`` does not copy."""
    lines = ["| deviation | what it is |", "|---|---|"]
    lines += [f"| `{name}` | {_cell(text)} |" for name, text in DEVIATIONS.items()]
    return "\n".join(lines)


def _field_texts(source: str, name: str) -> dict[str, str]:
    """Field -> the text that stands below it, on one line."""
    [found] = [
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef) and node.name == name
    ]
    texts: dict[str, str] = {}
    for node, below in zip(found.body, [*found.body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            assert isinstance(below, ast.Expr), f"{name}.{node.target.id} does not say what it does"
            assert isinstance(below.value, ast.Constant)
            texts[node.target.id] = " ".join(str(below.value.value).split())
    return texts


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


TABLES = {
    "collector": collector,
    "deviations": deviations,
    "istio_metrics": istio_metrics,
    "options": options,
    "metrics": metric_families,
    "reasons": reasons,
}


def render(text: str) -> str:
    """The README's text with every table as the code says it."""
    return fill(text, TABLES, "tests/docs.py")


if __name__ == "__main__":
    README.write_text(render(README.read_text()))
