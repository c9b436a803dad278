"""A small mesh of real Envoys on loopback, configured as Istio configures them.

    client -> gateway -> productpage -> details
                                     -> reviews

Each workload has a pod address of its own in 127.77.0.0/16, an Envoy with an inbound and an outbound listener (the
gateway has one listener), and a tiny application behind it.  Cluster names, route operations, node ids, custom tags,
retries and the tracer are Istio's, so the spans are those of ``tests/fixtures/envoy``.  What an Envoy says of itself is
read from its admin port.
"""

import contextlib
import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

from tests.e2e.apps import app
from tests.e2e.processes import Process, eventually, get_json, request

GATEWAY_HOST = "bookinfo.example.com"
# Envoy's own interval is 5 s.
FLUSH_INTERVAL_MS = 150
_GATEWAY, _INBOUND, _OUTBOUND, _APP, _ADMIN, _REFUSED = 8080, 9080, 15001, 19080, 15000, 8000
_COLLECTOR = "outbound|9411||zipkin.istio-system.svc.cluster.local"
_RETRIES = {
    "retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
    "num_retries": 2,
    "retriable_status_codes": [503],
    # Istio leaves Envoy's 25 ms; the tests need not wait for it.
    "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.002s"},
}


@dataclass(frozen=True)
class Workload:
    """``calls``: the services its application calls; ``number``: the last byte of its pod's address."""

    service: str
    revision: str
    namespace: str
    number: int
    calls: tuple[str, ...] = ()

    @property
    def pod(self) -> str:
        return f"{self.service}-{self.revision}-67894999b5-hdqcw"


GATEWAY = Workload("istio-ingressgateway", "latest", "istio-system", 10)
PRODUCTPAGE = Workload("productpage", "v1", "default", 11, ("details", "reviews"))
DETAILS = Workload("details", "v1", "default", 12)
REVIEWS = Workload("reviews", "v3", "default", 13)
SIDECARS = (PRODUCTPAGE, DETAILS, REVIEWS)
WORKLOADS = (GATEWAY, *SIDECARS)


@dataclass(frozen=True)
class Collector:
    """Where Envoys post.  With ``health_port``, only while ``/readyz`` there says so (Kubernetes' part)."""

    host: str
    port: int
    health_port: int | None = None


@dataclass(frozen=True)
class Sent:
    """What the Envoys say of their reports, summed up."""

    spans: int
    reports: int
    lost: int
    posts: int
    in_flight: int
    connections: int

    @property
    def is_settled(self) -> bool:
        # A report that found no connection is lost and was never a post.
        return not self.in_flight and self.reports + self.lost >= self.posts


