"""Rules between mapping and sampling: RED, sampling and lines see what they leave, within Wavefront's limits."""

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import NOW_US, envoy_bodies, read_spans, sidecar_span
from tracefwd.emulator.rules import Limits
from tracefwd.emulator.span_reader import SpanReader
from tracefwd.exporter.lines import LineWriter
from tracefwd.model import Decoded, Encoding, Mapped, Span
from tracefwd.processor.istio import make_istio_mapper
from tracefwd.processor.ruled import RuledMapper
from tracefwd.processor.rules import read_rules
from tracefwd.processor.wavefront_proxy import make_wavefront_proxy_mapper
from tracefwd.receiver.decode import make_decode
from tracefwd.settings import MappingSettings, RedSettings

READER = SpanReader(Limits(), samples=True)


def ruled(text: str, *, profile: str = "istio", red: RedSettings | None = None) -> RuledMapper:
    red = red or RedSettings()
    make = make_istio_mapper if profile == "istio" else make_wavefront_proxy_mapper
    rules = read_rules(text, where="rules.yaml").for_port("9411")
    return RuledMapper(make(MappingSettings(), red), rules, red.tags)


def run(mapper: RuledMapper, *spans: Span) -> Mapped:
    return mapper(Decoded(Encoding.JSON_V2, list(spans)), NOW_US)


RENAME = """
'9411':
  - {rule: rename, action: spanRenameTag, key: http.method, newkey: method}
  - {rule: app, action: spanReplaceRegex, scope: application, search: book, replace: music}
  - {rule: lower, action: spanForceLowercase, scope: spanName}
  - {rule: team, action: spanAddTag, key: team, value: 'team-{{service}}'}
"""


