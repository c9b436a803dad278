"""Metric and distribution lines: grammar, and every limit, one step on either side."""

import pytest

from tracefwd.emulator.metric_reader import MetricReader
from tracefwd.emulator.rules import Limits, Refused

NOW_MS = 1_700_000_123_456
reader = MetricReader(Limits())


def point(
    *,
    name: str = '"a.b"',
    value: str = "1",
    time: str = "1700000000",
    source: str = '"s"',
    tags: str = "",
) -> str:
    return f"{name} {value} {time} source={source} {tags}"


def distribution(
    *,
    bins: str = "!M 1700000000",
    centroids: str = "#2 1.5 #1 9",
    name: str = '"a.b"',
    tags: str = "",
) -> str:
    return f'{bins} {centroids} {name} source="s" {tags}'


def point_refusal(text: str) -> str:
    with pytest.raises(Refused) as refused:
        reader.read_point(text, NOW_MS)
    return refused.value.reason


def distribution_refusal(text: str) -> str:
    with pytest.raises(Refused) as refused:
        reader.read_distribution(text, NOW_MS)
    return refused.value.reason


def many(count: int) -> str:
    return " ".join(f'"k{index}"="v"' for index in range(count))


# --- grammar ------------------------------------------------------------------------------------


def test_a_point_is_read_whole() -> None:
    read = reader.read_point(point(value="1.5e3", tags='"b"="2" "a"="say \\"x\\""'), NOW_MS)
    assert (read.name, read.value, read.time_ms, read.source) == (
        "a.b",
        1500.0,
        1_700_000_000_000,
        "s",
    )
    assert read.tags == (("a", 'say "x"'), ("b", "2"))
    assert not read.is_delta


@pytest.mark.parametrize(
    ("time", "time_ms"),
    [
        ("", NOW_MS),
        ("1700000000", 1_700_000_000_000),
        ("1700000000123", 1_700_000_000_123),
        ("1700000000123456", 1_700_000_000_123),
        ("1700000000123456789", 1_700_000_000_123),
        ("1700000000.5", 1_700_000_000_500),
    ],
)
def test_a_points_time_may_be_in_any_unit_or_absent(time: str, time_ms: int) -> None:
    assert reader.read_point(point(time=time), NOW_MS).time_ms == time_ms


def test_of_two_sources_the_last_wins() -> None:
    read = reader.read_point(point(tags='"source"="pod"'), NOW_MS)
    assert (read.source, read.tags) == ("pod", ())


def test_host_is_a_source_only_without_one() -> None:
    assert reader.read_point('a.b 1 host="h" k="v"', NOW_MS).source == "h"
    both = reader.read_point(point(tags='"host"="h" "tag"="t"'), NOW_MS)
    assert (both.source, both.tags) == ("s", (("_host", "h"), ("_tag", "t")))


def test_a_missing_source_is_a_warning() -> None:
    read = reader.read_point("a.b 1", NOW_MS)
    assert (read.source, read.warnings) == ("unknown", ("source_missing",))
    assert reader.read_distribution("!M #1 1 a.b", NOW_MS).warnings == ("source_missing",)


def test_a_distribution_is_read_whole_and_belongs_to_its_bin() -> None:
    read = reader.read_distribution(distribution(tags='"k"="v"'), NOW_MS)
    assert (read.granularity, read.time_ms) == ("!M", 1_699_999_980_000)
    assert read.centroids == [(1.5, 2), (9.0, 1)]
    assert (read.count, read.sum) == (3, 12.0)
    assert (read.name, read.source, read.tags) == ("a.b", "s", (("k", "v"),))
    assert reader.read_distribution(distribution(bins="!H"), NOW_MS).time_ms == 1_699_999_200_000
    assert reader.read_distribution(distribution(bins="!D"), NOW_MS).time_ms == 1_699_920_000_000


def test_the_weight_sign_may_stand_apart() -> None:
    assert reader.read_distribution(distribution(centroids="# 2 1.5"), NOW_MS).count == 2


@pytest.mark.parametrize(
    "text",
    ["", "a.b", "a.b x", point(value="1x"), point(value="0x1"), point(tags='"k"'), point(tags='"k"='),
     point(tags='"k"="v'), point(time="12345x"), distribution()],
)  # fmt: skip
def test_what_is_no_point_is_wf_300(text: str) -> None:
    assert point_refusal(text) == "WF-300"


