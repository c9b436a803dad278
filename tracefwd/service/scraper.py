"""The scraper: asks every source at its times and hands the points to the targets.

    client (pieces of a body) -> translation (points) -> targets

It has a process of its own beside the workers, because a large body takes seconds of work and an Envoy waits for its
answer; ``scraper_parts.py`` says what ``worker.py`` runs there.

1. One scrape of a source at a time.  A scrape that takes longer than the interval skips rounds, counted.
2. A scrape that fails midway has sent what it had read, and has failed: it is never taken for a whole one.
3. Nothing is invented: no last value is repeated, no series is closed; what vanishes simply stops.
4. Every sample read is a point offered or counted as dropped with its reason; every point offered is in the ledger.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from random import Random
from typing import Any, Protocol

from tracefwd import metrics
from tracefwd.model import Payload, RedPoint, Signal
from tracefwd.pipeline import target_sections
from tracefwd.plan import Destination
from tracefwd.processor.ruled_points import RuledPoints
from tracefwd.service.masking import mask_query_url
from tracefwd.service.scrape_client import ScrapeClient, ScrapeFailed
from tracefwd.service.source_checks import source_name
from tracefwd.service.tally import empty_ledger
from tracefwd.settings import PrometheusSourceSettings

LOG = logging.getLogger(__name__)

# The first scrape comes within this, at a moment of each source's own; sources keep that distance afterwards.
PHASE_S_MAX = 5.0
# A source that fails is asked less and less often, but each minute at least: it must not stay dark for long
# after it is back.  (With an interval of a minute or more nothing is put off.)
BACKOFF_S_MAX = 60.0
# Stands for a body without a single sample: Prometheus answers so when no series matches.
EMPTY = "empty"
# Names that a source's account lists, those with most samples first: about 10 KiB a source.
SHOWN_NAMES_MAX = 100


class Counts(Protocol):
    """What one body came to; the reasons and kinds are ``limits``'."""

    bytes: int
    samples: int
    points: int
    distributions: int
    dropped: dict[str, int]
    bad_lines: dict[str, int]
    repairs: dict[str, int]


class Scrape(Protocol):
    """What the scraper needs of ``metricspath``'s state for one body."""

    @property
    def counts(self) -> Counts: ...
    @property
    def has_ended(self) -> bool: ...
    def feed(self, chunk: bytes) -> list[Payload]: ...
    def finish(self, *, complete: bool) -> list[Payload]: ...


class Names(Protocol):
    """Globs of allow lists that no name matched yet; final names not sent, by reason; points by those that were."""

    never_seen: list[str]
    not_sent: dict[str, dict[str, int]]
    sent: dict[str, int]


class Translation(Protocol):
    def begin(self, now_s: float, content_type: str = "") -> Scrape: ...
    def report(self) -> Names: ...


