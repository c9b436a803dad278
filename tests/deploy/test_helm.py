"""The chart is the kustomize base with switches: what both render is compared object by object."""

import dataclasses
import json
import re
import textwrap
from copy import deepcopy
from typing import Any

import jsonschema
import pytest
import yaml

from tests.deploy.kube import chart_readme, render
from tests.deploy.kube.render import CHART, HELM, Object, needs_tools, objects, one, workload
from tests.deploy.test_kubernetes import settings_of
from tracefwd.settings import Settings

# What says who installed it, and nothing about what runs.
BOOKKEEPING = {
    "app.kubernetes.io/instance",
    "app.kubernetes.io/version",
    "app.kubernetes.io/managed-by",
    "helm.sh/chart",
}
# Kustomize's checksum is the end of the name (in its own alphabet), the chart's an annotation.
CHECKSUM = re.compile(r"^(tracefwd(?:-metrics(?:-seed)?)?)-[2456789bcdfghkmt]{10}$")
ADMIN_TLS = {"admin": {"tls": {"cert_file": "/tls/tls.crt", "key_file": "/tls/tls.key"}}}
DIRECT = {"kind": "direct", "url": "https://example.wavefront.com"}


def plain(value: Any) -> Any:
    """Without bookkeeping, namespaces, checksums and comments."""
    if isinstance(value, dict):
        return {
            key: plain(each)
            for key, each in value.items()
            if key not in BOOKKEEPING
            and not key.startswith("checksum/")
            and key != "namespace"
            and not (key == "annotations" and not plain(each))
        }
    if isinstance(value, list):
        return [plain(each) for each in value]
    return CHECKSUM.sub(r"\1", value) if isinstance(value, str) else value


def compared(found: list[Object]) -> dict[tuple[str, str], Object]:
    """By kind and name; configuration as it is read, secrets as text."""
    by_name = {}
    for each in map(deepcopy, found):
        if each["kind"] == "Namespace" or each["metadata"].get("annotations", {}).get(
            "helm.sh/hook"
        ):
            continue
        each = plain(each)
        if each["kind"] == "ConfigMap":
            each["data"] = {name: yaml.safe_load(text) for name, text in each["data"].items()}
        if each["kind"] == "Secret":
            each["data"] = sorted(each.pop("stringData", None) or each["data"])
        if each["kind"] in ("Deployment", "StatefulSet"):
            spec = each["spec"]["template"]["spec"]
            spec["volumes"].sort(key=lambda volume: str(volume["name"]))
            [container] = spec["containers"]
            for several in ("volumeMounts", "env", "ports"):
                container.get(several, []).sort(key=lambda entry: str(entry["name"]))
        by_name[each["kind"], each["metadata"]["name"]] = each
    return by_name


# The sidecar's and the others' overlays are what the chart's switches do.
PAIRS = {"proxy": "default", "direct": "direct", "durable": "durable", "sidecar": "sidecar"}


@needs_tools
@pytest.mark.parametrize("overlay", ["base", *PAIRS])
def test_the_chart_renders_what_kustomize_renders(overlay: str) -> None:
    folder = render.DEPLOY / "kubernetes/base" if overlay == "base" else render.OVERLAYS / overlay
    kustomized = compared(objects(render.kustomized(folder)))
    values = dict(render.VALUES[PAIRS.get(overlay, "default")])
    if overlay == "durable":
        # Said in the overlay, and the default.
        values["config"] = {"spool": {"durability": "disk"}}
    chart = compared(objects(render.chart(values)))
    assert sorted(chart) == sorted(kustomized)
    for name, each in kustomized.items():
        assert chart[name] == each, name


@needs_tools
@pytest.mark.parametrize("overlay", ["proxy", "sidecar"])
def test_the_chart_s_switches_are_kustomize_s_components(overlay: str) -> None:
    values = dict(render.VALUES["components"])
    if overlay == "sidecar":
        values = {"otlp": {"enabled": True}, **render.VALUES["sidecar"]}
    chart = compared(objects(render.chart(values)))
    assert chart == compared(objects(render.with_components(overlay)))


