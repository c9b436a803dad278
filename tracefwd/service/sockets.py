"""Listening sockets: bound once, in the parent, before anything else is started.

A worker slot's sockets share the port by SO_REUSEPORT, and so would a second tracefwd of the same user, which
would silently take half of the traffic.  Therefore the port is tried without SO_REUSEPORT first.
"""

import errno
import ipaddress
import socket

from tracefwd.errors import StartError
from tracefwd.service.units import format_address, parse_address

PORTS = ("spans", "lines", "otlp_http", "otlp_grpc")
"""What a worker is called upon to serve, in the order of ``worker_parts.Parts``."""

# Connections that wait for a worker: a mesh that reconnects at once after a roll-out.  The kernel cuts it
# to net.core.somaxconn.
BACKLOG = 4096


def listen(address: str, option: str, *, flag: str) -> socket.socket:
    """One socket that listens.  ``option`` and ``flag`` name the address for whoever must change it."""
    return _listening(address, option, flag, _resolve(address, option, flag), shared=False)


def listen_shared(
    address: str, option: str, *, flag: str, count: int, bound_only: bool = False
) -> list[socket.socket]:
    """``count`` sockets that listen at one port; port 0 is chosen once for all of them.

    The kernel spreads connections over them as soon as they listen, whoever accepts.  ``bound_only`` ones take none:
    they keep the port for listeners that somebody else opens with SO_REUSEPORT.
    """
    where = _resolve(address, option, flag)
    family, host = where
    if host[1] != 0:
        _listening(address, option, flag, where, shared=False).close()
    opened: list[socket.socket] = []
    try:
        for _ in range(count):
            sock = _listening(address, option, flag, where, shared=True, bound_only=bound_only)
            opened.append(sock)
            where = family, sock.getsockname()
    except StartError:
        for sock in opened:
            sock.close()
        raise
    return opened


def url(sock: socket.socket, *, tls: bool = False) -> str:
    """Where a client on this machine reaches it."""
    host, port = sock.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104  # asked, not bound
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"  # noqa: S104
    return f"{'https' if tls else 'http'}://{format_address(host, port)}"


def is_loopback(sock: socket.socket) -> bool:
    """Whether nobody beyond this machine reaches it."""
    return ipaddress.ip_address(sock.getsockname()[0].partition("%")[0]).is_loopback


def _resolve(address: str, option: str, flag: str) -> tuple[int, tuple[str, int]]:
    host, port = parse_address(address)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise StartError(
            f"{option} {address}: cannot find the host ({error.strerror}); "
            f"give an address of this machine with {flag} HOST:PORT"
        ) from error
    family, _, _, _, where = found[0]
    return family, where  # type: ignore[return-value]  # IPv6 has two more fields, handed back as they are


def _listening(
    address: str,
    option: str,
    flag: str,
    where: tuple[int, tuple[str, int]],
    *,
    shared: bool,
    bound_only: bool = False,
) -> socket.socket:
    family, name = where
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Connections of a former run in TIME_WAIT must not keep the port.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.setblocking(False)
        sock.bind(name)
        if not bound_only:
            sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise StartError(f"{option} {address}: {_advice(error, flag)}") from error
    return sock


def _advice(error: OSError, flag: str) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return (
                "the port is taken by another process; stop that one "
                f"(ss -ltnp shows it) or choose another port with {flag} HOST:PORT"
            )
        case errno.EACCES:
            return (
                "not allowed to take a port below 1024; "
                f"choose a higher one with {flag} HOST:PORT, or grant CAP_NET_BIND_SERVICE"
            )
        case errno.EADDRNOTAVAIL:
            return f"no such address on this machine; write {flag} 0.0.0.0:PORT for all of its own"
        case _:
            return f"cannot listen there ({error.strerror}); choose another with {flag} HOST:PORT"
