"""A real Prometheus with Istio's recording rules over a make-believe mesh, behind TLS and a password.

Before it a front that misbehaves on request.
"""

import base64
import http.client
import http.server
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.parts import DEPLOY, META, PROMETHEUS, Exporters, mesh
from tests.e2e.processes import eventually
from tests.service.exporters import Authority

USER, PASSWORD = "mesh", "open sesame"
# bcrypt of the password, at its lowest cost.
_HASH = "$2b$04$abcdefghijklmnopqrstuu/LVz6MZlItEy42I2juLihZ66HnQx/cy"
SUMMED = 'match[]={__name__=~"federate:.*"}'
RAW = 'match[]={job="kubernetes-pods",__name__=~"pilot_services|istio_build|go_goroutines"}'


class Pods(Exporters):
    """The mesh's pods; those in ``gone`` have nothing to say any more."""

    def __init__(self) -> None:
        super().__init__()
        self.gone: set[str] = set()

    def exposition(self, path: str) -> str:
        return "" if path in self.gone else super().exposition(path)


class SecuredPrometheus:
    """``stop`` and ``start`` again keep port and data."""

    def __init__(self, folder: Path, exporters: Exporters, authority: Authority) -> None:
        if PROMETHEUS is None:
            pytest.skip(
                "NO PROMETHEUS: the metrics path is not run end to end (Debian: prometheus)"
            )
        self._folder = folder
        folder.mkdir()
        self.ca_file = authority.ca_file
        cert, key = authority.issue("prometheus")
        shutil.copy(DEPLOY / "istio-rules.yaml", folder)
        (folder / "web.yaml").write_text(
            yaml.safe_dump(
                {
                    "tls_server_config": {"cert_file": str(cert), "key_file": str(key)},
                    "basic_auth_users": {USER: _HASH},
                }
            )
        )
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(_config(exporters)))
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}/federate?{SUMMED}&{RAW}"

    def start(self) -> None:
        port = self.port or _free_port()
        command = [
            str(PROMETHEUS),
            f"--config.file={self._folder / 'prometheus.yaml'}",
            f"--web.config.file={self._folder / 'web.yaml'}",
            f"--storage.tsdb.path={self._folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            # So that what a dead pod leaves in sums is gone soon.
            "--query.lookback-delta=5s",
            "--log.level=warn",
        ]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        self.port = port

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)
            self._process = None

    def ask(self, target: str) -> tuple[int, bytes, str]:
        """Status, body and content type of a request target, sent as it is written."""
        context = ssl.create_default_context(cafile=self.ca_file)
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self.port, timeout=10, context=context
        )
        try:
            connection.request("GET", target, headers={"Authorization": basic(USER, PASSWORD)})
            response = connection.getresponse()
            return response.status, response.read(), response.getheader("Content-Type", "")
        finally:
            connection.close()

    def wait_for(self, selector: str) -> None:
        def look() -> bool:
            with suppress(OSError):
                status, body, _ = self.ask(f"/federate?match[]={selector}")
                return status == 200 and bool(body)
            return False

        eventually(look, lambda: f"{selector}: {(self._folder / 'log').read_text()}", 60.0)


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def _free_port() -> int:
    with socket.socket() as finder:
        finder.bind(("127.0.0.1", 0))
        port: int = finder.getsockname()[1]
    return port


def _config(exporters: Exporters) -> dict[str, Any]:
    every = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    port = exporters.server_address[1]
    targets = [
        {
            "targets": [f"127.0.0.1:{port}"],
            "labels": {
                "__metrics_path__": pod[f"{META}pod_annotation_prometheus_io_path"],
                "app": pod[f"{META}pod_label_app"],
                "kubernetes_pod_name": pod[f"{META}pod_name"],
                "instance": pod[f"{META}pod_name"],
            },
        }
        for pod in mesh(exporters)
    ]
    job = {"job_name": "kubernetes-pods", "static_configs": targets}
    return {"global": every, "rule_files": ["istio-rules.yaml"], "scrape_configs": [job]}


class Front(http.server.ThreadingHTTPServer):
    """Says what its path names: ``/token`` relays to Prometheus for the right token, ``/half`` the half of it."""

    daemon_threads = True

    def __init__(self, prometheus: SecuredPrometheus) -> None:
        super().__init__(("127.0.0.1", 0), _Front)
        self.prometheus = prometheus
        self.token = ""
        self.elsewhere = ""
        self.tokens_seen: list[str] = []
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Front(http.server.BaseHTTPRequestHandler):
    server: Front
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        said = self.headers.get("Authorization", "")
        if said:
            self.server.tokens_seen.append(said)
        target = f"/federate?{self.path.partition('?')[2]}"
        match self.path.partition("?")[0]:
            case "/token" if said != f"Bearer {self.server.token}":
                self._say(401, b"no\n", "text/plain")
            case "/token" | "/elsewhere":
                self._say(*self.server.prometheus.ask(target))
            case "/half":
                status, body, kind = self.server.prometheus.ask(target)
                # In the middle of a line.
                half = body.rindex(b"{", 0, len(body) // 2) + 2
                self._say(status, body[:half], kind, length=len(body))
            case "/hung":
                self.server.released.wait(60)
                self.close_connection = True
            case "/html":
                self._say(200, b"<html>please log in 1</html>\n", "text/html")
            case "/moved":
                self.send_response(302)
                self.send_header("Location", f"{self.server.elsewhere}/elsewhere?{SUMMED}")
                self.send_header("Content-Length", "0")
                self.end_headers()
            case _:
                self._say(500, b"broken\n", "text/plain")

    def _say(self, status: int, body: bytes, kind: str, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)
        if length is not None:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Nothing to say."""


@contextmanager
def serving(server: http.server.ThreadingHTTPServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