@needs_tools
@pytest.mark.parametrize("overlay", render.METRICS)
def test_the_chart_s_metrics_path_is_kustomize_s(overlay: str) -> None:
    chart = compared(objects(render.chart_metrics(render.METRICS[overlay])))
    text = render.kustomized(render.OVERLAYS / overlay)
    # The overlay has a name for each of the two lists.
    kustomized = compared(objects(text.replace("tracefwd-metrics-seed-", "tracefwd-metrics-")))
    assert sorted(chart) == sorted(kustomized)
    for name, each in kustomized.items():
        assert chart[name] == each, name


@needs_tools
def test_the_operator_s_monitors_find_the_pods_and_are_those_of_deploy_prometheus() -> None:
    values = {"serviceMonitor": {"enabled": True}, "metrics": {"enabled": True}}
    found = objects(render.chart(values))
    for kind, component, name in (
        ("ServiceMonitor", "spans", "tracefwd-servicemonitor.yaml"),
        ("PodMonitor", "metrics", "tracefwd-podmonitor.yaml"),
    ):
        [pod] = [
            each["spec"]["template"]
            for each in found
            if each["kind"] == "Deployment"
            and each["metadata"]["labels"]["app.kubernetes.io/component"] == component
        ]
        shipped = yaml.safe_load((render.DEPLOY / "prometheus" / name).read_text())["spec"]
        monitor = one(found, kind)["spec"]
        for spec in (shipped, monitor):
            wanted = spec["selector"]["matchLabels"]
            assert wanted.items() <= pod["metadata"]["labels"].items(), kind
            [endpoint] = spec.get("endpoints") or spec["podMetricsEndpoints"]
            assert endpoint == {"port": "admin", "path": "/metrics", "interval": "30s"}
            assert "admin" in {port["name"] for port in pod["spec"]["containers"][0]["ports"]}


@needs_tools
def test_the_operator_s_monitors_ask_the_admin_port_as_it_is_configured() -> None:
    endpoint = {
        "interval": "10s",
        "authorization": {"credentials": {"name": "tracefwd-admin", "key": "token"}},
        "tlsConfig": {"serverName": "tracefwd"},
    }
    values = {
        "serviceMonitor": {"enabled": True, "endpoint": endpoint},
        "config": ADMIN_TLS,
        "metrics": {"enabled": True, "config": ADMIN_TLS},
    }
    found = objects(render.chart(values))
    for kind, member in (("ServiceMonitor", "endpoints"), ("PodMonitor", "podMetricsEndpoints")):
        [asked] = one(found, kind)["spec"][member]
        assert asked == {"port": "admin", "path": "/metrics", "scheme": "https", **endpoint}


def test_the_chart_s_lists_are_those_of_deploy_prometheus() -> None:
    for name in ("filters-current.yaml", "filters-seed.yaml"):
        shipped = (render.DEPLOY / "prometheus" / name).read_bytes()
        assert (CHART / "files" / name).read_bytes() == shipped, "run: make docs"


@needs_tools
def test_the_metrics_path_goes_where_the_values_say(tmp_path: Any) -> None:
    values = {
        **render.VALUES["direct"],
        "metrics": {
            "enabled": True,
            "prometheus": {"url": "http://prometheus.monitoring:9090"},
            "config": {"metrics": {"age_max": "30s"}},
        },
    }
    found = [
        each
        for each in objects(render.chart(values))
        if each["metadata"]["labels"]["app.kubernetes.io/component"] == "metrics"
        or each["kind"] == "Secret"
    ]
    settings = settings_of(found, tmp_path)
    [source] = settings.prometheus_sources
    assert source.url.startswith("http://prometheus.monitoring:9090/federate?")
    [target] = settings.exporter.targets
    assert (target.kind, target.url) == ("direct", "https://example.wavefront.com")
    assert target.token_file.endswith("/var/run/tracefwd/token")
    assert settings.metrics.age_max == 30.0
    own = {"metrics": {"enabled": True, "sources": [{"url": "http://prometheus:9090/federate"}]}}
    config = one(objects(render.chart_metrics(own)), "ConfigMap")["data"]["tracefwd.yaml"]
    assert yaml.safe_load(config)["prometheus_sources"] == own["metrics"]["sources"]
    for url, port in (
        ("http://a", 80),
        ("https://a/x?y=1:2", 443),
        ("http://a:9091/federate", 9091),
        ("http://[fd00::1]:9092/federate", 9092),
        ("https://[fd00::1]", 443),
        ("http://user:1234@a:9093/federate", 9093),
        ("http://a?x=y:9094", 80),
    ):
        own["metrics"]["sources"] = [{"url": url}, {"url": url}]
        policy = one(objects(render.chart_metrics(own)), "NetworkPolicy")
        assert policy["spec"]["egress"][1]["ports"] == [{"protocol": "TCP", "port": port}]


