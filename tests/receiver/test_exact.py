"""``mapping.exact``: the bodies that the Java proxy refuses are refused, and the others mean the same."""

import base64
import gzip
import json
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import JAVA_PROXY, bare, envoy_bodies
from tracefwd import limits
from tracefwd.model import Annotation, Decoded, Encoding, Endpoint
from tracefwd.receiver.decode import make_decode
from tracefwd.receiver.exact import make_exact_decode

ODD = json.loads((JAVA_PROXY / "odd-inputs.json").read_text())
# The proxy answers these before it looks into a body, or only behind the decoding.
DECODED = [
    entry
    for entry in ODD
    if entry.get("path", "/api/v2/spans").startswith(("/api/v2/spans", "/api/v1/spans"))
    and entry.get("method", "POST") == "POST"
    and not entry["answer"].startswith(("Unsupported", "Decompression", 'reason: "Illegal'))
    and entry["name"] != "header of 9000 characters"
    and "String index" not in entry["answer"]
]
IDS = {"traceId": "463ac35c9f6413ad48485a3953bb6124", "id": "a2fb4a1d1a96d312"}
TAGS = {"tags": {"component": "proxy"}}
decode = make_exact_decode()


def body_of(entry: dict[str, Any]) -> bytes:
    raw = entry["body"].encode() if "body" in entry else base64.b64decode(entry["body_base64"])
    coding = (entry.get("headers") or {}).get("content-encoding", "")
    inflate: Callable[[bytes], bytes]
    inflate = {"gzip": gzip.decompress, "deflate": zlib.decompress}.get(coding, bytes)  # type: ignore[assignment]
    return inflate(raw)


def read(*spans: Any) -> Decoded:
    return decode(json.dumps(spans).encode(), "application/json")


def refusal(*spans: Any) -> tuple[str, str]:
    decoded = read(*spans)
    assert not decoded.spans
    assert len(decoded.rejects) == len(spans)
    first, *others = decoded.rejects
    assert first.reason in limits.REJECT_REASONS
    assert {other.where for other in others} <= {"batch"}
    return first.reason, first.where


@pytest.mark.parametrize("entry", DECODED, ids=lambda entry: entry["name"])
def test_a_body_is_refused_whole_exactly_when_the_proxy_refuses_it(entry: dict[str, Any]) -> None:
    decoded = decode(body_of(entry), "application/json")
    assert (entry["status"] == 400) == bool(decoded.rejects)
    assert not (decoded.rejects and decoded.spans)


@pytest.mark.parametrize("path", envoy_bodies() + envoy_bodies("proto"), ids=lambda path: path.stem)
def test_what_envoys_send_is_read_as_ever(path: Any) -> None:
    ours, ordinary = (one(path.read_bytes(), "") for one in (decode, make_decode("keep")))
    assert bare(ours) == bare(ordinary)
    assert not ours.rejects


def test_every_span_of_a_refused_batch_is_counted() -> None:
    good = IDS | TAGS
    assert refusal(good, {"id": "1"} | TAGS, good) == ("trace_id", "traceId")
    assert refusal(good, 1) == ("not_a_span", "span")
    assert refusal(good, good | {"kind": "zeta"}) == ("invalid", "kind")
    cut = json.dumps([good, good]).encode()[:-30]
    decoded = decode(cut, "")
    assert [reject.where for reject in decoded.rejects][1:] == ["batch"]
    assert decoded.rejects[0].reason == "syntax"


def test_the_rejects_of_one_body_are_bounded() -> None:
    many = b"[" + b",".join([b"1"] * (limits.REJECTS_PER_BODY_MAX * 3)) + b"]"
    assert len(decode(many, "").rejects) == limits.REJECTS_PER_BODY_MAX


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"traceId": "463ac35c9f6413a"}, "traceId"),
        ({"traceId": "463AC35C9F6413AD"}, "traceId"),
        ({"traceId": True}, "traceId"),
        ({"id": "a2fb4a1d1a96d31200"}, "id"),
        ({"parentId": ""}, "parentId"),
        ({"parentId": "x"}, "parentId"),
        ({"timestamp": 1.5}, "timestamp"),
        ({"timestamp": True}, "timestamp"),
        ({"duration": "many"}, "duration"),
        ({"duration": 2**63 + 2**12}, "duration"),
        ({"tags": {"a": None}}, "tags"),
        ({"tags": {"a": [1]}}, "tags"),
        ({"debug": 1}, "debug"),
        ({"annotations": [{"timestamp": 1}]}, "annotations"),
        ({"annotations": {}}, "annotations"),
        ({"localEndpoint": {"port": 65536}}, "port"),
        ({"localEndpoint": {"port": 2**31}}, "port"),
        ({"remoteEndpoint": []}, "remoteEndpoint"),
    ],
)
def test_a_field_that_the_library_cannot_read_fails_the_batch(
    change: dict[str, Any], where: str
) -> None:
    assert refusal(IDS | TAGS | change)[1] == where


