"""Cumulative counters of pods as delta counters: what came, once, across restarts and vanished pods."""

import random

import pytest

from tests.metricspath.parts import NOW_S, scrape, translation
from tracefwd.errors import ConfigError
from tracefwd.metricspath.deltas import AGGREGATED, check
from tracefwd.metricspath.translate import Translation
from tracefwd.settings import DeltaSettings, FilterSettings, PrometheusSourceSettings

NAMES = ["requests.total.*"]
SEED_URL = 'http://prometheus:9090/federate?match[]={job=~"federate|kubernetes-pods"}'


def made(mode: str = "default", **deltas: object) -> Translation:
    return translation(mode, deltas=DeltaSettings(**{"names": NAMES, **deltas}))  # type: ignore[arg-type]


def body(**pods: float) -> str:
    """One counter per pod, same code; the pod's name is its instance."""
    return "".join(
        f'requests_total{{code="200",instance="{pod}"}} {value}\n' for pod, value in pods.items()
    )


class Mesh:
    """Scrapes a minute apart; what each sends, by code."""

    def __init__(self, of: Translation | None = None) -> None:
        self.of = of or made()
        self.now_s = NOW_S
        self.dropped: dict[str, int] = {}

    def scrape(self, text: str, *, complete: bool = True) -> dict[str, float]:
        self.now_s += 60
        result = scrape(text, self.of, now_s=self.now_s, complete=complete)
        self.dropped = result.counts.dropped
        sent = {}
        for point in result.points():
            assert point.name == "∆requests.total.value"
            assert point.time_s == int(self.now_s)
            sent[point.tags["code"]] = point.value
        return sent


def test_the_first_scrape_only_remembers() -> None:
    mesh = Mesh()
    assert mesh.scrape(body(a=100, b=200)) == {}
    assert mesh.dropped == {"first_seen": 2}


def test_differences_are_summed_over_pods() -> None:
    mesh = Mesh()
    mesh.scrape(body(a=100, b=200))
    assert mesh.scrape(body(a=110, b=205)) == {"200": 15.0}
    assert mesh.dropped == {"merged": 2}
    assert mesh.scrape(body(a=110, b=205)) == {}


def test_a_restarted_pod_counts_from_zero() -> None:
    mesh = Mesh()
    mesh.scrape(body(a=100, b=200))
    assert mesh.scrape(body(a=7, b=201)) == {"200": 8.0}


def test_a_vanished_pod_takes_nothing_away_and_may_come_back() -> None:
    mesh = Mesh()
    mesh.scrape(body(a=100, b=200))
    assert mesh.scrape(body(b=203)) == {"200": 3.0}
    assert mesh.scrape(body(a=104, b=203)) == {"200": 4.0}


def test_a_new_series_of_a_known_pod_began_at_zero() -> None:
    mesh = Mesh()
    mesh.scrape(body(a=100))
    assert mesh.scrape(body(a=100) + 'requests_total{code="500",instance="a"} 3\n') == {"500": 3.0}


def test_an_unknown_pod_is_only_remembered() -> None:
    mesh = Mesh()
    mesh.scrape(body(a=100))
    assert mesh.scrape(body(a=101, old=1_000_000)) == {"200": 1.0}
    assert mesh.scrape(body(a=101, old=1_000_002)) == {"200": 2.0}


def test_half_a_body_makes_nothing_look_new() -> None:
    mesh = Mesh()
    whole = body(a=100) + 'requests_total{code="500",instance="a"} 900\n'
    assert mesh.scrape(body(a=100), complete=False) == {}
    assert mesh.scrape(whole) == {}
    assert mesh.scrape(whole.replace("900", "901")) == {"500": 1.0}


def test_half_a_body_later_loses_nothing() -> None:
    mesh = Mesh()
    mesh.scrape(body(a=100, b=200))
    assert mesh.scrape(body(a=105) + "requests_total{co", complete=False) == {"200": 5.0}
    assert mesh.scrape(body(a=106, b=210)) == {"200": 11.0}


def test_a_series_that_is_away_too_long_is_forgotten() -> None:
    mesh = Mesh(made(expiry=100.0))
    mesh.scrape(body(a=100, b=200))
    for _ in range(3):
        mesh.scrape(body(b=200))
    assert mesh.scrape(body(a=50_000, b=200)) == {}


