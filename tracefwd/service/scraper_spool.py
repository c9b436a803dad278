"""The scraper's spool: batches that no target took outlive its process, in ``scraper`` below the spool's folder.

A full queue and a long outage go to disk, and what a scraper leaves there its successor sends.  There is no journal:
a scraped source was promised nothing, and a point that a crash takes out of memory comes again with the next scrape.
So of a crash only what was in memory is lost, counted by the parent (``tally.py``).
"""

import asyncio
import logging
import time
from collections.abc import Sequence

from tracefwd import metrics
from tracefwd.exporter.repeat_log import RepeatLog
from tracefwd.service.lives import Life, Lives
from tracefwd.service.spool_roots import heir_in, root_of
from tracefwd.settings import Settings
from tracefwd.spool.disk import Disk
from tracefwd.spool.shelf import Shelf
from tracefwd.spool.store import BatchStore

LOG = logging.getLogger("tracefwd.spool")

# What closing may take when the disk hangs.
_CLOSE_S = 1.0


class ScraperSpool:
    """What ``worker.py`` calls a journal.  Order as in ``durable.Durable``: construct, ``open``, start the targets."""

    # Without a journal there is nothing to adopt, and lanes have nobody to tell.
    name = ""
    done = launched = lacks = None

    def __init__(self, settings: Settings) -> None:
        disk = Disk()
        # Beside the workers' folders: workers must not take over from a scraper, nor it from them.
        root = root_of(settings, scraper=True)
        self.adopted: list[str] = []
        # Never set: there are no facts here.
        self.tick_early = asyncio.Event()
        self._lives = Lives(root, disk, 0, 1)
        try:
            self._life = self._lives.begin()
        except OSError as error:
            LOG.error("%s cannot be used: %s; points wait in memory only", root, error)  # noqa: TRY400 - its text says all
            self._life = self._lives.unborn()
        self._log = RepeatLog(LOG, "spool")
        self._store = BatchStore(
            self._life.batches,
            settings.spool,
            wall_ms=lambda: time.time_ns() // 1_000_000,
            complain=self._log.note,
            disk=disk,
            heir=heir_in(settings),
        )
        self._taking: asyncio.Task[None] | None = None
        # Folders that cannot be removed yet; ours until we end.
        self._kept: list[Life] = []
        self._is_closed = False

    def shelf(self, lane: str) -> Shelf:
        return self._store.shelf(lane)

    async def open(self) -> None:
        self._log.open(asyncio.get_running_loop())
        dead = self._dead()
        await self._store.open([life.batches for life in dead])
        self._remove(dead)

    async def recover(self) -> None:
        """Lanes have claimed their batches by now."""
        self._lives.clear()

    def each_second(self) -> None:
        """A predecessor that took leave while we lived has left something, too.  Raises what that failed with."""
        self._lives.look(self._life)
        if self._life.lock < 0:
            self._lives.bear(self._life)
        if self._taking is not None and self._taking.done():
            self._taking.result()
            self._taking = None
        if self._taking is None and not self._is_closed and (dead := self._dead()):
            self._taking = asyncio.create_task(self._take_over(dead), name="late adoption")

    async def close(self) -> None:
        """After the targets' drain."""
        self._is_closed = True
        if self._taking is not None:
            self._taking.cancel()
            await asyncio.wait({self._taking})
        await self._store.close(_CLOSE_S)
        for life in (self._life, *self._kept):
            self._lives.release(life)
        self._log.close()

    def samples(self) -> metrics.Samples:
        return self._store.samples()

    def problems(self) -> list[str]:
        return self._store.problems() + self._lives.problems()

    async def _take_over(self, dead: Sequence[Life]) -> None:
        try:
            await self._store.take_over([life.batches for life in dead])
        finally:
            self._remove(dead)

    def _remove(self, dead: Sequence[Life]) -> None:
        """Those whose batches are all ours by now."""
        self._kept += [life for life in dead if not self._lives.remove(life)]

    def _dead(self) -> list[Life]:
        try:
            return self._lives.dead(self._life) or []
        except OSError as error:
            self._log.note("lives", logging.ERROR, 1, f"the spool's folder cannot be read: {error}")
            return []


__all__ = ["ScraperSpool"]
