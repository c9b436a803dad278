"""A checked draft becomes a Wavefront span: which tag stands where, and what RED reads off it.

The tags' places matter only for repeated keys: on the proxy's line the mapping's own ids, parent, kind and service
come before the client's tags of the same name, ``debug`` and ``ipv4`` after them.  RED reads a repeated key's last
value.  Pure.
"""

from tracefwd import naming
from tracefwd.model import Identity, Reject, Span, WavefrontSpan
from tracefwd.processor import zipkin_rules
from tracefwd.processor.outcome import never_served
from tracefwd.processor.wavefront_proxy_rules import Draft, Repairs, SpanRules, bounded

Pairs = tuple[tuple[str, str], ...]


def head_of(draft: Draft, *, ipv4: bool) -> Pairs:
    """The tags that a workload's spans share, in the proxy's order."""
    head: list[tuple[str, str]] = []
    if draft.kind:
        head.append(("span.kind", draft.kind))
        if draft.annotations is not None:
            head.append(("_spanSecondaryId", draft.kind))
    head += [
        ("service", draft.service),
        ("application", draft.application),
        ("cluster", draft.cluster),
        ("shard", draft.shard),
    ]
    if ipv4 and draft.ipv4 is not None:
        head.append(("ipv4", draft.ipv4))
    return tuple(head)


def identity_of(draft: Draft, service: str, component: str) -> Identity:
    return Identity(draft.application, service, draft.cluster, draft.shard, component, draft.source)


def is_entry(span: Span, tags: dict[str, str]) -> bool:
    """Whether no server's span counts the same call (``red.spans: entry``)."""
    return span.kind != "CLIENT" or span.parent_id is None or never_served(tags)


class SpanMaker:
    """Takes any span through the rules; ``red_keys`` are the operator's RED dimensions by cleaned key."""

    def __init__(self, rules: SpanRules, red_keys: tuple[str, ...], *, entry_only: bool) -> None:
        self._rules = rules
        self._red_keys = red_keys
        self._entry_only = entry_only
        self._heads: dict[Pairs, Pairs] = {}

    def make(
        self, span: Span, now_us: int, repairs: Repairs, *, kind_known: bool
    ) -> tuple[WavefrontSpan, Reject | None]:
        """The span as RED counts it, and why it can go no further, if so."""
        rules = self._rules
        draft = rules.draft(span, now_us, repairs, kind_known=kind_known)
        debug = span.debug is True and not draft.debug_tag
        if rules.deviations.tag_budget:
            # A cut value brings the tag _spanLogs, and is found only after this.
            rules.spend_budget(draft, self._count(span, draft, debug, logs=True), repairs)
        count = self._count(span, draft, debug, logs=draft.annotations is not None)
        refusal = rules.check(draft, count, now_us, repairs)
        return self._finished(span, draft, debug), refusal

    def intern(self, head: Pairs) -> Pairs:
        """One object for equal heads: the writer renders each object once."""
        found = self._heads.get(head)
        if found is None:
            found = bounded(self._heads)[head] = head
        return found

    def _count(self, span: Span, draft: Draft, debug: bool, *, logs: bool) -> int:
        """How many tags the line will have; six are on every line."""
        count = 6 + len(draft.own) + debug + (draft.ipv4 is not None) + (span.parent_id is not None)
        if draft.kind:
            count += 1 + (draft.annotations is not None)
        return count + (logs and self._rules.span_logs)

    def _finished(self, span: Span, draft: Draft, debug: bool) -> WavefrontSpan:
        span_logs = self._rules.span_logs
        logged = draft.annotations is not None
        last = {key: value for _, key, value in draft.own}
        tags, tail = self._placed(span, draft, debug)
        oversize = draft.oversize if draft.oversize and span_logs else None
        # The log of cut values takes over what the line says, the log of annotations the kind.
        secondary_id = draft.kind if logged else last.get("_spanSecondaryId", "")
        return WavefrontSpan(
            identity=identity_of(
                draft, last.get("service", draft.service), last.get("component", "none")
            ),
            name=draft.name,
            source=draft.source,
            trace_id=span.trace_id,
            span_id=span.span_id,
            parent_id=span.parent_id,
            kind=last.get("span.kind", draft.kind),
            http_status=_status(draft),
            error=draft.error,
            start_ms=draft.start_ms,
            duration_ms=draft.duration_us // 1000,
            duration_us=draft.duration_us,
            head=self.intern(head_of(draft, ipv4="ipv4" not in tags)),
            tags=tags,
            tail=tail,
            red=not self._entry_only or is_entry(span, tags),
            debug=debug or last.get("debug") == "true",
            red_tags=self._red_tags(span, draft, last, debug) if self._red_keys else (),
            logs=draft.annotations if span_logs else None,
            secondary_id=(secondary_id or None) if logged or oversize else None,
            oversize=oversize,
        )

    def _placed(self, span: Span, draft: Draft, debug: bool) -> tuple[dict[str, str], Pairs]:
        """Tags and tail.  The tail holds second occurrences that must come after the client's tag of the same name."""
        own_logs = draft.annotations is not None and self._rules.span_logs
        tags = {
            "zipkinSpanId": span.span_id,
            "zipkinTraceId": zipkin_rules.trace_id(span.trace_id),
        }
        tail: list[tuple[str, str]] = []
        for raw, key, value in draft.own:
            if raw in tags:
                tail.append((raw, value))
            elif key != "_spanLogs" or not draft.oversize:
                tags[raw] = value
            elif own_logs:
                # For a cut value the proxy sets the first such tag; the writer adds the other.
                tags[raw] = "true"
        if debug:
            tail.append(("debug", "true"))
        if "ipv4" in tags and draft.ipv4 is not None:
            tail.append(("ipv4", draft.ipv4))
        return tags, tuple(tail)

    def _red_tags(self, span: Span, draft: Draft, last: dict[str, str], debug: bool) -> Pairs:
        """The operator's dimensions; the mapping's own tags may be among them."""
        found = {
            "zipkinSpanId": span.span_id,
            "zipkinTraceId": zipkin_rules.trace_id(span.trace_id),
        }
        if span.parent_id is not None:
            found["parent"] = naming.uuid(span.parent_id)
        if draft.kind and draft.annotations is not None:
            found["_spanSecondaryId"] = draft.kind
        found |= last
        if debug:
            found["debug"] = "true"
        if draft.ipv4 is not None:
            found["ipv4"] = draft.ipv4
        if self._rules.span_logs and (draft.annotations is not None or draft.oversize):
            found["_spanLogs"] = "true"
        return tuple((key, found[key]) for key in self._red_keys if key in found)


def _status(draft: Draft) -> str:
    """``http.status_code`` in any case, the last one; cleaned keys are ASCII, where case is simple."""
    status = ""
    for _, key, value in draft.own:
        if len(key) == 16 and key.lower() == "http.status_code":
            status = value
    return status
