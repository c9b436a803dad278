"""What a receiver's connections share: options, the way in, who is connected, counts, and faults of our own."""

import asyncio
import logging
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from math import inf
from time import perf_counter
from typing import TYPE_CHECKING

from tracefwd.doorways import Answer, HeldAnswer, IngestAll, Post
from tracefwd.errors import Malformed, TooLarge
from tracefwd.metrics import ANSWER_BUCKETS_S
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
_GATHERED_MAX, _GATHERED_BYTES_MAX = 32, 2**18
# A bug that shows in every request must not fill the disk.
_LOG_INTERVAL_S = 60.0


class Failures:
    """Faults of our own behind a request: every port answers them alike, and takes the others as if nothing had been.

    ``text`` is what the log is told once per interval, with a place for how many there were since.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._untold = 0
        self._told_at = -inf

    def answer(self, error: BaseException | None) -> Answer:
        """The answer for a bug of ours."""
        self._untold += 1
        now = perf_counter()
        if now - self._told_at >= _LOG_INTERVAL_S:
            number, self._untold, self._told_at = self._untold, 0, now
            _log.error(self._text, number, exc_info=error)
        return say.OUR_FAULT

    def take_all(
        self,
        posts: Sequence[Post],
        ingest_all: IngestAll | None,
        take: Callable[[bytes, str], Answer | HeldAnswer],
    ) -> Sequence[Answer | HeldAnswer]:
        """Their answers, in order: together where that can be, else by ``take``, which never raises."""
        if len(posts) > 1 and ingest_all is not None:
            try:
                answers = ingest_all(posts)
            except Exception as error:  # noqa: BLE001 - counted, logged and answered; the next bout may fare better
                return [self.answer(error)] * len(posts)
            if answers is not None:
                return answers
        return [take(body, content_type) for body, content_type in posts]


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
        self._gathered: list[Connection] = []
        self._gathered_posts: list[Post] = []
        self._gathered_bytes = 0
        self._gathered_for: Handler | None = None
        self.failures = Failures(
            "%d request(s) failed inside tracefwd and got 500; this is the last one's reason"
        )

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

    def gather(self, connection: "Connection", handler: Handler, post: Post) -> None:
        """Have ``connection.serve_gathered`` called with the answer when this turn of the loop has read every socket.

        Reads, work and answers in three bouts, and the work stage by stage: together a third of a span's cost, because
        each call of the kernel, and each stage, takes the processor's caches and predictions away from the next one.
        """
        gathered = self._gathered
        if gathered and handler is not self._gathered_for:
            self.serve_gathered()
            gathered = self._gathered
        gathered.append(connection)
        self._gathered_posts.append(post)
        self._gathered_bytes += len(post[0])
        self._gathered_for = handler
        if len(gathered) >= _GATHERED_MAX or self._gathered_bytes >= _GATHERED_BYTES_MAX:
            self.serve_gathered()
        elif len(gathered) == 1:
            asyncio.get_running_loop().call_soon(self.serve_gathered)

    def serve_gathered(self) -> None:
        """At once, for who cannot wait: a connection that ends, or goes on before it was answered."""
        gathered, self._gathered = self._gathered, []
        posts, self._gathered_posts = self._gathered_posts, []
        self._gathered_bytes = 0
        if gathered and self._gathered_for is not None:
            answers = self._take_all(self._gathered_for, posts)
            for connection, post, answer in zip(gathered, posts, answers, strict=True):
                connection.serve_gathered(len(post[0]), answer)

    def _take_all(self, handler: Handler, posts: list[Post]) -> Sequence[Answer | HeldAnswer]:
        if self.guard.overloaded:
            for body, _ in posts:
                self.refusals.request(say.OVERLOADED, len(body))
            return [say.OVERLOADED] * len(posts)
        return self.failures.take_all(
            posts,
            handler.ingest_all,
            lambda body, content_type: self.take(handler, body, "", content_type),
        )

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
            return self.failures.answer(error)

    def observe(self, seconds: float) -> None:
        self.buckets[bisect_left(ANSWER_BUCKETS_S, seconds)] += 1
        self.seconds += seconds
