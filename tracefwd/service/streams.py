"""Streams of the admin API: events for consoles, spans for taps.  A reader that is slow loses, and is told what.

1. An event's text is made once for all readers.  A stream holds at most one of each name: a newer one takes the place
   of one that was not fetched, which counts as skipped.
2. A tap holds at most ``TAP_QUEUE_MAX`` spans; what does not fit is counted.  Its wish goes to the workers, who pass on
   no more than it may have.
3. At most ``STREAMS_MAX`` are open.  A reader that takes nothing for ``STREAM_STALL_S`` is cut off.
"""

import asyncio
import json
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

import msgspec
from aiohttp import web

from tracefwd.console.masks import Masks
from tracefwd.console.seen import Seen, TapWish
from tracefwd.limits import STREAM_STALL_S, STREAMS_MAX, TAP_QUEUE_MAX
from tracefwd.service.access import HEADERS, ApiError
from tracefwd.service.control import Look

# What a browser waits before it comes again.
RETRY_MS = 2_000
# How often a silent stream looks whether its reader is still there, and says that it is.
LOOK_S, ALIVE_S = 1.0, 5.0


class EventStream:
    """One console's: what it wants and has not got yet."""

    def __init__(self, views: frozenset[str]) -> None:
        self.views = views
        self.skipped = 0
        self._pending: dict[str, bytes] = {}
        self._news = asyncio.Event()

    def put(self, name: str, text: bytes) -> int:
        """How many events had to go for it."""
        lost = 1 if self._pending.pop(name, None) is not None else 0
        self.skipped += lost
        self._pending[name] = text
        self._news.set()
        return lost

    async def take(self) -> bytes:
        await self._news.wait()
        self._news.clear()
        parts = list(self._pending.values())
        self._pending.clear()
        if self.skipped:
            parts.insert(0, event("skipped", json.dumps({"skipped": self.skipped}).encode()))
            self.skipped = 0
        return b"".join(parts)


class TapStream:
    """One tap's."""

    def __init__(self, wish: TapWish) -> None:
        self.wish = wish
        self.unexamined = 0
        self.over_rate = 0
        self.slow = 0
        self._lines: deque[bytes] = deque()
        self._left = wish.rate
        self._news = asyncio.Event()

    def put(self, line: bytes) -> bool:
        """Whether there was room, and the rate allowed it."""
        if self._left < 1:
            self.over_rate += 1
            return False
        self._left -= 1
        if len(self._lines) >= TAP_QUEUE_MAX:
            self.slow += 1
            return False
        self._lines.append(line)
        self._news.set()
        return True

    def each_second(self) -> None:
        # A rate below one is saved up.
        self._left = min(self._left + self.wish.rate, max(1.0, self.wish.rate))
        if self.unexamined or self.over_rate or self.slow:
            self._news.set()

    async def take(self) -> bytes:
        await self._news.wait()
        self._news.clear()
        lines = list(self._lines)
        self._lines.clear()
        missed = {"unexamined": self.unexamined, "over_rate": self.over_rate, "slow": self.slow}
        if any(missed.values()):
            self.unexamined = self.over_rate = self.slow = 0
            lines.append(json.dumps({"type": "missed", **missed}).encode() + b"\n")
        return b"".join(lines)


