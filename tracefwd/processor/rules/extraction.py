"""The extract actions: a new tag made of a part of the name, the source, or another tag.

The input must match and hold the search; the tag's value is the whole input with all finds replaced.  An empty outcome
adds no tag, but the input is rewritten all the same, if that is wanted.
"""

from collections.abc import Callable

from tracefwd.processor.rules.arguments import Arguments
from tracefwd.processor.rules.matching import Rewrite, conditional, matching, on_each, replacing
from tracefwd.processor.rules.rule import RuleFailed, Transform
from tracefwd.processor.rules.subject import POINT, SOURCE_SCOPE, Kind, Subject

# A point's rule may name this as its input: metric name, source, and every tag's key and value.
_WHOLE_POINT = "pointLine"


class _Extraction:
    """One rule's settled parts."""

    __slots__ = ("add", "extract", "key", "rewrite")

    def __init__(self, arguments: Arguments, key_name: str, rewrite_names: tuple[str, ...]) -> None:
        self.key = arguments.made_key(key_name)
        search = arguments.pattern("search")
        extract = replacing(search, arguments.replacement("replace", search))
        self.extract = matching(arguments.optional_pattern("match"), extract)
        self.rewrite: Rewrite | None = None
        for name in rewrite_names:
            replacement = arguments.optional_replacement(name, search)
            if replacement is not None and self.rewrite is None:
                self.rewrite = replacing(search, replacement)
        self.add: Callable[[Subject, str, str], None] = (
            Subject.put if arguments.kind is POINT else Subject.append
        )

    def rewritten(self, value: str, subject: Subject) -> str:
        """What becomes of the input that a tag was made of."""
        new = None if self.rewrite is None else self.rewrite(value, subject)
        return value if new is None else new

    def add_to(self, subject: Subject, new: str) -> None:
        if new:
            self.add(subject, self.key, new)


def extract_tag(
    arguments: Arguments,
    key_name: str,
    input_name: str,
    rewrite_names: tuple[str, ...],
    *,
    only_absent: bool,
) -> Transform:
    """``rewrite_names``: what the new text of the input is called, the first that is given counts."""
    extraction = _Extraction(arguments, key_name, rewrite_names)
    first = arguments.flag("firstMatchOnly")
    transform = _from(arguments.kind, arguments.text(input_name), extraction, first=first)
    predicate = arguments.predicate()
    if not only_absent:
        return conditional(predicate, transform)
    key = extraction.key
    return conditional(predicate, lambda subject: key not in subject.values and transform(subject))


def _from(kind: Kind, scope: str, extraction: _Extraction, *, first: bool) -> Transform:
    if scope == kind.name_scope:
        return lambda subject: _from_name(subject, extraction)
    if scope == SOURCE_SCOPE:
        return lambda subject: _from_source(subject, extraction)
    if scope == _WHOLE_POINT and kind is POINT:
        return lambda subject: _from_point(subject, extraction)

    def transform(subject: Subject) -> bool:
        value = subject.values.get(scope)
        if value is None:
            return False
        if subject.repeats:
            return _from_each(subject, scope, extraction, first=first)
        new = extraction.extract(value, subject)
        if new is None:
            return False
        if new and kind is POINT and scope == extraction.key:
            # The new tag has taken its input's place, and is what is rewritten.
            subject.set(scope, extraction.rewritten(new, subject))
            return True
        rewritten = extraction.rewritten(value, subject)
        if rewritten != value:
            subject.set(scope, rewritten)
        extraction.add_to(subject, new)
        return True

    return transform


def _from_name(subject: Subject, extraction: _Extraction) -> bool:
    new = extraction.extract(subject.name, subject)
    if new is None:
        return False
    subject.name = extraction.rewritten(subject.name, subject)
    extraction.add_to(subject, new)
    return True


def _from_source(subject: Subject, extraction: _Extraction) -> bool:
    new = extraction.extract(subject.source, subject)
    if new is None:
        return False
    subject.source = extraction.rewritten(subject.source, subject)
    extraction.add_to(subject, new)
    return True


def _from_each(subject: Subject, scope: str, extraction: _Extraction, *, first: bool) -> bool:
    """Of every tag ``scope`` one new tag; they are added when all are done."""
    found: list[str] = []

    def change(index: int, value: str) -> bool:
        new = extraction.extract(value, subject)
        if new is None:
            return False
        found.append(new)
        subject.annotations[index] = (scope, extraction.rewritten(value, subject))
        subject.index()
        return True

    applied = on_each(subject, scope, change, first=first)
    for new in found:
        extraction.add_to(subject, new)
    return applied


def _from_point(subject: Subject, extraction: _Extraction) -> bool:
    """Of everything that can hold the search; the last find wins.  Tags that come about are not searched again."""
    before = (subject.name, subject.source, list(subject.annotations))
    try:
        applied = _from_name(subject, extraction)
        applied = _from_source(subject, extraction) or applied
        for key, value in before[2]:
            new = extraction.extract(key, subject)
            new = extraction.extract(value, subject) if new is None else new
            if new is None:
                continue
            rewritten = extraction.rewritten(value, subject)
            if rewritten != value:
                subject.set(key, rewritten)
            extraction.add_to(subject, new)
            applied = True
    except RuleFailed:
        subject.name, subject.source = before[:2]
        subject.replace(before[2])
        raise
    return applied
