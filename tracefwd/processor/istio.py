"""The profile ``istio``: Envoy spans under Istio become Wavefront spans that say whose they are.

Two paths, one result.  The plain path (``istio_plain.py``) takes an ordinary success whose decoder has proven that
nothing about it needs care.  Every other span takes the complete path, tag by tag (``tags.py``).  A property test holds
that both give the same.

What a workload's spans share is worked out once (``workload.py``).  Memo tables are bounded and can be
emptied at any time.  Pure.
"""

from collections.abc import Mapping, Sequence

from tracefwd import naming
from tracefwd.limits import (
    MEMO_ENTRIES_MAX,
    SPAN_LOG_BYTES_MAX,
    SPAN_TAGS_MAX,
    START_MS_MIN,
)
from tracefwd.model import (
    Annotation,
    Decoded,
    Event,
    Mapped,
    Mapper,
    Span,
    WavefrontSpan,
)
from tracefwd.processor import tags as tagging
from tracefwd.processor.istio_plain import (
    CORE_ANNOTATIONS,
    FUTURE_US,
    WATCHED,
    PlainPath,
    has_logs,
)
from tracefwd.processor.operations import OTHER, Operation, Operations
from tracefwd.processor.outcome import OutcomeRules, Verdicts, never_served, tag_says_error
from tracefwd.processor.tags import Repairs, count
from tracefwd.processor.templates import Chain, Context
from tracefwd.processor.workload import HEAD_KINDS, KINDS, Workload, Workloads, clean_source
from tracefwd.settings import MappingSettings, RedSettings
from tracefwd.tag_record import TagRecord

_EMPTY: dict[str, str] = {}
_START_US_MIN = START_MS_MIN * 1000
_LOG_VALUE_LENGTH_MAX = 4_096


def make_istio_mapper(mapping: MappingSettings, red: RedSettings) -> Mapper:
    """``(decoded, now_us) -> Mapped``; never rejects a span."""
    return IstioMapper(mapping, red)


