"""Comparing recordings: nothing where nothing differs, and words for what does."""

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import ENVOY, JAVA_PROXY, NOW_US, envoy_bodies
from tracefwd.compose import make_parts, make_writer
from tracefwd.emulator.rules import Refused
from tracefwd.emulator.server import Emulator, EmulatorSettings
from tracefwd.emulator.span_reader import parse_span
from tracefwd.errors import ConfigError
from tracefwd.exporter.lines import LineWriter
from tracefwd.model import Centroids, Heartbeat, Identity, RedKey, RedPoint, Signal
from tracefwd.processor import sketch
from tracefwd.processor.red import RedAggregator
from tracefwd.service import cli, diff
from tracefwd.service.diff_lines import read_span
from tracefwd.service.diff_recording import Recording, load, of_lines
from tracefwd.service.diff_report import Report
from tracefwd.service.diff_series import bounds
from tracefwd.settings import (
    ExporterSettings,
    MappingSettings,
    RedSettings,
    Settings,
    TargetSettings,
)

DIRECT = TargetSettings(kind="direct", url="https://example.wavefront.com", token_file="t")
EXACT = Settings(
    mapping=MappingSettings(profile="wavefront-proxy", exact=True),
    exporter=ExporterSettings(targets=[DIRECT]),
)
RECORDINGS = sorted(JAVA_PROXY.rglob("*.txt"))
TOTALS = sorted(JAVA_PROXY.rglob("*red-totals*.json"))
TRACE = "463ac35c-9f64-13ad-4848-5a3953bb6124"
TAGS = {"service": "reviews", "application": "Zipkin", "span.kind": "server"}


def lines_of(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").split("\n") if line]


def line(
    *more: tuple[str, str],
    span_id: str = "00000000-0000-0000-a2fb-4a1d1a96d312",
    trace_id: str = TRACE,
    name: str = "get",
    source: str = "zipkin",
    start: int = 1_795_352_647_594,
    duration: int = 5,
    **changes: str | None,
) -> str:
    """A span line; ``changes`` are tags that replace or (None) leave out the usual ones, ``more`` are added."""
    tags = {**TAGS, **{key.replace("__", "."): value for key, value in changes.items()}}
    pairs = [(key, value) for key, value in tags.items() if value is not None]
    text = "".join(f' "{key}"="{value}"' for key, value in [*pairs, *more])
    ids = f'spanId="{span_id}" traceId="{trace_id}"'
    return f'"{name}" source="{source}" {ids}{text} {start} {duration}'


def log(*entries: str, **members: Any) -> str:
    ids = {"traceId": TRACE, "spanId": "00000000-0000-0000-a2fb-4a1d1a96d312"}
    logs = [{"timestamp": 17, "fields": {"annotation": entry}} for entry in entries]
    return json.dumps(
        {**ids, "spanSecondaryId": "server", "logs": logs, **members}, separators=(",", ":")
    )


def compared(a: list[str], b: list[str]) -> Report:
    return diff.compare(of_lines("a", a), of_lines("b", b))


def found(report: Report) -> list[tuple[str, str, str]]:
    return [(key.signal, key.field, key.change) for key, _ in report.sorted_kinds()]


def only_kind(a: str, b: str) -> tuple[str, str, str]:
    """Field, change and explanation; both ways round come to the same."""
    [(key, _)] = compared([a], [b]).sorted_kinds()
    [(back, _)] = compared([b], [a]).sorted_kinds()
    assert (back.field, back.why) == (key.field, key.why)
    return key.field, key.change, key.why


# Equal


@pytest.mark.parametrize(
    "path", RECORDINGS + TOTALS, ids=lambda path: str(path.relative_to(JAVA_PROXY))
)
def test_a_recording_equals_itself(path: Path) -> None:
    recording = load(str(path))
    assert sum(recording.shown().values()) > 0 or not path.read_text()
    assert not recording.unreadable
    report = diff.compare(recording, load(str(path)))
    assert report.is_equal
    assert not report.notes


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: str(path.relative_to(JAVA_PROXY)))
def test_every_recorded_line_is_understood_as_what_it_is(path: Path) -> None:
    recording = load(str(path))
    wanted = recording.spans if ".spans." in path.name else recording.span_logs
    assert len(wanted) == len(lines_of(path)) == sum(recording.shown().values())


