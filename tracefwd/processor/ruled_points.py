"""An operator's preprocessor rules for scraped points, between translation and delivery.

A rule sees a point as the Wavefront proxy's own port would: its line as text, then name, source, tags, time, value.
What rules leave is held to Wavefront's limits again, as in ``ruled.py``.  A line that no rule changed stays the very
line it was.

Only where there are rules for points is a line read back; distributions pass as they are.  Pure but for the rules' own
counts.
"""

import math
import re
from typing import NamedTuple

from tracefwd import naming
from tracefwd.limits import (
    POINT_NAME_LENGTH_MAX,
    POINT_SOURCE_LENGTH_MAX,
    POINT_TAG_KEY_LENGTH_MAX,
    POINT_TAG_PAIR_LENGTH_MAX,
)
from tracefwd.model import Payload, Signal
from tracefwd.processor.rules.rule_set import RuleSet
from tracefwd.processor.rules.subject import Subject
from tracefwd.processor.tags import Repairs, count

Tag = tuple[str, str]

# Between quotes; a quote is part of the text if, and only if, a backslash is before it.
_TEXT = r'"((?:[^"]|(?<=\\)")*)"'
_LINE = re.compile(
    rf"{_TEXT} (\S+) ([0-9]{{1,13}}) source={_TEXT}((?: {_TEXT}={_TEXT})*)", re.DOTALL
)
_TAG = re.compile(rf" {_TEXT}={_TEXT}", re.DOTALL)
_NAME_BAD = re.compile(r"[^,\-./0-9A-Za-z_]")
_LEADS = ("~", "\u2206", "\u0394")
# Wavefront's reader would take these for the point's own source, or rename them so by itself (``tag``).
_RESERVED = frozenset({"host", "source", "tag"})


class Ruled(NamedTuple):
    """What rules leave of a payload; ``invalid`` are lines that are no points any more, which nobody takes."""

    payload: Payload | None
    blocked: int = 0
    invalid: int = 0


class RuledPoints:
    """Rules may be exchanged at any time between two payloads.  ``tags_max`` bounds what rules may add."""

    def __init__(self, rules: RuleSet, tags_max: int) -> None:
        self.rules = rules
        self.repairs: Repairs = {}
        self._tags_max = tags_max
        # Bounded by the rule ids of all files that were ever loaded: an operator's doing.
        self._past: dict[tuple[str, ...], float] = {}

    def exchange(self, rules: RuleSet) -> None:
        """Go on with other rules; what the old ones counted stays counted."""
        self._past = self.samples()
        self.rules = rules

    def samples(self) -> dict[tuple[str, ...], float]:
        """(rule, result) -> points, since the start."""
        total = dict(self._past)
        ours = {rule.id for rule in self.rules.points} | {rule.id for rule in self.rules.lines}
        for rule, counts in self.rules.counts().items():
            if rule in ours:
                counts.add_to(total, rule)
        return total

    def filter(self, payload: Payload) -> Ruled:
        if payload.signal != Signal.POINTS or not (self.rules.points or self.rules.lines):
            return Ruled(payload)
        kept: list[str] = []
        blocked = invalid = 0
        # A line feed inside a value is escaped.
        for line in payload.data.decode().split("\n")[:-1]:
            passed = self._pass(line)
            if passed is None:
                blocked += 1
            elif not passed:
                invalid += 1
            else:
                kept.append(passed)
        if not kept:
            return Ruled(None, blocked, invalid)
        data = "\n".join([*kept, ""]).encode()
        return Ruled(Payload(Signal.POINTS, data, len(kept)), blocked, invalid)

    def _pass(self, line: str) -> str | None:
        """The line after the rules; None: blocked, "": it cannot be a point any more."""
        changed = self.rules.apply_line(line)
        if changed is None:
            return None
        match = _LINE.fullmatch(changed)
        if match is None or not _is_number(match[2]):
            return ""
        name, value, seconds, source, rest = match.group(1, 2, 3, 4, 5)
        tags = [(key, _unquoted(text)) for key, text in _TAG.findall(rest)]
        subject = Subject(
            _unquoted(name),
            _unquoted(source),
            [*tags],
            start_ms=int(seconds) * 1_000,
            value=float(value),
        )
        before = subject.name, subject.source
        if not self.rules.apply_point(subject):
            return None
        is_same = (subject.name, subject.source) == before and subject.annotations == tags
        if is_same and changed == line:
            return line
        return self._settle(subject, tags if changed == line else [], f"{value} {seconds}")

    def _settle(self, subject: Subject, before: list[Tag], when: str) -> str:
        name = self._name(subject.name)
        if not name:
            return ""
        source = subject.source.strip()
        if not source:
            return ""
        if naming.length(source) > POINT_SOURCE_LENGTH_MAX:
            count(self.repairs, "source_cut")
            source = naming.cut(source, POINT_SOURCE_LENGTH_MAX)
        tags = self._tags(subject.annotations, set(before))
        pairs = "".join(f' "{key}"="{naming.quoted(value)}"' for key, value in tags.items())
        ended = naming.quoted(naming.guard_end(source))
        return f'"{naming.quoted(name)}" {when} source="{ended}"{pairs}'

    def _name(self, text: str) -> str:
        lead = 1 if text[:1] in _LEADS else 0
        name = text[:lead] + _NAME_BAD.sub("-", text[lead:])
        if len(name) > POINT_NAME_LENGTH_MAX:
            count(self.repairs, "name_cut")
        return name[:POINT_NAME_LENGTH_MAX]

    def _tags(self, tags: list[Tag], before: set[Tag]) -> dict[str, str]:
        """Clean, and within the budget: what rules added is first to be left out."""
        clean: dict[str, str] = {}
        room = self._tags_max - len(before.intersection(tags))
        for key, text in tags:
            if (key, text) in before:
                clean[key] = text
                continue
            name, value = self._pair(key, text)
            if not value:
                count(self.repairs, "blank_value")
            elif name in clean or room > 0:
                room -= name not in clean
                clean[name] = value
            else:
                count(self.repairs, "tag_budget")
        return clean

    def _pair(self, key: str, text: str) -> Tag:
        name = naming.clean_key(key)[:POINT_TAG_KEY_LENGTH_MAX] if key else "_"
        if name in _RESERVED or name.isdigit():
            name = f"_{name}"
        if name != key:
            count(self.repairs, "key_changed")
        value = text.strip()
        length_max = POINT_TAG_PAIR_LENGTH_MAX - len(name)
        if naming.length(value) + value.count("\n") > length_max:
            count(self.repairs, "value_cut")
            value = naming.cut(value.replace("\n", " "), length_max)
        if value.endswith("\\"):
            count(self.repairs, "trailing_backslash")
            value = naming.guard_end(naming.cut(value, length_max - 1))
        return name, value


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text)) and "_" not in text
    except ValueError:
        return False


def _unquoted(text: str) -> str:
    return text.replace('\\"', '"').replace("\\n", "\n") if "\\" in text else text


__all__ = ["Ruled", "RuledPoints"]
