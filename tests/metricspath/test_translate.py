"""Names, times and losses, line by line."""

import pytest

from tests.metricspath.parts import NOW_S, SEED_FILTERS, scrape, translation
from tracefwd.errors import ConfigError
from tracefwd.limits import BAD_LINE_REASONS, SAMPLE_DROP_REASONS
from tracefwd.model import Signal
from tracefwd.settings import FilterSettings

TYPED = """# HELP a_total some help
# TYPE a_total counter
a_total{x="1"} 5
# TYPE b gauge
b 2.5
# TYPE c untyped
c{x="1"} 3
# TYPE h histogram
h_bucket{le="0.50"} 1
h_bucket{le="1000000"} 2
h_bucket{le="+Inf"} 2
h_sum 1.5
h_count 2
# TYPE s summary
s{quantile="0.990"} 4
s_sum 8
s_count 3
plain_one 7
"""


def names_of(body: str, **options: object) -> list[tuple[str, str]]:
    return sorted(
        (p.name, p.tags.get("le", p.tags.get("quantile", "")))
        for p in scrape(body, **options).points()
    )


def test_typed_families_are_called_as_the_collector_calls_them() -> None:
    expected = [
        ("a.total.counter", ""), ("b.gauge", ""), ("c.value", ""), ("h.bucket", "+Inf"), ("h.bucket", "0.5"),
        ("h.bucket", "1e+06"), ("h.count", ""), ("h.sum", ""), ("plain.one.value", ""), ("s", "0.99"), ("s.count", ""),
        ("s.sum", ""),
    ]  # fmt: skip
    assert names_of(TYPED) == expected
    assert names_of(TYPED, mode="collector") == expected


def test_untyped_gives_the_names_of_federation_from_a_direct_scrape() -> None:
    federated = "\n".join(
        f"# TYPE {line.partition('{')[0].split(' ')[0]} untyped\n{line}"
        for line in TYPED.splitlines()
        if not line.startswith("#")
    )
    assert names_of(TYPED, untyped=True) == names_of(federated + "\n")
    assert ("h.bucket.value", "0.50") in names_of(TYPED, untyped=True)


def test_buckets_can_be_called_as_their_histogram() -> None:
    assert ("h", "0.5") in names_of(TYPED, omit_bucket_suffix=True)


def test_prefixes_stand_before_the_name() -> None:
    [line] = scrape("a_b 1\n", prefix="my_pre.", common_prefix=".all.").lines
    assert line.startswith('"all.my_pre.a.b.value" 1 ')
    filters = FilterSettings(metricAllowList=["my_pre.*"])
    assert (
        scrape("a_b 1\n", prefix="my_pre.", common_prefix="all", filters=filters).counts.points == 1
    )


def test_a_prefix_that_no_name_can_hold_is_cleaned_with_the_name() -> None:
    for mode in ("default", "collector"):
        [point] = scrape("a_b 1\n", mode=mode, prefix="\u00e9+", common_prefix="a b").points()
        assert point.name == "a-b.---a.b.value"


def test_a_rules_prefix_can_be_stripped_also_from_typed_families() -> None:
    body = '# TYPE federate:h histogram\nfederate:h_bucket{le="1"} 1\nfederate:h_count 1\n'
    assert names_of(body, strip_prefix="federate:") == [("h.bucket", "1"), ("h.count", "")]


def test_a_colon_becomes_a_dash_on_the_wire_and_filters_see_it() -> None:
    filters = FilterSettings(metricAllowList=["ns:rule.*"])
    [line] = scrape('ns:rule_one{a="b"} 1\n', filters=filters).lines
    assert line.startswith('"ns-rule.one.value" ')


def test_not_numbers_and_infinities_are_dropped_and_counted_apart() -> None:
    result = scrape('a{x="1"} NaN\na{x="2"} +Inf\na{x="3"} -inf\na{x="4"} 1\nb nan\n')
    assert result.counts.dropped == {"nan": 2, "infinite": 2}
    assert result.counts.points == 1


def test_times_outside_of_the_window_are_dropped_and_counted() -> None:
    now_ms = int(NOW_S * 1000)
    body = "".join(f'a{{x="{n}"}} 1 {now_ms + n * 1000}\n' for n in (-601, -599, 0, 599, 601))
    result = scrape(body, age_max=600.0, ahead_max=600.0)
    assert sorted(p.time_s - int(NOW_S) for p in result.points()) == [-599, 0, 599]
    assert result.counts.dropped == {"too_old": 1, "ahead": 1}