@given(seed=st.integers(0, 2**32), path=st.sampled_from(RECORDINGS))
@settings(deadline=None, max_examples=25)
def test_order_of_lines_and_of_different_tags_means_nothing(seed: int, path: Path) -> None:
    chance = random.Random(seed)
    mixed = []
    for text in lines_of(path):
        if text.startswith("{"):
            log = json.loads(text)
            members = list(log.items())
            chance.shuffle(members)
            mixed.append(json.dumps(dict(members)))
            continue
        span = parse_span(text)[0]
        # A key's values stay in their order.
        places = {key: chance.random() for key, _ in span.tags}
        tags = sorted(span.tags, key=lambda pair: places[pair[0]])
        pairs = [(key, value.replace('"', '\\"')) for key, value in tags]
        rendered = "".join(f' "{key}"="{value}"' for key, value in pairs)
        name = span.name.replace('"', '\\"')
        mixed.append(
            f'"{name}" source="{span.source}" spanId="{span.span_id}" traceId="{span.trace_id}"'
            f"{rendered} {span.start_ms} {span.duration_ms}"
        )
    chance.shuffle(mixed)
    assert compared(lines_of(path), mixed).is_equal


def converted(paths: list[Path], profile: Settings) -> list[str]:
    """The lines that ``convert`` prints and ``run`` sends: the same parts."""
    parts, writer = make_parts(profile), make_writer(DIRECT, profile)
    rendered = b""
    for path in paths:
        spans = parts.mapper(parts.decode(path.read_bytes(), ""), NOW_US).spans
        rendered += b"".join(payload.data for payload in writer.write(spans))
    return rendered.decode().split("\n")


@pytest.mark.parametrize("kind", ["json", "proto"])
def test_exact_conversion_for_direct_ingestion_is_what_the_java_proxy_sent(kind: str) -> None:
    bodies = envoy_bodies(kind)
    recorded: list[str] = []
    for path in bodies:
        place = JAVA_PROXY / path.relative_to(ENVOY)
        for suffix in (".spans.txt", ".spanlogs.txt"):
            file = place.with_suffix(suffix)
            recorded += lines_of(file) if file.exists() else []
    report = compared(recorded, converted(bodies, EXACT))
    assert report.shown()["kinds"] == []
    assert report.tallies["spans"].equal == (300 if kind == "json" else 41)
    assert report.tallies["span_logs"].equal > 30


