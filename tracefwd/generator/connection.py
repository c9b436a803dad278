"""One kept connection: a post goes out as Envoy frames it, one answer comes back.

1. One post in flight at most; Envoy does not pipeline.
2. The body is one chunk, headers are lower case and in Envoy's order.
3. ``Connection: close`` in an answer ends the connection after it; nothing is ever sent again.

The connection keeps no count; its ``Listener`` hears of every answer and of every post that got none.
"""

import asyncio
import ssl
import typing
from typing import NamedTuple, cast
from urllib.parse import urlsplit

import httptools

from tracefwd.generator.encodings import USER_AGENT
from tracefwd.generator.posts import Post


class Protocol(NamedTuple):
    """A format of posts: path, what Envoy says of it in the head, and the answer that means taken (gRPC's OK is 0)."""

    path: str
    fields: str
    timeout_ms: int
    taken: int = 202


_PROTOBUF = "content-type: application/x-protobuf\r\n"
PROTOCOLS = {
    "zipkin-json": Protocol("/api/v2/spans", "content-type: application/json\r\n", 5_000),
    "zipkin-proto": Protocol("/api/v2/spans", _PROTOBUF, 5_000),
    "otlp-http": Protocol(
        "/v1/traces", f"{_PROTOBUF}user-agent: {USER_AGENT}\r\n", 10_000, taken=200
    ),
    "otlp-grpc": Protocol("", "", 10_000, taken=0),
}


