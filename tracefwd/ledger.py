"""The ledger: where everything accepted has gone.

For every section, in every worker and in the sum, at every read:

    received = delivered + sampled_out + blocked + sum(rejected) + sum(dropped) + held

Counts change only together, in one turn of the loop; ``held`` is never counted but asked of whoever holds
(queues, batches, flights, samplers), so that the balance is evidence and not arithmetic.

``rejected``: can never be delivered (malformed, invalid, refused by the target).  ``blocked``: a rule said so.
``dropped``: our doing.  ``delivered``: the target answered 2xx (or, over plain TCP, took the bytes:
counted as ``unacknowledged`` as well).
"""

from collections.abc import Callable
from typing import Any, TypedDict


class Section(TypedDict):
    """One balanced account, as it is shown."""

    received: int
    delivered: int
    sampled_out: int
    blocked: int
    rejected: dict[str, int]
    dropped: dict[str, int]
    held: int


class Account:
    """One section's counters in a worker."""

    __slots__ = ("blocked", "delivered", "dropped", "held", "received", "rejected", "sampled_out")

    def __init__(self, held: Callable[[], int]) -> None:
        self.received = 0
        self.delivered = 0
        self.sampled_out = 0
        self.blocked = 0
        self.rejected: dict[str, int] = {}
        self.dropped: dict[str, int] = {}
        self.held = held

    def reject(self, reason: str, count: int = 1) -> None:
        self.rejected[reason] = self.rejected.get(reason, 0) + count

    def drop(self, reason: str, count: int) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + count

    def show(self) -> Section:
        return {
            "received": self.received,
            "delivered": self.delivered,
            "sampled_out": self.sampled_out,
            "blocked": self.blocked,
            "rejected": dict(self.rejected),
            "dropped": dict(self.dropped),
            "held": self.held(),
        }


def empty_section() -> Section:
    return Account(lambda: 0).show()


def imbalance(section: Section) -> int:
    """Received minus everything that has a place; 0 is balance."""
    gone = section["delivered"] + section["sampled_out"] + section["blocked"] + section["held"]
    gone += sum(section["rejected"].values()) + sum(section["dropped"].values())
    return section["received"] - gone


def add(total: dict[str, Any], part: dict[str, Any]) -> None:
    """Add one ledger (or section) into another: numbers are summed, mappings merged by key."""
    for key, value in part.items():
        if isinstance(value, dict):
            add(total.setdefault(key, {}), value)
        else:
            total[key] = total.get(key, 0) + value
