"""Every metric that the integration documents: from a real exposition to a point of its name, or known to be gone.

tracefwd/metricspath/istio_metrics.yaml says which is which; the shipped lists must agree with it.
"""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.parts import EXPOSITIONS, ROOT, loaded, points_of
from tracefwd.emulator.metric_reader import Point
from tracefwd.metricspath.globs import Globs

FIXTURES = ROOT / "tests" / "fixtures"
DATA = yaml.safe_load((ROOT / "tracefwd" / "metricspath" / "istio_metrics.yaml").read_text())
ROWS: list[dict[str, Any]] = DATA["metrics"]
SEED = "filters-seed.yaml"
CURRENT = "filters-current.yaml"
# The control planes from whose own pages, typed and unfederated, a metric is traced as well.
PAGES = ("istiod-1.30.txt", "istiod-1.18.txt", "istiod-1.6.txt", "galley-1.4.txt")


def release(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))


def is_current(row: dict[str, Any]) -> bool:
    return bool(row["since"]) and "gone" not in row


def points_named(row: dict[str, Any]) -> list[str]:
    names: list[str] = row.get("points") or [row["metric"]]
    return names


def by_name(row: dict[str, Any]) -> str:
    return str(row["metric"])


def allowed(name: str) -> Globs:
    return Globs(loaded(name).prometheus_sources[0].filters.metricAllowList)


@cache
def traced(exposition: str, filters: str, untyped: bool = False) -> dict[str, list[Point]]:
    return points_of((FIXTURES / exposition).read_text(), filters, untyped=untyped)


EXISTING = [row for row in ROWS if row["since"]]
CURRENT_ROWS = [row for row in ROWS if is_current(row)]


def test_there_are_46_and_each_is_accounted_for() -> None:
    assert len({row["metric"] for row in ROWS}) == len(ROWS) == 46
    for row in ROWS:
        assert ("*" in row["metric"]) == ("points" in row), row["metric"]
        assert row["comes"] in ("raw", "rules")
        assert row["type"] in ("counter", "gauge", "histogram")
        assert bool(row["series"]) == bool(row["since"]) == ("exposition" in row)
        if "gone" in row:
            assert release(row["since"]) < release(row["gone"]) <= release(DATA["newest_istio"])
    [never] = [row["metric"] for row in ROWS if not row["since"]]
    assert never == "citadel.server.csr.sign.error.count.value"
    assert sum(is_current(row) for row in ROWS) == 40


@pytest.mark.parametrize("row", EXISTING, ids=by_name)
def test_names_follow_from_the_series(row: dict[str, Any]) -> None:
    dotted = row["series"].replace("_", ".")
    for name in points_named(row):
        assert name.startswith(f"{dotted}.")
        assert name.endswith(".value")
        assert Globs([row["metric"]]).matches(name)


@pytest.mark.parametrize("row", EXISTING, ids=by_name)
def test_a_real_exposition_gives_points_of_that_name(row: dict[str, Any]) -> None:
    filters = SEED if row["seed_list"] else CURRENT
    points = traced(row["exposition"], filters)
    for name in points_named(row):
        assert points[name], name
        for point in points[name]:
            tags = dict(point.tags)
            assert tags["cluster"] == "k8s-cluster"
            assert tags["job"] == ("federate" if row["comes"] == "rules" else "kubernetes-pods")
            # Raw and summed series of one name must never meet.
            assert ("destination_workload" in tags) == (row["comes"] == "rules")
            assert "destination_principal" not in tags


@pytest.mark.parametrize("row", CURRENT_ROWS, ids=by_name)
def test_the_corrected_list_sends_every_metric_that_exists(row: dict[str, Any]) -> None:
    for exposition in {row["exposition"], "istio/federate.txt"}:
        points = traced(exposition, CURRENT)
        for name in points_named(row):
            assert points[name], f"{name} from {exposition}"


@pytest.mark.parametrize("beside", DATA["beside"], ids=by_name)
def test_the_corrected_list_sends_what_the_dashboards_need_beside(beside: dict[str, Any]) -> None:
    assert beside["metric"] == f"{beside['series'].replace('_', '.')}.value"
    assert traced("istio/federate.txt", CURRENT)[beside["metric"]]


@pytest.mark.parametrize("row", [row for row in EXISTING if row["comes"] == "raw"], ids=by_name)
def test_a_control_plane_s_own_page_gives_the_same_names(row: dict[str, Any]) -> None:
    """Typed, as istiod writes it, read as untyped; the dashboards' names all the same."""
    filters = SEED if row["seed_list"] else CURRENT
    pages = [traced(f"istio/{page}", filters, untyped=True) for page in PAGES]
    found = [page[row["metric"]] for page in pages if row["metric"] in page]
    assert found, row["metric"]


@pytest.mark.parametrize("row", [row for row in ROWS if "gone" in row], ids=by_name)
def test_what_is_gone_is_on_no_page_since(row: dict[str, Any]) -> None:
    for page in PAGES:
        version = page.removesuffix(".txt").partition("-")[2]
        lines = (EXPOSITIONS / page).read_text().splitlines()
        is_there = any(
            line.startswith((f"{row['series']}{{", f"{row['series']} ")) for line in lines
        )
        if release(version) >= release(row["gone"]):
            assert not is_there, page


def test_the_lists_agree_with_the_data() -> None:
    seed, current = allowed(SEED), allowed(CURRENT)
    for row in ROWS:
        for name in points_named(row):
            if row["since"]:
                assert seed.matches(name) == row["seed_list"], name
            assert current.matches(name) == is_current(row), name
    exact = {name for row in ROWS if is_current(row) for name in points_named(row)}
    exact |= {beside["metric"] for beside in DATA["beside"]}
    listed = loaded(CURRENT).prometheus_sources[0].filters.metricAllowList
    assert sorted(listed) == sorted(exact)


def test_the_integration_s_list_is_as_it_was_published() -> None:
    source = loaded(SEED).prometheus_sources[0]
    assert source.url.endswith('/federate?match[]={job=~"federate|kubernetes-pods"}')
    assert len(source.filters.metricAllowList) == 28
    assert source.filters.metricTagDenyList == {"destination_principal": ["*"]}


def test_both_lists_keep_raw_and_summed_series_apart() -> None:
    body = (FIXTURES / "federate" / "medium.txt").read_text()
    assert "destination_principal=" in body
    for filters in (SEED, CURRENT):
        requests = points_of(body, filters)["istio.requests.total.value"]
        assert len(requests) == 16
        assert {dict(point.tags)["job"] for point in requests} == {"federate"}


def test_each_exposition_is_used_and_says_its_release() -> None:
    assert {path.name for path in EXPOSITIONS.glob("*.txt")} == {
        *PAGES,
        "application.txt",
        "federate.txt",
        "sidecar-1.30.txt",
    }
    for page in (*PAGES, "sidecar-1.30.txt"):
        version = Path(page).stem.partition("-")[2]
        assert f'tag="{version}.0"}} 1' in (EXPOSITIONS / page).read_text()
