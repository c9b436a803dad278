"""``tracefwd demo``: forwarder, stand-in and a mesh's traffic on loopback; nothing outside and no configuration.

1. The forwarder is the real one, workers, scraper and all; only the mesh, its Prometheus and Wavefront are played.
2. Nobody's word is taken for it: what the mesh saw acknowledged, what the forwarder's ledger says and what the
   stand-in accepted are three independent counts, and all must agree in the end.
3. The last line is ``ledger balanced: …`` and the exit code 0, or it says what is missing and the exit code is 1.
"""

import asyncio
import math
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

from tracefwd import metrics
from tracefwd.emulator.server import Emulator, EmulatorSettings
from tracefwd.errors import StartError
from tracefwd.generator import federation
from tracefwd.generator.load import GenOptions, generate
from tracefwd.generator.mesh import TROUBLED
from tracefwd.generator.report import Report
from tracefwd.service import config, logs, sockets, tally
from tracefwd.service.supervisor import Service

# Someone is watching: RED shows after seconds, and all runs see several intervals.
RED_INTERVAL = "5s"
# Two pods of each Bookinfo workload, each with Envoy's two threads, on average.
CONNECTIONS = 28
SUMMARY_INTERVAL_S = 1.0
SCRAPE_INTERVAL = "1s"

_LOOPBACK = "127.0.0.1:0"


def run(seconds: float | None, rate: float, otlp: bool = False) -> int:
    """Until ``seconds`` are over or SIGINT or SIGTERM arrives; the exit code.

    ``rate`` in spans per second; ``otlp``: over gRPC instead of Zipkin's API.  Raises ``StartError`` when a part cannot
    start.
    """
    with asyncio.Runner() as runner:
        return runner.run(_demo(math.inf if seconds is None else seconds, rate, otlp=otlp))


async def _demo(seconds: float, rate: float, *, otlp: bool) -> int:
    screen = Screen()
    stop = asyncio.Event()
    async with _stand_in() as emulator, _prometheus() as prometheus_url:
        flags = _flags(emulator, prometheus_url) | ({"--otlp-grpc": _LOOPBACK} if otlp else {})
        loaded = config.load(None, {}, flags)
        logs.configure(loaded.settings.service)
        service = Service(loaded)
        await service.start()
        try:
            _obey_signals(service, stop)
            exported_to = service.otlp_grpc_url if otlp else ""
            for line in where_to_look(
                service.intake_url, service.admin_url, emulator.url, prometheus_url, exported_to
            ):
                screen.line(line)
            options = GenOptions(
                to=exported_to or service.intake_url,
                protocol="otlp-grpc" if otlp else "zipkin-json",
                rate=rate,
                seconds=seconds,
                connections=CONNECTIONS,
                seed=1,
                json=False,
                mood=TROUBLED,
            )
            report = await _watched(service, emulator, options, stop, screen)
            screen.line("traffic stopped; draining")
        finally:
            # Its end is a drain: queued batches and the last RED interval are delivered.
            await service.stop()
        scraped = scraped_points(await service.samples())
        return _conclude(report, await service.ledger(), emulator.totals(), scraped, screen)


@asynccontextmanager
async def _stand_in() -> AsyncIterator[Emulator]:
    emulator = Emulator(EmulatorSettings(listen=_LOOPBACK, trace_listen=_LOOPBACK))
    try:
        await emulator.start()
    except OSError as error:
        reason = error.strerror or str(error)
        raise StartError(f"{reason}; is loopback (127.0.0.1) up?") from error
    try:
        yield emulator
    finally:
        await emulator.stop()


