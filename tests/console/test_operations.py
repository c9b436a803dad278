"""Operations: what workers drain adds up, what they gather is replaced, and ten thousand of them fit."""

import json
import random
import tracemalloc

import pytest

from tracefwd.console.operations import OTHER, PLOT_MINUTES, Operations, rows_of
from tracefwd.console.seen import RedRow
from tracefwd.limits import CONSOLE_OPERATIONS_MAX, CONSOLE_SERVICES_MAX
from tracefwd.model import Identity, WavefrontSpan
from tracefwd.processor.red import RedAggregator
from tracefwd.settings import RedSettings

MINUTE = 28_000_000
NOW_S = MINUTE * 60.0


def row(operation: str = "get", spans: int = 1, minute: int = MINUTE, **more: object) -> RedRow:
    errors, bins = more.get("errors", 0), more.get("bins", [])
    return RedRow("app", str(more.get("service", "shop")), operation, minute, spans, errors, bins)  # type: ignore[arg-type]


def spans_of(durations_us: list[int], *, error: bool = False) -> list[WavefrontSpan]:
    identity = Identity("app", "shop", "none", "none", "none", "s")
    return [
        WavefrontSpan(
            identity, "get", "s", "1", "1", None, "server", "", error, 0, us // 1000, us, (), {}
        )
        for us in durations_us
    ]


def test_percentiles_are_within_the_bound_over_workers_and_drains() -> None:
    rng = random.Random(1)
    durations = [int(rng.lognormvariate(8, 0.5)) + 1 for _ in range(20_000)]
    found = Operations(NOW_S - 300)
    for worker in range(2):
        red = RedAggregator(RedSettings())
        for at in range(4):
            mine = durations[(worker * 4 + at) * 2_500 :][:2_500]
            red.observe(spans_of(mine), int(NOW_S) + at)
            points = [point for point in red.drain(int(NOW_S) + at) if hasattr(point, "millis")]
            found.drained(worker, rows_of(points), NOW_S)
    shown, left_out = found.operations(NOW_S + 30)
    assert (len(shown), left_out) == (1, 0)
    ordered = sorted(durations)
    for share in (50, 95, 99):
        true_ms = ordered[int(len(ordered) * share / 100)] / 1e3
        assert shown[0]["red"][f"p{share}_ms"] == pytest.approx(true_ms, rel=0.025)
    services = found.services(NOW_S + 30)
    assert services[0]["services"][0]["operations"] == 1
    assert services[0]["services"][0]["red"]["p99_ms"] == shown[0]["red"]["p99_ms"]


def test_what_is_peeked_at_is_what_a_drain_gives_and_is_still_there() -> None:
    red = RedAggregator(RedSettings())
    red.observe(spans_of([1_000, 2_000]), int(NOW_S))
    red.observe(spans_of([5_000], error=True), int(NOW_S) + 60)
    peeked = list(red.peek())
    assert list(red.peek()) == peeked
    assert [point for point in red.drain(int(NOW_S) + 60) if hasattr(point, "millis")] == peeked
    assert list(red.peek()) == []


def test_what_a_worker_gathers_is_replaced_until_it_is_drained() -> None:
    found = Operations(NOW_S)

    def spans() -> float:
        shown, _ = found.operations(NOW_S + 10)
        return sum(each["red"]["rate"] for each in shown) * found.window_s(NOW_S + 10)

    found.gathered("w", [row(spans=3)], NOW_S + 10, first=True, last=False)
    assert spans() == 0
    found.gathered("w", [row("put", spans=2)], NOW_S + 10, first=False, last=True)
    assert spans() == pytest.approx(5)
    found.gathered("w", [row(spans=7)], NOW_S + 10, first=True, last=True)
    found.gathered("other", [row(spans=1)], NOW_S + 10, first=True, last=True)
    assert spans() == pytest.approx(8)
    # One that was cut short is begun anew.
    found.gathered("w", [row(spans=9)], NOW_S + 10, first=True, last=False)
    found.gathered("w", [row(spans=7)], NOW_S + 10, first=True, last=True)
    assert spans() == pytest.approx(8)
    found.drained("w", [row(spans=7)], NOW_S + 10)
    assert spans() == pytest.approx(8)
    found.retire("other")
    assert spans() == pytest.approx(7)


