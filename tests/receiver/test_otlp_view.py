"""What people are shown of an OTLP body is everything in it, once."""

import json
from collections import Counter
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.receiver.test_otlp_json import GOOD, as_json
from tests.receiver.test_otlp_proto import BODIES, body_of, small
from tracefwd.receiver.otlp_decode import make_otlp_decode
from tracefwd.receiver.otlp_view import look

decode = make_otlp_decode()


@pytest.mark.parametrize("path", BODIES, ids=[path.stem for path in BODIES])
def test_each_span_comes_whole_once_and_as_a_body_of_its_own(path: Path) -> None:
    body = body_of(path)
    seen = list(look(body))
    spans = decode(body, "").spans
    assert [decode(each.alone, "").spans[0].span_id for each in seen] == [
        span.span_id for span in spans
    ]
    for each, span in zip(seen, spans, strict=True):
        paths = Counter(name for name, _ in each.fields)
        assert set(paths.values()) == {1}
        shown = {name.partition("attributes.")[2] for name in paths if "attributes." in name}
        assert {*(span.tags or {}), "service.name"} - shown <= {
            "otel.scope.name",
            "otel.scope.version",
            "error",
        }
        assert {"traceId", "spanId", "name", "kind", "flags", "scope.name"} <= {*paths}
        assert {"startTimeUnixNano", "endTimeUnixNano"} <= {*paths}


@pytest.mark.parametrize("path", GOOD, ids=[path.stem for path in GOOD])
def test_json_shows_the_same_members(path: Path) -> None:
    proto = body_of(path)
    in_json = json.dumps(as_json(proto)).encode()
    for theirs, ours in zip(look(in_json), look(proto), strict=True):
        assert sorted(name for name, _ in theirs.fields) == sorted(name for name, _ in ours.fields)
        assert decode(theirs.alone, "").spans[0].span_id == decode(ours.alone, "").spans[0].span_id


def test_links_events_status_counts_schemas_and_unknown_fields_are_shown() -> None:
    pair = {"key": "k", "value": {"string_value": "v"}}
    body = ExportTraceServiceRequest(
        resource_spans=[
            {
                "resource": {"attributes": [pair], "dropped_attributes_count": 1},
                "schema_url": "r",
                "scope_spans": [
                    {
                        "scope": {"name": "s", "attributes": [pair]},
                        "schema_url": "t",
                        "spans": [
                            {
                                "trace_id": b"\1" * 16,
                                "span_id": b"\2" * 8,
                                "links": [{"trace_id": b"\3" * 16}, {}],
                                "events": [{"name": "e"}],
                                "status": {"code": 2, "message": "m"},
                                "dropped_links_count": 3,
                            }
                        ],
                    }
                ],
            }
        ]
    ).SerializeToString()
    (seen,) = look(body)
    assert {name for name, _ in seen.fields} == {
        "resource.attributes.k",
        "resource.droppedAttributesCount",
        "resourceSpans.schemaUrl",
        "scope.name",
        "scope.attributes.k",
        "scopeSpans.schemaUrl",
        "traceId",
        "spanId",
        "links[0]",
        "links[1]",
        "events[0]",
        "status.code",
        "status.message",
        "droppedLinksCount",
    }


def test_what_is_broken_ends_the_looking_and_raises_nothing() -> None:
    body = small(name="n")
    for cut in range(len(body)):
        assert len(list(look(body[:cut]))) <= 1
    for odd in (b"", b"{", b'{"resourceSpans":7}', b"\xff\xff"):
        assert list(look(odd)) == []
