"""What the strict and the lenient JSON v2 readers promise, on Envoy's own bodies and on made-up ones."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import bare
from tracefwd.limits import TAG_VALUE_LENGTH_MAX
from tracefwd.model import Annotation, Decoded, Encoding, Endpoint, PlainSpan, Span
from tracefwd.receiver.decode import make_decode

ENVOY = Path(__file__).parent.parent / "fixtures" / "envoy"
BODIES = sorted(
    p for p in ENVOY.rglob("*.json") if ".headers" not in p.name and p.name != "manifest.json"
)
NAMES = [p.stem for p in BODIES]
TRACE, ID = "463ac35c9f6413ad48485a3953bb6124", "a2fb4a1d1a96d312"

decode = make_decode()


# The least that a plain span has.
ORDINARY = {
    "traceId": TRACE,
    "id": ID,
    "name": "a",
    "timestamp": 1_795_000_000_000_000,
    "duration": 5,
    "localEndpoint": {"serviceName": "a", "ipv4": "10.0.0.1"},
}


def assert_plain_rightly(decoded: Decoded, said: list[dict[str, Any]]) -> None:
    for span, members in zip(decoded.spans, said, strict=True):
        if isinstance(span, PlainSpan):
            assert all(map(is_plain, strings(members | {"tags": [*members["tags"].values()]})))


def of(*spans: Any) -> Decoded:
    return decode(json.dumps(list(spans)).encode(), "application/json")


def one(**members: Any) -> Span:
    """The one span read from an object with good ids and these members."""
    decoded = of({"traceId": TRACE, "id": ID, "tags": {}} | members)
    assert not decoded.rejects
    return bare(decoded)[0]


def repairs_of(**members: Any) -> dict[str, int] | None:
    return of({"traceId": TRACE, "id": ID, "tags": {}} | members).repairs


def endpoint(said: dict[str, Any] | None) -> Endpoint | None:
    if said is None:
        return None
    return Endpoint(said.get("serviceName"), said.get("ipv4"), said.get("ipv6"), said.get("port"))


def expected(said: dict[str, Any]) -> Span:
    """An independent reading of a well-formed span: the standard library's JSON, member by member."""
    notes = said.get("annotations")
    return Span(
        trace_id=said["traceId"],
        span_id=said["id"],
        parent_id=said.get("parentId"),
        kind=said.get("kind"),
        name=said.get("name"),
        timestamp_us=said.get("timestamp"),
        duration_us=said.get("duration"),
        local=endpoint(said.get("localEndpoint")),
        remote=endpoint(said.get("remoteEndpoint")),
        annotations=notes and [Annotation(a["timestamp"], a["value"]) for a in notes],
        tags=said.get("tags"),
        debug=said.get("debug"),
        shared=said.get("shared"),
    )


def strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [s for pair in value.items() for part in pair for s in strings(part)]
    if isinstance(value, list):
        return [s for item in value for s in strings(item)]
    return []


def is_plain(text: str) -> bool:
    escaped = json.dumps(text, ensure_ascii=False)[1:-1] != text
    size = len(text.encode())
    return not escaped and text.strip() == text and 0 < size <= TAG_VALUE_LENGTH_MAX


@pytest.mark.parametrize("path", BODIES, ids=NAMES)
def test_an_envoys_body_is_read_as_the_standard_library_reads_it(path: Path) -> None:
    body = path.read_bytes()
    said = json.loads(body)
    decoded = decode(body, "application/json")
    assert decoded.encoding is Encoding.JSON_V2
    assert bare(decoded) == [expected(span) for span in said]
    assert (list(decoded.rejects), decoded.repairs) == ([], None)
    assert_plain_rightly(decoded, said)


def test_a_span_is_plain_unless_something_in_it_needs_a_look() -> None:
    """Envoys' names and agents hold blanks all the time; gRPC messages and error reasons do, too, but rarely."""
    seen = 0
    for path in BODIES:
        body = path.read_bytes()
        for span, said in zip(decode(body, "").spans, json.loads(body), strict=True):
            rare = any(" " in v for k, v in said["tags"].items() if k != "user_agent")
            odd = {"shared", "debug", "remoteEndpoint"} & said.keys()
            odd |= {"ipv6"} & said["localEndpoint"].keys()
            if not rare and not odd and all(map(is_plain, strings(said))):
                assert isinstance(span, PlainSpan), path.name
                seen += 1
    assert seen > 100


