"""What ``tracefwd doctor`` asks one target: the way there, the token, whether each signal is acknowledged, its clock.

All requests go through the senders that ``run`` uses, with their TLS, credentials, HTTP proxies and verdicts.  What
an answer means is said there (``Outcome``); what to do about it is the table here.

A 2xx of a Wavefront proxy says that the proxy took the request: it answers so to lines that it refuses, too.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from urllib.parse import urlsplit

from tracefwd.errors import StartError
from tracefwd.exporter import verdicts
from tracefwd.exporter.compress import gzip_or_plain
from tracefwd.exporter.destination import Destination
from tracefwd.exporter.endpoint import endpoints
from tracefwd.exporter.http_client import HttpClient, Response
from tracefwd.exporter.route import Sender
from tracefwd.model import Outcome, Payload, Signal
from tracefwd.service import doctor_account, doctor_clock, doctor_test_lines
from tracefwd.service.doctor_advice import advice, oddities, port_advice
from tracefwd.service.doctor_findings import Finding, Rows
from tracefwd.service.doctor_network import Place, look_at
from tracefwd.service.masking import redact
from tracefwd.service.source_checks import wants_scraper
from tracefwd.service.units import format_duration
from tracefwd.settings import ExporterSettings, Settings, TargetSettings

_PORTS = {"http": 80, "https": 443}
_GRPC_PORT = 4317
# What a target says of a request without a line, after it has taken the token.
_PAST_THE_TOKEN = frozenset({"http_400", "http_406", "http_413", "http_429"})


class WatchedClient(HttpClient):
    """Remembers how far ahead of ours the servers' clocks are (s), of each answer with a Date."""

    def __init__(self, settings: TargetSettings, exporter: ExporterSettings) -> None:
        super().__init__(settings, exporter)
        self.skews: list[float] = []

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Response:
        began = time.time()
        answer = await super().post(url, body, headers)
        skew = doctor_clock.skew_s(answer.date, (began + time.time()) / 2)
        if skew is not None:
            self.skews.append(skew)
        return answer


