"""An operator's preprocessor rules between mapping and sampling, as in the Wavefront proxy.

A mapped span is shown to the rules as the proxy would hold it (name, source, tags in the line's order, whole values
even where the mapping has cut them), and what they leave is held to Wavefront's limits again.  RED, sampling and lines
use the values after the rules.  A span that no rule changed stays the very span it was, plain path and all.

Two differences to the proxy, both to the span's good: what its validation would refuse after a rule is repaired and
counted, and a rule sees what the mapping has already repaired.  Pure but for the rules' own counts.
"""

from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

from tracefwd import naming
from tracefwd.limits import (
    MEMO_ENTRIES_MAX,
    NAME_LENGTH_MAX,
    SPAN_TAGS_MAX,
    TAG_KEY_LENGTH_MAX,
)
from tracefwd.model import (
    Decoded,
    Identity,
    LineRules,
    LineShape,
    Mapped,
    Mapper,
    WavefrontSpan,
)
from tracefwd.processor import tags as tagging
from tracefwd.processor.outcome import tag_says_error
from tracefwd.processor.rules.rule_set import RuleSet
from tracefwd.processor.rules.subject import Subject
from tracefwd.processor.tags import Repairs, count
from tracefwd.processor.workload import clean_source

Tag = tuple[str, str]

# What a head says for RED.
_HEAD_KEYS = frozenset({"application", "cluster", "service", "shard", "span.kind"})


class _ShownShape(NamedTuple):
    """A shape, which this keeps alive, and what it says under cleaned keys."""

    shape: LineShape
    fixed: dict[str, str]
    keys: tuple[str, ...]


