"""Turns: long bodies one after the other, everybody else in between, and what waits is bounded."""

import asyncio
import time

from tracefwd.doorways import Answer, HeldAnswer
from tracefwd.receiver import turns as module
from tracefwd.receiver.guard import Guard
from tracefwd.receiver.turns import Turns
from tracefwd.settings import ReceiverSettings

OK = Answer(202)


def guard(room: int = 10_000) -> Guard:
    return Guard(ReceiverSettings(unfinished_bytes_max=room, body_bytes_max=1))


async def test_a_long_body_gets_a_turn_of_the_loop_for_itself() -> None:
    turns, order = Turns(guard()), []

    def long() -> Answer:
        time.sleep(2 * module._TURN_S)
        order.append("long")
        return OK

    for _ in range(3):
        assert turns.wait(long, 10) is not None
    for _ in range(3):
        await asyncio.sleep(0)
        order.append("others")
    assert order == ["long", "others"] * 3
    await asyncio.wait_for(turns.over.wait(), 1)


async def test_short_ones_share_a_turn() -> None:
    turns, done = Turns(guard()), []
    for number in range(20):
        turns.wait(lambda number=number: done.append(number) or OK, 1)
    assert done == []
    await asyncio.sleep(0)
    assert done == list(range(20))


async def test_answers_come_at_their_turn_also_those_that_wait_for_durability() -> None:
    turns, durable = Turns(guard()), HeldAnswer()
    at_once, later = turns.wait(lambda: OK, 1), turns.wait(lambda: durable, 1)
    assert at_once is not None
    assert later is not None
    await turns.over.wait()
    assert at_once.answer is OK
    assert later.answer is None
    durable.release(OK)
    assert later.answer is OK


async def test_what_waits_fills_the_room_and_leaves_it() -> None:
    room = guard(100)
    turns = Turns(room)
    assert turns.wait(lambda: OK, 40) is not None
    assert turns.wait(lambda: OK, 90) is None
    assert room.unfinished_bytes == 40
    await turns.over.wait()
    assert room.unfinished_bytes == 0


async def test_who_is_forgotten_leaves_the_room_and_is_never_worked_on() -> None:
    room, done = guard(), []
    turns = Turns(room)
    turns.wait(lambda: done.append(1) or OK, 40)
    turns.forget()
    await turns.over.wait()
    await asyncio.sleep(0)
    assert (done, room.unfinished_bytes) == ([], 0)
