"""Labels become the end of a point's line: filters, the tags that everybody gets, cleaning, the budget.

    labels over source tags -> source's filters -> cluster, metrics.tags -> metrics.filters -> cleaning -> text

``TagRules`` is for the default mode; ``collector.py`` has the collector's cleaning.  What is taken off or changed is
counted by ``limits.REPAIR_KINDS``; a point is never lost here but by a filter.  Pure.
"""

import re
from collections.abc import Iterable

from msgspec import Struct

from tracefwd import naming
from tracefwd.limits import (
    POINT_TAG_KEY_LENGTH_MAX,
    POINT_TAG_PAIR_LENGTH_MAX,
    SOURCE_LENGTH_MAX,
)
from tracefwd.metricspath.filters import Filter, Tags
from tracefwd.metricspath.memo import remember
from tracefwd.settings import MetricsSettings, PrometheusSourceSettings

# What Go's TrimSpace takes off.
BLANKS = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)
# Values that say nothing; Istio writes "-" for absent response flags.
EMPTY_VALUES = frozenset({"", "-", "/"})
# A value that fits beside any key that does.
_FITS_ALWAYS = POINT_TAG_PAIR_LENGTH_MAX - POINT_TAG_KEY_LENGTH_MAX
CLUSTER = "cluster"
# Stands in for a source of blanks; Wavefront takes no point without one.
DEFAULT_SOURCE = "prom_source"
NODE = "nodename"
# Wavefront's reader would take these for the point's own source, or rename them so by itself (``tag``).
_RESERVED = frozenset({"host", "source", "tag"})
_PLAIN_KEY = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*", re.ASCII).fullmatch
_NAME_BAD = re.compile(r"[^,\-./0-9A-Za-z_]")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")
# Above the budget tags go in this order: what names a rollout or a chart first, then what labels of pods usually bear
# (a domain such as istio_io), the pod, which instance names too, and any other.
_FIRST_TO_GO = (
    re.compile(r"pod_template_hash"),
    re.compile(r"helm_sh_chart"),
    re.compile(r"app_kubernetes_io_"),
    re.compile(r"install_"),
    re.compile(r"operator_"),
    re.compile(r"sidecar_"),
    re.compile(r"\w+_(?:io|k8s|dev)_"),
    re.compile(r"kubernetes_pod_name"),
    re.compile(r""),
)
# The dashboards select and group by these.
_LAST_TO_GO = frozenset(
    {
        "_tag",
        "app",
        "destination_workload",
        "destination_workload_namespace",
        "instance",
        "le",
        "quantile",
        "reporter",
        "response_code",
        "source_workload",
        "source_workload_namespace",
        "type",
        "version",
    }
)


class Rendered(Struct, gc=False):
    """The end of a line that needs more than being written: refused (``reason``), or changed (``repairs``)."""

    text: str
    reason: str = ""
    repairs: dict[str, int] | None = None


