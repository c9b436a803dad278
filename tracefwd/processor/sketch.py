"""The duration sketch: log-spaced buckets with a true mean each.

Buckets are those of an OTLP exponential histogram at scale 6: bucket ``i`` holds durations in
``(base**i, base**(i+1)]`` microseconds with ``base = 2**(1/64)``; durations of 0 have one of their own.  Each bucket
keeps a count and an integer sum, so what is emitted are true means, and count and sum of a whole sketch are exact.

Error.  A quantile read off the emitted centroids is a mean of durations that share a bucket with the true one, so
it is off by less than the bucket's width: ``base - 1`` (1.09 %), and 0.54 % from the bucket's middle.  When a
line may hold fewer centroids than there are buckets, neighbours are merged as an OTLP scale-down does it (pairs of
aligned buckets), which squares the base each time: ``width(scale)`` is the bound for what is emitted.  Pure.
"""

from functools import cache
from math import ceil, log2

from tracefwd.model import SCALE, ZERO_INDEX

_BUCKETS_PER_DOUBLING = 1 << SCALE
# Most requests inside a mesh take less; the list weighs 256 KiB.
SHORT_US = 1 << 15

Buckets = dict[int, tuple[int, int]]
"""Bucket index -> (count, sum in microseconds)."""


def index_of(duration_us: int) -> int:
    """The bucket of a duration; negative durations count as 0."""
    if duration_us <= 0:
        return ZERO_INDEX
    return ceil(log2(duration_us) * _BUCKETS_PER_DOUBLING) - 1


@cache
def short_indexes() -> tuple[int, ...]:
    """``index_of`` every duration below ``SHORT_US``: a look costs a third of a logarithm.  Made at the first call."""
    # Equal numbers are one object.
    known: dict[int, int] = {}
    return tuple(known.setdefault(index, index) for index in map(index_of, range(SHORT_US)))


def width(scale: int) -> float:
    """Relative width of a bucket: the bound on an emitted quantile's relative error."""
    return float(2.0 ** (2.0**-scale)) - 1.0


def centroids(buckets: Buckets, centroids_max: int) -> tuple[list[tuple[int, int]], int]:
    """Ascending (count, sum) pairs, at most ``centroids_max`` (>= 4) of them, and the scale they have."""
    shift = 0
    merged = buckets
    while len(merged) > centroids_max:
        shift += 1
        merged = _scale_down(merged)
    return [merged[index] for index in sorted(merged)], SCALE - shift


def _scale_down(buckets: Buckets) -> Buckets:
    merged: Buckets = {}
    for index, (count, total) in buckets.items():
        # The zero bucket never merges with durations: it has no logarithm.
        into = ZERO_INDEX if index == ZERO_INDEX else index >> 1
        before, sum_before = merged.get(into, (0, 0))
        merged[into] = (before + count, sum_before + total)
    return merged


__all__ = [
    "SCALE",
    "SHORT_US",
    "ZERO_INDEX",
    "Buckets",
    "centroids",
    "index_of",
    "short_indexes",
    "width",
]
