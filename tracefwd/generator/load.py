"""The load: posts leave when they are due, whether or not the receiver keeps up.

1. Open loop: the n-th span is due at ``n / rate``; a post is due with its first span.  Latency counts from there,
   so a receiver's stall shows in every post that it held up.  (With ``closed`` each connection instead sends
   its next post when the last one is answered: what a receiver can do at most.)
2. A post goes over its Envoy's kept connection, another idle one if that is busy, or a further one, as Envoy opens
   them; of those there are ``EXTRA_CONNECTIONS_MAX`` at most, and a post that waited ``POST_TIMEOUT_S`` for one is
   counted as overflowed.
3. Nothing is sent twice, whatever the answer.
"""

import asyncio
import json
import math
import resource
import signal
import socket
import ssl
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tracefwd.generator.connection import AnyConnection, Connection, Flight, Target
from tracefwd.generator.encodings import encoder
from tracefwd.generator.mesh import HEALTHY, Mood
from tracefwd.generator.posts import Post, Posts
from tracefwd.generator.report import Report

# Envoy's circuit breaker lets a cluster have 1,024 connections; a receiver that never answered got 1,001.
EXTRA_CONNECTIONS_MAX = 1_000
# tracing.zipkin.request_timeout.
POST_TIMEOUT_S = 5.0
# Loop timers have a resolution of 1 ms; sleeping less would spin.
TICK_S = 0.001
# A post sent this long after its time was late by our own fault, or for want of a connection.
LATE_S = 0.01
# Sends between two looks at the answers when the schedule is behind.
BURST_POSTS = 32
# Connections opened at once before the clock starts: more would overrun a usual listen backlog (128).
OPENINGS_MAX = 64
# Between two attempts of a closed loop whose receiver refuses.
REFUSED_PAUSE_S = 0.05


@dataclass(frozen=True)
class GenOptions:
    """``rate`` in spans per second (ignored when ``closed``); ``seconds`` may be ``inf``.

    ``token`` is shown with each post, if there is one; ``tls`` is for https, and only there.
    """

    to: str
    rate: float
    seconds: float
    connections: int
    seed: int
    json: bool
    closed: bool = False
    protocol: str = "zipkin-json"
    mood: Mood = HEALTHY
    token: str = field(default="", repr=False)
    tls: ssl.SSLContext | None = None


def check(options: GenOptions) -> Target:
    """Raises ValueError that says which option cannot be used and why."""
    if not (options.closed or 0 < options.rate < math.inf):
        raise ValueError(f"--rate {options.rate:g} must be above 0 spans per second")
    if not options.seconds > 0:
        raise ValueError(f"--seconds {options.seconds:g} must be above 0")
    if not 1 <= options.connections <= 20_000:
        raise ValueError(f"--connections {options.connections} must be between 1 and 20000")
    return Target(options.to, options.protocol, token=options.token, tls=options.tls)


async def generate(
    options: GenOptions,
    *,
    progress: Callable[[Report], None] | None = None,
    stop: asyncio.Event | None = None,
) -> Report:
    """Sends the load and waits for the answers; ``progress`` is called every second with the running report.

    ``stop`` ends the run early; spans that are then still with an Envoy are not sent, as when a pod ends.  Otherwise
    exactly ``rate * seconds`` spans are sent, in whole traces.  Raises ValueError as ``check`` does.
    """
    load = _Load(options, check(options), stop or asyncio.Event())
    return await load.run(progress)


def run(options: GenOptions) -> int:
    """The command: report on stdout, progress on stderr.

    0 if every span was acknowledged, 1 if not, 2 for options that cannot be used.
    """
    try:
        target = check(options)
    except ValueError as error:
        print(f"tracefwd gen: {error}", file=sys.stderr)
        return 2
    try:
        # Once, because hundreds of connections that wait for a name outlive the load.
        socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except OSError as error:
        reason = f"the name {target.host} does not resolve ({error.strerror}); see --to"
        print(f"tracefwd gen: {reason}", file=sys.stderr)
        return 1
    _allow_files(options.connections + EXTRA_CONNECTIONS_MAX)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        report = runner.run(_interruptible(options))
    if options.json:
        print(json.dumps(report.to_json()))
    else:
        print("\n".join(report.lines()))
    if not report.acked and report.connect_errors:
        print(
            f"tracefwd gen: nothing could be sent; is a receiver listening at {options.to}?",
            file=sys.stderr,
        )
    return 0 if report.complete else 1


def _allow_files(connections: int) -> None:
    """Each connection is an open file; most systems start processes with 1,024 but allow many more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # A few dozen for everything else.
    wanted = connections + 64
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """uvloop where it has a wheel: half the cost of a post."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


