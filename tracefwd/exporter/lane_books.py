"""A lane's books: its account in the ledger, what it says in the log, and who is told when lines are over.

Every way in which a line's time in a lane can end has one method here, so that account, log and journal cannot
disagree.  ``done(first, last)`` tells the journal: ``first`` and ``last`` are seqs of entries (both 0: accounts have
changed, for a batch that came out of the spool).
"""

from collections.abc import Callable, Iterable

from tracefwd.exporter import verdicts
from tracefwd.exporter.batch import Batch
from tracefwd.exporter.compress import plain
from tracefwd.exporter.doubled import Again, red_spans
from tracefwd.exporter.lane_log import LaneLog
from tracefwd.exporter.origin import Origin
from tracefwd.exporter.refusals import Refusals
from tracefwd.ledger import Account
from tracefwd.limits import REJECT_SAMPLE_BYTES_MAX
from tracefwd.metrics import Samples
from tracefwd.model import Outcome, Payload, Reject, Signal, Stored

Done = Callable[[int, int], None]
"""``(first seq, last seq)``; never raises."""
Launched = Callable[[int, int, bool], None]
"""``(first seq, last seq, True)``: lines of these entries are about to be sent, and until they are over they may have
arrived.  With False: an answer said that none of them was taken.
"""
Lacks = Callable[[int, int], bool]
"""``(first seq, last seq)``: whether the disk has refused some of these entries, so that they are in memory alone."""


class LaneBooks:
    """``show`` gets single lines that were refused.

    ``remove`` deletes a batch of the spool whose lines are all over; it is called after ``done``.
    """

    def __init__(
        self,
        name: str,
        signal: Signal,
        held: Callable[[], int],
        done: Done | None,
        launched: Launched | None,
        show: Callable[[Reject], None],
        lacks: Lacks | None = None,
    ) -> None:
        self.account = Account(held)
        self.log = LaneLog(f"{name}/{signal}")
        self.refusals = Refusals()
        self.remove: Callable[[Stored], None] | None = None
        # Hears of lines of the spool that were received just now.
        self.tell_found: Callable[[int], None] | None = None
        self._at = (name, str(signal))
        self._signal = signal
        self._done = done
        self._launched = launched
        self._lacks = lacks
        self._show = show
        self.again = Again()

    @property
    def has_journal(self) -> bool:
        return self._done is not None

    def origin(self, first: int, last: int) -> Origin | None:
        """For lines of these entries, if there is somebody to tell."""
        return Origin(first, last) if first and self._done is not None else None

    def keeps(self, batch: Batch) -> bool:
        """Whether whoever comes next finds it where it is, in the journal or as a batch of the spool."""
        origin = batch.origin
        if origin is None:
            return False
        return not origin.first or self._lacks is None or not self._lacks(origin.first, origin.last)

    def keeps_all(self, batches: Iterable[Batch]) -> bool:
        return all(map(self.keeps, batches))

    # On its way.

    def launched(self, batch: Batch) -> None:
        """It is about to be sent, or in part about to be safe elsewhere, which a crash would not know either."""
        origin = batch.origin
        if origin is None or not origin.first or origin.launched == origin.last:
            return
        origin.launched = origin.last
        if self._launched is not None:
            self._launched(origin.first, origin.last, True)

    def returned(self, batch: Batch) -> None:
        """None of it was taken.  What became of its origin's other pieces is another matter."""
        origin = batch.origin
        if origin is None or not origin.launched or origin.pieces > 1 or batch.maybe_sent:
            return
        origin.launched = 0
        if self._launched is not None:
            self._launched(origin.first, origin.last, False)

    # The end of a batch, or of a part of one.

    def delivered(self, batch: Batch, outcome: Outcome) -> None:
        """But for those that were refused, which the books have already."""
        items = batch.items - outcome.refused_items
        self.account.delivered += items
        self._over(batch.origin, items)

    def refused_some(self, batch: Batch, outcome: Outcome, where: str, now: float) -> None:
        """A part of a batch that is delivered otherwise; which lines, the target does not say."""
        items = outcome.refused_items
        self.account.reject("refused", items)
        self.refusals.add(f"{where} refused some {self._at[1]}: {outcome.detail}", items, now)
        self._show(Reject("refused", where, f"{items} of {batch.items}: {outcome.detail}"))
        self.log.rejected("refused", items, where, outcome.detail)
        if batch.origin is not None:
            batch.origin.items -= items

    def rejected(self, batch: Batch, outcome: Outcome, where: str, now: float) -> None:
        reason = verdicts.ledger_reason(outcome)
        self.account.reject(reason, batch.items)
        text = f"{where} refused {self._at[1]} for good: {outcome.detail}"
        self.refusals.add(text, batch.items, now)
        if batch.items == 1:
            line = plain(batch.data, batch.encoding)[:REJECT_SAMPLE_BYTES_MAX]
            self._show(Reject(reason, where, outcome.detail, line))
        self.log.rejected(reason, batch.items, where, outcome.detail)
        self._over(batch.origin, batch.items)

    def dropped(self, batch: Batch, reason: str) -> None:
        self._drop(batch.items, reason)
        self._over(batch.origin, batch.items)

    def spooled(self, batch: Batch) -> None:
        """It is on disk; the account goes on holding it."""
        self._over(batch.origin, batch.items)

    # Lines without a batch.

    def refused_entry(self, items: int, state: str, reason: str) -> None:
        """Lines that found no place: ``blocked`` or ``dropped``."""
        if not items:
            return
        if state == "blocked":
            self.account.blocked += items
        else:
            self._drop(items, reason)

    def lost(self, items: int, reason: str) -> None:
        """Lines that the spool had to give up."""
        self._drop(items, reason)
        if self._done is not None:
            self._done(0, 0)

    def found(self, items: int) -> None:
        """Lines that an earlier process spooled."""
        self.account.received += items
        if self.tell_found is not None:
            self.tell_found(items)

    def finish(self, origin: Origin) -> None:
        """Tell whoever has to know that all lines of it are over."""
        if self._done is not None:
            self._done(origin.first, origin.last)
        if origin.stored is not None and self.remove is not None:
            self.remove(origin.stored)

    # Doubles.

    def sent_again(self, batch: Batch) -> None:
        """An attempt before may have arrived."""
        self.count_again(batch.items, plain(batch.data, batch.encoding))

    def offered_again(self, payload: Payload) -> None:
        """An earlier process may have sent it."""
        self.count_again(payload.items, payload.data)

    def count_again(self, items: int, lines: bytes) -> None:
        self.again.items += items
        self.again.red += red_spans(self._signal, lines)

    def samples(self) -> Samples:
        prefix = "tracefwd_exporter_"
        at = self._at
        dropped = self.account.dropped
        total: Samples = {
            f"{prefix}dropped_items_total": {(*at, why): n for why, n in dropped.items()},
            f"{prefix}maybe_duplicated_items_total": {at: self.again.items},
        }
        if self._signal in (Signal.POINTS, Signal.DISTRIBUTIONS):
            total[f"{prefix}red_maybe_doubled_total"] = {at: self.again.red}
        too_long = self.account.rejected.get("too_long_for_target", 0)
        if too_long:
            total[f"{prefix}rejected_items_total"] = {(*at, "too_long_for_target"): too_long}
        return total

    def _drop(self, items: int, reason: str) -> None:
        self.account.drop(reason, items)
        self.log.dropped(reason, items)

    def _over(self, origin: Origin | None, items: int) -> None:
        if origin is not None and origin.over(items):
            self.finish(origin)


__all__ = ["Done", "Lacks", "LaneBooks", "Launched"]
