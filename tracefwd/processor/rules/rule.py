"""What a rule is once it has been read, and what is known of it while it runs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from tracefwd.processor.rules.subject import Subject, Tag

# What a rule may make of a name or value, in UTF-8.  Wavefront takes 128 characters; the rest is room for rules that
# shorten later, and a bound for those that double with every iteration.
VALUE_BYTES_MAX = 65_536

T = TypeVar("T")


class RuleFailed(Exception):  # noqa: N818 - the value's fault; the rule is left out for it
    """This subject's values cannot be treated as the rule wants; nothing was changed."""


Transform = Callable[[Subject], bool]
"""Changes the subject; whether it applied.  Raises ``RuleFailed``, then without having changed anything."""

LineTransform = Callable[[str], str | None]
"""The changed line, or None where it does not apply."""


class Verdict(NamedTuple):
    """A filter's answer, and whether that counts as the rule's doing (``spanAllow`` counts what it keeps out)."""

    passes: bool
    counts: bool


Filter = Callable[[T], Verdict]
PASS = Verdict(True, False)
PASS_COUNTED = Verdict(True, True)
BLOCK = Verdict(False, True)
BLOCK_UNCOUNTED = Verdict(False, False)


@dataclass(frozen=True, slots=True)
class SpanRule:
    """One rule for spans, ready to run; ``transform`` or ``keep`` is set."""

    id: str
    action: str
    line: int
    transform: Transform | None = None
    keep: Filter[Subject] | None = None


@dataclass(frozen=True, slots=True)
class PointRule(SpanRule):
    """The same for points."""


@dataclass(frozen=True, slots=True)
class LineRule:
    """One rule for the text of a line before anybody reads it."""

    id: str
    action: str
    line: int
    transform: LineTransform | None = None
    keep: Filter[str] | None = None


AnyRule = SpanRule | LineRule


class RuleCounts:
    """How often a rule was asked, applied, failed on a value, and kept something out."""

    __slots__ = ("blocked", "checked", "failed", "hits")

    def __init__(self, checked: int = 0, hits: int = 0, failed: int = 0, blocked: int = 0) -> None:
        self.checked = checked
        self.hits = hits
        self.failed = failed
        self.blocked = blocked

    def add_to(self, total: dict[tuple[str, ...], float], rule: str) -> None:
        """By (rule, result)."""
        for result, number in (
            ("checked", self.checked),
            ("applied", self.hits),
            ("failed", self.failed),
            ("blocked", self.blocked),
        ):
            total[rule, result] = total.get((rule, result), 0) + number


class Snapshot(NamedTuple):
    """A subject at one moment."""

    name: str
    source: str
    annotations: tuple[Tag, ...]

    @classmethod
    def of(cls, subject: Subject) -> "Snapshot":
        return cls(subject.name, subject.source, tuple(subject.annotations))


class Change(NamedTuple):
    """``what``: spanName (metricName), sourceName, or a tag's key; None is absent."""

    what: str
    before: str | None
    after: str | None


class Step(NamedTuple):
    """What one rule did to one subject: ``applied``, ``no effect``, ``not applicable``, ``failed``, ``passed`` or
    ``blocked``."""

    rule: str
    action: str
    line: int
    outcome: str
    changes: tuple[Change, ...] = ()
