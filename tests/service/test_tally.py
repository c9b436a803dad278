"""The parent's sum over workers: it balances at every read and never goes backwards."""

import json
from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tracefwd import ledger
from tracefwd.limits import REJECT_SAMPLES_MAX
from tracefwd.service.control import Snapshot
from tracefwd.service.tally import Life, Tally, balance, by_state, empty_ledger, sections


def section(delivered: int, held: int, rejected: int = 0, blocked: int = 0) -> dict[str, Any]:
    return {
        **ledger.empty_section(),
        "received": delivered + held + rejected + blocked,
        "delivered": delivered,
        "held": held,
        "blocked": blocked,
        "rejected": {"syntax": rejected} if rejected else {},
    }


def snapshot(delivered: int, held: int, rejected: int = 0, blocked: int = 0) -> Snapshot:
    by_signal = {
        name: section(delivered + extra, held + extra)
        for extra, name in enumerate(("spans", "span_logs", "points", "distributions"))
    }
    whole = {
        **section(delivered, held, rejected, blocked),
        **{name: json.loads(json.dumps(by_signal[name])) for name in list(by_signal)[1:]},
        "targets": {"primary": by_signal},
    }
    samples: list[Any] = [
        ("tracefwd_receiver_requests_total", ("202",), delivered),
        ("tracefwd_receiver_request_duration_seconds_count", (), delivered),
        ("tracefwd_receiver_connections", (), 5),
    ]
    return Snapshot(whole, samples)


ONE, OTHER, HEIR = Life(0, 1), Life(1, 1), Life(0, 2)


class TestTally:
    def test_sums_living_workers(self) -> None:
        tally = Tally()
        tally.update(ONE, snapshot(3, 1))
        tally.update(OTHER, snapshot(4, 0, rejected=2))
        whole = tally.ledger()
        assert (whole["received"], whole["delivered"], whole["held"]) == (10, 7, 1)
        assert whole["rejected"] == {"syntax": 2}
        assert whole["targets"]["primary"]["points"]["delivered"] == 7 + 2 * 2
        assert tally.samples()["tracefwd_receiver_connections"] == {(): 10}

    def test_a_later_snapshot_replaces_the_former(self) -> None:
        tally = Tally()
        tally.update(ONE, snapshot(3, 1))
        tally.update(ONE, snapshot(5, 0))
        assert tally.ledger()["received"] == 5

    def test_reading_changes_nothing(self) -> None:
        tally = Tally()
        tally.update(ONE, snapshot(3, 1, rejected=1))
        tally.retire(ONE)
        tally.update(ONE, snapshot(2, 2))
        assert tally.ledger() == tally.ledger()
        assert tally.samples() == tally.samples()

    def test_what_a_dead_worker_held_is_dropped_by_crash_in_every_section(self) -> None:
        tally = Tally()
        tally.update(ONE, snapshot(3, 2))
        assert tally.retire(ONE) == 2
        whole = tally.ledger()
        assert whole["dropped"] == {"crash": 2}
        assert whole["distributions"]["dropped"] == {"crash": 2 + 3}
        assert whole["targets"]["primary"]["points"]["dropped"] == {"crash": 2 + 2}
        assert {name: part["held"] for name, part in sections(whole).items() if part["held"]} == {}
        dropped = tally.samples()["tracefwd_exporter_dropped_items_total"]
        assert dropped[("primary", "spans", "crash")] == 2

    def test_what_rests_in_a_dead_workers_spool_stays_held_until_its_heir_speaks(self) -> None:
        tally = Tally()
        before = snapshot(3, 5)
        before.samples.append(("tracefwd_spool_items", ("primary", "points"), 4))
        before.samples.append(("tracefwd_spool_items", ("primary", "spans"), 1))
        before.samples.append(("tracefwd_spool_items", ("gone", "spans"), 9))
        tally.update(ONE, before)
        assert tally.retire(ONE) == 5 - 1
        whole = tally.ledger()
        assert whole["points"]["held"] == whole["targets"]["primary"]["points"]["held"] == 4
        assert whole["points"]["dropped"] == {"crash": 5 + 2 - 4}
        assert (whole["held"], whole["dropped"]) == (1, {"crash": 4})
        assert {ledger.imbalance(part) for part in sections(whole).values()} == {0}
        dropped = tally.samples()["tracefwd_exporter_dropped_items_total"]
        assert dropped[("primary", "points", "crash")] == 5 + 2 - 4
        tally.update(OTHER, snapshot(0, 0))
        assert tally.ledger()["points"]["held"] == 4 + 2, "another slot's worker is no heir"
        # The heir has found them, and counts them as received.
        tally.update(HEIR, snapshot(0, 4))
        assert tally.ledger()["points"]["held"] == 2 + 4 + 2
        assert {ledger.imbalance(part) for part in sections(tally.ledger()).values()} == {0}

    def test_a_dead_workers_counters_stay_and_its_gauges_go(self) -> None:
        tally = Tally()
        tally.update(ONE, snapshot(3, 2))
        tally.retire(ONE)
        samples = tally.samples()
        assert samples["tracefwd_receiver_requests_total"] == {("202",): 3}
        assert samples["tracefwd_receiver_request_duration_seconds_count"] == {(): 3}
        assert "tracefwd_receiver_connections" not in samples

    def test_two_workers_of_one_slot_count_both_while_they_are_exchanged(self) -> None:
        tally = Tally()
        tally.update(ONE, snapshot(3, 1))
        tally.update(HEIR, snapshot(2, 0))
        assert tally.ledger()["received"] == 6
        assert tally.samples()["tracefwd_receiver_connections"] == {(): 10}
        tally.update(ONE, snapshot(4, 0))
        tally.retire(ONE)
        assert tally.ledger()["delivered"] == 6
        assert tally.samples()["tracefwd_receiver_connections"] == {(): 5}

    def test_a_worker_that_never_spoke_leaves_nothing(self) -> None:
        tally = Tally()
        assert tally.retire(OTHER) == 0
        assert tally.ledger() == empty_ledger()

    def test_rejected_samples_are_newest_first_kept_for_the_dead_and_bounded(self) -> None:
        tally = Tally()
        for life in range(3):
            part = snapshot(1, 0)
            part.rejected_samples = [{"at": f"{life * 100 + i}.000"} for i in range(50, 0, -1)]
            tally.update(Life(life % 2, life), part)
            # A push without samples does not forget those that were asked for.
            tally.update(Life(life % 2, life), snapshot(1, 0))
            tally.retire(Life(life % 2, life))
        times = [float(sample["at"]) for sample in tally.rejected_samples()]
        assert times == sorted(times, reverse=True)
        assert len(times) == REJECT_SAMPLES_MAX
        assert times[0] == 250


