"""Every switch against the Java proxy, in both positions: what it changes, and that off is what the proxy does."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.docs import README
from tests.processor.test_wavefront_proxy import span_of
from tracefwd.model import Decoded, Encoding, Endpoint, Mapped, Span, WavefrontSpan
from tracefwd.processor.wavefront_proxy import make_wavefront_proxy_mapper
from tracefwd.processor.wavefront_proxy_rules import Deviations, chosen_deviations
from tracefwd.settings import MappingSettings, RedSettings

NOW_US = 1_795_400_000_000_000
START_US = 1_700_000_000_123_456
SWITCHES = [field.name for field in dataclasses.fields(Deviations)]
WHOLE = "k" * 127 + "\U0001f680"


def mapper(*, exact: bool = False, **deviations: bool) -> Any:
    mapping = MappingSettings(profile="wavefront-proxy", exact=exact, deviations=deviations)
    return make_wavefront_proxy_mapper(mapping, RedSettings())


def batch(spans: list[Span]) -> Decoded:
    return Decoded(Encoding.JSON_V2, spans)


# What a case looks at


def pairs(span: WavefrontSpan) -> list[tuple[str, str]]:
    return [*span.head, *span.tags.items(), *span.tail]


def values(key: str) -> Callable[[Mapped], list[list[str]]]:
    """By span: all values of this tag."""
    return lambda mapped: [
        [value for name, value in pairs(span) if name == key] for span in mapped.spans
    ]


def keys(*names: str) -> Callable[[Mapped], list[set[str]]]:
    return lambda mapped: [{key for key, _ in pairs(span)} & {*names} for span in mapped.spans]


def times(mapped: Mapped) -> list[tuple[int, int]]:
    return [(span.start_ms, span.duration_us) for span in mapped.spans]


def starts(mapped: Mapped) -> list[int]:
    return [span.start_ms for span in mapped.spans]


def errors(mapped: Mapped) -> list[tuple[bool, str | None]]:
    return [(span.error, span.tags.get("error")) for span in mapped.spans]


def kinds(mapped: Mapped) -> list[str]:
    return [span.kind for span in mapped.spans]


def whose(mapped: Mapped) -> list[tuple[str, ...]]:
    """Name, source and service of the spans, then the reasons of the rejects."""
    return [
        *[(span.name, span.source, span.identity.service) for span in mapped.spans],
        *[("rejected", *reject.detail.split(":")[:1]) for reject in mapped.rejects],
    ]


def fate(mapped: Mapped) -> tuple[int, list[str], int]:
    """Spans, where the rejects are, and how many of these RED counts."""
    return len(mapped.spans), [reject.where for reject in mapped.rejects], len(mapped.red_only)


@dataclasses.dataclass(frozen=True)
class Case:
    spans: list[Span]
    look: Callable[[Mapped], Any]
    on: Any
    off: Any
    repair: str | None = None
    """Counted when the switch is on, and only then."""


ARRIVED_MS = (NOW_US - 4_999) // 1000
CASES: dict[str, Case] = {
    "error_by_meaning": Case(
        [span_of({"error": "false"}), span_of({"error": ""}), span_of({"error": "503"})],
        errors,
        on=[(False, "false"), (True, "true"), (True, "true")],
        off=[(True, "true"), (False, None), (True, "true")],
    ),
    "single_service": Case(
        [span_of({"service": "mine"})],
        values("service"),
        on=[["mine"]],
        off=[["reviews.default", "mine"]],
    ),
    "reserved_keys": Case(
        [span_of({"host": "a", "spanId": "b", "traceId": "c", "SOURCE": "d"})],
        keys("host", "spanId", "traceId", "SOURCE", "_host", "_spanId", "_traceId", "_SOURCE"),
        on=[{"_host", "_spanId", "_traceId", "_SOURCE"}],
        off=[{"host", "spanId", "traceId"}],
        repair="key_changed",
    ),
    "odd_keys": Case(
        [span_of({"12": "a"})], keys("12", "_12"), on=[{"_12"}], off=[{"12"}], repair="key_changed"
    ),
    "trailing_backslash": Case(
        [span_of({"path": "C:\\"})],
        values("path"),
        on=[["C:\\."]],
        off=[["C:\\"]],
        repair="trailing_backslash",
    ),
    "missing_start": Case(
        [span_of(timestamp_us=None)], starts, on=[ARRIVED_MS], off=[0], repair="no_timestamp"
    ),
    "past_start": Case(
        [span_of(timestamp_us=1_700_000_000_123)],
        times,
        on=[(ARRIVED_MS, 4_999)],
        off=[(1_700_000_000, 4_999)],
        repair="past_start",
    ),
    "future_start": Case(
        [span_of(timestamp_us=NOW_US + 86_400_001_000)],
        lambda mapped: (starts(mapped), fate(mapped)),
        on=([ARRIVED_MS], (1, [], 0)),
        off=([], (0, ["timestamp"], 1)),
        repair="future_start",
    ),
    "impossible_duration": Case(
        [span_of(duration_us=START_US)],
        times,
        on=[(START_US // 1000, 0)],
        off=[(START_US // 1000, START_US)],
        repair="duration",
    ),
    "blank_is_absent": Case(
        [
            span_of(name=" "),
            span_of(local=Endpoint("\t")),
            span_of({"source": " "}),
            span_of({"w": "\x01"}),
        ],
        whose,
        on=[
            ("defaultOperation", "zipkin", "reviews.default"),
            ("get", "zipkin", "defaultService"),
            ("get", "zipkin", "reviews.default"),
            ("get", "zipkin", "reviews.default"),
        ],
        off=[
            ("", "zipkin", "reviews.default"),
            ("get", "-", "reviews.default"),
            ("rejected", "WF-434"),
            ("rejected", "WF-434"),
        ],
        repair="blank_value",
    ),
    "cut_not_refused": Case(
        [span_of(name="n" * 129), span_of({"source": "s" * 1_024}), span_of({"k" * 129: "v"})],
        whose,
        on=[
            ("n" * 128, "zipkin", "reviews.default"),
            ("get", "s" * 128, "reviews.default"),
            ("get", "zipkin", "reviews.default"),
        ],
        off=[("rejected", "WF-428"), ("rejected", "WF-427"), ("rejected", "WF-432")],
        repair="name_cut",
    ),
    "tag_budget": Case(
        [span_of({f"a{index:02}": "v" for index in range(60)} | {"error": "1"})],
        lambda mapped: (fate(mapped), keys("a00", "a59", "error")(mapped)),
        on=((1, [], 0), [{"a00", "error"}]),
        off=((0, ["tags"], 1), []),
        repair="tag_budget",
    ),
    "whole_characters": Case(
        [span_of({"w": WHOLE})], values("w"), on=[["k" * 127]], off=[["k" * 127 + "?"]]
    ),
    "kind_without_endpoint": Case(
        [Span("463ac35c9f6413ad", "a2fb4a1d1a96d312", kind="CLIENT", timestamp_us=START_US)],
        kinds,
        on=["client"],
        off=[""],
    ),
    "batch_survives": Case(
        [span_of(), span_of({"": "x"}), span_of()],
        fate,
        on=(3, [], 0),
        off=(1, ["tags", "batch"], 0),
        repair="key_changed",
    ),
}


def test_no_switch_is_without_a_case() -> None:
    assert [*CASES] == SWITCHES


@pytest.mark.parametrize("switch", SWITCHES)
def test_on_and_off_differ_as_documented(switch: str) -> None:
    case = CASES[switch]
    on = mapper()(batch(case.spans), NOW_US)
    off = mapper(**{switch: False})(batch(case.spans), NOW_US)
    assert case.look(on) == case.on
    assert case.look(off) == case.off
    if case.repair is not None:
        assert case.repair in (on.repairs or {})
        assert case.repair not in (off.repairs or {})


@pytest.mark.parametrize("switch", SWITCHES)
def test_off_is_what_the_proxy_does(switch: str) -> None:
    case = CASES[switch]
    assert case.look(mapper(exact=True)(batch(case.spans), NOW_US)) == case.off


@pytest.mark.parametrize("switch", SWITCHES)
def test_a_switch_leaves_the_other_cases_alone(switch: str) -> None:
    convert = mapper(**{switch: False})
    for name, case in CASES.items():
        # An empty key that is not mended fails its span, though not the batch.
        if name != switch and (switch, name) != ("odd_keys", "batch_survives"):
            assert case.look(convert(batch(case.spans), NOW_US)) == case.on, name


@pytest.mark.parametrize("switch", SWITCHES)
def test_the_readme_has_a_row_for_every_switch(switch: str) -> None:
    assert f"\n| `{switch}` | on | " in README.read_text()


def test_single_choices_stand_over_all_or_none() -> None:
    assert chosen_deviations(MappingSettings()) == Deviations(**dict.fromkeys(SWITCHES, True))
    assert chosen_deviations(MappingSettings(exact=True)) == Deviations()
    one_off = chosen_deviations(MappingSettings(deviations={"odd_keys": False}))
    assert [name for name in SWITCHES if not getattr(one_off, name)] == ["odd_keys"]


@pytest.mark.parametrize(
    ("switch", "tags"),
    [("odd_keys", {"": "x"}), ("odd_keys", {"∆": "x"}), ("blank_is_absent", {"source": ""})],
)
def test_what_is_not_mended_fails_alone(switch: str, tags: dict[str, str]) -> None:
    convert = mapper(**{switch: False})
    mapped = convert(batch([span_of(), span_of(tags), span_of()]), NOW_US)
    assert fate(mapped) == (2, ["source" if "source" in tags else "tags"], 0)


@settings(deadline=None, max_examples=150)
@given(
    st.sets(st.sampled_from(SWITCHES)),
    st.lists(st.sampled_from([span for case in CASES.values() for span in case.spans]), max_size=5),
)
def test_with_any_switches_the_short_cut_is_the_rules_and_no_span_is_lost(
    off: set[str], spans: list[Span]
) -> None:
    choice = dict.fromkeys(off, False)
    short, rules = mapper(**choice), mapper(**choice)
    rules._short_cut = False
    found, expected = short(batch(spans), NOW_US), rules(batch(spans), NOW_US)
    for span in found.spans:
        span.plain = False
    assert found == expected
    assert len(found.spans) + len(found.rejects) == len(spans)
