"""What only Wavefront's collector for Kubernetes does: how it cleans tags, and where we do not follow it.

``metrics.mode: collector`` sends its names, values and tags.  ``DEVIATIONS`` is the list of what nobody should copy;
README's table is made from it, and each entry has a test that shows what we do instead.  Pure.
"""

import re

from tracefwd import naming
from tracefwd.metricspath.filters import Tags
from tracefwd.metricspath.tags import (
    BLANKS,
    EMPTY_VALUES,
    NODE,
    Rendered,
    TagRules,
    wire_name,
    write_pairs,
)

DEVIATIONS: dict[str, str] = {
    "bad_line": (
        "A bad line loses only itself, counted by reason (the collector loses the rest of its family, uncounted, and "
        "leaves the sums and counts of typed families at 0)."
    ),
    "unknown_type": (
        "A family of an unknown type, or with a second TYPE line, is sent, as untyped or by its first type, and "
        "the line is counted (the collector loses the family)."
    ),
    "crash": (
        "A typed histogram or summary whose first value cannot be read costs that line (the collector's process ends)."
    ),
    "cut_value": (
        "The last line of a body that ended early is thrown away, and the scrape has failed (the collector sends "
        "what is left of the line, `1234` as `12`, and counts a success)."
    ),
    "long_line": (
        "A line above 65,535 bytes is skipped and counted (the collector ends the scrape there, silently)."
    ),
    "byte_order_mark": "A byte order mark is skipped (the collector loses the first family).",
    "bad_glob": (
        "A glob that cannot be meant stops the start: one that does not compile, an unbalanced brace, a backslash "
        "at the end (the collector drops the whole list silently, or swallows the entries after it)."
    ),
    "glob_library": (
        "Globs match what they say (in the collector the texts around a `*` may overlap, lists whose patterns share "
        "their first or last piece may miss or end the process, nested braces may miss)."
    ),
    "trailing_backslash": (
        "A tag value that ends in a backslash gets a full stop (the collector's line cannot be read back)."
    ),
    "own_names": (
        "Two sources of one name, or of one URL and no name, stop the start (the collector's second replaces the "
        "first)."
    ),
}

# The collector's own budget, and what it takes off whatever the budget.
_TAGS_MAX = 17
_TAKEN_OFF = frozenset({"namespace_id", "host_id", "pod_id", "hostname"})
_DUPLICATE_LENGTH_MIN = 5
# Its expressions as they stand: the alternatives and the stars are not what they were meant to be.
_LABEL = re.compile(r"label.*")
_ALPHA_BETA = re.compile(r"^label.*beta|alpha*")
_CLOUD = re.compile(r"^label.*gke|azure|eks*")


class CollectorTags(TagRules):
    """Cleans as the collector's sink does: no limits, no reserved names, only ``label.*`` is ever too much."""

    def _write(self, tags: Tags) -> str | Rendered:
        source = tags.get(NODE) or self._source
        kept = {
            key: value
            for key, value in tags.items()
            if value not in EMPTY_VALUES and key not in _TAKEN_OFF
        }
        self._prune(kept)
        pairs = [(wire_name(key), value.strip(BLANKS)) for key, value in sorted(kept.items())]
        guarded = [(key, naming.quoted(naming.guard_end(value))) for key, value in pairs]
        source = naming.guard_end(source.strip(BLANKS))
        text = f' source="{naming.quoted(source)}"{write_pairs(guarded)}'
        number = sum(1 for _, value in pairs if value.endswith("\\"))
        return Rendered(text, "", {"trailing_backslash": number}) if number else text

    def _prune(self, tags: Tags) -> None:
        """Take off ``label.*`` tags above the collector's budget, in its order."""
        labels = {
            key: value
            for key, value in tags.items()
            if _LABEL.match(key) and key not in self._guaranteed_everywhere
        }
        excess = len(tags) - _TAGS_MAX
        if excess <= 0:
            return
        order = _duplicates(labels)
        for rule in (_ALPHA_BETA, _CLOUD, _LABEL):
            order += [key for key in sorted(labels) if key not in order and rule.search(key)]
        duplicates = len(_duplicates(labels))
        for number, key in enumerate(order):
            # Duplicates go all together, the rest one by one.
            if number >= duplicates and len(tags) <= _TAGS_MAX:
                return
            del tags[key]


def _duplicates(labels: Tags) -> list[str]:
    """Keys whose value another key has as well; the better key of each value stays."""
    keepers: dict[str, str] = {}
    gone: list[str] = []
    for key in sorted(labels):
        value = labels[key]
        if len(value.encode()) < _DUPLICATE_LENGTH_MIN:
            continue
        other = keepers.get(value)
        if other is None:
            keepers[value] = key
            continue
        keep, remove = _better(key, other)
        gone.append(remove)
        keepers[value] = keep
    return gone


def _better(key: str, other: str) -> tuple[str, str]:
    if _ALPHA_BETA.search(key):
        return other, key
    if _ALPHA_BETA.search(other):
        return key, other
    return (key, other) if (len(key), key) < (len(other), other) else (other, key)
