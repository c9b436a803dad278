"""What a worker is made of, and the real parts put together.

``worker.py`` knows its parts by these protocols alone, so that tests and the scraper's process bring their own.
"""

import asyncio
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from tracefwd import metrics
from tracefwd.console.seen import Seen, TapWish
from tracefwd.model import RedPoint
from tracefwd.processor.red import RedAggregator
from tracefwd.service.sockets import PORTS
from tracefwd.settings import Settings, TargetSettings

if TYPE_CHECKING:
    from tracefwd.exporter.target import Target
    from tracefwd.service.durable import Durable
    from tracefwd.service.memory import Machine
    from tracefwd.service.scraper_spool import ScraperSpool


class PipelinePart(Protocol):
    """What the worker needs of ``pipeline.Pipeline``."""

    def tick(self) -> Iterator[list[RedPoint]]: ...
    def ledger(self) -> dict[str, Any]: ...
    def samples(self) -> metrics.Samples: ...
    def rejected_samples(self) -> list[dict[str, str]]: ...


class ReceiverPart(Protocol):
    """What the worker needs of ``receiver.http.HttpReceiver`` and ``receiver.line_port.LinePort``."""

    async def start(self, sock: socket.socket) -> object: ...
    def drain(self) -> None: ...
    def leave_port(self) -> None: ...
    async def stop(self, linger_s: float) -> None: ...
    def samples(self) -> metrics.Samples: ...


class ScraperPart(Protocol):
    """What the worker needs of ``scraper.Scraper``: a receiver that goes and asks."""

    def start(self) -> None: ...
    def drain(self) -> None: ...
    def leave_port(self) -> None: ...
    async def stop(self, linger_s: float) -> None: ...
    def samples(self) -> metrics.Samples: ...
    def problems(self) -> list[str]: ...
    def sources(self) -> list[dict[str, Any]]: ...


class TargetPart(Protocol):
    """What the worker needs of ``exporter.target.Target``."""

    async def start(self) -> None: ...
    async def drain(self, budget_s: float) -> None: ...
    def problems(self) -> list[str]: ...


class WatchPart(Protocol):
    """What the worker needs of ``console.watch.Watch``."""

    def wish(self, wishes: list[TapWish], number: int) -> None: ...
    def take_hits(self) -> Seen | None: ...
    def each_second(self) -> Seen: ...


class RedPart(Protocol):
    """What the console needs of the pipeline: what RED has gathered since it was drained."""

    @property
    def red(self) -> RedAggregator | None: ...


class JournalPart(Protocol):
    """What makes the worker's promises outlive it; what the worker needs of ``durable.Durable``.

    ``open`` comes before the targets start.  ``recover`` takes over what dead workers of this slot left; the receiver
    starts when it returns.  A worker of the slot that takes leave meanwhile is for ``each_second`` to look for.
    ``name`` and ``adopted`` are as ``journal`` and ``adopted`` in ``control.Snapshot``.  ``tick_early`` is set when RED
    should leave early, because its facts fill the journal.
    """

    tick_early: asyncio.Event

    @property
    def name(self) -> str: ...
    @property
    def adopted(self) -> list[str]: ...
    async def open(self) -> None: ...
    async def recover(self) -> None: ...
    def each_second(self) -> None: ...
    async def close(self) -> None: ...
    def samples(self) -> metrics.Samples: ...
    def problems(self) -> list[str]: ...


class MemoryPart(Protocol):
    """What the worker needs of ``memory_watch.MemoryWatch``; ``tick_early`` is set when RED should leave early."""

    tick_early: asyncio.Event

    def start(self, beside: int = 0) -> None: ...
    def samples(self) -> metrics.Samples: ...
    def problems(self) -> list[str]: ...


@dataclass
class Parts:
    """What a worker is made of; ``line_port`` takes span lines and ``otlp_*`` OTLP, if they are to.  Without
    ``journal`` a crash costs all.

    The scraper's process has a ``scraper`` and no ``receiver``.
    """

    pipeline: PipelinePart
    receiver: ReceiverPart | None
    targets: Sequence[TargetPart]
    each_second: Callable[[], None] = lambda: None
    """Small chores that need no task of their own, such as a look at the rules file."""
    line_port: ReceiverPart | None = None
    otlp_http: ReceiverPart | None = None
    otlp_grpc: ReceiverPart | None = None
    journal: JournalPart | None = None
    scraper: ScraperPart | None = None
    memory: MemoryPart | None = None
    watch: WatchPart | None = None
    red: RedPart | None = None
    lanes: Callable[[], list[dict[str, Any]]] = list
    refused_lines: Callable[[], list[dict[str, str]]] = list

    @property
    def ports(self) -> dict[str, ReceiverPart]:
        """Who serves at which of the slot's sockets, by ``sockets.PORTS``."""
        parts = (self.receiver, self.line_port, self.otlp_http, self.otlp_grpc)
        return {name: part for name, part in zip(PORTS, parts, strict=True) if part is not None}

    @property
    def receivers(self) -> list[ReceiverPart | ScraperPart]:
        return [*self.ports.values(), *([] if self.scraper is None else [self.scraper])]

    def problems(self) -> list[str]:
        """What is wrong outside."""
        found = [problem for target in self.targets for problem in target.problems()]
        if self.memory is not None:
            found = [*self.memory.problems(), *found]
        if self.journal is not None:
            found = [*self.journal.problems(), *found]
        return found if self.scraper is None else [*self.scraper.problems(), *found]