@needs_tools
def test_a_second_target_of_the_spans_is_not_the_metrics_path_s() -> None:
    """Its own is that of `target`, which the primary may repeat; or whatever it is told."""
    values: Object = {"metrics": {"enabled": True}}
    [proxy] = settings_text(one(objects(render.chart()), "ConfigMap"))["exporter"]["targets"]
    tee = {"name": "otel", "kind": "otlp", "role": "tee", "url": "http://otel:4318"}
    values["config"] = {"exporter": {"targets": [tee, proxy]}}
    assert objects(render.chart(values))
    other = {**DIRECT, "csp_app_id": "id", "csp_app_secret_file": "/csp/secret"}
    values["config"] = {"exporter": {"targets": [other]}}
    values["metrics"]["config"] = values["config"]
    assert objects(render.chart(values))


@needs_tools
def test_a_token_of_cloud_services_serves_both_paths() -> None:
    url = "https://relay.example:8443"
    direct = {"url": url, "existingSecret": "token", "csp": True}
    values = {"target": {"kind": "direct", "direct": direct}, "metrics": {"enabled": True}}
    found = objects(render.chart(values))
    for each in found:
        if each["kind"] == "ConfigMap":
            [target] = settings_text(each)["exporter"]["targets"]
            assert target.pop("csp_token_file") == "/var/run/tracefwd/token"
            assert target == {"name": "direct", "kind": "direct", "url": url}
        if each["kind"] == "NetworkPolicy":
            ports = [rule["port"] for rule in each["spec"]["egress"][-1]["ports"]]
            assert ports == [8443, 443]
    assert sum(each["kind"] == "ConfigMap" for each in found) == 2


def settings_text(config_map: Object) -> Any:
    return yaml.safe_load(config_map["data"]["tracefwd.yaml"])


@needs_tools
def test_lint_finds_nothing_with_any_values(tmp_path: Any) -> None:
    for name, values in {**render.VALUES, **render.METRICS}.items():
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump(values))
        render.run(HELM, "lint", "--strict", CHART, "--values", file)


