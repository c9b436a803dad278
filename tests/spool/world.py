"""A worker slot in miniature around a real journal, and what it may expect of it.

Every line and every duration occurs once, so that whatever comes back from the disk names what it is.  ``World`` keeps
accounts and pending work as a worker would; ``reopen`` recovers and checks the promises:

* lines that ``flush`` called durable and no lane was done with come back; lines that are done for good do not;
* facts that were called durable come back, or are in points that come back or are done; never both;
* what was launched when the process died is known to be, and nothing else is;
* nothing comes back that was not written; accounts are those of some moment since the last durable flush.
"""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from tests.spool.faulty_disk import FaultyDisk
from tracefwd.model import Identity, RedKey
from tracefwd.spool import frames
from tracefwd.spool.frames import pack_key
from tracefwd.spool.journal import Journal
from tracefwd.spool.recovered import Outstanding, Recovered
from tracefwd.spool.recovery import recover
from tracefwd.spool.scan import scan

LANES = ["primary/spans", "primary/points", "copy/spans"]
SPANS, POINTS, COPY = range(3)


def red_key(name: str) -> RedKey:
    return RedKey(Identity("a", name, "c", "d", "e", "f"), "op", "server", "200", (("k", "v"),))


class World:
    def __init__(
        self,
        folder: Path,
        disk: FaultyDisk,
        *,
        fsync: bool = False,
        red: bool = True,
        segment_bytes_max: int = 600,
        bytes_max: int = 2**20,
    ) -> None:
        self.folder, self.disk = folder, disk
        self.options = {
            "fsync": fsync,
            "red": red,
            "segment_bytes_max": segment_bytes_max,
            "bytes_max": bytes_max,
        }
        self.clock_s = 1_000.0
        self.faults = False
        self._number = 0
        # Everything ever made: lines by their data, facts by their duration.
        self.lines: dict[bytes, int] = {}
        self.facts: dict[int, tuple[str, bool]] = {}
        # What was promised, and what is over: for certain, or perhaps.
        self.turn_lines: set[bytes] = set()
        self.turn_facts: set[int] = set()
        self.promised_lines: set[bytes] = set()
        self.promised_facts: set[int] = set()
        self.maybe_done: set[bytes] = set()
        self.done_lines: set[bytes] = set()
        self.points_of: dict[int, bytes] = {}
        self.drains_turn: set[int] = set()
        self.drained_facts: set[int] = set()
        # The worker's own memory.
        self.received = 0
        self.sure_received = 0
        self.pending: list[list[tuple[int, bytes]]] = [[] for _ in LANES]
        self.gathered: dict[str, list[int]] = {}
        self.numbers: dict[str, int] = {}
        self.tick_keys: list[str] | None = None
        # (lane, first seq) -> last seq, now and as the last durable flush had it.
        self.launched: dict[tuple[int, int], int] = {}
        self.sure_launched: dict[tuple[int, int], int] = {}

    def open(self) -> None:
        self.start(recover(self.folder, self.disk, LANES))

    def start(self, recovered: Recovered) -> None:
        self.numbers = {}
        self.journal = Journal(
            self.folder,
            self.disk,
            lanes=LANES,
            state=lambda: msgspec.msgpack.encode(self.received),
            now=lambda: self.clock_s,
            recovered=recovered,
            **self.options,  # type: ignore[arg-type]
        )
        self.journal.start()

    # What a worker does.

    def post(self, lanes: list[int], keys: list[str], size: int = 40, now_s: int = 1) -> int:
        payloads = [(lane, 2, self._line(size)) for lane in lanes]
        facts = []
        for key in keys if self.options["red"] else ():
            self._number += 1
            error = self._number % 3 == 0
            if key not in self.numbers:
                self.numbers[key] = len(self.numbers)
                self.journal.key(self.numbers[key], pack_key(red_key(key)))
            facts += [self.numbers[key] << 1 | error, self._number]
            self.facts[self._number] = (key, error)
            self.turn_facts.add(self._number)
            self.gathered.setdefault(key, []).append(self._number)
        self.received += 1
        return self._entry(payloads, facts if self.options["red"] else None, now_s)

    def _line(self, size: int) -> bytes:
        self._number += 1
        data = (b"line %d " % self._number).ljust(size, b".") + b"\n"
        self.lines[data] = self._number
        return data

    def _entry(
        self, payloads: list[tuple[int, int, bytes]], facts: list[int] | None, now_s: int = 1
    ) -> int:
        seq = self.journal.entry(msgspec.msgpack.encode(1), payloads, facts, now_s)
        for lane, _, data in payloads:
            self.turn_lines.add(data)
            self.pending[lane].append((seq, data))
        return seq

    def done(self, lane: int, at: int, number: int) -> None:
        """The lane is done with ``number`` of its pending entries from index ``at`` on."""
        queue = self.pending[lane]
        part = queue[at : at + number]
        if not part:
            return
        first, last = part[0][0], part[-1][0]
        for start, end in [*self._overlaps(lane, first, last)]:
            if first <= start and end <= last:
                del self.launched[lane, start]
            else:
                return  # a batch is over as a whole
        over = {data for seq, data in queue if first <= seq <= last}
        self.pending[lane] = [(seq, data) for seq, data in queue if data not in over]
        self.maybe_done |= over
        self.journal.done(lane, first, last)

    def launch(self, lane: int, at: int, number: int) -> None:
        """The lane sends some of its pending entries."""
        part = self.pending[lane][at : at + number]
        if part and not any(self._overlaps(lane, part[0][0], part[-1][0])):
            self.launched[lane, part[0][0]] = part[-1][0]
            self.journal.launched(lane, part[0][0], part[-1][0])

    def take_back(self, lane: int, at: int) -> None:
        """An answer said no."""
        firsts = sorted(first for place, first in self.launched if place == lane)
        if at < len(firsts):
            self.journal.returned(lane, firsts[at], self.launched.pop((lane, firsts[at])))

    def _overlaps(self, lane: int, first: int, last: int) -> Iterator[tuple[int, int]]:
        for (place, start), end in self.launched.items():
            if place == lane and start <= last and first <= end:
                yield start, end

    def tick_begins(self) -> None:
        if self.tick_keys is None:
            self.journal.tick_begins()
            self.tick_keys = list(self.gathered)

    def tick_slice(self) -> None:
        if not self.tick_keys:
            return
        keys, self.tick_keys = self.tick_keys[:2], self.tick_keys[2:]
        facts = [fact for key in keys for fact in self.gathered.pop(key, [])]
        data = self._line(40)
        self.received += 1
        seq = self._entry([(POINTS, 1, data)], None)
        for key in keys:  # of an earlier life, perhaps
            if key not in self.numbers:
                self.numbers[key] = len(self.numbers)
                self.journal.key(self.numbers[key], pack_key(red_key(key)))
        self.journal.drained(seq, [self.numbers[key] for key in keys])
        for fact in facts:
            self.points_of[fact] = data
            self.drains_turn.add(fact)

    def tick_ends(self) -> None:
        if self.tick_keys is None:
            return
        while self.tick_keys:
            self.tick_slice()
        self.tick_keys = None
        self.journal.tick_ended()

    def flush(self) -> bool:
        is_durable = self.journal.flush()
        if self.options["fsync"]:
            is_durable &= self.journal.sync()
        self._settle(is_durable=is_durable)
        return is_durable

    def _settle(self, *, is_durable: bool) -> None:
        if is_durable:
            self.promised_lines |= self.turn_lines
            self.promised_facts |= self.turn_facts
            self.drained_facts |= self.drains_turn
            self.done_lines |= self.maybe_done
            self.sure_received = self.received
            self.sure_launched = dict(self.launched)
        self.turn_lines, self.turn_facts, self.drains_turn = set(), set(), set()

    # What becomes of it.

    def reopen(self) -> Recovered:
        """The process has died, or ended: recover, check, and go on."""
        self.disk.forget()
        found = recover(self.folder, self.disk, LANES)
        outstanding = list(found.outstanding())
        facts = list(found.facts())
        lines = {part.data for part in outstanding}
        assert len(lines) == len(outstanding), "a line comes back twice"
        self.check_lines(lines)
        self.check_facts({fact.duration_us for fact in facts}, len(facts), lines)
        for fact in facts:
            assert (fact.key.identity.service, fact.error) == self.facts[fact.duration_us]
        self.check_accounts(found)
        self.check_launches(found, outstanding)
        self._go_on(found)
        return found

    def check_lines(self, lines: set[bytes]) -> None:
        assert lines <= self.lines.keys(), "a line was invented"
        assert not self.promised_lines - self.maybe_done - lines, "a promised line is lost"
        assert not self.done_lines & lines, "a line that was done comes back"

    def check_facts(self, facts: set[int], number: int, lines: set[bytes]) -> None:
        assert number == len(facts), "a fact comes back twice"
        assert facts <= self.facts.keys(), "a fact was invented"
        for fact in self.promised_facts - facts:
            points = self.points_of.get(fact)
            assert points is not None, "a promised fact is lost"
            assert points in lines or points in self.maybe_done or self.faults, "points are lost"
        if not self.faults:
            for fact in facts:
                assert self.points_of.get(fact) not in lines, "a fact is in points and comes back"
            assert not facts & self.drained_facts, "a drained fact comes back"

    def check_launches(self, found: Recovered, outstanding: list[Outstanding]) -> None:
        """Between the two flushes either may be true."""
        if self.faults:
            return
        for part in outstanding:
            lane = LANES.index(part.lane)
            now, sure = (
                any(
                    place == lane and first <= part.seq <= last
                    for (place, first), last in of.items()
                )
                for of in (self.launched, self.sure_launched)
            )
            if now == sure:
                assert found.was_launched(part.lane, part.seq) == now, part

    def check_accounts(self, found: Recovered) -> None:
        received = 0 if found.state is None else msgspec.msgpack.decode(found.state)
        received += sum(
            msgspec.msgpack.decode(data) * times for data, times in found.counts.items()
        )
        assert received <= self.received
        if not self.faults:
            assert received >= self.sure_received
        self.received = self.sure_received = received

    def _go_on(self, found: Recovered) -> None:
        """As a worker that starts: what came back is promised, what did not is gone."""
        self.pending = [[] for _ in LANES]
        lines: set[bytes] = set()
        for part in found.outstanding():
            self.pending[LANES.index(part.lane)].append((part.seq, part.data))
            lines.add(part.data)
        self.launched = {
            (LANES.index(name), first): last
            for name, lane_id in found.lane_ids.items()
            if name in LANES
            for first, last in found.launches.ranges(lane_id)
        }
        self.sure_launched = dict(self.launched)
        self.gathered = {}
        facts: set[int] = set()
        for fact in found.facts():
            self.gathered.setdefault(fact.key.identity.service, []).append(fact.duration_us)
            facts.add(fact.duration_us)
        self.turn_lines, self.turn_facts, self.drains_turn = set(), set(), set()
        self.promised_lines, self.promised_facts = lines, facts
        self.done_lines = self.lines.keys() - lines
        self.maybe_done = set(self.done_lines)
        self.drained_facts = self.facts.keys() - facts
        for fact in facts:
            self.points_of.pop(fact, None)
        self.tick_keys = None
        self.start(found)