@pytest.mark.parametrize(
    "text",
    ["", "!M", point(), distribution(bins="!X"), distribution(centroids=""), distribution(centroids="#1"),
     distribution(centroids="#1.5 2"), distribution(centroids="#2147483648 1"), distribution(centroids="#1 x"),
     distribution(centroids="1 2"), distribution(tags="k v")],
)  # fmt: skip
def test_what_is_no_distribution_is_wf_300(text: str) -> None:
    assert distribution_refusal(text) == "WF-300"


# --- limits -------------------------------------------------------------------------------------

SHARED = [
    ({"name": f'"{"n" * 256}"'}, {"name": f'"{"n" * 257}"'}, ("WF-408", "WF-409")),
    ({"name": '"a-b_c.d/e,f"'}, {"name": '"a b"'}, ("WF-400", "WF-400")),
    ({"name": '"~a"'}, {"name": '"a~"'}, ("WF-400", "WF-400")),
    ({"tags": many(20)}, {"tags": many(21)}, ("WF-410", "WF-410")),
    ({"tags": f'"k"="{"v" * 253}"'}, {"tags": f'"k"="{"v" * 254}"'}, ("WF-411", "WF-411")),
    ({"tags": f'"{"k" * 64}"="v"'}, {"tags": f'"{"k" * 65}"="v"'}, ("WF-412", "WF-412")),
    ({"tags": '"a.b"="v"'}, {"tags": '"a:b"="v"'}, ("WF-401", "WF-401")),
    ({"tags": '"k"="."'}, {"tags": '"k"=" "'}, ("WF-414", "WF-414")),
    ({"tags": '"source"="."'}, {"tags": '"source"=""'}, ("WF-406", "WF-406")),
    ({"tags": f'"source"="{"s" * 1023}"'}, {"tags": f'"source"="{"s" * 1024}"'}, ("WF-407", "WF-407")),
]  # fmt: skip


@pytest.mark.parametrize(("good", "bad", "reasons"), SHARED)
def test_every_shared_limit_holds_to_the_last_step(
    good: dict[str, str], bad: dict[str, str], reasons: tuple[str, str]
) -> None:
    reader.read_point(point(**good), NOW_MS)
    reader.read_distribution(distribution(**good), NOW_MS)
    assert (point_refusal(point(**bad)), distribution_refusal(distribution(**bad))) == reasons


@pytest.mark.parametrize("sign", ["\u2206", "\u0394"])
def test_increments_must_be_positive(sign: str) -> None:
    read = reader.read_point(point(name=f'"{sign}a"', value="0.1"), NOW_MS)
    assert read.is_delta
    reader.read_point(point(name=f'"{sign}~a"'), NOW_MS)
    reader.read_point(point(value="-1"), NOW_MS)
    for value in ("0", "-1"):
        assert point_refusal(point(name=f'"{sign}a"', value=value)) == "WF-404"
    assert point_refusal(point(name=f'"{sign}"')) == "WF-400"


def test_counts_are_positive_integers() -> None:
    assert (
        reader.read_distribution(distribution(centroids="#2147483647 1"), NOW_MS).count == 2**31 - 1
    )
    assert distribution_refusal(distribution(centroids="#0 1 #0 2")) == "WF-405"
    assert distribution_refusal(distribution(centroids="#1 1 #0 2")) == "centroid"
    assert distribution_refusal(distribution(centroids="#1 1 #-1 2")) == "centroid"


def test_values_are_finite() -> None:
    assert point_refusal(point(value="NaN")) == "value_not_finite"
    assert point_refusal(point(value="-Infinity")) == "value_not_finite"
    assert distribution_refusal(distribution(centroids="#1 NaN")) == "centroid"


def test_a_source_above_the_backends_default_is_a_warning() -> None:
    assert reader.read_point(point(source=f'"{"s" * 128}"'), NOW_MS).warnings == ()
    warnings = reader.read_point(point(source=f'"{"s" * 129}"'), NOW_MS).warnings
    assert warnings == ("source_above_backend_limit",)
