"""One sender's flood is one sender's problem: others are answered in between, and what cannot be held is refused."""

import asyncio
import gzip
import zlib

import pytest

from tests.receiver.test_http import Client, both_loops, chunked, post, serving, until
from tracefwd.doorways import Answer, HeldAnswer
from tracefwd.receiver.http_connection import _BITE_BYTES

HONEST = chunked(b"[honest]")


def place(bodies: list[bytes]) -> int:
    """How many others' bodies were taken before the honest one."""
    return bodies.index(b"[honest]")


@both_loops
async def test_a_read_full_of_requests_is_worked_off_in_bites() -> None:
    async with serving() as server:
        flooder, honest = await server.connect(), await server.connect()
        assert (await flooder.ask(post(b"x"))).status == 202
        assert (await honest.ask(HONEST)).status == 202
        server.got.clear()
        request = post(b"x")
        count = 4_000
        flooder.send(request * count)
        await until(lambda: bool(server.got))
        honest.send(HONEST)
        assert (await honest.reply()).status == 202
        # A few bites, of which each is a turn of the loop: never all that was read at once (256 KiB).
        assert place(server.bodies) <= 5 * (_BITE_BYTES // len(request))
        for _ in range(count):
            assert (await flooder.reply()).status == 202
        assert len(server.got) == count + 1


@both_loops
async def test_a_flood_of_bombs_delays_an_honest_post_by_a_few_of_them() -> None:
    bomb = chunked(gzip.compress(bytes(15 * 2**20)), headers="content-encoding: gzip\r\n")
    async with serving() as server:
        honest = await server.connect()
        assert (await honest.ask(HONEST)).status == 202
        server.got.clear()
        flood = [await server.connect() for _ in range(12)]
        for client in flood:
            client.send(bomb)
        await until(lambda: bool(server.got))
        honest.send(HONEST)
        assert (await honest.reply()).status == 202
        assert place(server.bodies) <= 5
        for client in flood:
            assert (await client.reply()).status == 202
        assert len(server.got) == 13


@both_loops
async def test_a_connection_is_not_read_while_its_long_body_waits() -> None:
    """So it holds one place in the line, however much it sends."""
    held = HeldAnswer()
    long = post(b"x" * 100_000)
    async with serving(lambda body, _: held if body == b"hold" else Answer(202)) as server:
        client = await server.connect()
        turns = server.receiver._intake.turns
        client.send(long * 20)
        most = 0
        while len(server.got) < 20:
            most = max(most, len(turns._line))
            await asyncio.sleep(0)
        assert most <= 2
        for _ in range(20):
            assert (await client.reply()).status == 202


@both_loops
async def test_long_bodies_that_wait_for_durability_keep_their_order() -> None:
    held: list[HeldAnswer] = []

    def hold(body: bytes, _: str) -> HeldAnswer:
        held.append(HeldAnswer())
        return held[-1]

    async with serving(hold) as server:
        client = await server.connect()
        client.send(post(b"x" * 100_000) + post(b"small") + post(b"y" * 100_000))
        await until(lambda: len(held) == 3)
        assert [body[:1] for body in server.bodies] == [b"x", b"s", b"y"]
        held[2].release(Answer(400, b"third\n"))
        held[1].release(Answer(400, b"second\n"))
        held[0].release(Answer(400, b"first\n"))
        assert [(await client.reply()).body for _ in range(3)] == [
            b"first\n",
            b"second\n",
            b"third\n",
        ]


@both_loops
async def test_unfinished_bodies_have_one_room_and_small_ones_keep_their_place() -> None:
    room = 2 * 2**20
    async with serving(unfinished_bytes_max=room, body_bytes_max=2**20) as server:
        guard = server.receiver._intake.guard
        flood = [await server.connect() for _ in range(20)]
        for client in flood:
            client.send(post(bytes(600_000))[:-1])
        refused = [client for client in flood if await is_refused(client)]
        assert 10 <= len(refused) < 20
        assert 0 < guard.unfinished_bytes <= room
        assert server.count("refused_requests_total", "no_room") == len(refused)
        assert server.count("refused_bytes_total", "no_room") > 0
        assert server.closed("no_room") == len(refused)
        # An honest client whose body comes in pieces is within its share.
        honest = await server.connect()
        whole = post(b"[honest]" * 500)
        for start in range(0, len(whole), 700):
            honest.send(whole[start : start + 700])
            await asyncio.sleep(0.001)
        assert (await honest.reply()).status == 202
        # One that comes at once was never in the way.
        assert (await honest.ask(HONEST)).status == 202
        for client in flood:
            client.close()
        await until(lambda: server.count("connections") == 1)
        assert guard.unfinished_bytes == 0


async def is_refused(client: Client) -> bool:
    try:
        reply = await asyncio.wait_for(client.reply(), 0.2)
    except TimeoutError:
        return False
    except (asyncio.IncompleteReadError, ConnectionError):
        return True
    return reply.status == 503 and b"unfinished_bytes_max" in reply.body


@both_loops
async def test_endless_heads_are_unfinished_requests_too() -> None:
    async with serving(unfinished_bytes_max=1, body_bytes_max=1_000, header_timeout=5) as server:
        guard = server.receiver._intake.guard
        drips = [await server.connect() for _ in range(10)]
        for client in drips:
            client.send(b"POST /api/v2/spans HTTP/1.1\r\nX: " + b"y" * 900)
        # The room is two bodies: one head has its fair share, of ten hardly any.
        await until(lambda: server.closed("no_room") >= 8)
        assert guard.unfinished_bytes <= 2_000


@both_loops
async def test_while_overloaded_requests_are_503_before_anything_is_decoded(
    caplog: pytest.LogCaptureFixture,
) -> None:
    compressed = zlib.compress(b"[]")
    async with serving(idle_timeout=0.2, connection_age_max=0) as server:
        client = await server.connect()
        assert (await client.ask(chunked(b"[1]"))).status == 202
        begun = await server.connect()
        begun.send(post(b"[]")[:-1])
        await until(lambda: server.receiver._intake.guard.unfinished_bytes > 0)
        server.receiver.set_overloaded(True)
        for request in (
            chunked(b"[2]"),
            post(b"[345]"),
            post(compressed, headers="Content-Encoding: deflate\r\n"),
        ):
            reply = await client.ask(request)
            assert (reply.status, reply.closes) == (503, False)
            assert b"service.memory_max" in reply.body
        # One whose head was read before.
        assert (await begun.ask(b"]")).status == 503
        late = await server.connect()
        reply = await late.reply()
        assert (reply.status, reply.closes) == (503, True)
        assert server.bodies == [b"[1]"]
        assert server.count("refused_requests_total", "memory") == 5
        assert server.count("refused_bytes_total", "memory") == 3 + 5 + len(compressed) + 2
        assert server.closed("memory") == 1
        server.receiver.set_overloaded(False)
        assert (await client.ask(chunked(b"[3]"))).status == 202
        assert (await (await server.connect()).ask(post())).status == 202
        await until(lambda: "Envoy sends nothing twice" in caplog.text)
