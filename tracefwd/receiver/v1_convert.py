"""Zipkin v1 spans, told by annotations, become v2 spans by the rules of Zipkin's own V1SpanConverter.

A v1 span may hold both sides of a call.  Annotations carry the endpoint of the host that recorded them; the
core ones (``cs`` client send, ``cr`` client receive, ``sr``/``ss`` server, ``ms``/``mr`` messaging, ``ws``/``wr`` wire)
say which kind of span each host had, and each host becomes a v2 span of its own, the server's marked as
shared.  Binary annotations are tags, but for ``sa``, ``ca`` and ``ma``: those are the address of the other side.
"""

from typing import Any

from msgspec import Struct

from tracefwd.model import Annotation, Endpoint, Span
from tracefwd.receiver.fields import Micros

_CORE_KINDS = {
    "cs": "CLIENT",
    "cr": "CLIENT",
    "sr": "SERVER",
    "ss": "SERVER",
    "ms": "PRODUCER",
    "mr": "CONSUMER",
}
_CORE = frozenset(_CORE_KINDS) | {"ws", "wr"}
ADDRESS_KEYS = frozenset({"sa", "ca", "ma"})


Core = dict[str, "V1Annotation"]
"""The core annotations of a span by their value; of two with one value the last."""


class V1Annotation(Struct, gc=False):
    timestamp: Micros
    value: str
    endpoint: Endpoint | None = None


class V1BinaryAnnotation(Struct, gc=False):
    """``value`` is text for a tag, and ``True`` for an address; some clients say that in text."""

    key: str
    value: str | bool
    endpoint: Endpoint | None = None


class V1Span(
    Struct,
    gc=False,
    rename={
        "trace_id": "traceId",
        "span_id": "id",
        "parent_id": "parentId",
        "binary_annotations": "binaryAnnotations",
        "local": "localEndpoint",
        "remote": "remoteEndpoint",
    },
):
    """One span as v1 tells it.  Members from ``kind`` on are v2's; see ``json_v1.is_v1``."""

    trace_id: str
    span_id: str
    parent_id: str | None = None
    name: str | None = None
    timestamp: Micros | None = None
    duration: Micros | None = None
    debug: bool | None = None
    annotations: list[V1Annotation] | None = None
    binary_annotations: list[V1BinaryAnnotation] | None = None
    kind: Any = None
    shared: Any = None
    local: Any = None
    remote: Any = None
    tags: Any = None


class _Hosts:
    """The v2 spans being made, one per host; hosts are told apart by service name alone."""

    def __init__(self, source: V1Span) -> None:
        self._source = source
        self.first = self._new(None)
        self.spans = [self.first]

    def _new(self, local: Endpoint | None) -> Span:
        source = self._source
        return Span(
            trace_id=source.trace_id,
            span_id=source.span_id,
            parent_id=source.parent_id,
            name=source.name,
            debug=source.debug,
            local=local,
        )

    def at(self, endpoint: Endpoint | None) -> Span:
        """The span of this host; what no host claims belongs to the first."""
        if endpoint is None or endpoint is self.first.local:
            return self.first
        for span in self.spans:
            if span.local is None:
                span.local = endpoint
                return span
            if _same_service(span.local, endpoint):
                return span
        return self.fork(endpoint)

    def fork(self, endpoint: Endpoint | None) -> Span:
        """A further span, even for a host that has one: it called itself."""
        self.spans.append(self._new(endpoint))
        return self.spans[-1]


def _same_service(left: Endpoint | None, right: Endpoint | None) -> bool:
    left_name = (left and left.service_name) or ""
    right_name = (right and right.service_name) or ""
    return left_name.lower() == right_name.lower()


def telling(endpoint: Endpoint | None) -> Endpoint | None:
    """The endpoint, or None for one that tells nothing, which to Zipkin is no host."""
    if endpoint is None or endpoint.service_name or endpoint.ipv4 or endpoint.ipv6 or endpoint.port:
        return endpoint
    return None


def convert(source: V1Span) -> list[Span]:
    """The v2 spans of one v1 span, at least one; times that are 0 in v1 are absent."""
    hosts = _Hosts(source)
    core = _take_annotations(source, hosts)
    # A start may be missing that the span's own times tell.
    for begin, end in (("cs", "cr"), ("sr", "ss")):
        last = core.get(end)
        if begin in core or last is None or not source.timestamp or not source.duration:
            continue
        if source.timestamp + source.duration == last.timestamp:
            core[begin] = V1Annotation(source.timestamp, begin, last.endpoint)
    _settle_rpc(source, hosts, core)
    _settle_messaging(source, hosts, core)
    addresses = _take_binary_annotations(source, hosts)
    _settle_remotes(hosts, core, addresses)
    return hosts.spans


def _annotate(span: Span, annotation: V1Annotation) -> None:
    if span.annotations is None:
        span.annotations = []
    span.annotations.append(Annotation(annotation.timestamp, annotation.value))


def _take_annotations(source: V1Span, hosts: _Hosts) -> Core:
    core: Core = {}
    # The library's order, whatever the sender's: who spoke first owns the span's times if nothing else tells whose they
    # are, and of two with one value the later one counts.
    for annotation in sorted(
        source.annotations or (), key=lambda said: (said.timestamp, said.value)
    ):
        endpoint = telling(annotation.endpoint)
        span = hosts.at(endpoint)
        # One without an endpoint is an ordinary annotation, whatever its value.
        if endpoint is None or annotation.value not in _CORE:
            _annotate(span, annotation)
            continue
        core[annotation.value] = annotation
        span.kind = _CORE_KINDS.get(annotation.value, span.kind)
    return core


