import json

import pytest

from tests.bench.bodies import ODDITIES, Traffic
from tracefwd.processor.istio import make_istio_mapper
from tracefwd.processor.red import RedAggregator
from tracefwd.receiver.decode import make_decode
from tracefwd.settings import MappingSettings, RedSettings

NOW_US = 1_795_400_000_000_000
_TYPES = {"proto3": "application/x-protobuf"}


def bodies(traffic: Traffic) -> list[list[bytes]]:
    return [[request.body for request in envoy] for envoy in traffic.envoys(NOW_US)]


@pytest.mark.parametrize("encoding", ["v2", "v1", "proto3"])
def test_every_encoding_of_zipkins_says_the_same(encoding: str) -> None:
    def facts(encoding: str) -> list[tuple[object, ...]]:
        decode = make_decode()
        found = []
        for envoy in bodies(Traffic(encoding, spans=320)):
            for body in envoy:
                decoded = decode(body, _TYPES.get(encoding, "application/json"))
                assert not decoded.rejects
                assert len(decoded.spans) == 5
                found += [
                    (span.trace_id, span.span_id, span.parent_id, span.name, span.kind,
                     span.timestamp_us, span.duration_us,
                     tuple(sorted((span.tags or {}).items())))
                    for span in decoded.spans
                ]  # fmt: skip
        return found

    assert facts(encoding) == facts("v2")


@pytest.mark.parametrize("post_spans", [1, 5, 50])
def test_posts_have_the_size_that_is_asked_for(post_spans: int) -> None:
    envoys = Traffic(post_spans=post_spans, connections=4, spans=400).envoys(NOW_US)
    requests = [request for envoy in envoys for request in envoy]
    assert sum(request.spans for request in requests) == 400
    assert {len(json.loads(request.body)) for request in requests} == {post_spans}


@pytest.mark.parametrize("series", [1, 7, 100, 1_000])
def test_spans_belong_to_as_many_series_as_are_asked_for(series: int) -> None:
    decode, red = make_decode(), RedAggregator(RedSettings())
    map_spans = make_istio_mapper(MappingSettings(), RedSettings())
    for envoy in bodies(Traffic(series=series, spans=2_000)):
        for body in envoy:
            red.observe(map_spans(decode(body, ""), NOW_US).spans, NOW_US // 1_000_000)
    assert red.active == series


@pytest.mark.parametrize("oddity", ODDITIES)
def test_as_many_spans_are_odd_as_are_asked_for(oddity: str) -> None:
    value = ODDITIES[oddity]
    spans = [
        span
        for envoy in bodies(Traffic(oddity=oddity, odd_share=0.05, connections=4, spans=2_000))
        for body in envoy
        for span in json.loads(body)
    ]
    spoken = json.loads(f'"{value}"')
    assert sum(spoken in span["tags"].values() for span in spans) == 100
