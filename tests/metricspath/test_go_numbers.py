"""Numbers as Go reads and writes them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracefwd.metricspath import go_numbers


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1.0), ("+5", 5.0), ("1.", 1.0), (".5", 0.5), ("1E3", 1000.0), ("-1e-7", -1e-7),
        ("inf", math.inf), ("-Infinity", -math.inf), ("+INF", math.inf), ("5e-324", 5e-324),
    ],
)  # fmt: skip
def test_what_go_reads_is_read(text: str, value: float) -> None:
    assert go_numbers.parse(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        " 1",
        "1 ",
        "1_000",
        "0x10",
        "1e400",
        "-1e400",
        "+NaN",
        "-nan",
        "1,5",
        "1e",
        "--1",
        ".",
        "e1",
        "١",
        "true",
        "9" * 401,
    ],
)
def test_what_go_refuses_is_refused(text: str) -> None:
    assert go_numbers.parse(text) is None


def test_nan_is_read_in_any_case() -> None:
    for text in ("NaN", "nan", "NAN"):
        value = go_numbers.parse(text)
        assert value is not None
        assert math.isnan(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1"), (-0.0, "-0"), (0.1, "0.1"), (1e21, "1" + "0" * 21), (1e-7, "0.0000001"), (1e16, "1" + "0" * 16),
        (123456789012345678.0, "123456789012345680"), (math.inf, "+Inf"), (-math.inf, "-Inf"), (math.nan, "NaN"),
    ],
)  # fmt: skip
def test_values_have_no_exponent(value: float, text: str) -> None:
    assert go_numbers.plain(value) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_written_value_reads_back_as_itself(value: float) -> None:
    assert float(go_numbers.plain(value)) == value
    assert "e" not in go_numbers.plain(value)
    assert float(go_numbers.shortest(value)) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.5, "0.5"), (1.0, "1"), (2.5, "2.5"), (1e6, "1e+06"), (1.8e6, "1.8e+06"), (123456789.0, "1.23456789e+08"),
        (100000.0, "100000"), (1e-5, "1e-05"), (1e-4, "0.0001"), (-1e-7, "-1e-07"), (0.0, "0"), (math.inf, "+Inf"),
    ],
)  # fmt: skip
def test_bounds_are_printed_as_go_prints_them(value: float, text: str) -> None:
    assert go_numbers.shortest(value) == text


@pytest.mark.parametrize(
    ("value", "whole"),
    [
        (2.5, 2.0),
        (0.0, 0.0),
        (-1.0, 2.0**64),
        (math.nan, 2.0**63),
        (math.inf, 2.0**63),
        (1e30, 2.0**63),
    ],
)
def test_counts_pass_an_unsigned_integer(value: float, whole: float) -> None:
    assert go_numbers.unsigned(value) == whole


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1795351156554", 1795351156554),
        ("-1", -1),
        ("+5", 5),
        ("1.5", None),
        ("99999999999999999999", None),
        ("", None),
        ("1_0", None),
    ],
)
def test_timestamps_are_64_bit_integers(text: str, value: int | None) -> None:
    assert go_numbers.parse_int64(text) == value
