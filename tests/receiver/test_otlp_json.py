"""OTLP in JSON means what OTLP in protobuf means, as far as it can be read."""

import base64
import json
import re
from collections.abc import Callable
from math import copysign
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.receiver.test_otlp_proto import (
    BODIES,
    NAMES,
    as_spans,
    body_of,
    compound,
    scalars,
    small,
)
from tracefwd.limits import LENIENT_SPAN_BYTES_MAX, REJECTS_PER_BODY_MAX
from tracefwd.model import Decoded, Encoding, Event, PlainSpan
from tracefwd.receiver.decode import make_decode
from tracefwd.receiver.otlp_decode import make_any_decode, make_otlp_decode

otlp = make_otlp_decode()
anything = make_any_decode(make_decode(), otlp)


def decode(body: bytes) -> Decoded:
    return otlp(body, "application/json")


def as_json(proto: bytes) -> dict[str, Any]:
    """The request as the specification writes it in JSON: with ids in hex."""
    message: dict[str, Any] = MessageToDict(ExportTraceServiceRequest.FromString(proto))
    for resource_spans in message["resourceSpans"]:
        for scope_spans in resource_spans["scopeSpans"]:
            for span in scope_spans["spans"]:
                for key in ("traceId", "spanId", "parentSpanId"):
                    if key in span:
                        span[key] = base64.b64decode(span[key]).hex()
    return message


GOOD = [path for path in BODIES if "bad-utf8" not in path.name]


@pytest.mark.parametrize("path", GOOD, ids=[path.stem for path in GOOD])
def test_the_same_request_means_the_same_in_both_encodings(path: Path) -> None:
    proto = body_of(path)
    message = as_json(proto)
    wanted = otlp(proto, "application/x-protobuf")
    decoded = decode(json.dumps(message).encode())
    assert decoded.encoding is Encoding.OTLP_JSON
    assert as_spans(decoded.spans) == as_spans(wanted.spans)
    assert decoded.repairs == wanted.repairs
    assert not decoded.rejects
    # Upper case, numbers for names and for text, members that nobody knows, other orders.
    for resource_spans in message["resourceSpans"]:
        for scope_spans in resource_spans["scopeSpans"]:
            for span in scope_spans["spans"]:
                span["traceId"] = span["traceId"].upper()
                span["kind"] = {"SPAN_KIND_SERVER": 2, "SPAN_KIND_CLIENT": 3}[span["kind"]]
                span["startTimeUnixNano"] = int(span["startTimeUnixNano"])
                span["unheardOf"] = {"spans": [1, {"resource": None}]}
            scope_spans["spans"] = scope_spans.pop("spans")
        resource_spans["resource"] = resource_spans.pop("resource")
    assert as_spans(decode(json.dumps(message).encode()).spans) == as_spans(wanted.spans)


@pytest.mark.parametrize("path", GOOD[:3], ids=[path.stem for path in GOOD[:3]])
def test_of_a_body_cut_anywhere_the_complete_spans_are_taken(path: Path) -> None:
    body = json.dumps(as_json(body_of(path)), separators=(",", ":")).encode()
    whole = decode(body).spans
    last = 0
    for cut in range(1, len(body), 3):
        decoded = decode(body[:cut])
        assert decoded.spans == whole[: len(decoded.spans)], cut
        assert len(decoded.spans) >= last
        last = len(decoded.spans)
        assert decoded.rejects[-1].reason == "syntax"
    assert last == len(whole)


def request(*spans: Any, **members: Any) -> bytes:
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}], **members}]}).encode()


def span(**members: Any) -> dict[str, Any]:
    return {"traceId": "1" * 32, "spanId": "2" * 16, "name": "n", **members}


def test_a_bad_span_costs_only_itself() -> None:
    decoded = decode(request(span(), {"traceId": "1" * 32}, 7, span(spanId="zz"), span()))
    assert len(decoded.spans) == 2
    assert [reject.reason for reject in decoded.rejects] == ["span_id", "not_a_span", "span_id"]
    assert decoded.repairs == {"batch_salvaged": 1}


def test_odd_types_are_read_as_meant_and_counted() -> None:
    decoded = decode(
        request(
            span(
                name=7,
                kind="SERVER?",
                startTimeUnixNano=1.5e18,
                endTimeUnixNano="soon",
                attributes=[{"key": "a", "value": "bare"}, "no pair"],
                status=[],
                events="none",
            )
        )
    )
    (read,) = decoded.spans
    assert (read.name, read.kind, read.timestamp_us) == ("7", None, 1_500_000_000_000_000)
    assert decoded.repairs == {"field_type": 1, "blank_value": 1}