def test_times_that_wavefront_cannot_read_are_dropped_whatever_the_window() -> None:
    result = scrape(f"a 1 -1\nb 1 {10**15}\nc 1 0\n")
    assert result.counts.dropped == {"too_old": 1, "ahead": 1}
    assert [p.time_s for p in result.points()] == [0]


def test_a_sample_without_a_time_is_of_now() -> None:
    assert [p.time_s for p in scrape("a 1\n").points()] == [int(NOW_S)]


def test_own_clock_stamps_everything_with_now() -> None:
    result = scrape('a{x="1"} 1 1000\nb 1 2000\n', honor_timestamps=False, age_max=600.0)
    assert {p.time_s for p in result.points()} == {int(NOW_S)}


def test_of_equal_series_the_newest_is_sent() -> None:
    body = 'd{a="1",b="2"} 1 3000\nd{b="2",a="1"} 2 9000\nd{a="1",b="2",c=""} 3 4000\nd{a="2"} 4 1000\n'
    result = scrape(body)
    assert sorted((p.value, p.time_s) for p in result.points()) == [(2.0, 9), (4.0, 1)]
    assert result.counts.dropped == {"duplicate": 2}


def test_the_collector_sends_every_duplicate_in_order() -> None:
    result = scrape('d{a="1"} 1 3000\nd{a="1"}  2 9000\nd{a="1"} 3\n', mode="collector")
    assert [line.split(" ")[1] for line in result.lines] == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("1a 1", "name"),
        ("é 1", "name"),
        ("{a=\"1\"} 1", "name"),
        ("a{b='1'} 1", "labels"),
        ('a{b="1"', "labels"),
        ("a{5", "labels"),
        ("a{5 1795352600000", "labels"),
        ('a{b="1",,c="2"} 1', "labels"),
        ('a{,} 1', "labels"),
        ('a{b="1",b="2"} 1', "labels"),
        ('a{b="\\t"} 1', "labels"),
        ('a{__name__="x"} 1', "labels"),
        ("a", "value"),
        ("a one", "value"),
        ('a{b="1"} 0x10', "value"),
        ('a{b="1"}', "value"),
        ("a 1 2 3", "timestamp"),
        ('a{b="1"} 1 1.5', "timestamp"),
        ("# TYPE a nonsense", "type"),
    ],
)  # fmt: skip
def test_a_bad_line_loses_only_itself_and_is_counted(line: str, reason: str) -> None:
    result = scrape(f'good{{x="1"}} 1\n{line}\ngood{{x="2"}} 2\n')
    assert result.counts.bad_lines == {reason: 1}
    assert result.counts.points == 2
    assert reason in BAD_LINE_REASONS


def test_bytes_that_are_no_text_lose_their_line() -> None:
    result = scrape(b'a{x="1"} 1\na{x="\xff"} 2\na{x="3"} 3\n')
    assert result.counts.bad_lines == {"encoding": 1}
    assert result.counts.points == 2


def test_a_line_that_is_too_long_loses_only_itself_wherever_it_is_cut() -> None:
    body = 'a{x="1"} 1\na{x="' + "y" * 70_000 + '"} 2\na{x="3"} 3\n'
    for chunk in (999, 65_536, 10**6):
        result = scrape(body, chunk=chunk)
        assert result.counts.bad_lines == {"too_long": 1}
        assert result.counts.points == 2


def test_a_body_that_ends_early_loses_its_last_line_alone_and_says_so() -> None:
    result = scrape("a 1\nb 1234\nc 12", complete=False)
    assert [p.name for p in result.points()] == ["a.value", "b.value"]
    assert result.counts.bad_lines == {"cut_off": 1}
    assert result.scrape.truncated


def test_a_body_that_ends_early_between_lines_loses_nothing() -> None:
    result = scrape("a 1\nb 2\n", complete=False)
    assert result.counts.points == 2
    assert not result.scrape.truncated


def test_a_last_line_without_its_end_counts_when_the_body_is_whole() -> None:
    assert scrape("a 1\nb 2").counts.points == 2


