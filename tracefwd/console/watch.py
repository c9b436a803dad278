"""The watch: a worker's eye on its own traffic, for samples, edges and taps.

It is shown every batch, and looks at few: first a counter says whether a batch is examined at all, only then is a span
touched.  So many spans a second are examined: ``EXAMINED_PER_S`` while nobody taps, ``TAPPED_PER_S`` while somebody
does, whatever the traffic is.  What went by unexamined is counted.

Which batches are examined is drawn from a generator of its own, so that senders with a rhythm are not passed over.
Pure: time is an argument, and so is the seed.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from tracefwd.console.edges import EdgeCounts
from tracefwd.console.seen import Blocked, Sample, Seen, SpanRow, TapHit, TapWish
from tracefwd.limits import SAMPLE_BYTES_MAX
from tracefwd.model import Decoded, Mapped, Payload, Span, WavefrontSpan

EXAMINED_PER_S = 500
TAPPED_PER_S = 2_000
# Samples a second of each sort, per worker; each costs some 40 us.  What was not taken is saved up for ``_SAVED_S``, so
# that of little traffic nothing is missed.
_QUOTA = {
    "recent": 4,
    "error": 2,
    "slow": 2,
    "sampled_out": 1,
    "dropped": 1,
    "changed": 1,
    "blocked": 1,
}
_SAVED_S = 10
# A larger body is not taken apart for the bytes of one of its spans.
_BODY_BYTES_MAX = 2**18
# The threshold of slowness follows the 99th percentile; before this it is not settled.
_SETTLED_AFTER = 200
_STEP_UP, _STEP_DOWN = 1.05, 1.05 ** (-1 / 99)
OWN_BYTES, AS_JSON, NOTHING = "its own bytes", "as Zipkin JSON", "nothing"

_raw_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_encode = msgspec.json.encode


class Part(Protocol):
    """What the watch is shown of ``plan.Part``."""

    decoded: Decoded
    mapped: Mapped
    good: Sequence[WavefrontSpan]
    sampled_out: dict[str, int] | None
    shed: int


class Watch:
    """``write`` renders a span as the primary gets it."""

    def __init__(
        self, write: Callable[[Sequence[WavefrontSpan]], list[Payload]], seed: int
    ) -> None:
        self._write = write
        self._random = seed & 0x7FFFFFFF
        self._wishes: list[TapWish] = []
        self._number = 0
        self._left: list[float] = []
        self._over: list[int] = []
        self._skip = 0
        self._each = 1
        self._spans = 0
        self._examined = 0
        self._edged = 0
        self._budget = EXAMINED_PER_S
        self._quota = {sort: number * _SAVED_S for sort, number in _QUOTA.items()}
        self._seen = Seen()
        self._edges = EdgeCounts()
        self._slow_us = 1_000.0
        self._settled = 0

    def __call__(self, part: Part, now_us: int) -> None:
        """A batch that is being committed."""
        self._spans += len(part.mapped.spans)
        if self._skip:
            self._skip -= 1
            return
        if self._examined >= self._budget:
            return
        self._examine(part, now_us)
        if self._each > 1:
            self._random = (self._random * 1_103_515_245 + 12_345) & 0x7FFFFFFF
            self._skip = (self._random >> 8) % (2 * self._each - 1)

    def wish(self, wishes: list[TapWish], number: int) -> None:
        """From now on these taps want to hear; ``number`` names the list."""
        self._wishes, self._number = wishes, number
        self._seen.hits.clear()
        self._fill()
        self._budget = TAPPED_PER_S if wishes else EXAMINED_PER_S
        self._each = 1
        self._skip = 0

    def take_hits(self) -> Seen | None:
        """Hits so far, so that a tap need not wait for the end of the second."""
        if not self._seen.hits:
            return None
        hits, self._seen.hits = self._seen.hits, []
        return Seen(hits=hits, number=self._number)

    def each_second(self) -> Seen:
        """What was seen in the second that is over; a new one begins."""
        seen, self._seen = self._seen, Seen()
        seen.spans, seen.examined, seen.edged = self._spans, self._examined, self._edged
        seen.edges, seen.edges_left_out = self._edges.take(), self._edges.left_out
        self._edges.left_out = 0
        seen.over, seen.number = self._over, self._number
        # A little less than the budget, so that it lasts for the second.
        self._each = max(1, -(-self._spans * 10 // (self._budget * 9)))
        self._skip = min(self._skip, 2 * self._each)
        self._spans = self._examined = self._edged = 0
        for sort, number in _QUOTA.items():
            self._quota[sort] = min(self._quota[sort] + number, number * _SAVED_S)
        self._fill()
        return seen

    def _fill(self) -> None:
        self._left = [wish.rate for wish in self._wishes]
        self._over = [0] * len(self._wishes)

    # One batch

    def _examine(self, part: Part, now_us: int) -> None:
        spans = part.mapped.spans
        self._examined += len(spans)
        # Edges cost most; as many spans as without a tap are enough for them.
        if self._edged < EXAMINED_PER_S:
            self._edged += len(spans)
            for span in spans:
                self._edges.observe(span)
        for place, span in enumerate(spans):
            slow = self._is_slow(span.duration_us)
            if self._wishes:
                self._tap(part, span, now_us, slow=slow)
            ring = "error" if span.error else "slow" if slow else "recent"
            if self._quota[ring] > 0:
                self._quota[ring] -= 1
                self._keep(part, place, now_us, ring, slow=slow)
        if len(part.good) < len(spans):
            self._keep_held_back(part, now_us)
        if part.mapped.repairs and self._quota["changed"] > 0 and spans:
            self._quota["changed"] -= 1
            self._keep_changed(part, now_us)
        if part.mapped.blocked and self._quota["blocked"] > 0:
            self._keep_blocked(part, now_us)

    def _is_slow(self, duration_us: int) -> bool:
        slow = duration_us > self._slow_us
        self._slow_us = max(1.0, self._slow_us * (_STEP_UP if slow else _STEP_DOWN))
        if self._settled < _SETTLED_AFTER:
            self._settled += 1
            return False
        return slow

    def _tap(self, part: Part, span: WavefrontSpan, now_us: int, *, slow: bool) -> None:
        places: list[int] = []
        for place, wish in enumerate(self._wishes):
            if (wish.error and not span.error) or span.duration_us < wish.min_duration_us:
                continue
            if wish.service and wish.service != span.identity.service.casefold():
                continue
            if self._left[place] < 1:
                self._over[place] += 1
            else:
                self._left[place] -= 1
                places.append(place)
        if places:
            row = _row(part, span, now_us, slow=slow)
            self._seen.hits.append(TapHit(places, row, _tags(span)))

    def _keep(
        self,
        part: Part,
        place: int,
        now_us: int,
        ring: str,
        *,
        slow: bool = False,
        what: str = "",
        reason: str = "",
    ) -> None:
        span = part.mapped.spans[place]
        row = _row(part, span, now_us, slow=slow)
        received, received_as = _received(part, place)
        sent: list[str] = []
        if row.fate == "kept":
            payloads = self._write((span,))
            sent = [
                line
                for payload in payloads
                for line in payload.data.decode("utf-8", "replace").split("\n")
                if line
            ]
        repairs = {**(part.decoded.repairs or {}), **(part.mapped.repairs or {})}
        self._seen.samples.append(
            Sample(row, ring, received, received_as, sent, _tags(span), what, reason, repairs)
        )

    def _keep_held_back(self, part: Part, now_us: int) -> None:
        """A span that sampling let go, or a shed one."""
        good = set(map(id, part.good))
        for place, span in enumerate(part.mapped.spans):
            if id(span) in good:
                continue
            what = _fate(part, span)[1]
            if self._quota[what] > 0:
                self._quota[what] -= 1
                reason = "shed" if what == "dropped" else next(iter(part.sampled_out or {}), "")
                self._keep(part, place, now_us, "refused", what=what, reason=reason)
            return

    def _keep_changed(self, part: Part, now_us: int) -> None:
        """Repairs are told of a whole request; which span it was is guessed by their marks, then by length."""
        spans = part.mapped.spans
        place = max(range(len(spans)), key=lambda at: _likeliness(spans[at]))
        kinds = ", ".join(sorted(part.mapped.repairs or {}))
        self._keep(part, place, now_us, "refused", what="changed", reason=kinds)

    def _keep_blocked(self, part: Part, now_us: int) -> None:
        if part.mapped.rejects:
            return  # which of the missing were blocked is not told
        passed = {span.span_id for span in part.mapped.spans}
        for span in part.decoded.spans:
            if span.span_id not in passed:
                self._quota["blocked"] -= 1
                sender = (span.local.service_name if span.local is not None else "") or ""
                text = _encode(_members(span))[:SAMPLE_BYTES_MAX].decode("utf-8", "replace")
                self._seen.blocked.append(Blocked(now_us / 1e6, sender[:128], text))
                return


def _likeliness(span: WavefrontSpan) -> tuple[bool, int]:
    texts = (span.name, *span.tags.values())
    return any("***" in text or text.endswith("...") for text in texts), max(map(len, texts))


def _fate(part: Part, span: WavefrontSpan) -> tuple[str, str]:
    """The row's fate, and what happened in the words of what was refused."""
    if len(part.good) == len(part.mapped.spans) or any(span is each for each in part.good):
        return "kept", ""
    return (
        ("shed", "dropped")
        if part.shed and not part.sampled_out
        else ("sampled_out", "sampled_out")
    )


