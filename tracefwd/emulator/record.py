"""Writes down every line with its verdict, one JSON object per line, appended to a file.

    {"signal": …, "line": …, "verdict": "accepted" | "rejected", "port": …, "reason": … (rejected only)}

A line is on the file when the answer to its request leaves.  A file that cannot be written is the operator's to know:
``OSError`` at the start, counted and logged once afterwards, because a full disk must not change verdicts.
"""

import logging
from pathlib import Path
from typing import BinaryIO

import msgspec

from tracefwd.emulator.ports import Port, Signal

_log = logging.getLogger(__name__)
_encode = msgspec.json.encode


class Recorder:
    """An open file and the lines that are not on it yet."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # Unbuffered: one write per flush, nothing lost behind our back.
        self._file: BinaryIO = path.open("ab", buffering=0)
        self._pending: list[bytes] = []
        self.lost = 0

    def note(self, signal: Signal, line: str, port: Port, reason: str | None) -> None:
        row = {"signal": signal, "line": line, "verdict": "accepted", "port": port}
        if reason is not None:
            row |= {"verdict": "rejected", "reason": reason}
        try:
            self._pending.append(_encode(row))
        except UnicodeEncodeError:
            # A lone surrogate cannot be in decoded UTF-8, but the readers take any text.
            row["line"] = line.encode("utf-8", "replace").decode()
            self._pending.append(_encode(row))

    def flush(self) -> None:
        if not self._pending:
            return
        pending, self._pending = self._pending, []
        data = memoryview(b"\n".join(pending) + b"\n")
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError as error:
            if not self.lost:
                _log.error("cannot write %s, lines are not recorded: %s", self._path, error)
            self.lost += len(pending)

    def close(self) -> None:
        self.flush()
        self._file.close()
