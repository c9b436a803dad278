"""Java's idea of blank, order and length."""

import pytest

from tracefwd.processor import java_text


@pytest.mark.parametrize("text", ["", " ", "\t\n\x1f", "\u3000", "\u2028"])
def test_blank_is_javas_white_space(text: str) -> None:
    assert java_text.is_blank(text)


@pytest.mark.parametrize("text", ["\u00a0", "\u202f", "\x85", "\x01", "x"])
def test_no_break_spaces_and_controls_are_not_blank(text: str) -> None:
    assert not java_text.is_blank(text)


def test_cleaning_trims_controls_and_keeps_wide_blanks() -> None:
    assert java_text.sanitised("\x01 a\nb\r\n\u3000\t") == "a\\nb\r\\n\u3000"


def test_order_is_by_code_unit() -> None:
    assert sorted(["\ufffd", "\U0001f680", "a"], key=java_text.order) == [
        "a",
        "\U0001f680",
        "\ufffd",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("abcd", "abc"),
        ("abü", "abü"),
        ("ab\U0001f680", "ab?"),
        ("a\U0001f680", "a\U0001f680"),
        ("a\U0001f680b", "a\U0001f680"),
    ],
)
def test_a_cut_counts_code_units_and_marks_half_a_pair(text: str, expected: str) -> None:
    assert java_text.cut(text, 3) == expected


@pytest.mark.parametrize("odd", ["", " a", "a ", "a\\", "a\nb", "ü", "x" * 9, "\ta"])
def test_what_needs_cleaning_is_not_plain(odd: str) -> None:
    assert not java_text.is_plain(odd, 8)
    assert not java_text.all_plain(["a", odd], 8)
    assert not java_text.all_plain([odd], 8)
    assert java_text.all_plain(["a", "b c", "x" * 8], 8)


@pytest.mark.parametrize("odd", ['a"b', "a\\b", "a\x01b"])
def test_all_plain_texts_need_no_escape_either(odd: str) -> None:
    assert not java_text.all_plain([odd], 8)


def test_no_texts_are_plain() -> None:
    assert java_text.all_plain([], 8)
