"""What the account behind a Wavefront proxy may not send, which the proxy tells to who asks in the right way.

A proxy drops what its account has switched off: on the trace port, and of lines that it tells apart by itself, behind
a 2xx.  Only a request to the metrics port that names its format (``?f=histogram``, from 7.0 on) is refused with a 403,
even one without a line.  Proxies before that ignore the format.
"""

import asyncio
from dataclasses import replace
from urllib.parse import urlsplit

from tracefwd.exporter.destination import Destination
from tracefwd.model import Signal
from tracefwd.service.doctor_advice import advice
from tracefwd.service.doctor_findings import Finding, Rows
from tracefwd.settings import ExporterSettings, TargetSettings

_CHECK = "account"
_SWITCHED_OFF = "http_403"


async def findings(target: TargetSettings, exporter: ExporterSettings, rows: Rows) -> list[Finding]:
    """Of a proxy whose metrics port is open; nothing is sent."""
    if urlsplit(target.metrics).scheme not in ("http", "https"):
        why = "what is switched off for it shows at a metrics port over HTTP only"
        return [rows.skipped(_CHECK, why)]
    wanted = [Signal.SPANS, Signal.SPAN_LOGS] if target.traces else []
    wanted.append(Signal.DISTRIBUTIONS)
    # Of a URL that names a format each signal gets its own (``endpoint.py``).
    asked = replace(
        target, traces=f"{target.metrics}?f=trace", metrics=f"{target.metrics}?f=wavefront"
    )
    destination = Destination(asked, exporter)
    try:
        await destination.open()
        senders = destination.senders
        outcomes = await asyncio.gather(*(senders[signal].send(b"", "") for signal in wanted))
    finally:
        await destination.close()
    found = [
        rows.cross(
            f"{_CHECK} {signal.value.replace('_', ' ')}",
            f"the proxy drops them, whatever it answers elsewhere: {outcome.detail}",
            advice(target, signal, outcome),
        )
        for signal, outcome in zip(wanted, outcomes, strict=True)
        if outcome.reason == _SWITCHED_OFF
    ]
    if not found and all(outcome.reason for outcome in outcomes):
        return [rows.skipped(_CHECK, f"the metrics port does not say ({outcomes[0].detail})")]
    return found or [rows.ok(_CHECK, "the proxy knows of nothing that is switched off for it")]


__all__ = ["findings"]