def test_more_series_than_can_be_remembered_are_counted_and_never_invented() -> None:
    mesh = Mesh(made(series_max=2))
    mesh.scrape(body(a=1, b=1, c=1))
    assert mesh.dropped == {"first_seen": 2, "series_max": 1}
    assert mesh.scrape(body(a=2, b=2, c=9)) == {"200": 2.0}
    assert mesh.dropped == {"merged": 2, "series_max": 1}


def test_series_that_a_known_pod_begins_take_room_like_any_other() -> None:
    mesh = Mesh(made(series_max=10))
    mesh.scrape(body(a=1))
    begun = "".join(f'requests_total{{code="{code}",instance="a"}} 1\n' for code in range(50))
    assert len(mesh.scrape(body(a=1) + begun)) == 9
    for _ in range(2):
        assert mesh.dropped == {"merged": 10, "series_max": 41}
        assert mesh.scrape(body(a=1) + begun) == {}


def test_series_of_no_single_pod_are_refused_and_counted() -> None:
    mesh = Mesh()
    aggregated = 'requests_total{code="200",instance=""} 5\nrequests_total{code="200",instance="p",job="federate"} 6\n'
    assert mesh.scrape(aggregated) == {}
    assert mesh.dropped == {"not_per_pod": 2}


def test_what_a_recording_rule_made_is_refused_and_counted_whatever_labels_it_kept() -> None:
    of = translation(deltas=DeltaSettings(names=["*.total.value"]), strip_prefix="job:")
    ruled = 'job:requests_total{instance="a"} 5\nsum:requests_total{instance="a"} 5\n'
    scrape(ruled, of)
    result = scrape(ruled.replace("5", "9"), of)
    assert (result.lines, result.counts.dropped) == ([], {"not_per_pod": 2})


def test_the_same_series_twice_counts_once() -> None:
    mesh = Mesh()
    mesh.scrape(body(a=100))
    assert mesh.scrape(body(a=110) + body(a=110)) == {"200": 10.0}
    assert mesh.dropped == {"merged": 1, "duplicate": 1}


@pytest.mark.parametrize("mode", ["default", "collector"])
def test_of_equal_series_the_newest_counts_in_whatever_order_they_come(mode: str) -> None:
    mesh = Mesh(made(mode=mode))

    def copies(*pairs: tuple[int, float]) -> str:
        blocks = ('code="200",instance="a"', 'instance="a",code="200"')
        return "".join(
            f"requests_total{{{block}}} {value} {int((NOW_S + when) * 1000)}\n"
            for block, (when, value) in zip(blocks, pairs, strict=False)
        )

    assert mesh.scrape(copies((0, 1000), (-15, 990))) == {}
    assert mesh.scrape(copies((1, 1001), (15, 1010))) == {"200": 10.0}
    assert mesh.dropped == {"merged": 1, "duplicate": 1}
    assert mesh.scrape(copies((30, 1020), (16, 1011))) == {"200": 10.0}


@pytest.mark.parametrize("mode", ["default", "collector"])
def test_an_older_value_of_another_replica_of_prometheus_is_no_new_beginning(mode: str) -> None:
    mesh = Mesh(made(mode=mode))

    def seen(when: float, value: float) -> str:
        return f'requests_total{{code="200",instance="a"}} {value} {int((NOW_S + when) * 1000)}\n'

    mesh.scrape(seen(0, 1000))
    assert mesh.scrape(seen(60, 1010)) == {"200": 10.0}
    assert mesh.scrape(seen(50, 1009)) == {}
    assert mesh.scrape(seen(180, 1030)) == {"200": 20.0}
    assert mesh.scrape(seen(240, 5)) == {"200": 5.0}


def test_a_clock_that_was_far_ahead_stops_no_counter() -> None:
    mesh = Mesh(made(expiry=600.0))

    def seen(when: float, value: float) -> str:
        return f'requests_total{{code="200",instance="a"}} {value} {int((NOW_S + when) * 1000)}\n'

    mesh.scrape(seen(86_400, 1000))
    assert mesh.scrape(seen(60, 1010)) == {"200": 10.0}
    assert mesh.scrape(seen(120, 1015)) == {"200": 5.0}


def test_filters_see_the_pods_own_tags() -> None:
    of = translation(
        deltas=DeltaSettings(names=NAMES),
        filters=FilterSettings(metricTagDenyList={"instance": ["a"]}),
    )
    mesh = Mesh(of)
    mesh.scrape(body(a=1, b=1))
    assert mesh.scrape(body(a=9, b=3)) == {"200": 2.0}


