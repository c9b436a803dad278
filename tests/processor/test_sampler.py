"""Sampling by trace id with the Java proxy's arithmetic, and what its users asked for on top."""

import re
import uuid
from collections import Counter
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import JAVA_PROXY, NOW_US, sidecar_span
from tracefwd.model import Decoded, Encoding, WavefrontSpan
from tracefwd.processor.ceiling import ASKED, FAVOURED, OTHER, Ceiling
from tracefwd.processor.istio import make_istio_mapper
from tracefwd.processor.sampler import SpanSampler, distance, make_sampler
from tracefwd.settings import MappingSettings, RedSettings, SamplingSettings

SECOND = 1_000_000
# Places 9965, 4696 and 3364.
HIGH, MIDDLE, LOW = "2822889fe47043bd", "d6ab73f8a3930ae8", "463ac35c9f6413ad48485a3953bb6124"
ZERO = f"{20_000:016x}"


def span(trace_id: str, **changes: object) -> WavefrontSpan:
    mapper = make_istio_mapper(MappingSettings(), RedSettings())
    return mapper(
        Decoded(Encoding.JSON_V2, [sidecar_span(trace_id=trace_id, **changes)]), NOW_US
    ).spans[0]


def failed(trace_id: str, **changes: object) -> WavefrontSpan:
    return span(trace_id, tags={"http.status_code": "503"}, **changes)


def sampler(*, exact: bool = False, **options: Any) -> SpanSampler:
    made = make_sampler(SamplingSettings(**options), exact=exact)
    assert made is not None
    return made


# Rate


@pytest.mark.parametrize(
    ("trace_id", "expected"),
    [
        (HIGH, 9965),
        (MIDDLE, 4696),
        (LOW, 3364),
        ("8000000000000000", (1 << 63) % 10_000),
        ("ffffffffffffffff", 1),
    ],
)
def test_the_proxys_vectors(trace_id: str, expected: int) -> None:
    assert distance(trace_id) == expected


def test_the_same_traces_are_kept_at_a_rate() -> None:
    sample = sampler(rate=0.4)
    assert [sample.judge(span(trace)) for trace in (HIGH, MIDDLE, LOW)] == ["rate", "rate", ""]


def test_the_real_proxys_choice_of_159_among_300_spans_is_repeated() -> None:
    sample = sampler(rate=0.5)
    one = span(LOW)

    def identities(folder: str) -> list[tuple[str, str]]:
        paths = sorted((JAVA_PROXY / folder).glob("json-*.spans.txt"))
        paths += sorted((JAVA_PROXY / folder / "one-request").glob("*.spans.txt"))
        return [
            found
            for path in paths
            for found in re.findall(
                r' spanId="([^"]+)" traceId="([^"]+)"', path.read_text(encoding="utf-8")
            )
        ]

    def kept(trace: str) -> bool:
        one.trace_id = uuid.UUID(trace).hex
        return not sample.judge(one)

    everything, recorded = identities("."), identities("with-options")
    assert (len(everything), len(recorded)) == (300, 159)
    ours = [(span_id, trace) for span_id, trace in everything if kept(trace)]
    assert Counter(ours) == Counter(recorded)


def test_everything_is_kept_at_no_cost_by_default() -> None:
    assert make_sampler(SamplingSettings()) is None
    assert make_sampler(SamplingSettings(keep_errors=True, keep_slow=0.5)) is None


def test_rate_0_keeps_nothing_unless_it_is_to_behave_as_the_proxy_does() -> None:
    assert sampler(rate=0.0).judge(span(ZERO)) == "rate"
    assert sampler(rate=0.0, as_documented=False).judge(span(ZERO)) == ""
    assert sampler(rate=0.0, exact=True).judge(span(ZERO)) == ""
    assert sampler(rate=0.0, exact=True).judge(span("0000000000000001")) == "rate"


def test_between_0_and_1_both_positions_keep_what_a_java_proxy_keeps() -> None:
    at_the_line = span(f"{5_000:016x}")
    above = span(f"{5_001:016x}")
    for options in ({}, {"as_documented": False}, {"exact": True}):
        assert sampler(rate=0.5, **options).judge(at_the_line) == ""
        assert sampler(rate=0.5, **options).judge(above) == "rate"