@asynccontextmanager
async def _prometheus() -> AsyncIterator[str]:
    """Plays the mesh's federated Prometheus; gives the URL that selects as the integration does."""
    from aiohttp import web

    began = time.monotonic()

    async def federate(_: web.Request) -> web.Response:
        text = federation.federated(time.monotonic() - began, time.time_ns() // 1_000_000)
        headers = {"Content-Type": federation.CONTENT_TYPE}
        answer = web.Response(body=text.encode(), headers=headers)
        answer.enable_compression()
        return answer

    application = web.Application()
    application.router.add_get("/federate", federate)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        sock = sockets.listen(_LOOPBACK, "the played Prometheus", flag="")
        await web.SockSite(runner, sock).start()
        yield f"{sockets.url(sock)}/federate?{federation.SELECTOR}"
    finally:
        await runner.cleanup()


def _flags(emulator: Emulator, prometheus_url: str) -> dict[str, Any]:
    return {
        "--listen": _LOOPBACK,
        "--admin": _LOOPBACK,
        "--proxy-traces": emulator.trace_url,
        "--proxy-metrics": emulator.url,
        "red.interval": RED_INTERVAL,
        "prometheus_sources": [
            {
                "url": prometheus_url,
                "filters": federation.FILTERS,
                "collection": {"interval": SCRAPE_INTERVAL},
            }
        ],
        "metrics.cluster": "demo",
        # The summary tells the rest.
        "service.log_level": "warning",
    }


def _obey_signals(service: Service, stop: asyncio.Event) -> None:
    def leave() -> None:
        if stop.is_set():
            service.hurry()
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, leave)


