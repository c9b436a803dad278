"""The proxy's check of spans that came as lines: its verdicts, its cuts, and where we do better."""

from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import NOW_US
from tracefwd.emulator.rules import Limits, Refused
from tracefwd.emulator.span_reader import SpanReader
from tracefwd.exporter.lines import LineWriter
from tracefwd.limits import FUTURE_START_MS_MAX
from tracefwd.model import Mapped, Signal, WavefrontSpan
from tracefwd.processor.line_check import make_line_check
from tracefwd.processor.wavefront_proxy_rules import EXACT, REPAIRED
from tracefwd.receiver.span_lines import BadLineError, read_span

IDS = "spanId=0313bafe-9457-11e8-9eb6-529269fb1459 traceId=7b3bf470-9456-11e8-9eb6-529269fb1459"
START_MS = NOW_US // 1_000 - 5_000


def line(tags: str = "", *, name: str = '"op"', source: str = "s", start: int = START_MS) -> str:
    return f"{name} source={source} {IDS} {tags} {start} 20"


def checked(text: str, *, exact: bool = False) -> Mapped:
    return make_line_check(EXACT if exact else REPAIRED)([read_span(text)], NOW_US)


def only(text: str, *, exact: bool = False) -> WavefrontSpan:
    [span] = checked(text, exact=exact).spans
    return span


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize(
    ("text", "detail"),
    [
        (line(start=NOW_US // 1_000 + FUTURE_START_MS_MAX + 1), "timeframe"),
        (line(source='" "'), "WF-426"),
        (line(source="s" * 1_024), "WF-427"),
        (line(name=f'"{"n" * 129}"'), "WF-428"),
        (line(name=f'"{"😀" * 65}"'), "WF-428"),
        (line(" ".join(f"k{n}=v" for n in range(51))), "WF-430"),
        (line(" ".join(["k=v"] * 51)), "WF-430"),
        (line(f'"{"k" * 129}"=v'), "WF-432"),
        (line('"a b"=v'), "WF-416"),
        (line("\u2206=v"), "WF-416"),
        (line('k=""'), "WF-434"),
        (line('k="\u3000"'), "WF-434"),
    ],
)
def test_what_the_proxy_refuses_is_refused(text: str, detail: str, *, exact: bool) -> None:
    result = checked(text, exact=exact)
    assert result.spans == []
    [reject] = result.rejects
    assert reject.reason == "invalid"
    assert detail in reject.detail


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize(
    "text",
    [
        line(start=NOW_US // 1_000 + FUTURE_START_MS_MAX),
        line(name=f'"{"n" * 128}"'),
        line(name='""'),
        line(" ".join(f"k{n}=v" for n in range(50))),
        line(f'"{"k" * 128}"=v'),
        line('"a/b-c.d_e,f"=v "~k"=v "\u2206~k"=v'),
        line('k="\u00a0"'),
        line('k=" padded "'),
        line(f'k="{"v" * 128}"'),
    ],
)
def test_what_is_within_the_limits_stays_as_it_is(text: str, *, exact: bool) -> None:
    result = checked(text, exact=exact)
    before = read_span(text)
    [span] = result.spans
    assert (span.name, span.tags, span.tail) == (before.name, before.tags, before.tail)
    assert not result.repairs


def test_a_star_in_a_name_becomes_a_dash() -> None:
    assert only(line(name='"GET /*"')).name == "GET /-"


def test_a_long_value_is_cut_and_goes_whole_into_a_span_log() -> None:
    whole = "v" * 200
    text = line(f'_spanLogs=true k="{whole}" span.kind=client _spanSecondaryId=client')
    result = checked(text)
    assert result.repairs == {"value_cut": 1}
    spans, logs = LineWriter().write(result.spans)
    assert f'"k"="{"v" * 128}"' in spans.data.decode()
    assert spans.data.count(b"_spanLogs") == 1
    assert logs.signal == Signal.SPAN_LOGS
    assert f'"fields":{{"k":"{whole}"}}' in logs.data.decode()
    assert '"spanSecondaryId":"client"' in logs.data.decode()


def test_repeated_long_values_are_cut_each_and_keep_their_places() -> None:
    span = only(line(f'k=a k="{"b" * 130}" _spanLogs=true j=c'))
    assert [*span.tags.items(), *span.tail] == [("k", "a"), ("k", "b" * 128), ("j", "c")]
    assert span.oversize == {"k": "b" * 130}


def test_a_cut_splits_a_character_in_exact_only() -> None:
    text = line(f'k="{"v" * 127}😀"')
    assert only(text).tags["k"] == "v" * 127
    assert only(text, exact=True).tags["k"] == "v" * 127 + "?"


@pytest.mark.parametrize(
    ("text", "written"),
    [
        (line("k=v\\"), '"k"="v\\."'),
        (line(name="op\\"), '"op\\."'),
        (line(source="s\\"), 'source="s\\."'),
        (line(f"k={'v' * 127}\\"), f'"k"="{"v" * 127}"'),
    ],
)
def test_a_last_backslash_swallows_its_quote_in_exact_only(text: str, written: str) -> None:
    result = checked(text)
    assert result.repairs == {"trailing_backslash": 1}
    assert written in LineWriter().write(result.spans)[0].data.decode()
    assert checked(text, exact=True).repairs is None


@pytest.mark.parametrize(("start", "repair"), [(0, "no_timestamp"), (1_000, "past_start")])
def test_a_start_before_2001_is_mended_but_in_exact(start: int, repair: str) -> None:
    text = line(start=start)
    result = checked(text)
    assert result.repairs == {repair: 1}
    assert result.spans[0].start_ms == NOW_US // 1_000 - result.spans[0].duration_ms
    assert only(text, exact=True).start_ms == start * 1_000


@pytest.mark.parametrize("start", [0, START_MS // 1_000])
def test_a_duration_beyond_64_bits_is_mended_but_in_exact(start: int) -> None:
    text = f'"op" source=s {IDS} {start} {10**20}'
    assert read_span(text).duration_ms < 0
    mended, kept = only(text), only(text, exact=True)
    assert (mended.start_ms, mended.duration_ms) == (start * 1_000 or NOW_US // 1_000, 0)
    assert (kept.start_ms, kept.duration_ms) == (start * 1_000, read_span(text).duration_ms)


def test_a_duration_that_would_read_as_an_end_is_mended_but_in_exact() -> None:
    text = f'"op" source=s {IDS} {START_MS} {10**15}'
    span = read_span(text)
    span.duration_ms = span.start_ms
    copy = read_span(text)
    copy.duration_ms = copy.start_ms
    assert make_line_check(REPAIRED)([span], NOW_US).spans[0].duration_ms == 0
    assert make_line_check(EXACT)([copy], NOW_US).spans[0].duration_ms == copy.start_ms


def test_a_source_above_the_backends_limit_is_cut_but_in_exact() -> None:
    text = line(source="s" * 200)
    result = checked(text)
    assert (result.repairs, result.spans[0].source) == ({"source_cut": 1}, "s" * 128)
    assert only(text, exact=True).source == "s" * 200


WORDS = st.sampled_from(["a", "a/b", "a b", "é", "~x", "\u2206", "_spanLogs", "k" * 129, "host"])
VALUES = st.sampled_from(
    ["v", " ", "\u00a0", "\u3000", "x" * 128, "x" * 129, "😀" * 65, "b\\", "q'"]
)


@given(
    name=st.sampled_from(["op", "", "*", "n" * 129, "o\u3000"]),
    source=st.sampled_from(["s", " ", "s" * 1_023, "s" * 1_024, "ü"]),
    tags=st.lists(st.tuples(WORDS, VALUES), max_size=4),
    start=st.sampled_from(
        [START_MS, 0, 1_700_000_000, NOW_US // 1_000 + 2 * FUTURE_START_MS_MAX, NOW_US]
    ),
    exact=st.booleans(),
)
@settings(deadline=None, max_examples=400)
def test_the_verdict_is_the_other_readers_and_what_passes_passes_there(
    name: str, source: str, tags: list[tuple[str, str]], start: int, *, exact: bool
) -> None:
    pairs = " ".join(f'"{key}"="{value}"' for key, value in tags if not value.endswith("\\"))
    text = f'"{name}" source="{source}" {IDS} {pairs} {start} 20'
    reader = SpanReader(Limits(), samples=True)
    now_ms = NOW_US // 1_000
    expected: Any = True
    try:
        reader.read(text, now_ms)
    except Refused:
        expected = False
    try:
        result = checked(text, exact=exact)
    except BadLineError:
        assert not expected
        return
    assert bool(result.spans) == expected
    if result.spans and not exact:
        [line_again, *_] = LineWriter().write(result.spans)[0].data.decode().splitlines()
        assert set(reader.read(line_again, now_ms).warnings) <= {"source_missing"}


def judged(text: str, switch: str) -> tuple[list[tuple[str, str, int, int, dict[str, str]]], Any]:
    """With this one switch off."""
    off = replace(REPAIRED, **{switch: False})
    result = make_line_check(off)([read_span(text)], NOW_US)
    return [
        (span.name, span.source, span.start_ms, span.duration_ms, span.tags)
        for span in result.spans
    ], result.repairs


SWITCHED = {
    "whole_characters": [line(f'k="{"v" * 127}\U0001f680"')],
    "trailing_backslash": [
        line("k=v\\"),
        line(name="op\\"),
        line(source="s\\"),
        line(source="s" * 127 + "\\"),
    ],
    "missing_start": [line(start=0).removesuffix("20") + "0"],
    "past_start": [line(start=100_000), line(start=999_999_999)],
    "impossible_duration": [line().removesuffix(" 20") + f" {3 * START_MS}"],
    "cut_not_refused": [line(source="s" * 129), line(source="s" * 1_023)],
}


@pytest.mark.parametrize("switch", SWITCHED)
def test_a_single_switch_off_does_as_the_proxy_does(switch: str) -> None:
    for text in SWITCHED[switch]:
        [mended], [exact] = checked(text).spans, checked(text, exact=True).spans
        found, repairs = judged(text, switch)
        assert found == [
            (exact.name, exact.source, exact.start_ms, exact.duration_ms, exact.tags)
        ], text
        assert found != [
            (mended.name, mended.source, mended.start_ms, mended.duration_ms, mended.tags)
        ], text
        assert repairs == checked(text, exact=True).repairs


@pytest.mark.parametrize("switch", [field.name for field in fields(REPAIRED)])
def test_a_switch_changes_nothing_else(switch: str) -> None:
    for name, texts in SWITCHED.items():
        for text in texts if name != switch else ():
            found, _ = judged(text, switch)
            [span] = checked(text).spans
            assert found == [(span.name, span.source, span.start_ms, span.duration_ms, span.tags)]
