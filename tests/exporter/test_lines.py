"""The four formats: what is written is what independent readers understand, for any input."""

import json
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import NOW_US, envoy_bodies, read_spans, sidecar_span
from tracefwd import naming
from tracefwd.emulator.metric_reader import MetricReader
from tracefwd.emulator.rules import Limits
from tracefwd.emulator.span_log_reader import SpanLogReader
from tracefwd.emulator.span_reader import SpanReader, parse_span
from tracefwd.exporter.lines import LineWriter
from tracefwd.model import (
    Annotation,
    Centroids,
    Decoded,
    Encoding,
    Endpoint,
    Heartbeat,
    Identity,
    Payload,
    RedKey,
    RedPoint,
    Signal,
    Span,
    WavefrontSpan,
)
from tracefwd.processor.istio import make_istio_mapper
from tracefwd.settings import MappingSettings, RedSettings

NOW_MS = NOW_US // 1000
SPANS = SpanReader(Limits(), samples=True)
METRICS = MetricReader(Limits())


def mapped(*spans: Span, mapping: MappingSettings | None = None) -> list[WavefrontSpan]:
    mapper = make_istio_mapper(mapping or MappingSettings(), RedSettings())
    return mapper(Decoded(Encoding.JSON_V2, list(spans)), NOW_US).spans


def text_lines(payloads: Sequence[Payload], signal: Signal) -> list[str]:
    data = b"".join(payload.data for payload in payloads if payload.signal == signal)
    lines = data.decode().split("\n")
    assert lines[-1] == ""
    assert len(lines) - 1 == sum(payload.items for payload in payloads if payload.signal == signal)
    return lines[:-1]


def all_tags(span: WavefrontSpan) -> list[tuple[str, str]]:
    pairs = [*span.head, *span.tags.items(), *span.tail]
    if span.parent_id is not None:
        pairs.append(("parent", naming.uuid(span.parent_id)))
    return sorted((naming.clean_key(key), value.replace("\n", "\\n")) for key, value in pairs)


def assert_read_back(line: str, span: WavefrontSpan) -> None:
    SPANS.read(line, NOW_MS)
    read, named_source = parse_span(line)
    assert named_source
    assert read.name == span.name.replace("\n", "\\n")
    assert read.source == span.source
    assert (read.trace_id, read.span_id) == (naming.uuid(span.trace_id), naming.uuid(span.span_id))
    assert (read.start_ms, read.duration_ms) == (span.start_ms, span.duration_ms)
    assert sorted(read.tags) == all_tags(span)


# Spans


def test_every_real_span_is_read_back_as_it_was_mapped() -> None:
    writer = LineWriter()
    for path in envoy_bodies():
        spans = mapped(*read_spans(path).spans)
        for line, span in zip(text_lines(writer.write(spans), Signal.SPANS), spans, strict=True):
            tags = all_tags(span)
            read, _ = parse_span(line)
            if span.logs:
                tags = sorted([*tags, ("_spanLogs", "true")])
            assert sorted(read.tags) == tags
            SPANS.read(line, NOW_MS)


TEXT = st.text(max_size=150)


@settings(deadline=None, max_examples=200)
@given(
    tags=st.dictionaries(TEXT, TEXT | st.text('"\\\n\r=# \x04é😀', max_size=20), max_size=20),
    name=TEXT,
    service=TEXT,
    parent=st.sampled_from([None, "00000000000000aa"]),
    kind=st.sampled_from([None, "CLIENT", "SERVER"]),
    trace_id=st.sampled_from(["ab" * 8, "0123456789abcdef" * 2]),
    duration_us=st.integers(0, 10**10),
)
def test_any_mapped_span_is_read_back_by_the_stand_in(
    tags: dict[str, str],
    name: str,
    service: str,
    parent: str | None,
    kind: str | None,
    trace_id: str,
    duration_us: int,
) -> None:
    local = Endpoint(service)
    span = Span(trace_id, "cd" * 8, parent, kind, name, NOW_US, duration_us, local, tags=tags)
    (made,) = mapped(span)
    (line,) = text_lines(LineWriter().write([made]), Signal.SPANS)
    assert_read_back(line, made)


