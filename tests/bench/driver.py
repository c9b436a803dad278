"""Drives a receiver as Envoys would, as cheaply as Python can: requests made ahead, plain sockets, one epoll.

It shares its core with the sink, so what it does not spend is what a fast receiver can be driven with; a span costs
it half of what ``tracefwd gen`` needs, which makes every span anew.  Each connection has an Envoy's own posts and
sends them in turn, one at a time.

* ``closed``: each connection sends its next post when the last one was answered; what a receiver can do at most.
* ``open``: posts are due at a rate, whatever the receiver does; a latency counts from the time a post was due, so
  a stall shows in every post that it held up.
"""

import select
import socket
import time
from array import array
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import httptools

# Answers still missing when the load ends are waited for so long.
ANSWER_TIMEOUT_S = 20.0
# A loop looks for answers so often, and sleeps by the clock in between; so an answer may be seen so much later.  One
# that waits for them is woken by each answer's write, and on a virtual machine waking an idle core costs the writer
# 6 us, which no network card asks.
_NAP_S = 0.0002
# Different answers that are known byte by byte; a server that dates its answers needs one per second.
_ANSWERS_KNOWN_MAX = 256
# Zipkin's and OTLP's.
_TAKEN = (202, 200)
# Connections opened at once: more would overrun a usual listen backlog (128).
_OPENINGS_MAX = 64


class Request(NamedTuple):
    """``data`` is the whole request as it goes over the wire."""

    data: bytes
    spans: int

    @property
    def body(self) -> bytes:
        """Of the one chunk that an Envoy sends."""
        chunk = self.data.partition(b"\r\n\r\n")[2].partition(b"\r\n")[2]
        return chunk.removesuffix(b"\r\n0\r\n\r\n")


@dataclass
class Answers:
    """What a load came to.  ``latencies_s[n]`` belongs to a post answered at ``times_s[n]`` (both seconds, the
    latter since the load began)."""

    sent: int = 0
    acked: int = 0
    posts: int = 0
    not_202: int = 0
    unanswered: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0
    latencies_s: "array[float]" = field(default_factory=lambda: array("d"))
    times_s: "array[float]" = field(default_factory=lambda: array("d"))

    def percentile_ms(self, share: float) -> float:
        ordered = sorted(self.latencies_s)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)] * 1e3 if ordered else 0.0

    def longest_ms(self) -> list[float]:
        """The longest latency in each second of the load."""
        longest = [0.0] * (int(max(self.times_s, default=0.0)) + 1)
        for moment, latency in zip(self.times_s, self.latencies_s, strict=True):
            second = int(moment)
            longest[second] = max(longest[second], latency * 1e3)
        return longest


class _Connection:
    __slots__ = ("due", "parser", "place", "requests", "rest", "sock")

    def __init__(self, sock: socket.socket, requests: Sequence[Request], place: int) -> None:
        self.sock = sock
        self.requests = requests
        self.place = place
        # When the post in flight was due, or 0.0 when there is none.
        self.due = 0.0
        # What the socket's buffer had no room for.
        self.rest = memoryview(b"")
        self.parser: _Parser | None = None


class _Parser:
    """An answer that is not known yet.  ``status`` is 0 until it is complete."""

    def __init__(self) -> None:
        self.data = b""
        self.status = 0
        self.keep = True
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        self.data += data
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        if (status := self._parser.get_status_code()) >= 200:
            self.status = status
            self.keep = self._parser.should_keep_alive()


