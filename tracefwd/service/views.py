"""What the console shows, as documents of the admin API (``console/openapi.yaml``), and the clock that renews them.

1. Once a second the workers' last snapshots become one reading, one history step (each tenth), and one document for
   each view that somebody watches; all readers get the same bytes.  Workers are not asked for that: they speak each
   second by themselves.
2. Only what is costly for workers (masked samples of rejects, the scraper's names) is asked for, and only while
   somebody looks.
3. The history is written beside the spool, if there is one, so that it outlives the process.
"""

import asyncio
import logging
import os
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from tracefwd import __version__
from tracefwd.console import flow, refused, verdict
from tracefwd.console.edges import Edges
from tracefwd.console.history import History
from tracefwd.console.masks import Masks
from tracefwd.console.meter import Meter, Reading
from tracefwd.console.operations import Operations
from tracefwd.console.samples import Samples
from tracefwd.limits import STREAMS_MAX
from tracefwd.service.config_options import catalogue, get
from tracefwd.service.config_show import written_value
from tracefwd.service.control import Gathered, Noticed
from tracefwd.service.masking import mask_url
from tracefwd.service.source_checks import source_name, wants_scraper
from tracefwd.service.streams import Streams
from tracefwd.service.tally import Life
from tracefwd.settings import Settings, TargetSettings

if TYPE_CHECKING:
    from tracefwd.service.supervisor import Service

LOG = logging.getLogger(__name__)

SECOND_S = 1.0
# A worker speaks each second; one that has not for this long is said to be silent.
SILENT_S = 3.0
HISTORY_FILE = "console-history.json"
_SAVE_EVERY_S = 60.0
_RESTARTS_MAX = 100
_EDGES_SHOWN_MAX = 500
_SAMPLES_SHOWN_MAX = 500
# Whoever fetched RED's views within this long counts as looking.
_LOOKS_S = 15.0
# How often each view is renewed for its watchers, in seconds.
PERIODS = {
    "flow": 1,
    "services": 5,
    "edges": 5,
    "spans": 2,
    "refused": 2,
    "metrics-path": 2,
}
VIEWS = (*PERIODS, "history")


