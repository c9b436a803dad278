"""``tracefwd diff A B``: two recordings of lines, compared field by field, each difference explained in words.

Meant for running the Java proxy and tracefwd side by side before switching; the tests use it as well.  Lines are
compared for what they say to Wavefront, not for how they are written; times of sending are no part of metrics.
Exit codes are those of diff(1): 0 equal, 1 different, 2 an input cannot be read.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterator

from tracefwd.service import diff_lines, diff_series
from tracefwd.service.diff_recording import Recording, load
from tracefwd.service.diff_report import KINDS_SHOWN_MAX, Example, KindKey, Report
from tracefwd.service.units import counted

EQUAL, DIFFERENT = 0, 1
EXAMPLES_DEFAULT = 3


def run(a: str, b: str, *, as_json: bool, examples_max: int = EXAMPLES_DEFAULT) -> int:
    """``a`` and ``b`` are paths or URLs of stand-ins.  Raises ``ConfigError`` for what cannot be read."""
    first, second = load(a), load(b)
    report = compare(first, second, examples_max=examples_max)
    if as_json:
        shown = {"a": _side(first), "b": _side(second), **report.shown()}
        print(json.dumps(shown, indent=2))
    else:
        for line in _text(first, second, report):
            # What no terminal could show is escaped.
            print(line.encode("utf-8", "backslashreplace").decode())
    sys.stdout.flush()
    return EQUAL if report.is_equal else DIFFERENT


def compare(a: Recording, b: Recording, *, examples_max: int = EXAMPLES_DEFAULT) -> Report:
    """Everything that tells ``a`` from ``b``."""
    report = Report(examples_max)
    diff_lines.compare_spans(a.spans, b.spans, report)
    diff_lines.compare_span_logs(a.span_logs, b.span_logs, report)
    diff_series.compare_series(a.series, b.series, report)
    _compare_unreadable(a, b, report)
    _compare_refused(a, b, report)
    for side, recording in (("A", a), ("B", b)):
        for gap in recording.gaps:
            report.add("input", "completeness", f"{side} is not everything", gap, recording.name)
    return report


def _compare_unreadable(a: Recording, b: Recording, report: Report) -> None:
    """Metric lines that no reader understands, as text."""
    ours, others = Counter(a.unreadable), Counter(b.unreadable)
    for left, in_a in ((ours - others, True), (others - ours, False)):
        for line in left.elements():
            diff_lines.report_unreadable(report, "metrics", line, "", in_a=in_a)


def _compare_refused(a: Recording, b: Recording, report: Report) -> None:
    for signal, reason in sorted({*a.refused, *b.refused}):
        ours, others = a.refused[signal, reason], b.refused[signal, reason]
        if ours != others:
            why = "a stand-in refused lines that it did not refuse on the other side"
            report.add(
                signal,
                "refused lines",
                "another number",
                why,
                reason,
                str(ours),
                str(others),
                count=abs(ours - others),
            )


def _side(recording: Recording) -> dict[str, object]:
    return {"name": recording.name, **recording.shown()}


# --- for people ------------------------------------------------------------------------------


def _text(a: Recording, b: Recording, report: Report) -> Iterator[str]:
    for side, recording in (("A", a), ("B", b)):
        counts = [f"{n} {name.replace('_', ' ')}" for name, n in recording.shown().items() if n]
        yield f"{side}: {recording.name}: {', '.join(counts) or 'nothing'}"
    for signal, tally in report.tallies.items():
        numbers = vars(tally)
        if any(numbers.values()):
            parts = [
                f"{n} {name.replace('_a', ' in A').replace('_b', ' in B')}"
                for name, n in numbers.items()
                if n
            ]
            yield f"{signal.replace('_', ' ')}: {', '.join(parts)}"
    kinds = report.sorted_kinds()
    for key, kind in kinds[:KINDS_SHOWN_MAX]:
        yield ""
        yield f"{kind.count} x {_sentence(key)}"
        for example in kind.examples:
            yield from _example(example)
    if len(kinds) > KINDS_SHOWN_MAX:
        yield f"and {len(kinds) - KINDS_SHOWN_MAX} rarer kinds; --json has them all"
    yield ""
    for note in report.notes:
        yield f"note: {note}"
    total = sum(kind.count for _, kind in kinds)
    shown = f"{counted(total, 'difference')} of {counted(len(kinds), 'kind')}"
    yield f"different: {shown}" if kinds else "equal"


def _sentence(key: KindKey) -> str:
    why = f" ({key.why})" if key.why else ""
    return f"{key.signal.replace('_', ' ')}, {key.field}: {key.change}{why}"


def _example(example: Example) -> Iterator[str]:
    if example.where:
        yield f"    {example.where}"
    for side, value in (("A", example.a), ("B", example.b)):
        if value is not None:
            yield f"      {side}: {value!r}"


__all__ = ["compare", "run"]
