"""Faults on request: what a test or an operator wants the stand-in to do wrong, and how often.

Pure: the time is an argument.  At most ``FAULTS_MAX`` stand at once; the oldest that fits a request is the one that
strikes.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from tracefwd.emulator.ports import Signal

FAULTS_MAX = 16

Place = Literal["trace", "metrics", "csp"]


class Fault(Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What to do to a request, and to which.

    ``status``: the answer; without it (and without ``reset``) the request is only delayed.  ``reset``: the connection
    is aborted instead of an answer.  ``accept``: the lines are taken first, so that the sender's retry makes doubles.
    Over plain TCP only ``reset`` does anything.  ``count`` or ``seconds`` bound it; with neither it stands until
    deleted.  ``port`` unset means both ingestion ports, direct ingestion being on the metrics port.
    """

    status: Annotated[int, Meta(ge=200, le=599)] | None = None
    reset: bool = False
    accept: bool = False
    delay_ms: Annotated[float, Meta(ge=0, le=600_000)] = 0
    retry_after: str | int | None = None
    count: Annotated[int, Meta(ge=1)] | None = None
    seconds: Annotated[float, Meta(gt=0)] | None = None
    signal: Signal | None = None
    port: Place | None = None
    ends_at: float | UnsetType = UNSET


class FaultBoard:
    """The faults that stand.  ``now`` is a monotonic time in seconds."""

    def __init__(self) -> None:
        self.standing: list[Fault] = []

    def add(self, body: bytes, now: float) -> Fault:
        """``ValueError`` says what is wrong with the request."""
        fault = msgspec.json.decode(body, type=Fault)
        if fault.ends_at is not UNSET:
            raise ValueError("ends_at is not yours to set; use seconds")
        if fault.status is None and not fault.reset and not fault.delay_ms:
            raise ValueError("a fault needs one of status, reset, delay_ms")
        if fault.seconds is not None:
            fault.ends_at = now + fault.seconds
        self._forget_ended(now)
        if len(self.standing) >= FAULTS_MAX:
            raise ValueError(f"{FAULTS_MAX} faults stand already; DELETE /faults first")
        self.standing.append(fault)
        return fault

    def clear(self) -> None:
        self.standing = []

    def strike(
        self, place: Place, signal: Signal | None, now: float, *, tcp: bool = False
    ) -> Fault | None:
        """The fault for this request, counted down; None if there is none."""
        self._forget_ended(now)
        for index, fault in enumerate(self.standing):
            if not _fits(fault, place, signal) or (tcp and not fault.reset):
                continue
            if fault.count is not None:
                fault.count -= 1
                if not fault.count:
                    del self.standing[index]
            return fault
        return None

    def _forget_ended(self, now: float) -> None:
        self.standing = [
            fault for fault in self.standing if fault.ends_at is UNSET or fault.ends_at > now
        ]


def _fits(fault: Fault, place: Place, signal: Signal | None) -> bool:
    if fault.port is None and place == "csp":
        return False
    if fault.port is not None and fault.port != place:
        return False
    return fault.signal is None or fault.signal == signal
