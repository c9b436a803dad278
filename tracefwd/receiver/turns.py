"""Turns: bodies that take long wait in line, so that one sender's large ones do not hold up everybody's small ones.

A turn of the loop does one of them, and further ones only while ``_TURN_S`` has not passed: beside them all other
connections are served once a turn.  So a flood of bombs delays an honest post by one body, not by all of them.

What waits counts as an unfinished request in the guard's room.  First come, first served; a connection is not read
while one of its bodies waits (``http_connection.py``), so nobody holds many places.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from time import perf_counter

from tracefwd.doorways import Answer, HeldAnswer
from tracefwd.receiver.guard import Guard

# A body above this (about 64 spans, half a millisecond), or one that must be inflated, waits for its turn.
LONG_BODY_BYTES = 64 * 2**10
# What one turn of the loop may do beside its first body.
_TURN_S = 0.002

Work = Callable[[], Answer | HeldAnswer]


class Turns:
    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._line: deque[tuple[Work, int, HeldAnswer]] = deque()
        self._called = False
        # Nobody waits.
        self.over = asyncio.Event()
        self.over.set()

    def wait(self, work: Work, size: int) -> HeldAnswer | None:
        """The answer that ``work`` will give at its turn; None when there is no room for ``size`` more bytes."""
        if not self._guard.make_room(0, size):
            return None
        held = HeldAnswer()
        self._line.append((work, size, held))
        self.over.clear()
        self._call()
        return held

    def forget(self) -> None:
        """Nobody's turn comes any more; their answers are never given."""
        while self._line:
            _, size, _ = self._line.popleft()
            self._guard.release(size)
        self.over.set()

    def _call(self) -> None:
        if not self._called and self._line:
            self._called = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._called = False
        ends_at = perf_counter() + _TURN_S
        while self._line:
            work, size, held = self._line.popleft()
            self._guard.release(size)
            answer = work()
            if isinstance(answer, HeldAnswer):
                _pass_on(answer, held)
            else:
                held.release(answer)
            if perf_counter() >= ends_at:
                break
        self._call()
        if not self._line:
            self.over.set()


def _pass_on(inner: HeldAnswer, outer: HeldAnswer) -> None:
    """What ``inner`` waits for, ``outer`` waits for."""

    def released() -> None:
        assert inner.answer is not None
        outer.release(inner.answer)

    inner.when_released(released)


__all__ = ["LONG_BODY_BYTES", "Turns"]