MISTAKES: dict[str, Object] = {
    "additional properties 'sidecr' not allowed": {"sidecr": {"enabled": True}},
    "got string, want boolean": {"durable": {"enabled": "yes"}},
    "value must be one of 'proxy', 'direct'": {"target": {"kind": "kafka"}},
    # No port, no rule in the NetworkPolicy.
    "does not match pattern": {"target": {"proxy": {"traces": "http://proxy"}}},
    "'/metrics/sources/0': missing property 'url'": {"metrics": {"sources": [{"filters": {}}]}},
    "minimum: got 20, want 26": {"terminationGracePeriodSeconds": 20},
    # Its own ConfigMap is mounted there, for reading only.
    "'/extraVolumeMounts/0/mountPath': 'not' failed": {
        "extraVolumeMounts": [{"name": "rules", "mountPath": "/etc/tracefwd/rules"}]
    },
    # What the API server would refuse, after it took the rest of the release.
    "autoscaling.maxReplicas: 10 is less than minReplicas, 12": {
        "autoscaling": {"minReplicas": 12}
    },
    "'/extraEnv/0/value': got number, want string": {
        "extraEnv": [{"name": "TRACEFWD_SERVICE__WORKERS", "value": 2}]
    },
    "missing property 'port'": {"extraPorts": [{"name": "tcp-lines"}]},
    "extraPorts: port 9411 is taken": {"extraPorts": [{"name": "http-more", "port": 9411}]},
    "extraPorts: name admin is taken": {"extraPorts": [{"name": "admin", "port": 9999}]},
    "extraPorts: port 4317 is taken": {
        "otlp": {"enabled": True},
        "extraPorts": [{"name": "grpc-more", "port": 4317}],
    },
    "'/extraPorts/0/name': '123' does not match": {"extraPorts": [{"name": "123", "port": 123}]},
    "extraVolumes: name spool is taken": {"extraVolumes": [{"name": "spool", "emptyDir": {}}]},
    "extraVolumeMounts: mountPath /var/spool/tracefwd is taken": {
        "extraVolumeMounts": [{"name": "a", "mountPath": "/var/spool/tracefwd"}]
    },
    "metrics.extraVolumes: name a is taken": {
        "metrics": {"enabled": True, "extraVolumes": [{"name": "a"}, {"name": "a"}]}
    },
    "'/extraEnv/0': 'not' failed": {
        "extraEnv": [{"name": "A", "value": "b", "valueFrom": {"fieldRef": {"fieldPath": "c"}}}]
    },
    "at '/config': additional properties 'recevier' not allowed": {
        "config": {"recevier": {"listen": "0.0.0.0:9411"}}
    },
    "at '/metrics/config/exporter/targets/0': got string, want object": {
        "metrics": {"enabled": True, "config": {"exporter": {"targets": ["proxy"]}}}
    },
    "at '/config/receiver/otlp': got string": {"config": {"receiver": {"otlp": "0.0.0.0:4317"}}},
    "spool.size: batches and journal of 2 worker(s) take up to 2 x 2 x 256MiB, and 768Mi is less": {
        "config": {"service": {"workers": 2}}
    },
    "spool.size: batches and journal of 1 worker(s) take up to 2 x 1 x 0.5GiB, and 768Mi is less": {
        "config": {"spool": {"bytes_max": "0.5GiB"}}
    },
    "durable.storage: batches and journal of 4 worker(s) take up to 2 x 4 x 2GiB, and 10Gi is less": {
        "durable": {"enabled": True},
        "spool": {"bytesMax": "2GiB"},
        "config": {"service": {"workers": 4}},
    },
    "terminationGracePeriodSeconds: pre_stop_delay (5s) and drain_timeout (1m30s) together are more than 45 s": {
        "config": {"service": {"drain_timeout": "1m30s"}}
    },
    "metrics.spool.size: batches take up to 1GiB, and 512Mi is less": {
        "metrics": {"enabled": True, "config": {"spool": {"bytes_max": "1GiB"}}}
    },
    "terminationGracePeriodSeconds: pre_stop_delay (0s) and drain_timeout (1m30s) together are more than 45 s": {
        "metrics": {"enabled": True, "config": {"service": {"drain_timeout": "1m30s"}}}
    },
    # Where nobody would look for them.
    "config.receiver.listen: 0.0.0.0:9511: Service, probes and NetworkPolicy lead to port 9411": {
        "config": {"receiver": {"listen": "0.0.0.0:9511"}}
    },
    "config.receiver.otlp.grpc.listen: [::]:9317: Service, probes and NetworkPolicy lead to port 4317": {
        "otlp": {"enabled": True},
        "config": {"receiver": {"otlp": {"grpc": {"listen": "[::]:9317"}}}},
    },
    "config.admin.listen: 0.0.0.0:19412: Service, probes and NetworkPolicy lead to port 9412": {
        "config": {"admin": {"listen": "0.0.0.0:19412"}}
    },
    "config.admin.listen: 127.0.0.1:9412: a kubelet cannot reach it": {
        "config": {"admin": {"listen": "127.0.0.1:9412"}}
    },
    "metrics.config.admin.listen: [::1]:9412: a kubelet cannot reach it": {
        "metrics": {"enabled": True, "config": {"admin": {"listen": "[::1]:9412"}}}
    },
    # The same by the environment, which wins.
    "extraEnv TRACEFWD_RECEIVER__LISTEN: 0.0.0.0:9511: Service, probes and NetworkPolicy lead to port 9411": {
        "extraEnv": [{"name": "TRACEFWD_RECEIVER__LISTEN", "value": "0.0.0.0:9511"}]
    },
    "extraEnv TRACEFWD_ADMIN__LISTEN: localhost:9412: a kubelet cannot reach it": {
        "extraEnv": [{"name": "TRACEFWD_ADMIN__LISTEN", "value": "localhost:9412"}]
    },
    "spool.size: batches and journal of 3 worker(s) take up to 2 x 3 x 256MiB, and 768Mi is less": {
        "extraEnv": [{"name": "TRACEFWD_SERVICE__WORKERS", "value": "3"}]
    },
    "terminationGracePeriodSeconds: pre_stop_delay (5s) and drain_timeout (2m) together are more than 45 s": {
        "extraEnv": [{"name": "TRACEFWD_SERVICE__DRAIN_TIMEOUT", "value": "2m"}]
    },
    "extraEnv: TRACEFWD_RECEIVER__OTLP__GRPC__LISTEN is set twice": {
        "otlp": {"enabled": True},
        "extraEnv": [{"name": "TRACEFWD_RECEIVER__OTLP__GRPC__LISTEN", "value": "[::]:4317"}],
    },
    # Spans would go there, and metrics to a proxy that nobody named.
    "metrics.config.exporter.targets: spans go to the target of config.exporter.targets, and": {
        "config": {"exporter": {"targets": [{**DIRECT, "csp_token_file": "/csp/token"}]}},
        "metrics": {"enabled": True},
    },
    "metrics.config.exporter.targets: spans go to the target of extraEnv TRACEFWD_EXPORTER__TARGETS, and": {
        "extraEnv": [{"name": "TRACEFWD_EXPORTER__TARGETS", "value": "[]"}],
        "metrics": {"enabled": True},
    },
    # A section whose lines are all comments.
    "missing property 'spool'": {"spool": None},
    "'/metrics': missing property 'prometheus'": {"metrics": {"prometheus": None}},
    "target.direct.url: your Wavefront instance": {"target": {"kind": "direct"}},
    "target.direct: an existingSecret, or the token": {
        "target": {"kind": "direct", "direct": {"url": "https://example.wavefront.com"}}
    },
}


