"""``make kube-check``: everything in deploy/ for Kubernetes and Istio before the real API server, istioctl and istiod.

1. Every overlay and the chart with every switch: applied as a dry run, strictly; their pods created as a dry run under
   the restricted Pod Security standard; the chart installed, upgraded and uninstalled.
2. Accounts may do what they must, and no more.
3. Istio's files: applied as a dry run with Istio's own CRDs, ``istioctl validate`` and ``analyze``.
4. istiod with each of our ways of tracing: an Envoy takes what it sends, and what concerns tracing is recorded in
   tests/deploy/fixtures/istio, which test_istio_envoys.py plays to real Envoys.

It takes under a minute; what it runs is built before by build.sh.
"""

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.kube import plane, render
from tests.deploy.kube.plane import APP_PORT, Cluster, Sidecar
from tests.deploy.kube.render import BIN, Object
from tests.e2e.processes import eventually

ISTIO = render.DEPLOY / "istio"
FIXTURES = render.ROOT / "tests" / "deploy" / "fixtures" / "istio"
TRACEFWD = r"^outbound\|\d+\|\|tracefwd\.observability\.svc\.cluster\.local$"
# Namespaces as our files name them; tracefwd's own comes with the overlays.
NAMESPACES = ("istio-system", "wavefront", "bookinfo", "shop")
APP = {
    "apiVersion": "networking.istio.io/v1",
    "kind": "ServiceEntry",
    "metadata": {"name": "web", "namespace": "shop"},
    "spec": {
        "hosts": ["web.shop.svc.cluster.local"],
        "ports": [{"number": APP_PORT, "name": "http", "protocol": "HTTP"}],
        "resolution": "STATIC",
        "endpoints": [{"address": "127.0.0.1", "ports": {"http": 18081}}],
    },
}


def mesh_config(name: str) -> Object:
    mesh: Object = yaml.safe_load((ISTIO / name).read_text())["meshConfig"]
    return mesh


def say(text: str) -> None:
    print(text, flush=True)


# 1. Manifests ------------------------------------------------------------------------------------


def ways() -> Iterator[tuple[str, str]]:
    for name in render.names():
        yield f"overlay {name}", render.kustomized(render.OVERLAYS / name)
    for name in render.COMPONENTS:
        yield f"overlay {name} and components", render.with_components(name)
    for name, values in render.VALUES.items():
        yield f"chart {name}", render.chart(values)
    for name, values in render.METRICS.items():
        yield f"chart {name}", render.chart_metrics(values)


def check_manifests(cluster: Cluster) -> None:
    for way, text in ways():
        found = render.objects(text)
        # The operator's kind has no CRD here; its shape is looked at in test_prometheus.py.
        known = [each for each in found if "coreos" not in each["apiVersion"]]
        done = cluster.apply(yaml.safe_dump_all(known), "--dry-run=server")
        assert len(done) == len(known), done
        pods = [pod(each) for each in known if each["kind"] in ("Deployment", "StatefulSet")]
        # A Deployment is taken whatever its pods are; only a pod is judged by Pod Security.
        cluster.apply(yaml.safe_dump_all(pods), "--dry-run=server", "--namespace=observability")
        say(f"  {way}: {len(done)} objects, {len(pods)} pod under `restricted`")
    refused = pod(render.workload(render.objects(render.kustomized(render.OVERLAYS / "proxy"))))
    refused["spec"]["securityContext"]["runAsNonRoot"] = False
    try:
        cluster.apply(yaml.safe_dump(refused), "--dry-run=server")
    except AssertionError as error:
        assert 'violates PodSecurity "restricted' in str(error), error  # noqa: PT017
    else:
        raise AssertionError("Pod Security looks at nothing here")


def pod(controller: Object) -> Object:
    """What the controller would create."""
    template: Object = controller["spec"]["template"]
    spec = json.loads(json.dumps(template["spec"]))
    for claim in controller["spec"].get("volumeClaimTemplates", ()):
        name = claim["metadata"]["name"]
        spec["volumes"].append({"name": name, "persistentVolumeClaim": {"claimName": f"{name}-0"}})
    metadata = {**template["metadata"], "name": f"{controller['metadata']['name']}-0"}
    metadata["namespace"] = "observability"
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def check_chart(cluster: Cluster) -> None:
    helm = [render.HELM, f"--kubeconfig={cluster.kubeconfig}", "--namespace=helm"]
    render.run(*helm, "install", "tracefwd", render.CHART, "--create-namespace")
    durable = yaml.safe_dump(render.VALUES["durable"])
    render.run(*helm, "upgrade", "tracefwd", render.CHART, "--values=-", stdin=durable)
    kinds = cluster.kubectl("get", "deployment,statefulset", "--namespace=helm", "--output=name")
    assert kinds.split() == ["statefulset.apps/tracefwd"], kinds
    render.run(*helm, "uninstall", "tracefwd")
    say("  chart: installed, upgraded to durable, uninstalled")


# 2. Accounts -------------------------------------------------------------------------------------


