"""The mesh of tests/e2e, with the tracing that istiod makes of our files instead of what tests/e2e writes by hand.

``make kube-check`` records it: the tracing block of a listener, the collector's cluster, and with the bootstrap tracer
what the sidecar's agent puts into Envoy's bootstrap.  Addresses are exchanged, and Istio's tags get each workload's
values.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.e2e.mesh import FLUSH_INTERVAL_MS, SIDECARS, WORKLOADS, Collector, Mesh, Workload
from tests.e2e.processes import eventually, get_json

FIXTURES = Path(__file__).parent / "fixtures" / "istio"
NAMES = sorted(file.stem for file in FIXTURES.glob("*.json"))
# One ordinary request: a CLIENT span of the gateway's, then of each sidecar a SERVER span and a CLIENT span a call.
SPANS_PER_REQUEST = 1 + sum(1 + len(one.calls) for one in SIDECARS)


def recorded(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FIXTURES / f"{name}.json").read_text())
    return found


def own_tags(name: str) -> dict[str, str]:
    """The recording's custom tags that are texts of ours, not Istio's."""
    tags = recorded(name)["tracing"]["custom_tags"]
    return {
        tag["tag"]: tag["literal"]["value"]
        for tag in tags
        if "literal" in tag and not tag["tag"].startswith("istio.")
    }


class RecordedMesh(Mesh):
    """Traces as the recording ``name`` says."""

    def __init__(
        self, name: str, envoy: Path, folder: Path, collectors: Sequence[Collector]
    ) -> None:
        super().__init__(envoy, folder, collectors)
        self._recording = recorded(name)

    def reports(self) -> dict[str, int]:
        """What the Envoys' tracers count, by the end of the counter's name, summed up."""
        counts: dict[str, int] = {}
        for workload in WORKLOADS:
            page = get_json(f"{self._admin(workload)}/stats?format=json&filter=^tracing\\.")
            for row in page["stats"]:
                end = row["name"].rpartition(".")[2]
                counts[end] = counts.get(end, 0) + row["value"]
        return counts

    def all_sent(self, spans: int) -> dict[str, int]:
        """The counts, as soon as so many spans have left."""

        def look() -> dict[str, int] | None:
            counts = self.reports()
            return counts if counts["spans_sent"] >= spans else None

        return eventually(look, lambda: f"{spans} spans sent; now {self.reports()}")

    def answered(self, posts: int) -> dict[str, int]:
        """The counts, as soon as the tracers have so many answers; OTLP's do not count them."""

        def look() -> dict[str, int] | None:
            counts = self.reports()
            return counts if counts.get("reports_sent", posts) >= posts else None

        return eventually(look, lambda: f"{posts} reports answered; now {self.reports()}")

    def _bootstrap(self, workload: Workload) -> dict[str, Any]:
        bootstrap = super()._bootstrap(workload)
        [layer] = bootstrap["layered_runtime"]["layers"]
        layer["static_layer"]["tracing.opentelemetry.flush_interval_ms"] = FLUSH_INTERVAL_MS
        if tracing := self._recording.get("bootstrap_tracing"):
            bootstrap["tracing"] = tracing
        return bootstrap

    def _tracing(self, workload: Workload) -> dict[str, Any]:
        own = {
            "istio.canonical_revision": workload.revision,
            "istio.canonical_service": workload.service,
            "istio.mesh_id": "cluster.local",
            "istio.namespace": workload.namespace,
        }
        tracing: dict[str, Any] = json.loads(json.dumps(self._recording["tracing"]))
        for tag in tracing["custom_tags"]:
            if tag["tag"] in own:
                tag["literal"]["value"] = own.pop(tag["tag"])
        assert not own, f"istiod sends no {sorted(own)}"
        return tracing

    def _collector_cluster(self) -> dict[str, Any]:
        cluster = dict(self._recording["cluster"])
        cluster.pop("@type", None)
        if cluster.pop("eds_cluster_config", None):
            # Where istiod would send the endpoints.
            cluster["type"] = "STATIC"
        cluster["load_assignment"] = super()._collector_cluster()["load_assignment"]
        cluster["load_assignment"]["cluster_name"] = cluster["name"]
        return cluster
