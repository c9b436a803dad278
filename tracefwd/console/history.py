"""History: the last hour of a few numbers, in steps of 10 seconds, as the console's small plots show them.

A step that nobody measured (the service was down, or its parent slept) is null in every column, so that a plot
shows the gap.  It is kept as JSON text, which whoever has a folder may write and read back.  Pure: time is an argument.
"""

import json
from collections.abc import Mapping
from typing import Any

STEP_S = 10
STEPS_MAX = 360
COLUMNS = (
    "spans_per_s",
    "delivered_per_s",
    "rejected_per_s",
    "dropped_per_s",
    "latency_p50_ms",
    "latency_p95_ms",
    "latency_p99_ms",
    "held_items",
    "queue_bytes",
    "spool_bytes",
    "memory_bytes",
    "workers",
)
Row = tuple[float | None, ...]
_UNKNOWN: Row = (None,) * len(COLUMNS)


class History:
    """Rows by step; a step's number is its beginning's epoch seconds divided by ``STEP_S``."""

    def __init__(self) -> None:
        self._rows: list[Row] = []
        self._last = 0

    def is_due(self, now_s: float) -> bool:
        """Whether the step that ``now_s`` lies in has no row yet."""
        return not self._rows or int(now_s // STEP_S) != self._last

    def add(self, now_s: float, values: Mapping[str, float | None]) -> dict[str, float | None]:
        """The row of the step that ``now_s`` lies in, also as the stream of events tells it."""
        step = int(now_s // STEP_S)
        row = tuple(_rounded(values.get(name)) for name in COLUMNS)
        if self._rows and not self._last < step < self._last + STEPS_MAX:
            if step == self._last:
                self._rows.pop()
            else:
                # The clock was set back, or an hour is missing.
                self._rows.clear()
        elif self._rows:
            self._rows += [_UNKNOWN] * (step - self._last - 1)
        self._rows.append(row)
        self._last = step
        del self._rows[:-STEPS_MAX]
        return {"at": float(step * STEP_S), **dict(zip(COLUMNS, row, strict=True))}

    def show(self) -> dict[str, Any]:
        first = self._last - len(self._rows) + 1
        columns = zip(*self._rows, strict=True) if self._rows else ((),) * len(COLUMNS)
        return {
            "step_s": STEP_S,
            "at": [float((first + place) * STEP_S) for place in range(len(self._rows))],
            "columns": {name: list(values) for name, values in zip(COLUMNS, columns, strict=True)},
        }

    def text(self) -> str:
        return json.dumps(self.show())

    def restore(self, text: str, now_s: float) -> bool:
        """Take over what an earlier process wrote, as far as it is of the last hour; whether it could be read."""
        try:
            found = json.loads(text)
            at, columns = found["at"], found["columns"]
            rows = list(zip(*(columns[name] for name in COLUMNS), strict=True))
            good = found["step_s"] == STEP_S and len(at) == len(rows) <= STEPS_MAX
            good = good and all(_is_number(value) for row in rows for value in row)
            last = int(at[-1] // STEP_S) if at else 0
        except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
            return False
        if not good:
            return False
        if rows and 0 <= now_s // STEP_S - last < STEPS_MAX:
            self._rows, self._last = rows, last
        return True


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 3)


__all__ = ["COLUMNS", "STEPS_MAX", "STEP_S", "History"]
