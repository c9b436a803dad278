"""The admin port's door: so many connections at most, none silent for long, and whoever is being answered stays."""

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from aiohttp import web

from tests.receiver.test_credentials import Authority, authorities
from tracefwd.service import admin_door
from tracefwd.service.access import Handler
from tracefwd.service.admin_door import AdminDoor

__all__ = ["authorities"]  # a fixture

Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]
PLACES = 4


@pytest.fixture(autouse=True)
def few_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin_door, "ADMIN_CONNECTIONS_MAX", PLACES)
    monkeypatch.setattr(admin_door, "_SWEEP_S", 0.01)


class Port:
    """``/now`` answers at once, ``/later`` when ``may_end`` is set; ``/half`` too, as if it waited for its client."""

    def __init__(self, sock: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        self.address = sock.getsockname()
        self.may_end = asyncio.Event()
        self.begun = asyncio.Semaphore(0)
        self._clients: list[Client] = []

        @web.middleware
        async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
            with self.door.answering(request.transport):
                return await handler(request)

        async def now(_: web.Request) -> web.Response:
            return web.Response(text="now")

        async def later(_: web.Request) -> web.Response:
            self.begun.release()
            await self.may_end.wait()
            return web.Response(text="later")

        async def half(request: web.Request) -> web.Response:
            with self.door.hearing(request.transport):
                return await later(request)

        application = web.Application(middlewares=[answer])
        application.router.add_get("/now", now)
        application.router.add_get("/later", later)
        application.router.add_get("/half", half)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        self.door = AdminDoor(sock, self._make, lambda: tls)

    def _make(self) -> asyncio.Protocol:
        assert self._runner.server is not None
        return self._runner.server()

    async def open(self) -> None:
        await self._runner.setup()
        self.door.open()

    async def close(self) -> None:
        self.may_end.set()
        self.door.close()
        await self._runner.cleanup()
        for _, writer in self._clients:
            writer.close()

    async def connect(self, **options: Any) -> Client:
        client = await asyncio.open_connection(*self.address, **options)
        self._clients.append(client)
        return client


@asynccontextmanager
async def opened(
    tls: ssl.SSLContext | None = None, sock: socket.socket | None = None
) -> AsyncIterator[Port]:
    sock = sock or socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(64)
    port = Port(sock, tls)
    await port.open()
    try:
        async with asyncio.timeout(30):
            yield port
    finally:
        await port.close()


def ask(client: Client, path: str) -> None:
    client[1].write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())


async def answer(client: Client) -> bytes:
    """The body; empty when the connection was closed instead."""
    with suppress(ConnectionError, asyncio.IncompleteReadError):
        head = await client[0].readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        [length] = [line for line in head.lower().split(b"\r\n") if b"content-length" in line]
        return await client[0].readexactly(int(length.partition(b":")[2]))
    return b""


class ByHand:
    """A client that speaks TLS, and sends only what it is told to."""

    def __init__(self, client: Client, trusting: ssl.SSLContext) -> None:
        self.reader, self.writer = client
        self._came, self._goes = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = trusting.wrap_bio(self._came, self._goes, server_hostname="127.0.0.1")

    async def last_of_handshake(self) -> bytes:
        """What remains to be sent."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self.writer.write(self._goes.read())
                self._came.write(await self.reader.read(65_536))
            else:
                return self._goes.read()

    async def hear(self, text: bytes) -> bytes:
        """The beginning of the answer."""
        self._tls.write(text)
        self.writer.write(self._goes.read())
        while True:
            try:
                return self._tls.read(16)
            except ssl.SSLWantReadError:
                self._came.write(await self.reader.read(65_536))

    async def is_closed(self) -> bool:
        """Waits until it is, without a farewell."""
        with suppress(ConnectionError):
            while await self.reader.read(65_536):
                pass
        return True


@pytest.fixture
def contexts(authorities: tuple[Authority, Authority]) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """(ours, the clients')"""
    ours, _ = authorities
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(*ours.issue("server"))
    return tls, ssl.create_default_context(cafile=str(ours.cert))


async def asked(port: Port, path: str) -> bytes:
    client = await port.connect()
    ask(client, path)
    return await answer(client)


async def is_closed(client: Client) -> bool:
    """Waits until it is."""
    with suppress(ConnectionError):
        assert await client[0].read(1) == b""
    return True


async def test_the_one_that_has_been_silent_the_longest_makes_room_for_who_comes() -> None:
    async with opened() as port:
        silent = [await port.connect() for _ in range(PLACES + 3)]
        for client in silent[:3]:
            assert await is_closed(client)
        # One that asks is no longer the one that has been silent the longest.
        ask(silent[3], "/now")
        assert await answer(silent[3]) == b"now"
        assert await asked(port, "/now") == b"now"
        assert await is_closed(silent[4])
        ask(silent[3], "/now")
        assert await answer(silent[3]) == b"now"


async def test_whoever_is_being_answered_stays() -> None:
    async with opened() as port:
        served = [await port.connect() for _ in range(PLACES)]
        for client in served:
            ask(client, "/later")
            await port.begun.acquire()
        # All places are taken by them, so that nobody else comes in.
        assert await asked(port, "/now") == b""
        port.may_end.set()
        for client in served:
            assert await answer(client) == b"later"
        assert await asked(port, "/now") == b"now"


@pytest.mark.parametrize("sent", [b"", b"GET /now HTTP/1.1\r\nHost:"])
async def test_who_connects_and_never_asks_is_closed(
    sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin_door, "_FIRST_S", 0.02)
    async with opened() as port:
        client = await port.connect()
        client[1].write(sent)
        assert await is_closed(client)


async def test_a_connection_is_kept_between_requests_but_not_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admin_door, "_FIRST_S", 0.02)
    monkeypatch.setattr(admin_door, "_NEXT_S", 0.2)
    loop = asyncio.get_running_loop()
    async with opened() as port:
        client = await port.connect()
        for _ in range(2):
            ask(client, "/now")
            asked_at = loop.time()
            assert await answer(client) == b"now"
        assert await is_closed(client)
        assert loop.time() - asked_at >= 0.2


