"""The intake's HTTP server against real sockets, on uvloop and on the standard loop."""

import asyncio
import gzip
import inspect
import json
import logging
import socket
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from tracefwd.doorways import Answer, HeldAnswer
from tracefwd.metrics import CATALOGUE
from tracefwd.receiver import http_connection
from tracefwd.receiver.handler import Handlers, zipkin_handlers
from tracefwd.receiver.http import HttpReceiver
from tracefwd.receiver.http_connection import Connection
from tracefwd.receiver.intake import Intake
from tracefwd.settings import ReceiverSettings

ENVOY = Path(__file__).parents[1] / "fixtures" / "envoy"
ACCEPTED = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"
LOOPS = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}
Ingest = Callable[[bytes, str], Answer | HeldAnswer]


def both_loops(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run a coroutine test on each event loop that tracefwd may run on; nothing may take ten seconds."""

    def run(loop: str, **given: Any) -> None:
        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            runner.run(asyncio.wait_for(test(**given), 10))

    own = inspect.Parameter("loop", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    theirs = inspect.signature(test).parameters.values()
    run.__signature__ = inspect.Signature([own, *theirs])  # type: ignore[attr-defined]
    run.__name__, run.__doc__ = test.__name__, test.__doc__
    run.pytestmark = list(getattr(test, "pytestmark", []))  # type: ignore[attr-defined]
    marked: Callable[..., None] = pytest.mark.parametrize("loop", list(LOOPS))(run)
    return marked


def post(
    body: bytes = b"[]", *, path: str = "/api/v2/spans", headers: str = "", version: str = "1.1"
) -> bytes:
    head = f"POST {path} HTTP/{version}\r\nHost: zipkin\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return head.encode("latin-1") + body


def chunked(*chunks: bytes, headers: str = "") -> bytes:
    head = f"POST /api/v2/spans HTTP/1.1\r\nhost: zipkin\r\n{headers}transfer-encoding: chunked\r\n\r\n"
    pieces = [b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks]
    return head.encode() + b"".join(pieces) + b"0\r\n\r\n"


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def closes(self) -> bool:
        return self.headers.get("connection") == "close"


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def reply(self, *, to_head: bool = False) -> Reply:
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        fields = (line.partition(": ") for line in lines[1:] if line)
        headers = {name.lower(): value for name, _, value in fields}
        length = 0 if to_head else int(headers.get("content-length", 0))
        return Reply(int(lines[0].split()[1]), headers, await self.reader.readexactly(length))

    async def ask(self, data: bytes) -> Reply:
        self.send(data)
        return await self.reply()

    async def ended(self) -> bool:
        """Whether the server closes without another word; waits for it, and a reset is no close."""
        return await self.reader.read() == b""

    def close(self) -> None:
        self.writer.close()


async def until(condition: Callable[..., bool]) -> None:
    """For what happens in the server on our own loop and what no client can see."""
    while not condition():  # noqa: ASYNC110 - there is no event to wait for
        await asyncio.sleep(0)


@dataclass
class Server:
    receiver: HttpReceiver
    port: int
    got: list[tuple[bytes, str]]
    clients: list[Client] = field(default_factory=list)

    async def connect(self, **options: Any) -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port, **options))
        self.clients.append(client)
        return client

    @property
    def bodies(self) -> list[bytes]:
        return [body for body, _ in self.got]

    def count(self, name: str, *labels: str) -> float:
        return self.receiver.samples()[f"tracefwd_receiver_{name}"].get(labels, 0)

    def closed(self, reason: str) -> float:
        return self.count("connections_closed_total", reason)


@asynccontextmanager
async def serving(ingest: Ingest | None = None, **options: Any) -> AsyncIterator[Server]:
    """A receiver on a free port, with 202 for everything unless ``ingest`` says otherwise."""
    got: list[tuple[bytes, str]] = []

    def take(body: bytes, content_type: str) -> Answer | HeldAnswer:
        got.append((body, content_type))
        return Answer(202) if ingest is None else ingest(body, content_type)

    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    server = Server(HttpReceiver(ReceiverSettings(**options), take), sock.getsockname()[1], got)
    await server.receiver.start(sock)
    try:
        yield server
    finally:
        for client in server.clients:
            client.close()
        await server.receiver.stop(0)


# --- requests ---------------------------------------------------------------------------------


@both_loops
async def test_envoys_chunked_post_is_accepted_and_the_connection_kept() -> None:
    async with serving() as server:
        client = await server.connect()
        for number in range(5):
            body = b'[{"n": %d}]' % number
            client.send(chunked(body, headers="content-type: application/json\r\n"))
            assert await client.reader.readexactly(len(ACCEPTED)) == ACCEPTED
        assert server.got == [(b'[{"n": %d}]' % n, "application/json") for n in range(5)]
        assert server.count("requests_total", "202") == 5
        assert server.count("connections") == server.count("connections_total") == 1
        assert server.count("request_bytes_total") == sum(map(len, server.bodies))


@both_loops
async def test_bodies_come_by_length_by_chunks_and_not_at_all() -> None:
    async with serving() as server:
        client = await server.connect()
        for request in (
            post(b"[1]"),
            chunked(b"[", b"1,", b"2", b"]"),
            chunked(b"[3]").replace(b"3\r\n[3]", b"0003;name=value\r\n[3]"),
            chunked(b"[4]")[:-2] + b"X-Trailer: yes\r\n\r\n",
            post(b""),
            b"POST /api/v2/spans HTTP/1.1\r\n\r\n",
            chunked(),
            b"\r\n" + post(b"[5]"),
        ):
            assert (await client.ask(request)).status == 202
        assert server.bodies == [b"[1]", b"[1,2]", b"[3]", b"[4]", b"", b"", b"", b"[5]"]


@both_loops
async def test_http_1_0_is_served_and_kept_only_when_asked() -> None:
    async with serving() as server:
        client = await server.connect()
        kept = await client.ask(post(headers="Connection: keep-alive\r\n", version="1.0"))
        assert (kept.status, kept.headers["connection"]) == (202, "keep-alive")
        ended = await client.ask(post(version="1.0"))
        assert ended.status == 202
        assert ended.closes
        assert await client.ended()


@both_loops
async def test_a_client_that_wants_the_connection_closed_gets_that() -> None:
    async with serving() as server:
        client = await server.connect()
        # What stands behind is not read; it may be anything.
        reply = await client.ask(post(headers="Connection: close\r\n") + post(b"[9]") + b"\0junk")
        assert reply.status == 202
        assert reply.closes
        assert await client.ended()
        assert server.bodies == [b"[]"]
        assert not server.receiver.samples()["tracefwd_receiver_connections_closed_total"]


@both_loops
@pytest.mark.parametrize(
    "target",
    [
        "/api/v2/spans",
        "/api/v2/spans/",
        "/api/v1/spans",
        "/api/v1/spans/",
        "/api/v2/spans?token=secret",
        "/api/v2/spans/?a=/b",
        "/api/v2/spans%2F",
        "/%61pi/v2/spans",
        "http://zipkin:9411/api/v2/spans",
        "HTTPS://u@[::1]:1/api/v1/spans/?x",
        "/zipkin/api/v2/spans?x=1",
        "/with%20blank/",
        "/with%20blank",
        "/slash",
    ],
)
async def test_paths_that_take_spans(target: str) -> None:
    paths = ["/zipkin/api/v2/spans?ignored", "/with blank", "slash/"]
    async with serving(paths=paths) as server:
        client = await server.connect()
        assert (await client.ask(post(path=target))).status == 202


@both_loops
@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/health",
        "/api/v2",
        "/API/v2/spans",
        "//api/v2/spans",
        "/api/v2/spans//",
        "http://zipkin",
    ],
)
async def test_other_paths_are_not_found_and_the_connection_goes_on(target: str) -> None:
    async with serving() as server:
        client = await server.connect()
        reply = await client.ask(post(path=target))
        assert reply.status == 404
        assert b"/api/v2/spans" in reply.body
        assert (await client.ask(b"GET %b HTTP/1.1\r\n\r\n" % target.encode())).status == 404
        assert (await client.ask(post(b"[1]"))).status == 202
        assert server.bodies == [b"[1]"]


@both_loops
async def test_other_methods_are_not_allowed_and_the_connection_goes_on() -> None:
    async with serving() as server:
        client = await server.connect()
        for method in (b"GET", b"PUT", b"OPTIONS", b"DELETE", b"PATCH"):
            reply = await client.ask(post().replace(b"POST", method))
            assert (reply.status, reply.headers["allow"]) == (405, "POST")
            assert b"POST" in reply.body
        client.send(b"HEAD /api/v2/spans HTTP/1.1\r\n\r\n" + post(b"[1]"))
        assert (await client.reply(to_head=True)).status == 405
        assert (await client.reply()).status == 202
        assert server.bodies == [b"[1]"]


@both_loops
@pytest.mark.parametrize(
    "host", ["Host: outbound|9411||zipkin.ns\r\n", "Host:\r\n", "", "Host: a\r\nHost: b\r\n"]
)
async def test_any_host_will_do(host: str) -> None:
    async with serving() as server:
        client = await server.connect()
        head = f"POST /api/v2/spans HTTP/1.1\r\n{host}Content-Length: 2\r\n\r\n[]"
        assert (await client.ask(head.encode())).status == 202


@both_loops
async def test_a_body_that_waits_for_our_word_is_asked_for() -> None:
    async with serving() as server:
        client = await server.connect()
        whole = post(b"[1]", headers="Expect: 100-Continue\r\n")
        client.send(whole[:-3])
        assert await client.reader.readexactly(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert (await client.ask(whole[-3:])).status == 202
        # Old clients and empty bodies wait for nothing; other expectations are ignored.
        for request in (
            post(
                b"[2]", headers="Expect: 100-continue\r\nConnection: keep-alive\r\n", version="1.0"
            ),
            post(b"", headers="Expect: 100-continue\r\n"),
            post(b"[3]", headers="Expect: the-unexpected\r\n"),
        ):
            assert (await client.ask(request)).status == 202
        assert server.bodies == [b"[1]", b"[2]", b"", b"[3]"]
        assert server.count("requests_total", "100") == 0


@both_loops
async def test_a_waiting_body_that_we_do_not_want_is_refused_at_once() -> None:
    async with serving() as server:
        client = await server.connect()
        reply = await client.ask(post(path="/no", headers="Expect: 100-continue\r\n")[:-2])
        assert reply.status == 404
        assert reply.closes
        assert await client.ended()


# --- compression ------------------------------------------------------------------------------

BODY = b'[{"traceId": "1"}]' * 50
RAW = zlib.compressobj(wbits=-15)


@both_loops
@pytest.mark.parametrize(
    ("coding", "data"),
    [
        ("gzip", gzip.compress(BODY)),
        ("gzip", gzip.compress(BODY[:7]) + gzip.compress(BODY[7:])),
        ("deflate", zlib.compress(BODY)),
        ("deflate", RAW.compress(BODY) + RAW.flush()),
        ("identity", BODY),
    ],
)
async def test_compressed_bodies_are_inflated(coding: str, data: bytes) -> None:
    headers = f"Content-Encoding: {coding}\r\n"
    async with serving() as server:
        client = await server.connect()
        # Twice by chunks, so that the second takes the express lane.
        for request in (post(data, headers=headers), *[chunked(data, headers=headers)] * 2):
            assert (await client.ask(request)).status == 202
        assert server.bodies == [BODY] * 3
        assert server.count("request_bytes_total") == 3 * len(data)


@both_loops
async def test_bodies_that_cannot_be_inflated_cost_only_themselves() -> None:
    async with serving(body_bytes_max=1_000) as server:
        client = await server.connect()
        unknown = await client.ask(post(b"x", headers="Content-Encoding: br\r\n"))
        assert unknown.status == 415
        assert "gzip" in unknown.headers["accept-encoding"]
        corrupt = await client.ask(post(b"[{}]" * 9, headers="Content-Encoding: gzip\r\n"))
        assert corrupt.status == 400
        assert b"gzip" in corrupt.body
        bomb = await client.ask(
            post(gzip.compress(bytes(99_999)), headers="Content-Encoding: gzip\r\n")
        )
        assert bomb.status == 413
        assert (await client.ask(post(b"[1]"))).status == 202
        assert server.bodies == [b"[1]"]


# --- limits -----------------------------------------------------------------------------------


@both_loops
async def test_a_body_of_exactly_the_limit_fits() -> None:
    async with serving(body_bytes_max=1_000) as server:
        client = await server.connect()
        for request in (post(b"x" * 1_000), *[chunked(b"y" * 1_000)] * 2):
            assert (await client.ask(request)).status == 202


@both_loops
@pytest.mark.parametrize(
    "request_bytes",
    [
        post(b"x" * 1_001)[:-1_001],
        post(b"").replace(b": 0", b": 18446744073709551615"),
        chunked(b"x" * 1_001),
        chunked(b"x" * 600, b"x" * 600),
        b"POST /api/v2/spans HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffff\r\n"
        + b"x" * 2_000,
        chunked(b"x" * 1_001).replace(b"/api/v2/spans", b"/else"),
    ],
)
async def test_a_body_above_the_limit_is_413_and_the_end(request_bytes: bytes) -> None:
    async with serving(body_bytes_max=1_000) as server:
        client = await server.connect()
        # The first one teaches the express lane.
        assert (await client.ask(chunked(b"ok"))).status == 202
        reply = await client.ask(request_bytes)
        assert reply.status == 413
        assert reply.closes
        assert b"1000 bytes" in reply.body
        assert await client.ended()
        assert server.bodies == [b"ok"]
        assert server.closed("too_large") == 1


def endless(start: bytes) -> list[bytes]:
    return [start] + [b"a" * 300] * 5


@both_loops
@pytest.mark.parametrize(
    "pieces",
    [
        [post(headers=f"X: {'a' * 1_000}\r\n")],
        [post(headers="".join(f"X-{n}: a\r\n" for n in range(200)))],
        [post(path="/api/v2/spans?" + "a" * 1_000)],
        endless(b"POST /"),
        endless(b"POST / HTTP/1.1\r\nX"),
        endless(b"POST / HTTP/1.1\r\nX: "),
        endless(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: "),
        endless(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;"),
    ],
)
async def test_headers_above_the_limit_are_431_and_the_end(pieces: list[bytes]) -> None:
    async with serving(header_bytes_max=1_000) as server:
        client = await server.connect()
        await until(lambda: bool(server.receiver._intake.connections))
        connection = next(iter(server.receiver._intake.connections))
        # Fed by hand, for the kernel would join the pieces.
        for piece in pieces:
            connection.data_received(piece)
        reply = await client.reply()
        assert reply.status == 431
        assert reply.closes
        assert await client.ended()
        assert server.closed("too_large") == 1
        assert not server.got


@both_loops
async def test_large_bodies_in_small_chunks_are_no_large_headers() -> None:
    async with serving(header_bytes_max=500) as server:
        client = await server.connect()
        assert (await client.ask(chunked(*[b"x"] * 5_000))).status == 202
        assert (await client.ask(post(b"y" * 300_000))).status == 202
        assert server.bodies == [b"x" * 5_000, b"y" * 300_000]


@both_loops
@pytest.mark.parametrize(
    ("begun", "reason"),
    [
        (b"P", "slow_headers"),
        (b"POST /api/v2/spans HTTP/1.1\r\nHost: x\r\n", "slow_headers"),
        (post(b"[12]")[:-1], "slow_body"),
        (chunked(b"[12]")[:-2], "slow_body"),
        (post() + post(b"[12]")[:-1], "slow_body"),
    ],
)
async def test_slow_senders_are_cut_off_with_408(begun: bytes, reason: str) -> None:
    async with serving(header_timeout=0.05, body_timeout=0.05) as server:
        client = await server.connect()
        client.send(begun)
        reply = await client.reply()
        if reply.status == 202:
            reply = await client.reply()
        assert reply.status == 408
        assert reply.closes
        assert await client.ended()
        assert server.closed(reason) == 1
        assert server.count("requests_total", "408") == 1


@both_loops
async def test_dripping_bytes_do_not_buy_time() -> None:
    async with serving(header_timeout=0.1) as server:
        client = await server.connect()
        client.send(b"POST /api/v2/spans HTTP/1.1\r\nX: ")

        async def drip() -> None:
            while True:
                client.send(b"a")
                await asyncio.sleep(0.01)

        dripping = asyncio.ensure_future(drip())
        assert (await client.reply()).status == 408
        dripping.cancel()


@both_loops
async def test_idle_connections_are_closed_and_busy_ones_are_not() -> None:
    async with serving(idle_timeout=0.15) as server:
        idle, busy = await server.connect(), await server.connect()
        ended = asyncio.ensure_future(idle.ended())
        while not ended.done():
            assert (await busy.ask(chunked(b"[]"))).status == 202
            await asyncio.wait({ended}, timeout=0.01)
        assert ended.result()
        assert server.closed("idle") == 1
        idle.close()
        await until(lambda: server.count("connections") == 1)


@both_loops
async def test_a_connection_too_many_is_told_so() -> None:
    async with serving(connections_max=2) as server:
        first, second = await server.connect(), await server.connect()
        assert (await first.ask(post())).status == (await second.ask(post())).status == 202
        third = await server.connect()
        # A request in flight must not turn the refusal into a reset.
        reply = await third.ask(post(b"x" * 100_000))
        assert reply.status == 503
        assert reply.closes
        assert await third.ended()
        assert server.closed("too_many") == 1
        assert server.count("requests_total", "503") == 1
        assert server.count("refused_requests_total", "too_many") == 1
        assert server.count("connections") == 2
        assert server.count("connections_total") == 3
        assert len(server.got) == 2
        first.close()
        await asyncio.wait_for(replaced(server), 5)


@both_loops
async def test_a_flood_of_connections_is_reset_without_a_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_connection, "_TURNED_AWAY_MAX", 1)
    async with serving(connections_max=1) as server:
        served = await server.connect()
        assert (await served.ask(post())).status == 202
        assert (await (await server.connect()).reply()).status == 503
        with suppress(ConnectionResetError):
            assert await (await server.connect()).ended()
        assert server.closed("too_many") == 2
        assert (await served.ask(post())).status == 202


async def replaced(server: Server) -> None:
    """Return once a new connection is served again."""
    while True:
        client = await server.connect()
        if (await client.ask(post())).status == 202:
            return


@both_loops
async def test_a_client_that_never_reads_its_answers_is_dropped() -> None:
    answer = Answer(400, b"x" * 60_000)
    async with serving(lambda body, kind: answer, body_timeout=0.05, header_timeout=0.05) as server:
        client = await server.connect(limit=1)
        request = post()
        with suppress(ConnectionError):
            while True:
                client.send(request * 50)
                await client.writer.drain()
        assert server.closed("slow_reader") == 1
        # Reading stopped long before the client's requests did.
        assert len(server.got) < 100_000


# --- what must not be read in two ways -----------------------------------------------------------

SMUGGLED = b"POST /api/v2/spans HTTP/1.1\r\nContent-Length: 8\r\n\r\nsmuggled"
TE = b"Transfer-Encoding: chunked\r\n"
START = b"POST /api/v2/spans HTTP/1.1\r\n"


@both_loops
@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (START + b"Content-Length: 3\r\n" + TE + b"\r\n0\r\n\r\n", 400),
        (START + TE + b"Content-Length: 3\r\n\r\n0\r\n\r\n", 400),
        (START + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400),
        (START + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400),
        (START + b"Content-Length: 3, 3\r\n\r\nabc", 400),
        (START + b"Content-Length: +3\r\n\r\nabc", 400),
        (START + b"Content-Length: -3\r\n\r\nabc", 400),
        (START + b"Content-Length: 0x3\r\n\r\nabc", 400),
        (START + b"Content-Length: 3_0\r\n\r\nabc", 400),
        (START + b"Content-Length:\r\n\r\nabc", 400),
        (START + b"Content-Length : 3\r\n\r\nabc", 400),
        (START + b"Content-Length: 99999999999999999999999\r\n\r\nabc", 400),
        (START + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
        (START + TE + TE + b"\r\n0\r\n\r\n", 400),
        (START + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 400),
        (START + b"Transfer-Encoding: identity\r\n\r\n", 501),
        (START + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
        (START + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400),
        (START + b"Transfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 501),
        (START.replace(b"1.1", b"1.0") + TE + b"\r\n3\r\nabc\r\n0\r\n\r\n", 400),
        (
            START.replace(b"1.1", b"1.0") + b"Connection: keep-alive\r\n" + TE + b"\r\n0\r\n\r\n",
            400,
        ),
        (START + b"X: a\r\n folded\r\nContent-Length: 3\r\n\r\nabc", 400),
        (START + b"Content-Length: 3\r\n 4\r\n\r\nabc", 400),
        (START + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 400),
        (START + b" X: a\r\n\r\n", 400),
        (START.replace(b"\r", b"") + b"Content-Length: 3\n\nabc", 400),
        (START + b"X: a\nContent-Length: 3\r\n\r\nabc", 400),
        (START + b"X: a\rContent-Length: 3\r\n\r\nabc", 400),
        (START + b"X: a\r\n\n", 400),
        (START + b"X: a\0b\r\n\r\n", 400),
        (START + b"X\x01: a\r\n\r\n", 400),
        (START + b"no colon\r\n\r\n", 400),
        (START + b": empty\r\n\r\n", 400),
        *(
            (START + TE + b"\r\n" + bad + b"0\r\n\r\n", 400)
            for bad in (
                b"3 \r\nabc\r\n",
                b" 3\r\nabc\r\n",
                b"0x3\r\nabc\r\n",
                b"+3\r\nabc\r\n",
                b"-3\r\nabc\r\n",
                b"g\r\nabc\r\n",
                b"\r\nabc\r\n",
                b"3\nabc\r\n",
                b"3\rXabc\r\n",
                b"3\r\nabc\n",
                b"3\r\nabcd\r\n",
                b"3;a\nb\r\nabc\r\n",
                b"fffffffffffffffff\r\nabc\r\n",
            )
        ),
        (START + TE + b"\r\n0\r\nContent-Length: 8\r\n\r\n", 400),
        (START + TE + b"\r\n0\r\nX: y\n\r\n", 400),
        (START + TE + b"\r\n0\n\n", 400),
        (START.replace(b"1.1", b"2.0") + b"Content-Length: 3\r\n\r\nabc", 505),
        (START.replace(b"1.1", b"0.9") + b"Content-Length: 3\r\n\r\nabc", 505),
        (START.replace(b"1.1", b"1.7") + b"Content-Length: 3\r\n\r\nabc", 400),
        (b"POST /api/v2/spans\r\n\r\n", 505),
        (START.replace(b"/api", b"/\xc3\xa4"), 400),
        (START.replace(b"/v2", b" /v2"), 400),
        (b"CONNECT zipkin:9411 HTTP/1.1\r\n\r\n", 405),
        (b"BREW /api/v2/spans HTTP/1.1\r\n\r\n", 405),
        (b"garbage\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    ],
)
async def test_ambiguous_requests_are_refused_and_nothing_behind_them_is_read(
    request_bytes: bytes, status: int
) -> None:
    async with serving() as server:
        client = await server.connect()
        # One before, so that a refusal is also seen behind the express lane's lesson.
        assert (await client.ask(chunked(b"first"))).status == 202
        reply = await client.ask(request_bytes + SMUGGLED)
        assert reply.status == status
        assert reply.closes
        assert len(reply.body) > 10
        assert await client.ended()
        assert server.bodies == [b"first"]
        assert server.closed("protocol") == 1
        assert server.count("requests_total", str(status)) == 1


@both_loops
async def test_http2_with_prior_knowledge_is_refused_with_advice() -> None:
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"
    async with serving() as server:
        for cut in (1, 10, len(preface)):
            client = await server.connect()
            client.send(preface[:cut])
            await client.writer.drain()
            reply = await client.ask(preface[cut:])
            assert reply.status == 505
            assert b"http-*" in reply.body
            assert await client.ended()
        assert not server.got


@both_loops
async def test_tls_on_the_plain_port_is_named() -> None:
    async with serving() as server:
        client = await server.connect()
        reply = await client.ask(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32))
        assert (reply.status, b"TLS" in reply.body) == (400, True)


OFFER = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"


@both_loops
async def test_upgrade_offers_are_ignored_and_the_request_served() -> None:
    requests = [
        post(b"[1]", headers=OFFER),
        chunked(b"[2]", headers=OFFER),
        post(b"", headers=OFFER),
        post(b"[3]", headers="Upgrade: websocket\r\n"),
        chunked(b"[4]"),
    ]
    async with serving() as server:
        client = await server.connect()
        client.send(b"".join(requests) * 2)
        for _ in range(10):
            reply = await client.reply()
            assert (reply.status, reply.closes) == (202, False)
        assert server.bodies == [b"[1]", b"[2]", b"", b"[3]", b"[4]"] * 2
        last = post(b"[5]", headers=OFFER.replace("Upgrade,", "Upgrade, close,")) + post(b"[6]")
        assert (await client.ask(last)).closes
        assert server.bodies[-1] == b"[5]"


# --- order and waiting --------------------------------------------------------------------------


@both_loops
async def test_pipelined_answers_keep_the_order_of_their_requests() -> None:
    def echo(body: bytes, kind: str) -> Answer:
        return Answer(400 if body.endswith(b"3") else 202, body if body.endswith(b"3") else b"")

    async with serving(echo) as server:
        client = await server.connect()
        requests = [(post if n % 2 else chunked)(b"%d" % n) for n in range(200)]
        client.send(b"".join(requests))
        replies = [await client.reply() for _ in requests]
        assert [r.body for r in replies] == [b"%d" % n if n % 10 == 3 else b"" for n in range(200)]
        assert server.bodies == [b"%d" % n for n in range(200)]


@both_loops
async def test_answers_wait_behind_a_held_one() -> None:
    held = [HeldAnswer(), HeldAnswer()]
    answers: dict[bytes, Answer | HeldAnswer] = {
        b"a": held[0],
        b"b": Answer(400, b"b"),
        b"c": held[1],
        b"d": Answer(400, b"d"),
    }
    arrived = asyncio.Event()

    def ingest(body: bytes, kind: str) -> Answer | HeldAnswer:
        if body == b"d":
            arrived.set()
        return answers[body]

    async with serving(ingest) as server:
        client = await server.connect()
        client.send(b"".join(map(chunked, answers)))
        await arrived.wait()
        waiting = asyncio.ensure_future(client.reply())
        held[1].release(Answer(400, b"c"))
        done, _ = await asyncio.wait({waiting}, timeout=0.02)
        assert not done
        held[0].release(Answer(202))
        assert (await waiting).status == 202
        assert [(await client.reply()).body for _ in range(3)] == [b"b", b"c", b"d"]
        # And the connection goes on as before, the express lane included.
        answers[b"e"] = at_once = HeldAnswer()
        at_once.release(Answer(202))
        assert (await client.ask(chunked(b"e"))).status == 202


@both_loops
async def test_a_client_is_not_read_while_too_many_answers_are_held() -> None:
    held: list[HeldAnswer] = []
    full = asyncio.Event()

    def hold(body: bytes, kind: str) -> HeldAnswer:
        held.append(HeldAnswer())
        if len(held) == http_connection._HELD_MAX:
            full.set()
        return held[-1]

    async with serving(hold, idle_timeout=0.05) as server:
        client = await server.connect()

        async def send_all() -> None:
            for _ in range(500):
                client.send(chunked(b"x" * 20_000))
                await client.writer.drain()

        sending = asyncio.ensure_future(send_all())
        await full.wait()
        done, _ = await asyncio.wait({sending}, timeout=0.1)
        assert not done
        # One read may hold a dozen requests more; nobody's patience ends meanwhile.
        assert len(held) < 2 * http_connection._HELD_MAX
        for number in range(500):
            await until(lambda number=number: len(held) > number)
            held[number].release(Answer(202))
            assert (await client.reply()).status == 202
        await sending
        assert await client.ended()
        assert server.closed("idle") == 1


@both_loops
async def test_a_client_that_stops_sending_still_gets_what_is_held_for_it() -> None:
    held = HeldAnswer()
    arrived = asyncio.Event()

    def hold(body: bytes, kind: str) -> HeldAnswer:
        arrived.set()
        return held

    async with serving(hold) as server:
        client = await server.connect()
        client.send(post())
        client.writer.write_eof()
        await arrived.wait()
        done, _ = await asyncio.wait({reply := asyncio.ensure_future(client.reply())}, timeout=0.02)
        assert not done
        held.release(Answer(202))
        assert (await reply).closes
        assert await client.ended()


@both_loops
async def test_a_client_that_left_is_no_matter_when_its_answer_comes() -> None:
    held: list[HeldAnswer] = []

    def hold(body: bytes, kind: str) -> HeldAnswer:
        held.append(HeldAnswer())
        return held[-1]

    async with serving(hold) as server:
        client = await server.connect()
        client.send(post())
        await until(lambda: bool(held))
        client.writer.transport.abort()
        connection = next(iter(server.receiver._intake.connections))
        await until(lambda: connection._eof)
        # It might still be listening, for all we know.
        assert server.count("connections") == 1
        held[0].release(Answer(202))
        await server.receiver._intake.nobody.wait()


@both_loops
async def test_a_failure_inside_is_500_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    def fail(body: bytes, kind: str) -> Answer:
        raise RuntimeError("broken inside")

    async with serving(fail) as server:
        client = await server.connect()
        with caplog.at_level(logging.ERROR, "tracefwd.receiver"):
            for request in (post(), chunked(b"[]"), chunked(b"[]")):
                reply = await client.ask(request)
                assert (reply.status, reply.closes) == (500, False)
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        assert "broken inside" in caplog.text


# --- ends ---------------------------------------------------------------------------------------


@both_loops
async def test_an_old_connection_ends_behind_an_answer() -> None:
    async with serving(connection_age_max=0.05) as server:
        client = await server.connect()
        count = 1
        while not (await client.ask(chunked(b"[]"))).closes:
            count += 1
        assert await client.ended()
        # Every request was taken, the last one included.
        assert len(server.got) == count
        assert server.closed("age") == 1


@both_loops
async def test_age_zero_is_never() -> None:
    async with serving(connection_age_max=0, header_timeout=0.02) as server:
        client = await server.connect()
        done, _ = await asyncio.wait({asyncio.ensure_future(client.reader.read(1))}, timeout=0.06)
        assert not done
        assert server.count("connections") == 1


def test_ages_are_spread_by_a_tenth() -> None:
    async def ages() -> list[float]:
        receiver = HttpReceiver(ReceiverSettings(), lambda body, kind: Answer(202), seed=7)
        now = asyncio.get_running_loop().time()
        return [receiver._connection()._retire_at - now for _ in range(200)]

    found = asyncio.run(ages())
    assert 270 <= min(found) < 280
    assert 320 < max(found) <= 331


@both_loops
async def test_the_answer_to_a_body_too_large_survives_what_is_still_coming() -> None:
    async with serving(body_bytes_max=1_000) as server:
        client = await server.connect()
        client.send(post(b"x" * 3_000_000))
        reply = await client.reply()
        assert reply.status == 413
        assert await client.ended()


@both_loops
async def test_a_client_that_does_not_close_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connection, "_LINGER_S", 0.05)
    async with serving(header_timeout=0.05) as server:
        client = await server.connect()
        assert (await client.ask(post(headers="Connection: close\r\n"))).closes
        # Our side is shut down, theirs stays open; nobody waits for it for ever.
        await server.receiver._intake.nobody.wait()


@both_loops
async def test_a_port_that_was_handed_over_is_served_by_the_other_and_nobody_falls_between() -> (
    None
):
    """Two receivers at one socket, as two workers of a slot: whoever was taken by the first is served by it."""
    by_other: list[bytes] = []

    def take(body: bytes, _: str) -> Answer:
        by_other.append(body)
        return Answer(202)

    async with serving() as server:
        door = server.receiver._door
        assert door is not None
        shared = door._sock.dup()
        kept = await server.connect()
        assert (await kept.ask(post(b"[1]"))).status == 202
        # Taken from the backlog, but not yet a connection to the receiver.
        with socket.create_connection(("127.0.0.1", server.port)) as taken:
            taken.setblocking(False)
            door._take()
            assert door._opening
            other = HttpReceiver(ReceiverSettings(), take)
            await other.start(shared)
            server.receiver.drain()
            server.receiver.leave_port()
            server.receiver.leave_port()
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(taken, post(b"[2]"))
            answer = await loop.sock_recv(taken, 4096)
        assert answer.startswith(b"HTTP/1.1 202 ")
        assert b"\r\nconnection: close\r\n" in answer.lower()
        assert (await kept.ask(post(b"[3]"))).closes
        for _ in range(20):
            fresh = await server.connect()
            reply = await fresh.ask(post(b"[4]"))
            assert (reply.status, reply.closes) == (202, False)
        assert server.bodies == [b"[1]", b"[2]", b"[3]"]
        assert by_other == [b"[4]"] * 20
        await server.receiver.stop(0)
        # The first one's end leaves the port to the other.
        assert (await (await server.connect()).ask(post(b"[5]"))).status == 202
        for client in server.clients:
            client.close()
        await other.stop(0)


@both_loops
async def test_draining_ends_each_connection_behind_its_next_answer() -> None:
    async with serving() as server:
        clients = [await server.connect() for _ in range(3)]
        for client in clients:
            assert not (await client.ask(chunked(b"[]"))).closes
        server.receiver.drain()
        server.receiver.drain()
        clients.append(await server.connect())
        for client in clients:
            assert (await client.ask(chunked(b"[]"))).closes
            assert await client.ended()
        assert server.closed("drain") == 4
        assert len(server.got) == 7


@both_loops
async def test_while_stopping_who_connects_anew_gets_one_answer() -> None:
    """An Envoy that was just told to close posts its next batch at once, and never again if it is refused."""
    async with serving() as server:
        client = await server.connect()
        stopping = asyncio.ensure_future(server.receiver.stop(0.2))
        await asyncio.sleep(0)
        for _ in range(3):
            reply = await client.ask(post())
            assert (reply.status, reply.closes) == (202, True)
            assert await client.ended()
            client.close()
            client = await server.connect()
        client.close()
        await stopping
        with pytest.raises(OSError):
            await server.connect()


@both_loops
async def test_stopping_lets_idle_connections_linger_and_answers_what_crosses() -> None:
    async with serving() as server:
        idle, late = await server.connect(), await server.connect()
        assert (await idle.ask(post())).status == (await late.ask(post())).status == 202
        loop = asyncio.get_running_loop()
        began = loop.time()
        stopping = asyncio.ensure_future(server.receiver.stop(0.2))
        await asyncio.sleep(0)
        assert (await late.ask(post())).closes
        assert await late.ended()
        late.close()
        assert await idle.ended()
        # The loops' clocks count milliseconds.
        assert loop.time() - began >= 0.195
        idle.close()
        await stopping
        assert server.count("connections") == 0


@both_loops
async def test_stopping_waits_for_requests_in_flight() -> None:
    held = HeldAnswer()
    async with serving(lambda body, kind: held) as server:
        waiting, begun = await server.connect(), await server.connect()
        waiting.send(post())
        begun.send(post()[:-1])
        await until(lambda: bool(server.got) and server.count("connections") == 2)
        connections = server.receiver._intake.connections
        await until(lambda: all(c._queue or c._reader.phase for c in connections))
        stopping = asyncio.ensure_future(server.receiver.stop(0))
        done, _ = await asyncio.wait({stopping}, timeout=0.05)
        assert not done
        held.release(Answer(202))
        assert (await waiting.reply()).closes
        assert (await begun.ask(b"]")).closes
        for client in (waiting, begun):
            client.close()
        await stopping


@both_loops
async def test_stopping_with_nobody_there_is_over_at_once() -> None:
    async with serving() as server:
        await asyncio.wait_for(server.receiver.stop(60), 1)


@both_loops
async def test_a_cancelled_stop_resets_what_is_left() -> None:
    async with serving(lambda body, kind: HeldAnswer()) as server:
        client = await server.connect()
        client.send(post())
        await until(lambda: bool(server.got))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(server.receiver.stop(0), 0.02)
        with suppress(ConnectionResetError):
            assert await client.ended()
        await server.receiver._intake.nobody.wait()


@both_loops
async def test_samples_are_families_of_the_catalogue() -> None:
    names = {metric.name for metric in CATALOGUE}
    async with serving() as server:
        client = await server.connect()
        for request in (chunked(b"[]"), chunked(b"[]"), post(path="/no")):
            await client.ask(request)
        samples = server.receiver.samples()
        for suffix in ("_bucket", "_sum", "_count"):
            assert f"tracefwd_receiver_request_duration_seconds{suffix}" in samples
        assert {
            name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count")
            for name in samples
        } <= names
        buckets = samples["tracefwd_receiver_request_duration_seconds_bucket"]
        assert (
            buckets["+Inf",] == samples["tracefwd_receiver_request_duration_seconds_count"][()] == 3
        )
        assert list(buckets.values()) == sorted(buckets.values())
        assert samples["tracefwd_receiver_requests_total"] == {("202",): 2, ("404",): 1}


# --- any cut of the stream ----------------------------------------------------------------------


class Pipe(asyncio.Transport):
    """A transport that remembers what was written, one entry for each write."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.is_paused = False

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    def write_eof(self) -> None:
        self.writes.append(b"")

    def is_closing(self) -> bool:
        return False

    def can_write_eof(self) -> bool:
        return True

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False


def fed(reads: list[bytes]) -> tuple[list[tuple[bytes, str]], list[bytes]]:
    """What a connection makes of these reads: ingested (body, content type), and its writes."""
    got: list[tuple[bytes, str]] = []

    def take(body: bytes, kind: str) -> Answer:
        got.append((body, kind))
        return Answer(202)

    async def feed() -> list[bytes]:
        pipe = Pipe()
        intake = Intake(ReceiverSettings(), Handlers(zipkin_handlers([], take)))
        connection = Connection(intake, retire_at=float("inf"))
        connection.connection_made(pipe)
        for read in reads:
            connection.data_received(read)
            await until(lambda: not pipe.is_paused)
        await until(intake.turns.over.is_set)
        await asyncio.sleep(0)
        connection.connection_lost(None)
        return pipe.writes

    writes = asyncio.run(feed())
    return got, writes


@both_loops
async def test_what_many_clients_send_at_once_is_all_taken_and_answered() -> None:
    """More usual posts than one turn of the loop gathers."""
    async with serving() as server:
        clients = [await server.connect() for _ in range(80)]
        for round_number in range(3):
            for number, client in enumerate(clients):
                client.send(chunked(b"%d-%02d" % (round_number, number)))
            assert {(await client.reply()).status for client in clients} == {202}
        assert len(server.bodies) == len(set(server.bodies)) == 240


@both_loops
async def test_a_usual_post_is_taken_though_its_client_half_closes_behind_it() -> None:
    async with serving() as server:
        client = await server.connect()
        assert (await client.ask(chunked(b"first"))).status == 202
        client.send(chunked(b"again"))
        client.writer.write_eof()
        assert (await client.reply()).status == 202
        assert await client.ended()
        assert server.bodies == [b"first", b"again"]


def test_a_usual_post_is_taken_before_what_follows_it_in_the_same_turn() -> None:
    requests = [chunked(b"%d" % number) for number in range(4)]
    got, writes = fed([*requests[:3], requests[3][:20], requests[3][20:]])
    assert [body for body, _ in got] == [b"0", b"1", b"2", b"3"]
    assert b"".join(writes).count(b"202") == 4


def connected(taken: list[bytes]) -> Connection:
    """A connection whose bodies end in ``taken``; to be made inside a running loop."""

    def take(body: bytes, kind: str) -> Answer:
        taken.append(body)
        return Answer(202)

    intake = Intake(ReceiverSettings(), Handlers(zipkin_handlers([], take)))
    connection = Connection(intake, retire_at=float("inf"))
    connection.connection_made(Pipe())
    return connection


def test_a_usual_post_is_taken_though_its_client_is_gone_in_the_same_turn() -> None:
    taken: list[bytes] = []

    async def lose() -> None:
        connection = connected(taken)
        connection.data_received(chunked(b"first"))
        connection.data_received(chunked(b"again"))
        connection.connection_lost(None)

    asyncio.run(lose())
    assert taken == [b"first", b"again"]


def test_who_posts_long_bodies_alone_is_known_by_the_head_too() -> None:
    """The first one is worked off in bites; of the second nothing is left to be lost with the connection."""
    long, taken = b"x" * 40_000, list[bytes]()

    async def post_twice() -> None:
        connection = connected(taken)
        connection.data_received(chunked(long))
        assert not taken
        await until(lambda: taken == [long])
        connection.data_received(chunked(long))
        connection.connection_lost(None)

    asyncio.run(post_twice())
    assert taken == [long, long]


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[start:end] for start, end in pairwise(edges) if start < end]


