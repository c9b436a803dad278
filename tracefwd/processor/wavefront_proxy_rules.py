"""What the Java proxy's Zipkin listener makes of any span, however odd: mapping, cleaning, validation.

This is the profile's specification as code; ``wavefront_proxy.py`` has a short cut for the usual span that must
come to the same.  The order of steps is the proxy's: tags are gathered, everything is cleaned, the span is
checked, values that are too long are cut; RED counts the span as it is after that, also when the check refused it.

Where we do not follow the proxy there is a switch in ``Deviations``, and nowhere else.  All off is the proxy, defects
included.  Pure: ``repairs`` is the caller's tally, by ``limits.REPAIR_KINDS``.
"""

from dataclasses import dataclass, fields, replace
from typing import TypeVar

from msgspec import Struct

from tracefwd import naming
from tracefwd.limits import (
    FUTURE_START_MS_MAX,
    MEMO_ENTRIES_MAX,
    NAME_LENGTH_MAX,
    SOURCE_LENGTH_MAX,
    SPAN_TAGS_MAX,
    START_MS_MIN,
    TAG_KEY_LENGTH_MAX,
    TAG_VALUE_LENGTH_MAX,
)
from tracefwd.model import Annotation, Reject, Span
from tracefwd.processor import java_text, zipkin_rules
from tracefwd.processor.outcome import tag_says_error
from tracefwd.settings import MappingSettings

DEFAULT_SOURCE = "zipkin"
DEFAULT_SERVICE = "defaultService"
DEFAULT_NAME = "defaultOperation"
# The proxy's own limit on sources; the backend takes no more than limits.SOURCE_LENGTH_MAX.
PROXY_SOURCE_LENGTH_MAX = 1_023
# Tags that the line's readers take for the span's own fields.
RESERVED_KEYS = frozenset({"host", "source", "spanId", "traceId"})
# Not given up when there are more tags than a span may have: Wavefront's pages are built on them.
KEPT_KEYS = frozenset({"component", "debug", "error", "http.method", "http.status_code"})

# Keys that the proxy's cleaning throws on.
_THROWN_KEYS = frozenset({"", *naming.LONE_DELTAS})
# Tags that the mapping looks at.
_SPECIAL_KEYS = frozenset({"application", "cluster", "debug", "error", "service", "shard"})

Repairs = dict[str, int]
K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, kw_only=True)
class Deviations:
    """Where we do better than the proxy; each off means: as the proxy does it."""

    error_by_meaning: bool = False
    """``error=false`` is no error and keeps its value, an empty ``error`` is one (the proxy: the other way round)."""
    single_service: bool = False
    """A tag ``service`` replaces the endpoint's name (the proxy sends both)."""
    reserved_keys: bool = False
    """``host``, ``spanId``, ``traceId`` and ``SOURCE`` get a leading underscore (the proxy's lines lose the span's own
    source or ids to the first three; the last is left out)."""
    odd_keys: bool = False
    """Empty keys and a lone delta sign (if ``batch_survives``), and keys of digits get a leading underscore (the proxy
    fails the batch, or its line cannot be read back)."""
    trailing_backslash: bool = False
    """A name or value that ends in a backslash gets a full stop (the proxy's line cannot be read back)."""
    missing_start: bool = False
    """No timestamp: the span started at arrival minus duration (the proxy: in 1970)."""
    past_start: bool = False
    """The same for a start before September 2001 (every reader takes the proxy's milliseconds for seconds)."""
    future_start: bool = False
    """The same for a start more than 24 h ahead (the proxy refuses the span)."""
    impossible_duration: bool = False
    """A duration longer than since 1970 is 0 (every reader takes the proxy's for an end time)."""
    blank_is_absent: bool = False
    """A name, service or source of blanks counts as none, and a value of control characters alone as blank (the proxy
    sends an empty name and a source of dashes, refuses the span for such a service or value, fails the batch for an
    empty source)."""
    cut_not_refused: bool = False
    """Over-long names, keys and sources are cut (the proxy refuses the span)."""
    tag_budget: bool = False
    """Above 50 tags the client's last ones are left out, but for those that Wavefront's pages are built on (the proxy
    refuses the span)."""
    whole_characters: bool = False
    """A cut splits no character (the proxy leaves ``?``)."""
    kind_without_endpoint: bool = False
    """JSON bodies without any endpoint and tag keep their spans' kinds (the proxy reads them as Zipkin v1, which has
    none)."""
    batch_survives: bool = False
    """A span with a key or source that is empty fails alone, and so does one with a key of a lone delta sign, unless
    ``odd_keys`` or ``blank_is_absent`` mends it; as a source that sign is kept (the proxy loses the rest of its batch).
    """


