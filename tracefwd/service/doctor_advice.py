"""What to do about a target's answer or silence, and about settings that work and mean something else.  Pure.

``http_sender`` says what happened; who reads the doctor's list wants to know whose move is next, and in which file.
"""

from collections.abc import Iterator
from urllib.parse import urlsplit

from tracefwd.model import Outcome, Signal
from tracefwd.settings import Settings, TargetSettings

_TRACES = frozenset({Signal.SPANS, Signal.SPAN_LOGS})
_DISABLED = {
    Signal.SPANS: "distributed tracing",
    Signal.SPAN_LOGS: "span logs",
    Signal.POINTS: "metrics",
    Signal.DISTRIBUTIONS: "histograms",
}
_PROXY_LOG = "read the Wavefront proxy's log"

# Reason of the outcome -> what to do; those that depend on the target are below.
_BY_REASON = {
    "timeout": "somebody took the connection and says nothing: is it the right port, is the process well?",
    "connect": "see that it runs and that address and port are right",
    "connection": "it ends connections: is it the right port, and does its log say why?",
    "dns": "check the host's name",
    "tls": "see the check tls.",
    "http_proxy": "check http_proxy, HTTPS_PROXY and NO_PROXY",
    "http_407": "write user and password into http_proxy",
    "protocol": "something else than HTTP answers there: check the port",
    "url": "check the URL in the settings",
    "http_404": "nothing takes lines at this path: check the URL",
    "http_405": "nothing takes lines at this path: check the URL",
    "http_406": "it asks to slow down: look at the account's limits",
    "http_429": "it asks to slow down: look at the account's limits",
    "http_413": "lower exporter.batch_bytes_max",
    "grpc_unimplemented": "this port does not take this signal: check the URL, and the receivers of its pipelines",
    "grpc_unavailable": "see that it runs, that the port is gRPC's, and whether it wants https://",
    "grpc_deadline_exceeded": "somebody took the connection and says nothing: is it a gRPC port?",
}


def advice(target: TargetSettings, signal: Signal, outcome: Outcome) -> str:
    """For an outcome that is no delivery."""
    reason = outcome.reason
    if reason in ("http_401", "grpc_unauthenticated", "auth"):
        return _token_advice(target)
    if reason in ("http_403", "grpc_permission_denied"):
        return _forbidden(target, signal)
    if reason == "http_404" and target.kind == "otlp":
        what = "traces" if signal in _TRACES else "metrics"
        return f"check the URL, and that its receiver stands in a pipeline of {what}"
    if reason in ("tls", "connection") and wants_certificate(target):
        return f"{_BY_REASON[reason]} It may want a certificate of ours: cert_file, key_file"
    if reason in _BY_REASON:
        return _BY_REASON[reason]
    if reason == "http_400" and target.kind == "proxy":
        return _not_taken(signal)
    if reason.startswith("http_5"):
        return "it is up and fails: read its log, or that of the gateway in front of it"
    if reason.startswith("http_3"):
        return (
            "write the final URL: redirects are not followed, they would carry the token elsewhere"
        )
    return _PROXY_LOG if target.kind == "proxy" else "read the target's log"


def wants_certificate(target: TargetSettings) -> bool:
    """Whether a target could ask for one that we have not: with TLS 1.3 it says so only after the handshake."""
    is_tls = any(url.startswith("https:") for url in (target.url, target.traces, target.metrics))
    return is_tls and not target.cert_file


def _token_advice(target: TargetSettings) -> str:
    if target.csp_token_file or target.csp_app_id:
        return "check csp_base and the secret's file, or make a new one in the console of CSP"
    if not target.token_file:
        return "it wants a token: write one into a file and name it in token_file (--token-file)"
    return (
        f"put a valid token into {target.token_file}: the old one may be revoked, expired, or of another "
        "instance; it is read again at each attempt, nothing need be restarted"
    )


def _forbidden(target: TargetSettings, signal: Signal) -> str:
    if target.kind == "proxy":
        return f"have {_DISABLED[signal]} enabled for the account, or switch off what sends them"
    if target.kind == "direct":
        return "give the token's account the permission Direct Data Ingestion, and have its features enabled"
    return "give the token the permission to send this signal"


def _not_taken(signal: Signal) -> str:
    if signal in _TRACES:
        return "give the proxy's trace port (traceListenerPorts, 30000) as traces; and read its log"
    return "give the proxy's metrics port (pushListenerPorts, 2878) as metrics; and read its log"


def port_advice(target: TargetSettings, url: str, *, proxied: bool) -> str:
    """When nothing listens at ``url``."""
    if proxied:
        return "start the HTTP proxy, or correct http_proxy (HTTPS_PROXY, HTTP_PROXY)"
    if target.kind == "proxy" and url_is(url, target.traces):
        return (
            "see that the Wavefront proxy runs; set traceListenerPorts=30000 in its wavefront.conf (it has no "
            "trace port by default) and expose the port in its Service"
        )
    if target.kind == "proxy":
        return (
            "see that the Wavefront proxy runs, that pushListenerPorts (2878) has this port, and that its "
            "Service exposes it"
        )
    return "see that it runs and that the port in the URL is right"


def url_is(url: str, option: str) -> bool:
    return bool(option) and urlsplit(url).netloc == urlsplit(option).netloc


def oddities(target: TargetSettings, settings: Settings) -> Iterator[tuple[str, str]]:
    """Ports that take what they get and do something else with it: what, and what to do.

    Source: what a proxy's ports accept (traceListenerPorts, customTracingListenerPorts, pushListenerPorts and so on),
    by the numbers that the vendor's documentation gives them.
    """
    if target.kind == "direct" and urlsplit(target.url).path.rstrip("/").endswith("/api"):
        yield (
            "url ends in /api, as a Wavefront proxy's own server does, and direct ingestion is not there",
            "write https://INSTANCE.wavefront.com alone",
        )
    if target.kind != "proxy":
        return
    traces, metrics = (urlsplit(url) for url in (target.traces, target.metrics))
    port = {name: parts.port for name, parts in (("traces", traces), ("metrics", metrics))}
    if port["traces"] == 30001 and settings.red.enabled:
        yield (
            "traces go to 30001, usually customTracingListenerPorts, where the proxy derives RED itself",
            "use traceListenerPorts (30000), or every call counts twice; or set red.enabled: false",
        )
    if port["traces"] == 2878:
        yield (
            "traces go to 2878, usually pushListenerPorts, which takes span lines for points and refuses them",
            "use the proxy's traceListenerPorts (30000)",
        )
    if port["traces"] == 9411:
        yield (
            "traces go to 9411, usually traceZipkinListenerPorts, which takes no span lines",
            "use the proxy's traceListenerPorts (30000)",
        )
    for number, name, takes in (
        (30000, "traceListenerPorts", "spans"),
        (40000, "histogramDistListenerPorts", "distributions"),
        (12878, "deltaCountersAggregationListenerPorts", "delta counters"),
    ):
        if port["metrics"] == number:
            yield (
                f"metrics go to {number}, usually {name}, which takes {takes} only",
                "use pushListenerPorts (2878): RED is delta counters, distributions and heartbeats",
            )


__all__ = ["advice", "oddities", "port_advice"]
