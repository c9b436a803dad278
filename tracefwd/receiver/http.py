"""The intake's HTTP/1.1 server: a listening socket, its connections, and the one clock that sees to them.

Envoys post five spans at a time over connections that they keep for hours, and send nothing twice: so the cost of
one small request, and the way in which a connection ends, decide everything.  ``http_connection.py`` is the hot
path, ``http_request.py`` reads requests, ``http_messages.py`` has the words, ``inflate.py`` undoes compression.
``door.py`` takes connections, ``guard.py`` and ``turns.py`` keep one sender from starving the others.

Nothing here looks into a body or knows its format.  Host is ignored: clusters named ``outbound|9411||zipkin`` are real.
"""

import asyncio
import logging
import random
import socket
from itertools import accumulate
from math import inf

from tracefwd import metrics
from tracefwd.doorways import Ingest, IngestAll
from tracefwd.receiver.credentials import Credentials
from tracefwd.receiver.door import Door, descriptors_for
from tracefwd.receiver.guard import Guard
from tracefwd.receiver.handler import Handlers, zipkin_handlers
from tracefwd.receiver.http_connection import Connection
from tracefwd.receiver.intake import Intake
from tracefwd.receiver.otlp_answers import otlp_handlers
from tracefwd.settings import ReceiverSettings

_log = logging.getLogger("tracefwd.receiver")

# A mesh that restarts connects all at once; the kernel cuts this to its own somaxconn.
_BACKLOG = 4_096
# Deadlines are looked at four times per shortest timeout, but at least each second and at most every 5 ms: looking at
# 20,000 connections takes about 4 ms.
_SWEEP_S_MIN, _SWEEP_S_MAX = 0.005, 1.0
# Connections of one age would all leave at once, and come back at once to whoever is up.
_AGE_JITTER = 0.1
# Measured: 5 KiB with its parser and a remembered head; the kernel has its own part.
_CONNECTION_BYTES = 8 * 2**10
# How often files of tokens and certificates are looked at.
_REFRESH_S = 1.0


