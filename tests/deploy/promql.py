"""PromQL over tracefwd's own metrics: are the families, labels and values there that an expression names?"""

import re
from pathlib import Path

from tracefwd import limits, metrics
from tracefwd.model import Encoding
from tracefwd.receiver import http_messages
from tracefwd.service import memory, tally

# What Prometheus itself adds to a series (tracefwd-scrape.yaml, or an operator).
OUTSIDE = {"job", "namespace", "pod", "instance"}
# The statuses with which intake refuses.
REFUSALS = set(re.findall(r"\b([45]\d\d),", Path(http_messages.__file__).read_text()))
LABEL_VALUES = {
    ("tracefwd_ledger_spans", "state"): set(tally.STATES),
    ("tracefwd_ledger_points", "state"): set(tally.STATES),
    ("tracefwd_mapper_repairs_total", "kind"): limits.REPAIR_KINDS,
    ("tracefwd_memory_stage_workers", "stage"): set(memory.STAGES),
    ("tracefwd_receiver_accepted_spans_total", "format"): {each.value for each in Encoding},
    ("tracefwd_receiver_requests_total", "code"): {"202"} | REFUSALS,
    ("tracefwd_rules_points_total", "result"): {"checked", "applied", "failed", "blocked"},
    ("tracefwd_scraper_dropped_samples_total", "reason"): limits.SAMPLE_DROP_REASONS,
    ("tracefwd_exporter_requests_total", "result"): {"delivered"},
}
SIGNALS = {"spans", "span_logs", "points", "distributions"}
# Whose values an operator chooses.
CONFIGURED = {"target", "source", "rule"}


def family(name: str) -> metrics.Metric:
    """The catalogue's entry; a histogram's series have endings."""
    found = metrics.BY_NAME.get(name) or metrics.BY_NAME.get(
        re.sub("_(bucket|sum|count)$", "", name)
    )
    assert found is not None, f"tracefwd has no metric {name}"
    assert (name != found.name) == (found.kind == "histogram"), name
    return found


def families(expression: str) -> set[str]:
    return {family(name).name for name in re.findall(r"\btracefwd_\w+", expression)}


def labels_of(expression: str) -> set[str]:
    """Every label that a series of ``expression`` may have; fails for a family, label or value that there is not."""
    known = {"le"} | OUTSIDE
    for name, matchers in re.findall(r"\b(tracefwd_\w+)(?:\{([^}]*)\})?", expression):
        metric = family(name)
        known |= set(metric.labels)
        for label, _, value in re.findall(r'(\w+)(=~|!~|!=|=)"([^"]*)"', matchers):
            assert label in metric.labels or label in OUTSIDE, f"{name} has no label {label}"
            # A dashboard's variable has whatever values there are.
            if label in metric.labels and not value.startswith("$"):
                for choice in value.split("|"):
                    assert _is_there(metric, label, choice), f"{name}: {label} is never {choice}"
    for labels in re.findall(r"\bby \(([^)]*)\)", expression):
        assert set(re.split(r",\s*", labels)) <= known, f"by ({labels})"
    return known


def _is_there(metric: metrics.Metric, label: str, choice: str) -> bool:
    if label in CONFIGURED:
        return True
    allowed = SIGNALS if label == "signal" else LABEL_VALUES.get((metric.name, label))
    if allowed is not None:
        return any(re.fullmatch(choice, value) for value in allowed)
    # Nothing lists these values but the metric's own text.
    return choice in metric.meaning
