"""One share of the ports, a listening socket of each, and whichever worker process serves them now.

The scraper's slot is one without a port: its process serves nobody, and is kept and exchanged like the others.

A socket belongs to the parent and outlives every worker: connections that wait while a dead worker is
replaced are served by the next one.  (Closing a socket that somebody waits at resets them.)

A worker that dies or falls silent is replaced: at once, then after 0.5 s, 1 s, ... 10 s.  One that fails to
start is not: the next would fail, too, so ``keep`` raises ``StartError`` with its message.

A worker is exchanged (for new settings, or because it leaves by itself) without a gap: the new one accepts at the same
sockets before the old one is told to leave them.  A slot has two workers for that long, and never more.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Mapping
from typing import Any

from tracefwd.errors import StartError
from tracefwd.service.child import Child, End, start_child
from tracefwd.service.control import Look
from tracefwd.service.tally import Life, Tally
from tracefwd.settings import Settings

LOG = logging.getLogger(__name__)

BACKOFF_BASE_S = 0.5
BACKOFF_S_MAX = 10.0
# What an exchanged worker has at least: nobody waits to kill it, and a target may be slow just now.  It leaves as soon
# as it holds nothing.
SEE_OFF_S = 60.0
# A worker that lived this long did not die of starting.
SETTLED_S = 60.0


class Slot:
    """``keep`` runs until ``drain``; everything else may be called at any time."""

    def __init__(
        self,
        number: int,
        listening: Mapping[str, socket.socket],
        settings: Settings,
        tally: Tally,
        *,
        compose: str,
        changed: Callable[[], None],
        name: str = "",
    ) -> None:
        """``listening`` are its sockets, by ``sockets.PORTS``; ``name`` is what logs call it."""
        self.number = number
        self.name = name or f"worker {number}"
        self.restarts = 0
        self._listening = dict(listening)
        self._settings = settings
        self._tally = tally
        self._compose = compose
        self._tell = changed
        self._lives = 0
        self._serving: Child | None = None
        # Those that start or leave beside it.
        self._others: set[Child] = set()
        self._news = asyncio.Event()
        # Held until it is decided whether a starting worker will serve.
        self._starting = asyncio.Lock()
        # Held until the predecessor has left.
        self._exchanging = asyncio.Lock()
        self._renewal: tuple[Child, asyncio.Task[None]] | None = None
        self._draining = asyncio.Event()

    @property
    def ready(self) -> bool:
        return self._serving is not None and self._serving.ready

    @property
    def stale(self) -> bool:
        """Whether a worker did not answer the last time it was asked."""
        return any(child.stale for child in self._children())

    @property
    def silent_s(self) -> float:
        """Since whoever serves spoke last."""
        return 0.0 if self._serving is None else self._serving.silent_s

    @property
    def pid(self) -> int | None:
        return None if self._serving is None else self._serving.pid

    @property
    def loop(self) -> str:
        return "" if self._serving is None else self._serving.loop

    @property
    def sources(self) -> list[dict[str, Any]]:
        """What the scraper last said of its sources; whoever wants it new asks first."""
        return [] if self._serving is None else self._tally.sources(self._serving.life)

    @property
    def problems(self) -> list[str]:
        """What is wrong outside, as of the last snapshot."""
        if self._serving is None:
            return []
        latest = self._tally.latest(self._serving.life)
        return [] if latest is None else latest.problems

    async def keep(self) -> None:
        """Have a worker in this slot until ``drain``.  Raises ``StartError`` if one cannot start."""
        loop = asyncio.get_running_loop()
        backoff_s = 0.0
        try:
            while not self._draining.is_set():
                started_at = loop.time()
                end = await self._one_worker()
                if self._draining.is_set():
                    return
                if loop.time() - started_at > SETTLED_S:
                    backoff_s = 0.0
                self._tell_replaced(end, f"in {backoff_s:g} s" if backoff_s else "at once")
                if await self._drains_within(backoff_s):
                    return
                backoff_s = min(max(backoff_s * 2, BACKOFF_BASE_S), BACKOFF_S_MAX)
        finally:
            # Nobody watches over workers any more, so none is started.
            self._draining.set()
            await self.gone()

    async def exchange(self, settings: Settings) -> None:
        """Put a worker with these settings into the place of the one that serves, and see that one off.

        Raises ``StartError`` if the new one cannot start; the old one then serves on as if nothing had been.
        """
        async with self._exchanging:
            await self._exchange(settings)

    async def ask(self, *, rejected: bool = False, sources: bool = False) -> None:
        """Have the tally's snapshots of its workers renewed; after a second without answer they stay as they are."""
        asked = (child.ask(rejected=rejected, sources=sources) for child in self._children())
        await asyncio.gather(*asked)

    def look(self, look: Look) -> None:
        for child in self._children():
            child.look(look)

    def drain(self, budget_s: float) -> None:
        """Let all leave within the budget and replace none.  Called again, it can only hurry."""
        self._draining.set()
        for child in self._children():
            child.drain(budget_s)

    def _children(self) -> list[Child]:
        return [*([] if self._serving is None else [self._serving]), *self._others]

    async def _one_worker(self) -> End:
        """From a worker's start to the end of it, or of whichever then serves in its place."""
        async with self._starting:
            if self._serving is None:
                try:
                    self._serving = await self._spawn(self._settings)
                except OSError as error:
                    return End(f"could not be started: {error}", well=True)
        while True:
            serving = self._serving
            assert serving is not None
            if serving.ended.done():
                # One that is to follow it may be about to.
                async with self._starting:
                    if self._serving is serving:
                        self._serving = None
                        if serving.failure is not None and not self._draining.is_set():
                            raise StartError(serving.failure)
                        return serving.ended.result()
            elif serving.leaving and (self._renewal is None or self._renewal[0] is not serving):
                self._renewal = serving, asyncio.create_task(self._renew(serving))
            else:
                self._news.clear()
                await self._news.wait()

    async def _exchange(self, settings: Settings) -> None:
        if self._draining.is_set():
            return
        async with self._starting:
            try:
                successor = await self._spawn(settings)
            except OSError as error:
                raise StartError(f"{self.name} could not be started: {error}") from error
            self._others.add(successor)
            listens = await successor.listens()
            if self._draining.is_set():
                return
            self._others.discard(successor)
            if not listens:
                cause = successor.ended.result().cause
                raise StartError(successor.failure or f"{self.name} {cause} while starting")
            self._settings = settings
            predecessor, self._serving = self._serving, successor
            if predecessor is not None:
                self._others.add(predecessor)
                budget_s = max(settings.service.drain_timeout, SEE_OFF_S)
                predecessor.drain(budget_s, handed_over=True)
        self._changed()
        if predecessor is not None:
            await asyncio.wait({predecessor.ended})
            self._others.discard(predecessor)
            end = predecessor.ended.result()
            if not end.well:
                LOG.error("%s was exchanged and %s", self.name, end.cause)

    async def _spawn(self, settings: Settings) -> Child:
        self._lives += 1
        child = await start_child(
            Life(self.number, self._lives),
            self.name,
            self._listening,
            settings,
            self._tally,
            compose=self._compose,
            changed=self._changed,
            beside=self.pid or 0,
        )
        if self._draining.is_set():
            child.drain(0.0)
        return child

    async def _renew(self, leaving: Child) -> None:
        """A worker goes by itself, and delivers what it holds: have its successor before it is gone."""
        async with self._exchanging:
            if self._serving is not leaving or self._draining.is_set():
                return
            self._tell_replaced(End(f"leaves: {leaving.leaving}", well=True), "at once")
            try:
                await self._exchange(self._settings)
            except StartError as error:
                # At its end it is replaced like any other, or that fails likewise.
                LOG.warning("%s has no successor yet: %s", self.name, error)

    async def gone(self) -> None:
        """After ``drain``: wait until the last worker has left."""
        while children := [child for child in self._children() if not child.ended.done()]:
            await asyncio.wait({child.ended for child in children})
        # An exchange that was under way has seen it, too.
        async with self._exchanging:
            self._others.clear()

    def _tell_replaced(self, end: End, when: str) -> None:
        self.restarts += 1
        level = logging.WARNING if end.well else logging.ERROR
        LOG.log(level, "%s %s; replaced %s", self.name, end.cause, when)

    def _changed(self) -> None:
        self._news.set()
        self._tell()

    async def _drains_within(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._draining.wait(), seconds)
        except TimeoutError:
            return False
        return True