def test_a_debug_span_is_kept_because_someone_asked_for_it() -> None:
    for options in ({}, {"exact": True}, {"rates": {"services": {"bookinfo/reviews": 0.0}}}):
        sample = sampler(rate=0.0, **options)
        assert sample.judge(span(HIGH, debug=True)) == ""
        assert sample.judge(span(HIGH, tags={"debug": "true"})) == ""
        assert sample.judge(span(HIGH)) != ""


# Duration, errors, slow ones


def test_duration_keeps_longer_spans_strictly_in_milliseconds() -> None:
    sample = sampler(rate=0.0, duration=0.005)
    assert sample.judge(span(HIGH, duration_us=6_000)) == ""
    assert sample.judge(span(HIGH, duration_us=5_999)) == "rate"
    assert sample.judge(span(HIGH, duration_us=4_000)) == "rate"


@pytest.mark.parametrize("ms", [1, 7, 70, 290, 1001, 86_400_001])
def test_a_threshold_written_in_seconds_is_exact(ms: int) -> None:
    sample = sampler(rate=0.0, keep_slow=ms / 1000)
    one = span(HIGH)
    one.duration_ms = ms
    assert sample.judge(one) == "rate"
    one.duration_ms = ms + 1
    assert sample.judge(one) == ""


def test_rate_and_duration_are_a_union() -> None:
    for options in ({}, {"as_documented": False}, {"exact": True}):
        sample = sampler(rate=0.4, duration=0.1, **options)
        assert sample.judge(span(LOW)) == ""
        assert sample.judge(span(HIGH, duration_us=200_000)) == ""
        assert sample.judge(span(HIGH)) == "rate"


def test_duration_alone_keeps_slow_spans_only_as_documented_and_does_nothing_in_the_real_proxy() -> (
    None
):
    sample = sampler(duration=0.1)
    assert sample.judge(span(LOW)) == "duration"
    assert sample.judge(span(LOW, duration_us=200_000)) == ""
    assert make_sampler(SamplingSettings(duration=0.1, as_documented=False)) is None
    assert make_sampler(SamplingSettings(duration=0.1), exact=True) is None


def test_errors_and_slow_spans_are_kept_where_asked_for() -> None:
    assert sampler(rate=0.0).judge(failed(HIGH)) == "rate"
    assert sampler(rate=0.0, keep_errors=True).judge(failed(HIGH)) == ""
    assert sampler(rate=0.0, keep_errors=True).judge(span(HIGH)) == "rate"
    assert sampler(rate=0.0, keep_slow=1.0).judge(span(HIGH, duration_us=1_001_000)) == ""
    assert sampler(duration=1.0, keep_slow=0.5).judge(span(HIGH, duration_us=600_000)) == ""
    assert sampler(duration=1.0, keep_errors=True).judge(failed(HIGH)) == ""


# Rates of their own


def test_a_services_rate_wins_over_its_applications_and_that_over_all() -> None:
    rates = {
        "applications": {"bookinfo": 0.4},
        "services": {"bookinfo/ratings": 1.0, "bookinfo/details": 0.0},
    }
    sample = sampler(rate=0.0, rates=rates)

    def of(trace: str, service: str, namespace: str = "bookinfo") -> str:
        tags = {"istio.canonical_service": service, "istio.namespace": namespace}
        return sample.judge(span(trace, tags=tags))

    assert of(LOW, "reviews") == ""
    assert of(MIDDLE, "reviews") == "application_rate"
    assert of(HIGH, "ratings") == ""
    assert of(ZERO, "details") == "service_rate"
    assert of(LOW, "reviews", "elsewhere") == "rate"
    assert sample.judge(span(HIGH, tags={"istio.canonical_service": "details"}, debug=True)) == ""


def test_own_rates_work_while_everything_else_is_kept() -> None:
    sample = sampler(rates={"applications": {}, "services": {"bookinfo/reviews": 0.4}})
    assert sample.judge(span(HIGH)) == "service_rate"
    assert sample.judge(span(HIGH, tags={"istio.canonical_service": "ratings"})) == ""


