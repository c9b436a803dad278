import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracefwd.exporter.batch import cut, halves

LINES = st.lists(
    st.binary(max_size=40).map(lambda raw: raw.replace(b"\n", b"") + b"\n"), max_size=30
)


@given(lines=LINES, bytes_max=st.integers(1, 120), items_max=st.integers(1, 8))
@settings(deadline=None, max_examples=200)
def test_pieces_are_whole_lines_in_order_and_within_the_bounds(
    lines: list[bytes], bytes_max: int, items_max: int
) -> None:
    pieces = list(cut(b"".join(lines), bytes_max=bytes_max, items_max=items_max))
    assert b"".join(data for data, _ in pieces) == b"".join(lines)
    for data, count in pieces:
        assert data.endswith(b"\n")
        assert data.count(b"\n") == count <= items_max
        assert len(data) <= bytes_max or count == 1


@given(lines=LINES.filter(lambda lines: len(lines) >= 2))
@settings(deadline=None, max_examples=200)
def test_halves_are_both_smaller_and_lose_no_line(lines: list[bytes]) -> None:
    whole = b"".join(lines)
    (left, left_items), (right, right_items) = halves(whole, len(lines))
    assert left + right == whole
    assert (left.count(b"\n"), right.count(b"\n")) == (left_items, right_items)
    assert left_items >= 1
    assert right_items >= 1


def test_halves_are_about_equal_in_bytes() -> None:
    lines = [b"x" * 9 + b"\n"] * 100
    (left, _), (right, _) = halves(b"".join(lines), 100)
    assert len(left) == len(right)


def test_a_long_last_line_is_a_half_of_its_own() -> None:
    (left, _), (right, items) = halves(b"a\nb\n" + b"c" * 100 + b"\n", 3)
    assert left == b"a\nb\n"
    assert items == 1
    assert len(right) == 101


def test_a_single_line_has_no_halves() -> None:
    with pytest.raises(AssertionError):
        halves(b"alone\n", 1)