class TestDurable:
    """A worker with a journal leaves its ledger there."""

    def test_what_it_held_stays_held_while_nobody_has_adopted_it(self) -> None:
        tally = Tally()
        tally.update(ONE, durable("one", 3, 2))
        assert tally.retire(ONE) == 0
        whole = tally.ledger()
        assert (whole["received"], whole["held"], whole["dropped"]) == (5, 2, {})
        assert whole["targets"]["primary"]["points"]["held"] == 2 + 2
        assert balance(whole, ended=True) == (
            True,
            "ledger balanced: received 5 = delivered 3 + held 2 (left in the spool)",
        )

    def test_its_heir_speaks_for_it_once_it_says_so(self) -> None:
        tally = Tally()
        tally.update(ONE, durable("one", 3, 2))
        tally.retire(ONE)
        tally.update(HEIR, durable("two", 0, 0))
        assert tally.ledger()["received"] == 5
        # The journal knew of one more that came in and two more that were delivered.
        tally.update(HEIR, durable("two", 5, 1, adopted=["one"]))
        whole = tally.ledger()
        assert (whole["received"], whole["delivered"], whole["held"]) == (6, 5, 1)
        assert balance(whole)[0]

    def test_what_may_be_doubled_goes_with_the_journal_and_is_counted_once(self) -> None:
        name, at = "tracefwd_exporter_red_maybe_doubled_total", ("primary", "points")

        def counted(journal: str, doubled: int, adopted: Sequence[str] = ()) -> Snapshot:
            found = durable(journal, 0, 0, adopted=[*adopted])
            found.samples.append((name, at, doubled))
            return found

        tally = Tally()
        tally.update(ONE, counted("one", 7))
        tally.retire(ONE)
        assert tally.samples()[name] == {at: 7}
        tally.update(HEIR, counted("two", 0))
        assert tally.samples()[name] == {at: 7}
        # The journal knew of two more.
        tally.update(HEIR, counted("two", 9, ["one"]))
        assert tally.samples()[name] == {at: 9}

    def test_an_heir_of_an_heir_has_it_once(self) -> None:
        tally = Tally()
        names = ["one", "two", "three"]
        for number, life in enumerate((ONE, HEIR, Life(0, 3))):
            tally.update(life, durable(names[number], 0, 2, adopted=names[:number][-1:]))
            tally.retire(life)
            assert (tally.ledger()["received"], tally.ledger()["held"]) == (2, 2)

    def test_of_a_run_before_this_one_is_simply_part_of_its_heirs(self) -> None:
        tally = Tally()
        tally.update(ONE, durable("two", 4, 0, adopted=["one"]))
        assert tally.ledger()["received"] == 4


