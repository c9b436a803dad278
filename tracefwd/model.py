"""Every noun that crosses a doorway between rooms; no behaviour beyond construction and counting.

``receiver`` makes ``Span`` out of bytes, ``processor`` makes ``WavefrontSpan`` out of ``Span``,
``exporter`` makes lines out of ``WavefrontSpan``.  Records are msgspec Structs without garbage
collector tracking: they hold no cycles, and building one costs a tenth of a frozen dataclass.

Whoever makes a record owns it until it is handed on; after that nobody writes to it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import ClassVar, NamedTuple, Protocol

from msgspec import Raw, Struct, field

from tracefwd.limits import REJECT_SAMPLES_MAX
from tracefwd.tag_record import TagRecord

# --- what a Zipkin client said ---------------------------------------------------------------


class Endpoint(Struct, gc=False, rename={"service_name": "serviceName"}):
    """One side of a call; ``None`` is absent."""

    service_name: str | None = None
    ipv4: str | None = None
    ipv6: str | None = None
    port: int | None = None


class Annotation(Struct, gc=False, rename={"timestamp_us": "timestamp"}):
    """Something that happened at a moment (epoch microseconds) inside a span."""

    timestamp_us: int
    value: str


class Event(Annotation, gc=False):
    """An annotation with members of its own: an OTLP event, whose name is the ``value``.

    ``fields`` are what its span log shall hold, the name among them.
    """

    fields: dict[str, str]


class Span(
    Struct,
    gc=False,
    rename={
        "trace_id": "traceId",
        "span_id": "id",
        "parent_id": "parentId",
        "timestamp_us": "timestamp",
        "duration_us": "duration",
        "local": "localEndpoint",
        "remote": "remoteEndpoint",
    },
):
    """One host's view of one call, as every decoder delivers it.

    Decoders guarantee: ids are lower-case hex, ``trace_id`` of 16 or 32 digits, ``span_id`` and
    ``parent_id`` of 16 (32 when the client sent more than 16); ``parent_id`` is neither zeros nor the
    span's own id; ``kind`` is CLIENT, SERVER, PRODUCER, CONSUMER or None.  Times are epoch
    microseconds and microseconds as sent, with any sign; ``None`` is absent.
    Nothing else is normalised: names keep their case, tags their order and their blanks.
    """

    trace_id: str
    span_id: str
    parent_id: str | None = None
    kind: str | None = None
    name: str | None = None
    timestamp_us: int | None = None
    duration_us: int | None = None
    local: Endpoint | None = None
    remote: Endpoint | None = None
    annotations: list[Annotation] | None = None
    tags: Mapping[str, str] | None = None
    debug: bool | None = None
    shared: bool | None = None
    # Asking ``isinstance`` of a msgspec class takes a hundred nanoseconds, a tenth of mapping a span.
    is_plain: ClassVar[bool] = False


class PlainSpan(Span, gc=False, kw_only=True):
    """A span that its decoder knows to be ordinary, so that nobody need look again.

    ``name``, service name, annotations and the tags' values are 1 to 128 ASCII characters without escapes and
    without a blank at either edge (of the tags' *keys* no more is known than that they are ASCII without escapes).
    ``timestamp_us`` and ``duration_us`` are there and each on its side of ``START_MS_MIN``; ``local`` is there and has
    no IPv6 address; ``tags`` is there; ``remote``, ``debug`` and ``shared`` are not.
    """

    name: str
    timestamp_us: int
    duration_us: int
    local: Endpoint
    tags: TagRecord
    is_plain: ClassVar[bool] = True


class Encoding(StrEnum):
    """The formats of spans: those that the intake tells apart by content, and span lines, which have a port.

    Zipkin's and OTLP's have paths of their own on a port.
    """

    JSON_V2 = "json_v2"
    JSON_V1 = "json_v1"
    PROTO3 = "proto3"
    OTLP_PROTO = "otlp_proto"
    OTLP_JSON = "otlp_json"
    WAVEFRONT = "wavefront"

    # An enumeration's own is a call in Python, several per request.
    __hash__ = str.__hash__


class Reject(Struct, gc=False):
    """One span (or the unreadable rest of a body) that can never be delivered.

    ``reason`` is one of ``limits.REJECT_REASONS``; ``where`` says what in the span was wrong
    (``id``, ``traceId``, ``byte 812``); ``detail`` says why, for a person; ``sample`` is its raw text,
    cut to ``limits.REJECT_SAMPLE_BYTES_MAX`` and not yet masked.
    """

    reason: str
    where: str
    detail: str
    sample: bytes = b""


class Decoded(Struct, gc=False):
    """What one body held.

    ``repairs`` counts what the decoder mended, by the kinds in ``limits.REPAIR_KINDS``.  ``body`` is what it was, where
    somebody may want to see it.
    """

    encoding: Encoding
    spans: list[Span]
    rejects: Sequence[Reject] = ()
    repairs: dict[str, int] | None = None
    body: bytes = b""


# --- what Wavefront will be told -------------------------------------------------------------


class Identity(NamedTuple):
    """Whose span it is: the point tags that RED and heartbeats share.

    ``source`` is RED's source (``red.source``), which need not be the span's own.
    """

    application: str
    service: str
    cluster: str
    shard: str
    component: str
    source: str


class LineShape(Struct, gc=False, eq=False):
    """What the lines of one workload's spans of one kind share when they have tags under the same keys.

    One object for all of them, so that a writer renders it once: the tags whose values are ``fixed``, and the ``keys``
    of those whose values differ from span to span.  A key "" is the place of a value that is always empty: no tag.
    """

    fixed: tuple[tuple[str, str], ...]
    keys: tuple[str, ...]


class WavefrontSpan(Struct, gc=False):
    """A span after mapping: names settled, limits kept, times in Wavefront's milliseconds.

    The tags of the line are ``head``, ``parent`` (if any), ``tags``, ``tail``, in this order; a key may
    repeat only where a profile wants it so.  ``head`` is one shared object for all spans of a workload, which
    lets a writer render it once.  Keys are not yet cleaned for Wavefront's alphabet (the writer does
    that), but no two keys of a span become the same by the cleaning unless a profile wants it so.

    ``plain``: every value in ``tags`` can be written between quotes as it stands.
    ``keys_kept``: the keys are within Wavefront's alphabet already, which has a ``/`` that cleaning would replace.
    ``trace_id`` and ``span_id`` are hex as in ``Span``; of a span line, 32 digits whose letters keep their case.
    ``http_status`` is "" when absent, ``kind`` is "" or lower case, ``red_tags`` are the operator's RED dimensions.
    ``red``: whether RED counts this span (``red.spans: entry`` leaves some out).
    ``debug``: somebody asked for this span by name; samplers keep it.
    ``logs`` become span logs; the writer adds the tag ``_spanLogs`` where the target takes them.
    ``oversize`` are full values that were cut in the line and go into a span log of their own.
    ``shape`` and ``values`` say once more what ``tags`` says, for writers in a hurry: the values by place in
    ``shape.keys``.  Such a span is plain and has neither tail, logs nor secondary id.
    ``start_us`` is the start with its microseconds, for those that can say them; 0 where only ``start_ms`` is known.
    """

    identity: Identity
    name: str
    source: str
    trace_id: str
    span_id: str
    parent_id: str | None
    kind: str
    http_status: str
    error: bool
    start_ms: int
    duration_ms: int
    duration_us: int
    head: tuple[tuple[str, str], ...]
    tags: Mapping[str, str]
    plain: bool = False
    shape: LineShape | None = None
    values: tuple[str, ...] = ()
    start_us: int = 0
    # The rest is the same in every span of the plain path: left to the defaults, a record costs a third.
    tail: tuple[tuple[str, str], ...] = ()
    red: bool = True
    debug: bool = False
    red_tags: tuple[tuple[str, str], ...] = ()
    logs: list[Annotation] | None = None
    secondary_id: str | None = None
    oversize: dict[str, str] | None = None
    keys_kept: bool = False


class SpanLog(Struct, gc=False):
    """A span log on its own: one that a client sent as such, or the annotations of a span whose line is not sent.

    ``members`` is the JSON object but for its member ``span``, values as they were written.  ``span`` is the span that
    this member described, whose fate the log shares; None keeps it.
    """

    members: dict[str, Raw]
    span: WavefrontSpan | None = None


class Refused(Struct, gc=False):
    """What a body held and nobody can take: how many for each reason, and the first of them to show."""

    counts: dict[str, int] = field(default_factory=dict)
    shown: list[Reject] = field(default_factory=list)

    @property
    def number(self) -> int:
        return sum(self.counts.values())

    def add(self, reject: Reject) -> None:
        self.counts[reject.reason] = self.counts.get(reject.reason, 0) + 1
        if len(self.shown) < REJECT_SAMPLES_MAX:
            self.shown.append(reject)


class Lines(Struct, gc=False):
    """What a body of span lines and span logs held, in order.

    ``is_text``: whether at least one line is readable as text at all.  ``blocked``, ``logs_blocked``: kept out by rules
    before they were read.
    """

    spans: list[WavefrontSpan]
    refused: Refused = field(default_factory=Refused)
    logs: list[SpanLog] = field(default_factory=list)
    logs_refused: Refused = field(default_factory=Refused)
    repairs: dict[str, int] = field(default_factory=dict)
    is_text: bool = True
    encoding: Encoding = Encoding.WAVEFRONT
    blocked: int = 0
    logs_blocked: int = 0


class LineRules(Protocol):
    """Rules for a line before it is read: the changed line, or None where one of them keeps it out.

    ``judged`` is what they look at for that, if not the changed line.
    """

    def __call__(self, line: str, judged: str | None = None) -> str | None: ...


LineCheck = Callable[[Sequence[WavefrontSpan], int], "Mapped"]
"""``(spans, now_us) -> Mapped``: what of them Wavefront would take, long values cut in place; pure."""


class Mapped(Struct, gc=False):
    """What a mapper made of one body: spans for RED and sampling, and what it had to say about the rest.

    ``red_only`` are spans that are among the ``rejects``, too: RED counts them and their annotations go out as a
    span log, as the Java proxy has it, but no line.  ``broken`` is the reject on which the rest of the batch was
    lost: its client hears of it although spans before it were taken.
    """

    spans: list[WavefrontSpan]
    rejects: Sequence[Reject] = ()
    blocked: int = 0
    repairs: dict[str, int] | None = None
    red_only: Sequence[WavefrontSpan] = ()
    broken: Reject | None = None


Mapper = Callable[[Decoded, int], Mapped]
"""``(decoded, now_us) -> Mapped``; pure but for bounded memo tables."""


class RedKey(NamedTuple):
    """One RED series of spans: what the point tags are made of."""

    identity: Identity
    operation: str
    kind: str
    http_status: str
    tags: tuple[tuple[str, str], ...]


SCALE = 6
"""Of the duration sketch's buckets, as OTLP's exponential histograms count it."""
ZERO_INDEX = -2
"""Their index for durations of 0: below every index of 1 us or more (that of 1 us is -1, at every scale)."""


class Centroids(NamedTuple):
    """A distribution of one minute: ``bins`` are (count, sum in microseconds), ascending, count > 0.

    ``buckets`` are the sketch's own, which may be more than a line has room for: index -> (count, sum).
    """

    minute_s: int
    bins: list[tuple[int, int]]
    buckets: Mapping[int, Sequence[int]] = {}


class RedPoint(NamedTuple):
    """What one series gathered since it was last drained.

    ``millis`` is the sum of durations, each cut to whole milliseconds, as the Java proxy counts it.
    """

    key: RedKey
    invocations: int
    errors: int
    millis: int
    good: list[Centroids]
    bad: list[Centroids]
    number: int = 0
    """The series', as in its facts."""


