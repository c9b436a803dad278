"""Batches of OTLP records over gRPC: one unary call each, bytes in and bytes out.

Source: the OTLP specification, "OTLP/gRPC".  ``RESOURCE_EXHAUSTED`` may be tried again only with a ``RetryInfo``; a
server that says with it that a message is too large gets halves.  Imported only where a target speaks gRPC.
"""

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
from grpc import aio

from tracefwd import __version__
from tracefwd.errors import StartError
from tracefwd.exporter import otlp_answers, otlp_frames, verdicts
from tracefwd.exporter.auth import Credentials, CredentialsError, FreeHeaders
from tracefwd.exporter.client_certificate import CertificateError, ClientCertificate
from tracefwd.exporter.compress import plain
from tracefwd.exporter.endpoint import shown
from tracefwd.exporter.http_client import is_loopback
from tracefwd.exporter.http_sender import authorizing, shown_words
from tracefwd.model import Outcome, Signal
from tracefwd.settings import TargetSettings

_TRACES = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
_METRICS = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
_DETAILS = "grpc-status-details-bin"
# How servers word it when a message is above their limit (gRPC's own say "larger than max").
_TOO_LARGE = ("larger than max", "too large", "exceeds")
_PORT = 4317
# For calls under way on a connection that showed a certificate of which there is a newer one.
_LAST_CALLS_S = 30.0
# Calls after which nobody knows whether the records arrived.
_AMBIGUOUS = frozenset({"CANCELLED", "DEADLINE_EXCEEDED", "UNAVAILABLE", "UNKNOWN", "ABORTED"})
# How gRPC words it when there was no connection to send anything over.
_UNSENT = ("failed to connect to all addresses", "errors resolving ", "DNS resolution failed")


class GrpcChannel:
    """The connection of one target, shared by its signals; made at ``open``, and anew for a renewed certificate."""

    def __init__(self, settings: TargetSettings, *, packs: bool) -> None:
        self._settings = settings
        self._packs = packs
        self._certificate = ClientCertificate(settings)
        self._roots: bytes | None = None
        self._channel: aio.Channel | None = None
        self._closing: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Raises ``StartError`` if a file of certificates cannot be used; connects to nobody yet."""
        self._roots = self._authorities()
        try:
            self._channel = self._make()
        except CertificateError as problem:
            raise StartError(f"target {self._settings.name}: {problem}") from problem

    def _make(self) -> aio.Channel:
        parts = urlsplit(self._settings.url)
        address = f"{parts.hostname}:{parts.port or _PORT}"
        if ":" in (parts.hostname or ""):
            address = f"[{parts.hostname}]:{parts.port or _PORT}"
        options = [
            ("grpc.primary_user_agent", f"tracefwd/{__version__}"),
            ("grpc.enable_http_proxy", int(not is_loopback(parts.hostname or ""))),
            # A connection that died in silence is noticed while calls are under way.
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.max_reconnect_backoff_ms", 5_000),
        ]
        packs = grpc.Compression.Gzip if self._packs else grpc.Compression.NoCompression
        if parts.scheme != "https":
            return aio.insecure_channel(address, options, packs)
        key, chain = self._certificate.read()
        credentials = grpc.ssl_channel_credentials(self._roots, key, chain)
        return aio.secure_channel(address, credentials, options, packs)

    def call(self, method: str) -> Any:
        """Raises ``CertificateError``."""
        assert self._channel is not None, "open() comes first"
        if self._settings.url.startswith("https:") and self._certificate.renewed():
            old, self._channel = self._channel, self._make()
            task = asyncio.get_running_loop().create_task(old.close(_LAST_CALLS_S))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        return self._channel.unary_unary(method)

    async def close(self) -> None:
        for task in self._closing:
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        if self._channel is not None:
            await self._channel.close()
            self._channel = None

    def _authorities(self) -> bytes | None:
        path = self._settings.ca_file
        if not path:
            return None
        try:
            return Path(path).read_bytes()
        except OSError as problem:
            raise StartError(
                f"target {self._settings.name}: ca_file {path} cannot be used ({problem.strerror}): "
                "give a readable PEM file"
            ) from problem


class OtlpGrpcSender:
    """``send`` never raises for what a target, a network or a file of credentials can do."""

    # gRPC packs by itself.
    takes_gzip = False

    def __init__(
        self,
        channel: GrpcChannel,
        auth: Credentials,
        free_headers: FreeHeaders,
        settings: TargetSettings,
        signal: Signal,
        request_timeout: float,
    ) -> None:
        self.shown = shown(settings.url)
        self._channel = channel
        self._auth = auth
        self._free_headers = free_headers
        self._auth_header = settings.token_header
        self._signal = signal
        self._method = _TRACES if signal is Signal.SPANS else _METRICS
        self._timeout = request_timeout

    async def send(self, data: bytes, encoding: str) -> Outcome:
        request = otlp_frames.request(plain(data, encoding))
        try:
            headers = self._free_headers.read()
            authorization = await self._auth.header()
            call = self._channel.call(self._method)
        except CredentialsError as problem:
            return Outcome(verdicts.RETRY, "auth", str(problem))
        except CertificateError as problem:
            return Outcome(verdicts.RETRY, "tls", str(problem))
        if authorization:
            headers |= authorizing(self._auth_header, authorization)
        metadata = tuple((name.lower(), value) for name, value in headers.items())
        try:
            answer = await call(request, timeout=self._timeout, metadata=metadata)
        except aio.AioRpcError as error:
            return self._failed(error, authorization)
        refused, message = otlp_answers.partial_success(self._signal, answer)
        words = shown_words(message, self._secrets())
        return Outcome(verdicts.DELIVERED, detail=words, refused_items=refused)

    async def close(self) -> None:
        """The channel and the credentials belong to the target, which closes them."""

    def _failed(self, error: aio.AioRpcError, authorization: str) -> Outcome:
        code = error.code().name
        details = error.details() or ""
        wait_ms = self._wait_ms(error)
        verdict = verdicts.GRPC_OUTCOMES.get(code, verdicts.REJECTED)
        if code == "RESOURCE_EXHAUSTED":
            if wait_ms is not None:
                verdict = verdicts.RETRY
            elif any(words in details.lower() for words in _TOO_LARGE):
                verdict = verdicts.SPLIT
        words = f"gRPC {code}"
        if code in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
            self._auth.refused(authorization)
            self._free_headers.refused()
            words += f"; {self._auth.advice()}"
        text = shown_words(details, self._secrets())
        return Outcome(
            verdict,
            f"grpc_{code.lower()}",
            f"{words}: {text}" if text else words,
            wait_ms,
            ambiguous=code in _AMBIGUOUS and not details.startswith(_UNSENT),
        )

    def _secrets(self) -> tuple[str, ...]:
        return (*self._auth.secrets(), *self._free_headers.secrets())

    @staticmethod
    def _wait_ms(error: aio.AioRpcError) -> int | None:
        for name, value in error.trailing_metadata() or ():
            if name == _DETAILS and isinstance(value, bytes):
                return otlp_answers.retry_after_ms(value)
        return None
