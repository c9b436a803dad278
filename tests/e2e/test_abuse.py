"""Hostile clients against the real process, one kind at a time, with an honest mesh beside each of them.

The honest one is ``tracefwd gen`` in a process of its own: every post of it gets its 202 in bounded time, whatever
happens beside it; afterwards the ledger balances, everything honest is delivered and the worker's memory is small.
"""

import asyncio
import json
import resource
import shutil
import socket
import struct
import subprocess
import zlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ENVOY
from tests.e2e.parts import Forwarder, StandIn, forwarder, stand_in
from tests.e2e.processes import Process, eventually, tracefwd
from tracefwd.ledger import imbalance

MIB = 2**20
HEAD = b"POST /api/v2/spans HTTP/1.1\r\nHost: zipkin\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
BODY = (ENVOY / "json-batch-5.json").read_bytes()
# Cores are shared by the abuser, the honest mesh, the forwarder, the stand-in and whatever else the machine does.
SLOWEST_MS = 3_000
# Base, caches, and the largest of everything that the limits below allow.
MEMORY_MAX = 350 * MIB
TIMEOUT = "2s"
# Of the honest mesh.
CONNECTIONS = 8


class Honest:
    """An honest mesh that is posting, and what it says at its end."""

    def __init__(self, process: Process, file: Path) -> None:
        self.process = process
        self._file = file

    def report(self) -> dict[str, Any]:
        assert self.process.wait() == 0, self.process.output
        report: dict[str, Any] = json.loads(self._file.read_text())
        return report


@pytest.fixture(scope="module")
def wavefront(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandIn]:
    with stand_in(tmp_path_factory.mktemp("wavefront")) as part:
        yield part


@pytest.fixture(scope="module")
def part(wavefront: StandIn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forwarder]:
    limits = {
        "header_timeout": TIMEOUT,
        "body_timeout": TIMEOUT,
        "unfinished_bytes_max": "32MiB",
        "body_bytes_max": "16MiB",
    }
    folder = tmp_path_factory.mktemp("forwarder")
    with forwarder(
        folder, wavefront.proxy, receiver=limits, exporter={"batch_age_max": "100ms"}
    ) as found:
        yield found


@contextmanager
def honest(part: Forwarder, folder: Path, seconds: float = 2.0) -> Iterator[Honest]:
    """All honest posts are answered 202 in time, and all honest spans are delivered."""
    before = part.ledger()
    flags = ["--rate", "300", "--seconds", f"{seconds:g}", "--connections", f"{CONNECTIONS}"]
    command = tracefwd("gen", "--to", part.intake, *flags, "--json")
    # All that ever came: what an attack before this one left open may go meanwhile.
    here = part.metric("tracefwd_receiver_connections_total")
    with Process(command, folder, "honest") as process:
        eventually(
            lambda: part.metric("tracefwd_receiver_connections_total") >= here + CONNECTIONS,
            "the honest mesh is there",
        )
        mesh = Honest(process, folder / "honest.out")
        yield mesh
        report = mesh.report()
    assert (report["non_202"], report["connect_errors"]) == (0, 0), report
    assert report["acked"] == report["sent"] > 100
    assert report["max_ms"] < SLOWEST_MS, report
    after = part.delivered(before["received"] + report["sent"])
    assert imbalance(after) == 0  # type: ignore[arg-type]
    assert after["delivered"] - before["delivered"] == after["received"] - before["received"]
    assert sum(after["dropped"].values()) == 0
    assert worker_pss(part) < MEMORY_MAX


