"""Batches of OTLP records over HTTP: lines become a request in protobuf, and the answer may take a part of it only.

Source: the OTLP specification, "OTLP/HTTP".  Credentials, time-outs, TLS and HTTP proxies are ``http_sender.py``'s.
"""

from tracefwd.exporter import otlp_answers, otlp_frames, verdicts
from tracefwd.exporter.auth import Credentials, FreeHeaders
from tracefwd.exporter.compress import gzip_or_plain, plain
from tracefwd.exporter.http_client import HttpClient, Response
from tracefwd.exporter.http_sender import HttpSender
from tracefwd.model import Outcome, Signal


class OtlpHttpSender(HttpSender):
    # Batches wait as lines and are packed as requests: packing them twice would win nothing.
    takes_gzip = False

    def __init__(
        self,
        client: HttpClient,
        auth: Credentials,
        url: str,
        signal: Signal,
        *,
        auth_header: str,
        free_headers: FreeHeaders,
        packs: bool,
    ) -> None:
        super().__init__(client, auth, "otlp", url, auth_header, free_headers)
        self._signal = signal
        self._packs = packs

    async def send(self, data: bytes, encoding: str) -> Outcome:
        body = otlp_frames.request(plain(data, encoding))
        return await super().send(*gzip_or_plain(body, packs=self._packs))

    def _delivered(self, answer: Response) -> Outcome:
        refused, message = otlp_answers.partial_success(self._signal, answer.body)
        return Outcome(verdicts.DELIVERED, detail=self._shown(message), refused_items=refused)

    def _words(self, answer: Response) -> str:
        return otlp_answers.status_message(answer.body)