EXACT = Deviations()
REPAIRED = Deviations(**{field.name: True for field in fields(Deviations)})


def chosen_deviations(mapping: MappingSettings) -> Deviations:
    """All or, with ``exact``, none, but for the operator's own choices (names are checked by the configuration)."""
    return replace(EXACT if mapping.exact else REPAIRED, **mapping.deviations)


class Draft(Struct):
    """A span between the proxy's mapping and its check.

    ``own`` are the client's tags in the proxy's order as (key, cleaned key, value).  ``service`` to ``shard`` are the
    tags that every span has.  All values are cleaned.  ``oversize`` are the full values of what the check has cut.
    """

    name: str
    source: str
    kind: str
    start_ms: int
    duration_us: int
    annotations: list[Annotation] | None
    ipv4: str | None
    error: bool
    debug_tag: bool
    service: str
    application: str
    cluster: str
    shard: str
    own: list[tuple[str, str, str]]
    oversize: dict[str, str]


def bounded(table: dict[K, V]) -> dict[K, V]:
    """The memo table with room for one more entry."""
    if len(table) >= MEMO_ENTRIES_MAX:
        table.clear()
    return table


def note(repairs: Repairs, kind: str) -> None:
    repairs[kind] = repairs.get(kind, 0) + 1


def batch_breaker(span: Span, deviations: Deviations) -> str | None:
    """Which part of this span the cleaning throws on.

    Where the batch does not survive that, it is every part that the proxy's throws on; else what is not mended.
    """
    tags = span.tags
    if not tags:
        return None
    survives = deviations.batch_survives
    source = tags.get("source")
    if source == "" and not (survives and deviations.blank_is_absent):
        return "source"
    # Behind a delta sign it looks for a second letter.
    if source in naming.LONE_DELTAS and not survives:
        return "source"
    if _THROWN_KEYS.isdisjoint(tags) or (survives and deviations.odd_keys):
        return None
    thrown = any(not java_text.is_blank(tags.get(key, "")) for key in _THROWN_KEYS)
    return "tags" if thrown else None


