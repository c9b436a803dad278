"""``if`` in both forms: what holds, and what is refused where."""

from typing import Any

import pytest

from tracefwd.processor.rules.dialect import Refused
from tracefwd.processor.rules.predicate import read_predicate
from tracefwd.processor.rules.subject import POINT, SPAN, Subject

SPAN_TAGS = [
    ("foo", "bar1-baz"),
    ("foo", "bar2-baz"),
    ("boo", "baz"),
    ("span.kind", "error"),
    ("http.status_code", "404"),
    ("application", "beachshirts"),
    ("_odd key:", "x"),
    ("quote", 'say "hi"'),
]


def span() -> Subject:
    subject = Subject(
        "testSpanName", "spanSourceName", SPAN_TAGS, start_ms=1_532_012_145_123, duration_ms=1_111
    )
    subject.index()
    return subject


def point() -> Subject:
    tags = [("tagk1", "tagv1"), ("env", "prod"), ("dc", "us-west-2")]
    subject = Subject("testMetric", "testHost", tags, start_ms=1_592_837_162_000, value=1234.5)
    subject.index()
    return subject


@pytest.mark.parametrize(
    ("expression", "holds"),
    [
        ("$duration = 1111", True),
        ("$duration != 1111", False),
        ("$duration = 1111.1", False),
        ("$startMillis = 1532012145123", True),
        ("$ duration > 1k and $duration < 1.2 k", True),
        ("$duration > 1e3 and $duration <= 0x457", True),
        ("$duration >= -5", True),
        ("$duration > +5", True),
        ("$duration < 5", False),
        ("3 < $duration < 5", True),  # from left to right: 1 < 5
        ("{{sourceName}} startsWith 'span'", True),
        ("'{{sourceName}}' startsWith 'span'", True),
        ("{{sourceName}} contains 'sourceName'", False),
        ("{{foo}} equals 'bar1-baz'", True),
        ("{{foo}} = 'bar2-baz'", False),
        ("{{foo}} all startsWith 'bar'", True),
        ("{{foo}} all startsWith 'bar1'", False),
        ("{{foo}} any startsWith 'bar2'", True),
        ("{{foo}} none startsWith 'bar3'", True),
        ("{{foo}} NONE startsWith 'bar2'", False),
        ("{{foo}} all endsWithIgnoreCase 'BAZ'", True),
        ("{{foo}} all containsIgnoreCase '-BA'", True),
        ("{{foo}} all matches '*ar*'", True),
        ("{{foo}} any matches '*az'", True),
        ("{{foo}} any matches 'b*2*z'", True),
        ("{{foo}} all matches '*ar'", False),
        ("{{foo}} all matchesIgnoreCase '*AR*'", True),
        ("{{foo}} all regexMatch '^.*ar.*$'", True),
        ("{{foo}} all regexMatch 'ar'", False),
        ("{{foo}} all regexMatchIgnoreCase '^.*AR.*$'", True),
        ("{{foo}} any equals '{{boo}}'", False),
        ("{{foo}} all endsWith {{boo}}", True),
        ("{{none}} all = 'x'", True),
        ("{{none}} any = ''", False),
        ("{{none}} = ''", True),
        ("{{http.status_code}} in ('400', \"404\")", True),
        ("{{http.status_code}} in ('400', '{{boo}}')", False),
        ("{{span.kind}}='error'", True),
        ("{{_odd key:}} = 'x'", True),
        ('{{"_odd key:"}} = "x"', True),
        ('{{quote}} = "say \\"hi\\""', True),
        ('{{ boo }} equals ("baz")', True),
        ('(("baz")) = {{boo}}', True),
        ('(("baz") = {{boo}})', True),
        ('"{{boo}}/{{application}}" = "baz/beachshirts"', True),
        ("1", True),
        ("0", False),
        ("1 n", False),  # too small to be true
        ("not 5", False),
        ("not not 5", True),
        ("not $duration = 5 and 1", True),
        # and, or: the same rank.
        ("1 or 1 and 0", False),
        ("1 OR (1 AND 0)", True),
        ("(1 = 1) = 1", True),
        ("$duration /* slow */ > // really\n 5", True),
        (
            '{{application}} = "beachshirts" and {{spanName}} startsWith "test"\nand {{boo}} = "baz"',
            True,
        ),
    ],
)
def test_expressions_on_spans(expression: str, holds: bool) -> None:
    assert bool(read_predicate(SPAN, expression)(span())) is holds


