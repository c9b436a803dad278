"""OTLP records say what the span and the series say, as OpenTelemetry's own classes read them."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1 import trace_pb2

from tests.conftest import NOW_US, envoy_bodies, read_spans, sidecar_span
from tests.otlp_meaning import arrived, meant, red_arrived, red_meant, values
from tracefwd.exporter import otlp_frames
from tracefwd.exporter.doubled import red_spans
from tracefwd.exporter.otlp_writer import OtlpWriter
from tracefwd.model import (
    Annotation,
    Decoded,
    Encoding,
    Event,
    Identity,
    Payload,
    RedPoint,
    Signal,
    Span,
    WavefrontSpan,
)
from tracefwd.processor.istio import make_istio_mapper
from tracefwd.processor.red import RedAggregator
from tracefwd.settings import MappingSettings, RedSettings

NOW_S = NOW_US // 1_000_000


def mapped(*spans: Span) -> list[WavefrontSpan]:
    mapper = make_istio_mapper(MappingSettings(), RedSettings())
    return mapper(Decoded(Encoding.JSON_V2, list(spans)), NOW_US).spans


def sent(payload: Payload) -> ExportTraceServiceRequest:
    assert payload.data.count(b"\n") == payload.items
    return ExportTraceServiceRequest.FromString(otlp_frames.request(payload.data))


def received(spans: list[WavefrontSpan]) -> list[tuple[Any, trace_pb2.Span]]:
    [payload] = OtlpWriter().write(spans)
    return [
        (part.resource, span)
        for part in sent(payload).resource_spans
        for scope in part.scope_spans
        for span in scope.spans
    ]


def read(spans: list[WavefrontSpan]) -> list[tuple[dict[str, object], trace_pb2.Span]]:
    return [(values(resource.attributes), span) for resource, span in received(spans)]


@pytest.mark.parametrize("path", envoy_bodies(), ids=lambda path: path.stem)
def test_a_real_span_is_read_as_it_was_mapped(path) -> None:  # type: ignore[no-untyped-def]
    spans = mapped(*read_spans(path).spans)
    found = [arrived(resource, span) for resource, span in received(spans)]
    # Resources come together.
    assert sorted(found, key=repr) == sorted(map(meant, spans), key=repr)


@settings(deadline=None, max_examples=100)
@given(
    tags=st.dictionaries(
        st.sampled_from(["http.url", "url.full", "request_size", "http.protocol", "a\n\x1b", "é"])
        | st.text(max_size=8),
        st.text(max_size=40) | st.sampled_from(["HTTP/1.1", "12", "\x1b\x01\x03\n"]),
        max_size=8,
    ),
    name=st.text(max_size=30),
    duration=st.integers(min_value=0, max_value=10**12),
)
def test_any_span_is_one_line_and_one_record(
    tags: dict[str, str], name: str, duration: int
) -> None:
    spans = mapped(sidecar_span(tags=tags, name=name, duration_us=duration), sidecar_span(tags={}))
    found = read(spans)
    assert len(found) == 2
    assert {out.name for _, out in found} == {span.name for span in spans}


def test_spans_of_one_source_share_a_resource() -> None:
    spans = mapped(sidecar_span(span_id="1" * 16), sidecar_span(span_id="2" * 16))
    [payload] = OtlpWriter().write(spans)
    [part] = sent(payload).resource_spans
    assert len(part.scope_spans[0].spans) == 2
    assert part.scope_spans[0].scope.name == "tracefwd"


def test_numbers_are_numbers_and_what_the_client_says_in_otlp_words_stays() -> None:
    tags = {
        "http.status_code": "503",
        "request_size": "12",
        "response_size": "-",
        "http.protocol": "HTTP/1.1",
        "url.full": "mine",
        "http.url": "http://h/",
    }
    [(_, span)] = read(mapped(sidecar_span(tags=tags)))
    said = values(span.attributes)
    assert said["http.response.status_code"] == 503
    assert said["http.request.body.size"] == 12
    assert said["response_size"] == "-"
    assert said["network.protocol.version"] == "1.1"
    assert (said["url.full"], said["http.url"]) == ("mine", "http://h/")


def test_an_error_is_a_status_with_its_message() -> None:
    [(_, span)] = read(mapped(sidecar_span(tags={"error": "boom"})))
    assert (span.status.code, span.status.message) == (2, "boom")
    assert values(span.attributes)["error"] == "true"


def test_span_logs_are_events() -> None:
    [span] = mapped(sidecar_span())
    span.logs = [
        Annotation(NOW_US, "retry"),
        Event(NOW_US + 1, "exception", {"event": "exception", "type": "E"}),
    ]
    [(_, out)] = read([span])
    assert [(each.name, each.time_unix_nano) for each in out.events] == [
        ("retry", NOW_US * 1000),
        ("exception", (NOW_US + 1) * 1000),
    ]
    assert values(out.events[1].attributes) == {"type": "E"}


# RED


def drained(spans: list[WavefrontSpan]) -> list[RedPoint]:
    red = RedAggregator(RedSettings())
    red.observe(spans, NOW_S)
    return [each for each in red.drain(NOW_S + 5) if isinstance(each, RedPoint)]


@settings(deadline=None, max_examples=60)
@given(
    durations=st.lists(
        st.integers(min_value=0, max_value=10**11) | st.integers(0, 40).map(lambda n: 1 << n),
        min_size=1,
        max_size=300,
    )
)
def test_red_is_the_very_buckets_of_the_sketch(durations: list[int]) -> None:
    spans = mapped(*[sidecar_span(duration_us=each, kind="SERVER") for each in durations])
    payloads = OtlpWriter().write_red(drained(spans), NOW_S + 5)
    requests = [
        ExportMetricsServiceRequest.FromString(otlp_frames.request(payload.data))
        for payload in payloads
    ]
    assert red_arrived(part for each in requests for part in each.resource_metrics) == red_meant(
        spans
    )
    delta = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
    for request in requests:
        [metric] = request.resource_metrics[0].scope_metrics[0].metrics
        data = metric.sum if metric.HasField("sum") else metric.exponential_histogram
        assert data.aggregation_temporality == delta
        [point] = data.data_points
        assert point.start_time_unix_nano <= point.time_unix_nano
    [calls] = requests[0].resource_metrics[0].scope_metrics[0].metrics
    assert calls.sum.is_monotonic
    assert [red_spans(payload.signal, payload.data) for payload in payloads] == [len(durations)] * 2


def test_errors_have_a_series_and_a_distribution_of_their_own() -> None:
    bad = sidecar_span(tags={"http.status_code": "503", "response_flags": "-"}, kind="SERVER")
    writer = OtlpWriter()
    assert writer.write_heartbeats([], NOW_S - 10) == writer.write_red([], NOW_S - 10) == []
    calls, durations = writer.write_red(
        drained(mapped(bad, bad, sidecar_span(kind="SERVER"))), NOW_S
    )
    found = {}
    for part in ExportMetricsServiceRequest.FromString(
        otlp_frames.request(calls.data)
    ).resource_metrics:
        for metric in part.scope_metrics[0].metrics:
            [point] = metric.sum.data_points
            assert point.time_unix_nano - point.start_time_unix_nano == 10 * 10**9
            found[values(point.attributes)["status.code"]] = point.as_int
    assert found == {"STATUS_CODE_ERROR": 2, "STATUS_CODE_UNSET": 1}
    assert durations.items == 2
    assert durations.signal is Signal.DISTRIBUTIONS


@given(resource=st.binary(max_size=40), item=st.binary(max_size=80))
def test_a_frame_hides_every_byte_that_lines_care_about(resource: bytes, item: bytes) -> None:
    line = otlp_frames.line(resource, item, 7)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert otlp_frames.is_framed(line)
    assert otlp_frames.red_spans(line * 3) == 21
    request = otlp_frames.request(line + line)
    assert item in request
    assert resource in request


def test_identity_without_a_name_says_nothing() -> None:
    [span] = mapped(sidecar_span())
    span.identity = Identity("none", "s", "none", "none", "none", "")
    [payload] = OtlpWriter().write([span])
    resource = Resource.FromString(sent(payload).resource_spans[0].resource.SerializeToString())
    assert set(values(resource.attributes)) == {"service.name", "service.instance.id"}