@pytest.mark.parametrize("places", [{0}, {2}, {4}, {1, 3}, {0, 1, 2, 3}], ids=str)
@pytest.mark.parametrize("odd", ["x" * 300, 'a "b"', "\u00fc", "a ", ""], ids=ascii)
def test_odd_spans_leave_the_others_of_their_body_plain(odd: str, places: set[int]) -> None:
    said = json.loads((ENVOY / "json-batch-5.json").read_bytes())
    for place in places:
        said[place]["tags"]["http.url"] = odd
    body = json.dumps(said, separators=(",", ":"), ensure_ascii=False).encode()
    decoded = decode(body, "")
    found = {place for place, span in enumerate(decoded.spans) if not isinstance(span, PlainSpan)}
    assert found == places
    assert bare(decoded) == [expected(span) for span in said]


texts = (
    st.text(max_size=20)
    | st.text('ab \t\\"\u00a0\u3000\x7fü', max_size=4)
    | st.sampled_from(
        [
            "",
            " a",
            "a ",
            "a b",
            "x" * 128,
            "x" * 129,
            "ü" * 65,
            # Where two spans seem to meet.
            "},{",
            'a"},{"b',
            "\\},{",
            "\ud800".encode("utf-8", "replace").decode(),
        ]
    )
)
endpoints = st.builds(
    dict,
    serviceName=texts,
    ipv4=st.sampled_from(["10.0.0.1", "192.0.2.2"]),
    port=st.integers(0, 65535),
)
int64 = st.integers(-(2**63) + 1, 2**63 - 1)
hex16 = st.text("0123456789abcdef", min_size=15, max_size=15)
spans = st.fixed_dictionaries(
    {
        "traceId": hex16.map(lambda h: "1" + h)
        | st.tuples(hex16, hex16).map(lambda h: f"a{h[0]}0{h[1]}"),
        "id": hex16.map(lambda h: "b" + h),
        "tags": st.dictionaries(texts, texts, max_size=5),
    },
    optional={
        "parentId": hex16.map(lambda h: "c" + h),
        "kind": st.sampled_from(["CLIENT", "SERVER", "PRODUCER", "CONSUMER"]),
        "name": texts,
        "timestamp": int64,
        "duration": int64,
        "localEndpoint": endpoints,
        "remoteEndpoint": endpoints,
        "annotations": st.lists(
            st.fixed_dictionaries({"timestamp": int64, "value": texts}), min_size=1
        ),
        "debug": st.booleans(),
        "shared": st.booleans(),
        "user_agent": texts,
    },
)


@settings(deadline=None, max_examples=300)
@given(st.lists(spans, min_size=1, max_size=3), st.booleans(), st.booleans())
def test_any_well_formed_body_is_read_as_it_was_written(
    said: list[dict[str, Any]], compact: bool, ascii_only: bool
) -> None:
    separators = (",", ":") if compact else None
    body = json.dumps(said, separators=separators, ensure_ascii=ascii_only).encode()
    decoded = decode(body, "")
    assert bare(decoded) == [expected(span) for span in said]
    assert (list(decoded.rejects), decoded.repairs) == ([], None)
    for span in said:
        span.pop("user_agent", None)
    assert_plain_rightly(decoded, said)


@settings(deadline=None, max_examples=300)
@given(st.text("ab \t\u00a0", max_size=5), st.text("ab ", max_size=5), st.text("a ", max_size=3))
def test_plain_is_never_said_of_a_blank_at_an_edge(value: str, agent: str, key: str) -> None:
    tags = {"user_agent": agent, key: value}
    body = json.dumps([ORDINARY | {"tags": tags}], separators=(",", ":"), ensure_ascii=False)
    if isinstance(decode(body.encode(), "").spans[0], PlainSpan):
        assert all(map(is_plain, tags.values()))


def test_a_browsers_agent_keeps_a_body_plain_and_another_tags_blanks_do_not() -> None:
    def plain(tags: dict[str, str]) -> bool:
        body = json.dumps([ORDINARY | {"tags": tags}], separators=(",", ":"))
        return isinstance(decode(body.encode(), "").spans[0], PlainSpan)

    assert plain({"user_agent": "Mozilla/5.0 (X11; Linux x86_64)"})
    assert not plain({"user_agent": "Mozilla/5.0 (X11)", "other": " a"})
    assert not plain({"user_agent": "Mozilla/5.0 "})
    assert not plain({"a": "x" * 129})
    assert not plain({"a": ""})