class SpanRules:
    """Drafts spans and checks them, for one set of deviations."""

    def __init__(self, deviations: Deviations, application: str, *, span_logs: bool) -> None:
        self.deviations = deviations
        self.application = application.strip() or "Zipkin"
        self.span_logs = span_logs
        self._keys: dict[str, str] = {}
        self.source_length_max = (
            SOURCE_LENGTH_MAX if deviations.cut_not_refused else PROXY_SOURCE_LENGTH_MAX
        )

    # The mapping

    def draft(self, span: Span, now_us: int, repairs: Repairs, *, kind_known: bool = True) -> Draft:
        """The span as the proxy holds it before its check, cleaned."""
        start_ms, duration_us = self.times(span, now_us, repairs)
        endpoint = span.local
        draft = Draft(
            name=self.name(span.name, repairs),
            source=self.source((span.tags or {}).get("source"), repairs),
            kind=span.kind.lower() if span.kind and kind_known else "",
            start_ms=start_ms,
            duration_us=duration_us,
            annotations=zipkin_rules.sorted_annotations(span.annotations),
            ipv4=zipkin_rules.ipv4(endpoint) if endpoint else None,
            error=False,
            debug_tag=False,
            service=self.service(endpoint.service_name if endpoint else None, repairs),
            application=self.value(self.application, repairs),
            cluster="none",
            shard="none",
            own=[],
            oversize={},
        )
        keys = self._keys
        for key, raw in zipkin_rules.sorted_tags(span.tags):
            clean = keys.get(key)
            if clean is None:
                clean = self._learn_key(key)
            if clean and java_text.is_plain(raw, TAG_VALUE_LENGTH_MAX):
                draft.own.append((key, clean, raw))
            else:
                self._take_tag(draft, key, raw, repairs)
        return draft

    def _learn_key(self, key: str) -> str:
        """The cleaned key of a tag that is nothing but a tag, else ""."""
        if len(key) > TAG_KEY_LENGTH_MAX:
            return ""
        special = key in _SPECIAL_KEYS or key.lower() == "source" or self._key(key, {}) != key
        clean = "" if special or not key else naming.clean_key(key)
        bounded(self._keys)[key] = clean
        return clean

    def _take_tag(self, draft: Draft, key: str, raw: str, repairs: Repairs) -> None:
        deviations = self.deviations
        if key == "source" or (not deviations.reserved_keys and key.lower() == "source"):
            return
        if key == "error":
            self._take_error(draft, raw, repairs)
            return
        if java_text.is_blank(raw):
            note(repairs, "blank_value")
            return
        value = self.value(raw, repairs)
        if deviations.blank_is_absent and java_text.is_blank(value):
            note(repairs, "blank_value")
        elif key == "application":
            draft.application = value
        elif key == "cluster":
            draft.cluster = value
        elif key == "shard":
            draft.shard = value
        elif key == "service" and deviations.single_service:
            draft.service = value
        else:
            if key == "debug":
                draft.debug_tag = raw == "true"
            name = self._key(key, repairs)
            draft.own.append((name, naming.clean_key(name), value))

    def _take_error(self, draft: Draft, raw: str, repairs: Repairs) -> None:
        if self.deviations.error_by_meaning:
            draft.error = tag_says_error(raw)
            value = "true" if draft.error else self.value(raw, repairs)
        elif java_text.is_blank(raw):
            note(repairs, "blank_value")
            return
        else:
            draft.error = True
            value = "true"
        draft.own.append(("error", "error", value))

    def _key(self, key: str, repairs: Repairs) -> str:
        """``key``, or what it has to be called instead (which may be the name of another tag)."""
        deviations = self.deviations
        name = key
        odd = not key or (key.isascii() and key.isdigit()) or key in naming.LONE_DELTAS
        reserved = key in RESERVED_KEYS or key.lower() == "source"
        if (odd and deviations.odd_keys) or (reserved and deviations.reserved_keys):
            name = f"_{key}"
        if deviations.cut_not_refused and naming.length(name) > TAG_KEY_LENGTH_MAX:
            name = naming.cut(name, TAG_KEY_LENGTH_MAX)
        if name != key:
            note(repairs, "key_changed")
        return name

    # Single fields

    def value(self, raw: str, repairs: Repairs) -> str:
        """Cleaned; one that is too long is cut, and its end seen to, by the check."""
        text = java_text.sanitised(raw)
        if naming.length(text) > TAG_VALUE_LENGTH_MAX:
            return text
        return self._ended(text, TAG_VALUE_LENGTH_MAX, repairs)

    def name(self, raw: str | None, repairs: Repairs) -> str:
        lowered = zipkin_rules.lowered(raw) or DEFAULT_NAME
        name = java_text.sanitised(lowered).replace("*", "-")
        if self.deviations.blank_is_absent and java_text.is_blank(name):
            note(repairs, "blank_value")
            name = DEFAULT_NAME
        if self.deviations.cut_not_refused and naming.length(name) > NAME_LENGTH_MAX:
            note(repairs, "name_cut")
            name = naming.cut(name, NAME_LENGTH_MAX)
        return self._ended(name, NAME_LENGTH_MAX, repairs)

    def service(self, raw: str | None, repairs: Repairs) -> str:
        service = self.value(zipkin_rules.lowered(raw) or DEFAULT_SERVICE, repairs)
        if self.deviations.blank_is_absent and java_text.is_blank(service):
            note(repairs, "blank_value")
            return DEFAULT_SERVICE
        return service

    def source(self, tag: str | None, repairs: Repairs) -> str:
        """``tag`` is not empty unless blanks count as absent: ``batch_breaker`` comes first."""
        if tag is None:
            return DEFAULT_SOURCE
        if self.deviations.blank_is_absent and java_text.is_blank(tag):
            note(repairs, "blank_value")
            return DEFAULT_SOURCE
        source = naming.clean_key(tag)
        if self.deviations.cut_not_refused and len(source) > self.source_length_max:
            note(repairs, "source_cut")
            return source[: self.source_length_max]
        return source

    def _ended(self, text: str, length_max: int, repairs: Repairs) -> str:
        if not text.endswith("\\") or not self.deviations.trailing_backslash:
            return text
        note(repairs, "trailing_backslash")
        # One longer than allowed would only be cut again.
        return naming.guard_end(
            naming.cut(text, length_max - 1) if naming.length(text) == length_max else text
        )

    def times(self, span: Span, now_us: int, repairs: Repairs) -> tuple[int, int]:
        """(start in ms, duration in us)."""
        deviations = self.deviations
        duration_us = max(span.duration_us or 0, 0)
        start_us = max(span.timestamp_us or 0, 0)
        start_ms = start_us // 1000
        if (span.duration_us or 0) < 0:
            note(repairs, "duration")
        repair = ""
        if start_us == 0:
            repair = "no_timestamp" if deviations.missing_start else ""
        elif start_ms < START_MS_MIN:
            repair = "past_start" if deviations.past_start else ""
        elif start_ms > now_us // 1000 + FUTURE_START_MS_MAX:
            repair = "future_start" if deviations.future_start else ""
        if repair:
            note(repairs, repair)
            start_ms = (now_us - duration_us) // 1000
        if deviations.impossible_duration and duration_us // 1000 >= max(start_ms, 1):
            note(repairs, "duration")
            duration_us = 0
            if repair:
                start_ms = now_us // 1000
        return start_ms, duration_us

    # The check

    def spend_budget(self, draft: Draft, tags: int, repairs: Repairs) -> None:
        """Give up the last of the client's tags, of ``tags`` in all, until no more are left than a span may have."""
        excess = tags - SPAN_TAGS_MAX
        kept: list[tuple[str, str, str]] = []
        for entry in reversed(draft.own):
            if excess > 0 and entry[1] not in KEPT_KEYS:
                excess -= 1
                note(repairs, "tag_budget")
            else:
                kept.append(entry)
        draft.own = kept[::-1]

    def check(self, draft: Draft, tags: int, now_us: int, repairs: Repairs) -> Reject | None:
        """Hold the draft, of ``tags`` tags in all, to the limits: cut what may be cut, or say why the proxy refuses it.

        Values before the one that is refused have been cut by then, as with the proxy.
        """
        refusal = self._refused_span(draft, tags, now_us)
        if refusal is not None:
            return refusal
        entries = [
            ("service", draft.service),
            *[(key, value) for _, key, value in draft.own],
            ("application", draft.application),
            ("cluster", draft.cluster),
            ("shard", draft.shard),
        ]
        values: list[str] = []
        for key, value in entries:
            if len(key) <= TAG_KEY_LENGTH_MAX and java_text.is_plain(value, TAG_VALUE_LENGTH_MAX):
                values.append(value)
                continue
            refusal = refusal or _refused_tag(key, value)
            if refusal is None and naming.length(value) > TAG_VALUE_LENGTH_MAX:
                note(repairs, "value_cut")
                draft.oversize[key] = value
                values.append(self._cut(value, repairs))
            else:
                values.append(value)
        draft.service, *own, draft.application, draft.cluster, draft.shard = values
        draft.own = [(raw, key, value) for (raw, key, _), value in zip(draft.own, own, strict=True)]
        return refusal

    def _cut(self, value: str, repairs: Repairs) -> str:
        if self.deviations.whole_characters:
            text = naming.cut(value, TAG_VALUE_LENGTH_MAX)
        else:
            text = java_text.cut(value, TAG_VALUE_LENGTH_MAX)
        return self._ended(text, TAG_VALUE_LENGTH_MAX, repairs)

    def _refused_span(self, draft: Draft, tags: int, now_us: int) -> Reject | None:
        if draft.start_ms > now_us // 1000 + FUTURE_START_MS_MAX:
            return Reject("invalid", "timestamp", "Span outside of reasonable timeframe")
        length = len(draft.source)
        if length > self.source_length_max:
            detail = f"Span source/host name is too long ({length} characters, max: {self.source_length_max})"
            return Reject("invalid", "source", f"WF-427: {detail}")
        length = naming.length(draft.name)
        if length > NAME_LENGTH_MAX:
            detail = f"Span name is too long ({length} characters, max: {NAME_LENGTH_MAX})"
            return Reject("invalid", "name", f"WF-428: {detail}")
        if tags > SPAN_TAGS_MAX:
            detail = f"Span has too many annotations ({tags}, max {SPAN_TAGS_MAX})"
            return Reject("invalid", "tags", f"WF-430: {detail}")
        return None


def _refused_tag(key: str, value: str) -> Reject | None:
    if len(key) > TAG_KEY_LENGTH_MAX:
        detail = (
            f"Span annotation key is too long ({len(key)} characters, max: {TAG_KEY_LENGTH_MAX})"
        )
        return Reject("invalid", "tags", f"WF-432: {detail}")
    if java_text.is_blank(value):
        return Reject(
            "invalid", "tags", f"WF-434: Span annotation value for {key} is empty or missing"
        )
    return None
