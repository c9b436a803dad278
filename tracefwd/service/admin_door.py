"""Who is connected to the admin port: so many at most, and none that says nothing for long.

aiohttp bounds neither: whoever connects and never asks stays for ever, and takes a descriptor from the parent, which
needs its own to start workers.  Here:

1. Out of ``ADMIN_CONNECTIONS_MAX`` places, whoever has been silent the longest makes room for the one that comes:
   probes and scrapers ask at once, so that nobody keeps them out by connecting.  Who is being answered stays; so at
   most half of the places are answered at a time, which ``is_busy`` says.
2. A connection has ``_FIRST_S`` for its handshake, as long again for its first request, and ``_NEXT_S`` from an answer
   to the next request; then it is closed, whether it sends nothing, bytes that are no request, or reads nothing.
3. A connection has its place until its descriptor is closed.  One that was closed in order may linger: TLS waits for
   the other side's farewell, and an answer for its reader.
4. Out of descriptors, nobody is reset: connections wait in the kernel's backlog, and we look again after a second.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from math import inf

from tracefwd.limits import ADMIN_CONNECTIONS_MAX

_log = logging.getLogger(__name__)

# Everybody who means to ask does so at once.
_FIRST_S = 10.0
# Longer than scrapers' intervals: a connection that is closed just as it is used again costs a scrape.
_NEXT_S = 150.0
_SWEEP_S = 1.0
_PER_TURN = 16
_TELL_INTERVAL_S = 60.0


class AdminDoor:
    """``make`` gives each connection's protocol, ``tls`` what holds for it (None for plain text)."""

    def __init__(
        self,
        sock: socket.socket,
        make: Callable[[], asyncio.Protocol],
        tls: Callable[[], ssl.SSLContext | None],
    ) -> None:
        self._sock = sock
        self._make = make
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._listens = False
        self._sweeper: asyncio.TimerHandle | None = None
        # Hands are being shaken, and since when (loop's clock); the oldest first.
        self._opening: dict[socket.socket, tuple[float, asyncio.Task[None]]] = {}
        # Since when each is silent, and until when it may be; whoever has been so the longest first.
        self._silent: dict[asyncio.Transport, tuple[float, float]] = {}
        self._answering: set[asyncio.Transport] = set()
        self._told_at = -inf

    def open(self) -> None:
        self._sock.setblocking(False)
        self._sweep()

    def close(self) -> None:
        """Take nobody any more; who is in stays, who is still shaking hands does not."""
        if self._sock.fileno() < 0:
            return
        self._loop.remove_reader(self._sock.fileno())
        self._sock.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
        while self._opening:
            self._shut_oldest()

    @property
    def is_busy(self) -> bool:
        """Whether one more that takes its time would be too many."""
        return len(self._answering) >= ADMIN_CONNECTIONS_MAX // 2

    @contextmanager
    def answering(self, transport: asyncio.Transport | None) -> Iterator[None]:
        """While a request of this connection is worked on."""
        if transport is None:
            # Gone already.
            yield
            return
        self._silent.pop(transport, None)
        self._answering.add(transport)
        try:
            yield
        finally:
            self._answering.discard(transport)
            self._fell_silent(transport, _NEXT_S)

    @contextmanager
    def hearing(self, transport: asyncio.Transport | None) -> Iterator[None]:
        """While a request that is worked on waits for its client: who does not go on is as silent as any."""
        if transport is None:
            yield
            return
        self._answering.discard(transport)
        self._fell_silent(transport, _NEXT_S)
        try:
            yield
        finally:
            self._silent.pop(transport, None)
            self._answering.add(transport)

    def _take(self) -> None:
        for _ in range(_PER_TURN):
            try:
                client, _ = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                # A reader would fire again and again.
                self._loop.remove_reader(self._sock.fileno())
                self._listens = False
                self._tell("no connection to the admin port can be taken: %s", error.strerror)
                return
            if self._has_room():
                client.setblocking(False)
                task = self._loop.create_task(self._let_in(client), name="admin handshake")
                self._opening[client] = self._loop.time(), task
            else:
                client.close()

    def _has_room(self) -> bool:
        """Whether one more may come in; if need be, the longest silent one goes."""
        if self._is_full():
            self._forget_gone()
        if not self._is_full():
            return True
        self._tell(
            "the admin port has %d connections: whoever is silent makes room", ADMIN_CONNECTIONS_MAX
        )
        silent_since, _ = next(iter(self._silent.values()), (inf, inf))
        open_since, _ = next(iter(self._opening.values()), (inf, None))
        if not self._silent and not self._opening:
            return False
        if silent_since <= open_since:
            self._end(next(iter(self._silent)))
        else:
            self._shut_oldest()
        return True

    def _is_full(self) -> bool:
        taken = len(self._opening) + len(self._silent) + len(self._answering)
        return taken >= ADMIN_CONNECTIONS_MAX

    def _fell_silent(self, transport: asyncio.Transport, seconds: float) -> None:
        now = self._loop.time()
        self._silent[transport] = now, now + seconds

    async def _let_in(self, client: socket.socket) -> None:
        tls = self._tls()
        timeout_s = None if tls is None else _FIRST_S
        try:
            transport, _ = await self._loop.connect_accepted_socket(
                self._make, client, ssl=tls, ssl_handshake_timeout=timeout_s
            )
        except (OSError, TimeoutError) as error:
            # Most of all a client that does not trust our certificate; it knows.
            _log.debug("a client of the admin port gave up: %r", error)
            with suppress(OSError):
                client.close()
        else:
            # Its first request may have come, and even been answered, before we hear of it.
            if transport not in self._answering and transport not in self._silent:
                self._fell_silent(transport, _FIRST_S)
        finally:
            self._opening.pop(client, None)

    def _sweep(self) -> None:
        self._forget_gone()
        now = self._loop.time()
        for transport in [each for each, (_, until) in self._silent.items() if now >= until]:
            self._end(transport)
        if not self._listens:
            self._listens = True
            self._loop.add_reader(self._sock.fileno(), self._take)
        self._sweeper = self._loop.call_later(_SWEEP_S, self._sweep)

    def _forget_gone(self) -> None:
        for transport in [each for each in self._silent if _is_gone(each)]:
            del self._silent[transport]

    def _shut_oldest(self) -> None:
        """End a handshake by an end of file, which is read in its order.

        The descriptor is the transport's: closed behind its back, the next connection would get the same number, and
        nobody would ever look at it.
        """
        client = next(iter(self._opening))
        del self._opening[client]
        with suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)

    def _end(self, transport: asyncio.Transport) -> None:
        del self._silent[transport]
        transport.abort()

    def _tell(self, text: str, what: object) -> None:
        now = self._loop.time()
        if now - self._told_at >= _TELL_INTERVAL_S:
            self._told_at = now
            _log.warning(text, what)


def _is_gone(transport: asyncio.Transport) -> bool:
    try:
        sock = transport.get_extra_info("socket")
    except AttributeError:
        # Python 3.11's for TLS, closed once more at its end.
        return True
    return sock is None or sock.fileno() < 0


__all__ = ["AdminDoor"]
