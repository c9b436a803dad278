"""What each port of each proxy version takes, and how it tells one kind of line from another.

    trace       traceListenerPorts (30000): any line is a span, ``{…}`` or ``f=spanLogs`` a span log metrics
    pushListenerPorts (2878): by ``f`` (or ``format``), else by the line; spans only by ``f``
    direct      direct ingestion, ``/report?f=…``: by ``f`` alone, ``wavefront`` if absent

The numbers per version are the defaults in the vendor's releases.  Pure.
"""

from dataclasses import dataclass
from typing import Literal

from tracefwd.emulator.rules import Refused

Signal = Literal["spans", "span_logs", "points", "distributions"]
Port = Literal["trace", "metrics", "direct"]
SIGNALS: tuple[Signal, ...] = ("spans", "span_logs", "points", "distributions")

CURRENT = "current"
_FORMATS: dict[str, Signal] = {
    "wavefront": "points",
    "graphite_v2": "points",
    "histogram": "distributions",
    "trace": "spans",
    "spanLogs": "span_logs",
}
_BINS = ("!M ", "!H ", "!D ")
_NEWEST = (10**6,)


@dataclass(frozen=True, kw_only=True)
class ProxyVersion:
    """A proxy release's habits.  ``status`` is its answer to lines over HTTP."""

    text: str
    status: int
    trace_line_bytes_max: int
    metrics_line_bytes_max: int
    trace_span_logs: bool
    metrics_formats: bool
    span_member_read: bool

    @property
    def is_current(self) -> bool:
        return self.text == CURRENT

    @classmethod
    def named(cls, text: str) -> "ProxyVersion":
        """``current`` or a release such as ``4.35``; ``ValueError`` for anything else."""
        number = _NEWEST if text == CURRENT else _number(text)
        return cls(
            text=text,
            status=202 if number >= (5, 0) else 204,
            # TCP only; HTTP bodies are bounded as a whole.
            trace_line_bytes_max=1_048_576 if number >= (4, 37) else 4_096,
            metrics_line_bytes_max=32_768 if number >= (4, 39) else 4_096,
            trace_span_logs=number >= (4, 37),
            metrics_formats=number >= (7, 0),
            span_member_read=number >= (8, 1),
        )

    def line_bytes_max(self, port: Port) -> int:
        return self.trace_line_bytes_max if port == "trace" else self.metrics_line_bytes_max


def _number(text: str) -> tuple[int, ...]:
    parts = text.split(".")
    if not all(part.isdecimal() for part in parts):
        raise ValueError(f"proxy version {text!r}: expected 'current' or a release such as '4.35'")
    return tuple(map(int, parts))


def format_named(name: str | None) -> Signal | None:
    """The signal that ``?f=`` names; None for none and for unknown names, which a proxy ignores."""
    return _FORMATS.get(name) if name is not None else None


def signal_of(
    line: str, *, port: Port, form: Signal | None, version: ProxyVersion
) -> tuple[Signal, Refused | None]:
    """What the port takes the line for, and why not if it does not take such lines."""
    if port == "direct":
        return form or "points", None
    is_json = line.startswith("{") and line.endswith("}")
    if port == "trace":
        if form == "span_logs" or is_json:
            if version.trace_span_logs:
                return "span_logs", None
            message = f"proxy {version.text} reads span logs as spans, and refuses them"
            return "span_logs", Refused("not_in_this_version", message)
        return "spans", None
    if "\x04" in line:
        return "points", Refused("eot", "'EOT' character is not allowed!")
    if version.metrics_formats and form is not None:
        return form, None
    if is_json and version.metrics_formats:
        return "span_logs", None
    if line.startswith(_BINS):
        return "distributions", None
    if line.startswith("@"):
        return "points", Refused("not_imitated", "source tags and events are not imitated")
    return "points", None


def count_lines(body: bytes, *, port: Port, form: Signal | None) -> dict[Signal, int]:
    """Lines per signal by their first characters, nothing parsed; blank lines count."""
    total = body.count(b"\n") + (not body.endswith(b"\n") and body != b"")
    if form is not None or port == "direct":
        return {form or "points": total}
    text = b"\n" + body
    logs = text.count(b"\n{")
    if port == "trace":
        return {"spans": total - logs, "span_logs": logs}
    bins = text.count(b"\n!")
    return {"points": total - logs - bins, "distributions": bins, "span_logs": logs}
