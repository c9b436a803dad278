"""What came in one turn of the loop is worked off together, and each request is answered for itself."""

import asyncio
from collections.abc import Sequence

import pytest

from tests.receiver.test_http import ACCEPTED, Pipe, chunked
from tracefwd.doorways import Answer, HeldAnswer, IngestAll, Post
from tracefwd.receiver.guard import Guard
from tracefwd.receiver.handler import Handlers, zipkin_handlers
from tracefwd.receiver.http_connection import Connection
from tracefwd.receiver.intake import Intake
from tracefwd.settings import ReceiverSettings

KNOWN = Answer(400, b"no\n")


def take(body: bytes, _: str) -> Answer:
    if body == b"bug":
        raise ZeroDivisionError
    return KNOWN if body == b"bad" else Answer(202)


class Together:
    """Ingests several at a time, and keeps what it was given."""

    def __init__(self) -> None:
        self.bouts: list[list[bytes]] = []

    def __call__(self, posts: Sequence[Post]) -> list[Answer | HeldAnswer] | None:
        bodies = [body for body, _ in posts]
        self.bouts.append(bodies)
        return None if b"bug" in bodies else [take(body, kind) for body, kind in posts]


def posted(ingest_all: IngestAll, *bodies: bytes, overloaded: bool = False) -> list[bytes]:
    """What clients read that send these as usual posts in the same turn, one each."""

    async def send() -> list[bytes]:
        guard = Guard(ReceiverSettings())
        handlers = Handlers(zipkin_handlers([], take, ingest_all))
        intake = Intake(ReceiverSettings(), handlers, guard=guard)
        pipes = [Pipe() for _ in bodies]
        connections = [Connection(intake, retire_at=float("inf")) for _ in bodies]
        for connection, pipe in zip(connections, pipes, strict=True):
            connection.connection_made(pipe)
            connection.data_received(chunked(b"[]"))
            pipe.writes.clear()
        for connection, body in zip(connections, bodies, strict=True):
            connection.data_received(chunked(body))
        guard.set_overloaded(overloaded)
        intake.serve_gathered()
        return [b"".join(pipe.writes) for pipe in pipes]

    return asyncio.run(send())


def test_posts_of_one_turn_are_taken_together_and_answered_each_for_itself() -> None:
    together = Together()
    first, second, third = posted(together, b"one", b"bad", b"two")
    assert together.bouts == [[b"one", b"bad", b"two"]]
    assert first == third == ACCEPTED
    assert second.startswith(b"HTTP/1.1 400 ")


def test_one_post_alone_takes_the_short_way() -> None:
    together = Together()
    assert posted(together, b"one") == [ACCEPTED]
    assert together.bouts == []


def test_a_bug_costs_the_request_that_shows_it_and_no_other() -> None:
    first, second, third = posted(Together(), b"one", b"bug", b"two")
    assert first == third == ACCEPTED
    assert second.startswith(b"HTTP/1.1 500 ")


def test_a_bug_after_the_taking_is_answered_as_ours(caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: Sequence[Post]) -> None:
        raise ZeroDivisionError

    answers = posted(fail, b"one", b"two")
    assert all(answer.startswith(b"HTTP/1.1 500 ") for answer in answers)
    assert "failed inside tracefwd" in caplog.text


def test_what_was_gathered_when_memory_ran_short_is_refused() -> None:
    together = Together()
    answers = posted(together, b"one", b"two", overloaded=True)
    assert all(answer.startswith(b"HTTP/1.1 503 ") for answer in answers)
    assert together.bouts == []


def test_a_turn_gathers_so_many_bytes_and_no_more() -> None:
    together = Together()
    long = b"x" * (60 * 2**10)
    assert posted(together, *[long] * 6) == [ACCEPTED] * 6
    assert [len(bout) for bout in together.bouts] == [5]
