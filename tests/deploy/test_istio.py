"""Istio's files and every snippet in our pages: read as strictly as Istio does not.

A misspelt key in MeshConfig is reported by no tool of Istio's, so it is read here by the messages' own descriptors.
"""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

from tests.deploy.kube import render
from tests.deploy.kube.render import DEPLOY, ROOT, Object, needs_tools, objects
from tests.deploy.kube.schemas import RELEASES, crds_file, mesh_file

ISTIO = DEPLOY / "istio"
PAGES = [ROOT / "README.md", *sorted(DEPLOY.rglob("*.md"))]
SERVICE = "tracefwd.observability.svc.cluster.local"


@cache
def _message(name: str, release: str) -> Any:
    pool = descriptor_pool.DescriptorPool()
    recorded = mesh_file(release).read_bytes()
    for file in descriptor_pb2.FileDescriptorSet.FromString(recorded).file:
        pool.Add(file)
    return message_factory.GetMessageClass(
        pool.FindMessageTypeByName(f"istio.mesh.v1alpha1.{name}")
    )


def read_strictly(config: Object, name: str = "MeshConfig") -> None:
    """Raises on a key, a type or a value that the message does not have, in any of the releases."""
    for release in RELEASES:
        json_format.ParseDict(config, _message(name, release)())


@cache
def _schemas(release: str) -> dict[str, Object]:
    found: dict[str, Object] = json.loads(crds_file(release).read_text())
    return found


def judge(each: Object) -> None:
    """An object of Istio's by its CRD, closed, in each of the releases."""
    for release in RELEASES:
        schema = _schemas(release).get(f"{each['apiVersion']} {each['kind']}")
        assert schema is not None, f"no schema of {each['apiVersion']} {each['kind']}"
        jsonschema.validate(each, schema)


def snippets() -> list[tuple[str, Object]]:
    """Every YAML document in our pages and files, with where it is from."""
    found = []
    for page in PAGES:
        for block in re.findall(
            r"^ *```yaml\n(.*?)^ *```", page.read_text(), re.DOTALL | re.MULTILINE
        ):
            texts = "\n".join(re.sub("^   ", "", line) for line in block.splitlines())
            text = texts if block.startswith("   ") else block
            found += [(page.name, each) for each in yaml.safe_load_all(text) if each]
    for file in sorted(ISTIO.glob("*.yaml")):
        found += [(file.name, each) for each in yaml.safe_load_all(file.read_text()) if each]
    return [(name, each) for name, each in found if isinstance(each, dict)]


def test_every_mesh_config_in_files_and_pages_is_read_strictly() -> None:
    seen = {}
    for name, each in snippets():
        if "meshConfig" in each:
            read_strictly(each["meshConfig"])
            seen[name] = seen.get(name, 0) + 1
    # The parsing of pages found what is in them.
    assert seen["README.md"] >= 5
    assert {"bootstrap.yaml", "provider-zipkin.yaml"} <= set(seen)


@pytest.mark.parametrize(
    "mistake",
    [
        {"extensionProvider": []},
        {"defaultConfig": {"tracing": {"zipkin": {"adress": "x:9411"}}}},
        {"extensionProviders": [{"name": "x", "zipkin": {"service": "x", "prt": 9411}}]},
        {"extensionProviders": [{"name": "x", "zipkin": {"service": "x", "port": "http"}}]},
        {"defaultConfig": {"runtimeValues": {"tracing.zipkin.min_flush_spans": 50}}},
    ],
)
def test_the_strict_reading_finds_what_istio_swallows(mistake: Object) -> None:
    with pytest.raises(json_format.ParseError):
        read_strictly(mistake)


def test_every_object_of_istio_in_files_and_pages_has_its_schema() -> None:
    judged = 0
    for _, each in snippets():
        if "istio.io" in str(each.get("apiVersion")):
            judge(each)
            judged += 1
            if each["kind"] == "Telemetry":
                # What README.md says of older releases.
                judge({**each, "apiVersion": "telemetry.istio.io/v1alpha1"})
    assert judged >= 3


@pytest.mark.parametrize(
    "spec",
    [
        {"tracing": [{"provider": [{"name": "tracefwd"}]}]},
        {"tracing": [{"randomSamplingPercentage": 1000}]},
        {"tracing": [{"customTags": {"cluster": {"env": {"name": "X"}}}}]},
    ],
)
def test_the_schemas_find_mistakes(spec: Object) -> None:
    telemetry = {"apiVersion": "telemetry.istio.io/v1", "kind": "Telemetry", "metadata": {}}
    with pytest.raises(jsonschema.ValidationError):
        judge({**telemetry, "spec": spec})


@needs_tools
def test_what_overlays_and_chart_render_for_istio_has_its_schema() -> None:
    judged = 0
    for text in (
        render.kustomized(render.OVERLAYS / "sidecar"),
        render.chart(render.VALUES["sidecar"]),
    ):
        for each in objects(text):
            if "istio.io" in each["apiVersion"]:
                judge(each)
                judged += 1
            annotations = each.get("spec", {}).get("template", {}).get("metadata", {})
            config = annotations.get("annotations", {}).get("proxy.istio.io/config")
            if config:
                read_strictly(yaml.safe_load(config), "ProxyConfig")
                judged += 1
    assert judged == 8


def test_the_files_name_what_the_overlays_deploy() -> None:
    namespace = yaml.safe_load((render.OVERLAYS / "proxy/kustomization.yaml").read_text())
    service = yaml.safe_load((DEPLOY / "kubernetes/base/service.yaml").read_text())
    host = f"{service['metadata']['name']}.{namespace['namespace']}.svc.cluster.local"
    ports = {port["name"]: port["port"] for port in service["spec"]["ports"]}
    assert host == SERVICE
    bootstrap = _mesh("bootstrap.yaml")["defaultConfig"]["tracing"]
    assert bootstrap["zipkin"]["address"] == f"{host}:{ports['http-zipkin']}"
    assert 0 < bootstrap["sampling"] <= 100, "above, Istio falls back to 1"
    files = sorted(ISTIO.glob("provider-*.yaml"))
    for file in files:
        [provider] = _mesh(file.name)["extensionProviders"]
        [collector] = [each for each in provider.values() if isinstance(each, dict)]
        assert collector["service"] == host
        if "opentelemetry" in provider and "http" not in collector:
            # As the component `otlp` has it; test_kubernetes.py looks there.
            assert collector["port"] == 4317
            continue
        assert collector["port"] == ports["http-zipkin"]
        if "http" in collector:
            assert collector["http"]["path"] == "/v1/traces"
        # A bootstrap address beside it would leave a cluster that nobody uses.
        assert _mesh(file.name)["defaultConfig"]["tracing"] == {}
    assert len(files) >= 2
    for name in ("telemetry.yaml", "telemetry-namespace.yaml"):
        telemetry = yaml.safe_load((ISTIO / name).read_text())
        [tracing] = telemetry["spec"]["tracing"]
        # istioctl takes a provider that nobody defines without a word.
        assert tracing["providers"] == [{"name": provider["name"]}]
    alias = yaml.safe_load((ISTIO / "external-name.yaml").read_text())
    assert alias["spec"]["externalName"] == host
    assert [port["port"] for port in alias["spec"]["ports"]] == [ports["http-zipkin"]]


def _mesh(name: str) -> Object:
    found: Object = yaml.safe_load((ISTIO / name).read_text())["meshConfig"]
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target
