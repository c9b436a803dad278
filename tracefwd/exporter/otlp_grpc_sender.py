"""Batches of OTLP records over gRPC: one unary call each, bytes in and bytes out.

Source: the OTLP specification, "OTLP/gRPC".  ``RESOURCE_EXHAUSTED`` may be tried again only with a ``RetryInfo``; a
server that says with it that a message is too large gets halves.  Imported only where a target speaks gRPC.
"""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
from grpc import aio

from tracefwd import __version__
from tracefwd.errors import StartError
from tracefwd.exporter import otlp_answers, otlp_frames, verdicts
from tracefwd.exporter.auth import Credentials, CredentialsError
from tracefwd.exporter.compress import plain
from tracefwd.exporter.endpoint import shown
from tracefwd.exporter.http_client import is_loopback
from tracefwd.exporter.http_sender import authorizing, shown_words
from tracefwd.model import Outcome, Signal
from tracefwd.settings import ExporterSettings, TargetSettings

_TRACES = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
_METRICS = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
_DETAILS = "grpc-status-details-bin"
# How servers word it when a message is above their limit (gRPC's own say "larger than max").
_TOO_LARGE = ("larger than max", "too large", "exceeds")
_PORT = 4317
# Calls after which nobody knows whether the records arrived.
_AMBIGUOUS = frozenset({"CANCELLED", "DEADLINE_EXCEEDED", "UNAVAILABLE", "UNKNOWN", "ABORTED"})


class GrpcChannel:
    """The connection of one target, shared by its signals; made at ``open``."""

    def __init__(self, settings: TargetSettings, exporter: ExporterSettings) -> None:
        self._settings = settings
        self._packs = exporter.gzip
        self._channel: aio.Channel | None = None

    async def open(self) -> None:
        """Raises ``StartError`` if the file of certificate authorities cannot be used; connects to nobody yet."""
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
        if parts.scheme == "https":
            self._channel = aio.secure_channel(
                address, grpc.ssl_channel_credentials(self._authorities()), options, packs
            )
        else:
            self._channel = aio.insecure_channel(address, options, packs)

    def call(self, method: str) -> Any:
        assert self._channel is not None, "open() comes first"
        return self._channel.unary_unary(method)

    async def close(self) -> None:
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
        settings: TargetSettings,
        signal: Signal,
        request_timeout: float,
    ) -> None:
        self.shown = shown(settings.url)
        self._channel = channel
        self._auth = auth
        self._auth_header = settings.token_header
        self._signal = signal
        self._method = _TRACES if signal is Signal.SPANS else _METRICS
        self._timeout = request_timeout

    async def send(self, data: bytes, encoding: str) -> Outcome:
        request = otlp_frames.request(plain(data, encoding))
        try:
            authorization = await self._auth.header()
        except CredentialsError as problem:
            return Outcome(verdicts.RETRY, "auth", str(problem))
        headers = authorizing(self._auth_header, authorization) if authorization else {}
        metadata = tuple((name.lower(), value) for name, value in headers.items())
        try:
            call = self._channel.call(self._method)
            answer = await call(request, timeout=self._timeout, metadata=metadata)
        except aio.AioRpcError as error:
            return self._failed(error, authorization)
        refused, message = otlp_answers.partial_success(self._signal, answer)
        words = shown_words(message, self._auth)
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
            words += f"; {self._auth.advice()}"
        text = shown_words(details, self._auth)
        return Outcome(
            verdict,
            f"grpc_{code.lower()}",
            f"{words}: {text}" if text else words,
            wait_ms,
            ambiguous=code in _AMBIGUOUS,
        )

    @staticmethod
    def _wait_ms(error: aio.AioRpcError) -> int | None:
        for name, value in error.trailing_metadata() or ():
            if name == _DETAILS and isinstance(value, bytes):
                return otlp_answers.retry_after_ms(value)
        return None