KINDS = [
    lambda body: post(body, headers="Content-Type: a\r\n"),
    lambda body: chunked(body, headers="content-type: b\r\n") if body else chunked(),
    lambda body: chunked(body[:3] or b"x", body[3:] or b"y", headers="Content-Type: c\r\n"),
    lambda body: chunked(gzip.compress(body, mtime=0), headers="content-encoding: gzip\r\n"),
    lambda body: post(body, headers=OFFER),
    lambda body: b"\r\n" + post(body, path="http://h/api/v1/spans/?q"),
    lambda body: chunked(body or b"z")[:-2] + b"Content-Type: trailer\r\n\r\n",
]
requests = st.builds(lambda kind, body: kind(body), st.sampled_from(KINDS), st.binary(max_size=40))


@settings(deadline=None, max_examples=150)
@given(st.lists(requests, min_size=1, max_size=6), st.lists(st.integers(0, 5_000), max_size=12))
def test_any_cut_of_a_stream_gives_the_same_requests(sent: list[bytes], places: list[int]) -> None:
    stream = b"".join(sent)
    whole, writes = fed([stream])
    # All answers of one read leave in one write, but for what waits for its turn.
    assert b"".join(writes) == ACCEPTED * len(sent)
    assert len(writes) == 1 or b"gzip" in stream
    pieces, writes = fed(cut(stream, places))
    assert pieces == whole
    assert b"".join(writes) == ACCEPTED * len(sent)
    # Request by request, which is when the express lane is taken.
    singly, writes = fed(sent)
    assert singly == whole
    assert b"".join(writes) == ACCEPTED * len(sent)
    assert len(writes) == len(sent) or b"gzip" in stream


