"""The actions, each as a function from arguments to a closure over a subject.

Spans and points share them: what a span may have several of, a point has once, so where a span's rule appends, a
point's puts (``kind``).  ``line_actions.py`` has those on a line's text.  Names of arguments differ, too; the tables in
``catalogue.py`` say who is called what.
"""

from tracefwd import naming
from tracefwd.processor import java_text
from tracefwd.processor.rules.arguments import Arguments
from tracefwd.processor.rules.matching import (
    conditional,
    matching,
    on_each,
    replacing,
    rewriting,
)
from tracefwd.processor.rules.regex import Pattern
from tracefwd.processor.rules.rule import RuleFailed, Transform
from tracefwd.processor.rules.subject import POINT, SOURCE_SCOPE, Subject

# Never taken away by spanAllowTag: Wavefront cannot place a span without them.
_SYSTEM_KEYS = ("service", "application", "cluster", "shard")
_ELLIPSIS = "..."


def replace_regex(arguments: Arguments) -> Transform:
    search = arguments.pattern("search")
    replacement = arguments.replacement("replace", search)
    rewrite = replacing(search, replacement, arguments.iterations())
    rewrite = matching(arguments.optional_pattern("match"), rewrite)
    first = arguments.flag("firstMatchOnly")
    scope = arguments.text("scope")
    transform = rewriting(arguments.kind, scope, rewrite, first_change=first)
    return conditional(arguments.predicate(), transform)


def force_lowercase(arguments: Arguments) -> Transform:
    rewrite = matching(arguments.optional_pattern("match"), lambda value, _: value.lower())
    first = arguments.flag("firstMatchOnly")
    transform = rewriting(arguments.kind, arguments.text("scope"), rewrite, first=first)
    return conditional(arguments.predicate(), transform)


def add_tag(arguments: Arguments, key_name: str, *, only_absent: bool) -> Transform:
    key, fill = arguments.made_key(key_name), arguments.filled("value")
    put = arguments.kind is POINT

    def transform(subject: Subject) -> bool:
        if only_absent and key in subject.values:
            return False
        if put:
            subject.put(key, fill(subject))
        else:
            subject.append(key, fill(subject))
        return True

    return conditional(arguments.predicate(), transform)


def drop_tag(arguments: Arguments, key_name: str) -> Transform:
    """The key is an expression for all of the key."""
    pattern = arguments.pattern(key_name)
    matching_keys, keys = arguments.keys.watch(pattern), pattern.full
    match = arguments.optional_pattern("match")
    values = None if match is None else match.full
    first = arguments.flag("firstMatchOnly")

    def some(subject: Subject) -> bool:
        kept, dropped = [], 0
        for tag in subject.annotations:
            if keys[tag[0]] and (values is None or values[tag[1]]) and not (first and dropped):
                dropped += 1
            else:
                kept.append(tag)
        if dropped:
            subject.replace(kept)
        return dropped > 0

    def transform(subject: Subject) -> bool:
        if subject.values.keys().isdisjoint(matching_keys):
            return False
        if first or values is not None or subject.repeats:
            return some(subject)
        for key in subject.values.keys() & matching_keys:
            subject.remove(key)
        return True

    return conditional(arguments.predicate(), transform)


def allow_tag(arguments: Arguments, *, exact: bool) -> Transform:
    """Keeps what is listed.  ``exact``: the proxy forgets ``if`` when the keys are a list."""
    allow = arguments.given.get("allow")
    allowed: dict[str, Pattern | None] = dict.fromkeys(_SYSTEM_KEYS)
    predicate = arguments.predicate()
    if isinstance(allow, list) and all(isinstance(key, str) for key in allow):
        allowed |= dict.fromkeys(allow)
        predicate = None if exact else predicate
    elif isinstance(allow, dict) and all(isinstance(key, str) for key in allow):
        inner = Arguments(allow, arguments.kind, arguments.keys)
        allowed |= {key: inner.optional_pattern(key) for key in allow}
        arguments.mistakes += [f"allow: {mistake}" for mistake in inner.mistakes]
    else:
        arguments.wrong(
            "allow is no list of keys and no map of keys", "write 'allow: [key1, key2]'"
        )

    patterns = any(allowed.values())

    def transform(subject: Subject) -> bool:
        if allowed.keys() >= subject.values.keys() and not patterns:
            return False
        kept = [tag for tag in subject.annotations if _allowed(allowed, *tag)]
        if len(kept) == len(subject.annotations):
            return False
        subject.replace(kept)
        return True

    return conditional(predicate, transform)


