"""Journal: what a worker slot has accepted and what became of it, in two logs.

    data log   entries (counts, lines per lane), what lanes send and are done with, states of the ledger
    RED log    facts of every span, which keys' facts were drained into which entry

1. All calls of one turn of the loop are buffered; ``flush`` puts down the data log, then the RED log.  An entry of a
   journal with RED is valid only with a mark behind it there, so lines and RED are kept or lost together.
2. A data segment begins with all that is needed once older ones are gone: lanes, what is pending or sent, the state.
   So an older segment goes as soon as nothing in it is pending, whether still older ones are needed or not.
3. A tick begins a RED segment; when it has ended, the older ones go.
4. A log that cannot write degrades: frames are discarded, ``flush`` says False, answers are worth what they are at
   level memory.  What lanes finish meanwhile is written when a new segment can be begun.
5. With ``fsync`` nothing is removed before what replaces it survives a loss of power.

``state`` is called by ``start`` and within ``flush``: then the accounts must be what the calls so far make of them.
Never: raise for a disk, wait (but ``sync`` and ``close``), or hold more than ``_BUFFER_BYTES_MAX`` and one entry.
"""

from collections import deque
from collections.abc import Callable, Sequence
from errno import ENOSPC
from pathlib import Path

from tracefwd.metrics import Samples
from tracefwd.spool import frames
from tracefwd.spool.disk import Disk
from tracefwd.spool.log import Log, Segment
from tracefwd.spool.recovered import Recovered
from tracefwd.spool.red_log import RedLog

SEGMENT_BYTES_MAX = 64 * 2**20
# A turn of the loop that brings more is put down in parts.
_BUFFER_BYTES_MAX = 8 * 2**20
# A file that cannot be removed is tried again after this long.
_REMOVE_AGAIN_S = 1.0
# Of ranges of unwritten entries; with more the oldest are taken for one.
_UNWRITTEN_MAX = 64
# So that one segment that is needed does not fill the journal.
_SEGMENTS_MIN = 8