def test_red_of_the_exact_profile_is_what_the_java_proxy_derived() -> None:
    parts, writer = make_parts(EXACT), make_writer(DIRECT, EXACT)
    assert parts.red is not None
    for path in envoy_bodies("json"):
        spans = parts.mapper(parts.decode(path.read_bytes(), ""), NOW_US).spans
        parts.red.observe(spans, NOW_US // 1_000_000)
    now_s = NOW_US // 1_000_000 + 60
    drained = list(parts.red.drain(now_s))
    payloads = [
        *writer.write_red([one for one in drained if isinstance(one, RedPoint)], now_s),
        *writer.write_heartbeats([one for one in drained if isinstance(one, Heartbeat)], now_s),
    ]
    ours = b"".join(payload.data for payload in payloads).decode().split("\n")
    report = diff.compare(load(str(JAVA_PROXY / "red-totals.json")), of_lines("ours", ours))
    assert report.shown()["kinds"] == []
    assert report.tallies["delta_counters"].equal > 50
    assert report.tallies["distributions"].equal > 20
    assert report.tallies["heartbeats"].equal > 20


# Reading


@pytest.mark.parametrize(
    "path", [path for path in RECORDINGS if ".spans." in path.name], ids=lambda path: path.name
)
def test_the_short_cut_reads_as_the_stand_in_does(path: Path) -> None:
    for text in lines_of(path):
        assert read_span(text) == parse_span(text)[0]


ODD_TEXT = st.lists(st.sampled_from([*"ab1 =#\"'\\\0\n.é😀", '\\"', '" "', '"="']), max_size=6).map(
    "".join
)


@given(
    parts=st.lists(st.tuples(ODD_TEXT, ODD_TEXT), max_size=4),
    name=ODD_TEXT,
    source=ODD_TEXT,
    times=st.sampled_from(
        ["1795352647594 5", "0 5", "17 4", "1795352647594 1795352647600", "5", "x y", "1 2 3"]
    ),
)
@settings(deadline=None, max_examples=400)
def test_the_short_cut_never_disagrees(
    parts: list[tuple[str, str]], name: str, source: str, times: str
) -> None:
    text = line(*parts, name=name, source=source).rsplit(" ", 2)[0] + f" {times}"
    try:
        expected = parse_span(text)[0]
    except Refused:
        with pytest.raises(Refused):
            read_span(text)
    else:
        assert read_span(text) == expected


@pytest.mark.parametrize(
    ("text", "signal"),
    [
        (line(), "spans"),
        ('get source=a spanId="b" traceId="c" 1 2', "spans"),
        (log("cs"), "span_logs"),
        ('"∆a.count" 3 1795352647 source="s" "k"="v"', "delta_counters"),
        ("a.gauge 1.5 source=s", "points"),
        ('"~component.heartbeat" 1 source="s" "service"="a"', "heartbeats"),
        ('!M 1795352640 #2 5.5 "a.micros" source="s"', "distributions"),
        ("!M nothing", "unreadable"),
        ('"∆a.count" -3 source="s"', "unreadable"),
    ],
)
def test_lines_of_all_kinds_may_be_mixed(text: str, signal: str) -> None:
    assert {key for key, count in of_lines("x", [text]).shown().items() if count} == {signal}


def test_what_the_stand_in_recorded_is_read_with_its_verdicts(tmp_path: Path) -> None:
    rows = [
        {"signal": "spans", "line": line(), "verdict": "accepted", "port": "trace"},
        {"signal": "points", "line": '"∆c" 1 source="s"', "verdict": "accepted", "port": "metrics"},
        {
            "signal": "spans",
            "line": "x",
            "verdict": "rejected",
            "port": "trace",
            "reason": "syntax",
        },
    ]
    path = tmp_path / "record.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    recording = load(str(path))
    assert recording.spans == [line()]
    assert recording.refused == {("spans", "syntax"): 1}
    report = diff.compare(recording, of_lines("plain", [line(), '"∆c" 1 source="s"']))
    assert found(report) == [("spans", "refused lines", "another number")]


def test_a_file_that_is_not_utf_8_is_still_compared(tmp_path: Path) -> None:
    path = tmp_path / "bytes.txt"
    path.write_bytes(line(user_agent="a\udcffb").encode("utf-8", "surrogateescape") + b"\r\n")
    (tmp_path / "log.txt").write_bytes(log("x").encode()[:-2] + b"\xff\n" + path.read_bytes())
    assert diff.compare(load(str(path)), load(str(path))).is_equal
    report = diff.compare(load(str(path)), load(str(tmp_path / "log.txt")))
    assert found(report) == [("span_logs", "unreadable line", "only in B")]


# Spans


@pytest.mark.parametrize(
    ("a", "b", "field", "change", "words"),
    [
        (line(error="false"), line(error="true"), "tag error", "another value", "counts any value"),
        (line(error="boom"), line(error="true"), "tag error", "another value", "place of an error"),
        (line(), line(error="true"), "tag error", "only in B", "an empty tag is none"),
        (line(), line(source="reviews-v1-x"), "source", "another value", "takes the pod"),
        (line(source="--"), line(source="a"), "source", "another value", "blank source"),
        (line(name="Get"), line(), "name", "another value", "lower case"),
        (line(name="a/*"), line(name="a/-"), "name", "another value", "asterisk"),
        (line(start=1_795_352_647_595), line(), "start", "another value", "one millisecond"),
        (line(start=0), line(duration=5000), "start", "another value", "1970"),
        (line(), line(application="shop"), "tag application", "another value", "default is Zipkin"),
        (line(cluster="none"), line(cluster="k"), "tag cluster", "another value", "Istio's own"),
        (line(service="reviews.default"), line(), "tag service", "another value", "service.namesp"),
        (
            line(("service", "mine")),
            line(),
            "tag service",
            "another number of values",
            "sends the endpoint's service and the tag's",
        ),
        (
            line(("x", "1"), ("x", "2")),
            line(("x", "2"), ("x", "1")),
            "tag x",
            "another order",
            "first one counts",
        ),
        (line(zipkinSpanId="1"), line(), "tag zipkinSpanId", "only in A", "repeats Zipkin's ids"),
        (line(x="a" * 125 + "..."), line(x="a" * 128), "tag x", "another value", "cut at 128"),
        (line(x="a" * 127 + "?"), line(x="a" * 130), "tag x", "another value", "cut at 128"),
        (line(x="a\\ "), line(x="a\\."), "tag x", "another value", ""),
        (
            line(http__url="/a?b=c"),
            line(http__url="/a?b=***"),
            "tag http.url",
            "another value",
            "masked",
        ),
        (line(x="a?"), line(x="a\ufffd"), "tag x", "another value", "half a character"),
        (line(x="a"), line(x="b"), "tag x", "another value", ""),
        (
            line(span_id="00000000-0000-0000-12d3-961a1d4afba2"),
            line(span_id="00000000-0000-0000-a2fb-4a1d1a96d312"),
            "span id",
            "another value",
            "reverse order",
        ),
    ],
)
def test_a_differing_field_is_named_and_explained(
    a: str, b: str, field: str, change: str, words: str
) -> None:
    assert only_kind(a, b)[:2] == (field, change)
    why = only_kind(a, b)[2]
    assert words in why
    assert bool(why) == bool(words)


def test_seconds_read_as_milliseconds_are_recognised() -> None:
    report = compared(
        [line(start=1_795_352_647, duration=5)], [line(start=1_795_352_647, duration=6)]
    )
    assert found(report) == [("spans", "duration", "another value")]
    # A line of the year 1970 in milliseconds: the reader takes it for seconds.
    early = compared([line(start=999_999_999_999, duration=5)], [line(duration=5)])
    assert {field for _, field, _ in found(early)} == {"start", "duration"}
    whys = {key.field: key.why for key, _ in early.sorted_kinds()}
    assert "1000 times" in whys["duration"]


def test_a_renamed_key_is_recognised_on_both_sides() -> None:
    report = compared([line(guid_x="7", host_="h")], [line(("guid-x", "7"), ("_host_", "h"))])
    whys = [key.why for key, _ in report.sorted_kinds()]
    assert len(whys) == 4
    assert sum("guid-x and guid_x" in why for why in whys) == 0
    assert sum("_host_ and host_" in why and "underscore" in why for why in whys) == 2
    colon = compared([line(("guid:x", "7"))], [line(("guid-x", "7"))])
    assert all("guid-x and guid:x" in key.why for key, _ in colon.sorted_kinds())


def test_halves_of_a_shared_span_are_told_apart() -> None:
    client, server = line(span__kind="client"), line(span__kind="server")
    assert compared([client, server], [server, client]).is_equal
    report = compared([client, server], [server])
    assert found(report) == [("spans", "line", "only in A")]
    assert report.tallies["spans"].only_a == 1
    lost_kind = compared([server], [line(span__kind=None)])
    assert found(lost_kind) == [("spans", "tag span.kind", "only in A")]


def test_a_line_counts_as_often_as_it_is_there() -> None:
    report = compared([line(), line(), line(x="1")], [line(x="1"), line()])
    assert found(report) == [("spans", "line", "only in A")]
    # Doubles that differ are compared with what is left.
    report = compared([line(), line(x="1")], [line(x="2"), line()])
    assert found(report) == [("spans", "tag x", "another value")]


def test_many_spans_of_one_identity_do_not_take_for_ever() -> None:
    a = [line(x=str(number)) for number in range(5_000)]
    b = [line(x=str(number)) for number in reversed(range(1, 5_001))]
    report = compared(a, b)
    assert report.tallies["spans"].equal == 4_999
    assert found(report) == [("spans", "tag x", "another value")]


def test_a_missing_span_is_explained_by_its_trace() -> None:
    here = line(span_id="00000000-0000-0000-0000-000000000001")
    report = compared([line(), here], [here])
    assert [key.why for key, _ in report.sorted_kinds()] == [
        "other lines of its trace are on the other side"
    ]
    report = compared([line()], [line(trace_id="463ac35c-9f64-13ad-4848-5a3953bb6125")])
    assert all("nothing of its trace" in key.why for key, _ in report.sorted_kinds())
    assert len(report.kinds) == 2


def test_sampling_by_trace_id_is_recognised_and_its_rate_guessed() -> None:
    def recording(folder: Path) -> Recording:
        paths = sorted(folder.glob("json-*.spans.txt"))
        return of_lines(folder.name, [text for path in paths for text in lines_of(path)])

    report = diff.compare(recording(JAVA_PROXY), recording(JAVA_PROXY / "with-options"))
    [note] = report.notes
    assert note.startswith("B has every trace up to place")
    assert note.endswith("at a rate of about 0.5")
    assert report.tallies["spans"].only_b == 0


def test_lines_that_cannot_be_read_are_compared_as_text() -> None:
    odd = json.loads((JAVA_PROXY / "odd-inputs.json").read_text())
    lines = [text for entry in odd for text in entry["lines"]]
    assert compared(lines, lines).is_equal
    corrupt = line().replace(" 5", "")
    report = compared([line(x="a"), corrupt], [line(x="a"), line()])
    assert sorted(found(report)) == [
        ("spans", "line", "only in B"),
        ("spans", "unreadable line", "only in A"),
    ]
    assert report.tallies["spans"].only_b == report.tallies["unreadable"].only_a == 1


@given(
    ids=st.lists(st.integers(1, 12), max_size=12),
    others=st.lists(st.integers(1, 12), max_size=12),
    values=st.lists(st.sampled_from("ab"), min_size=24, max_size=24),
)
@settings(deadline=None, max_examples=80)
def test_every_line_is_accounted_for_and_both_ways_round_agree(
    ids: list[int], others: list[int], values: list[str]
) -> None:
    def lines(numbers: list[int], texts: list[str]) -> list[str]:
        pairs = zip(numbers, texts, strict=False)
        return [line(span_id=f"00000000-0000-0000-0000-{n:012x}", x=text) for n, text in pairs]

    a, b = lines(ids, values[:12]), lines(others, values[12:])
    there, back = compared(a, b), compared(b, a)
    tally, mirror = there.tally("spans"), back.tally("spans")
    assert tally.equal + tally.differing + tally.only_a == len(a)
    assert tally.equal + tally.differing + tally.only_b == len(b)
    assert (tally.equal, tally.only_a, tally.only_b) == (mirror.equal, mirror.only_b, mirror.only_a)
    assert there.is_equal == (sorted(a) == sorted(b))


# Span logs


@pytest.mark.parametrize(
    ("a", "b", "field", "words"),
    [
        (log("x", span="_sampledByPolicy=NONE"), log("x"), "span", "towards a proxy"),
        (log("x", spanSecondaryId=None), log("x"), "spanSecondaryId", "which half"),
        (log("x", customer="dummy"), log("x", customer="default"), "customer", "dummy"),
        (log("x", "ss"), log("x"), "entry", "core annotations"),
        (log("x", "y"), log("y", "x"), "logs", ""),
    ],
)
def test_a_differing_span_log_is_explained(a: str, b: str, field: str, words: str) -> None:
    what, _, why = only_kind(a, b)
    assert what == field
    assert words in why
    assert bool(why) == bool(words)


def test_null_and_absent_are_told_apart_and_explained() -> None:
    null = log("x", spanSecondaryId=None)
    absent = json.loads(null)
    del absent["spanSecondaryId"]
    what, change, why = only_kind(null, json.dumps(absent))
    assert (what, change) == ("spanSecondaryId", "only in A")
    assert "reads both as none" in why


def test_two_logs_of_one_span_are_compared_each_with_its_own() -> None:
    whole = log(customer="dummy", logs=[{"timestamp": -1, "fields": {"k": "v"}}])
    plain = log("x", customer="default")
    report = compared([whole, plain], [plain.replace('"x"', '"y"'), whole])
    assert sorted(found(report)) == [
        ("span_logs", "entry", "only in A"),
        ("span_logs", "entry", "only in B"),
    ]
    assert report.tallies["span_logs"].equal == 1


# Series

IDENTITY = Identity("shop", "cart", "none", "none", "proxy", "cart")
KEY = RedKey(IDENTITY, "get", "server", "200", ())


def red_lines(micros: list[int], *, sketched: bool, minute_s: int = 1_795_352_640) -> list[str]:
    """A distribution as tracefwd's sketch sends it, or with every value for itself."""
    if sketched:
        red = RedSettings(centroids_max=100)
        buckets: sketch.Buckets = {}
        for value in micros:
            entry = buckets.setdefault(sketch.index_of(value), [0, 0])
            entry[0] += 1
            entry[1] += value
        bins, _ = sketch.centroids(buckets, red.centroids_max)
    else:
        bins = [(1, value) for value in sorted(micros)]
    point = RedPoint(KEY, 0, 0, 0, [Centroids(minute_s, bins)], [])
    payloads = LineWriter().write_red([point], minute_s + 60)
    return [text for part in payloads for text in part.data.decode().split("\n")]


@given(
    st.lists(st.integers(0, 10**8), min_size=1, max_size=300),
    st.floats(1.0, 4.0),
)
@settings(deadline=None, max_examples=60)
def test_a_sketch_agrees_with_the_values_that_it_was_fed(micros: list[int], power: float) -> None:
    skewed = [int(value ** (power / 4)) for value in micros]
    report = compared(red_lines(skewed, sketched=True), red_lines(skewed, sketched=False))
    assert report.is_equal, report.shown()


def test_a_shift_of_all_quantiles_is_seen() -> None:
    chance = random.Random(3)
    values = [int(chance.lognormvariate(9, 1)) for _ in range(1_900)]
    moved = [int(value * 1.3) for value in values]
    report = compared(red_lines(values, sketched=True), red_lines(moved, sketched=True))
    fields = {field for _, field, _ in found(report)}
    assert "sum" in fields
    assert "quantile 0.5" in fields


def test_quantiles_are_bounded_by_what_a_centroid_says() -> None:
    exact = [(float(number), 1) for number in range(1, 101)]
    assert bounds(exact, 0.5) == (50.0, 50.0)
    assert bounds(exact, 0.999) == (100.0, 100.0)
    assert bounds([(10.0, 5)], 0.5) == pytest.approx((9.891, 10.109), abs=1e-3)
    assert bounds([(10.0, 5), (20.0, 5), (40.0, 5)], 0.5) == (10.0, 40.0)


def test_times_of_sending_and_the_number_of_lines_mean_nothing() -> None:
    a = ['"∆a.count" 3 1795352647 source="s" "k"="v"', '!M 1795352640 #2 5 "m" source="s"']
    b = [
        '"∆a.count" 1 1795352650 source="s" "k"="v"',
        '"Δa.count" 2 source="s" "k"="v"',
        '!M 1795352700 #1 5 "m" source="s"',
        '!M 1795352640 #1 5 "m" source="s"',
    ]
    assert compared(a, b).is_equal


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (
            '"∆a.invocation.count" 3 source="s"',
            '"∆a.invocation.count" 4 source="s"',
            ("delta_counters", "sum of invocation.count", "another value"),
        ),
        (
            '!M 1795352640 #2 5 "m" source="s"',
            '!M 1795352640 #3 5 "m" source="s"',
            ("distributions", "count", "another value"),
        ),
        (
            '!M 1795352640 #2 5 "m" source="s"',
            '!M 1795352640 #2 5.00000002 "m" source="s"',
            ("distributions", "sum", "another value"),
        ),
        ('"g" 1 source="s"', '"g" 2 source="s"', ("points", "last value", "another value")),
        (
            '"~component.heartbeat" 1 source="s" "service"="a"',
            "",
            ("heartbeats", "series", "only in A"),
        ),
        ("", '"∆a" 1 source="s"', ("delta_counters", "series", "only in B")),
    ],
)
def test_totals_are_compared_per_series(a: str, b: str, expected: tuple[str, str, str]) -> None:
    assert found(compared([a], [b])) == [expected]


