"""What a receiver's connections share: options, the way in, who is connected, and counts."""

import asyncio
import logging
from bisect import bisect_left
from collections import Counter
from math import inf
from time import perf_counter
from typing import TYPE_CHECKING

from tracefwd.errors import Malformed, TooLarge
from tracefwd.metrics import ANSWER_BUCKETS_S
from tracefwd.model import Answer, HeldAnswer
from tracefwd.receiver import http_messages as say
from tracefwd.receiver.guard import Guard
from tracefwd.receiver.handler import Handler, Handlers
from tracefwd.receiver.inflate import inflate
from tracefwd.receiver.refusals import Refusals
from tracefwd.receiver.turns import LONG_BODY_BYTES, Turns
from tracefwd.settings import ReceiverSettings

if TYPE_CHECKING:
    from tracefwd.receiver.http_connection import Connection

_log = logging.getLogger("tracefwd.receiver")

# What one turn of the loop gathers at most: about 3 ms of work, so that no answer waits long for the others.
_GATHERED_MAX = 32
# A bug that shows in every request must not fill the disk.
_LOG_INTERVAL_S = 60.0


class Intake:
    def __init__(
        self,
        settings: ReceiverSettings,
        handlers: Handlers,
        *,
        exact: bool = False,
        guard: Guard | None = None,
    ) -> None:
        self.settings = settings
        self.connections_max = settings.connections_max
        self.guard = guard or Guard(settings)
        self.turns = Turns(self.guard)
        self.refusals = Refusals()
        # Connections by client address, where they are limited.
        self.addresses: Counter[str] = Counter()
        self.handlers = handlers
        self.exact = exact
        self.draining = False
        self.connections: set[Connection] = set()
        # Of these, the ones that only get a 503.
        self.turned_away = 0
        self.nobody = asyncio.Event()
        self.nobody.set()
        self.accepted = 0
        self.codes: Counter[int] = Counter()
        self.closed: Counter[str] = Counter()
        self.bytes_read = 0
        # Answers by duration: one more bucket than edges.
        self.buckets = [0] * (len(ANSWER_BUCKETS_S) + 1)
        self.seconds = 0.0
        self._gathered: list[tuple[Connection, bytes]] = []
        self._failures_untold = 0
        self._failure_told_at = -inf

    def admit(self, connection: "Connection") -> bool:
        """Count a new connection in; False when it is one too many."""
        self.accepted += 1
        full = len(self.connections) - self.turned_away >= self.connections_max
        full |= self.guard.overloaded
        self.connections.add(connection)
        self.nobody.clear()
        self.turned_away += full
        return not full

    def forget(self, connection: "Connection", *, turned_away: bool) -> None:
        self.connections.discard(connection)
        self.turned_away -= turned_away
        self.leave_address(connection)
        if not self.connections:
            self.nobody.set()

    def leave_address(self, connection: "Connection") -> None:
        """A connection whose address was counted is gone."""
        address, connection.address = connection.address, ""
        if address:
            self.addresses[address] -= 1
            if not self.addresses[address]:
                del self.addresses[address]

    def gather(self, connection: "Connection", body: bytes) -> None:
        """Have ``connection.serve_gathered(body)`` called when this turn of the loop has read every socket.

        Reads, work and answers in three bouts, not in turns: a fifth of a span's cost, because each call of the
        kernel takes the processor's caches and predictions away from the work between.
        """
        gathered = self._gathered
        gathered.append((connection, body))
        if len(gathered) >= _GATHERED_MAX:
            self.serve_gathered()
        elif len(gathered) == 1:
            asyncio.get_running_loop().call_soon(self.serve_gathered)

    def serve_gathered(self) -> None:
        """At once, for who cannot wait: a connection that ends, or goes on before it was answered."""
        gathered, self._gathered = self._gathered, []
        for connection, body in gathered:
            connection.serve_gathered(body)

    def take(
        self, handler: Handler, body: bytes, coding: str, content_type: str
    ) -> Answer | HeldAnswer:
        """Inflate and ingest; whatever happens becomes an answer."""
        try:
            if coding:
                body = inflate(body, coding, self.settings.body_bytes_max)
            if len(body) > LONG_BODY_BYTES and (reason := handler.too_heavy(body)):
                return Answer(413, f"{reason}\n".encode())
            return handler.ingest(body, content_type)
        except Malformed as error:
            return Answer(400, f"{error}\n".encode())
        except TooLarge:
            return say.body_too_large(self.settings.body_bytes_max).answer
        except Exception as error:  # noqa: BLE001 - counted, logged and answered; the next request may fare better
            return self.failed(error)

    def observe(self, seconds: float) -> None:
        self.buckets[bisect_left(ANSWER_BUCKETS_S, seconds)] += 1
        self.seconds += seconds

    def failed(self, error: BaseException | None) -> Answer:
        """The answer for a bug of ours, told to the log once per interval."""
        self._failures_untold += 1
        now = perf_counter()
        if now - self._failure_told_at >= _LOG_INTERVAL_S:
            count, self._failures_untold, self._failure_told_at = self._failures_untold, 0, now
            _log.error(
                "%d request(s) failed inside tracefwd and got 500; this is the last one's reason",
                count,
                exc_info=error,
            )
        return say.OUR_FAULT
