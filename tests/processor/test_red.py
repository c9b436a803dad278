"""RED: every span once, exact sums, bounded memory."""

import random
from collections import Counter
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.conftest import NOW_US, sidecar_span
from tracefwd.model import Decoded, Encoding, Heartbeat, RedPoint, WavefrontSpan
from tracefwd.processor.istio import make_istio_mapper
from tracefwd.processor.red import OVERFLOW_OPERATION, RedAggregator, slices
from tracefwd.processor.series import WAITING_MAX
from tracefwd.settings import MappingSettings, RedSettings

NOW_S = NOW_US // 1_000_000 // 60 * 60


def spans(*changes: dict[str, object]) -> list[WavefrontSpan]:
    mapper = make_istio_mapper(MappingSettings(), RedSettings())
    return mapper(
        Decoded(Encoding.JSON_V2, [sidecar_span(**change) for change in changes]), NOW_US
    ).spans


def points(red: RedAggregator, now_s: int) -> list[RedPoint]:
    return [item for item in red.drain(now_s) if isinstance(item, RedPoint)]


def test_a_series_counts_invocations_errors_and_whole_milliseconds() -> None:
    red = RedAggregator(RedSettings())
    failed = {"duration_us": 2_600, "tags": {"error": "true"}}
    red.observe(spans({"duration_us": 1_999}, {"duration_us": 0}, failed), NOW_S)
    (point,) = points(red, NOW_S + 60)
    assert (point.invocations, point.errors, point.millis) == (3, 1, 1 + 0 + 2)
    assert [part.bins for part in point.good] == [[(1, 0), (1, 1_999)]]
    assert [part.bins for part in point.bad] == [[(1, 2_600)]]


def test_a_drain_leaves_nothing_behind() -> None:
    red = RedAggregator(RedSettings())
    red.observe(spans({}), NOW_S)
    assert len(points(red, NOW_S)) == 1
    assert points(red, NOW_S) == []


def test_durations_are_binned_by_minute_of_arrival() -> None:
    red = RedAggregator(RedSettings())
    for second in (0, 59, 60, 125):
        red.observe(spans({"duration_us": 10 + second}), NOW_S + second)
    (point,) = points(red, NOW_S + 130)
    assert [
        (part.minute_s - NOW_S, sum(count for count, _ in part.bins)) for part in point.good
    ] == [
        (0, 2),
        (60, 1),
        (120, 1),
    ]


def test_a_clock_set_back_loses_nothing() -> None:
    red = RedAggregator(RedSettings())
    red.observe(spans({}), NOW_S)
    red.observe(spans({}), NOW_S - 3_600)
    (point,) = points(red, NOW_S - 3_600)
    assert point.invocations == 2
    assert {part.minute_s for part in point.good} == {NOW_S, NOW_S - 3_600}


def test_the_overflow_is_exact_per_application_and_service() -> None:
    red = RedAggregator(RedSettings(series_max=5))
    generator = random.Random(1)
    truth: Counter[tuple[str, str]] = Counter()
    for _ in range(300):
        service = generator.choice(["a", "b", "c"])
        made = spans(
            {"name": f"op{generator.randrange(20)}", "tags": {"istio.canonical_service": service}}
        )
        red.observe(made, NOW_S)
        truth["bookinfo", service] += 1
    drained = points(red, NOW_S)
    assert len([point for point in drained if point.key.operation != OVERFLOW_OPERATION]) == 5
    counted: Counter[tuple[str, str]] = Counter()
    for point in drained:
        counted[point.key.identity.application, point.key.identity.service] += point.invocations
        assert sum(count for part in point.good for count, _ in part.bins) == point.invocations
    assert counted == truth
    other = sum(point.invocations for point in drained if point.key.operation == OVERFLOW_OPERATION)
    assert red.overflow_spans == other


def test_memory_is_bounded_even_when_identities_are_invented() -> None:
    red = RedAggregator(RedSettings(series_max=20))
    for number in range(500):
        red.observe(spans({"name": "op", "tags": {"istio.canonical_service": f"s{number}"}}), NOW_S)
    assert red.active <= 20 + 10 + 1
    assert sum(point.invocations for point in points(red, NOW_S)) == 500


_PLACES = st.sampled_from(
    [("a", "one", "200"), ("a", "one", "500"), ("a", "two", "200"), ("b", "one", "200")]
)
_DURATIONS_US = st.integers(0, 5_000) | st.integers(0, 2**63 - 1)
# So many spans at once that some, all or none of them wait to be counted; and what is done behind them.
_TIMES = st.integers(1, 2 * WAITING_MAX + 1)
_THEN = st.sampled_from(["nothing", "peek", "drain"])
_SEEN = st.lists(
    st.tuples(_PLACES, _DURATIONS_US, st.booleans(), st.integers(0, 3), _TIMES, _THEN), max_size=40
)


