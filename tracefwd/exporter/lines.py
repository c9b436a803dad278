"""Wavefront's text formats: the only place that quotes, escapes and orders.

Span line        "name" source="s" spanId="uuid" traceId="uuid" "key"="value" ... startMillis durationMillis
Span log line    one JSON object
Delta counter    "∆name" value seconds source="s" "key"="value" ...
Distribution     !M minuteSeconds #count mean ... "name" source="s" "key"="value" ...

Only ``"`` is escaped, and a line feed becomes the two characters ``\\n``: Wavefront's parsers know nothing else.  A
value that ends in a backslash would swallow its quote; mappers see to it that none does.  Text that UTF-8 cannot
hold (lone surrogates) becomes ``?``.

A writer is made for one way of delivery and may be shared by all targets that want the same bytes.  Its memo
tables are bounded.  Pure.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from tracefwd import naming, span_log
from tracefwd.limits import (
    MEMO_ENTRIES_MAX,
    POINT_NAME_LENGTH_MAX,
    POINT_SOURCE_LENGTH_MAX,
    POINT_TAG_PAIR_LENGTH_MAX,
    POINT_TAGS_MAX,
)
from tracefwd.model import (
    Centroids,
    Heartbeat,
    Identity,
    LineShape,
    Payload,
    RedPoint,
    Signal,
    SpanLog,
    WavefrontSpan,
)
from tracefwd.naming import quoted

_encode_json = msgspec.json.encode
# The Java reporter sends each heartbeat a second time under the name of the protocol.
SECONDARY_COMPONENT = "zipkin"
HEARTBEAT = "~component.heartbeat"
# The front of a span id's UUID.
_PAD = "00000000-0000-0000-"
_PARENT = f'" "parent"="{_PAD}'
# Of a span id's digits, what stands before and behind the dash.  Made once: a slice costs as much as what it cuts.
_FRONT, _BACK = slice(4), slice(4, None)
_POLICY_KEY = "_sampledByPolicy"
_SAMPLED = f"{_POLICY_KEY}=NONE"
_STEM_LENGTH_MAX = POINT_NAME_LENGTH_MAX - len("∆tracing.derived..total_time.millis.count")
# What the Java reporter writes for a blank.
_UNKNOWN = {
    "application": "unknown_application",
    "service": "unknown_service",
    "operationName": "unknown_operation",
    "source": "unknown_source",
}


def tag(key: str, value: str) -> str:
    return f' "{naming.clean_key(key)}"="{quoted(value)}"'


class _Head(Struct, gc=False):
    """``head`` as text, and the ``start`` of the lines of its workload, whose source is mostly the same."""

    head: tuple[tuple[str, str], ...]
    text: str
    source: str
    start: str


class _Form(Struct, gc=False):
    """Everything of a line but its name, ids, values and times.

    Of ``pieces`` the first place is for what stands before the first value, which is ended by ``fixed``, the last for
    the times, and every second one in between for a value.  All forms with the same keys have the same list: what a
    line leaves there is overwritten by the next one, and thousands of workloads have one list's lines in the caches.
    """

    start: str
    head: str
    fixed: str
    pieces: list[str]


def _start(source: str) -> str:
    """What stands between a span's name and its id."""
    return f' source="{quoted(source)}" spanId="'


