"""Launches: only what is under way is, range by range and lane by lane."""

from hypothesis import given
from hypothesis import strategies as st

from tracefwd.spool.launches import Launches

LANE, OTHER = 7, 8


def test_a_range_is_launched_until_it_is_over_or_came_back() -> None:
    launches = Launches()
    launches.begin(LANE, 3, 5)
    launches.begin(LANE, 9, 9)
    assert [seq for seq in range(12) if launches.has(LANE, seq)] == [3, 4, 5, 9]
    assert not launches.has(OTHER, 4)
    launches.end(LANE, 3, 5)
    assert launches.ranges(LANE) == [(9, 9)]
    launches.end(OTHER, 0, 100)
    launches.end(LANE, 0, 100)
    assert launches.ranges(LANE) == []


def test_a_batch_that_goes_on_in_another_one_grows() -> None:
    launches = Launches()
    launches.begin(LANE, 3, 5)
    launches.begin(LANE, 3, 8)
    assert launches.ranges(LANE) == [(3, 8)]
    assert launches.has(LANE, 8)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=40))
def test_any_order_of_events(events: list[tuple[bool, int]]) -> None:
    launches, model = Launches(), set[int]()
    for begins, tens in events:
        first, last = tens * 10, tens * 10 + 6
        (launches.begin if begins else launches.end)(LANE, first, last)
        (model.add if begins else model.discard)(tens)
    assert launches.ranges(LANE) == [(tens * 10, tens * 10 + 6) for tens in sorted(model)]
    for seq in range(100):
        assert launches.has(LANE, seq) == (seq // 10 in model and seq % 10 <= 6)