class TagRules:
    """From labels to the end of a line; one per source.  ``filters`` are the source's, then everybody's."""

    def __init__(
        self,
        source: PrometheusSourceSettings,
        metrics: MetricsSettings,
        filters: tuple[Filter, Filter],
    ) -> None:
        self._own = {key: value for key, value in source.tags.items() if value}
        self._source = source.source or metrics.source or DEFAULT_SOURCE
        self._cluster = metrics.cluster
        self._common = {key: value for key, value in metrics.tags.items() if key != CLUSTER}
        self._filter, self._common_filter = filters
        self._tags_max = metrics.tags_max
        # Keys that are fine; values -> what is written, "" if they say nothing.
        self._keys: Tags = {}
        self._values: Tags = {}
        self._sources: Tags = {}
        self._guaranteed = frozenset(key for each in filters for key in each.guaranteed)
        self._guaranteed_everywhere = frozenset(self._common_filter.guaranteed)

    def render(self, labels: Tags) -> str | Rendered:
        """`` source="s" "k"="v" …``, tags sorted; a ``Rendered`` where there is more to say."""
        tags = self._own | {key: value for key, value in labels.items() if value}
        reason = self._filter.judge_tags(tags)
        if reason:
            return Rendered("", reason)
        tags = {**self._filter.keep(tags), **self._common, CLUSTER: self._cluster}
        reason = self._common_filter.judge_tags(tags)
        if reason:
            return Rendered("", reason)
        return self._write(self._common_filter.keep(tags))

    def _write(self, tags: Tags) -> str | Rendered:
        repairs: dict[str, int] = {}
        source = tags.get(NODE, "") or self._source
        shown = self._sources.get(source) or self._show_source(source, repairs)
        tags[CLUSTER] = self._cluster
        keys, values = self._keys, self._values
        pairs: Tags = {}
        for key, raw in tags.items():
            value = values.get(raw)
            if value is None or key not in keys:
                key, value = self._clean(key, raw, tags, pairs, repairs)
            if value:
                pairs[key] = value
        if len(pairs) > self._tags_max:
            self._fit(pairs, repairs)
        text = f' source="{shown}"{write_pairs(sorted(pairs.items()))}'
        return Rendered(text, "", repairs) if repairs else text

    def _clean(
        self, key: str, raw: str, tags: Tags, taken: Tags, repairs: dict[str, int]
    ) -> tuple[str, str]:
        """Key and quoted value as Wavefront takes them, "" for a value that says nothing; remembers what was fine."""
        value = raw.strip(BLANKS)
        if value in EMPTY_VALUES:
            remember(self._values, raw, "", length=len(raw))
            return key, ""
        name = key
        if key in _RESERVED or len(key) > POINT_TAG_KEY_LENGTH_MAX or not _PLAIN_KEY(key):
            name = _clean_key(key, tags, taken)
            if name != key:
                _count(repairs, "key_changed")
        else:
            remember(self._keys, key, key, length=len(key))
        room = POINT_TAG_PAIR_LENGTH_MAX - len(name)
        if len(value) > room or not value.isprintable() or not value.isascii():
            value = _clean_value(value, room, repairs)
        elif value[-1] != "\\" and len(value) <= _FITS_ALWAYS:
            remember(self._values, raw, naming.quoted(value), length=len(raw))
        if value[-1] == "\\":
            _count(repairs, "trailing_backslash")
            value = naming.guard_end(naming.cut(value, room - 1))
        return name, naming.quoted(value)

    def _show_source(self, text: str, repairs: dict[str, int]) -> str:
        source = _CONTROL.sub(" ", text).strip(BLANKS)
        if naming.length(source) > SOURCE_LENGTH_MAX:
            source = naming.cut(source, SOURCE_LENGTH_MAX)
            _count(repairs, "source_cut")
            return naming.quoted(naming.guard_end(source))
        shown = naming.quoted(naming.guard_end(source)) or DEFAULT_SOURCE
        remember(self._sources, text, shown, length=len(text))
        return shown

    def _fit(self, pairs: Tags, repairs: dict[str, int]) -> None:
        """Take off tags until the rest is within the budget; the cluster is the last to go."""
        for key in sorted(pairs, key=self._worth):
            if len(pairs) <= self._tags_max:
                return
            del pairs[key]
            _count(repairs, "tag_budget")

    def _worth(self, key: str) -> tuple[int, str]:
        if key == CLUSTER:
            return len(_FIRST_TO_GO) + 2, key
        if key in self._guaranteed:
            return len(_FIRST_TO_GO) + 1, key
        if key in _LAST_TO_GO:
            return len(_FIRST_TO_GO), key
        return next(rank for rank, rule in enumerate(_FIRST_TO_GO) if rule.match(key)), key


def write_pairs(pairs: Iterable[tuple[str, str]]) -> str:
    """Keys and values that are clean and quoted already."""
    return "".join([f' "{key}"="{value}"' for key, value in pairs])


def wire_name(text: str) -> str:
    """A metric's name or a tag's key within Wavefront's alphabet; every other byte becomes a dash.

    Slashes and commas pass (between quotes they may), and a leading ``~``, ``∆`` or ``Δ``.
    """
    lead = 1 if text[:1] in ("~", "\u2206", "\u0394") else 0
    return text[:lead] + _NAME_BAD.sub(lambda match: "-" * len(match[0].encode()), text[lead:])


def _clean_key(key: str, tags: Tags, taken: Tags) -> str:
    """A key that Wavefront takes and that no other tag of the point has."""
    name = wire_name(key) or "_"
    if name in _RESERVED or name.isdigit():
        # A key of digits ends the tags for some readers.
        name = f"_{name}"
    name = name[:POINT_TAG_KEY_LENGTH_MAX]
    stem, number = name, 2
    while name != key and (name in tags or name in taken):
        tail = f"_{number}"
        name = stem[: POINT_TAG_KEY_LENGTH_MAX - len(tail)] + tail
        number += 1
    return name


def _clean_value(value: str, length_max: int, repairs: dict[str, int]) -> str:
    spaced = _CONTROL.sub(" ", value)
    if spaced != value:
        _count(repairs, "control_character")
    # A line feed is written as two characters.
    if naming.length(spaced) + spaced.count("\n") > length_max:
        spaced = naming.cut(spaced.replace("\n", " "), length_max)
        _count(repairs, "value_cut")
    return spaced.strip(BLANKS) or "_"


def _count(repairs: dict[str, int], kind: str) -> None:
    repairs[kind] = repairs.get(kind, 0) + 1
