"""Turns: how fresh and old batches share a lane's requests.  Pure.

Old is what comes out of the spool, and the halves of a batch that is searched for bad lines.  While there are fresh
batches, a quarter of the requests (at least one) is for old ones and the rest is for fresh ones; what one of them
does not need is the other's.  With a single request at a time every fourth is for an old batch.
"""

OLD_SHARE = 4


class Turns:
    def __init__(self, concurrency: int) -> None:
        self.old_most = max(1, concurrency // OLD_SHARE)
        self._fresh_most = max(1, concurrency - self.old_most)
        self._alternates = concurrency == 1
        self._turn = 0

    def takes_old(self, *, fresh: bool, old: bool, old_in_flight: int) -> bool:
        """Whether the next request is for an old batch; ``fresh`` and ``old``: whether such a batch waits."""
        if not (fresh and old):
            return old
        if not self._alternates:
            return old_in_flight < self.old_most
        self._turn = (self._turn + 1) % OLD_SHARE
        return self._turn == 0

    def takes_fresh(self, *, old_coming: bool, fresh_in_flight: int) -> bool:
        """Whether a fresh batch may go now; ``old_coming``: an old one is being read, and has a right to its share."""
        return not old_coming or fresh_in_flight < self._fresh_most


__all__ = ["Turns"]
