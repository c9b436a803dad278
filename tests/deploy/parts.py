"""Make-believe pods of a mesh and a real Prometheus that runs deploy/prometheus over them.

``python -m tests.deploy.parts`` records tests/fixtures/istio/federate.txt.
"""

import contextlib
import dataclasses
import http.server
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tracefwd.emulator.metric_reader import MetricReader, Point
from tracefwd.emulator.rules import Limits
from tracefwd.metricspath.translate import Translation
from tracefwd.service import config
from tracefwd.settings import Settings

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy" / "prometheus"
EXPOSITIONS = ROOT / "tests" / "fixtures" / "istio"
PROMETHEUS = shutil.which("prometheus")
META = "__meta_kubernetes_"
# Of each group of rules what comes last.
LAST_SUMMED = (
    "istio_request_duration_milliseconds_bucket_p999",
    "istio_request_bytes_bucket_p999",
    "istio_response_bytes_bucket_p999",
    "istio_requests_total",
    "istio_tcp_connections_closed_total",
)
# From the first scrape to percentiles that came back: a few seconds; CI may be slow.
PATIENCE_S = 60.0


def read(name: str) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text())


def pod(ip: str = "10.0.0.1", port: str = "15020", **more: str) -> dict[str, str]:
    """What Kubernetes discovery says of a pod that wants to be scraped."""
    labels = {
        "pod_ip": ip,
        "namespace": "demo",
        "pod_name": "pod-1",
        "pod_phase": "Running",
        "pod_annotation_prometheus_io_scrape": "true",
        "pod_annotation_prometheus_io_port": port,
    } | more
    return {f"{META}{name}": value for name, value in labels.items()}


def configured(name: str, pods: list[dict[str, str]], **changes: Any) -> dict[str, Any]:
    """A configuration of deploy/prometheus that finds ``pods`` without Kubernetes; ``changes`` are global."""
    config: dict[str, Any] = read(name)
    if changes:
        config["global"] |= changes
    for job in config["scrape_configs"]:
        if job.pop("kubernetes_sd_configs", None):
            job["static_configs"] = [
                {"targets": [f"{pod[f'{META}pod_ip']}:8080"], "labels": pod} for pod in pods
            ]
    return config


def written(config: dict[str, Any], folder: Path) -> Path:
    """The configuration as a file, beside its rules."""
    for rule_file in config.get("rule_files", ()):
        shutil.copy(DEPLOY / rule_file, folder)
    path = folder / "prometheus.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


class Exporters(http.server.ThreadingHTTPServer):
    """Serves ``/NAME`` from NAME.txt; what Envoys count doubles, triples... with every scrape."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Exposition)
        self.scrapes: dict[str, int] = {}

    def exposition(self, path: str) -> str:
        times = self.scrapes[path] = self.scrapes.get(path, 0) + 1
        text = (EXPOSITIONS / f"{path.strip('/').partition('/')[0]}.txt").read_text()
        return "\n".join(_grown(line, times) for line in text.splitlines()) + "\n"


def _grown(line: str, times: int) -> str:
    if not line.startswith(("istio_request", "istio_response", "istio_tcp")):
        return line
    labels, _, value = line.rpartition(" ")
    return f"{labels} {float(value) * times:g}"


class _Exposition(http.server.BaseHTTPRequestHandler):
    server: Exporters

    def do_GET(self) -> None:
        body = self.server.exposition(self.path).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing to say."""


def mesh(exporters: Exporters) -> list[dict[str, str]]:
    """Two sidecars of one workload, and the control planes of four releases, all at one port."""
    port = str(exporters.server_address[1])

    def at(path: str, app: str, name: str, **labels: str) -> dict[str, str]:
        return pod(
            ip="127.0.0.1",
            port=port,
            namespace="bookinfo" if app == "reviews" else "istio-system",
            pod_name=name,
            pod_annotation_prometheus_io_path=path,
            pod_label_app=app,
            # Not every pod label becomes a tag.
            pod_label_pod_template_hash="84779c7bbc",
            **labels,
        )

    return [
        at("/sidecar-1.30/a", "reviews", "reviews-v3-a", pod_label_version="v3"),
        at("/sidecar-1.30/b", "reviews", "reviews-v3-b", pod_label_version="v3"),
        *(
            at(f"/istiod-{release}", "istiod", f"istiod-{release}", pod_label_istio="pilot")
            for release in ("1.30", "1.18", "1.6")
        ),
        at("/galley-1.4", "galley", "galley-1.4", pod_label_istio="galley"),
        # An application with a process of its own.
        at("/application", "shop", "shop-1"),
    ]


