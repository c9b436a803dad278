"""One worker process: where the rooms meet.

It is a fresh interpreter (``python -m tracefwd.service.worker [PORT=FD[,PORT=FD…]] CONTROL_FD``, ports as in
``sockets.PORTS``, "" for the scraper) that borrows its slot's listening sockets from the parent and shares nothing
with its siblings.
Three tasks are its whole concurrency story, beside those that each target and each scraped source has for itself:

* ``receiver`` takes requests (or scrapes) until it is time to leave,
* ``ticker`` drains RED and heartbeats at every whole ``red.interval`` of the wall clock,
* ``control`` sends the parent a snapshot each second.

Order.  Start: targets, then what the slot's dead left (``Parts.journal``), then receiver, then ``ready``.  Leave: the
receiver (its answers say ``Connection: close``), a last tick, the targets within what is left of the budget, a last
snapshot, exit 0.

Reasons to leave: ``drain`` from the parent, SIGTERM, the end of the channel (the parent is dead), or a
task that failed (exit 1, after delivering what is held).  Where it was not the parent's wish, the worker says
``leaving`` and accepts on, until a successor has been started.  A worker lives in a session of its own, so a
terminal's Ctrl-C reaches only the parent, which then says ``drain``.
"""

import asyncio
import gc
import importlib
import logging
import signal
import socket
import sys
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import msgspec

from tracefwd import metrics
from tracefwd.errors import TracefwdError
from tracefwd.service import logs
from tracefwd.service.control import (
    EXIT_FAILED_TO_START,
    Ask,
    Channel,
    Drain,
    Failed,
    FromParent,
    Leaving,
    Look,
    Ready,
    Snapshot,
    Start,
)
from tracefwd.service.looking import Looking
from tracefwd.service.worker_parts import Compose, JournalPart, Parts, compose
from tracefwd.settings import Settings

LOG = logging.getLogger(__name__)

PUSH_INTERVAL_S = 1.0
# Envoy flushes every 5 s: a connection that was idle all that time gets one more post, and with its answer
# the word to close.  Only if anybody was connected when it began.
LINGER_S = 6.5
# What a target may take for closing when its budget is over, before it is cut off.
CLOSE_S = 1.0
# Even without any time left what has nothing to do gets its turn, and need not be cut off.
TURN_S = 0.05
# A little past the boundary, because a timer may fire early and would then fire twice.
TICK_LATENESS_S = 0.01


