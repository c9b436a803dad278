"""What a dead worker's accounts come to."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tracefwd import ledger
from tracefwd.ledger import Account
from tracefwd.service import history

COUNTS = st.integers(0, 50)
REASONS = st.dictionaries(st.sampled_from(["refused", "queue_full", "shed"]), COUNTS)
LANES = st.fixed_dictionaries(
    {
        "delivered": COUNTS,
        "sampled_out": COUNTS,
        "blocked": COUNTS,
        "rejected": REASONS,
        "dropped": REASONS,
        "received": st.integers(0, 400),
    }
)


def gone(part: dict[str, Any]) -> int:
    states: int = sum(part[name] for name in ("delivered", "sampled_out", "blocked"))
    reasons: int = sum(part["rejected"].values()) + sum(part["dropped"].values())
    return states + reasons


def lane(received: int, delivered: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "received": received,
        "delivered": delivered,
        "sampled_out": 0,
        "blocked": 0,
        "rejected": {},
        "dropped": {},
        **more,
    }


@settings(deadline=None, max_examples=100)
@given(
    now=st.dictionaries(st.sampled_from("ab"), LANES), before=st.dictionaries(st.just("a"), LANES)
)
def test_gains_lead_from_then_to_now(now: dict[str, Any], before: dict[str, Any]) -> None:
    """Names never leave; only counts change."""
    now = {**{name: part for name, part in before.items() if name not in now}, **now}
    for name, part in before.items():
        for states in ("rejected", "dropped"):
            now[name][states] = {**part[states], **now[name][states]}
    state, gained = history.pack(before), history.pack(history.gains(now, before))
    total, unread = history.fold(state, {gained: 1})
    assert unread == 0
    # Zeros may be left out.
    assert history.gains(now, total) == {}


def test_equal_gains_are_written_once_and_count_as_often() -> None:
    gained = history.pack({"a/spans": {"received": 3, "dropped": {"shed": 1}}})
    total, _ = history.fold(None, {gained: 4, b"": 7})
    assert total == {"a/spans": {"received": 12, "dropped": {"shed": 4}}}


def test_what_cannot_be_read_is_counted_and_passed_over() -> None:
    good = history.pack({"a/spans": {"received": 3}})
    assert history.fold(b"\xc1", {good: 1, b"\xc1\xc1": 2}) == ({"a/spans": {"received": 3}}, 2)


def test_lines_that_come_again_are_not_received_yet() -> None:
    found = history.settled(lane(received=10, delivered=4), outstanding=6)
    assert (found["received"], found["delivered"], found["dropped"]) == (4, 4, {})


def test_batches_in_the_spool_stay_received() -> None:
    found = history.settled(lane(received=10, delivered=4), outstanding=1, spooled=5)
    assert (found["received"], found["delivered"]) == (9, 4)


def test_what_is_nowhere_was_lost_in_the_crash() -> None:
    found = history.settled(lane(received=10, delivered=4), outstanding=5)
    assert (found["received"], found["dropped"]) == (5, {"crash": 1})


def test_a_half_that_was_over_and_comes_again_is_gone_once() -> None:
    """Half of a batch was delivered; only the whole of it is ever done with."""
    found = history.settled(lane(received=10, delivered=4, rejected={"refused": 1}), outstanding=9)
    assert found["received"] + 9 == 10
    assert (found["delivered"], found["rejected"]) == (0, {"refused": 1})


@settings(deadline=None, max_examples=200)
@given(part=LANES, outstanding=COUNTS, spooled=COUNTS)
def test_whatever_the_journal_says_the_account_balances(
    part: dict[str, Any], outstanding: int, spooled: int
) -> None:
    found = history.settled(part, outstanding, spooled)
    assert found["received"] == gone(found) + spooled
    assert all(value >= 0 for value in found.values() if isinstance(value, int))
    if part["received"] >= outstanding + spooled:
        assert found["received"] + outstanding == part["received"]
    account = Account(lambda: spooled)
    history.restore(account, found)
    assert ledger.imbalance(account.show()) == 0


def test_the_pipelines_own_follow_the_lane_behind_them() -> None:
    own = lane(received=20, rejected={"syntax": 2}, sampled_out=5)
    found = history.passed_on(own, kept=9)
    assert found["received"] == 16


def test_held_is_what_is_not_gone() -> None:
    assert history.held_of(lane(received=10, delivered=4, dropped={"queue_full": 1})) == 5
    assert history.held_of({}) == 0
