"""Shedding: whole traces, the same everywhere, a lower share within a higher one, whatever sampling keeps."""

from itertools import pairwise
from random import Random

import pytest

from tests.conftest import NOW_US, sidecar_span
from tracefwd.model import Decoded, Encoding, WavefrontSpan
from tracefwd.processor.istio import make_istio_mapper
from tracefwd.processor.sampler import make_sampler
from tracefwd.processor.shed import Shedder
from tracefwd.settings import MappingSettings, RedSettings, SamplingSettings

RANDOM = Random(5)
TRACES = [f"{RANDOM.getrandbits(128):032x}" for _ in range(2_000)]


def mapped(*traces: str, **changes: object) -> list[WavefrontSpan]:
    spans = [sidecar_span(trace_id=trace, **changes) for trace in traces]
    mapper = make_istio_mapper(MappingSettings(), RedSettings())
    return mapper(Decoded(Encoding.JSON_V2, spans), NOW_US).spans


def at(share: float, shedder: Shedder | None = None) -> Shedder:
    shedder = shedder or Shedder()
    shedder.set_share(share)
    return shedder


def kept(shedder: Shedder, spans: list[WavefrontSpan]) -> set[str]:
    return {span.trace_id for span in shedder.sift(spans)}


def test_without_pressure_it_is_off() -> None:
    shedder = Shedder()
    assert not shedder.on
    shedder.set_share(0.5)
    assert shedder.on
    shedder.set_share(1.0)
    assert not shedder.on


def test_a_share_of_the_traces_stays_and_a_lower_share_keeps_a_part_of_it() -> None:
    spans = mapped(*TRACES)
    shares = [at(eighths / 8) for eighths in range(8)]
    found = [kept(shedder, spans) for shedder in shares]
    for eighths, (lower, higher) in enumerate(pairwise(found), start=1):
        assert lower < higher
        assert len(higher) == pytest.approx(len(TRACES) * eighths / 8, rel=0.2)
    assert found[0] == set()


def test_every_worker_keeps_the_same_traces_and_all_spans_of_a_trace_fare_alike() -> None:
    first = kept(at(0.5), mapped(*TRACES))
    other = at(0.5).sift(mapped(*reversed(TRACES), *TRACES))
    assert {span.trace_id for span in other} == first
    assert len(other) == 2 * len(first)


def test_what_a_low_rate_kept_is_shed_by_share_too() -> None:
    """By the bare place, a rate of 10 % would keep all it has until nine tenths are shed."""
    sampler = make_sampler(SamplingSettings(rate=0.1))
    assert sampler is not None
    sampled = sampler.sift(mapped(*TRACES), NOW_US).kept
    staying = at(0.5, Shedder(sampler.reach)).sift(sampled)
    assert len(staying) == pytest.approx(len(sampled) / 2, rel=0.3)


def test_errors_and_debug_spans_cannot_buy_memory() -> None:
    sampler = make_sampler(SamplingSettings(rate=0.1, keep_errors=True))
    assert sampler is not None
    favoured = mapped(*TRACES, tags={"error": "true"}, debug=True)
    assert len(sampler.sift(favoured, NOW_US).kept) == len(TRACES)
    staying = at(0.25, Shedder(sampler.reach)).sift(favoured)
    assert len(staying) == pytest.approx(len(TRACES) / 4, rel=0.2)
