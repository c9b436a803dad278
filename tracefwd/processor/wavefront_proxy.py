"""Profile ``wavefront-proxy``: spans as the Java proxy's Zipkin listener would have made them.

Two ways lead to the same span.  The usual one is for what Envoy sends: keys that mean nothing special, values that need
no cleaning, plausible times.  All that can be known from a span's keys, name or workload is looked up.  Everything else
goes through ``wavefront_proxy_rules.py`` step by step.  A test holds the two together.

With ``mapping.exact`` the proxy's defects are copied, too; ``mapping.deviations`` chooses single ones.  What its
validation refuses comes back as a reject whose detail is the proxy's own message, and in ``red_only``, since the
proxy's RED counts such spans all the same, and their logs are sent.

Invariants: the decoder's spans are not written to; memo tables hold at most ``MEMO_ENTRIES_MAX`` entries, and no
entry grows with what a client sends.  Pure but for these tables.
"""

from typing import cast

from msgspec import Struct

from tracefwd import naming
from tracefwd.limits import (
    FUTURE_START_MS_MAX,
    NAME_LENGTH_MAX,
    SPAN_TAGS_MAX,
    START_MS_MIN,
    TAG_KEY_LENGTH_MAX,
    TAG_VALUE_LENGTH_MAX,
)
from tracefwd.model import (
    Annotation,
    Decoded,
    Encoding,
    Endpoint,
    Identity,
    Mapped,
    Mapper,
    Reject,
    Span,
    WavefrontSpan,
)
from tracefwd.processor import java_text, zipkin_rules
from tracefwd.processor.outcome import tag_says_error
from tracefwd.processor.wavefront_proxy_rules import (
    DEFAULT_SOURCE,
    RESERVED_KEYS,
    Deviations,
    Repairs,
    SpanRules,
    batch_breaker,
    bounded,
    chosen_deviations,
)
from tracefwd.processor.wavefront_proxy_span import (
    Pairs,
    SpanMaker,
    head_of,
    identity_of,
    is_entry,
)
from tracefwd.settings import MappingSettings, RedSettings
from tracefwd.tag_record import TagRecord

# Keys of the tags that the mapping itself adds; a client's tag of this name is not the usual case.
_OWN_KEYS = frozenset(
    {"application", "cluster", "debug", "ipv4", "parent", "service", "shard", "span.kind"}
    | {"zipkinSpanId", "zipkinTraceId", "_spanLogs", "_spanSecondaryId"}
)
# RED has these dimensions anyway; asking for them once more changes nothing.
_RED_DIMENSIONS = frozenset(
    {"application", "cluster", "component", "http.status_code", "operationName", "service"}
    | {"shard", "source", "span.kind"}
)
# The most tags that the mapping adds: both ids, parent, kind, secondary id, service, application, cluster, shard, ipv4,
# _spanLogs.
_ADDED_TAGS_MAX = 11
# Together the keys of a memorised shape, or the parts of a memorised workload: keeps an entry near a KiB.
_MEMO_LENGTH_MAX = 1_024
_FUTURE_START_US_MAX = FUTURE_START_MS_MAX * 1000
_START_US_MIN = START_MS_MIN * 1000
_NOWHERE = Endpoint()


class _Shape(Struct, gc=False):
    """What a span's keys tell.  ``usual``: they clean to keys that differ, fit, and mean nothing to the mapping."""

    usual: bool
    has_error: bool
    status_key: str | None
    red_keys: Pairs


class _Workload(Struct):
    """What the spans of one kind of one workload share; ``None`` in the table: not usual."""

    identity: Identity
    head: Pairs
    kind: str


def make_wavefront_proxy_mapper(mapping: MappingSettings, red: RedSettings) -> Mapper:
    return _ProxyMapper(mapping, red, chosen_deviations(mapping))


