"""The istio profile: right for Bookinfo without configuration, and never a silent change."""

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import ENVOY, NOW_US, envoy_bodies, read_spans, sidecar_span
from tests.line_fields import fields_of_line
from tracefwd import naming
from tracefwd.exporter.lines import LineWriter
from tracefwd.limits import REPAIR_KINDS, SPAN_TAGS_MAX, START_MS_MIN
from tracefwd.model import (
    Annotation,
    Decoded,
    Encoding,
    Endpoint,
    Mapped,
    PlainSpan,
    Span,
    WavefrontSpan,
)
from tracefwd.processor.istio import make_istio_mapper
from tracefwd.receiver.decode import make_decode
from tracefwd.receiver.tag_records import TagRecords
from tracefwd.settings import ErrorSettings, MappingSettings, OperationSettings, RedSettings


def map_one(
    span: Span, mapping: MappingSettings | None = None, red: RedSettings | None = None
) -> Mapped:
    mapper = make_istio_mapper(mapping or MappingSettings(), red or RedSettings())
    return mapper(Decoded(Encoding.JSON_V2, [span]), NOW_US)


def one(
    span: Span, mapping: MappingSettings | None = None, red: RedSettings | None = None
) -> WavefrontSpan:
    return map_one(span, mapping, red).spans[0]


def all_tags(span: WavefrontSpan) -> list[tuple[str, str]]:
    return [(naming.clean_key(k), v) for k, v in (*span.head, *span.tags.items(), *span.tail)]


# Identity


def test_bookinfo_is_right_without_configuration() -> None:
    span = one(sidecar_span())
    assert span.identity == ("bookinfo", "reviews", "Kubernetes", "v1", "proxy", "reviews")
    assert span.source == "reviews-v1-abc-xyz"
    assert span.name == "reviews.bookinfo.svc.cluster.local:9080/-"
    assert dict(span.head)["span.kind"] == "server"
    assert not span.error


def test_mesh_id_stands_in_for_the_cluster_before_1_21() -> None:
    assert one(sidecar_span(tags={"istio.cluster_id": None})).identity.cluster == "cluster.local"


def test_service_name_stands_in_where_istio_sends_no_tags() -> None:
    bare = dict.fromkeys(
        (
            "istio.canonical_service",
            "istio.canonical_revision",
            "istio.namespace",
            "istio.cluster_id",
            "istio.mesh_id",
        )
    )
    span = one(sidecar_span(tags={**bare, "node_id": None}))
    assert span.identity[:4] == ("bookinfo", "reviews", "none", "none")
    assert span.source == "reviews.bookinfo"


def test_nothing_to_go_by_is_none() -> None:
    span = one(Span("ab" * 8, "cd" * 8))
    assert span.identity[:4] == ("none", "none", "none", "none")
    assert span.source == "tracefwd"
    assert span.name == "unknown"


def test_opentelemetrys_own_names_stand_in_for_istios() -> None:
    """What an SDK says, and what tracefwd itself sends by OTLP."""
    tags = {
        "service.namespace": "shop",
        "service.version": "7",
        "k8s.cluster.name": "east",
        "http.response.status_code": "503",
    }
    span = one(Span("ab" * 8, "cd" * 8, kind="SERVER", local=Endpoint("cart"), tags=tags))
    assert span.identity[:4] == ("shop", "cart", "east", "7")
    assert span.http_status == "503"
    assert span.error
    refused = Span("ab" * 8, "cd" * 8, kind="SERVER", tags={"rpc.grpc.status_code": "14"})
    assert one(refused).error


def test_egress_spans_of_old_istio_have_their_workloads_service() -> None:
    span = one(
        Span(
            "ab" * 8,
            "cd" * 8,
            name="async ext-authz egress",
            local=Endpoint("gateway.istio-system"),
            tags={},
        )
    )
    assert span.identity[:2] == ("istio-system", "gateway")


def test_explicit_identity_tags_win_and_are_sent_once() -> None:
    given_tags = {
        "application": "shop",
        "service": "cart",
        "cluster": "c1",
        "shard": "s1",
        "source": "host-1",
    }
    span = one(sidecar_span(tags=given_tags))
    assert span.identity[:4] == ("shop", "cart", "c1", "s1")
    assert span.source == "host-1"
    keys = [key for key, _ in all_tags(span)]
    assert len(keys) == len(set(keys))
    assert "source" not in keys


