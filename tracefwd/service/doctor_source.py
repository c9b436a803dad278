"""What ``tracefwd doctor`` asks one scraped source: the way there, and whether a scrape brings Istio's metrics.

The scrape is ``run``'s own, with its credentials, certificates and translation; its points go nowhere.  A body that is
too large for the doctor's patience is read as far as it comes: that it comes is the answer.
"""

import asyncio
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from urllib.parse import urlsplit

from tracefwd.metricspath.points import Counts
from tracefwd.metricspath.translate import Scrape, Translation
from tracefwd.service import doctor_clock
from tracefwd.service.doctor_findings import Finding, Rows
from tracefwd.service.doctor_network import Place, look_at
from tracefwd.service.scrape_client import ScrapeClient, ScrapeFailed
from tracefwd.service.scrape_files import TlsFiles
from tracefwd.service.source_checks import source_name
from tracefwd.service.units import format_duration
from tracefwd.settings import PrometheusSourceSettings, Settings

# Of Istio's own processes and sidecars; names may carry a prefix of the federation.
_FAMILIES = ("istio", "envoy", "pilot", "citadel", "galley")
_PORTS = {"http": 80, "https": 443}

_ADVICE = {
    "http_401": "give it credentials (httpConfig), or renew those that are given",
    "http_403": "allow the credentials (or this pod's service account) to read this path",
    "http_404": "nothing is exposed at this path: check the URL (/federate, /metrics)",
    "content_type": "a page answers, no exposition: check the path of the URL",
    "empty": "see in Prometheus itself whether match[] selects anything",
    "file": "mount the file, or correct its path",
    "tls": "name the authority's certificate in httpConfig.tls_config.ca_file",
    "too_large": "narrow match[], or raise metrics.body_bytes_max",
    "timeout": "somebody took the connection and says nothing: narrow match[], or see whether it is overloaded",
}
_PORT_ADVICE = "see that Prometheus runs and that host and port of the URL are right"


class SourceCheck:
    def __init__(
        self, source: PrometheusSourceSettings, settings: Settings, timeout_s: float
    ) -> None:
        self.rows = Rows(f"source {source_name(source)}")
        self._source = source
        self._timeout_s = timeout_s
        self._translation = Translation(source, settings.metrics)
        self._answered_s = time.time()
        self._client = ScrapeClient(source, body_bytes_max=settings.metrics.body_bytes_max)

    async def run(self) -> list[Finding]:
        await self._client.open()
        try:
            proxied = self._client.proxy_for(self._source.url) is not None
            if proxied:
                return await self._asked()
            try:
                way = await look_at(self._place(), self.rows, self._timeout_s)
            except ScrapeFailed as failure:
                return [self._failed(failure)]
            return [*way.findings, *await self._asked()] if way.is_open else way.findings
        finally:
            await self._client.close()

    def _place(self) -> Place:
        """Raises ``ScrapeFailed`` where a certificate's file cannot be used."""
        tls = self._source.httpConfig.tls_config
        parts = urlsplit(self._source.url)
        context = TlsFiles(tls).context(needed=parts.scheme == "https")
        return Place(
            parts.hostname or "",
            parts.port or _PORTS.get(parts.scheme, 80),
            "",
            _PORT_ADVICE,
            tls=partial(_same, context)
            if context is not None and parts.scheme == "https"
            else None,
            server_name=tls.server_name,
            ca_option="httpConfig.tls_config.ca_file",
            ca_file=tls.ca_file,
        )

    async def _asked(self) -> list[Finding]:
        began = time.time()
        found = [await self._scraped()]
        # Of the beginning of the answer, which a scrape's time is long after.
        skew = doctor_clock.skew_s(self._client.date, (began + self._answered_s) / 2)
        return found if skew is None else [*found, doctor_clock.judged(self.rows, [skew])]

    async def _scraped(self) -> Finding:
        bodies: list[Scrape] = []

        def begin(content_type: str) -> Callable[[bytes], None]:
            body = self._translation.begin(time.time(), content_type)
            bodies.append(body)
            self._answered_s = time.time()

            def take(piece: bytes) -> None:
                body.feed(piece)

            return take

        whole = True
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._client.scrape(begin)
        except TimeoutError:
            whole = False
        except ScrapeFailed as failure:
            return self._failed(failure)
        for body in bodies:
            body.finish(complete=whole)
        if not any(body.counts.samples for body in bodies):
            why = "the body has no sample"
            if not whole:
                why = f"within {format_duration(self._timeout_s)} no sample came"
            return self._failed(ScrapeFailed("empty" if whole else "timeout", why))
        return self._judged([body.counts for body in bodies], whole)

    def _judged(self, bodies: Sequence[Counts], whole: bool) -> Finding:
        samples, points = sum(each.samples for each in bodies), sum(each.points for each in bodies)
        report = self._translation.report()
        names = {*report.sent, *report.not_sent}
        istio = sum(any(word in name for word in _FAMILIES) for name in names)
        detail = f"{samples:,} samples, {points:,} points, {istio:,} names of Istio's"
        dropped: dict[str, int] = {}
        for each in bodies:
            for reason, number in each.dropped.items():
                dropped[reason] = dropped.get(reason, 0) + number
        if dropped:
            table = ", ".join(f"{reason} {number:,}" for reason, number in sorted(dropped.items()))
            detail += f"; not sent: {table}"
        if not whole:
            detail += f"; reading ended after {format_duration(self._timeout_s)}, more was coming"
        if not istio:
            todo = "dashboards need istio_*, envoy_* and pilot_*: see what match[] selects, and who scrapes Istio"
            return self.rows.cross("scrape", detail, todo)
        if not points:
            todo = "no point is left: tracefwd metrics check says what is taken by which filter or bound"
            return self.rows.cross("scrape", detail, todo)
        return self.rows.ok("scrape", detail)

    def _failed(self, failure: ScrapeFailed) -> Finding:
        todo = _ADVICE.get(failure.reason, "read the log of whoever answers there")
        return self.rows.cross("scrape", str(failure), todo)


def _same(context: ssl.SSLContext) -> ssl.SSLContext:
    return context


def checks(settings: Settings, *, timeout_s: float) -> Iterator[SourceCheck]:
    if settings.service.only == "spans":
        return
    for source in settings.prometheus_sources:
        yield SourceCheck(source, settings, timeout_s)


__all__ = ["SourceCheck", "checks"]