# Counts


def test_sampled_out_spans_are_counted_by_policy_once_their_batch_is_committed() -> None:
    sample = sampler(rate=0.4, rates={"services": {"bookinfo/ratings": 0.0}})
    ratings = span(LOW, tags={"istio.canonical_service": "ratings"})
    kept, out = sample.sift([span(LOW), span(HIGH), span(MIDDLE), ratings], NOW_US)
    assert [one.trace_id for one in kept] == [LOW]
    assert out == {"rate": 2, "service_rate": 1}
    assert not any(sample.counts().values())
    sample.count(out)
    assert sample.counts() == {
        "rate": 2,
        "service_rate": 1,
        "application_rate": 0,
        "duration": 0,
        "ceiling": 0,
    }
    assert sample.sift([span(LOW)], NOW_US).out is None


@given(
    st.lists(st.integers(0, 2**64 - 1), max_size=40),
    st.floats(0, 1),
    st.booleans(),
    st.integers(0, 3),
)
@settings(deadline=None, max_examples=60)
def test_every_span_is_kept_or_counted_and_a_lower_rate_keeps_a_part(
    ids: list[int], rate: float, errors: bool, limit: int
) -> None:
    one = span(LOW)
    spans = [
        WavefrontSpan(**{name: getattr(one, name) for name in one.__struct_fields__}) for _ in ids
    ]
    for made, number in zip(spans, ids, strict=True):
        made.trace_id = f"{number:016x}"
        made.error = number % 3 == 0
    high = make_sampler(SamplingSettings(rate=rate, keep_errors=errors, spans_per_second_max=limit))
    if high is None:
        return
    kept, out = high.sift(spans, NOW_US)
    assert len(kept) + sum((out or {}).values()) == len(spans)
    low = make_sampler(SamplingSettings(rate=rate / 2, keep_errors=errors))
    high = make_sampler(SamplingSettings(rate=rate, keep_errors=errors))
    assert low is not None
    chosen = {one.trace_id for one in low.sift(spans, NOW_US).kept}
    if high is not None:
        assert chosen <= {one.trace_id for one in high.sift(spans, NOW_US).kept}


@given(st.lists(st.integers(0, 2**128 - 1), max_size=60), st.floats(0, 1), st.booleans())
@settings(deadline=None, max_examples=60)
def test_a_batch_is_judged_as_its_spans_are(ids: list[int], rate: float, errors: bool) -> None:
    made = make_sampler(SamplingSettings(rate=rate, keep_errors=errors, keep_slow=0.5))
    if made is None:
        return
    one = span(LOW)
    spans = []
    for number in ids:
        fields = {name: getattr(one, name) for name in one.__struct_fields__}
        fields |= {"trace_id": f"{number:032x}", "error": number % 7 == 0}
        fields |= {"duration_ms": number % 1_000, "debug": number % 5 == 0}
        spans.append(WavefrontSpan(**fields))
    kept, out = made.sift(spans, NOW_US)
    assert kept == [one for one in spans if not made.judge(one)]
    assert sum((out or {}).values()) == len(spans) - len(kept)


# The ceiling


