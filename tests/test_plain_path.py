"""What goes the short way from a body to its lines is what the long way gives, with rules and without.

The short way: the strict reader's plain spans, the mapper's plain path, rules on a dict, values written as they stand.
The long way: each span read leniently, mapped completely, its tags shown to the rules as a list, every value quoted.
"""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import NOW_US
from tests.line_fields import fields_of_lines
from tracefwd.exporter.lines import LineWriter
from tracefwd.model import Decoded, Encoding, Mapped, Mapper, WavefrontSpan
from tracefwd.processor.istio import make_istio_mapper
from tracefwd.processor.ruled import RuledMapper
from tracefwd.processor.rules import read_rules
from tracefwd.processor.wavefront_proxy import make_wavefront_proxy_mapper
from tracefwd.receiver import fields
from tracefwd.receiver.json_v2 import StrictReader, read_lenient
from tracefwd.settings import MappingSettings, RedSettings

START_US = NOW_US - 5_000_000
MAPPERS = {"istio": make_istio_mapper, "wavefront-proxy": make_wavefront_proxy_mapper}

TEXTS = st.sampled_from(
    [
        "a",
        "1",
        "-",
        "200",
        "503",
        "true",
        "inbound|9080||",
        "http://h/p?q=1",
        "http://u:p@h/p?q=1#f",
        "?q=1",
        "a ?q=1",
        "a\\?q=1",
    ]
) | st.text('ab0 "\\\t\n\x7f\x1f\u00a0é*.=,{}$~|', max_size=8)
LONG = st.sampled_from(["x" * 128, "x" * 129, "x" * 127 + "\\", "y" * 127 + " z", "*" * 130])
USUAL_KEYS = (
    "component",
    "http.status_code",
    "http.url",
    "response_flags",
    "user_agent",
    "node_id",
)
ODD_KEYS = (
    "x-y",
    "x y",
    "x_y",
    "error",
    "span.kind",
    "cluster",
    "shard",
    "debug",
    "source",
    "12",
    "",
)
MORE_KEYS = ("ipv4", "HTTP.Status_Code", "grpc.status_code", "istio.canonical_service", "parent")
KEYS = st.sampled_from([*USUAL_KEYS, *ODD_KEYS, *MORE_KEYS, "_spanLogs"])
IDS = st.sampled_from(
    ["a2fb4a1d1a96d312", "b2fb4a1d1a96d312", "00000000000000ab", "ab", "A2FB4A1D1A96D312"]
)
TRACES = st.sampled_from(["463ac35c9f6413ad", "463ac35c9f6413ad48485a3953bb6124", "ab"])
SPANS = st.fixed_dictionaries(
    {
        "traceId": TRACES,
        "id": IDS,
        "name": TEXTS | LONG,
        "timestamp": st.sampled_from([START_US, START_US + 1, 1, NOW_US + 90_000_000_000]),
        "duration": st.sampled_from([0, 999, 4_999, 2 * NOW_US]),
        "localEndpoint": st.fixed_dictionaries(
            {"serviceName": st.sampled_from(["reviews.default", "a"]) | TEXTS},
            optional={"ipv4": st.sampled_from(["10.0.0.1", "010.0.0.1", ""]), "port": st.just(80)},
        ),
        "tags": st.dictionaries(KEYS, TEXTS | LONG, max_size=9),
    },
    optional={
        "kind": st.sampled_from(["CLIENT", "SERVER", "PRODUCER", "client"]),
        "parentId": IDS,
        "annotations": st.lists(
            st.fixed_dictionaries(
                {"timestamp": st.just(START_US), "value": st.sampled_from(["cs", "a b"])}
            ),
            max_size=2,
        ),
        "debug": st.booleans(),
        "shared": st.booleans(),
    },
)
# Such as Envoy posts: these do go the short way.
USUAL = st.fixed_dictionaries(
    {
        "traceId": TRACES.filter(lambda text: len(text) > 2),
        "id": IDS.filter(str.islower).filter(lambda text: len(text) == 16),
        "name": st.sampled_from(["reviews:9080/*", "router inbound egress", "a" * 128]),
        "timestamp": st.just(START_US),
        "duration": st.just(4_999),
        "localEndpoint": st.just({"serviceName": "reviews.default", "ipv4": "10.0.0.1"}),
        "tags": st.dictionaries(
            st.sampled_from(["component", "http.status_code", "http.url", "x y", "x-y", "node_id"]),
            st.sampled_from(["proxy", "200", "-", "http://h/p?q=1", "z" * 128, "'a'"]),
        ),
    },
    optional={"kind": st.sampled_from(["CLIENT", "SERVER"]), "parentId": st.just("c" * 16)},
)
BODIES = st.lists(st.lists(SPANS | USUAL, min_size=1, max_size=3), min_size=1, max_size=3)