@pytest.mark.parametrize("tagged_first", [True, False])
def test_a_workloads_address_does_not_depend_on_which_span_came_first(tagged_first: bool) -> None:
    mapper = make_istio_mapper(MappingSettings(), RedSettings())
    spans = [sidecar_span(tags={"ipv4": "192.0.2.1"}), sidecar_span()]
    if not tagged_first:
        spans.reverse()
    mapped = mapper(Decoded(Encoding.JSON_V2, spans), NOW_US)
    found = [[value for key, value in all_tags(span) if key == "ipv4"] for span in mapped.spans]
    assert found == (
        [["192.0.2.1"], ["10.1.2.3"]] if tagged_first else [["10.1.2.3"], ["192.0.2.1"]]
    )
    assert mapped.repairs is None


def test_overrides_go_from_namespace_to_service() -> None:
    mapping = MappingSettings(
        overrides={
            "namespaces": {"bookinfo": {"application": "library", "shard": "{zone}"}},
            "services": {"reviews.bookinfo": {"application": ["{team}", "critics"]}},
        }
    )
    assert one(sidecar_span(), mapping).identity[:4] == ("critics", "reviews", "Kubernetes", "v1")
    details = sidecar_span(tags={"istio.canonical_service": "details", "zone": "z1"})
    assert one(details, mapping).identity[:4] == ("library", "details", "Kubernetes", "z1")


def test_red_source_is_never_a_pod_by_default() -> None:
    assert one(sidecar_span()).identity.source == "reviews"
    custom = RedSettings(source=["{application}.{service}"])
    assert one(sidecar_span(), red=custom).identity.source == "bookinfo.reviews"


def test_every_real_span_has_an_identity_and_no_doubled_tag() -> None:
    mapper = make_istio_mapper(MappingSettings(), RedSettings())
    for path in envoy_bodies():
        for span in mapper(read_spans(path), NOW_US).spans:
            keys = [key for key, _ in all_tags(span)]
            assert len(keys) == len(set(keys)), path.name
            assert len(keys) < SPAN_TAGS_MAX, path.name
            assert span.identity.service != "none", path.name
            assert span.identity.application != "none", path.name
            assert all(0 < naming.length(value) <= 128 for _, value in all_tags(span)), path.name


# Errors


@pytest.mark.parametrize(
    ("tags", "kind", "error"),
    [
        ({"error": "true"}, "SERVER", True),
        ({"error": "false"}, "SERVER", False),
        ({"error": "FALSE "}, "SERVER", False),
        ({"error": ""}, "SERVER", True),
        ({"error": "connection refused"}, "CLIENT", True),
        ({"http.status_code": "503"}, "SERVER", True),
        ({"http.status_code": "503"}, "CLIENT", True),
        ({"http.status_code": "503", "error": "false"}, "CLIENT", True),
        ({"http.status_code": "404"}, "CLIENT", False),
        ({"grpc.status_code": "14"}, "CLIENT", True),
        ({"grpc.status_code": "5"}, "CLIENT", False),
        ({"response_flags": "UPE"}, "SERVER", True),
        ({"response_flags": "URX,UF"}, "CLIENT", True),
        ({"response_flags": "DI"}, "CLIENT", False),
        ({"response_flags": "NR", "http.status_code": "404"}, "SERVER", False),
    ],
)
def test_errors_are_read_properly(tags: dict[str, str], kind: str, error: bool) -> None:
    span = one(sidecar_span(tags=tags, kind=kind))
    assert span.error is error
    assert (dict(all_tags(span)).get("error") == "true") is error


def test_the_text_of_an_error_is_kept() -> None:
    assert (
        dict(all_tags(one(sidecar_span(tags={"error": "no route"}))))["error.message"] == "no route"
    )


def test_4xx_count_where_the_operator_says_so() -> None:
    mapping = MappingSettings(errors=ErrorSettings(http_4xx="server"))
    assert one(sidecar_span(tags={"http.status_code": "404"}), mapping).error
    assert not one(sidecar_span(tags={"http.status_code": "404"}, kind="CLIENT"), mapping).error