def _allowed(allowed: dict[str, Pattern | None], key: str, value: str) -> bool:
    if key not in allowed:
        return False
    pattern = allowed[key]
    return pattern is None or pattern.full[value]


def rename_tag(arguments: Arguments, key_name: str, new_name: str) -> Transform:
    key, new_key = arguments.text(key_name), arguments.made_key(new_name)
    match = arguments.optional_pattern("match")
    values = None if match is None else match.full
    first = arguments.flag("firstMatchOnly")
    put = arguments.kind is POINT

    def every(subject: Subject) -> bool:
        def change(index: int, value: str) -> bool:
            if values is not None and not values[value]:
                return False
            subject.annotations[index] = (new_key, value)
            return True

        renamed = on_each(subject, key, change, first=first)
        subject.index()
        return renamed

    def transform(subject: Subject) -> bool:
        value = subject.values.get(key)
        if value is None:
            return False
        if subject.repeats:
            return every(subject)
        if values is not None and not values[value]:
            return False
        if put and new_key in subject.values and new_key != key:
            subject.replace([tag for tag in subject.annotations if tag[0] != new_key])
        subject.rename(key, new_key)
        return True

    return conditional(arguments.predicate(), transform)


def limit_length(arguments: Arguments, *, exact: bool) -> Transform:
    """Lengths count UTF-16 units.  ``exact``: the proxy's slips (see the package's docstring)."""
    kind, scope = arguments.kind, arguments.text("scope")
    length_max = arguments.integer("maxLength", 0)
    subtype = arguments.text("actionSubtype").replace("_", "").lower()
    if subtype not in {"drop", "truncate", "truncatewithellipsis"}:
        arguments.wrong(
            f"actionSubtype '{arguments.given.get('actionSubtype')}' does not exist",
            "use drop, truncate or truncateWithEllipsis",
        )
    least = len(_ELLIPSIS) if subtype == "truncatewithellipsis" else 1
    if length_max < least:
        arguments.wrong(f"maxLength is {length_max}", f"it must be at least {least}")
    match = arguments.optional_pattern("match")
    first = arguments.flag("firstMatchOnly")
    if subtype == "drop":
        if scope in {kind.name_scope, SOURCE_SCOPE}:
            arguments.wrong(f"drop cannot be used with {scope}", "use truncate")
        match = None if exact and kind is POINT else match
        transform = _drop_long(scope, length_max, match, first=first)
        return conditional(arguments.predicate(), transform)
    tail = _ELLIPSIS if subtype == "truncatewithellipsis" else ""
    cut = java_text.cut if exact else naming.cut

    def shorten(value: str, subject: Subject) -> str | None:
        # The proxy asks the name's length where the source is meant, and throws if the source is shorter.
        tested = subject.name if exact and scope == SOURCE_SCOPE and kind is not POINT else value
        if naming.length(tested) <= length_max:
            return None
        if tested is not value and naming.length(value) < length_max - len(tail):
            raise RuleFailed
        return cut(value, length_max - len(tail)) + tail

    transform = rewriting(kind, scope, matching(match, shorten), first=first)
    return conditional(arguments.predicate(), transform)


def _drop_long(scope: str, length_max: int, match: Pattern | None, *, first: bool) -> Transform:
    def transform(subject: Subject) -> bool:
        if scope not in subject.values:
            return False
        kept, dropped = [], 0
        for tag in subject.annotations:
            if (
                tag[0] == scope
                and naming.length(tag[1]) > length_max
                and (match is None or match.full[tag[1]])
                and not (first and dropped)
            ):
                dropped += 1
            else:
                kept.append(tag)
        if dropped:
            subject.replace(kept)
        return dropped > 0

    return transform


def count(arguments: Arguments) -> Transform:
    """Changes nothing; ``scope`` is taken and means nothing."""
    arguments.optional("scope")
    predicate = arguments.predicate()
    if predicate is None:
        return lambda _: True
    return lambda subject: bool(predicate(subject))