def _settle_rpc(source: V1Span, hosts: _Hosts, core: Core) -> None:
    cs, cr, sr, ss = core.get("cs"), core.get("cr"), core.get("sr"), core.get("ss")
    if cs is not None and sr is not None:
        # In a shared span the client owns the times; the server's are read off its annotations.
        _set_times(source, hosts, cs, cr)
        client = hosts.at(cs.endpoint)
        if _same_service(cs.endpoint, sr.endpoint):
            client.kind = "CLIENT"
            server = hosts.fork(sr.endpoint)
            server.kind = "SERVER"
        else:
            server = hosts.at(sr.endpoint)
        server.shared = True
        server.timestamp_us = sr.timestamp
        if ss is not None:
            server.duration_us = ss.timestamp - sr.timestamp
        if cr is None and not source.duration:
            client.duration_us = None
    elif cs is not None and cr is not None:
        _set_times(source, hosts, cs, cr)
    elif sr is not None and ss is not None:
        _set_times(source, hosts, sr, ss)
    else:
        _settle_incomplete(source, hosts, core)
    # v1 has no member for it: a server that leaves the times to the client shares the client's span.
    no_times = not source.timestamp or (ss is not None and not source.duration)
    if cs is None and sr is not None and no_times:
        hosts.at(sr.endpoint).shared = True


def _settle_incomplete(source: V1Span, hosts: _Hosts, core: Core) -> None:
    for span in hosts.spans:
        begin, end = {"CLIENT": ("cs", "cr"), "SERVER": ("sr", "ss")}.get(span.kind or "", ("", ""))
        if begin in core:
            span.timestamp_us = core[begin].timestamp
        if end in core:
            _annotate(span, core[end])
    if source.timestamp:
        hosts.first.timestamp_us = source.timestamp
        hosts.first.duration_us = source.duration


def _settle_messaging(source: V1Span, hosts: _Hosts, core: Core) -> None:
    ms, mr, ws, wr = core.get("ms"), core.get("mr"), core.get("ws"), core.get("wr")
    if ms is not None and mr is not None:
        producer = hosts.at(ms.endpoint)
        if _same_service(ms.endpoint, mr.endpoint):
            producer.kind = "PRODUCER"
            consumer = hosts.fork(mr.endpoint)
            consumer.kind = "CONSUMER"
        else:
            consumer = hosts.at(mr.endpoint)
        consumer.shared = True
        consumer.timestamp_us = (wr or mr).timestamp
        if wr is not None:
            consumer.duration_us = mr.timestamp - wr.timestamp
        producer.timestamp_us = ms.timestamp
        producer.duration_us = None if ws is None else ws.timestamp - ms.timestamp
    elif ms is not None:
        _set_times(source, hosts, ms, ws)
    elif mr is not None:
        _set_times(source, hosts, wr or mr, None if wr is None else mr)
    else:
        for wire in (ws, wr):
            if wire is not None:
                _annotate(hosts.at(wire.endpoint), wire)


def _set_times(
    source: V1Span, hosts: _Hosts, begin: V1Annotation, end: V1Annotation | None
) -> None:
    span = hosts.at(begin.endpoint)
    if source.timestamp and source.duration:
        span.timestamp_us, span.duration_us = source.timestamp, source.duration
    else:
        span.timestamp_us = begin.timestamp
        if end is not None:
            span.duration_us = end.timestamp - begin.timestamp


def _take_binary_annotations(source: V1Span, hosts: _Hosts) -> dict[str, Endpoint | None]:
    """Puts the tags where they belong; returns the addresses by their key."""
    addresses: dict[str, Endpoint | None] = {}
    for item in sorted(source.binary_annotations or (), key=lambda item: item.key):
        endpoint = telling(item.endpoint)
        # Whatever the value: clients write "1" or "true", too, and as a tag's its endpoint would be a host of its own.
        if item.key in ADDRESS_KEYS:
            # Of two the last, and one that is said in text also where it names nobody.
            if endpoint is not None or item.value is not True:
                addresses[item.key] = endpoint
            continue
        span = hosts.at(endpoint)
        # "lc" (local component) without a value only marks the endpoint.
        if item.key == "lc" and not item.value:
            continue
        # The tags are this module's own until the spans are handed on.
        tags: Any = span.tags
        if tags is None:
            tags = span.tags = {}
        tags[item.key] = item.value
    return addresses


def _settle_remotes(hosts: _Hosts, core: Core, addresses: dict[str, Endpoint | None]) -> None:
    client_side = core.get("cs") or core.get("cr")
    server_side = core.get("sr") or core.get("ss")
    ca, sa, ma = addresses.get("ca"), addresses.get("sa"), addresses.get("ma")
    if client_side is None and server_side is None and (ca is not None or sa is not None):
        # Nothing says which side this is; "sa" alone is no sign of a client, "ca" alone is of a server.
        span = hosts.at(ca if sa is not None else None)
        span.remote = sa or ca
        if sa is None:
            span.kind = "SERVER"
        return
    if ca is not None and server_side is not None and ca != server_side.endpoint:
        if _same_service(ca, server_side.endpoint):
            # Finagle names the client's socket after the server; that would look like a call to itself.
            ca = Endpoint(None, ca.ipv4, ca.ipv6, ca.port)
        hosts.at(server_side.endpoint).remote = ca
    if sa is not None and client_side is not None:
        hosts.at(client_side.endpoint).remote = sa
    for message in (core.get("ms"), core.get("mr")):
        if ma is not None and message is not None:
            hosts.at(message.endpoint).remote = ma
