"""``tracefwd rules test``: what an operator's rules do to the spans of a body, rule by rule.

The spans are mapped as ``run`` would map them, then shown to each rule in turn; nothing is sent or counted.
"""

import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tracefwd.compose import load_rules, make_parts
from tracefwd.processor.ruled import shown_tags, subject_of
from tracefwd.service.convert import complain, read_body
from tracefwd.settings import RulesSettings, Settings

if TYPE_CHECKING:
    from tracefwd.model import WavefrontSpan
    from tracefwd.processor.rules import RuleSet, Step
    from tracefwd.service.config import Loaded


def run(loaded: "Loaded", file: str, *, as_json: bool) -> int:
    """0 when the file held a span, 1 otherwise; raises ``ConfigError`` for bad rules."""
    settings: Settings = loaded.settings
    rules = load_rules(settings)
    assert rules is not None, "the command asks for a rules file"
    body = read_body(file)
    if body is None:
        return 1
    # Without the rules: they are applied here, one by one.
    parts = make_parts(replace(settings, rules=RulesSettings()))
    decoded = parts.decode(body, "")
    spans = parts.mapper(decoded, time.time_ns() // 1_000).spans
    reports = [_report(rules, span) for span in spans]
    if as_json:
        print(json.dumps(reports, indent=2, ensure_ascii=False))
    else:
        for report in reports:
            _print(report)
    complain(file, decoded)
    return 0 if spans else 1


def _report(rules: "RuleSet", span: "WavefrontSpan") -> dict[str, Any]:
    subject = subject_of(span, shown_tags(span))
    before = {"name": subject.name, "source": subject.source, "tags": [*subject.annotations]}
    steps = rules.trace(subject)
    after = {"name": subject.name, "source": subject.source, "tags": [*subject.annotations]}
    return {
        "span": span.span_id,
        "verdict": "blocked" if any(step.outcome == "blocked" for step in steps) else "passed",
        "rules": [_step(step) for step in steps],
        "before": before,
        "after": after,
    }


def _step(step: "Step") -> dict[str, Any]:
    return {
        "rule": step.rule,
        "action": step.action,
        "line": step.line,
        "outcome": step.outcome,
        "changes": [change._asdict() for change in step.changes],
    }


def _print(report: dict[str, Any]) -> None:
    print(f"span {report['span']} ({report['before']['name']}): {report['verdict']}")
    for step in report["rules"]:
        print(f"  {step['rule']} ({step['action']}, line {step['line']}): {step['outcome']}")
        for change in step["changes"]:
            print(f"    {change['what']}: {_shown(change['before'])} -> {_shown(change['after'])}")
    print()


def _shown(value: str | None) -> str:
    return "absent" if value is None else repr(value)
