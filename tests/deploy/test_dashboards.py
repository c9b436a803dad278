"""deploy/dashboards shows only what there is: each query names metrics, labels and tags that tracefwd has or sends.

No Grafana and no Wavefront runs here.  PromQL is judged and run by promtool over a series of every family; Wavefront's
language by a strict reader of the part that the dashboards use (wql.py), its names by the points that the shipped lists
make of real expositions.
"""

import itertools
import json
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy import promql, wql
from tests.deploy.parts import EXPOSITIONS, ROOT, points_of
from tracefwd import metrics

FOLDER = ROOT / "deploy" / "dashboards"
GRAFANA = json.loads((FOLDER / "tracefwd-grafana.json").read_text())
ISTIO = {
    path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("istio-*-plane.json"))
}
DATA = yaml.safe_load((ROOT / "tracefwd" / "metricspath" / "istio_metrics.yaml").read_text())
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None,
    reason="NO PROMTOOL: the queries of deploy/dashboards are not run (Debian: prometheus)",
)
PANELS: list[dict[str, Any]] = [panel for panel in GRAFANA["panels"] if panel["type"] != "row"]
CHARTS: list[tuple[str, dict[str, Any]]] = [
    (name, chart)
    for name, board in ISTIO.items()
    for section in board["sections"]
    for row in section["rows"]
    for chart in row["charts"]
]


def grafana_queries() -> list[str]:
    shown = [target["expr"] for panel in PANELS for target in panel["targets"]]
    return shown + [each["expr"] for each in GRAFANA["annotations"]["list"]]


def filled_in(expression: str) -> str:
    """As Prometheus gets it: every variable at All."""
    return re.sub(r'"\$\w+"', '".*"', expression.replace("$__rate_interval", "5m"))


# --- Grafana -----------------------------------------------------------------------------------


def test_panels_stand_beside_each_other() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in GRAFANA["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        for place in itertools.product(
            range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])
        ):
            assert place not in taken, f"{panel['title']} lies over {taken.get(place)}"
            taken[place] = panel["title"]
    ids = [panel["id"] for panel in GRAFANA["panels"]]
    assert len(set(ids)) == len(ids)
    titles = [panel["title"] for panel in GRAFANA["panels"]]
    assert len(set(titles)) == len(titles)


def test_every_panel_says_what_to_do_and_asks_the_chosen_prometheus() -> None:
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    for panel in PANELS:
        assert len(panel["description"]) > 60, panel["title"]
        assert panel["datasource"] == chosen, panel["title"]
        refs = [target["refId"] for target in panel["targets"]]
        assert refs == list("ABCDEFGH"[: len(refs)]), panel["title"]
        assert panel["type"] == "table" or panel["fieldConfig"]["defaults"]["unit"], panel["title"]
    variables = {each["name"]: each for each in GRAFANA["templating"]["list"]}
    assert list(variables) == ["datasource", "namespace", "pod", "instance", "target"]
    for variable in variables.values():
        assert variable["type"] == "datasource" or variable["datasource"] == chosen


def test_every_query_follows_the_variables() -> None:
    for query in grafana_queries():
        for matchers in re.findall(r"\btracefwd_\w+\{([^}]*)\}", query):
            for name in ("namespace", "pod", "instance"):
                assert f'{name}=~"${name}"' in matchers, query
            family = re.search(r"\b(tracefwd_\w+)\{" + re.escape(matchers), query)
            assert family is not None
            if "target" in promql.family(family[1]).labels:
                assert 'target=~"$target"' in matchers, query
        assert len(re.findall(r"\btracefwd_\w+", query)) == query.count("}"), query


def test_panels_use_only_metrics_labels_and_values_that_tracefwd_has() -> None:
    for panel in PANELS:
        for target in panel["targets"]:
            known = promql.labels_of(target["expr"])
            shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            grouped = re.findall(r"\bby \(([^)]*)\)", target["expr"])
            assert shown <= known & set(re.split(r",\s*", ",".join(grouped))), panel["title"]
    for variable in GRAFANA["templating"]["list"]:
        promql.labels_of(variable.get("definition", ""))


def test_every_metric_of_tracefwd_has_a_panel() -> None:
    shown = set().union(*map(promql.families, grafana_queries()))
    assert {metric.name for metric in metrics.CATALOGUE} == shown


def test_losses_are_counted_where_alerts_count_them() -> None:
    alerts = (ROOT / "deploy" / "prometheus" / "tracefwd-alerts.yaml").read_text()
    shown = set().union(*map(promql.families, grafana_queries()))
    assert promql.families(re.sub("#.*", "", alerts)) <= shown


