"""The guard: tokens, overload, and a room in which large requests cannot crowd out small ones."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracefwd.receiver import http_messages as say
from tracefwd.receiver.guard import Guard
from tracefwd.receiver.refusals import Refusals
from tracefwd.settings import ReceiverSettings

ROOM = 1_000_000


def guard() -> Guard:
    return Guard(ReceiverSettings(unfinished_bytes_max=ROOM, body_bytes_max=1_000))


def test_nothing_is_looked_at_unless_something_is_asked_for() -> None:
    plain = guard()
    assert not plain.looks
    assert plain.refusal(b"") is None
    plain.set_overloaded(True)
    assert plain.looks
    plain.set_overloaded(False)
    assert not plain.looks


@pytest.mark.parametrize("shown", [b"Bearer one", b"bearer two", b"BEARER  two "])
def test_any_of_the_tokens_lets_in(shown: bytes) -> None:
    strict = guard()
    strict.ask_for([b"one", b"two"])
    assert strict.looks
    assert strict.refusal(shown) is None


@pytest.mark.parametrize(
    "shown",
    [
        b"",
        b"one",
        b"Bearer",
        b"Bearer ",
        b"Bearer on",
        b"Bearer one,two",
        b"Basic one",
        b"Bearer \xff",
    ],
)
def test_without_a_token_it_is_401(shown: bytes) -> None:
    strict = guard()
    strict.ask_for([b"one", b"two"])
    assert strict.refusal(shown) is say.UNAUTHORIZED
    strict.set_overloaded(True)
    assert strict.refusal(shown) is say.UNAUTHORIZED
    assert strict.refusal(b"Bearer one") is say.OVERLOADED


def test_an_empty_list_of_tokens_lets_nobody_in() -> None:
    strict = guard()
    strict.ask_for([])
    assert strict.refusal(b"Bearer ") is say.UNAUTHORIZED


def test_a_flood_of_large_bodies_leaves_room_for_small_ones() -> None:
    room = guard()
    large = [0] * 20
    for _ in range(100):
        for index, size in enumerate(large):
            if room.make_room(size, size + 10_000):
                large[index] += 10_000
    assert room.unfinished_bytes == sum(large)
    assert room.unfinished_bytes <= ROOM // 2 + 10_000
    small = ROOM // 2 // 100
    for _ in range(20):
        assert room.make_room(0, small)
    assert not room.make_room(0, ROOM // 2)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 200_000)), max_size=300))
def test_the_room_is_never_exceeded_and_what_is_released_is_there_again(
    steps: list[tuple[int, int]],
) -> None:
    room = guard()
    sizes: dict[int, int] = {}
    for who, size in steps:
        if room.make_room(sizes.get(who, 0), size):
            sizes[who] = size
        assert room.unfinished_bytes == sum(sizes.values()) <= ROOM
    for size in sizes.values():
        room.release(size)
    assert room.unfinished_bytes == 0
    assert room.make_room(0, ROOM // 2)


def test_two_of_the_largest_bodies_always_fit() -> None:
    tight = Guard(ReceiverSettings(unfinished_bytes_max=1, body_bytes_max=1_000))
    assert tight.make_room(0, 1_000)


def test_refusals_count_at_once_and_tell_once_per_interval() -> None:
    refusals = Refusals()
    assert refusals.tell(0.0) == []
    for _ in range(3):
        refusals.request(say.OVERLOADED, 100)
    refusals.request(say.NOT_FOUND, 100)
    assert refusals.requests == {"memory": 3}
    assert refusals.bytes == {"memory": 300}
    [(is_loss, text)] = refusals.tell(0.0)
    assert is_loss
    assert text.startswith("3 request(s) refused with 503")
    assert "(300 bytes)" in text
    refusals.request(say.OVERLOADED, 7)
    refusals.connection("not_allowed", "10.0.0.9")
    [(is_loss, text)] = refusals.tell(30.0)
    assert not is_loss
    assert text.endswith("the last: 10.0.0.9")
    [(_, text)] = refusals.tell(60.0)
    assert text.startswith("1 request(s)")
    refusals.request(say.UNAUTHORIZED, 0)
    assert len(refusals.tell(61.0, last=True)) == 1
