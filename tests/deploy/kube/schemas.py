"""What judges Istio's files and the Compose file in every run of the tests, recorded from Go modules (Apache-2.0).

From istio.io/api, of the oldest and the newest release whose modules can be had:

* ``crds-RELEASE.json``: of each kind that we ship and version that is served, the CRD's schema, made strict: a key that
  it does not know is an error.
* ``mesh_config-RELEASE.binpb``: the messages MeshConfig and ProxyConfig.  No tool of Istio's reports a misspelt key in
  them; a strict reading of their descriptors does.

From github.com/compose-spec/compose-go, which is what reads Compose files in `docker compose`: ``compose.json``.

``python -m tests.deploy.kube.schemas`` records all anew (needs Go, for the download only).
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parents[1] / "fixtures" / "schemas"
MODULES = {"1.24": "istio.io/api@v1.24.2", "1.32": "istio.io/api@v1.32.0"}
RELEASES = tuple(MODULES)
COMPOSE = "github.com/compose-spec/compose-go/v2@v2.16.2"
KINDS = ("AuthorizationPolicy", "PeerAuthentication", "Telemetry")


def strict(schema: Any) -> Any:
    """Without texts and what JSON schema does not know; closed wherever the keys are listed."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {
        key: strict(each)
        for key, each in schema.items()
        if key not in ("description", "format") and not key.startswith("x-kubernetes")
    }
    # In `oneOf` and the like stand fragments, which must stay open.
    if "properties" in found and found.get("type") == "object":
        found["additionalProperties"] = False
    return found


def crds(text: str) -> Iterator[tuple[str, Any]]:
    for each in yaml.safe_load_all(text):
        if not each or each["spec"]["names"]["kind"] not in KINDS:
            continue
        kind, group = each["spec"]["names"]["kind"], each["spec"]["group"]
        for version in each["spec"]["versions"]:
            schema = strict(version["schema"]["openAPIV3Schema"])
            # The API server's own, which a CRD leaves out.
            schema["properties"] |= {name: {"type": "string"} for name in ("apiVersion", "kind")}
            schema["properties"]["metadata"] = {"type": "object"}
            schema["required"] = ["apiVersion", "kind", "metadata", "spec"]
            yield f"{group}/{version['name']} {kind}", schema


def crds_file(release: str) -> Path:
    return FOLDER / f"crds-{release}.json"


def mesh_file(release: str) -> Path:
    return FOLDER / f"mesh_config-{release}.binpb"


def compose_file() -> Path:
    return FOLDER / "compose.json"


def module_folder(name: str) -> Path:
    command = ["go", "mod", "download", "-json", name]
    done = subprocess.run(command, capture_output=True, check=True, cwd="/")
    return Path(json.loads(done.stdout)["Dir"])


def record_compose() -> None:
    text = (module_folder(COMPOSE) / "schema" / "compose-spec.json").read_text()
    schema = without_texts(json.loads(text))
    parts = schema.pop("$defs")
    lines = [f"{json.dumps(key)}: {json.dumps(each)}" for key, each in sorted(parts.items())]
    head = ",\n".join(f"{json.dumps(key)}: {json.dumps(each)}" for key, each in schema.items())
    body = ",\n".join(lines)
    compose_file().write_text(f'{{\n{head},\n"$defs": {{\n{body}\n}}\n}}\n')


def without_texts(schema: Any) -> Any:
    """Keys called `description` that hold a text are one; the specification has properties of that name, too."""
    if isinstance(schema, list):
        return [without_texts(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: without_texts(each)
        for key, each in schema.items()
        if not (key in ("description", "title") and isinstance(each, str))
    }


def record(release: str) -> None:
    module = module_folder(MODULES[release])
    found = dict(crds((module / "kubernetes/customresourcedefinitions.gen.yaml").read_text()))
    # A kind a line, so that a difference can be read.
    lines = [f"{json.dumps(key)}: {json.dumps(each)}" for key, each in sorted(found.items())]
    crds_file(release).write_text("{\n" + ",\n".join(lines) + "\n}\n")
    with tempfile.TemporaryDirectory() as work:
        output = Path(work) / "out"
        protoc = [sys.executable, "-m", "grpc_tools.protoc", f"-I{module}"]
        protoc += [f"-I{module / 'common-protos'}", "--include_imports", f"-o{output}"]
        subprocess.run([*protoc, "mesh/v1alpha1/config.proto"], check=True)
        mesh_file(release).write_bytes(output.read_bytes())


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for each in RELEASES:
        record(each)
    record_compose()
