"""OTLP records as lines, which is what batches, queues, journal and spool know; and lines as requests.

Line     number ESC \\x03 resource ESC \\x03 item LF        LF in the two is ESC \\x01, ESC is ESC \\x02
Request  resource_spans (or resource_metrics): one for each resource, its items in their order

``number`` says in digits how many spans' RED the line carries (0 for spans), for who has to count what may have been
sent twice (``doubled.py``).  ``resource`` is an encoded ``Resource``, ``item`` an encoded ``Span`` or ``Metric``.
Escaping and undoing it are searches in C; with protobuf's own framing every batch, split and search for a bad line
would have to read lengths.  Pure.
"""

from tracefwd import __version__
from tracefwd.exporter.otlp_encode import LENGTH, framed, text_field

_ESCAPE = b"\x1b"
_LF = _ESCAPE + b"\x01"
_ESCAPED = _ESCAPE + b"\x02"
_BORDER = _ESCAPE + b"\x03"
# In both signals: resource is field 1, the scope's items are field 2 of field 2.
_RESOURCE, _SCOPE_ITEMS, _SCOPE, _ITEM = (number << 3 | LENGTH for number in (1, 2, 1, 2))
_REQUEST_PART = 1 << 3 | LENGTH
_OUR_SCOPE = framed(_SCOPE, text_field(1, "tracefwd") + text_field(2, __version__))


def line(resource: bytes, item: bytes, red_spans: int = 0) -> bytes:
    return b"%d%b%b%b%b\n" % (red_spans, _BORDER, _hidden(resource), _BORDER, _hidden(item))


def request(lines: bytes) -> bytes:
    """An ``ExportTraceServiceRequest`` or ``ExportMetricsServiceRequest`` of whole lines."""
    items: dict[bytes, list[bytes]] = {}
    for each in lines.split(b"\n")[:-1]:
        _, resource, item = each.split(_BORDER)
        items.setdefault(resource, []).append(framed(_ITEM, _shown(item)))
    return b"".join(
        [
            framed(
                _REQUEST_PART,
                framed(_RESOURCE, _shown(resource))
                + framed(_SCOPE_ITEMS, _OUR_SCOPE + b"".join(found)),
            )
            for resource, found in items.items()
        ]
    )


def red_spans(lines: bytes) -> int:
    """How many spans' RED these lines carry."""
    return sum(int(each.partition(_ESCAPE)[0]) for each in lines.split(b"\n")[:-1])


def is_framed(lines: bytes) -> bool:
    """Whether these are lines of this module: Wavefront's begin with a quote, a brace or an exclamation mark."""
    return lines[:1].isdigit()


def _hidden(data: bytes) -> bytes:
    return data.replace(_ESCAPE, _ESCAPED).replace(b"\n", _LF)


def _shown(data: bytes) -> bytes:
    return data.replace(_LF, b"\n").replace(_ESCAPED, _ESCAPE)
