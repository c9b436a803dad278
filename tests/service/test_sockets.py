"""Ports are taken once, shared by the slots alone, and refusals say what to do."""

import socket

import pytest

from tracefwd.errors import StartError
from tracefwd.service import sockets


def test_port_0_is_chosen_once_for_all_slots() -> None:
    slots = sockets.listen_shared("127.0.0.1:0", "receiver.listen", flag="--listen", count=3)
    try:
        assert len({sock.getsockname() for sock in slots}) == 1
        assert slots[0].getsockname()[1] != 0
        assert all(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) for sock in slots)
        with socket.create_connection(slots[0].getsockname(), 5):
            pass
    finally:
        for sock in slots:
            sock.close()


def test_a_taken_port_is_told_with_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(StartError) as refused:
            sockets.listen(address, "admin.listen", flag="--admin")
    assert str(refused.value) == (
        f"admin.listen {address}: the port is taken by another process; stop that one "
        "(ss -ltnp shows it) or choose another port with --admin HOST:PORT"
    )


def test_another_tracefwds_port_is_taken_although_it_would_let_itself_be_shared() -> None:
    first = sockets.listen_shared("127.0.0.1:0", "receiver.listen", flag="--listen", count=1)
    with first[0]:
        address = f"127.0.0.1:{first[0].getsockname()[1]}"
        with pytest.raises(StartError, match="the port is taken"):
            sockets.listen_shared(address, "receiver.listen", flag="--listen", count=2)


def test_a_port_is_free_again_at_once_after_connections_were_served() -> None:
    first = sockets.listen("127.0.0.1:0", "o", flag="-f")
    address = f"127.0.0.1:{first.getsockname()[1]}"
    first.setblocking(True)
    with first, socket.create_connection(first.getsockname(), 5) as client:
        accepted, _ = first.accept()
        # The side that closes first is the one that keeps the port in TIME_WAIT.
        accepted.close()
        client.recv(1)
    for sock in sockets.listen_shared(address, "o", flag="-f", count=2):
        sock.close()


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("203.0.113.7:9411", "no such address on this machine; write --listen 0.0.0.0:PORT"),
        ("no-such-host.invalid:9411", "cannot find the host"),
    ],
)
def test_an_address_that_is_not_ours_is_told_with_what_to_do(address: str, words: str) -> None:
    with pytest.raises(StartError, match=f"receiver.listen {address}: .*{words}"):
        sockets.listen_shared(address, "receiver.listen", flag="--listen", count=1)


def test_a_url_is_one_that_a_client_can_use() -> None:
    with sockets.listen("0.0.0.0:0", "o", flag="-f") as everywhere:
        port = everywhere.getsockname()[1]
        assert sockets.url(everywhere) == f"http://127.0.0.1:{port}"
    with sockets.listen("127.0.0.1:0", "o", flag="-f") as here:
        assert sockets.url(here) == f"http://127.0.0.1:{here.getsockname()[1]}"


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_ipv6_is_written_in_brackets() -> None:
    try:
        sock = sockets.listen("[::]:0", "o", flag="-f")
    except StartError as error:
        pytest.skip(f"IPv6 is switched off here: {error}")
    with sock:
        assert sockets.url(sock) == f"http://[::1]:{sock.getsockname()[1]}"
