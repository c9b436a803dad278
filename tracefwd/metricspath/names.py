"""Which family a sample belongs to, and what its point is called.

    untyped   name.value                   gauge  name.gauge       counter  name.counter
    summary   name (tag quantile), name.count, name.sum
    histogram name.bucket (tag le), name.count, name.sum

Every ``_`` of a name becomes a dot.  Of OpenMetrics' own types ``unknown`` is untyped, ``info`` and ``stateset`` are
gauges, and what comes without a type of its own (``x_created``, ``x_gcount``) is a gauge, as in the text format.

``Names`` lasts as long as its source and remembers; ``FamilyReader`` is one body's state: the types that its TYPE lines
gave.  The same for both modes but for two things that only the collector does: any comment ends what TYPE lines said
before it, and typed histograms and summaries are put together before they are sent (``is_grouped``).  Pure.
"""

from collections.abc import Callable

from tracefwd.limits import MEMO_ENTRIES_MAX, POINT_NAME_LENGTH_MAX
from tracefwd.metricspath.globs import Globs
from tracefwd.metricspath.memo import remember
from tracefwd.metricspath.parser import NAME, Comment
from tracefwd.metricspath.tags import wire_name
from tracefwd.settings import MetricsSettings, PrometheusSourceSettings

_TEXT_TYPES = frozenset({"counter", "gauge", "histogram", "summary", "untyped"})
_TYPES = _TEXT_TYPES | {"gaugehistogram", "info", "stateset", "unknown"}
_ENDINGS = {
    "counter": ".counter",
    "gauge": ".gauge",
    "info": ".gauge",
    "stateset": ".gauge",
    "unknown": ".value",
    "untyped": ".value",
}
# (type of the family, ending of the sample's name) -> part of the family.
_PARTS = {
    ("histogram", "_bucket"): "bucket",
    ("histogram", "_count"): "count",
    ("histogram", "_sum"): "sum",
    ("summary", "_count"): "count",
    ("summary", "_sum"): "sum",
    ("gaugehistogram", "_bucket"): "bucket",
    ("gaugehistogram", "_gcount"): "gauge",
    ("gaugehistogram", "_gsum"): "gauge",
}
_OPENMETRICS_PARTS = {
    ("counter", "_total"): "counter",
    ("counter", "_created"): "gauge",
    ("histogram", "_created"): "gauge",
    ("summary", "_created"): "gauge",
    ("info", "_info"): "gauge",
}
_LABELS = {"bucket": "le", "quantile": "quantile"}
_GROUPED = {"histogram", "summary"}


class NamePlan:
    """What becomes of all samples of one name in a family of one type.

    ``final`` is the name that filters see, ``wire`` the quoted one of the line.  ``reason`` is "" or why its samples
    are dropped.  ``label`` is the one whose number is printed anew.  ``part`` is the place in a histogram or summary.
    """

    __slots__ = (
        "family",
        "final",
        "is_delta",
        "is_grouped",
        "label",
        "part",
        "reason",
        "type",
        "wire",
    )

    def __init__(self, kind: str, family: str, part: str, final: str) -> None:
        self.type = kind
        self.family = family
        self.part = part
        self.final = final
        self.wire = ""
        self.reason = ""
        self.label = _LABELS.get(part, "")
        self.is_grouped = False
        self.is_delta = False


