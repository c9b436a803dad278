"""Every overlay of deploy/kubernetes, and the chart with every switch, judged by schemas and by what tracefwd takes."""

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
import yaml

from tests.deploy.kube import render
from tests.deploy.kube.render import Object, needs_tools, objects, one, workload
from tracefwd.service import arguments, config, loading
from tracefwd.settings import Settings

# The oldest and the newest that the schemas know.
RELEASES = ("1.25", "1.37")
SPANS = [name for name in render.names() if not name.startswith("metrics")]
_SCALE = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


def quantity(text: str) -> int:
    return int(text[:-2]) * _SCALE[text[-2:]]


@pytest.fixture(scope="module")
def rendered() -> dict[str, list[Object]]:
    texts = {name: render.kustomized(render.OVERLAYS / name) for name in render.names()}
    texts |= {f"{name} and components": render.with_components(name) for name in render.COMPONENTS}
    texts |= {f"chart {name}": render.chart(values) for name, values in render.VALUES.items()}
    texts |= {f"chart {name}": render.chart_metrics(each) for name, each in render.METRICS.items()}
    return {way: objects(text) for way, text in texts.items()}


SPAN_WAYS = [
    *SPANS,
    *(f"{name} and components" for name in render.COMPONENTS),
    *(f"chart {name}" for name in render.VALUES),
]
METRICS = [*render.METRICS, *(f"chart {name}" for name in render.METRICS)]
WAYS = [*METRICS, *SPAN_WAYS]
INJECTED = {"sidecar", "sidecar and components", "chart sidecar", "chart everything"}
# appProtocol by port: what is no HTTP/1.1 must say so to Istio.
PROTOCOLS = {9411: "http", 9412: "http", 4317: "grpc", 4318: "http", 30000: "tcp"}


def settings_of(found: list[Object], folder: Path) -> Settings:
    """What ``tracefwd run`` makes of the container's arguments, environment and mounted files."""
    spec = workload(found)["spec"]["template"]["spec"]
    [container] = spec["containers"]
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    for mount in container["volumeMounts"]:
        volume = volumes.get(mount["name"], {})
        where = folder / mount["mountPath"].strip("/")
        where.mkdir(parents=True, exist_ok=True)
        if volume.get("name") == "rules":
            # An operator's own.
            (where / "rules.yaml").write_text("'9411': []\n")
        elif "configMap" in volume:
            source = named(found, "ConfigMap", volume["configMap"]["name"])
            for name, text in source["data"].items():
                (where / name).write_text(text.replace("/var/run", f"{folder}/var/run"))
        if "secret" in volume:
            # The console's is an operator's own.
            own = volume["name"] == "console"
            names = ["token"] if own else secret(found, volume["secret"]["secretName"])
            for name in names:
                (where / name).write_text("a-token")
    command, *flags = [
        word.replace("/etc/", f"{folder}/etc/").replace("/var/spool", f"{folder}/var/spool")
        for word in container["args"]
    ]
    assert command == "run"
    parser = arguments.Parser(prog="tracefwd run")
    arguments.add_run(parser)
    parsed = parser.parse_args(flags)
    # TRACEFWD_PORT and its like, which Kubernetes would set, must change nothing.
    environment = {"TRACEFWD_PORT": "tcp://10.96.0.7:9411", "TRACEFWD_SERVICE_HOST": "10.96.0.7"}
    environment |= {
        each["name"]: each["value"].replace("/var/run", f"{folder}/var/run")
        for each in container.get("env", ())
    }
    return config.load(parsed.config, environment, loading.flags(parsed)).settings


