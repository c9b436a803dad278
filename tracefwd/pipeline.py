"""The hot path on one screen: plan what a request changes, then change it.

    body -> decode -> map -> sample -> render          ``plan``: pure, changes nothing outside
         -> counters, RED, queues                       ``commit``: no await, happens whole

``ingest`` answers before anything is forwarded.  An answer may be held until its spans are durable: ``commit`` then
returns a ``HeldAnswer`` (the receiver keeps the pipelining order); in memory it returns a constant and pays nothing.

The pipeline knows neither HTTP nor Wavefront: it is handed a decoder, a mapper, writers and targets.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, Protocol

from msgspec import Struct

from tracefwd import ledger
from tracefwd.ledger import Account
from tracefwd.metrics import Samples
from tracefwd.metrics import add as add_samples
from tracefwd.model import (
    Answer,
    Decoded,
    Heartbeat,
    HeldAnswer,
    Mapped,
    Mapper,
    Payload,
    RedPoint,
    RedWriter,
    Reject,
    Signal,
    SpanWriter,
)
from tracefwd.processor.red import RedAggregator
from tracefwd.processor.sampler import SpanSampler
from tracefwd.quarantine import Quarantine

ACCEPTED = Answer(202)
# One slice of a tick: about 2 ms of formatting, so that a tick never delays an answer by more.
_TICK_SLICE = 64


class Writer(SpanWriter, RedWriter, Protocol):
    """Everything one way of delivery needs written."""


class Destination(Protocol):
    """Where payloads go.  ``offer`` never waits and never raises."""

    name: str
    role: str
    accounts: dict[Signal, Account]

    def offer(self, payload: Payload) -> None: ...

    def failover_accounts(self) -> dict[str, dict[Signal, Account]]: ...

    def samples(self) -> Samples: ...


class Plan(Struct, gc=False):
    """Everything one request would change.

    ``sampled_out`` says which policy held back how many; ``payloads`` are per writer, in the writers' order.
    """

    decoded: Decoded
    mapped: Mapped
    kept: int
    sampled_out: dict[str, int] | None
    payloads: list[list[Payload]]


class Pipeline:
    """``outlets`` pairs each writer with the targets that want its bytes."""

    def __init__(
        self,
        *,
        decode: Callable[[bytes, str], Decoded],
        mapper: Mapper,
        sampler: SpanSampler | None,
        red: RedAggregator | None,
        outlets: Sequence[tuple[Writer, Sequence[Destination]]],
        now_us: Callable[[], int],
    ) -> None:
        self._decode = decode
        self._map = mapper
        self._sampler = sampler
        self._red = red
        self._outlets = outlets
        self._writers = [writer for writer, _ in outlets]
        self._now_us = now_us
        self._destinations = [target for _, targets in outlets for target in targets]
        self._primary = next(target for target in self._destinations if target.role == "primary")
        self._account = Account(self._held)
        self._quarantine = Quarantine()
        self._accepted: dict[str, int] = {}
        self._repairs: dict[str, int] = {}

    # The hot path

    def ingest(self, body: bytes, content_type: str) -> Answer | HeldAnswer:
        now_us = self._now_us()
        return self.commit(self.plan(body, content_type, now_us), now_us)

    def plan(self, body: bytes, content_type: str, now_us: int) -> Plan:
        """Work out everything this request would change, and change nothing."""
        decoded = self._decode(body, content_type)
        mapped = self._map(decoded, now_us)
        kept, sampled_out = mapped.spans, None
        if self._sampler is not None:
            kept, sampled_out = self._sampler.sift(mapped.spans, now_us)
        payloads = [writer.write(kept) for writer in self._writers] if kept else []
        return Plan(decoded, mapped, len(kept), sampled_out, payloads)

    def commit(self, plan: Plan, now_us: int) -> Answer | HeldAnswer:
        """Apply a plan.  No await in here: it happens whole, or not at all."""
        decoded, mapped = plan.decoded, plan.mapped
        spans = len(mapped.spans)
        account = self._account
        account.received += spans + mapped.blocked
        account.blocked += mapped.blocked
        account.sampled_out += spans - plan.kept
        if plan.sampled_out is not None and self._sampler is not None:
            self._sampler.count(plan.sampled_out)
        self._accepted[decoded.encoding] = self._accepted.get(decoded.encoding, 0) + len(
            decoded.spans
        )
        if self._red is not None:
            self._red.observe(mapped.spans, now_us // 1_000_000)
            if mapped.red_only:
                self._red.observe(mapped.red_only, now_us // 1_000_000)
        for (_, targets), payloads in zip(self._outlets, plan.payloads, strict=False):
            for target in targets:
                for payload in payloads:
                    target.offer(payload)
        if decoded.repairs or mapped.repairs:
            self._count_repairs(decoded.repairs, mapped.repairs)
        if decoded.rejects or mapped.rejects:
            return self._reject(decoded, mapped, now_us)
        return ACCEPTED

    def _reject(self, decoded: Decoded, mapped: Mapped, now_us: int) -> Answer:
        rejects: list[Reject] = [*decoded.rejects, *mapped.rejects]
        self._account.received += len(rejects)
        for reject in rejects:
            self._account.reject(reject.reason)
        self._quarantine.add(rejects, now_us)
        # Envoy takes anything but 202 for loss, so one good span is enough for 202.
        if decoded.spans:
            return ACCEPTED
        first = rejects[0]
        more = f" (and {len(rejects) - 1} more)" if len(rejects) > 1 else ""
        text = f"No readable span: {first.where}: {first.detail}{more}\n"
        return Answer(400, text.encode("utf-8", "replace"))

    def _count_repairs(self, *parts: dict[str, int] | None) -> None:
        for part in parts:
            for kind, number in (part or {}).items():
                self._repairs[kind] = self._repairs.get(kind, 0) + number

    # The tick

    def tick(self) -> Iterator[None]:
        """Send what RED gathered; yields between slices so that answers can be given in between."""
        if self._red is None:
            return
        now_s = self._now_us() // 1_000_000
        drained = self._red.drain(now_s)
        while part := list(islice(drained, _TICK_SLICE)):
            points = [item for item in part if isinstance(item, RedPoint)]
            beats = [item for item in part if isinstance(item, Heartbeat)]
            for writer, targets in self._outlets:
                payloads = [
                    *writer.write_red(points, now_s),
                    *writer.write_heartbeats(beats, now_s),
                ]
                for target in targets:
                    for payload in payloads:
                        target.offer(payload)
            yield

    # What is seen from outside

    def ledger(self) -> dict[str, Any]:
        """Spans for the primary target at the top, then its other signals, then every target's own."""
        shown: dict[str, Any] = dict(self._account.show())
        primary = self._primary.accounts[Signal.SPANS]
        shown["delivered"] = primary.delivered
        for key, part in (("rejected", primary.rejected), ("dropped", primary.dropped)):
            ledger.add(shown[key], part)
        for signal in (Signal.SPAN_LOGS, Signal.POINTS, Signal.DISTRIBUTIONS):
            shown[signal] = self._primary.accounts[signal].show()
        shown["targets"] = {
            name: {signal: accounts[signal].show() for signal in Signal}
            for target in self._destinations
            for name, accounts in {
                target.name: target.accounts,
                **target.failover_accounts(),
            }.items()
        }
        return shown

    def _held(self) -> int:
        return self._primary.accounts[Signal.SPANS].held()

    def samples(self) -> Samples:
        """The processor's and the targets' metrics; the receiver has its own."""
        samples: Samples = {
            "tracefwd_receiver_accepted_spans_total": {(k,): v for k, v in self._accepted.items()},
            "tracefwd_receiver_rejected_spans_total": {
                (k,): v for k, v in self._account.rejected.items()
            },
            "tracefwd_mapper_repairs_total": {(k,): v for k, v in self._repairs.items()},
        }
        if self._sampler is not None:
            samples["tracefwd_sampler_sampled_out_spans_total"] = {
                (k,): v for k, v in self._sampler.counts().items()
            }
        if self._red is not None:
            samples["tracefwd_red_active_series"] = {(): self._red.active}
            samples["tracefwd_red_series_limit"] = {(): self._red.series_max}
            samples["tracefwd_red_overflow_spans_total"] = {(): self._red.overflow_spans}
        for target in self._destinations:
            add_samples(samples, target.samples())
        return samples

    def rejected_samples(self) -> list[dict[str, str]]:
        return self._quarantine.show()
