"""What the intake turned away: counted at once, told to the log once per interval and kind.

Nothing of it is in the ledger: a refused request was not received.  But its spans are lost all the same, for Envoy
sends nothing twice; that is why the log says so.  Pure: the receiver's sweep brings the clock and takes the words.
"""

from collections import Counter
from math import inf

from tracefwd.doorways import Answer
from tracefwd.receiver import http_messages as say

# A flood must not fill the disk.
_TELL_INTERVAL_S = 60.0

_REQUESTS = {
    id(say.OVERLOADED): "memory",
    id(say.NO_ROOM): "no_room",
    id(say.FULL): "too_many",
    id(say.UNAUTHORIZED): "token",
}
# Whose spans are lost with it.
_LOSSES = frozenset({"memory", "no_room", "too_many"})
_WORDS = {
    "memory": "request(s) refused with 503 for want of memory; Envoy sends nothing twice, so their spans are lost: "
    "raise service.memory_max or the container's limit, or add replicas",
    "no_room": "request(s) refused with 503, as unfinished requests left no room (receiver.unfinished_bytes_max); "
    "Envoy sends nothing twice, so their spans are lost",
    "too_many": "connection(s) refused with 503 above receiver.connections_max, or above what the limit of open files "
    "allows; Envoy sends nothing twice, so their spans are lost: raise it, or add replicas",
    "token": "request(s) refused with 401: no token of receiver.token_file",
    "not_allowed": "connection(s) closed that came from outside receiver.allowed_networks",
    "per_address": "connection(s) closed above receiver.connections_per_address_max",
    "handshake": "connection(s) closed whose TLS handshake failed",
    "no_token": "connection(s) closed that sent lines over TCP, where no token of receiver.token_file can be shown",
}


class Refusals:
    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self._untold: dict[str, list[int]] = {}
        self._details: dict[str, str] = {}
        self._told_at: dict[str, float] = {}

    def request(self, answer: Answer, size: int) -> None:
        """Count a refused request of ``size`` bytes; answers that are no refusal of the guard's count nowhere."""
        reason = _REQUESTS.get(id(answer))
        if reason is not None:
            self.requests[reason] += 1
            self.bytes[reason] += size
            self._note(reason, size)

    def connection(self, reason: str, detail: str = "") -> None:
        """Note a connection that was closed; ``detail`` is the last one's, such as its address."""
        self._note(reason, 0)
        self._details[reason] = detail

    def _note(self, reason: str, size: int) -> None:
        untold = self._untold.setdefault(reason, [0, 0])
        untold[0] += 1
        untold[1] += size

    def tell(self, now: float, *, last: bool = False) -> list[tuple[bool, str]]:
        """(whether spans are lost, text) of what is due at ``now``, seconds of any clock; ``last``: of everything."""
        if not self._untold:
            return []
        due = [
            reason
            for reason in self._untold
            if last or now - self._told_at.get(reason, -inf) >= _TELL_INTERVAL_S
        ]
        told = []
        for reason in due:
            number, size = self._untold.pop(reason)
            self._told_at[reason] = now
            detail = self._details.pop(reason, "")
            amount = f" ({size} bytes)" if size else ""
            told.append(
                (
                    reason in _LOSSES,
                    f"{number} {_WORDS[reason]}{amount}{detail and f'; the last: {detail}'}",
                )
            )
        return told


__all__ = ["Refusals"]
