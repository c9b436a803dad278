"""Whatever a span holds, rules neither raise nor lose it; what they did is counted and can be shown."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.processor.rules.rule_files import rules, rules_file
from tracefwd.limits import MEMO_ENTRIES_MAX
from tracefwd.processor.rules import Change, RuleSet, Step, Subject

ANY_TEXT = st.text(max_size=20) | st.sampled_from(
    ["\ud800", "$1", "a\\", "\x00", "{{x}}", "İ", "a" * 999]
)
KEYS = st.sampled_from(["a", "b", "http.url", "", "service", "\ud800"]) | ANY_TEXT
SUBJECTS = st.builds(
    lambda name, source, tags, start, duration, value: Subject(
        name, source, tags, start_ms=start, duration_ms=duration, value=value
    ),
    ANY_TEXT,
    ANY_TEXT,
    st.lists(st.tuples(KEYS, ANY_TEXT), max_size=6),
    st.integers(),
    st.integers(),
    st.floats(),
)
EVERYTHING: list[dict[str, Any]] = [
    {"action": "ReplaceRegex", "scope": "b", "search": "(.)", "replace": "{{a}}$1"},
    {"action": "ReplaceRegex", "scope": "b", "search": ".", "replace": "$0$0", "iterations": 99},
    {"action": "ReplaceRegex", "scope": "NAME", "search": "z*", "replace": "{{sourceName}}"},
    {"action": "ForceLowercase", "scope": "sourceName"},
    {"action": "AddTag", "KEY": "b", "value": "{{http.url}}"},
    {"action": "AddTagIfNotExists", "KEY": "c", "value": "{{nope}}"},
    {
        "action": "ExtractTag",
        "KEY": "a",
        "INPUT": "b",
        "search": "x*",
        "replace": "$0",
        "replaceInput": "{{c}}",
    },
    {
        "action": "ExtractTagIfNotExists",
        "KEY": "d",
        "INPUT": "NAME",
        "search": "^(.)",
        "replace": "$1",
    },
    {"action": "RenameTag", "KEY": "a", "NEW": "b"},
    {
        "action": "LimitLength",
        "scope": "b",
        "actionSubtype": "truncateWithEllipsis",
        "maxLength": 5,
    },
    {"action": "LimitLength", "scope": "c", "actionSubtype": "drop", "maxLength": 5},
    {"action": "DropTag", "KEY": "h.*", "match": ".*s"},
    {"action": "DropTag", "KEY": "[^a-z]+"},
    {"action": "Count", "if": '{{a}} any matches "*1*" or not {{b}} all containsIgnoreCase {{c}}'},
    {"action": "Block", "scope": "b", "match": "[\\w&&[^b]]+"},
    {"action": "Allow", "if": {"none": [{"regexMatch": {"scope": "a", "value": "(?i)x+"}}]}},
]
NAMES = {
    "span": {"KEY": "key", "INPUT": "input", "NEW": "newkey", "NAME": "spanName"},
    "point": {"KEY": "tag", "INPUT": "source", "NEW": "newtag", "NAME": "metricName"},
}


def everything(kind: str) -> RuleSet:
    names = NAMES[kind]
    given = []
    for rule in EVERYTHING:
        action = rule["action"]
        action = f"span{action}" if kind == "span" else action[0].lower() + action[1:]
        plain = {
            names.get(key, key): names.get(value, value) if isinstance(value, str) else value
            for key, value in rule.items()
        }
        given.append({**plain, "action": action})
    if kind == "span":
        given.append({"action": "spanAllowTag", "allow": {"a": ".", "b": "x+", "c": ".*"}})
    return rules(*given)


SPAN_RULES, POINT_RULES = everything("span"), everything("point")


@given(subject=SUBJECTS)
@settings(deadline=None, max_examples=150)
def test_no_span_can_make_rules_raise(subject: Subject) -> None:
    SPAN_RULES.apply(subject)
    assert_sound(subject)
    SPAN_RULES.trace(subject)
    assert_sound(subject)


@given(subject=SUBJECTS)
@settings(deadline=None, max_examples=150)
def test_no_point_can_make_rules_raise(subject: Subject) -> None:
    subject.replace(list(dict(subject.annotations).items()))
    POINT_RULES.apply_point(subject)
    assert_sound(subject)
    assert not subject.repeats


def assert_sound(subject: Subject) -> None:
    """The index mirrors the tags, and nothing has grown out of bounds."""
    held = dict(subject.values), subject.repeats
    subject.index()
    assert held == (subject.values, subject.repeats)
    for text in [subject.name, subject.source, *(value for _, value in subject.annotations)]:
        assert len(text) <= 65_536


@given(
    tags=st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["x", "xy", "z"])), max_size=5)
)
@settings(deadline=None, max_examples=200)
def test_a_span_is_blocked_exactly_when_one_of_its_values_matches(
    tags: list[tuple[str, str]],
) -> None:
    wanted = any(key == "a" and value.startswith("x") for key, value in tags)
    assert BLOCK.apply(Subject("n", "s", list(tags))) is not wanted
    assert ALLOW.apply(Subject("n", "s", list(tags))) is wanted
    assert BLOCK_IF.apply(Subject("n", "s", list(tags))) is not wanted


BLOCK = rules({"action": "spanBlock", "scope": "a", "match": "x.*"})
ALLOW = rules({"action": "spanAllow", "scope": "a", "match": "x.*"})
BLOCK_IF = rules({"action": "spanBlock", "if": '{{a}} any startsWith "x"'})


def test_counts_say_what_each_rule_did() -> None:
    set_ = rules(
        {"rule": "change", "action": "spanForceLowercase", "scope": "a"},
        {"rule": "shared", "action": "spanCount", "if": "$duration > 5"},
        {
            "rule": "shared",
            "action": "spanAddTag",
            "key": "k",
            "value": "v",
            "if": "$duration > 50",
        },
        {
            "rule": "grow",
            "action": "spanReplaceRegex",
            "scope": "b",
            "search": ".",
            "replace": "$0$0",
            "iterations": 99,
        },
        {"rule": "first", "action": "spanBlock", "scope": "a", "match": "x"},
        {"rule": "second", "action": "spanAllow", "scope": "a", "match": "y"},
    )
    for value, duration in [("X", 1), ("Y", 10), ("z", 100), ("y", 10)]:
        set_.apply(Subject("n", "s", [("a", value), ("b", "bb")], duration_ms=duration))
    assert {
        name: (row.checked, row.hits, row.failed, row.blocked)
        for name, row in set_.counts().items()
    } == {
        "change": (4, 4, 0, 0),
        "shared": (8, 4, 0, 0),
        "grow": (4, 0, 4, 0),
        "first": (4, 1, 0, 1),
        "second": (3, 1, 0, 1),
    }


def test_a_failed_rule_leaves_the_span_as_it_was_and_the_others_go_on() -> None:
    set_ = rules(
        {
            "action": "spanReplaceRegex",
            "scope": "a",
            "search": "[xy]",
            "replace": "$0$0",
            "iterations": 99,
        },
        {"action": "spanAddTag", "key": "k", "value": "v"},
    )
    # The second value fails when the first has been changed already.
    subject = Subject("n", "s", [("a", "none"), ("a", "x"), ("a", "y")])
    assert set_.apply(subject)
    assert subject.annotations == [("a", "none"), ("a", "x"), ("a", "y"), ("k", "v")]


def test_a_trace_tells_what_each_rule_did_and_counts_nothing() -> None:
    set_ = rules(
        {"action": "spanRenameTag", "key": "a", "newkey": "b"},
        {"action": "spanForceLowercase", "scope": "spanName"},
        {"action": "spanForceLowercase", "scope": "sourceName"},
        {"action": "spanDropTag", "key": "none"},
        {"action": "spanReplaceRegex", "scope": "b", "search": "x", "replace": "y"},
        {
            "action": "spanReplaceRegex",
            "scope": "b",
            "search": ".",
            "replace": "$0$0",
            "iterations": 99,
        },
        {"action": "spanAllow", "scope": "b", "match": "y"},
        {"action": "spanBlock", "scope": "b", "match": "y"},
        {"action": "spanBlock", "scope": "b", "match": "z"},
    )
    steps = set_.trace(Subject("Name", "source", [("a", "x"), ("c", "d")]))
    assert [step._replace(line=0) for step in steps] == [
        Step("r0", "spanRenameTag", 0, "applied", (Change("a", "x", None), Change("b", None, "x"))),
        Step("r1", "spanForceLowercase", 0, "applied", (Change("spanName", "Name", "name"),)),
        Step("r2", "spanForceLowercase", 0, "no effect"),
        Step("r3", "spanDropTag", 0, "not applicable"),
        Step("r4", "spanReplaceRegex", 0, "applied", (Change("b", "x", "y"),)),
        Step("r5", "spanReplaceRegex", 0, "failed"),
        Step("r6", "spanAllow", 0, "passed"),
        Step("r7", "spanBlock", 0, "blocked"),
    ]
    assert all(row.hits == row.checked == row.blocked == 0 for row in set_.counts().values())


def test_known_keys_are_bounded_and_forgetting_them_changes_nothing() -> None:
    file = rules_file(
        {"action": "spanAddTag", "key": "x-made", "value": "v"},
        {"action": "spanDropTag", "key": "x-.*"},
    )
    set_, other = file.for_port("1"), file.for_port("1")
    for index in range(MEMO_ENTRIES_MAX + 100):
        subject = Subject("n", "s", [(f"k{index}", "v"), (f"x-{index}", "v"), ("x-same", "v")])
        assert (set_ if index % 2 else other).apply(subject)
        assert subject.annotations == [(f"k{index}", "v")]
    assert len(file.keys.known) <= MEMO_ENTRIES_MAX
