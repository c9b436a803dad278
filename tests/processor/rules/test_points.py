"""Rules on points and lines: a point has every tag once, so what is added replaces."""

from typing import Any

import pytest

from tests.processor.rules.rule_files import rules
from tracefwd.processor.rules import Subject

TAGS = [("env", "prod"), ("dc", "us-west-2")]


def point(*tags: tuple[str, str], name: str = "cpu.load.5m", source: str = "Host-1") -> Subject:
    return Subject(name, source, list(tags), start_ms=1_592_837_162_000, value=1234.5)


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ({"action": "addTag", "tag": "env", "value": "x"}, [("env", "x"), TAGS[1]]),
        (
            {"action": "addTag", "tag": "new", "value": "{{metricName}}"},
            [*TAGS, ("new", "cpu.load.5m")],
        ),
        ({"action": "addTagIfNotExists", "tag": "env", "value": "x"}, TAGS),
        (
            {"action": "addTagIfNotExists", "tag": "new", "value": "{{env}}"},
            [*TAGS, ("new", "prod")],
        ),
        ({"action": "dropTag", "tag": "e.*"}, TAGS[1:]),
        ({"action": "dropTag", "tag": ".*", "match": "us.*"}, TAGS[:1]),
        ({"action": "renameTag", "tag": "env", "newtag": "stage"}, [("stage", "prod"), TAGS[1]]),
        ({"action": "renameTag", "tag": "env", "newtag": "dc"}, [("dc", "prod")]),
        ({"action": "renameTag", "tag": "env", "newtag": "env"}, TAGS),
        ({"action": "renameTag", "tag": "env", "newtag": "stage", "match": "dev"}, TAGS),
        (
            {"action": "replaceRegex", "scope": "dc", "search": "-", "replace": "."},
            [TAGS[0], ("dc", "us.west.2")],
        ),
        (
            {"action": "limitLength", "scope": "dc", "actionSubtype": "drop", "maxLength": 4},
            TAGS[:1],
        ),
        (
            {"action": "limitLength", "scope": "dc", "actionSubtype": "truncate", "maxLength": 4},
            [TAGS[0], ("dc", "us-w")],
        ),
        (
            {
                "action": "extractTag",
                "tag": "zone",
                "source": "dc",
                "search": "^([^-]*)-(.*)$",
                "replace": "$1",
                "replaceSource": "$2",
            },
            [TAGS[0], ("dc", "west-2"), ("zone", "us")],
        ),
        (
            {
                "action": "extractTag",
                "tag": "env",
                "source": "metricName",
                "search": "^([^.]*)\\..*",
                "replace": "$1",
            },
            [("env", "cpu"), TAGS[1]],
        ),
        (
            {
                "action": "extractTag",
                "tag": "zone",
                "source": "pointLine",
                "search": "^.*-(.)$",
                "replace": "$1",
            },
            [*TAGS, ("zone", "2")],
        ),
        (
            {
                "action": "extractTagIfNotExists",
                "tag": "env",
                "source": "dc",
                "search": ".*",
                "replace": "x",
            },
            TAGS,
        ),
        ({"action": "count"}, TAGS),
    ],
)
def test_actions_on_tags(rule: dict[str, Any], wanted: list[tuple[str, str]]) -> None:
    subject = point(*TAGS)
    assert rules(rule).apply_point(subject)
    assert subject.annotations == wanted


def test_name_and_source() -> None:
    subject = point()
    set_ = rules(
        {"action": "forceLowercase", "scope": "sourceName"},
        {"action": "replaceRegex", "scope": "metricName", "search": "^cpu\\.", "replace": ""},
        {
            "action": "limitLength",
            "scope": "metricName",
            "actionSubtype": "truncate",
            "maxLength": 4,
        },
        {
            "action": "extractTag",
            "tag": "host",
            "source": "sourceName",
            "search": "-\\d",
            "replace": "",
            "replaceInput": "!",
        },
    )
    assert set_.apply_point(subject)
    assert (subject.name, subject.source) == ("load", "host!")
    assert subject.annotations == [("host", "host")]


def test_span_rules_leave_points_alone_and_the_other_way_round() -> None:
    set_ = rules(
        {"action": "spanBlock", "scope": "spanName", "match": ".*"},
        {"action": "addTag", "tag": "new", "value": "x"},
    )
    subject = point(*TAGS)
    assert set_.apply_point(subject)
    assert subject.annotations == [*TAGS, ("new", "x")]
    assert not set_.apply(Subject("a", "b", []))


def test_dropping_by_length_minds_its_match_unless_exact() -> None:
    rule = {"action": "limitLength", "scope": "dc", "actionSubtype": "drop", "maxLength": 4}
    for exact, wanted in [(False, TAGS), (True, TAGS[:1])]:
        subject = point(*TAGS)
        assert rules({**rule, "match": "eu.*"}, exact=exact).apply_point(subject)
        assert subject.annotations == wanted


@pytest.mark.parametrize(
    ("rule", "passes"),
    [
        ({"action": "block", "scope": "metricName", "match": "cpu\\..*"}, False),
        ({"action": "blacklistRegex", "scope": "sourceName", "match": "host.*"}, True),
        ({"action": "allow", "scope": "env", "match": "prod"}, True),
        ({"action": "whitelistRegex", "scope": "env", "match": "dev"}, False),
        ({"action": "block", "if": "$value > 1k and $timestamp > 0"}, False),
        ({"action": "allow", "if": '{{none}} any = ""'}, True),
        ({"action": "metricsFilter", "function": "allow", "names": ["mem", "/^cpu/"]}, True),
        ({"action": "metricsFilter", "function": "allow", "names": ["cpu.load"]}, False),
        ({"action": "metricsFilter", "function": "DROP", "names": ["cpu.load.5m"]}, False),
        ({"action": "metricsFilter", "function": "drop", "names": ["/mem/"], "opts": {}}, True),
    ],
)
def test_filters(rule: dict[str, Any], passes: bool) -> None:
    assert rules(rule).apply_point(point(*TAGS)) is passes


def test_lines_are_rewritten_and_kept_out_before_they_are_read() -> None:
    line = {"scope": "pointLine"}
    set_ = rules(
        {
            "action": "replaceRegex",
            **line,
            "search": "([^;]*);([^; ]*)([ ;].*)",
            "replace": "$1$3 $2",
            "iterations": "10",
        },
        {"action": "block", "scope": "inputText", "match": ".*secret.*"},
        {"action": "allow", **line, "match": "metric.*"},
        {
            "action": "replaceRegex",
            **line,
            "search": "{{0}}".replace("{", "\\{"),
            "replace": "{{x}}",
        },
    )
    assert set_.apply_line("metric;a=b;c=d 1 2") == "metric 1 2 a=b c=d"
    assert set_.apply_line("metric {{0}}") == "metric {{x}}"
    assert set_.apply_line("metric secret") is None
    assert set_.apply_line("other") is None
    assert set_.apply_line("") is None
    counted = set_.counts()
    assert [(row.checked, row.hits, row.blocked) for row in counted.values()] == [
        (5, 1, 0),
        (5, 1, 1),
        (4, 2, 2),
        (5, 1, 0),
    ]


def test_a_line_rules_failure_leaves_the_line_alone() -> None:
    double = {"action": "replaceRegex", "scope": "pointLine", "search": ".", "replace": "$0$0"}
    set_ = rules({**double, "iterations": 100})
    assert set_.apply_line("abc") == "abc"
    assert set_.counts()["r0"].failed == 1
