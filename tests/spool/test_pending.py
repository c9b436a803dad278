"""What is pending is what was added and not done, whatever the order."""

from array import array

from hypothesis import given, settings
from hypothesis import strategies as st

from tracefwd.spool.pending import Pending

LANES = (11, 22)


@settings(deadline=None, max_examples=200)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.sampled_from(LANES)),
            st.tuples(st.just("segment"), st.just(0)),
            st.tuples(
                st.just("done"), st.sampled_from(LANES), st.integers(0, 40), st.integers(0, 40)
            ),
            st.tuples(
                st.just("keep"), st.sampled_from(LANES), st.integers(0, 40), st.integers(0, 9)
            ),
        ),
        max_size=60,
    )
)
def test_it_is_a_set_in_segments(steps: list[tuple[object, ...]]) -> None:
    pending = Pending()
    pending.begin(1, 1)
    number, seq = 1, 1
    model: dict[tuple[int, int], int] = {}
    for step in steps:
        if step[0] == "add":
            pending.add(step[1], [seq])  # type: ignore[arg-type]
            model[step[1], seq] = number  # type: ignore[index]
            seq += 1
        elif step[0] == "segment":
            number += 1
            pending.begin(number, seq)
        elif step[0] == "done":
            _, lane, first, last = step
            pending.done(lane, first, last)  # type: ignore[arg-type]
            model = {
                key: at
                for key, at in model.items()
                if key[0] != lane or not first <= key[1] <= last  # type: ignore[operator]
            }
        else:
            _, lane, below, stride = step
            kept = array("Q", range(1, below, stride + 1))  # type: ignore[call-overload]
            pending.keep_only(lane, below, kept)  # type: ignore[arg-type]
            model = {
                key: at
                for key, at in model.items()
                if key[0] != lane or key[1] >= below or key[1] in kept  # type: ignore[operator]
            }
    for lane in LANES:
        assert list(pending.seqs(lane)) == [key[1] for key in sorted(model) if key[0] == lane]
        for n in range(1, seq):
            for at in range(1, number + 1):
                assert pending.has(at, lane, n) == (model.get((lane, n)) == at)
    assert set(pending.lanes()) == {lane for lane, _ in model}
    used = set(model.values())
    assert list(pending.empty(number)) == [n for n in range(1, number) if n not in used]


def test_an_entry_may_have_two_payloads_for_a_lane() -> None:
    pending = Pending()
    pending.begin(1, 1)
    pending.add(11, [5, 5, 6])
    pending.done(11, 5, 5)
    assert list(pending.seqs(11)) == [6]


def test_a_list_says_nothing_about_what_is_younger() -> None:
    pending = Pending()
    pending.begin(1, 1)
    pending.add(11, [1, 2, 3, 4])
    pending.keep_only(11, 3, array("Q", [2]))
    assert list(pending.seqs(11)) == [2, 3, 4]
