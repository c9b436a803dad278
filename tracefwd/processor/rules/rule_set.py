"""The rules of one port at work: transformers in the file's order, then filters in the file's order.

Nothing is counted per rule and subject that can be derived: a transformer is asked for every subject, so only what it
did is noted; filters are asked until one of them blocks.
"""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from tracefwd.processor.rules.keys import KeyTable
from tracefwd.processor.rules.rule import (
    Change,
    Filter,
    LineRule,
    LineTransform,
    PointRule,
    RuleCounts,
    RuleFailed,
    Snapshot,
    SpanRule,
    Step,
    Transform,
)
from tracefwd.processor.rules.subject import POINT, SPAN, Kind, Subject

R = TypeVar("R", bound=SpanRule)


class Chain(Generic[R]):
    """The rules for one kind of subject."""

    def __init__(self, kind: Kind, rules: Sequence[R], keys: KeyTable) -> None:
        self.kind = kind
        self.rules = rules
        self._keys = keys
        # Changes in place only.
        self._known = keys.known if keys.used() else None
        self._counts = [RuleCounts() for _ in rules]
        pairs = list(zip(rules, self._counts, strict=True))
        self._transforms: list[tuple[Transform, RuleCounts]] = [
            (rule.transform, counts) for rule, counts in pairs if rule.transform is not None
        ]
        self._filters: list[tuple[Filter[Subject], RuleCounts]] = [
            (rule.keep, counts) for rule, counts in pairs if rule.keep is not None
        ]
        self._subjects = 0

    def apply(self, subject: Subject) -> bool:
        """Change ``subject`` as the rules say; False when one of them keeps it out."""
        self._subjects += 1
        subject.index()
        if self._known is not None and not self._known.issuperset(subject.values):
            self._keys.learn(subject.values)
        for transform, counts in self._transforms:
            try:
                if transform(subject):
                    counts.hits += 1
            except RuleFailed:
                counts.failed += 1
        for keep, counts in self._filters:
            counts.checked += 1
            passes, counted = keep(subject)
            if counted:
                counts.hits += 1
            if not passes:
                counts.blocked += 1
                return False
        return True

    def add_counts(self, total: dict[str, RuleCounts]) -> None:
        """Add what happened so far to ``total``, by rule id: rules of one id share a row, as in the proxy."""
        for rule, counts in zip(self.rules, self._counts, strict=True):
            checked = counts.checked if rule.transform is None else self._subjects
            _add(total, rule.id, counts, checked)

    def trace(self, subject: Subject) -> list[Step]:
        """Apply the rules and tell what each did; counts nothing."""
        subject.index()
        self._keys.learn(subject.values)
        steps = [
            self._transformed(rule, rule.transform, subject)
            for rule in self.rules
            if rule.transform is not None
        ]
        for rule in self.rules:
            if rule.keep is None:
                continue
            passes = rule.keep(subject).passes
            outcome = "passed" if passes else "blocked"
            steps.append(Step(rule.id, rule.action, rule.line, outcome))
            if not passes:
                break
        return steps

    def _transformed(self, rule: R, transform: Transform, subject: Subject) -> Step:
        before = Snapshot.of(subject)
        changes: tuple[Change, ...] = ()
        try:
            applied = transform(subject)
        except RuleFailed:
            outcome = "failed"
        else:
            changes = changes_between(self.kind, before, Snapshot.of(subject))
            outcome = "not applicable" if not applied else "applied" if changes else "no effect"
        return Step(rule.id, rule.action, rule.line, outcome, changes)


def _add(total: dict[str, RuleCounts], rule_id: str, counts: RuleCounts, checked: int) -> None:
    row = total.setdefault(rule_id, RuleCounts())
    row.checked += checked
    row.hits += counts.hits
    row.failed += counts.failed
    row.blocked += counts.blocked


def changes_between(kind: Kind, before: Snapshot, after: Snapshot) -> tuple[Change, ...]:
    """What differs; a tag that goes and one of the same key that comes are one change."""
    changes = []
    if before.name != after.name:
        changes.append(Change(kind.name_scope, before.name, after.name))
    if before.source != after.source:
        changes.append(Change("sourceName", before.source, after.source))
    gone, come = list(before.annotations), []
    for tag in after.annotations:
        if tag in gone:
            gone.remove(tag)
        else:
            come.append(tag)
    for key, value in gone:
        same = next((tag for tag in come if tag[0] == key), None)
        if same is not None:
            come.remove(same)
        changes.append(Change(key, value, None if same is None else same[1]))
    changes += [Change(key, None, value) for key, value in come]
    return tuple(changes)


class RuleSet:
    """What one port's rules do to spans, to points, and to lines before they are read.

    Patterns and their memories are shared with the other ports' rule sets; counts are this one's own.
    """

    def __init__(
        self,
        spans: Sequence[SpanRule] = (),
        points: Sequence[PointRule] = (),
        lines: Sequence[LineRule] = (),
        *,
        keys: KeyTable,
    ) -> None:
        self.spans = spans
        self.points = points
        self.lines = lines
        self._spans: Chain[SpanRule] = Chain(SPAN, spans, keys)
        self._points: Chain[PointRule] = Chain(POINT, points, keys)
        self._line_counts = [RuleCounts() for _ in lines]
        # Bound once: one call less for every span.
        self.apply: Callable[[Subject], bool] = self._spans.apply
        self.apply_point: Callable[[Subject], bool] = self._points.apply

    def trace(self, subject: Subject) -> list[Step]:
        """Apply the span rules to ``subject`` and tell what each did; counts nothing."""
        return self._spans.trace(subject)

    def apply_line(self, line: str, judged: str | None = None) -> str | None:
        """The line as the line rules make it; None when one of them keeps it (or ``judged`` in its stead) out."""
        rules = list(zip(self.lines, self._line_counts, strict=True))
        for rule, counts in rules:
            if rule.transform is not None:
                line = _line(rule.transform, counts, line)
        for rule, counts in rules:
            if rule.keep is None:
                continue
            counts.checked += 1
            passes, counted = rule.keep(line if judged is None else judged)
            counts.hits += counted
            if not passes:
                counts.blocked += 1
                return None
        return line

    def counts(self) -> dict[str, RuleCounts]:
        """By rule id, since the set was made."""
        total: dict[str, RuleCounts] = {}
        self._spans.add_counts(total)
        self._points.add_counts(total)
        for rule, counts in zip(self.lines, self._line_counts, strict=True):
            _add(total, rule.id, counts, counts.checked)
        return total


def _line(transform: LineTransform, counts: RuleCounts, line: str) -> str:
    counts.checked += 1
    try:
        changed = transform(line)
    except RuleFailed:
        counts.failed += 1
        return line
    if changed is None:
        return line
    counts.hits += 1
    return changed
