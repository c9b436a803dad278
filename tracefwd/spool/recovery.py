"""Recovery: what a journal's folder holds, whatever has happened to it.

First the RED log is read, because it says which entries of the data log are whole; then the data log is folded.

1. Nothing raises for what a file holds.  What cannot be read costs itself and is counted in ``damage``.
2. Nothing is invented: every entry and fact was written as it is given, with its checksum.
3. An entry that needs a mark and has none was never answered for; it is discarded, unless marks may have been lost to
   damage: then it is kept.
4. A drain counts only if the entry with its points is there, or over: else its facts are given again.
5. Nothing is changed, so reading a folder twice gives the same.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

from tracefwd.model import RedKey
from tracefwd.spool import frames
from tracefwd.spool.disk import Disk
from tracefwd.spool.log import Segment, number_of
from tracefwd.spool.recovered import Recovered, close_quietly, frames_of, read


def recover(folder: Path, disk: Disk, lanes: Iterable[str] = ()) -> Recovered:
    """Fold what is in ``folder``, which need not exist; ``lanes`` are names that may occur."""
    found = Recovered(folder, disk=disk)
    found.lane_ids = {name: frames.lane_id(name) for name in lanes}
    try:
        names = disk.names(folder)
    except FileNotFoundError:
        return found
    except OSError:
        found.damage.files += 1
        return found
    red = _RedFold(found)
    for segment in _segments(folder, disk, names, "red"):
        red.fold(segment)
    data = _DataFold(found, red)
    for segment in _segments(folder, disk, names, "data"):
        data.fold(segment)
    data.name_lanes()
    red.settle(data)
    found.next_seq = max(found.next_seq, data.newest + 1, red.mark + 1, found.swept)
    return found


class _RedFold:
    """The RED log but for its facts: marks, drains, sweeps."""

    def __init__(self, found: Recovered) -> None:
        self._found = found
        self.mark = 0
        # Whether marks may be missing behind the last one.
        self.is_doubtful = True
        self._has_begun = False
        self.drains: list[tuple[int, list[RedKey]]] = []

    def fold(self, segment: Segment) -> None:
        found, damage = self._found, self._found.damage
        keys: dict[int, RedKey] = {}
        before = (damage.frames, damage.files)
        files = damage.files
        if not self._has_begun:
            self._has_begun = True
            self.is_doubtful = False
        for frame in frames_of(found.disk, segment, damage):
            seq = self._frame(frame, keys)
            if seq > self.mark:
                self.mark = seq
                self.is_doubtful = False
                before = (damage.frames, damage.files)
        if before != (damage.frames, damage.files):
            self.is_doubtful = True
        if damage.files == files:
            found.red_segments.append(segment)

    def _frame(self, frame: frames.Frame, keys: dict[int, RedKey]) -> int:
        """Up to which seq entries are whole, as this frame says."""
        found, damage = self._found, self._found.damage
        kind = frame.kind
        if kind == frames.KEYS:
            keys.update(read(frames.read_keys, frame, kind, damage) or ())
        elif kind == frames.FACTS:
            return read(frames.read_seq, frame, kind, damage) or 0
        elif kind == frames.DRAINED and (drain := read(frames.read_drained, frame, kind, damage)):
            seq, ids = drain
            self.drains.append((seq, [keys[number] for number in ids if number in keys]))
            return seq
        elif kind == frames.SWEPT:
            found.swept = max(found.swept, read(frames.read_seq, frame, kind, damage) or 0)
            return found.swept - 1
        elif kind == frames.RED_START and (
            start := read(frames.read_red_start, frame, kind, damage)
        ):
            found.swept = max(found.swept, start[0])
            found.void += [seq for seq in start[1] if seq not in found.void]
            return found.swept - 1
        return 0

    def settle(self, data: "_DataFold") -> None:
        """Which drains have happened."""
        found = self._found
        for seq, keys in self.drains:
            if seq < found.swept:
                continue
            if seq in found.void or not data.has_drain(seq):
                if seq not in found.void:
                    found.void.append(seq)
                continue
            for key in keys:
                found.drained_at[key] = max(seq, found.drained_at.get(key, 0))


class _DataFold:
    def __init__(self, found: Recovered, red: _RedFold) -> None:
        self._found = found
        self._red = red
        self._names = {lane_id: name for name, lane_id in found.lane_ids.items()}
        self.newest = 0
        # Of the entries that drains name: those that are here, those that the newest head lists as outstanding, and
        # below which seq it lists.
        self._drain_seqs = {seq for seq, _ in red.drains}
        self._drains_here: set[int] = set()
        self._drains_listed: set[int] = set()
        self._listed_below = 0
        self._folds: dict[int, Callable[[frames.Frame], None]] = {
            frames.START: self._start,
            frames.STATE: self._state,
            frames.ENTRY: self._entry,
            frames.DONE: self._done,
            frames.OUTSTANDING: self._outstanding,
            frames.LAUNCHED: self._launched,
            frames.RETURNED: self._returned,
        }

    def fold(self, segment: Segment) -> None:
        found = self._found
        files = found.damage.files
        found.pending.begin(segment.number, self.newest + 1)
        for frame in frames_of(found.disk, segment, found.damage):
            fold = self._folds.get(frame.kind)
            if fold is not None:
                fold(frame)
        if found.damage.files == files:
            found.data_segments.append(segment)

    def _start(self, frame: frames.Frame) -> None:
        for name in read(frames.read_start, frame, frames.START, self._found.damage) or ():
            self._names[frames.lane_id(name)] = name

    def _state(self, frame: frames.Frame) -> None:
        found = self._found
        state = read(frames.read_state, frame, frames.STATE, found.damage)
        if state is not None:
            next_seq, found.adopted, found.state = state
            found.next_seq = max(found.next_seq, next_seq)
            found.counts.clear()

    def _entry(self, frame: frames.Frame) -> None:
        found = self._found
        entry = read(frames.read_entry, frame, frames.ENTRY, found.damage)
        # After a failed write a turn is written again, behind what may have been left of it.
        if entry is None or entry.seq <= self.newest:
            return
        self.newest = entry.seq
        if entry.marked and entry.seq > self._red.mark and not self._red.is_doubtful:
            found.discarded_entries += 1
            return
        if entry.seq in self._drain_seqs:
            self._drains_here.add(entry.seq)
        if entry.origin is not None:
            found.adopted[entry.origin.name] = entry.origin.step
        found.counts[entry.counts] = found.counts.get(entry.counts, 0) + 1
        for lane_id, _, _ in entry.payloads:
            found.pending.add(lane_id, (entry.seq,))

    def _done(self, frame: frames.Frame) -> None:
        part = read(frames.read_done, frame, frames.DONE, self._found.damage)
        if part is not None:
            self._found.pending.done(*part)
            self._found.launches.end(*part)

    def _launched(self, frame: frames.Frame) -> None:
        part = read(frames.read_done, frame, frames.LAUNCHED, self._found.damage)
        if part is not None:
            self._found.launches.begin(part.lane_id, part.first, part.last)

    def _returned(self, frame: frames.Frame) -> None:
        part = read(frames.read_done, frame, frames.RETURNED, self._found.damage)
        if part is not None:
            self._found.launches.end(part.lane_id, part.first, part.last)

    def _outstanding(self, frame: frames.Frame) -> None:
        found = self._found
        part = read(frames.read_outstanding, frame, frames.OUTSTANDING, found.damage)
        if part is None:
            return
        lane_id, below, seqs = part
        found.pending.keep_only(lane_id, below, seqs)
        # What is launched is listed behind it.
        found.launches.end(lane_id, 0, below - 1)
        if below > self._listed_below:
            self._listed_below = below
            self._drains_listed.clear()
        self._drains_listed |= self._drain_seqs.intersection(seqs)

    def has_drain(self, seq: int) -> bool:
        """Whether the entry with a drain's points is here, or over."""
        if seq in self._drains_here:
            return True
        return seq < self._listed_below and seq not in self._drains_listed

    def name_lanes(self) -> None:
        found = self._found
        for lane_id in found.pending.lanes():
            # Every START that had its name is damaged.
            self._names.setdefault(lane_id, f"unknown-{lane_id:08x}")
        found.lane_ids = {name: lane_id for lane_id, name in self._names.items()}


def _segments(folder: Path, disk: Disk, names: list[str], prefix: str) -> list[Segment]:
    """Oldest first."""
    numbers = sorted(
        (number, name) for name in names if (number := number_of(name, prefix)) is not None
    )
    return [
        Segment(number, folder / name, _size_bytes(disk, folder / name)) for number, name in numbers
    ]


def _size_bytes(disk: Disk, path: Path) -> int:
    """0 for a file that cannot be opened, which its reading will say."""
    try:
        fd = disk.open_read(path)
    except OSError:
        return 0
    try:
        return disk.size_bytes(fd)
    except OSError:
        return 0
    finally:
        close_quietly(disk, fd)
