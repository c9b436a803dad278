"""Formats are told apart by content, and a body without a span is told why."""

from pathlib import Path

import pytest

from tests.conftest import bare
from tracefwd.limits import REJECT_SAMPLE_BYTES_MAX
from tracefwd.model import Encoding
from tracefwd.receiver.decode import make_decode

ENVOY = Path(__file__).parent.parent / "fixtures" / "envoy"
JSON = (ENVOY / "json-batch-5.json").read_bytes()
PROTO = (ENVOY / "proto-batch-5.bin").read_bytes()
TYPES = [
    "",
    "application/json",
    "application/x-protobuf",
    "application/x-thrift",
    "text/plain; charset=x",
]

decode = make_decode()


@pytest.mark.parametrize("content_type", TYPES)
def test_the_content_decides_whatever_the_content_type_says(content_type: str) -> None:
    assert decode(JSON, content_type) == decode(JSON, "")
    assert decode(PROTO, content_type) == decode(PROTO, "")
    assert decode(JSON, content_type).encoding is Encoding.JSON_V2
    assert decode(PROTO, content_type).encoding is Encoding.PROTO3


@pytest.mark.parametrize(
    "prefix",
    [b" ", b"\n", b"\r\n\t ", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n", b"\n\n", b"\n \t", b"\n\x20\r"],
)
def test_a_byte_order_mark_and_blanks_before_json_are_nothing(prefix: bytes) -> None:
    decoded = decode(prefix + JSON, "application/json")
    assert bare(decoded) == bare(decode(JSON, ""))
    assert not decoded.rejects


def test_a_single_object_is_a_list_of_one() -> None:
    single = (ENVOY / "json-single-span.json").read_bytes()
    for body in (single[1:-1], b"\n " + single[1:-1] + b"\n"):
        decoded = decode(body, "")
        assert bare(decoded) == bare(decode(single, ""))
        assert not decoded.rejects


@pytest.mark.parametrize("body", [b"[]", b" [ \n ] ", b"[]zeta", b"\xef\xbb\xbf[]"])
def test_an_empty_list_is_no_spans_and_no_rejects(body: bytes) -> None:
    decoded = decode(body, "application/json")
    assert (decoded.spans, list(decoded.rejects), decoded.repairs) == ([], [], None)


@pytest.mark.parametrize(
    ("body", "content_type", "says"),
    [
        (b"", "application/json", "empty"),
        (b"", "application/x-protobuf", "empty"),
        (b"\x0c\x00\x00\x00\x01\x0a", "application/x-thrift", "Thrift"),
        (b"\x0c\x00\x00\x00\x01\x0a", "", "Thrift"),
        (b"\x0b\x00", "", "Thrift"),
        (b"\x82\x21", "application/x-thrift", "Thrift"),
        (b"\x1f\x8b\x08\x00", "application/json", "gzip"),
        (b"zeta", "", "no list of spans"),
        (b"zeta", "text/zeta", "text/zeta"),
        (b"null", "application/json", "no list of spans"),
        (b" \n ", "application/json", "no list of spans"),
        (b"\x00", "", "no list of spans"),
        (b"zeta", "application/x-protobuf", "proto3"),
        (b"\x0a\x00", "", "traceId"),
        (b"{}", "", "traceId"),
        (b"[", "", "not closed"),
    ],
)
def test_a_body_without_a_span_is_told_what_is_wrong(
    body: bytes, content_type: str, says: str
) -> None:
    decoded = decode(body, content_type)
    assert decoded.spans == []
    assert says in decoded.rejects[0].detail
    assert decoded.rejects[0].where


def test_a_refusal_names_the_formats_that_are_taken() -> None:
    for body in (b"", b"\x0c\x00\x00\x00\x01", b"zeta"):
        detail = decode(body, "").rejects[0].detail
        assert "JSON v2" in detail
        assert "proto3" in detail


def test_a_sample_is_bounded() -> None:
    for body in (
        b"x" * 9999,
        b'[{"a":"' + b"x" * 9999 + b'"}]',
        b"[" + b"x" * 9999,
        b"\x0a\xff\x7f" + b"x" * 9999,
    ):
        assert 0 < len(decode(body, "").rejects[0].sample) <= REJECT_SAMPLE_BYTES_MAX


def test_decoders_share_nothing() -> None:
    keep, turn = make_decode("keep"), make_decode("reverse")
    assert (
        bytes.fromhex(keep(PROTO, "").spans[0].span_id)[::-1].hex()
        == turn(PROTO, "").spans[0].span_id
    )


@pytest.mark.parametrize("length", [0x5B, 0x7B])
def test_a_proto_span_whose_length_is_a_bracket_is_no_json(length):
    ids = b"\x0a\x08" + b"\x01" * 8 + b"\x1a\x08" + b"\x02" * 8
    name = b"n" * (length - len(ids) - 2)
    body = b"\x0a" + bytes([length]) + ids + b"\x2a" + bytes([len(name)]) + name
    decoded = make_decode()(body, "")
    assert [span.name for span in decoded.spans] == [name.decode()]
    assert decoded.encoding is Encoding.PROTO3
    indented = b'\n[\n  {"traceId": "1", "id": "2"}\n]'
    assert [span.span_id for span in make_decode()(indented, "").spans] == ["0" * 15 + "2"]