class Worker:
    """The life of one worker from its first message to its exit code."""

    def __init__(
        self,
        sockets: Mapping[str, socket.socket],
        build: Compose,
    ) -> None:
        """``sockets`` are the slot's, by ``sockets.PORTS``."""
        self._sockets = sockets
        self._build = build
        self._channel: Channel[FromParent] = Channel(FromParent, self._receive)
        self._started: asyncio.Future[Start] = asyncio.get_running_loop().create_future()
        self._leaving = asyncio.Event()
        # Another worker accepts at our sockets.
        self._handed_over = False
        self._hurry = asyncio.Event()
        self._deadline = 0.0
        self._settings = Settings()
        self._parts: Parts | None = None
        self._looking: Looking | None = None

    async def run(self, control: socket.socket) -> int:
        """The exit code."""
        loop = asyncio.get_running_loop()
        await loop.create_unix_connection(lambda: self._channel, sock=control)
        closed = asyncio.create_task(self._channel.closed.wait(), name="parent")
        closed.add_done_callback(lambda _: self.leave(reason="its parent is gone"))
        try:
            parts = await self._start()
        except Exception as error:  # noqa: BLE001  # whatever it is, the parent must learn why
            return await self._fail(error)
        if parts is None:
            return 0
        try:
            return 0 if await self._work(parts) else 1
        finally:
            if self._looking is not None:
                self._looking.stop()
            await self._say_goodbye()

    def leave(self, budget_s: float | None = None, *, reason: str = "") -> None:
        """Leave within the budget (default: ``service.drain_timeout``); said again, it can only shorten it.

        ``reason`` is for the parent; "" when it was the parent who said so.
        """
        if budget_s is None:
            budget_s = self._settings.service.drain_timeout
        deadline = asyncio.get_running_loop().time() + budget_s
        if not self._leaving.is_set():
            self._deadline = deadline
            self._leaving.set()
            if reason:
                self._channel.send(Leaving(reason))
        elif deadline < self._deadline:
            self._deadline = deadline
            self._hurry.set()

    async def _start(self) -> Parts | None:
        """Compose and start everything but the receiver; ``None`` if told to leave before that."""
        leaving = asyncio.create_task(self._leaving.wait())
        first: set[asyncio.Future[Any]] = {self._started, leaving}
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        leaving.cancel()
        if not self._started.done():
            return None
        start = self._started.result()
        self._settings = msgspec.json.decode(start.settings, type=Settings)
        parts = self._build(self._settings, start.slot)
        if parts.journal is not None:
            await parts.journal.open()
        for target in parts.targets:
            await target.start()
        if parts.journal is not None:
            await self._recover(parts, parts.journal)
        for name, part in parts.ports.items():
            if name in self._sockets:
                await part.start(self._sockets[name])
        if parts.scraper is not None:
            parts.scraper.start()
        if parts.memory is not None:
            parts.memory.start(start.beside)
        self._parts = parts
        self._looking = Looking(parts, self._channel)
        if self._handed_over:
            _leave_ports(parts)
        # In this order, so that of a worker that is ready there is always a snapshot.
        self._channel.send(self._snapshot(parts))
        self._channel.send(Ready(type(asyncio.get_running_loop()).__module__.partition(".")[0]))
        return parts

    async def _recover(self, parts: Parts, journal: JournalPart) -> None:
        """However long it takes, the parent hears from us and sees what is recovered already."""
        speaking = asyncio.create_task(self._control(parts), name="control")
        try:
            await journal.recover()
        finally:
            speaking.cancel()
            await asyncio.wait({speaking})
        if not speaking.cancelled():
            # It ends only by failing.
            speaking.result()

    async def _work(self, parts: Parts) -> bool:
        """From the first request to the last line delivered; whether all went well."""
        control = asyncio.create_task(self._control(parts), name="control")
        traffic = {
            asyncio.create_task(self._receiver(parts), name="receiver"),
            asyncio.create_task(self._ticker(parts), name="ticker"),
        }
        # Without a failure, all of them end because it is time to leave.
        await asyncio.wait({control, *traffic}, return_when=asyncio.FIRST_COMPLETED)
        if not self._leaving.is_set():
            self.leave(reason="a task failed")
        await asyncio.wait(traffic)
        try:
            await self._finish(parts)
        finally:
            # What failed first is told even if the end fails, too.
            control.cancel()
            await asyncio.wait({control})
            well = True
            for task in (control, *traffic):
                if not task.cancelled() and (error := task.exception()) is not None:
                    LOG.error("task %s failed", task.get_name(), exc_info=error)
                    well = False
        return well

    async def _receiver(self, parts: Parts) -> None:
        """Takes requests; when it is time, says so to every client and sees them off."""
        await self._leaving.wait()
        for receiver in parts.receivers:
            receiver.drain()
        # Never more than half of the time: what is queued needs some, too.
        linger_s = min(LINGER_S, 0.4 * self._seconds_left())
        if not await self._in_time(
            _stop_receivers(parts, linger_s), lambda: 0.5 * self._seconds_left()
        ):
            LOG.warning("connections whose requests did not end in time were reset")

    async def _ticker(self, parts: Parts) -> None:
        interval = self._settings.red.interval
        while True:
            wait_s = interval - time.time() % interval + TICK_LATENESS_S
            if await self._leaves_within(wait_s):
                return
            await _tick(parts, self._looking)

    async def _control(self, parts: Parts) -> None:
        """Goes on while draining, so that a crash then costs no more than one before."""
        while True:
            await asyncio.sleep(PUSH_INTERVAL_S)
            parts.each_second()
            if parts.journal is not None:
                parts.journal.each_second()
            # A parent that does not read gets fewer, not more of the same.
            if not self._channel.congested:
                self._channel.send(self._snapshot(parts))
                if self._looking is not None:
                    self._looking.each_second()

    async def _finish(self, parts: Parts) -> None:
        """The receiver has stopped: one last tick, then deliver what is held while there is time."""
        try:
            await _tick(parts, self._looking)
        finally:
            await self._in_time(
                self._drain_targets(parts, self._seconds_left()),
                lambda: self._seconds_left() + CLOSE_S,
            )
            if parts.journal is not None:
                await parts.journal.close()
            self._channel.send(self._snapshot(parts))

    async def _say_goodbye(self) -> None:
        self._channel.close()
        await self._channel.closed.wait()

    async def _fail(self, error: Exception) -> int:
        if isinstance(error, TracefwdError | OSError):
            message = str(error)
        else:
            LOG.error("worker could not start", exc_info=error)
            message = f"{type(error).__name__}: {error}"
        self._channel.send(Failed(message))
        await self._say_goodbye()
        return EXIT_FAILED_TO_START

    def _receive(self, message: FromParent) -> None:
        match message:
            case Start():
                self._started.set_result(message)
            case Ask():
                if self._parts is not None:
                    self._channel.send(self._snapshot(self._parts, message))
            case Look():
                if self._looking is not None:
                    self._looking.look(message)
            case Drain(budget_s=budget_s, handed_over=handed_over):
                self.leave(budget_s)
                if handed_over and not self._handed_over:
                    self._handed_over = True
                    if self._parts is not None:
                        _leave_ports(self._parts)

    def _snapshot(self, parts: Parts, ask: Ask | None = None) -> Snapshot:
        """Everything at one moment: no ``await`` may come into this."""
        samples: metrics.Samples = {}
        metrics.add(samples, parts.pipeline.samples())
        for receiver in parts.receivers:
            metrics.add(samples, receiver.samples())
        for part in (parts.memory, parts.journal):
            if part is not None:
                metrics.add(samples, part.samples())
        return Snapshot(
            ledger=parts.pipeline.ledger(),
            samples=[
                (name, labels, value)
                for name, series in samples.items()
                for labels, value in series.items()
            ],
            problems=parts.problems(),
            id=0 if ask is None else ask.id,
            sources=(
                parts.scraper.sources()
                if parts.scraper is not None and ask is not None and ask.sources
                else None
            ),
            lanes=parts.lanes(),
            refused_lines=(parts.refused_lines() if ask is not None and ask.rejected else None),
            journal="" if parts.journal is None else parts.journal.name,
            adopted=[] if parts.journal is None else parts.journal.adopted,
            rejected_samples=(
                parts.pipeline.rejected_samples() if ask is not None and ask.rejected else None
            ),
        )

    async def _drain_targets(self, parts: Parts, budget_s: float) -> None:
        await asyncio.gather(*(target.drain(budget_s) for target in parts.targets))

    def _seconds_left(self) -> float:
        return max(0.0, self._deadline - asyncio.get_running_loop().time())

    async def _leaves_within(self, seconds: float) -> bool:
        """Whether it is time to leave; a wish for an early tick ends the wait, too."""
        parts = () if self._parts is None else (self._parts.memory, self._parts.journal)
        early = [part.tick_early for part in parts if part is not None]
        waits = [asyncio.create_task(event.wait()) for event in (self._leaving, *early)]
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        for event in early:
            event.clear()
        return self._leaving.is_set()

    async def _in_time(
        self, work: Coroutine[Any, Any, None], seconds_left: Callable[[], float]
    ) -> bool:
        """Whether ``work`` ended in time, else it is cancelled; ``seconds_left`` is asked again when hurried."""
        doing = asyncio.create_task(work)
        hurried = True
        while hurried and not doing.done():
            self._hurry.clear()
            hurry = asyncio.create_task(self._hurry.wait())
            first: set[asyncio.Task[Any]] = {doing, hurry}
            patience_s = max(seconds_left(), TURN_S)
            await asyncio.wait(first, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
            hurried = hurry.done()
            hurry.cancel()
        if doing.done():
            doing.result()
            return True
        doing.cancel()
        await asyncio.wait({doing})
        return False


def _leave_ports(parts: Parts) -> None:
    for receiver in parts.receivers:
        receiver.leave_port()


async def _stop_receivers(parts: Parts, linger_s: float) -> None:
    await asyncio.gather(*(receiver.stop(linger_s) for receiver in parts.receivers))


async def _tick(parts: Parts, looking: Looking | None) -> None:
    """Ten thousand series take a while to write; requests get their turn between the slices."""
    for points in parts.pipeline.tick():
        if looking is not None:
            looking.drained(points)
        await asyncio.sleep(0)


def _settle_memory() -> None:
    """What start-up made stays for ever: keep the collector from looking at it again and again.

    The hot path makes no cycles (its records are not even tracked), but lists and tuples count as
    allocations: with the default threshold of 700 the collector would run hundreds of times a second and
    find nothing.  Cycles do come from exceptions and closed connections, so it stays on.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def _named(reference: str) -> Compose:
    """``module:function``: other parts than the real ones, for tests."""
    module, _, function = reference.partition(":")
    found: Compose = getattr(importlib.import_module(module), function)
    return found


def _prepared(build: Compose) -> Compose:
    """``build`` with what is done once for the whole process, before and after it."""

    def prepared(settings: Settings, slot: int) -> Parts:
        logs.configure(settings.service)
        parts = build(settings, slot)
        _settle_memory()
        return parts

    return prepared


async def _run(arguments: Sequence[str]) -> int:
    listening, control_fd, *other_parts = arguments
    build = _named(other_parts[0]) if other_parts else compose
    with ExitStack() as stack:
        borrowed: dict[str, socket.socket] = {}
        for each in filter(None, listening.split(",")):
            name, _, number = each.partition("=")
            borrowed[name] = stack.enter_context(socket.socket(fileno=int(number)))
            borrowed[name].setblocking(False)
        worker = Worker(borrowed, _prepared(build))
        asyncio.get_running_loop().add_signal_handler(
            signal.SIGTERM, lambda: worker.leave(reason="SIGTERM")
        )
        return await worker.run(socket.socket(fileno=int(control_fd)))


def main(arguments: Sequence[str]) -> int:
    # Somebody's Ctrl-C is the parent's affair, and so is a reload that all processes of a service are told of.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_run(arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