class RuledMapper:
    """A mapper and the rules behind it.  Rules may be exchanged at any time between two bodies."""

    def __init__(self, mapper: Mapper, rules: RuleSet, red_keys: Sequence[str]) -> None:
        self._map = mapper
        self.rules = rules
        self._red_keys = tuple(red_keys)
        # Bounded by the rule ids of all files that were ever loaded: an operator's doing.
        self._past: dict[tuple[str, ...], float] = {}
        self._clean: dict[str, str] = {}
        # New keys that a line takes as they are.
        self._fitting: set[str] = set()
        # By identity of the head, which the entry keeps alive.
        self._heads: dict[int, tuple[tuple[Tag, ...], dict[str, str]]] = {}
        # Likewise by identity of the shape.
        self._shapes: dict[int, _ShownShape] = {}

    def __call__(self, decoded: Decoded, now_us: int) -> Mapped:
        mapped = self._map(decoded, now_us)
        repairs: Repairs = dict(mapped.repairs or {})
        kept, blocked = self.filter(mapped.spans, repairs)
        return Mapped(
            kept,
            mapped.rejects,
            blocked=mapped.blocked + blocked,
            repairs=repairs or None,
            red_only=[span for span in mapped.red_only if self._pass(span, repairs) is not None],
            broken=mapped.broken,
        )

    def filter(
        self, spans: Sequence[WavefrontSpan], repairs: Repairs
    ) -> tuple[list[WavefrontSpan], int]:
        """The spans as the rules leave them, and how many they blocked."""
        passed = [self._pass(span, repairs) for span in spans]
        kept = [span for span in passed if span is not None]
        return kept, len(spans) - len(kept)

    @property
    def line_rules(self) -> LineRules | None:
        """The rules for span lines before they are read; None without any."""
        return self.rules.apply_line if self.rules.lines else None

    def exchange(self, rules: RuleSet) -> None:
        """Go on with other rules; what the old ones counted stays counted."""
        self._past = self.samples()
        self.rules = rules

    def samples(self) -> dict[tuple[str, ...], float]:
        """(rule, result) -> spans, since the start."""
        total = dict(self._past)
        for rule, counts in self.rules.counts().items():
            counts.add_to(total, rule)
        return total

    def _pass(self, span: WavefrontSpan, repairs: Repairs) -> WavefrontSpan | None:
        values = self._shown_values(span)
        if values is None:
            return self._pass_listed(span, repairs)
        subject = Subject(
            span.name,
            span.source,
            None,
            values=values.copy(),
            start_ms=span.start_ms,
            duration_ms=span.duration_ms,
        )
        if not self.rules.apply(subject):
            return None
        usual = self._settle_usual(span, values, subject, repairs)
        if usual is not None:
            return usual
        # Its tags are equal to those that a list would have held, so this gives what ``_pass_listed`` gives.
        before = [*values.items()]
        shared = dict(zip(values, before, strict=True))
        after = [
            tag if (tag := shared.get(key)) is not None and tag[1] == value else (key, value)
            for key, value in subject.annotations
        ]
        subject.replace(after)
        return settle(span, before, subject, self._red_keys, repairs)

    def _shown_values(self, span: WavefrontSpan) -> dict[str, str] | None:
        """``shown_tags`` by key; None for a span that is not the usual one, or that repeats a key."""
        if not span.plain or span.tail or span.oversize is not None or span.keys_kept:
            return None
        entry = self._heads.get(id(span.head)) or self._learn_head(span.head)
        values = entry[1].copy()
        if span.parent_id is not None:
            parent = span.parent_id
            usual = len(parent) == 16
            values["parent"] = (
                f"00000000-0000-0000-{parent[:4]}-{parent[4:]}" if usual else naming.uuid(parent)
            )
        if span.shape is not None:
            _, fixed, keys = self._shapes.get(id(span.shape)) or self._learn_shape(span.shape)
            values.update(fixed)
            values.update(zip(keys, span.values, strict=True))
            # The place of what is absent; the other keys of a shape differ from each other and from its head's.
            values.pop("", None)
            return values
        tags = span.tags
        size = len(values) + len(tags)
        try:
            values.update(zip(map(self._clean.__getitem__, tags), tags.values(), strict=True))
        except KeyError:
            if len(self._clean) + len(tags) > MEMO_ENTRIES_MAX:
                self._clean.clear()
            self._clean.update({key: naming.clean_key(key) for key in tags})
            values.update({self._clean[key]: value for key, value in tags.items()})
        is_whole = len(values) == size and len(entry[1]) == len(span.head)
        return values if is_whole else None

    def _fits(self, key: str) -> bool:
        if key in self._fitting:
            return True
        fits = _fit_key(key, {}) == key
        if fits:
            if len(self._fitting) >= MEMO_ENTRIES_MAX:
                self._fitting.clear()
            self._fitting.add(key)
        return fits

    def _learn_head(self, head: tuple[Tag, ...]) -> tuple[tuple[Tag, ...], dict[str, str]]:
        if len(self._heads) >= MEMO_ENTRIES_MAX:
            self._heads.clear()
        entry = self._heads[id(head)] = head, dict(head)
        return entry

    def _learn_shape(self, shape: LineShape) -> _ShownShape:
        if len(self._shapes) >= MEMO_ENTRIES_MAX:
            self._shapes.clear()
        fixed = {naming.clean_key(key): value for key, value in shape.fixed}
        keys = tuple(naming.clean_key(key) if key else "" for key in shape.keys)
        entry = self._shapes[id(shape)] = _ShownShape(shape, fixed, keys)
        return entry

    def _settle_usual(
        self, span: WavefrontSpan, before: dict[str, str], subject: Subject, repairs: Repairs
    ) -> WavefrontSpan | None:
        """``settle`` for a span whose head and parent are as they were and whose new values need no care."""
        after = subject.values
        if not subject.is_indexed_alone or len(after) >= SPAN_TAGS_MAX:
            return None
        if subject.source != span.source or self._red_keys:
            return None
        if subject.name == span.name and after == before and [*after] == [*before]:
            return span
        first = len(span.head) + (span.parent_id is not None)
        if [*islice(after.items(), first)] != [*islice(before.items(), first)]:
            return None
        tags = dict(islice(after.items(), first, None))
        if not _HEAD_KEYS.isdisjoint(tags):
            # New on a span whose head has no such tag, so that its identity or kind changes.
            return None
        known = before.get
        for key in [key for key, value in tags.items() if known(key) is not value]:
            if not (self._fits(key) and _is_simple(tags[key])):
                return None
        identity = span.identity
        component = tags.get("component", identity.component)
        status = tags.get("http.status_code")
        if status is None:
            status = next((v for k, v in after.items() if k.lower() == "http.status_code"), "")
        return WavefrontSpan(
            identity if component == identity.component else identity._replace(component=component),
            span.name if subject.name == span.name else _fit_name(subject.name, repairs),
            span.source,
            span.trace_id,
            span.span_id,
            span.parent_id,
            span.kind,
            status,
            span.error or tag_says_error(tags.get("error")),
            span.start_ms,
            span.duration_ms,
            span.duration_us,
            span.head,
            tags,
            True,
            None,
            (),
            span.start_us,
            (),
            span.red,
            tags.get("debug") == "true",
            (),
            span.logs,
            span.secondary_id,
        )

    def _pass_listed(self, span: WavefrontSpan, repairs: Repairs) -> WavefrontSpan | None:
        before = shown_tags(span)
        subject = subject_of(span, before)
        if not self.rules.apply(subject):
            return None
        if (
            subject.annotations == before
            and subject.name == span.name
            and subject.source == span.source
        ):
            return span
        return settle(span, before, subject, self._red_keys, repairs)


def shown_tags(span: WavefrontSpan) -> list[Tag]:
    """The tags of a span's line in their order, keys cleaned, values whole."""
    clean = naming.clean_key
    tags = [*span.head]
    if span.parent_id is not None:
        tags.append(("parent", naming.uuid(span.parent_id)))
    tags += [(clean(key), value) for key, value in span.tags.items()]
    tags += span.tail
    if span.oversize:
        tags = [(key, span.oversize.get(key, value)) for key, value in tags]
    return tags


def subject_of(span: WavefrontSpan, tags: list[Tag]) -> Subject:
    """``tags`` are ``shown_tags`` of the span; the subject gets a list of its own."""
    return Subject(
        span.name, span.source, [*tags], start_ms=span.start_ms, duration_ms=span.duration_ms
    )


