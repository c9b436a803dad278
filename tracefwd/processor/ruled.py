"""An operator's preprocessor rules between mapping and sampling, as in the Wavefront proxy.

A mapped span is shown to the rules as the proxy would hold it (name, source, tags in the line's order, whole values
even where the mapping has cut them), and what they leave is held to Wavefront's limits again.  RED, sampling and lines
use the values after the rules.  A span that no rule changed stays the very span it was, plain path and all.

Two differences to the proxy, both to the span's good: what its validation would refuse after a rule is repaired and
counted, and a rule sees what the mapping has already repaired.  Pure but for the rules' own counts.
"""

from collections.abc import Sequence

from tracefwd import naming
from tracefwd.limits import NAME_LENGTH_MAX, SPAN_TAGS_MAX, TAG_KEY_LENGTH_MAX
from tracefwd.model import Decoded, Identity, Mapped, Mapper, WavefrontSpan
from tracefwd.processor import tags as tagging
from tracefwd.processor.outcome import tag_says_error
from tracefwd.processor.rules.rule_set import RuleSet
from tracefwd.processor.rules.subject import Subject
from tracefwd.processor.tags import Repairs, count
from tracefwd.processor.workload import clean_source

Tag = tuple[str, str]


class RuledMapper:
    """A mapper and the rules behind it.  Rules may be exchanged at any time between two bodies."""

    def __init__(self, mapper: Mapper, rules: RuleSet, red_keys: Sequence[str]) -> None:
        self._map = mapper
        self.rules = rules
        self._red_keys = tuple(red_keys)
        # Bounded by the rule ids of all files that were ever loaded: an operator's doing.
        self._past: dict[tuple[str, ...], float] = {}

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

    def exchange(self, rules: RuleSet) -> None:
        """Go on with other rules; what the old ones counted stays counted."""
        self._past = self.samples()
        self.rules = rules

    def samples(self) -> dict[tuple[str, ...], float]:
        """(rule, result) -> spans, since the start."""
        total = dict(self._past)
        for rule, counts in self.rules.counts().items():
            for result, number in (
                ("checked", counts.checked),
                ("applied", counts.hits),
                ("failed", counts.failed),
                ("blocked", counts.blocked),
            ):
                total[rule, result] = total.get((rule, result), 0) + number
        return total

    def _pass(self, span: WavefrontSpan, repairs: Repairs) -> WavefrontSpan | None:
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
    plain = span.plain
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