class Target:
    """Where posts go: the parsed URL and the head's bytes that are the same for all posts."""

    __slots__ = ("_head", "_tail", "host", "port", "protocol", "taken", "tls")

    def __init__(
        self,
        url: str,
        protocol: str = "zipkin-json",
        *,
        token: str = "",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """``tls`` is for https, and only there.

        Raises ValueError that says what is wrong with ``url`` and what would be right.
        """
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(f"{url!r} is no URL to post to; expected http://HOST:PORT[/PATH]")
        if parts.username is not None or parts.fragment:
            raise ValueError(
                f"{url!r} holds a user or a fragment; expected http://HOST:PORT[/PATH]"
            )
        if not url.isascii() or not url.isprintable() or " " in url:
            raise ValueError(f"{url!r} holds characters that must be percent-encoded")
        try:
            port = parts.port
            parts.hostname.encode("idna")
        except ValueError as error:  # UnicodeError is one
            raise ValueError(f"{url!r}: {error}") from error
        manner = PROTOCOLS[protocol]
        path = parts.path if parts.path not in {"", "/"} else manner.path
        query = f"?{parts.query}" if parts.query else ""
        if protocol == "otlp-grpc" and (parts.path not in {"", "/"} or parts.query):
            raise ValueError(f"{url!r} holds a path; gRPC has its own, expected http://HOST:PORT")
        if protocol == "otlp-grpc" and (token or parts.scheme == "https"):
            raise ValueError("gRPC is spoken without TLS and token only; take otlp-http for them")
        self.protocol = protocol
        self.taken = manner.taken
        self.host = parts.hostname
        assert (tls is not None) == (parts.scheme == "https"), (
            "whom to trust is for who asks to say"
        )
        self.tls = tls
        self.port = port if port is not None else 80 if tls is None else 443
        # As Istio's providers do, the name stands without its port.
        name = f"[{self.host}]" if ":" in self.host else self.host
        shown = f"authorization: Bearer {token}\r\n" if token else ""
        self._head = (
            f"POST {path}{query} HTTP/1.1\r\n"
            f"host: {name}\r\n"
            f"{manner.fields}"
            f"{shown}"
            "x-envoy-internal: true\r\n"
            "x-forwarded-for: "
        ).encode()
        self._tail = (
            f"\r\nx-envoy-expected-rq-timeout-ms: {manner.timeout_ms}\r\n"
            "transfer-encoding: chunked\r\n\r\n"
        ).encode()

    def request(self, post: Post, forwarded_for: bytes) -> bytes:
        """``forwarded_for`` is the address of the Envoy whose connection it is."""
        return b"%b%b%b%x\r\n%b\r\n0\r\n\r\n" % (
            self._head,
            forwarded_for,
            self._tail,
            len(post.body),
            post.body,
        )


class Flight:
    """A post on its way.  Times are seconds of ``time.perf_counter``."""

    __slots__ = ("due", "post", "sent")

    def __init__(self, post: Post, due: float) -> None:
        self.post = post
        self.due = due
        self.sent = due


class AnyConnection(typing.Protocol):
    """Over HTTP or gRPC; ``flight`` is what is on its way, ``slot`` which of the kept connections it is."""

    slot: int | None
    flight: Flight | None
    closing: bool

    def send(self, flight: Flight) -> None: ...

    def abort(self) -> None: ...


class Listener(typing.Protocol):
    def answered(self, connection: "AnyConnection", flight: Flight, status: int) -> None:
        """``connection.closing`` tells whether it can take another post."""

    def closed(self, connection: "AnyConnection", flight: Flight | None) -> None:
        """The connection is gone; ``flight`` is the post whose answer never came."""


class Connection(asyncio.Protocol):
    """``flight`` is what is on its way, or None when idle."""

    def __init__(self, target: Target, listener: Listener, slot: int | None) -> None:
        self.slot = slot
        self._target = target
        # Of the first post's Envoy.  An Envoy's requests differ in their bodies alone, and so must ours, whosever
        # post a connection takes when the others are busy.
        self.forwarded_for = b""
        self.flight: Flight | None = None
        self.closing = False
        self._listener = listener
        self._transport: asyncio.Transport | None = None
        self._answer: _SlowAnswer | None = None

    def send(self, flight: Flight) -> None:
        assert self.flight is None
        assert self._transport is not None
        self.flight = flight
        self.forwarded_for = self.forwarded_for or flight.post.forwarded_for
        self._transport.write(self._target.request(flight.post, self.forwarded_for))

    def abort(self) -> None:
        """Ends at once; ``closed`` follows."""
        self.closing = True
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, because uvloop's transports are of no asyncio class.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._answer is None and _is_plain_202(data):
            self._finish(202, keep=True)
            return
        if self._answer is None:
            self._answer = _SlowAnswer()
        try:
            self._answer.feed(data)
        except httptools.HttpParserError:
            # Not HTTP: the post has no answer, and nothing more can be read here.
            self.abort()
            return
        if self._answer.status:
            status, keep = self._answer.status, self._answer.keep
            self._answer = None
            self._finish(status, keep=keep)

    def _finish(self, status: int, *, keep: bool) -> None:
        flight, self.flight = self.flight, None
        if not keep or flight is None:
            # An answer that nobody asked for leaves the connection in doubt as well.
            self.closing = True
            assert self._transport is not None
            self._transport.close()
        if flight is not None:
            self._listener.answered(self, flight, status)

    def eof_received(self) -> None:
        # Ends an answer without a length; whatever else was expected will not come.
        answer, self._answer = self._answer, None
        if answer is not None and (status := answer.at_eof()):
            self._finish(status, keep=False)

    def connection_lost(self, _error: Exception | None) -> None:
        self.closing = True
        flight, self.flight = self.flight, None
        self._listener.closed(self, flight)


def _is_plain_202(data: bytes) -> bool:
    """The usual answer whole: a 202 without a body that keeps the connection.  A tenth of a parser's time."""
    if not (data.startswith(b"HTTP/1.1 202 ") and data.endswith(b"\r\n\r\n")):
        return False
    head = data.lower()
    return (
        b"\r\ncontent-length: 0\r\n" in head
        and b"\r\nconnection:" not in head
        and head.find(b"\r\n\r\n") == len(head) - 4
    )


class _SlowAnswer:
    """Any other answer, through a real parser.  ``status`` is 0 until the answer is complete."""

    def __init__(self) -> None:
        self.status = 0
        self.keep = True
        self._parser = httptools.HttpResponseParser(self)
        self._until_eof = False
        self._framed = False

    def feed(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def at_eof(self) -> int:
        """The status of an answer whose end is the connection's; 0 if it broke off."""
        return self._parser.get_status_code() if self._until_eof else 0

    def on_header(self, name: bytes, _value: bytes) -> None:
        if name.lower() in {b"content-length", b"transfer-encoding"}:
            self._framed = True

    def on_headers_complete(self) -> None:
        self._until_eof = not self._framed

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            # 100 Continue and the like announce the answer; they are not it.
            self._framed = self._until_eof = False
            return
        self.status = status
        self.keep = self._parser.should_keep_alive()
