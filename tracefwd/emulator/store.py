"""What arrived: exact counts per signal, the newest lines, the refused ones, doubles of spans.

Counts are exact since the start or the last reset.  Everything else is bounded: lines and samples are rings, and
doubles are looked for among the newest half million to million spans, far more than any retry reaches back.

Pure; what is written to a file is the recorder's affair (``record.py``).
"""

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

from tracefwd.emulator.ports import SIGNALS, Port, Signal
from tracefwd.emulator.series import SeriesTable

# Newest refused lines shown; all of them count.
REJECTS_KEPT_MAX = 256
# A refused line's head: enough to recognise it, and a rejected megabyte stays small.
REJECT_LINE_MAX = 2_048
# One generation of span identities; two are held, about 120 MB at the very most.
IDENTITIES_MAX = 500_000


@dataclass(slots=True)
class Tally:
    """One signal."""

    kept: deque[tuple[str, Port]]
    accepted: int = 0
    rejected: int = 0
    by_reason: Counter[str] = field(default_factory=Counter)
    warnings: Counter[str] = field(default_factory=Counter)

    def shown(self) -> dict[str, Any]:
        return {
            "accepted": self.accepted,
            "rejected": self.rejected,
            "by_reason": dict(self.by_reason),
            "warnings": dict(self.warnings),
        }


@dataclass(slots=True)
class RequestTally:
    """Requests to the ingestion ports, and what came over plain TCP."""

    by_status: Counter[int] = field(default_factory=Counter)
    by_port: Counter[Port] = field(default_factory=Counter)
    body_bytes: int = 0
    faulted: int = 0
    aborted: int = 0
    tcp_connections: int = 0
    tcp_unterminated: int = 0
    tcp_failed: int = 0

    def shown(self) -> dict[str, Any]:
        return {
            "total": self.by_status.total() + self.aborted,
            "by_status": {str(status): count for status, count in self.by_status.items()},
            "by_port": dict(self.by_port),
            "body_bytes": self.body_bytes,
            "faulted": self.faulted,
            "aborted": self.aborted,
            "tcp_connections": self.tcp_connections,
            "tcp_unterminated": self.tcp_unterminated,
            "tcp_failed": self.tcp_failed,
        }


class Doubles:
    """Counts span identities that were there before, within the newest one to two generations."""

    def __init__(self, generation_max: int = IDENTITIES_MAX) -> None:
        self._generation_max = generation_max
        self._new: set[int] = set()
        self._old: set[int] = set()
        self.count = 0
        # False once an identity was forgotten: from then on a very late double may be missed.
        self.complete = True

    def see(self, identity: tuple[str, str, str]) -> None:
        # 64-bit hashes: a false double needs billions of spans.
        mark = hash(identity)
        if mark in self._new or mark in self._old:
            self.count += 1
            return
        if len(self._new) >= self._generation_max:
            self.complete = self.complete and not self._old
            self._old, self._new = self._new, set()
        self._new.add(mark)


class Store:
    """Everything the query API answers from."""

    def __init__(self, *, keep_lines: int) -> None:
        self._keep_lines = keep_lines
        self.reset()

    def reset(self) -> None:
        """As if nothing had arrived yet."""
        self.tallies: dict[Signal, Tally] = {
            signal: Tally(kept=deque(maxlen=self._keep_lines)) for signal in SIGNALS
        }
        self.series = SeriesTable()
        self.doubles = Doubles()
        self.rejects: deque[dict[str, Any]] = deque(maxlen=REJECTS_KEPT_MAX)
        self.span_log_entries = 0
        self.requests = RequestTally()

    def accept(self, signal: Signal, line: str, port: Port, warnings: tuple[str, ...] = ()) -> None:
        tally = self.tallies[signal]
        tally.accepted += 1
        tally.kept.append((line, port))
        if warnings:
            tally.warnings.update(warnings)

    def reject(self, signal: Signal, line: str, port: Port, reason: str, message: str) -> None:
        tally = self.tallies[signal]
        tally.rejected += 1
        tally.by_reason[reason] += 1
        self.rejects.append(
            {
                "signal": signal,
                "port": port,
                "reason": reason,
                "message": message[:REJECT_LINE_MAX],
                "line": line[:REJECT_LINE_MAX],
            }
        )

    def totals(self) -> dict[str, Any]:
        """The counts of everything, as plain data."""
        shown: dict[str, dict[str, Any]] = {
            signal: tally.shown() for signal, tally in self.tallies.items()
        }
        shown["span_logs"]["entries"] = self.span_log_entries
        shown["distributions"]["count"] = self.series.distribution_count
        shown["distributions"]["sum"] = self.series.distribution_sum
        return {
            **shown,
            "deltas": {
                "accepted": self.series.delta_lines,
                "sum": self.series.delta_sum,
                "red": dict(self.series.red),
            },
            "duplicates": self.doubles.count,
            "duplicates_complete": self.doubles.complete,
            "series_untracked": self.series.untracked,
            "requests": self.requests.shown(),
        }
