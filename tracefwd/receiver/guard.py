"""Guard: what all connections of a worker share to keep one sender from taking what belongs to the others.

1. Tokens: where some are asked for, a request without one gets 401, whatever else is wrong with it.
2. Overload: while memory is short, requests are answered 503 at their head, or at their end if they came in one read.
3. Room: the bytes of unfinished requests, over all connections.  Below half of it everybody gets what they need;
   above, only requests within their fair share of that half (so that a flood of large bodies costs the large ones);
   nobody above the whole.  A request that comes in one read is never unfinished.

Pure; nothing here is touched by a request that comes in one read but for two flags.
"""

from collections.abc import Iterable
from hmac import compare_digest

from tracefwd.doorways import Answer
from tracefwd.receiver import http_messages as say
from tracefwd.settings import ReceiverSettings

_SCHEME = b"bearer "


class Guard:
    """``looks`` is whether ``refusal`` has anything to say about a request's head."""

    __slots__ = ("_room", "_tokens", "_unfinished", "looks", "overloaded", "unfinished_bytes")

    def __init__(self, settings: ReceiverSettings) -> None:
        self._room = max(settings.unfinished_bytes_max, 2 * settings.body_bytes_max)
        self._tokens: tuple[bytes, ...] | None = None
        self._unfinished = 0
        self.unfinished_bytes = 0
        self.overloaded = False
        self.looks = False

    # Who may come in.

    def ask_for(self, tokens: Iterable[bytes] | None) -> None:
        """From now on a request must show one of these; None asks for none."""
        self._tokens = None if tokens is None else tuple(tokens)
        self._look()

    @property
    def asks_for_token(self) -> bool:
        return self._tokens is not None

    def set_overloaded(self, overloaded: bool) -> None:
        self.overloaded = overloaded
        self._look()

    def refusal(self, authorization: bytes) -> Answer | None:
        """The answer to a request that may not come in; ``authorization`` is its header, b"" without one."""
        if self._tokens is not None and not self._is_known(authorization):
            return say.UNAUTHORIZED
        return say.OVERLOADED if self.overloaded else None

    def _is_known(self, authorization: bytes) -> bool:
        given = b""
        if authorization[: len(_SCHEME)].lower() == _SCHEME:
            given = authorization[len(_SCHEME) :].strip()
        known = False
        # All of them, each in constant time: how long it takes says nothing about which one is near.
        for token in self._tokens or ():
            known |= compare_digest(token, given)
        return known

    def _look(self) -> None:
        self.looks = self._tokens is not None or self.overloaded

    # How much may be under way.

    def make_room(self, before: int, now: int) -> bool:
        """One unfinished request grows, or shrinks, from ``before`` to ``now`` bytes; False: it must go."""
        total = self.unfinished_bytes + now - before
        requests = self._unfinished + (not before) - (not now)
        fair = self._room // 2
        if now > before and total > fair and (total > self._room or now * requests > fair):
            return False
        self.unfinished_bytes = total
        self._unfinished = requests
        return True

    def release(self, size: int) -> None:
        """An unfinished request of this size is finished, or gone."""
        self.make_room(size, 0)


__all__ = ["Guard"]
