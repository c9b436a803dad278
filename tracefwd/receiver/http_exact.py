"""Which requests the Java proxy's Zipkin port takes, and how it turns the others away (``mapping.exact``).

Pure.  Its order of looking counts: OPTIONS, then whether the target is a URI, then the path, then the method; and a
request line or header that is too long is a 400 there, too.
"""

import re
from collections.abc import Container

from tracefwd.doorways import Answer
from tracefwd.receiver import http_messages as say

OPTIONS = Answer(204)
_NO_URI = Answer(400, b"The request's target is no URI: illegal character.\n")
_WRONG_PATH = Answer(400, b"Unsupported URL path; POST spans to /api/v2/spans.\n")
_WRONG_METHOD = Answer(400, b"Unsupported Http method; spans are taken by POST only.\n")
_LONG_LINE = Answer(400, b"Unsupported URL path: a request line may have 4096 bytes.\n")
_LONG_HEADERS = Answer(400, b"The request's headers are too large: they may have 8192 bytes.\n")

# Netty's own bounds, which the proxy has no option for.
_REQUEST_LINE_BYTES_MAX = 4_096
_HEADER_BYTES_MAX = 8_192
# "POST", two blanks and "HTTP/1.1".
_LINE_FRAME_BYTES = 14

# java.net.URI: what may stand in a path; query and fragment may hold these, too.
_PCHAR = rb"[A-Za-z0-9_\-!.~'()*:@&=+$,;/\xa1-\xff]|%[0-9A-Fa-f]{2}"
_MORE = rb"(?:" + _PCHAR + rb"|[?\[\]])*+"
_URI = re.compile(
    rb"(?:[A-Za-z][A-Za-z0-9+.-]*://[^/?#\\]*)?"
    rb"(?:" + _PCHAR + rb")*+(?:\?" + _MORE + rb")?(?:#" + _MORE + rb")?"
)


def route(method: bytes, target: bytes, paths: Container[bytes]) -> Answer | None:
    """The answer to a request that is not for the proxy, None for one that is."""
    if method == b"OPTIONS":
        return OPTIONS
    if not _URI.fullmatch(target):
        return _NO_URI
    if target not in paths and say.path_of(target) not in paths:
        return _WRONG_PATH
    return None if method == b"POST" else _WRONG_METHOD


def check_size(target: bytes, header_bytes: int) -> None:
    """``Refused`` when the proxy's HTTP reader gives up on the head; it reads nothing more then."""
    if len(target) + _LINE_FRAME_BYTES > _REQUEST_LINE_BYTES_MAX:
        raise say.Refused(_LONG_LINE, "too_large")
    if header_bytes > _HEADER_BYTES_MAX:
        raise say.Refused(_LONG_HEADERS, "too_large")


def in_its_words(refused: say.Refused) -> say.Refused:
    """The refusal with the proxy's status where that differs."""
    answers = {405: _WRONG_METHOD, 431: _LONG_HEADERS}
    return say.Refused(answers.get(refused.answer.status, refused.answer), refused.reason)
