"""Door: takes connections from a listening socket, and turns away those that may not come in.

asyncio's own servers cannot do this: they know a client only after its TLS handshake, take any number in one turn, and
when descriptors run out uvloop's resets those who wait.  Here:

1. A turn of the loop takes ``_PER_TURN`` connections; requests are served in between.
2. A client outside ``allowed_networks`` or above its address's share is closed before anything is read or said.
3. Out of descriptors, nobody is reset: connections wait in the kernel's backlog, and we look again after ``_BREATH_S``.
4. A handshake is bounded in time, and those under way count as connections.

Not on the hot path: Envoys keep their connections.
"""

import asyncio
import errno
import ipaddress
import logging
import resource
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from math import inf

from tracefwd.receiver.http_connection import Connection
from tracefwd.receiver.intake import Intake
from tracefwd.settings import ReceiverSettings

_log = logging.getLogger("tracefwd.receiver")

_PER_TURN = 64
# Descriptors come back when a connection ends; asking more often would only burn time.
_BREATH_S = 0.5
_TELL_INTERVAL_S = 60.0
# Connections above the limit that may be in at the same time, to be told so.
_ANSWERED_MAX = 512
# What the process needs for itself: targets, files, channels; of a small limit a quarter.
OWN_DESCRIPTORS = 128
_SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
# What the other side may take for its goodbye.
_TLS_GOODBYE_S = 2.0


def descriptors_for(connections_max: int) -> int:
    """How many connections the process's limit of descriptors allows, at most ``connections_max``.

    The soft limit is only a default (often 1,024, for programs that use select): it is raised as far as needed.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections_max + OWN_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return min(connections_max, soft - min(OWN_DESCRIPTORS, soft // 4))
    return connections_max


class Door:
    """``make`` gives the protocol of each connection, ``tls`` what holds for it (None for plain text)."""

    def __init__(
        self,
        sock: socket.socket,
        intake: Intake,
        make: Callable[[], Connection],
        tls: Callable[[], ssl.SSLContext | None],
    ) -> None:
        settings: ReceiverSettings = intake.settings
        self._sock = sock
        self._intake = intake
        self._make = make
        self._tls = tls
        self._networks = [ipaddress.ip_network(text) for text in settings.allowed_networks]
        self._per_address_max = settings.connections_per_address_max
        self._handshake_s = settings.header_timeout
        self._loop = asyncio.get_running_loop()
        self._opening: dict[asyncio.Task[None], socket.socket] = {}
        self._later: asyncio.TimerHandle | None = None
        self._told_at = -inf

    def open(self) -> None:
        self._sock.setblocking(False)
        self._listen()

    def leave(self) -> None:
        """Take nobody any more; who has been taken comes in, even if hands are still being shaken."""
        if self._sock.fileno() < 0:
            return
        if self._later is not None:
            self._later.cancel()
        self._loop.remove_reader(self._sock.fileno())
        self._sock.close()

    async def settled(self) -> None:
        """Wait for those whose hands are being shaken; their time-outs bound that."""
        while self._opening:
            await asyncio.wait(set(self._opening))

    def close(self) -> None:
        """Take nobody any more; who is in stays, who is still shaking hands does not.

        A handshake ends by an end of file, which is read in its order.  The descriptor is the transport's: closed
        behind its back, the next connection would get the same number, and nobody would ever look at it.
        """
        self.leave()
        for client in self._opening.values():
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def _listen(self) -> None:
        self._later = None
        self._loop.add_reader(self._sock.fileno(), self._take)

    def _take(self) -> None:
        for _ in range(_PER_TURN):
            try:
                client, peer = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._catch_breath(error)
                return
            self._let_in(client, str(peer[0]))

    def _catch_breath(self, error: OSError) -> None:
        """Whoever waits, waits in the backlog; a reader would fire again and again."""
        self._loop.remove_reader(self._sock.fileno())
        self._later = self._loop.call_later(_BREATH_S, self._listen)
        now = self._loop.time()
        if now - self._told_at >= _TELL_INTERVAL_S:
            self._told_at = now
            advice = (
                "raise the limit of open files (ulimit -n)" if error.errno in _SHORTAGES else ""
            )
            _log.error(
                "no connection can be taken: %s; clients wait%s",
                error.strerror,
                advice and f": {advice}",
            )

    def _let_in(self, client: socket.socket, address: str) -> None:
        intake = self._intake
        reason = self._objection(address)
        if reason:
            intake.accepted += 1
            intake.closed[reason] += 1
            intake.refusals.connection(reason, address)
            client.close()
            return
        client.setblocking(False)
        # An answer is one small write, and must not wait for an acknowledgement.
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = self._make()
        if self._per_address_max:
            connection.address = address
            intake.addresses[address] += 1
        task = self._loop.create_task(self._connect(client, connection))
        self._opening[task] = client
        task.add_done_callback(self._opening.pop)

    def _objection(self, address: str) -> str:
        """The reason for which this client may not come in, "" if it may."""
        intake = self._intake
        if self._networks and not self._is_allowed(address):
            return "not_allowed"
        if self._per_address_max and intake.addresses[address] >= self._per_address_max:
            return "per_address"
        # One too many gets an answer (``http_connection.py``), but only where a handshake is no way to pile up.
        if len(self._opening) + len(intake.connections) >= intake.connections_max + _ANSWERED_MAX:
            return "too_many"
        return ""

    def _is_allowed(self, address: str) -> bool:
        # Link-local addresses come with their interface.
        found = ipaddress.ip_address(address.partition("%")[0])
        mapped = getattr(found, "ipv4_mapped", None)
        return any((mapped or found) in network for network in self._networks)

    async def _connect(self, client: socket.socket, connection: Connection) -> None:
        tls = self._tls()
        try:
            if tls is None:
                await self._loop.connect_accepted_socket(lambda: connection, client)
            else:
                await self._loop.connect_accepted_socket(
                    lambda: connection,
                    client,
                    ssl=tls,
                    ssl_handshake_timeout=self._handshake_s,
                    ssl_shutdown_timeout=_TLS_GOODBYE_S,
                )
        except (OSError, TimeoutError) as error:
            self._intake.closed["handshake"] += 1
            reason = getattr(error, "reason", None) or type(error).__name__
            self._intake.refusals.connection("handshake", str(reason))
            with suppress(OSError):
                client.close()
            if connection not in self._intake.connections:
                self._intake.leave_address(connection)


__all__ = ["Door", "descriptors_for"]