class Streams:
    """All open ones.  ``look`` says what workers should look at for them; ``changed`` hears when that may differ."""

    def __init__(self, masks: Masks, changed: Callable[[], None]) -> None:
        self.masks = masks
        self._changed = changed
        self.skipped_events = 0
        self.missed_spans = 0
        self.red_wanted = False
        self._events: set[EventStream] = set()
        self._taps: set[TapStream] = set()
        self._wishes: list[TapWish] = []
        self._number = 0
        self._look = Look([], 0, red=False)
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def number(self) -> int:
        return len(self._events) + len(self._taps)

    @property
    def taps(self) -> int:
        return len(self._taps)

    def wanted(self) -> set[str]:
        return {view for stream in self._events for view in stream.views}

    def look(self) -> Look:
        """Anew where it has changed."""
        wishes = list(dict.fromkeys(tap.wish for tap in self._taps))
        if (wishes, self.red_wanted) != (self._look.wishes, self._look.red):
            self._number += 1
            self._wishes = wishes
            self._look = Look(wishes, self._number, red=self.red_wanted)
        return self._look

    def publish(self, name: str, document: bytes) -> None:
        text = event(name, document)
        for stream in self._events:
            if name in stream.views:
                self.skipped_events += stream.put(name, text)

    def hear(self, seen: Seen) -> None:
        """Hits of a worker; those for wishes of before are nobody's."""
        if seen.number != self._number:
            return
        for tap in self._taps:
            tap.unexamined += max(0, seen.spans - seen.examined)
        for place, over in enumerate(seen.over[: len(self._wishes)]):
            for tap in self._of(place):
                tap.over_rate += over
                self.missed_spans += over
        for hit in seen.hits:
            document = {
                "type": "span",
                "span": msgspec.to_builtins(hit.row),
                "tags": self.masks.tags(hit.tags),
            }
            line = msgspec.json.encode(document) + b"\n"
            for place in hit.wishes:
                for tap in self._of(place) if place < len(self._wishes) else ():
                    self.missed_spans += not tap.put(line)

    def each_second(self) -> None:
        for tap in self._taps:
            tap.each_second()

    def _of(self, place: int) -> Iterable[TapStream]:
        return [tap for tap in self._taps if tap.wish == self._wishes[place]]

    # Serving

    async def serve_events(
        self, request: web.Request, views: Sequence[str], first: Sequence[tuple[str, bytes]]
    ) -> web.StreamResponse:
        stream = EventStream(frozenset(views))
        for name, document in first:
            stream.put(name, event(name, document))
        return await self._serve(
            request,
            self._events,
            stream,
            "text/event-stream",
            head=b"retry: %d\n\n" % RETRY_MS,
            alive=b":\n\n",
        )

    async def serve_tap(self, request: web.Request, wish: TapWish) -> web.StreamResponse:
        return await self._serve(
            request, self._taps, TapStream(wish), "application/x-ndjson", head=b"", alive=b"\n"
        )

    async def _serve(
        self,
        request: web.Request,
        place: set[Any],
        stream: Any,
        content_type: str,
        *,
        head: bytes,
        alive: bytes,
    ) -> web.StreamResponse:
        """``alive`` is what a reader gets now and then while there is nothing to say."""
        if self.number >= STREAMS_MAX:
            raise ApiError(
                503, "too_many_streams", f"{STREAMS_MAX} streams are open", "close some, or wait"
            )
        answer = web.StreamResponse(
            headers={**HEADERS, "Content-Type": content_type, "X-Accel-Buffering": "no"}
        )
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        place.add(stream)
        self._changed()
        try:
            async with asyncio.timeout(STREAM_STALL_S):
                await answer.prepare(request)
                await answer.write(head)
            silent_s = 0.0
            # Whoever leaves is noticed by a write, or within a second.
            while request.transport is not None and not request.transport.is_closing():
                text = await _within(stream.take(), LOOK_S)
                silent_s = 0.0 if text else silent_s + LOOK_S
                if not text and silent_s >= ALIVE_S:
                    text, silent_s = alive, 0.0
                if text:
                    async with asyncio.timeout(STREAM_STALL_S):
                        await answer.write(text)
        except (ConnectionError, TimeoutError):
            # Gone, or as good as.
            if request.transport is not None:
                request.transport.abort()
        finally:
            place.discard(stream)
            self._changed()
            self._tasks.discard(task)
        return answer

    async def close(self) -> None:
        """End them all: a stream would keep the port open for ever."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _within(taking: Coroutine[Any, Any, bytes], seconds: float) -> bytes:
    """What there is to take by then, or nothing."""
    try:
        # Not ``wait_for``: before 3.12 it forgets a cancellation when there is something just then.
        async with asyncio.timeout(seconds):
            return await taking
    except TimeoutError:
        return b""


def event(name: str, document: bytes) -> bytes:
    """A document has no line break, which would end the event."""
    return b"event: %s\ndata: %s\n\n" % (name.encode(), document)


__all__ = ["EventStream", "Streams", "TapStream", "event"]
