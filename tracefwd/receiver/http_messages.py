"""The words of HTTP that intake understands and says: paths, framing, refusals, answers as bytes.

Pure; ``http_connection.py`` decides when any of it is used.  Every refusal says what is wrong and what to do.
"""

import re
from http import HTTPStatus
from urllib.parse import unquote_to_bytes

from tracefwd.doorways import Answer

# How an answer is written: bits.
KEEP_ALIVE, NO_BODY = 1, 2

# Header fields that intake reads; of all others only the size counts.
READ_FIELDS = frozenset(
    (
        b"content-type",
        b"content-length",
        b"transfer-encoding",
        b"content-encoding",
        b"connection",
        b"expect",
        b"upgrade",
        b"authorization",
    )
)

CONTINUE = Answer(100)
ACCEPTED = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"
ACCEPTED_LAST = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
NOT_FOUND = Answer(404, b"Nothing is served at this path; POST spans to /api/v2/spans.\n")
NOT_ALLOWED = Answer(405, b"Spans are taken by POST only.\n")
LATE_HEADERS = Answer(408, b"The request's headers took too long; send them at once.\n")
LATE_BODY = Answer(408, b"The request's body took too long; send it at once.\n")
OUR_FAULT = Answer(500, b"tracefwd failed on this request; its log says why.\n")
FULL = Answer(503, b"Too many connections (receiver.connections_max); add a worker or a replica.\n")
OVERLOADED = Answer(
    503, b"tracefwd is short of memory (service.memory_max) and takes no spans at the moment.\n"
)
NO_ROOM = Answer(
    503,
    b"Too many bytes of unfinished requests (receiver.unfinished_bytes_max); send smaller batches, at once.\n",
)
UNAUTHORIZED = Answer(401, b"A bearer token of receiver.token_file is asked for here.\n")
_CHUNKED_IN_1_0 = Answer(400, b"Transfer-Encoding is no part of HTTP/1.0; send Content-Length.\n")
_NOT_CHUNKED = Answer(
    501, b"Transfer-Encoding must be chunked; compress with Content-Encoding instead.\n"
)
_OTHER_VERSION = Answer(505, b"This port speaks HTTP/1.1 and HTTP/1.0.\n")
_HTTP2 = Answer(
    505,
    b"This port speaks HTTP/1.1, not HTTP/2 with prior knowledge: name the port http-* in the Kubernetes Service "
    b"(not http2-* or grpc-*), and leave h2 upgrades off for it.\n",
)

_PATHS = ("/api/v2/spans", "/api/v1/spans")
_MORE_FIELDS = {
    401: "WWW-Authenticate: Bearer\r\n",
    405: "Allow: POST\r\n",
    415: "Accept-Encoding: gzip, deflate, identity\r\n",
}
_REQUEST_LINE = re.compile(rb"[A-Za-z-]+ \S+ HTTP/1\.[01]\r\n")
_LAST_CHUNK = b"\r\n0\r\n\r\n"
# A chunk header of 32 bits: larger than any body.
_CHUNK_HEADER_BYTES_MAX = 10


class Refused(Exception):  # noqa: N818 - it is an answer
    """A request that ends its connection, because what would follow cannot be told or is not wanted.

    ``reason`` is the label of ``tracefwd_receiver_connections_closed_total``, "" to leave it uncounted.
    """

    def __init__(self, answer: Answer, reason: str) -> None:
        super().__init__(answer.status)
        self.answer = answer
        self.reason = reason


def render(answer: Answer, manner: int, *, last: bool) -> bytes:
    """An answer's bytes; ``last`` announces that the connection ends behind it."""
    status, body = answer.status, answer.body
    head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
    if status == 100:
        return f"{head}\r\n".encode()
    # A 204 has no body to give the length of (RFC 9110, 8.6).
    length = "" if status == 204 else f"Content-Length: {len(body)}\r\n"
    head += f"{length}{_MORE_FIELDS.get(status, '')}"
    if body or answer.content_type:
        head += f"Content-Type: {answer.content_type or 'text/plain; charset=utf-8'}\r\n"
    if answer.retry_after_s:
        head += f"Retry-After: {answer.retry_after_s}\r\n"
    if last:
        head += "Connection: close\r\n"
    elif manner & KEEP_ALIVE:
        head += "Connection: keep-alive\r\n"
    return f"{head}\r\n".encode() + (b"" if manner & NO_BODY else body)


