"""What ``tracefwd doctor`` found: one row per check, as text for people and as JSON for programs.

A row has one of four marks.  ``ok`` and ``skipped`` speak for themselves, ``skipped`` with its reason; a ``warning``
and a ``cross`` always say what to do next.  JSON holds the rows that the text shows, in the same order:

    {"fine": true, "counts": {"ok": 9, "warning": 1, "skipped": 2, "cross": 0},
     "checks": [{"part": "target primary", "check": "dns", "mark": "ok", "detail": "…", "advice": ""}, …]}

No text can drive a terminal.  Secrets are masked where they are known, by whoever writes a detail.
"""

import dataclasses
import json
from collections.abc import Sequence
from enum import StrEnum
from itertools import groupby

from tracefwd.console.visible import visible
from tracefwd.service.units import counted

# A row's text: an address, a certificate's names, a target's words (``http_sender.DETAIL_LENGTH_MAX``) and ours.
_TEXT_LENGTH_MAX = 600


class Mark(StrEnum):
    """``cross`` alone decides the exit code."""

    OK = "ok"
    WARNING = "warning"
    SKIPPED = "skipped"
    CROSS = "cross"


_SIGNS = {Mark.OK: "✓", Mark.WARNING: "!", Mark.SKIPPED: "-", Mark.CROSS: "✗"}
_WORDS = {Mark.OK: "ok  ", Mark.WARNING: "warn", Mark.SKIPPED: "skip", Mark.CROSS: "bad "}
_COLOURS = {Mark.OK: 32, Mark.WARNING: 33, Mark.SKIPPED: 2, Mark.CROSS: 31}


@dataclasses.dataclass(frozen=True)
class Finding:
    """``part`` is what was looked at (``target primary``), ``check`` what of it (``dns``)."""

    part: str
    check: str
    mark: Mark
    detail: str
    advice: str = ""

    def __post_init__(self) -> None:
        assert self.advice or self.mark in (Mark.OK, Mark.SKIPPED), f"{self.check}: what to do?"
        for name in ("part", "check", "detail", "advice"):
            text = visible(getattr(self, name), _TEXT_LENGTH_MAX)
            object.__setattr__(self, name, text)


@dataclasses.dataclass(frozen=True)
class Rows:
    """Makes the findings of one part."""

    part: str

    def ok(self, check: str, detail: str) -> Finding:
        return Finding(self.part, check, Mark.OK, detail)

    def skipped(self, check: str, detail: str, advice: str = "") -> Finding:
        return Finding(self.part, check, Mark.SKIPPED, detail, advice)

    def warning(self, check: str, detail: str, advice: str) -> Finding:
        return Finding(self.part, check, Mark.WARNING, detail, advice)

    def cross(self, check: str, detail: str, advice: str) -> Finding:
        return Finding(self.part, check, Mark.CROSS, detail, advice)


MACHINE = Rows("this machine")


def counts(findings: Sequence[Finding]) -> dict[str, int]:
    return {mark.value: sum(each.mark is mark for each in findings) for mark in Mark}


def as_json(findings: Sequence[Finding], *, signs: bool) -> str:
    """``signs``: whether whoever reads it takes more than ASCII."""
    found = counts(findings)
    tree = {
        "fine": not found["cross"],
        "counts": found,
        "checks": [dataclasses.asdict(each) for each in findings],
    }
    return json.dumps(tree, indent=2, ensure_ascii=not signs)


def as_text(findings: Sequence[Finding], *, signs: bool, colour: bool) -> str:
    """``signs``: whether the terminal has ticks and crosses; words otherwise, and nothing but ASCII."""
    marks: dict[Mark, str] = _SIGNS if signs else _WORDS
    if colour:
        marks = {mark: f"\x1b[{_COLOURS[mark]}m{sign}\x1b[0m" for mark, sign in marks.items()}
    arrow = "→" if signs else "do:"
    lines: list[str] = []
    for part, rows in groupby(findings, key=lambda each: each.part):
        lines.append(part)
        for row in rows:
            lines.append(f"  {marks[row.mark]} {row.check}: {row.detail}")
            if row.advice:
                lines.append(f"      {arrow} {row.advice}")
    text = "\n".join([*lines, _verdict(counts(findings))])
    return text if signs else text.encode("ascii", "backslashreplace").decode("ascii")


def _verdict(found: dict[str, int]) -> str:
    words = [
        f"{found['ok']} fine",
        counted(found["warning"], "warning"),
        f"{found['skipped']} skipped",
        counted(found["cross"], "cross", "crosses"),
    ]
    return ", ".join(words)


__all__ = ["MACHINE", "Finding", "Mark", "Rows", "as_json", "as_text", "counts"]
