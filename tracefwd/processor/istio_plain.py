"""The plain path of the profile ``istio``: for what Envoys write all day, and fast because it looks at little.

It takes a span that its decoder has proven plain, whose tags' keys need no care, and which is an ordinary success.
What such spans of one workload, kind and set of keys share is worked out once (``shapes.py``); the values that differ
are picked by place and passed through untouched.  Every other span is left to the complete path (``istio.py``);
property tests hold that both give the same but for the order of tags, which says nothing in Wavefront.

Memo tables are bounded and can be emptied at any time.  Pure.
"""

from typing import Any

from msgspec.structs import astuple

from tracefwd.limits import (
    FUTURE_START_MS_MAX,
    MEMO_ENTRIES_MAX,
    SPAN_TAGS_MAX,
)
from tracefwd.model import PlainSpan, Span, WavefrontSpan
from tracefwd.processor import tags as tagging
from tracefwd.processor.operations import Operations
from tracefwd.processor.outcome import Verdicts
from tracefwd.processor.shapes import Layout, Shapes
from tracefwd.processor.tags import Repairs, count
from tracefwd.processor.workload import KINDS, Workload, Workloads, is_small
from tracefwd.settings import MappingSettings
from tracefwd.tag_record import TagRecord

CORE_ANNOTATIONS = frozenset({"cs", "cr", "ss", "sr"})
FUTURE_US = FUTURE_START_MS_MAX * 1000
# Never passed through unseen: the complete path has a rule for them.
WATCHED = (
    tagging.RESERVED
    | tagging.URL_KEYS - {"http.url"}
    | {"error", "debug", *tagging.HTTP_STATUS_KEYS[1:], *tagging.GRPC_STATUS_KEYS[1:]}
)
# Head, parent and what the writer adds take at most twelve.
_PLAIN_TAGS_MAX = SPAN_TAGS_MAX - 12
# A decoder makes a new record when it has learned a key; of each of the four decoders only the newest is in use.
_LAYOUTS_MAX = 8


def has_logs(span: Span, mode: str) -> bool:
    """Whether its annotations become span logs (``mapping.span_logs``)."""
    found = span.annotations
    if not found or mode == "none":
        return False
    if mode == "auto" and len(found) == 1:
        return found[0].value not in CORE_ANNOTATIONS
    return True


class PlainPath:
    """Shares the complete path's tables of workloads, operations and verdicts."""

    def __init__(
        self,
        mapping: MappingSettings,
        workloads: Workloads,
        operations: Operations,
        verdicts: Verdicts,
    ) -> None:
        self._workloads = workloads
        self._operations = operations
        self._failed = verdicts.failed
        # The status that needs no further look, if an operator has not made it an error.
        self._ok = None if verdicts.rules.failed("SERVER", "200", None, "-") else "200"
        self._url = tagging.url_rule(mapping.url_query)
        self._span_logs = mapping.span_logs
        # A span's only annotation, if it is one of these, makes no span log.
        self._noise = CORE_ANNOTATIONS if mapping.span_logs == "auto" else frozenset[str]()
        self._layouts: dict[type[TagRecord], Layout] = {}
        self._shapes = Shapes(WATCHED, _PLAIN_TAGS_MAX)

    def map(self, span: PlainSpan, now_us: int, repairs: Repairs) -> WavefrontSpan | None:
        """A plain span that is an ordinary success; None leaves it to the complete path."""
        tags = span.tags
        values = astuple(tags)
        layout = self._layouts.get(tags.__class__) or self._lay_out(tags.__class__)
        local = span.local
        # One post is one Envoy's, so that comparing with the last span's saves hashing eight texts.
        said = (layout.pick_workload(values), local.service_name, local.ipv4)
        if said == layout.last_said:
            workload = layout.last_workload
        else:
            workload = layout.workloads.get(said) or self._learn_workload(said, span, layout)
            layout.last_said, layout.last_workload = said, workload
        raw_kind = span.kind
        shape = workload.shapes.get(raw_kind)
        if (
            shape is None
            or (pattern := shape.pattern).layout is not layout
            or (varying := pattern.pick_varying(values)).count("") != pattern.empty_count
            or pattern.pick_empty(values) != pattern.nothing
        ):
            shape = self._shapes.find(workload, KINDS[raw_kind], layout, values)
            workload.shapes[raw_kind] = shape
            varying = shape.pattern.pick_varying(values)
        name = self._operations.plain.get(span.name)
        status = values[layout.status]
        timestamp_us = span.timestamp_us
        if (
            shape.line is None
            or name is None
            or not (
                # The usual answer, without a call.
                (status == self._ok and values[layout.flags] == "-" and not values[layout.grpc])
                or self._is_success(raw_kind, layout, values)
            )
            or timestamp_us > now_us + FUTURE_US
            or (
                (notes := span.annotations)
                and (len(notes) != 1 or notes[0].value not in self._noise)
                and has_logs(span, self._span_logs)
            )
        ):
            return None
        url = values[layout.url]
        if "?" in url or "@" in url:
            shown = url if self._url is None else self._url(url)
            if not tagging.is_simple(shown):
                return None
            if shown != url:
                count(repairs, "url_masked")
                tags = layout.with_url(tags, shown)
                varying = shape.pattern.pick_varying(astuple(tags))
        duration_us = span.duration_us
        return WavefrontSpan(
            workload.identity,
            name,
            workload.source,
            span.trace_id,
            span.span_id,
            span.parent_id,
            shape.kind,
            status,
            False,
            timestamp_us // 1000,
            duration_us // 1000,
            duration_us,
            shape.head,
            tags,
            True,
            shape.line,
            varying,
            timestamp_us,
        )

    def _is_success(self, kind: str | None, layout: Layout, values: tuple[str, ...]) -> bool:
        said = (values[layout.status], values[layout.grpc], values[layout.flags])
        status, grpc, flags = [text or None for text in said]
        return not self._failed(kind, status, grpc, flags)

    def _learn_workload(self, said: Any, span: PlainSpan, layout: Layout) -> Workload:
        if len(layout.workloads) >= MEMO_ENTRIES_MAX:
            layout.workloads.clear()
        workload = self._workloads.find(span, span.tags.as_dict())
        if is_small(said):
            layout.workloads[said] = workload
        return workload

    def _lay_out(self, record: type[TagRecord]) -> Layout:
        if len(self._layouts) >= _LAYOUTS_MAX:
            for old in self._layouts.values():
                old.forget()
            self._layouts.clear()
        layout = self._layouts[record] = Layout(record, self._workloads.memo_keys)
        return layout