# Times


@pytest.mark.parametrize(
    ("timestamp_us", "duration_us", "repair"),
    [
        (None, 2_000, "no_timestamp"),
        (0, 2_000, "no_timestamp"),
        (-5, 2_000, "no_timestamp"),
        (NOW_US + 25 * 3_600_000_000, 2_000, "future_start"),
        (1_000_000, 2_000, "past_start"),
    ],
)
def test_an_impossible_start_becomes_arrival_minus_duration_and_says_so(
    timestamp_us: int | None, duration_us: int, repair: str
) -> None:
    mapped = map_one(sidecar_span(timestamp_us=timestamp_us, duration_us=duration_us))
    span = mapped.spans[0]
    assert span.start_ms == (NOW_US - duration_us) // 1000
    assert mapped.repairs == {repair: 1}
    assert ("tracefwd.repaired", repair) in span.tail


@pytest.mark.parametrize("duration_us", [-1, 10**18, 2**63])
def test_a_duration_is_never_read_as_an_end(duration_us: int) -> None:
    mapped = map_one(sidecar_span(duration_us=duration_us))
    span = mapped.spans[0]
    assert 0 <= span.duration_ms < span.start_ms
    assert mapped.repairs == {"duration": 1}


def test_a_missing_duration_is_zero_and_no_repair() -> None:
    mapped = map_one(sidecar_span(duration_us=None))
    assert (mapped.spans[0].duration_us, mapped.repairs) == (0, None)


# Tags


@pytest.mark.parametrize(
    ("tags", "expected", "repairs"),
    [
        ({"a": "C:\\"}, {"a": "C:\\."}, {"trailing_backslash": 1}),
        ({"123": "x"}, {"_123": "x"}, {"key_changed": 1}),
        ({"": "x"}, {"_": "x"}, {"key_changed": 1}),
        ({"host": "x"}, {"_host": "x"}, {"key_changed": 1}),
        ({"traceId": "x", "spanId": "y"}, {"_traceId": "x", "_spanId": "y"}, {"key_changed": 2}),
        ({"span.kind": "x"}, {"_span.kind": "x"}, {"key_changed": 1}),
        ({"parent": "x"}, {"_parent": "x"}, {"key_changed": 1}),
        ({"a:b": "1", "a-b": "2"}, {"a-b": "1", "a-b_2": "2"}, {"key_changed": 1}),
        ({"blank": "  "}, {}, {"blank_value": 1}),
        ({"edge": " x "}, {"edge": "x"}, None),
        ({"long": "x" * 129}, {"long": "x" * 125 + "..."}, {"value_cut": 1}),
        ({"k" * 129: "x"}, {"k" * 128: "x"}, {"key_changed": 1}),
        ({"emoji": "😀" * 65}, {"emoji": "😀" * 62 + "..."}, {"value_cut": 1}),
    ],
)
def test_what_wavefront_cannot_take_is_repaired_and_counted(
    tags: dict[str, str], expected: dict[str, str], repairs: dict[str, int] | None
) -> None:
    plain = {key for key, _ in all_tags(one(sidecar_span()))}
    mapped = map_one(sidecar_span(tags=tags))
    extra = {key: value for key, value in all_tags(mapped.spans[0]) if key not in plain}
    assert extra == expected
    assert mapped.repairs == repairs


@pytest.mark.parametrize(
    ("mode", "url", "expected"),
    [
        ("mask", "http://a/b?user=me&token=secret#x", "http://a/b?user=***&token=***#x"),
        ("mask", "http://a/b?secret", "http://a/b?***"),
        ("mask", "http://me:secret@a/b", "http://***@a/b"),
        ("drop", "http://a/b?token=secret", "http://a/b"),
        ("keep", "http://a/b?token=secret", "http://a/b?token=secret"),
        ("mask", "http://a/b", "http://a/b"),
    ],
)
def test_query_strings_are_masked_unless_the_operator_keeps_them(
    mode: str, url: str, expected: str
) -> None:
    span = one(sidecar_span(tags={"http.url": url}), MappingSettings(url_query=mode))
    assert span.tags["http.url"] == expected


