"""What a journal's folder holds, as ``recover`` found it, and the lazy reading of it.

Lines and facts stay in their files until they are asked for, so a backlog costs eight bytes an entry and lane.  Reading
changes nothing and raises for nothing: what cannot be read is passed over.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

from tracefwd.model import RedKey
from tracefwd.spool import frames
from tracefwd.spool.disk import Disk
from tracefwd.spool.launches import Launches
from tracefwd.spool.log import Segment
from tracefwd.spool.pending import Pending
from tracefwd.spool.scan import Damage, scan

_T = TypeVar("_T")
# Steps of an adoption: entries by their seq, then facts by theirs.
_FACTS_STEP = 2**62


class Outstanding(NamedTuple):
    """Lines that a lane still has to do something about."""

    lane: str
    seq: int
    items: int
    data: bytes


class Fact(NamedTuple):
    """One span's part in RED; ``now_s`` is when it was taken (epoch seconds)."""

    key: RedKey
    error: bool
    duration_us: int
    now_s: int


class Unit(NamedTuple):
    """What is handed over at once.  ``payloads`` are (lane, items, data); an entry's, or else facts of one second."""

    step: int
    payloads: list[tuple[str, int, bytes]]
    facts: list[Fact]


@dataclass
class DamageFound:
    """``torn``: tails that a crash cut, which is no damage to anything that was answered for."""

    frames: int = 0
    lost_bytes: int = 0
    files: int = 0
    torn: int = 0


@dataclass
class Recovered:
    """``state`` is None where none can be read; ``counts`` are what was written since, with how often.

    The state plus the counts need not balance with what is outstanding: what lies between was lost to a
    crash or to damage.
    """

    folder: Path
    state: bytes | None = None
    counts: dict[bytes, int] = field(default_factory=dict)
    pending: Pending = field(default_factory=Pending)
    launches: Launches = field(default_factory=Launches)
    lane_ids: dict[str, int] = field(default_factory=dict)
    next_seq: int = 1
    adopted: dict[str, int] = field(default_factory=dict)
    discarded_entries: int = 0
    swept: int = 0
    void: list[int] = field(default_factory=list)
    drained_at: dict[RedKey, int] = field(default_factory=dict)
    data_segments: list[Segment] = field(default_factory=list)
    red_segments: list[Segment] = field(default_factory=list)
    damage: DamageFound = field(default_factory=DamageFound)
    disk: Disk = field(default_factory=Disk)

    @property
    def is_empty(self) -> bool:
        return not (self.data_segments or self.red_segments)

    @property
    def lanes(self) -> list[str]:
        """Lanes for which something is outstanding."""
        pending = set(self.pending.lanes())
        return [name for name, lane_id in self.lane_ids.items() if lane_id in pending]

    def outstanding(self) -> Iterator[Outstanding]:
        """Lines in the order in which they came.  What a lane is done with meanwhile is left out."""
        names = {lane_id: name for name, lane_id in self.lane_ids.items()}
        for segment in self.data_segments:
            for frame in frames_of(self.disk, segment, None):
                entry = read(frames.read_entry, frame, frames.ENTRY, None)
                if entry is None:
                    continue
                for lane_id, items, data in entry.payloads:
                    if self.pending.has(segment.number, lane_id, entry.seq):
                        yield Outstanding(names[lane_id], entry.seq, items, data)

    def was_launched(self, lane: str, seq: int) -> bool:
        """Whether lines of this entry may be at the lane's destination already."""
        return self.launches.has(self.lane_ids[lane], seq)

    def facts(self) -> Iterator[Fact]:
        """Facts that are in no entry's points."""
        for _, facts in self._facts_by_frame():
            yield from facts

    def _facts_by_frame(self) -> Iterator[tuple[int, list[Fact]]]:
        newest = 0
        for segment in self.red_segments:
            keys: dict[int, RedKey] = {}
            for frame in frames_of(self.disk, segment, None):
                keys.update(read(frames.read_keys, frame, frames.KEYS, None) or ())
                part = read(frames.read_facts, frame, frames.FACTS, None)
                # After a failed write a turn is written again, behind what may have been left of it.
                if part is None or part.seq <= newest:
                    continue
                newest = part.seq
                if part.seq >= self.swept:
                    yield part.seq, self._undrained(part, keys)

    def _undrained(self, part: frames.Facts, keys: dict[int, RedKey]) -> list[Fact]:
        found: list[Fact] = []
        for named, duration_us in zip(part.pairs[::2], part.pairs[1::2], strict=True):
            key = keys.get(named >> 1)
            # A key that damage took; its bytes are counted.
            if key is not None and part.seq >= self.drained_at.get(key, 0):
                found.append(Fact(key, bool(named & 1), duration_us, part.now_s))
        return found

    def line_units(self, after: int) -> Iterator[Unit]:
        """For another journal to adopt: lines that are outstanding, in steps above ``after``, which are entries' seqs.

        Step 0 is the account of it all and the adopter's to make.
        """
        payloads: list[tuple[str, int, bytes]] = []
        seq = 0
        for lane, next_seq, items, data in self.outstanding():
            if next_seq != seq:
                if payloads and seq > after:
                    yield Unit(seq, payloads, [])
                payloads, seq = [], next_seq
            payloads.append((lane, items, data))
        if payloads and seq > after:
            yield Unit(seq, payloads, [])

    def fact_units(self, after: int) -> Iterator[Unit]:
        """Likewise the facts; their steps are above all of lines."""
        for facts_seq, facts in self._facts_by_frame():
            step = _FACTS_STEP + facts_seq
            if facts and step > after:
                yield Unit(step, [], facts)


def read(
    read: Callable[[bytes], _T], frame: frames.Frame, kind: int, damage: DamageFound | None
) -> _T | None:
    """The frame's content, if it is of ``kind``."""
    if frame.kind != kind:
        return None
    try:
        return read(frame.payload)
    except frames.BadFrameError:
        if damage is not None:
            damage.frames += 1
            damage.lost_bytes += len(frame.payload)
        return None


def frames_of(disk: Disk, segment: Segment, damage: DamageFound | None) -> Iterator[frames.Frame]:
    """All whole frames of a file; what is none goes into ``damage``, if that is not None."""
    fd = -1
    try:
        fd = disk.open_read(segment.path)
        size_bytes = disk.size_bytes(fd)
        for item in scan(lambda offset, size: disk.read_at(fd, offset, size), size_bytes):
            if isinstance(item, frames.Frame):
                yield item
            elif damage is not None:
                _count(damage, item)
    except OSError:
        if damage is not None:
            damage.files += 1
    finally:
        if fd >= 0:
            close_quietly(disk, fd)


def _count(damage: DamageFound, part: Damage) -> None:
    if part.torn:
        damage.torn += 1
    else:
        damage.frames += 1
        damage.lost_bytes += part.size_bytes


def close_quietly(disk: Disk, fd: int) -> None:
    # Nothing was written through it, so a failure loses nothing.
    with suppress(OSError):
        disk.close(fd)
