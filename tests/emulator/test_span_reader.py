"""The span line's grammar and every limit, one step on either side."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tracefwd.emulator.rules import Limits, Refused, head, is_blank, length
from tracefwd.emulator.span_reader import Span, SpanReader, TakenSpan, parse_span

NOW_MS = 1_700_000_000_000
TRACE = "463ac35c-9f64-13ad-4848-5a3953bb6124"
SPAN = "00000000-0000-0000-a2fb-4a1d1a96d312"
EMOJI = "\U0001f600"

reader = SpanReader(Limits(), samples=True)
direct = SpanReader(Limits(), samples=False)


def line(
    *,
    name: str = '"getReview"',
    source: str = '"pod-1"',
    tags: str = '"application"="bookinfo" "service"="reviews"',
    times: str = "1700000000123 4",
) -> str:
    return f'{name} source={source} spanId="{SPAN}" traceId="{TRACE}" {tags} {times}'


def parsed(text: str) -> Span:
    return parse_span(text)[0]


def refusal(text: str, by: SpanReader = reader) -> str:
    with pytest.raises(Refused) as refused:
        by.read(text, NOW_MS)
    return refused.value.reason


def many(count: int) -> str:
    return " ".join(f'"k{index}"="v"' for index in range(count))


# --- grammar ------------------------------------------------------------------------------------


def test_quotes_are_optional_and_of_two_kinds() -> None:
    text = (
        f"op source='a b' spanId={SPAN} traceId={TRACE} k=v \"w\"='it\\'s \"so\"' 1700000000123 4"
    )
    span = parsed(text)
    assert (span.name, span.source) == ("op", "a b")
    assert span.tags == [("k", "v"), ("w", 'it\'s "so"')]


def test_only_the_quote_is_escaped() -> None:
    span = parsed(line(tags=r'"a"="say \"x\"" "b"="C:\dir\n" "c"="\\"" "d"="x"'))
    assert span.tags == [("a", 'say "x"'), ("b", r"C:\dir\n"), ("c", '\\"'), ("d", "x")]


def test_a_value_that_ends_in_a_backslash_swallows_its_quote() -> None:
    span = parsed(line(tags=r'"a"="b\" "c"="d"'))
    assert span.tags == [("a", 'b" '), ('c"', "d")]


def test_white_space_between_tokens_is_free() -> None:
    text = line().replace(" ", " \t ").replace("=", " = ") + " \n"
    assert parsed(text) == parsed(line())


def test_digits_alone_end_the_tags() -> None:
    assert refusal(line(tags='"12"="x"')) == "syntax"
    assert refusal(line(tags='"k"="v" 12="x"')) == "syntax"


def test_a_quoted_sign_separates_like_a_bare_one() -> None:
    assert parsed(line(tags='"k" "=" "v"')).tags == [("k", "v")]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "syntax"),
        ("op", "syntax"),
        (line(times="1700000000123"), "syntax"),
        (line(times="1700000000123 4 5"), "syntax"),
        (line(times='1700000000123 4 "k"="v"'), "syntax"),
        (line(times="1700000000123 -4"), "syntax"),
        (line(times="17000000001x3 4"), "syntax"),
        (line(times="1.7e12 4"), "syntax"),
        (line(tags='"k"="v'), "syntax"),
        (line(tags='"k" "v"'), "syntax"),
        (line(tags='"k"='), "syntax"),
        (line().replace("spanId", "span"), "span_id_missing"),
        (line().replace("traceId", "trace"), "trace_id_missing"),
    ],
)
def test_what_is_no_span_line_is_refused(text: str, reason: str) -> None:
    assert refusal(text) == reason


def test_the_last_source_or_host_wins() -> None:
    assert parsed(line(tags='"k"="v" "host"="h"')).source == "h"
    assert parsed(line(tags='"k"="v" "host"="h"')).tags == [("k", "v")]


def test_a_missing_source_is_the_listeners_default_and_a_warning() -> None:
    text = line().replace('source="pod-1" ', "")
    assert parsed(text).source == "unknown"
    assert reader.read(text, NOW_MS).warnings == ("source_missing",)


def test_repeated_keys_are_kept_in_order() -> None:
    span = parsed(line(tags='"parent"="a" "parent"="b"'))
    assert span.tags == [("parent", "a"), ("parent", "b")]


@pytest.mark.parametrize(
    ("times", "start_ms", "duration_ms"),
    [
        ("1532012145123456789 1111111111", 1532012145123, 1111),
        ("1532012145123456 1532012146234567", 1532012145123, 1111),
        ("1532012145123456 1111111", 1532012145123, 1111),
        ("1532012145123 1532012146234", 1532012145123, 1111),
        ("1532012145123 1111", 1532012145123, 1111),
        ("1532012145 1532012146", 1532012145000, 1000),
        ("1532012145 1", 1532012145000, 1000),
        ("0 4", 0, 4000),
        ("999999999999 1", 999999999999000, 1000),
        ("1000000000000 1", 1000000000000, 1),
        ("999999999999999 1", 999999999999999, 1),
        ("1000000000000000 1000", 1000000000000, 1),
        ("1700000000000 5e2", 1700000000000, 500),
    ],
)
def test_the_unit_of_time_is_read_from_the_start(
    times: str, start_ms: int, duration_ms: int
) -> None:
    span = parsed(line(times=times))
    # Java's double cannot hold 19 digits exactly; the milliseconds survive.
    assert (span.start_ms, span.duration_ms) == (start_ms, duration_ms)


def test_identity_tells_the_halves_of_a_shared_span_apart() -> None:
    kind = reader.read(line(tags='"span.kind"="server"'), NOW_MS).identity
    secondary = reader.read(line(tags='"span.kind"="x" "_spanSecondaryId"="client"'), NOW_MS)
    assert kind == (TRACE, SPAN, "server")
    assert secondary.identity == (TRACE, SPAN, "client")
    assert reader.read(line(), NOW_MS).identity == (TRACE, SPAN, "")


# --- limits -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("good", "bad", "reason"),
    [
        (line(name=f'"{"n" * 128}"'), line(name=f'"{"n" * 129}"'), "WF-428"),
        (line(name=f'"{EMOJI * 64}"'), line(name=f'"{EMOJI * 64}n"'), "WF-428"),
        (line(tags=many(50)), line(tags=many(51)), "WF-430"),
        (line(tags=f'"{"k" * 128}"="v"'), line(tags=f'"{"k" * 129}"="v"'), "WF-432"),
        (line(tags='"a,b-c.d/e_F9"="v"'), line(tags='"a:b"="v"'), "WF-416"),
        (line(tags='"~a"="v"'), line(tags='"a~"="v"'), "WF-416"),
        (line(tags='"∆~a"="v"'), line(tags='"∆a~"="v"'), "WF-416"),
        (line(tags='"k"="\u00a0"'), line(tags='"k"=" "'), "WF-434"),
        (line(tags='"k"="."'), line(tags='"k"=""'), "WF-434"),
        (line(tags='"k"="."'), line(tags='"k"="\u3000"'), "WF-434"),
        (line(source='"."'), line(source='" "'), "WF-426"),
        (line(source='"."'), line(source='""'), "WF-426"),
        (line(source=f'"{"s" * 1023}"'), line(source=f'"{"s" * 1024}"'), "WF-427"),
        (
            line(times=f"{NOW_MS + 86_400_000} 4"),
            line(times=f"{NOW_MS + 86_400_001} 4"),
            "outside_timeframe",
        ),
    ],
)
def test_every_limit_holds_to_the_last_step(good: str, bad: str, reason: str) -> None:
    for port in (reader, direct):
        port.read(good, NOW_MS)
        assert refusal(bad, port) == reason


def test_a_long_value_is_accepted_cut_and_counted() -> None:
    assert reader.read(line(tags=f'"k"="{"v" * 128}"'), NOW_MS).warnings == ()
    taken = reader.read(line(tags=f'"k"="{"v" * 129}" "l"="{EMOJI * 65}"'), NOW_MS)
    assert taken.warnings == ("value_truncated", "value_truncated")


def test_a_star_in_the_name_becomes_a_dash() -> None:
    assert reader.read(line(name='"GET /*"'), NOW_MS).warnings == ("name_star_replaced",)


def test_an_empty_name_is_accepted() -> None:
    assert reader.read(line(name='""'), NOW_MS).warnings == ()


def test_the_backends_own_limit_on_sources_is_a_warning_until_it_is_asked_for() -> None:
    strict = SpanReader(Limits.chosen(tags_max=50, backend_limits=True), samples=True)
    short, long = line(source=f'"{"s" * 128}"'), line(source=f'"{"s" * 129}"')
    assert reader.read(short, NOW_MS).warnings == strict.read(short, NOW_MS).warnings == ()
    assert reader.read(long, NOW_MS).warnings == ("source_above_backend_limit",)
    assert refusal(long, strict) == "WF-427"


def test_tags_max_is_the_operators() -> None:
    builtin = SpanReader(Limits.chosen(tags_max=20, backend_limits=False), samples=True)
    builtin.read(line(tags=many(20)), NOW_MS)
    assert refusal(line(tags=many(21)), builtin) == "WF-430"


def test_a_proxy_needs_a_uuid_for_its_sampler_unless_the_span_is_debug() -> None:
    odd = line().replace(TRACE, "not-a-uuid")
    assert refusal(odd) == "trace_id"
    assert direct.read(odd, NOW_MS).warnings == ("trace_id_no_uuid",)
    debug = line(tags='"debug"="true"').replace(TRACE, "not-a-uuid")
    assert reader.read(debug, NOW_MS).warnings == ("trace_id_no_uuid",)


# --- the two ways -------------------------------------------------------------------------------

_text = st.text(
    st.sampled_from("ab1:/*-._ ,~=#'\"\\\t\u00a0\u3000é∆" + EMOJI), max_size=6
) | st.sampled_from(
    ["source", "host", "spanId", "traceId", "service", "12", "span.kind", "k" * 128, "k" * 129]
)
_quoted = _text.map(lambda text: '"' + text.replace('"', '\\"') + '"')
_token = _quoted | _text
_pair = st.tuples(_token, st.sampled_from(["=", "=", "=", " = ", " "]), _token).map("".join)
_times = st.sampled_from(
    [
        "1700000000123 4",
        "1700000000123 1700000000200",
        "0 0",
        "1800000000000 1",
        "1700000000123",
        "x 1",
    ]
)


@settings(max_examples=400, deadline=None)
@given(_quoted, st.lists(_pair, max_size=5), st.sampled_from([0, 46, 50]), _times)
@example('"op"', ['"_spanSecondaryId"="server"'], 0, "1700000000123 4")
@example('"op"', ['"k"="a\\" "l"="b"'], 0, "1700000000123 4")
def test_the_short_way_never_says_anything_else_than_the_long_way(
    name: str, pairs: list[str], padding: int, times: str
) -> None:
    text = line(name=name, tags=" ".join([many(padding), *pairs]).strip(), times=times)

    def verdict(read: object) -> TakenSpan | str:
        assert callable(read)
        try:
            taken = read(text, NOW_MS)
        except Refused as refused:
            return f"{refused.reason} {refused}"
        assert isinstance(taken, TakenSpan)
        return taken

    assert verdict(reader.read) == verdict(reader.read_apart)


def test_ordinary_lines_take_the_short_way() -> None:
    text = line(tags=many(50))
    long_way = SpanReader(Limits(), samples=True)
    long_way.read_apart = None  # type: ignore[assignment, method-assign]
    assert long_way.read(text, NOW_MS).identity == (TRACE, SPAN, "")


# --- Java's text --------------------------------------------------------------------------------


@given(st.text(max_size=20), st.integers(0, 20))
@settings(deadline=None)
def test_cutting_counts_utf16_units(text: str, units: int) -> None:
    assert length(head(text, units)) == min(length(text), units)


def test_half_a_pair_becomes_a_question_mark() -> None:
    assert head("a" + EMOJI, 2) == "a?"
    assert length(EMOJI) == 2


@pytest.mark.parametrize(
    ("text", "blank"), [("", True), (" \t\x1c\u2028", True), ("\u00a0", False), ("\x00", False)]
)
def test_blank_is_javas_blank(text: str, blank: bool) -> None:
    assert is_blank(text) is blank