class Views:
    """``hear`` is the tally's; everything else may be called from ``start`` on."""

    def __init__(self, service: "Service", now_s: Callable[[], float] = time.time) -> None:
        self._service = service
        self._now_s = now_s
        self.started_at = now_s()
        self._masked = service.loaded.settings.admin.masked_tags
        masks = Masks(self._masked)
        self.streams = Streams(masks, self._tell_workers)
        self.samples = Samples(masks)
        self._meter = Meter()
        self._history = History()
        self._operations = Operations(self.started_at)
        self._edges = Edges(self.started_at)
        self._restarts: deque[float] = deque(maxlen=_RESTARTS_MAX)
        self._restarts_seen = 0
        self._heard_at: float | None = None
        self._looked_at = 0.0
        self._saved_at = self.started_at
        self._seconds = 0
        self._task: asyncio.Task[None] | None = None
        self._makers: dict[str, Callable[[], Awaitable[dict[str, Any]]]] = {
            "flow": self._await_flow,
            "services": self._await_services,
            "edges": self._await_edges,
            "spans": self._await_spans,
            "refused": self.refused,
            "metrics-path": self.metrics_path,
        }

    async def start(self) -> None:
        self._restore()
        self._task = asyncio.create_task(self._run(), name="console")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None
            await asyncio.to_thread(self._save, self._history.text())
        await self.streams.close()

    def hear(self, life: Life, news: Noticed | Gathered | None) -> None:
        """What a worker says; None when it has gone."""
        now = self._now_s()
        if news is None:
            self._operations.retire(life)
        elif isinstance(news, Gathered):
            if news.drained:
                self._operations.drained(life, news.rows, now)
            else:
                self._operations.gathered(life, news.rows, now, first=news.first, last=news.last)
        else:
            seen = news.seen
            self.streams.hear(seen)
            self.samples.examined += seen.examined
            for sample in seen.samples:
                self.samples.add(sample, f"{life.slot}-{life.number}")
            for blocked in seen.blocked:
                self.samples.block(blocked)
            if seen.spans:
                counts = {"spans": seen.spans, "examined": seen.edged}
                self._edges.add(seen.edges, **counts, left_out=seen.edges_left_out, now_s=now)

    def look(self) -> None:
        """Somebody wants RED's views: workers tell more than they drain for a while."""
        self._looked_at = self._now_s()
        self._tell_workers()

    # The clock

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            try:
                await self._each_second()
            except Exception:
                # A fault of the console costs a second of it, and never the service.
                LOG.exception("console: a second was left out")
            due = max(due + SECOND_S, loop.time())
            await asyncio.sleep(due - loop.time())

    async def _each_second(self) -> None:
        now = self._now_s()
        self._seconds += 1
        self._renew_masks()
        tally, slots = self._service.tally, self._service.slots
        before = self._meter.value("tracefwd_receiver_accepted_spans_total")
        had_one = self._meter.latest is not None
        self._meter.take(Reading(now, self._service.latest_samples(), tally.ledger()))
        accepted = self._meter.value("tracefwd_receiver_accepted_spans_total")
        if accepted > before and had_one:
            self._heard_at = now
        restarts = sum(slot.restarts for slot in slots)
        self._restarts += [now] * max(0, restarts - self._restarts_seen)
        self._restarts_seen = restarts
        self.streams.each_second()
        self._tell_workers()
        wanted = self.streams.wanted()
        if self._history.is_due(now):
            row = self._history.add(now, flow.history_row(self._meter))
            if "history" in wanted:
                self.streams.publish("history", msgspec.json.encode(row))
        for view, period in PERIODS.items():
            if view in wanted and self._seconds % period == 0:
                self.streams.publish(view, await self.document(view))
        if now - self._saved_at >= _SAVE_EVERY_S:
            self._saved_at = now
            await asyncio.to_thread(self._save, self._history.text())

    def _renew_masks(self) -> None:
        """After a reload they hold for what is kept already, too."""
        masked = self._service.loaded.settings.admin.masked_tags
        if masked != self._masked:
            self._masked = masked
            self.streams.masks = self.samples.masks = Masks(masked)

    def _tell_workers(self) -> None:
        wanted = self.streams.wanted()
        watched = bool(wanted & {"services", "edges"})
        self.streams.red_wanted = watched or self._now_s() - self._looked_at < _LOOKS_S
        look = self.streams.look()
        for slot in self._service.slots:
            slot.look(look)

    async def document(self, view: str) -> bytes:
        """A view without parameters, as every reader of its stream gets it."""
        return msgspec.json.encode(await self._makers[view]())

    # Documents

    def flow(self) -> dict[str, Any]:
        service, now = self._service, self._now_s()
        settings = service.loaded.settings
        meter = self._meter
        problems = service.problems()
        workers = [
            {
                "name": slot.name,
                "slot": slot.number,
                "pid": slot.pid,
                "ready": slot.ready,
                "stale": slot.stale or slot.silent_s > SILENT_S,
                "restarts": slot.restarts,
                "problems": problems.get(slot.name, []),
            }
            for slot in service.slots
        ]
        whole = flow.ledger_view(service.tally.ledger())
        lanes = flow.merge_lanes(service.tally.lanes())
        nodes, edges = flow.picture(meter, layout_of(settings), lanes)
        happened = verdict.Happened(
            now,
            self.started_at,
            service.draining,
            tuple(self._restarts),
            self._heard_at,
            service.intake_url,
            settings.service.only == "metrics",
        )
        return {
            "at": now,
            "version": __version__,
            "started_at": self.started_at,
            "verdict": verdict.judge(meter, workers, whole["sections"], happened),
            "workers": workers,
            "rates": flow.rates(meter),
            "latency_ms": flow.latency(meter),
            "memory": flow.memory(meter),
            "ledger": whole,
            "nodes": nodes,
            "edges": edges,
            "watchers": {
                "streams": self.streams.number,
                "streams_max": STREAMS_MAX,
                "taps": self.streams.taps,
                "skipped_events": self.streams.skipped_events,
                "missed_spans": self.streams.missed_spans,
            },
        }

    async def _await_flow(self) -> dict[str, Any]:
        return self.flow()

    def history(self) -> dict[str, Any]:
        return self._history.show()

    def services(self, search: str = "") -> dict[str, Any]:
        now, red = self._now_s(), self._service.loaded.settings.red
        return {
            "at": now,
            "window_s": self._operations.window_s(now),
            "red_enabled": red.enabled,
            "interval_s": red.interval,
            "applications": self._operations.services(now, search),
            "left_out": 0,
        }

    async def _await_services(self) -> dict[str, Any]:
        return self.services()

    def operations(self, **wanted: Any) -> dict[str, Any]:
        now = self._now_s()
        found, left_out = self._operations.operations(now, **wanted)
        window_s = self._operations.window_s(now)
        return {"at": now, "window_s": window_s, "operations": found, "left_out": left_out}

    def edges(self) -> dict[str, Any]:
        return self._edges.show(self._now_s(), self._operations.known(), _EDGES_SHOWN_MAX)

    async def _await_edges(self) -> dict[str, Any]:
        return self.edges()

    def spans(self, **wanted: Any) -> dict[str, Any]:
        rows, left_out = self.samples.rows(**wanted)
        examined = self.samples.examined
        return {"at": self._now_s(), "examined": examined, "spans": rows, "left_out": left_out}

    async def _await_spans(self) -> dict[str, Any]:
        return self.spans()

    async def refused(self) -> dict[str, Any]:
        rejected = [
            {
                "at": float(sample["at"]),
                "what": "rejected",
                "reason": sample["reason"],
                "where": sample.get("where", ""),
                "detail": sample.get("detail", ""),
                "sender": sample.get("sender", ""),
                "sample": sample.get("sample", ""),
                "span": "",
            }
            for sample in await self._service.rejected_samples()
        ]
        samples = sorted([*rejected, *self.samples.refused()], key=lambda each: -each["at"])
        lines = [
            {
                "at": float(line["at"]),
                "reason": line["reason"],
                "where": line["where"],
                "said": line["detail"],
                "line": line["sample"],
            }
            for line in self._service.tally.refused_lines()
        ]
        return {
            "at": self._now_s(),
            "reasons": refused.reasons(self._meter),
            "samples": samples[:_SAMPLES_SHOWN_MAX],
            "refused_lines": lines[:_SAMPLES_SHOWN_MAX],
        }

    async def metrics_path(self) -> dict[str, Any]:
        sources = [self._source(shown) for shown in await self._service.sources()]
        enabled = wants_scraper(self._service.loaded.settings)
        return {"at": self._now_s(), "enabled": enabled, "sources": sources}

    def _source(self, shown: dict[str, Any]) -> dict[str, Any]:
        name = shown["name"]
        return {
            "name": name,
            "url": shown["url"],
            "up": shown["up"] if shown["scrapes"] else None,
            "trouble": shown["trouble"],
            "last_scrape_at": shown["last_success"],
            "last_scrape_s": shown["last_duration_s"],
            "interval_s": shown["interval_s"],
            "points_per_s": self._meter.rate("tracefwd_scraper_points_total", name),
            "samples": shown["samples"],
            "points": shown["points"],
            "families": [
                {"name": each, "points": points} for each, points in shown["points_by_name"].items()
            ],
            "never_seen": shown["allowed_but_never_seen"],
            "not_sent": [
                {"name": each, "reasons": reasons}
                for each, reasons in shown["came_but_not_sent"].items()
            ],
            "bad_lines": shown["bad_lines"],
        }

    def configuration(self, search: str = "") -> dict[str, Any]:
        loaded, wanted = self._service.loaded, search.casefold()
        options, left_out = [], 0
        for key, option in catalogue().items():
            value = get(loaded.settings, key)
            written = written_value(option, value)
            if wanted and wanted not in f"{key} {written} {option.doc}".casefold():
                left_out += 1
                continue
            options.append(
                {
                    "key": key,
                    "value": written,
                    "origin": loaded.origins.get(key, "default"),
                    "default": value == option.default,
                    "doc": option.doc,
                }
            )
        return {"options": options, "left_out": left_out}

    # The history's file

    @property
    def _file(self) -> Path | None:
        folder = self._service.loaded.settings.spool.folder
        return Path(folder) / HISTORY_FILE if folder else None

    def _restore(self) -> None:
        if self._file is None:
            return
        try:
            text = self._file.read_text(encoding="utf-8")
        except FileNotFoundError:
            return
        except (OSError, UnicodeDecodeError) as error:
            LOG.warning("console: %s cannot be read, so its plots begin now: %s", self._file, error)
            return
        if not self._history.restore(text, self._now_s()):
            LOG.warning("console: %s holds no history of ours; its plots begin now", self._file)

    def _save(self, text: str) -> None:
        """Whole or not at all; in a thread.  A disk that refuses costs the plots' past, nothing else."""
        file = self._file
        if file is None:
            return
        beside = file.with_suffix(".new")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            beside.write_text(text, encoding="utf-8")
            os.replace(beside, file)  # noqa: PTH105
        except OSError as error:
            LOG.warning("console: its history could not be written to %s: %s", file, error)


def layout_of(settings: Settings) -> flow.Layout:
    return flow.Layout(
        profile=settings.mapping.profile,
        targets=tuple(
            flow.TargetPlace(target.name, target.role, _where(target))
            for target in settings.exporter.targets
        ),
        sources=tuple(source_name(source) for source in settings.prometheus_sources)
        if wants_scraper(settings)
        else (),
        red=settings.red.enabled,
        spool=bool(settings.spool.folder),
        journal=bool(settings.spool.folder) and settings.spool.durability != "memory",
        intake=settings.service.only != "metrics",
    )


def _where(target: TargetSettings) -> str:
    urls = [mask_url(url) for url in (target.url, target.traces, target.metrics) if url]
    return ", ".join(dict.fromkeys(urls))


__all__ = ["VIEWS", "Views", "layout_of"]
