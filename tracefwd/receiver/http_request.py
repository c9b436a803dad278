"""Requests out of a connection's bytes, one after the other, on httptools' parser.

1. What could be read in two ways is not read.  llhttp is strict by default about lengths, line ends, folding and
   chunk sizes; what it lets through is refused in ``on_headers_complete``.
2. Memory: ``header_bytes_max`` and ``body_bytes_max``, plus one read (at most 256 KiB), and of all connections
   together the room that ``guard.py`` has for unfinished requests.
3. The express lane changes nothing but the cost: an Envoy repeats its request head byte for byte, so a read that is the
   last parsed head again and one whole chunk needs no parser, which saves two thirds of the work.

No clock, no transport, no answer is made here: ``feed`` hands over what it read, or raises ``Refused``.
"""

from collections.abc import Callable

import httptools

from tracefwd.doorways import Answer
from tracefwd.errors import UnsupportedEncoding
from tracefwd.receiver import http_exact
from tracefwd.receiver import http_messages as say
from tracefwd.receiver.guard import Guard
from tracefwd.receiver.handler import Form, Handler, Handlers
from tracefwd.receiver.inflate import coding_of
from tracefwd.settings import ReceiverSettings

# Envoy's heads have about 300 bytes; longer ones are not worth 20,000 copies.
_KNOWN_HEAD_BYTES_MAX = 1_024
_NOTHING_BEGUN = -9, b""
# A head of such fields alone (and others that are not read) means the same each time.
_ORDINARY_FIELDS = frozenset(
    (b"transfer-encoding", b"content-type", b"content-encoding", b"authorization")
)

# Where in a request the reader stands.
IDLE, HEADERS, BODY = range(3)


class _Enough(Exception):  # noqa: N818 - a signal through the parser
    """Makes the parser read no further."""


