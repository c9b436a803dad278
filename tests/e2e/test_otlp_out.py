"""OTLP out, to a real OpenTelemetry Collector and to another tracefwd: what was mapped is what arrives."""

import gzip
import shutil
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality

from tests.conftest import ENVOY, envoy_bodies
from tests.e2e.parts import Forwarder, forwarder, stand_in
from tests.e2e.processes import Process, eventually, plain_environment, request
from tests.otlp_meaning import Meaning, arrived, meant, red_arrived, red_meant, values
from tests.receiver.test_otlp_proto import without_frame
from tracefwd.compose import make_parts
from tracefwd.model import WavefrontSpan
from tracefwd.settings import Settings

BUILD = Path(__file__).parent / "collector" / "build.sh"
WHOLE = [
    ("/api/v2/spans", path.read_bytes(), "application/json")
    for path in sorted(ENVOY.glob("json-*.json"))
    if ".headers" not in path.name
]
CUMULATIVE = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE


class Recorder(ThreadingHTTPServer):
    """What the collector passes on, by path."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bodies: dict[str, list[bytes]] = {"/v1/traces": [], "/v1/metrics": []}

    def spans(self) -> list[Meaning]:
        return [
            arrived(part.resource, span)
            for body in self.bodies["/v1/traces"]
            for part in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in part.scope_spans
            for span in scope.spans
        ]

    def metrics(self) -> list[Any]:
        """In the order in which they came, each with its resource."""
        return [
            part
            for body in self.bodies["/v1/metrics"]
            for part in ExportMetricsServiceRequest.FromString(body).resource_metrics
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
processors:
  deltatocumulative: {{}}
exporters:
  otlp_http: {{endpoint: "http://127.0.0.1:{sink}", sending_queue: {{num_consumers: 1}}}}
service:
  telemetry: {{metrics: {{level: none}}}}
  pipelines:
    traces: {{receivers: [otlp], exporters: [otlp_http]}}
    metrics: {{receivers: [otlp], processors: [{processors}], exporters: [otlp_http]}}
"""


@contextmanager
def collecting(
    collector: Path, folder: Path, sink: Recorder, ports: dict[str, int], processors: str = ""
) -> Iterator[None]:
    """A collector that takes OTLP at ``ports`` and passes everything on to ``sink``; at the end all of it."""
    file = folder / "collector.yaml"
    file.write_text(CONFIG.format(sink=sink.server_port, processors=processors, **ports))
    command = [str(collector), "--config", str(file)]
    with Process(command, folder, "collector", plain_environment()) as process:
        process.find("Everything is ready")
        yield
        assert process.stop() == 0, process.output


def bodies() -> Iterator[tuple[str, bytes, str]]:
    """Path, body and content type of all that real Envoys posted, by Zipkin and by OTLP."""
    for kind, path in (("json", "/api/v2/spans"), ("otlp", "/v1/traces")):
        content_type = "application/json" if kind == "json" else "application/x-protobuf"
        for file in envoy_bodies(kind):
            body = file.read_bytes()
            # gRPC has five bytes before its message.
            yield path, body if kind == "json" else without_frame(body), content_type


def post_all(
    run: Forwarder, posts: Iterable[tuple[str, bytes, str]] | None = None
) -> list[WavefrontSpan]:
    """Post them, or all that there are; the spans as the default mapping means them."""
    parts = make_parts(Settings())
    spans: list[WavefrontSpan] = []
    for path, body, content_type in posts or bodies():
        headers = {"content-type": content_type}
        status, _ = request("POST", f"{run.intake}{path}", body=body, headers=headers)
        assert status // 100 == 2
        decode = parts.decode if path.startswith("/api") else parts.decode_otlp
        spans += parts.mapper(decode(body, content_type), time.time_ns() // 1000).spans
    return spans


def test_a_real_collector_gets_every_span_and_every_series(
    collector: Path, tmp_path: Path, unused_tcp_port_factory: Any
) -> None:
    """Field by field what the mapper meant, once over HTTP and once over gRPC; and RED's sums and buckets."""
    ports = {name: unused_tcp_port_factory() for name in ("http", "grpc")}
    with recorder() as sink:
        with collecting(collector, tmp_path, sink, ports):
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
                spans = post_all(run)
                ledger = run.delivered(len(spans))
                assert ledger["rejected"] == {}
                run.stop()
        assert len(spans) > 200
        assert sorted(sink.spans(), key=repr) == sorted(map(meant, [*spans, *spans]), key=repr)
        assert red_arrived(sink.metrics()) == red_meant([*spans, *spans])


def test_deltas_of_two_workers_add_up_to_all_spans(
    collector: Path, tmp_path: Path, unused_tcp_port_factory: Any
) -> None:
    """Whoever adds up deltas keeps each writer's streams apart, and drops what comes out of order within one."""
    ports = {name: unused_tcp_port_factory() for name in ("http", "grpc")}
    with recorder() as sink, collecting(collector, tmp_path, sink, ports, "deltatocumulative"):
        target = {"name": "otlp", "kind": "otlp", "url": f"http://127.0.0.1:{ports['http']}"}
        with forwarder(
            tmp_path,
            ["--workers", "2"],
            exporter={"targets": [target]},
            red={"interval": "1s"},
        ) as run:
            number = 0
            # Each post is a connection of its own, so that both workers get some; each round is a tick or more.
            for _ in range(3):
                number += len(post_all(run)) + len(post_all(run))
                seen = len(sink.bodies["/v1/metrics"])
                eventually(
                    lambda seen=seen: len(sink.bodies["/v1/metrics"]) >= seen + 4 or None,
                    lambda: "RED of two workers arrives",
                )
            run.delivered(number)
            run.stop()
    calls, times = Streams(), Streams()
    for part in sink.metrics():
        resource = values(part.resource.attributes)
        for metric in part.scope_metrics[0].metrics:
            is_calls = metric.name == "traces.span.metrics.calls"
            data = metric.sum if is_calls else metric.exponential_histogram
            assert data.aggregation_temporality == CUMULATIVE
            for point in data.data_points:
                stream = (*resource.items(), *sorted(values(point.attributes).items()))
                if is_calls:
                    calls.note(stream, point.as_int)
                else:
                    assert point.count == point.zero_count + sum(point.positive.bucket_counts)
                    times.note(stream, point.count)
    assert (calls.total, times.total) == (number, number)
    assert calls.grew > 0, "some streams were added up"
    writers = {dict(stream)["service.instance.id"] for stream in calls.newest}
    assert sorted(writer.rpartition("/")[2] for writer in writers) == ["0", "1"]


class Streams:
    """Cumulative series: the newest value of each, which never falls."""

    def __init__(self) -> None:
        self.newest: dict[tuple[Any, ...], int] = {}
        self.grew = 0

    def note(self, stream: tuple[Any, ...], value: int) -> None:
        before = self.newest.get(stream)
        assert before is None or value >= before
        self.grew += before is not None and value > before
        self.newest[stream] = value

    @property
    def total(self) -> int:
        return sum(self.newest.values())


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
            number = len(post_all(run, WHOLE))
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