class Names:
    """Makes and remembers plans.  ``judge``: "" or why no point may have this name; ``seen`` hears each name once."""

    def __init__(
        self,
        source: PrometheusSourceSettings,
        metrics: MetricsSettings,
        judge: Callable[[str], str],
        seen: Callable[[str], None],
    ) -> None:
        self.is_collector = metrics.mode == "collector"
        self._strip = source.strip_prefix
        self._prefix = source.prefix
        # As the collector puts it before what its sink sends.
        common = metrics.prefix.strip(".")
        self._wire_prefix = f"{common}." if common else ""
        self._bucket = "" if metrics.omit_bucket_suffix else ".bucket"
        self._grouped = _GROUPED if self.is_collector else set()
        if source.convertHistograms:
            self._grouped = self._grouped | {"histogram"}
        self._converts = source.convertHistograms
        self._deltas = Globs(source.deltas.names)
        self._judge = judge
        self._seen = seen
        self.ignores_types = metrics.untyped
        self._plans: dict[tuple[str, str, str], NamePlan] = {}

    def plan(self, kind: str, family: str, part: str) -> NamePlan:
        """The plan for a part of a family of this type; a scalar's part is its own ending."""
        key = (kind, family, part)
        known = self._plans.get(key)
        if known is None:
            known = remember(self._plans, key, self._make(kind, family, part), length=len(family))
        return known

    def _make(self, kind: str, family: str, part: str) -> NamePlan:
        plan = NamePlan(kind, family, part, self._final(family, part))
        plan.is_grouped = kind in self._grouped and part in (
            "bucket",
            "count",
            "sum",
            "quantile",
            "none",
        )
        plan.reason = self._judge(plan.final)
        name = wire_name(self._wire_prefix + plan.final)
        if self._deltas.patterns and part not in ("gauge", "quantile", ".gauge"):
            plan.is_delta = self._deltas.matches(plan.final) and not plan.is_grouped
        mark = "\u2206" if plan.is_delta else ""
        plan.wire = f'"{mark}{name}"'
        if not self.is_collector and not plan.reason and len(plan.wire) - 2 > POINT_NAME_LENGTH_MAX:
            plan.reason = "name_too_long"
        self._seen(plan.final)
        return plan

    def _final(self, family: str, part: str) -> str:
        stem = self._prefix + family.removeprefix(self._strip).replace("_", ".")
        if part == "bucket":
            return stem + self._bucket
        if part in ("count", "sum"):
            return f"{stem}.{part}"
        if part == "quantile" or (part == "none" and self._converts):
            return stem
        return stem + part


class FamilyReader:
    """One body's types, and the plan for each of its names.

    ``known`` holds the plans that the hot loop may use without asking; it is valid until the next comment.
    """

    def __init__(self, names: Names, *, is_openmetrics: bool) -> None:
        self.known: dict[str, NamePlan] = {}
        self._names = names
        self._types: dict[str, str] = {}
        self._parts = _PARTS | (_OPENMETRICS_PARTS if is_openmetrics else {})
        self._kinds = _TEXT_TYPES if names.is_collector else _TYPES
        self._had_samples = False

    def begins(self, comment: Comment, *, is_indented: bool) -> bool:
        """Whether a comment ends what TYPE lines before it said."""
        counts = not is_indented if self._names.is_collector else comment.keyword == "TYPE"
        return counts and self._had_samples

    def comment(self, comment: Comment, *, is_indented: bool) -> str:
        """Take note of a comment; "" or the reason why it is a bad line."""
        if self.begins(comment, is_indented=is_indented):
            self._had_samples = False
            self._types.clear()
            self.known.clear()
        if comment.keyword != "TYPE" or not comment.name or not comment.text:
            return ""
        kind = comment.text.lower()
        if (
            not NAME.fullmatch(comment.name)
            or kind not in self._kinds
            or comment.name in self._types
            # Types without samples: no exporter's, and they would be kept until one comes.
            or len(self._types) >= MEMO_ENTRIES_MAX
        ):
            return "type"
        self._types[comment.name] = kind
        # Names that were looked up in this run of comments may belong to it.
        self.known.clear()
        return ""

    def plan(self, name: str) -> NamePlan:
        """The plan for a sample's name, which is one."""
        self._had_samples = True
        found = self.known.get(name)
        if found is None:
            found = remember(self.known, name, self._find(name), length=len(name))
        return found

    def value_plan(self, name: str) -> NamePlan:
        """The plan for a sample as if there were no types."""
        return self._names.plan("untyped", name, ".value")

    def _find(self, name: str) -> NamePlan:
        plan = self._names.plan
        if self._names.ignores_types or not self._types:
            return plan("untyped", name, ".value")
        kind = self._types.get(name)
        if kind in _ENDINGS:
            return plan(kind, name, _ENDINGS[kind])
        if kind == "summary":
            return plan(kind, name, "quantile")
        if kind == "histogram" and self._names.is_collector:
            return plan(kind, name, "none")
        if kind is not None:
            return plan("untyped", name, ".value")
        return self._find_part(name)

    def _find_part(self, name: str) -> NamePlan:
        stem, _, last = name.rpartition("_")
        kind = self._types.get(stem, "")
        part = self._parts.get((kind, f"_{last}"))
        if part is None:
            return self._names.plan("untyped", name, ".value")
        if part == "counter":
            return self._names.plan("counter", name, ".counter")
        if part == "gauge":
            return self._names.plan("gauge", name, ".gauge")
        return self._names.plan(kind, stem, part)
