"""Our parser beside prometheus_client's, on generated and on damaged expositions, and cut at any byte."""

import math
import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from tests.metricspath.parts import FEDERATE, SEED_FILTERS, scrape, translation
from tracefwd.metricspath import go_numbers
from tracefwd.metricspath.parser import LineError, read_labels, read_sample, write_labels

Seen = tuple[str, tuple[tuple[str, str], ...], float, float | None]

NAMES = st.from_regex(r"[a-zA-Z_:][a-zA-Z0-9_:]{0,12}", fullmatch=True)
KEYS = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]{0,8}", fullmatch=True).filter(
    lambda key: not key.startswith("__")
)
VALUES = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
LABELS = st.dictionaries(KEYS, VALUES, max_size=5)
NUMBERS = st.one_of(
    st.floats(allow_nan=False).map(repr),
    st.integers(-(2**63), 2**63).map(str),
    st.sampled_from(["NaN", "+Inf", "-Inf", "0", "-0", "1e3", "1.", ".5", "2.046e+09"]),
)
STAMPS = st.one_of(st.just(""), st.integers(0, 10**13).map(str))
BLANKS = st.sampled_from([" ", "  ", "\t"])


@st.composite
def lines(draw: st.DrawFn) -> str:
    labels = draw(LABELS)
    block = "{" + write_labels(labels) + draw(st.sampled_from(["", ","] if labels else [""])) + "}"
    stamp = draw(STAMPS)
    end = draw(BLANKS) + stamp if stamp else ""
    return (
        draw(NAMES)
        + (block if labels or draw(st.booleans()) else "")
        + draw(BLANKS)
        + draw(NUMBERS)
        + end
    )


def theirs(text: str) -> list[Seen]:
    return [
        (
            s.name,
            tuple(sorted(s.labels.items())),
            float(s.value),
            None if s.timestamp is None else float(s.timestamp),
        )
        for family in read_text(text)
        for s in family.samples
    ]


def ours(line: str) -> Seen:
    sample = read_sample(line)
    value = go_numbers.parse(sample.value)
    stamp = go_numbers.parse_int64(sample.stamp) if sample.stamp else None
    assert value is not None
    return (
        sample.name,
        tuple(sorted(sample.labels.items())),
        value,
        None if stamp is None else stamp / 1000,
    )


def same(one: Seen, other: Seen) -> bool:
    is_nan = math.isnan(one[2]) and math.isnan(other[2])
    return one[:2] == other[:2] and (is_nan or one[2] == other[2]) and one[3] == other[3]


@settings(deadline=None, max_examples=150)
@given(lines())
def test_a_good_line_is_read_as_the_reference_reads_it(line: str) -> None:
    [expected] = theirs(line + "\n")
    assert same(ours(line), expected)


@settings(deadline=None, max_examples=40)
@given(st.lists(lines(), max_size=8), st.integers(1, 40))
def test_a_body_gives_the_samples_of_the_reference_wherever_it_is_cut(
    body: list[str], chunk: int
) -> None:
    text = "".join(f"{line}\n" for line in body)
    result = scrape(text, mode="collector", chunk=chunk)
    assert result.counts.samples == len(theirs(text))
    assert result.counts.bad_lines == {}
    assert result.lines == scrape(text, mode="collector", chunk=10**6).lines


@settings(deadline=None, max_examples=150)
@given(lines(), st.data())
def test_a_damaged_line_is_read_as_the_reference_reads_it_or_not_at_all(
    line: str, data: st.DataObject
) -> None:
    """We are the stricter one: what we take, the reference takes, and to the same effect."""
    at = data.draw(st.integers(0, len(line) - 1))
    wrong = data.draw(
        st.sampled_from(["", '"', "{", "}", ",", "=", "\\", " ", "#", "x", "1", "\x00", "ä"])
    )
    damaged = line[:at] + wrong + line[at + 1 :]
    if damaged.lstrip().startswith("#") or not damaged.strip() or " # " in damaged:
        return
    try:
        mine = ours(damaged)
    except LineError:
        return
    except AssertionError:
        pytest.fail("a value was accepted that is none")
    if stamp_is_odd(damaged):
        return
    assert any(same(mine, other) for other in theirs(damaged + "\n"))


def stamp_is_odd(line: str) -> bool:
    """The reference reads any number as a timestamp, and stops at odd ones; we leave that to the caller."""
    sample = read_sample(line)
    return bool(sample.stamp) and go_numbers.parse_int64(sample.stamp) is None


@settings(deadline=None, max_examples=80)
@given(LABELS)
def test_labels_survive_being_written_and_read(labels: dict[str, str]) -> None:
    assert read_labels(write_labels(labels)) == labels


@settings(deadline=None, max_examples=100)
@given(st.text(alphabet='a{}",=\\ #\n1_:é', max_size=60))
def test_no_text_at_all_breaks_a_scrape(text: str) -> None:
    for mode in ("default", "collector"):
        scrape(text, mode=mode)