def settle(
    span: WavefrontSpan,
    before: list[Tag],
    subject: Subject,
    red_keys: tuple[str, ...],
    repairs: Repairs,
) -> WavefrontSpan:
    """The span that a changed subject stands for, within Wavefront's limits.

    ``before`` are the tags that the rules were shown: what they left alone needs no second look.
    """
    oversize: dict[str, str] = {}
    tags, plain = _fit_tags(span, before, subject.annotations, oversize, repairs)
    last = dict(tags)
    first, repeated = last, tuple[Tag, ...]()
    if len(last) != len(tags):
        first, repeated = _part_repeats(tags)
    identity = span.identity
    own_source = identity.source == span.source
    source = span.source
    if subject.source != source:
        source = clean_source(subject.source, repairs)
    status = last.get("http.status_code")
    if status is None:
        status = next((value for key, value in tags if key.lower() == "http.status_code"), "")
    return WavefrontSpan(
        # What a rule takes away keeps the value of the mapping, as in the proxy.
        identity=Identity(
            last.get("application", identity.application),
            last.get("service", identity.service),
            last.get("cluster", identity.cluster),
            last.get("shard", identity.shard),
            last.get("component", identity.component),
            source if own_source else identity.source,
        ),
        name=span.name if subject.name == span.name else _fit_name(subject.name, repairs),
        source=source,
        trace_id=span.trace_id,
        span_id=span.span_id,
        parent_id=None,
        kind=last.get("span.kind", span.kind),
        http_status=status,
        error=span.error or tag_says_error(last.get("error")),
        start_ms=span.start_ms,
        duration_ms=span.duration_ms,
        duration_us=span.duration_us,
        start_us=span.start_us,
        head=(),
        tags=first,
        tail=repeated,
        plain=plain,
        red=span.red,
        debug=last.get("debug") == "true",
        red_tags=tuple((key, last[key]) for key in red_keys if key in last),
        logs=span.logs,
        secondary_id=span.secondary_id,
        oversize=oversize or None,
    )


def _is_simple(value: str) -> bool:
    """Whether a line takes a value as it stands."""
    return value.isascii() and tagging.is_simple(value) and '"' not in value and "\n" not in value


def _part_repeats(tags: Sequence[Tag]) -> tuple[dict[str, str], tuple[Tag, ...]]:
    """First occurrences, and the others in their order."""
    first: dict[str, str] = {}
    repeated: list[Tag] = []
    for key, value in tags:
        if key in first:
            repeated.append((key, value))
        else:
            first[key] = value
    return first, tuple(repeated)


def _fit_name(name: str, repairs: Repairs) -> str:
    text = name.strip().replace("*", "-") or "unknown_operation"
    if naming.length(text) > NAME_LENGTH_MAX:
        count(repairs, "name_cut")
        text = naming.cut(text, NAME_LENGTH_MAX)
    return naming.guard_end(text) if len(text) < NAME_LENGTH_MAX else text.rstrip("\\")


def _fit_tags(
    span: WavefrontSpan,
    before: list[Tag],
    after: Sequence[Tag],
    oversize: dict[str, str],
    repairs: Repairs,
) -> tuple[list[Tag], bool]:
    """Tags that every Wavefront takes, and whether their values may be written as they stand.

    Keys and values come from an operator's file as well as from a client.  A tag is known to be fine by its identity:
    it was shown to the rules and they left it alone; only values that the mapping had cut are shown whole.
    """
    keep_whole = span.oversize is not None
    untouched = set() if keep_whole else set(map(id, before))
    # What the head and the tail say is quoted there, and stands among the tags from now on.
    plain = span.plain and not any(
        '"' in value or "\n" in value for _, value in (*span.head, *span.tail)
    )
    fitted = list(after)
    # From the end, so that leaving one out moves none that is still to come.
    for at in [at for at, tag in enumerate(after) if id(tag) not in untouched][::-1]:
        key, value = fitted[at]
        if not value.strip():
            count(repairs, "blank_value")
            del fitted[at]
            continue
        name = _fit_key(key, repairs)
        written = tagging.clean_value(value, repairs)
        if keep_whole and len(written) < len(value.strip()):
            oversize[name] = value
        plain = plain and '"' not in written and "\n" not in written
        fitted[at] = (name, written)
    # One is left for the tag that the writer adds to spans with logs.
    if len(fitted) >= SPAN_TAGS_MAX:
        count(repairs, "tag_budget", len(fitted) - SPAN_TAGS_MAX + 1)
        del fitted[SPAN_TAGS_MAX - 1 :]
    return fitted, plain


def _fit_key(key: str, repairs: Repairs) -> str:
    name = key
    if not key or key.isdigit() or key in ("source", "host", "traceId", "spanId"):
        name = "_" + key
    name = naming.clean_key(name)[:TAG_KEY_LENGTH_MAX]
    if name != key:
        count(repairs, "key_changed")
    return name
