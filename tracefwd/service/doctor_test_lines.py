"""What ``tracefwd doctor`` sends to see whether it is taken: one span, its log, and the RED that it would give.

Nobody can take them for traffic: application, service, source and operation all say who made them, and each run has a
trace of its own.  They are rendered by the writer that ``run`` uses for the target, so what is proved is what will be
sent.  ``debug`` keeps the span through a proxy's sampling.
"""

import secrets
import time
from collections.abc import Sequence
from dataclasses import replace

from tracefwd.compose import make_writer, writer_key
from tracefwd.exporter.otlp_writer import OtlpWriter
from tracefwd.model import Annotation, Identity, Payload, RedPoint, Signal, WavefrontSpan
from tracefwd.processor.red import RedAggregator
from tracefwd.settings import RedSettings, Settings, TargetSettings

NAME = "tracefwd-doctor"
"""Application, service, source and operation."""

_DURATION_MS = 1
_IDENTITY = Identity(NAME, NAME, "none", "none", NAME, NAME)


def marked_span(now_ms: int) -> WavefrontSpan:
    tags = {
        "application": NAME,
        "service": NAME,
        "cluster": "none",
        "shard": "none",
        "component": NAME,
        "debug": "true",
    }
    return WavefrontSpan(
        _IDENTITY,
        NAME,
        NAME,
        secrets.token_hex(16),
        secrets.token_hex(8),
        None,
        "",
        "",
        False,
        now_ms - _DURATION_MS,
        _DURATION_MS,
        _DURATION_MS * 1_000,
        (),
        tags,
        debug=True,
        logs=[Annotation(now_ms * 1_000, "a test of tracefwd doctor")],
    )


def payloads(target: TargetSettings, settings: Settings) -> dict[Signal, Payload]:
    """By signal, what the target would be sent; a signal that its version cannot take is left out."""
    now_s = int(time.time())
    span = marked_span(now_s * 1_000)
    if writer_key(target, settings).otlp:
        otlp = OtlpWriter(NAME)
        written = [*otlp.write([span]), *otlp.write_red(_red(span, now_s), now_s)]
    else:
        lines = make_writer(target, settings)
        written = [*lines.write([span]), *lines.write_red(_red(span, now_s), now_s)]
    return {payload.signal: payload for payload in written if payload.items}


def _red(span: WavefrontSpan, now_s: int) -> Sequence[RedPoint]:
    red = RedAggregator(replace(RedSettings(), series_max=1))
    red.observe([span], now_s)
    return [item for item in red.drain(now_s) if isinstance(item, RedPoint)]


__all__ = ["NAME", "marked_span", "payloads"]