async def _interruptible(options: GenOptions) -> Report:
    """SIGINT and SIGTERM end the run, not the report."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    in_place = sys.stderr.isatty()

    def show(report: Report) -> None:
        text = report.progress()
        # "Erase to the end of the line" for what a longer text left there.
        print(f"\r{text}\x1b[K" if in_place else f"{text}\n", end="", file=sys.stderr, flush=True)

    report = await generate(options, progress=show, stop=stop)
    if in_place:
        print(file=sys.stderr)
    return report


class _Load:
    """One run: the schedule, the connections, the counts."""

    def __init__(self, options: GenOptions, target: Target, stop: asyncio.Event) -> None:
        self._options = options
        self._target = target
        self._stop = stop
        self.report = Report()
        bounded = not options.closed and options.seconds != math.inf
        self._posts = Posts(
            connections=options.connections,
            seed=options.seed,
            epoch_us=_wall_us(),
            spans_max=round(options.rate * options.seconds) if bounded else None,
            encode=encoder(options.protocol),
            mood=options.mood,
        )
        # Kept connections by slot; "opening" is a slot whose connection is on its way.
        self._kept: list[AnyConnection | None] = [None] * options.connections
        self._opening: set[int] = set()
        self._extra = 0
        self._open: set[AnyConnection] = set()
        # Insertion-ordered: the connection used last is taken first, as Envoy's pools do.
        self._idle: dict[AnyConnection, None] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._change = asyncio.Event()
        self._started = 0.0

    async def run(self, progress: Callable[[Report], None] | None) -> Report:
        cpu_s = time.process_time()
        await self._warm()
        self._started = time.perf_counter()
        watch = asyncio.create_task(self._watch(progress, cpu_s))
        try:
            await (self._closed_loop() if self._options.closed else self._open_loop())
            self._tally(cpu_s)
            await self._settle()
        finally:
            watch.cancel()
            for task in self._tasks:
                task.cancel()
            for connection in list(self._open):
                connection.abort()
            await asyncio.gather(watch, *self._tasks, return_exceptions=True)
            # Aborted transports say goodbye in the next turn.
            await asyncio.sleep(0)
        self.report.cpu_s = time.process_time() - cpu_s
        return self.report

    # --- the schedule ------------------------------------------------------------------------

    async def _open_loop(self) -> None:
        rate = self._options.rate
        scheduled = burst = 0
        while not self._stop.is_set():
            due = self._started + scheduled / rate
            delay = due - time.perf_counter()
            if delay > 0:
                burst = 0
                # In slices, so that a stop is soon seen.
                await asyncio.sleep(min(max(delay, TICK_S), 0.2))
                continue
            burst += 1
            if burst % BURST_POSTS == 0:
                await asyncio.sleep(0)
            post = self._posts.next(_wall_us())
            if post is None:
                return
            scheduled += post.spans
            self._count(post)
            while not self._dispatch(Flight(post, due)):
                if time.perf_counter() - due > POST_TIMEOUT_S:
                    self.report.overflowed += 1
                    self.report.in_flight -= 1
                    break
                await self._changed(0.1)

    async def _closed_loop(self) -> None:
        end = self._started + self._options.seconds
        while not self._stop.is_set() and (now := time.perf_counter()) < end:
            for slot, connection in enumerate(self._kept):
                if connection is None and slot not in self._opening:
                    self._start_opening(slot, None)
            while self._idle:
                connection, _ = self._idle.popitem()
                post = self._posts.next(_wall_us())
                assert post is not None
                self._count(post)
                self._send(connection, Flight(post, time.perf_counter()))
            await self._changed(min(0.1, end - now))

    def _count(self, post: Post) -> None:
        self.report.scheduled += post.spans
        self.report.in_flight += 1

    async def _settle(self) -> None:
        """Waits for the last answers; ``_watch`` gives up on those that take too long."""
        while self.report.in_flight:
            await self._changed(0.1)

    async def _changed(self, timeout_s: float) -> None:
        """Until a connection was freed, opened or lost, or the time is over."""
        self._change.clear()
        timer = asyncio.get_running_loop().call_later(timeout_s, self._change.set)
        await self._change.wait()
        timer.cancel()

    async def _watch(self, progress: Callable[[Report], None] | None, cpu_s: float) -> None:
        """Time-outs, and the progress every second."""
        shown = self._started
        overdue: set[Flight] = set()
        while True:
            await asyncio.sleep(0.25)
            now = time.perf_counter()
            flights = [connection.flight for connection in self._open]
            suspects = overdue
            overdue = {
                flight for flight in flights if flight and now - flight.sent > POST_TIMEOUT_S
            }
            # Found so twice: after a stall of our own, answers wait in the sockets and only need a turn.
            given_up = overdue & suspects
            for connection in [one for one in self._open if one.flight in given_up]:
                self.report.timeouts += 1
                assert connection.flight is not None
                self.report.latencies.add(now - connection.flight.due)
                connection.abort()
            if progress is not None and now - shown >= 1.0:
                shown = now
                self._tally(cpu_s)
                progress(self.report)

    def _tally(self, cpu_s: float) -> None:
        self.report.seconds = time.perf_counter() - self._started
        self.report.cpu_s = time.process_time() - cpu_s

    # --- connections ---------------------------------------------------------------------------

    def _dispatch(self, flight: Flight) -> bool:
        """Send ``flight`` over a connection that can take it; False if there is none and may be no more."""
        slot = flight.post.connection
        kept = self._kept[slot]
        if kept is None and slot not in self._opening:
            # Never opened, or closed by the receiver: as Envoy, open it when it is needed.
            self._start_opening(slot, flight)
        elif kept is not None and kept in self._idle:
            del self._idle[kept]
            self._send(kept, flight)
        elif self._idle:
            self._send(self._idle.popitem()[0], flight)
        elif self._extra < EXTRA_CONNECTIONS_MAX:
            self._start_opening(None, flight)
        else:
            return False
        return True

    def _send(self, connection: AnyConnection, flight: Flight) -> None:
        report = self.report
        flight.sent = time.perf_counter()
        if flight.sent - flight.due > LATE_S:
            report.late_posts += 1
        report.posts += 1
        report.sent += flight.post.spans
        connection.send(flight)

    def _start_opening(self, slot: int | None, flight: Flight | None) -> None:
        if slot is None:
            self._extra += 1
            self.report.connections_extra += 1
        else:
            self._opening.add(slot)
        task = asyncio.create_task(self._open_one(slot, flight))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _open_one(self, slot: int | None, flight: Flight | None) -> None:
        """Open a connection and send ``flight`` over it, which is lost if that fails."""
        try:
            async with asyncio.timeout(POST_TIMEOUT_S):
                connection = await self._connect(slot)
        except OSError as error:  # TimeoutError is one
            await self._refused(slot, flight, error)
            return
        self.report.connections_opened += 1
        if slot is not None:
            self._opening.discard(slot)
        if connection.closing:
            # Accepted and closed again; ``closed`` has heard of it, but not of this post.
            self._lose(flight)
            if slot is None:
                self._extra -= 1
        else:
            self._open.add(connection)
            if slot is not None:
                self._kept[slot] = connection
            if flight is not None:
                self._send(connection, flight)
            else:
                self._idle[connection] = None
        self._change.set()

    async def _connect(self, slot: int | None) -> AnyConnection:
        target = self._target
        if target.protocol == "otlp-grpc":
            from tracefwd.generator.grpc_connection import GrpcConnection

            over_grpc = GrpcConnection(target, self, slot)
            await over_grpc.open()
            return over_grpc
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: Connection(target, self, slot), target.host, target.port, ssl=target.tls
        )
        return connection

    async def _refused(self, slot: int | None, flight: Flight | None, error: OSError) -> None:
        reason = error.strerror or str(error) or type(error).__name__
        if flight is not None or self._options.closed:
            # A connection that was only opened ahead is asked for again, and then counted.
            self.report.connect_errors += 1
            self.report.errors[reason] = self.report.errors.get(reason, 0) + 1
        if flight is not None:
            self.report.in_flight -= 1
        elif self._options.closed:
            await asyncio.sleep(REFUSED_PAUSE_S)
        if slot is None:
            self._extra -= 1
        else:
            self._opening.discard(slot)
        self._change.set()

    async def _warm(self) -> None:
        """Open the kept connections ahead, so that the first latencies are not those of connecting."""
        slots = range(self._options.connections)
        for first in range(0, len(slots), OPENINGS_MAX):
            for slot in slots[first : first + OPENINGS_MAX]:
                self._start_opening(slot, None)
            await asyncio.gather(*self._tasks)
            if not self._open:
                return

    def _lose(self, flight: Flight | None) -> None:
        if flight is not None:
            self.report.unanswered += 1
            self.report.in_flight -= 1

    # --- what connections tell -------------------------------------------------------------------

    def answered(self, connection: AnyConnection, flight: Flight, status: int) -> None:
        now = time.perf_counter()
        report = self.report
        report.in_flight -= 1
        report.latencies.add(now - flight.due)
        report.answers.add(now - flight.sent)
        report.statuses[status] = report.statuses.get(status, 0) + 1
        if status == self._target.taken:
            report.acked += flight.post.spans
        else:
            report.non_202 += 1
        if connection.closing:
            self._forget(connection)
        else:
            self._idle[connection] = None
        self._change.set()

    def closed(self, connection: AnyConnection, flight: Flight | None) -> None:
        self._lose(flight)
        self._forget(connection)
        self._change.set()

    def _forget(self, connection: AnyConnection) -> None:
        """Once; later calls find nothing to do."""
        self._idle.pop(connection, None)
        if connection not in self._open:
            return
        self._open.remove(connection)
        if connection.slot is None:
            self._extra -= 1
        else:
            self._kept[connection.slot] = None


def _wall_us() -> int:
    return time.time_ns() // 1000