class Mesh:
    """Runs inside a ``with`` block; ``proto`` names the services whose Envoys post Zipkin proto3.

    ``otlp``: all of them export by OTLP instead, over ``http`` or ``grpc``.
    """

    def __init__(
        self,
        envoy: Path,
        folder: Path,
        collectors: Sequence[Collector],
        *,
        proto: frozenset[str] = frozenset(),
        otlp: str = "",
    ) -> None:
        self._envoy = envoy
        self._folder = folder
        self._collectors = collectors
        self._proto = proto
        self._otlp = otlp
        self._tracer = "opentelemetry" if otlp else "zipkin"
        self._network = ""
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._network = stack.enter_context(_network())
            # Left in reverse order: Envoys hold connections to the applications.
            for workload in SIDECARS:
                here = self.address(workload)
                stack.enter_context(
                    app((here, _APP), outbound=(here, _OUTBOUND), calls=workload.calls)
                )
            processes = [stack.enter_context(self._start(workload)) for workload in WORKLOADS]
            for process, workload in zip(processes, WORKLOADS, strict=True):
                eventually(
                    partial(self._is_live, process, workload),
                    f"the Envoy of {workload.service} is live",
                )
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def address(self, workload: Workload) -> str:
        return f"{self._network}.{workload.number}"

    def node_id(self, workload: Workload) -> str:
        kind = "router" if workload is GATEWAY else "sidecar"
        home = f"{workload.pod}.{workload.namespace}~{workload.namespace}.svc.cluster.local"
        return f"{kind}~{self.address(workload)}~{home}"

    def get(
        self, path: str, *, host: str = GATEWAY_HOST, headers: Mapping[str, str] | None = None
    ) -> int:
        """A request from outside; the status."""
        url = f"http://{self.address(GATEWAY)}:{_GATEWAY}{path}"
        return request("GET", url, headers={"host": host, **(headers or {})})[0]

    def sent(self) -> Sent:
        counts: dict[str, int] = {}
        for workload in WORKLOADS:
            for name, value in self.stats(workload).items():
                counts[name] = counts.get(name, 0) + value
        cluster = f"cluster.{_COLLECTOR}.upstream_"
        posts = counts[cluster + "rq_total"]
        if self._otlp:
            # Its tracer counts spans when it sends them, and tells no failure; the cluster does.
            reports = counts.get(cluster + "rq_200", 0)
            lost = posts - reports - counts[cluster + "rq_active"]
        else:
            ends = "tracing.zipkin.reports_"
            reports = counts[ends + "sent"]
            lost = sum(counts[ends + end] for end in ("dropped", "failed", "skipped_no_cluster"))
        return Sent(
            spans=counts[f"tracing.{self._tracer}.spans_sent"],
            reports=reports,
            lost=lost,
            posts=posts,
            in_flight=counts[cluster + "rq_active"],
            connections=counts[cluster + "cx_total"],
        )

    def settled(self, spans: int) -> Sent:
        """Wait until the Envoys have sent so many spans and have an answer to every post."""
        latest = self.sent()

        def look() -> Sent | None:
            nonlocal latest
            latest = self.sent()
            return latest if latest.spans >= spans and latest.is_settled else None

        return eventually(look, lambda: f"{spans} spans sent and answered; now {latest}")

    def stats(self, workload: Workload) -> dict[str, int]:
        """The Envoy's counters and gauges about its tracer, by name."""
        chosen = rf"^tracing\.{self._tracer}\.|{_COLLECTOR}.*\.upstream_(rq_total|rq_active|rq_200|cx_total)$"
        query = urlencode({"format": "json", "filter": chosen})
        page = get_json(f"{self._admin(workload)}/stats?{query}")
        return {row["name"]: row["value"] for row in page["stats"] if "name" in row}

    def _admin(self, workload: Workload) -> str:
        return f"http://{self.address(workload)}:{_ADMIN}"

    def _is_live(self, process: Process, workload: Workload) -> bool:
        assert process.is_running, process.output
        try:
            status, body = request("GET", self._admin(workload) + "/ready")
        except OSError:
            return False
        return status == 200 and body.strip() == b"LIVE"

    def _start(self, workload: Workload) -> Process:
        file = self._folder / f"envoy-{workload.service}.json"
        file.write_text(json.dumps(self._bootstrap(workload), indent=1))
        command = [str(self._envoy), "--config-path", str(file), "--concurrency", "2"]
        command += ["--disable-hot-restart", "--log-level", "warning"]
        return Process(command, self._folder, f"envoy-{workload.service}")

    # What Istio would push.

    def _bootstrap(self, workload: Workload) -> dict[str, Any]:
        if workload is GATEWAY:
            listeners = [self._gateway_listener()]
            clusters = [self._outbound_cluster(PRODUCTPAGE), self._refused_cluster()]
        else:
            called = [other for other in SIDECARS if other.service in workload.calls]
            listeners = [
                self._inbound_listener(workload),
                self._outbound_listener(workload, called),
            ]
            clusters = [self._inbound_cluster(workload)]
            clusters += [self._outbound_cluster(other, workload) for other in called]
        home = f"{workload.service}.{workload.namespace}"
        static = {f"tracing.{self._tracer}.flush_interval_ms": FLUSH_INTERVAL_MS}
        return {
            "node": {
                "id": self.node_id(workload),
                "cluster": home,
                "locality": {"zone": "us-east-1a"},
            },
            "admin": {"address": _socket_address(self.address(workload), _ADMIN)},
            "layered_runtime": {"layers": [{"name": "static", "static_layer": static}]},
            "static_resources": {
                "listeners": listeners,
                "clusters": [*clusters, self._collector_cluster()],
            },
        }

    def _gateway_listener(self) -> dict[str, Any]:
        productpage = {
            "match": {"path": "/productpage"},
            "decorator": {"operation": f"{_domain(PRODUCTPAGE)}:9080/productpage"},
            "route": {"cluster": _outbound(PRODUCTPAGE), "retry_policy": _RETRIES},
        }
        refused = {
            "match": {"prefix": "/legacy"},
            "decorator": {"operation": "legacy.default.svc.cluster.local:8000/legacy*"},
            "route": {"cluster": _REFUSED_CLUSTER, "retry_policy": _RETRIES},
        }
        host = {
            "name": f"{GATEWAY_HOST}:80",
            "domains": [GATEWAY_HOST],
            "routes": [productpage, refused],
        }
        return self._listener(GATEWAY, "outbound_0.0.0.0_8080", _GATEWAY, "OUTBOUND", [host])

    def _inbound_listener(self, workload: Workload) -> dict[str, Any]:
        route = {
            "match": {"prefix": "/"},
            "decorator": {"operation": f"{_domain(workload)}:9080/*"},
            "route": {"cluster": "inbound|9080||"},
        }
        host = {"name": "inbound|http|9080", "domains": ["*"], "routes": [route]}
        return self._listener(workload, "inbound_0.0.0.0_9080", _INBOUND, "INBOUND", [host])

    def _outbound_listener(self, workload: Workload, called: list[Workload]) -> dict[str, Any]:
        hosts = [
            {
                "name": f"{_domain(other)}:9080",
                "domains": [f"{other.service}:9080", f"{_domain(other)}:9080"],
                "routes": [
                    {
                        "match": {"prefix": "/"},
                        "decorator": {"operation": f"{_domain(other)}:9080/*"},
                        "route": {"cluster": _outbound(other), "retry_policy": _RETRIES},
                    }
                ],
            }
            for other in called
        ]
        return self._listener(workload, "outbound_0.0.0.0_9080", _OUTBOUND, "OUTBOUND", hosts)

    def _listener(
        self,
        workload: Workload,
        prefix: str,
        port: int,
        direction: str,
        hosts: list[dict[str, Any]],
    ) -> dict[str, Any]:
        router = {
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": _type("filters.http.router.v3.Router")},
        }
        manager = {
            "@type": _type("filters.network.http_connection_manager.v3.HttpConnectionManager"),
            "stat_prefix": prefix,
            "route_config": {"name": prefix, "virtual_hosts": hosts},
            "http_filters": [router],
            "tracing": self._tracing(workload),
            "use_remote_address": workload is GATEWAY,
        }
        filters = [
            {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
        ]
        return {
            "name": prefix,
            "traffic_direction": direction,
            "address": _socket_address(self.address(workload), port),
            "filter_chains": [{"filters": filters}],
        }

    def _tracing(self, workload: Workload) -> dict[str, Any]:
        tags = {
            "istio.canonical_revision": workload.revision,
            "istio.canonical_service": workload.service,
            "istio.cluster_id": "Kubernetes",
            "istio.mesh_id": "cluster.local",
            "istio.namespace": workload.namespace,
        }
        tracer = self._opentelemetry(workload) if self._otlp else self._zipkin(workload)
        return {
            "provider": {"name": f"envoy.tracers.{self._tracer}", "typed_config": tracer},
            "client_sampling": {"value": 100},
            "random_sampling": {"value": 100},
            "overall_sampling": {"value": 100},
            "custom_tags": [
                {"tag": tag, "literal": {"value": value}} for tag, value in tags.items()
            ],
            # Istio 1.28 and newer: a gateway's upstream half is a span of its own.
            "spawn_upstream_span": workload is GATEWAY,
        }

    def _zipkin(self, workload: Workload) -> dict[str, Any]:
        version = "HTTP_PROTO" if workload.service in self._proto else "HTTP_JSON"
        return {
            "@type": "type.googleapis.com/envoy.config.trace.v3.ZipkinConfig",
            "collector_cluster": _COLLECTOR,
            "collector_endpoint": "/api/v2/spans",
            "collector_endpoint_version": version,
            "collector_hostname": "zipkin.istio-system.svc.cluster.local",
            "trace_id_128bit": True,
            "shared_span_context": False,
        }

    def _opentelemetry(self, workload: Workload) -> dict[str, Any]:
        """As Istio's provider ``opentelemetry`` writes it."""
        name = "opentelemetry-collector.observability.svc.cluster.local"
        config: dict[str, Any] = {
            "@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig",
            "service_name": f"{workload.service}.{workload.namespace}",
        }
        if self._otlp == "grpc":
            service = {"cluster_name": _COLLECTOR, "authority": name}
            return config | {"grpc_service": {"envoy_grpc": service, "timeout": "10s"}}
        uri = {"uri": f"http://{name}/v1/traces", "cluster": _COLLECTOR, "timeout": "10s"}
        return config | {"http_service": {"http_uri": uri}}

    def _outbound_cluster(self, to: Workload, of: Workload = GATEWAY) -> dict[str, Any]:
        cluster = _cluster(_outbound(to), [(self.address(to), _INBOUND)])
        source = {"address": self.address(of), "port_value": 0}
        return cluster | {"upstream_bind_config": {"source_address": source}}

    def _inbound_cluster(self, workload: Workload) -> dict[str, Any]:
        return _cluster("inbound|9080||", [(self.address(workload), _APP)])

    def _refused_cluster(self) -> dict[str, Any]:
        # Nobody listens there.
        return _cluster(_REFUSED_CLUSTER, [(f"{self._network}.250", _REFUSED)])

    def _collector_cluster(self) -> dict[str, Any]:
        cluster = _cluster(_COLLECTOR, [(one.host, one.port) for one in self._collectors])
        if self._otlp == "grpc":
            options = {
                "@type": _type("upstreams.http.v3.HttpProtocolOptions"),
                "explicit_http_config": {"http2_protocol_options": {}},
            }
            name = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
            cluster["typed_extension_protocol_options"] = {name: options}
        if all(one.health_port is None for one in self._collectors):
            return cluster
        (group,) = cluster["load_assignment"]["endpoints"]
        for one, entry in zip(self._collectors, group["lb_endpoints"], strict=True):
            entry["endpoint"]["health_check_config"] = {"port_value": one.health_port}
        check = {
            "timeout": "1s",
            "interval": "0.1s",
            "no_traffic_interval": "0.1s",
            "unhealthy_threshold": 1,
            "healthy_threshold": 1,
            "http_health_check": {"path": "/readyz"},
        }
        return cluster | {"health_checks": [check]}


_REFUSED_CLUSTER = "outbound|8000||legacy.default.svc.cluster.local"


def _domain(workload: Workload) -> str:
    return f"{workload.service}.{workload.namespace}.svc.cluster.local"


def _outbound(workload: Workload) -> str:
    return f"outbound|9080||{_domain(workload)}"


def _type(name: str) -> str:
    return f"type.googleapis.com/envoy.extensions.{name}"


def _socket_address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


def _cluster(name: str, endpoints: list[tuple[str, int]]) -> dict[str, Any]:
    entries = [{"endpoint": {"address": _socket_address(*endpoint)}} for endpoint in endpoints]
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": entries}]},
    }


@contextlib.contextmanager
def _network() -> Iterator[str]:
    """127.77.N, ours for as long as the block lasts, also beside another run of these tests."""
    for step in range(256):
        network = f"127.77.{(os.getpid() + step) % 256}"
        with socket.socket() as lock:
            try:
                lock.bind((f"{network}.254", _ADMIN))
            except OSError:
                continue
            lock.listen()
            yield network
            return
    raise AssertionError("every network in 127.77.0.0/16 is taken")