def named(found: list[Object], kind: str, name: str) -> Object:
    [only] = [each for each in found if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return only


def secret(found: list[Object], name: str) -> list[str]:
    entry = named(found, "Secret", name)
    return list(entry.get("data") or entry["stringData"])


@needs_tools
@pytest.mark.parametrize("release", RELEASES)
def test_every_object_of_kubernetes_has_its_schema(
    release: str, rendered: dict[str, list[Object]]
) -> None:
    judged: set[str] = set()
    for way, found in rendered.items():
        for each in found:
            # Much is the same in many ways, and a schema takes a while to load.
            text = json.dumps(each)
            if text in judged:
                continue
            if "istio.io" in each["apiVersion"] or "coreos" in each["apiVersion"]:
                continue  # test_istio.py
            try:
                kubernetes_validate.validate(each, release, strict=True)
            except kubernetes_validate.ValidationError as error:
                raise AssertionError(f"{way}: {each['kind']}: {error.message}") from error
            judged.add(text)
    assert len(judged) > 60


@needs_tools
@pytest.mark.parametrize("way", SPAN_WAYS)
def test_arguments_and_configuration_are_what_run_takes(
    way: str, rendered: dict[str, list[Object]], tmp_path: Path
) -> None:
    found = rendered[way]
    settings = settings_of(found, tmp_path)
    spec = workload(found)["spec"]["template"]["spec"]
    [container] = spec["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    # Probes and Prometheus come to the pod's address.
    assert settings.admin.listen == f"0.0.0.0:{ports['admin']}"
    assert settings.receiver.listen == f"0.0.0.0:{ports['http-zipkin']}"
    otlp = settings.receiver.otlp
    for name, listen in (("grpc-otlp", otlp.grpc.listen), ("http-otlp", otlp.http.listen)):
        assert listen == (f"0.0.0.0:{ports[name]}" if name in ports else "")
    service = one(found, "Service")
    assert {port["targetPort"]: port["port"] for port in service["spec"]["ports"]} == ports
    for port in service["spec"]["ports"]:
        assert port["appProtocol"] == PROTOCOLS[port["port"]]
        # Istio takes a name's beginning for the protocol, too.
        is_http2 = port["name"].startswith(("http2", "grpc", "h2c"))
        assert is_http2 == (PROTOCOLS[port["port"]] == "grpc")
    assert settings.service.workers == 1, "requests and volumes are for one"
    lines = settings.receiver.trace_listen
    assert lines == (f"0.0.0.0:{ports['tcp-lines']}" if "tcp-lines" in ports else "")
    probes = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness")}
    probes["readiness"] = container["readinessProbe"]["httpGet"]
    assert probes == {
        "startup": {"path": "/readyz", "port": "admin"},
        "liveness": {"path": "/livez", "port": "admin"},
        "readiness": {"path": "/readyz", "port": "admin"},
    }


@needs_tools
@pytest.mark.parametrize("way", WAYS)
def test_there_is_time_for_the_pre_stop_delay_and_the_drain(
    way: str, rendered: dict[str, list[Object]], tmp_path: Path
) -> None:
    spec = workload(rendered[way])["spec"]["template"]["spec"]
    service = settings_of(rendered[way], tmp_path).service
    # And for the last writes behind them.
    least = service.pre_stop_delay + service.drain_timeout + 10
    assert spec["terminationGracePeriodSeconds"] >= least
    if way not in METRICS:
        assert service.pre_stop_delay > 0
    annotations = workload(rendered[way])["spec"]["template"]["metadata"].get("annotations", {})
    proxy = yaml.safe_load(annotations.get("proxy.istio.io/config", "{}"))
    if proxy:
        drain = float(proxy["terminationDrainDuration"].removesuffix("s"))
        budget = service.pre_stop_delay + service.drain_timeout
        assert budget < drain < spec["terminationGracePeriodSeconds"]


@needs_tools
@pytest.mark.parametrize("way", WAYS)
def test_the_volume_is_larger_than_what_the_spool_may_take(
    way: str, rendered: dict[str, list[Object]], tmp_path: Path
) -> None:
    found = rendered[way]
    settings = settings_of(found, tmp_path)
    controller = workload(found)
    [container] = controller["spec"]["template"]["spec"]["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert settings.spool.folder.endswith(mounts["spool"])
    claims = controller["spec"].get("volumeClaimTemplates")
    if claims:
        size = claims[0]["spec"]["resources"]["requests"]["storage"]
    else:
        [size] = [
            volume["emptyDir"]["sizeLimit"]
            for volume in controller["spec"]["template"]["spec"]["volumes"]
            if volume["name"] == "spool"
        ]
        # The scheduler leaves room for what the volume may take.
        asked = container["resources"]["requests"].get("ephemeral-storage")
        assert asked == size or way in METRICS
    # Batches and journal have bytes_max each; a segment more may be begun before the old ones go.
    metrics_only = settings.service.only == "metrics"
    factor = 1 if metrics_only else 2
    assert quantity(size) >= factor * settings.spool.bytes_max * settings.service.workers
    if not metrics_only:
        assert quantity(size) >= 2.25 * settings.spool.bytes_max * settings.service.workers


@needs_tools
@pytest.mark.parametrize("way", WAYS)
def test_pods_may_do_as_little_as_the_restricted_standard_allows(
    way: str, rendered: dict[str, list[Object]]
) -> None:
    for each in rendered[way]:
        spec = each["spec"] if each["kind"] == "Pod" else None
        if each["kind"] in ("Deployment", "StatefulSet"):
            spec = each["spec"]["template"]["spec"]
        if spec is None:
            continue
        [container] = spec["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        pod = spec["securityContext"]
        assert pod["runAsNonRoot"]
        assert pod.get("runAsUser", 10001) == 10001, "the image's user"
        assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["resources"]["limits"]["memory"]
        assert "cpu" not in container["resources"]["limits"], "throttling answers Envoys late"
        # Writable is what is declared so, with a bound.
        for volume in spec.get("volumes", ()):
            if "emptyDir" in volume:
                assert volume["emptyDir"]["sizeLimit"]


@needs_tools
@pytest.mark.parametrize("way", WAYS)
def test_only_the_variant_with_a_token_has_one(way: str, rendered: dict[str, list[Object]]) -> None:
    accounts = {
        each["metadata"]["name"]: each.get("automountServiceAccountToken", True)
        for each in rendered[way]
        if each["kind"] == "ServiceAccount"
    }
    spec = workload(rendered[way])["spec"]["template"]["spec"]
    is_mounted = spec.get("automountServiceAccountToken", accounts[spec["serviceAccountName"]])
    assert is_mounted == ("metrics-token" in way)


@needs_tools
@pytest.mark.parametrize("way", ["metrics-token", "chart metrics-token"])
def test_the_token_s_variant_may_read_federate_and_nothing_else(
    way: str, rendered: dict[str, list[Object]]
) -> None:
    found = rendered[way]
    role = named(found, "ClusterRole", "tracefwd-metrics")
    assert role["rules"] == [{"nonResourceURLs": ["/federate"], "verbs": ["get"]}]
    binding = named(found, "ClusterRoleBinding", "tracefwd-metrics")
    [subject] = binding["subjects"]
    account = named(found, "ServiceAccount", subject["name"])
    # A chart's objects are in the namespace of their release.
    assert subject["namespace"] == account["metadata"].get("namespace", "observability")
    # And its list is the one that names the token's file.
    [text] = one(found, "ConfigMap")["data"].values()
    assert "/var/run/secrets/kubernetes.io/serviceaccount/token" in text
    assert "bearer_token_file" not in one(rendered["metrics"], "ConfigMap")["data"]["tracefwd.yaml"]


@needs_tools
@pytest.mark.parametrize("way", SPAN_WAYS)
def test_selectors_find_span_pods_and_not_the_metrics_path_s(
    way: str, rendered: dict[str, list[Object]]
) -> None:
    found = rendered[way]
    labels = workload(found)["spec"]["template"]["metadata"]["labels"]
    other = workload(rendered["metrics"])["spec"]["template"]["metadata"]["labels"]
    selectors = [
        each["spec"].get("podSelector", each["spec"].get("selector"))
        for each in found
        if each["kind"] not in ("HorizontalPodAutoscaler", "ServiceMonitor", "Pod")
        and "spec" in each
    ]
    assert len(selectors) >= (2 if way == "chart least" else 4)
    for selector in selectors:
        wanted = selector.get("matchLabels", selector)
        assert wanted.items() <= labels.items()
        assert not wanted.items() <= other.items()
    spread = workload(found)["spec"]["template"]["spec"]["topologySpreadConstraints"]
    assert {each["topologyKey"] for each in spread} == {
        "topology.kubernetes.io/zone",
        "kubernetes.io/hostname",
    }
    for each in spread:
        assert each["labelSelector"]["matchLabels"].items() <= labels.items()
        assert each["whenUnsatisfiable"] == "ScheduleAnyway"


@needs_tools
@pytest.mark.parametrize("way", SPAN_WAYS)
def test_the_autoscaler_has_what_it_scales(way: str, rendered: dict[str, list[Object]]) -> None:
    controller = workload(rendered[way])
    scalers = [each for each in rendered[way] if each["kind"] == "HorizontalPodAutoscaler"]
    if not scalers:
        assert controller["spec"]["replicas"] >= 1
        return
    [scaler] = scalers
    assert "replicas" not in controller["spec"], "an apply would set back what was scaled"
    target = scaler["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == (controller["kind"], controller["metadata"]["name"])
    [container] = controller["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["requests"]["cpu"], "utilization is a share of it"


@needs_tools
def test_replicas_with_volumes_are_not_scaled_away(rendered: dict[str, list[Object]]) -> None:
    for way in ("durable", "chart durable"):
        assert workload(rendered[way])["kind"] == "StatefulSet"
        assert not [each for each in rendered[way] if each["kind"] == "HorizontalPodAutoscaler"]


@needs_tools
@pytest.mark.parametrize("way", SPAN_WAYS)
def test_the_network_policy_lets_pass_what_is_configured(
    way: str, rendered: dict[str, list[Object]], tmp_path: Path
) -> None:
    policies = [each for each in rendered[way] if each["kind"] == "NetworkPolicy"]
    if way == "chart least":
        assert not policies
        return
    [policy] = policies
    spec = policy["spec"]
    assert sorted(spec["policyTypes"]) == ["Egress", "Ingress"]
    for rule in spec["ingress"]:
        assert rule["from"], "an empty list lets everybody in"
    [spans, metrics] = spec["ingress"]
    [container] = workload(rendered[way])["spec"]["template"]["spec"]["containers"]
    ports = {port["containerPort"] for port in container["ports"]}
    assert {port["port"] for port in spans["ports"]} == ports - {9412}
    assert [port["port"] for port in metrics["ports"]] == [9412]
    out = {port["port"] for rule in spec["egress"] for port in rule["ports"]}
    [target] = settings_of(rendered[way], tmp_path).exporter.targets
    urls = [target.url] if target.kind == "direct" else [target.traces, target.metrics]
    needed = {int((re.search(r":(\d+)$", url) or [0, 443])[1]) for url in urls} | {53}
    is_injected = way in INJECTED
    more = {15012} if is_injected else {4317} if way == "chart extras" else set()
    assert out == needed | more


@needs_tools
@pytest.mark.parametrize("way", METRICS)
def test_the_metrics_path_s_policy_lets_pass_what_is_configured(
    way: str, rendered: dict[str, list[Object]], tmp_path: Path
) -> None:
    spec = one(rendered[way], "NetworkPolicy")["spec"]
    labels = workload(rendered[way])["spec"]["template"]["metadata"]["labels"]
    assert spec["podSelector"]["matchLabels"].items() <= labels.items()
    [metrics] = spec["ingress"]
    assert metrics["from"], "an empty list lets everybody in"
    assert [port["port"] for port in metrics["ports"]] == [9412]
    settings = settings_of(rendered[way], tmp_path)
    [target], [source] = settings.exporter.targets, settings.prometheus_sources
    out = {port["port"] for rule in spec["egress"] for port in rule["ports"]}
    assert out == {53, *(urlsplit(url).port for url in (target.metrics, source.url))}


@needs_tools
@pytest.mark.parametrize("way", SPAN_WAYS)
def test_a_sidecar_is_there_only_where_it_is_asked_for(
    way: str, rendered: dict[str, list[Object]]
) -> None:
    is_injected = way in INJECTED
    labels = workload(rendered[way])["spec"]["template"]["metadata"]["labels"]
    assert labels["sidecar.istio.io/inject"] == str(is_injected).lower()
    kinds = {each["kind"] for each in rendered[way] if "istio.io" in each["apiVersion"]}
    wanted = {"PeerAuthentication", "AuthorizationPolicy", "Telemetry"} if is_injected else set()
    assert kinds == wanted


@needs_tools
def test_a_changed_configuration_or_token_is_a_rollout() -> None:
    def pods(token: str) -> list[Any]:
        found = objects(render.kustomized(render.OVERLAYS / "direct", token=token))
        return [
            workload(found)["spec"]["template"]["spec"]["volumes"],
            one(found, "ConfigMap")["metadata"]["name"],
        ]

    (before, map_before), (after, map_after) = pods("one"), pods("two")
    assert before != after
    assert map_before == map_after
    # And another configuration has another name, too.
    assert (
        map_before
        != one(objects(render.kustomized(render.OVERLAYS / "proxy")), "ConfigMap")["metadata"][
            "name"
        ]
    )


@needs_tools
def test_scaling_on_spans_stands_beside_cpu(rendered: dict[str, list[Object]]) -> None:
    scaler = one(rendered["proxy and components"], "HorizontalPodAutoscaler")
    assert [metric["type"] for metric in scaler["spec"]["metrics"]] == ["Resource", "Pods"]


@needs_tools
def test_the_console_is_off_until_a_token_is_named(
    rendered: dict[str, list[Object]], tmp_path: Path
) -> None:
    for way in SPAN_WAYS:
        named_one = settings_of(rendered[way], tmp_path / way).admin.token_file
        has = way in ("proxy and components", "durable and components", "chart components")
        assert bool(named_one) == has, way


def test_the_image_has_the_package_s_version() -> None:
    import tracefwd

    version = tracefwd.__version__
    text = "".join(
        path.read_text()
        for path in [
            *sorted((render.DEPLOY / "kubernetes").rglob("*.yaml")),
            *sorted((render.DEPLOY / "prometheus").rglob("*.yaml")),
            render.CHART / "Chart.yaml",
        ]
    )
    tags = set(
        re.findall(r"(?:image: tracefwd:|newTag: |appVersion: )(\S+?)}?$", text, re.MULTILINE)
    )
    assert tags == {version}