def check_accounts(cluster: Cluster) -> None:
    token = render.kustomized(render.OVERLAYS / "metrics-token")
    cluster.apply(token)
    # Beside it the chart's, whose cluster-wide names must not be the same.
    chart = render.chart(render.METRICS["metrics-token"], release="blue")
    cluster.apply(chart, "--namespace=observability")
    metrics, prometheus = "istio-system:tracefwd-metrics", "istio-system:prometheus"
    blue = "observability:blue-tracefwd-metrics"
    allowed = {
        (metrics, "get", "/federate"): True,
        (metrics, "get", "/metrics"): False,
        (metrics, "list", "pods"): False,
        (metrics, "get", "secrets"): False,
        (prometheus, "list", "pods"): True,
        (prometheus, "watch", "pods"): True,
        (prometheus, "get", "secrets"): False,
        (prometheus, "delete", "pods"): False,
        ("observability:tracefwd", "list", "pods"): False,
        (blue, "get", "/federate"): True,
        (blue, "list", "pods"): False,
        ("observability:prometheus", "list", "pods"): True,
    }
    for (account, *words), expected in allowed.items():
        assert cluster.may(account, *words) is expected, (account, words)
    say(f"  {len(allowed)} questions answered as they should be")


# 3. Istio's files --------------------------------------------------------------------------------


def istio_objects() -> list[Path]:
    return [
        file
        for file in sorted(ISTIO.glob("*.yaml"))
        if "apiVersion" in yaml.safe_load(file.read_text())
    ]


def check_injection(generated: str) -> None:
    """What our files lean on is in the templates by which Istio makes its proxies' pods."""
    [injector] = [
        each
        for each in render.objects(generated)
        if each["kind"] == "ConfigMap" and each["metadata"]["name"] == "istio-sidecar-injector"
    ]
    templates = yaml.safe_load(injector["data"]["config"])["templates"]
    for name in ("sidecar", "gateway", "kube-gateway", "waypoint"):
        for word in ("service.istio.io/canonical-name", "ISTIO_META_CLUSTER_ID"):
            assert word in templates[name], (name, word)
    say("  sidecars, gateways and waypoints get the NetworkPolicy's label and the tag's variable")


def check_istio(cluster: Cluster, folder: Path) -> None:
    for file in istio_objects():
        [done] = cluster.apply(file.read_text(), "--dry-run=server")
        render.run(BIN / "istioctl", "validate", "--filename", file)
        say(f"  {file.name}: {done}")
    sidecar = folder / "sidecar.yaml"
    sidecar.write_text(render.kustomized(render.OVERLAYS / "sidecar"))
    render.run(BIN / "istioctl", "validate", "--filename", sidecar)
    files = [file for file in istio_objects() if file.name != "external-name.yaml"]
    said = render.run(
        *(BIN / "istioctl", "analyze", "--use-kube=false", "--all-namespaces", sidecar, *files)
    )
    say(f"  istioctl validate and analyze: {said.strip() or 'nothing to say'}")


# 4. What istiod makes of them --------------------------------------------------------------------


@contextmanager
def envoy(
    cluster: Cluster, folder: Path, name: str, mesh: Object, **more: Any
) -> Iterator[Sidecar]:
    with (
        plane.istiod(cluster, folder, name, mesh) as port,
        plane.sidecar(folder, name, port, **more) as part,
    ):
        yield part


def until_traced(part: Sidecar) -> Object:
    return eventually(part.tracing, lambda: f"a tracing block; refused: {part.refused()}", 60)


def record(name: str, files: list[str], **parts: Any) -> None:
    """``parts`` as istiod and the agent say them."""
    FIXTURES.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"from": files, **parts}, indent=1, sort_keys=True)
    (FIXTURES / f"{name}.json").write_text(text + "\n")
    say(f"  {name}: recorded")


def check_bootstrap(cluster: Cluster, folder: Path) -> None:
    mesh = mesh_config("bootstrap.yaml")
    written = plane.bootstrap(folder, mesh["defaultConfig"]["tracing"])
    [collector] = [
        each for each in written["static_resources"]["clusters"] if each["name"] == "zipkin"
    ]
    proxy = {"tracing": mesh["defaultConfig"]["tracing"]}
    with envoy(cluster, folder, "bootstrap", mesh, proxy_config=proxy) as part:
        tracing = until_traced(part)
        assert not part.refused()
    assert "provider" not in tracing, "the bootstrap names it"
    record(
        "bootstrap",
        ["bootstrap.yaml"],
        tracing=tracing,
        bootstrap_tracing=written["tracing"],
        cluster=collector,
    )


def providers() -> list[Path]:
    return sorted(ISTIO.glob("provider-*.yaml"))


def telemetry_for(provider: Path) -> Object:
    """telemetry.yaml, with this file's provider."""
    [wanted] = mesh_config(provider.name)["extensionProviders"]
    telemetry: Object = yaml.safe_load((ISTIO / "telemetry.yaml").read_text())
    telemetry["spec"]["tracing"][0]["providers"] = [{"name": wanted["name"]}]
    return telemetry


