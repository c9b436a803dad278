"""The hand-written OTLP reader against OpenTelemetry's own classes, on Envoy's bodies and on made-up ones."""

import base64
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tracefwd.limits import MEMO_ENTRIES_MAX, REJECTS_PER_BODY_MAX
from tracefwd.model import Decoded, Encoding, Endpoint, Event, PlainSpan, Span
from tracefwd.receiver import otlp_proto
from tracefwd.receiver.otlp_decode import without_frame

ENVOY = Path(__file__).parent.parent / "fixtures" / "envoy"
BODIES = sorted(ENVOY.glob("otlp-*.bin"))
NAMES = [path.stem for path in BODIES]
KINDS = [None, None, "SERVER", "CLIENT", "PRODUCER", "CONSUMER"]
NOW_NS = 1_795_352_792_000_000_000
SOURCES = ("source", "host.name", "hostname", "host.id")


def body_of(path: Path) -> bytes:
    return without_frame(path.read_bytes())


def decode(
    body: bytes, memo: otlp_proto.Memo | None = None, *, as_the_proxy: bool = False
) -> Decoded:
    return otlp_proto.decode(body, memo or otlp_proto.Memo(), as_the_proxy=as_the_proxy)


def said_by(value: Any) -> Any:
    which = value.WhichOneof("value")
    if which == "array_value":
        return [said_by(item) for item in value.array_value.values]
    if which == "kvlist_value":
        return {item.key: said_by(item.value) for item in value.kvlist_value.values}
    if which == "bytes_value":
        return base64.b64encode(value.bytes_value).decode()
    return None if which is None else getattr(value, which)


def text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(text(item) for item in value)}]"
    if isinstance(value, dict):
        return msgspec.json.encode(value).decode()
    return "" if value is None else str(value)


def attributes(said: Any) -> dict[str, str]:
    return {item.key: text(said_by(item.value)) for item in said}


def filled(said: Any) -> dict[str, str]:
    """Attributes as tags: the last one of a key counts, if it has a value."""
    found: dict[str, str] = {}
    for item in said:
        value = text(said_by(item.value))
        if value:
            found[item.key] = value
    return found


def expected(request: Any) -> Iterator[Span]:
    """What spans that OpenTelemetry's classes read mean; their ids are good."""
    for resource_spans in request.resource_spans:
        base = filled(resource_spans.resource.attributes)
        service_name = base.pop("service.name", None)
        for key in SOURCES:
            if key in base:
                base["source"] = base.pop(key)
                break
        for scope_spans in resource_spans.scope_spans:
            scope = scope_spans.scope
            named = {"otel.scope.name": scope.name, "otel.scope.version": scope.version}
            shared = base | {key: value for key, value in named.items() if value}
            for span in scope_spans.spans:
                yield expected_span(span, shared, service_name)