def test_the_plot_has_whole_minutes_and_forgets() -> None:
    found = Operations(NOW_S)
    found.drained("w", [row(spans=4, errors=1)], NOW_S)
    shown, _ = found.operations(NOW_S)
    assert sum(shown[0]["red"]["plot"]["spans"]) == 0  # this minute is not over
    shown, _ = found.operations(NOW_S + 60)
    assert shown[0]["red"]["plot"]["spans"] == [0] * (PLOT_MINUTES - 1) + [4]
    assert shown[0]["red"]["plot"]["errors"][-1] == 1
    shown, _ = found.operations(NOW_S + 60 * 10)
    assert shown[0]["red"]["rate"] == 0.0
    assert found.operations(NOW_S + 60 * (PLOT_MINUTES + 1)) == ([], 0)
    assert found.services(NOW_S + 60 * (PLOT_MINUTES + 1)) == []


def test_sorting_searching_and_the_limit() -> None:
    found = Operations(NOW_S)
    rows = [
        row("slow", 1, bins=[300, 1]),
        row("busy", 9, bins=[100, 9]),
        row("failing", 5, errors=5, bins=[200, 5]),
    ]
    found.drained("w", rows, NOW_S)

    def names(**wanted: object) -> list[str]:
        return [each["operation"] for each in found.operations(NOW_S, **wanted)[0]]  # type: ignore[arg-type]

    assert names() == ["busy", "failing", "slow"]
    assert names(sort="p95") == ["slow", "failing", "busy"]
    assert names(sort="error_share")[0] == "failing"
    assert names(sort="name") == ["busy", "failing", "slow"]
    assert names(search="FAIL") == ["failing"]
    assert names(service="none") == []
    assert found.operations(NOW_S, limit=1)[1] == 2


def test_ten_thousand_operations_are_bounded_in_memory_and_in_number() -> None:
    tracemalloc.start()
    try:
        found = Operations(NOW_S)
        bins = [number for index in range(100, 120) for number in (index, 7)]
        for minute in range(2):
            rows = [
                row(f"op{n}", 140, MINUTE + minute, service=f"s{n % 100}", bins=bins)
                for n in range(CONSOLE_OPERATIONS_MAX + 500)
            ]
            found.drained("w", rows, NOW_S + minute * 60)
        del rows
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size < 25 * 2**20
    shown, left_out = found.operations(NOW_S + 60, limit=1_000)
    # Those beyond the bound count under their service.
    assert len(shown) + left_out <= CONSOLE_OPERATIONS_MAX + 100
    assert OTHER in {each["operation"] for each in shown}
    assert len(json.dumps(shown)) < 2 * 2**20
    services = [one for each in found.services(NOW_S + 60) for one in each["services"]]
    total = sum(one["red"]["rate"] for one in services) * found.window_s(NOW_S + 60)
    assert total == pytest.approx(2 * 140 * (CONSOLE_OPERATIONS_MAX + 500), rel=0.01)


def test_services_that_came_and_went_make_room_for_new_ones() -> None:
    found = Operations(NOW_S)
    crowd = range(CONSOLE_SERVICES_MAX + 500)
    found.drained(1, [row(service=f"old-{n}") for n in crowd], NOW_S)
    [shown] = [each["services"] for each in found.services(NOW_S) if each["application"] == OTHER]
    assert shown[0]["operations"] == 1
    later = MINUTE + PLOT_MINUTES + 1
    found.drained(1, [row(service="new", minute=later)], later * 60.0)
    services = found.services(later * 60.0)
    assert [each["service"] for one in services for each in one["services"]] == ["new"]
    assert services[0]["services"][0]["operations"] == 1


def test_made_up_services_do_not_pass_the_bound_on_operations() -> None:
    found = Operations(NOW_S)
    for start in range(0, 3 * CONSOLE_OPERATIONS_MAX, 500):
        found.drained(1, [row(service=f"s{start + n}") for n in range(500)], NOW_S)
    shown, left_out = found.operations(NOW_S)
    assert len(shown) + left_out <= CONSOLE_OPERATIONS_MAX + CONSOLE_SERVICES_MAX
    total = sum(each["red"]["rate"] for each in found.operations(NOW_S, limit=10**6)[0]) * 10
    assert total == pytest.approx(3 * CONSOLE_OPERATIONS_MAX, rel=0.01)