def _row(part: Part, span: WavefrontSpan, now_us: int, *, slow: bool) -> SpanRow:
    identity = span.identity
    return SpanRow(
        at=now_us / 1e6,
        trace=span.trace_id,
        span=span.span_id,
        parent=span.parent_id or "",
        application=identity.application,
        service=identity.service,
        operation=span.name,
        kind=span.kind,
        source=span.source,
        status=span.http_status,
        error=span.error,
        slow=slow,
        duration_ms=span.duration_us / 1e3,
        fate=_fate(part, span)[0],
        format=str(part.decoded.encoding),
    )


def _tags(span: WavefrontSpan) -> dict[str, str]:
    return {**dict(span.head), **span.tags, **dict(span.tail)}


def _received(part: Part, place: int) -> tuple[str, str]:
    """A span's text as its sender wrote it, if its body can still be taken apart; else what was read of it."""
    decoded, mapped = part.decoded, part.mapped
    out = mapped.spans[place]
    if len(decoded.spans) == len(mapped.spans):
        span: Span | None = decoded.spans[place]
    else:
        place, span = next(
            (at for at in enumerate(decoded.spans) if at[1].span_id == out.span_id), (0, None)
        )
    if span is None:
        return "", NOTHING
    if (
        decoded.encoding == "json_v2"
        and not decoded.rejects
        and len(decoded.body) <= _BODY_BYTES_MAX
    ):
        try:
            raws = _raw_list(decoded.body)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raws = []
        if len(raws) == len(decoded.spans):
            return _bounded(bytes(raws[place]), OWN_BYTES)
    return _bounded(_encode(_members(span)), AS_JSON)


def _members(span: Span) -> dict[str, Any]:
    """What was there of it."""
    found: dict[str, Any] = msgspec.to_builtins(span)
    found["tags"] = dict(span.tags or {})
    for side in ("localEndpoint", "remoteEndpoint"):
        found[side] = {
            key: value for key, value in (found[side] or {}).items() if value is not None
        }
    return {key: value for key, value in found.items() if value not in (None, {})}


def _bounded(text: bytes, told: str) -> tuple[str, str]:
    if len(text) > SAMPLE_BYTES_MAX:
        return "", NOTHING
    return text.decode("utf-8", "replace"), told


__all__ = ["EXAMINED_PER_S", "TAPPED_PER_S", "Watch"]