def expected_span(span: Any, shared: dict[str, str], service_name: str | None) -> Span:
    tags = shared | filled(span.attributes)
    service_name = tags.pop("service.name", service_name)
    if span.kind == 1:
        tags.setdefault("span.kind", "internal")
    if span.status.code == 2:
        if tags.get("component") != "proxy":
            tags.setdefault("error", "true")
        if span.status.message:
            tags["otel.status_description"] = span.status.message
    if span.trace_state:
        tags["w3c.tracestate"] = span.trace_state
    for what in ("attributes", "events", "links"):
        if count := getattr(span, f"dropped_{what}_count"):
            tags[f"otel.dropped_{what}_count"] = str(count)
    events = []
    for event in span.events:
        dropped = event.dropped_attributes_count
        more = {"otel.dropped_attributes_count": str(dropped)} if dropped else {}
        fields = attributes(event.attributes) | more | {"name": event.name}
        events.append(Event(event.time_unix_nano // 1000, event.name, fields))
    start, end = span.start_time_unix_nano, span.end_time_unix_nano
    return Span(
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex() or None,
        KINDS[span.kind],
        span.name or None,
        start // 1000 or None,
        (end - start) // 1000 if end else 0,
        Endpoint(service_name),
        None,
        events or None,
        tags or None,
    )


def as_spans(spans: list[Span]) -> list[dict[str, Any]]:
    """Without their class: whether a span is plain is told apart elsewhere."""
    shown = [{name: getattr(span, name) for name in Span.__struct_fields__} for span in spans]
    return [{**each, "tags": dict(each["tags"] or {})} for each in shown]


@pytest.mark.parametrize("path", BODIES, ids=NAMES)
def test_an_envoys_body_is_read_as_opentelemetrys_classes_read_it(path: Path) -> None:
    body = body_of(path)
    memo = otlp_proto.Memo()
    decoded = decode(body, memo)
    assert decoded.encoding is Encoding.OTLP_PROTO
    assert not decoded.rejects
    if "bad-utf8" in path.name:
        with pytest.raises(Exception, match=r"UTF-8|parsing"):
            ExportTraceServiceRequest.FromString(body)
        assert decoded.repairs == {"utf8": 1}
        assert len(decoded.spans) == 5
        assert any("\ufffd" in str(span.tags) for span in decoded.spans)
    else:
        request = ExportTraceServiceRequest.FromString(body)
        assert as_spans(decoded.spans) == as_spans([*expected(request)])
    # Further readings go through the memos and their runs.
    for _ in range(3):
        again = decode(body, memo)
        assert again.spans == decoded.spans
        assert again.repairs == decoded.repairs


def test_what_envoy_sends_of_an_ordinary_request_is_plain() -> None:
    spans = decode(body_of(ENVOY / "otlp-http-batch.bin")).spans
    assert [type(span) for span in spans] == [PlainSpan] * 5


@pytest.mark.parametrize("path", BODIES, ids=NAMES)
def test_of_a_body_cut_anywhere_the_complete_spans_are_taken(path: Path) -> None:
    body = body_of(path)
    memo = otlp_proto.Memo()
    whole = decode(body, memo).spans
    last = 0
    for cut in range(1, len(body)):
        decoded = decode(body[:cut], memo)
        assert decoded.spans == whole[: len(decoded.spans)], cut
        assert len(decoded.spans) >= last
        last = len(decoded.spans)
        assert [reject.reason for reject in decoded.rejects] == ["syntax"], cut
    assert last == len(whole) - 1


@pytest.mark.parametrize("path", BODIES, ids=NAMES)
def test_the_short_way_into_a_body_is_the_long_one(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever byte of a usual body is another one, both ways say the same, rejects included."""
    good, rng = body_of(path), random.Random(path.stem)
    bodies = [good]
    for at in [*range(60), *(rng.randrange(len(good)) for _ in range(200))]:
        odd = bytearray(good)
        odd[at % len(good)] = rng.randrange(256)
        bodies.append(bytes(odd))
    short, long = otlp_proto.Memo(), otlp_proto.Memo()
    found = [decode(body, short) for body in bodies]
    monkeypatch.setattr(otlp_proto._Reader, "_usual", lambda self: False)
    monkeypatch.setattr(otlp_proto._Reader, "_fitting", lambda self, shared, at, end: at)
    for body, decoded in zip(bodies, found, strict=True):
        wanted = decode(body, long)
        assert (decoded.spans, decoded.rejects) == (wanted.spans, wanted.rejects)
        assert decoded.repairs == wanted.repairs


@pytest.mark.parametrize("path", BODIES, ids=NAMES)
@pytest.mark.parametrize(
    "junk", [b"junk", b"\xff", b"\x0a\xff\xff\xff\x7f", b"\x07", b"\x0b", b"\x00", b"\x0a\x05a"]
)
def test_junk_behind_the_spans_costs_no_span(path: Path, junk: bytes) -> None:
    body = body_of(path)
    decoded = decode(body + junk)
    assert decoded.spans == decode(body).spans
    assert [reject.reason for reject in decoded.rejects] == ["syntax"]


texts = st.text(max_size=9) | st.text("ab", min_size=100, max_size=140)
ids = st.binary(min_size=8, max_size=8).filter(any)
trace_ids = ids.map(lambda low: b"\x01" * 8 + low)
scalars = st.one_of(
    texts.map(lambda said: {"string_value": said}),
    st.booleans().map(lambda said: {"bool_value": said}),
    st.integers(-(2**63), 2**63 - 1).map(lambda said: {"int_value": said}),
    st.floats(allow_nan=False, allow_infinity=False).map(lambda said: {"double_value": said}),
    st.binary(max_size=9).map(lambda said: {"bytes_value": said}),
    st.just({}),
)


def compound(values: Any) -> Any:
    pairs = st.dictionaries(texts, values, max_size=3).map(
        lambda said: [{"key": key, "value": value} for key, value in said.items()]
    )
    return st.lists(values, max_size=3).map(
        lambda said: {"array_value": {"values": said}}
    ) | pairs.map(lambda said: {"kvlist_value": {"values": said}})


values = st.recursive(scalars, compound, max_leaves=6)
keys = texts | st.sampled_from(["service.name", "source", "host.name", "error", "node_id"])
pairs = st.lists(st.fixed_dictionaries({"key": keys, "value": values}), max_size=4)
counts = st.integers(0, 2**32 - 1)
nanos = st.integers(0, 2**64 - 1) | st.integers(10**18, 2 * 10**18)
events = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "time_unix_nano": st.integers(0, 2**63 - 1),
            "name": texts,
            "attributes": pairs,
            "dropped_attributes_count": counts,
        },
    ),
    max_size=2,
)
spans = st.fixed_dictionaries(
    {"trace_id": trace_ids, "span_id": ids},
    optional={
        "parent_span_id": ids,
        "name": texts,
        "kind": st.integers(0, 5),
        "start_time_unix_nano": nanos,
        "end_time_unix_nano": nanos,
        "attributes": pairs,
        "dropped_attributes_count": counts,
        "dropped_events_count": counts,
        "dropped_links_count": counts,
        "trace_state": texts,
        "flags": counts,
        "events": events,
        "links": st.lists(
            st.fixed_dictionaries({"trace_id": trace_ids, "attributes": pairs}), max_size=1
        ),
        "status": st.fixed_dictionaries({}, optional={"code": st.integers(0, 2), "message": texts}),
    },
)
requests = st.fixed_dictionaries(
    {
        "resource_spans": st.lists(
            st.fixed_dictionaries(
                {
                    "scope_spans": st.lists(
                        st.fixed_dictionaries(
                            {"spans": st.lists(spans, max_size=3)},
                            optional={
                                "scope": st.fixed_dictionaries(
                                    {}, optional={"name": texts, "version": texts}
                                ),
                                "schema_url": texts,
                            },
                        ),
                        max_size=2,
                    )
                },
                optional={
                    "resource": st.fixed_dictionaries({"attributes": pairs}),
                    "schema_url": texts,
                },
            ),
            max_size=2,
        )
    }
)


@settings(max_examples=200, deadline=None)
@given(requests)
def test_whatever_their_classes_write_is_read_as_they_read_it(said: dict[str, Any]) -> None:
    request = ExportTraceServiceRequest(**said)
    body = request.SerializeToString()
    memo = otlp_proto.Memo()
    wanted = [*expected(request)]
    for span in wanted:
        # Its own parent is none.
        span.parent_id = None if span.parent_id == span.span_id else span.parent_id
    for _ in range(3):
        decoded = decode(body, memo)
        assert not decoded.rejects
        assert as_spans(decoded.spans) == as_spans(wanted)


@settings(max_examples=200, deadline=None)
@given(requests, st.data())
def test_whatever_bytes_come_good_spans_stay_and_nothing_is_raised(
    said: dict[str, Any], data: st.DataObject
) -> None:
    body = bytearray(ExportTraceServiceRequest(**said).SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        if body:
            body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    decoded = decode(bytes(body))
    for span in decoded.spans:
        assert len(span.trace_id) in (16, 32)
        assert bytes.fromhex(span.trace_id)


def small(**members: Any) -> bytes:
    """A request of one span."""
    span = {"trace_id": b"\1" * 16, "span_id": b"\2" * 8, **members}
    return ExportTraceServiceRequest(
        resource_spans=[{"scope_spans": [{"spans": [span]}]}]
    ).SerializeToString()


def test_a_bad_span_costs_only_itself() -> None:
    good = {"trace_id": b"\1" * 16, "span_id": b"\2" * 8}
    bad = [{"trace_id": b"\1" * 16}, {"span_id": b"\2" * 8}, {**good, "trace_id": b"\0" * 16}]
    request = ExportTraceServiceRequest(
        resource_spans=[{"scope_spans": [{"spans": [good, *bad, good]}]}]
    )
    decoded = decode(request.SerializeToString())
    assert len(decoded.spans) == 2
    assert [reject.reason for reject in decoded.rejects] == ["span_id", "trace_id", "trace_id"]
    assert decoded.repairs == {"batch_salvaged": 1}


def test_a_field_of_the_wrong_wire_type_is_passed_over() -> None:
    body = small(name="kept")
    # The span's name once more, as a number, and its kind as text.
    odd = b"\x28\x07" + b"\x32\x01a"
    inner = ExportTraceServiceRequest.FromString(body).resource_spans[0].scope_spans[0].spans[0]
    raw = inner.SerializeToString() + odd
    framed = b"\x12" + bytes([len(raw)]) + raw
    framed = b"\x12" + bytes([len(framed)]) + framed
    (span,) = decode(b"\x0a" + bytes([len(framed)]) + framed).spans
    assert (span.name, span.kind) == ("kept", None)


@pytest.mark.parametrize(
    ("around", "shown"),
    [
        (lambda value: {"array_value": {"values": [value]}}, "[[["),
        (lambda value: {"kvlist_value": {"values": [{"key": "k", "value": value}]}}, '{"k":{"k":'),
    ],
)
def test_a_value_nested_too_deep_is_left_out(around: Callable[[Any], Any], shown: str) -> None:
    value: dict[str, Any] = {"string_value": "deep"}
    for _ in range(90):
        value = around(value)
    decoded = decode(small(attributes=[{"key": "deep", "value": value}]))
    (span,) = decoded.spans
    assert span.tags is not None
    assert span.tags["deep"].startswith(shown)
    assert decoded.repairs == {"field_type": 1}


def test_rejects_of_one_body_are_bounded() -> None:
    bad = b"\x12\x00" * (REJECTS_PER_BODY_MAX * 3)
    scope = b"\x12" + varint(len(bad)) + bad
    decoded = decode(b"\x0a" + varint(len(scope)) + scope)
    assert not decoded.spans
    assert len(decoded.rejects) == REJECTS_PER_BODY_MAX + 1


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def test_the_memos_are_bounded_whatever_comes() -> None:
    memo = otlp_proto.Memo()
    for number in range(0, 3 * MEMO_ENTRIES_MAX, 64):
        pairs = [
            {"key": f"key-{number + index}", "value": {"string_value": "x"}} for index in range(64)
        ]
        decode(small(attributes=pairs), memo)
    assert len(memo.known) <= MEMO_ENTRIES_MAX
    assert len(memo.values) <= MEMO_ENTRIES_MAX


def test_an_envoy_without_a_route_names_the_host_as_by_zipkin() -> None:
    def named(name: str, component: str, *, as_the_proxy: bool = False) -> str | None:
        pairs = [{"key": "component", "value": {"string_value": component}}]
        body = small(name=name, attributes=pairs, kind=2, start_time_unix_nano=NOW_NS)
        (span,) = decode(body, as_the_proxy=as_the_proxy).spans
        return span.name

    assert named("egress example.org", "proxy") == "example.org"
    assert named("ingress example.org", "proxy") == "example.org"
    assert named("egress example.org", "shop") == "egress example.org"
    assert named("router x egress", "proxy") == "router x egress"
    assert named("egress example.org", "proxy", as_the_proxy=True) == "egress example.org"


def test_as_the_proxy_an_attribute_source_is_a_tag_and_every_kind_is_told() -> None:
    body = small(attributes=[{"key": "source", "value": {"string_value": "mine"}}])
    (span,) = decode(body, as_the_proxy=True).spans
    assert span.tags == {"_source": "mine", "span.kind": "unspecified"}
    (span,) = decode(body).spans
    assert span.tags == {"source": "mine"}
