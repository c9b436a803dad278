"""What the pipeline plans, and whom it works with."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from msgspec import Struct

from tracefwd.doorways import Answer, HeldAnswer
from tracefwd.ledger import Account
from tracefwd.metrics import Samples
from tracefwd.model import (
    Decoded,
    LineCheck,
    LineRules,
    Lines,
    Mapped,
    Payload,
    RedWriter,
    Signal,
    SpanWriter,
    WavefrontSpan,
)
from tracefwd.processor.ruled import RuledMapper


class Writer(SpanWriter, RedWriter, Protocol):
    """Everything one way of delivery needs written."""


class Destination(Protocol):
    """Where payloads go.  ``offer`` never waits and never raises."""

    name: str
    role: str
    accounts: dict[Signal, Account]

    def offer(self, payload: Payload, seq: int = 0) -> None: ...

    def failover_accounts(self) -> dict[str, dict[Signal, Account]]: ...

    def samples(self) -> Samples: ...


class Journal(Protocol):
    """What makes the pipeline's changes outlive the process; all calls of one turn of the loop are kept together.

    ``entry`` names what is offered next, and to whom; ``facts`` are ``RedAggregator.observe``'s.  ``hold`` answers once
    everything up to now is durable.  ``drained`` says that what these series gathered is in the entry before.
    """

    def entry(
        self, offers: Sequence[tuple[Destination, Payload]], facts: Sequence[int] | None, now_s: int
    ) -> int: ...

    def hold(self, answer: Answer) -> HeldAnswer: ...

    def tick_begins(self) -> None: ...

    def drained(self, seq: int, numbers: Sequence[int]) -> None: ...

    def tick_ended(self) -> None: ...


class Part(Struct, gc=False):
    """What one request would change.

    ``good`` spans go on; ``sampled_out`` says which policy held back how many; ``shed`` spans were kept by sampling and
    let go of for want of memory.
    """

    decoded: Decoded
    mapped: Mapped
    good: Sequence[WavefrontSpan]
    sampled_out: dict[str, int] | None = None
    shed: int = 0


class Plan(Struct, gc=False):
    """Everything one bout of requests would change; ``payloads`` are per writer, in the writers' order."""

    parts: list[Part]
    payloads: list[list[Payload]]


class LinePlan(Struct, gc=False):
    """The same for a body of lines: the plan for its spans, and what becomes of its span logs."""

    lines: Lines
    spans: Plan
    logs_blocked: int
    logs_sampled_out: int
    logs_shed: int
    log_payloads: list[list[Payload]]


class LineParts(NamedTuple):
    """Instead of a decoder and a mapper.  ``check`` comes after sampling; ``ruled`` has the port's rules."""

    read: Callable[[bytes, LineRules | None], Lines]
    check: LineCheck
    ruled: RuledMapper | None = None
