"""What is read of broken JSON, wherever it breaks and whatever is in it."""

import base64
import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import bare
from tracefwd.limits import (
    JSON_DEPTH_MAX,
    LENIENT_SPAN_BYTES_MAX,
    REJECT_REASONS,
    REJECT_SAMPLE_BYTES_MAX,
    REJECTS_PER_BODY_MAX,
    REPAIR_KINDS,
)
from tracefwd.model import Decoded, PlainSpan
from tracefwd.receiver.decode import make_decode

FIXTURES = Path(__file__).parent.parent / "fixtures"
BODIES = sorted(
    p
    for p in (FIXTURES / "envoy").rglob("*.json")
    if ".headers" not in p.name and p.name != "manifest.json"
)
NAMES = [p.stem for p in BODIES]
ODD = json.loads((FIXTURES / "java-proxy" / "odd-inputs.json").read_text())
GOOD = '{"traceId":"463ac35c9f6413ad48485a3953bb6124","id":"a2fb4a1d1a96d312","tags":{"a":"b"}}'

decode = make_decode()


def read(text: str) -> Decoded:
    return decode(text.encode(), "application/json")


def ends(body: bytes) -> list[int]:
    """Where each element of a well-formed list ends, found by the standard library."""
    text = body.decode()
    assert text.isascii() or len(text) != len(body)
    parse = json.JSONDecoder().raw_decode
    found, at = [], 1
    while text[at - 1] != "]":
        _, at = parse(text, at)
        found.append(len(text[:at].encode()))
        at += 1
    return found


