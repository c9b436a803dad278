"""Span lines and span logs: read as the stand-in's independent reader reads them, and written again as they came."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.conftest import JAVA_PROXY, NOW_US
from tracefwd.emulator.rules import Limits, is_uuid
from tracefwd.emulator.rules import Refused as TheirsRefused
from tracefwd.emulator.span_log_reader import SpanLogReader
from tracefwd.emulator.span_reader import parse_span
from tracefwd.exporter.lines import LineWriter
from tracefwd.limits import REJECT_SAMPLES_MAX, REJECTS_PER_BODY_MAX, START_MS_MIN
from tracefwd.model import Lines, Signal, SpanLog, WavefrontSpan
from tracefwd.processor.line_check import make_line_check
from tracefwd.processor.wavefront_proxy_rules import EXACT
from tracefwd.receiver.span_lines import (
    BadLineError,
    read_lines,
    read_span,
    read_span_apart,
    read_span_log,
)

TRACE = "7b3bf470-9456-11e8-9eb6-529269fb1459"
SPAN = "0313bafe-9457-11e8-9eb6-529269fb1459"
IDS = f"spanId={SPAN} traceId={TRACE}"
LINE = f'"getAllUsers" source="localhost" traceId={TRACE} spanId={SPAN} "application"="Wavefront" 1533531013000 343'


def recorded() -> list[str]:
    """Every span line that the real proxy is on record for, those that nobody can read back included."""
    found: list[str] = []
    for path in sorted(Path(JAVA_PROXY).rglob("*.spans.txt")):
        found += path.read_bytes().decode().split("\n")
    odd = json.loads((JAVA_PROXY / "odd-inputs.json").read_text())
    for entry in odd:
        found += [line for line in entry["lines"] if not line.startswith("{")]
    return [line for line in dict.fromkeys(found) if line]


RECORDED = recorded()
CHECK = make_line_check(EXACT)


def rendered(span: WavefrontSpan) -> str:
    return LineWriter().write([span])[0].data.decode().removesuffix("\n")


def fields_of(line: str) -> dict[str, Any]:
    """By the stand-in's reader."""
    span, _ = parse_span(line)
    return {name: getattr(span, name) for name in span.__slots__}


def theirs(line: str) -> dict[str, Any] | None:
    """What the stand-in reads, or None if it refuses the line or an id that we demand to be a UUID is none."""
    try:
        read = fields_of(line)
    except TheirsRefused:
        return None
    ids = read["trace_id"], read["span_id"]
    return read if all(is_uuid(said) and len(said) <= 36 for said in ids) else None


def ours(line: str) -> WavefrontSpan | None:
    try:
        return read_span(line)
    except BadLineError:
        return None


def facts(span: WavefrontSpan) -> dict[str, Any]:
    return {
        "name": span.name,
        "source": span.source,
        "start_ms": span.start_ms,
        "duration_ms": span.duration_ms,
        "tags": [*span.tags.items(), *span.tail],
    }


def assert_same(line: str) -> None:
    """One verdict, one meaning, and both ways of ours agree."""
    read, expected = ours(line), theirs(line)
    assert (read is None) == (expected is None), line
    try:
        apart = read_span_apart(line)
    except BadLineError:
        assert read is None
        return
    assert read is not None
    assert facts(apart) == facts(read)
    assert (apart.identity, apart.trace_id, apart.span_id) == (
        read.identity,
        read.trace_id,
        read.span_id,
    )
    assert expected is not None
    wanted = {name: expected[name] for name in facts(read)}
    if expected["duration_ms"] < 2**63 - 1:
        assert facts(read) == wanted


def test_every_recorded_line_is_written_again_as_it_was() -> None:
    assert len(RECORDED) > 500
    again = 0
    for line in RECORDED:
        assert_same(line)
        span = ours(line)
        # Milliseconds of a start before 2001 read as seconds, however they are written: the check sees to them, and
        # to the keys of a line that the real proxy had garbled itself.
        if span is not None and span.start_ms >= START_MS_MIN and CHECK([span], NOW_US).spans:
            assert fields_of(rendered(span)) == fields_of(line)
            again += 1
    assert again > 0.95 * len(RECORDED)


