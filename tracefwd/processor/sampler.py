"""Sampler: keep a span, or let it go.

In this order:

1. A span that somebody asked for (``debug``) is kept, whatever else holds.
2. The rate of its service, of its application, or of all keeps it by its trace's place (``sampler_rules.py``).
3. What the rate would drop is kept if it is an error (``keep_errors``), or longer than ``duration`` or ``keep_slow``.
4. The ceiling takes its share of what is left (``ceiling.py``), favoured spans (3) last.

``duration`` is the proxy's: with a rate it adds the slow spans; without one *only* slow spans are kept.  So it is
documented.  What the proxy really does is ``as_documented: false``, and always ``exact``: without a rate,
``duration`` has no effect at all, and rate 0 keeps one trace in 10,000.  ``keep_slow`` only ever keeps more.

RED counts spans whatever the answer here.  Nothing but the ceiling remembers anything, and that is load, not fate:
``sift`` may be called for a request that is never committed.
"""

from collections.abc import Sequence
from math import inf
from typing import NamedTuple

from tracefwd.model import WavefrontSpan
from tracefwd.processor.ceiling import ASKED, FAVOURED, OTHER, Ceiling
from tracefwd.processor.sampler_rules import (
    CEILING,
    DURATION,
    EVERYTHING,
    NOTHING,
    POLICIES,
    RATE,
    Line,
    OwnRates,
    distance,
    line_of,
)
from tracefwd.settings import SamplingSettings


class Sifted(NamedTuple):
    """What a batch's spans came to: those to send, and how many each policy held back (None: none)."""

    kept: list[WavefrontSpan]
    out: dict[str, int] | None


class SpanSampler:
    """Judges spans; one per worker, because of the ceiling."""

    def __init__(
        self,
        *,
        line: Line,
        own_rates: OwnRates,
        keep_errors: bool,
        slow_ms: float,
        ceiling: Ceiling | None,
    ) -> None:
        """``slow_ms``: longer spans are kept whatever their rate says; ``inf`` for none."""
        self._line = line
        self._own_rates = own_rates or None
        self._keep_errors = keep_errors
        self._slow_ms = slow_ms
        self._ceiling = ceiling
        self._counts = dict.fromkeys(POLICIES, 0)

    def sift(self, spans: Sequence[WavefrontSpan], now_us: int) -> Sifted:
        """Judge a batch.  Nothing is counted before ``count``."""
        if self._ceiling is None and self._own_rates is None:
            return self._sift_by_rate(spans)
        judge = self.judge
        if self._ceiling is not None:
            self._ceiling.observe(now_us)
            judge = self._judge_under_ceiling
        kept: list[WavefrontSpan] = []
        out: dict[str, int] = {}
        for span in spans:
            policy = judge(span)
            if not policy:
                kept.append(span)
            else:
                out[policy] = out.get(policy, 0) + 1
        return Sifted(kept, out or None)

    def _sift_by_rate(self, spans: Sequence[WavefrontSpan]) -> Sifted:
        """``judge`` for each span, written out: two calls a span are half of its cost."""
        line, policy = self._line
        errors, slow_ms = self._keep_errors, self._slow_ms
        kept: list[WavefrontSpan] = []
        for span in spans:
            low = int(span.trace_id[-16:], 16)
            if low >= 0x8000000000000000:
                low = 0x10000000000000000 - low
            if (
                low % 10_000 <= line
                or (errors and span.error)
                or span.duration_ms > slow_ms
                or span.debug
            ):
                kept.append(span)
        out = len(spans) - len(kept)
        return Sifted(kept, {policy: out} if out else None)

    def count(self, out: dict[str, int]) -> None:
        """What a committed batch lost."""
        for policy, number in out.items():
            self._counts[policy] += number

    def counts(self) -> dict[str, int]:
        """Spans sampled out since the start, by policy."""
        return dict(self._counts)

    def judge(self, span: WavefrontSpan) -> str:
        """The policy that lets the span go, or "" if it is kept; without the ceiling, which is a matter of load."""
        line, policy = self._line_for(span)
        if line >= EVERYTHING or (line >= 0 and distance(span.trace_id) <= line):
            return ""
        if span.debug or (span.error and self._keep_errors) or span.duration_ms > self._slow_ms:
            return ""
        return policy

    def reach(self, span: WavefrontSpan) -> int:
        """The last place up to which spans like this one are kept, for who has to let go of more (``shed.py``)."""
        if span.debug or (span.error and self._keep_errors) or span.duration_ms > self._slow_ms:
            return EVERYTHING
        return self._line_for(span)[0]

    def judge_logs(self, span: WavefrontSpan, now_us: int) -> str:
        """The same for logs that come apart from their span: they follow it, and are no load of their own."""
        if self._ceiling is None:
            return self.judge(span)
        self._ceiling.observe(now_us)
        return self._judge_under_ceiling(span, is_load=False)

    def _judge_under_ceiling(self, span: WavefrontSpan, *, is_load: bool = True) -> str:
        assert self._ceiling is not None
        line, policy = self._line_for(span)
        place = distance(span.trace_id)
        if span.debug:
            rank, line = ASKED, EVERYTHING
        elif (span.error and self._keep_errors) or span.duration_ms > self._slow_ms:
            rank, line = FAVOURED, EVERYTHING
        elif place <= line:
            rank = OTHER
        else:
            return policy
        admit = self._ceiling.admit if is_load else self._ceiling.would_admit
        return "" if admit(rank, place, line) else CEILING

    def _line_for(self, span: WavefrontSpan) -> Line:
        if self._own_rates is None:
            return self._line
        identity = span.identity
        return self._own_rates.line(identity.application, identity.service, self._line)


def make_sampler(settings: SamplingSettings, *, exact: bool = False) -> SpanSampler | None:
    """None keeps everything, so that the usual case costs nothing.  ``exact`` is ``mapping.exact``."""
    as_documented = settings.as_documented and not exact
    line: Line = line_of(settings.rate, as_documented=as_documented), RATE
    if settings.duration and settings.rate >= 1.0 and as_documented:
        line = NOTHING, DURATION
    own_rates = OwnRates(settings.rates, as_documented=as_documented)
    limit = settings.spans_per_second_max
    if line[0] >= EVERYTHING and not own_rates and not limit:
        return None
    slow = [_milliseconds(s) for s in (settings.duration, settings.keep_slow) if s]
    return SpanSampler(
        line=line,
        own_rates=own_rates,
        keep_errors=settings.keep_errors,
        slow_ms=min(slow, default=inf),
        ceiling=Ceiling(limit) if limit else None,
    )


def _milliseconds(seconds: float) -> float:
    """Exact for whole microseconds, which is how durations are written: 1.001 s are 1001 ms and no less."""
    return round(seconds * 1_000_000) / 1_000


__all__ = ["POLICIES", "Sifted", "SpanSampler", "distance", "make_sampler"]
