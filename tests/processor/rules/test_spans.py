"""Every span action, as a table: what it does to which tags, and what it leaves alone."""

from collections.abc import Mapping
from typing import Any

import pytest

from tests.processor.rules.rule_files import rules
from tracefwd.processor.rules import Subject

FOO = [("foo", "bar1-1234567890"), ("foo", "bar2-2345678901"), ("foo", "bar2-3456789012")]
TAGS = [*FOO, ("foo", "bar"), ("boo", "baz")]


def span(*tags: tuple[str, str], name: str = "testSpanName", source: str = "spanSource") -> Subject:
    return Subject(name, source, list(tags), start_ms=1_532_012_145_123, duration_ms=1_111)


def values(subject: Subject, key: str = "foo") -> list[str]:
    return [value for found, value in subject.annotations if found == key]


def after(rule: Mapping[str, Any], *tags: tuple[str, str], exact: bool = False) -> Subject:
    subject = span(*tags)
    assert rules(rule, exact=exact).apply(subject)
    # The index is what the tags say.
    held = dict(subject.values), subject.repeats
    subject.index()
    assert held == (subject.values, subject.repeats)
    return subject


def test_the_specifications_examples() -> None:
    added = after({"action": "spanAddTag", "key": "bar", "value": "baz"}, ("bar", "x"))
    assert added.annotations == [("bar", "x"), ("bar", "baz")]
    kept = after({"action": "spanAddTagIfNotExists", "key": "bar", "value": "baz"}, ("bar", "x"))
    assert kept.annotations == [("bar", "x")]
    dropped = after(
        {"action": "spanDropTag", "key": "foo", "match": "bar.*", "firstMatchOnly": True}, *TAGS
    )
    assert dropped.annotations == TAGS[1:]
    renamed = {"action": "spanRenameTag", "key": "myDevice", "newkey": "device", "match": r"^\d*$"}
    assert after(renamed, ("myDevice", "12")).annotations == [("device", "12")]
    assert after(renamed, ("myDevice", "no")).annotations == [("myDevice", "no")]
    limit = {"action": "spanLimitLength", "scope": "foo", "maxLength": 4}
    limit["actionSubtype"] = "truncateWithEllipsis"
    assert after(limit, ("foo", "12345"), ("foo", "1234")).annotations == [
        ("foo", "1..."),
        ("foo", "1234"),
    ]


@pytest.mark.parametrize(
    ("search", "replace", "more", "wanted"),
    [
        ("234", "zzz", {}, ["bar1-1zzz567890", "bar2-zzz5678901", FOO[2][1], "bar"]),
        (
            "901",
            "zzz",
            {"firstMatchOnly": "true"},
            [FOO[0][1], "bar2-2345678zzz", FOO[2][1], "bar"],
        ),
        (r"\d-\d", "@", {}, ["bar@234567890", "bar@345678901", "bar@456789012", "bar"]),
        (r"\d-\d", "@", {"match": ".*9012"}, [FOO[0][1], FOO[1][1], "bar@456789012", "bar"]),
        ("^(...).*", "$1", {}, ["bar", "bar", "bar", "bar"]),
        ("^(?<head>...).*", "${head}!", {"match": "bar1.*"}, ["bar!", FOO[1][1], FOO[2][1], "bar"]),
        (
            "bar",
            "$$",
            {"search": "(b)ar", "replace": "\\$$1\\\\"},
            ["$b\\1-1234567890", "$b\\2-2345678901", "$b\\2-3456789012", "$b\\"],
        ),
        ("zzz", "", {}, [value for _, value in TAGS[:4]]),
    ],
)
def test_replace_regex(search: str, replace: str, more: dict[str, Any], wanted: list[str]) -> None:
    rule = {"action": "spanReplaceRegex", "scope": "foo", "search": search, "replace": replace}
    assert values(after({**rule, **more}, *TAGS)) == wanted


def test_replace_regex_goes_on_as_often_as_it_may() -> None:
    rule = {"action": "spanReplaceRegex", "scope": "foo", "search": "aa", "replace": "a"}
    for iterations, wanted in [(1, "aaaa"), (2, "aa"), ("3", "a"), (1_000, "a")]:
        assert values(after({**rule, "iterations": iterations}, ("foo", "a" * 8))) == [wanted]


def test_replace_regex_on_name_and_source() -> None:
    replace = {"action": "spanReplaceRegex", "search": "Name|Source", "replace": ""}
    subject = span()
    both = rules({**replace, "scope": "spanName"}, {**replace, "scope": "sourceName"})
    assert both.apply(subject)
    assert (subject.name, subject.source) == ("testSpan", "span")


