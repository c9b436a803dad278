"""Sampling by trace id, with the Java proxy's arithmetic."""

import pytest

from tests.conftest import NOW_US, sidecar_span
from tracefwd.model import Decoded, Encoding, Verdict, WavefrontSpan
from tracefwd.processor.istio import make_istio_mapper
from tracefwd.processor.sampler import distance, make_sampler
from tracefwd.settings import MappingSettings, RedSettings, SamplingSettings


def span(trace_id: str, **changes: object) -> WavefrontSpan:
    mapper = make_istio_mapper(MappingSettings(), RedSettings())
    return mapper(
        Decoded(Encoding.JSON_V2, [sidecar_span(trace_id=trace_id, **changes)]), NOW_US
    ).spans[0]


@pytest.mark.parametrize(
    ("trace_id", "expected"),
    [
        ("2822889fe47043bd", 9965),
        ("d6ab73f8a3930ae8", 4696),
        ("463ac35c9f6413ad48485a3953bb6124", 3364),
        ("8000000000000000", (1 << 63) % 10_000),
    ],
)
def test_the_proxys_vectors(trace_id: str, expected: int) -> None:
    assert distance(trace_id) == expected


def test_the_same_traces_are_kept_at_a_rate() -> None:
    sample = make_sampler(SamplingSettings(rate=0.4))
    assert sample is not None
    kept = [
        sample(span(trace))
        for trace in ("2822889fe47043bd", "d6ab73f8a3930ae8", "463ac35c9f6413ad48485a3953bb6124")
    ]
    assert kept == [Verdict.DROP, Verdict.DROP, Verdict.KEEP]


def test_everything_is_kept_at_no_cost_by_default() -> None:
    assert make_sampler(SamplingSettings()) is None


def test_a_debug_span_is_kept_because_someone_asked_for_it() -> None:
    sample = make_sampler(SamplingSettings(rate=0.0))
    assert sample is not None
    assert sample(span("2822889fe47043bd", debug=True)) is Verdict.KEEP
    assert sample(span("2822889fe47043bd")) is Verdict.DROP
