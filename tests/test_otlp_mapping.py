"""One request traced by Zipkin and by OTLP comes to the same Wavefront spans and the same RED series."""

import json
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.receiver.test_otlp_proto import BODIES, body_of
from tracefwd.compose import make_parts, make_writer
from tracefwd.generator.encodings import encoder
from tracefwd.model import Decoded, Encoding, Event, RedPoint, Span, WavefrontSpan
from tracefwd.receiver.otlp_decode import make_otlp_decode
from tracefwd.settings import MappingSettings, Settings, TargetSettings

ENVOY = Path(__file__).parent / "fixtures" / "envoy"
# Envoy's own in JSON, whole: those cut or odd are for the decoders' tests.
POSTS = sorted(
    path
    for path in [*ENVOY.glob("json-*.json"), *(ENVOY / "one-request").glob("*.json")]
    if "headers" not in path.name and "verbose" not in path.name
)
NOW_US = 1_795_352_800_000_000
PROFILES = {
    "istio": Settings(),
    "wavefront-proxy": Settings(mapping=MappingSettings(profile="wavefront-proxy")),
}
encode = encoder("otlp-http")


def facts(span: WavefrontSpan) -> dict[str, Any]:
    """What a page on a service, a trace or RED is made of."""
    return {
        "identity": span.identity,
        "name": span.name,
        "source": span.source,
        "ids": (span.trace_id, span.span_id, span.parent_id),
        "kind": span.kind,
        "status": span.http_status,
        "error": span.error,
        "times": (span.start_ms, span.duration_ms, span.duration_us),
        "red": (span.red, span.red_tags),
    }


def tags(span: WavefrontSpan) -> dict[str, str]:
    return {**dict(span.head), **span.tags, **dict(span.tail)}


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("path", POSTS, ids=[path.stem for path in POSTS])
def test_both_ways_in_agree_on_everything_that_pages_are_made_of(path: Path, profile: str) -> None:
    assert encode is not None
    settings = PROFILES[profile]
    body = path.read_bytes()
    parts, twin = make_parts(settings), make_parts(settings)
    # The second time the plain path knows the keys.
    for _ in range(2):
        zipkin = parts.mapper(parts.decode(body, ""), NOW_US)
        otlp = twin.mapper(twin.decode_otlp(encode(body), ""), NOW_US)
        assert not otlp.rejects
        assert [*map(facts, otlp.spans)] == [*map(facts, zipkin.spans)]
        for theirs, ours in zip(zipkin.spans, otlp.spans, strict=True):
            own = {key for key in tags(ours) if key.startswith(("telemetry.", "otel."))}
            missing = tags(theirs).items() - tags(ours).items()
            # Envoy tells its address by Zipkin only.
            assert {key for key, _ in missing} <= {"ipv4", "ipv6", "_spanSecondaryId"}
            if profile == "istio":
                assert {*tags(ours)} - {*tags(theirs)} == own
        assert series(parts, zipkin.spans) == series(twin, otlp.spans)


