"""The chart's README, made from its values: a table of every key, its default and the comment above it; its lists.

``python -m tests.deploy.kube.chart_readme`` writes it (``make docs``).
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parents[3] / "deploy" / "helm" / "tracefwd"
README = CHART / "README.md"

_TOP = """\
# tracefwd's Helm chart

What `deploy/kubernetes/base` holds, with its choices as values; a test compares the two object by object. The reasons
stand in the base, beside each value.

```sh
helm install tracefwd deploy/helm/tracefwd --namespace observability --create-namespace \\
  --set image.repository=registry.example/tracefwd
helm test tracefwd --namespace observability
```

The notes that `helm install` prints say what Istio needs next. [deploy/kubernetes](../../kubernetes/README.md) has
sizes and what each object is for, [deploy/istio](../../istio/README.md) Istio's side. `values.schema.json` refuses
misspelt keys and values of the wrong kind.

Direct ingestion, with a Secret of yours:

```sh
kubectl --namespace observability create secret generic wavefront --from-file=token
helm install tracefwd deploy/helm/tracefwd --namespace observability --set target.kind=direct \\
  --set target.direct.url=https://example.wavefront.com --set target.direct.existingSecret=wavefront
```

The metrics path, as `deploy/kubernetes/overlays/metrics` has it (with `--set metrics.token=true`, as `metrics-token`),
for a Prometheus that runs [deploy/prometheus](../../prometheus/README.md):

```sh
helm upgrade tracefwd deploy/helm/tracefwd --namespace observability --reuse-values --set metrics.enabled=true
```

## Values

| value | default | meaning |
|---|---|---|
"""


def rows() -> list[tuple[str, Any, str]]:
    """(dotted key, default, comment) of every key that has a comment with two dashes, in the file's order."""
    text = (CHART / "values.yaml").read_text()
    values = yaml.safe_load(text)
    found, path, comment = [], [], ""  # type: ignore[var-annotated]
    for line in text.splitlines():
        if said := re.match(r" *# -- (.*)", line):
            comment = said[1]
        elif key := re.match(r"( *)([\w./]+):", line):
            depth = len(key[1]) // 2
            path = [*path[:depth], key[2]]
            if comment:
                found.append((".".join(path), _at(values, path), comment))
                comment = ""
    return found


def _at(values: Any, path: list[str]) -> Any:
    for key in path:
        values = values[key]
    return values


def render() -> str:
    lines = [
        f"| `{key}` | `{json.dumps(default)}` | {comment.replace('|', chr(92) + '|')} |"
        for key, default, comment in rows()
    ]
    return _TOP + "\n".join(lines) + "\n"


if __name__ == "__main__":
    README.write_text(render())
    # A chart may not lead out of its folder, so it has copies.
    for each in ("filters-current.yaml", "filters-seed.yaml"):
        shutil.copyfile(CHART.parents[1] / "prometheus" / each, CHART / "files" / each)