class Driver:
    """Kept connections to one receiver; several loads may follow each other on them."""

    def __init__(self, port: int, envoys: Sequence[Sequence[Request]]) -> None:
        """``envoys``: for each connection its posts."""
        self._address = ("127.0.0.1", port)
        self._poll = select.epoll()
        self._connections: dict[int, _Connection] = {}
        self._idle: deque[_Connection] = deque()
        self._known: set[bytes] = set()
        self._begin = 0.0
        self._answers = Answers()
        for number, requests in enumerate(envoys):
            self._idle.append(self._connect(requests, 0))
            if number % _OPENINGS_MAX == _OPENINGS_MAX - 1:
                time.sleep(0.01)

    def close(self) -> None:
        for connection in self._connections.values():
            connection.sock.close()
        self._connections.clear()
        self._poll.close()

    def closed(self, seconds: float) -> Answers:
        end = self._start(seconds)
        idle = self._idle
        while time.perf_counter() < end:
            while idle:
                self._send(idle.popleft(), time.perf_counter())
            time.sleep(_NAP_S)
            self._receive(0.0)
        return self._finish(seconds)

    def open(self, spans_per_s: float, seconds: float) -> Answers:
        end = self._start(seconds)
        idle = self._idle
        due = self._begin
        # What is due is sent, however late: the posts that a server held up longest are the last to leave.
        while due < end and (now := time.perf_counter()) < end + ANSWER_TIMEOUT_S:
            while idle and due <= now and due < end:
                connection = idle.popleft()
                spans = connection.requests[connection.place].spans
                self._send(connection, due)
                due += spans / spans_per_s
            time.sleep(min(max(due - now, 0.0), _NAP_S) if idle else _NAP_S)
            self._receive(0.0)
        return self._finish(seconds)

    def _start(self, seconds: float) -> float:
        self._answers = Answers()
        self._answers.cpu_s = -time.process_time()
        self._begin = time.perf_counter()
        return self._begin + seconds

    def _finish(self, seconds: float) -> Answers:
        answers = self._answers
        answers.seconds = time.perf_counter() - self._begin
        deadline = time.perf_counter() + ANSWER_TIMEOUT_S
        while len(self._idle) < len(self._connections) and time.perf_counter() < deadline:
            self._receive(0.05)
        for connection in [one for one in self._connections.values() if one.due]:
            self._lost(connection)
        answers.cpu_s += time.process_time()
        return answers

    def _connect(self, requests: Sequence[Request], place: int) -> _Connection:
        sock = socket.create_connection(self._address, timeout=10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        connection = _Connection(sock, requests, place)
        self._connections[sock.fileno()] = connection
        self._poll.register(sock.fileno(), select.EPOLLIN)
        return connection

    def _send(self, connection: _Connection, due: float) -> None:
        """What is sent counts, whatever becomes of it."""
        request = connection.requests[connection.place]
        answers = self._answers
        answers.posts += 1
        answers.sent += request.spans
        connection.due = due
        try:
            sent = connection.sock.send(request.data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._lost(connection)
            return
        if sent < len(request.data):
            connection.rest = memoryview(request.data)[sent:]
            self._poll.modify(connection.sock.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def _receive(self, timeout_s: float) -> None:
        known = self._known
        for number, event in self._poll.poll(timeout_s):
            connection = self._connections[number]
            if event & select.EPOLLOUT:
                self._send_rest(connection)
            if event & ~select.EPOLLOUT:
                try:
                    data = connection.sock.recv(65_536)
                except OSError:
                    data = b""
                if data in known and connection.parser is None:
                    self._answered(connection)
                else:
                    self._unknown(connection, data)

    def _answered(self, connection: _Connection) -> None:
        """Taken, and the connection stays."""
        now = time.perf_counter()
        answers = self._answers
        answers.latencies_s.append(now - connection.due)
        answers.times_s.append(now - self._begin)
        answers.acked += connection.requests[connection.place].spans
        connection.due = 0.0
        connection.place = (connection.place + 1) % len(connection.requests)
        self._idle.append(connection)

    def _unknown(self, connection: _Connection, data: bytes) -> None:
        parser = connection.parser = connection.parser or _Parser()
        try:
            parser.feed(data)
        except httptools.HttpParserError:
            data = b""
        if not data or not connection.due:
            self._lost(connection)
        elif parser.status:
            connection.parser = None
            if parser.status in _TAKEN and parser.keep:
                if len(self._known) < _ANSWERS_KNOWN_MAX:
                    self._known.add(parser.data)
                self._answered(connection)
            else:
                self._answers.not_202 += parser.status not in _TAKEN
                self._answers.acked += connection.requests[connection.place].spans * (
                    parser.status in _TAKEN
                )
                connection.due = 0.0
                self._renew(connection)

    def _lost(self, connection: _Connection) -> None:
        self._answers.unanswered += bool(connection.due)
        self._renew(connection)

    def _renew(self, connection: _Connection) -> None:
        """A connection in doubt ends, and another goes on with the next post."""
        number = connection.sock.fileno()
        self._poll.unregister(number)
        del self._connections[number]
        connection.sock.close()
        if connection in self._idle:
            self._idle.remove(connection)
        place = (connection.place + 1) % len(connection.requests)
        self._idle.append(self._connect(connection.requests, place))

    def _send_rest(self, connection: _Connection) -> None:
        try:
            sent = connection.sock.send(connection.rest)
        except BlockingIOError:
            return
        except OSError:
            self._lost(connection)
            return
        connection.rest = connection.rest[sent:]
        if not connection.rest:
            self._poll.modify(connection.sock.fileno(), select.EPOLLIN)