def series(parts: Any, spans: list[WavefrontSpan]) -> list[RedPoint]:
    parts.red.observe(spans, NOW_US // 1_000_000)
    points = [
        item for item in parts.red.drain(NOW_US // 1_000_000 + 60) if isinstance(item, RedPoint)
    ]
    return sorted(points, key=lambda point: point.key)


@pytest.mark.parametrize("path", BODIES, ids=[path.stem for path in BODIES])
def test_envoys_own_messages_map_to_istios_identity(path: Path) -> None:
    parts = make_parts(Settings())
    for span in parts.mapper(parts.decode_otlp(body_of(path), ""), NOW_US).spans:
        assert span.identity.application in ("default", "istio-system")
        assert span.identity.service != "none"
        assert span.identity.component == "proxy"
        assert span.source not in ("tracefwd", span.identity.service)
        twin = Span(span.trace_id, span.span_id, kind=span.kind.upper(), tags=span.tags)
        (by_zipkin,) = parts.mapper(Decoded(Encoding.JSON_V2, [twin]), NOW_US).spans
        assert span.error is by_zipkin.error


def test_what_only_otlp_can_say_reaches_line_and_log_under_both_profiles() -> None:
    def pair(key: str, value: str) -> dict[str, Any]:
        return {"key": key, "value": {"string_value": value}}

    request = ExportTraceServiceRequest(
        resource_spans=[
            {
                "resource": {
                    "attributes": [pair("service.name", "Shop"), pair("host.name", "node-7")]
                },
                "scope_spans": [
                    {
                        "scope": {"name": "lib", "version": "2"},
                        "spans": [
                            {
                                "trace_id": b"\1" * 16,
                                "span_id": b"\2" * 8,
                                "name": "buy",
                                "kind": 1,
                                "start_time_unix_nano": NOW_US * 1000,
                                "end_time_unix_nano": NOW_US * 1000 + 1_999_999,
                                "trace_state": "a=b",
                                "status": {"code": 2, "message": "no money"},
                                "dropped_links_count": 4,
                                "links": [{"trace_id": b"\3" * 16, "span_id": b"\4" * 8}],
                                "events": [
                                    {
                                        "time_unix_nano": NOW_US * 1000 + 5_000,
                                        "name": "retry",
                                        "attributes": [pair("why", "timeout")],
                                    },
                                    {"time_unix_nano": NOW_US * 1000 + 5_000, "name": "retry"},
                                ],
                            }
                        ],
                    }
                ],
            }
        ]
    ).SerializeToString()
    for profile, settings in PROFILES.items():
        parts = make_parts(settings)
        (span,) = parts.mapper(parts.decode_otlp(request, ""), NOW_US).spans
        found = tags(span)
        assert span.error
        assert (span.start_ms, span.duration_us) == (NOW_US // 1000, 1_999)
        assert span.source == "node-7"
        assert span.identity.service == {"istio": "Shop", "wavefront-proxy": "shop"}[profile]
        assert found["span.kind"] == "internal"
        assert found["otel.status_description"] == "no money"
        assert found["otel.dropped_links_count"] == "4"
        assert found["w3c.tracestate"] == "a=b"
        assert (found["otel.scope.name"], found["otel.scope.version"]) == ("lib", "2")
        assert span.logs == [
            Event(NOW_US + 5, "retry", {"why": "timeout", "name": "retry"}),
            Event(NOW_US + 5, "retry", {"name": "retry"}),
        ]
        writer = make_writer(TargetSettings(kind="direct", url="https://x"), settings)
        lines, logs = (payload.data.decode() for payload in writer.write([span]))
        assert '"_spanLogs"="true"' in lines
        assert '{"why":"timeout","name":"retry"}' in logs


def test_a_span_log_is_kept_within_what_the_backend_takes() -> None:
    decode = make_otlp_decode()
    long = {"key": "k", "value": {"stringValue": "x" * 9_000}}
    events = [{"timeUnixNano": "1", "name": "e", "attributes": [long]} for _ in range(9)]
    span = {"traceId": "1" * 32, "spanId": "2" * 16, "name": "n", "events": events}
    body = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).encode()
    mapped = make_parts(Settings()).mapper(decode(body, ""), NOW_US)
    (out,) = mapped.spans
    assert out.logs
    assert len(out.logs) < 9
    for log in out.logs:
        assert isinstance(log, Event)
        assert len(log.fields["k"]) <= 4_096
    assert mapped.repairs is not None
    assert mapped.repairs["value_cut"] > 1


@pytest.mark.parametrize(
    ("component", "said", "error"),
    [
        ("proxy", {"http.status_code": "404"}, False),
        ("proxy", {"http.status_code": "200", "grpc.status_code": "5"}, False),
        ("proxy", {"http.status_code": "503", "error": "true"}, True),
        ("shop", {"http.status_code": "404"}, True),
    ],
)
def test_an_envoys_status_is_no_error_where_zipkin_would_not_know_one(
    component: str, said: dict[str, str], error: bool
) -> None:
    pairs = {"component": component, **said}
    span = {
        "trace_id": b"\1" * 16,
        "span_id": b"\2" * 8,
        "kind": 3,
        "status": {"code": 2},
        "attributes": [
            {"key": key, "value": {"string_value": value}} for key, value in pairs.items()
        ],
    }
    request = ExportTraceServiceRequest(resource_spans=[{"scope_spans": [{"spans": [span]}]}])
    parts = make_parts(Settings())
    mapped = parts.mapper(parts.decode_otlp(request.SerializeToString(), ""), NOW_US)
    assert [out.error for out in mapped.spans] == [error]