def test_the_usual_recorded_line_comes_back_byte_for_byte() -> None:
    lines = (JAVA_PROXY / "json-batch-5.spans.txt").read_text().splitlines()
    assert [fields_of(rendered(read_span(line))) for line in lines] == [*map(fields_of, lines)]
    assert {rendered(read_span(line)) for line in lines} == set(lines)


@pytest.mark.parametrize(
    ("line", "detail"),
    [
        ("", "empty"),
        ('"n', "quote"),
        ('"n" source="s', "quote"),
        (f'"n" {IDS} key', "no '='"),
        (f'"n" {IDS} key=', "no value"),
        (f'"n" {IDS} key value 1 2', "no '='"),
        (f'"n" {IDS} 1533531013000', "nothing stands there"),
        (f'"n" {IDS} -1 2', "no '='"),
        (f'"n" {IDS} 1x 2', "no '='"),
        (f'"n" {IDS} 1.x 2', "no '='"),
        (f'"n" {IDS} "7"=x 1 2', "stands there"),
        (f'"n" {IDS} ""=x 1 2', "expected"),
        (f'"n" {IDS} 1 2 3', "follows"),
        (f'"n" {IDS} 1 2 ""', "follows"),
    ],
)
def test_a_line_that_breaks_the_grammar_is_a_syntax_error(line: str, detail: str) -> None:
    with pytest.raises(BadLineError, match=detail) as caught:
        read_span(line)
    assert caught.value.reason == "syntax"
    assert_same(line)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (f'"n" traceId={TRACE} 1 2', "span_id"),
        (f'"n" spanId={SPAN} 1 2', "trace_id"),
        (f'"n" spanId={SPAN} traceId=4217104a 1 2', "trace_id"),
        (f'"n" spanId=x traceId={TRACE} 1 2', "span_id"),
        (f'"n" spanId={SPAN} traceId={TRACE}-1 1 2', "trace_id"),
        (f'"n" spanId={SPAN} traceId="" 1 2', "trace_id"),
    ],
)
def test_both_ids_must_be_uuids(line: str, reason: str) -> None:
    with pytest.raises(BadLineError) as caught:
        read_span(line)
    assert caught.value.reason == reason


def test_ids_keep_their_case_and_short_ones_become_what_they_mean() -> None:
    span = read_span(f'"n" spanId={SPAN.upper()} traceId=1-2-3-4-5 1533531013000 2')
    assert f'spanId="{SPAN.upper()}" traceId="00000001-0002-0003-0004-000000000005"' in rendered(
        span
    )


@pytest.mark.parametrize(
    ("numbers", "times"),
    [
        ("1533531013 343", (1_533_531_013_000, 343_000)),
        ("1533531013000 343", (1_533_531_013_000, 343)),
        ("1533531013000 1533531013343", (1_533_531_013_000, 343)),
        ("1533531013123456 343500", (1_533_531_013_123, 343)),
        ("1533531013123456789 343500000", (1_533_531_013_123, 343)),
        ("999999999999 1", (999_999_999_999_000, 1_000)),
        ("1000000000000 1", (1_000_000_000_000, 1)),
        ("0 5", (0, 5_000)),
        ("1533531013000 1533531013000", (1_533_531_013_000, 0)),
        ("1533531013000 3.9", (1_533_531_013_000, 3)),
        ("1533531013000 3.43e2f", (1_533_531_013_000, 343)),
        # Seconds that are milliseconds beyond 64 bits, as the proxy sends them.
        ("1796102076 100000000000000000000", (1_796_102_076_000, -1_796_102_077_000)),
        ("1 100000000000000000000", (1_000, -2_000)),
    ],
)
def test_the_digits_of_the_start_tell_the_unit(numbers: str, times: tuple[int, int]) -> None:
    span = read_span(f'"n" {IDS} {numbers}')
    assert (span.start_ms, span.duration_ms) == times
    assert_same(f'"n" {IDS} {numbers}')


