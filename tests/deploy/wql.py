"""Wavefront's query language, as far as deploy/dashboards uses it: a strict reader.

Functions, their arguments and the grammar of filters are those of the vendor's reference pages; what is not
listed here is an error, so that a query in a dashboard is one that somebody has thought of.
"""

import re
from dataclasses import dataclass, field

_TOKEN = re.compile(r'\s*(?:(\d+[smh])\b|(\d+(?:\.\d+)?)|("[^"]*")|([A-Za-z_]\w*)|([-+*/(),=]))')
AGGREGATES = {"sum", "max", "min", "avg"}
SUMMARIES = {"mean", "max", "min", "last", "sum"}


@dataclass
class Series:
    """One ``ts()``: its metric, its filters (tag -> values), and the functions around it, innermost first."""

    metric: str
    filters: dict[str, list[str]] = field(default_factory=dict)
    around: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    """The tags by which an aggregation around it, or its percentile, tells series apart."""


def read(query: str) -> list[Series]:
    """Every ``ts()`` of the query; ValueError says what is wrong, and where."""
    reader = _Reader(query)
    found = reader.expression()
    if reader.peek():
        raise reader.wrong("an operator or the end")
    return found


class _Reader:
    def __init__(self, query: str) -> None:
        self._query = query
        self._tokens: list[str] = []
        at = 0
        while query[at:].strip():
            match = _TOKEN.match(query, at)
            if match is None:
                raise ValueError(f"{query}\nnot a token: {query[at:]}")
            self._tokens.append(match[0].strip())
            at = match.end()
        self._at = 0

    def wrong(self, wanted: str) -> ValueError:
        before = " ".join(self._tokens[: self._at])
        return ValueError(f"{self._query}\nafter: {before}\nwanted {wanted}, got {self.peek()!r}")

    def peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def take(self, *wanted: str, pattern: str = "") -> str:
        token = self.peek()
        if not (token in wanted or (pattern and re.fullmatch(pattern, token))):
            raise self.wrong(" or ".join(wanted) or pattern)
        self._at += 1
        return token

    def expression(self) -> list[Series]:
        found = self._operand()
        while self.peek() in ("+", "-", "*", "/"):
            self._at += 1
            found += self._operand()
        return found

    def _operand(self) -> list[Series]:
        token = self.take("(", pattern=r"\d+(\.\d+)?|[A-Za-z_]\w*")
        if token == "(":
            found = self.expression()
            self.take(")")
            return found
        if token[0].isdigit():
            return []
        self.take("(")
        found = self._call(token)
        self.take(")")
        return found

    def _call(self, name: str) -> list[Series]:
        if name == "time":
            return []
        if name == "ts":
            return [self._series()]
        if name == "align":
            self.take(pattern=r"\d+[smh]")
            self.take(",")
            self.take(*SUMMARIES)
            self.take(",")
        elif name == "cumulativePercentile":
            percent = float(self.take(pattern=r"\d+(\.\d+)?"))
            if not 0 < percent < 100:
                raise self.wrong("a percentage")
            self.take(",")
        elif name != "rate" and name not in AGGREGATES:
            raise self.wrong(f"a known function instead of {name}")
        found = self.expression()
        groups = []
        while name in AGGREGATES and self.peek() == ",":
            self._at += 1
            groups.append(self.take(pattern=r"[A-Za-z_]\w*"))
        for series in found:
            series.around.append(name)
            series.groups += groups
            # An aggregation leaves nothing but its groups, and the percentile needs the bounds of buckets.
            if name == "cumulativePercentile" and series.groups[:1] != ["le"]:
                raise self.wrong("a sum by le within the percentile")
        return found

    def _series(self) -> Series:
        series = Series(self.take(pattern=r'"[\w.]+"').strip('"'))
        if self.peek() == ",":
            self._at += 1
            self._filters(series)
        return series

    def _filters(self, series: Series) -> None:
        while True:
            if self.peek() == "not":
                self._at += 1
            if self.peek() == "(":
                self._at += 1
                self._filters(series)
                self.take(")")
            else:
                tag = self.take(pattern=r"[A-Za-z_]\w*")
                self.take("=")
                value = self.take(pattern=r'"[^"]+"').strip('"')
                series.filters.setdefault(tag, []).append(value)
            if self.peek() not in ("and", "or"):
                return
            self._at += 1
