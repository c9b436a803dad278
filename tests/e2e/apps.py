"""Tiny applications of the mesh: they answer as the path asks them to, and hand on the tracing headers.

Envoys join their spans to one trace only if the application in between copies these headers from the request it
serves to the requests it makes; everything else about the trace is the Envoys' work.
"""

import http.client
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

HANDED_ON = (
    "x-request-id",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "b3",
    # An OTLP tracer's.
    "traceparent",
    "tracestate",
    "user-agent",
)
# An app that hears nothing for this long is being left behind by a failed test.
_TIMEOUT_S = 20.0

Address = tuple[str, int]


class _Server(ThreadingHTTPServer):
    """``outbound`` is where the app's sidecar takes its calls; ``calls`` are the services it calls, in order."""

    # The threads end when the Envoys, which hold the connections, have ended; they are waited for then.
    daemon_threads = False
    request_queue_size = 128

    def __init__(self, address: Address, outbound: Address, calls: tuple[str, ...]) -> None:
        super().__init__(address, _Handler)
        self.outbound = outbound
        self.calls = calls


class _Handler(BaseHTTPRequestHandler):
    """``GET /…?details=503&reviews=500``: the named services answer so; without a name it is 200."""

    protocol_version = "HTTP/1.1"
    timeout = _TIMEOUT_S
    # Head and body are two writes: without this each answer waits 40 ms for an acknowledgement.
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        asked = {key: values[-1] for key, values in parse_qs(urlsplit(self.path).query).items()}
        handed_on = {key: self.headers[key] for key in HANDED_ON if key in self.headers}
        statuses = [
            str(_call(self.server.outbound, service, asked.get(service), handed_on))
            for service in self.server.calls
        ]
        body = (" ".join(statuses) or "leaf").encode()
        self.send_response(int(asked.get("answer", "200")))
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - its name there
        """Standard error is the tests'."""


def _call(outbound: Address, service: str, answer: str | None, headers: Mapping[str, str]) -> int:
    """Through the sidecar, which knows the service by its Host, as in any mesh."""
    connection = http.client.HTTPConnection(*outbound, timeout=_TIMEOUT_S)
    try:
        path = f"/{service}/0" + (f"?answer={answer}" if answer else "")
        connection.request("GET", path, headers={**headers, "host": f"{service}:9080"})
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()


@contextmanager
def app(address: Address, *, outbound: Address, calls: tuple[str, ...]) -> Iterator[None]:
    """Serve at ``address``.  Leave only after the Envoys have left."""
    with _Server(address, outbound, calls) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