def test_source_defaults_and_the_last_one_wins() -> None:
    assert read_span(f'"n" {IDS} 1533531013000 2').source == "unknown"
    assert read_span(f'"n" host=a source=b {IDS} 1533531013000 2').source == "b"
    assert read_span(f'"n" source=a host=b {IDS} 1533531013000 2').source == "b"
    assert read_span(f'"n" source=a source=b {IDS} 1533531013000 2').source == "b"


def test_repeated_tags_keep_their_order() -> None:
    span = read_span(f'"n" {IDS} a=1 parent=p1 b=2 parent=p2 c=3 a=4 1533531013000 2')
    tags = [("a", "1"), ("parent", "p1"), ("b", "2"), ("parent", "p2"), ("c", "3"), ("a", "4")]
    assert [*span.tags.items(), *span.tail] == tags
    assert fields_of(rendered(span))["tags"] == tags


def test_what_sampling_and_rules_look_at_is_found() -> None:
    tags = (
        "application=a service=s cluster=c shard=h component=k error=true debug=true "
        "span.kind=Server http.status_code=500 service=other _spanLogs=true"
    )
    span = read_span(f'"n" source=src {IDS} {tags} 1533531013000 2')
    assert tuple(span.identity) == ("a", "s", "c", "h", "k", "src")
    assert (span.error, span.debug, span.kind, span.http_status) == (True, True, "server", "500")
    assert not span.red
    assert '"_spanLogs"="true"' in rendered(span)
    assert not read_span(f'"n" {IDS} error=false 1533531013000 2').error


def test_keys_with_a_slash_stay_as_they_are() -> None:
    assert '"a/b"="c"' in rendered(read_span(f'"n" {IDS} "a/b"=c 1533531013000 2'))


# --- bodies ---------------------------------------------------------------------------------


def counts(lines: Lines) -> tuple[int, int, dict[str, int], dict[str, int]]:
    return len(lines.spans), len(lines.logs), lines.refused.counts, lines.logs_refused.counts


LOG: dict[str, Any] = {
    "traceId": TRACE,
    "spanId": SPAN,
    "logs": [{"timestamp": 1533531013000000, "fields": {"event": "x"}}],
}


def test_a_body_is_lines_of_both_kinds_and_each_stands_alone() -> None:
    log = json.dumps(LOG)
    body = f'{LINE}\r\n\n  \n{log}\n"bad\n{{"traceId": 1}}\n{{broken}}\n {LINE}  '.encode()
    lines = read_lines(body)
    assert counts(lines) == (2, 1, {"syntax": 1}, {"invalid": 1, "syntax": 1})
    assert lines.refused.shown[0].where == "line 5"
    assert lines.refused.shown[0].sample == b'"bad'
    assert [reject.where for reject in lines.logs_refused.shown] == ["line 6", "line 7"]


@pytest.mark.parametrize("blank", "\x00\x1f \x85\xa0\u1680\u2003\u2007\u2028\u202f\u3000")
def test_blanks_around_a_line_are_none_of_it(blank: str) -> None:
    """As seen of the proxy, over HTTP."""
    lines = read_lines(f"{blank}{LINE}{blank}\n{LINE}".encode())
    assert (lines.refused.number, len(lines.spans)) == (0, 2)
    assert lines.spans[0] == lines.spans[1]


def test_broken_utf8_is_mended_and_counted() -> None:
    lines = read_lines(LINE.replace("getAll", "get\xff").encode("latin-1") + b"\n" + LINE.encode())
    assert counts(lines)[0] == 2
    assert lines.repairs == {"utf8": 1}
    assert lines.spans[0].name == "get\ufffdUsers"


def test_what_is_no_text_says_so() -> None:
    assert not read_lines(b"\xff\xfe\x00\x81\n\x80").is_text
    assert read_lines(b"\xff\xfe\nhello").is_text
    assert read_lines(b"").is_text


def test_garbage_is_given_up_and_shown_in_part_only() -> None:
    lines = read_lines(b"garbage\n" * 5_000 + LINE.encode())
    assert counts(lines)[:3] == (0, 0, {"syntax": REJECTS_PER_BODY_MAX + 1})
    assert len(lines.refused.shown) == REJECT_SAMPLES_MAX
    one_good = read_lines(LINE.encode() + b"\n" + b"garbage\n" * 5_000)
    assert one_good.refused.number == 5_000


