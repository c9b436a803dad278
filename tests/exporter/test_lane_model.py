"""A lane, its spool on a real disk and its journal, under whatever sequence of events: nothing is lost uncounted.

The model is a set of line numbers.  Each was offered once; at every instant the account balances, and
at the end, when target and disk are well again, every line that was not counted as a loss has arrived.
"""

import asyncio
import errno
import logging
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.exporter.test_backlog import BAD_LINE, SPLIT, Room, Sink
from tests.exporter.test_lane import BUSY, DELIVERED, payload
from tracefwd.exporter import backlog, breaker
from tracefwd.ledger import imbalance
from tracefwd.model import Outcome
from tracefwd.spool import store

LOST_ANSWER = Outcome("retry", "connection", "the connection broke", ambiguous=True)
DENIED = Outcome("retry", "http_401", "who are you")
ANSWERS = [DELIVERED, DELIVERED, BUSY, SPLIT, BAD_LINE, LOST_ANSWER, DENIED]
# The search for a bad line ends at one, and a single line that is too large is refused.
GIVEN = [Outcome("rejected", "http_404", "no"), *ANSWERS]


class LaneModel(RuleBasedStateMachine):
    """One event loop; each rule lets it run for a moment, so that the thread of the disk has its say."""

    @initialize(
        journal=st.booleans(),
        newest=st.booleans(),
        concurrency=st.sampled_from([1, 2, 5]),
        bytes_max=st.sampled_from([50_000, 10**9]),
    )
    def begin(self, journal: bool, newest: bool, concurrency: int, bytes_max: int) -> None:
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp())
        self.patch = pytest.MonkeyPatch()
        for module, name, value in (
            (breaker, "OUTAGE_S", 0.0),
            (breaker, "PROBE_S", 0.002),
            (breaker, "PAUSE_S", 0.002),
            (backlog, "REREAD_S", 0.002),
            (store, "PROBE_S", 0.002),
            (store, "PROBE_MAX_S", 0.002),
        ):
            self.patch.setattr(module, name, value)
        self.patch.setattr(logging.getLogger("tracefwd.exporter"), "disabled", True)
        self.sink = Sink()
        self.room = Room(
            self.folder,
            self.sink,
            journal=journal,
            queue_bytes_max=1_000,
            bytes_max=bytes_max,
            full="drop_newest" if newest else "drop_oldest",
            concurrency=concurrency,
            after=0.02,
        )
        self.sink.judge = self.judge
        self.script: list[Outcome] = []
        self.answer: Outcome = DELIVERED
        self.number = 0
        self.offered = 0
        self.losses = 0
        self.entries: dict[int, int] = {}
        self.run(self.room.start())

    def run(self, work: object) -> None:
        self.loop.run_until_complete(work)  # type: ignore[arg-type]

    def judge(self, lines: list[bytes]) -> Outcome:
        return self.script.pop(0) if self.script else self.answer

    async def moment(self, seconds: float = 0.0) -> None:
        await asyncio.sleep(seconds)

    @rule(items=st.integers(0, 12), unsendable=st.integers(0, 1), journaled=st.booleans())
    def offer(self, items: int, unsendable: int, journaled: bool) -> None:
        lines = []
        for _ in range(items):
            self.number += 1
            lines.append(f"line {self.number:014}")
        seq = 0
        if journaled and self.room.journal is not None and items + unsendable:
            seq = len(self.entries) + 1
            self.entries[seq] = items + unsendable
        self.offered += items + unsendable

        async def offering() -> None:
            self.room.lane.offer(payload(*lines, unsendable=unsendable), seq)

        self.run(offering())

    @rule(script=st.lists(st.sampled_from(GIVEN), max_size=6))
    def answers(self, script: list[Outcome]) -> None:
        self.script = list(script)

    @rule(answer=st.sampled_from([DELIVERED, BUSY, LOST_ANSWER]))
    def weather(self, answer: Outcome) -> None:
        self.answer = answer

    @rule(error=st.sampled_from([0, 0, errno.ENOSPC, errno.EROFS]), reads=st.booleans())
    def disk(self, error: int, reads: bool) -> None:
        self.room.disk.error = error
        self.room.disk.reads_fail = reads

    @rule(seconds=st.sampled_from([0.0, 0.001, 0.01, 0.03]))
    def wait(self, seconds: float) -> None:
        self.run(self.moment(seconds))

    @rule(budget=st.sampled_from([0.0, 0.02, 0.1]))
    def restart(self, budget: float) -> None:
        """The next process takes over what the spool has.  What the journal has is forgotten here, and counted so."""
        room = self.room
        self.run(room.stop(budget))
        self.losses += self.lost()
        room.disk.error, room.disk.reads_fail = 0, False
        on_disk = sum(int(path.name.split("+")[2]) for path in room.files)
        # Without a journal everything that is held at the end is on disk (and perhaps a part that has gone).
        held = room.lane.account.held()
        if room.journal is None:
            assert on_disk >= held
        self.losses += max(0, held - on_disk)
        room.make()
        self.run(room.start())
        self.offered = on_disk
        assert room.lane.account.received == on_disk

    def lost(self) -> int:
        account = self.room.lane.account
        return sum(account.rejected.values()) + sum(account.dropped.values())

    @invariant()
    def balanced(self) -> None:
        if hasattr(self, "room"):
            account = self.room.lane.account.show()
            assert imbalance(account) == 0, account
            assert account["received"] == self.offered
            self.room.check()
            journal = self.room.journal
            if journal is not None:
                # An entry that found no place in a batch ends alone, and stands between those of one, too.
                alone = {first for first, last in journal.told if first == last}
                twice = [seq for seq, times in Counter(journal.seqs()).items() if times > 1]
                assert alone.issuperset(twice)

    def teardown(self) -> None:
        if not hasattr(self, "room"):
            return
        try:
            self.finish()
        finally:
            self.run(self.room.stop())
            self.run(self.loop.shutdown_default_executor())
            self.loop.close()
            self.patch.undo()
            shutil.rmtree(self.folder)

    def finish(self) -> None:
        """All is well again: everything arrives that was not counted as lost."""
        self.script, self.answer = [], DELIVERED
        self.room.disk.error, self.room.disk.reads_fail = 0, False
        account = self.room.lane.account

        async def settle() -> None:
            async with asyncio.timeout(10):
                while account.held() or self.room.store._pending or self.room.files:  # noqa: ASYNC110
                    await asyncio.sleep(0.002)

        self.run(settle())
        self.balanced()
        self.losses += self.lost()
        missing = set(range(1, self.number + 1)) - {
            int(text.split()[1]) for text in self.room.delivered
        }
        assert len(missing) <= self.losses


LaneModel.TestCase.settings = settings(deadline=None, max_examples=40, stateful_step_count=30)
test_a_lane_with_spool_and_journal = LaneModel.TestCase
