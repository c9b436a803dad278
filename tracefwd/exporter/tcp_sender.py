"""Writes batches as plain lines to a Wavefront proxy's port, over kept connections.

There is no acknowledgement.  A batch counts once the kernel has taken all of its bytes.  What that leaves open:

* loss: bytes that the kernel took but the proxy never read (it died, it closed the connection just then);
* duplicates: when writing fails midway the whole batch is sent again, also the lines that had arrived.

A line that was cut by a lost connection does no harm: a proxy throws an unended line away.  The proxy says
nothing on such a connection; whatever comes is thrown away, and its closing is noticed before the next write.
"""

import asyncio
from typing import cast

from tracefwd.exporter import verdicts
from tracefwd.exporter.compress import plain
from tracefwd.exporter.endpoint import shown, tcp_address
from tracefwd.model import Outcome


class _Connection(asyncio.Protocol):
    """One connection; knows whether it is still there and whether the kernel has taken everything."""

    def __init__(self) -> None:
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport | None = None
        self._taken: asyncio.Future[None] | None = None
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not an assertion: uvloop's transports are of no asyncio class.
        self._transport = cast("asyncio.Transport", transport)
        # Paused then means "not all taken", not "our buffer is more than half full".
        self._transport.set_write_buffer_limits(high=0)

    def data_received(self, data: bytes) -> None:
        """Thrown away: a proxy answers nothing, and another server's words would fill memory."""

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self._taken is not None and not self._taken.done():
            self._taken.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)
        if self._taken is not None and not self._taken.done():
            self._taken.set_exception(exc or ConnectionResetError(0, "it closed the connection"))

    @property
    def usable(self) -> bool:
        assert self._transport is not None
        return not self.closed.done() and not self._transport.is_closing()

    async def write(self, data: bytes) -> None:
        """Returns when the kernel has all of ``data``.  Raises ``OSError`` when the connection broke before."""
        assert self._transport is not None
        self._transport.write(data)
        if self._transport.is_closing():  # the kernel refused at once
            raise ConnectionResetError(0, "it closed the connection")
        if self._paused:
            self._taken = asyncio.get_running_loop().create_future()
            try:
                await self._taken
            finally:
                self._taken = None

    def abort(self) -> None:
        assert self._transport is not None
        self._transport.abort()

    async def close(self) -> None:
        assert self._transport is not None
        self._transport.close()
        await self.closed


class TcpSender:
    """As many connections as there are sends at a time; an idle one is kept for the next batch."""

    takes_gzip = False

    def __init__(self, url: str, *, connect_timeout: float, request_timeout: float) -> None:
        self.shown = shown(url)
        self._host, self._port = tcp_address(url)
        self._connect_timeout = connect_timeout
        self._request_timeout = request_timeout
        self._idle: list[_Connection] = []

    async def send(self, data: bytes, encoding: str) -> Outcome:
        try:
            connection = await self._connection()
        except TimeoutError:
            return Outcome(
                verdicts.RETRY, "timeout", "no connection within exporter.connect_timeout"
            )
        except OSError as failure:
            advice = "no connection; is it up, is the address right?"
            return Outcome(verdicts.RETRY, "connect", f"{advice} ({failure.strerror})")
        whole = False
        try:
            async with asyncio.timeout(self._request_timeout):
                await connection.write(plain(data, encoding))
            whole = True
        except TimeoutError:
            detail = "not taken within exporter.request_timeout"
            return Outcome(verdicts.RETRY, "timeout", detail, ambiguous=True)
        except OSError as failure:
            detail = f"the connection broke ({failure.strerror or 'closed'})"
            return Outcome(verdicts.RETRY, "connection", detail, ambiguous=True)
        finally:
            if whole:
                self._idle.append(connection)
            else:
                connection.abort()  # a half-written line must not become the start of the next batch
        return Outcome(verdicts.UNACKNOWLEDGED)

    async def close(self) -> None:
        while self._idle:
            await self._idle.pop().close()

    async def _connection(self) -> _Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
        async with asyncio.timeout(self._connect_timeout):
            _, connection = await asyncio.get_running_loop().create_connection(
                _Connection, self._host, self._port
            )
        return connection
