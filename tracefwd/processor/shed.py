"""Shedder: what is let go of when memory runs short, by trace id, so that whole traces stay or leave.

A span is kept while its trace's place (``sampler_rules.distance``) lies within ``share`` of its rate's line.  So:

1. every worker and replica at the same share keeps the same traces, and a lower share keeps a part of what a higher one
   keeps, whatever the sampling rates are;
2. a trace that sampling kept is not shed more often because its rate is low.

Debug spans, errors and slow spans are shed like all others: whoever sends them cannot buy memory that way.  RED has
counted every span before it comes here.  Pure; ``service/memory_watch.py`` sets the share.
"""

from collections.abc import Callable

from tracefwd.model import WavefrontSpan
from tracefwd.processor.sampler_rules import PLACES, distance


class Shedder:
    """``reach`` gives the last place up to which sampling keeps spans like this one; None: it keeps all."""

    def __init__(self, reach: Callable[[WavefrontSpan], int] | None = None) -> None:
        self._reach = reach
        self.share = 1.0
        # The one thing that is looked at per request while there is no pressure.
        self.on = False

    def set_share(self, share: float) -> None:
        """The share of traces to keep, from 0 to 1; 1 switches shedding off."""
        self.share = share
        self.on = share < 1.0

    def sift(self, spans: list[WavefrontSpan]) -> list[WavefrontSpan]:
        """The spans that stay."""
        reach, share = self._reach, self.share
        if reach is None:
            limit = share * PLACES
            return [span for span in spans if distance(span.trace_id) < limit]
        return [
            span for span in spans if distance(span.trace_id) < share * min(reach(span) + 1, PLACES)
        ]
