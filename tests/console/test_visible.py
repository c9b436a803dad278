"""No text of a stranger moves a terminal's cursor, colours it, rings, or turns the writing round."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracefwd.console.visible import visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a b", "a b"),
        ("naïve 漢字", "naïve 漢字"),
        ("\x1b[31mred\x1b]0;title\x07", "\\x1b[31mred\\x1b]0;title\\x07"),
        ("a\r\nb\tc", "a\\x0d\\x0ab\\x09c"),
        ("\x9b2J\x7f\x00", "\\x9b2J\\x7f\\x00"),
        ("\u202egpj.exe\u2066\u200f", "\\u202egpj.exe\\u2066\\u200f"),
        ("\u2028\ufeff\ue000", "\\u2028\\ufeff\\ue000"),
        ("\ud800", "\\ud800"),
        ("<b>[red]", "<b>[red]"),
    ],
)
def test_what_a_terminal_would_obey_is_written_out(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(st.text(max_size=300), st.integers(min_value=1, max_value=250))
def test_the_result_is_one_printable_line_within_its_length(text: str, most: int) -> None:
    shown = visible(text, most)
    assert len(shown) <= most
    assert not [
        char for char in shown if unicodedata.category(char)[0] == "C" or char in "\u2028\u2029"
    ]


def test_a_cut_text_says_so() -> None:
    assert visible("n" * 10_000, 5) == "nnnn…"