# --- span logs ------------------------------------------------------------------------------


def written(log: SpanLog, *, direct: bool = False) -> dict[str, Any]:
    [payload] = LineWriter(sampled_mark=direct).write_span_logs([log])
    assert (payload.signal, payload.items) == (Signal.SPAN_LOGS, 1)
    decoded: dict[str, Any] = json.loads(payload.data)
    return decoded


def test_a_span_log_keeps_its_members_but_span() -> None:
    more = {**LOG, "_scrambler": "x", "customer": "c", "_spanSecondaryId": "client", "n": 10**30}
    log = read_span_log(json.dumps({**more, "span": LINE + "\n"}))
    assert log.span is not None
    assert log.span.name == "getAllUsers"
    assert written(log) == more
    assert written(log, direct=True) == {**more, "span": "_sampledByPolicy=NONE"}


@pytest.mark.parametrize("member", [{}, {"span": None}, {"span": 7}])
def test_a_span_log_without_a_span_line_is_left_to_the_target(member: dict[str, Any]) -> None:
    log = read_span_log(json.dumps({**LOG, **member}))
    assert log.span is None
    assert written(log) == written(log, direct=True) == LOG


def test_fields_that_are_no_text_are_sent_as_one() -> None:
    """The real proxy takes a log with a number in it, answers 202, and throws when it writes it."""
    said = {"event": "x", "code": 503, "ok": True, "rate": 1.5, "list": [1, "a"], "none": None}
    entry = {"timestamp": 1533531013000000, "fields": said}
    text = json.dumps({**LOG, "logs": [entry, LOG["logs"][0]]})
    texts = {"code": "503", "ok": "true", "rate": "1.5", "list": '[1,"a"]'}
    assert written(read_span_log(text))["logs"] == [
        {"timestamp": 1533531013000000, "fields": {**said, **texts}},
        LOG["logs"][0],
    ]
    with pytest.raises(BadLineError):
        read_span_log(text, exact=True)


def test_a_target_that_knows_no_span_logs_counts_them() -> None:
    log = read_span_log(json.dumps(LOG))
    [payload] = LineWriter(span_logs=False).write_span_logs([log, log])
    assert (payload.data, payload.items, payload.unsendable) == (b"", 0, 2)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"traceId": None}, "invalid"),
        ({"traceId": "x"}, "trace_id"),
        ({"spanId": "x"}, "span_id"),
        ({"logs": None}, "invalid"),
        ({"logs": {}}, "invalid"),
        ({"logs": [1]}, "invalid"),
        ({"logs": [{"fields": {}}]}, "invalid"),
        ({"logs": [{"timestamp": "1", "fields": {}}]}, "invalid"),
        ({"logs": [{"timestamp": 2**64, "fields": {}}]}, "invalid"),
        ({"logs": [{"timestamp": 1}]}, "invalid"),
        ({"span": "_sampledByPolicy=NONE"}, "syntax"),
        ({"span": '"n" 1 2'}, "trace_id"),
    ],
)
def test_a_span_log_is_checked(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadLineError) as caught:
        read_span_log(json.dumps({**LOG, **changes}))
    assert caught.value.reason == reason


def test_deep_nesting_is_refused_not_followed() -> None:
    deep = json.dumps(LOG)[:-1] + ', "x": ' + "[" * 100_000 + "]" * 100_000 + "}"
    assert counts(read_lines(deep.encode()))[1:] in [(0, {}, {"syntax": 1}), (1, {}, {})]


# --- properties -----------------------------------------------------------------------------

