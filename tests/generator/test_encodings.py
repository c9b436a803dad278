"""The same spans in another format are what Envoy would have written, and mean the same to a reader."""

import json
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tracefwd.generator.connection import PROTOCOLS, Target
from tracefwd.generator.encodings import encoder
from tracefwd.generator.posts import Posts
from tracefwd.receiver.decode import make_decode
from tracefwd.receiver.otlp_decode import make_otlp_decode, without_frame

ENVOY = Path(__file__).parent.parent / "fixtures" / "envoy"
NOW_US = 1_795_352_792_000_000
zipkin, otlp = make_decode(), make_otlp_decode()


def posts(protocol: str, spans: int = 400) -> list[tuple[bytes, bytes]]:
    """(JSON, encoded) bodies of one and the same traffic."""
    options: dict[str, Any] = {"connections": 9, "seed": 3, "epoch_us": 1, "spans_max": spans}
    plain, other = Posts(**options), Posts(**options, encode=encoder(protocol))
    found = []
    while (post := plain.next(NOW_US)) is not None:
        same = other.next(NOW_US)
        assert same is not None
        assert same[:3] == post[:3]
        found.append((post.body, same.body))
    return found


def test_json_needs_no_encoder() -> None:
    assert encoder("zipkin-json") is None


def test_proto3_means_what_the_json_says() -> None:
    for body, encoded in posts("zipkin-proto"):
        decoded = zipkin(encoded, "application/x-protobuf")
        assert not decoded.rejects
        # Envoy's byte order was turned round, so that the ids are the JSON's.
        assert decoded.repairs == {"ids_reversed": len(decoded.spans)}
        for span, wanted in zip(decoded.spans, zipkin(body, "").spans, strict=True):
            for name in ("trace_id", "span_id", "parent_id", "kind", "name", "timestamp_us"):
                assert getattr(span, name) == getattr(wanted, name)
            assert span.duration_us == wanted.duration_us
            notes = [(note.timestamp_us, note.value) for note in span.annotations or ()]
            assert notes == [(note.timestamp_us, note.value) for note in wanted.annotations or ()]
            assert span.local is not None
            assert wanted.local is not None
            assert span.local.service_name == wanted.local.service_name
            assert span.local.ipv4 == wanted.local.ipv4
            assert dict(span.tags or {}) == dict(wanted.tags or {})


@pytest.mark.parametrize("protocol", ["otlp-http", "otlp-grpc"])
def test_otlp_means_what_the_json_says(protocol: str) -> None:
    for body, encoded in posts(protocol):
        decoded = otlp(encoded, "application/x-protobuf")
        assert not decoded.rejects
        for span, wanted in zip(decoded.spans, zipkin(body, "").spans, strict=True):
            for name in ("trace_id", "span_id", "parent_id", "kind", "name", "timestamp_us"):
                assert getattr(span, name) == getattr(wanted, name)
            assert span.duration_us == wanted.duration_us
            assert span.local is not None
            assert wanted.local is not None
            assert span.local.service_name == wanted.local.service_name
            assert (wanted.tags or {}).items() <= (span.tags or {}).items()


@pytest.mark.parametrize("name", ["otlp-http-batch", "otlp-grpc-batch", "otlp-http-500-status"])
def test_otlp_has_the_shape_of_envoys_own(name: str) -> None:
    theirs = ExportTraceServiceRequest.FromString(
        without_frame((ENVOY / f"{name}.bin").read_bytes())
    )
    keys_of = {span.kind: _fields(span) for span in _spans(theirs) if span.parent_span_id}
    resource = {item.key for item in theirs.resource_spans[0].resource.attributes}
    order = [
        [a.key for a in span.attributes if not a.key.startswith("istio.")]
        for span in _spans(theirs)
    ]
    for _, encoded in posts("otlp-http", 100):
        ours = ExportTraceServiceRequest.FromString(encoded)
        assert {item.key for item in ours.resource_spans[0].resource.attributes} == resource
        scope = ours.resource_spans[0].scope_spans[0].scope
        assert scope == theirs.resource_spans[0].scope_spans[0].scope
        for span in _spans(ours):
            if span.parent_span_id and span.kind in keys_of:
                assert _fields(span) - {"status"} == keys_of[span.kind] - {"status"}
            mine = [a.key for a in span.attributes if not a.key.startswith("istio.")]
            for keys in order:
                common = [key for key in mine if key in keys]
                assert common == [key for key in keys if key in mine]


def _spans(request: Any) -> list[Any]:
    return [
        span
        for resource_spans in request.resource_spans
        for scope_spans in resource_spans.scope_spans
        for span in scope_spans.spans
    ]


def _fields(span: Any) -> set[str]:
    return {field.name for field, _ in span.ListFields()}


def test_the_head_of_a_post_over_http_is_envoys() -> None:
    recorded = json.loads((ENVOY / "otlp-http-batch.headers.json").read_text())
    target = Target("http://opentelemetry-collector.observability.svc.cluster.local", "otlp-http")
    body, encoded = posts("otlp-http", 20)[0]
    plain = Posts(connections=9, seed=3, epoch_us=1, spans_max=20).next(NOW_US)
    assert plain is not None
    assert plain.body == body
    request = target.request(plain._replace(body=encoded), b"192.0.2.2")
    head = request.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    assert head[0] == recorded["request_line"]
    assert [line.partition(": ")[::2] for line in head[1:]] == [
        tuple(pair) for pair in recorded["headers"]
    ]


def test_grpc_takes_no_path() -> None:
    assert Target("http://127.0.0.1:4317", "otlp-grpc").port == 4317
    with pytest.raises(ValueError, match="path"):
        Target("http://127.0.0.1:4317/v1/traces", "otlp-grpc")
    assert set(PROTOCOLS) == {"zipkin-json", "zipkin-proto", "otlp-http", "otlp-grpc"}