# --- ids -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        (TRACE.upper(), TRACE),
        ("1", "0" * 15 + "1"),
        ("a" * 15, "0" + "a" * 15),
        ("a" * 17, "0" * 15 + "a" * 17),
        ("0" * 16 + "a" * 16, "a" * 16),
        ("0" * 15 + "a" * 17, "0" * 15 + "a" * 17),
        (1234567890123456, "1234567890123456"),
        ("9" * 16, "9" * 16),
    ],
)
def test_a_trace_id_of_1_to_32_digits_is_brought_into_form(sent: Any, read: str) -> None:
    assert one(traceId=sent).trace_id == read


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        ("A1", "0" * 14 + "a1"),
        ("b" * 17, "0" * 15 + "b" * 17),
        ("0", "0" * 16),
        (12, "0" * 14 + "12"),
    ],
)
def test_a_span_id_of_1_to_32_digits_is_brought_into_form(sent: Any, read: str) -> None:
    assert one(id=sent).span_id == read


@pytest.mark.parametrize("field", ["traceId", "id"])
@pytest.mark.parametrize(
    "bad",
    [
        "",
        "0" * 16,
        "0" * 32,
        "xyz",
        "a b",
        "1_1",
        "+1",
        "a" * 33,
        "ff-ff",
        "é1",
        "٣",
        None,
        True,
        {},
        ["a"],
    ],
)
def test_an_unusable_id_rejects_its_span_alone_and_says_which(field: str, bad: Any) -> None:
    good = {"traceId": TRACE, "id": ID}
    decoded = of(good, good | {field: bad}, good)
    assert len(decoded.spans) == 2
    (reject,) = decoded.rejects
    assert (reject.reason, reject.where) == ("trace_id" if field == "traceId" else "span_id", field)
    assert json.loads(reject.sample)[field] == bad
    assert decoded.repairs == {"batch_salvaged": 1}


@pytest.mark.parametrize("absent", [None, ID, "0" * 16, "0", ID.upper()])
def test_a_parent_that_is_none_is_absent(absent: Any) -> None:
    assert one(parentId=absent).parent_id is None
    assert repairs_of(parentId=absent) is None


@pytest.mark.parametrize("bad", ["", "xyz", "a" * 33, True, {}])
def test_a_bad_parent_is_absent_and_counted(bad: Any) -> None:
    assert one(parentId=bad).parent_id is None
    assert repairs_of(parentId=bad) == {"field_type": 1}


# --- other fields ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "read", "mended"),
    [
        ("1700000000123456", 1700000000123456, True),
        (" 12 ", 12, True),
        ("1.7e15", 1700000000000000, True),
        (True, None, True),
        ("zeta", None, True),
        ("", None, True),
        ([], None, True),
        (10**20, None, True),
        (-(2**63), None, True),
        (0, 0, False),
        (-5, -5, False),
        (None, None, False),
        (2**63 - 1, 2**63 - 1, False),
    ],
)
def test_times_are_read_from_text_too(sent: Any, read: int | None, mended: bool) -> None:
    assert one(timestamp=sent).timestamp_us == read
    assert one(duration=sent).duration_us == read
    assert repairs_of(timestamp=sent, duration=sent) == ({"field_type": 1} if mended else None)


@pytest.mark.parametrize(
    ("written", "read", "mended"),
    [
        ("1.7e15", 1700000000000000, False),
        ("1700000000123456.0", 1700000000123456, False),
        ("1.700000000123456E+15", 1700000000123456, False),
        ("1700000000123456.5", 1700000000123456, True),
        ("1e400", None, True),
        ("9" * 5000, None, True),
        ("NaN", None, True),
        ("-Infinity", None, True),
    ],
)
def test_times_are_read_from_any_json_number(written: str, read: int | None, mended: bool) -> None:
    body = f'[{{"traceId":"{TRACE}","id":"{ID}","tags":{{}},"timestamp":{written}}}]'
    decoded = decode(body.encode(), "")
    assert [span.timestamp_us for span in decoded.spans] == [read]
    assert decoded.repairs == ({"field_type": 1} if mended else None)


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        ("server", "SERVER"),
        (" Client ", "CLIENT"),
        ("INTERNAL", None),
        ("", None),
        (3, None),
        ([], None),
    ],
)
def test_an_odd_kind_is_read_as_meant(sent: Any, read: str | None) -> None:
    assert one(kind=sent).kind == read
    assert repairs_of(kind=sent) == {"field_type": 1}


