"""A make-believe Wavefront for the real proxy: answers check-ins, takes reports, keeps every line.

It judges nothing and parses nothing; what the proxy sent is read elsewhere.  One thread per connection of the proxy
(a handful), everything kept in memory: a run is some ten thousand lines.
"""

import gzip
import json
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

# What Wavefront tells its proxies; their built-in 20 would refuse most Envoy spans.
_CHECKIN = {"validationConfiguration": {"spanAnnotationsCountLimit": 50}}


class Backend:
    """Runs inside a ``with`` block, on a port of its own at 127.0.0.1.

    ``checkin`` is what the answers to check-ins say beside the usual.
    """

    def __init__(self, checkin: Mapping[str, Any] | None = None) -> None:
        self._checkin = {**_CHECKIN, **(checkin or {})}
        self._lock = threading.Lock()
        self._lines: dict[str, list[str]] = defaultdict(list)
        self._metrics: tuple[float, dict[str, Any]] = (0.0, {})
        self.problems: list[str] = []
        backend = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Headers and body leave in two writes: without it each answer waits for an acknowledgement.
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                size = int(self.headers.get("content-length") or 0)
                body = self.rfile.read(size)
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                answer = json.dumps(backend._take(self.path, body)).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                """Standard error is for the run's own words."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _take(self, target: str, body: bytes) -> dict[str, Any]:
        parts = urlsplit(target)
        action = parts.path.rpartition("/wfproxy/")[2]
        if action == "report":
            form = parse_qs(parts.query).get("format", ["wavefront"])[0]
            with self._lock:
                self._lines[form] += filter(None, body.decode().split("\n"))
        elif action == "checkin":
            with self._lock:
                self._metrics = (time.time(), json.loads(body or b"null") or {})
            return self._checkin
        elif action not in {"config/processed", "saveConfig", "savePreprocessorRules"}:
            # "error" is the proxy's complaint about what it was told.
            with self._lock:
                self.problems.append(f"{target}: {body[:500]!r}")
        return {}

    def lines(self) -> dict[str, list[str]]:
        """By report format, in order of arrival; a copy."""
        with self._lock:
            return {form: list(lines) for form, lines in self._lines.items()}

    def forget_lines(self) -> None:
        with self._lock:
            self._lines.clear()

    def counters(self, since: float) -> dict[str, float]:
        """The proxy's own metrics at its last check-in, if that was after ``since`` (seconds since 1970).

        It sends ``name$hash: {tags, value}``; values that are no number (histograms of times) are left out, and
        metrics of one name are added up.
        """
        with self._lock:
            at, metrics = self._metrics
        counters: dict[str, float] = {}
        if at > since:
            for key, entry in metrics.items():
                value = entry.get("value") if isinstance(entry, dict) else entry
                if isinstance(value, int | float):
                    name = key.partition("$")[0]
                    counters[name] = counters.get(name, 0) + value
        return counters
