"""deploy/prometheus holds what it says: promtool's checks and unit tests, and that alerts name only metrics there are.

Kubernetes discovery is replaced where promtool judges a configuration: Debian's build of Prometheus has none.
"""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy import promql
from tests.deploy.parts import DEPLOY, configured, pod, read, written
from tracefwd.service import arguments, config, loading
from tracefwd.settings import AdminSettings

HERE = Path(__file__).parent
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None,
    reason="NO PROMTOOL: rules, alerts and configurations of deploy/prometheus are not judged (Debian: prometheus)",
)
PERCENTILES = ("p50", "p75", "p90", "p95", "p99", "p999")


def rules(name: str) -> list[dict[str, Any]]:
    return [rule for group in read(name)["groups"] for rule in group["rules"]]


def promtool(*words: str | Path) -> str:
    assert PROMTOOL is not None
    run = subprocess.run([PROMTOOL, *map(str, words)], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, f"promtool {' '.join(map(str, words))}\n{run.stdout}{run.stderr}"
    return run.stdout


def targets(path: Path, job: str) -> list[dict[str, str]]:
    """What relabeling makes of each pod; an empty dict is a pod that is not scraped."""
    found = promtool("check", "service-discovery", "--timeout=1s", path, job)
    # The first line may be a notice.
    return [item["labels"] or {} for item in json.loads(found[found.index("[") :])]


@needs_promtool
@pytest.mark.parametrize("name", ["prometheus.yaml", "tracefwd-scrape.yaml"])
def test_configurations_are_valid_and_their_rules_are_there(name: str, tmp_path: Path) -> None:
    assert "SUCCESS" in promtool("check", "config", written(configured(name, [pod()]), tmp_path))


@needs_promtool
@pytest.mark.parametrize("name", ["istio-rules.yaml", "tracefwd-alerts.yaml"])
def test_rules_are_valid(name: str) -> None:
    promtool("check", "rules", "--lint=all", "--lint-fatal", DEPLOY / name)


@needs_promtool
@pytest.mark.parametrize("name", ["istio-rules-test.yaml", "tracefwd-alerts-test.yaml"])
def test_rules_do_what_they_promise(name: str) -> None:
    assert "SUCCESS" in promtool("test", "rules", HERE / name)


@needs_promtool
def test_pods_get_the_labels_of_the_dashboards_and_no_others(tmp_path: Path) -> None:
    istiod = pod(
        pod_label_app="istiod",
        pod_label_app_kubernetes_io_name="other",
        pod_label_istio="pilot",
        pod_label_istio_io_rev="default",
        pod_label_version="v9",
        pod_label_pod_template_hash="6b9c4f8d57",
        pod_label_helm_sh_chart="istiod-1.30.0",
    )
    [labels] = targets(
        written(configured("prometheus.yaml", [istiod]), tmp_path), "kubernetes-pods"
    )
    assert {name: value for name, value in labels.items() if not name.startswith("__")} == {
        "job": "kubernetes-pods",
        "instance": "10.0.0.1:15020",
        "app": "istiod",
        "istio": "pilot",
        "istio_io_rev": "default",
        "version": "v9",
        "kubernetes_namespace": "demo",
        "kubernetes_pod_name": "pod-1",
    }


@needs_promtool
def test_the_app_has_fallbacks(tmp_path: Path) -> None:
    app, name, canonical = (
        {"pod_label_app": "a"},
        {"pod_label_app_kubernetes_io_name": "b"},
        {"pod_label_service_istio_io_canonical_name": "c"},
    )
    choices: list[dict[str, str]] = [app | name | canonical, name | canonical, canonical, {}]
    pods = [pod(ip=f"10.0.0.{last}", **labels) for last, labels in enumerate(choices)]
    found = targets(written(configured("prometheus.yaml", pods), tmp_path), "kubernetes-pods")
    assert {one["instance"]: one.get("app") for one in found} == {
        "10.0.0.0:15020": "a",
        "10.0.0.1:15020": "b",
        "10.0.0.2:15020": "c",
        "10.0.0.3:15020": None,
    }


@needs_promtool
def test_annotations_say_whether_and_where_a_pod_is_scraped(tmp_path: Path) -> None:
    pods = [
        pod(pod_annotation_prometheus_io_path="/stats/prometheus", port="15090"),
        pod(ip="fd00::7"),
        pod(pod_annotation_prometheus_io_scheme="https"),
        pod(pod_annotation_prometheus_io_scrape="false"),
        pod(pod_phase="Succeeded"),
    ]
    config = written(configured("prometheus.yaml", pods), tmp_path)
    found = targets(config, "kubernetes-pods")
    where = {
        f"{one['__scheme__']}://{one['__address__']}{one['__metrics_path__']}"
        for one in found
        if one
    }
    assert where == {
        "http://10.0.0.1:15090/stats/prometheus",
        "http://[fd00::7]:15020/metrics",
        "https://10.0.0.1:15020/metrics",
    }


def test_the_self_federation_reads_recorded_series_only() -> None:
    [job] = [job for job in read("prometheus.yaml")["scrape_configs"] if "honor_labels" in job]
    assert job["job_name"] == "federate"
    assert job["params"]["match[]"] == ['{__name__=~"federate:.+"}']


def test_the_rules_are_the_integration_s_32_with_its_labels() -> None:
    http = [
        "app",
        "reporter",
        "response_code",
        "response_flags",
        "source_workload",
        "source_workload_namespace",
        "destination_workload",
        "destination_workload_namespace",
    ]
    tcp = [label for label in http if label != "response_code"]
    expected: dict[str, list[str]] = {"istio_requests_total": http}
    for family in (
        "istio_request_duration_milliseconds",
        "istio_request_bytes",
        "istio_response_bytes",
    ):
        expected |= {f"{family}_sum": http, f"{family}_count": http}
        expected[f"{family}_bucket"] = [*http, "le"]
        # Percentiles take the buckets' labels.
        expected |= {f"{family}_bucket_{p}": [] for p in PERCENTILES}
    for what in ("sent_bytes", "received_bytes", "connections_opened", "connections_closed"):
        expected[f"istio_tcp_{what}_total"] = tcp
    assert len(expected) == 32
    found = {}
    for rule in rules("istio-rules.yaml"):
        by = re.search(r"sum by \(([^)]*)\)", rule["expr"])
        found[rule["record"]] = re.split(r",\s*", by[1]) if by else []
    assert found == {f"federate:{name}": labels for name, labels in expected.items()}


def test_every_alert_and_rule_has_a_unit_test() -> None:
    alerts = (HERE / "tracefwd-alerts-test.yaml").read_text()
    for rule in rules("tracefwd-alerts.yaml"):
        assert f'{{alertname="{rule["alert"]}",alertstate="firing",' in alerts.replace(
            "ALERTS", ""
        ), f"nothing makes {rule['alert']} fire"
    recorded = (HERE / "istio-rules-test.yaml").read_text()
    for rule in rules("istio-rules.yaml"):
        assert rule["record"] in recorded


def test_every_alert_says_how_bad_it_is_and_what_to_do() -> None:
    for rule in rules("tracefwd-alerts.yaml"):
        assert rule["labels"]["severity"] in ("critical", "warning"), rule["alert"]
        assert set(rule["annotations"]) == {"summary", "description"}, rule["alert"]


def test_alerts_use_only_metrics_labels_and_values_that_tracefwd_has() -> None:
    seen = 0
    for rule in rules("tracefwd-alerts.yaml"):
        known = promql.labels_of(rule["expr"])
        shown = re.findall(r"\$labels\.(\w+)", str(rule["annotations"]))
        assert set(shown) <= known, rule["alert"]
        seen += len(re.findall(r"\btracefwd_\w+", rule["expr"]))
    assert seen > 30


def test_tracefwd_is_scraped_where_it_serves_its_metrics() -> None:
    monitor = read("tracefwd-servicemonitor.yaml")
    [endpoint] = monitor["spec"]["endpoints"]
    [job] = read("tracefwd-scrape.yaml")["scrape_configs"]
    assert endpoint["path"] == "/metrics" == job.get("metrics_path", "/metrics")
    keep = job["relabel_configs"][0]
    assert keep["regex"] == f"tracefwd;{endpoint['port']}"
    assert monitor["spec"]["selector"]["matchLabels"] == {"app.kubernetes.io/name": "tracefwd"}
    port = AdminSettings().listen.rpartition(":")[2]
    for name in ("tracefwd-servicemonitor.yaml", "tracefwd-scrape.yaml"):
        assert f"({port}" in (DEPLOY / name).read_text()


@needs_promtool
def test_only_tracefwd_s_admin_port_is_scraped(tmp_path: Path) -> None:
    ours = {
        "pod_label_app_kubernetes_io_name": "tracefwd",
        "pod_container_port_name": "admin",
    }
    pods = [
        pod(**ours),
        pod(**ours | {"pod_container_port_name": "http-zipkin"}),
        pod(**ours | {"pod_label_app_kubernetes_io_name": "other"}),
        pod(**ours | {"pod_phase": "Failed"}),
    ]
    found = targets(written(configured("tracefwd-scrape.yaml", pods), tmp_path), "tracefwd")
    [labels] = [one for one in found if one]
    assert (labels["job"], labels["namespace"], labels["pod"]) == ("tracefwd", "demo", "pod-1")


def test_one_replica_scrapes_with_a_configuration_that_holds(tmp_path: Path) -> None:
    account, deployment = yaml.safe_load_all((DEPLOY / "tracefwd-metrics.yaml").read_text())
    spec = deployment["spec"]
    assert (spec["replicas"], spec["strategy"]["type"]) == (1, "Recreate"), "N would scrape N times"
    pod_spec = spec["template"]["spec"]
    assert pod_spec["serviceAccountName"] == account["metadata"]["name"]
    [container] = pod_spec["containers"]
    environment = {each["name"]: each["value"] for each in container["env"]}
    # Volumes as they are mounted, with the list that the comment says.
    (tmp_path / "tracefwd.yaml").write_text((DEPLOY / "filters-current.yaml").read_text())
    command, *flags = [
        argument.replace("/etc/tracefwd", str(tmp_path)) for argument in container["args"]
    ]
    assert command == "run"
    parser = arguments.Parser(prog="tracefwd run")
    arguments.add_run(parser)
    parsed = parser.parse_args(flags)
    settings = config.load(parsed.config, environment, loading.flags(parsed)).settings
    assert settings.service.only == "metrics"
    assert settings.metrics.cluster == environment["TRACEFWD_METRICS__CLUSTER"]
    assert settings.prometheus_sources[0].filters.metricAllowList
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert settings.spool.folder in mounts
    assert pod_spec["terminationGracePeriodSeconds"] > (
        settings.service.drain_timeout + settings.service.pre_stop_delay
    )
    [port] = container["ports"]
    assert settings.admin.listen == f"0.0.0.0:{port['containerPort']}"
    assert container["securityContext"]["readOnlyRootFilesystem"]