SPAN_KEYS = ["component", "http.url", "shard", "span.kind", "parent", "cluster", "service", "x-y"]
SPAN_KEYS += [
    "http.status_code",
    "HTTP.Status_Code",
    "error",
    "debug",
    "new",
    "a b",
    "12",
    "source",
]
VALUES = [
    "v",
    "",
    " ",
    "a b",
    'q"uote',
    "end\\",
    "é",
    "w" * 129,
    "{{spanName}}",
    "503",
    "false",
    "true",
]


def quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


RULES = st.lists(
    st.one_of(
        st.builds(
            lambda action, key, value: (
                f"action: {action}, key: {quoted(key)}, value: {quoted(value)}"
            ),
            st.sampled_from(["spanAddTag", "spanAddTagIfNotExists"]),
            st.sampled_from(SPAN_KEYS),
            st.sampled_from(VALUES).filter(bool),
        ),
        st.builds(
            lambda key, new: f"action: spanRenameTag, key: {quoted(key)}, newkey: {quoted(new)}",
            st.sampled_from(SPAN_KEYS),
            st.sampled_from(SPAN_KEYS),
        ),
        st.builds(
            lambda key: f"action: spanDropTag, key: {quoted(key)}", st.sampled_from(SPAN_KEYS)
        ),
        st.builds(
            lambda scope, search, to: (
                f"action: spanReplaceRegex, scope: {quoted(scope)}, search: {quoted(search)},"
                f" replace: {quoted(to)}"
            ),
            st.sampled_from([*SPAN_KEYS, "spanName", "sourceName"]),
            st.sampled_from(["^.*$", "e", "[0-9]+"]),
            st.sampled_from([text for text in VALUES if "\\" not in text] + ["n" * 140, "*"]),
        ),
        st.builds(
            lambda key, source: (
                f"action: spanExtractTag, key: {quoted(key)}, input: {quoted(source)},"
                " search: '^.*(.)$', replace: '$1'"
            ),
            st.sampled_from(SPAN_KEYS),
            st.sampled_from([*SPAN_KEYS, "spanName"]),
        ),
        st.just("action: spanBlock, scope: x-y, match: 'z.*'"),
        st.just("action: spanAllowTag, allow: [component, http.url]"),
    ),
    max_size=4,
)


class Listed(RuledMapper):
    """Shows every span's tags to the rules as a list."""

    def _shown_values(self, span: WavefrontSpan) -> dict[str, str] | None:
        return None


def rule_text(rules: list[str]) -> str:
    return "'9411':\n" + "".join(
        f"- {{rule: r{number}, {rule}}}\n" for number, rule in enumerate(rules)
    )


def read_whole(body: bytes) -> Decoded:
    """Every span on its own, leniently."""
    found = json.loads(body, parse_int=fields.Number, parse_float=fields.Number)
    spans = [read_lenient(members, fields.Mends()) for members in found]
    return Decoded(Encoding.JSON_V2, spans)


def lines_of(mapped: Mapped) -> list[str]:
    writer = LineWriter()
    return [payload.data.decode() for span in mapped.spans for payload in writer.write([span])]


FACTS = ["identity", "name", "kind", "http_status", "error", "debug", "red", "red_tags"]
FACTS += ["duration_us", "secondary_id", "trace_id"]


def facts(mapped: Mapped) -> list[Any]:
    """What RED and the sampler read."""
    return [{name: getattr(span, name) for name in FACTS} for span in mapped.spans]


@pytest.mark.parametrize("profile", ["istio", "wavefront-proxy"])
@settings(deadline=None, max_examples=120)
@given(bodies=BODIES, rules=RULES, url_query=st.sampled_from(["keep", "mask", "drop"]))
def test_the_short_way_gives_the_lines_of_the_long_way(
    profile: str, bodies: list[list[dict[str, Any]]], rules: list[str], url_query: str
) -> None:
    compare(profile, bodies, rules, url_query)


