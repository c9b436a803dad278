"""What a lane says in the log: losses, refusals, a destination that fails, is down, is back.

ERROR is for lost lines and for what a person must mend; a failure that only needs another attempt is a
WARNING, and the first of a row is nothing.  Repeats are counted, not repeated.
"""

import asyncio
import logging
import time
import traceback

from tracefwd.exporter import verdicts
from tracefwd.exporter.repeat_log import RepeatLog
from tracefwd.exporter.route import Route
from tracefwd.model import Outcome

# A failure that the next attempt mends is no news; the second in a row is.
FAILURES_NOTED_FROM = 2

_DROP_ADVICE = {
    "queue_full": "the target was slower than the intake; see exporter.queue_bytes_max",
    "drain_budget": "not delivered before the end; see service.drain_timeout",
    "retries_exhausted": "older than exporter.retry.age_max; see the failures before",
    "spool_full": "the spool is full; see spool.bytes_max and spool.full",
    "spool_expired": "older than spool.age_max; see the failures before",
    "spool_damaged": "their file in the spool cannot be read any more; see the disk",
}
logger = logging.getLogger("tracefwd.exporter")


class LaneLog:
    """``lane`` is the target's name and the signal."""

    def __init__(self, lane: str) -> None:
        self._lane = lane
        self._log = RepeatLog(logger, lane)
        # The newest failure or refusal, whatever came after it, and when that was (seconds since 1970).
        self.last_error = ""
        self.last_error_at = 0.0

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        self._log.open(loop)

    def close(self) -> None:
        self._log.close()

    def dropped(self, reason: str, items: int) -> None:
        text = f"lines dropped ({reason}): {_DROP_ADVICE[reason]}"
        self._remember(text)
        self._log.note(reason, logging.ERROR, items, text)

    def rejected(self, reason: str, items: int, where: str, detail: str) -> None:
        text = f"lines rejected ({reason}) by {where}: {detail}"
        self._remember(text)
        self._log.note(reason, logging.ERROR, items, text)

    def failed(self, route: Route, outcome: Outcome, *, went_down: bool) -> None:
        where = route.where
        self._remember(f"{where}: {outcome.detail}")
        failures = route.breaker.failures
        if went_down:
            text = f"failures in a row: {where} is down and will be probed: {outcome.detail}"
            self._log.note(f"down {route.name}", logging.ERROR, failures, text)
        elif outcome.reason in verdicts.CREDENTIALS:
            text = f"attempts without valid credentials at {where}, lines kept: {outcome.detail}"
            self._log.note("auth", logging.ERROR, 1, text)
        elif failures >= FAILURES_NOTED_FROM:
            text = f"attempts failed at {where}, lines kept: {outcome.detail}"
            self._log.note(f"failing {route.name}", logging.WARNING, 1, text)

    def _remember(self, text: str) -> None:
        self.last_error, self.last_error_at = text, time.time()

    def back(self, route: Route) -> None:
        logger.info("%s: %s takes lines again", self._lane, route.where)

    def fault(self, failure: BaseException) -> None:
        """A bug in a sender: its stack without the exception's own text, which may hold a secret."""
        stack = "".join(traceback.format_tb(failure.__traceback__))
        text = f"attempts failed inside tracefwd: {type(failure).__name__}\n{stack}"
        self._log.note("internal", logging.ERROR, 1, text)