@needs_tools
@pytest.mark.parametrize("said", MISTAKES)
def test_a_mistake_in_the_values_is_refused_and_named(said: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(said)):
        render.chart(MISTAKES[said])


@needs_tools
def test_a_volume_that_is_just_large_enough_is_taken() -> None:
    for values in (
        {"config": {"service": {"workers": 3}}, "spool": {"size": "1536Mi"}},
        {
            "config": {"service": {"workers": 1}, "spool": {"bytes_max": "300MB"}},
            "spool": {"size": "600M"},
        },
        {"durable": {"enabled": True}, "spool": {"bytesMax": "5GiB"}},
        # Somewhere else, or no spool at all: nothing is known of its room.
        {"config": {"spool": {"folder": "/var/lib/other", "bytes_max": "1TiB"}}},
    ):
        assert objects(render.chart(values))


@needs_tools
def test_kubelets_ask_the_admin_port_as_it_is_configured() -> None:
    tls = {"config": ADMIN_TLS, "metrics": {"config": ADMIN_TLS}}
    by_variables = {
        "extraEnv": [
            {"name": "TRACEFWD_ADMIN__TLS__CERT_FILE", "value": "/tls/tls.crt"},
            {"name": "TRACEFWD_ADMIN__TLS__KEY_FILE", "value": "/tls/tls.key"},
            {"name": "TRACEFWD_ADMIN__TOKEN_FILE", "valueFrom": {"fieldRef": {"fieldPath": "x"}}},
        ],
        "metrics": {"config": ADMIN_TLS},
    }
    for values, scheme in (({}, None), (tls, "HTTPS"), (by_variables, "HTTPS")):
        given = {**values, "metrics": {"enabled": True, **values.get("metrics", {})}}
        asked = [
            container[probe]["httpGet"].get("scheme")
            for each in objects(render.chart(given))
            if each["kind"] == "Deployment"
            for container in each["spec"]["template"]["spec"]["containers"]
            for probe in ("startupProbe", "livenessProbe", "readinessProbe")
            if probe in container
        ]
        assert asked == [scheme] * 5


@needs_tools
def test_a_time_to_leave_that_is_just_long_enough_is_taken() -> None:
    service = {"pre_stop_delay": "500ms", "drain_timeout": "1m29.5s"}
    values = {"config": {"service": service}, "terminationGracePeriodSeconds": 90}
    assert objects(render.chart(values))


@needs_tools
def test_what_is_left_empty_is_as_if_it_were_not_written() -> None:
    """As where every line below a key is a comment."""
    metrics = {"enabled": True}
    plain = objects(render.chart({"metrics": metrics}))
    empty = dict.fromkeys(("admin", "exporter", "mapping", "receiver", "service", "spool"))
    for values in (
        {"config": None},
        {"config": empty},
        {"metrics": {**metrics, "config": None, "sources": None}},
        {"metrics": {**metrics, "config": {**empty, "metrics": None, "prometheus_sources": None}}},
    ):
        assert objects(render.chart({"metrics": metrics, **values})) == plain
    [container] = workload(objects(render.chart({"resources": None})))["spec"]["template"]["spec"][
        "containers"
    ]
    assert container["resources"] == {"requests": {"ephemeral-storage": "768Mi"}}