def scenario(world: World) -> None:
    """The life of a slot: posts, lanes that are done early, late and out of order, two ticks, many segments."""
    world.open()
    for turn in range(6):
        world.post([SPANS, COPY], ["a", "b"], now_s=turn // 2)
        world.post([SPANS], ["c"], now_s=turn)
        world.post([], ["a"], now_s=turn)
        world.launch(COPY, turn % 3, 1)
        world.flush()
        world.done(SPANS, 0 if turn % 2 else 1, 2)
        if turn % 2:
            world.take_back(COPY, 0)
        if turn == 2:
            world.tick_begins()
            world.post([], ["a", "b"])
            world.tick_slice()
            world.post([COPY], ["a", "d"])
            world.flush()
            world.tick_ends()
        world.clock_s += 0.5
    world.tick_begins()
    world.tick_slice()
    world.flush()
    world.done(COPY, 0, 3)
    world.tick_ends()
    world.flush()
    world.post([SPANS, POINTS], ["b", "b", "e"])
    world.flush()


def make_small_journal(folder: Path) -> World:
    """Two data segments, two RED segments, about 2 kB: everything that has a kind."""
    world = World(folder, FaultyDisk(), segment_bytes_max=520)
    world.open()
    world.post([SPANS, COPY], ["a", "b"], size=20)
    world.post([SPANS], ["b"], size=20)
    assert world.flush()
    world.launch(COPY, 0, 1)
    world.launch(SPANS, 0, 1)
    world.take_back(SPANS, 0)
    world.done(SPANS, 0, 1)
    world.tick_begins()
    world.tick_slice()
    assert world.flush()
    world.post([POINTS], ["a", "c"], size=20)
    assert world.flush()
    world.post([SPANS], ["c"], size=20)
    assert world.flush()
    world.disk.forget()
    return world


def lines_of(found: Recovered) -> set[bytes]:
    return {part.data for part in found.outstanding()}


def facts_of(found: Recovered) -> set[int]:
    return {fact.duration_us for fact in found.facts()}


def places(path: Path) -> list[tuple[int, int, frames.Frame]]:
    """(from, to, frame) of a whole file."""
    data = path.read_bytes()
    found, at = [], 0
    for frame in scan(lambda offset, size: data[offset : offset + size], len(data)):
        assert isinstance(frame, frames.Frame)
        end = at + frames.HEAD_BYTES + len(frame.payload)
        found.append((at, end, frame))
        at = end
    return found
