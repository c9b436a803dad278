"""What kubectl and helm make of deploy/kubernetes and deploy/helm, as objects.

Both programs come from ``tests/deploy/kube/tools.sh``, into a cache outside the tree.  ``make test`` runs it; where
there is no network their tests say that they skip.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
OVERLAYS = DEPLOY / "kubernetes" / "overlays"
CHART = DEPLOY / "helm" / "tracefwd"
CACHE = Path(os.environ.get("TRACEFWD_CACHE") or Path.home() / ".cache" / "tracefwd")
BIN = CACHE / "kube" / "bin"
HELM, KUBECTL = BIN / "helm", BIN / "kubectl"
needs_tools = pytest.mark.skipif(
    not (HELM.exists() and KUBECTL.exists()),
    reason="NO HELM, NO KUBECTL: charts and overlays are not rendered (tests/deploy/kube/tools.sh fetches both)",
)

Object = dict[str, Any]
# Every way that values.yaml's switches lead; what they add is looked at one by one.
VALUES: Mapping[str, Object] = {
    "default": {},
    "direct": {
        "target": {
            "kind": "direct",
            "direct": {"url": "https://example.wavefront.com", "token": "a-token"},
        }
    },
    "durable": {"durable": {"enabled": True}, "spool": {"bytesMax": "4GiB"}},
    "components": {
        "autoscaling": {"spansPerSecond": 5000},
        "otlp": {"enabled": True},
        "console": {"existingSecret": "tracefwd-console"},
    },
    "sidecar": {"sidecar": {"enabled": True}},
    # What the comments of values.yaml give as examples.
    "extras": {
        "extraVolumes": [{"name": "rules", "configMap": {"name": "rules"}}],
        "extraVolumeMounts": [
            {"name": "rules", "mountPath": "/var/run/tracefwd-rules", "readOnly": True}
        ],
        "extraEnv": [{"name": "TRACEFWD_SERVICE__LOG_LEVEL", "value": "warning"}],
        "extraPorts": [{"name": "tcp-lines", "port": 30000, "appProtocol": "tcp"}],
        "networkPolicy": {
            "to": [
                {
                    "to": [
                        {
                            "namespaceSelector": {
                                "matchLabels": {"kubernetes.io/metadata.name": "otel"}
                            }
                        }
                    ],
                    "ports": [{"protocol": "TCP", "port": 4317}],
                }
            ]
        },
        "config": {
            "receiver": {"trace_listen": "0.0.0.0:30000"},
            "rules": {"file": "/var/run/tracefwd-rules/rules.yaml"},
        },
    },
    "everything": {
        "image": {"repository": "registry.example/tracefwd", "tag": "1", "pullPolicy": "Always"},
        "imagePullSecrets": ["registry"],
        "autoscaling": {"minReplicas": 3, "maxReplicas": 30, "spansPerSecond": 5000},
        "config": {"sampling": {"rate": 0.5}, "red": {"tags": ["tier"]}},
        "networkPolicy": {"from": [{"ipBlock": {"cidr": "10.1.0.0/16"}}]},
        "otlp": {"enabled": True},
        "sidecar": {"enabled": True},
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "podAnnotations": {"example.com/owner": "observability"},
        "podLabels": {"team": "observability"},
        "priorityClassName": "system-cluster-critical",
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "spot", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "resources": {"requests": {"cpu": 1}, "limits": {"memory": "1Gi"}},
    },
    "least": {
        "autoscaling": {"enabled": False},
        "replicas": 1,
        "networkPolicy": {"enabled": False},
        "podDisruptionBudget": {"enabled": False},
    },
}

# The metrics path by the overlay that has it; it stands beside whatever else is chosen.
METRICS: Mapping[str, Object] = {
    "metrics": {"metrics": {"enabled": True, "prometheus": {"serviceAccount": "prometheus"}}},
    "metrics-token": {
        "metrics": {
            "enabled": True,
            "token": True,
            "prometheus": {"serviceAccount": "prometheus"},
        }
    },
}


def run(*words: str | Path, stdin: str | None = None) -> str:
    done = subprocess.run(
        [str(word) for word in words], input=stdin, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, f"{' '.join(map(str, words))}\n{done.stdout}{done.stderr}"
    return done.stdout


def objects(text: str) -> list[Object]:
    return [each for each in yaml.safe_load_all(text) if each]


def names() -> list[str]:
    return sorted(each.name for each in OVERLAYS.iterdir())


@cache
def kustomized(folder: Path, *, token: str = "a-token") -> str:
    """A folder under deploy/ rendered from a copy, in which the overlay direct has its token."""
    with tempfile.TemporaryDirectory() as copy:
        ignore = shutil.ignore_patterns("token")
        shutil.copytree(DEPLOY, Path(copy) / "deploy", ignore=ignore)
        (Path(copy) / "deploy/kubernetes/overlays/direct/token").write_text(token)
        return run(KUBECTL, "kustomize", Path(copy) / folder.relative_to(ROOT))


# Kustomize's components, each one line in an overlay of one's own, on the overlays that they are for.
COMPONENTS: Mapping[str, tuple[str, ...]] = {
    "proxy": ("scale-on-spans", "otlp", "console"),
    "durable": ("otlp", "console"),
    "sidecar": ("otlp",),
}


@cache
def with_components(overlay: str) -> str:
    """An overlay of somebody's own, which takes all the components that it can."""
    with tempfile.TemporaryDirectory() as copy:
        shutil.copytree(DEPLOY, Path(copy) / "deploy", ignore=shutil.ignore_patterns("token"))
        own = Path(copy) / "deploy" / "kubernetes" / "overlays" / "own"
        own.mkdir()
        components = [f"../../components/{name}" for name in COMPONENTS[overlay]]
        content = {"resources": [f"../{overlay}"], "components": components}
        (own / "kustomization.yaml").write_text(yaml.safe_dump(content))
        return run(KUBECTL, "kustomize", own)


def chart(
    values: Object | None = None, *, release: str = "tracefwd", namespace: str = "observability"
) -> str:
    return _chart(yaml.safe_dump(values or {}), release, namespace)


@cache
def _chart(values: str, release: str, namespace: str) -> str:
    words = ("template", release, CHART, f"--namespace={namespace}", "--values=-")
    return run(HELM, *words, stdin=values)


def chart_metrics(values: Object) -> str:
    """What ``values`` with the metrics path add to the same without: that path's own objects."""
    without = objects(chart({name: each for name, each in values.items() if name != "metrics"}))
    found = objects(chart(values))
    assert all(each in found for each in without), "the metrics path changes what is beside it"
    return yaml.safe_dump_all([each for each in found if each not in without])


def one(found: list[Object], kind: str) -> Object:
    [only] = [each for each in found if each["kind"] == kind]
    return only


def workload(found: list[Object]) -> Object:
    """The Deployment or StatefulSet."""
    [only] = [each for each in found if each["kind"] in ("Deployment", "StatefulSet")]
    return only