class LineWriter:
    """Writes all four formats.

    ``span_logs``: whether the target takes them; without, neither the lines nor the tag ``_spanLogs``.
    ``sampled_mark``: the member ``span`` of a span log says that its span passed sampling.  Direct ingestion wants it;
    a proxy's trace port refuses such a log, behind a 2xx.
    ``line_bytes_max``, ``point_line_bytes_max``: longer lines (of spans and span logs; of points and distributions) are
    not written but counted (0: no limit).
    ``as_the_proxy``: RED goes out as the Java proxy reports it, also where the back end does not take it: a name that
    is too long, more point tags than it allows.
    ``reporter``: source of RED points; "" is the series' own.  The Java proxy reports as ``zipkin`` and sends the
    series' source as a point tag.
    """

    def __init__(
        self,
        *,
        span_logs: bool = True,
        sampled_mark: bool = False,
        line_bytes_max: int = 0,
        point_line_bytes_max: int = 0,
        reporter: str = "",
        as_the_proxy: bool = False,
    ) -> None:
        self._span_logs = span_logs
        self._sampled_mark = sampled_mark
        self._line_bytes_max = {
            Signal.SPANS: line_bytes_max,
            Signal.SPAN_LOGS: line_bytes_max,
            Signal.POINTS: point_line_bytes_max,
            Signal.DISTRIBUTIONS: point_line_bytes_max,
        }
        self._reporter = reporter
        self._as_the_proxy = as_the_proxy
        # Span name -> quoted, with its quotes.
        self._names: dict[str, str] = {}
        # Tag key -> what stands between the value before it and its own value.
        self._keys: dict[str, str] = {}
        # By identity of the head, which the entry keeps alive: hashing a tuple of pairs costs more.
        self._heads: dict[int, _Head] = {}
        self._shapes: dict[LineShape, _Form] = {}
        # By keys.
        self._pieces: dict[tuple[str, ...], list[str]] = {}

    # Spans

    def write(self, spans: Sequence[WavefrontSpan]) -> list[Payload]:
        """Span lines and, where there are any and the target takes them, span logs."""
        # Lines of text, and before them lines that are bytes already.
        out: list[str] = []
        done: list[bytes] = []
        logged: list[WavefrontSpan] = []
        names, shapes = self._names, self._shapes
        trace_id = trace = ""
        for span in spans:
            # A post's spans are often of one trace.
            if span.trace_id != trace_id:
                trace_id = span.trace_id
                trace = _uuid(trace_id)
            # Every piece leaves its last quote to the next one: the keys' texts begin with it.
            shape = span.shape
            if shape is not None:
                name, span_id, parent_id = span.name, span.span_id, span.parent_id
                form = shapes.get(shape) or self._learn_shape(span, shape)
                name = names.get(name) or self._learn_name(name)
                # One list for all spans with the same keys: filling its gaps costs two fifths of a template.
                pieces = form.pieces
                if parent_id is None:
                    pieces[0] = (
                        f'{name}{form.start}{span_id[_FRONT]}-{span_id[_BACK]}" traceId="{trace}'
                        f"{form.head}{form.fixed}"
                    )
                else:
                    pieces[0] = (
                        f'{name}{form.start}{span_id[_FRONT]}-{span_id[_BACK]}" traceId="{trace}'
                        f"{form.head}{_PARENT}{parent_id[_FRONT]}-{parent_id[_BACK]}{form.fixed}"
                    )
                pieces[1:-1:2] = span.values
                pieces[-1] = f'" {span.start_ms} {span.duration_ms}\n'
                # All lines are joined once: each join copies the whole line.
                out += pieces
                continue
            begin = len(out)
            self._push_with_care(span, trace, out, logged)
            if not span.plain:
                line = "".join(out[begin:])
                del out[begin:]
                if line.isascii():
                    out.append(line)
                else:
                    # One letter beyond ASCII makes all text that is joined with it two or four times as wide.
                    done += (_encoded(out), _encoded([line]))
                    out.clear()
        payloads = [self._payload(Signal.SPANS, b"".join([*done, _encoded(out)]), len(spans))]
        if logged:
            logs = list(self._render_logs(logged))
            payloads.append(self._payload(Signal.SPAN_LOGS, _encoded(logs), len(logs)))
        return payloads

    def _push_with_care(
        self, span: WavefrontSpan, trace: str, out: list[str], logged: list[WavefrontSpan]
    ) -> None:
        """The line of a span without a shape; ``trace`` is its trace id as written; ``logged``: those with logs."""
        push, names = out.append, self._names
        name, span_id, parent_id = span.name, span.span_id, span.parent_id
        entry = self._heads.get(id(span.head)) or self._learn_head(span)
        if (
            parent_id is not None
            and entry.source is span.source
            and len(span_id) == 16
            and len(parent_id) == 16
            and name in names
        ):
            # Written out, because its three calls would double what the front of a line costs.
            push(
                f"{names[name]}{entry.start}{_PAD}{span_id[_FRONT]}-{span_id[_BACK]}"
                f'" traceId="{trace}{entry.text}{_PARENT}{parent_id[_FRONT]}-{parent_id[_BACK]}'
            )
        else:
            push(self._front(span, f"{trace}{entry.text}"))
        if span.keys_kept:
            push(_as_they_are(span.tags.items()))
            push(_as_they_are(span.tail))
        else:
            self._push_tags(span, out)
        if self._span_logs and (span.logs is not None or span.oversize is not None):
            logged.append(span)
            push('" "_spanLogs"="true')
        push(f'" {span.start_ms} {span.duration_ms}\n')

    def _push_tags(self, span: WavefrontSpan, out: list[str]) -> None:
        """Tags and tail, their keys cleaned.

        Pieces are pushed, not joined per tag: that copies each value once (a third of what this costs).
        """
        keys, push, begin = self._keys, out.append, len(out)
        try:
            if span.plain:
                for key, value in span.tags.items():
                    push(keys[key])
                    push(value)
            else:
                for key, value in span.tags.items():
                    push(keys[key])
                    push(quoted(value))
        except KeyError:
            # Asking first whether all keys are known would cost a third of the loop.
            del out[begin:]
            push(self._learn_keys(span.tags))
        if span.tail:
            push(self._render_pairs(span.tail))

    def write_span_logs(self, logs: Sequence[SpanLog]) -> list[Payload]:
        """Clients' own span logs as they came; ``sampled_mark`` where the client had left the sampling to us."""
        if not self._span_logs:
            return [Payload(Signal.SPAN_LOGS, b"", 0, len(logs))]
        mark = {"span": _SAMPLED} if self._sampled_mark else {}
        members = [log.members if log.span is None else {**log.members, **mark} for log in logs]
        return [self._payload(Signal.SPAN_LOGS, _encoded(map(_json, members)), len(logs))]

    def _front(self, span: WavefrontSpan, trace: str) -> str:
        """Everything before the tags."""
        name = self._names.get(span.name) or self._learn_name(span.name)
        text = f'{name}{_start(span.source)}{_uuid(span.span_id)}" traceId="{trace}'
        return text if span.parent_id is None else f'{text}" "parent"="{_uuid(span.parent_id)}'

    def _learn_name(self, name: str) -> str:
        if len(self._names) >= MEMO_ENTRIES_MAX:
            self._names.clear()
        text = self._names[name] = f'"{quoted(name)}"'
        return text

    def _learn_head(self, span: WavefrontSpan) -> _Head:
        if len(self._heads) >= MEMO_ENTRIES_MAX:
            self._heads.clear()
        text = self._render_pairs(span.head)
        entry = self._heads[id(span.head)] = _Head(
            span.head, text, span.source, _start(span.source)
        )
        return entry

    def _learn_shape(self, span: WavefrontSpan, shape: LineShape) -> _Form:
        if len(self._shapes) >= MEMO_ENTRIES_MAX:
            self._shapes.clear()
        pieces = self._pieces.get(shape.keys) or self._learn_pieces(shape.keys)
        head, fixed = self._render_pairs(span.head), self._render_pairs(shape.fixed)
        if shape.keys and shape.keys[0]:
            fixed += self._learn_key(shape.keys[0])
        form = self._shapes[shape] = _Form(f"{_start(span.source)}{_PAD}", head, fixed, pieces)
        return form

    def _learn_pieces(self, keys: tuple[str, ...]) -> list[str]:
        """The first key's text stands at the end of what is fixed."""
        if len(self._pieces) >= MEMO_ENTRIES_MAX:
            self._pieces.clear()
        pieces = [""] * (max(2 * len(keys), 1) + 1)
        # Where no tag is, nothing stands before its empty value.
        pieces[2:-1:2] = [self._learn_key(key) if key else "" for key in keys[1:]]
        self._pieces[keys] = pieces
        return pieces

    def _render_pairs(self, pairs: Iterable[tuple[str, str]]) -> str:
        return "".join([f'" "{naming.clean_key(key)}"="{quoted(value)}' for key, value in pairs])

    def _learn_keys(self, tags: Mapping[str, str]) -> str:
        """The tags as text, and their keys into the memo."""
        for key in tags:
            self._learn_key(key)
        return self._render_pairs(tags.items())

    def _learn_key(self, key: str) -> str:
        """What stands before its value."""
        text = self._keys.get(key)
        if text is None:
            if len(self._keys) >= MEMO_ENTRIES_MAX:
                self._keys.clear()
            text = self._keys[key] = f'" "{naming.clean_key(key)}"="'
        return text

    def _render_logs(self, spans: list[WavefrontSpan]) -> Iterable[str]:
        for span in spans:
            if span.logs is not None:
                mark: dict[str, Any] = {"span": self._policy_of(span)} if self._sampled_mark else {}
                yield _json({**span_log.of_annotations(span, span.logs), **mark})
            if span.oversize is not None:
                # Timestamp -1 is how the Java proxy sends values that were too long for a tag.
                mark = {"span": None} if self._sampled_mark else {}
                logs = [{"timestamp": -1, "fields": span.oversize}]
                yield _json({**span_log.members(span, "dummy", logs), **mark})

    def _policy_of(self, span: WavefrontSpan) -> str:
        """The Java proxy takes a client's tag of this name for its own word."""
        said = span.tags.get(_POLICY_KEY) if self._as_the_proxy else None
        return _SAMPLED if said is None else f"{_POLICY_KEY}={said}"

    def _payload(self, signal: Signal, data: bytes, items: int, unsendable: int = 0) -> Payload:
        line_bytes_max = self._line_bytes_max[signal]
        if not line_bytes_max:
            return Payload(signal, data, items, unsendable)
        lines = [line + b"\n" for line in data.split(b"\n")[:-1]]
        fitting = [line for line in lines if len(line) <= line_bytes_max]
        return Payload(signal, b"".join(fitting), len(fitting), unsendable + items - len(fitting))

    # RED and heartbeats

    def write_red(self, points: Iterable[RedPoint], now_s: int) -> list[Payload]:
        """Delta counters (zeros are not sent) and minute distributions, errors in their own."""
        counters: list[str] = []
        distributions: list[str] = []
        unsendable = 0
        for point in points:
            identity, operation, kind, http_status, more = point.key
            stem = naming.clean_stem(identity.application, identity.service, operation)
            if not self._as_the_proxy:
                # The tags tell series apart; a name that the backend refuses would lose them all.  A tilde may begin
                # a name, but this is the middle of one.
                stem = stem[:_STEM_LENGTH_MAX].replace("~", "_")
            pairs = self._point_pairs(identity, kind, http_status, operation)
            source = _source(self._reporter or identity.source)
            # One more for "error", in the distributions of errors.
            tags = self._point_tags((*pairs, *more), source, POINT_TAGS_MAX - 1)
            if tags is None:
                unsendable += 1
                continue
            for name, value in (
                ("invocation.count", point.invocations),
                ("error.count", point.errors),
                ("total_time.millis.count", point.millis),
            ):
                if value:
                    counters.append(
                        f'"∆tracing.derived.{stem}.{name}" {value} {now_s} source="{source}"{tags}\n'
                    )
            name = f'"tracing.derived.{stem}.duration.micros" source="{source}"{tags}'
            distributions += [f"{_bins(part)} {name}\n" for part in point.good]
            distributions += [f'{_bins(part)} {name} "error"="true"\n' for part in point.bad]
        payloads = [
            self._payload(signal, _encoded(lines), len(lines))
            for signal, lines in ((Signal.POINTS, counters), (Signal.DISTRIBUTIONS, distributions))
            if lines
        ]
        if unsendable:
            payloads.append(Payload(Signal.POINTS, b"", 0, unsendable))
        return payloads

    def write_heartbeats(self, beats: Iterable[Heartbeat], now_s: int) -> list[Payload]:
        """Each component under its own name, and once more under the protocol's."""
        lines: dict[str, None] = {}
        unsendable = 0
        for identity, kind, http_status, more in beats:
            source = _source(identity.source)
            for component in (identity.component, SECONDARY_COMPONENT):
                pairs = _identity_pairs(identity._replace(component=component), kind, http_status)
                tags = self._point_tags((*pairs, *more), source, POINT_TAGS_MAX)
                if tags is None:
                    unsendable += 1
                else:
                    lines[f'"{HEARTBEAT}" 1 {now_s} source="{source}"{tags}\n'] = None
        payload = self._payload(Signal.POINTS, _encoded(lines), len(lines), unsendable)
        return [payload] if lines or unsendable else []

    def _point_tags(
        self, pairs: Sequence[tuple[str, str]], source: str, tags_max: int
    ) -> str | None:
        """None for what the back end refuses; blanks by their stand-in's name."""
        too_many = len(pairs) > tags_max and not self._as_the_proxy
        if too_many or len(source) > POINT_SOURCE_LENGTH_MAX:
            return None
        texts: list[str] = []
        for key, value in pairs:
            shown = _UNKNOWN.get(key, "none") if naming.is_blank(value) else value
            if len(key) + len(shown) > POINT_TAG_PAIR_LENGTH_MAX:
                return None
            texts.append(tag(key, _spoken(shown)))
        return "".join(texts)

    def _point_pairs(
        self, identity: Identity, kind: str, http_status: str, operation: str
    ) -> list[tuple[str, str]]:
        pairs = _identity_pairs(identity, kind, http_status)
        pairs.append(("operationName", operation))
        if self._reporter:
            pairs.append(("source", identity.source))
        return pairs


