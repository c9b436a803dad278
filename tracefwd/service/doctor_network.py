"""The way to an address, step by step: its name, its port, its certificate.  Nothing is said to who answers.

1. A step that fails ends the way: what lies behind it is not asked, because it would only repeat the same cause.
2. Name servers may hang longer than anybody waits, and a lookup cannot be given up.  So lookups run in threads that
   nobody waits for at the end.
3. All addresses of a name are tried, as a Service without an address of its own has one for each pod.
"""

import asyncio
import errno
import ipaddress
import os
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from tracefwd.service.doctor_certificate import judged
from tracefwd.service.doctor_findings import Finding, Rows
from tracefwd.service.units import format_address, format_duration

T = TypeVar("T")

# Addresses of one name that are tried; a name with more is a service with many pods, and these tell enough.
_ADDRESSES_MAX = 8
_NO_ROUTE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EAFNOSUPPORT})

_NAME_ADVICE = (
    "check the spelling; inside Kubernetes write SERVICE.NAMESPACE.svc.cluster.local, and see that a NetworkPolicy "
    "lets port 53 through"
)

# OpenSSL's X509_V_ERR_*.
_NOT_YET_VALID, _EXPIRED, _SELF_SIGNED, _HOST_MISMATCH, _ADDRESS_MISMATCH = 9, 10, 18, 62, 64
_UNKNOWN_AUTHORITY = frozenset({2, 19, 20, 21})


@dataclass(frozen=True)
class Place:
    """A host and port that is talked to; ``tls`` makes what its certificate is held to, None is plain text.

    ``role`` is whose it is, where that is not the target itself; ``port_advice`` is what to do when nothing listens;
    ``ca_option`` names the option with the authorities' file and ``ca_file`` is its value.
    """

    host: str
    port: int
    role: str
    port_advice: str
    tls: Callable[[], ssl.SSLContext] | None = None
    server_name: str = ""
    ca_option: str = "ca_file"
    ca_file: str = ""

    @property
    def shown(self) -> str:
        return format_address(self.host, self.port)


class Way(NamedTuple):
    findings: list[Finding]
    is_open: bool


class _Unresolved(Exception):  # noqa: N818 - it says what happened
    """A name that gives no address; the text says why."""