def test_the_vendors_formatter_writes_what_ours_is_read_as() -> None:
    utils = pytest.importorskip(
        "wavefront_sdk.common.utils",
        reason="the vendor's SDK is not installed (one of its dependencies needs a C compiler)",
        exc_type=ImportError,
    )
    for path in envoy_bodies():
        spans = mapped(*read_spans(path).spans)
        for line, span in zip(
            text_lines(LineWriter().write(spans), Signal.SPANS), spans, strict=True
        ):
            theirs = utils.tracing_span_to_line_data(
                span.name, span.start_ms, span.duration_ms, span.source,
                naming.uuid(span.trace_id), naming.uuid(span.span_id),
                None if span.parent_id is None else [naming.uuid(span.parent_id)],
                None, [*span.head, *span.tags.items(), *span.tail], span.logs, "none",
            )  # fmt: skip
            mine, _ = parse_span(line)
            other, _ = parse_span(theirs.rstrip("\n"))
            assert (mine.name, mine.source, mine.trace_id, mine.span_id) == (
                other.name, other.source, other.trace_id, other.span_id,
            )  # fmt: skip
            assert (mine.start_ms, mine.duration_ms) == (other.start_ms, other.duration_ms)
            # The SDK escapes line feeds in the same way, and drops exact doubles.
            assert sorted(set(mine.tags)) == sorted(set(other.tags))


def test_an_old_proxy_gets_neither_span_logs_nor_their_tag() -> None:
    spans = mapped(sidecar_span(annotations=[Annotation(1, "wait")]))
    new, old = LineWriter().write(spans), LineWriter(span_logs=False).write(spans)
    assert len(text_lines(new, Signal.SPAN_LOGS)) == 1
    assert '"_spanLogs"="true"' in text_lines(new, Signal.SPANS)[0]
    assert [payload.signal for payload in old] == [Signal.SPANS]
    assert "_spanLogs" not in text_lines(old, Signal.SPANS)[0]


def test_lines_over_a_targets_limit_are_counted_not_sent() -> None:
    spans = mapped(sidecar_span(), sidecar_span(tags={f"k{n}": "v" * 120 for n in range(30)}))
    (payload,) = LineWriter(line_bytes_max=4_096).write(spans)
    assert (payload.items, payload.unsendable) == (1, 1)
    assert payload.data.count(b"\n") == 1


# Span logs


@pytest.mark.parametrize("direct", [True, False])
def test_span_logs_suit_their_target(direct: bool) -> None:
    """Direct ingestion wants the mark of sampling; a proxy's trace port refuses a log that has one."""
    options = MappingSettings(long_values="span_log")
    spans = mapped(
        sidecar_span(annotations=[Annotation(17, 'say "hi"\n')], tags={"long": "x" * 200}),
        mapping=options,
    )
    lines = text_lines(LineWriter(sampled_mark=direct).write(spans), Signal.SPAN_LOGS)
    reader = SpanLogReader(Limits(), policy_member=True) if direct else SpanLogReader(Limits())
    for line in lines:
        reader.read(line, NOW_MS)
    first, second = (json.loads(line) for line in lines)
    assert first["logs"] == [{"timestamp": 17, "fields": {"annotation": 'say "hi"\n'}}]
    assert second["logs"] == [{"timestamp": -1, "fields": {"long": "x" * 200}}]
    assert first["traceId"] == naming.uuid(spans[0].trace_id)
    assert ("span" in first) is ("span" in second) is direct


# RED


IDENTITY = Identity("bookinfo", "reviews", "Kubernetes", "v1", "proxy", "reviews")


def point(identity: Identity = IDENTITY, operation: str = "GET /x", **changes: object) -> RedPoint:
    values: dict[str, object] = {
        "invocations": 5,
        "errors": 2,
        "millis": 17,
        "good": [Centroids(60, [(2, 3_000), (1, 9_999)])],
        "bad": [Centroids(60, [(2, 7)])],
    }
    key = RedKey(identity, operation, "server", "200", (("zone", "z1"),))
    return RedPoint(key, **{**values, **changes})  # type: ignore[arg-type]