def _encoded(pieces: Iterable[str]) -> bytes:
    return "".join(pieces).encode("utf-8", "replace")


def _as_they_are(pairs: Iterable[tuple[str, str]]) -> str:
    """Tags whose keys need no cleaning, without their last quote."""
    return "".join([f'" "{key}"="{quoted(value)}' for key, value in pairs])


def _identity_pairs(identity: Identity, kind: str, http_status: str) -> list[tuple[str, str]]:
    pairs = [
        ("application", identity.application),
        ("service", identity.service),
        ("cluster", identity.cluster),
        ("shard", identity.shard),
        ("component", identity.component),
        ("span.kind", kind or "none"),
    ]
    if http_status:
        pairs.append(("http.status_code", http_status))
    return pairs


def _source(text: str) -> str:
    return quoted(_spoken(text or _UNKNOWN["source"]))


def _spoken(text: str) -> str:
    """``text`` without EOT: on port 2878 a line that holds one is thrown away."""
    return text.replace("\x04", "?") if "\x04" in text else text


def _bins(part: Centroids) -> str:
    """``!M`` with means as short decimals that keep 15 digits: sums stay exact to 1e-9."""
    return f"!M {part.minute_s} " + " ".join(
        [f"#{count} {total / count:.15g}" for count, total in part.bins]
    )


def _json(value: dict[str, Any]) -> str:
    """Decoders leave no lone surrogate in a text, so this cannot fail on one."""
    return _encode_json(value).decode() + "\n"


def _uuid(hex_id: str) -> str:
    """naming.uuid for the two usual lengths, without padding."""
    if len(hex_id) == 16:
        return f"{_PAD}{hex_id[:4]}-{hex_id[4:]}"
    return f"{hex_id[:8]}-{hex_id[8:12]}-{hex_id[12:16]}-{hex_id[16:20]}-{hex_id[20:]}"
