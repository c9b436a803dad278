"""The parent's sum over workers: it balances at every read and never goes backwards."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tracefwd import ledger
from tracefwd.limits import REJECT_SAMPLES_MAX
from tracefwd.service.control import Snapshot
from tracefwd.service.tally import Tally, balance, by_state, empty_ledger, sections


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


class TestTally:
    def test_sums_living_workers(self) -> None:
        tally = Tally()
        tally.update(0, snapshot(3, 1))
        tally.update(1, snapshot(4, 0, rejected=2))
        whole = tally.ledger()
        assert (whole["received"], whole["delivered"], whole["held"]) == (10, 7, 1)
        assert whole["rejected"] == {"syntax": 2}
        assert whole["targets"]["primary"]["points"]["delivered"] == 7 + 2 * 2
        assert tally.samples()["tracefwd_receiver_connections"] == {(): 10}

    def test_a_later_snapshot_replaces_the_former(self) -> None:
        tally = Tally()
        tally.update(0, snapshot(3, 1))
        tally.update(0, snapshot(5, 0))
        assert tally.ledger()["received"] == 5

    def test_reading_changes_nothing(self) -> None:
        tally = Tally()
        tally.update(0, snapshot(3, 1, rejected=1))
        tally.retire(0)
        tally.update(0, snapshot(2, 2))
        assert tally.ledger() == tally.ledger()
        assert tally.samples() == tally.samples()

    def test_what_a_dead_worker_held_is_dropped_by_crash_in_every_section(self) -> None:
        tally = Tally()
        tally.update(0, snapshot(3, 2))
        assert tally.retire(0) == 2
        whole = tally.ledger()
        assert whole["dropped"] == {"crash": 2}
        assert whole["distributions"]["dropped"] == {"crash": 2 + 3}
        assert whole["targets"]["primary"]["points"]["dropped"] == {"crash": 2 + 2}
        assert {name: part["held"] for name, part in sections(whole).items() if part["held"]} == {}
        dropped = tally.samples()["tracefwd_exporter_dropped_items_total"]
        assert dropped[("primary", "spans", "crash")] == 2

    def test_a_dead_workers_counters_stay_and_its_gauges_go(self) -> None:
        tally = Tally()
        tally.update(0, snapshot(3, 2))
        tally.retire(0)
        samples = tally.samples()
        assert samples["tracefwd_receiver_requests_total"] == {("202",): 3}
        assert samples["tracefwd_receiver_request_duration_seconds_count"] == {(): 3}
        assert "tracefwd_receiver_connections" not in samples

    def test_a_worker_that_never_spoke_leaves_nothing(self) -> None:
        tally = Tally()
        assert tally.retire(3) == 0
        assert tally.ledger() == empty_ledger()

    def test_rejected_samples_are_newest_first_kept_for_the_dead_and_bounded(self) -> None:
        tally = Tally()
        for life in range(3):
            part = snapshot(1, 0)
            part.rejected_samples = [{"at": f"{life * 100 + i}.000"} for i in range(50, 0, -1)]
            tally.update(life % 2, part)
            # A push without samples does not forget those that were asked for.
            tally.update(life % 2, snapshot(1, 0))
            tally.retire(life % 2)
        times = [float(sample["at"]) for sample in tally.rejected_samples()]
        assert times == sorted(times, reverse=True)
        assert len(times) == REJECT_SAMPLES_MAX
        assert times[0] == 250


@given(
    steps=st.lists(
        st.tuples(
            st.integers(0, 2),
            st.sampled_from(["grow", "grow", "retire"]),
            st.integers(0, 9),
            st.integers(0, 9),
            st.integers(0, 3),
        ),
        max_size=40,
    )
)
@settings(deadline=None, max_examples=100)
def test_sums_balance_at_every_read_and_never_go_backwards(
    steps: list[tuple[int, str, int, int, int]],
) -> None:
    tally = Tally()
    lives: dict[int, tuple[int, int]] = {}
    before = tally.ledger()
    for slot, step, delivered, held, rejected in steps:
        if step == "retire":
            tally.retire(slot)
            lives.pop(slot, None)
        else:
            done, refused = lives.get(slot, (0, 0))
            # What a worker holds may shrink only by being delivered: count it in.
            lives[slot] = (done + delivered + 20, refused + rejected)
            tally.update(slot, snapshot(lives[slot][0], held, lives[slot][1]))
        now = tally.ledger()
        assert balance(now)[0], balance(now)[1]
        for name in ("received", "delivered", "rejected", "dropped"):
            assert by_state(now)[name] >= by_state(before)[name]  # type: ignore[arg-type]
        before = now


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