class Journal:
    """``lanes`` are "target/signal"; ``done`` and ``entry`` name them by their index in ``self.lanes``, which goes on
    with lanes that ``recovered`` has something pending for and nobody has configured.

    ``recovered`` is what this folder held; its segments stay where they are until nothing in them is pending.
    ``now`` is monotonic seconds.
    """

    def __init__(
        self,
        folder: Path,
        disk: Disk,
        *,
        lanes: Sequence[str],
        state: Callable[[], bytes],
        now: Callable[[], float],
        bytes_max: int,
        recovered: Recovered,
        fsync: bool = False,
        red: bool = True,
        segment_bytes_max: int = SEGMENT_BYTES_MAX,
    ) -> None:
        self.lanes = [*lanes, *(name for name in recovered.lanes if name not in lanes)]
        known = recovered.lane_ids
        self._lane_ids = [known.get(name) or frames.lane_id(name) for name in self.lanes]
        assert len(set(self._lane_ids)) == len(self.lanes), "two lanes have the same checksum"
        self._state = state
        self._now = now
        self._bytes_max = bytes_max
        self._segment_bytes_max = min(segment_bytes_max, bytes_max // _SEGMENTS_MIN)
        self._fsync = fsync
        self._data = Log(folder, "data", disk, fsync=fsync, now=now)
        self._data.inherit(recovered.data_segments)
        self._red: RedLog | None = None
        # Facts of a run with RED in a run without.
        self._unused = [] if red else recovered.red_segments
        if red:
            log = Log(folder, "red", disk, fsync=fsync, now=now)
            log.inherit(recovered.red_segments)
            seq, swept, void = recovered.next_seq - 1, recovered.swept, recovered.void
            self._red = RedLog(log, seq=seq, swept=swept, void=void)
        self._buffer = self._data.buffer
        self._pending = recovered.pending
        self._launches = recovered.launches
        self._next_seq = self._first_seq = recovered.next_seq
        self._adopted = dict(recovered.adopted)
        # The turn: what the buffer holds.
        self._fresh: list[list[int]] = [[] for _ in self.lanes]
        self._turn_first = self._next_seq
        self._buffered_bytes = 0
        self._turn_ok = True
        self._is_closed = False
        self._flags = 0
        self._origin = b""
        # The newest data segment whose head is whole: it makes up for those before it.
        self._headed = 0
        self._state_due = False
        self._has_removable = True
        # Segments to remove once both logs' writes up to these survive.
        self._leaving: deque[tuple[Log, Segment, list[int]]] = deque()
        self._remove_at = 0.0
        self._damage = recovered.damage
        # Entries that the disk refused, as ranges of seqs.
        self._unwritten: list[tuple[int, int]] = []
        self._unwritten_entries = self._writes = self._syncs = 0
        self._write_s = self._sync_s = 0.0

    def start(self) -> bool:
        """Begin the first segments; False if the journal starts degraded."""
        if self._red is not None:
            self._red.begin_segment()
            self._flags = frames.MARKED if self._red.log.is_open else 0
        else:
            self._leave(self._data, self._unused)
        self._begin_data()
        self._clear_away()
        return not self.degraded

    # The hot path.

    def entry(
        self,
        counts: bytes,
        payloads: Sequence[tuple[int, int, bytes]],
        facts: Sequence[int] | None,
        now_s: int,
    ) -> int:
        """What a request, or a slice of a tick, brings; returns its seq.

        ``payloads`` are (lane, items, data); ``facts`` alternates key number << 1 | error with microseconds, for
        every span.
        """
        if self._buffered_bytes > _BUFFER_BYTES_MAX:
            self._turn_ok &= self._put_down()
        seq = self._next_seq
        self._next_seq = seq + 1
        self._buffered_bytes += frames.put_entry(
            self._buffer, seq, self._flags, counts, payloads, self._lane_ids, self._origin
        )
        for payload in payloads:
            self._fresh[payload[0]].append(seq)
        red = self._red
        if red is not None:
            if facts:
                red.gather(seq, facts, now_s)
            red.mark_seq = seq
        return seq

    def key(self, number: int, packed: bytes) -> None:
        """Key ``number`` (below 2^31) is this RedKey, packed by ``pack_key``; before the first fact that names it.

        A number names one key for as long as the journal lives.
        """
        if self._red is not None:
            self._red.key(number, packed)

    def forget_key(self, number: int) -> None:
        """Nothing names this key any more, and all its facts are drained."""
        if self._red is not None:
            self._red.forget_key(number)

    # Lanes.

    def launched(self, lane: int, first: int, last: int) -> None:
        """Lines of these entries are about to be sent; put down with the turn, so before they leave."""
        lane_id = self._lane_ids[lane]
        self._launches.begin(lane_id, first, last)
        self._buffer.append(frames.launched(lane_id, first, last))

    def returned(self, lane: int, first: int, last: int) -> None:
        """An answer said that none of what was launched was taken."""
        lane_id = self._lane_ids[lane]
        self._launches.end(lane_id, first, last)
        self._buffer.append(frames.returned(lane_id, first, last))

    def done(self, lane: int, first: int, last: int) -> None:
        """Nothing is left to do in ``lane`` for ``first`` to ``last``; what became of the lines is in the counts."""
        lane_id = self._lane_ids[lane]
        frame = frames.done(lane_id, first, last)
        self._buffer.append(frame)
        self._buffered_bytes += len(frame)
        fresh = self._fresh[lane]
        if fresh and fresh[0] <= last:
            fresh[:] = [seq for seq in fresh if not first <= seq <= last]
        self._pending.done(lane_id, first, last)
        self._launches.end(lane_id, first, last)
        self._has_removable = True

    # The tick.

    def tick_begins(self) -> None:
        """What is gathered until now will be drained by this tick."""
        if self._red is not None:
            self._turn_ok &= self._put_down()
            self._red.tick_begins(self._next_seq)

    def drained(self, seq: int, ids: Sequence[int]) -> None:
        """All that the keys ``ids`` gathered before is in the points of entry ``seq``, made by the call before this."""
        if self._red is not None:
            self._red.drained(seq, ids)

    def tick_ended(self) -> None:
        """Every key that had gathered anything when the tick began has been drained."""
        if self._red is not None:
            self._red.tick_ends()
            self._turn_ok &= self._put_down()
            self._leave(self._red.log, self._red.leaving())

    @property
    def wants_tick(self) -> bool:
        """Facts have filled a segment: a tick before its time would let it go."""
        return self._red is not None and self._red.wants_tick

    # Taking over what another journal held.

    @property
    def adopted(self) -> dict[str, int]:
        """The last step taken of each origin that is not over."""
        return self._adopted

    def adopt(
        self,
        origin: frames.Origin,
        counts: bytes,
        payloads: Sequence[tuple[int, int, bytes]],
        facts: Sequence[int] | None,
        now_s: int,
    ) -> int:
        """``entry``, and in the same frame that ``origin.step`` is taken: each step once, however often we die."""
        self._origin = frames.origin_head(origin.name, origin.step)
        self._flags |= frames.ADOPTED
        seq = self.entry(counts, payloads, facts, now_s)
        self._origin = b""
        self._flags &= ~frames.ADOPTED
        self._adopted[origin.name] = origin.step
        return seq

    def adoption_ended(self, name: str) -> None:
        """The origin's folder is gone."""
        self._adopted.pop(name, None)

    # Putting down.

    def flush(self) -> bool:
        """Put down the turn.  True: all of it will be found again; False: some of it is in memory only."""
        if self._is_closed:
            return False
        is_durable = self._put_down() and self._turn_ok
        self._turn_ok = True
        data, red = self._data, self._red
        if data.is_open and self._state_due:
            self._write_state()
        elif data.size_bytes >= self._segment_bytes_max and data.may_open():
            self._begin_data()
        if red is not None and red.log.size_bytes >= self._segment_bytes_max and red.log.may_open():
            red.rotate()
        if self._has_removable or self._leaving:
            self._clear_away()
        return is_durable

    def look(self) -> None:
        """Now and then, between turns: go on in new files where somebody has removed those in use."""
        if not self._data.look():
            self._unwritten = [(0, self._turn_first - 1)]
        if self._red is not None:
            self._red.look()

    def _put_down(self) -> bool:
        """Data log first: a mark stands for what is written already."""
        began = self._now()
        has_room = self._has_room()
        is_durable = self._write_data(may_open=has_room)
        if self._red is not None:
            is_durable &= self._red.write(may_open=has_room)
            self._flags = frames.MARKED if self._red.log.is_open else 0
        if not is_durable and self._turn_first != self._next_seq:
            self._note_unwritten(self._turn_first, self._next_seq - 1)
        self._buffered_bytes = 0
        self._turn_first = self._next_seq
        self._writes += 1
        self._write_s += self._now() - began
        return is_durable

    def _note_unwritten(self, first: int, last: int) -> None:
        parts = self._unwritten
        if parts and parts[-1][1] + 1 == first:
            first = parts.pop()[0]
        elif len(parts) == _UNWRITTEN_MAX:
            parts[:2] = [(parts[0][0], parts[1][1])]
        parts.append((first, last))

    def lacks(self, first: int, last: int) -> bool:
        """Whether an entry of ``first`` to ``last`` may be in memory alone, because the disk refused it."""
        return any(begin <= last and first <= end for begin, end in self._unwritten)

    def _has_room(self) -> bool:
        """Whether the journal may have more bytes; if not, nothing is written until something was removed."""
        if self.bytes_held < self._bytes_max:
            return True
        error = OSError(ENOSPC, f"all {self._bytes_max} bytes of the journal are in use")
        for log in self._logs():
            if log.is_open:
                log.give_up(error)
        if self._red is not None and self._red.log.sealed_bytes * 2 > self._bytes_max:
            self._red.wants_tick = True
        return False

    def _write_data(self, *, may_open: bool) -> bool:
        data = self._data
        if not data.write():
            below = self._turn_first
            if not may_open or not data.may_open() or not data.open(self._data_head(below)):
                return self._discard_turn()
            self._pending.begin(data.number, below)
            self._state_due = True
            if not data.write():
                return self._discard_turn()
        if self._turn_first != self._next_seq:
            for lane_id, seqs in zip(self._lane_ids, self._fresh, strict=True):
                if seqs:
                    self._pending.add(lane_id, seqs)
                    seqs.clear()
        return True

    def _discard_turn(self) -> bool:
        self._buffer.clear()
        self._unwritten_entries += self._next_seq - self._turn_first
        for seqs in self._fresh:
            seqs.clear()
        return False

    def _data_head(self, below: int) -> bytes:
        lanes = dict.fromkeys([*self._lane_ids, *self._pending.lanes()])
        parts = [frames.start(self.lanes)]
        for lane in lanes:
            parts.append(frames.outstanding(lane, below, self._pending.seqs(lane)))
            parts += [frames.launched(lane, *part) for part in self._launches.ranges(lane)]
        return b"".join(parts)

    def _state_frame(self) -> bytes:
        return frames.state(self._next_seq, self._adopted, self._state())

    def _begin_data(self) -> None:
        """A segment that makes up for all before it; between turns only."""
        data = self._data
        if data.open(self._data_head(self._next_seq) + self._state_frame()):
            self._pending.begin(data.number, self._next_seq)
            self._headed = data.number
            self._has_removable = True

    def _write_state(self) -> None:
        data = self._data
        self._buffer.append(self._state_frame())
        if data.write():
            self._state_due = False
            self._headed = data.number
            self._has_removable = True
        else:
            self._buffer.clear()

    # Removing.

    def _clear_away(self) -> None:
        if self._has_removable:
            self._has_removable = False
            gone = list(self._pending.empty(self._headed))
            self._leave(self._data, [s for s in self._data.sealed if s.number in gone])
            for number in gone:
                self._pending.forget(number)
        if not self._leaving or self._now() < self._remove_at:
            return
        while self._leaving:
            log, segment, writes = self._leaving[0]
            if any(log.synced < n for log, n in zip(self._logs(), writes, strict=True)):
                return
            if not log.remove(segment):
                self._remove_at = self._now() + _REMOVE_AGAIN_S
                return
            self._leaving.popleft()

    def _leave(self, log: Log, segments: list[Segment]) -> None:
        known = {segment.path for _, segment, _ in self._leaving}
        writes = [log.writes for log in self._logs()]
        self._leaving.extend((log, s, writes) for s in segments if s.path not in known)

    def sync(self) -> bool:
        """Until what was flushed before the call survives a loss of power.  Blocks: for a thread, one at a time.

        False: it may not, and the next ``flush`` goes on in a new segment.
        """
        if not self._fsync:
            return True
        began = self._now()
        results = [log.sync() for log in self._logs()]
        self._syncs += 1
        self._sync_s += self._now() - began
        return all(results)

    def close(self) -> bool:
        """The last flush, and with ``fsync`` the last sync, which blocks; nothing is written afterwards."""
        is_durable = self.flush()
        self._is_closed = True
        for log in self._logs():
            log.seal()
        return self.sync() and is_durable

    # What is seen from outside.

    def _logs(self) -> list[Log]:
        return [self._data] if self._red is None else [self._data, self._red.log]

    @property
    def bytes_held(self) -> int:
        return sum(log.held_bytes for log in self._logs())

    @property
    def segments(self) -> int:
        return sum(len(log.sealed) + log.is_open for log in self._logs())

    @property
    def degraded(self) -> bool:
        return not all(log.is_open for log in self._logs())

    def samples(self) -> Samples:
        damage = self._damage
        values: dict[str, float] = {
            "tracefwd_journal_bytes": self.bytes_held,
            "tracefwd_journal_bytes_max": self._bytes_max,
            "tracefwd_journal_segments": self.segments,
            "tracefwd_journal_degraded": int(self.degraded),
            "tracefwd_journal_entries_total": self._next_seq - self._first_seq,
            "tracefwd_journal_unwritten_entries_total": self._unwritten_entries,
            "tracefwd_journal_written_bytes_total": sum(log.written_bytes for log in self._logs()),
            "tracefwd_journal_writes_total": self._writes,
            "tracefwd_journal_write_seconds_total": self._write_s,
            "tracefwd_journal_syncs_total": self._syncs,
            "tracefwd_journal_sync_seconds_total": self._sync_s,
            "tracefwd_journal_corrupt_frames_total": damage.frames,
            "tracefwd_journal_corrupt_bytes_total": damage.lost_bytes,
            "tracefwd_journal_unreadable_files_total": damage.files,
        }
        return {name: {(): value} for name, value in values.items()}