@pytest.mark.parametrize(
    ("change", "member", "value"),
    [
        ({"timestamp": "1700000000123456"}, "timestamp_us", 1_700_000_000_123_456),
        ({"timestamp": 1.7e15}, "timestamp_us", 1_700_000_000_000_000),
        ({"duration": " 5e3 "}, "duration_us", 5_000),
        ({"name": 12}, "name", "12"),
        ({"debug": False}, "debug", False),
        ({"parentId": "0"}, "parent_id", None),
        ({"parentId": "a2fb4a1d1a96d312"}, "parent_id", None),
        ({"tags": {"a": 1.50}}, "tags", {"a": "1.5"}),
    ],
)
def test_what_the_library_forgives_is_taken(
    change: dict[str, Any], member: str, value: object
) -> None:
    [span] = read(IDS | TAGS | change).spans
    assert getattr(span, member) == value


START = '"traceId":"463ac35c9f6413ad48485a3953bb6124","id":"a2fb4a1d1a96d312","tags":{"a":"b"}'


def read_text(members: str) -> Decoded:
    """One span, of these members after its ids and a tag; a name may come twice."""
    return decode(f"[{{{START},{members}}}]".encode(), "")


@pytest.mark.parametrize(
    ("members", "member", "value"),
    [
        ('"name":"get","name":null', "name", "get"),
        ('"name":"get","name":"put"', "name", "put"),
        ('"tags":{"c":"d","a":"e"}', "tags", {"a": "e", "c": "d"}),
        ('"tags":{"x":"1","x":"2"},"tags":null', "tags", {"a": "b", "x": "2"}),
        ('"debug":true,"debug":false', "debug", True),
        (
            '"annotations":[{"timestamp":1,"value":"x"}],"annotations":[{"timestamp":2,"value":"y"}]',
            "annotations",
            [Annotation(1, "x"), Annotation(2, "y")],
        ),
        ('"localEndpoint":{"serviceName":"a","serviceName":null}', "local", Endpoint("a")),
        ('"localEndpoint":{"ipv4":"1.2.3.4","ipv4":"x"}', "local", Endpoint(None, "1.2.3.4")),
        (
            '"localEndpoint":{"ipv4":"1.2.3.4","ipv6":"::ffff:5.6.7.8"}',
            "local",
            Endpoint(None, "5.6.7.8"),
        ),
        (
            '"localEndpoint":{"ipv6":"::ffff:5.6.7.8","ipv4":"1.2.3.4"}',
            "local",
            Endpoint(None, "1.2.3.4"),
        ),
    ],
)
def test_a_member_that_comes_twice_is_read_as_the_library_reads_it(
    members: str, member: str, value: object
) -> None:
    """As seen of the proxy."""
    [span] = read_text(members).spans
    assert getattr(span, member) == value


@pytest.mark.parametrize(
    "members",
    [
        '"traceId":"x","traceId":"463ac35c9f6413ad"',
        '"id":"","id":"1"',
        '"parentId":"","parentId":"1"',
        '"kind":"zeta","kind":"CLIENT"',
        '"timestamp":"x","timestamp":1',
        '"tags":{"c":null,"c":"d"}',
        '"debug":1,"debug":true',
        '"localEndpoint":{"port":"b"},"localEndpoint":{"port":0}',
        '"annotations":[{"timestamp":null,"timestamp":1,"value":"x"}]',
    ],
)
def test_also_the_first_of_a_member_that_comes_twice_can_fail_the_batch(members: str) -> None:
    assert not read_text(members).spans


@pytest.mark.parametrize(
    ("endpoint", "ipv4"),
    [
        ({"ipv4": "01.002.3.4"}, "01.002.3.4"),
        ({"ipv6": "::ffff:01.2.3.4"}, "01.2.3.4"),
        ({"ipv6": "::0F0f:1.2.3.4"}, "1.2.3.4"),
        ({"ipv6": "::ffff:102:304"}, None),
        ({"ipv6": "::2"}, None),
        ({"ipv4": "1.2.3.256"}, None),
    ],
)
def test_an_address_is_taken_by_its_text(endpoint: dict[str, str], ipv4: str | None) -> None:
    """As seen of the proxy, which knows an IPv4 address within IPv6 by its dots alone."""
    [span] = read(IDS | TAGS | {"localEndpoint": endpoint | {"serviceName": "a"}}).spans
    assert span.local is not None
    assert span.local.ipv4 == ipv4


