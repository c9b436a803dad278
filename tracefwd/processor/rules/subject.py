"""What rules may read and change: one span or one point, mutable, with its tags indexed.

A tag key may repeat, as on the Java proxy's spans.  ``annotations`` is the truth; ``values`` (first value by key) and
``repeats`` mirror it so that a rule that does not apply costs one lookup.  ``RuleSet.apply`` calls ``index`` on entry,
which makes them; rules change tags through the methods.

Nearly no span repeats a key: made of ``values`` alone, a subject gets its list only when somebody asks for it.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

Tag = tuple[str, str]


class Subject:
    """A span (name, source, tags, start, duration) or a point (metric name, source, point tags, time, value).

    For a point ``start_ms`` is its timestamp.  Rules may leave an empty name or value and over-long texts behind: the
    caller cleans and checks afterwards, as it does what clients send.
    """

    __slots__ = (
        "_annotations",
        "duration_ms",
        "name",
        "repeats",
        "source",
        "start_ms",
        "value",
        "values",
    )

    def __init__(
        self,
        name: str,
        source: str,
        annotations: list[Tag] | None,
        *,
        values: dict[str, str] | None = None,
        start_ms: int = 0,
        duration_ms: int = 0,
        value: float = 0.0,
    ) -> None:
        """``annotations`` or ``values``, which become the subject's own."""
        self.name = name
        self.source = source
        # None: ``values`` has them all, and their order.
        self._annotations = annotations
        self.start_ms = start_ms
        self.duration_ms = duration_ms
        self.value = value
        self.values: dict[str, str] = {} if values is None else values
        self.repeats = False

    @property
    def annotations(self) -> list[Tag]:
        """The tags; who changes this list calls ``index``."""
        if self._annotations is None:
            self._annotations = list(self.values.items())
        return self._annotations

    @property
    def is_indexed_alone(self) -> bool:
        """No key was ever repeated, and nobody asked for the list: ``values`` is all there is."""
        return self._annotations is None

    def index(self) -> None:
        """Make ``values`` and ``repeats`` say what ``annotations`` holds."""
        annotations = self._annotations
        if annotations is None:
            return
        values = dict(annotations)
        self.repeats = len(values) != len(annotations)
        # dict() keeps the last value of a repeated key; rules see the first.
        self.values = dict(reversed(annotations)) if self.repeats else values

    def append(self, key: str, value: str) -> None:
        """One tag more at the end, even if the key is there."""
        if key in self.values:
            self.annotations.append((key, value))
            self.repeats = True
            return
        self.values[key] = value
        if self._annotations is not None:
            self._annotations.append((key, value))

    def put(self, key: str, value: str) -> None:
        """The only tag ``key``: in the old one's place, or at the end."""
        if key in self.values:
            self.set(key, value)
        else:
            self.append(key, value)

    def set(self, key: str, value: str) -> None:
        """A new value for the first tag ``key``, which must be there."""
        tags = self._annotations
        if tags is not None:
            tags[tags.index((key, self.values[key]))] = (key, value)
        self.values[key] = value

    def rename(self, key: str, new_key: str) -> None:
        """Another key for the first tag ``key``, which must be there."""
        if self._annotations is None and new_key not in self.values:
            self.values = {new_key if k == key else k: v for k, v in self.values.items()}
            return
        value = self.values[key]
        tags = self.annotations
        tags[tags.index((key, value))] = (new_key, value)
        if self.repeats or new_key in self.values:
            self.index()
        else:
            del self.values[key]
            self.values[new_key] = value

    def remove(self, key: str) -> None:
        """Takes the first tag ``key`` away, which must be there and the only one."""
        value = self.values.pop(key)
        if self._annotations is not None:
            self._annotations.remove((key, value))

    def replace(self, annotations: list[Tag]) -> None:
        self._annotations = annotations
        self.index()


Text = Callable[[Subject], str]
Test = Callable[[Subject], object]
"""A predicate; its outcome's truth is what counts."""


class Kind(NamedTuple):
    """What a span's rules call things, and what a point's do."""

    noun: str
    name_scope: str
    properties: Mapping[str, Callable[[Subject], float]]
    """Numbers that an expression may name with a ``$``."""


SPAN = Kind(
    "span",
    "spanName",
    {"startMillis": lambda s: s.start_ms, "duration": lambda s: s.duration_ms},
)
POINT = Kind("point", "metricName", {"timestamp": lambda s: s.start_ms, "value": lambda s: s.value})
SOURCE_SCOPE = "sourceName"


def reader(kind: Kind, scope: str) -> Text:
    """Reads the name, the source, or the first tag ``scope`` ("" when absent)."""
    if scope == kind.name_scope:
        return lambda subject: subject.name
    if scope == SOURCE_SCOPE:
        return lambda subject: subject.source
    return lambda subject: subject.values.get(scope, "")


def all_values(kind: Kind, scope: str) -> Callable[[Subject], list[str]]:
    """Reads every value of ``scope``.  An absent tag has none on a span, one empty value on a point (as in the proxy,
    whose points hold a map)."""
    if scope in {kind.name_scope, SOURCE_SCOPE} or kind is POINT:
        read = reader(kind, scope)
        return lambda subject: [read(subject)]

    def values(subject: Subject) -> list[str]:
        if scope not in subject.values:
            return []
        if not subject.repeats:
            return [subject.values[scope]]
        return [value for key, value in subject.annotations if key == scope]

    return values
