"""RedLog: the facts behind RED, from the moment a span is taken until its series is in the points of an entry.

1. A segment declares each key before it first names it, so every segment can be read alone.
2. Nothing here is younger than the data log: ``Journal`` puts that down first.  The newest seq here marks all entries
   up to it as whole.
3. When a tick has ended, what was gathered before it began is in points that the data log has, and goes.
"""

from array import array
from collections.abc import Iterable, Sequence

from tracefwd.spool import frames
from tracefwd.spool.log import Log, Segment


class RedLog:
    """``swept``: all facts with a lower seq are drained.  ``void``: drains that count as not having happened."""

    def __init__(self, log: Log, *, seq: int, swept: int, void: Sequence[int]) -> None:
        self.log = log
        # The newest entry, and the newest that a frame here stands for; the former is set by the journal, each time.
        self.mark_seq = self._marked = seq
        self._facts: array[int] = array("Q")
        self._facts_s = 0
        self._facts_seq = seq
        # Packed keys by number; those that the segment has declared; and the same as facts name them.
        self._keys: dict[int, bytes] = {}
        self._declared: set[int] = set()
        self._named: set[int] = set()
        # The tick: the first seq after its begin, the segment that began with it, and what it has drained.
        self._tick_seq = self._tick_number = 0
        self._drains: list[tuple[int, Sequence[int]]] = []
        self._swept = swept
        self._void = list(void)
        self.wants_tick = False

    # Gathering.

    def gather(self, seq: int, facts: Sequence[int], now_s: int) -> None:
        if now_s != self._facts_s:
            self._pack_facts(self._facts_seq)
            self._facts_s = now_s
        self._facts.extend(facts)
        self._facts_seq = seq

    def key(self, number: int, packed: bytes) -> None:
        self._keys[number] = packed

    def forget_key(self, number: int) -> None:
        self._keys.pop(number, None)

    def drained(self, seq: int, ids: Sequence[int]) -> None:
        # With the seq of their own entry: they must not look younger than the drain.
        self._pack_facts(self._facts_seq)
        self._declare(set(ids))
        self.log.buffer.append(frames.drained(seq, ids))
        self._marked = seq
        self._drains.append((seq, ids))

    def _pack_facts(self, seq: int) -> None:
        """One frame of all that is gathered, which marks entries up to ``seq``."""
        if not self._facts:
            return
        # The error bit is left in: this way a set difference is all that known keys cost.
        new = set(self._facts[::2]) - self._named
        if new:
            self._named |= new
            self._declare({value >> 1 for value in new})
        self.log.buffer.append(frames.facts(seq, self._facts_s, self._facts))
        self._marked = seq
        self._facts = array("Q")

    def _declare(self, numbers: set[int]) -> None:
        new = numbers - self._declared
        if new:
            self._declared |= new
            self.log.buffer.append(self._keys_frame(new))

    def _keys_frame(self, numbers: Iterable[int]) -> bytes:
        return frames.keys([(number, self._keys[number]) for number in numbers])

    def _declare_anew(self) -> None:
        self._declared.clear()
        self._named.clear()

    # Putting down.

    def write(self, *, may_open: bool) -> bool:
        """Put down what is gathered and a mark for the newest entry; False if it is discarded instead."""
        log = self.log
        self._pack_facts(self.mark_seq)
        if self.mark_seq > self._marked:
            log.buffer.append(frames.facts(self.mark_seq, self._facts_s, array("Q")))
            self._marked = self.mark_seq
        if log.write():
            return True
        if may_open and log.may_open() and self.begin_segment() and log.write():
            return True
        log.buffer.clear()
        return False

    def begin_segment(self) -> bool:
        """A segment that goes on where the last one ended, however it ended; it declares what the buffer may name."""
        parts = [frames.red_start(self._swept, self._void)]
        numbers = self._declared.union(*(ids for _, ids in self._drains))
        numbers &= self._keys.keys()  # nothing that is left to say names a forgotten one
        if numbers:
            parts.append(self._keys_frame(numbers))
        parts += [frames.drained(seq, ids) for seq, ids in self._drains]
        return self.log.open(b"".join(parts))

    def look(self) -> None:
        if not self.log.look():
            self._marked = 0  # entries that were whole are so by the next segment's word

    def rotate(self) -> None:
        """The segment is large; a tick would let it go."""
        self._declare_anew()
        self.begin_segment()
        self.wants_tick = True

    # The tick, between two writes.

    def tick_begins(self, next_seq: int) -> None:
        self.wants_tick = False
        self._drains.clear()
        if self.log.is_open:
            self._declare_anew()
            self.begin_segment()
        self._tick_seq, self._tick_number = next_seq, self.log.oldest_open

    def tick_ends(self) -> None:
        """To be followed by a write."""
        self._drains.clear()
        self._void.clear()
        self._swept = self._tick_seq
        self.log.buffer.append(frames.swept(self._swept))

    def leaving(self) -> list[Segment]:
        """Behind that write: segments that nobody needs."""
        log = self.log
        if log.is_open or self.begin_segment():
            return [segment for segment in log.sealed if segment.number < self._tick_number]
        # With no mark behind it, what is left would take the newest entries for unfinished ones; with nothing left
        # recovery keeps them.
        return list(log.sealed)
