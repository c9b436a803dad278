"""Wavefront's rules on names: the vendor's own test data."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracefwd import naming


@pytest.mark.parametrize(
    ("key", "clean"),
    [
        ("special|tag:", "special-tag-"),
        ("'customJaegerSource'", "-customJaegerSource-"),
        ("guid:x-request-id", "guid-x-request-id"),
        ("a/b", "a-b"),
        ("~ok", "~ok"),
        ("not~ok", "not-ok"),
        ("∆~x", "∆~x"),
        ("é", "-"),
        ("😀", "--"),
        ("istio.canonical_service", "istio.canonical_service"),
    ],
)
def test_keys_are_cleaned_as_the_vendors_sanitiser_does(key: str, clean: str) -> None:
    assert naming.clean_key(key) == clean


@given(st.text(min_size=1, max_size=50))
def test_cleaning_twice_changes_nothing(key: str) -> None:
    once = naming.clean_key(key)
    assert naming.clean_key(once) == once


def test_a_red_stem_is_cleaned_twice_over() -> None:
    assert (
        naming.clean_stem("Zipkin", "reviews.default", "reviews:9080/*")
        == "Zipkin.reviews.default.reviews-9080--"
    )
    assert naming.clean_stem("a,b", "c~d", "e") == "a_b.c-d.e"


@given(st.text(max_size=60), st.integers(0, 40))
def test_a_cut_is_the_longest_head_that_splits_no_character(text: str, units_max: int) -> None:
    head = naming.cut(text, units_max)
    assert text.startswith(head)
    assert naming.length(head) <= units_max
    if head != text:
        assert naming.length(text[: len(head) + 1]) > units_max


@given(st.text(max_size=60))
def test_lengths_are_those_of_java(text: str) -> None:
    assert naming.length(text) == len(text.encode("utf-16-le", "surrogatepass")) // 2


@pytest.mark.parametrize(
    ("hex_id", "uuid"),
    [
        ("2822889fe47043bd", "00000000-0000-0000-2822-889fe47043bd"),
        ("463ac35c9f6413ad48485a3953bb6124", "463ac35c-9f64-13ad-4848-5a3953bb6124"),
        ("1", "00000000-0000-0000-0000-000000000001"),
    ],
)
def test_ids_become_uuids_as_the_proxy_makes_them(hex_id: str, uuid: str) -> None:
    assert naming.uuid(hex_id) == uuid