def test_the_budget_goes_to_the_telling_tags_first() -> None:
    many = {f"custom.{number}": "x" for number in range(60)}
    span = sidecar_span(tags={**many, "error": "boom"})
    mapped = map_one(replace_tags_first(span, many))
    written = all_tags(mapped.spans[0])
    assert len(written) + 1 == SPAN_TAGS_MAX  # and the parent
    keys = {key for key, _ in written}
    assert {
        "error",
        "http.status_code",
        "error.message",
        "istio.canonical_service",
        "http.url",
    } <= keys
    assert dict(written)["tracefwd.repaired"] == "tag_budget"
    assert mapped.repairs is not None
    assert mapped.repairs["tag_budget"] == 60 - sum(key.startswith("custom.") for key in keys) + (
        len(span.tags or {})
        + 1
        - 60
        - sum(not key.startswith("custom.") for key in mapped.spans[0].tags)
    )


def replace_tags_first(span: Span, first: dict[str, str]) -> Span:
    """The same span with ``first`` before its other tags."""
    assert span.tags is not None
    span.tags = {**first, **span.tags}
    return span


def test_long_values_can_go_whole_into_a_span_log() -> None:
    span = one(sidecar_span(tags={"long": "y" * 300}), MappingSettings(long_values="span_log"))
    assert span.oversize == {"long": "y" * 300}
    assert one(sidecar_span(tags={"long": "y" * 300})).oversize is None


def test_the_other_side_is_sent_as_peer_tags() -> None:
    remote = Endpoint("mysql", "10.9.8.7", None, 3306)
    tags = dict(all_tags(one(sidecar_span(remote=remote))))
    assert (tags["peer.service"], tags["peer.ipv4"], tags["peer.port"]) == (
        "mysql",
        "10.9.8.7",
        "3306",
    )


def test_debug_is_said_once_and_forces_the_sampler() -> None:
    span = one(sidecar_span(debug=True, tags={"debug": "please"}))
    assert [value for key, value in all_tags(span) if key == "debug"] == ["true"]
    assert span.debug
    assert one(sidecar_span(tags={"debug": "true"})).debug


def test_shared_halves_can_be_told_apart() -> None:
    span = one(sidecar_span(shared=True))
    assert span.secondary_id == "server"
    assert ("_spanSecondaryId", "server") in span.tail


# Span logs


def test_envoys_lone_annotation_is_no_span_log_but_others_are() -> None:
    assert one(sidecar_span()).logs is None
    entries = [Annotation(1, "sr"), Annotation(2, "first upstream byte"), Annotation(3, "ss")]
    assert one(sidecar_span(annotations=entries)).logs == [Annotation(2, "first upstream byte")]
    assert one(sidecar_span(), MappingSettings(span_logs="all")).logs == [
        Annotation(NOW_US - 999_000, "ss")
    ]
    assert one(sidecar_span(annotations=entries), MappingSettings(span_logs="none")).logs is None


def test_a_span_log_stays_within_the_backends_limit() -> None:
    mapped = map_one(sidecar_span(annotations=[Annotation(n, "\u0001" * 5_000) for n in range(40)]))
    payload = LineWriter(sampled_mark=True).write(mapped.spans)[1]
    assert payload.items == 1
    assert len(payload.data) <= 32_768
    assert mapped.repairs is not None
    assert mapped.repairs["value_cut"] > 0


# Operations


def test_operation_names_have_a_cap_and_keep_their_own_name() -> None:
    mapping = MappingSettings(operation=OperationSettings(names_max=3))
    mapper = make_istio_mapper(mapping, RedSettings())
    spans = [sidecar_span(name=f"scanner-{number}.example") for number in range(5)]
    mapped = mapper(Decoded(Encoding.JSON_V2, spans), NOW_US)
    assert [span.name for span in mapped.spans] == [
        "scanner-0.example",
        "scanner-1.example",
        "scanner-2.example",
        "_other",
        "_other",
    ]
    assert mapped.spans[4].tags["operation.name"] == "scanner-4.example"
    assert mapped.repairs == {"name_capped": 2}