@pytest.mark.parametrize("value", ["$1", "a\\", "${x}", "\\$", "{{boo}}", "(", ""])
def test_what_is_filled_in_is_a_text_whatever_it_holds(value: str) -> None:
    tags = [("foo", "x"), ("boo", value)]
    replace = {"action": "spanReplaceRegex", "scope": "foo", "search": "x", "replace": "<{{boo}}>"}
    assert values(after(replace, *tags)) == [f"<{value}>"]
    extract = {"action": "spanExtractTag", "key": "new", "input": "foo", "search": "x"}
    assert values(after({**extract, "replace": "-{{boo}}"}, *tags), "new") == [f"-{value}"]
    add = {"action": "spanAddTag", "key": "new", "value": "{{boo}}{{none}}{{spanName}}"}
    assert values(after(add, *tags), "new") == [f"{value}testSpanName"]


def test_placeholders_take_the_first_value_and_braces_alone_are_text() -> None:
    add = {"action": "spanAddTag", "key": "new", "value": "{{foo}}-{{spanName}}-{{sourceName}}{{}}"}
    assert values(after(add, *TAGS), "new") == ["bar1-1234567890-testSpanName-spanSource{{}}"]


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        ({}, ["bar1", "bar2", "bar"]),
        ({"firstMatchOnly": True}, ["bar1", "BAR2", "baR"]),
        ({"match": "BAR.*"}, ["bar1", "bar2", "baR"]),
        ({"match": "no"}, ["BAR1", "BAR2", "baR"]),
    ],
)
def test_force_lowercase(more: dict[str, Any], wanted: list[str]) -> None:
    tags = [("foo", "BAR1"), ("foo", "BAR2"), ("foo", "baR")]
    assert values(after({"action": "spanForceLowercase", "scope": "foo", **more}, *tags)) == wanted


def test_force_lowercase_on_name_and_source() -> None:
    subject = span()
    lower = {"action": "spanForceLowercase", "match": ".*N.*"}
    assert rules({**lower, "scope": "spanName"}, {**lower, "scope": "sourceName"}).apply(subject)
    assert (subject.name, subject.source) == ("testspanname", "spanSource")


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        ({"key": "foo"}, ["boo"]),
        ({"key": "[fb]oo"}, []),
        ({"key": "fo"}, ["foo", "foo", "foo", "foo", "boo"]),
        ({"key": "foo", "firstMatchOnly": True}, ["foo", "foo", "foo", "boo"]),
        ({"key": ".*", "match": "bar2.*"}, ["foo", "foo", "boo"]),
        ({"key": "foo", "match": "bar2.*", "firstMatchOnly": True}, ["foo", "foo", "foo", "boo"]),
    ],
)
def test_drop_tag(more: dict[str, Any], wanted: list[str]) -> None:
    assert [key for key, _ in after({"action": "spanDropTag", **more}, *TAGS).annotations] == wanted


def test_drop_tag_sees_keys_that_other_rules_made() -> None:
    set_ = rules(
        {"action": "spanDropTag", "key": "made-.*"},
        {"action": "spanAddTag", "key": "made-1", "value": "x"},
        {"action": "spanRenameTag", "key": "boo", "newkey": "made-2"},
        {
            "action": "spanExtractTag",
            "key": "made-3",
            "input": "foo",
            "search": "b",
            "replace": "c",
        },
        {"action": "spanDropTag", "key": "made-[123]"},
    )
    subject = span(("foo", "b"), ("boo", "x"), ("made-0", "y"))
    assert set_.apply(subject)
    assert subject.annotations == [("foo", "b")]


def test_allow_tag_keeps_what_wavefront_needs() -> None:
    tags = [("application", "a"), ("foo", "bar1"), ("foo", "no"), ("x", "y"), ("shard", "s")]
    allow = {"action": "spanAllowTag", "allow": ["foo"]}
    assert after(allow, *tags).annotations == [*tags[:3], tags[4]]
    allow = {"action": "spanWhitelistAnnotation", "allow": {"foo": "bar.*", "x": "z"}}
    assert after(allow, *tags).annotations == [*tags[:2], tags[4]]


def test_allow_tags_list_minds_its_if_unless_defects_are_wanted() -> None:
    rule = {"action": "spanAllowTag", "allow": ["foo"], "if": '{{x}} = "no"'}
    assert after(rule, ("x", "y")).annotations == [("x", "y")]
    assert after(rule, ("x", "y"), exact=True).annotations == []
    rule["allow"] = {"foo": ".*"}
    assert after(rule, ("x", "y"), exact=True).annotations == [("x", "y")]


EXTRACT = {"key": "new", "input": "foo", "search": "(....)-(.*)$", "replace": "$2"}


