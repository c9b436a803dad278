"""OTLP out, to a real OpenTelemetry Collector and to another tracefwd: what was mapped is what arrives."""

import gzip
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.conftest import ENVOY
from tests.e2e.parts import Forwarder, forwarder, stand_in
from tests.e2e.processes import Process, eventually, plain_environment

BUILD = Path(__file__).parent / "collector" / "build.sh"
# Spans of real Envoys: successes, errors, gRPC.
BODIES = ("json-batch-5", "json-batch-100", "json-500", "json-grpc-ok-and-errors")


class Recorder(ThreadingHTTPServer):
    """What the collector passes on, by path."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bodies: dict[str, list[bytes]] = {"/v1/traces": [], "/v1/metrics": []}

    def spans(self) -> list[tuple[dict[str, str], bytes, bytes]]:
        """Resource, id and whole span of each."""
        return [
            (
                _texts(part.resource.attributes),
                span.span_id,
                span.SerializeToString(deterministic=True),
            )
            for body in self.bodies["/v1/traces"]
            for part in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in part.scope_spans
            for span in scope.spans
        ]

    def metrics(self) -> list[Any]:
        return [
            metric
            for body in self.bodies["/v1/metrics"]
            for part in ExportMetricsServiceRequest.FromString(body).resource_metrics
            for scope in part.scope_metrics
            for metric in scope.metrics
        ]


class _Handler(BaseHTTPRequestHandler):
    server: Recorder

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.bodies[self.path].append(body)
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing: the test says what matters."""


def _texts(attributes: Any) -> dict[str, str]:
    return {each.key: each.value.string_value for each in attributes}


@contextmanager
def recorder() -> Iterator[Recorder]:
    with Recorder() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="session")
def collector() -> Path:
    if shutil.which("go") is None:
        pytest.skip("NO GO: OTLP out is not tested against a real OpenTelemetry Collector")
    built = subprocess.run([BUILD], capture_output=True, text=True, check=False)
    assert built.returncode == 0, f"the collector could not be built: {built.stderr[-2000:]}"
    return Path(built.stdout.strip())


CONFIG = """
receivers:
  otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:{http}"}}, grpc: {{endpoint: "127.0.0.1:{grpc}"}}}}}}
exporters:
  otlp_http: {{endpoint: "http://127.0.0.1:{sink}"}}
service:
  telemetry: {{metrics: {{level: none}}}}
  pipelines:
    traces: {{receivers: [otlp], exporters: [otlp_http]}}
    metrics: {{receivers: [otlp], exporters: [otlp_http]}}
"""


def post_all(run: Forwarder) -> int:
    """All bodies, some of them gRPC and errors; how many spans they hold."""
    import msgspec

    bodies = [(ENVOY / f"{name}.json").read_bytes() for name in BODIES]
    for body in bodies:
        assert run.post(body) == 202
    return sum(len(msgspec.json.decode(body)) for body in bodies)


