"""The profile against what the real proxy sent, line for line (exact), and its repairs (not exact)."""

import base64
import dataclasses
import gzip
import json
import zlib
from collections import defaultdict
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import bare
from tracefwd import limits, naming
from tracefwd.exporter.lines import LineWriter
from tracefwd.model import (
    Annotation,
    Decoded,
    Encoding,
    Endpoint,
    Mapped,
    Signal,
    Span,
    WavefrontSpan,
)
from tracefwd.processor.java_text import order
from tracefwd.processor.sampler import make_sampler
from tracefwd.processor.wavefront_proxy import _ProxyMapper, make_wavefront_proxy_mapper
from tracefwd.processor.wavefront_proxy_rules import EXACT, REPAIRED, Deviations
from tracefwd.receiver.decode import make_decode
from tracefwd.receiver.exact import make_exact_decode
from tracefwd.settings import MappingSettings, RedSettings, SamplingSettings

FIXTURES = Path(__file__).parents[1] / "fixtures"
BODIES = FIXTURES / "envoy"
RECORDED = FIXTURES / "java-proxy"
# Between the recording's latest span and 24 hours later.
NOW_US = 1_795_400_000_000_000
NAMES = sorted(
    str(path.relative_to(BODIES).with_suffix(""))
    for folder in (BODIES, BODIES / "one-request")
    for path in folder.glob("*.json")
    if not path.name.endswith(".headers.json") and path.name != "manifest.json"
)
decode = make_decode()
exact_decode = make_exact_decode()
ODD = json.loads((RECORDED / "odd-inputs.json").read_text())
START_US = 1_700_000_000_123_456


def mapper(*, exact: bool = True, red_tags: tuple[str, ...] = (), **mapping: Any) -> Any:
    return make_wavefront_proxy_mapper(
        MappingSettings(profile="wavefront-proxy", exact=exact, **mapping),
        RedSettings(tags=list(red_tags)),
    )


def body(name: str) -> Decoded:
    return decode((BODIES / f"{name}.json").read_bytes(), "application/json")


def one(span: Span, *, exact: bool = False, **options: Any) -> WavefrontSpan:
    [result] = many([span], exact=exact, **options).spans
    return result


def many(spans: list[Span], *, exact: bool = False, **options: Any) -> Mapped:
    mapped: Mapped = mapper(exact=exact, **options)(Decoded(Encoding.JSON_V2, spans), NOW_US)
    return mapped


def span_of(tags: dict[str, str] | None = None, **fields: Any) -> Span:
    given: dict[str, Any] = {
        "trace_id": "463ac35c9f6413ad48485a3953bb6124",
        "span_id": "a2fb4a1d1a96d312",
        "kind": "SERVER",
        "name": "get",
        "timestamp_us": START_US,
        "duration_us": 4_999,
        "local": Endpoint("reviews.default", "10.1.2.3"),
        "tags": tags if tags is not None else {"component": "proxy"},
    }
    return Span(**(given | fields))


def text(value: str) -> str:
    return value.replace('"', '\\"').replace("\n", "\\n")


def line(span: WavefrontSpan) -> str:
    """The span as the proxy orders it: its own tags, the client's by raw key, its own again."""
    head = dict(span.head)
    assert len(head) == len(span.head)
    first = [(key, span.tags[key]) for key in ("zipkinSpanId", "zipkinTraceId")]
    if span.parent_id:
        first.append(("parent", naming.uuid(span.parent_id)))
    first += [
        (key, head[key]) for key in ("span.kind", "_spanSecondaryId", "service") if key in head
    ]
    tail = [pair for pair in span.tail if pair[0] in {"debug", "ipv4"}]
    own = [pair for pair in span.tags.items() if pair not in first]
    own += [pair for pair in span.tail if pair not in tail]
    own.sort(key=lambda pair: order(pair[0]))
    last = [(key, head[key]) for key in ("application", "cluster", "shard")] + tail
    last += [("ipv4", head["ipv4"])] if "ipv4" in head else []
    last += [("_spanLogs", "true")] if span.logs or span.oversize else []
    tags = "".join(
        f' "{naming.clean_key(key)}"="{text(value)}"' for key, value in first + own + last
    )
    return (
        f'"{text(span.name)}" source="{span.source}" spanId="{naming.uuid(span.span_id)}" '
        f'traceId="{naming.uuid(span.trace_id)}"{tags} {span.start_ms} {span.duration_ms}'
    )


