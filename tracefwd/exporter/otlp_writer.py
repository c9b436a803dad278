"""Spans and RED as OTLP: what ``lines.py`` is for Wavefront.

A span's identity becomes its resource: ``service.name``, ``service.namespace`` (the application), ``service.version``
(the shard), ``k8s.cluster.name``, ``service.instance.id`` (the source).  Its tags become attributes under the names of
OpenTelemetry's stable semantic conventions where these have one, else under their own.  Span logs become events.

RED goes out under the names of the collector's span metrics connector, so that its dashboards fit: delta sums
``traces.span.metrics.calls`` and exponential histograms ``traces.span.metrics.duration`` (the very buckets of the
sketch, in microseconds).  Errors are told apart by ``status.code``.  Heartbeats are Wavefront's own and stay behind.

A record is one line (``otlp_frames.py``).  Memo tables are bounded.  Pure.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from tracefwd.exporter import otlp_frames
from tracefwd.exporter.otlp_encode import (
    LENGTH,
    attribute,
    bytes_field,
    double_field,
    fixed64_field,
    framed,
    number_field,
    signed64_field,
    text_field,
    varint,
    zigzag,
)
from tracefwd.limits import MEMO_ENTRIES_MAX, TAG_KEY_LENGTH_MAX, TAG_VALUE_LENGTH_MAX
from tracefwd.model import (
    SCALE,
    ZERO_INDEX,
    Annotation,
    Centroids,
    Event,
    Heartbeat,
    Identity,
    Payload,
    RedPoint,
    Signal,
    SpanLog,
    WavefrontSpan,
)

_KINDS = {"": 0, "internal": 1, "local": 1, "server": 2, "client": 3, "producer": 4, "consumer": 5}
_KIND_NAMES = {
    2: "SERVER",
    3: "CLIENT",
    4: "PRODUCER",
    5: "CONSUMER",
    1: "INTERNAL",
    0: "UNSPECIFIED",
}
# Said by the resource or the kind.  ``error`` stays beside the status: Envoy says it in its own OTLP, too.
_SAID = frozenset({"application", "service", "cluster", "shard", "span.kind", "_spanSecondaryId"})
_MESSAGE = "error.message"
_RENAMED = {
    "http.method": "http.request.method",
    "http.url": "url.full",
    "user_agent": "user_agent.original",
    "peer.address": "network.peer.address",
    "ipv4": "network.local.address",
}
_NUMBERS = {
    "http.status_code": "http.response.status_code",
    "grpc.status_code": "rpc.grpc.status_code",
    "request_size": "http.request.body.size",
    "response_size": "http.response.body.size",
}
_PROTOCOL, _PROTOCOL_PREFIX = "http.protocol", "HTTP/"
_DIGITS_MAX = 15
_ERROR = 2
_DELTA = 1
_CALLS, _DURATION = "traces.span.metrics.calls", "traces.span.metrics.duration"
_SPAN_ATTRIBUTES, _POINT_ATTRIBUTES, _HISTOGRAM_ATTRIBUTES = (
    number << 3 | LENGTH for number in (9, 7, 1)
)
_MILLI, _MICRO, _SECOND = 1_000_000, 1_000, 1_000_000_000
# Before the first tick there is none to count from.
_FIRST_INTERVAL_S = 60


class OtlpWriter:
    """Writes for one kind of target; may be shared by all that want OTLP.

    ``instance`` is the ``service.instance.id`` of RED's resource.  OTLP wants one writer for each stream: whoever adds
    up deltas (the collector's deltatocumulative) drops points of two writers that look like one.  So it must differ
    between workers and replicas, and be the same after a restart, or each would begin new series.
    """

    def __init__(self, instance: str = "") -> None:
        self._instance = instance
        self._resources: dict[tuple[Identity, str], bytes] = {}
        # (key, value) -> key, attribute as a field of a span.
        self._attributes: dict[tuple[str, str], tuple[str, bytes]] = {}
        # A tick writes in slices, all at the same second; what it tells of began with the tick before.
        self._since_s = self._now_s = 0

    # Spans

    def write(self, spans: Sequence[WavefrontSpan]) -> list[Payload]:
        lines = [
            otlp_frames.line(self._resource(span.identity, span.source), self._span(span))
            for span in spans
        ]
        return [Payload(Signal.SPANS, b"".join(lines), len(lines))]

    def write_span_logs(self, logs: Sequence[SpanLog]) -> list[Payload]:
        """OTLP has no logs apart from their span: no target of this kind takes the signal, and blocks them."""
        return [Payload(Signal.SPAN_LOGS, b"0\n" * len(logs), len(logs))]

    def _resource(self, identity: Identity, source: str) -> bytes:
        found = self._resources.get((identity, source))
        if found is None:
            if len(self._resources) >= MEMO_ENTRIES_MAX:
                self._resources.clear()
            found = self._resources[identity, source] = _resource(identity, source)
        return found

    def _span(self, span: WavefrontSpan) -> bytes:
        kept: dict[str, bytes] = {}
        message = ""
        for key, value in (*span.head, *span.tags.items(), *span.tail):
            if key == _MESSAGE:
                message = value
            elif key not in _SAID:
                name, field = self._attributes.get((key, value)) or self._learn(key, value)
                if name in kept or (name != key and name in span.tags):
                    # The client has said so in OpenTelemetry's own words, too.
                    name, field = key, framed(_SPAN_ATTRIBUTES, attribute(key, value))
                kept[name] = field
        for key, value in (span.oversize or {}).items():
            # Whole, in the place of what was cut for Wavefront.
            name, shown = _conventional(key, value)
            if name != key and name in span.tags:
                name = key
            kept[name] = framed(_SPAN_ATTRIBUTES, attribute(name, shown))
        start_ns = span.start_us * _MICRO or span.start_ms * _MILLI
        parts = [
            bytes_field(1, _id(span.trace_id, 16)),
            bytes_field(2, _id(span.span_id, 8)),
            text_field(5, span.name),
            number_field(6, _KINDS.get(span.kind, 0)),
            fixed64_field(7, start_ns),
            fixed64_field(8, start_ns + span.duration_us * _MICRO),
            *kept.values(),
        ]
        if span.parent_id is not None:
            parts.append(bytes_field(4, _id(span.parent_id, 8)))
        parts += [bytes_field(11, _event(entry)) for entry in span.logs or ()]
        if span.error:
            parts.append(bytes_field(15, (text_field(2, message) if message else b"") + _STATUS))
        return b"".join(parts)

    def _learn(self, key: str, value: str) -> tuple[str, bytes]:
        name, shown = _conventional(key, value)
        entry = name, framed(_SPAN_ATTRIBUTES, attribute(name, shown))
        if len(key) <= TAG_KEY_LENGTH_MAX and len(value) <= TAG_VALUE_LENGTH_MAX:
            if len(self._attributes) >= MEMO_ENTRIES_MAX:
                self._attributes.clear()
            self._attributes[key, value] = entry
        return entry

    # RED

    def write_red(self, points: Iterable[RedPoint], now_s: int) -> list[Payload]:
        if now_s != self._now_s:
            self._since_s, self._now_s = self._now_s or now_s - _FIRST_INTERVAL_S, now_s
        since_s = min(self._since_s, now_s)
        calls: list[bytes] = []
        durations: list[bytes] = []
        for point in points:
            resource = self._resource(point.key.identity, self._instance)
            for is_error, number in (
                (False, point.invocations - point.errors),
                (True, point.errors),
            ):
                if number:
                    data = _calls(_attributes(point, is_error), number, since_s, now_s)
                    calls.append(otlp_frames.line(resource, data, number))
            for is_error, parts in ((False, point.good), (True, point.bad)):
                for part in parts:
                    data = _histogram(_attributes(point, is_error), part, now_s)
                    number = sum(count for count, _ in part.bins)
                    durations.append(otlp_frames.line(resource, data, number))
        return [
            Payload(signal, b"".join(lines), len(lines))
            for signal, lines in ((Signal.POINTS, calls), (Signal.DISTRIBUTIONS, durations))
            if lines
        ]

    def write_heartbeats(self, beats: Iterable[Heartbeat], now_s: int) -> list[Payload]:
        """None."""
        return []


_STATUS = number_field(3, _ERROR)


def _resource(identity: Identity, source: str) -> bytes:
    said = [
        ("service.name", identity.service),
        ("service.namespace", identity.application),
        ("service.version", identity.shard),
        ("k8s.cluster.name", identity.cluster),
        ("service.instance.id", source),
    ]
    return b"".join(
        [bytes_field(1, attribute(key, value)) for key, value in said if value not in ("", "none")]
    )


def _conventional(key: str, value: str) -> tuple[str, str | int]:
    """Name and value of a tag by the semantic conventions; as they are where these do not know it."""
    if key in _NUMBERS and value.isascii() and value.isdecimal() and len(value) <= _DIGITS_MAX:
        return _NUMBERS[key], int(value)
    if key == _PROTOCOL and value.startswith(_PROTOCOL_PREFIX):
        return "network.protocol.version", value.removeprefix(_PROTOCOL_PREFIX)
    return _RENAMED.get(key, key), value


def _id(digits: str, size: int) -> bytes:
    """The last ``size`` bytes of an id, filled up with zeros in front."""
    return bytes.fromhex(digits[-2 * size :].rjust(2 * size, "0"))


def _event(entry: Annotation) -> bytes:
    fields = entry.fields if isinstance(entry, Event) else {}
    own = [
        bytes_field(3, attribute(key, value))
        for key, value in fields.items()
        if value != entry.value
    ]
    return b"".join(
        [fixed64_field(1, max(entry.timestamp_us, 0) * _MICRO), text_field(2, entry.value), *own]
    )


def _attributes(point: RedPoint, is_error: bool) -> list[bytes]:
    _, operation, kind, http_status, more = point.key
    said: dict[str, str | int] = {
        "span.name": operation,
        "span.kind": f"SPAN_KIND_{_KIND_NAMES[_KINDS.get(kind, 0)]}",
        "status.code": "STATUS_CODE_ERROR" if is_error else "STATUS_CODE_UNSET",
    }
    if http_status:
        name, shown = _conventional("http.status_code", http_status)
        said[name] = shown
    if point.key.identity.component != "none":
        said["component"] = point.key.identity.component
    for key, value in more:
        said.setdefault(key, value)
    return [attribute(key, value) for key, value in said.items()]


def _calls(attributes: list[bytes], number: int, since_s: int, now_s: int) -> bytes:
    """A ``Metric`` with a monotonic delta sum of one data point."""
    point = [
        *[framed(_POINT_ATTRIBUTES, each) for each in attributes],
        fixed64_field(2, since_s * _SECOND),
        fixed64_field(3, now_s * _SECOND),
        signed64_field(6, number),
    ]
    total = bytes_field(1, b"".join(point)) + number_field(2, _DELTA) + number_field(3, 1)
    return text_field(1, _CALLS) + text_field(3, "{call}") + bytes_field(7, total)


def _histogram(attributes: list[bytes], part: Centroids, now_s: int) -> bytes:
    """A ``Metric`` with a delta exponential histogram of one minute."""
    buckets = part.buckets
    zero = buckets.get(ZERO_INDEX, (0, 0))
    point = [
        *[framed(_HISTOGRAM_ATTRIBUTES, each) for each in attributes],
        fixed64_field(2, part.minute_s * _SECOND),
        fixed64_field(3, max(part.minute_s, min(now_s, part.minute_s + 60)) * _SECOND),
        fixed64_field(4, sum(count for count, _ in buckets.values())),
        double_field(5, float(sum(total for _, total in buckets.values()))),
        number_field(6, zigzag(SCALE)),
        fixed64_field(7, zero[0]),
        *_positive(buckets),
    ]
    total = bytes_field(1, b"".join(point)) + number_field(2, _DELTA)
    return text_field(1, _DURATION) + text_field(3, "us") + bytes_field(10, total)


def _positive(buckets: Mapping[int, Sequence[int]]) -> Iterator[bytes]:
    """The buckets without gaps; at most 2,600, for a day and for an hour together in one minute."""
    indices = [index for index in buckets if index != ZERO_INDEX]
    if indices:
        first, last = min(indices), max(indices)
        counts = [varint(buckets.get(at, (0, 0))[0]) for at in range(first, last + 1)]
        yield bytes_field(8, number_field(1, zigzag(first)) + bytes_field(2, b"".join(counts)))