class SourceLoop:
    """One source: when it is asked, and what came of it."""

    def __init__(
        self,
        settings: PrometheusSourceSettings,
        translation: Translation,
        client: ScrapeClient,
        offer: Callable[[Sequence[Payload]], None],
        *,
        random: Random,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self.name = source_name(settings)
        self.trouble = ""
        self._url_shown = mask_query_url(settings.url)
        self._interval_s = settings.collection.interval
        self._translation = translation
        self._client = client
        self._offer = offer
        self._random = random
        self._now_s = now_s
        self._reason = ""
        self._failures = 0
        self._up: int | None = None
        self._duration_s = 0.0
        self._success_s: float | None = None
        self._missed = 0
        self._results: dict[str, int] = {}
        self._sums = {"bytes": 0, "samples": 0, "points": 0, "distributions": 0}
        self._by_reason: dict[str, dict[str, int]] = {"dropped": {}, "bad_lines": {}, "repairs": {}}

    async def run(self, leaving: asyncio.Event) -> None:
        """Scrape until ``leaving``; a scrape under way then is finished (or cancelled by whoever runs this)."""
        loop = asyncio.get_running_loop()
        due = loop.time() + self._random.uniform(0, min(self._interval_s, PHASE_S_MAX))
        await self._client.open()
        try:
            while not await _set_within(leaving, due - loop.time()):
                await self.scrape()
                due += self._rounds() * self._interval_s
                late_s = loop.time() - due
                if late_s > 0:
                    missed = int(late_s / self._interval_s) + 1
                    self._missed += missed
                    due += missed * self._interval_s
        finally:
            await self._client.close()

    async def scrape(self) -> None:
        """Once, now.  Raises nothing: what went wrong is counted and told."""
        started = time.monotonic()
        result, detail = "cancelled", ""
        try:
            await self._scrape()
            result = "ok"
        except ScrapeFailed as failure:
            result, detail = failure.reason, str(failure)
        except Exception:
            LOG.exception("source %s: its scrape failed through a fault of ours", self.name)
            result, detail = "internal", "a fault of ours; see the log"
        finally:
            self._duration_s = time.monotonic() - started
            self._conclude(result, detail)

    async def _scrape(self) -> None:
        now_s = self._now_s()
        bodies: list[Scrape] = []
        whole = False

        def begin(content_type: str) -> Callable[[bytes], None]:
            body = self._translation.begin(now_s, content_type)
            bodies.append(body)
            return lambda piece: self._offer(body.feed(piece))

        try:
            await self._client.scrape(begin)
            whole = True
        finally:
            # Also when it is cut off or cancelled: what was read is sent and counted.
            for body in bodies:
                self._offer(body.finish(complete=whole))
                self._add(body.counts)
        if not all(body.has_ended for body in bodies):
            raise ScrapeFailed("truncated", "the OpenMetrics body has no # EOF at its end")
        if not any(body.counts.samples for body in bodies):
            raise ScrapeFailed(EMPTY, "the body has no sample; does match[] select anything?")

    def samples(self, *, counters_only: bool = False) -> metrics.Samples:
        name = self.name
        found: metrics.Samples = {
            "tracefwd_scraper_scrapes_total": {
                (name, result): number for result, number in self._results.items()
            },
            "tracefwd_scraper_missed_scrapes_total": {(name,): self._missed},
            "tracefwd_scraper_samples_total": {(name,): self._sums["samples"]},
            "tracefwd_scraper_points_total": {(name,): self._sums["points"]},
            "tracefwd_scraper_distributions_total": {(name,): self._sums["distributions"]},
            "tracefwd_scraper_body_bytes_total": {(name,): self._sums["bytes"]},
            "tracefwd_scraper_received_bytes_total": {(name,): self._client.wire_bytes},
        }
        for family, table in (
            ("tracefwd_scraper_dropped_samples_total", "dropped"),
            ("tracefwd_scraper_bad_lines_total", "bad_lines"),
            ("tracefwd_scraper_repairs_total", "repairs"),
        ):
            found[family] = {(name, key): n for key, n in self._by_reason[table].items()}
        if self._up is not None and not counters_only:
            found["tracefwd_scraper_up"] = {(name,): self._up}
            found["tracefwd_scraper_last_scrape_duration_seconds"] = {(name,): self._duration_s}
        if self._success_s is not None and not counters_only:
            key = "tracefwd_scraper_last_success_timestamp_seconds"
            found[key] = {(name,): self._success_s}
        return found

    def show(self) -> dict[str, Any]:
        """For people: how it is doing, and what its filters do.  No secrets."""
        names = self._translation.report()
        worst = sorted(names.not_sent.items(), key=lambda item: -sum(item[1].values()))
        return {
            "name": self.name,
            "url": self._url_shown,
            "up": bool(self._up),
            "last_result": self._reason,
            "trouble": self.trouble,
            "last_success": self._success_s,
            "last_duration_s": round(self._duration_s, 3),
            "scrapes": dict(self._results),
            **self._sums,
            **self._by_reason,
            "allowed_but_never_seen": names.never_seen,
            "came_but_not_sent": dict(worst[:SHOWN_NAMES_MAX]),
            "came_but_not_sent_names": len(worst),
            "points_by_name": dict(
                sorted(names.sent.items(), key=lambda item: -item[1])[:SHOWN_NAMES_MAX]
            ),
            "interval_s": self._interval_s,
        }

    def _rounds(self) -> int:
        """How many intervals to the next scrape."""
        if self._failures < 2:
            return 1
        wait_s = min(self._interval_s * 2.0 ** min(self._failures - 1, 30), BACKOFF_S_MAX)
        return max(1, int(wait_s / self._interval_s))

    def _add(self, counts: Counts) -> None:
        for name in self._sums:
            self._sums[name] += getattr(counts, name)
        for name, total in self._by_reason.items():
            for reason, number in getattr(counts, name).items():
                total[reason] = total.get(reason, 0) + number

    def _conclude(self, result: str, detail: str) -> None:
        self._results[result] = self._results.get(result, 0) + 1
        if result == "cancelled":
            return
        self._up = int(result == "ok")
        if result == "ok":
            self._success_s = self._now_s()
        # Whoever answers is not spared: what it lacks may be there at the next round.
        self._failures = 0 if result in ("ok", EMPTY) else self._failures + 1
        self.trouble = detail
        if result != self._reason:
            if result != "ok":
                LOG.warning("source %s: scrape failed (%s): %s", self.name, result, detail)
            elif self._reason:
                LOG.info("source %s: scraped again", self.name)
        self._reason = result


class PointOutlets:
    """Where points go, and what became of them: what ``worker.py`` needs of a pipeline."""

    def __init__(
        self,
        targets: Sequence[Destination],
        ruled: RuledPoints | None,
        otlp: Collection[str] = (),
    ) -> None:
        """``ruled`` is None without a rules file; ``otlp`` are the names of targets that want OTLP."""
        self._targets = targets
        self._lines = [target for target in targets if target.name not in otlp]
        self._otlp = [target for target in targets if target.name in otlp]
        self._primary = next(target for target in targets if target.role == "primary")
        self._ruled = ruled
        # Points that never come to a target: a rule kept them out, or left them without a name.
        self._blocked = 0
        self._invalid = 0

    def offer(self, payloads: Sequence[Payload]) -> None:
        for payload in payloads if self._ruled is None else self._passed(payloads, self._ruled):
            for target in self._lines:
                target.offer(payload)
            if self._otlp:
                self._offer_otlp(payload)

    def _offer_otlp(self, payload: Payload) -> None:
        from tracefwd.exporter.otlp_points import otlp_points

        points = otlp_points(payload)
        for target in self._otlp:
            target.offer(points)

    def _passed(self, payloads: Sequence[Payload], ruled: RuledPoints) -> Iterator[Payload]:
        for payload in payloads:
            result = ruled.filter(payload)
            self._blocked += result.blocked
            self._invalid += result.invalid
            if result.payload is not None:
                yield result.payload

    def tick(self) -> Iterator[list[RedPoint]]:
        """Nothing is gathered here."""
        return iter(())

    def ledger(self) -> dict[str, Any]:
        shown = empty_ledger()
        for signal in (Signal.POINTS, Signal.DISTRIBUTIONS):
            shown[signal.value] = dict(self._primary.accounts[signal].show())
        points = shown[Signal.POINTS.value]
        points["received"] += self._blocked + self._invalid
        points["blocked"] += self._blocked
        if self._invalid:
            points["rejected"]["invalid"] = points["rejected"].get("invalid", 0) + self._invalid
        shown["targets"] = target_sections(self._targets)
        return shown

    def samples(self) -> metrics.Samples:
        total: metrics.Samples = {}
        for target in self._targets:
            metrics.add(total, target.samples())
        if self._ruled is not None:
            total["tracefwd_rules_points_total"] = self._ruled.samples()
            total["tracefwd_mapper_repairs_total"] = {
                (kind,): number for kind, number in self._ruled.repairs.items()
            }
        return total

    def rejected_samples(self) -> list[dict[str, str]]:
        """Samples of rejected spans: there are none."""
        return []


class Scraper:
    """All sources of a process: what ``worker.py`` needs of something that brings data in."""

    def __init__(self, loops: Sequence[SourceLoop]) -> None:
        self._loops = loops
        self._leaving = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(loop.run(self._leaving), name=f"source {loop.name}")
            for loop in self._loops
        ]

    def drain(self) -> None:
        """No further scrape begins."""
        self._leaving.set()

    def leave_port(self) -> None:
        """There is none; but a successor scrapes already."""
        self._leaving.set()

    async def stop(self, linger_s: float) -> None:
        """Scrapes under way may end within the time; a cut one has sent what it had read."""
        self._leaving.set()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=linger_s)
            for task in late:
                task.cancel()
            await asyncio.wait(self._tasks)

    def samples(self) -> metrics.Samples:
        """Gauges of sources are not said while leaving: a successor says them, and the parent adds up."""
        total: metrics.Samples = {}
        leaving = self._leaving.is_set()
        for loop in self._loops:
            metrics.add(total, loop.samples(counters_only=leaving))
        return total

    def sources(self) -> list[dict[str, Any]]:
        return [loop.show() for loop in self._loops]

    def problems(self) -> list[str]:
        """A line per source whose last scrape failed.  No secrets."""
        return [f"source {loop.name}: {loop.trouble}" for loop in self._loops if loop.trouble]


async def _set_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        await asyncio.wait_for(event.wait(), max(0.0, seconds))
    except TimeoutError:
        return False
    return True


__all__ = ["PointOutlets", "Scraper", "SourceLoop"]
