"""What the Zipkin library does to a span before the proxy sees it."""

import pytest

from tracefwd.model import Annotation, Endpoint, Span
from tracefwd.processor import zipkin_rules


@pytest.mark.parametrize(
    ("ipv4", "ipv6", "expected"),
    [
        ("10.1.2.3", None, "10.1.2.3"),
        ("010.001.2.3", None, "010.001.2.3"),
        ("10.1.2.3", "2001:db8::7", "10.1.2.3"),
        (None, "::ffff:10.1.2.3", "10.1.2.3"),
        (None, "::10.1.2.3", "10.1.2.3"),
        ("2001:db8::7", None, None),
        ("256.1.2.3", None, None),
        ("1.2.3", None, None),
        ("1.2.3.4.5", None, None),
        ("", None, None),
        (None, None, None),
    ],
)
def test_only_what_parses_is_an_address(
    ipv4: str | None, ipv6: str | None, expected: str | None
) -> None:
    assert zipkin_rules.ipv4(Endpoint("s", ipv4, ipv6)) == expected


def test_a_trace_id_with_an_empty_upper_half_is_a_64_bit_one() -> None:
    assert zipkin_rules.trace_id("0" * 16 + "48485a3953bb6124") == "48485a3953bb6124"
    assert zipkin_rules.trace_id("1" + "0" * 31) == "1" + "0" * 31


def test_annotations_are_sorted_and_unique() -> None:
    a, b, c = Annotation(1, "b"), Annotation(2, "a"), Annotation(2, "\ufffd")
    d = Annotation(2, "\U0001f680")
    assert zipkin_rules.sorted_annotations([c, d, b, a, Annotation(2, "a")]) == [a, b, d, c]
    assert zipkin_rules.sorted_annotations([]) is None


def test_tags_are_sorted_by_code_unit() -> None:
    tags = {"\ufffd": "1", "\U0001f680": "2", "a": "3", "B": "4"}
    assert [key for key, _ in zipkin_rules.sorted_tags(tags)] == ["B", "a", "\U0001f680", "\ufffd"]
    assert zipkin_rules.sorted_tags({"b": "1", "a": "2"}) == [("a", "2"), ("b", "1")]


def test_names_are_lowered_and_empty_ones_absent() -> None:
    assert zipkin_rules.lowered("GET /Ä") == "get /ä"
    assert zipkin_rules.lowered("") is None


def test_spans_without_endpoint_and_tags_are_read_as_version_1() -> None:
    bare = Span("463ac35c9f6413ad", "a2fb4a1d1a96d312")
    assert zipkin_rules.read_as_version_1([bare])
    assert not zipkin_rules.read_as_version_1([bare, Span("a", "b", tags={})])
