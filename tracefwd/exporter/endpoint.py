"""Where each signal of a target is sent: an operator's URLs become one URL per signal.  Pure.

A Wavefront proxy takes spans and span logs at ``traces``, points and distributions at ``metrics``, and tells lines
apart by itself (versions before 7.0 know no ``f=`` there).  Only where the operator's own URL names a format
(port 2878 with ``?f=trace``) does the other signal of that URL get its own.  Direct ingestion is
``<url>/report?f=...`` for all four.  OTLP has one path for traces and one for metrics (gRPC: services).
"""

import re
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

from tracefwd.errors import ConfigError
from tracefwd.model import Signal
from tracefwd.settings import TargetSettings

FORMATS = {
    Signal.SPANS: "trace",
    Signal.SPAN_LOGS: "spanLogs",
    Signal.POINTS: "wavefront",
    Signal.DISTRIBUTIONS: "histogram",
}
_FORMAT_KEYS = ("f", "format")
# Span logs travel inside their spans.
_OTLP_PATHS = {
    Signal.SPANS: "/v1/traces",
    Signal.POINTS: "/v1/metrics",
    Signal.DISTRIBUTIONS: "/v1/metrics",
}


def endpoints(settings: TargetSettings) -> dict[Signal, str]:
    """A URL for every signal that the target takes; a signal without one is left out."""
    if settings.kind == "otlp":
        return {signal: _otlp_url(settings.url, path) for signal, path in _OTLP_PATHS.items()}
    if settings.kind == "direct":
        return {signal: _report_url(settings.url, FORMATS[signal]) for signal in Signal}
    urls = {
        Signal.SPANS: settings.traces,
        Signal.SPAN_LOGS: settings.traces,
        Signal.POINTS: settings.metrics,
        Signal.DISTRIBUTIONS: settings.metrics,
    }
    return {signal: _own_format(url, FORMATS[signal]) for signal, url in urls.items() if url}


def shown(url: str) -> str:
    """A URL without what may be secret: user, password, query."""
    parts = urlsplit(url)
    return SplitResult(parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", "").geturl()


def tcp_address(url: str) -> tuple[str, int]:
    """Host and port of ``tcp://HOST:PORT``."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = None
    if not parts.hostname or port is None:
        raise ConfigError([f"{shown(url)} has no host and port: write tcp://HOST:PORT"])
    return parts.hostname, port


def _report_url(url: str, format_name: str) -> str:
    parts = urlsplit(url)
    path = re.sub(r"/{2,}", "/", parts.path).rstrip("/")
    if not path.endswith("/report"):
        path += "/report"
    rest = [(key, value) for key, value in parse_qsl(parts.query) if key not in _FORMAT_KEYS]
    query = urlencode([("f", format_name), *rest])
    return SplitResult(parts.scheme, parts.netloc, path, query, "").geturl()


def _otlp_url(url: str, path: str) -> str:
    """The signal's path behind the base, as the specification says of an endpoint for all signals."""
    parts = urlsplit(url)
    base = re.sub(r"/v1/(traces|metrics)/?$", "", parts.path).rstrip("/")
    return parts._replace(path=base + path).geturl()


def _own_format(url: str, format_name: str) -> str:
    """The URL as given, but that a format it names becomes ``format_name``."""
    parts = urlsplit(url)
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    known = FORMATS.values()
    own = [(k, format_name if k in _FORMAT_KEYS and v in known else v) for k, v in pairs]
    return url if own == pairs else parts._replace(query=urlencode(own)).geturl()