def logs(span: WavefrontSpan) -> list[dict[str, Any]]:
    ids = {
        "traceId": naming.uuid(span.trace_id),
        "spanId": naming.uuid(span.span_id),
        "spanSecondaryId": span.secondary_id,
    }
    found: list[dict[str, Any]] = []
    if span.logs:
        entries = [
            {"timestamp": entry.timestamp_us, "fields": {"annotation": entry.value}}
            for entry in span.logs
        ]
        mark = {"span": "_sampledByPolicy=NONE"}
        found.append({"customer": "default", **ids, "logs": entries, **mark})
    if span.oversize:
        entries = [{"timestamp": -1, "fields": span.oversize}]
        found.append({"customer": "dummy", **ids, "logs": entries, "span": None})
    return found


def recorded(name: str, kind: str, folder: Path = RECORDED) -> list[str]:
    path = folder / f"{name}.{kind}.txt"
    return path.read_text().split("\n")[:-1] if path.exists() else []


def in_order(found: list[dict[str, Any]]) -> list[str]:
    return sorted(json.dumps(log, sort_keys=True) for log in found)


@pytest.mark.parametrize("name", NAMES)
def test_every_line_and_span_log_of_an_envoy_body_is_the_proxys(name: str) -> None:
    mapped = mapper()(body(name), NOW_US)
    assert sorted(map(line, mapped.spans)) == sorted(recorded(name, "spans"))
    ours = [log for span in mapped.spans for log in logs(span)]
    assert in_order(ours) == in_order([*map(json.loads, recorded(name, "spanlogs"))])
    assert not mapped.rejects


@pytest.mark.parametrize("path", sorted(BODIES.glob("proto-*.bin")), ids=lambda path: path.stem)
def test_every_line_and_span_log_of_a_proto_body_is_the_proxys(path: Path) -> None:
    mapped = mapper()(make_decode("keep")(path.read_bytes(), "application/x-protobuf"), NOW_US)
    assert sorted(map(line, mapped.spans)) == sorted(recorded(path.stem, "spans"))
    ours = [log for span in mapped.spans for log in logs(span)]
    assert in_order(ours) == in_order([*map(json.loads, recorded(path.stem, "spanlogs"))])


@pytest.mark.parametrize("name", NAMES)
def test_repairs_change_nothing_of_what_envoys_send(name: str) -> None:
    mapped = mapper(exact=False)(body(name), NOW_US)
    assert mapped == mapper()(body(name), NOW_US)


@pytest.mark.parametrize("name", NAMES)
def test_the_writer_renders_the_proxys_tags(name: str) -> None:
    spans = mapper()(body(name), NOW_US).spans
    payloads = {part.signal: part.data.decode() for part in LineWriter().write(spans)}
    lines = payloads[Signal.SPANS].split("\n")[:-1]
    assert sorted(map(fields, lines)) == sorted(map(fields, recorded(name, "spans")))


def fields(rendered: str) -> list[str]:
    """A line's quoted pairs without their order; the bodies hold no escaped quotes before a blank."""
    first, *pairs = rendered.split(' "')
    *middle, last = pairs
    value, start, duration = last.rsplit(" ", 2)
    return [first, start, duration, *sorted([*middle, value])]


@pytest.mark.parametrize("name", NAMES)
def test_the_short_cut_and_the_rules_come_to_the_same(name: str) -> None:
    for exact in (True, False):
        short = mapper(exact=exact)
        rules = mapper(exact=exact)
        rules._short_cut = False
        by_rules = rules(body(name), NOW_US).spans
        decoded = body(name)
        for each in (decoded, Decoded(decoded.encoding, bare(decoded))):
            found = short(each, NOW_US).spans
            for span in found:
                span.plain = False
            # The annotations' classes may differ.
            assert msgspec.to_builtins(found) == msgspec.to_builtins(by_rules)


def test_nearly_all_envoy_spans_take_the_short_cut() -> None:
    spans = [span for name in NAMES for span in mapper()(body(name), NOW_US).spans]
    assert sum(span.plain for span in spans) > 0.95 * len(spans)


