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
from tracefwd.model import Decoded, Mapped, Mapper, WavefrontSpan
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
        return settle(span, subject, self._red_keys, repairs)


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
    span: WavefrontSpan, subject: Subject, red_keys: tuple[str, ...], repairs: Repairs
) -> WavefrontSpan:
    """The span that a changed subject stands for, within Wavefront's limits."""
    oversize: dict[str, str] = {}
    tags = _fit_tags(subject.annotations, span.oversize is not None, oversize, repairs)
    last = dict(tags)
    identity = span.identity
    own_source = identity.source == span.source
    source = clean_source(subject.source, repairs)
    first: dict[str, str] = {}
    repeated: list[Tag] = []
    for key, value in tags:
        if key in first:
            repeated.append((key, value))
        else:
            first[key] = value
    status = [value for key, value in tags if key.lower() == "http.status_code"]
    return WavefrontSpan(
        identity=identity._replace(
            # What a rule takes away keeps the value of the mapping, as in the proxy.
            application=last.get("application", identity.application),
            service=last.get("service", identity.service),
            cluster=last.get("cluster", identity.cluster),
            shard=last.get("shard", identity.shard),
            component=last.get("component", identity.component),
            source=source if own_source else identity.source,
        ),
        name=_fit_name(subject.name, repairs),
        source=source,
        trace_id=span.trace_id,
        span_id=span.span_id,
        parent_id=None,
        kind=last.get("span.kind", span.kind),
        http_status=status[-1] if status else "",
        error=span.error or tag_says_error(last.get("error")),
        start_ms=span.start_ms,
        duration_ms=span.duration_ms,
        duration_us=span.duration_us,
        head=(),
        tags=first,
        tail=tuple(repeated),
        red=span.red,
        debug=last.get("debug") == "true",
        red_tags=tuple((key, last[key]) for key in red_keys if key in last),
        logs=span.logs,
        secondary_id=span.secondary_id,
        oversize=oversize or None,
    )


def _fit_name(name: str, repairs: Repairs) -> str:
    text = name.strip().replace("*", "-") or "unknown_operation"
    if naming.length(text) > NAME_LENGTH_MAX:
        count(repairs, "name_cut")
        text = naming.cut(text, NAME_LENGTH_MAX)
    return naming.guard_end(text) if len(text) < NAME_LENGTH_MAX else text.rstrip("\\")


def _fit_tags(
    tags: Sequence[Tag], keep_whole: bool, oversize: dict[str, str], repairs: Repairs
) -> list[Tag]:
    """Tags that every Wavefront takes; keys and values come from an operator's file as well as from a client."""
    fitted: list[Tag] = []
    for key, value in tags:
        if value.isascii() and tagging.is_simple(value):
            fitted.append((_fit_key(key, repairs), value))
            continue
        if not value.strip():
            count(repairs, "blank_value")
            continue
        name = _fit_key(key, repairs)
        written = tagging.clean_value(value, repairs)
        if keep_whole and len(written) < len(value.strip()):
            oversize[name] = value
        fitted.append((name, written))
    # One is left for the tag that the writer adds to spans with logs.
    if len(fitted) >= SPAN_TAGS_MAX:
        count(repairs, "tag_budget", len(fitted) - SPAN_TAGS_MAX + 1)
        del fitted[SPAN_TAGS_MAX - 1 :]
    return fitted


def _fit_key(key: str, repairs: Repairs) -> str:
    name = key
    if not key or key.isdigit() or key in ("source", "host", "traceId", "spanId"):
        name = "_" + key
    name = naming.clean_key(name)[:TAG_KEY_LENGTH_MAX]
    if name != key:
        count(repairs, "key_changed")
    return name
