"""One place that takes lines, a Wavefront proxy or direct ingestion: its connections, credentials and senders.

A target is one of these, or several when it has failovers.
"""

from tracefwd.exporter.auth import credentials
from tracefwd.exporter.endpoint import endpoints
from tracefwd.exporter.http_client import HttpClient
from tracefwd.exporter.http_sender import HttpSender
from tracefwd.exporter.route import Sender
from tracefwd.exporter.tcp_sender import TcpSender
from tracefwd.model import Signal
from tracefwd.settings import ExporterSettings, TargetSettings


class Destination:
    """``senders`` has no entry for a signal that the settings give no URL for."""

    def __init__(self, settings: TargetSettings, exporter: ExporterSettings) -> None:
        self.name = settings.name
        self.senders: dict[Signal, Sender] = {}
        self._client = HttpClient(settings, exporter)
        self._credentials = credentials(settings, self._client)
        tcp: dict[str, TcpSender] = {}  # signals of one port share its connections
        for signal, url in endpoints(settings).items():
            if not url.startswith("tcp://"):
                sender = HttpSender(self._client, self._credentials, settings.kind, url)
                self.senders[signal] = sender
                continue
            if url not in tcp:
                tcp[url] = TcpSender(
                    url,
                    connect_timeout=exporter.connect_timeout,
                    request_timeout=exporter.request_timeout,
                )
            self.senders[signal] = tcp[url]

    async def open(self) -> None:
        """Raises ``StartError`` where a file of the settings cannot be used; connects to nobody yet."""
        await self._client.open()

    async def close(self) -> None:
        for sender in self.senders.values():
            await sender.close()
        await self._credentials.close()
        await self._client.close()
