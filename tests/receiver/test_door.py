"""The door: who may come in, how many at once, and what happens when there is no descriptor for one more."""

import asyncio
import logging
import resource
import socket
import time
from contextlib import closing, suppress

import pytest

from tests.receiver.test_credentials import Authority, authorities, tls, trusting
from tests.receiver.test_http import both_loops, post, serving, until
from tests.service.test_admin_door import ByHand
from tracefwd.receiver import door
from tracefwd.receiver.door import descriptors_for
from tracefwd.settings import IntakeTlsSettings

__all__ = ["authorities", "tls"]


async def is_closed_unanswered(port: int, source: str = "127.0.0.1") -> bool:
    """Whether a connection from this address ends without a byte of answer to its request."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
        writer.write(post())
        answer = await reader.read()
    except ConnectionError:
        return True
    writer.close()
    return answer == b""


@pytest.mark.parametrize("networks", [["127.0.0.2/32"], ["10.0.0.0/8", "::/0"]])
@both_loops
async def test_who_is_outside_the_networks_is_closed_without_an_answer(networks: list[str]) -> None:
    async with serving(allowed_networks=networks) as server:
        assert await is_closed_unanswered(server.port)
        assert server.closed("not_allowed") == 1
        assert server.count("connections_total") == 1
        assert server.got == []


@both_loops
async def test_who_is_inside_the_networks_is_served() -> None:
    async with serving(allowed_networks=["192.0.2.0/24", "127.0.0.0/8"]) as server:
        assert (await (await server.connect()).ask(post())).status == 202
        assert server.closed("not_allowed") == 0


@both_loops
async def test_an_ipv4_client_of_an_ipv6_port_is_looked_for_among_ipv4_networks() -> None:
    try:
        sock = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    except OSError:
        pytest.skip("NO IPV6 here: its mapped addresses go untested")
    async with serving(allowed_networks=["127.0.0.0/8"]) as server:
        server.receiver._close_port()
        await server.receiver.start(sock)
        server.port = sock.getsockname()[1]
        assert (await (await server.connect()).ask(post())).status == 202
        assert await is_closed_unanswered_v6(server.port)


async def is_closed_unanswered_v6(port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection("::1", port)
        writer.write(post())
        answer = await reader.read()
    except ConnectionError:
        return True
    writer.close()
    return answer == b""


@both_loops
async def test_an_address_has_its_share_of_connections_and_gets_it_back() -> None:
    async with serving(connections_per_address_max=3) as server:
        mine = [await server.connect() for _ in range(3)]
        for client in mine:
            assert (await client.ask(post())).status == 202
        assert await is_closed_unanswered(server.port)
        assert server.closed("per_address") == 1
        # Others are not concerned.
        other = await server.connect(local_addr=("127.0.0.7", 0))
        assert (await other.ask(post())).status == 202
        mine[0].close()
        await until(lambda: server.count("connections") == 3)
        assert (await (await server.connect()).ask(post())).status == 202


@both_loops
async def test_out_of_descriptors_nobody_is_reset_nothing_spins_and_it_recovers(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "_BREATH_S", 0.05)
    async with serving() as server:
        # They wait in the backlog, and then there is no descriptor to take them with.
        honest = await server.connect()
        assert (await honest.ask(post())).status == 202
        waiting = [socket.socket() for _ in range(10)]
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with closing(socket.socket()) as probe:
            lowest = probe.fileno()
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        try:
            for sock in waiting:
                sock.connect(("127.0.0.1", server.port))
                sock.sendall(post())
                sock.setblocking(False)
            await until(lambda: bool(caplog.records))
            begun = time.process_time()
            for _ in range(5):
                await asyncio.sleep(0.05)
                # Who is in is served as ever.
                assert (await honest.ask(post())).status == 202
            assert time.process_time() - begun < 0.1
            assert server.count("connections_total") == 1
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        loop = asyncio.get_running_loop()
        for sock in waiting:
            assert (await loop.sock_recv(sock, 64)).startswith(b"HTTP/1.1 202")
            sock.close()
        [record] = caplog.records
        assert record.levelno == logging.ERROR
        assert "ulimit" in record.message


@both_loops
async def test_a_flood_of_connections_does_not_hold_up_who_is_in() -> None:
    async with serving() as server:
        honest = await server.connect()
        flood = [socket.socket() for _ in range(1_000)]
        try:
            for sock in flood:
                sock.setblocking(False)
                with pytest.raises(BlockingIOError):
                    sock.connect(("127.0.0.1", server.port))
            worst = 0.0
            for _ in range(30):
                begun = time.perf_counter()
                assert (await honest.ask(post())).status == 202
                worst = max(worst, time.perf_counter() - begun)
            assert worst < 0.5
            await until(lambda: server.count("connections") == 1_001)
        finally:
            for sock in flood:
                sock.close()


@both_loops
async def test_a_handshake_that_is_done_as_the_port_closes_takes_no_descriptor_along(
    tls: IntakeTlsSettings, authorities: tuple[Authority, Authority]
) -> None:
    first = authorities[0]
    async with serving(tls=tls) as server, serving() as other:
        raw = await server.connect()
        client = ByHand((raw.reader, raw.writer), trusting(first, first.issue("client")))
        raw.send(await client.last_of_handshake())
        # In the first turn the port reads it, in the second the door would hear of it.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        server.receiver._close_port()
        await asyncio.sleep(0.05)
        for _ in range(3):
            assert (await (await other.connect()).ask(post())).status == 202


@both_loops
async def test_who_still_shakes_hands_as_the_port_closes_is_let_go(
    tls: IntakeTlsSettings, authorities: tuple[Authority, Authority]
) -> None:
    async with serving(tls=tls, connections_per_address_max=3) as server:
        clients = [await server.connect() for _ in range(3)]
        begun = ByHand((clients[1].reader, clients[1].writer), trusting(authorities[0]))
        await begun.last_of_handshake()
        server.receiver._close_port()
        for client in clients:
            with suppress(ConnectionError):
                await client.reader.read()
        await until(lambda: not server.receiver._intake.addresses)


def test_the_soft_limit_of_descriptors_is_raised_and_the_hard_one_obeyed() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(600, hard), hard))
        assert descriptors_for(100) == 100
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == min(600, hard)
        wanted = 10 * 2**20 if hard == resource.RLIM_INFINITY else hard
        fit = descriptors_for(wanted)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 600 or hard <= 600
        if hard != resource.RLIM_INFINITY:
            assert fit == hard - door.OWN_DESCRIPTORS
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
