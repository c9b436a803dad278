"""Real Envoys with what istiod makes of deploy/istio: what they say they sent is what tracefwd and Wavefront count."""

from pathlib import Path

import pytest

from tests.deploy.kube.render import DEPLOY
from tests.deploy.recorded import NAMES, SPANS_PER_REQUEST, RecordedMesh, own_tags, recorded
from tests.e2e.mesh import WORKLOADS, Collector
from tests.e2e.parts import forwarder, stand_in
from tests.e2e.test_envoys import ORDINARY, assert_traces_join

REQUESTS = 12


@pytest.mark.parametrize("name", NAMES)
def test_envoys_configured_by_our_files_report_every_span(
    name: str, envoy: Path, tmp_path: Path
) -> None:
    spans = REQUESTS * SPANS_PER_REQUEST
    with (
        stand_in(tmp_path) as wavefront,
        forwarder(
            tmp_path, [*wavefront.proxy, "--otlp-grpc", "127.0.0.1:0"], red={"interval": "1s"}
        ) as part,
    ):
        where = Collector(part.host, part.port)
        if name.endswith("grpc"):
            port = part.process.find(r"OTLP over gRPC 127\.0\.0\.1:(\d+)")[1]
            where = Collector(part.host, int(port))
        with RecordedMesh(name, envoy, tmp_path, [where]) as mesh:
            for _ in range(REQUESTS):
                assert mesh.get(ORDINARY.path) == ORDINARY.status
            mesh.all_sent(spans)
            ledger = part.delivered(spans)
            posts = int(part.metric("tracefwd_receiver_requests_total", code="202"))
            counts = mesh.answered(posts)
        assert counts["spans_sent"] == ledger["received"] == ledger["delivered"] == spans
        if "reports_sent" in counts:
            assert counts["reports_sent"] == posts
            assert counts["reports_dropped"] == counts["reports_skipped_no_cluster"] == 0
        assert part.stop() == f"ledger balanced: received {spans} = delivered {spans}"
        found = wavefront.spans()
        assert len(found) == spans
        assert_traces_join(found, REQUESTS)
        # Named by Istio's tags without a word of configuration, but for what a Telemetry says in words of its own.
        own = own_tags(name)
        keys = ("application", "service", "cluster", "shard")
        assert {tuple(span["tags"][key] for key in keys) for span in found} == {
            (
                own.get("application", one.namespace),
                one.service,
                "Kubernetes",
                own.get("shard", one.revision),
            )
            for one in WORKLOADS
        }
        assert (name == "namespace") == bool(own)
        assert {span["tags"].get("tier") for span in found} == {"free" if own else None}


def test_every_file_of_ours_that_traces_has_its_recording() -> None:
    sources = {name: recorded(name)["from"] for name in NAMES}
    wanted = sorted(
        file.name for file in (DEPLOY / "istio").glob("*.yaml") if "meshConfig:" in file.read_text()
    )
    assert sorted({files[0] for files in sources.values()}) == wanted
    used = {file for files in sources.values() for file in files}
    assert {file.name for file in (DEPLOY / "istio").glob("telemetry*.yaml")} <= used
    # And it is of these files as they are: the address and the percentage.
    for name in NAMES:
        tracing = recorded(name)["tracing"]
        assert tracing["random_sampling"] == {"value": 100}
        cluster = str(recorded(name)["cluster"])
        assert "tracefwd.observability.svc.cluster.local" in cluster
