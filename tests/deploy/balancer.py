"""What a Service is to connections: each new one goes to one of the endpoints, and stays there."""

import asyncio
import threading
from concurrent.futures import Future
from types import TracebackType
from typing import Self

Endpoint = tuple[str, int]


class Balancer:
    """Runs inside a ``with`` block, on loopback; ``refused`` counts clients for whom nobody was there."""

    def __init__(self, *endpoints: Endpoint) -> None:
        self._endpoints = list(endpoints)
        self._turn = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._tasks: set[asyncio.Task[None]] = set()
        self.taken: dict[Endpoint, int] = dict.fromkeys(endpoints, 0)
        self.refused = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._client, "127.0.0.1", 0)).result()
        self.host, self.port = self._server.sockets[0].getsockname()[:2]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._run(self._close()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def join(self, endpoint: Endpoint) -> None:
        self.taken.setdefault(endpoint, 0)
        self._run(self._change([*self._endpoints, endpoint])).result()

    def leave(self, endpoint: Endpoint) -> None:
        """No new connection goes there once this returns; those that it has it keeps."""
        remaining = [each for each in self._endpoints if each != endpoint]
        self._run(self._change(remaining)).result()

    def _run(self, task: "asyncio._CoroutineLike[object]") -> "Future[object]":
        return asyncio.run_coroutine_threadsafe(task, self._loop)

    async def _change(self, endpoints: list[Endpoint]) -> None:
        self._endpoints = endpoints

    async def _close(self) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._turn += 1
        try:
            endpoint = self._endpoints[self._turn % len(self._endpoints)]
            there, back = await asyncio.open_connection(*endpoint)
        except (OSError, ZeroDivisionError):
            self.refused += 1
            writer.transport.abort()
            return
        self.taken[endpoint] += 1
        await asyncio.gather(_pipe(reader, back), _pipe(there, writer), return_exceptions=True)


async def _pipe(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Until either side ends; then the other one ends as well."""
    try:
        while piece := await source.read(65_536):
            sink.write(piece)
            await sink.drain()
    finally:
        sink.close()