class IstioMapper:
    def __init__(self, mapping: MappingSettings, red: RedSettings) -> None:
        self._workloads = Workloads(mapping, red)
        self._red_keys = tuple(red.tags)
        self._entry_only = red.spans == "entry"
        self._operations = Operations(mapping.operation)
        named = Chain(mapping.operation.template)
        # The usual template needs no context.
        self._named = None if mapping.operation.template == ["{@name}"] else named
        self._verdicts = Verdicts(OutcomeRules(mapping.errors))
        self._url = tagging.url_rule(mapping.url_query)
        self._span_logs = mapping.span_logs
        self._oversize = mapping.long_values == "span_log"
        self._known: set[str] = set()
        self._known_clean: dict[str, str] = {}
        # With RED dimensions or a naming template every span needs a look at all its tags.
        self._plain: PlainPath | None = None
        if (
            not self._red_keys
            and self._named is None
            and not self._entry_only
            and self._workloads.knows_by_tags()
        ):
            self._plain = PlainPath(mapping, self._workloads, self._operations, self._verdicts)

    def __call__(self, decoded: Decoded, now_us: int) -> Mapped:
        self._operations.rotate(now_us)
        repairs: Repairs = {}
        spans: list[WavefrontSpan] = []
        plain = self._plain
        for span in decoded.spans:
            mapped = None
            if plain is not None and span.is_plain:
                mapped = plain.map(span, now_us, repairs)  # type: ignore[arg-type]
            spans.append(mapped or self._map_complete(span, now_us, repairs))
        return Mapped(spans, repairs=repairs or None)

    # The complete path

    def _map_complete(self, span: Span, now_us: int, repairs: Repairs) -> WavefrontSpan:
        tags: Mapping[str, str] = span.tags or _EMPTY
        if isinstance(tags, TagRecord):
            tags = tags.as_dict()
        workload = self._workloads.find(span, tags)
        mine: Repairs = {} if workload.repairs is None else dict(workload.repairs)
        said = tags.get("span.kind", "").lower()
        kind = KINDS[span.kind] or (said if said in HEAD_KINDS else "")
        head = workload.heads[kind]
        operation = self._operation(span, tags, mine)
        start_us, duration_us = _settle_times(span, now_us, mine)
        oversize: dict[str, str] = {}
        kept = self._keep_tags(span, tags, workload, head, mine, oversize)
        failed = self._verdicts.failed(
            span.kind,
            _first(tags, tagging.HTTP_STATUS_KEYS),
            _first(tags, tagging.GRPC_STATUS_KEYS),
            tags.get("response_flags"),
        )
        error = failed or tag_says_error(tags.get("error"))
        if error:
            kept["error"] = "true"
        if operation.own is not None:
            kept[tagging.OWN_NAME] = tagging.clean_value(operation.own, mine)
        logs = self._settle_logs(span, mine)
        tail: list[tuple[str, str]] = []
        if span.shared:
            tail.append(("_spanSecondaryId", kind or "server"))
        if span.debug and kept.get("debug") != "true":
            kept.pop("debug", None)
            tail.append(("debug", "true"))
        taken = (
            len(head)
            + len(tail)
            + (span.parent_id is not None)
            + (logs is not None or bool(oversize))
        )
        facts = sorted(mine.keys() & _FACTS)
        budget = SPAN_TAGS_MAX - taken - bool(facts)
        if len(kept) > budget:
            facts = sorted({*facts, "tag_budget"})
            kept = tagging.spend(kept, SPAN_TAGS_MAX - taken - 1, mine)
        if facts:
            tail.append((tagging.REPAIRED, ",".join(facts)))
        for name, number in mine.items():
            count(repairs, name, number)
        return WavefrontSpan(
            workload.identity,
            operation.name,
            workload.source,
            span.trace_id,
            span.span_id,
            span.parent_id,
            kind,
            _first(kept, tagging.HTTP_STATUS_KEYS) or "",
            error,
            start_us // 1000,
            duration_us // 1000,
            duration_us,
            head,
            kept,
            False,
            None,
            (),
            start_us,
            tuple(tail),
            not self._entry_only or _is_entry(span, tags, error),
            bool(span.debug) or tags.get("debug") == "true",
            self._red_tags(kept),
            logs,
            (kind or "server") if span.shared else None,
            oversize or None,
        )

    def _operation(self, span: Span, tags: Mapping[str, str], mine: Repairs) -> Operation:
        raw = span.name
        if self._named is not None:
            raw = self._named.resolve(Context(tags, span)) or raw
        operation = self._operations.memo.get(raw or "") or self._operations.settle(raw)
        if operation.cut:
            count(mine, "name_cut")
        if operation.name == OTHER and operation.own is not None:
            count(mine, "name_capped")
        return operation

    def _keep_tags(
        self,
        span: Span,
        tags: Mapping[str, str],
        workload: Workload,
        head: tuple[tuple[str, str], ...],
        mine: Repairs,
        oversize: dict[str, str],
    ) -> dict[str, str]:
        kept: dict[str, str] = {}
        consumed = {**dict(head), "source": workload.source}
        # Cleaned keys that are taken: of two that become the same, the first keeps its name, whatever is known.
        taken: set[str] | None = None
        for key, value in (*tags.items(), *_remote_tags(span)):
            if key in self._known and (taken is None or naming.clean_key(key) not in taken):
                # Known keys need no care, and no two of them become the same.
                if taken is not None:
                    taken.add(naming.clean_key(key))
                if key == "http.url":
                    value = self._show_url(value, mine)
                if value.isascii() and tagging.is_simple(value):
                    kept[key] = value
                elif value.strip():
                    kept[key] = self._fit(key, value, mine, oversize)
                else:
                    count(mine, "blank_value")
            elif key != "error":
                taken = taken or {naming.clean_key(name) for name in (*dict(head), *kept)}
                self._keep_with_care(key, value, consumed, taken, kept, mine, oversize)
        # Last, so that a tag of the name that it gets here keeps it.
        message = _error_message(tags.get("error", ""))
        if message:
            taken = taken or {naming.clean_key(name) for name in (*dict(head), *kept)}
            self._keep_with_care(
                tagging.ERROR_MESSAGE, message, consumed, taken, kept, mine, oversize
            )
        return kept

    def _keep_with_care(
        self,
        key: str,
        value: str,
        consumed: Mapping[str, str],
        taken: set[str],
        kept: dict[str, str],
        mine: Repairs,
        oversize: dict[str, str],
    ) -> None:
        """One tag whose key is new, reserved, watched, or may double another."""
        if key in consumed and _same(value, consumed[key]):
            return
        if not value.strip():
            count(mine, "blank_value")
            return
        if key in tagging.URL_KEYS:
            value = self._show_url(value, mine)
        name = tagging.free_key(key, taken, mine)
        clean = naming.clean_key(name)
        taken.add(clean)
        if name == key:
            self._learn(key, clean)
        kept[name] = self._fit(name, value, mine, oversize)

    def _show_url(self, value: str, mine: Repairs) -> str:
        if self._url is None or ("?" not in value and "@" not in value):
            return value
        shown = self._url(value)
        if shown != value:
            count(mine, "url_masked")
        return shown

    def _fit(self, key: str, value: str, mine: Repairs, oversize: dict[str, str]) -> str:
        """A value that is not blank, as the line may hold it."""
        written = tagging.clean_value(value, mine)
        if self._oversize and len(written) < len(value.strip()):
            oversize[naming.clean_key(key)] = value
        return written

    def _learn(self, key: str, clean: str) -> None:
        """Let the plain path pass this key, if nothing about it needs care.

        No two known keys become the same by cleaning, so a span of known keys has no doubles.
        """
        if key in WATCHED or self._known_clean.get(clean, key) != key or clean in ("ipv4", "ipv6"):
            return
        if len(self._known) >= MEMO_ENTRIES_MAX:
            self._known.clear()
            self._known_clean.clear()
        self._known.add(key)
        self._known_clean[clean] = key

    def _red_tags(self, kept: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
        if not self._red_keys:
            return ()
        clean = {naming.clean_key(key): value for key, value in kept.items()}
        return tuple((key, clean[key]) for key in self._red_keys if key in clean)

    # Outcome and annotations

    def _settle_logs(self, span: Span, mine: Repairs) -> list[Annotation] | None:
        """Annotations as span logs, within what the backend takes for one."""
        if not has_logs(span, self._span_logs):
            return None
        logs: list[Annotation] = []
        room = SPAN_LOG_BYTES_MAX - 512  # ids and braces
        for entry in span.annotations or ():
            if self._span_logs == "auto" and entry.value in CORE_ANNOTATIONS:
                continue
            cut = _cut_log(entry)
            # An escape takes up to six bytes a character.
            room -= 64 + 6 * _length_of(cut)
            if cut is not entry or room < 0:
                count(mine, "value_cut")
            if room < 0:
                break
            logs.append(cut)
        return logs or None


# Repairs that changed what a reader would take for fact; they are named in the span itself.
_FACTS = frozenset({"no_timestamp", "future_start", "past_start", "duration"})


def _cut_log(entry: Annotation) -> Annotation:
    """The entry itself where nothing is too long: decoders have classes of their own, which equal no other's."""
    value = naming.cut(entry.value, _LOG_VALUE_LENGTH_MAX)
    if not isinstance(entry, Event):
        return entry if value == entry.value else Annotation(entry.timestamp_us, value)
    cut = {key: naming.cut(said, _LOG_VALUE_LENGTH_MAX) for key, said in entry.fields.items()}
    if value == entry.value and cut == entry.fields:
        return entry
    return Event(entry.timestamp_us, value, cut)


def _length_of(entry: Annotation) -> int:
    if not isinstance(entry, Event):
        return len(entry.value)
    # Quotes, a colon and a comma.
    return sum(len(key) + len(said) + 6 for key, said in entry.fields.items())


def _first(tags: Mapping[str, str], keys: Sequence[str]) -> str | None:
    return next((tags[key] for key in keys if key in tags), None)


def _settle_times(span: Span, now_us: int, mine: Repairs) -> tuple[int, int]:
    """Start and duration in microseconds that every Wavefront parser reads as meant."""
    duration_us = span.duration_us or 0
    start_us = span.timestamp_us or 0
    if duration_us < 0:
        count(mine, "duration")
        duration_us = 0
    elif duration_us >= _START_US_MIN:
        # Above 31 years it could not be read as one, and a single such span would drown its service's RED.
        count(mine, "duration")
        duration_us = 0
    if start_us <= 0:
        count(mine, "no_timestamp")
        start_us = now_us - duration_us
    elif start_us > now_us + FUTURE_US:
        count(mine, "future_start")
        start_us = now_us - duration_us
    elif start_us < _START_US_MIN:
        count(mine, "past_start")
        start_us = now_us - duration_us
    # An inferred start must not fall below the limit again.
    return max(start_us, _START_US_MIN), duration_us


def _same(value: str, consumed: str) -> bool:
    """Whether a tag is what became the span's identity (perhaps cut or cleaned there)."""
    value = value.strip()
    scratch: Repairs = {}
    return bool(value) and consumed in (
        tagging.clean_value(value, scratch),
        clean_source(value, scratch),
    )


def _error_message(value: str) -> str:
    """The text of an ``error`` tag that says more than yes or no."""
    text = value.strip()
    return "" if text.lower() in ("", "true", "false") else text


def _remote_tags(span: Span) -> list[tuple[str, str]]:
    """The other side of the call, under OpenTracing's names, unless the span says so itself."""
    remote = span.remote
    if remote is None:
        return []
    tags = span.tags or _EMPTY
    port = None if remote.port is None else str(remote.port)
    found = [
        ("peer.service", remote.service_name),
        ("peer.ipv4", remote.ipv4),
        ("peer.ipv6", remote.ipv6),
        ("peer.port", port),
    ]
    return [(key, value) for key, value in found if value and key not in tags]


def _is_entry(span: Span, tags: Mapping[str, str], error: bool) -> bool:
    """Whether a span is the only one that tells of its request at its service (``red.spans: entry``)."""
    if span.kind != "CLIENT" or span.parent_id is None:
        return True
    return error and never_served(tags)