class RequestReader:
    """Calls ``on_request(body)`` for each request; it returns whether to read another one.

    While that call lasts, ``handler``, ``form``, ``content_type``, ``coding``, ``manner``, ``refusal``, ``close_after``
    and ``size`` are the request's.  ``on_expect`` is called for a client that waits for a 100 before it sends its body.
    ``stage`` changes whenever ``phase`` does or a new request begins.
    """

    __slots__ = (
        "_begun",
        "_begun_bytes",
        "_body",
        "_ended",
        "_exact",
        "_fields",
        "_guard",
        "_handlers",
        "_head_bytes",
        "_known_head",
        "_moved",
        "_on_expect",
        "_on_request",
        "_parser",
        "_resuming",
        "_settings",
        "_stuck_bytes",
        "_unfinished_bytes",
        "_url",
        "close_after",
        "coding",
        "content_type",
        "form",
        "handler",
        "manner",
        "phase",
        "refusal",
        "size",
        "stage",
    )

    def __init__(
        self,
        settings: ReceiverSettings,
        handlers: Handlers,
        on_request: Callable[[bytes], bool],
        on_expect: Callable[[], None],
        guard: Guard,
        *,
        exact: bool = False,
    ) -> None:
        self._settings = settings
        self._handlers = handlers
        self._on_request = on_request
        self._on_expect = on_expect
        self._guard = guard
        self._exact = exact
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self._ended = False
        # Bytes fed since the parser last got anywhere: unfinished headers, trailers or chunk extensions.
        self._stuck_bytes = 0
        # At most what the parser keeps of a head whose first bytes came last.
        self._begun_bytes = 0
        self._moved = False
        # What the guard knows of the request being read; 0 for one that comes in one read.
        self._unfinished_bytes = 0
        # The head of the request that was parsed last, if its like may take the express lane.
        self._known_head = b""
        # The stage before the request being read, and its first bytes.
        self._begun = _NOTHING_BEGUN
        self._resuming = False
        self.phase = IDLE
        self.stage = 0
        # The request being read.
        self._url = b""
        self._fields: dict[bytes, bytes] = {}
        self._head_bytes = 0
        self._body: bytes | bytearray = b""
        self.size = 0
        self.manner = 0
        self.close_after = False
        self.coding = ""
        self.content_type = ""
        # Who takes it, if it is for anybody, and how it is answered.
        self.handler: Handler | None = None
        self.form: Form = handlers.stray("")
        # Its answer if it is not for us; its body is read and thrown away.
        self.refusal: Answer | None = None

    def express(self, data: bytes) -> bytes | None:
        """The body, if ``data`` is one whole request like the last one parsed; None leaves it to ``feed``."""
        head = self._known_head
        if not head or self.phase != IDLE or not data.startswith(head):
            return None
        body = say.sole_chunk(data, len(head))
        if body is None or len(body) > self._settings.body_bytes_max:
            return None
        self.stage += 1
        self.size = len(body)
        return body

    def feed(self, data: bytes) -> None:
        """Read on.  ``Refused`` when the connection must end with the request at hand; then feed no more."""
        if self.phase == IDLE:
            # A body longer than a bite is fed in several, and its sender's heads repeat as anybody's do.
            self._begun = self.stage, data[:_KNOWN_HEAD_BYTES_MAX]
        try:
            self._parse(data)
        except httptools.HttpParserCallbackError as error:
            # What a callback raised is kept by httptools as the context.
            if isinstance(error.__context__, say.Refused):
                raise error.__context__ from None
            if not self._ended:
                raise
        except httptools.HttpParserError as error:
            # Behind a client's own "Connection: close" anything may stand.
            if not self._ended:
                raise self._refusal(say.refusal_of(error, data)) from error
        if self.phase != IDLE:
            self._watch_progress(len(data))
            self._make_room()
            return
        (begun_at, first), self._begun = self._begun, _NOTHING_BEGUN
        if self.stage == begun_at + 3:
            self._learn_head(first)

    def close(self) -> None:
        """Let go of everything; the parser and we hold each other, which only the garbage collector would end."""
        self._parser = None
        self._ended = True
        self._body = b""
        self._release_room()

    def forget_head(self) -> None:
        """The next request is looked at anew, whatever its head: what is asked of a head has changed."""
        self._known_head = b""

    def _parse(self, data: bytes) -> None:
        rest: bytes | memoryview = data
        while self._parser is not None:
            try:
                self._parser.feed_data(rest)
            except httptools.HttpParserUpgrade as offer:
                # llhttp stops behind the headers of an upgrade offer.  We decline it, so a fresh parser is
                # brought to the same point and reads the body, and what follows, as HTTP/1.1.
                rest = memoryview(rest)[offer.args[0] :]
                self._parser = httptools.HttpRequestParser(self)
                self._parser.feed_data(say.head_like(self._fields))
            else:
                return

    def _watch_progress(self, fed: int) -> None:
        """Bound what the parser gathers before it tells us: one endless header, trailer or chunk extension."""
        if self._moved:
            self._moved = False
            self._stuck_bytes = 0
            # How much of it belongs to the head that has begun is not known.
            self._begun_bytes = fed if self.phase == HEADERS else 0
            return
        self._stuck_bytes += fed
        if self._stuck_bytes > self._settings.header_bytes_max:
            raise self._refusal(say.header_too_large(self._settings.header_bytes_max))

    def _make_room(self) -> None:
        size = len(self._body) + self._stuck_bytes + self._begun_bytes
        if not self._guard.make_room(self._unfinished_bytes, size):
            raise say.Refused(say.NO_ROOM, "no_room")
        self._unfinished_bytes = size

    def _release_room(self) -> None:
        if self._unfinished_bytes:
            self._guard.release(self._unfinished_bytes)
            self._unfinished_bytes = 0

    def _refusal(self, refused: say.Refused) -> say.Refused:
        return http_exact.in_its_words(refused) if self._exact else refused

    def _learn_head(self, data: bytes) -> None:
        """Remember the head of the one request that begins with ``data``, if nothing about it is special."""
        ordinary = (
            self._fields.get(b"transfer-encoding") == b"chunked"
            and self._fields.keys() <= _ORDINARY_FIELDS
            and self.refusal is None
            and not self._ended
        )
        # Blank lines may stand before a request; they are no part of the head that the parser took.
        if ordinary and data.startswith(b"POST "):
            end = data.find(b"\r\n\r\n", 0, _KNOWN_HEAD_BYTES_MAX) + 4
            self._known_head = data[:end] if end > 4 else b""

    # The parser's callbacks, in the order of a request.

    def on_message_begin(self) -> None:
        if self._ended:
            raise _Enough
        self.phase = HEADERS
        self.stage += 1
        self._moved = True
        self._url = b""
        self._fields = {}
        self._head_bytes = 0

    def on_url(self, part: bytes) -> None:
        self._url += part

    def on_header(self, name: bytes, value: bytes) -> None:
        # Four for the colon, the blank and the line's end.
        self._head_bytes += len(name) + len(value) + 4
        name = name.lower()
        if name in say.READ_FIELDS:
            fields = self._fields
            fields[name] = b"%b, %b" % (fields[name], value) if name in fields else value

    def on_headers_complete(self) -> None:
        self.phase = BODY
        self.stage += 1
        self._moved = True
        if self._resuming:
            self._resuming = False
            return
        fields, parser, settings = self._fields, self._parser, self._settings
        assert parser is not None
        self._known_head = b""
        self.manner = 0
        self.size = 0
        if self._exact:
            http_exact.check_size(self._url, self._head_bytes)
        if self._head_bytes + len(self._url) > settings.header_bytes_max:
            raise self._refusal(say.header_too_large(settings.header_bytes_max))
        self.close_after = not parser.should_keep_alive()
        # No version but 1.1 keeps a connection open unasked.
        if self.close_after or b"connection" in fields:
            self.manner = say.manner_of(parser.get_http_version(), fields)
        say.check_framing(fields, settings.body_bytes_max)
        self.content_type = fields.get(b"content-type", b"").decode("latin-1")
        self.handler = self._handlers.find(self._url)
        form_of = self._handlers.stray if self.handler is None else self.handler.form_of
        self.form = form_of(self.content_type)
        self.refusal = self._route(parser.get_method())
        if self._guard.looks:
            self.refusal = self._guard.refusal(fields.get(b"authorization", b"")) or self.refusal
        self.coding = ""
        if b"content-encoding" in fields:
            self._read_coding(fields[b"content-encoding"])
        if b"expect" in fields and not self.manner & say.KEEP_ALIVE:
            self._meet_expectation()
        if b"upgrade" in fields:
            self._resuming = parser.should_upgrade()

    def on_body(self, piece: bytes) -> None:
        self._moved = True
        self.size += len(piece)
        if self.size > self._settings.body_bytes_max:
            raise say.body_too_large(self._settings.body_bytes_max)
        if self.refusal is not None:
            return
        if not self._body:
            self._body = piece
            return
        if isinstance(self._body, bytes):
            # Joined as they come: kept apart, a body in pieces of one byte would weigh forty times as much.
            self._body = bytearray(self._body)
        self._body += piece

    def on_message_complete(self) -> None:
        # An upgrade offer ends here for the parser, not for us.
        if self._resuming:
            return
        self.phase = IDLE
        self.stage += 1
        body, self._body = self._body, b""
        if self._unfinished_bytes:
            self._release_room()
        self._ended = not self._on_request(bytes(body))

    # What a head asks for.

    def _route(self, method: bytes) -> Answer | None:
        if method == b"HEAD":
            self.manner |= say.NO_BODY
        elif method == b"CONNECT":
            # What follows would be another protocol.
            raise self._refusal(say.Refused(say.NOT_ALLOWED, "protocol"))
        if self._exact:
            return http_exact.route(method, self._url, self._handlers)
        if self.handler is None:
            return self._handlers.not_found
        return None if method == b"POST" else say.NOT_ALLOWED

    def _read_coding(self, header: bytes) -> None:
        try:
            self.coding = coding_of(header)
        except UnsupportedEncoding as error:
            # The proxy reads such a body as it is.
            if self._exact:
                return
            self.refusal = self.refusal or Answer(415, f"{error}\n".encode())

    def _meet_expectation(self) -> None:
        if not say.awaits_continue(self._fields):
            return
        if self.refusal is not None:
            # The client may send the body or not, so that its next request could not be found.
            raise say.Refused(self.refusal, "")
        self._on_expect()
