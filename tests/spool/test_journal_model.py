"""Any sequence of posts, lanes' ends, ticks, flushes, faults and deaths keeps the journal's promises."""

import errno
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.spool.faulty_disk import SHORT, FaultyDisk, Killed
from tests.spool.world import LANES, World
from tracefwd.spool.disk import Disk
from tracefwd.spool.recovery import recover

LANE = st.integers(0, len(LANES) - 1)


class JournalMachine(RuleBasedStateMachine):
    """Kills are exact; faults of the disk loosen what may come back twice, never what must come back."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="journal"))
        self.world: World | None = None

    @initialize(fsync=st.booleans(), segment_bytes_max=st.sampled_from([300, 900, 5_000]))
    def begin(self, fsync: bool, segment_bytes_max: int) -> None:
        self.disk = FaultyDisk()
        self.world = World(self.folder, self.disk, fsync=fsync, segment_bytes_max=segment_bytes_max)
        self.world.open()

    @rule(
        lanes=st.lists(LANE, max_size=4),
        keys=st.lists(st.sampled_from("abcde"), max_size=5),
        size=st.sampled_from([20, 60, 700]),
        now_s=st.integers(0, 2),
    )
    def post(self, lanes: list[int], keys: list[str], size: int, now_s: int) -> None:
        assert self.world is not None
        self.world.post(lanes, keys, size, now_s)

    @rule()
    def flush(self) -> None:
        assert self.world is not None
        with suppress(Killed):
            self.world.flush()
            return
        self.reopen()

    @rule(lane=LANE, at=st.integers(0, 3), number=st.integers(1, 9))
    def done(self, lane: int, at: int, number: int) -> None:
        assert self.world is not None
        self.world.done(lane, at, number)

    @rule(lane=LANE, at=st.integers(0, 3), number=st.integers(1, 9))
    def launch(self, lane: int, at: int, number: int) -> None:
        assert self.world is not None
        self.world.launch(lane, at, number)

    @rule(lane=LANE, at=st.integers(0, 2))
    def take_back(self, lane: int, at: int) -> None:
        assert self.world is not None
        self.world.take_back(lane, at)

    @rule(step=st.sampled_from(["begins", "slice", "slice", "ends", "ends"]))
    def tick(self, step: str) -> None:
        assert self.world is not None
        with suppress(Killed):
            {
                "begins": self.world.tick_begins,
                "slice": self.world.tick_slice,
                "ends": self.world.tick_ends,
            }[step]()
            return
        self.reopen()

    @rule(seconds=st.sampled_from([0.5, 5.0, 70.0]))
    def wait(self, seconds: float) -> None:
        assert self.world is not None
        self.world.clock_s += seconds

    @rule(after=st.integers(0, 12))
    def die_soon(self, after: int) -> None:
        self.disk.kill(after)

    @rule(
        error=st.sampled_from([errno.ENOSPC, errno.EIO, errno.EROFS, errno.EMFILE, SHORT]),
        after=st.integers(0, 6),
        calls=st.sampled_from([1, 2, 5, 1 << 60]),
    )
    def break_disk(self, error: int, after: int, calls: int) -> None:
        assert self.world is not None
        self.world.faults = True
        self.disk.fail(error, after=after, calls=calls)

    @precondition(lambda self: self.world is not None and self.world.faults)
    @rule()
    def mend_disk(self) -> None:
        assert self.world is not None
        self.disk.mend()
        self.world.clock_s += 61
        self.world.flush()  # the turn may have begun while it was broken
        assert self.world.flush()
        assert not self.world.journal.degraded

    @rule()
    def reopen(self) -> None:
        assert self.world is not None
        self.disk.mend()
        self.world.reopen()

    @rule(file=st.integers(0, 10), place=st.floats(0, 1), how=st.sampled_from(["flip", "cut"]))
    def look_at_a_damaged_copy(self, file: int, place: float, how: str) -> None:
        """Reading damage invents nothing and raises nothing; what it may cost is another test's."""
        assert self.world is not None
        copy = self.folder.with_suffix(".copy")
        shutil.copytree(self.folder, copy)
        files = sorted(copy.iterdir())
        if files:
            path = files[file % len(files)]
            data = bytearray(path.read_bytes())
            at = min(int(place * len(data)), len(data) - 1)
            if how == "cut":
                del data[at:]
            elif data:
                data[at] ^= 0x40
            path.write_bytes(data)
        found = recover(copy, Disk(), LANES)
        assert {part.data for part in found.outstanding()} <= self.world.lines.keys()
        for fact in found.facts():
            assert self.world.facts[fact.duration_us] == (fact.key.identity.service, fact.error)
        shutil.rmtree(copy)

    def teardown(self) -> None:
        if self.world is not None:
            self.reopen()
            self.disk.forget()
        shutil.rmtree(self.folder)


TestJournalMachine = JournalMachine.TestCase
TestJournalMachine.settings = settings(
    max_examples=80,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
