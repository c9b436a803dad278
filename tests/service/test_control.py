"""The channel between parent and worker."""

import asyncio
import itertools
import logging
import socket
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracefwd.service.control import (
    FRAME_BYTES_MAX,
    Ask,
    Channel,
    Drain,
    Failed,
    FromParent,
    FromWorker,
    Ready,
    Snapshot,
)
from tracefwd.service.tally import empty_ledger


async def pair(kind: Any) -> tuple[Channel[Any], Channel[Any], list[Any]]:
    """A sender, a receiver, and what the receiver got."""
    loop = asyncio.get_running_loop()
    left, right = socket.socketpair()
    got: list[Any] = []
    sender: Channel[Any] = Channel(kind, lambda _: None)
    receiver: Channel[Any] = Channel(kind, got.append)
    await loop.create_unix_connection(lambda: sender, sock=left)
    await loop.create_unix_connection(lambda: receiver, sock=right)
    return sender, receiver, got


async def test_messages_arrive_whole_and_in_order() -> None:
    sender, receiver, got = await pair(FromWorker)
    samples: list[Any] = [("m", ("a", "b"), 3), ("n", (), 0.25)]
    sent = [
        Ready("uvloop"),
        Snapshot(empty_ledger(), samples, [{"at": "1.5", "detail": "ü\n"}], problems=["p"], id=7),
        Failed("no"),
    ]
    for message in sent:
        sender.send(message)
    sender.close()
    await receiver.closed.wait()
    assert got == sent


async def test_counts_stay_whole_numbers() -> None:
    sender, receiver, got = await pair(FromWorker)
    sender.send(Snapshot(empty_ledger(), [("m", (), 2**53 + 1)]))
    sender.close()
    await receiver.closed.wait()
    value = got[0].samples[0][2]
    assert value == 2**53 + 1
    assert isinstance(value, int)


@given(cuts=st.lists(st.integers(0, 200), max_size=8))
@settings(deadline=None, max_examples=60)
def test_frames_may_be_cut_anywhere(cuts: list[int]) -> None:
    asyncio.run(_cut(cuts))


async def _cut(cuts: list[int]) -> None:
    sent = [Ask(1), Drain(2.5), Ask(3, rejected=True)]
    written = bytearray()

    class Memory(asyncio.Transport):
        def write(self, data: bytes | bytearray | memoryview) -> None:
            written.extend(data)

        def is_closing(self) -> bool:
            return False

    writing: Channel[Any] = Channel(FromParent, lambda _: None)
    writing.connection_made(Memory())
    for message in sent:
        writing.send(message)
    got: list[Any] = []
    reading: Channel[Any] = Channel(FromParent, got.append)
    edges = sorted({0, len(written), *(cut for cut in cuts if cut < len(written))})
    for start, end in itertools.pairwise(edges):
        reading.data_received(bytes(written[start:end]))
    assert got == sent


@pytest.mark.parametrize(
    "junk",
    [
        b"\x00\x00\x00\x02{}",
        b"\x00\x00\x00\x0f" + b'{"type":"what"}',
        (FRAME_BYTES_MAX + 1).to_bytes(4, "big"),
        b"GET / HTTP/1.1\r\n",
    ],
)
async def test_an_unreadable_frame_closes_the_channel_and_says_so(
    junk: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    left, right = socket.socketpair()
    got: list[Any] = []
    channel: Channel[Any] = Channel(FromWorker, got.append)
    await asyncio.get_running_loop().create_unix_connection(lambda: channel, sock=right)
    with left, caplog.at_level(logging.ERROR):
        left.sendall(junk)
        await channel.closed.wait()
    assert got == []
    assert "unreadable message" in caplog.text


async def test_the_end_of_the_other_process_is_noticed_and_sending_then_does_no_harm() -> None:
    left, right = socket.socketpair()
    channel: Channel[Any] = Channel(FromParent, lambda _: None)
    await asyncio.get_running_loop().create_unix_connection(lambda: channel, sock=right)
    left.close()
    await channel.closed.wait()
    channel.send(Ask(1))
    channel.close()
    assert not channel.congested


async def test_a_reader_who_sleeps_is_noticed() -> None:
    left, right = socket.socketpair()
    channel: Channel[Any] = Channel(FromParent, lambda _: None)
    await asyncio.get_running_loop().create_unix_connection(lambda: channel, sock=right)
    assert not channel.congested
    while not channel.congested:
        channel.send(Failed("x" * 100_000))
    left.close()
    await channel.closed.wait()


async def test_who_has_just_gone_is_told_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Many may be asking as a worker dies; asyncio would complain of each."""
    sender, receiver, _ = await pair(FromParent)
    assert receiver._transport is not None
    receiver._transport.abort()
    await receiver.closed.wait()
    for number in range(20):
        sender.send(Ask(number))
    await sender.closed.wait()
    assert not caplog.records
