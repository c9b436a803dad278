"""What a worker tells its parent for the console, beside its snapshots: samples, edges, tap hits, RED by operation.

1. What the watch saw is told once a second; hits of a tap at once, in fifths of a second.
2. What RED drains is always told, because the last minutes are wanted as soon as somebody looks.  What it has gathered
   since is read only while somebody looks, in slices, and takes at most ``RED_SHARE`` of the time.
3. Nothing is sent to a parent that does not read: it is left out, and so never piles up.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from itertools import islice
from typing import Any

from tracefwd.console.operations import rows_of
from tracefwd.console.seen import Seen
from tracefwd.model import RedPoint
from tracefwd.service.control import Channel, FromParent, Gathered, Look, Noticed
from tracefwd.service.worker_parts import Parts

LOG = logging.getLogger(__name__)

HITS_EVERY_S = 0.2
RED_EVERY_S = 5.0
# Ten thousand series take a tenth of a second.
RED_SHARE = 0.005
_SLICE = 32


class Looking:
    """Of one worker; ``stop`` ends its tasks."""

    def __init__(self, parts: Parts, channel: Channel[FromParent]) -> None:
        self._watch = parts.watch
        self._red = parts.red
        self._channel = channel
        self._ticks = 0
        self._hits: asyncio.Task[None] | None = None
        self._series: asyncio.Task[None] | None = None

    def look(self, look: Look) -> None:
        if self._watch is not None:
            self._watch.wish(look.wishes, look.number)
            self._hits = _kept(self._hits, bool(look.wishes), self._tell_hits, "taps")
        self._series = _kept(self._series, look.red, self._tell_series, "series")

    def each_second(self) -> None:
        if self._watch is not None:
            seen = self._watch.each_second()
            if not seen.is_empty:
                self._say(seen)

    def stop(self) -> None:
        for task in (self._hits, self._series):
            if task is not None:
                task.cancel()
        self._hits = self._series = None

    def drained(self, points: list[RedPoint]) -> None:
        self._ticks += 1
        if points and not self._channel.congested:
            self._channel.send(Gathered(rows_of(points), drained=True))

    def _say(self, seen: Seen) -> None:
        if not self._channel.congested:
            self._channel.send(Noticed(seen))

    async def _tell_hits(self) -> None:
        while self._watch is not None:
            await asyncio.sleep(HITS_EVERY_S)
            hits = self._watch.take_hits()
            if hits is not None:
                self._say(hits)

    async def _tell_series(self) -> None:
        loop = asyncio.get_running_loop()
        while self._red is not None and self._red.red is not None:
            cost_s = await self._read(loop)
            await asyncio.sleep(max(RED_EVERY_S, cost_s / RED_SHARE))

    async def _read(self, loop: asyncio.AbstractEventLoop) -> float:
        """The seconds that it took; ended early by a tick, which tells more."""
        assert self._red is not None
        assert self._red.red is not None
        series, ticks, cost_s = self._red.red.peek(), self._ticks, 0.0
        first = True
        while True:
            began = loop.time()
            part = rows_of(islice(series, _SLICE))
            cost_s += loop.time() - began
            if self._channel.congested:
                return cost_s
            last = len(part) < _SLICE
            self._channel.send(Gathered(part, first=first, last=last))
            first = False
            if last:
                return cost_s
            await asyncio.sleep(0)
            if self._ticks != ticks:
                return cost_s


def _kept(
    task: asyncio.Task[None] | None,
    wanted: bool,
    work: Callable[[], Coroutine[Any, Any, None]],
    name: str,
) -> asyncio.Task[None] | None:
    """The task, started or ended as wanted."""
    if not wanted:
        if task is not None:
            task.cancel()
        return None
    if task is not None and not task.done():
        return task
    started = asyncio.create_task(work(), name=name)
    started.add_done_callback(_tell_failure)
    return started


def _tell_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        LOG.error("console: %s failed; it is left out", task.get_name(), exc_info=error)


__all__ = ["Looking"]