def test_an_operators_rules_and_template_shape_the_name() -> None:
    operation = OperationSettings(
        template=["{http.method} {@name}"], rules=[{"match": r"/users/\d+", "replace": "/users/ID"}]
    )
    span = one(sidecar_span(name="users:80/users/4711"), MappingSettings(operation=operation))
    assert span.name == "GET users:80/users/ID"


def test_a_name_that_wavefront_refuses_is_fitted() -> None:
    mapped = map_one(sidecar_span(name="n" * 200))
    assert mapped.spans[0].name == "n" * 125 + "..."
    assert mapped.repairs == {"name_cut": 1}
    assert one(sidecar_span(name="a*b\\")).name == "a-b\\."
    assert one(sidecar_span(name=" ")).name == "unknown"


# RED's view


@pytest.mark.parametrize(
    ("changes", "counted"),
    [
        ({"kind": "SERVER"}, True),
        ({"kind": "CLIENT"}, False),
        ({"kind": "CLIENT", "parent_id": None}, True),
        ({"kind": "CLIENT", "tags": {"response_flags": "URX,UF", "http.status_code": "503"}}, True),
        ({"kind": "CLIENT", "tags": {"response_flags": "UC", "http.status_code": "503"}}, False),
    ],
)
def test_entry_leaves_out_client_spans_that_somebody_served(
    changes: dict[str, object], counted: bool
) -> None:
    assert one(sidecar_span(**changes), red=RedSettings(spans="entry")).red is counted
    assert one(sidecar_span(**changes)).red


def test_red_dimensions_are_found_by_their_cleaned_key() -> None:
    red = RedSettings(tags=["guid-x-request-id", "absent"])
    span = one(sidecar_span(tags={"guid:x-request-id": "r1"}), red=red)
    assert span.red_tags == (("guid-x-request-id", "r1"),)


# Two paths, one result

_KEYS = st.sampled_from(
    ["http.url", "http.status_code", "a:b", "a-b", "error", "source", "application", "zone", "9", "debug", "span.kind",
     "grpc.status_code", "response_flags", "user_agent", "host", "component", "istio.namespace", "node_id", "ipv4"]
)  # fmt: skip
_VALUES = st.one_of(
    st.sampled_from(
        [
            "true",
            "false",
            "200",
            "503",
            "404",
            "UF",
            "-",
            "http://a/b?c=d",
            "http://a/b",
            "14",
            "x.y",
        ]
    ),
    st.text(
        st.characters(min_codepoint=33, max_codepoint=126, exclude_characters='"\\'),
        min_size=1,
        max_size=128,
    ),
)
_SPANS = st.builds(
    lambda tags, **changes: sidecar_span(tags=tags, **changes),
    tags=st.dictionaries(_KEYS, _VALUES, max_size=8),
    kind=st.sampled_from(["CLIENT", "SERVER", "PRODUCER", None]),
    name=st.sampled_from(["one", "two", "three:80/*", None]),
    parent_id=st.sampled_from([None, "00000000000000aa"]),
    timestamp_us=st.sampled_from([None, 5, NOW_US, NOW_US - 7, NOW_US + 10**12]),
    duration_us=st.sampled_from([None, 0, 17, -3, 123_456]),
    shared=st.sampled_from([None, True]),
    debug=st.sampled_from([None, True]),
)


@settings(deadline=None, max_examples=150)
@given(spans=st.lists(_SPANS, min_size=1, max_size=4))
def test_the_plain_path_gives_what_the_complete_path_gives(spans: list[Span]) -> None:
    mapper = make_istio_mapper(MappingSettings(), RedSettings())
    mapper(Decoded(Encoding.JSON_V2, spans), NOW_US)  # learns the keys and names
    complete = mapper(Decoded(Encoding.JSON_V2, spans), NOW_US)
    plain = mapper(Decoded(Encoding.JSON_V2, [*map(plainly, spans)]), NOW_US)
    assert plain.repairs == complete.repairs
    writer = LineWriter()
    for fast, slow in zip(plain.spans, complete.spans, strict=True):
        assert sorted(all_tags(fast)) == sorted(all_tags(slow))
        assert as_written(writer, fast) == as_written(writer, slow)
        fast.tags = slow.tags = {}
        fast.plain = slow.plain = True
        fast.shape, fast.values = None, ()
        assert fast == slow