def test_what_the_java_library_says_of_itself_is_left_out() -> None:
    own = [
        '"∆~sdk.java.internal_reporter.x.count" 3 source="s"',
        '"~sdk.java.version" 1 source="s"',
    ]
    report = compared([*own, '"∆a" 3 source="s"'], ['"∆a" 3 source="s"'])
    assert report.is_equal
    [note] = report.notes
    assert "left out" in note


def test_series_in_doubt_are_explained() -> None:
    twice = compared(['"∆a" 3 source="s"'], ['"∆a" 6 source="s"'])
    assert "exactly twice" in next(iter(twice.kinds)).why
    elsewhere = compared(['"∆a" 3 source="zipkin"'], ['"∆a" 3 source="cart"'])
    assert all("from another source" in key.why for key in elsewhere.kinds)


def test_a_quoted_source_wins_in_totals_and_in_lines() -> None:
    totals = {
        "delta_counters": [
            {"name": "∆a", "source": "zipkin", "tags": {"source": "pod", "k": "v"}, "sum": 2.0}
        ]
    }
    ours = of_lines("b", ['"∆a" 2 source="zipkin" "source"="pod" "k"="v"'])
    assert diff.compare(Recording("a", series=totals), ours).is_equal


def test_red_of_the_same_spans_is_equal_whatever_the_minutes() -> None:
    parts = make_parts(EXACT)
    spans = [
        span
        for path in envoy_bodies("json")
        for span in parts.mapper(parts.decode(path.read_bytes(), ""), NOW_US).spans
    ]

    def sent(slices: int) -> list[str]:
        red, writer = RedAggregator(EXACT.red), make_writer(DIRECT, EXACT)
        text = ""
        for number in range(slices):
            now_s = NOW_US // 1_000_000 + 60 * number
            red.observe(spans[number::slices], now_s)
            points = [one for one in red.drain(now_s + 60) if isinstance(one, RedPoint)]
            text += "".join(p.data.decode() for p in writer.write_red(points, now_s + 60))
        return text.split("\n")

    assert compared(sent(1), sent(3)).is_equal
    assert not compared(sent(1), sent(3)[:-2]).is_equal