@settings(deadline=None, max_examples=10)
@given(requests, requests)
def test_single_bytes_give_the_same_requests(first: bytes, second: bytes) -> None:
    stream = first + second
    assert fed([stream[i : i + 1] for i in range(len(stream))])[0] == fed([stream])[0]


NEARLY = [
    lambda r: r.replace(b"\r\n2\r\n", b"\r\n02\r\n"),
    lambda r: r.replace(b"\r\n2\r\n", b"\r\n2;x\r\n"),
    lambda r: r.replace(b"\r\n2\r\n", b"\r\n0x2\r\n"),
    lambda r: r.replace(b"\r\n2\r\n", b"\r\n 2\r\n"),
    lambda r: r.replace(b"\r\n2\r\n", b"\r\n3\r\n"),
    lambda r: r.replace(b"\r\n2\r\n", b"\r\n1\r\n"),
    lambda r: r.replace(b"\r\n2\r\n", b"\n2\n"),
    lambda r: r.replace(b"[]", b"\r\n"),
    lambda r: r[:-1],
    lambda r: r + b"G",
    lambda r: r + r,
    lambda r: r.replace(b"0\r\n\r\n", b"0\r\nX: y\r\n\r\n"),
    lambda r: r.replace(b"host", b"Host"),
    lambda r: r.replace(b"\r\n2\r\n[]", b""),
]