def header_too_large(bytes_max: int) -> Refused:
    text = f"Request line and headers may have {bytes_max} bytes together (receiver.header_bytes_max).\n"
    return Refused(Answer(431, text.encode()), "too_large")


def body_too_large(bytes_max: int) -> Refused:
    text = f"A body may have {bytes_max} bytes, inflated (receiver.body_bytes_max); send smaller batches.\n"
    return Refused(Answer(413, text.encode()), "too_large")


def path_of(target: bytes) -> bytes:
    """The decoded path of a request target in origin or absolute form."""
    path = target.partition(b"#")[0].partition(b"?")[0]
    if not path.startswith(b"/"):
        path = b"/" + path.partition(b"://")[2].partition(b"/")[2]
    return unquote_to_bytes(path)


def served_paths(configured: list[str]) -> frozenset[bytes]:
    """Every path that takes spans, decoded, with and without a trailing slash."""
    paths = [f"/{path.lstrip('/')}".encode() for path in (*_PATHS, *configured)]
    bare = [path_of(path).rstrip(b"/") for path in paths]
    return frozenset(spelling for path in bare for spelling in (path or b"/", path + b"/"))


def manner_of(version: str, fields: dict[bytes, bytes]) -> int:
    """How a request of this HTTP version is answered; ``Refused`` if it cannot be."""
    if version == "1.1":
        return 0
    if version != "1.0":
        raise Refused(_OTHER_VERSION, "protocol")
    # RFC 9112 6.1: faulty framing, for a 1.0 hop in between will have read another length.
    if b"transfer-encoding" in fields:
        raise Refused(_CHUNKED_IN_1_0, "protocol")
    return KEEP_ALIVE


def check_framing(fields: dict[bytes, bytes], body_bytes_max: int) -> None:
    """Refuse the framings that llhttp lets through: a coding under the chunks, a declared length above the bound."""
    transfer = fields.get(b"transfer-encoding")
    if transfer is None:
        if int(fields.get(b"content-length", 0)) > body_bytes_max:
            raise body_too_large(body_bytes_max)
    elif transfer != b"chunked" and transfer.strip().lower() != b"chunked":
        raise Refused(_NOT_CHUNKED, "protocol")


def awaits_continue(fields: dict[bytes, bytes]) -> bool:
    """Whether a body comes only after our word; expectations other than 100-continue are ignored."""
    if fields[b"expect"].lower() != b"100-continue":
        return False
    return b"transfer-encoding" in fields or int(fields.get(b"content-length", 0)) > 0


def head_like(fields: dict[bytes, bytes]) -> bytes:
    """A minimal request head with the framing of ``fields``."""
    for name in (b"transfer-encoding", b"content-length"):
        if name in fields:
            return b"POST / HTTP/1.1\r\n%b: %b\r\n\r\n" % (name, fields[name])
    return b"POST / HTTP/1.1\r\n\r\n"


def refusal_of(error: Exception, data: bytes) -> Refused:
    """What to say to bytes that the parser could not read; ``data`` is what it was reading."""
    text = str(error)
    # llhttp's words for the preface of HTTP/2; PRI is a method nobody else uses.
    if "PRI" in text:
        return Refused(_HTTP2, "protocol")
    if data.startswith(b"\x16\x03"):
        text = "this port speaks plain text, not TLS"
    elif "method" in text and _REQUEST_LINE.match(data):
        return Refused(NOT_ALLOWED, "protocol")
    return Refused(Answer(400, f"Not readable as HTTP/1.1: {text}.\n".encode()), "protocol")


def sole_chunk(data: bytes, start: int) -> bytes | None:
    """The body, if all of ``data`` from ``start`` on is one chunk in its shortest spelling and the last chunk.

    It is what every Envoy sends.  None means only that somebody more patient must look.
    """
    end = data.find(b"\r\n", start, start + _CHUNK_HEADER_BYTES_MAX)
    if end < 0 or not data.endswith(_LAST_CHUNK):
        return None
    # The size is implied, so it is compared and never parsed: no leniency to go wrong.
    size = len(data) - end - 2 - len(_LAST_CHUNK)
    if size <= 0 or data[start:end] != b"%x" % size:
        return None
    return data[end + 2 : -len(_LAST_CHUNK)]