@pytest.mark.parametrize(
    ("more", "new", "foo"),
    [
        ({}, ["1234567890", "2345678901", "3456789012"], [value for _, value in TAGS[:4]]),
        (
            {"replaceInput": "$1"},
            ["1234567890", "2345678901", "3456789012"],
            ["bar1", "bar2", "bar2", "bar"],
        ),
        (
            {"replaceInput": "$1", "firstMatchOnly": True, "match": "bar2.*"},
            ["2345678901"],
            [FOO[0][1], "bar2", FOO[2][1], "bar"],
        ),
        (
            {"replace": "", "replaceInput": "-", "firstMatchOnly": True},
            [],
            ["-", FOO[1][1], FOO[2][1], "bar"],
        ),
        ({"match": "no"}, [], [value for _, value in TAGS[:4]]),
        ({"input": "none"}, [], [value for _, value in TAGS[:4]]),
    ],
)
def test_extract_tag(more: dict[str, Any], new: list[str], foo: list[str]) -> None:
    subject = after({"action": "spanExtractTag", **EXTRACT, **more}, *TAGS)
    assert (values(subject, "new"), values(subject)) == (new, foo)


def test_extract_tag_appends_unless_only_absent_keys_are_wanted() -> None:
    rule = {**EXTRACT, "key": "boo", "firstMatchOnly": True}
    extracted = after({"action": "spanExtractAnnotation", **rule}, *TAGS)
    assert values(extracted, "boo") == ["baz", "1234567890"]
    kept = after({"action": "spanExtractAnnotationIfNotExists", **rule, "replaceInput": ""}, *TAGS)
    assert kept.annotations == TAGS


def test_extract_tag_from_name_and_source() -> None:
    subject = span(name="inbound|9080", source="pod.ns")
    extract = {"action": "spanExtractTag"}
    name = {"key": "port", "input": "spanName", "search": r"^(.*)\|(\d+)", "replace": "$2"}
    source = {"key": "ns", "input": "sourceName", "search": r"(.*)\.(.*)", "replace": "$2"}
    both = rules({**extract, **name, "replaceInput": "$1"}, {**extract, **source})
    assert both.apply(subject)
    assert (subject.name, subject.source) == ("inbound", "pod.ns")
    assert subject.annotations == [("port", "9080"), ("ns", "ns")]


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        ({}, ["new", "new", "new", "new", "boo"]),
        ({"match": "bar2.*"}, ["foo", "new", "new", "foo", "boo"]),
        ({"match": "bar2.*", "firstMatchOnly": True}, ["foo", "new", "foo", "foo", "boo"]),
        ({"newkey": "boo"}, ["boo", "boo", "boo", "boo", "boo"]),
        ({"key": "none"}, ["foo", "foo", "foo", "foo", "boo"]),
    ],
)
def test_rename_tag(more: dict[str, Any], wanted: list[str]) -> None:
    rule = {"action": "spanRenameTag", "key": "foo", "newkey": "new", **more}
    assert [key for key, _ in after(rule, *TAGS).annotations] == wanted


def test_rename_keeps_the_place_of_a_tag() -> None:
    rule = {"action": "spanRenameTag", "key": "b", "newkey": "z"}
    assert after(rule, ("a", "1"), ("b", "2"), ("c", "3")).annotations == [
        ("a", "1"),
        ("z", "2"),
        ("c", "3"),
    ]


@pytest.mark.parametrize(
    ("subtype", "more", "wanted"),
    [
        ("truncate", {}, ["bar1", "bar2", "bar2", "bar"]),
        ("truncateWithEllipsis", {}, ["b...", "b...", "b...", "bar"]),
        (
            "TRUNCATE",
            {"match": "bar2-.*", "firstMatchOnly": True},
            [FOO[0][1], "bar2", FOO[2][1], "bar"],
        ),
        ("drop", {}, ["bar"]),
        ("drop", {"match": "bar2.*", "firstMatchOnly": True}, [FOO[0][1], FOO[2][1], "bar"]),
    ],
)
def test_limit_length(subtype: str, more: dict[str, Any], wanted: list[str]) -> None:
    rule = {"action": "spanLimitLength", "scope": "foo", "maxLength": "4", "actionSubtype": subtype}
    assert values(after({**rule, **more}, *TAGS)) == wanted


def test_lengths_count_utf_16_and_cut_no_character_unless_exact() -> None:
    rule = {
        "action": "spanLimitLength",
        "scope": "foo",
        "actionSubtype": "truncate",
        "maxLength": 2,
    }
    assert values(after(rule, ("foo", "a\U0001f600b"))) == ["a"]
    assert values(after(rule, ("foo", "\U0001f600"))) == ["\U0001f600"]
    assert values(after(rule, ("foo", "a\U0001f600b"), exact=True)) == ["a?"]