@needs_tools
def test_what_the_metrics_path_s_configuration_says_holds(tmp_path: Any) -> None:
    """Its container has flags and variables, which would win over it."""
    said = {
        "admin": {"listen": "[::]:9412"},
        "exporter": {
            "targets": [{"name": "otel", "kind": "otlp", "url": "http://otel.example:4318"}]
        },
        "metrics": {"cluster": "another"},
        "spool": {"bytes_max": "300MiB"},
    }
    for own in ({}, {"spool": {"folder": ""}}):
        config = {**said, "spool": {**said["spool"], **own.get("spool", {})}}
        found = objects(render.chart_metrics({"metrics": {"enabled": True, "config": config}}))
        settings = settings_of(found, tmp_path)
        assert settings.admin.listen == "[::]:9412"
        assert [target.name for target in settings.exporter.targets] == ["otel"]
        assert settings.metrics.cluster == "another"
        assert settings.spool.bytes_max == 300 * 2**20
        assert bool(settings.spool.folder) == (not own)


@needs_tools
def test_pods_that_have_addresses_of_ipv6_only_can_be_reached(tmp_path: Any) -> None:
    listen = {"grpc": {"listen": "[::]:4317"}, "http": {"listen": "[::]:4318"}}
    values = {
        "target": {
            "proxy": {"traces": "http://[fd00::1]:30000", "metrics": "http://[fd00::1]:2878"}
        },
        "otlp": {"enabled": True},
        "config": {
            "receiver": {"listen": "[::]:9411", "otlp": listen},
            "admin": {"listen": "[::]:9412"},
        },
    }
    found = objects(render.chart(values))
    settings = settings_of(found, tmp_path)
    assert settings.receiver.otlp.grpc.listen == "[::]:4317"
    assert settings.receiver.otlp.http.listen == "[::]:4318"
    assert one(found, "NetworkPolicy")["spec"]["egress"][1]["ports"] == [
        {"protocol": "TCP", "port": port} for port in (30000, 2878)
    ]


@needs_tools
def test_names_that_look_like_numbers_stay_names() -> None:
    values = {
        "target": {
            "kind": "proxy",
            "proxy": {"namespace": "2024"},
            "direct": {"url": "https://example.wavefront.com", "existingSecret": "1234"},
        },
        "imagePullSecrets": ["123"],
        "console": {"existingSecret": "0x1"},
        "metrics": {"enabled": True, "token": True, "prometheus": {"serviceAccount": "77"}},
        "durable": {"enabled": True, "storageClassName": "10"},
        "priorityClassName": "5",
    }
    texts = {"name", "namespace", "secretName", "storageClassName", "priorityClassName"}

    def check(value: Any, key: str = "") -> None:
        if isinstance(value, list):
            for each in value:
                check(each, key)
        elif isinstance(value, dict):
            for name, each in value.items():
                check(each, name)
                if key in ("labels", "matchLabels", "annotations") or name in texts:
                    assert isinstance(each, str), (key, name, each)

    for kind in ("proxy", "direct"):
        chosen = deepcopy(values)
        chosen["target"]["kind"] = kind
        check(objects(render.chart(chosen, release="42", namespace="2025")))


@needs_tools
def test_the_way_to_direct_ingestion_is_open_at_the_port_of_its_address() -> None:
    for url, port in (
        ("https://example.wavefront.com", 443),
        ("https://relay.example:8443", 8443),
        ("https://relay.example:8443/wavefront", 8443),
    ):
        target = {"kind": "direct", "direct": {"url": url, "existingSecret": "token"}}
        found = objects(render.chart({"target": target, "metrics": {"enabled": True}}))
        policies = [each["spec"] for each in found if each["kind"] == "NetworkPolicy"]
        assert len(policies) == 2
        for policy in policies:
            assert policy["egress"][-1]["ports"] == [{"protocol": "TCP", "port": port}]


