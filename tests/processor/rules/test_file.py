"""A rules file is read whole or not at all, and says which rule of which line is wrong, why, and what to do."""

import subprocess
import sys

import pytest

from tracefwd.errors import ConfigError
from tracefwd.processor.rules import RulesFile, Subject, read_rules


def mistakes(text: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        read_rules(text, where="rules.yaml")
    return error.value.problems


def mistake(rule: str) -> str:
    (only,) = mistakes(f"'1':\n  - {{rule: r, {rule}}}\n")
    assert only.startswith("rules.yaml:2: rule 'r': ")
    return only.removeprefix("rules.yaml:2: rule 'r': ")


MANY = """
# 2878 is the metrics port
'2878':
  -
  - action: dropTag
    tag: a
  - {rule: "$%^&", action: dropTag, tag: a}
  - rule: no-action
    tag: a
  - rule: typo
    action: spanRenmeTag
    key: a
  - rule: several
    action: spanReplaceRegex
    scop: a
    search: "(?!x)y"
    iterations: many
    if: "{{a}} like 'b'"
9411:
  - rule: good
    action: spanCount
  - rule: back
    action: spanDropTag
    key: '(a)\\1'
"""


def test_all_mistakes_are_told_at_once() -> None:
    assert mistakes(MANY) == [
        "rules.yaml:4: the rule is empty; give it 'rule' and 'action', or remove the '-'",
        "rules.yaml:5: 'rule' is missing or has none of a-z, 0-9, _ and -; name the rule",
        "rules.yaml:7: rule '$%^&': 'rule' is missing or has none of a-z, 0-9, _ and -; name the rule",
        "rules.yaml:8: rule 'no-action': action is missing; add 'action: ...'",
        "rules.yaml:10: rule 'typo': there is no action 'spanRenmeTag'; is it 'spanRenameTag'?",
        "rules.yaml:13: rule 'several': spanReplaceRegex has no argument 'scop'; is it 'scope'?",
        "rules.yaml:13: rule 'several': search: negative lookahead is not supported (position 1); use a second rule, or 'match'",  # noqa: E501
        "rules.yaml:13: rule 'several': replace is missing; add 'replace: ...'",
        "rules.yaml:13: rule 'several': iterations is no whole number ('many'); write iterations: 1",
        "rules.yaml:13: rule 'several': scope is missing; add 'scope: ...'",
        "rules.yaml:13: rule 'several': if: 'like' cannot stand here or is not supported (position 7)",
        "rules.yaml:22: rule 'back': key: back-references are not supported (position 4); write the text out again",
    ]


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("action: spanAddTag, key: a, value: true", "value is no text (bool); put it in quotes"),
        ("action: spanAddTag, key: '', value: x", "key is empty"),
        (
            "action: spanAddTag, key: a, value: 2020-01-01",
            "value is no text (date); put it in quotes",
        ),
        (
            "action: spanBlock",
            "scope is missing; add 'scope: ...'\nmatch is missing; add 'match: ...'",
        ),
        ("action: spanBlock, scope: a, if: '1'", "match is missing"),
        ("action: spanAllow, match: a, if: '1'", "scope is missing"),
        ("action: spanAllowTag", "allow is no list of keys"),
        ("action: spanAllowTag, allow: [1]", "allow is no list of keys"),
        ("action: spanAllowTag, allow: {a: '('}", "allow: a: a group is not closed"),
        (
            "action: spanForceLowercase, scope: a, firstMatchOnly: maybe",
            "neither true nor false ('maybe')",
        ),
        (
            "action: spanLimitLength, scope: a, actionSubtype: cut, maxLength: 5",
            "'cut' does not exist; use drop",
        ),
        (
            "action: spanLimitLength, scope: a, actionSubtype: truncate, maxLength: 0",
            "it must be at least 1",
        ),
        ("action: spanLimitLength, scope: a, actionSubtype: truncate", "it must be at least 1"),
        (
            "action: spanLimitLength, scope: a, actionSubtype: truncateWithEllipsis, maxLength: 2",
            "at least 3",
        ),
        (
            "action: spanLimitLength, scope: spanName, actionSubtype: drop, maxLength: 5",
            "drop cannot be used with spanName",
        ),
        (
            "action: limitLength, scope: metricName, actionSubtype: drop, maxLength: 5",
            "cannot be used with metricName",
        ),
        (
            "action: spanReplaceRegex, scope: a, search: b, replace: $1",
            "there is no group 1 (position 1); the search has 0",
        ),
        (
            "action: spanReplaceRegex, scope: a, search: b, replace: 'x$'",
            "'$' is followed by no group (position 2)",
        ),
        ("action: spanReplaceRegex, scope: a, search: b, replace: '${n}'", "no group named 'n'"),
        (
            "action: spanReplaceRegex, scope: a, search: b, replace: 'x\\'",
            "a backslash ends the replacement",
        ),
        (
            "action: spanReplaceRegex, scope: a, search: b, replace: '', iterations: 0",
            "iterations is 0",
        ),
        (
            "action: spanReplaceRegex, scope: a, search: b, replace: '', iterations: 99999",
            "use 1 to 1000",
        ),
        (
            "action: spanReplaceRegex, scope: pointLine, search: b, replace: ''",
            "cannot be applied to pointLine",
        ),
        ("action: block, scope: pointLine, match: b, if: '1'", "block has no argument 'if'"),
        ("action: count, tag: x", "count has no argument 'tag'; count takes if, scope"),
        ("action: metricsFilter, function: keep, names: [a]", "function 'keep' does not exist"),
        ("action: metricsFilter, function: drop, names: a", "names is no list of texts"),
        (
            "action: metricsFilter, function: drop, names: ['/(/', '/x']",
            "names: '/x' is no expression",
        ),
        ("action: spanRenameTag, key: a, newkey: b, tag: c", "has no argument 'tag'"),
        ("action: explode", "there is no action 'explode'"),
        ("action: 5", "there is no action '5'"),
    ],
)
def test_what_is_wrong_with_a_rule(rule: str, said: str) -> None:
    found = mistakes(f"'1':\n  - {{rule: r, {rule}}}\n")
    for wanted in said.split("\n"):
        assert any(f"rules.yaml:2: rule 'r': " in each and wanted in each for each in found), found  # noqa: F541


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("'1': [", "rules.yaml:1: this is no YAML:"),
        ("- rule: a", "rules.yaml:1: the file is no map of ports"),
        ("'1': {rule: a}", "'1' holds no list of rules"),
        ("'1,,2': []", "'1,,2' names no port"),
        ("a: 1\nb: \x00", "this is no YAML"),
        ("'1':\n- &a [*a]", "this is no YAML"),
        ("[" * 3000, "rules.yaml:1: "),
        ("'1':\n  - !!python/object:os.system {}", "this is no YAML"),
    ],
)
def test_what_is_no_rules_file(text: str, said: str) -> None:
    assert said in "\n".join(mistakes(text))