async def apart(call: Callable[[], T]) -> T:
    """Its result, from a thread that does not keep the process alive."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def tell(result: T | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]  # T may be None itself

    def run() -> None:
        result: T | None = None
        error: BaseException | None = None
        try:
            result = call()
        except Exception as problem:  # noqa: BLE001 - raised again where it is awaited
            error = problem
        # The loop has ended meanwhile: nobody waits any more.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(tell, result, error)

    threading.Thread(target=run, daemon=True).start()
    return await done


async def look_at(place: Place, rows: Rows, timeout_s: float) -> Way:
    """Name, port and certificate of a place."""
    try:
        async with asyncio.timeout(timeout_s):
            addresses = await _addresses(place)
    except (TimeoutError, _Unresolved) as problem:
        why = str(problem) or f"no answer from the name server within {format_duration(timeout_s)}"
        return Way([rows.cross(f"dns {place.host}", why, _NAME_ADVICE)], is_open=False)
    found: list[Finding] = []
    if not _is_address(place.host):
        known = ", ".join(dict.fromkeys(address[0] for _, address in addresses))
        found.append(rows.ok(f"dns {place.host}", known))
    check = f"port {place.shown}"
    whose = f" ({place.role})" if place.role else ""
    sock, problems = await _connected(addresses, timeout_s)
    if sock is None:
        detail = ", ".join(dict.fromkeys(problems)) + whose
        return Way([*found, rows.cross(check, detail, _port_advice(place, problems))], False)
    if problems:
        detail = f"open{whose}, but not at all of its addresses: {', '.join(problems)}"
        advice = "look at the pods or machines behind this name; some of them do not answer"
        found.append(rows.warning(check, detail, advice))
    else:
        found.append(rows.ok(check, f"open{whose}"))
    if place.tls is None:
        sock.close()
        return Way(found, is_open=True)
    certificate = await _handshake(place, sock, rows, f"tls {place.shown}", timeout_s)
    return Way([*found, certificate], is_open=certificate.mark != "cross")


# --- names -----------------------------------------------------------------------------------


async def _addresses(place: Place) -> list[tuple[int, Any]]:
    """Family and address for the socket; raises ``_Unresolved``."""

    def ask() -> list[tuple[int, Any]]:
        infos = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
        return [(int(info[0]), info[4]) for info in infos]

    try:
        found = await apart(ask)
    except (OSError, UnicodeError) as error:
        # A label that is too long is a UnicodeError.
        raise _Unresolved(
            (error.strerror if isinstance(error, OSError) else "") or "no such name"
        ) from error
    return found[:_ADDRESSES_MAX]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


# --- ports -----------------------------------------------------------------------------------


async def _connected(
    addresses: list[tuple[int, Any]], timeout_s: float
) -> tuple[socket.socket | None, list[str]]:
    """The first connection, and what was wrong with other addresses (no route to a family counts only if all fail)."""
    tries = [_try(family, address, timeout_s) for family, address in addresses]
    results = await asyncio.gather(*tries)
    sockets = [result for result in results if isinstance(result, socket.socket)]
    for sock in sockets[1:]:
        sock.close()
    problems = [
        _in_words(result, address[0], timeout_s, alone=len(addresses) == 1)
        for result, (_, address) in zip(results, addresses, strict=True)
        if isinstance(result, OSError) and not (sockets and result.errno in _NO_ROUTE)
    ]
    return (sockets[0] if sockets else None), problems


async def _try(family: int, address: Any, timeout_s: float) -> socket.socket | OSError:
    loop = asyncio.get_running_loop()
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        return error
    sock.setblocking(False)
    try:
        async with asyncio.timeout(timeout_s):
            await loop.sock_connect(sock, address)
    except OSError as error:  # TimeoutError is one
        sock.close()
        return error
    return sock


def _in_words(error: OSError, address: str, timeout_s: float, *, alone: bool) -> str:
    # The loop's own words repeat the address.
    said = os.strerror(error.errno).lower() if error.errno else ""
    words = said or f"no answer within {format_duration(timeout_s)}"
    return words if alone else f"{address} {words}"


def _port_advice(place: Place, problems: list[str]) -> str:
    if all("refused" in problem for problem in problems):
        return place.port_advice
    return (
        "a firewall, NetworkPolicy or security group drops it, or there is no route: allow this port "
        f"from here; then: {place.port_advice}"
    )


# --- certificates ----------------------------------------------------------------------------


async def _handshake(
    place: Place, sock: socket.socket, rows: Rows, check: str, timeout_s: float
) -> Finding:
    assert place.tls is not None
    name = place.server_name or place.host
    try:
        context = place.tls()
        async with asyncio.timeout(timeout_s):
            _, writer = await asyncio.open_connection(sock=sock, ssl=context, server_hostname=name)
    except ssl.SSLCertVerificationError as error:
        return rows.cross(check, *_refused_certificate(place, name, error))
    except TimeoutError:
        detail = f"the handshake was not over within {format_duration(timeout_s)}"
        return rows.cross(check, detail, "is it an https port, and is the machine behind it well?")
    except OSError as error:  # SSLError is one
        sock.close()
        reason = str(getattr(error, "reason", "") or error.strerror or type(error).__name__)
        detail = f"no TLS ({reason.lower().replace('_', ' ')})"
        return rows.cross(check, detail, "is it an https port? For plain text write http://")
    connection = writer.get_extra_info("ssl_object")
    der, version = connection.getpeercert(binary_form=True), connection.version()
    writer.transport.abort()
    is_verified = context.verify_mode != ssl.CERT_NONE
    fine = f"{version}, the name {name} and the chain hold" if is_verified else version
    finding = judged(rows, check, der, fine)
    if is_verified or finding.mark == "cross":
        return finding
    detail = f"{finding.detail}; nobody verifies it"
    return rows.warning(check, detail, "anybody can stand in between: switch verification on")


def _refused_certificate(
    place: Place, name: str, error: ssl.SSLCertVerificationError
) -> tuple[str, str]:
    """Why, and what to do."""
    option = place.ca_option
    given = f"{option} {place.ca_file}" if place.ca_file else "the system's authorities"
    code = error.verify_code
    if code == _EXPIRED:
        return "its certificate has expired", "renew it there, and check this machine's clock"
    if code == _NOT_YET_VALID:
        return "its certificate is not valid yet", "check the clocks on both sides"
    if code in (_HOST_MISMATCH, _ADDRESS_MISMATCH):
        return (
            f"its certificate is not for {name}",
            "write a name into the URL that the certificate bears, or have one made with this name",
        )
    if code == _SELF_SIGNED:
        return (
            f"its certificate is self-signed, and {given} does not hold it",
            f"put that certificate (PEM) into a file and name it in {option}",
        )
    if code in _UNKNOWN_AUTHORITY:
        return (
            f"{given} does not know who signed its certificate",
            f"get the certificate of the authority (PEM) from whoever runs it, and name its file in {option}",
        )
    return f"its certificate is refused ({error.verify_message})", f"check it, and {option}"


__all__ = ["Place", "Way", "apart", "look_at"]
