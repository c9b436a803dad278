"""One place that takes lines, a Wavefront proxy, direct ingestion or an OTLP receiver: its connections, credentials and
senders.

A target is one of these, or several when it has failovers.  What speaks OTLP is imported only where it is wanted.
"""

from typing import TYPE_CHECKING

from tracefwd.exporter.auth import Credentials, FreeHeaders, credentials
from tracefwd.exporter.endpoint import endpoints
from tracefwd.exporter.http_client import HttpClient
from tracefwd.exporter.http_sender import HttpSender
from tracefwd.exporter.route import Sender
from tracefwd.exporter.tcp_sender import TcpSender
from tracefwd.model import Signal
from tracefwd.settings import ExporterSettings, TargetSettings

if TYPE_CHECKING:
    from tracefwd.exporter.otlp_grpc_sender import GrpcChannel


class Destination:
    """``senders`` has no entry for a signal that the settings give no URL for.

    ``client``: a session of the caller's making, for who wants to see every answer; it belongs to the destination.
    """

    def __init__(
        self,
        settings: TargetSettings,
        exporter: ExporterSettings,
        client: HttpClient | None = None,
    ) -> None:
        self.name = settings.name
        self._client = client or HttpClient(settings, exporter)
        self._credentials = credentials(settings, self._client)
        self._channel: GrpcChannel | None = None
        if settings.kind != "otlp":
            self.senders = _wavefront_senders(settings, exporter, self._client, self._credentials)
        elif settings.protocol == "http":
            self.senders = _otlp_http_senders(settings, exporter, self._client, self._credentials)
        else:
            self.senders = self._otlp_grpc_senders(settings, exporter)

    def _otlp_grpc_senders(
        self, settings: TargetSettings, exporter: ExporterSettings
    ) -> dict[Signal, Sender]:
        from tracefwd.exporter.otlp_grpc_sender import GrpcChannel, OtlpGrpcSender

        channel = self._channel = GrpcChannel(settings, packs=packs(settings, exporter))
        free_headers = FreeHeaders(settings)
        return {
            signal: OtlpGrpcSender(
                channel,
                self._credentials,
                free_headers,
                settings,
                signal,
                exporter.request_timeout,
            )
            for signal in endpoints(settings)
        }

    async def open(self) -> None:
        """Raises ``StartError`` where a file of the settings cannot be used; connects to nobody yet."""
        await self._client.open()
        if self._channel is not None:
            await self._channel.open()

    async def close(self) -> None:
        for sender in self.senders.values():
            await sender.close()
        if self._channel is not None:
            await self._channel.close()
        await self._credentials.close()
        await self._client.close()


def packs(settings: TargetSettings, exporter: ExporterSettings) -> bool:
    """Whether requests to a target of OTLP are compressed."""
    if settings.compression == "auto":
        return exporter.gzip
    return settings.compression == "gzip"


def _wavefront_senders(
    settings: TargetSettings, exporter: ExporterSettings, client: HttpClient, auth: Credentials
) -> dict[Signal, Sender]:
    senders: dict[Signal, Sender] = {}
    tcp: dict[str, TcpSender] = {}  # signals of one port share its connections
    for signal, url in endpoints(settings).items():
        if not url.startswith("tcp://"):
            senders[signal] = HttpSender(client, auth, settings.kind, url)
            continue
        if url not in tcp:
            tcp[url] = TcpSender(
                url,
                connect_timeout=exporter.connect_timeout,
                request_timeout=exporter.request_timeout,
            )
        senders[signal] = tcp[url]
    return senders


def _otlp_http_senders(
    settings: TargetSettings, exporter: ExporterSettings, client: HttpClient, auth: Credentials
) -> dict[Signal, Sender]:
    from tracefwd.exporter.otlp_http_sender import OtlpHttpSender

    free_headers = FreeHeaders(settings)
    return {
        signal: OtlpHttpSender(
            client,
            auth,
            url,
            signal,
            auth_header=settings.token_header,
            free_headers=free_headers,
            packs=packs(settings, exporter),
        )
        for signal, url in endpoints(settings).items()
    }
