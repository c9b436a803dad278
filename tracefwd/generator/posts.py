"""From scripts to posts: fresh ids and times, and the batches that Envoy's worker threads make of them.

Pure: time is an argument; the only randomness is a ``random.Random`` of the caller's seed.

1. An Envoy's worker thread posts when it holds ``POST_SPANS`` spans, or ``FLUSH_US`` after it got the first.  The
   spans of one trace so leave in many posts, from every sidecar on the path.
2. Every id is unique in a run.
3. Per span only pieces and values are joined; everything else is rendered once, in ``mesh.py``.
"""

import random
from collections import deque
from collections.abc import Callable
from itertools import cycle
from operator import itemgetter
from typing import Any, NamedTuple

from tracefwd.generator import mesh
from tracefwd.generator.encodings import Encode

# Envoy's defaults, tracing.zipkin.min_flush_spans and flush_interval_ms.
POST_SPANS = 5
FLUSH_US = 5_000_000
# Istio's sidecars run two worker threads.
POD_THREADS = 2

_AGENTS = (
    b"curl/8.5.0",
    b"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    b"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Safari/605.1.15",
    b"fortio.org/fortio-1.66.5",
)
_POD_LETTERS = "bcdfghjklmnpqrstvwxz2456789"


class Post(NamedTuple):
    """One request body.  ``connection`` is the number of the kept connection of the thread that posts it;
    ``forwarded_for`` is its pod's address, which Envoy puts into a header."""

    connection: int
    spans: int
    forwarded_for: bytes
    body: bytes


class _Thread:
    """A worker thread of one pod's Envoy, with the spans it holds."""

    __slots__ = ("address", "connection", "opened_us", "pod", "spans")

    def __init__(self, connection: int, address: bytes, pod: bytes) -> None:
        self.connection = connection
        self.address = address
        self.pod = pod
        self.spans: list[bytes] = []
        self.opened_us = 0


class _Ids:
    """Ids of 16 hex digits, each given out once.

    Halves come from two tables of distinct random numbers; each pass over them pairs them with another shift, so
    that no pair returns before ``HALVES`` squared (a thousand million) ids.  Joining two ready halves costs a
    tenth of formatting a number.
    """

    HALVES = 1 << 15
    BLOCK = 1 << 9

    def __init__(self, rng: random.Random) -> None:
        self._highs = self._halves(rng)
        # Twice, so that a shifted block never wraps.
        self._lows = self._halves(rng) * 2
        self._place = 0
        self._shift = 0
        self._block: list[bytes] = []

    def take(self, count: int) -> list[bytes]:
        """``count`` (at most ``BLOCK``) fresh ids in a new list."""
        if len(self._block) < count:
            self._refill()
        taken = self._block[-count:]
        del self._block[-count:]
        return taken

    def _halves(self, rng: random.Random) -> list[bytes]:
        # A few more than needed: of 2^15 random numbers of 32 bits an eighth of one is there twice.
        digits = rng.randbytes(4 * (self.HALVES + 64)).hex().encode()
        distinct = dict.fromkeys(digits[place : place + 8] for place in range(0, len(digits), 8))
        assert len(distinct) >= self.HALVES
        return list(distinct)[: self.HALVES]

    def _refill(self) -> None:
        place = self._place
        shifted = place + self._shift
        highs = self._highs[place : place + self.BLOCK]
        lows = self._lows[shifted : shifted + self.BLOCK]
        # What was left (less than one trace needs) is given up.
        self._block = [high + low for high, low in zip(highs, lows, strict=True)]
        self._place = (place + self.BLOCK) % self.HALVES
        if self._place == 0:
            self._shift = (self._shift + 1) % self.HALVES


# A step made ready: its pieces with every second place free, what takes the values for them out of SLOTS, and
# workload, parent, peer, start_us, duration, end_us.
_Render = tuple[list[bytes], Callable[[tuple[bytes, ...]], Any], int, int, int, int, bytes, int]