def check_provider(cluster: Cluster, folder: Path, file: Path) -> None:
    cluster.apply(yaml.safe_dump(telemetry_for(file)), "--force-conflicts")
    with envoy(cluster, folder, file.stem, mesh_config(file.name)) as part:
        tracing = until_traced(part)
        assert not part.refused(), part.refused()
        [collector] = [part.cluster(name) for name in (_collector_pattern(tracing),)]
    record(file.stem, [file.name, "telemetry.yaml"], tracing=tracing, cluster=collector)


def _collector_pattern(tracing: Object) -> str:
    """The one cluster of tracefwd's that the tracer names."""
    text = json.dumps(tracing["provider"])
    for port in (9411, 4317, 4318):
        if f"outbound|{port}||" in text:
            return TRACEFWD.replace(r"\d+", str(port))
    raise AssertionError(f"the tracer reports to nobody of ours: {text}")


def check_namespace(cluster: Cluster, folder: Path) -> None:
    """A namespace's own Telemetry beside the mesh's."""
    file = ISTIO / "provider-zipkin.yaml"
    telemetry = ISTIO / "telemetry-namespace.yaml"
    cluster.apply(yaml.safe_dump(telemetry_for(file)), "--force-conflicts")
    cluster.apply(telemetry.read_text())
    more = {"namespace": "bookinfo"}
    with envoy(cluster, folder, "namespace", mesh_config(file.name), **more) as part:
        tracing = until_traced(part)
        assert not part.refused(), part.refused()
        collector = part.cluster(_collector_pattern(tracing))
    files = [file.name, "telemetry.yaml", telemetry.name]
    record("namespace", files, tracing=tracing, cluster=collector)


def check_exclusion(cluster: Cluster, folder: Path) -> None:
    """tracefwd's own sidecar, in the same mesh at 100 %, reports nothing."""
    file = ISTIO / "provider-zipkin.yaml"
    cluster.apply(yaml.safe_dump(telemetry_for(file)), "--force-conflicts")
    [telemetry] = render.objects((render.OVERLAYS / "sidecar" / "telemetry.yaml").read_text())
    cluster.apply(yaml.safe_dump(telemetry), "--namespace=observability")
    # istiod shows a Service of the mesh to every namespace, so the same listener is there.
    more = {"namespace": "observability", "labels": telemetry["spec"]["selector"]["matchLabels"]}
    with envoy(cluster, folder, "tracefwd", mesh_config(file.name), **more) as part:
        eventually(lambda: part.tracing() is not None, "a listener for what the application calls")
        tracing = part.tracing()
        assert not part.refused()
    assert not tracing or not tracing["random_sampling"].get("value"), tracing
    say(f"  a sidecar of tracefwd's gets {tracing or 'no tracing block at all'}")


def check_trap(cluster: Cluster, folder: Path) -> None:
    """external-name.yaml named by a provider: what README.md says of it."""
    cluster.apply((ISTIO / "external-name.yaml").read_text())
    file = ISTIO / "provider-zipkin.yaml"
    mesh = mesh_config(file.name)
    mesh["extensionProviders"][0]["zipkin"]["service"] = "zipkin.istio-system.svc.cluster.local"
    with envoy(cluster, folder, "trap", mesh) as part:

        def look() -> str:
            return " ".join(part.refused())

        said = eventually(look, "the Envoy refuses something", 60)
    assert "unknown cluster 'outbound|9411||zipkin.istio-system.svc.cluster.local'" in said, said
    say("  an ExternalName behind a provider is refused by Envoy, as README.md says")


def main() -> None:
    began = time.monotonic()
    generated = render.run(BIN / "istioctl", "manifest", "generate")
    crds = [
        each for each in render.objects(generated) if each["kind"] == "CustomResourceDefinition"
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with plane.api_server(folder) as cluster:
            version = json.loads(cluster.kubectl("get", "--raw=/version"))["gitVersion"]
            say(f"API server {version}, {len(crds)} CRDs of Istio")
            cluster.apply(yaml.safe_dump_all(crds))
            cluster.kubectl("wait", "--for=condition=Established", "crd", "--all")
            for each in NAMESPACES:
                cluster.kubectl("create", "namespace", each)
            cluster.apply((render.OVERLAYS / "proxy" / "namespace.yaml").read_text())
            steps: list[tuple[str, Callable[[], None]]] = [
                ("manifests", lambda: check_manifests(cluster)),
                ("chart", lambda: check_chart(cluster)),
                ("accounts", lambda: check_accounts(cluster)),
                ("Istio's files", lambda: check_istio(cluster, folder)),
                ("injection", lambda: check_injection(generated)),
                ("bootstrap", lambda: check_bootstrap(cluster, folder)),
                *(
                    (file.stem, lambda file=file: check_provider(cluster, folder, file))  # type: ignore[misc]
                    for file in providers()
                ),
                ("namespace", lambda: check_namespace(cluster, folder)),
                ("exclusion", lambda: check_exclusion(cluster, folder)),
                ("trap", lambda: check_trap(cluster, folder)),
            ]
            # For istiod: the app, and tracefwd's real Service.
            cluster.apply(render.with_components("proxy"))
            cluster.apply(yaml.safe_dump(APP))
            for title, step in steps:
                say(title)
                step()
    say(f"all as it should be, in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
