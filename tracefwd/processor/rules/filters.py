"""The filters: what is kept out.

``block`` keeps out what matches, ``allow`` what does not.  With ``if`` alone, ``if`` decides; with both, ``block``
needs both to block and ``allow`` both to let pass.  A tag matches when any of its values does; an absent tag does not.
"""

from collections.abc import Callable

from tracefwd.processor.rules.arguments import Arguments
from tracefwd.processor.rules.rule import (
    BLOCK,
    BLOCK_UNCOUNTED,
    PASS,
    PASS_COUNTED,
    Filter,
    Verdict,
)
from tracefwd.processor.rules.subject import POINT, SOURCE_SCOPE, Subject

SubjectFilter = Filter[Subject]


def _scope_matches(arguments: Arguments) -> Callable[[Subject], bool] | None:
    """Whether scope and match agree with a subject; None when the rule has neither."""
    given = arguments.given
    if given.get("scope") is None and given.get("match") is None and given.get("if") is not None:
        return None
    scope, full = arguments.text("scope"), arguments.pattern("match").full
    if scope == arguments.kind.name_scope:
        return lambda subject: full[subject.name]
    if scope == SOURCE_SCOPE:
        return lambda subject: full[subject.source]

    def matches(subject: Subject) -> bool:
        value = subject.values.get(scope)
        if value is None:
            return False
        if not subject.repeats:
            return full[value]
        return any(key == scope and full[value] for key, value in subject.annotations)

    return matches


def block(arguments: Arguments) -> Filter[Subject]:
    matches, predicate = _scope_matches(arguments), arguments.predicate()
    if predicate is None:
        asked = matches
    elif matches is None:
        return lambda subject: BLOCK if predicate(subject) else PASS
    else:
        both = matches
        asked = lambda subject: bool(predicate(subject)) and both(subject)  # noqa: E731
    if asked is None:
        return lambda _: PASS
    test = asked
    return lambda subject: BLOCK if test(subject) else PASS


def allow(arguments: Arguments) -> Filter[Subject]:
    """Counts what it keeps out by its match, or, where it has none, what ``if`` lets pass: as the proxy counts."""
    matches, predicate = _scope_matches(arguments), arguments.predicate()

    def keep(subject: Subject) -> Verdict:
        if predicate is not None and not predicate(subject):
            return BLOCK_UNCOUNTED
        if matches is None:
            return PASS_COUNTED
        return PASS if matches(subject) else BLOCK

    return keep


def metrics_filter(arguments: Arguments) -> Filter[Subject]:
    """Metric names to allow or to drop: texts that are the whole name, or ``/expression/`` to be found in it."""
    names, function = arguments.given.get("names"), arguments.text("function").lower()
    if function not in {"allow", "drop"}:
        arguments.wrong(f"function '{function}' does not exist", "use allow or drop")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        arguments.wrong("names is no list of texts", 'write \'names: ["cpu.load", "/^mem/"]\'')
        names = []
    whole = frozenset(name for name in names if not name.startswith("/"))
    expressions = {name: name[1:-1] for name in names if name.startswith("/")}
    for name in expressions:
        if len(name) < 3 or not name.endswith("/"):
            arguments.wrong(f"names: '{name}' is no expression", "write '/expression/'")
    inner = Arguments(expressions, arguments.kind, arguments.keys)
    patterns = [inner.pattern(name) for name in expressions]
    arguments.mistakes += [f"names: {mistake}" for mistake in inner.mistakes]
    wanted = function == "allow"

    def keep(subject: Subject) -> Verdict:
        name = subject.name
        listed = name in whole or any(pattern.finding[name] for pattern in patterns)
        return PASS if listed is wanted else BLOCK

    assert arguments.kind is POINT
    return keep