# Live stand-ins


async def post(url: str, form: str, lines: list[str]) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/report?f={form}", data="\n".join(lines).encode()) as answer,
    ):
        assert answer.status == 202


async def test_two_live_stand_ins_are_compared_by_their_queries(tmp_path: Path) -> None:
    record = tmp_path / "record.jsonl"
    first = Emulator(EmulatorSettings(listen="127.0.0.1:0", record=record))
    second = Emulator(EmulatorSettings(listen="127.0.0.1:0", keep_lines=2))
    await first.start()
    await second.start()
    lines = [line(span_id=f"00000000-0000-0000-0000-00000000000{n}") for n in range(1, 3)]
    try:
        for url in (first.url, second.url):
            await post(url, "trace", lines)
            await post(url, "spanLogs", [log("x")])
            await post(url, "wavefront", ['"∆a" 3 source="s"'])
        a, b = await asyncio.gather(*[asyncio.to_thread(load, one.url) for one in (first, second)])
        assert a.shown() == {**b.shown()} | {"spans": 2, "span_logs": 1, "delta_counters": 1}
        assert diff.compare(a, b).is_equal
        assert diff.compare(a, await asyncio.to_thread(load, str(record))).is_equal
        await post(second.url, "trace", [line(), "nonsense"])
        b = await asyncio.to_thread(load, second.url)
    finally:
        await first.stop()
        await second.stop()
    report = diff.compare(a, b)
    assert ("input", "completeness", "B is not everything") in found(report)
    assert ("spans", "refused lines", "another number") in found(report)


