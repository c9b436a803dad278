"""Looks at a worker's memory four times a second and makes the others act on it.

What is in use is what the parts say they hold, or what the kernel says we have where that is more; so a part that
forgets to count itself is noticed, too.  Memory that was freed but not given back is asked for while it matters:
otherwise the shape of a heap, and not what is held, would cost spans.

In order: from the soft mark on RED is sent early if it is large, and traces are shed by their id
(``processor/shed.py``); at the hard mark posts are answered 503 (``receiver/guard.py``).  Every stage is an ERROR in
the log, once per interval.
"""

import asyncio
import ctypes
import logging
from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Protocol

from tracefwd.metrics import Samples
from tracefwd.processor.shed import Shedder
from tracefwd.service.memory import (
    CALM,
    REFUSE,
    STAGES,
    Limit,
    Machine,
    Pressure,
    budget,
    worker_share,
)
from tracefwd.service.source_checks import wants_scraper
from tracefwd.service.units import format_size
from tracefwd.settings import Settings

LOG = logging.getLogger(__name__)

# The fastest growth is a flood of connections, some 20,000 a second of 8 KiB: 40 MiB between two looks.
_LOOK_S = 0.25
_TELL_S = 60.0
# Giving memory back walks the heap: a few milliseconds a hundred MiB.
_GIVE_BACK_S = 5.0
_SLACK_BYTES = 16 * 2**20
# A part of this share of what is in use is worth sending early.
_LARGE = 0.25
_TICK_S = 10.0


class Intake(Protocol):
    """Who takes posts."""

    def set_overloaded(self, overloaded: bool) -> None: ...


class MemoryWatch:
    """``parts`` say in bytes what they hold; ``red`` among them is what a tick sends away.

    ``tick_early`` is set when one is wanted.  ``shed_spans`` counts what was shed since the start.
    """

    def __init__(
        self,
        limit: Limit,
        share_bytes: int,
        machine: Machine,
        *,
        parts: Mapping[str, Callable[[], int]],
        shedder: Shedder,
        shed_spans: Callable[[], int],
        intakes: Sequence[Intake],
    ) -> None:
        self.share_bytes = share_bytes
        self.tick_early = asyncio.Event()
        self._source = limit.source
        self._machine = machine
        self._parts = parts
        self._shedder = shedder
        self._shed_spans = shed_spans
        self._intakes = intakes
        self._pressure = Pressure()
        self._base_bytes = machine.own_bytes()
        self._beside = 0
        self._used: dict[str, int] = {}
        self._give_back = _heap_trimmer()
        self._gave_back_at = self._ticked_at = self._told_at = -inf
        self._shed_told = 0

    def start(self, beside: int = 0) -> None:
        """Look from now on, for as long as the loop runs; ``beside`` is the process whose share this is, too."""
        self._beside = beside
        LOG.info(
            "memory: %s for this worker, of %s", format_size(_whole(self.share_bytes)), self._source
        )
        self._look_again()

    def _look_again(self) -> None:
        loop = asyncio.get_running_loop()
        self.look(loop.time())
        loop.call_later(_LOOK_S, self._look_again)

    @property
    def stage(self) -> str:
        return self._pressure.stage

    def look(self, now: float) -> None:
        """See what is in use and act on it; ``now`` is seconds of any clock that does not go back."""
        used = {"base": self._base_bytes} | {name: count() for name, count in self._parts.items()}
        known = sum(used.values())
        used["other"] = max(0, self._machine.own_bytes() - known)
        used["predecessor"] = self._beside_bytes()
        known += used["predecessor"]
        self._used = used
        before = self.stage, self._pressure.share
        total = known + used["other"]
        self._pressure.feel(total / self.share_bytes)
        if (self.stage, self._pressure.share) != before:
            self._shedder.set_share(self._pressure.share)
        if (self.stage == REFUSE) != (before[0] == REFUSE):
            for intake in self._intakes:
                intake.set_overloaded(self.stage == REFUSE)
        if self.stage != CALM:
            self._relieve(now, total)
        if self.stage != CALM or before[0] != CALM:
            self._tell(now, before[0], total)

    def _beside_bytes(self) -> int:
        """What the worker that leaves has more than an idle one."""
        if not self._beside:
            return 0
        size = self._machine.own_bytes(self._beside)
        if not size:
            self._beside = 0  # gone for good; its number may be another's soon
        return max(0, size - self._base_bytes)

    def _relieve(self, now: float, total: int) -> None:
        if self._used["other"] > _SLACK_BYTES and now - self._gave_back_at >= _GIVE_BACK_S:
            self._gave_back_at = now
            self._give_back()
        if self._used.get("red", 0) > _LARGE * total and now - self._ticked_at >= _TICK_S:
            self._ticked_at = now
            self.tick_early.set()

    def _tell(self, now: float, before: str, total: int) -> None:
        shed = self._shed_spans()
        if self.stage == CALM:
            LOG.info("memory: enough again; %d span(s) were shed", shed - self._shed_told)
            self._shed_told = shed
            self._told_at = -inf
        elif STAGES.index(self.stage) > STAGES.index(before) or now - self._told_at >= _TELL_S:
            self._told_at = now
            LOG.error(
                "memory: %s; %d span(s) shed since this was last said",
                self._words(total),
                shed - self._shed_told,
            )
            self._shed_told = shed

    def _words(self, total: int) -> str:
        largest = max(self._used, key=self._used.__getitem__)
        kept = round(100 * self._pressure.share)
        does = f"{kept} % of the traces are kept, RED counts all"
        if self.stage == REFUSE:
            does = "posts are answered 503, which Envoy does not repeat: their spans are lost"
        return (
            f"{total >> 20} MiB of this worker's {self.share_bytes >> 20} MiB are in use (most: {largest}, "
            f"{self._used[largest] >> 20} MiB); {does}; raise {self._source}, or add replicas"
        )

    def problems(self) -> list[str]:
        """What is wrong now, in words for the operator."""
        return [] if self.stage == CALM else [f"memory: {self._words(sum(self._used.values()))}"]

    def samples(self) -> Samples:
        return {
            "tracefwd_memory_used_bytes": {(part,): size for part, size in self._used.items()},
            "tracefwd_memory_max_bytes": {(): self.share_bytes},
            "tracefwd_memory_stage_workers": {
                (stage,): int(stage == self.stage) for stage in STAGES
            },
        }


