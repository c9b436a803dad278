"""Whether a long body holds more than one turn of the loop can bear.

Bytes say little about work: 16 MiB are 16,000 of Envoy's spans, or 240,000 that are all ids and take seconds, in which
nobody else is answered.  So spans and members are counted before anything is decoded, by searches that take
milliseconds; what is too heavy is 413, like what is too large.  Pure.
"""

from tracefwd.limits import MEMBERS_PER_BODY_MAX, SPANS_PER_BODY_MAX
from tracefwd.receiver.fields import BrokenError
from tracefwd.receiver.wire import Wire

_LIST_OF_SPANS = 0x0A
_SECOND = 0x12
_OTLP_DEPTH = 3
_JSON_BLANKS = b"\xef\xbb\xbf \t\r\n"


def too_heavy(body: bytes) -> str:
    """What there is too much of, in words; "" if the body may be decoded.

    Counts are upper bounds for JSON (what stands inside of texts counts, too), and exact for proto3.
    """
    if body[:1] == b"\n" and _count_proto(body) > SPANS_PER_BODY_MAX:
        return f"A body may have {SPANS_PER_BODY_MAX} spans; send smaller batches."
    # Every span has one, whatever else it has.
    if body.count(b'"traceId"') > SPANS_PER_BODY_MAX:
        return f"A body may have {SPANS_PER_BODY_MAX} spans; send smaller batches."
    if body.count(b",") > MEMBERS_PER_BODY_MAX:
        return f"A body may have {MEMBERS_PER_BODY_MAX} members and elements; send smaller batches."
    return ""


def too_heavy_otlp(body: bytes) -> str:
    """The same for OTLP in either encoding."""
    if body.lstrip(_JSON_BLANKS)[:1] == b"{":
        return too_heavy(body)
    if _count_otlp(body) > SPANS_PER_BODY_MAX:
        return f"A body may have {SPANS_PER_BODY_MAX} spans; send smaller batches."
    return ""


def _count_otlp(body: bytes) -> int:
    """Spans in resources (field 1), their scopes (2) and their spans (2), as far as frames can be followed."""
    wire = Wire(body)
    spans = 0
    # Stretches yet to be looked at: a field's tag that is wanted there, begin, end.
    stack = [(1, 0, len(body))]
    while stack and spans <= SPANS_PER_BODY_MAX:
        level, at, end = stack.pop()
        wanted = _LIST_OF_SPANS if level == 1 else _SECOND
        try:
            while at < end and spans <= SPANS_PER_BODY_MAX:
                if body[at] != wanted:
                    at = wire.skip_field(at, end)
                    continue
                begin, at = wire.frame(at + 1, end)
                if level == _OTLP_DEPTH:
                    spans += 1
                else:
                    stack.append((level + 1, begin, at))
        except BrokenError:
            # The decoder says so.
            continue
    return spans


def _count_proto(body: bytes) -> int:
    """Spans of a proto3 list, as far as it can be read and until there are too many."""
    at, spans, size = 0, 0, len(body)
    while at < size and body[at] == _LIST_OF_SPANS and spans <= SPANS_PER_BODY_MAX:
        length = shift = 0
        while True:
            at += 1
            if at >= size or shift > 63:
                return spans
            length |= (body[at] & 0x7F) << shift
            shift += 7
            if body[at] < 0x80:
                break
        at += 1 + length
        spans += 1
    return spans


__all__ = ["too_heavy", "too_heavy_otlp"]
