"""Patience: how long a lane waits after a failure, by the settings, the breaker's state and chance."""

from random import Random

from tracefwd.exporter.breaker import Breaker, pause_s, probe_wait_s
from tracefwd.exporter.retry import backoff_s
from tracefwd.settings import RetrySettings


class Patience:
    def __init__(self, retry: RetrySettings, random: Random) -> None:
        self._retry = retry
        self._random = random

    def breath_s(self, breaker: Breaker) -> float:
        """Until the destination is tried again, with whatever batch."""
        if breaker.paused:
            return pause_s(self._random.random())
        if breaker.down:
            return probe_wait_s(self._random.random())
        return self.backoff_s(breaker.rounds)

    def backoff_s(self, attempt: int) -> float:
        """Until a batch is tried again after its ``attempt``-th failure (from 1)."""
        unit = self._random.random()
        return backoff_s(attempt, self._retry.backoff_base, self._retry.backoff_max, unit)


__all__ = ["Patience"]
