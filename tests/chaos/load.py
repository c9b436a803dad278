"""Clients of the chaos run: they post spans of their own and know what they were told about each."""

import asyncio
import time
from random import Random
from typing import Self

from tests.chaos import truth
from tests.chaos.truth import Truth

# Longer than any restart of tracefwd takes: a post that waits this long was lost with its answer.
_ANSWER_S_MAX = 30.0
_AGAIN_S = 0.02


class Load:
    """``connections`` clients, each with one post at a time: about ``posts_per_s`` together."""

    def __init__(
        self, port: int, known: Truth, random: Random, *, connections: int, posts_per_s: float
    ) -> None:
        self._port = port
        self._truth = known
        self._random = random
        self._pause_s = connections / posts_per_s
        self._connections = connections
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        self.posts = 0

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._client()) for _ in range(self._connections)]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Posts under way get their answers."""
        self._stopping = True
        await asyncio.gather(*self._tasks)

    async def _client(self) -> None:
        while not self._stopping:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            except OSError:
                await asyncio.sleep(_AGAIN_S)
                continue
            try:
                goes_on = True
                while goes_on and not self._stopping:
                    try:
                        goes_on = await self._post(reader, writer)
                    except (OSError, asyncio.IncompleteReadError, TimeoutError):
                        goes_on = False
                    # Also before the next connection: whoever drains says "close" with each answer.
                    await asyncio.sleep(self._random.uniform(0.0, 2 * self._pause_s))
            finally:
                writer.transport.abort()

    async def _post(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection may be used again."""
        numbers = self._truth.take(self._random.randint(1, 12))
        body = truth.body(numbers, time.time_ns() // 1_000)
        # From the first byte on nobody knows, until there is an answer.
        self._truth.set(numbers, truth.CUT)
        self.posts += 1
        writer.write(
            b"POST /api/v2/spans HTTP/1.1\r\nHost: chaos\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body) + body
        )
        async with asyncio.timeout(_ANSWER_S_MAX):
            await writer.drain()
            head = await reader.readuntil(b"\r\n\r\n")
            lower = head.lower()
            at = lower.find(b"content-length:")
            if at >= 0:
                await reader.readexactly(int(lower[at + 15 :].split(b"\r\n", 1)[0]))
        is_taken = head.split(b" ", 2)[1] == b"202"
        self._truth.set(numbers, truth.ACKNOWLEDGED if is_taken else truth.REFUSED)
        return b"connection: close" not in lower