def test_lines_and_red_have_the_values_after_the_rules() -> None:
    (span,) = run(ruled(RENAME, red=RedSettings(tags=["team"])), sidecar_span(name="GET /X")).spans
    assert span.identity.application == "musicinfo"
    assert span.name == "get /x"
    assert span.red_tags == (("team", "team-reviews"),)
    (payload, *_) = LineWriter().write([span])
    line = payload.data.decode().rstrip("\n")
    READER.read(line, NOW_US // 1000)
    assert '"method"="GET"' in line
    assert '"http.method"' not in line
    assert '"parent"="00000000-0000-0000-0020-000000000001"' in line


def test_a_blocked_span_is_counted_and_goes_nowhere() -> None:
    mapper = ruled(
        "'9411':\n  - {rule: errors, action: spanBlock, scope: http.status_code, match: '5..'}\n"
    )
    mapped = run(mapper, sidecar_span(), sidecar_span(tags={"http.status_code": "503"}))
    assert (len(mapped.spans), mapped.blocked) == (1, 1)
    assert mapper.rules.counts()["errors"].blocked == 1


def test_a_span_that_no_rule_changes_stays_what_it_was() -> None:
    mapper = ruled("'9411':\n  - {rule: none, action: spanDropTag, key: no.such.tag}\n")
    plain = make_istio_mapper(MappingSettings(), RedSettings())
    for path in envoy_bodies():
        body = read_spans(path)
        assert mapper(body, NOW_US).spans == plain(body, NOW_US).spans


MANY = """
'9411':
  - {rule: id, action: spanRenameTag, key: guid-x-request-id, newkey: requestId}
  - {rule: onto, action: spanRenameTag, key: peer.address, newkey: zone}
  - {rule: odd, action: spanRenameTag, key: downstream_cluster, newkey: 'odd key'}
  - {rule: drop, action: spanDropTag, key: 'request_size|response_size'}
  - {rule: agent, action: spanForceLowercase, scope: user_agent}
  - {rule: path, action: spanExtractTag, key: path, input: http.url, search: '^https?://[^/]+(/.*)$', replace: '$1'}
  - {rule: quote, action: spanAddTag, key: quoted, value: 'say "{{http.method}}"'}
  - {rule: team, action: spanAddTagIfNotExists, key: team, value: mesh}
  - {rule: same, action: spanAddTag, key: component, value: proxy}
  - {rule: shard, action: spanReplaceRegex, scope: shard, search: v3, replace: three}
  - {rule: source, action: spanReplaceRegex, scope: sourceName, search: v2, replace: two}
  - {rule: name, action: spanReplaceRegex, scope: spanName, search: ':9080', replace: ''}
  - {rule: long, action: spanLimitLength, scope: node_id, actionSubtype: truncate, maxLength: 30}
"""


@settings(deadline=None, max_examples=150)
@given(
    wanted=st.sets(st.integers(0, 12)),
    body=st.sampled_from([path for path in envoy_bodies() if path.name != "json-batch-100.json"]),
    profile=st.sampled_from(["istio", "wavefront-proxy"]),
)
def test_tags_by_key_and_in_a_list_come_to_the_same(
    wanted: set[int], body: Path, profile: str
) -> None:
    lines = MANY.strip("\n").splitlines()
    chosen = [line for number, line in enumerate(lines[1:]) if number in wanted]
    text = "\n".join([lines[0], *chosen]) if chosen else "'9411': []\n"
    mapper = ruled(text, profile=profile)
    decoded = make_decode()(body.read_bytes(), "")
    spans = [*mapper._map(decoded, NOW_US).spans, *mapper._map(decoded, NOW_US).spans]
    by_key: dict[str, int] = {}
    by_list: dict[str, int] = {}
    for span in spans:
        one, other = mapper._pass(span, by_key), mapper._pass_listed(span, by_list)
        assert one is not None
        assert other is not None
        assert LineWriter().write([one]) == LineWriter().write([other])
        red = [
            (each.identity, each.name, each.kind, each.http_status, each.red_tags, each.error)
            for each in (one, other)
        ]
        assert red[0] == red[1]
        assert (one.debug, one.logs, one.oversize) == (other.debug, other.logs, other.oversize)
    assert by_key == by_list


def test_a_removed_identity_tag_keeps_its_value_for_red() -> None:
    (span,) = run(
        ruled("'9411':\n  - {rule: x, action: spanDropTag, key: shard}\n"), sidecar_span()
    ).spans
    assert span.identity.shard == "v1"
    assert "shard" not in dict([*span.head, *span.tags.items()])


def test_repeated_tags_keep_their_order() -> None:
    text = "'9411':\n  - {rule: x, action: spanAddTag, key: zone, value: second}\n"
    (span,) = run(ruled(text), sidecar_span(tags={"zone": "first"})).spans
    line = LineWriter().write([span])[0].data.decode()
    assert line.index('"zone"="first"') < line.index('"zone"="second"')


def test_rules_see_whole_values_under_the_proxys_profile() -> None:
    text = "'9411':\n  - {rule: x, action: spanReplaceRegex, scope: long, search: 'x*$', replace: ''}\n"
    mapper = ruled(text, profile="wavefront-proxy")
    (span,) = run(mapper, sidecar_span(tags={"long": "short" + "x" * 300})).spans
    assert dict(span.tags)["long"] == "short"
    assert span.oversize is None


@settings(deadline=None, max_examples=60)
@given(
    key=st.text(min_size=1, max_size=140),
    value=st.text(min_size=1, max_size=300),
    profile=st.sampled_from(["istio", "wavefront-proxy"]),
)
def test_whatever_rules_and_clients_write_wavefront_takes_it(
    key: str, value: str, profile: str
) -> None:
    text = """
'9411':
  - {rule: copy, action: spanAddTag, key: copy, value: '{{odd}}{{odd}}'}
  - {rule: name, action: spanReplaceRegex, scope: spanName, search: '.*', replace: '{{odd}}*'}
  - {rule: source, action: spanReplaceRegex, scope: sourceName, search: '.*', replace: '{{odd}}'}
"""
    span = sidecar_span(tags={"odd": value, key: value})
    for out in run(ruled(text, profile=profile), span).spans:
        for line in LineWriter().write([out])[0].data.decode().split("\n")[:-1]:
            READER.read(line, NOW_US // 1000)
