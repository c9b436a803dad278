"""Sampler: keep a span, or let it go.

The rule is the Java proxy's, so that every replica, and a Java proxy beside us, keeps the same traces: the
low 64 bits of the trace id as a signed number, its remainder by 10,000 without the sign, at most the rate times
10,000.  (That keeps one trace in 10,000 at rate 0: the proxy's arithmetic, kept on purpose.)
A debug span is always kept, because someone asked for it by name.

Nothing is remembered.  RED counts spans whatever the answer here.
"""

from tracefwd.model import Sampler, Verdict, WavefrontSpan
from tracefwd.settings import SamplingSettings

_SCALE = 10_000


def make_sampler(settings: SamplingSettings) -> Sampler | None:
    """None keeps everything, so that the usual case costs nothing."""
    if settings.rate >= 1.0:
        return None
    line = int(settings.rate * _SCALE)

    def sample(span: WavefrontSpan) -> Verdict:
        if span.debug or distance(span.trace_id) <= line:
            return Verdict.KEEP
        return Verdict.DROP

    return sample


def distance(trace_id: str) -> int:
    """0..9999, the same for all spans of a trace."""
    low = int(trace_id[-16:], 16)
    if low >= 1 << 63:
        low = (1 << 64) - low
    return low % _SCALE