class Prometheus:
    """A real one that scrapes and evaluates every second."""

    def __init__(self, exporters: Exporters, folder: Path, **changes: Any) -> None:
        with socket.socket() as finder:
            finder.bind(("127.0.0.1", 0))
            self.at = f"127.0.0.1:{finder.getsockname()[1]}"
        every = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        pods = mesh(exporters)
        self.pods = [each[f"{META}pod_name"] for each in pods]
        config = configured("prometheus.yaml", pods, **every, **changes)
        [own] = [job for job in config["scrape_configs"] if job["job_name"] == "federate"]
        own["static_configs"][0]["targets"] = [self.at]
        assert PROMETHEUS is not None
        self._log = folder / "log"
        command = [
            PROMETHEUS,
            f"--config.file={written(config, folder)}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={self.at}",
            "--log.level=warn",
        ]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, stderr=log)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)

    def ask(self, url: str) -> str:
        """The body of ``url`` (as in ``prometheus_sources``), but from here."""
        parts = urllib.parse.urlsplit(url)
        query = urllib.parse.quote(parts.query, safe="=&[]")
        with urllib.request.urlopen(f"http://{self.at}{parts.path}?{query}", timeout=10) as answer:
            body: bytes = answer.read()
        return body.decode()

    def wait_for(self, selector: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                if self.ask(f"http://x/federate?match[]={selector}"):
                    return
            time.sleep(0.1)
        raise AssertionError(f"no {selector}: {self._log.read_text()}")


@contextlib.contextmanager
def running_prometheus(*changes: dict[str, Any]) -> Iterator[list[Prometheus]]:
    """One over a mesh for each of ``changes`` (global options); handed over when all has been scraped and summed.

    Side by side, because a Prometheus looks at its targets for the first time after five seconds.
    """
    with contextlib.ExitStack() as leaving:
        started = []
        for each in changes:
            exporters = leaving.enter_context(Exporters())
            serving = threading.Thread(target=exporters.serve_forever, args=(0.05,), daemon=True)
            serving.start()
            leaving.callback(serving.join)
            leaving.callback(exporters.shutdown)
            folder = leaving.enter_context(tempfile.TemporaryDirectory())
            started.append(Prometheus(exporters, Path(folder), **each))
            leaving.callback(started[-1].stop)
        for one in started:
            for name in one.pods:
                one.wait_for(f'{{__name__="up",kubernetes_pod_name="{name}"}}')
            for family in LAST_SUMMED:
                one.wait_for(f'{{job="federate",__name__="{family}"}}')
        yield started


def loaded(name: str) -> Settings:
    """One of the shipped lists as tracefwd reads it, with no word changed."""
    settings = config.load(DEPLOY / name, {}, {}).settings
    assert len(settings.prometheus_sources) == 1
    return settings


def points_of(
    body: str, name: str, *, strip_prefix: str = "", **changes: Any
) -> dict[str, list[Point]]:
    """What the list ``name`` makes of a body, by name, as a strict reader of Wavefront's takes it."""
    settings = loaded(name)
    source = dataclasses.replace(settings.prometheus_sources[0], strip_prefix=strip_prefix)
    stamps = [int(stamp) for stamp in re.findall(r" (\d{13})$", body, re.MULTILINE)]
    now_ms = max(stamps, default=1_795_000_000_000)
    translation = Translation(source, dataclasses.replace(settings.metrics, **changes))
    scrape = translation.begin(now_ms / 1000)
    payloads = scrape.feed(body.encode()) + scrape.finish(complete=True)
    reader = MetricReader(Limits())
    found: dict[str, list[Point]] = {}
    for payload in payloads:
        for line in payload.data.decode().splitlines():
            point = reader.read_point(line, now_ms)
            found.setdefault(point.name, []).append(point)
    assert sum(map(len, found.values())) == scrape.counts.points
    return found


if __name__ == "__main__":
    with running_prometheus({}) as [recorded]:
        body = recorded.ask(loaded("filters-current.yaml").prometheus_sources[0].url)
    (EXPOSITIONS / "federate.txt").write_text(body)
    print(f"{len(body)} bytes, {sum(line[0] != '#' for line in body.splitlines())} samples")