# The command


def written(path: Path, *lines: str) -> str:
    path.write_text("".join(f"{text}\n" for text in lines), encoding="utf-8")
    return str(path)


def test_exit_codes_are_those_of_diff(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = written(tmp_path / "a", line(error="false"), log("x"))
    b = written(tmp_path / "b", line(error="true"), log("x"))
    assert cli.main(["diff", a, a]) == 0
    assert capsys.readouterr().out.rstrip().endswith("equal")
    assert cli.main(["diff", a, b]) == 1
    out = capsys.readouterr().out
    assert "1 x spans, tag error: another value (the Java proxy counts any value" in out
    assert "A: 'false'" in out
    assert "B: 'true'" in out
    assert out.rstrip().endswith("different: 1 difference of 1 kind")
    assert cli.main(["diff", a, str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err
    assert cli.main(["diff", a]) == 2
    for url in ("ftp://h", "http://[::1", "http://h:99999", "http://"):
        assert cli.main(["diff", a, url]) == 2


def test_json_says_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = written(tmp_path / "a", *[line(span_id=f"{n:032x}", x="1") for n in range(9)])
    b = written(tmp_path / "b", *[line(span_id=f"{n:032x}", x="2") for n in range(9)])
    assert cli.main(["diff", "--json", "--examples", "2", a, b]) == 1
    shown = json.loads(capsys.readouterr().out)
    assert shown["equal"] is False
    assert shown["a"]["spans"] == 9
    [kind] = shown["kinds"]
    assert (kind["field"], kind["count"], len(kind["examples"])) == ("tag x", 9, 2)
    assert (kind["examples"][0]["a"], kind["examples"][0]["b"]) == ("1", "2")


def test_a_stand_in_that_is_not_there_is_a_usage_error() -> None:
    with pytest.raises(ConfigError, match="give the query port of a running stand-in"):
        load("http://127.0.0.1:1")
    with pytest.raises(ConfigError, match="write http://HOST:PORT"):
        load("https://example.wavefront.com")


def test_output_survives_odd_characters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bytes"
    path.write_bytes(b"\xff\xfe\x1b[2J\n" + line(x="\x1b[31m").encode())
    other = written(tmp_path / "other", line(x="ok"))
    assert cli.main(["diff", str(path), other]) == 1
    assert "\x1b" not in capsys.readouterr().out
    assert cli.main(["diff", "--json", str(path), other]) == 1
    assert json.loads(capsys.readouterr().out)["equal"] is False


def test_signals_have_the_names_of_the_rest_of_the_program() -> None:
    tallies = compared([line(), log("x")], []).tallies
    assert {Signal.SPANS, Signal.SPAN_LOGS} <= set(tallies)