def test_the_decoders_spans_are_not_written_to() -> None:
    decoded = body("json-batch-5")
    before = msgspec.json.encode(decoded.spans)
    mapper()(decoded, NOW_US)
    assert msgspec.json.encode(decoded.spans) == before


# RED


def series(spans: list[WavefrontSpan], kind: str) -> dict[Any, Any]:
    """By series: counts or sums of what RED would add up, in the recordings' own terms."""
    totals: dict[Any, Any] = defaultdict(float)
    for span in spans:
        identity = span.identity
        stem = naming.clean_stem(identity.application, identity.service, span.name)
        tags = {
            "application": identity.application or "unknown_application",
            "service": identity.service or "unknown_service",
            "cluster": identity.cluster,
            "shard": identity.shard,
            "component": identity.component,
            "source": identity.source,
            "operationName": span.name or "unknown_operation",
            "span.kind": span.kind or "none",
            **({"http.status_code": span.http_status} if span.http_status else {}),
            **dict(span.red_tags),
        }
        prefix = "∆tracing.derived." if kind == "counters" else "tracing.derived."
        if kind == "counters":
            for name, value in (
                ("invocation.count", 1),
                ("error.count", int(span.error)),
                ("total_time.millis.count", span.duration_us // 1000),
            ):
                if value:
                    totals[(f"{prefix}{stem}.{name}", *sorted(tags.items()))] += value
        elif kind == "distributions":
            error = [("error", "true")] if span.error else []
            key = (f"{prefix}{stem}.duration.micros", *sorted([*tags.items(), *error]))
            totals[key] = sorted([*(totals[key] or []), span.duration_us])
        else:
            beat = {key: tags[key] for key in tags if key not in {"operationName", "source"}}
            for component in (identity.component, "zipkin"):
                beat["component"] = component
                totals[(identity.source, *sorted(beat.items()))] = 1.0
    return dict(totals)


def recorded_series(path: Path, kind: str) -> dict[Any, Any]:
    totals = json.loads(path.read_text())
    if kind == "counters":
        return {
            (row["name"], *sorted(row["tags"].items())): row["sum"]
            for row in totals["delta_counters"]
        }
    if kind == "distributions":
        return {
            (row["name"], *sorted(row["tags"].items())): sorted(
                mean for mean, count in row["centroids"] for _ in range(count)
            )
            for row in totals["distributions"]
        }
    return {(row["source"], *sorted(row["tags"].items())): 1.0 for row in totals["heartbeats"]}


@pytest.mark.parametrize("kind", ["counters", "distributions", "heartbeats"])
def test_red_counts_the_envoy_bodies_as_the_proxy_did(kind: str) -> None:
    spans = [span for name in NAMES for span in mapper()(body(name), NOW_US).spans]
    assert len(spans) == 300
    assert series(spans, kind) == recorded_series(RECORDED / "red-totals.json", kind)


@pytest.mark.parametrize("kind", ["counters", "distributions", "heartbeats"])
def test_red_counts_the_proto_bodies_as_the_proxy_did(kind: str) -> None:
    bodies = [path.read_bytes() for path in BODIES.glob("proto-*.bin")]
    parts = [mapper()(make_decode("keep")(raw, ""), NOW_US) for raw in bodies]
    spans = [span for part in parts for span in part.spans]
    assert series(spans, kind) == recorded_series(RECORDED / "red-totals-proto.json", kind)


@pytest.mark.parametrize("kind", ["counters", "distributions", "heartbeats"])
def test_red_counts_with_the_operators_dimensions_as_the_proxy_did(kind: str) -> None:
    keys = ("istio.namespace", "istio.canonical_service")
    convert = mapper(application_name="bookinfo", red_tags=keys)
    spans = [span for name in NAMES for span in convert(body(name), NOW_US).spans]
    path = RECORDED / "with-options" / "red-totals.json"
    assert series(spans, kind) == recorded_series(path, kind)


@pytest.mark.parametrize("name", NAMES)
def test_with_options_the_lines_are_the_proxys(name: str) -> None:
    sample = make_sampler(SamplingSettings(rate=0.5))
    assert sample is not None
    spans = mapper(application_name="bookinfo")(body(name), NOW_US).spans
    kept = [span for span in spans if not sample.judge(span)]
    folder = RECORDED / "with-options"
    assert sorted(map(line, kept)) == sorted(recorded(name, "spans", folder))
    ours = [log for span in kept for log in logs(span)]
    assert in_order(ours) == in_order([*map(json.loads, recorded(name, "spanlogs", folder))])


# Odd inputs


def decoded_odd(entry: dict[str, Any]) -> Decoded:
    raw = entry["body"].encode() if "body" in entry else base64.b64decode(entry["body_base64"])
    encoding = (entry.get("headers") or {}).get("content-encoding", "")
    inflate = {"gzip": gzip.decompress, "deflate": zlib.decompress}.get(encoding, bytes)
    return exact_decode(inflate(raw), "application/json")


def was_mapped(entry: dict[str, Any]) -> bool:
    """Whether the proxy's mapping saw this; else its listener or decoder refused it."""
    broken = "empty tag key" in entry["name"] or "empty source" in entry["name"]
    return broken or (entry["status"] == 202 and bool(entry.get("lines") or entry.get("rejects")))


MAPPED_ODD = [entry for entry in ODD if was_mapped(entry)]


@pytest.mark.parametrize("entry", MAPPED_ODD, ids=lambda entry: entry["name"])
def test_odd_inputs_come_out_as_the_proxy_sent_them(entry: dict[str, Any]) -> None:
    mapped = mapper()(decoded_odd(entry), NOW_US)
    ours = [line(span) for span in mapped.spans]
    assert sorted(ours) == sorted(text for text in entry["lines"] if text.startswith('"'))
    recorded_logs = [json.loads(text) for text in entry["lines"] if text.startswith("{")]
    assert in_order([log for span in mapped.spans for log in logs(span)]) == in_order(recorded_logs)
    # What fails the proxy's batch is an answer of 400, no reject.
    rejects = [reject.detail for reject in mapped.rejects if entry["status"] == 202]
    assert rejects == entry.get("rejects", [])


@pytest.mark.parametrize("kind", ["counters", "distributions", "heartbeats"])
def test_red_counts_the_odd_inputs_as_the_proxy_did_refused_ones_included(kind: str) -> None:
    parts = [mapper()(decoded_odd(entry), NOW_US) for entry in MAPPED_ODD]
    spans = [span for part in parts for span in [*part.spans, *part.red_only]]

    def sendable(key: tuple[Any, ...]) -> bool:
        """The proxy refuses points with long pairs; the recording's reader trips over a backslash before a quote."""
        pairs = [pair for pair in key if isinstance(pair, tuple)]
        return len(str(key[0])) <= 1023 and not any(
            len(name) + len(value) >= 255 or name.endswith('"') or value.endswith(("\\", '" '))
            for name, value in pairs
        )

    ours = series(spans, kind)
    theirs = recorded_series(RECORDED / "odd-red-totals.json", kind)
    assert {key: ours[key] for key in ours if sendable(key)} == {
        key: theirs[key] for key in theirs if sendable(key)
    }


# Repairs: one deviation at a time


def only(switch: str, span: Span) -> Mapped:
    settings_ = MappingSettings(profile="wavefront-proxy")
    convert = _ProxyMapper(settings_, RedSettings(), Deviations(**{switch: True}))
    return convert(Decoded(Encoding.JSON_V2, [span]), NOW_US)


def pairs_of(span: WavefrontSpan) -> list[tuple[str, str]]:
    return [*span.head, *span.tags.items(), *span.tail]


def test_all_deviations_are_off_in_exact_mode_and_on_otherwise() -> None:
    names = {field.name for field in dataclasses.fields(Deviations)}
    assert not any(getattr(EXACT, name) for name in names)
    assert all(getattr(REPAIRED, name) for name in names)


@pytest.mark.parametrize(
    ("value", "error", "tag"),
    [
        ("false", False, "false"),
        ("FALSE ", False, "FALSE"),
        ("", True, "true"),
        (" ", True, "true"),
        ("503", True, "true"),
    ],
)
def test_error_by_meaning(value: str, error: bool, tag: str) -> None:
    for span in (
        one(span_of({"error": value})),
        *only("error_by_meaning", span_of({"error": value})).spans,
    ):
        assert (span.error, span.tags["error"]) == (error, tag)


def test_single_service() -> None:
    [span] = only("single_service", span_of({"service": "mine"})).spans
    assert [value for key, value in pairs_of(span) if key == "service"] == ["mine"]
    assert span.identity.service == "mine"


def test_reserved_keys() -> None:
    tags = {"host": "a", "spanId": "b", "traceId": "c", "SOURCE": "d", "_host": "e"}
    mapped = only("reserved_keys", span_of(tags))
    found = pairs_of(mapped.spans[0])
    for pair in [
        ("_host", "a"),
        ("_spanId", "b"),
        ("_traceId", "c"),
        ("_SOURCE", "d"),
        ("_host", "e"),
    ]:
        assert pair in found
    assert mapped.repairs == {"key_changed": 4}


def test_odd_keys() -> None:
    mapped = only("odd_keys", span_of({"": "a", "12": "b"}))
    assert not mapped.spans, "the span with the empty key still fails its batch"
    mapped = many([span_of({"": "a", "12": "b"})])
    assert mapped.spans[0].tags.items() >= {("_", "a"), ("_12", "b")}
    assert mapped.repairs == {"key_changed": 2}


@pytest.mark.parametrize(
    "value", ["C:\\", "\\\\", "x" * 127 + "\\", "x" * 128 + "\\y", "x" * 127 + "\\\\"]
)
def test_trailing_backslash(value: str) -> None:
    for mapped in (
        only("trailing_backslash", span_of({"w": value})),
        many([span_of({"w": value})]),
    ):
        got = mapped.spans[0].tags["w"]
        assert not got.endswith("\\")
        assert len(got) <= 128
        if value != "x" * 128 + "\\y":
            assert mapped.repairs is not None
            assert mapped.repairs["trailing_backslash"] == 1
    assert only("trailing_backslash", span_of(name="get\\")).spans[0].name == "get\\."


@pytest.mark.parametrize(
    ("switch", "start_us", "kind"),
    [
        ("missing_start", None, "no_timestamp"),
        ("missing_start", 0, "no_timestamp"),
        ("missing_start", -5, "no_timestamp"),
        ("past_start", 1_700_000_000_123, "past_start"),
        ("future_start", NOW_US + 86_400_000_000 + 1_000, "future_start"),
    ],
)
def test_an_implausible_start_becomes_arrival_minus_duration(
    switch: str, start_us: int | None, kind: str
) -> None:
    for mapped in (
        only(switch, span_of(timestamp_us=start_us)),
        many([span_of(timestamp_us=start_us)]),
    ):
        [span] = mapped.spans
        assert (span.start_ms, span.duration_ms) == ((NOW_US - 4_999) // 1000, 4)
        assert mapped.repairs == {kind: 1}


def test_a_start_24_hours_ahead_is_kept() -> None:
    start_us = NOW_US + 86_400_000_000
    assert one(span_of(timestamp_us=start_us)).start_ms == start_us // 1000


@pytest.mark.parametrize("start_us", [START_US, None])
def test_impossible_duration(start_us: int | None) -> None:
    mapped = many([span_of(duration_us=2_700_000_000_123_456, timestamp_us=start_us)])
    [span] = mapped.spans
    assert (span.duration_ms, span.duration_us) == (0, 0)
    assert span.start_ms == (start_us or NOW_US) // 1000
    assert mapped.repairs is not None
    assert mapped.repairs["duration"] == 1


def test_blank_is_absent() -> None:
    span = span_of({"source": "", "w": "\x01"}, name=" ", local=Endpoint("\t"))
    mapped = many([span])
    assert (mapped.spans[0].name, mapped.spans[0].source) == ("defaultOperation", "zipkin")
    assert mapped.spans[0].identity.service == "defaultService"
    assert "w" not in mapped.spans[0].tags
    assert mapped.repairs == {"blank_value": 4}


@pytest.mark.parametrize(("length", "repairs"), [(128, {}), (129, {"value_cut": 1})])
def test_a_value_of_as_many_characters_as_may_be_is_not_cut(
    length: int, repairs: dict[str, int]
) -> None:
    mapped = only("whole_characters", span_of({"k": "\u00e9" * length}))
    [span] = mapped.spans
    assert (span.tags["k"], mapped.repairs or {}) == ("\u00e9" * 128, repairs)


def test_cut_not_refused() -> None:
    mapped = only("cut_not_refused", span_of({"k" * 200: "v", "source": "s" * 200}, name="n" * 200))
    [span] = mapped.spans
    assert (span.name, span.source) == ("n" * 128, "s" * 128)
    assert span.tags["k" * 128] == "v"
    assert mapped.repairs == {"name_cut": 1, "source_cut": 1, "key_changed": 1}


def test_keys_that_become_the_same_by_the_cut_are_both_kept() -> None:
    span = one(span_of({"k" * 129: "a", "k" * 130: "b"}))
    assert [value for key, value in pairs_of(span) if key == "k" * 128] == ["a", "b"]


def test_tag_budget_spares_what_the_pages_are_built_on() -> None:
    tags = {f"a{index:02}": "v" for index in range(60)} | {"http.status_code": "200", "error": "1"}
    mapped = many([span_of(tags)])
    [span] = mapped.spans
    assert mapped.repairs == {"tag_budget": 21}
    assert {"a00", "error", "http.status_code"} <= span.tags.keys()
    assert "a59" not in span.tags


def test_whole_characters() -> None:
    value = "k" * 127 + "\U0001f680"
    [span] = only("whole_characters", span_of({"w": value})).spans
    assert span.tags["w"] == "k" * 127
    assert span.oversize == {"w": value}
    assert one(span_of({"w": value}), exact=True).tags["w"] == "k" * 127 + "?"


def test_kind_without_endpoint() -> None:
    bare = Span("463ac35c9f6413ad", "a2fb4a1d1a96d312", kind="CLIENT", timestamp_us=START_US)
    assert only("kind_without_endpoint", bare).spans[0].kind == "client"
    assert one(bare, exact=True).kind == ""
    proto = mapper()(Decoded(Encoding.PROTO3, [bare]), NOW_US)
    assert proto.spans[0].kind == "client"


@pytest.mark.parametrize("tags", [{"∆": "x"}, {"Δ": "x"}, {"source": "∆"}])
def test_a_lone_delta_sign_breaks_a_batch_that_does_not_survive(tags: dict[str, str]) -> None:
    batch = [span_of(), span_of(tags), span_of()]
    exact = many(batch, exact=True)
    assert (len(exact.spans), len(exact.rejects), exact.broken is None) == (1, 2, False)
    assert len(many(batch).spans) == 3
    assert not many([span_of({"∆": " ", "a": "∆", "~": "x", "∆~": "x"})], exact=True).rejects


def test_batch_survives() -> None:
    batch = [span_of(), span_of({"": "x"}), span_of()]
    exact = many(batch, exact=True)
    assert (len(exact.spans), len(exact.rejects), exact.red_only) == (1, 2, [])
    assert len(many(batch).spans) == 3


# Options


def test_span_logs_can_be_left_out() -> None:
    span = span_of({"w": "x" * 200}, annotations=[Annotation(START_US, "ss")])
    for exact in (True, False):
        without = one(span, exact=exact, span_logs="none")
        assert (without.logs, without.oversize) == (None, None)
        assert dict(without.head)["_spanSecondaryId"] == "server"
        with_logs = one(span, exact=exact)
        assert with_logs.logs == span.annotations
        assert with_logs.oversize == {"w": "x" * 200}


def test_red_dimensions_may_be_the_mappings_own_tags() -> None:
    convert = mapper(red_tags=("ipv4", "parent", "component", "guid-x-request-id"))
    tags = {"component": "proxy", "guid:x-request-id": "1"}
    span = span_of(tags, parent_id="00000000000000aa")
    [result] = convert(Decoded(Encoding.JSON_V2, [span]), NOW_US).spans
    parent = "00000000-0000-0000-0000-0000000000aa"
    assert result.red_tags == (("ipv4", "10.1.2.3"), ("parent", parent), ("guid-x-request-id", "1"))


def test_entry_counts_leave_out_client_spans_that_a_server_counts() -> None:
    convert = make_wavefront_proxy_mapper(
        MappingSettings(profile="wavefront-proxy"), RedSettings(spans="entry")
    )

    def counted(**fields: Any) -> bool:
        return convert(Decoded(Encoding.JSON_V2, [span_of(**fields)]), NOW_US).spans[0].red

    parent = "00000000000000aa"
    assert counted(kind="SERVER", parent_id=parent)
    assert counted(kind="CLIENT")
    assert not counted(kind="CLIENT", parent_id=parent)
    assert counted(kind="CLIENT", parent_id=parent, tags={"response_flags": "UF,URX"})
    assert not counted(kind="CLIENT", parent_id=parent, tags={"response_flags": "UT", "debug": "1"})


# Anything at all

KEYS = (
    st.sampled_from(["component", "error", "service", "source", "Source", "host", "application"])
    | st.sampled_from(["cluster", "shard", "debug", "http.status_code", "HTTP.Status_Code", "ipv4"])
    | st.sampled_from(["zipkinTraceId", "span.kind", "_spanLogs", "_spanSecondaryId", "parent"])
    | st.sampled_from(["spanId", "_spanId", "k" * 130, "a:b", "a-b", "12", ""])
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
)
TEXTS = (
    st.sampled_from(
        ["", " ", "x", "true", "false", "\\", 'a"b', "x" * 128, "x" * 129, "\n", "\u3000"]
    )
    | st.sampled_from(["y" * 127 + "\U0001f680", "y" * 127 + "\\z", " x ", "\x01"])
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
)
MAYBE = st.none() | TEXTS
SPANS = st.builds(
    Span,
    trace_id=st.sampled_from(["463ac35c9f6413ad", "0" * 16 + "463ac35c9f6413ad", "f" * 32]),
    span_id=st.just("a2fb4a1d1a96d312"),
    parent_id=st.sampled_from([None, "00000000000000aa"]),
    kind=st.sampled_from([None, "CLIENT", "SERVER"]),
    name=MAYBE,
    timestamp_us=st.sampled_from([None, -1, 0, 1, START_US, NOW_US, NOW_US * 2, 2**63 - 1]),
    duration_us=st.sampled_from([None, -1, 0, 999, 4_999, NOW_US, 2**63 - 1]),
    local=st.none() | st.builds(Endpoint, MAYBE, st.sampled_from([None, "1.2.3.4", "x"])),
    annotations=st.none() | st.lists(st.builds(Annotation, st.integers(0, 3), TEXTS), max_size=3),
    tags=st.none() | st.dictionaries(KEYS, TEXTS, max_size=12),
    debug=st.sampled_from([None, False, True]),
)


@settings(deadline=None, max_examples=300)
@given(st.lists(SPANS, max_size=3))
def test_repaired_spans_keep_every_limit_and_none_is_lost(spans: list[Span]) -> None:
    mapped = many(spans)
    assert not mapped.rejects
    assert len(mapped.spans) == len(spans)
    for span in mapped.spans:
        found = pairs_of(span)
        count = len(found) + (span.parent_id is not None)
        assert count + (span.logs is not None or span.oversize is not None) <= 50
        for key, value in found:
            assert 0 < len(naming.clean_key(key)) <= 128
            assert key not in {"host", "source", "spanId", "traceId"}
            assert not (key.isascii() and key.isdigit())
            assert value.strip("\t\n\r ")
            assert naming.length(value) <= 128
            assert not value.endswith("\\")
            assert "\n" not in value
        assert len([key for key, _ in found if key == "service"]) == 1
        assert span.name
        assert naming.length(span.name) <= 128
        assert not span.name.endswith("\\")
        assert 0 < len(span.source) <= 128
        assert 1_000_000_000_000 <= span.start_ms <= NOW_US // 1000 + 86_400_000
        assert 0 <= span.duration_ms < span.start_ms


@settings(deadline=None, max_examples=300)
@given(st.lists(SPANS, max_size=3), st.booleans())
def test_the_short_cut_is_the_rules_for_anything(spans: list[Span], exact: bool) -> None:
    rules = mapper(exact=exact)
    rules._short_cut = False
    decoded = Decoded(Encoding.JSON_V2, spans)
    short, long = mapper(exact=exact)(decoded, NOW_US), rules(decoded, NOW_US)
    for span in short.spans:
        span.plain = False
    assert short == long
    assert len(short.spans) + len(short.rejects) == len(spans)


def test_memo_tables_are_bounded() -> None:
    convert = mapper()
    for index in range(limits.MEMO_ENTRIES_MAX + 10):
        span = span_of({f"k{index}": "v"}, name=f"n{index}", local=Endpoint(f"s{index}"))
        convert(Decoded(Encoding.JSON_V2, [span]), NOW_US)
    for table in (convert._shapes, convert._names, convert._workloads, convert._maker._heads):
        assert len(table) <= limits.MEMO_ENTRIES_MAX