def test_resources_that_are_no_objects_do_not_cost_the_others() -> None:
    body = json.dumps(
        {"resourceSpans": [7, {"scopeSpans": [None, {"scope": 1, "spans": [span()]}]}, "x"]}
    )
    assert len(decode(body.encode()).spans) == 1


def test_values_events_and_what_is_told_beside_become_tags_and_logs() -> None:
    def value(**said: Any) -> dict[str, Any]:
        return {"key": next(iter(said)), "value": said}

    attributes = [
        value(stringValue="s"),
        value(boolValue=True),
        value(intValue="9007199254740993"),
        value(doubleValue=0.5),
        value(bytesValue="AAE="),
        value(arrayValue={"values": [{"stringValue": "a"}, {"intValue": 2}]}),
        value(kvlistValue={"values": [{"key": "k", "value": {"boolValue": False}}]}),
        {"key": "empty", "value": {}},
    ]
    decoded = decode(
        request(
            span(
                kind=1,
                attributes=attributes,
                traceState="a=b",
                droppedEventsCount=3,
                status={"code": "STATUS_CODE_ERROR", "message": "broken"},
                events=[{"timeUnixNano": "5000", "name": "e", "attributes": attributes[:2]}],
                links=[{"traceId": "3" * 32}],
            ),
            resource={"attributes": [{"key": "host.name", "value": {"stringValue": "pod-1"}}]},
        )
    )
    (read,) = decoded.spans
    assert read.tags == {
        "source": "pod-1",
        "stringValue": "s",
        "boolValue": "true",
        "intValue": "9007199254740993",
        "doubleValue": "0.5",
        "bytesValue": "AAE=",
        "arrayValue": "[a, 2]",
        "kvlistValue": '{"k":false}',
        "span.kind": "internal",
        "error": "true",
        "otel.status_description": "broken",
        "w3c.tracestate": "a=b",
        "otel.dropped_events_count": "3",
    }
    assert read.annotations == [
        Event(5, "e", {"stringValue": "s", "boolValue": "true", "name": "e"})
    ]
    assert decoded.repairs == {"blank_value": 1}
    assert not isinstance(read, PlainSpan)


def _snake(said: Any) -> Any:
    if isinstance(said, dict):
        return {re.sub("[A-Z]", r"_\g<0>", key).lower(): _snake(said[key]) for key in said}
    return [_snake(value) for value in said] if isinstance(said, list) else said


@pytest.mark.parametrize("path", GOOD, ids=[path.stem for path in GOOD])
@pytest.mark.parametrize("space", ["", " \n"])
def test_the_protos_own_names_of_fields_are_names_too(path: Path, space: str) -> None:
    message = as_json(body_of(path))
    text = json.dumps(_snake(message), separators=(",", f"{space}:{space}"))
    assert '"resource_spans"' in text
    assert as_spans(decode(text.encode()).spans) == as_spans(
        decode(json.dumps(message).encode()).spans
    )
    assert as_spans(anything(text.encode(), "").spans) == as_spans(decode(text.encode()).spans)


def test_only_members_are_names() -> None:
    said = '"resource_spans": "trace_id":'
    attributes = [
        {"key": "start_time_unix_nano", "value": {"string_value": said}},
        {"key": "m", "value": {"kvlist_value": {"values": [{"key": "span_id"}]}}},
    ]
    spans = [{"trace_id": "1" * 32, "span_id": "2" * 16, "name": said, "attributes": attributes}]
    body = {"resource_spans": [{"scope_spans": [{"spans": spans}]}]}
    (read,) = decode(json.dumps(body).encode()).spans
    assert read.name == said
    assert read.tags is not None
    assert read.tags["start_time_unix_nano"] == said
    assert read.tags["m"] == '{"span_id":null}'


VALUES = st.recursive(
    scalars | st.floats().map(lambda said: {"double_value": said}), compound, max_leaves=6
)


@given(st.lists(VALUES, min_size=1, max_size=3))
def test_every_value_means_the_same_in_both_encodings(values: list[dict[str, Any]]) -> None:
    attributes = [{"key": f"a{at}", "value": value} for at, value in enumerate(values)]
    body = small(attributes=attributes)
    message = as_json(body)
    (wanted,) = otlp(body, "application/x-protobuf").spans
    for written in (message, _without_fractions(message)):
        (read,) = decode(json.dumps(written).encode()).spans
        assert read.tags == wanted.tags