Compose = Callable[[Settings, int], Parts]
"""``(settings, slot) -> parts``"""


def make_targets(
    settings: Settings, spool: "Durable | ScraperSpool | None" = None
) -> "list[tuple[TargetSettings, Target]]":
    """Every target but the failovers, which are their primary's.  A spool without a journal has no ``done``."""
    from tracefwd.exporter.target import Target

    exporter = settings.exporter
    failovers = [target for target in exporter.targets if target.role == "failover"]
    return [
        (
            target,
            Target(
                target,
                exporter,
                # A tee is a copy that nobody waits for: it does not borrow the primary's failovers.
                failovers=failovers if target.role == "primary" else [],
                seed=_seed(),
                shelves=None if spool is None else spool.shelf,
                spool_after_s=settings.spool.after,
                done=None if spool is None or target.role == "tee" else spool.done,
                launched=None if spool is None or target.role == "tee" else spool.launched,
                lacks=None if spool is None or target.role == "tee" else spool.lacks,
            ),
        )
        for target in exporter.targets
        if target.role != "failover"
    ]


def _now_us() -> int:
    return time.time_ns() // 1_000


def _instance(slot: int) -> str:
    """Which worker of which pod: both names outlive the process."""
    return f"{socket.gethostname()}/{slot}"


def compose(settings: Settings, slot: int = 0, machine: "Machine | None" = None) -> Parts:
    """The real parts; ``machine`` is where limits of memory are read, the real one by default."""
    from tracefwd.compose import load_line_rules, make_pipeline, make_writer, otlp_ingest
    from tracefwd.console.watch import Watch
    from tracefwd.receiver.guard import Guard
    from tracefwd.receiver.http import HttpReceiver
    from tracefwd.receiver.line_port import LinePort
    from tracefwd.receiver.otlp_answers import otlp_only
    from tracefwd.service.memory_watch import make_memory_watch
    from tracefwd.service.rules_watch import RulesWatch

    durable = None
    if settings.spool.folder:
        from tracefwd.service.durable import Durable

        durable = Durable(settings, slot)
    targets = make_targets(settings, durable)
    bare = [target for _, target in targets]
    pipeline = make_pipeline(settings, targets, now_us=_now_us, instance=_instance(slot))
    if durable is not None:
        durable.connect(pipeline, bare)
    # All ports share one room for unfinished requests.
    guard = Guard(settings.receiver)
    otlp, otlp_all = otlp_ingest(settings, pipeline)
    receiver = HttpReceiver(
        settings.receiver,
        pipeline.ingest,
        ingest_all=pipeline.ingest_all,
        seed=_seed(),
        # As the Java proxy, whose port for Zipkin refuses the path.
        otlp=None if settings.mapping.exact else otlp,
        otlp_all=otlp_all,
        exact=settings.mapping.exact,
        guard=guard,
    )
    line_port = None
    if settings.receiver.trace_listen:
        line_port = LinePort(settings.receiver, pipeline, seed=_seed(), guard=guard)
    rules = RulesWatch(settings, pipeline.ruled)
    line_rules = RulesWatch(settings, pipeline.line_ruled, load_line_rules)
    otlp_http = None
    if settings.receiver.otlp.http.listen:
        otlp_http = HttpReceiver(
            settings.receiver, otlp, seed=_seed(), handlers=otlp_only(otlp, otlp_all), guard=guard
        )
    otlp_grpc = None
    if settings.receiver.otlp.grpc.listen:
        from tracefwd.receiver.otlp_grpc import GrpcReceiver

        otlp_grpc = GrpcReceiver(settings.receiver, otlp, guard, otlp_all)
    ports = [part for part in (receiver, line_port, otlp_http, otlp_grpc) if part is not None]
    memory = make_memory_watch(settings, pipeline, bare, ports, guard, machine)

    def each_second() -> None:
        rules.check()
        line_rules.check()

    primary = next(options for options, target in targets if target.role == "primary")
    watch = Watch(make_writer(primary, settings).write, _seed())
    pipeline.watch = watch
    return Parts(
        pipeline,
        receiver,
        bare,
        each_second,
        line_port,
        otlp_http,
        otlp_grpc,
        durable,
        memory=memory,
        watch=watch,
        red=pipeline,
        lanes=lambda: lanes_of(bare),
        refused_lines=lambda: refused_lines_of(bare),
    )


def lanes_of(targets: "Sequence[Target]") -> list[dict[str, Any]]:
    return [lane for target in targets for lane in target.lanes()]


def refused_lines_of(targets: "Sequence[Target]") -> list[dict[str, str]]:
    return [line for target in targets for line in target.rejected_samples()]


def _seed() -> int:
    """For jitter: workers and replicas that start together must not act together."""
    return int.from_bytes(os.urandom(8), "big")