@pytest.mark.parametrize("text", ["", "# nothing\n", "'2878':\n", "'2878': []\nglobal:\n"])
def test_a_file_without_rules_is_one(text: str) -> None:
    rules = read_rules(text, where="f").for_port("2878")
    assert rules.apply(Subject("a", "b", []))
    assert rules.counts() == {}


SECTIONS = """
'1': [{rule: one, action: spanCount}]
global: [{rule: everywhere, action: spanCount}]
'2, 1': [{rule: both, action: spanCount}]
Global: [{rule: late, action: spanCount}]
3: [{rule: three, action: count}]
"""


def applied(file: RulesFile, port: str | None) -> list[str]:
    rules = file.for_port(port)
    return [rule.id for rule in [*rules.spans, *rules.points]]


def test_sections_go_to_their_ports_and_global_to_those_before_it() -> None:
    file = read_rules(SECTIONS, where="f")
    assert file.ports() == ["1", "2", "3"]
    assert applied(file, "1") == ["one", "everywhere", "both", "late"]
    assert applied(file, "2") == ["both", "late"]
    assert applied(file, "3") == ["three"]
    assert applied(file, "4") == []
    assert applied(file, None) == ["everywhere", "late"]
    assert file.notes == [
        "f: global rules do not apply to 2, 3, named after them",
        "f: global rules do not apply to 3, named after them",
    ]


def test_what_may_surprise_is_noted() -> None:
    text = """
global: [{rule: a, action: count}]
'1': [{rule: b, action: logDropTag, key: x}]
'1': [{rule: c, action: logAllow, scope: message, match: x}]
"""
    file = read_rules(text, where="f")
    assert file.notes == [
        "f:3: the section '1' is replaced by the one in line 4; put their rules together",
        "f:4: rule 'c': logAllow is about logs; passed over",
        "f: global rules apply to ports named before them, and none is",
        "f: global rules do not apply to 1, named after them",
    ]


def test_anchors_and_numbers_are_what_yaml_makes_of_them() -> None:
    text = """
'1':
  - &base {rule: Rule 1!, action: spanAddTag, key: a, value: 5}
  - {<<: *base, value: 1.5}
"""
    subject = Subject("n", "s", [])
    rules = read_rules(text, where="f").for_port("1")
    assert rules.apply(subject)
    assert subject.annotations == [("a", "5"), ("a", "1.5")]
    # Only what a metric's name may hold; both have one row.
    assert {name: row.hits for name, row in rules.counts().items()} == {"ule1": 2}


def test_ports_count_on_their_own() -> None:
    file = read_rules("'1, 2': [{rule: a, action: spanCount}]", where="f")
    one, two = file.for_port("1"), file.for_port("2")
    one.apply(Subject("n", "s", []))
    assert (one.counts()["a"].hits, two.counts()["a"].hits) == (1, 0)


def test_the_regex_engine_is_loaded_with_the_first_expression() -> None:
    """Who has no rules does not pay for it."""
    script = (
        "import sys; from tracefwd.processor.rules import read_rules;"
        "read_rules(\"'1': [{rule: a, action: spanCount}]\", where='f');"
        "assert 're2' not in sys.modules;"
        "read_rules(\"'1': [{rule: a, action: spanDropTag, key: a}]\", where='f');"
        "assert 're2' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
