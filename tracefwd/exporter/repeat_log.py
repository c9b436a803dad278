"""Log lines that would repeat: the first at once, then at most one per interval with the count of all since.

Nothing that is noted is left unsaid: what came within an interval is said at its end, or at ``close``.
"""

import asyncio
import logging

INTERVAL_S = 10.0


class RepeatLog:
    """One lane's repeating messages.  Keys come from a closed set, so memory is bounded."""

    def __init__(self, logger: logging.Logger, prefix: str) -> None:
        self._logger = logger
        self._prefix = prefix
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._muted: dict[str, asyncio.TimerHandle] = {}
        self._noted: dict[str, tuple[int, int, str]] = {}

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on there is time; what was noted before is said."""
        self._loop = loop
        for key in list(self._noted):
            self._say(key)

    def close(self) -> None:
        for handle in self._muted.values():
            handle.cancel()
        self._muted.clear()
        self._loop = None
        self._closed = True
        for key in list(self._noted):
            self._say(key)

    def note(self, key: str, level: int, count: int, text: str) -> None:
        """``text`` follows the count; within one interval the newest text stands for all of its key."""
        before = self._noted[key][1] if key in self._noted else 0
        self._noted[key] = (level, before + count, text)
        # After closing nothing would say it later.
        if (self._loop is not None and key not in self._muted) or self._closed:
            self._say(key)

    def _say(self, key: str) -> None:
        level, count, text = self._noted.pop(key)
        # Else the log would take all that lanes say for repeats of one sentence, and hold back losses of another one.
        sentence = {"sentence": f"{self._prefix}: {key}"}
        self._logger.log(level, "%s: %d %s", self._prefix, count, text, extra=sentence)
        if self._loop is not None:
            self._muted[key] = self._loop.call_later(INTERVAL_S, self._unmute, key)

    def _unmute(self, key: str) -> None:
        del self._muted[key]
        if key in self._noted:
            self._say(key)
