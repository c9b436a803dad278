"""The duration sketch: exact sums, and a stated error for what is emitted."""

from bisect import bisect_left

from hypothesis import given, settings
from hypothesis import strategies as st

from tracefwd.processor.sketch import (
    SCALE,
    SHORT_US,
    ZERO_INDEX,
    Buckets,
    centroids,
    index_of,
    short_indexes,
    width,
)

DURATIONS = st.one_of(
    st.integers(0, 100),
    st.integers(0, 10**7),
    st.integers(0, 2**63),
    st.integers(0, 62).map(lambda e: 2**e),
)


def sketch(durations: list[int]) -> Buckets:
    buckets: Buckets = {}
    for duration in durations:
        cell = buckets.setdefault(index_of(duration), [0, 0])
        cell[0] += 1
        cell[1] += duration
    return buckets


@given(DURATIONS.filter(bool))
def test_a_bucket_holds_what_otlp_says_it_holds(duration: int) -> None:
    base = 2.0 ** (1 / 64)
    index = index_of(duration)
    # Floats decide at the very edge; a part in 1e12 is far below the bucket's width.
    assert base**index * (1 - 1e-12) <= duration <= base ** (index + 1) * (1 + 1e-12)


def test_zero_has_a_bucket_of_its_own() -> None:
    assert index_of(0) == index_of(-5) == ZERO_INDEX < index_of(1)


@settings(deadline=None)
@given(st.lists(DURATIONS, min_size=1, max_size=400), st.integers(4, 128))
def test_counts_and_sums_are_exact_whatever_is_merged(
    durations: list[int], centroids_max: int
) -> None:
    bins, _ = centroids(sketch(durations), centroids_max)
    assert len(bins) <= centroids_max
    assert sum(count for count, _ in bins) == len(durations)
    assert sum(total for _, total in bins) == sum(durations)
    means = [total / count for count, total in bins]
    assert means == sorted(means)


@settings(deadline=None)
@given(st.lists(DURATIONS, min_size=1, max_size=400), st.integers(4, 128), st.floats(0, 1))
def test_an_emitted_quantile_is_within_the_width_of_a_bucket(
    durations: list[int], centroids_max: int, quantile: float
) -> None:
    bins, scale = centroids(sketch(durations), centroids_max)
    rank = min(int(quantile * len(durations)), len(durations) - 1)
    true = sorted(durations)[rank]
    ends: list[int] = []
    for count, _ in bins:
        ends.append((ends[-1] if ends else 0) + count)
    count, total = bins[bisect_left(ends, rank + 1)]
    assert abs(total / count - true) <= width(scale) * true * (1 + 1e-9)


def test_the_stated_errors() -> None:
    assert round(width(SCALE), 4) == 0.0109
    assert round((2 ** (1 / 64) - 1) / (2 ** (1 / 64) + 1), 4) == 0.0054


def test_short_durations_are_looked_up_as_they_would_be_reckoned() -> None:
    assert list(short_indexes()) == [index_of(duration_us) for duration_us in range(SHORT_US)]