class HttpReceiver:
    """Serves one listening socket and counts what it serves.

    ``ingest`` is called once per readable request, in the loop's thread; ``ingest_all``, if given, for those that
    came together.  ``seed`` feeds the jitter of
    connection ages, nothing else.  ``handlers``: who takes requests at which path; None has ``ingest`` take those at
    the settings' paths and Zipkin's own, and ``otlp`` (with ``otlp_all``), if that is given, those at OTLP's.
    ``exact``: requests that are not for us are answered as by the Java proxy (``http_exact.py``).  ``guard`` may be
    shared with other receivers of the process.
    """

    def __init__(
        self,
        settings: ReceiverSettings,
        ingest: Ingest,
        *,
        ingest_all: IngestAll | None = None,
        seed: int = 0,
        handlers: Handlers | None = None,
        otlp: Ingest | None = None,
        otlp_all: IngestAll | None = None,
        exact: bool = False,
        guard: Guard | None = None,
    ) -> None:
        self._settings = settings
        if handlers is None:
            by_path = {} if otlp is None else otlp_handlers(otlp, otlp_all)
            # An operator's own paths come first.
            handlers = Handlers(by_path | zipkin_handlers(settings.paths, ingest, ingest_all))
        self._intake = Intake(settings, handlers, exact=exact, guard=guard)
        self._credentials = Credentials(settings)
        self._refresh_at = 0.0
        self._random = random.Random(seed)  # noqa: S311 - spreads reconnections, guards nothing
        self._door: Door | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._drained_at = 0.0
        self._had_clients = False
        age = settings.connection_age_max
        self._age_max = age if age > 0 else inf
        shortest = min(
            settings.header_timeout, settings.body_timeout, settings.idle_timeout, self._age_max
        )
        self._sweep_s = min(max(shortest / 4, _SWEEP_S_MIN), _SWEEP_S_MAX)

    async def start(self, sock: socket.socket) -> None:
        """Serve on ``sock``, bound or listening; it is ours from now on, and ``stop`` closes it.

        ``StartError`` for a file of tokens or certificates that cannot be used.
        """
        if self._credentials.are_asked_for:
            self._credentials.load()
            self._intake.guard.ask_for(self._credentials.tokens)
        self._fit_descriptors()
        sock.listen(_BACKLOG)
        self._door = Door(sock, self._intake, self._connection, lambda: self._credentials.tls)
        self._door.open()
        self._sweep()

    def set_overloaded(self, overloaded: bool) -> None:
        """While memory is short, requests get 503 and raw connections are not read."""
        self._intake.guard.set_overloaded(overloaded)
        for connection in self._intake.connections:
            connection.balance()

    def drain(self) -> None:
        """From now on each connection's next answer is its last.  A second call does nothing.

        New ones are still taken, for one answer each: it is while we say goodbye that Envoys connect anew, and they
        learn only later that they should do so elsewhere.  They send nothing twice, so a refusal would cost a post.
        """
        if self._intake.draining:
            return
        self._intake.draining = True
        self._drained_at = asyncio.get_running_loop().time()
        self._had_clients = bool(self._intake.connections)
        for connection in self._intake.connections:
            connection.retire("drain")

    def leave_port(self) -> None:
        """Accept no more: another process does, at the same socket.

        Whoever connects from now on is served there; one that we accepted in the last moments of a drain might be
        closed just before its request arrives.
        """
        if self._door is not None:
            self._door.leave()

    async def stop(self, linger_s: float = 6.0) -> None:
        """Drain, and return when every connection is closed.

        The port and idle connections stay open until ``linger_s`` after the drain began: longer than Envoy's flush
        interval, so that no post crosses a close.  If nobody was connected then, there is nobody to wait for.
        Requests that have begun are answered; their time-outs bound that, but an answer that is held for ever holds
        this for ever.  Cancelling it resets what is left.
        """
        self.drain()
        connections = self._intake.connections
        try:
            if self._had_clients:
                lingers_until = self._drained_at + linger_s
                await asyncio.sleep(lingers_until - asyncio.get_running_loop().time())
            self.leave_port()
            if self._door is not None:
                await self._door.settled()
            for connection in list(connections):
                connection.close_if_idle("drain")
            await self._intake.nobody.wait()
            await self._intake.turns.over.wait()
        finally:
            self._intake.turns.forget()
            self._close_port()
            for connection in list(connections):
                connection.abort()
            if self._sweeper is not None:
                self._sweeper.cancel()
            self._tell_refusals(last=True)

    @property
    def memory_bytes(self) -> int:
        """About what the connections weigh, but for the requests that the guard counts."""
        return len(self._intake.connections) * _CONNECTION_BYTES

    def samples(self) -> metrics.Samples:
        """What was counted so far, in the families of ``metrics.CATALOGUE``."""
        intake = self._intake
        duration = "tracefwd_receiver_request_duration_seconds"
        edges = [f"{edge:g}" for edge in metrics.ANSWER_BUCKETS_S] + ["+Inf"]
        sums = list(accumulate(intake.buckets))
        answered: dict[tuple[str, ...], float] = {(str(c),): n for c, n in intake.codes.items()}
        closed: dict[tuple[str, ...], float] = {(why,): n for why, n in intake.closed.items()}
        return {
            "tracefwd_receiver_requests_total": answered,
            "tracefwd_receiver_request_bytes_total": {(): intake.bytes_read},
            f"{duration}_bucket": {(edge,): n for edge, n in zip(edges, sums, strict=True)},
            f"{duration}_sum": {(): intake.seconds},
            f"{duration}_count": {(): sums[-1]},
            "tracefwd_receiver_connections": {(): len(intake.connections) - intake.turned_away},
            "tracefwd_receiver_connections_total": {(): intake.accepted},
            "tracefwd_receiver_connections_closed_total": closed,
            "tracefwd_receiver_refused_requests_total": {
                (why,): n for why, n in intake.refusals.requests.items()
            },
            "tracefwd_receiver_refused_bytes_total": {
                (why,): n for why, n in intake.refusals.bytes.items()
            },
        }

    def _close_port(self) -> None:
        if self._door is not None:
            self._door.close()
            self._door = None

    def _connection(self) -> Connection:
        return Connection(self._intake, self._retire_at())

    def _retire_at(self) -> float:
        """When a connection that is made now has reached its age."""
        jitter = self._random.uniform(1 - _AGE_JITTER, 1 + _AGE_JITTER)
        return asyncio.get_running_loop().time() + self._age_max * jitter

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection in list(self._intake.connections):
            connection.look_at_clock(now)
        self._sweeper = loop.call_later(self._sweep_s, self._sweep)
        self._tell_refusals()
        if self._credentials.are_asked_for and now >= self._refresh_at:
            self._refresh_at = now + _REFRESH_S
            self._refresh_credentials()

    def _refresh_credentials(self) -> None:
        if self._credentials.refresh():
            self._intake.guard.ask_for(self._credentials.tokens)
            for connection in self._intake.connections:
                connection.forget_head()

    def _tell_refusals(self, *, last: bool = False) -> None:
        now = asyncio.get_running_loop().time()
        for is_loss, text in self._intake.refusals.tell(now, last=last):
            _log.log(logging.ERROR if is_loss else logging.WARNING, "%s", text)

    def _fit_descriptors(self) -> None:
        """No more connections than there are descriptors for, so that one too many is told so."""
        wanted = self._settings.connections_max
        self._intake.connections_max = descriptors_for(wanted)
        if self._intake.connections_max < wanted:
            _log.info(
                "the limit of open files allows %d connections, not %d (receiver.connections_max); raise ulimit -n",
                self._intake.connections_max,
                wanted,
            )