def test_red_has_the_vendors_names_tags_and_kinds() -> None:
    payloads = LineWriter().write_red([point()], 1_700_000_000)
    counters = [METRICS.read_point(line, NOW_MS) for line in text_lines(payloads, Signal.POINTS)]
    stem = "∆tracing.derived.bookinfo.reviews.GET--x"
    assert [(read.name, read.value) for read in counters] == [
        (f"{stem}.invocation.count", 5),
        (f"{stem}.error.count", 2),
        (f"{stem}.total_time.millis.count", 17),
    ]
    expected = {
        "application": "bookinfo",
        "service": "reviews",
        "cluster": "Kubernetes",
        "shard": "v1",
        "component": "proxy",
        "operationName": "GET /x",
        "span.kind": "server",
        "http.status_code": "200",
        "zone": "z1",
    }
    assert dict(counters[0].tags) == expected
    assert counters[0].source == "reviews"
    good, bad = (
        METRICS.read_distribution(line, NOW_MS)
        for line in text_lines(payloads, Signal.DISTRIBUTIONS)
    )
    assert good.name == bad.name == "tracing.derived.bookinfo.reviews.GET--x.duration.micros"
    assert (good.count, good.sum) == (3, 12_999)
    assert dict(good.tags) == expected
    assert dict(bad.tags) == {**expected, "error": "true"}


def test_zeros_are_not_sent() -> None:
    payloads = LineWriter().write_red([point(errors=0, millis=0, good=[], bad=[])], 1_700_000_000)
    assert len(text_lines(payloads, Signal.POINTS)) == 1
    assert text_lines(payloads, Signal.DISTRIBUTIONS) == []


def test_the_java_reporter_has_its_own_source_and_says_the_series_as_a_tag() -> None:
    payloads = LineWriter(reporter="zipkin").write_red([point()], 1_700_000_000)
    line = text_lines(payloads, Signal.POINTS)[0]
    assert ' source="zipkin" ' in line
    assert ' "source"="reviews"' in line


def test_blank_identities_have_the_vendors_stand_ins() -> None:
    blank = Identity(" ", "", "none", "none", "none", "")
    (line, *_) = text_lines(LineWriter().write_red([point(blank, " ")], 1), Signal.POINTS)
    tags = dict(METRICS.read_point(line, NOW_MS).tags)
    assert (tags["application"], tags["service"], tags["operationName"]) == (
        "unknown_application",
        "unknown_service",
        "unknown_operation",
    )
    assert METRICS.read_point(line, NOW_MS).source == "unknown_source"


@pytest.mark.parametrize("value", ["\xa0", "\x85", "\u2007", "\u202f"])
def test_what_java_does_not_call_blank_is_a_value(value: str) -> None:
    """As seen of the proxy: its own RED says it, and its port takes it."""
    odd = IDENTITY._replace(service=value)
    payloads = LineWriter().write_red([point(odd)], 1)
    payloads += LineWriter().write_heartbeats([Heartbeat(odd, "server", "", ())], 1)
    assert all(f' "service"="{value}" ' in line for line in text_lines(payloads, Signal.POINTS))
    blank = LineWriter().write_red([point(odd._replace(service="\u2003"))], 1)
    assert '"service"="unknown_service"' in text_lines(blank, Signal.POINTS)[0]


def test_a_name_is_what_the_back_end_takes_unless_the_proxys_own_ways_are_wanted() -> None:
    long = point(identity=IDENTITY._replace(application="~" + "a" * 120), operation="x" * 128)
    for reporter in ("", "zipkin"):
        lines = text_lines(LineWriter(reporter=reporter).write_red([long], 1), Signal.POINTS)
        names = [METRICS.read_point(line, NOW_MS).name for line in lines]
        assert [name.rpartition(".")[2] for name in names] == ["count"] * 3
    proxy = LineWriter(reporter="zipkin", as_the_proxy=True).write_red([long], 1)
    assert f"∆tracing.derived.~{'a' * 120}." in text_lines(proxy, Signal.POINTS)[0]