@pytest.mark.parametrize("change", NEARLY)
def test_the_express_lane_agrees_with_the_parser(change: Callable[[bytes], bytes]) -> None:
    usual = chunked(b"[]", headers="content-type: b\r\n")
    near = change(usual)
    for reads in ([usual, near], [usual, near, usual], [usual, usual, near, usual]):
        stream = b"".join(reads)
        through_parser = [stream[:1], stream[1:]]
        assert fed(reads)[0] == fed(through_parser)[0]
        assert b"".join(fed(reads)[1]) == b"".join(fed(through_parser)[1])


# --- what Envoys really sent --------------------------------------------------------------------


def recorded() -> list[tuple[bytes, bytes]]:
    """(request as it was on the wire, body) of every recorded HTTP/1.1 post."""
    found = []
    for path in sorted((*ENVOY.glob("*.headers.json"), *ENVOY.glob("one-request/*.headers.json"))):
        meta = json.loads(path.read_text())
        if meta["protocol"] != "HTTP/1.1":
            continue
        stem = path.name.removesuffix(".headers.json")
        body = next(
            path.parent / f"{stem}{end}"
            for end in (".json", ".bin")
            if (path.parent / f"{stem}{end}").exists()
        )
        data = body.read_bytes()
        head = "".join(f"{name}: {value}\r\n" for name, value in meta["headers"])
        wire, at = f"{meta['request_line']}\r\n{head}\r\n".encode("latin-1"), 0
        for size in meta["framing"]["chunk_sizes"]:
            wire += b"%x\r\n%b\r\n" % (size, data[at : at + size])
            at += size
        assert at == len(data)
        found.append((wire, data))
    return found


@both_loops
async def test_recorded_posts_of_real_envoys_are_taken() -> None:
    posts = recorded()
    assert len(posts) > 50
    # The OpenTelemetry tracer posts elsewhere; here it only matters that its requests are read.
    async with serving(paths=["/zipkin/api/v2/spans", "/v1/traces"]) as server:
        client = await server.connect()
        for wire, _ in posts:
            assert (await client.ask(wire)).status == 202
        again = await server.connect()
        again.send(b"".join(wire for wire, _ in posts))
        for _ in posts:
            assert (await again.reply()).status == 202
        assert server.bodies == [data for _, data in posts] * 2
        kinds = {kind for _, kind in server.got}
        assert kinds == {"application/json", "application/x-protobuf"}
