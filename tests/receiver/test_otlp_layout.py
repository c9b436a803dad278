"""What layouts read of a span is what reading it field by field gives, whatever varies and however the bytes lie."""

import random
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tracefwd.limits import MEMO_ENTRIES_MAX, TAG_RECORD_MISSES_MAX
from tracefwd.model import PlainSpan
from tracefwd.receiver import otlp_proto

NOW_NS = 1_795_352_792_000_000_000


def body(rng: random.Random, **changes: Any) -> bytes:
    """A request of a few spans, as one Envoy writes them; values differ, many of one length."""
    resource = {"attributes": [{"key": "service.name", "value": {"string_value": "shop.default"}}]}
    spans = []
    for _ in range(rng.randint(1, 4)):
        pairs = {
            "node_id": "sidecar~10.0.0.1~shop-1.default~default",
            "guid:x-request-id": f"{rng.getrandbits(128):032x}",
            "http.url": rng.choice(["http://a/1", "http://a/22", "http://b/1"]),
            "response_size": str(rng.choice([1, 22, 33, 444])),
            "request_size": str(rng.choice([1, 22])),
            "component": "proxy",
            **changes,
        }
        start = NOW_NS + rng.getrandbits(40)
        span = {
            "trace_id": rng.randbytes(16),
            "span_id": rng.randbytes(8),
            "name": rng.choice(["shop:80/*", "cart:80/*"]),
            "kind": rng.choice([2, 3]),
            "start_time_unix_nano": start,
            "end_time_unix_nano": start + rng.getrandbits(30),
            "attributes": [
                {"key": key, "value": {"string_value": value}} for key, value in pairs.items()
            ],
            "flags": 257,
        }
        if rng.random() < 0.7:
            span["parent_span_id"] = rng.randbytes(8)
        spans.append(span)
    return ExportTraceServiceRequest(
        resource_spans=[{"resource": resource, "scope_spans": [{"spans": spans}]}]
    ).SerializeToString()


def alone(raw: bytes) -> Any:
    """Read by a reader that has learned nothing."""
    return otlp_proto.decode(raw, otlp_proto.Memo())


def test_a_learned_reader_reads_what_a_new_one_reads() -> None:
    rng, memo = random.Random(1), otlp_proto.Memo()
    for _ in range(400):
        raw = body(rng)
        decoded, wanted = otlp_proto.decode(raw, memo), alone(raw)
        assert [*map(as_text, decoded.spans)] == [*map(as_text, wanted.spans)]
        assert not decoded.rejects
    assert any(found.layouts for found in memo.layouts.values())
    varying = {
        key for found in memo.layouts.values() for layout in found.layouts for key in layout.varying
    }
    assert "guid:x-request-id" in varying
    assert "component" not in varying


def test_odd_values_of_a_known_length_are_seen() -> None:
    """A layout must not let through what is not plain, or what is broken, because its length fits."""
    rng, memo = random.Random(2), otlp_proto.Memo()
    for _ in range(200):
        otlp_proto.decode(body(rng), memo)
    for odd in ("caf\u00e9", 'a"bc"', " abcd", "a\tbcd", "abcd\\"):
        for _ in range(20):
            raw = body(rng, **{"response_size": odd[:3], "http.url": f"http://{odd[-3:]}"})
            decoded = otlp_proto.decode(raw, memo)
            assert [*map(as_text, decoded.spans)] == [*map(as_text, alone(raw).spans)]
            plain = all(text.isascii() and text == text.strip() for text in (odd[:3], odd[-3:]))
            if not plain:
                assert not any(isinstance(span, PlainSpan) for span in decoded.spans)
    for _ in range(400):
        raw = bytearray(body(rng))
        for _ in range(rng.randint(1, 3)):
            raw[rng.randrange(len(raw))] = rng.randrange(256)
        decoded, wanted = otlp_proto.decode(bytes(raw), memo), alone(bytes(raw))
        assert [*map(as_text, decoded.spans)] == [*map(as_text, wanted.spans)]
        assert len(decoded.rejects) == len(wanted.rejects)


def as_text(span: Any) -> str:
    shown = {name: getattr(span, name) for name in span.__struct_fields__}
    return repr({**shown, "tags": sorted((span.tags or {}).items())})


def test_what_is_learned_is_bounded() -> None:
    rng, memo = random.Random(3), otlp_proto.Memo()
    for number in range(3_000):
        otlp_proto.decode(body(rng, extra="x" * (number % 100 + 1)), memo)
    assert len(memo.layouts) <= 2_048
    assert all(len(found.layouts) <= 4 for found in memo.layouts.values())
    assert len(memo.texts) <= MEMO_ENTRIES_MAX


def test_a_key_that_came_first_does_not_keep_its_like_off_the_plain_path_for_ever() -> None:
    rng, memo = random.Random(4), otlp_proto.Memo()
    first = otlp_proto.decode(body(rng, **{"x-y": "1"}), memo).spans
    assert all(span.is_plain for span in first)
    read = 0
    while read < TAG_RECORD_MISSES_MAX:
        spans = otlp_proto.decode(body(rng, **{"x:y": "1"}), memo).spans
        read += len(spans)
    assert otlp_proto.decode(body(rng, **{"x:y": "1"}), memo).spans[0].is_plain
