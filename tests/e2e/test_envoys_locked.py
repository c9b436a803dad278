"""Real Envoys post to an intake that asks for their certificate and a token, set up as SECURITY.md says."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.mesh import _COLLECTOR, Collector, Mesh, Workload, _type
from tests.e2e.parts import Forwarder, forwarder, stand_in
from tests.e2e.processes import eventually
from tests.e2e.test_envoys import ORDINARY, Traffic, assert_all_arrived
from tests.receiver.test_credentials import Authority

TOKEN = "e2e-5afe7y-token"


class LockedMesh(Mesh):
    """Its Envoys post over mTLS and show a token."""

    files: tuple[Path, Path, Path]
    token: str

    def _collector_cluster(self) -> dict[str, Any]:
        ca, cert, key = ({"filename": str(file)} for file in self.files)
        context = {
            "@type": _type("transport_sockets.tls.v3.UpstreamTlsContext"),
            "common_tls_context": {
                "tls_certificates": [{"certificate_chain": cert, "private_key": key}],
                "validation_context": {"trusted_ca": ca},
            },
        }
        socket = {"name": "envoy.transport_sockets.tls", "typed_config": context}
        return super()._collector_cluster() | {"transport_socket": socket}

    def _tracing(self, workload: Workload) -> dict[str, Any]:
        """What Istio 1.29 and newer make of a zipkin provider with headers."""
        tracing = super()._tracing(workload)
        tracing["provider"]["typed_config"]["collector_service"] = {
            "http_uri": {
                "uri": "https://zipkin.istio-system.svc.cluster.local/api/v2/spans",
                "cluster": _COLLECTOR,
                "timeout": "5s",
            },
            "request_headers_to_add": [
                {"header": {"key": "Authorization", "value": f"Bearer {self.token}"}}
            ],
        }
        return tracing


def refused(part: Forwarder) -> float:
    return part.metric("tracefwd_receiver_refused_requests_total", reason="token")


@pytest.mark.parametrize("token", [TOKEN, "a-wrong-one"])
def test_envoys_with_a_certificate_and_a_token_are_served(
    token: str, envoy: Path, tmp_path: Path
) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("NO OPENSSL: certificates for Envoys cannot be made")
    authority = Authority(tmp_path, "mesh")
    cert, key = authority.issue("tracefwd")
    tokens = tmp_path / "tokens"
    tokens.write_text(f"another-one\n{TOKEN}\n")
    receiver = {
        "token_file": str(tokens),
        "tls": {
            "cert_file": str(cert),
            "key_file": str(key),
            "client_ca_file": str(authority.cert),
        },
    }
    with (
        stand_in(tmp_path) as wavefront,
        forwarder(tmp_path, wavefront.proxy, receiver=receiver) as part,
    ):
        mesh = LockedMesh(envoy, tmp_path, [Collector(part.host, part.port)])
        mesh.files, mesh.token = (authority.cert, *authority.issue("envoy")), token
        with mesh:
            traffic = Traffic(mesh)
            for _ in range(3):
                traffic.go(ORDINARY)
            sent = mesh.settled(traffic.spans.total())
            if token != TOKEN:
                # Envoy takes the 401 for a lost report and goes on; we have nothing of it.
                eventually(
                    lambda: refused(part) == mesh.sent().posts > 0,
                    lambda: f"refused {refused(part)}, posted {mesh.sent()}",
                )
                assert part.ledger()["received"] == 0
        if token == TOKEN:
            assert sent.lost == 0
            part.delivered(traffic.spans.total())
            part.stop()
            assert_all_arrived(wavefront, traffic)
        assert TOKEN not in part.process.output
        assert token not in part.process.output
