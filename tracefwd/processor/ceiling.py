"""The ceiling: at most so many spans per second, by trace id, so that workers under similar load keep the same traces.

The load of the last seconds sets a share, and a span is admitted while its trace's place lies within that share of
its rate's line.  A lower share admits a part of what a higher one admits, wherever it is in force.

1. Spans that somebody asked for (debug) are always admitted; favoured spans (errors, slow ones) come before the others.
2. The share follows the load *offered*, never what was admitted: a controller that feeds on itself would drift
   apart from worker to worker.
3. Shares change at whole seconds of the clock, everywhere at the same moment, and in steps of 4 %, so that noise
   does not move them and cut traces in two.
4. A burst within a second, before any share knows of it, or trace ids that are not random, are stopped by
   halving: in no second are more than twice the ceiling admitted (but for debug spans).

Deterministic: the clock is an argument.  Pure.
"""

from collections import deque
from math import exp2, floor, log2

from tracefwd.processor.sampler_rules import PLACES

# Long enough that a share stands still under the noise of steady traffic, short enough to give room back soon.
MEMORY_SECONDS = 5
# 16 steps an octave: each 4.4 % below the one above.
_STEPS_PER_OCTAVE = 16

# Ranks of spans.
ASKED, FAVOURED, OTHER = 0, 1, 2


class Ceiling:
    """One worker's.  ``observe`` says the time before each batch, ``admit`` judges a span."""

    def __init__(self, spans_per_second_max: int) -> None:
        self._max = spans_per_second_max
        self._second = -1
        self._past: deque[tuple[int, int, int]] = deque(maxlen=MEMORY_SECONDS)
        self._offered = [0, 0, 0]
        self._shares = [1.0, 1.0, 1.0]
        self._begin()

    def observe(self, now_us: int) -> None:
        """The time of the spans that follow; a clock that is set back starts another second, too."""
        second = now_us // 1_000_000
        if second == self._second:
            return
        if self._second >= 0:
            self._past.append((self._offered[0], self._offered[1], self._offered[2]))
            # Seconds without a span; more than the memory holds are all the same.
            for _ in range(min(second - self._second - 1, MEMORY_SECONDS)):
                self._past.append((0, 0, 0))
            self._set_shares()
        self._second = second
        self._offered = [0, 0, 0]
        self._begin()

    def admit(self, rank: int, place: int, line: int) -> bool:
        """Whether a span may go that its rate has kept: ``place`` is at most ``line``."""
        self._offered[rank] += 1
        if rank == ASKED:
            return True
        if place >= self._shares[rank] * min(line + 1, PLACES):
            return False
        self._admitted += 1
        if self._admitted >= self._allowed:
            self._tighten()
        return True

    def would_admit(self, rank: int, place: int, line: int) -> bool:
        """The same for what goes with a span that is judged elsewhere (its logs), and is no load."""
        return rank == ASKED or place < self._shares[rank] * min(line + 1, PLACES)

    def _begin(self) -> None:
        self._admitted = 0
        self._more = self._max
        self._allowed = self._max

    def _tighten(self) -> None:
        """This second has used what it was allowed: half of it more, at half the share for favoured spans."""
        self._more //= 2
        self._allowed += self._more
        if not self._more:
            self._shares = [1.0, 0.0, 0.0]
            return
        self._shares[FAVOURED] /= 2
        self._shares[OTHER] /= 4

    def _set_shares(self) -> None:
        seconds = len(self._past)
        last = self._past[-1]
        # A rise counts at once, a fall when the memory has forgotten.
        load = [
            max(sum(second[rank] for second in self._past) / seconds, last[rank])
            for rank in (ASKED, FAVOURED, OTHER)
        ]
        left = max(0.0, self._max - load[ASKED])
        favoured = _share(left, load[FAVOURED])
        left = max(0.0, left - load[FAVOURED] * favoured)
        self._shares = [1.0, favoured, _share(left, load[OTHER])]


def _share(room: float, load: float) -> float:
    """``room / load`` at most 1, rounded down to a step."""
    if load <= room:
        return 1.0
    if room <= 0.0:
        return 0.0
    return exp2(floor(log2(room / load) * _STEPS_PER_OCTAVE) / _STEPS_PER_OCTAVE)