@pytest.mark.parametrize("path", BODIES, ids=NAMES)
def test_of_a_body_cut_anywhere_the_complete_spans_are_taken(path: Path) -> None:
    body = path.read_bytes()
    whole = bare(decode(body, ""))
    complete_at = ends(body)
    assert len(complete_at) == len(whole)
    cuts = range(len(body)) if len(body) < 20_000 else range(0, len(body), len(body) // 300)
    for cut in cuts:
        decoded = decode(body[:cut], "application/json")
        complete = sum(end <= cut for end in complete_at)
        assert len(decoded.spans) == complete, cut
        assert bare(decoded) == whole[:complete], cut
        (reject,) = decoded.rejects
        assert reject.reason == "syntax"
        assert len(reject.sample) <= REJECT_SAMPLE_BYTES_MAX


@pytest.mark.parametrize("path", BODIES, ids=NAMES)
@pytest.mark.parametrize(
    "junk", [b"\n", b"zeta", b"[", b"]", b'{"', b"\x00\xff", b"[{}]", b" " * 99]
)
def test_what_follows_the_closing_bracket_changes_nothing(path: Path, junk: bytes) -> None:
    body = path.read_bytes()
    decoded = decode(body + junk, "")
    assert bare(decoded) == bare(decode(body, ""))
    assert not decoded.rejects


@pytest.mark.parametrize("odd", ODD, ids=[odd["name"] for odd in ODD])
def test_of_every_odd_input_at_least_the_java_proxys_spans_are_read(odd: dict[str, Any]) -> None:
    body = base64.b64decode(odd["body_base64"]) if "body_base64" in odd else odd["body"].encode()
    decoded = decode(body, "application/json")
    assert decoded.spans or decoded.rejects or odd["status"] == 202
    if odd["status"] != 202 or odd.get("headers", {}).get("content-encoding") in (
        "gzip",
        "deflate",
    ):
        return
    # Span logs are lines, too; a rejected span is no line.
    sent = sum(not line.startswith("{") for line in odd["lines"])
    assert len(decoded.spans) == sent + len(odd.get("rejects", ()))
    assert not decoded.rejects


@pytest.mark.parametrize(
    ("name", "spans", "reason"),
    [
        ("list of numbers", 0, "not_a_span"),
        ("list of null", 0, "not_a_span"),
        ("list of lists", 0, "not_a_span"),
        ("list of empty object", 0, "trace_id"),
        ("object that is a span", 1, None),
        ("leading blank", 1, None),
        ("leading newline", 1, None),
        ("byte order mark", 1, None),
        ("trailing comma", 1, None),
        ("single quotes", 0, "syntax"),
        ("unquoted key", 0, "syntax"),
        ("comment", 0, "syntax"),
        ("bad escape", 0, "syntax"),
        ("15-digit traceId", 1, None),
        ("33-digit traceId", 0, "trace_id"),
        ("upper case traceId", 1, None),
        ("traceId with hyphens", 0, "trace_id"),
        ("id all zeros", 0, "span_id"),
        ("17-digit id", 1, None),
        ("timestamp as rubbish text", 1, None),
        ("timestamp above 64 bits", 1, None),
        ("lower case kind", 1, None),
        ("port too large", 1, None),
        ("null tag value", 1, None),
        ("object as tag value", 1, None),
        ("annotation without value", 1, None),
        ("good, without id, good", 2, "span_id"),
        ("good, bad kind, good", 3, None),
        ("good, null", 1, "not_a_span"),
    ],
)
def test_where_the_java_proxy_refuses_a_body_its_readable_spans_are_taken(
    name: str, spans: int, reason: str | None
) -> None:
    (odd,) = (odd for odd in ODD if odd["name"] == name)
    decoded = decode(odd["body"].encode(), "")
    assert odd["status"] == 400
    assert len(decoded.spans) == spans
    assert {reject.reason for reject in decoded.rejects} == ({reason} if reason else set())


# --- salvage -------------------------------------------------------------------------------------


def test_an_element_that_is_no_span_costs_only_itself() -> None:
    elements = ["1", '"x"', "null", "true", "[[{}]]", "{}", '{"traceId":"zz","id":"1"}', "-1.5e3"]
    for element in elements:
        decoded = read(f"[{GOOD}, {element} ,{GOOD}]")
        assert len(decoded.spans) == 2, element
        (reject,) = decoded.rejects
        assert reject.sample == element.encode()
        assert decoded.repairs == {"batch_salvaged": 1}


@pytest.mark.parametrize(
    ("rest", "broken_at"),
    [
        (" zeta", 1),
        (' {"a" 1}', 6),
        (' {"a":"\\x"}', 7),
        (" {'a':1}", 2),
        (' {"a":1}}', 8),
        (" nul", 1),
        (" ,", 1),
        (' {"a":[}]}', 7),
    ],
)
def test_behind_a_break_everything_is_one_reject_with_its_byte(rest: str, broken_at: int) -> None:
    begin = f"[{GOOD},{GOOD},"
    decoded = read(f"{begin}{rest},{GOOD}]")
    assert len(decoded.spans) == 2
    assert [r.reason for r in decoded.rejects].count("syntax") == 1
    reject = decoded.rejects[-1]
    assert (reject.reason, reject.where) == ("syntax", f"byte {len(begin) + broken_at}")
    assert reject.sample


def test_nesting_is_bounded_and_what_stands_before_it_is_taken() -> None:
    for depth in (JSON_DEPTH_MAX + 1, 500, 5_000, 2_000_000):
        deep = "[" * depth + "]" * depth
        odd = GOOD.replace('"a":"b"', f'"a":{deep}')
        for element in (odd, deep):
            decoded = read(f"[{GOOD},{element}]")
            assert decoded.spans[0].tags == {"a": "b"}
            assert decoded.rejects
            assert not read("[" * depth).spans


def test_nesting_that_is_not_too_deep_is_read() -> None:
    depth = JSON_DEPTH_MAX - 2
    deep = "[" * depth + "]" * depth
    (span,) = read("[" + GOOD.replace('"b"', deep) + "]").spans
    assert span.tags == {"a": deep}


def test_a_million_elements_are_no_flood_of_rejects() -> None:
    for element in ("1", "{}", "[]", '""'):
        decoded = read("[" + ",".join([element] * 1_000_000) + "]")
        assert len(decoded.rejects) == REJECTS_PER_BODY_MAX + 1
        assert decoded.rejects[-1].reason == "syntax"


@pytest.mark.parametrize(
    "body",
    [
        '["' + "\\\\" * 1_000_000,
        '[{"a":"' + '\\"' * 1_000_000,
        "[" + '"a",' * 500_000,
        '[{"traceId":' + "1" * 1_000_000 + ',"id":"1"}]',
        '[{"traceId":"1","id":"1","tags":{"a":' + "1" * 1_000_000 + "}}]",
        "[" + " " * 2_000_000,
        "[{" + '"a":1,' * 300_000,
        '[{"a":[' + "[]," * 300_000,
        " " * 2_000_000,
    ],
    ids=range(9),
)
def test_the_time_is_linear_in_the_body(body: str) -> None:
    begin = time.process_time()
    read(body)
    # About 0.1 s each; anything quadratic would take hours.
    assert time.process_time() - begin < 5


def test_a_large_span_is_read_strictly_or_not_at_all() -> None:
    long = "x" * LENIENT_SPAN_BYTES_MAX
    strict = GOOD.replace('"b"', f'"{long}"')
    odd = strict.replace('"tags"', '"duration":"1","tags"')
    assert len(read(f"[{strict}]").spans) == 1
    decoded = read(f"[{GOOD},{odd},{strict}]")
    assert [len(span.tags["a"]) for span in decoded.spans if span.tags] == [1, len(long)]
    assert [reject.reason for reject in decoded.rejects] == ["not_a_span"]


# --- text ------------------------------------------------------------------------------------------


def test_invalid_utf8_becomes_the_replacement_character_and_is_counted_per_span() -> None:
    bad = GOOD.encode().replace(b'"b"', b'"x\xff\xc3(\xe2\x82"')
    decoded = decode(b"[" + bad + b"," + GOOD.encode() + b"," + bad + b"]", "")
    assert [span.tags for span in decoded.spans] == [
        {"a": "x\ufffd\ufffd(\ufffd"},
        {"a": "b"},
        {"a": "x\ufffd\ufffd(\ufffd"},
    ]
    assert decoded.repairs == {"utf8": 2}
    assert not decoded.rejects


def test_lone_surrogates_become_the_replacement_character_and_pairs_stay() -> None:
    odd = GOOD.replace(
        '"a":"b"', '"a":"x\\ud83dy\\udc00","b":"\\ud83d\\ude00","\\ud800":[1,"\\ud800"]'
    )
    decoded = read(f"[{odd}]")
    assert decoded.spans[0].tags == {
        "a": "x\ufffdy\ufffd",
        "b": "\U0001f600",
        "\ufffd": '[1,"\ufffd"]',
    }
    assert decoded.repairs == {"utf8": 1, "field_type": 1}


def test_raw_control_characters_pass() -> None:
    decoded = read(f"[{GOOD}]".replace('"b"', '"x\n\t\x01y"'))
    assert decoded.spans[0].tags == {"a": "x\n\t\x01y"}
    assert not any(isinstance(span, PlainSpan) for span in decoded.spans)


# --- anything ----------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=9,
)
MEMBERS = [
    "traceId id parentId kind name timestamp duration localEndpoint remoteEndpoint annotations tags debug shared",
    "binaryAnnotations serviceName ipv4 ipv6 port value key endpoint",
]
members = st.dictionaries(st.sampled_from(" ".join(MEMBERS).split()), json_values, max_size=8)
with_ids = members.map(lambda m: m | {"traceId": "1", "id": "2"})
parts = st.lists(members | with_ids | json_values, max_size=3)


