"""What clients that export by OTLP over HTTP are told, in the encoding of their request.

Taken is 200 with an ``ExportTraceServiceResponse``, which names what was rejected; everything else is a
``google.rpc.Status``.  By the specification a client sends again after 429, 502, 503 and 504, and after nothing else.
Pure.
"""

import json
from collections.abc import Callable, Sequence

from tracefwd.doorways import Answer, HeldAnswer, Ingest, IngestAll, Post
from tracefwd.receiver import http_messages as say
from tracefwd.receiver.handler import Form, Handler, Handlers
from tracefwd.receiver.weight import too_heavy_otlp

PATH = b"/v1/traces"
JSON, PROTOBUF = "application/json", "application/x-protobuf"
_READ = ("", PROTOBUF, JSON, "application/protobuf")
RETRY_AFTER_S = 5
"""A memory shortage is over in seconds, or by then a replica has come."""

NOT_FOUND = Answer(404, b"Nothing is served at this path; POST traces to /v1/traces.\n")
# google.rpc.Code by HTTP status.
_CODES = {401: 16, 403: 7, 404: 5, 405: 12, 408: 4, 413: 8, 429: 8, 431: 8, 500: 13, 503: 14}
_INVALID_ARGUMENT = 3
_RETRYABLE = frozenset({429, 503})
# A message that quotes a body must not be as long as one.
_MESSAGE_LENGTH_MAX = 1_024


def otlp_handlers(ingest: Ingest, ingest_all: IngestAll | None = None) -> dict[bytes, Handler]:
    """``ingest`` and ``ingest_all`` read OTLP of either encoding by content."""
    every = None if ingest_all is None else checked_all(ingest_all)
    handler = Handler(checked(ingest), form_of, too_heavy_otlp, every)
    return dict.fromkeys((PATH, PATH + b"/"), handler)


def otlp_only(ingest: Ingest, ingest_all: IngestAll | None = None) -> Handlers:
    """For a port of OTLP's own."""
    return Handlers(otlp_handlers(ingest, ingest_all), stray=form_of, not_found=NOT_FOUND)


def checked(ingest: Ingest) -> Ingest:
    """``ingest``, but for bodies that say that they are neither JSON nor protobuf."""

    def take(body: bytes, content_type: str) -> Answer | HeldAnswer:
        media = _media(content_type)
        if media not in _READ:
            text = f"Content-Type {media[:64]!r} is not read here; send {PROTOBUF} or {JSON}.\n"
            return Answer(415, text.encode("utf-8", "replace"))
        return ingest(body, content_type)

    return take


def checked_all(ingest_all: IngestAll) -> IngestAll:
    """The same for several; one that is not read leaves all to be taken one by one."""

    def take(posts: Sequence[Post]) -> list[Answer | HeldAnswer] | None:
        return ingest_all(posts) if all(_media(said) in _READ for _, said in posts) else None

    return take


def _media(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def form_of(content_type: str) -> Form:
    return _JSON_FORM if "json" in content_type.lower() else _PROTO_FORM


# --- messages ---------------------------------------------------------------------------------------


def response(rejected: int, message: str) -> bytes:
    """An ``ExportTraceServiceResponse`` in protobuf."""
    if not rejected:
        return b""
    text = message.encode("utf-8", "replace")
    partial = b"\x08" + varint(rejected) + b"\x12" + varint(len(text)) + text
    return b"\x0a" + varint(len(partial)) + partial


def status(code: int, message: str) -> bytes:
    """A ``google.rpc.Status`` in protobuf."""
    text = message.encode("utf-8", "replace")
    return b"\x08" + varint(code) + b"\x12" + varint(len(text)) + text


def status_with_retry(answer: Answer) -> bytes:
    """The ``google.rpc.Status`` of a refusal; one that will pass has a ``RetryInfo`` among its details."""
    text = status(code_of(answer), message_of(answer))
    if answer.status not in _RETRYABLE:
        return text
    delay = b"\x08" + varint(RETRY_AFTER_S)
    info = b"\x0a" + varint(len(delay)) + delay
    url = b"type.googleapis.com/google.rpc.RetryInfo"
    detail = b"\x0a" + varint(len(url)) + url + b"\x12" + varint(len(info)) + info
    return text + b"\x1a" + varint(len(detail)) + detail


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def code_of(answer: Answer) -> int:
    """The ``google.rpc.Code`` of an answer that is a refusal."""
    return _CODES.get(answer.status, _INVALID_ARGUMENT)


def message_of(answer: Answer) -> str:
    """What it says to people: of a refusal why, of an acceptance what was not accepted."""
    text = answer.detail if answer.status < 300 else answer.body.decode("utf-8", "replace")
    return text.strip()[:_MESSAGE_LENGTH_MAX]


def _proto_message(answer: Answer) -> bytes:
    if answer.status < 300:
        return response(answer.rejected, message_of(answer))
    return status(code_of(answer), message_of(answer))


def _json_message(answer: Answer) -> bytes:
    shown: dict[str, object]
    if answer.status >= 300:
        shown = {"code": code_of(answer), "message": message_of(answer)}
    elif answer.rejected:
        # 64-bit numbers are text in protobuf's JSON.
        partial = {"rejectedSpans": str(answer.rejected), "errorMessage": message_of(answer)}
        shown = {"partialSuccess": partial}
    else:
        shown = {}
    return json.dumps(shown, ensure_ascii=False).encode("utf-8", "replace")


def _shaper(content_type: str, write: Callable[[Answer], bytes]) -> Callable[[Answer], Answer]:
    def shape(answer: Answer) -> Answer:
        if answer.status < 200:
            return answer
        retry_after_s = RETRY_AFTER_S if answer.status in _RETRYABLE else 0
        code = 200 if answer.status < 300 else answer.status
        return Answer(code, write(answer), content_type, retry_after_s)

    return shape


def _form(content_type: str, write: Callable[[Answer], bytes]) -> Form:
    shape = _shaper(content_type, write)
    return Form(shape, say.render(shape(Answer(202)), 0, last=False))


_PROTO_FORM = _form(PROTOBUF, _proto_message)
_JSON_FORM = _form(JSON, _json_message)