async def _watched(
    service: Service,
    emulator: Emulator,
    options: GenOptions,
    stop: asyncio.Event,
    screen: "Screen",
) -> Report:
    """Let the mesh run, with a summary every second, until it ends or a worker cannot be replaced."""
    latest = Report()

    def progress(report: Report) -> None:
        nonlocal latest
        latest = report

    traffic = asyncio.create_task(generate(options, progress=progress, stop=stop))
    failed = asyncio.create_task(service.failed())
    try:
        while not traffic.done():
            await asyncio.wait(
                {traffic, failed},
                timeout=SUMMARY_INTERVAL_S,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if failed.done():
                raise failed.result()
            if not traffic.done():
                ledger, samples = await service.ledger(), await service.samples()
                screen.live(summary(latest, ledger, samples, emulator.totals()))
        return await traffic
    finally:
        failed.cancel()
        # Ends the traffic when it is not what ended us.
        stop.set()
        await asyncio.gather(traffic, failed, return_exceptions=True)


def _conclude(
    report: Report,
    ledger: dict[str, Any],
    totals: dict[str, Any],
    scraped: float,
    screen: "Screen",
) -> int:
    spans, red = totals["spans"], totals["deltas"]["red"]
    screen.line(
        f"the mesh sent {report.sent:,} spans and saw {report.acked:,} acknowledged;"
        f" the stand-in accepted {spans['accepted']:,} spans, {totals['points']['accepted']:,} points"
        f" and {totals['distributions']['accepted']:,} distributions; RED counted"
        f" {red['invocation.count']:,.0f} calls, {red['error.count']:,.0f} of them errors;"
        f" {scraped:,.0f} of the points were scraped from the mesh's Prometheus"
    )
    problems = list(missing(report, ledger, totals))
    for problem in problems:
        screen.line(problem)
    balanced, line = tally.balance(ledger)
    if problems and balanced:
        line = "demo failed: mesh, forwarder and stand-in do not agree, see above"
    screen.verdict(line, good=not problems)
    return 1 if problems else 0


# --- pure: what is shown, and what must agree -----------------------------------------------------


def scraped_points(samples: metrics.Samples) -> float:
    return sum(samples.get("tracefwd_scraper_points_total", {}).values())


def where_to_look(
    intake_url: str,
    admin_url: str,
    stand_in_url: str,
    prometheus_url: str,
    otlp_grpc_url: str = "",
) -> Iterator[str]:
    address = (otlp_grpc_url or intake_url).removeprefix("http://")
    yield "tracefwd demo: a mesh's sidecars post their spans to a forwarder, it delivers to a stand-in for Wavefront"
    yield f"  console    {admin_url}/ (open it: ratings fails for one call in four, details is slow)"
    if otlp_grpc_url:
        host, _, port = address.rpartition(":")
        yield f"  intake     {address} (OTLP over gRPC)"
        yield f"  in Istio   meshConfig.extensionProviders[].opentelemetry: service {host}, port {port}"
    else:
        yield f"  intake     {intake_url}/api/v2/spans"
        yield f"  in Istio   meshConfig.defaultConfig.tracing.zipkin.address: {address}"
    yield f"  scraped    {prometheus_url}"
    yield f"  metrics    {admin_url}/metrics"
    yield f"  ledger     {admin_url}/ledger"
    yield f"  Wavefront  {stand_in_url}/totals (also /spans, /series, /lines?signal=spans, /rejects)"


def summary(
    report: Report, ledger: dict[str, Any], samples: metrics.Samples, totals: dict[str, Any]
) -> str:
    """One line of the present state."""
    series = sum(samples.get("tracefwd_red_active_series", {}).values())
    lost = sum(ledger["rejected"].values()) + sum(ledger["dropped"].values())
    return (
        f"{report.seconds:4.0f} s  in {ledger['received']:,}  out {totals['spans']['accepted']:,}"
        f"  held {ledger['held']:,}  lost {lost:,}, unacknowledged posts {report.posts_lost:,}"
        f"  points scraped {scraped_points(samples):,.0f}"
        f"  RED series {series:,.0f},"
        f" calls {totals['deltas']['red']['invocation.count']:,.0f},"
        f" errors {totals['deltas']['red']['error.count']:,.0f}"
        f"  answer p99 {report.latencies.percentile_ms(0.99):.1f} ms"
    )


def missing(report: Report, ledger: dict[str, Any], totals: dict[str, Any]) -> Iterator[str]:
    """A sentence for everything in which mesh, forwarder and stand-in do not agree."""
    if not report.complete:
        yield (
            f"{report.scheduled - report.acked:,} of {report.scheduled:,} spans were not acknowledged:"
            f" answers {report.statuses}, without an answer {report.unanswered},"
            f" without a connection {report.connect_errors + report.overflowed} posts"
        )
    balanced, line = tally.balance(ledger)
    if not balanced:
        yield line
    calls = totals["deltas"]["red"]["invocation.count"]
    for what, have, wanted in (
        ("the ledger received", ledger["received"], report.acked),
        ("the ledger delivered", ledger["delivered"], report.acked),
        ("the stand-in accepted", totals["spans"]["accepted"], report.acked),
        ("RED's invocation counters add up to", calls, report.acked),
        ("RED's distributions count", totals["distributions"]["count"], report.acked),
    ):
        if have != wanted:
            yield f"{what} {have:,.0f} of {wanted:,} acknowledged spans"
    received, accepted = ledger["points"]["received"], totals["points"]["accepted"]
    if received != accepted:
        yield f"the stand-in accepted {accepted:,} of {received:,} points"
    for name in ("spans", "span_logs", "points", "distributions"):
        if rejected := totals[name]["rejected"]:
            yield f"the stand-in refused {rejected:,} {name}: {totals[name]['by_reason']}"
    if doubles := totals["duplicates"]:
        yield f"the stand-in got {doubles:,} spans twice"


class Screen:
    """Standard output: the live line stays in place on a terminal, and is a line like others elsewhere."""

    def __init__(self, write: Callable[[str], object] | None = None) -> None:
        self._write = write or sys.stdout.write
        self._terminal = sys.stdout.isatty()
        self._colour = self._terminal and logs.colour_allowed()
        self._is_live = False

    def line(self, text: str) -> None:
        lead = "\n" if self._is_live else ""
        self._write(f"{lead}{text}\n")
        self._is_live = False
        sys.stdout.flush()

    def live(self, text: str) -> None:
        if not self._terminal:
            self.line(text)
            return
        # "Erase to the end of the line" for what a longer text left there.
        self._write(f"\r{text}\x1b[K")
        self._is_live = True
        sys.stdout.flush()

    def verdict(self, text: str, *, good: bool) -> None:
        green, red, plain = ("\x1b[32m", "\x1b[31m", "\x1b[0m") if self._colour else ("", "", "")
        self.line(f"{green if good else red}{text}{plain}")
