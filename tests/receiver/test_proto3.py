"""The hand-written proto3 reader against Google's, on Envoy's bodies and on made-up ones."""

import importlib.util
import ipaddress
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import bare
from tracefwd.limits import REJECTS_PER_BODY_MAX
from tracefwd.model import Annotation, Decoded, Encoding, Endpoint, Span
from tracefwd.receiver.decode import make_decode

ROOT = Path(__file__).parent.parent.parent
ENVOY = ROOT / "tests" / "fixtures" / "envoy"
BODIES = sorted(ENVOY.glob("proto-*.bin"))
NAMES = [path.stem for path in BODIES]
KINDS = [None, "CLIENT", "SERVER", "PRODUCER", "CONSUMER"]

decode, keep, reverse = make_decode(), make_decode("keep"), make_decode("reverse")


@pytest.fixture(scope="session")
def zipkin(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """The classes that Google's compiler makes of our schema file."""
    out = tmp_path_factory.mktemp("proto")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # grpc_tools imports the deprecated pkg_resources
        from grpc_tools import protoc

        arguments = ["protoc", f"-I{ROOT / 'proto'}", f"--python_out={out}", "zipkin.proto"]
        assert protoc.main(arguments) == 0
        spec = importlib.util.spec_from_file_location(
            "zipkin_pb2_of_the_tests", out / "zipkin_pb2.py"
        )
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    return module


def address(raw: bytes) -> str | None:
    return str(ipaddress.ip_address(raw)) if raw else None


def endpoint(said: Any) -> Endpoint:
    return Endpoint(
        said.service_name or None, address(said.ipv4), address(said.ipv6), said.port or None
    )


def expected(said: Any) -> Span:
    """What a span that Google's reader read means."""
    return Span(
        trace_id=said.trace_id.hex(),
        span_id=said.id.hex(),
        parent_id=said.parent_id.hex() or None,
        kind=KINDS[said.kind],
        name=said.name or None,
        timestamp_us=said.timestamp or None,
        duration_us=said.duration or None,
        local=endpoint(said.local_endpoint) if said.HasField("local_endpoint") else None,
        remote=endpoint(said.remote_endpoint) if said.HasField("remote_endpoint") else None,
        annotations=[Annotation(a.timestamp, a.value) for a in said.annotations] or None,
        tags=dict(said.tags) or None,
        debug=said.debug or None,
        shared=said.shared or None,
    )


def turned(spans: list[Span]) -> list[Span]:
    for span in spans:
        span.span_id = bytes.fromhex(span.span_id)[::-1].hex()
        span.parent_id = span.parent_id and bytes.fromhex(span.parent_id)[::-1].hex()
    return spans


def ends(body: bytes) -> list[int]:
    """Where each span of a well-formed body ends; lengths are of one or two bytes."""
    found, at = [], 0
    while at < len(body):
        size, at = body[at + 1], at + 2
        if size >= 128:
            size, at = size - 128 + body[at] * 128, at + 1
        at += size
        found.append(at)
    return found


@pytest.mark.parametrize("path", BODIES, ids=NAMES)
def test_an_envoys_body_is_read_as_googles_reader_reads_it(path: Path, zipkin: ModuleType) -> None:
    body = path.read_bytes()
    decoded = decode(body, "application/x-protobuf")
    count = len(ends(body))
    assert decoded.encoding is Encoding.PROTO3
    assert not decoded.rejects
    repairs = {"ids_reversed": count}
    if "bad-utf8" in path.name:
        # Stock libraries throw all of it away.
        with pytest.raises(Exception, match=r"UTF-8|parsing"):
            zipkin.ListOfSpans.FromString(body)
        assert decoded.repairs is not None
        assert 0 < decoded.repairs.pop("utf8") <= count
        assert any("\ufffd" in str(span.tags) for span in decoded.spans)
    else:
        said = zipkin.ListOfSpans.FromString(body).spans
        assert bare(keep(body, "")) == [expected(span) for span in said]
        assert bare(decoded) == turned([expected(span) for span in said])
    assert len(decoded.spans) == count
    assert decoded.repairs == repairs
    # A second reading goes through the memos.
    assert decode(body, "").spans == decoded.spans


@pytest.mark.parametrize("path", BODIES, ids=NAMES)
def test_of_a_body_cut_anywhere_the_complete_spans_are_taken(path: Path) -> None:
    body = path.read_bytes()
    whole = keep(body, "").spans
    complete_at = ends(body)
    for cut in range(1, len(body)):
        decoded = keep(body[:cut], "")
        complete = sum(end <= cut for end in complete_at)
        assert decoded.spans == whole[:complete], cut
        # Cut between two spans it is a shorter list.
        assert [r.reason for r in decoded.rejects] == ([] if cut in complete_at else ["syntax"])


@pytest.mark.parametrize("path", BODIES, ids=NAMES)
@pytest.mark.parametrize(
    "junk", [b"junk", b"\xff", b"\x0a\xff\xff\xff\x7f", b"\x07", b"\x0b", b"\x00", b"\x0a\x05a"]
)
def test_junk_behind_the_spans_costs_no_span(path: Path, junk: bytes) -> None:
    body = path.read_bytes()
    decoded = decode(body + junk, "")
    assert decoded.spans == decode(body, "").spans
    (reject,) = decoded.rejects
    assert reject.reason == "syntax"
    assert int(reject.where.removeprefix("byte ")) >= len(body)


texts = st.text(max_size=9) | st.text("ab", min_size=100, max_size=140)
ids = st.binary(min_size=8, max_size=8).filter(any)
endpoints = st.fixed_dictionaries(
    {},
    optional={
        "service_name": texts,
        "ipv4": st.binary(min_size=4, max_size=4),
        # In this network no address is an IPv4 one in disguise.
        "ipv6": st.binary(min_size=14, max_size=14).map(lambda host: b"\x20\x01" + host),
        "port": st.integers(0, 65535),
    },
)
int63 = st.integers(0, 2**63 - 1)
spans = st.fixed_dictionaries(
    {
        "trace_id": ids | st.binary(min_size=8, max_size=8).map(lambda low: b"\x01" * 8 + low),
        "id": ids,
    },
    optional={
        "parent_id": ids,
        "kind": st.integers(0, 4),
        "name": texts,
        "timestamp": int63,
        "duration": int63,
        "local_endpoint": endpoints,
        "remote_endpoint": endpoints,
        "annotations": st.lists(
            st.fixed_dictionaries({"timestamp": int63, "value": texts}), max_size=3
        ),
        "tags": st.dictionaries(texts, texts, max_size=5),
        "debug": st.booleans(),
        "shared": st.booleans(),
    },
)


@settings(deadline=None, max_examples=300)
@given(said=st.lists(spans, min_size=1, max_size=3))
def test_whatever_googles_writer_writes_is_read_back(
    said: list[dict[str, Any]], zipkin: ModuleType
) -> None:
    message = zipkin.ListOfSpans(spans=[zipkin.Span(**span) for span in said])
    body = message.SerializeToString()
    wanted = [expected(span) for span in message.spans]
    for span in wanted:
        span.parent_id = None if span.parent_id == span.span_id else span.parent_id
    for _ in range(2):
        decoded = keep(body, "")
        assert bare(decoded) == wanted
        assert (list(decoded.rejects), decoded.repairs) == ([], None)


@settings(deadline=None, max_examples=300)
@given(said=st.lists(spans, max_size=2), junk=st.binary(max_size=9), data=st.data())
def test_damaged_bodies_give_sound_spans_or_rejects(
    said: list[dict[str, Any]], junk: bytes, data: st.DataObject, zipkin: ModuleType
) -> None:
    body = zipkin.ListOfSpans(spans=[zipkin.Span(**span) for span in said]).SerializeToString()
    at = data.draw(st.integers(0, len(body)))
    decoded = decode(b"\x0a" + body[:at] + junk + body[at + len(junk) :], "")
    for span in decoded.spans:
        assert len(bytes.fromhex(span.trace_id)) in (8, 16)
        assert len(bytes.fromhex(span.span_id)) in (8, 16)
    assert decoded.spans or decoded.rejects


# --- single points, by hand ------------------------------------------------------------------------


def field(tag: int, value: bytes) -> bytes:
    assert len(value) < 128
    return bytes([tag, len(value)]) + value


def span(*fields: bytes, trace: bytes = b"\x01" * 16, own: bytes = b"\x02" * 8) -> bytes:
    return field(0x0A, field(0x0A, trace) + field(0x1A, own) + b"".join(fields))


PLAIN = Span("01" * 16, "02" * 8)


def one(*fields: bytes) -> Span:
    decoded = keep(span(*fields), "")
    assert not decoded.rejects
    return decoded.spans[0]


def test_unknown_fields_of_every_wire_type_are_skipped() -> None:
    unknown = [
        b"\x70\xff\x01",
        b"\x71" + b"x" * 8,
        field(0x72, b"zeta"),
        b"\x75" + b"x" * 4,
        b"\x73\x08\x01\x7b\x12\x01x\x7c\x74",  # a group in a group
        b"\xa2\x06\x01x",  # field number 100
        b"\x08\x05",  # our number 1 with a wire type that is not ours
        b"\x5d" + b"x" * 4,
    ]
    for extra in unknown:
        assert one(extra) == PLAIN
        assert keep(extra + span(), "application/x-protobuf").spans == [PLAIN]
        assert keep(span() + extra + span(), "").spans == [PLAIN, PLAIN]
    assert one(*unknown) == PLAIN


def test_a_tag_may_come_in_any_form() -> None:
    assert one(field(0x5A, field(0x12, b"v") + field(0x0A, b"k"))).tags == {"k": "v"}
    assert one(field(0x5A, field(0x0A, b"k"))).tags == {"k": ""}
    assert one(field(0x5A, field(0x12, b"v"))).tags == {"": "v"}
    assert one(field(0x5A, b"")).tags == {"": ""}
    assert one(field(0x5A, b"\x0a\x81\x00k\x12\x01v")).tags == {"k": "v"}
    assert one(field(0x5A, field(0x0A, b"k") + field(0x1A, b"x") + field(0x12, b"v"))).tags == {
        "k": "v"
    }
    twice = (
        field(0x5A, field(0x0A, b"k") + field(0x12, b"v")),
        field(0x5A, field(0x0A, b"k") + field(0x12, b"w")),
    )
    assert one(*twice).tags == {"k": "w"}


def test_invalid_utf8_is_replaced_and_counted_per_span_every_time() -> None:
    bad = span(field(0x5A, field(0x0A, b"k") + field(0x12, b"a\xff")), field(0x2A, b"\xc3("))
    for _ in range(3):
        decoded = keep(bad + span() + bad, "")
        assert [s.tags for s in decoded.spans] == [{"k": "a\ufffd"}, None, {"k": "a\ufffd"}]
        assert decoded.spans[0].name == "\ufffd("
        assert decoded.repairs == {"utf8": 2}


def test_times_above_63_bits_are_negative_as_in_java() -> None:
    assert one(b"\x31" + b"\xff" * 8, b"\x38" + b"\xff" * 9 + b"\x01") == Span(
        "01" * 16, "02" * 8, timestamp_us=-1, duration_us=-1
    )


def test_an_unknown_kind_is_none_and_counted() -> None:
    decoded = keep(span(b"\x20\x05") + span(b"\x20\xff\x01"), "")
    assert decoded.spans == [PLAIN, PLAIN]
    assert decoded.repairs == {"field_type": 2}


def test_addresses_of_the_wrong_size_and_bad_ports_are_absent_and_counted() -> None:
    for bad in (field(0x12, b"abc"), field(0x1A, b"abcd"), b"\x20\xff\xff\x7f"):
        decoded = keep(span(field(0x42, field(0x0A, b"s") + bad)), "")
        assert decoded.spans[0].local == Endpoint("s")
        assert decoded.repairs == {"field_type": 1}
    mapped = b"\x00" * 10 + b"\xff\xff\x0a\x00\x00\x01"
    assert one(field(0x42, field(0x1A, mapped))).local == Endpoint(None, "10.0.0.1")


@pytest.mark.parametrize(
    ("trace", "own", "reason"),
    [
        (b"", b"\x02" * 8, "trace_id"),
        (b"\x00" * 16, b"\x02" * 8, "trace_id"),
        (b"\x01" * 17, b"\x02" * 8, "trace_id"),
        (b"\x01" * 16, b"", "span_id"),
        (b"\x01" * 16, b"\x00" * 8, "span_id"),
        (b"\x01" * 16, b"\x02" * 17, "span_id"),
    ],
)
def test_an_unusable_id_rejects_its_span_alone(trace: bytes, own: bytes, reason: str) -> None:
    decoded = keep(span() + span(trace=trace, own=own) + span(), "")
    assert decoded.spans == [PLAIN, PLAIN]
    assert [r.reason for r in decoded.rejects] == [reason]
    assert decoded.repairs == {"batch_salvaged": 1}


def test_short_ids_are_brought_into_form() -> None:
    decoded = keep(span(field(0x12, b"\x07"), trace=b"\x00" * 8 + b"\x03" * 8, own=b"\x05"), "")
    assert decoded.spans == [Span("03" * 8, "00" * 7 + "05", "00" * 7 + "07")]
    for parent in (b"", b"\x00" * 8, b"\x02" * 8):
        assert one(field(0x12, parent)).parent_id is None


def test_a_span_broken_inside_costs_only_itself() -> None:
    for broken in (
        b"\x5a\x7fx",
        b"\x5a\x05\x0a\x7fxyz",
        b"\x31xx",
        b"\x07",
        b"\x20",
        b"\x5a",
        b"\x42\x02\x0a\x09",
        b"\x3e",
    ):
        decoded = keep(span() + span(broken) + span(), "")
        assert decoded.spans == [PLAIN, PLAIN], broken
        (reject,) = decoded.rejects
        assert reject.reason == "syntax"


def test_a_flood_of_broken_spans_is_bounded() -> None:
    decoded = keep(span() + b"\x0a\x00" * 1_000_000, "")
    assert len(decoded.spans) == 1
    assert len(decoded.rejects) == REJECTS_PER_BODY_MAX + 1
    assert not keep(b"\x0a\x04" + b"\x73" * 2_000_000, "").spans
    assert not keep(b"\x73" * 2_000_000, "application/x-protobuf").spans


# --- Envoy's reversed ids ----------------------------------------------------------------------------


def tagged(**tags: str) -> bytes:
    entries = [field(0x0A, k.encode()) + field(0x12, v.encode()) for k, v in tags.items()]
    return span(
        *(field(0x5A, entry) for entry in entries),
        field(0x12, bytes(range(8))),
        own=bytes(range(1, 9)),
    )


def ids_of(decoded: Decoded) -> set[tuple[str, str | None]]:
    return {(s.span_id, s.parent_id) for s in decoded.spans}


AS_SENT = {("0102030405060708", "0001020304050607")}
TURNED = {("0807060504030201", "0706050403020100")}


def test_the_ids_of_a_whole_body_are_turned_when_one_span_is_envoys() -> None:
    envoys, others = tagged(component="proxy", node_id="sidecar~1"), tagged(component="proxy")
    decoded = decode(others + envoys + others, "")
    assert ids_of(decoded) == TURNED
    assert decoded.repairs == {"ids_reversed": 3}
    for body in (others, tagged(node_id="x"), tagged(component="http", node_id="x"), span()):
        assert decode(body, "").repairs is None
    assert ids_of(decode(others, "")) == AS_SENT


def test_turning_can_be_forced_and_forbidden() -> None:
    envoys, others = tagged(component="proxy", node_id="sidecar~1"), tagged(a="b")
    assert ids_of(keep(envoys, "")) == AS_SENT
    assert keep(envoys, "").repairs is None
    assert ids_of(reverse(others, "")) == TURNED
    assert reverse(others, "").repairs == {"ids_reversed": 1}


def test_a_traces_proto_and_json_ids_are_the_same() -> None:
    """The caller of this capture sent X-B3-SpanId a2fb4a1d1a96d312."""
    spans = decode((ENVOY / "proto-parent-128.bin").read_bytes(), "").spans
    assert "a2fb4a1d1a96d312" in {span.parent_id for span in spans}
