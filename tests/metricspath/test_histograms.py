"""Distributions of what came since the last scrape, and the collector's way with typed families."""

import pytest

from tests.metricspath.parts import NOW_S, Result, scrape, translation
from tracefwd.emulator.metric_reader import Distribution, MetricReader
from tracefwd.emulator.rules import Limits
from tracefwd.metricspath.translate import Translation
from tracefwd.model import Signal


def histogram(*buckets: int, app: str = "a", name: str = "lat") -> str:
    bounds = ["1", "2", "+Inf"]
    lines = [
        f'{name}_bucket{{app="{app}",le="{b}"}} {n}\n' for b, n in zip(bounds, buckets, strict=True)
    ]
    lines.append(f'{name}_sum{{app="{app}"}} 9\n{name}_count{{app="{app}"}} {buckets[-1]}\n')
    return f"# TYPE {name} histogram\n{''.join(lines)}"


def distributions(result: Result) -> list[Distribution]:
    reader = MetricReader(Limits())
    return [
        reader.read_distribution(line, int(NOW_S * 1000))
        for payload in result.payloads
        if payload.signal is Signal.DISTRIBUTIONS
        for line in payload.data.decode().split("\n")[:-1]
    ]


class Histograms:
    def __init__(self, of: Translation | None = None) -> None:
        self.of = of or translation(convertHistograms=True)
        self.now_s = NOW_S - 600
        self.dropped: dict[str, int] = {}

    def scrape(self, body: str, *, complete: bool = True) -> list[Distribution]:
        self.now_s += 60
        result = scrape(body, self.of, now_s=self.now_s, complete=complete)
        self.dropped = result.counts.dropped
        found = distributions(result)
        assert result.counts.distributions == len(found)
        return found


def test_a_histogram_becomes_a_distribution_of_what_came_since() -> None:
    mesh = Histograms()
    assert mesh.scrape(histogram(1, 2, 3)) == []
    assert mesh.dropped == {"first_seen": 5}
    [found] = mesh.scrape(histogram(4, 9, 11))
    assert (found.name, found.tags) == ("lat", (("app", "a"), ("cluster", "oracle")))
    # Three below 1, four between 1 and 2, one above, at the last bound there is.
    assert found.centroids == [(0.5, 3), (1.5, 4), (2.0, 1)]
    assert mesh.dropped == {"merged": 5}


def test_nothing_new_sends_nothing() -> None:
    mesh = Histograms()
    mesh.scrape(histogram(1, 2, 3))
    assert mesh.scrape(histogram(1, 2, 3)) == []


def test_a_restarted_histogram_counts_from_zero() -> None:
    mesh = Histograms()
    mesh.scrape(histogram(10, 20, 30))
    [found] = mesh.scrape(histogram(1, 1, 3))
    assert found.centroids == [(0.5, 1), (2.0, 2)]


def test_half_a_histogram_of_a_body_that_ended_early_loses_nothing() -> None:
    mesh = Histograms()
    whole = histogram(1, 2, 3, name="first") + histogram(1, 2, 3)
    mesh.scrape(whole)
    cut = histogram(2, 3, 4, name="first") + histogram(5, 6, 7)[:-60]
    assert [found.name for found in mesh.scrape(cut, complete=False)] == ["first"]
    assert mesh.dropped == {"merged": 7}
    [found] = mesh.scrape(histogram(2, 3, 4, name="first") + histogram(9, 10, 11))
    assert (found.name, found.centroids) == ("lat", [(0.5, 8)])
    nothing = '# TYPE lat histogram\nlat_bucket{le="x"} 1\n'
    assert mesh.scrape(nothing, complete=False) == []


@pytest.mark.parametrize("mode", ["default", "collector"])
@pytest.mark.parametrize(
    ("value", "reason"), [("+Inf", "infinite"), ("NaN", "nan"), ("1e300", "infinite")]
)
def test_a_bucket_that_holds_no_count_costs_its_histogram_this_once(
    mode: str, value: str, reason: str
) -> None:
    mesh = Histograms(translation(mode, convertHistograms=True))
    mesh.scrape(histogram(1, 2, 3) + histogram(1, 2, 3, name="other"))
    broken = histogram(1, 2, 3).replace('le="2"} 2', f'le="2"}} {value}')
    [other] = mesh.scrape(broken + histogram(1, 2, 5, name="other"))
    assert other.name == "other"
    assert mesh.dropped == {reason: 5, "merged": 5}
    [found] = mesh.scrape(histogram(1, 2, 7) + histogram(1, 2, 5, name="other"))
    assert found.name == "lat"


@pytest.mark.parametrize("grown", [("5e-324", "99"), ("9e9", "9e9")])
def test_more_observations_than_wavefront_reads_are_no_distribution(grown: tuple[str, str]) -> None:
    mesh = Histograms(translation("collector", convertHistograms=True))
    body = '# TYPE h histogram\nh_bucket{{le="1"}} {}\nh_bucket{{le="2"}} {}\n'
    mesh.scrape(body.format(0, 9))
    assert mesh.scrape(body.format(*grown)) == []
    assert mesh.dropped == {"infinite": 2}


def test_other_buckets_are_another_histogram() -> None:
    mesh = Histograms()
    mesh.scrape(histogram(10, 20, 30))
    assert mesh.scrape(histogram(11, 21, 31).replace('le="2"', 'le="3"')) == []
    assert mesh.dropped == {"first_seen": 5}


def test_series_are_told_apart_by_their_labels() -> None:
    mesh = Histograms()
    both = histogram(1, 1, 1) + histogram(5, 5, 5, app="b").partition("\n")[2]
    mesh.scrape(both)
    found = mesh.scrape(both.replace("} 5", "} 6"))
    assert [dict(each.tags)["app"] for each in found] == ["b"]


def test_untyped_buckets_and_other_types_stay_points() -> None:
    mesh = Histograms()
    assert mesh.scrape('lat_bucket{le="1"} 1\n# TYPE s summary\ns_count 3\n') == []
    assert mesh.dropped == {}


def test_the_collectors_zeros_are_added_and_counted() -> None:
    result = scrape(
        '# TYPE h histogram\nh_bucket{le="1"} 2.5\n# TYPE s summary\ns 1\n', mode="collector"
    )
    assert sorted(line.split(" ")[:2] for line in result.lines) == [
        ['"h.bucket"', "2"], ['"h.count"', "0"], ['"h.sum"', "0"], ['"s.count"', "0"], ['"s.sum"', "0"],
    ]  # fmt: skip
    assert result.counts.added == 3


def test_the_default_mode_invents_nothing() -> None:
    result = scrape('# TYPE h histogram\nh_bucket{le="1"} 2.5\n# TYPE s summary\ns 1\n')
    assert sorted(line.split(" ")[:2] for line in result.lines) == [
        ['"h.bucket"', "2.5"],
        ['"s.value"', "1"],
    ]
    assert result.counts.added == 0


def test_a_family_that_is_larger_than_what_is_held_still_comes_out_whole() -> None:
    rows = [
        f'h_bucket{{n="{n}",le="{b}"}} 1\nh_count{{n="{n}"}} 1\nh_sum{{n="{n}"}} 1\n'
        for n in range(9_000)
        for b in ("1",)
    ]
    result = scrape("# TYPE h histogram\n" + "".join(rows), mode="collector")
    assert len(result.lines) == 27_000
    assert result.counts.added == 0
