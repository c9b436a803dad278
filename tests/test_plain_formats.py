"""What the other formats' plain paths make of a body is what their complete paths make of it, down to the lines."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.bench.proto3 import proto3_body
from tests.conftest import NOW_US, bare
from tests.line_fields import fields_of_lines
from tests.test_plain_path import MAPPERS, facts, lines_of
from tracefwd.model import Decoded, PlainSpan
from tracefwd.receiver import proto3
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


FORMATS: dict[str, tuple[Callable[[Any], bytes], Callable[..., Decode]]] = {
    "proto3": (proto3_body, proto3_decoder),
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
            KEYS.filter(lambda key: " " not in key), PLAIN_TEXTS, min_size=1, max_size=7
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
            assert bare(found) == wanted.spans
            assert found.repairs == wanted.repairs
            assert found.rejects == wanted.rejects
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
        fits = len(name) < 128 and len(service) < 118
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
        at = data.draw(st.integers(0, len(body) - 1))
        piece = data.draw(st.binary(max_size=2) | st.sampled_from([b"Z", b"\n", b"\x12", b"1"]))
        body[at : at + data.draw(st.integers(0, 2))] = piece
        if not body:
            return
    found, wanted = short(bytes(body)), long_(bytes(body))
    assert bare(found) == wanted.spans
    assert found.repairs == wanted.repairs
    # Where in a broken span it broke depends on what the complete path has seen before.
    assert [reject.reason for reject in found.rejects] == [r.reason for r in wanted.rejects]