def test_a_span_without_endpoint_and_tags_keeps_its_kind() -> None:
    decoded = of(
        {
            "traceId": TRACE,
            "id": ID,
            "kind": "CLIENT",
            "annotations": [{"timestamp": 1, "value": "cr"}],
        }
    )
    assert decoded.encoding is Encoding.JSON_V2
    assert decoded.spans[0].kind == "CLIENT"
    assert decoded.spans[0].annotations == [Annotation(1, "cr")]


def test_tag_values_that_are_no_text_become_their_json_text() -> None:
    tags = (
        '{"a":1.50,"b":true,"c":null,"d":{"x":[1,"q\\"\\n",null,false]},"e":-1E+2,"f":[],"g":"t"}'
    )
    decoded = decode(f'[{{"traceId":"{TRACE}","id":"{ID}","tags":{tags}}}]'.encode(), "")
    assert decoded.spans[0].tags == {
        "a": "1.50",
        "b": "true",
        "d": '{"x":[1,"q\\"\\u000a",null,false]}',
        "e": "-1E+2",
        "f": "[]",
        "g": "t",
    }
    assert all(type(value) is str for value in decoded.spans[0].tags.values())
    assert decoded.repairs == {"field_type": 1}


@pytest.mark.parametrize("bad", [[], "text", 1, True])
def test_a_structure_of_the_wrong_type_is_absent_and_counted(bad: Any) -> None:
    assert one(tags=bad).tags is None
    if bad != []:
        assert one(annotations=bad).annotations is None
    assert one(localEndpoint=bad).local is None
    assert repairs_of(localEndpoint=bad) == {"field_type": 1}


def test_endpoints_are_read_leniently() -> None:
    local = {"serviceName": 7, "ipv4": "300.1.2.3", "ipv6": "::ffff:10.0.0.1", "port": "8080"}
    assert one(localEndpoint=local).local == Endpoint("7", "10.0.0.1", None, 8080)
    assert one(localEndpoint={"ipv4": "2001:db8::7"}).local == Endpoint(
        None, None, "2001:db8::7", None
    )
    assert one(localEndpoint={"ipv4": "zeta", "ipv6": "x" * 999}).local == Endpoint()
    assert one(localEndpoint={"port": 70000}).local == Endpoint()
    assert one(remoteEndpoint={"port": -1}).remote == Endpoint()
    assert one(remoteEndpoint={"ipv4": "10.0.0.1", "ipv6": "::1"}).remote == Endpoint(
        None, "10.0.0.1", "::1"
    )


def test_annotations_without_time_or_value_are_left_out() -> None:
    sent = [
        {"value": "a"},
        {"timestamp": 1},
        None,
        3,
        {"timestamp": "2", "value": "b"},
        {"timestamp": 3, "value": ""},
    ]
    assert one(annotations=sent).annotations == [Annotation(2, "b"), Annotation(3, "")]
    assert repairs_of(annotations=sent) == {"field_type": 1}


def test_flags_and_names_are_read_leniently() -> None:
    span = one(debug="true", shared=0, name=17)
    assert (span.debug, span.shared, span.name) == (True, False, "17")
    assert one(debug=[], shared="zeta", name={}) == one()


def test_nulls_are_absent_and_unknown_fields_are_skipped() -> None:
    nulls = dict.fromkeys(
        ("parentId", "kind", "name", "timestamp", "duration", "localEndpoint", "remoteEndpoint"),
        None,
    )
    assert one(**nulls, annotations=None, debug=None, shared=None, zeta={"a": [1, {}]}) == one()


def test_of_a_key_that_comes_twice_the_last_wins() -> None:
    for extra in ("", ',"duration":"1"'):
        body = f'[{{"traceId":"f","id":"e","traceId":"{TRACE}","id":"{ID}","tags":{{"a":"1","a":"2"}}{extra}}}]'
        (span,) = decode(body.encode(), "").spans
        assert (span.trace_id, span.span_id, span.tags) == (TRACE, ID, {"a": "2"})


def test_a_read_span_is_the_models_own_record() -> None:
    span = one(
        annotations=[{"timestamp": 1, "value": "a"}],
        localEndpoint={"port": 1},
        remoteEndpoint={"port": 2},
    )
    assert [type(part) for part in (span, span.local, span.remote)] == [Span, Endpoint, Endpoint]
    assert span.annotations is not None
    assert type(span.annotations[0]) is Annotation
    assert msgspec.json.decode(msgspec.json.encode(span), type=Span) == span