@pytest.mark.parametrize("url", ["?q=1", "a ?q=1", "a\\?q=1", "http://h/p?q=1"])
@pytest.mark.parametrize("url_query", ["keep", "mask", "drop"])
def test_a_url_without_its_query_is_written_as_any_other_value(url: str, url_query: str) -> None:
    tags = {**SPAN["tags"], "http.url": url}
    compare("istio", [[{**SPAN, "tags": tags}]], [], url_query)


def compare(
    profile: str, bodies: list[list[dict[str, Any]]], rules: list[str], url_query: str = "mask"
) -> None:
    mapping = MappingSettings(profile=profile, url_query=url_query)
    short: Mapper = MAPPERS[profile](mapping, RedSettings())
    long_: Any = MAPPERS[profile](mapping, RedSettings())
    if profile == "istio":
        long_._plain = None
    else:
        long_._short_cut = False
    if rules:
        text = rule_text(rules)
        short = RuledMapper(short, read_rules(text, where="r").for_port("9411"), [])
        long_ = Listed(long_, read_rules(text, where="r").for_port("9411"), [])
    reader, writer = StrictReader(), LineWriter()
    for spans in bodies:
        body = json.dumps(spans, ensure_ascii=False, separators=(",", ":")).encode()
        decoded = reader.read(body) or read_whole(body)
        # Twice: the second time the keys are known.
        for _ in range(2):
            found, expected = short(decoded, NOW_US), long_(read_whole(body), NOW_US)
            assert facts(found) == facts(expected)
            assert found.blocked == expected.blocked
            assert found.repairs == expected.repairs
            for span in expected.spans:
                span.plain = False
            together = "".join(p.data.decode() for p in writer.write(found.spans)[:1])
            alone = "".join(text for text in lines_of(expected) if text[0] == '"')
            # Only repeated tags have an order: not those of the client, one of which has got the other's name.
            ordered = sorted if any("spanRenameTag" in rule for rule in rules) else list
            found_lines, expected_lines = together.split("\n")[:-1], alone.split("\n")[:-1]
            assert list(map(ordered, fields_of_lines(found_lines))) == list(
                map(ordered, fields_of_lines(expected_lines))
            )


SPAN = {
    "traceId": "463ac35c9f6413ad",
    "id": "a2fb4a1d1a96d312",
    "name": "reviews:9080/*",
    "timestamp": START_US,
    "duration": 4_999,
    "localEndpoint": {"serviceName": "reviews.default"},
    "tags": {"component": "proxy"},
}


@pytest.mark.parametrize("profile", MAPPERS)
@pytest.mark.parametrize(
    ("span", "rules"),
    [
        # RED has a kind that only a rule gave.
        (SPAN, ["action: spanAddTag, key: span.kind, value: server"]),
        # A repair is counted.
        (
            SPAN,
            [f"action: spanReplaceRegex, scope: spanName, search: '^.*$', replace: {'n' * 140}"],
        ),
        # What the head quotes is quoted among the tags.
        (
            {**SPAN, "localEndpoint": {"serviceName": '"'}},
            ["action: spanAddTag, key: component, value: other"],
        ),
        ({**SPAN, "id": "b" * 16}, ["action: spanRenameTag, key: service, newkey: was"]),
        (
            {**SPAN, "tags": {"http.url": "proxy", "component": "200"}},
            ["action: spanRenameTag, key: component, newkey: http.url"],
        ),
        # A span log that is short enough is no repair.
        ({**SPAN, "annotations": [{"timestamp": START_US, "value": "retry"}]}, []),
    ],
)
def test_what_rules_change_is_no_shorter_on_the_short_way(
    profile: str, span: dict[str, Any], rules: list[str]
) -> None:
    compare(profile, [[span]], rules)


def test_a_quote_of_the_configuration_is_quoted_whatever_rules_do() -> None:
    mapping = MappingSettings(application=['my "shop"'])
    rules = read_rules(rule_text(["action: spanDropTag, key: cluster"]), where="r")
    mapper = RuledMapper(make_istio_mapper(mapping, RedSettings()), rules.for_port("9411"), [])
    body = json.dumps([SPAN], separators=(",", ":")).encode()
    decoded = StrictReader().read(body)
    assert decoded is not None
    for _ in range(2):
        [line] = lines_of(mapper(decoded, NOW_US))
        assert '"application"="my \\"shop\\""' in line