def test_an_eot_that_would_cost_the_line_is_not_sent() -> None:
    odd = IDENTITY._replace(service="a\x04b", source="s\x04")
    payloads = LineWriter().write_red([point(odd, "op\x04")], 1)
    payloads += LineWriter().write_heartbeats([Heartbeat(odd, "server", "", ())], 1)
    assert payloads
    assert not any(b"\x04" in payload.data for payload in payloads)


def test_more_point_tags_than_the_back_end_takes_are_counted_not_sent() -> None:
    def with_tags(count: int) -> RedPoint:
        key = RedKey(IDENTITY, "op", "server", "200", tuple((f"k{n}", "v") for n in range(count)))
        return point()._replace(key=key)

    for reporter, own in (("", 9), ("zipkin", 10)):  # with "error"
        writer = LineWriter(reporter=reporter)
        assert writer.write_red([with_tags(20 - own)], 1)[-1].unsendable == 0
        assert writer.write_red([with_tags(21 - own)], 1)[-1].unsendable == 1
    as_the_proxy = LineWriter(as_the_proxy=True)
    assert as_the_proxy.write_red([with_tags(30)], 1)[-1].unsendable == 0


def test_points_have_a_limit_of_their_own_over_tcp() -> None:
    many = point(good=[Centroids(60, [(1, n) for n in range(1, 1_000)])], bad=[])
    points, distributions = LineWriter(point_line_bytes_max=4_096).write_red([many], 1)
    assert (points.items, points.unsendable) == (3, 0)
    assert (distributions.items, distributions.unsendable) == (0, 1)


def test_a_pair_that_every_wavefront_refuses_is_counted_not_sent() -> None:
    (payload,) = LineWriter().write_red([point(operation="x" * 300)], 1)
    assert (payload.items, payload.unsendable) == (0, 1)


@settings(deadline=None)
@given(
    names=st.lists(
        st.text(st.characters(codec="utf-8"), min_size=1, max_size=128), min_size=3, max_size=3
    ),
    bins=st.lists(st.tuples(st.integers(1, 10**9), st.integers(0, 2**62)), min_size=1, max_size=30),
)
def test_any_series_of_the_istio_profile_is_taken_with_its_exact_sum(
    names: list[str], bins: list[tuple[int, int]]
) -> None:
    spans = mapped(sidecar_span(name=names[0], tags={"application": names[1], "service": names[2]}))
    identity = spans[0].identity
    red = point(identity, spans[0].name, good=[Centroids(60, bins)], bad=[])
    payloads = LineWriter().write_red([red], 1_700_000_000)
    for line in text_lines(payloads, Signal.POINTS):
        METRICS.read_point(line, NOW_MS)
    (line,) = text_lines(payloads, Signal.DISTRIBUTIONS)
    read = METRICS.read_distribution(line, NOW_MS)
    assert read.count == sum(count for count, _ in bins)
    assert read.sum == pytest.approx(sum(total for _, total in bins), rel=1e-9)


def test_a_heartbeat_that_the_back_end_refuses_is_counted_not_sent() -> None:
    beats = [
        Heartbeat(IDENTITY, "server", "200", tuple((f"k{n}", "v") for n in range(13 + more)))
        for more in (0, 1)
    ]
    beats.append(Heartbeat(IDENTITY._replace(service="s" * 300), "server", "200", ()))
    (payload,) = LineWriter().write_heartbeats(beats, 1_700_000_000)
    assert (payload.items, payload.unsendable) == (2, 4)


def test_heartbeats_beat_under_their_own_and_the_protocols_name() -> None:
    beat = Heartbeat(IDENTITY, "server", "200", ())
    (payload,) = LineWriter().write_heartbeats([beat, beat], 1_700_000_000)
    reads = [METRICS.read_point(line, NOW_MS) for line in text_lines([payload], Signal.POINTS)]
    assert [read.name for read in reads] == ["~component.heartbeat"] * 2
    assert {dict(read.tags)["component"] for read in reads} == {"proxy", "zipkin"}
    assert all("operationName" not in dict(read.tags) for read in reads)
