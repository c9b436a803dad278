"""The shipped Prometheus configuration, rules and lists in a real Prometheus, from exporters' pages to points."""

import json
from collections.abc import Iterator

import pytest

from tests.deploy.parts import PROMETHEUS, Prometheus, loaded, points_of, running_prometheus
from tests.deploy.test_istio_metrics import CURRENT, DATA, EXISTING, SEED, is_current, points_named

pytestmark = pytest.mark.skipif(
    PROMETHEUS is None,
    reason="NO PROMETHEUS: nothing of deploy/prometheus is run, only judged (Debian: prometheus)",
)


@pytest.fixture(scope="module")
def both() -> Iterator[list[Prometheus]]:
    with running_prometheus({}, {"external_labels": {"cluster": "one"}}) as started:
        yield started


@pytest.fixture
def prometheus(both: list[Prometheus]) -> Prometheus:
    return both[0]


@pytest.fixture
def labelled(both: list[Prometheus]) -> Prometheus:
    """With external labels."""
    return both[1]


def url_of(name: str) -> str:
    return loaded(name).prometheus_sources[0].url


def test_the_tight_selectors_answer_with_what_is_sent_and_little_else(
    prometheus: Prometheus,
) -> None:
    wide, tight = prometheus.ask(url_of(SEED)), prometheus.ask(url_of(CURRENT))
    assert len(tight) < len(wide) / 2
    # Neither raw series that are summed, nor the process of an application.
    assert "destination_principal" not in tight
    assert 'app="shop"' in wide
    assert 'app="shop"' not in tight


def test_every_metric_that_exists_arrives_through_the_whole_path(prometheus: Prometheus) -> None:
    points = points_of(prometheus.ask(url_of(CURRENT)), CURRENT)
    expected = {name for row in EXISTING if is_current(row) for name in points_named(row)}
    assert set(points) == expected | {beside["metric"] for beside in DATA["beside"]}
    most = max(len(point.tags) for of_name in points.values() for point in of_name)
    assert most <= 12, "pod labels come along that nobody asked for"


def test_the_integration_s_list_works_here_as_well(prometheus: Prometheus) -> None:
    points = points_of(prometheus.ask(url_of(SEED)), SEED)
    for row in EXISTING:
        for name in points_named(row):
            assert (name in points) == row["seed_list"], name
    # Two pods report one pair of workloads: one summed series.
    [requests] = points["istio.requests.total.value"]
    tags = dict(requests.tags)
    assert (tags["job"], tags["app"], tags["reporter"]) == ("federate", "reviews", "destination")
    # The list takes processes of every pod, as it always has.
    assert {dict(point.tags)["app"] for point in points["go.goroutines.value"]} == {
        "istiod",
        "shop",
    }


def test_recorded_series_can_be_asked_for_directly(prometheus: Prometheus) -> None:
    url = 'http://x/federate?match[]={__name__=~"federate:.*"}'
    direct = points_of(prometheus.ask(url), CURRENT, strip_prefix="federate:")
    summed = {name for row in EXISTING if row["comes"] == "rules" for name in points_named(row)}
    assert set(direct) == summed
    for of_name in direct.values():
        assert all("job" not in dict(point.tags) for point in of_name)


def test_external_labels_double_no_sum(labelled: Prometheus) -> None:
    query = 'http://x/api/v1/query?query=count(istio_requests_total{job="kubernetes-pods"})'
    answer = json.loads(labelled.ask(query))
    # One series of each of the two pods, and no copy that came back.
    assert [result["value"][1] for result in answer["data"]["result"]] == ["2"]
    [requests] = points_of(labelled.ask(url_of(CURRENT)), CURRENT)["istio.requests.total.value"]
    assert dict(requests.tags)["cluster"] == "k8s-cluster"