@needs_tools
def test_what_is_added_stands_beside_the_chart_s_own() -> None:
    values = deepcopy(render.VALUES["extras"])
    before, after = objects(render.chart()), objects(render.chart(values))
    assert [(each["kind"], each["metadata"]["name"]) for each in before] == [
        (each["kind"], each["metadata"]["name"]) for each in after
    ]
    [old, new] = [workload(found)["spec"]["template"]["spec"] for found in (before, after)]
    [old_one], [new_one] = old["containers"], new["containers"]
    assert new["volumes"] == old["volumes"] + values["extraVolumes"]
    assert new_one["volumeMounts"] == old_one["volumeMounts"] + values["extraVolumeMounts"]
    assert new_one["env"] == values["extraEnv"]
    port = {"name": "tcp-lines", "containerPort": 30000}
    assert new_one["ports"] == [*old_one["ports"], port]
    ports = one(after, "Service")["spec"]["ports"]
    assert ports == [
        *one(before, "Service")["spec"]["ports"],
        {"name": "tcp-lines", "port": 30000, "targetPort": "tcp-lines", "appProtocol": "tcp"},
    ]
    policy = one(after, "NetworkPolicy")["spec"]
    assert policy["ingress"][0]["ports"][-1] == {"protocol": "TCP", "port": 30000}
    assert policy["egress"][-1:] == values["networkPolicy"]["to"]
    # Beside what is switched on, behind a sidecar, and from the metrics path.
    values |= {"console": {"existingSecret": "c"}, "sidecar": {"enabled": True}}
    values |= {"metrics": {"enabled": True}}
    found = objects(render.chart(values))
    [spans, metrics] = [
        each["spec"]["template"]["spec"] for each in found if each["kind"] == "Deployment"
    ]
    if "metrics" in spans["serviceAccountName"]:
        spans, metrics = metrics, spans
    assert [each["name"] for each in spans["containers"][0]["env"]] == [
        "TRACEFWD_ADMIN__TOKEN_FILE",
        "TRACEFWD_SERVICE__LOG_LEVEL",
    ]
    assert {each["name"] for each in metrics["volumes"]} == {"config", "spool"}
    for each in found:
        if each["kind"] == "NetworkPolicy":
            assert each["spec"]["egress"][-1:] == values["networkPolicy"]["to"]
    [rule] = one(found, "AuthorizationPolicy")["spec"]["rules"]
    assert rule["to"] == [{"operation": {"ports": ["9411", "30000"]}}]


def test_the_metrics_path_takes_volumes_of_its_own() -> None:
    volume = {"name": "ca", "secret": {"secretName": "prometheus-ca"}}
    mount = {"name": "ca", "mountPath": "/var/run/ca", "readOnly": True}
    extras = {"extraVolumes": [volume], "extraVolumeMounts": [mount]}
    before, after = (
        objects(render.chart({"metrics": {"enabled": True, **more}})) for more in ({}, extras)
    )
    changed = [pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]]
    [(old, new)] = changed
    assert new["metadata"]["name"] == "tracefwd-metrics"
    [old_pod, new_pod] = [each["spec"]["template"]["spec"] for each in (old, new)]
    assert new_pod["volumes"] == [*old_pod["volumes"], volume]
    [old_one], [new_one] = old_pod["containers"], new_pod["containers"]
    assert new_one["volumeMounts"] == [*old_one["volumeMounts"], mount]
    hidden = {"name": "ca", "mountPath": "/etc/tracefwd"}
    with pytest.raises(AssertionError, match="mountPath"):
        render.chart({"metrics": {"enabled": True, "extraVolumeMounts": [hidden]}})


def test_the_examples_of_the_values_are_those_that_are_tried() -> None:
    text = (CHART / "values.yaml").read_text()
    extras = render.VALUES["extras"]
    for key in ("extraVolumes", "extraVolumeMounts", "extraPorts"):
        [example] = re.findall(rf"^#   ({key}: .*)$", text, re.MULTILINE)
        assert yaml.safe_load(example) == {key: extras[key]}
    [to] = re.findall(r"^  #   to:\n((?:  #     .*\n)+)", text, re.MULTILINE)
    assert (
        yaml.safe_load(re.sub(r"^  # ", "", to, flags=re.MULTILINE))
        == extras["networkPolicy"]["to"]
    )


