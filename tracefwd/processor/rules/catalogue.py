"""Every action of the proxy's rules by name: what it is about, what it takes, what builds it."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from tracefwd.processor.rules import actions, extraction, filters, line_actions
from tracefwd.processor.rules.arguments import Arguments
from tracefwd.processor.rules.rule import AnyRule, LineRule, PointRule, SpanRule
from tracefwd.processor.rules.subject import POINT, SPAN, Kind


class Identity(NamedTuple):
    """What a rule is known by."""

    id: str
    action: str
    line: int


class Action(NamedTuple):
    """``build`` may note mistakes in the arguments; then its rule must not be used.  ``exact``: copy defects."""

    kind: Kind
    takes: frozenset[str]
    build: Callable[[Identity, Arguments, bool], AnyRule]


def _transform(kind: Kind, takes: str, build: Callable[..., object], **fixed: object) -> Action:
    rule = SpanRule if kind is SPAN else PointRule
    exact_aware = build in {actions.allow_tag, actions.limit_length}

    def make(identity: Identity, arguments: Arguments, exact: bool) -> AnyRule:
        extra = {"exact": exact} if exact_aware else {}
        return rule(*identity, transform=build(arguments, **fixed, **extra))  # type: ignore[arg-type]

    return Action(kind, frozenset(takes.split()), make)


def _filter(kind: Kind, takes: str, build: Callable[[Arguments], filters.SubjectFilter]) -> Action:
    rule = SpanRule if kind is SPAN else PointRule

    def make(identity: Identity, arguments: Arguments, _: bool) -> AnyRule:
        return rule(*identity, keep=build(arguments))

    return Action(kind, frozenset(takes.split()), make)


_SPAN_EXTRACT = "key input search replace replaceInput match firstMatchOnly if"
_POINT_EXTRACT = "tag source search replace replaceSource replaceInput match if"


def _extracting(kind: Kind, *, only_absent: bool) -> Action:
    if kind is SPAN:
        names: tuple[str, str, tuple[str, ...]] = ("key", "input", ("replaceInput",))
        takes = _SPAN_EXTRACT
    else:
        names = ("tag", "source", ("replaceInput", "replaceSource"))
        takes = _POINT_EXTRACT
    key, scope, rewrites = names
    return _transform(
        kind,
        takes,
        extraction.extract_tag,
        key_name=key,
        input_name=scope,
        rewrite_names=rewrites,
        only_absent=only_absent,
    )


def _spans() -> dict[str, Action]:
    transform, keep = partial(_transform, SPAN), partial(_filter, SPAN)
    found = {
        "spanReplaceRegex": transform(
            "scope search replace match iterations firstMatchOnly if", actions.replace_regex
        ),
        "spanForceLowercase": transform("scope match firstMatchOnly if", actions.force_lowercase),
        "spanAddTag": transform("key value if", actions.add_tag, key_name="key", only_absent=False),
        "spanAddTagIfNotExists": transform(
            "key value if", actions.add_tag, key_name="key", only_absent=True
        ),
        "spanDropTag": transform("key match firstMatchOnly if", actions.drop_tag, key_name="key"),
        "spanAllowTag": transform("allow if", actions.allow_tag),
        "spanExtractTag": _extracting(SPAN, only_absent=False),
        "spanExtractTagIfNotExists": _extracting(SPAN, only_absent=True),
        "spanRenameTag": transform(
            "key newkey match firstMatchOnly if",
            actions.rename_tag,
            key_name="key",
            new_name="newkey",
        ),
        "spanLimitLength": transform(
            "scope actionSubtype maxLength match firstMatchOnly if", actions.limit_length
        ),
        "spanCount": transform("scope if", actions.count),
        "spanBlock": keep("scope match if", filters.block),
        "spanAllow": keep("scope match if", filters.allow),
    }
    return {**found, **{alias: found[name] for alias, name in _SPAN_ALIASES.items()}}


_SPAN_ALIASES = {
    "spanAddAnnotation": "spanAddTag",
    "spanAddAnnotationIfNotExists": "spanAddTagIfNotExists",
    "spanDropAnnotation": "spanDropTag",
    "spanAllowAnnotation": "spanAllowTag",
    "spanWhitelistTag": "spanAllowTag",
    "spanWhitelistAnnotation": "spanAllowTag",
    "spanExtractAnnotation": "spanExtractTag",
    "spanExtractAnnotationIfNotExists": "spanExtractTagIfNotExists",
    "spanRenameAnnotation": "spanRenameTag",
    "spanBlacklistRegex": "spanBlock",
    "spanWhitelistRegex": "spanAllow",
}


def _points() -> dict[str, Action]:
    transform, keep = partial(_transform, POINT), partial(_filter, POINT)
    found = {
        "replaceRegex": transform(
            "scope search replace match iterations if", actions.replace_regex
        ),
        "forceLowercase": transform("scope match if", actions.force_lowercase),
        "addTag": transform("tag value if", actions.add_tag, key_name="tag", only_absent=False),
        "addTagIfNotExists": transform(
            "tag value if", actions.add_tag, key_name="tag", only_absent=True
        ),
        "dropTag": transform("tag match if", actions.drop_tag, key_name="tag"),
        "extractTag": _extracting(POINT, only_absent=False),
        "extractTagIfNotExists": _extracting(POINT, only_absent=True),
        "renameTag": transform(
            "tag newtag match if", actions.rename_tag, key_name="tag", new_name="newtag"
        ),
        "limitLength": transform("scope actionSubtype maxLength match if", actions.limit_length),
        "count": transform("scope if", actions.count),
        "block": keep("scope match if", filters.block),
        "allow": keep("scope match if", filters.allow),
        "metricsFilter": keep("names function opts", filters.metrics_filter),
    }
    return {**found, "blacklistRegex": found["block"], "whitelistRegex": found["allow"]}


def _replace_line(identity: Identity, arguments: Arguments, _: bool) -> AnyRule:
    return LineRule(*identity, transform=line_actions.replace_line(arguments))


def _block_line(identity: Identity, arguments: Arguments, _: bool) -> AnyRule:
    return LineRule(*identity, keep=line_actions.block_line(arguments))


def _allow_line(identity: Identity, arguments: Arguments, _: bool) -> AnyRule:
    return LineRule(*identity, keep=line_actions.allow_line(arguments))


_LINE_MATCH = frozenset({"scope", "match"})
ACTIONS: dict[str, Action] = {**_spans(), **_points()}
LINE_ACTIONS: dict[str, Action] = {
    "replaceRegex": Action(
        POINT, frozenset({"scope", "search", "replace", "match", "iterations"}), _replace_line
    ),
    **dict.fromkeys(("block", "blacklistRegex"), Action(POINT, _LINE_MATCH, _block_line)),
    **dict.fromkeys(("allow", "whitelistRegex"), Action(POINT, _LINE_MATCH, _allow_line)),
}
# Rules for the proxy's own logs: they touch neither spans nor points, and are noted and passed over.
LOG_ACTIONS = frozenset(
    {
        *(f"log{name.removeprefix('span')}" for name in _spans() if "Whitelist" not in name),
        "logWhitelistRegex",
    }
)