@pytest.mark.parametrize(
    ("expression", "holds"),
    [
        ("$value = 1234.5", True),
        ("$timestamp = 1592837162000", True),
        ("{{metricName}} contains 'test'", True),
        ("{{sourceName}} all startsWith 'test'", True),
        ("{{tagk1}} all equals 'tagv1'", True),
        ("{{none}} any = ''", True),  # a point holds a map: an absent tag is an empty one
        ("\"{{env}}:{{dc}}\" equals 'prod:us-west-2'", True),
    ],
)
def test_expressions_on_points(expression: str, holds: bool) -> None:
    assert bool(read_predicate(POINT, expression)(point())) is holds


@pytest.mark.parametrize(
    ("left", "operator", "right", "holds"),
    [
        ("aAa", "equalsIgnoreCase", "AaA", True),
        ("straße", "equalsIgnoreCase", "STRASSE", False),
        ("É", "equalsIgnoreCase", "é", True),
        ("İ", "equalsIgnoreCase", "i", True),
        ("aBCd", "startsWithIgnoreCase", "Ab", True),
        ("aBCd", "endsWithIgnoreCase", "aB", False),
        ("abcde", "matches", "a*e", True),
        ("abcde", "matches", "*cde", True),
        ("abcde", "matches", " ab* ", True),
        ("abcde", "matches", "*", True),
        ("abcde", "matches", "*dc*", False),
        ("aba", "matches", "ab*ba", False),
        ("abba", "matches", "ab*ba", True),
        ("a\nb", "matches", "a*b", True),
        (" abCDe ", "matchesIgnoreCase", "a*E", False),
        (" abCDe ", "matchesIgnoreCase", "AB*", True),
        ("abcde", "matches", "abcde", True),
        ("abcde", "regexMatch", "^.+bc.+$", True),
        ("abCDe", "regexMatchIgnoreCase", "^.+bc.+$", True),
        ("a", "contains", "", True),
    ],
)
def test_comparisons_are_the_same_in_both_forms(
    left: str, operator: str, right: str, holds: bool
) -> None:
    subject = Subject("n", "s", [("k", left)])
    subject.index()
    nested = {operator: {"scope": "k", "value": right}}
    assert bool(read_predicate(SPAN, nested)(subject)) is holds
    assert bool(read_predicate(SPAN, f'{{{{k}}}} {operator} "{right}"')(subject)) is holds
    assert bool(read_predicate(SPAN, f'{{{{k}}}} any {operator} "{right}"')(subject)) is holds
    if "atch" not in operator:
        subject.append("r", right)
        assert bool(read_predicate(SPAN, f"{{{{k}}}} {operator} {{{{r}}}}")(subject)) is holds


def equals(scope: str, value: Any) -> dict[str, Any]:
    return {"equals": {"scope": scope, "value": value}}


YES, NO = equals("boo", "baz"), equals("boo", "no")


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        (YES, True),
        (NO, False),
        (equals("boo", ["no", "baz"]), True),
        (equals("boo", []), False),
        (equals("spanName", "testSpanName"), True),
        (equals("sourceName", "spanSourceName"), True),
        (equals("none", ""), True),
        (equals("boo", "{{boo}}"), False),  # no placeholders here
        ({"=": {"scope": "boo", "value": "baz"}}, True),
        ({"contains": {"scope": "foo", "value": ["x", "r1"]}}, True),
        ({"regexMatch": {"scope": "foo", "value": ["^bar2.*", "bar"]}}, False),  # the first foo
        ({"all": [YES, YES]}, True),
        ({"all": [YES, NO]}, False),
        ({"all": []}, True),
        ({"any": [NO, YES]}, True),
        ({"any": []}, False),
        ({"none": [NO, NO]}, True),
        ({"none": [NO, YES]}, False),
        ({"all": [{"any": [NO, {"none": [NO]}]}, YES]}, True),
        ({"all": [YES | {"contains": {"scope": "boo", "value": "x"}}]}, False),
        ({"ignore": [{"whatever": None}]}, True),
        ({"none": [{"ignore": []}]}, False),
    ],
)
def test_nested_maps(condition: dict[str, Any], holds: bool) -> None:
    assert bool(read_predicate(SPAN, condition)(span())) is holds