class Posts:
    """An endless (or, with ``spans_max``, exactly that long) stream of posts; traces are always whole.

    ``connections`` kept connections are dealt out to the worker threads of as many Envoys; with fewer than there
    are workloads, some share.  ``epoch_us`` keeps the ids of two runs with one seed apart.  ``encode`` makes another
    format of the bodies, which are JSON.
    """

    def __init__(
        self,
        *,
        connections: int,
        seed: int,
        epoch_us: int,
        spans_max: int | None = None,
        encode: Encode | None = None,
        mood: mesh.Mood = mesh.HEALTHY,
    ) -> None:
        rng = random.Random(seed)  # noqa: S311 - traffic, not secrets
        self._scripts = _prepare(mesh.scripts(rng, mood))
        self._turn = cycle(self._scripts)
        self._rings = [cycle(threads) for threads in _threads(connections, rng)]
        self._agents = cycle(_AGENTS)
        self._users = cycle([b"203.0.113.%d" % host for host in range(1, 255)])
        self._ids = _Ids(random.Random(f"{seed} {epoch_us}"))  # noqa: S311
        self._left = spans_max
        self._encode = encode
        self._holding: dict[_Thread, None] = {}
        self._ready: deque[Post] = deque()

    def next(self, now_us: int) -> Post | None:
        """The next post, its newest spans ending at ``now_us``; None when all spans were posted."""
        while not self._ready:
            oldest = next(iter(self._holding), None)
            ended = self._left == 0
            if oldest is not None and (ended or now_us - oldest.opened_us >= FLUSH_US):
                del self._holding[oldest]
                return self._post(oldest)
            if ended:
                return None
            self._trace(now_us)
        return self._ready.popleft()

    def _trace(self, now_us: int) -> None:
        """One request: every sidecar on its path gets its spans."""
        steps, root, duration_us = self._script()
        begin_us = now_us - duration_us
        threads = [next(ring) for ring in self._rings]
        addresses = [thread.address for thread in threads]
        addresses.append(next(self._users))
        ids = self._ids.take(len(steps) + 2)
        high, low = ids.pop(), ids.pop()
        # A root's id is the lower half of its trace id; the "9" says "traced" in Envoy's request ids.
        trace = high + ids[root]
        request = b"%b-%b-9%b-a%b-%b" % (low[:8], low[8:12], low[13:], high[1:4], high[4:])
        agent = next(self._agents)
        own_ids = iter(ids[:])
        # The root's parent and the outside peer are index -1.
        ids.append(b"")
        for pieces, pick, workload, parent, peer, start_us, duration, end_us in steps:
            thread = threads[workload]
            values = (
                trace,
                next(own_ids),
                ids[parent],
                b"%d" % (begin_us + start_us),
                duration,
                b"%d" % (begin_us + end_us),
                request,
                agent,
                addresses[workload],
                thread.pod,
                addresses[peer],
            )
            pieces[1::2] = pick(values)
            spans = thread.spans
            spans.append(b"".join(pieces))
            if len(spans) == 1:
                thread.opened_us = now_us
                self._holding[thread] = None
            elif len(spans) == POST_SPANS:
                del self._holding[thread]
                self._ready.append(self._post(thread))

    def _post(self, thread: _Thread) -> Post:
        spans = thread.spans
        thread.spans = []
        body = b"[" + b",".join(spans) + b"]"
        if self._encode is not None:
            body = self._encode(body)
        return Post(thread.connection, len(spans), thread.address, body)

    def _script(self) -> tuple[list[_Render], int, int]:
        left = self._left
        script = next(self._turn)
        if left is None:
            return script
        if len(script[0]) > left:
            fitting = (script for script in self._scripts if len(script[0]) <= left)
            script = max(fitting, key=lambda script: len(script[0]))
        self._left = left - len(script[0])
        return script


def _prepare(
    scripts: list[mesh.Script],
) -> list[tuple[list[_Render], int, int]]:
    """Steps of one template share its pieces: a few hundred lists stay in the processor's cache, thousands do not."""
    ready: dict[int, tuple[list[bytes], Callable[[tuple[bytes, ...]], Any]]] = {}
    for script in scripts:
        for template, *_ in script.steps:
            if id(template) not in ready:
                pieces = [b""] * (2 * len(template.pieces) - 1)
                pieces[::2] = template.pieces
                ready[id(template)] = pieces, itemgetter(*template.slots)
    return [
        ([(*ready[id(step.template)], *step[1:]) for step in steps], root, duration_us)
        for steps, root, duration_us in scripts
    ]


def _threads(connections: int, rng: random.Random) -> list[list[_Thread]]:
    """Worker threads per workload, as many in all as connections, but one per workload at least."""
    shares = mesh.SPAN_SHARES
    counts = [max(1, connections * share // sum(shares)) for share in shares]
    busiest = shares.index(max(shares))
    counts[busiest] += max(0, connections - sum(counts))
    threads: list[list[_Thread]] = []
    number = pod_number = 0
    for workload, count in zip(mesh.WORKLOADS, counts, strict=True):
        threads.append([])
        for seat in range(count):
            if seat % POD_THREADS == 0:
                suffix = "".join(rng.choices(_POD_LETTERS, k=5))
                pod = f"{workload.name}-{workload.replica_set}-{suffix}".encode()
                address = b"10.244.%d.%d" % (pod_number // 200, pod_number % 200 + 10)
                pod_number += 1
            threads[-1].append(_Thread(number % connections, address, pod))
            number += 1
    return threads