def _without_fractions(said: Any) -> Any:
    """As the Collector and JavaScript write a double that is whole."""
    if isinstance(said, dict):
        return {key: _without_fractions(value) for key, value in said.items()}
    if isinstance(said, list):
        return [_without_fractions(value) for value in said]
    is_whole = isinstance(said, float) and said.is_integer() and (said or copysign(1, said) > 0)
    return int(said) if is_whole else said


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ({"doubleValue": 5}, "5.0"),
        ({"doubleValue": "-2.5e1"}, "-25.0"),
        ({"doubleValue": "NaN"}, "NaN"),
        ({"doubleValue": "-Infinity"}, "-Infinity"),
        ({"doubleValue": "1_0"}, "1_0"),
        ({"doubleValue": 10**400}, "Infinity"),
        ({"intValue": 7}, "7"),
        ({"intValue": "-7"}, "-7"),
        ({"intValue": "seven"}, "seven"),
    ],
)
def test_numbers_are_read_whichever_way_they_are_written(said: dict[str, Any], text: str) -> None:
    inner = {"kvlistValue": {"values": [{"key": "k", "value": said}]}}
    attributes = [{"key": "a", "value": said}, {"key": "m", "value": inner}]
    (read,) = decode(request(span(attributes=attributes))).spans
    assert read.tags is not None
    assert read.tags["a"] == text
    is_number = text not in ("NaN", "Infinity", "-Infinity", "1_0", "seven")
    assert read.tags["m"] == '{"k":%s}' % (text if is_number else f'"{text}"')


def test_text_that_is_no_text_is_mended_and_counted() -> None:
    body = request(span(), span(name="caf\u00e9")).replace(b"caf\\u00e9", b"caf\xff")
    decoded = decode(body)
    assert [read.name for read in decoded.spans] == ["n", "caf\ufffd"]
    assert decoded.repairs is not None
    assert decoded.repairs["utf8"] >= 1
    (surrogate,) = decode(request(span(name="\ud800"))).spans
    assert surrogate.name == "\ufffd"


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"{}x",
        b'{"resourceSpans":' + b"[" * 100_000,
        b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"a":' + b'{"a":' * 50_000,
        b'{"resourceSpans":7}x',
        b'{"resource":{"spans":[',
        b'{"scope":',
        b"{\xff",
        b"[]",
        b"[{}]",
    ],
)
def test_what_is_no_request_is_one_reject_that_says_where(body: bytes) -> None:
    decoded = decode(body)
    assert not decoded.spans
    assert [reject.reason for reject in decoded.rejects] == ["syntax"]


def test_an_empty_request_is_none_to_complain_about() -> None:
    for body in (b"{}", b'{"resourceSpans":[]}', b""):
        decoded = otlp(body, "")
        assert (decoded.spans, [*decoded.rejects]) == ([], [])


def test_a_large_span_and_many_bad_ones_are_bounded() -> None:
    big = span(attributes=[{"key": "k", "value": {"stringValue": "x" * LENIENT_SPAN_BYTES_MAX}}])
    decoded = decode(request(span(), big, span()))
    assert len(decoded.spans) == 2
    assert [reject.reason for reject in decoded.rejects] == ["not_a_span"]
    assert len(decode(request(*[1] * (REJECTS_PER_BODY_MAX + 9))).rejects) == REJECTS_PER_BODY_MAX


def test_a_large_body_whose_frame_is_odd_is_salvaged_span_by_span() -> None:
    filler = "x" * (LENIENT_SPAN_BYTES_MAX // 2)
    many = [span(attributes=[{"key": "k", "value": {"stringValue": filler}}]) for _ in range(3)]
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]}
    body = json.dumps(
        {
            "resourceSpans": [
                {"resource": resource, "scopeSpans": [{"scope": {"name": "lib"}, "spans": many}]},
                7,
            ]
        }
    ).encode()
    decoded = decode(body)
    assert len(decoded.spans) == 3
    for read in decoded.spans:
        assert read.local is not None
        assert read.local.service_name == "shop"
        assert read.tags is not None
        assert read.tags["otel.scope.name"] == "lib"
    assert [reject.reason for reject in decoded.rejects] == ["syntax"]


assert NAMES, "there are bodies"


@pytest.mark.parametrize(
    ("around", "shown"),
    [
        (lambda value: {"arrayValue": {"values": [value]}}, "[[["),
        (lambda value: {"kvlistValue": {"values": [{"key": "k", "value": value}]}}, '{"k":{"k":'),
    ],
)
def test_a_value_nested_too_deep_is_left_out(around: Callable[[Any], Any], shown: str) -> None:
    value: dict[str, Any] = {"stringValue": "deep"}
    for _ in range(90):
        value = around(value)
    decoded = decode(request(span(attributes=[{"key": "deep", "value": value}])))
    (read,) = decoded.spans
    assert read.tags is not None
    assert read.tags["deep"].startswith(shown)
    assert decoded.repairs == {"field_type": 1}