class TargetCheck:
    """One target.  ``sends``: whether test lines go out; without, requests that hold nothing."""

    def __init__(
        self, target: TargetSettings, settings: Settings, *, timeout_s: float, sends: bool
    ) -> None:
        exporter = settings.exporter
        self.rows = Rows(f"target {target.name}")
        self._target = target
        self._settings = settings
        self._timeout_s = timeout_s
        self._sends = sends
        self._exporter = replace(
            exporter,
            connect_timeout=min(exporter.connect_timeout, timeout_s),
            request_timeout=min(exporter.request_timeout, timeout_s),
        )
        self._client = WatchedClient(target, self._exporter)

    async def run(self) -> list[Finding]:
        destination = Destination(self._target, self._exporter, self._client)
        try:
            await destination.open()
        except StartError as error:
            what, _, todo = str(error).partition(": give ")
            await destination.close()
            todo = f"give {todo}" if todo else "give files in PEM that this user can read"
            return [self.rows.cross("tls", what, todo)]
        try:
            return await self._look(destination.senders)
        finally:
            await destination.close()

    async def _look(self, senders: Mapping[Signal, Sender]) -> list[Finding]:
        rows = self.rows
        found = [
            rows.warning("settings", what, todo)
            for what, todo in oddities(self._target, self._settings)
        ]
        urls = endpoints(self._target)
        ways = self._ways()
        looks = [look_at(place, rows, self._timeout_s) for place in ways.values()]
        results = dict(zip(ways, await asyncio.gather(*looks), strict=True))
        seen: set[tuple[str, str]] = set()
        for way in results.values():
            # Ports of one host share its name.
            for each in way.findings:
                if (each.check, each.detail) not in seen:
                    seen.add((each.check, each.detail))
                    found.append(each)
        is_open = {url: results[self._behind(url)].is_open for url in self._urls()}
        if self._asks_for_token():
            found.append(await self._token(senders, all(is_open.values())))
        lines = doctor_test_lines.payloads(self._target, self._settings)
        asked = [
            self._signal(
                signal, senders.get(signal), lines.get(signal), is_open.get(urls.get(signal, ""))
            )
            for signal in Signal
        ]
        account, told = await asyncio.gather(self._account(is_open), asyncio.gather(*asked))
        found += [each for each in told if each is not None]
        found += account
        found.append(self._clock())
        return found

    # --- the way there ---

    def _urls(self) -> list[str]:
        """Everything that is connected to."""
        urls = list(dict.fromkeys(endpoints(self._target).values()))
        if self._target.kind == "direct" and (
            self._target.csp_token_file or self._target.csp_app_id
        ):
            urls.append(self._target.csp_base)
        return urls

    def _behind(self, url: str) -> str:
        """Host and port that a connection for ``url`` goes to: an HTTP proxy's, where there is one."""
        place = self._place(url)
        return f"{place.host}:{place.port}"

    def _ways(self) -> dict[str, Place]:
        """By host and port, each once."""
        return {self._behind(url): self._place(url) for url in self._urls()}

    def _role(self, url: str) -> str:
        is_csp = self._target.kind == "direct" and url == self._target.csp_base
        return "CSP's, for the token" if is_csp else ""

    def _place(self, url: str) -> Place:
        proxy = self._client.proxy_for(url)
        parts = urlsplit(proxy or url)
        is_grpc = self._target.kind == "otlp" and self._target.protocol == "grpc"
        default = _GRPC_PORT if is_grpc else 0
        port = parts.port or default or _PORTS.get(parts.scheme, 80)
        # What an HTTP proxy's tunnel leads to shows when it is used.
        verifies = parts.scheme == "https" and proxy is None
        return Place(
            parts.hostname or "",
            port,
            "the HTTP proxy's" if proxy else self._role(url),
            port_advice(self._target, url, proxied=proxy is not None),
            tls=self._client.tls_context if verifies else None,
            ca_file=self._target.ca_file,
        )

    # --- the token ---

    def _asks_for_token(self) -> bool:
        target = self._target
        return target.kind == "direct" or bool(target.token_file or target.headers)

    async def _token(self, senders: Mapping[Signal, Sender], is_open: bool) -> Finding:
        """Asked with a request that holds nothing."""
        rows = self.rows
        signal, sender = next(
            (pair for pair in senders.items() if pair[1].takes_gzip or self._target.kind == "otlp"),
            (Signal.POINTS, None),
        )
        if sender is None:
            return rows.skipped("token", "over plain TCP none is shown")
        if not is_open:
            return rows.skipped("token", "there is no way to the target, see above")
        outcome = await sender.send(b"", "")
        if outcome.verdict == verdicts.DELIVERED or outcome.reason in _PAST_THE_TOKEN:
            return rows.ok("token", "accepted")
        return rows.cross("token", redact(outcome.detail), advice(self._target, signal, outcome))

    async def _account(self, is_open: Mapping[str, bool]) -> list[Finding]:
        url = endpoints(self._target).get(Signal.POINTS, "")
        if self._target.kind != "proxy" or not is_open.get(url):
            return []
        return await doctor_account.findings(self._target, self._exporter, self.rows)

    # --- what is sent ---

    async def _signal(
        self,
        signal: Signal,
        sender: Sender | None,
        payload: Payload | None,
        is_open: bool | None,
    ) -> Finding | None:
        rows, check = self.rows, signal.value.replace("_", " ")
        if sender is None:
            # Span logs travel inside OTLP's spans.
            if self._target.kind == "otlp":
                return None
            option = "traces" if signal in (Signal.SPANS, Signal.SPAN_LOGS) else "metrics"
            return rows.skipped(check, f"the target has no URL for them ({option})")
        if reason := self._unused(signal):
            return rows.skipped(check, reason)
        if payload is None:
            version = self._settings.exporter.proxy_version
            return rows.skipped(check, f"a proxy of version {version} takes none")
        if not is_open:
            return rows.skipped(check, "there is no way to the target, see above")
        is_tcp = urlsplit(sender.shown).scheme == "tcp"
        if is_tcp and not self._sends:
            return rows.skipped(check, "nothing is sent (--no-send)")
        data = payload.data if self._sends else b""
        began = time.monotonic()
        outcome = await sender.send(*self._packed(data, sender))
        took = format_duration(round(time.monotonic() - began, 3))
        return self._judged(check, signal, outcome, f"{sender.shown}: {self._what(signal)}", took)

    def _unused(self, signal: Signal) -> str:
        """Why ``run`` would not send this signal; "" if it would."""
        settings = self._settings
        is_metric = signal in (Signal.POINTS, Signal.DISTRIBUTIONS)
        if not is_metric:
            return "service.only is metrics" if settings.service.only == "metrics" else ""
        if settings.red.enabled or wants_scraper(settings):
            return ""
        return "red.enabled is false, and nothing is scraped"

    def _packed(self, data: bytes, sender: Sender) -> tuple[bytes, str]:
        packs = self._exporter.gzip and sender.takes_gzip and bool(data)
        return gzip_or_plain(data, packs=packs)

    def _what(self, signal: Signal) -> str:
        if not self._sends:
            return "an empty request"
        is_otlp = self._target.kind == "otlp"
        return {
            Signal.SPANS: "a test span",
            Signal.SPAN_LOGS: "the test span's log",
            Signal.POINTS: "the test span's counters" + ("" if is_otlp else " (∆ lines)"),
            Signal.DISTRIBUTIONS: "the test span's durations" + ("" if is_otlp else " (a !M line)"),
        }[signal]

    def _judged(
        self, check: str, signal: Signal, outcome: Outcome, what: str, took: str
    ) -> Finding:
        rows = self.rows
        if outcome.verdict == verdicts.UNACKNOWLEDGED:
            todo = "write the URL with http:// to have lines acknowledged and authorized"
            return rows.warning(check, f"{what}: written; TCP acknowledges nothing", todo)
        if outcome.verdict == verdicts.DELIVERED and not self._sends:
            return rows.ok(check, f"{what}: answered in {took}; nothing was sent (--no-send)")
        if outcome.verdict == verdicts.DELIVERED and not outcome.refused_items:
            return rows.ok(check, f"{what}: acknowledged in {took}")
        if not self._sends and outcome.reason in _PAST_THE_TOKEN:
            return rows.ok(check, f"{what}: answered in {took} ({outcome.reason})")
        refused = "taken, but the content was refused" if outcome.refused_items else "not taken"
        detail = f"{what}: {refused}: {redact(outcome.detail) or 'no reason was given'}"
        return rows.cross(check, detail, advice(self._target, signal, outcome))

    def _clock(self) -> Finding:
        if not self._client.skews:
            why = "no answer had a Date (Wavefront proxies and gRPC send none)"
            return self.rows.skipped("clock", why)
        return doctor_clock.judged(self.rows, self._client.skews)


def checks(settings: Settings, *, timeout_s: float, sends: bool) -> Iterator[TargetCheck]:
    for target in settings.exporter.targets:
        yield TargetCheck(target, settings, timeout_s=timeout_s, sends=sends)


__all__ = ["TargetCheck", "checks"]