class Reds(Protocol):
    """What the watch needs of ``pipeline.Pipeline``."""

    shedder: Shedder

    @property
    def red_bytes(self) -> int: ...

    @property
    def shed_spans(self) -> int: ...


class Target(Protocol):
    """What the watch needs of ``exporter.target.Target``."""

    def samples(self) -> Samples: ...


class Port(Intake, Protocol):
    """What the watch needs of ``receiver.http.HttpReceiver`` and ``receiver.line_port.LinePort``."""

    @property
    def memory_bytes(self) -> int: ...


class Room(Protocol):
    """What the watch needs of ``receiver.guard.Guard``."""

    unfinished_bytes: int


def make_memory_watch(
    settings: Settings,
    pipeline: Reds,
    targets: Sequence[Target],
    ports: Sequence[Port],
    room: Room,
    machine: Machine | None = None,
) -> MemoryWatch:
    """The watch of one worker; ``machine`` is where limits are read, the real one by default."""
    machine = machine or Machine()
    limit = budget(settings.service.memory_max, machine)
    share_bytes = worker_share(
        limit, workers=settings.service.workers, scrapes=wants_scraper(settings)
    )

    def queues() -> int:
        held = (target.samples()["tracefwd_exporter_queue_bytes"] for target in targets)
        return int(sum(sum(sizes.values()) for sizes in held))

    return MemoryWatch(
        limit,
        share_bytes,
        machine,
        parts={
            "connections": lambda: sum(port.memory_bytes for port in ports),
            "requests": lambda: room.unfinished_bytes,
            "queues": queues,
            "red": lambda: pipeline.red_bytes,
        },
        shedder=pipeline.shedder,
        shed_spans=lambda: pipeline.shed_spans,
        intakes=ports,
    )


def _whole(size: int) -> int:
    """Whole MiB, for reading."""
    return size >> 20 << 20


def _heap_trimmer() -> Callable[[], object]:
    """glibc keeps freed memory in its heap; other libraries have no such call, and need none."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return (lambda: None) if trim is None else (lambda: trim(0))


__all__ = ["MemoryWatch", "make_memory_watch"]