@pytest.mark.parametrize(
    ("expression", "position", "said"),
    [
        ("", 0, "ends too early"),
        ("{{foo}}", 0, "not true or false"),
        ('"text" and 1', 7, "'and' cannot stand here"),
        ("{{foo}} = ", 10, "a text is missing"),
        ("{{foo}} > 5", 8, "compares numbers"),
        ("$duration = 'x'", 10, "compares a number with a text"),
        ("$value > 5", 0, "a span has no $value"),
        ("$unknown > 5", 0, "has no $unknown"),
        ("parse({{foo}}) > 5", 0, "'parse' cannot stand here"),
        ("1 = 1 and hashCode({{foo}}) = 1", 10, "'hashCode'"),
        ("{{foo}}.isEmpty()", 7, "'.' cannot stand here"),
        ("{{foo}} + 'x' = 'y'", 8, "'+' cannot stand here"),
        ("$duration + 5 > 1", 10, "'+' cannot stand here"),
        ("$duration % 4 = 0", 10, "'%' cannot stand here"),
        ("$duration << 4", 10, "'<' cannot stand here"),
        ("1 = 1 ? 2 : 3", 6, "'?' cannot stand here"),
        ("time('now') > 5", 0, "'time'"),
        ("random() < 0.5", 0, "'random'"),
        ("(1 = 1", 6, "')' is missing"),
        ("1 = 1)", 5, "')' cannot stand here"),
        ("{{foo}} in 'x'", 11, "'(' is missing"),
        ("{{foo}} in ('x'", 15, "')' is missing"),
        ("{{foo}} any in ('x')", 12, "'in' cannot stand here"),
        ("'x' any = 'x'", 4, "wants {{key}} before it"),
        ("{{foo}} regexMatch '{{boo}}'", 19, "without {{...}}"),
        ("{{foo}} matches {{boo}}", 16, "without {{...}}"),
        ("{{foo}} regexMatch 'a(?=b)'", 19, "lookahead is not supported"),
        ("{{foo}} any regexMatch '(a'", 23, "a group is not closed"),
        ("{{foo}} matches ''", 16, "the pattern is empty"),
        ("{{foo} = 'x'", 0, "'{' cannot stand here"),
        ('{{foo}} = "x', 10, "a text is missing"),
        ("{{foo}} like 'x'", 8, "'like' cannot stand here"),
        ("(" * 60 + "1" + ")" * 60, 50, "nested more than"),
        ("not " * 60 + "1", 200, "nested more than"),
        ("'a' = " + "(" * 60 + "'a'" + ")" * 60, 56, "nested more than"),
    ],
)
def test_what_is_not_understood_is_refused_with_its_place(
    expression: str, position: int, said: str
) -> None:
    with pytest.raises(Refused) as refused:
        read_predicate(SPAN, expression)
    assert (refused.value.position, said in refused.value.reason) == (position, True), str(
        (refused.value.position, refused.value.reason)
    )


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ({}, "0 operators"),
        (YES | NO | {"any": []}, "2 operators"),
        (5, "neither an expression nor a map"),
        ({"any": {"equals": 1}}, "holds no list"),
        ({"any": ["x"]}, "is no operator"),
        ({"any": [{"regexMatch": None, "scope": "a", "value": "b"}]}, "several keys"),
        ({"any": [YES | {"all": []}]}, "several keys"),
        ({"equal": {"scope": "a", "value": "b"}}, "no operator 'equal'"),
        ({"equals": {"scope": "a"}}, "wants scope and value"),
        ({"equals": {"scope": "a", "value": "b", "x": 1}}, "wants scope and value"),
        ({"equals": {"scope": 5, "value": "b"}}, "scope of 'equals' is no text"),
        ({"equals": {"scope": "a", "value": 404}}, "is no text or list"),
        ({"equals": {"scope": "a", "value": [404]}}, "is no text or list"),
        ({"regexMatch": {"scope": "a", "value": "("}}, "a group is not closed"),
    ],
)
def test_maps_that_say_nothing_clear_are_refused(condition: object, said: str) -> None:
    with pytest.raises(Refused) as refused:
        read_predicate(SPAN, condition)
    assert said in refused.value.reason, refused.value.reason


def test_maps_without_an_end_are_refused() -> None:
    condition: dict[str, Any] = YES
    for _ in range(60):
        condition = {"any": [condition]}
    with pytest.raises(Refused, match="nested"):
        read_predicate(SPAN, condition)