class _ProxyMapper:
    def __init__(self, mapping: MappingSettings, red: RedSettings, deviations: Deviations) -> None:
        self._deviations = deviations
        self._span_logs = mapping.span_logs != "none"
        self._entry_only = red.spans == "entry"
        self._red_keys = tuple(key for key in red.tags if key not in _RED_DIMENSIONS)
        # RED dimensions that the mapping adds have no raw key to look up.
        self._short_cut = _OWN_KEYS.isdisjoint(self._red_keys)
        self._rules = SpanRules(deviations, mapping.application_name, span_logs=self._span_logs)
        self._maker = SpanMaker(self._rules, self._red_keys, entry_only=self._entry_only)
        self._shapes: dict[tuple[str, ...], _Shape] = {}
        self._names: dict[str | None, str | None] = {}
        self._workloads: dict[tuple[str | None, ...], _Workload | None] = {}

    def __call__(self, decoded: Decoded, now_us: int) -> Mapped:
        spans = decoded.spans
        kind_known = (
            self._deviations.kind_without_endpoint
            or decoded.encoding is not Encoding.JSON_V2
            or not zipkin_rules.read_as_version_1(spans)
        )
        short_cut = self._short_cut and kind_known
        mapped: list[WavefrontSpan] = []
        rejects: list[Reject] = []
        red_only: list[WavefrontSpan] = []
        repairs: Repairs = {}
        broken: Reject | None = None
        for index, span in enumerate(spans):
            usual = self._usual(span, now_us) if short_cut else None
            if usual is not None:
                mapped.append(usual)
                continue
            breaker = batch_breaker(span, self._deviations)
            if breaker is not None:
                rejects.append(_thrown_on(span, breaker))
                if self._deviations.batch_survives:
                    continue
                broken = rejects[-1]
                rejects += map(_lost, spans[index + 1 :])
                break
            made, refusal = self._maker.make(span, now_us, repairs, kind_known=kind_known)
            if refusal is None:
                mapped.append(made)
            else:
                refusal.sample = _sample(span)
                rejects.append(refusal)
                red_only.append(made)
        return Mapped(mapped, rejects, repairs=repairs or None, red_only=red_only, broken=broken)

    # The usual span

    def _usual(self, span: Span, now_us: int) -> WavefrontSpan | None:
        """The span, or None when it needs the rules."""
        is_plain = span.is_plain
        tags = cast("TagRecord", span.tags).as_dict() if is_plain else dict(span.tags or {})
        keys = tuple(tags)
        shape = self._shapes.get(keys) or self._learn_shape(keys)
        annotations = span.annotations
        start_us = span.timestamp_us or 0
        duration_us = span.duration_us or 0
        if (
            not shape.usual
            or span.debug
            or not _START_US_MIN <= start_us <= now_us + _FUTURE_START_US_MAX
            or not 0 <= duration_us < start_us - 1000
            or not (is_plain or java_text.all_plain([*tags.values()], TAG_VALUE_LENGTH_MAX))
        ):
            return None
        try:
            name = self._names[span.name]
        except KeyError:
            name = self._learn_name(span.name)
        workload = self._workload_of(span, tags.get("component"))
        if name is None or workload is None:
            return None
        error = False
        if shape.has_error:
            error = not self._deviations.error_by_meaning or tag_says_error(tags["error"])
            if error:
                tags["error"] = "true"
        kind = workload.kind
        logs = zipkin_rules.sorted_annotations(annotations) if annotations else None
        red = not self._entry_only or is_entry(span, tags)
        tags["zipkinSpanId"] = span.span_id
        tags["zipkinTraceId"] = zipkin_rules.trace_id(span.trace_id)
        status_key = shape.status_key
        red_keys = shape.red_keys
        return WavefrontSpan(
            workload.identity,
            name,
            DEFAULT_SOURCE,
            span.trace_id,
            span.span_id,
            span.parent_id,
            kind,
            tags[status_key] if status_key is not None else "",
            error,
            start_us // 1000,
            duration_us // 1000,
            duration_us,
            workload.head,
            tags,
            True,
            None,
            (),
            0,
            (),
            red,
            False,
            tuple([(name, tags[key]) for name, key in red_keys]) if red_keys else (),
            logs if self._span_logs else None,
            (kind or None) if logs is not None else None,
        )

    def _workload_of(self, span: Span, component: str | None) -> _Workload | None:
        local = span.local or _NOWHERE
        logs = "logs" if span.annotations else None
        parts = (local.service_name, local.ipv4, local.ipv6, span.kind, component, logs)
        try:
            return self._workloads[parts]
        except KeyError:
            return self._learn_workload(*parts)

    def _learn_shape(self, keys: tuple[str, ...]) -> _Shape:
        by_clean: dict[str, str] = {naming.clean_key(key) if key else "": key for key in keys}
        status_keys = [key for key in by_clean if key.lower() == "http.status_code"]
        usual = (
            len(keys) <= SPAN_TAGS_MAX - _ADDED_TAGS_MAX
            and len(by_clean) == len(keys)
            and len(status_keys) <= 1
            and sum(map(len, keys)) <= _MEMO_LENGTH_MAX
            and not any(
                not 0 < len(key) <= TAG_KEY_LENGTH_MAX
                or key in _OWN_KEYS
                or key in RESERVED_KEYS
                or key.lower() == "source"
                or key.isdigit()
                or key in naming.LONE_DELTAS
                for key in by_clean
            )
        )
        shape = _Shape(
            usual,
            "error" in by_clean,
            by_clean[status_keys[0]] if status_keys else None,
            tuple((key, by_clean[key]) for key in self._red_keys if key in by_clean),
        )
        if sum(map(len, keys)) <= _MEMO_LENGTH_MAX and len(keys) <= SPAN_TAGS_MAX:
            bounded(self._shapes)[keys] = shape
        return shape

    def _learn_name(self, raw: str | None) -> str | None:
        if raw is not None and len(raw) > NAME_LENGTH_MAX:
            return None
        repairs: Repairs = {}
        name = self._rules.name(raw, repairs)
        usual = None if repairs or naming.length(name) > NAME_LENGTH_MAX else name
        bounded(self._names)[raw] = usual
        return usual

    def _learn_workload(
        self,
        service_name: str | None,
        ipv4: str | None,
        ipv6: str | None,
        kind: str | None,
        component: str | None,
        logs: str | None,
    ) -> _Workload | None:
        parts = (service_name, ipv4, ipv6, kind, component, logs)
        if sum(len(part) for part in parts if part) > _MEMO_LENGTH_MAX:
            return None
        repairs: Repairs = {}
        endpoint = Endpoint(service_name, ipv4, ipv6)
        draft = self._rules.draft(
            Span("", "", kind=kind, timestamp_us=_START_US_MIN, local=endpoint),
            _START_US_MIN,
            repairs,
        )
        draft.annotations = [Annotation(0, "")] if logs else None
        workload = None
        if not self._rules.check(draft, 0, _START_US_MIN, repairs) and not repairs:
            identity = identity_of(draft, draft.service, component or "none")
            head = self._maker.intern(head_of(draft, ipv4=True))
            workload = _Workload(identity, head, draft.kind)
        bounded(self._workloads)[parts] = workload
        return workload


def _thrown_on(span: Span, part: str) -> Reject:
    """The proxy's cleaning throws before RED sees the span, so it is counted nowhere else."""
    what = "source" if part == "source" else "tag key"
    detail = f"a {what} that is empty or a lone delta sign: the proxy fails the batch from here"
    return Reject("invalid", part, detail, _sample(span))


def _lost(span: Span) -> Reject:
    return Reject("invalid", "batch", "behind a span that fails its batch", _sample(span))


def _sample(span: Span) -> bytes:
    """Enough to find the span at its sender."""
    return f'{{"traceId":"{span.trace_id}","id":"{span.span_id}"}}'.encode()