def test_the_sources_length_is_the_sources_unless_exact() -> None:
    rule = {"action": "spanLimitLength", "scope": "sourceName", "actionSubtype": "truncate"}
    rule["maxLength"] = "11"
    plain, exact = rules(rule), rules(rule, exact=True)
    for source, name, sane, odd in [
        ("s" * 12, "short", "s" * 11, "s" * 12),
        ("s" * 12, "n" * 12, "s" * 11, "s" * 11),
        ("s" * 3, "n" * 12, "sss", "sss"),
    ]:
        subject = span(name=name, source=source)
        assert plain.apply(subject)
        assert subject.source == sane
        subject = span(name=name, source=source)
        assert exact.apply(subject)
        assert subject.source == odd
    # The proxy throws where a source is too short to be cut; here that is counted.
    assert exact.counts()["r0"].failed == 1
    assert plain.counts()["r0"].failed == 0


@pytest.mark.parametrize(
    ("rule", "passes"),
    [
        ({"scope": "spanName", "match": "^test.*$"}, True),
        ({"scope": "spanName", "match": "test"}, False),
        ({"scope": "sourceName", "match": ".*Source"}, True),
        ({"scope": "foo", "match": "bar"}, True),
        ({"scope": "foo", "match": "baz"}, False),
        ({"scope": "none", "match": ".*"}, False),
        ({"if": '{{boo}} = "baz"'}, True),
        ({"if": '{{boo}} = "no"'}, False),
        ({"if": '{{boo}} = "baz"', "scope": "foo", "match": "bar"}, True),
        ({"if": '{{boo}} = "no"', "scope": "foo", "match": "bar"}, False),
        ({"if": '{{boo}} = "baz"', "scope": "foo", "match": "no"}, False),
    ],
)
def test_allow_lets_pass_what_block_keeps_out(rule: dict[str, Any], passes: bool) -> None:
    for allow, block in [("spanAllow", "spanBlock"), ("spanWhitelistRegex", "spanBlacklistRegex")]:
        assert rules({"action": allow, **rule}).apply(span(*TAGS)) is passes
        assert rules({"action": block, **rule}).apply(span(*TAGS)) is not passes


def test_all_allow_rules_must_be_met_and_filters_come_after_changes() -> None:
    allow = {"action": "spanAllow", "scope": "foo"}
    both = rules(
        {**allow, "match": "a.*"},
        {**allow, "match": ".*z"},
        {"action": "spanReplaceRegex", "scope": "foo", "search": "$", "replace": "z"},
    )
    assert both.apply(span(("foo", "a")))
    assert not both.apply(span(("foo", "b")))


@pytest.mark.parametrize(
    ("alias", "rule"),
    [
        ("spanAddAnnotation", {"key": "k", "value": "v"}),
        ("spanAddAnnotationIfNotExists", {"key": "k", "value": "v"}),
        ("spanDropAnnotation", {"key": "foo"}),
        ("spanAllowAnnotation", {"allow": ["foo"]}),
        ("spanWhitelistTag", {"allow": ["foo"]}),
        ("spanExtractAnnotation", EXTRACT),
        ("spanExtractAnnotationIfNotExists", EXTRACT),
        ("spanRenameAnnotation", {"key": "foo", "newkey": "k"}),
    ],
)
def test_aliases_change_spans_too(alias: str, rule: dict[str, Any]) -> None:
    assert after({"action": alias, **rule}, *TAGS).annotations != TAGS


@pytest.mark.parametrize(
    "rule",
    [
        {"action": "spanReplaceRegex", "scope": "foo", "search": "b", "replace": "c"},
        {"action": "spanForceLowercase", "scope": "foo"},
        {"action": "spanAddTag", "key": "k", "value": "v"},
        {"action": "spanAddTagIfNotExists", "key": "k", "value": "v"},
        {"action": "spanDropTag", "key": "foo"},
        {"action": "spanAllowTag", "allow": ["foo"]},
        {"action": "spanExtractTag", **EXTRACT},
        {"action": "spanExtractTagIfNotExists", **EXTRACT},
        {"action": "spanRenameTag", "key": "foo", "newkey": "k"},
        {"action": "spanLimitLength", "scope": "foo", "actionSubtype": "drop", "maxLength": 1},
        {"action": "spanCount"},
        {"action": "spanBlock"},
    ],
    ids=lambda rule: rule["action"],
)
def test_a_false_if_leaves_everything_alone(rule: dict[str, Any]) -> None:
    for condition in ["$duration < 0", {"none": [{"ignore": []}]}]:
        set_ = rules({**rule, "if": condition})
        subject = span(*TAGS)
        assert set_.apply(subject)
        assert subject.annotations == TAGS
        assert set_.counts()["r0"].hits == 0