def worker_pss(part: Forwarder) -> int:
    """Bytes of the largest process below the parent."""
    parent = part.process.pid
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    sizes = []
    for pid in children:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        sizes += [int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")]
    return max(sizes) * 1024


async def connect(part: Forwarder) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(part.host, part.port)


async def answer(reader: asyncio.StreamReader) -> int:
    """The first answer's status, 0 for none."""
    with suppress(ConnectionError, asyncio.IncompleteReadError):
        return int((await reader.readuntil(b"\r\n")).split()[1])
    return 0


async def drip(part: Forwarder, begin: bytes, piece: bytes, pause_s: float = 0.05) -> int:
    """Send ``begin``, then ``piece`` again and again until there is an answer; its status."""
    reader, writer = await connect(part)
    writer.write(begin)
    told = asyncio.create_task(answer(reader))
    with suppress(ConnectionError):
        while not told.done():
            writer.write(piece)
            await writer.drain()
            await asyncio.wait({told}, timeout=pause_s)
    status = await told
    writer.transport.abort()
    return status


async def all_of(*work: Awaitable[int]) -> list[int]:
    async with asyncio.timeout(60):
        found = await asyncio.gather(*work)
    # The loop closes what was aborted at its next turn.
    await asyncio.sleep(0.01)
    return found


def test_slow_headers(part: Forwarder, tmp_path: Path) -> None:
    with honest(part, tmp_path, 3):
        found = asyncio.run(all_of(*(drip(part, HEAD, b"X: y\r\n") for _ in range(200))))
    assert set(found) == {408}


def test_slow_bodies(part: Forwarder, tmp_path: Path) -> None:
    begin = HEAD + b"Content-Length: 100000\r\n\r\n"
    with honest(part, tmp_path, 3):
        found = asyncio.run(all_of(*(drip(part, begin, b"[") for _ in range(200))))
    assert set(found) == {408}


def test_endless_chunks(part: Forwarder, tmp_path: Path) -> None:
    chunk = b"1000\r\n" + b" " * 4096 + b"\r\n"
    with honest(part, tmp_path, 3):
        found = asyncio.run(all_of(*(drip(part, CHUNKED, chunk * 4, 0) for _ in range(30))))
    # Too large, too slow, or no room beside the others.
    assert set(found) <= {413, 408, 503}
    assert part.metric("tracefwd_memory_used_bytes", part="requests") < 32 * MIB


def test_huge_chunk_sizes_and_lengths(part: Forwarder, tmp_path: Path) -> None:
    requests = [
        *(CHUNKED + size + b"\r\nabc" for size in (b"7fffffffffffffff", b"ffffffff", b"1000001")),
        CHUNKED + b"f" * 17 + b"\r\nabc",
        CHUNKED + b"0" * 30_000 + b"3\r\nabc",
        CHUNKED + b"3;" + b"e" * 30_000 + b"\r\nabc",
        *(HEAD + b"Content-Length: %d\r\n\r\nabc" % size for size in (2**63, 2**64, 2**31)),
    ]
    with honest(part, tmp_path):
        found = asyncio.run(all_of(*(drip(part, each, b"a") for each in requests * 10)))
    assert set(found) <= {400, 408, 413, 431}


SMUGGLED = HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
SHAPES = [
    HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n[]",
    HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    HEAD + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    HEAD + b"X: a\r\n Content-Length: 2\r\n\r\n[]",
    HEAD.replace(b"\r\n", b"\n") + b"Content-Length: 2\n\n[]",
    CHUNKED.replace(b"1.1", b"1.0") + b"0\r\n\r\n",
    CHUNKED + b"2\n[]\n0\n\n",
    CHUNKED + b"0\r\nContent-Length: 8\r\n\r\n",
]


def test_requests_that_can_be_read_in_two_ways(part: Forwarder, tmp_path: Path) -> None:
    """None of what stands behind such a request is taken for one."""

    async def smuggle(shape: bytes) -> int:
        reader, writer = await connect(part)
        writer.write(shape + SMUGGLED)
        status = await answer(reader)
        rest = await reader.read()
        assert b"HTTP/1.1 2" not in rest
        writer.transport.abort()
        return status

    before = part.ledger()["received"]
    with honest(part, tmp_path) as mesh:
        found = asyncio.run(all_of(*(smuggle(shape) for shape in SHAPES * 5)))
    assert set(found) == {400}
    assert part.ledger()["received"] - before == mesh.report()["sent"]


def bomb(size: int, wbits: int) -> Iterator[bytes]:
    """``size`` zeros as a stream, made piece by piece: each full flush leaves a block that may be repeated."""
    engine = zlib.compressobj(9, zlib.DEFLATED, wbits)
    block = bytes(8 * MIB)
    first = engine.compress(block) + engine.flush(zlib.Z_FULL_FLUSH)
    piece = engine.compress(block) + engine.flush(zlib.Z_FULL_FLUSH)
    yield first
    for _ in range(size // len(block) - 1):
        yield piece
    yield engine.flush()


def test_compression_bombs(part: Forwarder, tmp_path: Path) -> None:
    """10 GB from 10 MB, which is the most that gzip can do, and as much from many members."""

    async def drop(coding: bytes, pieces: Callable[[], Iterator[bytes]]) -> int:
        reader, writer = await connect(part)
        writer.write(HEAD + b"Content-Encoding: %b\r\nTransfer-Encoding: chunked\r\n\r\n" % coding)
        told = asyncio.create_task(answer(reader))
        with suppress(ConnectionError):
            for piece in pieces():
                if told.done():
                    break
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                await writer.drain()
            writer.write(b"0\r\n\r\n")
        status = await told
        writer.transport.abort()
        return status

    whole = 10 * 10**9
    small = b"".join(bomb(24 * MIB, 31))
    assert len(small) < 100_000
    kinds: list[tuple[bytes, Callable[[], Iterator[bytes]]]] = [
        (b"gzip", lambda: bomb(whole, 31)),
        (b"deflate", lambda: bomb(whole, 15)),
        (b"deflate", lambda: bomb(whole, -15)),
        (b"gzip", lambda: iter([small])),
        (b"gzip", lambda: iter([zlib.compress(b"", wbits=31) * 50_000])),
    ]
    with honest(part, tmp_path, 4):
        found = asyncio.run(all_of(*(drop(*kind) for kind in kinds * 2)))
        twice = asyncio.run(all_of(drop(b"gzip, gzip", lambda: iter([b"x"]))))
    # Malformed is the one with the many members; not all that is sent finds room.
    assert set(found) <= {413, 400, 503}
    assert found.count(413) >= 2
    assert twice == [415]


def test_many_large_bodies_at_once(part: Forwarder, tmp_path: Path) -> None:
    spans = json.loads(BODY)
    body = json.dumps(spans * 2_000).encode()
    assert 8 * MIB < len(body) < 16 * MIB

    async def post() -> int:
        reader, writer = await connect(part)
        writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % len(body))
        told = asyncio.create_task(answer(reader))
        with suppress(ConnectionError):
            for start in range(0, len(body), 2**16):
                writer.write(body[start : start + 2**16])
                await writer.drain()
                if told.done():
                    break
        status = await told
        writer.transport.abort()
        return status

    with honest(part, tmp_path, 4):
        found = asyncio.run(all_of(*(post() for _ in range(12))))
        assert set(found) <= {202, 503}
        assert 202 in found
    refused = part.metric("tracefwd_receiver_refused_requests_total", reason="no_room")
    assert refused >= found.count(503)


def test_pipelines_that_nobody_reads(part: Forwarder, tmp_path: Path) -> None:
    async def flood() -> int:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, (part.host, part.port))
        with suppress(ConnectionError), sock:
            while True:
                await loop.sock_sendall(sock, b"GET / HTTP/1.1\r\n\r\n" * 5_000)
        return 0

    with honest(part, tmp_path, 4):
        asyncio.run(all_of(*(flood() for _ in range(5))))
    assert part.metric("tracefwd_receiver_connections_closed_total", reason="slow_reader") > 0