def test_the_schema_knows_every_value_and_the_defaults_fit() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    jsonschema.validate(values, schema)

    def known(schema: Object, path: str = "") -> set[str]:
        found = set()
        for key, each in schema.get("properties", {}).items():
            found |= known(each, f"{path}{key}.") if "properties" in each else {path + key}
        return found

    sections = {field.name for field in dataclasses.fields(Settings)}
    assert schema["definitions"]["tracefwd"]["properties"].keys() == sections
    documented = {key for key, _, _ in chart_readme.rows()}
    resources = {"resources", "metrics.resources"}
    parts = {f"{each}.{part}" for each in resources for part in ("requests", "limits")}
    # `global` is Helm's.
    assert known(schema) - parts - {"global"} == documented - resources


def test_every_value_is_in_the_readme_as_the_file_says_it() -> None:
    assert chart_readme.README.read_text() == chart_readme.render(), "run: make docs"


@needs_tools
def test_names_follow_the_release_and_two_can_live_side_by_side() -> None:
    found = objects(render.chart(release="blue"))
    assert {each["metadata"]["name"] for each in found} == {"blue-tracefwd", "blue-tracefwd-test"}
    selectors = [
        workload(objects(render.chart(release=release)))["spec"]["selector"]["matchLabels"]
        for release in ("blue", "green")
    ]
    assert selectors[0] != selectors[1]
    [pod] = [each for each in found if each["kind"] == "Pod"]
    assert "http://blue-tracefwd:9411/api/v2/spans" in pod["spec"]["containers"][0]["command"][2]


@needs_tools
def test_a_changed_configuration_or_token_is_a_rollout() -> None:
    def checksums(values: Object) -> dict[str, str]:
        template = workload(objects(render.chart(values)))["spec"]["template"]
        annotations: dict[str, str] = template["metadata"]["annotations"]
        return annotations

    direct = deepcopy(render.VALUES["direct"])
    before = checksums(direct)
    direct["target"]["direct"]["token"] = "another"
    after = checksums(direct)
    assert before["checksum/secret"] != after["checksum/secret"]
    assert before["checksum/config"] == after["checksum/config"]
    direct["config"] = {"sampling": {"rate": 0.5}}
    assert checksums(direct)["checksum/config"] != after["checksum/config"]


@needs_tools
@pytest.mark.parametrize("name", ["default", "direct", "durable", "sidecar", "metrics"])
def test_the_notes_tell_the_next_step(name: str) -> None:
    notes = render.run(
        HELM,
        "install",
        "tracefwd",
        CHART,
        "--namespace=observability",
        "--dry-run=client",
        "--values=-",
        stdin=yaml.safe_dump({**render.VALUES, **render.METRICS}[name]),
    ).partition("NOTES:")[2]
    assert "helm test tracefwd --namespace observability" in notes
    kind = "statefulset" if name == "durable" else "deployment"
    assert f"port-forward {kind}/tracefwd 9412" in notes
    assert f"exec {kind}/tracefwd -- tracefwd doctor --config /etc/tracefwd/tracefwd.yaml" in notes
    assert ("30000" in notes) == (name != "direct")
    assert ("deployment/tracefwd-metrics 9413" in notes) == (name == "metrics")
    if name == "metrics":
        # Without its flags the doctor would find nowhere to deliver to.
        path = objects(render.chart_metrics(render.METRICS[name]))
        [container] = workload(path)["spec"]["template"]["spec"]["containers"]
        flags = " ".join(container["args"][1:])
        assert f"exec deployment/tracefwd-metrics -- tracefwd doctor {flags}\n" in notes
    # What is to be pasted is what deploy/istio has.
    snippets = re.findall(
        r"^ +(?:meshConfig:.*?9411|apiVersion:.*?100)$", notes, re.DOTALL | re.MULTILINE
    )
    [mesh, telemetry] = map(textwrap.dedent, snippets)
    istio = render.DEPLOY / "istio"
    shipped = yaml.safe_load((istio / "provider-zipkin.yaml").read_text())["meshConfig"]
    assert yaml.safe_load(mesh)["meshConfig"]["extensionProviders"] == shipped["extensionProviders"]
    pasted = yaml.safe_load(telemetry)
    wanted = yaml.safe_load((istio / "telemetry.yaml").read_text())
    del wanted["spec"]["tracing"][0]["customTags"]
    assert pasted == wanted