class Heartbeat(NamedTuple):
    """A component that was alive since the last drain."""

    identity: Identity
    kind: str
    http_status: str
    tags: tuple[tuple[str, str], ...]


# --- delivery -------------------------------------------------------------------------------


class Signal(StrEnum):
    """The four line formats; the value is also the ledger's section name."""

    SPANS = "spans"
    SPAN_LOGS = "span_logs"
    POINTS = "points"
    DISTRIBUTIONS = "distributions"

    __hash__ = str.__hash__


class Payload(Struct, gc=False):
    """Lines of one signal, each ended by LF.  ``items`` is their number; ``unsendable`` how many more
    there would be if the target's version could take them (counted as rejected ``too_long_for_target``)."""

    signal: Signal
    data: bytes
    items: int
    unsendable: int = 0


class SpanWriter(Protocol):
    """Renders for one way of delivery; chosen at construction, shared by targets that want the same bytes."""

    def write(self, spans: Sequence[WavefrontSpan]) -> list[Payload]: ...

    def write_span_logs(self, logs: Sequence[SpanLog]) -> list[Payload]: ...


class RedWriter(Protocol):
    """Renders what a tick drains.  ``now_s`` stamps counters and heartbeats."""

    def write_red(self, points: Iterable[RedPoint], now_s: int) -> list[Payload]: ...

    def write_heartbeats(self, beats: Iterable[Heartbeat], now_s: int) -> list[Payload]: ...