def test_a_flood_of_connections_that_are_reset(part: Forwarder, tmp_path: Path) -> None:
    with honest(part, tmp_path) as mesh:
        count = 0
        while mesh.process.is_running and count < 20_000:
            for _ in range(100):
                sock = socket.create_connection((part.host, part.port))
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.close()
            count += 100
    assert count >= 100
    eventually(
        lambda: part.metric("tracefwd_receiver_connections") < 10, "the connections are forgotten"
    )


def test_ten_thousand_idle_connections(part: Forwarder, tmp_path: Path) -> None:
    wanted = 10_000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = hard if hard != resource.RLIM_INFINITY else 2**20
    if most < wanted + 500:
        pytest.skip(f"NO 10,000 CONNECTIONS: the hard limit of open files is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted + 500), hard))
    idle: list[socket.socket] = []
    try:
        before = worker_pss(part)
        address = (part.host, part.port)
        idle.extend(socket.create_connection(address, timeout=30) for _ in range(wanted))
        eventually(lambda: part.metric("tracefwd_receiver_connections") >= wanted, "all are taken")
        with honest(part, tmp_path):
            pass
        assert worker_pss(part) - before < wanted * 16 * 1024
        assert part.metric("tracefwd_receiver_connections") >= wanted
    finally:
        for sock in idle:
            sock.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    eventually(
        lambda: part.metric("tracefwd_receiver_connections") < 10, "the connections are forgotten"
    )


MODES = {
    "slow headers": ["-H", "-i", "1"],
    "slow bodies": ["-B", "-i", "1", "-t", "POST"],
    "slow reading": ["-X", "-k", "3", "-n", "1", "-z", "32", "-w", "64", "-y", "128"],
}


@pytest.mark.parametrize("mode", MODES)
def test_slowhttptest(part: Forwarder, tmp_path: Path, mode: str) -> None:
    program = shutil.which("slowhttptest")
    if program is None:
        pytest.skip("NO SLOWHTTPTEST: install the package slowhttptest to try it")
    command = [program, *MODES[mode], "-c", "500", "-r", "500", "-l", "4", "-p", "3"]
    command += ["-u", f"{part.intake}/api/v2/spans"]
    with honest(part, tmp_path, 5):
        done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    # Its word on whether others were served while it attacked.
    assert b"service available" in done.stdout, done.stdout[-2_000:]
    assert b"service available:   \x1b[1;31mNO" not in done.stdout


def test_without_descriptors_it_waits_and_recovers(wavefront: StandIn, tmp_path: Path) -> None:
    """More clients than descriptors: who is in is served, who is not waits or is told so, and then all is well."""
    if shutil.which("prlimit") is None:
        pytest.skip("NO PRLIMIT: the process cannot be started with few descriptors")
    with forwarder(tmp_path, wavefront.proxy, before=["prlimit", "--nofile=64:64"]) as small:
        with honest(small, tmp_path):
            crowd = [socket.socket() for _ in range(300)]
            try:
                for sock in crowd:
                    sock.setblocking(False)
                    with suppress(BlockingIOError):
                        sock.connect((small.host, small.port))
            finally:
                for sock in crowd:
                    sock.close()
        assert small.post(BODY) == 202
        small.delivered(1)