WORDS = st.sampled_from(
    [
        "source",
        "host",
        "spanId",
        "traceId",
        "parent",
        "key",
        "a.b/c",
        "7",
        "=",
        "#",
        "",
        "'",
        '"',
        "\\",
        "x\\",
        'x\\"y',
        "it's",
        "a b",
        "ü",
        "٣",
        "\u3000",
        "\u00a0",
        "\t",
        TRACE,
        SPAN,
        "1-2-3-4-5",
        "1533531013000",
        "1533531013",
        "3.5",
        "1e3",
        "-4",
    ]
)
TOKENS = st.one_of(
    WORDS,
    WORDS.map(lambda word: f'"{word}"'),
    WORDS.map(lambda word: f"'{word}'"),
    st.text(max_size=6),
)
PAIRS = st.tuples(TOKENS, st.sampled_from(["=", " = ", '"="', " "]), TOKENS).map("".join)


@st.composite
def span_lines(draw: st.DrawFn) -> str:
    """Lines that are mostly right, so that most of them reach the end."""
    ids = draw(
        st.sampled_from([IDS, f'"spanId"="{SPAN}" "traceId"="{TRACE.upper()}"', f"spanId={SPAN}"])
    )
    pieces = [draw(TOKENS), *draw(st.lists(PAIRS, max_size=4)), ids]
    pieces += draw(st.lists(PAIRS, max_size=2))
    pieces.append(draw(st.sampled_from(["1533531013000 343", "1533531013 1533531014", "0 0", "1"])))
    return draw(st.sampled_from([" ", "  ", "\t"])).join(pieces)


@given(span_lines())
@example(f'"n" {IDS} a="b\\\\" c="d" 1 2')
@example(f"n {IDS} a='b\\'c' 1 2")
@example(f'"n" {IDS} a=b\\ 1 2')
@settings(deadline=None, max_examples=600)
def test_made_lines_mean_the_same_to_both_readers(line: str) -> None:
    assert_same(line)


@given(st.lists(TOKENS, max_size=12).map(" ".join))
@settings(deadline=None, max_examples=300)
def test_heaps_of_tokens_mean_the_same_to_both_readers(line: str) -> None:
    assert_same(line)


@given(span_lines())
@settings(deadline=None, max_examples=300)
def test_what_was_read_is_written_so_that_it_reads_the_same(line: str) -> None:
    span = ours(line)
    if span is None or not all(key for key in span.tags):
        return
    texts = [span.name, span.source, *span.tags.values(), *(value for _, value in span.tail)]
    # The check sees to what no line can say: a last backslash, an odd key, a start before 2001.
    keys = [*span.tags, *(key for key, _ in span.tail)]
    if any(text.endswith("\\") for text in texts + keys) or any('"' in key for key in keys):
        return
    if span.start_ms >= START_MS_MIN and "\n" not in line:
        assert facts(read_span(rendered(span))) == facts(span)


@given(st.binary(max_size=400))
@settings(deadline=None, max_examples=300)
def test_no_bytes_raise(body: bytes) -> None:
    lines = read_lines(body)
    assert len(lines.spans) + len(lines.logs) <= body.count(b"\n") + 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.just(TRACE),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
ENTRIES = st.lists(
    st.fixed_dictionaries(
        {"timestamp": st.integers() | JSON, "fields": st.dictionaries(st.text(max_size=3), JSON)}
    )
    | JSON,
    max_size=2,
)


@given(
    st.fixed_dictionaries(
        {"traceId": st.just(TRACE) | JSON, "spanId": st.just(SPAN), "logs": ENTRIES | JSON},
        optional={"span": st.just(LINE) | span_lines() | JSON, "customer": JSON},
    )
)
@settings(deadline=None, max_examples=300)
def test_made_span_logs_get_the_verdict_of_the_other_reader(log: dict[str, Any]) -> None:
    line = msgspec.json.encode(log).decode() if _fits(log) else json.dumps(log)
    reader = SpanLogReader(Limits())
    member = log.get("span")
    try:
        reader.read(line, 0)
        taken = is_uuid(log["traceId"]) and (not isinstance(member, str) or bool(theirs(member)))
    except TheirsRefused:
        taken = False
    try:
        read_span_log(line)
    except BadLineError:
        assert not taken
    else:
        assert taken


def _fits(log: dict[str, Any]) -> bool:
    """Whether no number in it is above 64 bits, which only the standard library writes."""
    try:
        msgspec.json.encode(log)
    except (OverflowError, UnicodeEncodeError):
        return False
    return True