def test_a_real_collector_gets_every_span_and_every_series(
    collector: Path, tmp_path: Path, unused_tcp_port_factory: Any
) -> None:
    ports = {name: unused_tcp_port_factory() for name in ("http", "grpc")}
    with recorder() as sink:
        file = tmp_path / "collector.yaml"
        file.write_text(CONFIG.format(sink=sink.server_port, **ports))
        command = [str(collector), "--config", str(file)]
        environment = plain_environment()
        with Process(command, tmp_path, "collector", environment) as process:
            process.find("Everything is ready")
            targets = [
                {"name": "http", "kind": "otlp", "url": f"http://127.0.0.1:{ports['http']}"},
                {
                    "name": "grpc",
                    "kind": "otlp",
                    "role": "tee",
                    "protocol": "grpc",
                    "url": f"http://127.0.0.1:{ports['grpc']}",
                },
            ]
            with forwarder(tmp_path, [], exporter={"targets": targets}) as run:
                number = post_all(run)
                ledger = run.delivered(number)
                assert ledger["rejected"] == {}
                run.stop()
        by_id: dict[bytes, list[tuple[dict[str, str], bytes]]] = {}
        for resource, span_id, span in sink.spans():
            by_id.setdefault(span_id, []).append((resource, span))
        # Once over HTTP and once over gRPC, and the very same.
        assert sum(map(len, by_id.values())) == 2 * number
        for copies in by_id.values():
            assert len(copies) % 2 == 0
            assert len({span for _, span in copies}) == len(copies) // 2
            assert all(resource["service.namespace"] for resource, _ in copies)
        calls = [metric for metric in sink.metrics() if metric.name == "traces.span.metrics.calls"]
        times = [
            metric for metric in sink.metrics() if metric.name == "traces.span.metrics.duration"
        ]
        assert sum(metric.sum.data_points[0].as_int for metric in calls) == 2 * number
        counts = [metric.exponential_histogram.data_points[0] for metric in times]
        assert sum(point.count for point in counts) == 2 * number
        for point in counts:
            assert point.count == point.zero_count + sum(point.positive.bucket_counts)


def test_each_worker_is_a_writer_of_its_own(tmp_path: Path) -> None:
    """Points of two workers must not look like one stream, or whoever adds up deltas drops them."""
    with recorder() as sink:
        target = {"name": "otlp", "kind": "otlp", "url": f"http://127.0.0.1:{sink.server_port}"}
        with forwarder(
            tmp_path,
            ["--workers", "2"],
            exporter={"targets": [target]},
            red={"interval": "1s"},
        ) as run:
            # Each post is a connection of its own, so that both workers get some.
            number = sum(post_all(run) for _ in range(10))
            run.delivered(number)
            run.stop()
    counted: dict[str, int] = {}
    for body in sink.bodies["/v1/metrics"]:
        for part in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            instance = _texts(part.resource.attributes)["service.instance.id"]
            for metric in part.scope_metrics[0].metrics:
                if metric.name == "traces.span.metrics.calls":
                    points = metric.sum.data_points
                    counted[instance] = counted.get(instance, 0) + points[0].as_int
    assert sorted(instance.rpartition("/")[2] for instance in counted) == ["0", "1"]
    assert sum(counted.values()) == number


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_another_tracefwd_maps_what_it_gets_to_the_same_spans(
    protocol: str, tmp_path: Path, unused_tcp_port: int
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    flag = f"--otlp-{protocol}"
    with (
        stand_in(first) as here,
        stand_in(second) as there,
        forwarder(
            second, [*there.proxy, flag, f"127.0.0.1:{unused_tcp_port}"], name="second"
        ) as last,
    ):
        proxy = {"name": "here", "traces": here.trace_url, "metrics": here.url}
        tee = {
            "name": "there",
            "kind": "otlp",
            "role": "tee",
            "protocol": protocol,
            "url": f"http://127.0.0.1:{unused_tcp_port}",
        }
        with forwarder(
            first, [], exporter={"targets": [proxy, tee]}, red={"enabled": False}
        ) as run:
            number = post_all(run)
            run.delivered(number)
            eventually(
                lambda: run.ledger()["targets"]["there"]["spans"]["delivered"] == number or None,
                lambda: f"all are copied: {run.ledger()['targets']['there']}",
            )
            run.stop()
        last.delivered(number)
        facts = [
            sorted(
                (span["trace_id"], span["span_id"], span["name"], span["duration_ms"], _tags(span))
                for span in each.spans()
            )
            for each in (here, there)
        ]
        assert facts[0] == facts[1]


def _tags(span: dict[str, Any]) -> tuple[tuple[str, ...], ...]:
    """Whose span it is, and whether it failed."""
    wanted = ("application", "service", "cluster", "shard", "span.kind", "error", "parent")
    return tuple((key, value) for key, value in sorted(span["tags"].items()) if key in wanted)