@settings(deadline=None, max_examples=80)
@given(st.binary(max_size=80), st.integers(1, 9))
def test_no_bytes_at_all_break_a_scrape_wherever_they_are_cut(body: bytes, chunk: int) -> None:
    whole = scrape(body)
    parts = scrape(body, chunk=chunk)
    assert parts.lines == whole.lines
    assert parts.counts == whole.counts


@pytest.mark.parametrize("name", ["small.txt", "synthetic-edge.txt", "synthetic-broken.txt"])
@pytest.mark.parametrize("mode", ["default", "collector"])
def test_real_bodies_come_out_the_same_wherever_they_are_cut(name: str, mode: str) -> None:
    body = (FEDERATE / name).read_bytes()
    own = translation(mode, filters=SEED_FILTERS)
    whole = scrape(body, own)
    generator = random.Random(name)
    for size in (1, 7, 1_023, *[generator.randrange(2, 5_000) for _ in range(3)]):
        if size == 1 and len(body) > 10_000:
            continue
        parts = scrape(body, own, chunk=size)
        assert parts.lines == whole.lines
        assert parts.counts == whole.counts


def test_medium_has_the_samples_of_the_reference() -> None:
    text = (FEDERATE / "medium.txt").read_text()
    result = scrape(text, untyped=True, tags_max=100)
    reference = theirs(text)
    assert result.counts.samples == len(reference)
    finite = [seen for seen in reference if math.isfinite(seen[2])]
    assert result.counts.points == len(finite)
    assert sorted(float(line.split(" ")[1]) for line in result.lines) == sorted(
        s[2] for s in finite
    )


OPENMETRICS = """# TYPE http_requests counter
# UNIT http_requests requests
# HELP http_requests Requests, "quoted" and {braced}.
http_requests_total{code="200",path="a\\"b\\\\c\\nd"} 17 1795352600.5
http_requests_created{code="200",path="a\\"b\\\\c\\nd"} 1795350000.25 1795352600.5
# TYPE latency histogram
latency_bucket{le="0.5"} 3 # {trace_id="0af7651916cd43dd"} 0.31 1795352590.1
latency_bucket{le="+Inf"} 4 # {} 9
latency_count 4
latency_sum 10.5
# TYPE build info
build_info{version="1.2"} 1
# TYPE state stateset
state{state="up"} 1
state{state="down"} 0
# TYPE odd unknown
odd 1.5e3 1795352600
# EOF
"""


def families(text: str) -> Iterator[Seen]:
    for family in read_openmetrics(text):
        for s in family.samples:
            yield s.name, tuple(sorted(s.labels.items())), s.value, None


def test_openmetrics_has_the_samples_of_the_reference() -> None:
    result = scrape(OPENMETRICS, content_type="application/openmetrics-text; version=1.0.0")
    expected = {
        "http.requests.total.counter",
        "http.requests.created.gauge",
        "latency.bucket",
        "latency.count",
        "latency.sum",
        "build.info.gauge",
        "state.gauge",
        "odd.value",
    }
    points = result.points()
    assert {p.name for p in points} == expected
    assert sorted(p.value for p in points) == sorted(seen[2] for seen in families(OPENMETRICS))
    assert result.counts.bad_lines == {}
    times = {p.name: p.time_s for p in points}
    assert times["http.requests.total.counter"] == 1795352600
    assert times["odd.value"] == 1795352600
    assert result.scrape.has_ended


def test_an_openmetrics_body_without_its_end_says_so() -> None:
    cut = OPENMETRICS.removesuffix("# EOF\n")
    assert not scrape(cut, content_type="application/openmetrics-text").scrape.has_ended
    assert scrape(cut).scrape.has_ended


def test_openmetrics_is_known_by_its_type_in_any_case() -> None:
    result = scrape("a 1 1795352600.5\n", content_type="Application/OpenMetrics-Text")
    assert [point.time_s for point in result.points()] == [1795352600]
    assert not result.scrape.has_ended


@pytest.mark.parametrize("end", ["# EOF", "# EOF\r\n"])
def test_an_openmetrics_body_may_end_with_its_mark(end: str) -> None:
    result = scrape(f"a 1\n{end}", content_type="application/openmetrics-text")
    assert result.scrape.has_ended
    assert (result.counts.points, result.counts.bad_lines) == (1, {})


@pytest.mark.parametrize("rest", ["b 12", "# EO", "# EOFF", "# HELP EOF"])
def test_the_unfinished_line_of_an_openmetrics_body_without_its_mark_is_thrown_away(
    rest: str,
) -> None:
    result = scrape(f"a 1\n{rest}", content_type="application/openmetrics-text")
    assert not result.scrape.has_ended
    assert (result.counts.points, result.counts.bad_lines) == (1, {"cut_off": 1})
