"""The README's tables, made from the code they describe.

``python tests/docs.py`` writes them between their markers; ``tests/test_docs.py`` fails while they differ.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tracefwd import limits, metrics  # noqa: E402
from tracefwd.service.config import option_rows  # noqa: E402

README = ROOT / "README.md"


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
    ):
        block = source.split(f"{name} = frozenset(", 1)[1].split(")\n", 1)[0]
        for line in block.splitlines():
            reason, _, meaning = line.strip().partition(",")
            if reason.strip('"') in known:
                text = meaning.strip().removeprefix("#").strip() or "as it says"
                lines.append(f"| {title} | `{reason.strip(chr(34))}` | {_cell(text)} |")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


TABLES = {"options": options, "metrics": metric_families, "reasons": reasons}


def render(text: str) -> str:
    """The README's text with every table as the code says it."""
    for name, table in TABLES.items():
        begin, end = f"<!-- {name}: made by tests/docs.py -->\n", f"<!-- end of {name} -->"
        before, found, rest = text.partition(begin)
        assert found, f"the README has no place for the table of {name}"
        _, found, after = rest.partition(end)
        assert found, f"the README's table of {name} has no end"
        text = f"{before}{begin}{table()}\n{end}{after}"
    return text


if __name__ == "__main__":
    README.write_text(render(README.read_text()))