async def test_handshakes_that_nobody_ends_are_bounded_in_time_and_number(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    tls, trusting = contexts
    async with opened(tls) as port:
        mute = [await port.connect() for _ in range(PLACES + 1)]
        assert await is_closed(mute[0])
        client = await port.connect(ssl=trusting, server_hostname="127.0.0.1")
        ask(client, "/now")
        assert await answer(client) == b"now"
        assert await is_closed(mute[1])
        monkeypatch.setattr(admin_door, "_FIRST_S", 0.02)
        late = await port.connect()
        assert await is_closed(late)


async def test_a_handshake_that_is_done_as_it_makes_room_takes_no_descriptor_along(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    tls, trusting = contexts
    async with opened(tls) as port:
        oldest = ByHand(await port.connect(), trusting)
        last = await oldest.last_of_handshake()
        for _ in range(PLACES - 1):
            await port.connect()
        await asyncio.sleep(0.05)
        with socket.socket() as late:
            late.setblocking(False)
            # Our turn ends after both, so that the port reads them in one of its own.
            oldest.writer.write(last)
            with suppress(BlockingIOError):
                late.connect(port.address)
            await asyncio.sleep(0.05)
            for _ in range(PLACES - 1):
                await port.connect()
            client = await port.connect(ssl=trusting, server_hostname="127.0.0.1")
            ask(client, "/now")
            assert await answer(client) == b"now"


async def test_handshakes_that_nobody_begins_push_out_nobody_who_has_ended_one(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    tls, trusting = contexts
    async with opened(tls) as port:
        mute = [await port.connect() for _ in range(PLACES - 1)]
        client = await port.connect(ssl=trusting, server_hostname="127.0.0.1")
        await port.connect()
        assert await is_closed(mute[0])
        ask(client, "/now")
        assert await answer(client) == b"now"


async def test_who_waits_for_a_farewell_has_its_place_until_it_makes_room(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    tls, trusting = contexts
    async with opened(tls) as port:
        leaving = []
        for _ in range(PLACES + 2):
            client = ByHand(await port.connect(), trusting)
            client.writer.write(await client.last_of_handshake())
            request = b"GET /now HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            assert (await client.hear(request)).startswith(b"HTTP/1.1 200")
            leaving.append(client)
        for client in leaving[:2]:
            assert await client.is_closed()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await leaving[2].is_closed()


async def test_who_is_waited_for_is_silent() -> None:
    async with opened() as port:
        waiting = [await port.connect() for _ in range(PLACES)]
        for client in waiting:
            ask(client, "/half")
            await port.begun.acquire()
        assert await asked(port, "/now") == b"now"
        assert await is_closed(waiting[0])
        port.may_end.set()
        assert await answer(waiting[1]) == b"later"


class Short(socket.socket):
    """Has no descriptor for the first that comes."""

    refused = False

    def accept(self) -> tuple[socket.socket, Any]:
        if not self.refused:
            self.refused = True
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


async def test_out_of_descriptors_clients_wait_and_the_log_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        async with opened(sock=Short()) as port:
            assert await asked(port, "/now") == b"now"
    assert "no connection to the admin port can be taken: Too many open files" in caplog.text
