"""What the other formats' plain paths make of a body is what their complete paths make of it, down to the lines."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.bench.proto3 import proto3_body
from tests.bench.v1 import v1_span
from tests.conftest import NOW_US, bare
from tests.line_fields import fields_of_lines
from tests.test_plain_path import MAPPERS, facts, lines_of
from tracefwd.model import Decoded, PlainSpan
from tracefwd.receiver import json_v1, proto3, salvage
from tracefwd.receiver.decode import make_decode
from tracefwd.receiver.json_v1_plain import StrictV1Reader
from tracefwd.receiver.json_v2 import StrictReader
from tracefwd.receiver.proto3_plain import PlainReader
from tracefwd.settings import MappingSettings, RedSettings

START_US = NOW_US - 5_000_000
Decode = Callable[[bytes], Decoded]


class Blind(PlainReader):
    """Finds no span plain."""

    def read(self, body: bytes, begin: int, end: int, order: int) -> PlainSpan | None:
        return None


def proto3_decoder(*, plain: bool) -> Decode:
    memo = proto3.Memo()
    if not plain:
        memo.plain = Blind()
    return lambda body: proto3.decode(body, "auto", memo)


class BlindV1(StrictV1Reader):
    def read(self, body: bytes) -> Decoded | None:
        return json_v1.read_strict(body)


def v1_decoder(*, plain: bool) -> Decode:
    if plain:
        decode = make_decode()
        return lambda body: decode(body, "")
    strict, blind = StrictReader(), BlindV1()
    return lambda body: strict.read(body) or salvage.read_body(body, 0, strict, blind)


def v1_body(spans: Sequence[dict[str, Any]]) -> bytes:
    """Some tags are another host's, or another port's of the same service."""
    made = []
    for span in spans:
        kind = span["kind"]
        wanted = v1_span(span | {"kind": "CLIENT" if kind == "PRODUCER" else kind})
        endpoint = span["localEndpoint"]
        if kind == "PRODUCER":
            wanted["annotations"][1]["value"] = "ms"
        for note in span["annotations"]:
            if note["value"] != "cs":
                wanted["annotations"].append(note | {"endpoint": endpoint})
        for tag in wanted["binaryAnnotations"]:
            if tag["key"] == "x y":
                tag["endpoint"] = endpoint | {"port": 80}
            elif tag["key"] == "x-y":
                tag["endpoint"] = {"serviceName": "another"}
            elif tag["value"] == "":
                tag.update(key="sa", value=True)
        made.append(wanted)
    return json.dumps(made, separators=(",", ":"), ensure_ascii=False).encode()


FORMATS: dict[str, tuple[Callable[[Any], bytes], Callable[..., Decode]]] = {
    "proto3": (proto3_body, proto3_decoder),
    "v1": (v1_body, v1_decoder),
}

# Among them what separates tags, lengths that are letters, and lengths of two bytes.
PLAIN_TEXTS = st.sampled_from(
    ["200", "-", "a", "Z", "ZZ\\n", "1", "x" * 76, "y" * 90, "z" * 113, "u" * 127, "v" * 128]
) | st.text("ab Z1BR", min_size=1, max_size=99).map(str.strip).filter(bool)
ODD_TEXTS = st.sampled_from(["", " a", "a ", "é", '"', "a\\b", "a\tb", "w" * 129, "Z\x08\n", "\n"])
TEXTS = PLAIN_TEXTS | PLAIN_TEXTS | ODD_TEXTS
KEYS = st.sampled_from(
    ["component", "node_id", "http.url", "user_agent", "x y", "x-y", "Z", "k" * 30, "error"]
)
IDS = st.sampled_from(["a2fb4a1d1a96d312", "b2fb4a1d1a96d31a", "00" * 8, "5a" * 8])
TRACES = st.sampled_from(["463ac35c9f6413ad", "463ac35c9f6413ad48485a3953bb6124", "00" * 16])
NOTES = st.builds(
    lambda at, value: {"timestamp": at, "value": value},
    st.sampled_from([START_US, 0, 2**63 - 1]),
    st.sampled_from(["cs", "ss", "Z", "a b", "é", ""]),
)
SPANS = st.fixed_dictionaries(
    {
        "traceId": TRACES,
        "id": IDS,
        "kind": st.sampled_from(["CLIENT", "SERVER", "PRODUCER"]),
        "name": PLAIN_TEXTS | TEXTS,
        "timestamp": st.sampled_from([START_US, START_US, 1, 2**63 - 1]),
        "duration": st.sampled_from([1, 127, 128, 999_999, 0, 2 * NOW_US]),
        "localEndpoint": st.fixed_dictionaries(
            {"serviceName": PLAIN_TEXTS | TEXTS, "ipv4": st.sampled_from(["10.0.0.1", "0.0.0.0"])}
        ),
        "annotations": st.lists(NOTES, max_size=2),
        "tags": st.dictionaries(KEYS, TEXTS, min_size=1, max_size=7),
    },
    optional={"parentId": IDS},
)
# Such as are plain, so that many bodies are wholly so.
USUAL = st.fixed_dictionaries(
    {
        "traceId": st.just("463ac35c9f6413ad48485a3953bb6124"),
        "id": st.just("a2fb4a1d1a96d312"),
        "kind": st.sampled_from(["CLIENT", "SERVER"]),
        "name": PLAIN_TEXTS,
        "timestamp": st.just(START_US),
        "duration": st.sampled_from([1, 127, 128, 999_999]),
        "localEndpoint": st.fixed_dictionaries(
            {"serviceName": PLAIN_TEXTS, "ipv4": st.just("10.0.0.1")}
        ),
        "annotations": st.just([{"timestamp": START_US, "value": "cs"}]),
        "tags": st.dictionaries(
            KEYS.filter(lambda key: key[0] != "x"), PLAIN_TEXTS, min_size=1, max_size=7
        ),
    },
    optional={"parentId": st.just("b2fb4a1d1a96d31a")},
)
BODIES = st.lists(st.lists(SPANS | USUAL, min_size=1, max_size=3), min_size=1, max_size=3)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("profile", MAPPERS)
@settings(deadline=None, max_examples=120)
@given(bodies=BODIES)
def test_both_paths_give_the_same_lines(
    form: str, profile: str, bodies: list[list[dict[str, Any]]]
) -> None:
    write, make = FORMATS[form]
    short, long_ = make(plain=True), make(plain=False)
    mapping = MappingSettings(profile=profile)
    short_map, long_map = (MAPPERS[profile](mapping, RedSettings()) for _ in range(2))
    for spans in bodies:
        body = write(spans)
        # Twice: the second time all is known.
        for _ in range(2):
            found, wanted = short(body), long_(body)
            assert not any(isinstance(span, PlainSpan) for span in wanted.spans)
            assert found.encoding is wanted.encoding
            assert bare(found) == wanted.spans
            assert found.repairs == wanted.repairs
            assert list(found.rejects) == list(wanted.rejects)
            ours, theirs = short_map(found, NOW_US), long_map(wanted, NOW_US)
            assert facts(ours) == facts(theirs)
            assert ours.repairs == theirs.repairs
            assert fields_of_lines(text_of(ours)) == fields_of_lines(text_of(theirs))


def text_of(mapped: Any) -> list[str]:
    """Lines, without the span logs."""
    return [text.rstrip("\n") for text in lines_of(mapped) if text[0] == '"']


@pytest.mark.parametrize("form", FORMATS)
@settings(deadline=None, max_examples=60)
@given(spans=st.lists(USUAL, min_size=1, max_size=3))
def test_what_can_be_plain_is(form: str, spans: list[dict[str, Any]]) -> None:
    write, make = FORMATS[form]
    decoded = make(plain=True)(write(spans))
    for span, said in zip(decoded.spans, spans, strict=True):
        name, service = said["name"], said["localEndpoint"]["serviceName"]
        escaped = any("\\" in text for text in [name, service, *said["tags"].values()])
        # In proto3 a length of two bytes is for tags only.
        fits = form == "v1" or (len(name) < 128 and len(service) < 118)
        assert isinstance(span, PlainSpan) is (fits and not escaped)


@pytest.mark.parametrize("form", FORMATS)
@settings(deadline=None, max_examples=300)
@given(spans=st.lists(USUAL, min_size=1, max_size=2), data=st.data())
def test_damage_is_seen_by_both_paths_alike(
    form: str, spans: list[dict[str, Any]], data: st.DataObject
) -> None:
    write, make = FORMATS[form]
    short, long_ = make(plain=True), make(plain=False)
    body = bytearray(write(spans))
    short(bytes(body))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(1, len(body) - 1))
        piece = data.draw(
            st.binary(max_size=2)
            | st.sampled_from([b"Z", b"\n", b"\x12", b"1", b"{", b"]", b"}", b'"'])
        )
        body[at : at + data.draw(st.integers(0, 2))] = piece
    found, wanted = short(bytes(body)), long_(bytes(body))
    assert bare(found) == wanted.spans
    assert found.repairs == wanted.repairs
    # Where in a broken span it broke depends on what the complete path has seen before.
    assert [reject.reason for reject in found.rejects] == [r.reason for r in wanted.rejects]


SPAN = {
    "traceId": "463ac35c9f6413ad48485a3953bb6124",
    "parentId": "b2fb4a1d1a96d31a",
    "id": "a2fb4a1d1a96d312",
    "kind": "CLIENT",
    "name": "call",
    "timestamp": START_US,
    "duration": 999_999,
    "localEndpoint": {"serviceName": "shop", "ipv4": "10.0.0.1"},
    "annotations": [{"timestamp": START_US, "value": "cs"}],
    "tags": {"component": "proxy", "http.url": "Z", "zone": "b"},
}
_TRACE, _OWN, _PARENT = (bytes.fromhex(SPAN[key]) for key in ("traceId", "id", "parentId"))  # type: ignore[call-overload]
_TAGS = b'"binaryAnnotations":['
_ELSEWHERE = b'"endpoint":{"serviceName":"bank","ipv4":"10.0.0.1"}},{'
# What is replaced in the body of two such spans, and by what; the last place of it is meant.
NEARLY = {
    "proto3": [
        (b"*\x04call", b"*\x05call"),
        (b"*\x04call", b"*\x03call"),
        (b"B\x0c\n\x04shop", b"B\x0d\n\x04shop"),
        (b"B\x0c\n\x04shop", b"B\x0b\n\x04shop"),
        (b"B\x0c\n\x04shop", b"B\x0c\n\x05shop"),
        (b"\n\x04zone\x12\x01b", b"\n\x04zone\x12\x02b"),
        (b"\n\x04zone\x12\x01b", b"\n\x05zone\x12\x01b"),
        (b"Z\x09\n\x04zone", b"Z\x0a\n\x04zone"),
        (b"Z\x09\n\x04zone\x12\x01b", b"Z\x08\n\x04zone\x12\x01b"),
        (b"Z\x09\n\x04zone\x12\x01b", b"Z\x0b\n\x04zone\x12\x01bh\1"),
        (b"Z\x09\n\x04zone\x12\x01b", b"h\1h\1h\1h\1h\1Z"),
        (b"\x12\x02cs", b"\x12\x02ZZ"),
        (_PARENT[::-1], bytes(8)),
        (_PARENT[::-1], _OWN[::-1]),
        (_OWN[::-1], bytes(8)),
        (_TRACE, bytes(8) + _TRACE[8:]),
        (_TRACE, bytes(16)),
    ],
    "v1": [
        (_TAGS, _TAGS + b"1,"),
        (_TAGS, _TAGS + b"]"),
        (_TAGS, _TAGS + b","),
        (_TAGS, b'"binaryAnnotations": ['),
        (_TAGS, b'"binaryAnnotations":[],' + _TAGS),
        (_TAGS, b'"binaryAnnotations": [],"x":['),
        (_TAGS, b'"binaryAnnotations": [null],"x\\"binaryAnnotations":['),
        (b'"value":"b",', b'"value":"b]",'),
        (b'"value":"b",', b'"value":"{",'),
        (b'"value":"b",', b'"value":true,'),
        (b'"key":"zone",', b'"key":"","key":"zone",'),
        (b'}},{"key":"zone"', b'}}{"key":"zone"'),
        (b'}},{"key":"zone"', b'},{"key":"zone"'),
        (b"}}]}", b"}},]}"),
        (b"}}]}", b"}]}"),
        (b'"traceId":"463ac35c', b'"traceId":"'),
        (b'"parentId":"b2', b'"parentId":"00'),
        (b'"parentId":"b2fb4a1d1a96d31a', b'"parentId":"a2fb4a1d1a96d312'),
        (b'"id":"a2fb', b'"id":"A2FB'),
        (b'"traceId":"463ac35c9f6413ad', b'"traceId":"0000000000000000'),
        (b'"name":"call"', b'"name":" call"'),
        (b'"name":"call"', b'"kind":"SERVER","name":"call"'),
        (b'"name":"call"', b'"debug":true,"name":"call"'),
        (b'"value":"cr"', b'"value":"ss"'),
    ],
}


@pytest.mark.parametrize(
    ("form", "said", "instead"),
    [(form, *change) for form, changes in NEARLY.items() for change in changes],
)
def test_a_span_that_only_looks_plain_is_seen_through(
    form: str, said: bytes, instead: bytes
) -> None:
    write, make = FORMATS[form]
    short, long_ = make(plain=True), make(plain=False)
    whole = write([SPAN, SPAN])
    assert all(isinstance(span, PlainSpan) for span in short(whole).spans)
    front, place, rest = whole.rpartition(said)
    assert place
    for body in (front + instead + rest, whole.replace(said, instead)):
        found, wanted = short(body), long_(body)
        assert bare(found) == bare(wanted)
        assert found.repairs == wanted.repairs
        assert [reject.reason for reject in found.rejects] == [r.reason for r in wanted.rejects]


def test_tags_of_another_endpoint_than_the_last_are_not_plain() -> None:
    own = b'"endpoint":{"serviceName":"shop","ipv4":"10.0.0.1"}},{'
    body = v1_body([SPAN]).replace(own, _ELSEWHERE)
    body = body.replace(_ELSEWHERE, own, 1)
    decoded = v1_decoder(plain=True)(body)
    assert bare(decoded) == bare(v1_decoder(plain=False)(body))
    assert len(decoded.spans) == 2


@pytest.mark.parametrize(
    "own",
    [
        b'"binaryAnnotations": []',
        b'"binaryAnnotations" :[]',
        b'"binary\\u0041nnotations":[]',
        b'"binaryAnnotations":[]',
        b'"fooAnnotations":[]',
        b'"binaryAnnotations":null',
    ],
)
def test_only_a_spans_own_tags_are_its_tags(own: bytes) -> None:
    front, tags = v1_body([SPAN]).removesuffix(b"}]").split(_TAGS)
    for body in (
        front + own + b',"x":{' + _TAGS + tags + b"}}]",
        front + b'"x":{' + _TAGS + tags + b"}," + own + b"}]",
        front + own + b',"fooAnnotations":[' + tags + b"}]",
        front + own + b',"x":"' + _TAGS.replace(b'"', b'\\"') + b']"}]',
    ):
        short, long_ = v1_decoder(plain=True), v1_decoder(plain=False)
        short(v1_body([SPAN]))
        found, wanted = short(body), long_(body)
        assert bare(found) == bare(wanted)
        assert len(found.spans) == 1
        assert not isinstance(found.spans[0], PlainSpan)