def test_a_comment_inside_a_family_changes_nothing_in_the_default_mode() -> None:
    body = '# TYPE a gauge\na{n="1"} 1\n# a remark\na{n="2"} 2\n'
    assert {p.name for p in scrape(body).points()} == {"a.gauge"}
    assert {p.name for p in scrape(body, mode="collector").points()} == {"a.gauge", "a.value"}


def test_exemplars_are_skipped() -> None:
    body = 'a{x="1"} 1 # {trace_id="b"} 2\na{x="2"} 1 1795352600000 # {trace_id="b"} 2 3\n'
    result = scrape(body)
    assert result.counts.points == 2
    assert result.counts.bad_lines == {}


def test_dots_in_windows_line_ends_blanks_and_a_byte_order_mark_do_no_harm() -> None:
    result = scrape(b'\xef\xbb\xbf# TYPE a gauge\r\n a{x="1"}\t1 \r\n\r\n \t\na {x="2",} 2\r\n')
    assert {p.name for p in result.points()} == {"a.gauge"}
    assert result.counts.points == 2


def test_filtered_names_are_not_read_but_counted() -> None:
    filters = FilterSettings(metricDenyList=["b.*"])
    result = scrape('a{x="1"} 1\nb{this is nonsense\nb{x="2"} 2\n', filters=filters)
    assert result.counts.dropped == {"name_denied": 2}
    assert result.counts.bad_lines == {}
    assert result.counts.samples == 3


def test_a_name_that_is_too_long_is_dropped_and_counted() -> None:
    result = scrape("a" * 300 + ' 1\nb{x="1"} 2\n')
    assert result.counts.dropped == {"name_too_long": 1}
    assert result.counts.points == 1


def test_the_report_says_what_was_never_seen_and_what_was_not_sent() -> None:
    own = translation(filters=SEED_FILTERS)
    scrape(
        'istio_build{a="1"} 1\nup{a="1"} 1\nup{a="2"} 1\nistio_requests_total{destination_principal="x"} 1\n',
        own,
    )
    scrape("pilot_services 3\nup 1\nistio_build NaN\n", own)
    report = own.report()
    assert "istio.build.value" not in report.never_seen
    assert "pilot.services.value" not in report.never_seen
    assert "istio.requests.*" not in report.never_seen
    assert "pilot.xds.pushes.value" in report.never_seen
    assert len(report.never_seen) == 25
    assert report.not_sent == {
        "istio.build.value": {"nan": 1},
        "istio.requests.total.value": {"tag_denied": 1},
        "up.value": {"name_not_allowed": 3},
    }


def test_the_report_is_bounded() -> None:
    own = translation(filters=FilterSettings(metricAllowList=["x"]))
    scrape("".join(f'n{n}{{a="1"}} 1\n' for n in range(3_000)), own)
    not_sent = own.report().not_sent
    assert len(not_sent) == 1_001
    assert sum(reasons["name_not_allowed"] for reasons in not_sent.values()) == 3_000


def test_payloads_are_of_a_modest_size_and_say_how_many_lines_they_hold() -> None:
    body = "".join(f'a{{x="{n}",y="{"z" * 100}"}} {n}\n' for n in range(20_000))
    result = scrape(body)
    assert len(result.payloads) > 5
    for payload in result.payloads:
        assert payload.signal is Signal.POINTS
        assert payload.data.count(b"\n") == payload.items
        assert len(payload.data) < 2**19


def test_points_leave_while_the_body_still_comes() -> None:
    begun = translation().begin(NOW_S)
    early = []
    for family in range(200):
        early += begun.feed(b"".join(b'f%d{x="%d"} 1\n' % (family, n) for n in range(100)))
    assert sum(payload.items for payload in early) > 5_000


def test_a_bad_glob_names_its_place() -> None:
    with pytest.raises(ConfigError, match=r"source\.filters\.metricAllowList"):
        translation(filters=FilterSettings(metricAllowList=["["]))
    with pytest.raises(ConfigError, match=r"metrics\.filters\.tagExclude"):
        translation(common_filters=FilterSettings(tagExclude=["["]))


def test_every_reason_is_known() -> None:
    result = scrape('a NaN\na{b="1"} 1\na{b="1"} 2\nb +Inf\nc 1 5\nd\n# TYPE x y\n', age_max=60.0)
    assert set(result.counts.dropped) <= SAMPLE_DROP_REASONS
    assert set(result.counts.bad_lines) <= BAD_LINE_REASONS