def one_of_each() -> list[dict[str, str]]:
    """A series of every family, of two replicas, with labels that the queries ask for."""
    choices = {
        "state": ("received", "delivered", "dropped", "rejected", "held"),
        "signal": ("spans", "points"),
        "kind": ("future_start", "utf8"),
        "format": ("json_v2", "otlp_proto"),
        "result": ("delivered", "applied"),
    }
    found = []
    for metric, pod in itertools.product(metrics.CATALOGUE, ("a", "b")):
        outside = [f'namespace="n",pod="{pod}",instance="{pod}:9412"']
        values = [[f'{key}="{v}"' for v in choices.get(key, ("x",))] for key in metric.labels]
        endings = [("", "")]
        if metric.kind == "histogram":
            endings = [
                ("_bucket", 'le="0.1"'),
                ("_bucket", 'le="+Inf"'),
                ("_sum", ""),
                ("_count", ""),
            ]
        for (ending, le), labels in itertools.product(endings, itertools.product(*values)):
            written = ",".join(filter(None, [*outside, *labels, le]))
            found.append({"series": f"{metric.name}{ending}{{{written}}}", "values": "1+1x40"})
    return found


@needs_promtool
def test_every_query_has_an_answer_when_every_metric_has(tmp_path: Path) -> None:
    """Run by Prometheus' own engine: a label that two sides do not share would leave nothing."""
    asked = [
        {
            "expr": f"clamp_max(count({filled_in(query)}), 1)",
            "eval_time": "10m",
            "exp_samples": [{"labels": "{}", "value": 1}],
        }
        for query in grafana_queries()
    ]
    test = {
        "evaluation_interval": "30s",
        "tests": [{"interval": "30s", "input_series": one_of_each(), "promql_expr_test": asked}],
    }
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(test))
    assert PROMTOOL is not None
    command = [PROMTOOL, "test", "rules", str(tmp_path / "test.yaml")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stdout + run.stderr


# --- Wavefront ---------------------------------------------------------------------------------

# What the dashboard API's model allows (docs of the vendor's Terraform provider).
CHART_TYPES = {"line", "stacked-area", "table", "sparkline"}
WHERE = re.compile(r"\$\{(\w+)\}")


def expanded(board: dict[str, Any], query: str) -> str:
    """With hidden parameters, which stand for text, put in; those that people choose stay."""
    for name, parameter in board["parameterDetails"].items():
        if parameter["parameterType"] == "SIMPLE":
            [text] = parameter["valuesToReadableStrings"].values()
            query = query.replace(f"${{{name}}}", text)
    return query


@cache
def sent() -> dict[str, set[str]]:
    """Every name that the shipped lists send of real expositions, and the tags of its points."""
    names: dict[str, set[str]] = {}

    def take(body: str, filters: str, *, untyped: bool = False) -> None:
        for name, points in points_of(body, filters, untyped=untyped).items():
            names.setdefault(name, set()).update(tag for point in points for tag, _ in point.tags)

    federated = [
        ROOT / "tests" / "fixtures" / "federate" / "medium.txt",
        EXPOSITIONS / "federate.txt",
    ]
    for filters, path in itertools.product(
        ("filters-seed.yaml", "filters-current.yaml"), federated
    ):
        take(path.read_text(), filters)
    for page in ("istiod-1.18", "istiod-1.6", "galley-1.4"):
        take((EXPOSITIONS / f"{page}.txt").read_text(), "filters-seed.yaml", untyped=True)
    return names


def series_of(name: str, chart: dict[str, Any]) -> list[wql.Series]:
    return [
        series
        for source in chart["sources"]
        for series in wql.read(expanded(ISTIO[name], source["query"]))
    ]


def of_row(metric: str) -> dict[str, Any] | None:
    """The row of istio_metrics.yaml that describes a point's name; None is one of those beside the contract."""
    for row in DATA["metrics"]:
        if metric == row["metric"] or metric in row.get("points", ()):
            found: dict[str, Any] = row
            return found
    assert metric in {beside["metric"] for beside in DATA["beside"]}, f"nobody sends {metric}"
    return None


def is_cumulative(metric: str) -> bool:
    row = of_row(metric)
    if row is None or row["type"] == "histogram":
        # The rules make rates of Istio's own buckets.
        ends = (".total.value", ".sum.value", ".count.value")
        is_rate = row is not None and row["comes"] == "rules"
        return metric.endswith(ends if is_rate else (*ends, ".bucket.value"))
    return bool(row["type"] == "counter")


@pytest.mark.parametrize("name", ISTIO)
def test_the_model_is_the_dashboard_api_s(name: str) -> None:
    board = ISTIO[name]
    # The API wants both, and has them equal.
    assert board["id"] == board["url"] == f"tracefwd-{name}"
    charts = [chart for owner, chart in CHARTS if owner == name]
    assert len({chart["name"] for chart in charts}) == len(charts) > 15
    assert len({section["name"] for section in board["sections"]}) == len(board["sections"])
    for section in board["sections"]:
        for row in section["rows"]:
            assert 1 <= len(row["charts"]) <= 5
            assert row["heightFactor"] >= 50
    for chart in charts:
        assert len(chart["description"]) > 10, chart["name"]
        assert chart["chartSettings"]["type"] in CHART_TYPES
        assert chart["summarization"] in ("MEAN", "LAST")
        names = [source["name"] for source in chart["sources"]]
        assert len(set(names)) == len(names), chart["name"]
        # A source's name is how another could refer to it.
        assert all(re.fullmatch(r"[\w .]+", each) for each in names), names


@pytest.mark.parametrize("name", ISTIO)
def test_variables_are_those_that_queries_use(name: str) -> None:
    board = ISTIO[name]
    used: set[str] = set()
    for owner, chart in CHARTS:
        if owner == name:
            for source in chart["sources"]:
                used |= set(WHERE.findall(source["query"]))
                used |= set(WHERE.findall(expanded(board, source["query"])))
    assert used == set(board["parameterDetails"])
    assert "cluster" in used
    for parameter in board["parameterDetails"].values():
        assert parameter["defaultValue"] in parameter["valuesToReadableStrings"]
        if parameter["parameterType"] == "DYNAMIC":
            [series] = wql.read(parameter["queryValue"])
            assert parameter["dynamicFieldType"] == "TAG_KEY"
            assert parameter["tagKey"] in sent()[series.metric]


@pytest.mark.parametrize(
    ("name", "chart"), [pytest.param(*each, id=each[1]["name"]) for each in CHARTS]
)
def test_charts_query_what_is_sent_by_tags_that_it_has(name: str, chart: dict[str, Any]) -> None:
    for series in series_of(name, chart):
        tags = sent()[series.metric]
        assert set(series.filters) | set(series.groups) <= tags, (series.metric, tags)
        assert series.filters["cluster"] == ["${cluster}"]
        assert name != "istio-data-plane" or series.filters["reporter"] == ["${reporter}"]
        # A rate of a rate is nothing; a cumulative sum as it is says nothing.
        assert ("rate" in series.around) == is_cumulative(series.metric), series
        assert "rate" not in series.around[1:], "rate first: after a sum a restart is a dent"
        if chart["chartSettings"]["type"] == "table":
            shown = chart["chartSettings"]["customTags"]
            assert shown == series.groups or set(shown) <= tags


def test_each_of_the_46_metrics_is_shown_or_said_never_to_have_been() -> None:
    queried = {series.metric for name, chart in CHARTS for series in series_of(name, chart)}
    descriptions = " ".join(chart["description"] for _, chart in CHARTS)
    for row in DATA["metrics"]:
        if row["since"]:
            # A pattern of the contract: each of its points.
            assert set(row.get("points") or [row["metric"]]) <= queried, row["metric"]
        else:
            assert row["metric"] not in queried
            assert row["metric"] in descriptions
    assert {beside["metric"] for beside in DATA["beside"]} <= queried


def test_what_current_istio_has_removed_is_noted_beside_it_and_in_the_readme() -> None:
    readme = (FOLDER / "README.md").read_text()
    for row in DATA["metrics"]:
        if "gone" in row:
            [notes] = [
                chart["description"]
                for name, chart in CHARTS
                if any(series.metric == row["metric"] for series in series_of(name, chart))
            ]
            assert row["metric"] in notes
            assert f"since Istio {row['gone']}" in notes, row["metric"]
            assert f"| `{row['metric']}` | {row['gone']} |" in readme
        elif not row["since"]:
            assert row["metric"] in readme


@pytest.mark.parametrize(
    "query",
    [
        'sum(rate(ts("a.b", cluster="x")',
        'sum(rate(ts("a.b", cluster="x"))))',
        'total(ts("a.b"))',
        'align(1m, ts("a.b"))',
        'ts("a.b", cluster=x)',
        'ts("a.b" cluster="x")',
        'cumulativePercentile(99, ts("a.b"))',
        'ts("a.b") ts("c.d")',
    ],
)
def test_the_reader_refuses_what_wavefront_would(query: str) -> None:
    with pytest.raises(ValueError, match="wanted"):
        wql.read(query)