class Outcome(Struct, gc=False, frozen=True):
    """What one attempt to send came to.

    ``verdict``: ``delivered`` (a 2xx), ``unacknowledged`` (written to a TCP target), ``retry`` (may succeed
    later), ``split`` (too large, halves may pass), ``bisect`` (some line is bad, halves tell which),
    ``rejected`` (can never succeed).
    ``reason`` is short and bounded (``http_503``, ``timeout``, ``connect``); ``detail`` is for a
    person, without secrets.
    ``ambiguous``: no answer came, but the target may have taken the lines: sending them again may double them.
    ``refused_items``: of a delivered batch, those that the target did not take and never will; ``detail`` says why.
    """

    verdict: str
    reason: str = ""
    detail: str = ""
    retry_after_ms: int | None = None
    ambiguous: bool = False
    refused_items: int = 0


class Stored(Struct, eq=False, gc=False):
    """A batch in the spool, without its lines.

    ``number`` orders the batches of a slot by age of storing, ``born_ms`` is the wall clock's.  ``seqs`` are the
    ranges of journal entries whose lines for this lane are wholly in here.  ``attempts`` counts those that failed
    since the process began; ``maybe_sent``: an attempt before may have arrived.  ``marked``: its file says so, or soon
    will; ``file`` is that file's name, which is the spool's thread's business.  ``writer``: whose entries ``seqs`` are.
    """

    number: int
    lane: str
    items: int
    born_ms: int
    encoding: str
    seqs: list[tuple[int, int]]
    maybe_sent: bool
    size_bytes: int
    attempts: int = 0
    marked: bool = False
    file: str = ""
    writer: str = ""
