"""What actions share: which values of a subject a rule is about, and how they are changed together or not at all."""

from collections.abc import Callable, Sequence

from tracefwd.processor.rules.regex import Memo, Pattern, TooMuch
from tracefwd.processor.rules.rule import VALUE_BYTES_MAX, RuleFailed, Transform
from tracefwd.processor.rules.subject import SOURCE_SCOPE, Kind, Subject, Test
from tracefwd.processor.rules.templates import Replacement

Rewrite = Callable[[str, Subject], str | None]
"""A new value for one, None where the rule does not apply to it."""


def conditional(predicate: Test | None, transform: Transform) -> Transform:
    """``transform``, where ``if`` holds."""
    if predicate is None:
        return transform
    return lambda subject: bool(predicate(subject)) and transform(subject)


def matching(pattern: Pattern | None, rewrite: Rewrite) -> Rewrite:
    """``rewrite``, where the whole value matches."""
    if pattern is None:
        return rewrite
    full = pattern.full
    return lambda value, subject: rewrite(value, subject) if full[value] else None


def replacing(pattern: Pattern, replacement: Replacement, iterations: int = 1) -> Rewrite:
    """Replaces all finds; up to ``iterations`` times while something is found.

    Without placeholders the outcome depends on the value alone and is remembered.
    """
    if replacement.constant:
        parts = replacement.parts_for(None)
        memo = Memo(lambda value: _replaced(pattern, value, parts, iterations))
        return lambda value, _: memo[value]

    def rewrite(value: str, subject: Subject) -> str | None:
        if not pattern.finding[value]:
            return None
        return _replaced(pattern, value, replacement.parts_for(subject), iterations)

    return rewrite


def _replaced(
    pattern: Pattern, value: str, parts: Sequence[bytes | int], iterations: int
) -> str | None:
    try:
        replaced = pattern.replace_all(value, parts, VALUE_BYTES_MAX)
        for _ in range(iterations - 1):
            if replaced is None or replaced == value:
                break
            value, again = replaced, pattern.replace_all(replaced, parts, VALUE_BYTES_MAX)
            replaced = value if again is None else again
    except TooMuch as error:
        raise RuleFailed from error
    return replaced


def rewriting(
    kind: Kind, scope: str, rewrite: Rewrite, *, first: bool = False, first_change: bool = False
) -> Transform:
    """Applies ``rewrite`` to the name, the source, or the tags ``scope``.

    ``first``: only to the first tag that it applies to; ``first_change``: only up to the first that it changes.
    """
    if scope == kind.name_scope:
        return _rewriting_name(rewrite)
    if scope == SOURCE_SCOPE:
        return _rewriting_source(rewrite)

    def every(subject: Subject) -> bool:
        def change(index: int, value: str) -> bool:
            new = rewrite(value, subject)
            if new is None:
                return False
            subject.annotations[index] = (scope, new)
            subject.index()
            return True

        return on_each(subject, scope, change, first=first, first_change=first_change)

    def transform(subject: Subject) -> bool:
        value = subject.values.get(scope)
        if value is None:
            return False
        if subject.repeats:
            return every(subject)
        new = rewrite(value, subject)
        if new is None:
            return False
        if new != value:
            subject.set(scope, new)
        return True

    return transform


def _rewriting_name(rewrite: Rewrite) -> Transform:
    def transform(subject: Subject) -> bool:
        new = rewrite(subject.name, subject)
        if new is None:
            return False
        subject.name = new
        return True

    return transform


def _rewriting_source(rewrite: Rewrite) -> Transform:
    def transform(subject: Subject) -> bool:
        new = rewrite(subject.source, subject)
        if new is None:
            return False
        subject.source = new
        return True

    return transform


def on_each(
    subject: Subject,
    scope: str,
    change: Callable[[int, str], bool],
    *,
    first: bool = False,
    first_change: bool = False,
) -> bool:
    """Calls ``change(index, value)`` for every tag ``scope``; whether any applied.  Undone when one of them fails."""
    before = list(subject.annotations)
    applied = False
    try:
        for index, (key, value) in enumerate(before):
            if key == scope and change(index, value):
                applied = True
                if first or (first_change and subject.annotations[index] != before[index]):
                    break
    except RuleFailed:
        subject.replace(before)
        raise
    return applied