RECORDS = TagRecords(str)


def plainly(span: Span) -> Span:
    """As the decoder hands it over when it keeps what ``PlainSpan`` promises."""
    ordinary = (
        span.name is not None
        and span.timestamp_us is not None
        and span.timestamp_us >= START_MS_MIN * 1000
        and span.duration_us is not None
        and span.duration_us >= 0
        and span.shared is None
        and span.debug is None
    )
    if not ordinary:
        return span
    tags = dict(span.tags or {})
    RECORDS.learn(tags)
    record = RECORDS.record
    if not set(record.names).issuperset(tags):
        return span
    members = {
        **msgspec.structs.asdict(span),
        "tags": record(*[tags.get(k, "") for k in record.names]),
    }
    return PlainSpan(**members)


def as_written(writer: LineWriter, span: WavefrontSpan) -> list[str]:
    return fields_of_line(writer.write([span])[0].data.decode().removesuffix("\n"))


def test_real_spans_take_the_plain_path_once_their_keys_are_known() -> None:
    mapper = make_istio_mapper(MappingSettings(), RedSettings())
    body = make_decode()((ENVOY / "json-batch-5.json").read_bytes(), "")
    mapper(body, NOW_US)
    assert all(isinstance(span, PlainSpan) for span in body.spans)
    assert all(span.plain for span in mapper(body, NOW_US).spans)


@settings(deadline=None, max_examples=150)
@given(
    tags=st.dictionaries(st.text(max_size=140), st.text(max_size=300), max_size=60),
    name=st.none() | st.text(max_size=200),
    service=st.none() | st.text(max_size=200),
    timestamp=st.none() | st.integers(),
    duration=st.none() | st.integers(),
)
def test_whatever_comes_in_wavefronts_limits_hold(
    tags: dict[str, str],
    name: str | None,
    service: str | None,
    timestamp: int | None,
    duration: int | None,
) -> None:
    span = Span(
        "ab" * 8,
        "cd" * 8,
        "ef" * 8,
        "CLIENT",
        name,
        timestamp,
        duration,
        Endpoint(service),
        tags=tags,
    )
    mapped = map_one(span)
    out = mapped.spans[0]
    written = all_tags(out)
    keys = [key for key, _ in written]
    assert len(keys) == len(set(keys))
    assert len(keys) + 1 <= SPAN_TAGS_MAX
    assert all(key and not key.isdigit() and naming.length(key) <= 128 for key in keys)
    assert all(value.strip() == value and 0 < naming.length(value) <= 128 for _, value in written)
    assert not any(value.endswith("\\") for _, value in written)
    assert 0 < naming.length(out.name) <= 128
    assert 0 < naming.length(out.source) <= 128
    assert 10**12 <= out.start_ms <= NOW_US // 1000 + 24 * 3_600_000
    assert 0 <= out.duration_ms < out.start_ms
    assert set(mapped.repairs or {}) <= REPAIR_KINDS


def test_memo_tables_do_not_grow_with_what_clients_send() -> None:
    mapper = make_istio_mapper(
        MappingSettings(operation=replace(OperationSettings(), names_max=10)), RedSettings()
    )
    for number in range(9_000):
        span = Span(
            "ab" * 8,
            "cd" * 8,
            name=f"n{number}",
            local=Endpoint(f"s{number}"),
            tags={f"k{number}": "v"},
        )
        mapper(Decoded(Encoding.JSON_V2, [span]), NOW_US)
    tables = (
        mapper._workloads._memo,
        mapper._known,
        mapper._verdicts._known,
        mapper._operations.memo,
    )  # type: ignore[attr-defined]
    assert all(len(table) <= 8_192 for table in tables)
    huge = Span(
        "ab" * 8,
        "cd" * 8,
        name="x" * 10**6,
        local=Endpoint("y" * 10**6),
        tags={"z" * 10**6: "w" * 10**6},
    )
    before = [len(table) for table in tables]
    mapper(Decoded(Encoding.JSON_V2, [huge]), NOW_US)
    assert [len(table) for table in tables] == before