def test_tags_that_are_changed_or_left_out_are_counted() -> None:
    wide = ",".join(f'l{number}="v"' for number in range(20))
    text = f'requests_total{{code="200",instance="a",tag="x",{wide}}} 5\n'
    repairs = scrape(text, made()).counts.repairs
    assert repairs == {"key_changed": 1, "tag_budget": 3}


def test_other_names_stay_as_they_are() -> None:
    assert [p.name for p in scrape('gauge{instance="a"} 1\n', made()).points()] == ["gauge.value"]


def test_typed_counters_and_histograms_too() -> None:
    of = translation(deltas=DeltaSettings(names=["r.counter", "h.*"]))
    text = (
        '# TYPE r counter\nr{{instance="a"}} {0}\n# TYPE h histogram\n'
        'h_bucket{{instance="a",le="1.0"}} {0}\nh_count{{instance="a"}} {0}\n'
    )
    scrape(text.format(1), of)
    points = scrape(text.format(3), of).points()
    assert sorted((p.name, p.value, p.tags.get("le")) for p in points) == [
        ("∆h.bucket", 2.0, "1"), ("∆h.count", 2.0, None), ("∆r.counter", 2.0, None),
    ]  # fmt: skip


def test_whatever_pods_do_the_sum_is_what_they_counted_while_they_were_known() -> None:
    """Pods restart, vanish, come back; against a count kept beside it."""
    generator = random.Random(7)
    mesh = Mesh()
    values = {f"p{n}": 0.0 for n in range(6)}
    mesh.scrape(body(**values))
    seen = dict(values)
    sent = expected = 0.0
    for _ in range(200):
        for pod in values:
            values[pod] += generator.randrange(5)
            if generator.random() < 0.05:
                values[pod] = float(generator.randrange(3))
        shown = {pod: value for pod, value in values.items() if generator.random() < 0.9}
        for pod, value in shown.items():
            expected += value - seen[pod] if value >= seen[pod] else value
            seen[pod] = value
        sent += mesh.scrape(body(**shown)).get("200", 0.0)
    assert sent == expected > 0


@pytest.mark.parametrize(
    "pattern",
    ["istio.requests.*", "*", "istio.request.bytes.sum.value", "istio.tcp.{sent,received}.*"],
)
def test_aggregated_series_are_refused_at_configuration_with_the_rules_name(pattern: str) -> None:
    source = PrometheusSourceSettings(url=SEED_URL, deltas=DeltaSettings(names=[pattern]))
    [problem] = check(source, "prometheus_sources[0]")
    assert "federate:istio_" in problem
    assert problem.startswith(f"prometheus_sources[0].deltas.names: {pattern!r}")
    with pytest.raises(ConfigError, match="recording rule federate:istio_"):
        translation(url=SEED_URL, deltas=DeltaSettings(names=[pattern]))


@pytest.mark.parametrize(
    "source",
    [
        PrometheusSourceSettings(url=SEED_URL, deltas=DeltaSettings(names=["pilot.*"])),
        PrometheusSourceSettings(
            url='http://p/federate?match[]={job="kubernetes-pods"}', deltas=DeltaSettings(names=["*"])
        ),
        PrometheusSourceSettings(url="http://istiod:15014/metrics", deltas=DeltaSettings(names=["*"])),
        PrometheusSourceSettings(url=SEED_URL),
    ],
)  # fmt: skip
def test_raw_series_are_taken(source: PrometheusSourceSettings) -> None:
    assert check(source, "x") == []


def test_escaped_queries_and_rule_names_are_seen_through() -> None:
    for url in (
        "http://p/federate?match%5B%5D=%7Bjob%3D%22feder%61te%22%7D",
        'http://p/federate?match[]={__name__=~"federate:.*"}',
    ):
        source = PrometheusSourceSettings(url=url, deltas=DeltaSettings(names=["*"]))
        assert len(check(source, "x")) == 1


def test_bad_patterns_and_numbers_and_no_label_that_tells_pods_apart_are_refused() -> None:
    for deltas in (
        DeltaSettings(names=["["]),
        DeltaSettings(names=["a"], without=[]),
        DeltaSettings(names=["a"], series_max=0),
        DeltaSettings(names=["a"], expiry=-1.0),
    ):
        assert len(check(PrometheusSourceSettings(deltas=deltas), "x")) == 1


def test_the_integration_has_thirty_two_rules() -> None:
    assert len(set(AGGREGATED)) == 32