@given(_SEEN, st.integers(1, 4))
def test_what_is_drained_is_what_was_observed(
    seen: list[tuple[tuple[str, str, str], int, bool, int, int, str]], series_max: int
) -> None:
    """Counts, milliseconds, microseconds and minutes of any durations, with room for all series or not, however often
    they are looked at or taken in between."""
    red = RedAggregator(RedSettings(series_max=series_max))
    (span,) = spans({})
    expected: Counter[tuple[object, ...]] = Counter()
    found: Counter[tuple[object, ...]] = Counter()
    for (service, name, status), duration_us, error, minute, times, then in seen:
        mine = replace(
            span,
            identity=span.identity._replace(service=service),
            name=name,
            http_status=status,
            duration_us=duration_us,
            duration_ms=duration_us // 1000,
            error=error,
        )
        red.observe([mine] * times, NOW_S + 60 * minute)
        at = service, error, NOW_S + 60 * minute
        expected[service, "invocations"] += times
        expected[service, "errors"] += error * times
        expected[service, "millis"] += duration_us // 1000 * times
        expected[*at, "count"] += times
        expected[*at, "micros"] += duration_us * times
        if then == "peek":
            assert found + _sums(red.peek()) == +expected
        elif then == "drain":
            found += _sums(points(red, NOW_S))
    found += _sums(points(red, NOW_S))
    assert found == +expected


def _sums(drained: Iterable[RedPoint]) -> Counter[tuple[object, ...]]:
    found: Counter[tuple[object, ...]] = Counter()
    for point in drained:
        service = point.key.identity.service
        found[service, "invocations"] += point.invocations
        found[service, "errors"] += point.errors
        found[service, "millis"] += point.millis
        for error, parts in ((False, point.good), (True, point.bad)):
            for part in parts:
                at = service, error, part.minute_s
                found[*at, "count"] += sum(count for count, _ in part.bins)
                found[*at, "micros"] += sum(total for _, total in part.bins)
    return found


def test_a_series_called_as_the_overflow_is_not_taken_for_it() -> None:
    red = RedAggregator(RedSettings(series_max=1, series_expiry=120))
    named = {"name": OVERFLOW_OPERATION, "tags": {"http.status_code": None}}
    red.observe(spans(named, {"name": "other"}), NOW_S)
    assert red.active == 2
    assert len(points(red, NOW_S)) == 2
    red.observe(spans({"name": "other"}), NOW_S + 119)
    points(red, NOW_S + 120)
    assert (red.active, red.overflow_spans) == (1, 2)
    red.observe(spans({"name": "other"}), NOW_S + 121)
    assert (red.active, red.overflow_spans) == (2, 2)


def test_an_idle_series_makes_room() -> None:
    red = RedAggregator(RedSettings(series_max=1, series_expiry=120))
    red.observe(spans({"name": "old"}), NOW_S)
    points(red, NOW_S)
    points(red, NOW_S + 119)
    assert red.active == 1
    points(red, NOW_S + 120)
    assert red.active == 0
    red.observe(spans({"name": "new"}), NOW_S + 121)
    assert points(red, NOW_S + 121)[0].key.operation == "new"


def test_spans_observed_between_two_steps_of_a_drain_count_once() -> None:
    red = RedAggregator(RedSettings())
    red.observe(spans({"name": "a"}, {"name": "b"}), NOW_S)
    total = 0
    for item in red.drain(NOW_S):
        if isinstance(item, RedPoint):
            total += item.invocations
            red.observe(spans({"name": "a"}, {"name": "b"}), NOW_S)
    total += sum(point.invocations for point in points(red, NOW_S))
    assert total == 6


def test_heartbeats_are_the_components_that_had_spans() -> None:
    red = RedAggregator(RedSettings())
    red.observe(spans({"name": "a"}, {"name": "b"}, {"kind": "CLIENT"}), NOW_S)
    beats = [item for item in red.drain(NOW_S) if isinstance(item, Heartbeat)]
    assert sorted((beat.identity.service, beat.kind) for beat in beats) == [
        ("reviews", "client"),
        ("reviews", "server"),
    ]
    assert [item for item in red.drain(NOW_S) if isinstance(item, Heartbeat)] == []


def test_it_knows_what_its_buckets_weigh_until_they_are_sent() -> None:
    """A client chooses durations; a series of one operation may weigh hundreds of KiB."""
    red = RedAggregator(RedSettings())
    red.observe(spans({}), NOW_S)
    one = red.memory_bytes
    assert one > WAITING_MAX * 40
    for second in (0, 60):
        red.observe(spans(*({"duration_us": 1 << shift} for shift in range(40))), NOW_S + second)
    # What waits to be counted is part of the series' own weight.
    assert red.memory_bytes > one + 2 * (39 - WAITING_MAX) * 80
    for _ in red.peek():
        pass
    assert red.memory_bytes > one + 2 * 39 * 80
    points(red, NOW_S + 120)
    assert red.memory_bytes == one


def test_a_slice_of_a_tick_has_few_large_series_or_many_small_ones() -> None:
    def slices_of(durations: int, series: int) -> list[int]:
        red = RedAggregator(RedSettings())
        for number in range(series):
            changes = [
                {"name": f"n{number}", "duration_us": 2**9 * i + 1} for i in range(durations)
            ]
            red.observe(spans(*changes), 60)
        return [len(part) for part in slices(red.drain(60))]

    small, large = slices_of(1, 500), slices_of(400, 50)
    assert sum(small) == 500 + 1
    assert sum(large) == 50 + 1
    assert 15 < max(small) < 30
    assert max(large) < 15