class Load:
    """Spans of random traces at a steady rate, a batch of five per trace."""

    def __init__(self, ceiling: Ceiling, seed: int = 1) -> None:
        self.ceiling = ceiling
        self.random = Random(seed)

    def second(self, second: int, *, others: int = 0, favoured: int = 0, asked: int = 0) -> Counter:
        """Spans admitted in one second, by rank."""
        ranks = [OTHER] * others + [FAVOURED] * favoured + [ASKED] * asked
        self.random.shuffle(ranks)
        admitted: Counter[int] = Counter()
        for index, rank in enumerate(ranks):
            self.ceiling.observe(second * SECOND + index * SECOND // len(ranks))
            admitted[rank] += self.ceiling.admit(rank, self.random.randrange(10_000), 10_000)
        return admitted


def test_below_the_ceiling_nothing_is_lost() -> None:
    load = Load(Ceiling(1_000))
    assert [load.second(at, others=990)[OTHER] for at in range(5)] == [990] * 5


def test_steady_load_comes_down_to_the_ceiling_and_wastes_little_of_it() -> None:
    load = Load(Ceiling(1_000))
    admitted = [load.second(at, others=8_000)[OTHER] for at in range(10)]
    assert admitted[0] < 2_000
    for number in admitted[1:]:
        assert 850 <= number <= 1_060


def test_a_burst_never_gets_twice_the_ceiling_through() -> None:
    load = Load(Ceiling(100))
    for at in range(5):
        load.second(at, others=50)
    assert 100 < load.second(6, others=20_000)[OTHER] < 200
    # All of one trace, at the very first place: no share can tell them apart.
    ceiling = Ceiling(100)
    ceiling.observe(0)
    assert sum(ceiling.admit(OTHER, 0, 10_000) for _ in range(10_000)) < 200


def test_it_lets_go_when_the_load_falls() -> None:
    load = Load(Ceiling(1_000))
    for at in range(6):
        load.second(at, others=10_000)
    admitted = [load.second(at, others=500)[OTHER] for at in range(6, 14)]
    assert admitted[0] < 150
    assert admitted[-1] == 500


def test_errors_and_slow_spans_come_first_and_debug_before_all() -> None:
    load = Load(Ceiling(1_000))
    for at in range(6):
        admitted = load.second(at, others=5_000, favoured=400, asked=100)
    assert admitted[ASKED] == 100
    assert admitted[FAVOURED] == 400
    assert 350 <= admitted[OTHER] <= 560
    for at in range(6, 12):
        admitted = load.second(at, others=5_000, favoured=3_000)
    assert 850 <= admitted[FAVOURED] <= 1_060
    # The last step below a whole share is theirs.
    assert admitted[OTHER] < 60
    assert load.second(12, asked=5_000)[ASKED] == 5_000


def test_workers_under_similar_load_admit_the_same_traces() -> None:
    workers = [Ceiling(1_000), Ceiling(1_000)]
    loads = [Load(worker, seed) for seed, worker in enumerate(workers)]
    for at in range(6):
        for load, number in zip(loads, (8_060, 8_160), strict=True):
            load.second(at, others=number)
    for worker in workers:
        worker.observe(6 * SECOND)
    for place in range(0, 10_000, 10):
        assert len({worker.admit(OTHER, place, 10_000) for worker in workers}) == 1


def test_the_ceiling_takes_its_share_of_what_a_rate_has_kept() -> None:
    load = Load(Ceiling(1_000))
    for at in range(6):
        load.second(at, others=2_000)
    load.ceiling.observe(6 * SECOND)
    # Half of the load: half of the places below each line, whatever the line.
    for line in (10_000, 5_000, 100):
        fresh = [load.ceiling.admit(OTHER, place, line) for place in (line // 3, line * 2 // 3)]
        assert fresh == [True, False]


def test_gaps_and_clocks_that_are_set_back_do_no_harm() -> None:
    load = Load(Ceiling(100))
    load.second(1_000, others=1_000)
    assert load.second(5_000, others=50)[OTHER] == 50
    load.second(5_001, others=1_000)
    assert load.second(10, others=1_000)[OTHER] <= 110
    assert load.second(20, others=50)[OTHER] == 50


def test_the_same_sequence_gets_the_same_verdicts() -> None:
    def run() -> list[Counter]:
        load = Load(Ceiling(300), seed=7)
        return [load.second(at, others=400 * at, favoured=50) for at in range(8)]

    assert run() == run()


def test_the_ceiling_is_counted_apart_and_left_out_where_there_is_no_load() -> None:
    sample = sampler(spans_per_second_max=10, keep_errors=True, rate=0.5)
    batch = [span(f"{5_000 - number:016x}") for number in range(100)]
    kept, out = sample.sift([*batch, span(HIGH), span(HIGH, debug=True)], NOW_US)
    assert 10 <= len(kept) < 20
    assert kept[-1].debug
    assert out == {"ceiling": 102 - 1 - len(kept), "rate": 1}
    assert not any(sample.judge(one) for one in batch)