def durable(journal: str, delivered: int, held: int, *, adopted: Sequence[str] = ()) -> Snapshot:
    part = snapshot(delivered, held)
    part.journal = journal
    part.adopted = [*adopted]
    return part


class Lives:
    """A random history of workers, and what they would say."""

    def __init__(self, tally: Tally, *, durable: bool) -> None:
        self.tally = tally
        self.durable = durable
        self.started = [0, 0]
        # By life: (delivered, held, rejected), and whom it adopted.
        self.counts: dict[Life, tuple[int, int, int]] = {}
        self.adopted: dict[Life, list[str]] = {}
        # By slot: the journals of the dead.
        self.left: list[dict[str, tuple[int, int, int]]] = [{}, {}]

    def start(self, slot: int) -> Life:
        self.started[slot] += 1
        life = Life(slot, self.started[slot])
        left, self.left[slot] = self.left[slot], {}
        sums = [sum(part) for part in zip(*left.values(), strict=True)] or [0, 0, 0]
        self.counts[life] = (sums[0], sums[1], sums[2])
        self.adopted[life] = [*left]
        self.say(life)
        return life

    def say(self, life: Life) -> None:
        delivered, held, rejected = self.counts[life]
        part = section(delivered, held, rejected)
        whole = {
            **empty_ledger(),
            **part,
            "targets": {"primary": {"spans": section(delivered, held)}},
        }
        said = Snapshot(whole, [("tracefwd_receiver_requests_total", ("202",), delivered)])
        if self.durable:
            said.journal = str(life)
            said.adopted = self.adopted[life]
        self.tally.update(life, said)

    def work(self, life: Life, arrived: int, finished: int, refused: int) -> None:
        delivered, held, rejected = self.counts[life]
        finished = min(finished, held + arrived)
        held += arrived - finished
        self.counts[life] = (delivered + finished, held, rejected + refused)

    def end(self, life: Life) -> None:
        counts = self.counts.pop(life)
        if self.durable:
            self.left[life.slot][str(life)] = counts
        self.tally.retire(life)


STEPS = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.sampled_from(["start", "work", "say", "work and say", "end"]),
        st.integers(0, 9),
        st.integers(0, 9),
        st.integers(0, 3),
    ),
    max_size=60,
)


@given(steps=STEPS, durable=st.booleans())
@settings(deadline=None, max_examples=200)
def test_sums_balance_at_every_read_and_never_go_backwards(
    steps: list[tuple[int, str, int, int, int]], durable: bool
) -> None:
    """Whatever workers do, unseen or not, and however many of a slot live at once."""
    tally = Tally()
    lives = Lives(tally, durable=durable)
    before, requests_before = tally.ledger(), 0.0
    for slot, step, arrived, finished, refused in steps:
        living = [life for life in lives.counts if life.slot == slot]
        if step == "start" or not living:
            lives.start(slot)
        elif step == "end":
            lives.end(living[arrived % len(living)])
        else:
            life = living[arrived % len(living)]
            if "work" in step:
                lives.work(life, arrived, finished, refused)
            if "say" in step:
                lives.say(life)
        now = tally.ledger()
        requests = sum(tally.samples().get("tracefwd_receiver_requests_total", {}).values())
        assert balance(now)[0], balance(now)[1]
        for name in ("received", "delivered", "rejected", "dropped"):
            assert by_state(now)[name] >= by_state(before)[name]  # type: ignore[arg-type]
        assert requests >= requests_before
        before, requests_before = now, requests


class TestBalance:
    def test_says_where_everything_went(self) -> None:
        whole = snapshot(120, 1, rejected=2, blocked=3).ledger
        whole["dropped"] = {"queue_full": 4, "crash": 0}
        whole["received"] += 4
        balanced, line = balance(whole)
        assert balanced
        assert line == (
            "ledger balanced: received 130 = delivered 120 + blocked 3 + rejected 2 (syntax 2) "
            "+ dropped 4 (queue_full 4) + held 1"
        )

    def test_of_an_idle_service(self) -> None:
        assert balance(empty_ledger()) == (True, "ledger balanced: received 0 = delivered 0")

    def test_says_what_is_missing_where(self) -> None:
        whole = snapshot(5, 0).ledger
        whole["delivered"] -= 2
        whole["targets"]["primary"]["points"]["held"] += 1
        balanced, line = balance(whole)
        assert not balanced
        assert line.startswith("ledger NOT balanced: missing spans +2, targets.primary.points -1;")