def test_digits_of_any_script_are_a_number() -> None:
    [span] = read(IDS | TAGS | {"timestamp": "\u0661\u0662", "duration": "\uff17"}).spans
    assert (span.timestamp_us, span.duration_us) == (12, 7)


def test_words_anywhere_in_the_body_make_it_version_2() -> None:
    bare = IDS | {"kind": "CLIENT"}
    decoded = read(bare)
    assert (decoded.encoding, decoded.spans[0].kind) == (Encoding.JSON_V1, None)
    decoded = read(bare | {"tags": None})
    assert (decoded.encoding, decoded.spans[0].kind) == (Encoding.JSON_V2, "CLIENT")
    assert decoded.spans[0].tags == {}, "the mapper shall see that it is v2"


def test_version_1_takes_the_right_half_of_an_odd_id() -> None:
    [span] = read({"traceId": "1" + "2" * 16, "id": "3" + "4" * 16, "parentId": None}).spans
    assert (span.trace_id, span.span_id) == ("2" * 16, "4" * 16)
    assert refusal({"traceId": "0", "id": "1"}) == ("trace_id", "traceId")
    assert refusal({"traceId": "1"}) == ("span_id", "id")


def test_thrift_is_named() -> None:
    [reject] = decode(b"\x0c\0\0\0\1\x0b", "application/x-thrift").rejects
    assert "Thrift" in reject.detail


def test_one_bad_span_fails_a_proto_batch() -> None:
    good = b"\x0a\x10" + b"\x11" * 16 + b"\x1a\x08" + b"\x22" * 8
    long_id = b"\x0a\x10" + b"\x11" * 16 + b"\x1a\x09" + b"\x22" * 9
    without = b"\x0a\x10" + b"\x11" * 16
    framed = [b"\n" + bytes([len(span)]) + span for span in (good, long_id, without)]
    assert len(decode(framed[0], "").spans) == 1
    for bad in framed[1:]:
        decoded = decode(framed[0] + bad + framed[0], "")
        assert not decoded.spans
        assert (len(decoded.rejects), decoded.rejects[0].reason) == (3, "span_id")


def test_what_is_empty_in_proto_is_absent() -> None:
    def framed(tag: int, inside: bytes) -> bytes:
        return bytes([tag, len(inside)]) + inside

    start = b"\x09" + b"\1" * 8
    span = framed(0x0A, b"\x11" * 16) + framed(0x1A, b"\x22" * 8)
    span += framed(0x5A, b"\x0a\0\x12\1x") + framed(0x5A, b"\x0a\1a\x12\0")
    span += framed(0x52, start) + framed(0x52, b"\x12\1x") + framed(0x52, start + b"\x12\1x")
    [found] = decode(framed(0x0A, span), "").spans
    assert found.tags == {"a": ""}
    assert [note.value for note in found.annotations or ()] == ["x"]
    only = framed(0x0A, b"\x11" * 16) + framed(0x1A, b"\x22" * 8) + framed(0x52, start)
    assert decode(framed(0x0A, only), "").spans[0].annotations is None


def test_a_proto_span_whose_length_is_a_bracket_is_no_json() -> None:
    span = b"\x0a\x10" + b"\x11" * 16 + b"\x1a\x08" + b"\x22" * 8 + b"\x2a\x3d" + b"n" * 61
    assert len(span) == ord("[")
    assert decode(b"\n" + bytes([len(span)]) + span, "").spans[0].name == "n" * 61


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=4,
)
MEMBERS = ["kind", "name", "timestamp", "duration", "localEndpoint", "annotations", "tags", "debug"]


@settings(deadline=None, max_examples=200)
@given(
    st.lists(
        st.dictionaries(st.sampled_from([*MEMBERS, "parentId", "x"]), VALUES).map(
            lambda members: IDS | members
        ),
        max_size=3,
    ),
    st.binary(max_size=3),
)
def test_anything_is_taken_whole_or_refused_whole(spans: list[Any], behind: bytes) -> None:
    decoded = decode(json.dumps(spans).encode() + behind, "")
    assert not (decoded.spans and decoded.rejects)
    assert len(decoded.spans or decoded.rejects) == len(spans)


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=40), st.sampled_from([b"", b"[", b"\n", b"[{", b"\x0c"]))
def test_no_bytes_break_it(rest: bytes, first: bytes) -> None:
    decoded = decode(first + rest, "")
    assert not (decoded.spans and decoded.rejects)