def assert_sound(decoded: Decoded) -> None:
    for span in decoded.spans:
        assert len(span.trace_id) in (16, 32)
        assert len(span.span_id) in (16, 32)
        for hex_id in (span.trace_id, span.span_id, span.parent_id or "00"):
            assert bytes.fromhex(hex_id).hex() == hex_id
        assert span.parent_id is None or (
            span.parent_id != span.span_id and span.parent_id.strip("0")
        )
        assert span.kind in (None, "CLIENT", "SERVER", "PRODUCER", "CONSUMER")
        assert all(type(k) is str and type(v) is str for k, v in (span.tags or {}).items())
        for number in (span.timestamp_us, span.duration_us):
            assert number is None or type(number) is int
        for text in (span.name, *(span.tags or {}).values()):
            assert text is None or text.encode() is not None
    assert {reject.reason for reject in decoded.rejects} <= REJECT_REASONS
    assert set(decoded.repairs or ()) <= REPAIR_KINDS


@settings(deadline=None, max_examples=400)
@given(parts, st.data())
def test_any_json_gives_sound_spans_or_rejects(said: list[Any], data: st.DataObject) -> None:
    body = json.dumps(said).encode()
    assert_sound(decode(body, ""))
    at = data.draw(st.integers(0, len(body)))
    junk = data.draw(st.binary(max_size=4))
    assert_sound(decode(body[:at] + junk + body[at:], ""))


@settings(deadline=None, max_examples=300)
@given(
    st.binary(max_size=60),
    st.sampled_from([b"", b"[", b"[{", b'[{"', b"\n", b"{", b"\x0b", b"\xef\xbb\xbf["]),
)
def test_any_bytes_give_sound_spans_or_a_reject(junk: bytes, prefix: bytes) -> None:
    decoded = decode(prefix + junk, "application/json")
    assert_sound(decoded)
    assert decoded.spans or decoded.rejects or b"]" in junk or prefix == b"\n"
