import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

import pytest

from tracefwd.exporter.compress import gzip_or_plain
from tracefwd.exporter.tcp_sender import TcpSender
from tracefwd.model import Outcome

LINES = b'"op" source="a" 1700000000000 1\n' * 20
TAKEN = Outcome("unacknowledged")
Until = Callable[..., Awaitable[None]]


@dataclass
class Reader:
    """Keeps what it reads, per connection; ``reads`` off lets the kernel's buffers fill up."""

    reads: bool = True
    received: list[bytes] = field(default_factory=list)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    ended: int = 0
    url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        index = len(self.received)
        self.received.append(b"")
        self.writers.append(writer)
        if not self.reads:
            writer.transport.pause_reading()  # type: ignore[attr-defined]
        try:
            while data := await reader.read(65536):
                self.received[index] += data
        except ConnectionResetError:
            pass
        self.ended += 1
        writer.close()


@asynccontextmanager
async def reading() -> AsyncIterator[Reader]:
    reader = Reader()
    server = await asyncio.start_server(reader.serve, "127.0.0.1", 0)
    reader.url = f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield reader
    server.close()
    for writer in reader.writers:
        writer.transport.abort()


@pytest.fixture
async def port() -> AsyncIterator[Reader]:
    async with reading() as reader:
        yield reader


@pytest.fixture
async def sender(port: Reader) -> AsyncIterator[TcpSender]:
    made = TcpSender(port.url, connect_timeout=2.0, request_timeout=2.0)
    yield made
    await made.close()


async def test_lines_arrive_over_one_kept_connection(
    port: Reader, sender: TcpSender, until: Until
) -> None:
    for _ in range(3):
        assert await sender.send(LINES, "") == TAKEN
    await until(lambda: port.received == [LINES * 3])


async def test_sends_at_the_same_time_have_connections_of_their_own(
    port: Reader, sender: TcpSender, until: Until
) -> None:
    await asyncio.gather(*(sender.send(LINES, "") for _ in range(4)))
    await until(lambda: port.received == [LINES] * 4)


async def test_packed_lines_are_unpacked(port: Reader, sender: TcpSender, until: Until) -> None:
    assert await sender.send(*gzip_or_plain(LINES)) == TAKEN
    await until(lambda: port.received == [LINES])


async def test_a_batch_larger_than_every_buffer_arrives_whole(
    port: Reader, sender: TcpSender, until: Until
) -> None:
    large = LINES * 8_000
    assert await sender.send(large, "") == TAKEN
    await until(lambda: [len(data) for data in port.received] == [len(large)])
    assert port.received == [large]


async def test_a_connection_that_the_proxy_closed_is_not_written_to(
    port: Reader, sender: TcpSender, until: Until
) -> None:
    await sender.send(LINES, "")
    await until(lambda: port.received == [LINES])
    port.writers[0].close()
    await until(lambda: not sender._idle[0].usable)
    assert await sender.send(LINES, "") == TAKEN
    await until(lambda: port.received == [LINES, LINES])


async def test_what_the_other_side_says_is_thrown_away(
    port: Reader, sender: TcpSender, until: Until
) -> None:
    await sender.send(LINES, "")
    await until(lambda: len(port.writers) == 1)
    port.writers[0].write(b"HTTP/1.1 400 Bad Request\r\n" * 100)
    await port.writers[0].drain()
    assert await sender.send(LINES, "") == TAKEN
    await until(lambda: port.received == [LINES * 2])


async def test_nobody_there_is_tried_again() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    sender = TcpSender(url, connect_timeout=2.0, request_timeout=2.0)
    outcome = await sender.send(LINES, "")
    assert (outcome.verdict, outcome.reason) == ("retry", "connect")


async def test_a_proxy_that_stops_reading_is_a_time_out_and_its_connection_is_given_up(
    port: Reader,
) -> None:
    port.reads = False
    sender = TcpSender(port.url, connect_timeout=2.0, request_timeout=0.1)
    outcome = await sender.send(b"x" * 32 * 2**20, "")
    assert (outcome.verdict, outcome.reason) == ("retry", "timeout")
    assert sender._idle == []


async def test_a_connection_that_breaks_midway_is_tried_again(port: Reader, until: Until) -> None:
    port.reads = False
    sender = TcpSender(port.url, connect_timeout=2.0, request_timeout=5.0)
    sending = asyncio.create_task(sender.send(b"x" * 32 * 2**20, ""))
    await until(lambda: len(port.writers) == 1)
    # Reset, not close: as a proxy that was killed.
    linger = struct.pack("ii", 1, 0)
    port.writers[0].get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    port.writers[0].transport.abort()
    outcome = await sending
    assert (outcome.verdict, outcome.reason) == ("retry", "connection")
    assert sender._idle == []


async def test_closing_ends_the_connections(port: Reader, until: Until) -> None:
    sender = TcpSender(port.url, connect_timeout=2.0, request_timeout=2.0)
    await sender.send(LINES, "")
    await sender.close()
    await until(lambda: port.ended == 1)
    assert port.received == [LINES]


@pytest.mark.parametrize(
    "promise",
    [
        test_lines_arrive_over_one_kept_connection,
        test_sends_at_the_same_time_have_connections_of_their_own,
        test_a_batch_larger_than_every_buffer_arrives_whole,
        test_a_connection_that_the_proxy_closed_is_not_written_to,
        test_what_the_other_side_says_is_thrown_away,
        test_a_proxy_that_stops_reading_is_a_time_out_and_its_connection_is_given_up,
        test_a_connection_that_breaks_midway_is_tried_again,
        test_closing_ends_the_connections,
    ],
)
def test_it_holds_on_uvloop_too(promise: Callable[..., Awaitable[None]], until: Until) -> None:
    """Its transports are written anew: pausing, closing and breaking are not asyncio's code."""
    uvloop = pytest.importorskip("uvloop", reason="SKIPPED, NOT PROVED: TCP on uvloop")

    async def run() -> None:
        async with reading() as port:
            sender = TcpSender(port.url, connect_timeout=2.0, request_timeout=2.0)
            parts: dict[str, Any] = {"port": port, "sender": sender, "until": until}
            await promise(**{name: parts[name] for name in signature(promise).parameters})
            await sender.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
