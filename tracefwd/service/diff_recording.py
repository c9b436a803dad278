"""What one side of ``tracefwd diff`` holds: a file of lines, or a live stand-in.

A file is read by its content, line by line:

    span lines, span logs (JSON), points, distributions      as any sender writes them
    {"signal": …, "line": …, "verdict": …}                     as ``tracefwd emulate --record`` writes them
    {"delta_counters": […], "distributions": […], …}           one JSON object: totals, as ``/series`` answers

Metric lines are added up at once; span lines and span logs stay text until they are compared.  So the memory is that
of the input, plus the series.  What no reader understands is kept as text and compared as text, never skipped.
"""

import http.client
import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import msgspec

from tracefwd.emulator.metric_reader import MetricReader
from tracefwd.emulator.rules import Limits, Refused
from tracefwd.emulator.series import SeriesTable
from tracefwd.errors import ConfigError
from tracefwd.service.masking import mask_url

# A stand-in answers from memory; a large answer takes it a second.
_TIMEOUT_SECONDS = 30.0
# A name, then a number: a point.  A span line has a tag there.
_POINT = re.compile(r'\s*(?:"(?:[^"\\]|\\.)*"|[^\s"]+)\s+[-+.0-9]')
_BINS = ("!M ", "!H ", "!D ")
_LINE_SIGNALS = ("spans", "span_logs")
# The files are the operator's own: every series counts, whatever their number.
_SERIES_MAX = 2**62


@dataclass
class Recording:
    """``name`` is what the operator called it.

    ``series`` is as ``/series`` shows it; ``refused``: lines that a stand-in did not take, by signal and reason.
    """

    name: str
    spans: list[str] = field(default_factory=list)
    span_logs: list[str] = field(default_factory=list)
    series: dict[str, Any] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    refused: Counter[tuple[str, str]] = field(default_factory=Counter)
    # Why this is not everything that was sent.
    gaps: list[str] = field(default_factory=list)

    def shown(self) -> dict[str, int]:
        series = ("delta_counters", "distributions", "heartbeats", "points")
        return {
            "spans": len(self.spans),
            "span_logs": len(self.span_logs),
            **{name: len(self.series.get(name, ())) for name in series},
            "unreadable": len(self.unreadable),
            "refused": self.refused.total(),
        }


def load(place: str) -> Recording:
    """A path, or the URL of a stand-in.  ``ConfigError`` says why it cannot be read."""
    if "://" in place:
        return _from_stand_in(place)
    try:
        text = Path(place).read_bytes().decode("utf-8", "surrogateescape")
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(
            [f"{place}: {reason}; give a readable file, or the URL of a stand-in"]
        ) from error
    totals = _totals(text)
    if totals is not None:
        return Recording(place, series=totals)
    # Only LF ends a line: a value may hold any other of Unicode's line breaks.
    return of_lines(place, text.split("\n"))


def _totals(text: str) -> dict[str, Any] | None:
    """One JSON object of series; its head says so before all of it is read."""
    if not text.lstrip().startswith("{") or '"delta_counters"' not in text:
        return None
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) and "delta_counters" in value else None


def of_lines(name: str, lines: Iterable[str]) -> Recording:
    """Lines of any kind, mixed; blank ones do not count."""
    sorter = _Sorter(name)
    for line in lines:
        line = line.strip("\r\n")
        if line and not line.isspace():
            sorter.take(line)
    return sorter.result()


class _Sorter:
    """Puts each line where it belongs."""

    def __init__(self, name: str) -> None:
        self._recording = Recording(name)
        self._table = SeriesTable(_SERIES_MAX)
        self._reader = MetricReader(Limits())

    def take(self, line: str) -> None:
        if line.startswith("{") and '"signal"' in line and self._take_recorded(line):
            return
        self._take_line(line, _signal_of(line))

    def _take_recorded(self, line: str) -> bool:
        try:
            row = msgspec.json.decode(line.encode("utf-8", "surrogateescape"))
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return False
        if not isinstance(row, dict) or not isinstance(row.get("line"), str):
            return False
        signal = str(row.get("signal", ""))
        if row.get("verdict") == "rejected":
            self._recording.refused[signal, str(row.get("reason", ""))] += 1
        else:
            self._take_line(row["line"], signal)
        return True

    def _take_line(self, line: str, signal: str) -> None:
        recording = self._recording
        if signal == "spans":
            recording.spans.append(line)
        elif signal == "span_logs":
            recording.span_logs.append(line)
        else:
            try:
                if signal == "distributions":
                    self._table.add_distribution(self._reader.read_distribution(line, 0))
                else:
                    self._table.add_point(self._reader.read_point(line, 0))
            except Refused:
                recording.unreadable.append(line)

    def result(self) -> Recording:
        self._recording.series = self._table.shown("")
        return self._recording


def _signal_of(line: str) -> str:
    if line.startswith("{"):
        return "span_logs"
    if line.startswith(_BINS):
        return "distributions"
    return "points" if _POINT.match(line) else "spans"


def _from_stand_in(url: str) -> Recording:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 80
    except ValueError:
        host = None
    if not host or parts.scheme != "http" or parts.path not in ("", "/"):
        raise ConfigError([f"{mask_url(url)}: no stand-in's URL; write http://HOST:PORT"])
    try:
        return _asked(url, host, port)
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ConfigError(
            [
                f"{url}: {reason}; give the query port of a running stand-in (tracefwd emulate --listen)"
            ]
        ) from error


def _asked(url: str, host: str, port: int) -> Recording:
    connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT_SECONDS)
    try:
        totals = _get(connection, "/totals")
        recording = Recording(url, series=_get(connection, "/series"))
        for signal, kept in (("spans", recording.spans), ("span_logs", recording.span_logs)):
            answer = _get(connection, "/lines", signal=signal, limit=str(2**62))
            kept += answer["lines"]
            if answer["total"] > len(kept):
                recording.gaps.append(
                    f"{url} keeps the newest {len(kept)} of {answer['total']} {signal}; "
                    "record them (tracefwd emulate --record FILE)"
                )
        if totals["mode"] != "full":
            recording.gaps.append(f"{url} only counts lines, it does not read them")
        if recording.series.get("untracked"):
            recording.gaps.append(f"{url} had no room for all series")
        for signal in (*_LINE_SIGNALS, "points", "distributions"):
            for reason, count in totals[signal]["by_reason"].items():
                recording.refused[signal, reason] += count
        return recording
    finally:
        connection.close()


def _get(connection: http.client.HTTPConnection, path: str, **query: str) -> dict[str, Any]:
    connection.request("GET", f"{path}?{urlencode(query)}" if query else path)
    response = connection.getresponse()
    body = response.read()
    if response.status != 200:
        raise ValueError(f"{path} answered {response.status}")
    answer: dict[str, Any] = msgspec.json.decode(body, type=dict[str, Any])
    return answer
