"""What a run came to: counts of spans and posts, and how long answers took.

Every post that was due ends in exactly one of: answered (by status), ``unanswered``, ``connect_errors``,
``overflowed``.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

# Buckets per factor e: a percentile is read half a percent too high at most.
_BUCKETS_PER_E = 200


class Latencies:
    """Seconds, in buckets of half a percent: exact enough to judge by, and small however long the run is."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self.count = 0
        self.max_s = 0.0

    def add(self, seconds: float) -> None:
        # Everything under a microsecond is one bucket.
        bucket = math.ceil(math.log(max(seconds, 1e-6)) * _BUCKETS_PER_E)
        self._counts[bucket] = self._counts.get(bucket, 0) + 1
        self.count += 1
        if seconds > self.max_s:
            self.max_s = seconds

    def percentile_ms(self, share: float) -> float:
        """An upper bound of the smallest latency that ``share`` of all do not exceed; 0 without any."""
        wanted = math.ceil(share * self.count)
        for bucket in sorted(self._counts):
            wanted -= self._counts[bucket]
            if wanted <= 0:
                return round(min(math.exp(bucket / _BUCKETS_PER_E), self.max_s) * 1e3, 3)
        return 0.0


@dataclass
class Report:
    """``scheduled``, ``sent`` and ``acked`` count spans, the other counts posts (or connections where they say so).

    ``latencies`` count from a post's scheduled time to its answer, ``answers`` from its writing.
    """

    scheduled: int = 0
    sent: int = 0
    acked: int = 0
    posts: int = 0
    in_flight: int = 0
    non_202: int = 0
    unanswered: int = 0
    timeouts: int = 0
    connect_errors: int = 0
    overflowed: int = 0
    late_posts: int = 0
    connections_opened: int = 0
    connections_extra: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0
    statuses: dict[int, int] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    latencies: Latencies = field(default_factory=Latencies)
    answers: Latencies = field(default_factory=Latencies)

    @property
    def complete(self) -> bool:
        """Whether every span that was due was acknowledged."""
        return self.acked == self.scheduled and not self.connect_errors

    def to_json(self) -> dict[str, Any]:
        return {
            "sent": self.sent,
            "acked": self.acked,
            "non_202": self.non_202,
            "connect_errors": self.connect_errors,
            "p50_ms": self.latencies.percentile_ms(0.5),
            "p99_ms": self.latencies.percentile_ms(0.99),
            "max_ms": round(self.latencies.max_s * 1e3, 3),
            "cpu_s": round(self.cpu_s, 3),
            "seconds": round(self.seconds, 3),
            "scheduled": self.scheduled,
            "posts": self.posts,
            "unanswered": self.unanswered,
            "timeouts": self.timeouts,
            "overflowed": self.overflowed,
            "late_posts": self.late_posts,
            "connections_opened": self.connections_opened,
            "connections_extra": self.connections_extra,
            "answer_p50_ms": self.answers.percentile_ms(0.5),
            "answer_p99_ms": self.answers.percentile_ms(0.99),
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "errors": dict(sorted(self.errors.items())),
        }

    def lines(self) -> Iterator[str]:
        """For a person."""
        rate = self.sent / self.seconds if self.seconds else 0.0
        yield (
            f"sent {self.sent:,} spans in {self.posts:,} posts in {self.seconds:.1f} s"
            f" ({rate:,.0f} spans/s), acknowledged {self.acked:,}"
        )
        yield (
            f"latency from the scheduled time: p50 {self.latencies.percentile_ms(0.5):.1f} ms,"
            f" p99 {self.latencies.percentile_ms(0.99):.1f} ms, max {self.latencies.max_s * 1e3:.1f} ms"
            f" (from writing: p50 {self.answers.percentile_ms(0.5):.1f} ms,"
            f" p99 {self.answers.percentile_ms(0.99):.1f} ms)"
        )
        yield (
            f"posts not taken: {self.non_202:,}, without an answer: {self.unanswered:,},"
            f" without a connection: {self.connect_errors + self.overflowed:,};"
            f" sent late: {self.late_posts:,}"
        )
        yield (
            f"connections opened: {self.connections_opened:,}"
            f" ({self.connections_extra:,} beyond the kept ones), cpu {self.cpu_s:.2f} s"
        )
        if self.non_202:
            counts = (f"{status} ({count:,})" for status, count in sorted(self.statuses.items()))
            yield f"answers by status: {', '.join(counts)}"
        if self.errors:
            yield "; ".join(f"{reason} ({count:,})" for reason, count in self.errors.items())

    def progress(self) -> str:
        return (
            f"{self.seconds:5.0f} s  {self.sent:,} sent  {self.acked:,} acknowledged"
            f"  {self.posts_lost:,} posts lost  {self.in_flight:,} in flight"
            f"  p99 {self.latencies.percentile_ms(0.99):.1f} ms"
        )

    @property
    def posts_lost(self) -> int:
        return self.non_202 + self.unanswered + self.connect_errors + self.overflowed
