"""What the accounts of a dead worker come to, worked out from its journal.

Totals and gains have one shape: by account (``ledger`` section names for the pipeline's own, TARGET/SIGNAL for a lane)
the counts of ``ledger.Account``, without what is held.
The journal has whole totals now and then, and gains between.  Pure.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from tracefwd import ledger
from tracefwd.ledger import Account

Totals = dict[str, dict[str, Any]]

_encode = msgspec.msgpack.encode
_decode = msgspec.msgpack.Decoder(Totals).decode
_STATES = ("delivered", "sampled_out", "blocked")
_BY_REASON = ("rejected", "dropped")


def pack(totals: Mapping[str, Any]) -> bytes:
    return _encode(totals) if totals else b""


def totals_of(account: Account) -> dict[str, Any]:
    return {
        "received": account.received,
        "delivered": account.delivered,
        "sampled_out": account.sampled_out,
        "blocked": account.blocked,
        "rejected": {**account.rejected},
        "dropped": {**account.dropped},
    }


def gains(now: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """What has changed; added to ``before`` it gives ``now``."""
    found: dict[str, Any] = {}
    for name, value in now.items():
        if isinstance(value, dict):
            if part := gains(value, before.get(name, {})):
                found[name] = part
        elif change := value - before.get(name, 0):
            found[name] = change
    return found


def fold(state: bytes | None, counts: Mapping[bytes, int]) -> tuple[Totals, int]:
    """The last totals with everything that was gained since, and how many parts could not be read."""
    unread = 0
    total: Totals = {}
    parts = [(state, 1)] if state else []
    for packed, times in (*parts, *counts.items()):
        if not packed:
            continue
        try:
            part = _decode(packed)
        except msgspec.MsgspecError:
            unread += 1
            continue
        ledger.add(total, _times(part, times))
    return total, unread


def settled(lane: Mapping[str, Any], outstanding: int, spooled: int = 0) -> dict[str, Any]:
    """A lane's totals without the ``outstanding`` lines, which will be received again; ``spooled`` ones will not.

    What was held and is in neither place was lost in the crash.  What is counted as gone and comes again all the same
    (a part of a batch that was over, while the whole was not) is received once, so it is gone no more.
    """
    found = {name: lane.get(name, 0) for name in _STATES}
    found |= {name: dict(lane.get(name, {})) for name in _BY_REASON}
    lost = lane.get("received", 0) - _gone(lane) - outstanding - spooled
    if lost > 0:
        found["dropped"]["crash"] = found["dropped"].get("crash", 0) + lost
    else:
        _take_back(found, -lost)
    return {"received": _gone(found) + spooled, **found}


def _take_back(found: dict[str, Any], items: int) -> None:
    for part in (found, found["rejected"], found["dropped"]):
        for name in [name for name, value in part.items() if isinstance(value, int)]:
            less = min(items, part[name])
            part[name] -= less
            items -= less


def passed_on(own: Mapping[str, Any], kept: int) -> dict[str, Any]:
    """The pipeline's own totals when so many of what it received went on to the lane that it is balanced with."""
    found = {name: own.get(name, 0) for name in _STATES}
    found |= {name: dict(own.get(name, {})) for name in _BY_REASON}
    return {"received": _gone(own) + kept, **found}


def held_of(part: Mapping[str, Any]) -> int:
    """What was received and is not gone."""
    received: int = part.get("received", 0)
    return max(0, received - _gone(part))


def restore(account: Account, part: Mapping[str, Any]) -> None:
    account.received += part["received"]
    account.delivered += part["delivered"]
    account.sampled_out += part["sampled_out"]
    account.blocked += part["blocked"]
    for name, add in (("rejected", account.reject), ("dropped", account.drop)):
        for reason, number in part[name].items():
            add(reason, number)


def _gone(part: Mapping[str, Any]) -> int:
    whole: int = sum(part.get(name, 0) for name in _STATES)
    return whole + sum(sum(part.get(name, {}).values()) for name in _BY_REASON)


def _times(part: Any, times: int) -> Any:
    if isinstance(part, dict):
        return {name: _times(value, times) for name, value in part.items()}
    return part * times
