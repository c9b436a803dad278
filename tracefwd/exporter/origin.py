"""Origin: what a batch was made of, so that somebody hears once when all of its lines are over.  Pure.

However a batch is split, dropped in part or spooled, its pieces share one origin.  An origin is a range of journal
entries, or a batch of the spool; lines that neither journal nor spool know have none.
"""

from tracefwd.model import Stored


class Origin:
    """``first`` and ``last`` are the entries' seqs (0: none); ``stored`` is the batch on disk to remove at the end.

    ``items`` counts the lines that are not over, ``pieces`` the batches there have been; ``held_open``: more lines of
    the last entry are coming; ``launched`` is the last seq of which lines may have been sent (0: none).
    """

    __slots__ = ("first", "held_open", "items", "last", "launched", "pieces", "stored")

    def __init__(self, first: int, last: int, stored: Stored | None = None) -> None:
        self.first = first
        self.last = last
        self.stored = stored
        self.items = 0
        self.pieces = 0
        self.held_open = False
        self.launched = 0

    def gain(self, items: int, pieces: int = 1) -> None:
        """More lines."""
        self.items += items
        self.pieces += pieces

    def over(self, items: int) -> bool:
        """Whether these lines were the last."""
        self.items -= items
        return self.is_over

    @property
    def is_over(self) -> bool:
        return self.items == 0 and not self.held_open


__all__ = ["Origin"]
