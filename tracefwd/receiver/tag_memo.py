"""Plain tags by the bytes that say them: what a span's tags are is looked up and not read.

Nearly every tag of a mesh has been said before, byte by byte.  A decoder that can cut a span's tags into pieces in one
call hands the pieces over, and gets a record (``tag_records.py``); all the lookups run in C.  A piece that is not known
is read once, by the decoder's own ``read``.  That is two thirds of what a loop over the tags costs.

Tables are bounded and can be emptied at any time.  Pure.
"""

from collections.abc import Callable, Sequence

from tracefwd.limits import MEMO_ENTRIES_MAX
from tracefwd.receiver.tag_records import TagRecords
from tracefwd.tag_record import TagRecord

Pair = tuple[str, str]
ReadPair = Callable[[bytes], Pair | None]
"""Key and value of a piece, both plain; None if they are not, or if the piece is not exactly one tag."""

# Values of one key that are remembered for good: what has more of them (request ids) would only empty the table.
_VALUES_PER_KEY_MAX = 512
# Of the others as many are remembered for a while, because the spans of a trace come together.
_PASSING_MAX = 2_048


class _OddTagError(Exception):
    """A piece that is no plain tag."""


class _Known(dict[bytes, Pair]):
    """Reads what it does not know."""

    def __init__(self, read: ReadPair) -> None:
        self._read = read
        self._values: dict[str, int] = {}
        self._passing: list[bytes] = []

    def __missing__(self, piece: bytes) -> Pair:
        pair = self._read(piece)
        if pair is None:
            raise _OddTagError
        if len(self) >= MEMO_ENTRIES_MAX + _PASSING_MAX or len(self._values) >= MEMO_ENTRIES_MAX:
            self.clear()
            self._values.clear()
            self._passing.clear()
        key = pair[0]
        values = self._values.get(key, 0)
        if values < _VALUES_PER_KEY_MAX:
            self._values[key] = values + 1
        else:
            self._passing.append(piece)
            if len(self._passing) > _PASSING_MAX:
                for passed in self._passing[:-1]:
                    del self[passed]
                del self._passing[:-1]
        self[piece] = pair
        return pair


class TagMemo:
    """Belongs to one decoder."""

    __slots__ = ("_find", "_places", "_record", "_records")

    def __init__(self, read: ReadPair) -> None:
        self._find = _Known(read).__getitem__
        self._records = TagRecords(str)
        self._take_record()

    def _take_record(self) -> None:
        self._record = self._records.record
        # Every known key has its place from the start, so that the values come out in the record's order.
        self._places = dict.fromkeys(self._record.names, "")

    def field(self, key: str) -> str:
        """As ``TagRecords.field``, for keys that have their place from the start."""
        return self._records.field(key)

    def record_of(self, pieces: Sequence[bytes]) -> TagRecord | None:
        """The tags that these pieces say, of two with one key the last; None if one of them is not plain."""
        tags = self._places.copy()
        try:
            tags.update(map(self._find, pieces))
        except _OddTagError:
            return None
        if len(tags) != len(self._places):
            if not self._records.learn_from(tags):
                return None
            self._take_record()
            return self.record_of(pieces)
        return self._record(*tags.values())
