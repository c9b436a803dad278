"""The port for span lines against real sockets, on uvloop and on the standard loop."""

import asyncio
import gzip
import socket
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.receiver.test_http import both_loops
from tracefwd.doorways import Answer, HeldAnswer
from tracefwd.model import Reject
from tracefwd.receiver import line_port
from tracefwd.receiver.line_port import (
    LINE_BYTES_MAX,
    GzipStream,
    LineCutter,
    LinePort,
    Unfinished,
)
from tracefwd.settings import ReceiverSettings


@dataclass
class Sink:
    """Keeps what it gets; ``held`` answers wait for the test."""

    text: bytes = b""
    calls: int = 0
    refused: list[tuple[Reject, bool]] = field(default_factory=list)
    answer: Callable[[], Answer | HeldAnswer] = lambda: Answer(202)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def ingest_lines(self, body: bytes, content_type: str) -> Answer | HeldAnswer:
        self.text += body
        self.calls += 1
        self.news.set()
        return self.answer()

    def refuse_line(self, reject: Reject, *, is_log: bool) -> None:
        self.refused.append((reject, is_log))
        self.news.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self.news.clear()
            await self.news.wait()

    @property
    def refusals(self) -> list[tuple[str, bool]]:
        return [(reject.reason, is_log) for reject, is_log in self.refused]


@dataclass
class Served:
    port: LinePort
    sink: Sink
    number: int
    clients: list[asyncio.StreamWriter] = field(default_factory=list)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.number)
        self.clients.append(writer)
        return reader, writer

    def count(self, name: str, *labels: str) -> float:
        return self.port.samples()[f"tracefwd_receiver_{name}"].get(labels, 0)


@asynccontextmanager
async def serving(sink: Sink | None = None, **options: Any) -> AsyncIterator[Served]:
    sink = sink or Sink()
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    served = Served(LinePort(ReceiverSettings(**options), sink), sink, int(sock.getsockname()[1]))
    await served.port.start(sock)
    try:
        yield served
    finally:
        for writer in served.clients:
            writer.close()
        await served.port.stop(0)


async def status_of(reader: asyncio.StreamReader) -> int:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        (int(line[15:]) for line in head.splitlines() if line.startswith(b"Content-Length:")), 0
    )
    await reader.readexactly(length)
    return int(head.split()[1])


async def turns(condition: Callable[[], object]) -> None:
    """For what happens in the server on our own loop and what no client can see."""
    while not condition():  # noqa: ASYNC110 - there is no event to wait for
        await asyncio.sleep(0)


# --- HTTP -----------------------------------------------------------------------------------


@both_loops
async def test_http_is_taken_on_any_path_and_the_connection_kept() -> None:
    async with serving() as served:
        reader, writer = await served.connect()
        for path in ("/", "/report?f=trace", "/api/v2/wfproxy/report", "/x%20y"):
            writer.write(f"POST {path} HTTP/1.1\r\nContent-Length: 2\r\n\r\na\n".encode())
            assert await status_of(reader) == 202
        packed = gzip.compress(b"b\n")
        head = f"POST / HTTP/1.1\r\nContent-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n"
        writer.write(head.encode() + packed)
        assert await status_of(reader) == 202
        assert served.sink.text == b"a\n" * 4 + b"b\n"
        assert served.count("requests_total", "202") == 5
        assert served.count("connections_total") == 1


@both_loops
async def test_the_first_bytes_may_come_one_by_one() -> None:
    async with serving() as served:
        reader, writer = await served.connect()
        for byte in b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n":
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        assert await status_of(reader) == 202
        _, raw = await served.connect()
        for byte in b"PxST\n":
            raw.write(bytes([byte]))
            await raw.drain()
            await asyncio.sleep(0)
        await served.sink.until(lambda: served.sink.text == b"PxST\n")


@both_loops
async def test_other_methods_are_refused() -> None:
    async with serving() as served:
        reader, writer = await served.connect()
        writer.write(b"GET /health HTTP/1.1\r\n\r\n")
        assert await status_of(reader) == 405


@both_loops
async def test_above_the_bound_a_client_is_told_so_and_leaves() -> None:
    async with serving(connections_max=1) as served:
        _, first = await served.connect()
        first.write(b"a line\n")
        await served.sink.until(lambda: bool(served.sink.text))
        reader, _ = await served.connect()
        assert await status_of(reader) == 503
        assert await reader.read() == b""
        assert served.count("connections") == 1
        assert served.count("connections_closed_total", "too_many") == 1


# --- lines over TCP -------------------------------------------------------------------------


@both_loops
async def test_lines_come_in_pieces_and_are_handed_on_whole() -> None:
    async with serving() as served:
        _, writer = await served.connect()
        writer.write(b'"first" 1')
        await turns(lambda: served.port._unfinished.bytes_kept)
        assert served.sink.calls == 0
        writer.write(b' 2\r\n{"second"}\n"thi')
        await served.sink.until(lambda: served.sink.calls == 1)
        writer.write(b'rd"\n')
        await served.sink.until(lambda: served.sink.calls == 2)
        assert served.sink.text == b'"first" 1 2\r\n{"second"}\n"third"\n'
        assert served.port._unfinished.bytes_kept == 0
        assert served.count("request_bytes_total") == len(served.sink.text)


@both_loops
@pytest.mark.parametrize(("rest", "is_log"), [(b'"cut of', False), (b' {"cut', True)])
async def test_an_unterminated_last_line_is_counted_not_taken(rest: bytes, *, is_log: bool) -> None:
    async with serving() as served:
        reader, writer = await served.connect()
        writer.write(b"whole\n" + rest)
        writer.write_eof()
        assert await reader.read() == b""
        await served.sink.until(lambda: bool(served.sink.refused))
        assert served.sink.text == b"whole\n"
        assert served.sink.refusals == [("syntax", is_log)]
        assert served.sink.refused[0][0].sample == rest


@both_loops
async def test_a_blank_rest_and_an_early_end_cost_nothing() -> None:
    async with serving() as served:
        for text in (b"whole\n  ", b"", b"\n"):
            reader, writer = await served.connect()
            writer.write(text)
            writer.write_eof()
            assert await reader.read() == b""
        assert served.sink.refused == []
        reader, writer = await served.connect()
        writer.write(b"x")
        writer.write_eof()
        assert await reader.read() == b""
        await served.sink.until(lambda: served.sink.refusals == [("syntax", False)])


@both_loops
async def test_a_line_that_is_too_long_is_lost_and_the_next_one_is_not() -> None:
    async with serving() as served:
        _, writer = await served.connect()
        for text in (b"x" * (LINE_BYTES_MAX + 5) + b"\n", b"good\n", b"y" * LINE_BYTES_MAX):
            writer.write(text)
            await writer.drain()
        writer.write(b"\r\n")
        await served.sink.until(lambda: len(served.sink.text) > LINE_BYTES_MAX)
        assert served.sink.text == b"good\n" + b"y" * LINE_BYTES_MAX + b"\r\n"
        assert served.sink.refusals == [("invalid", False)]


@both_loops
async def test_a_gzip_stream_of_lines_is_inflated_bite_by_bite() -> None:
    lines = b"".join(b"line %d %s\n" % (n, b"x" * 90) for n in range(40_000))
    async with serving() as served:
        _, writer = await served.connect()
        writer.write(gzip.compress(lines[:1_000]) + gzip.compress(lines[1_000:]))
        await served.sink.until(lambda: len(served.sink.text) == len(lines))
        assert served.sink.text == lines
        assert served.sink.calls > 10


@both_loops
async def test_a_broken_gzip_stream_ends_the_connection() -> None:
    async with serving() as served:
        reader, writer = await served.connect()
        writer.write(b"\x1f\x8bno gzip at all, for sure\n")
        assert await reader.read() == b""
        assert served.sink.refusals == [("syntax", False)]
        assert served.count("connections_closed_total", "protocol") == 1


@both_loops
async def test_reading_pauses_while_answers_are_held() -> None:
    held: list[HeldAnswer] = []

    def hold() -> HeldAnswer:
        held.append(HeldAnswer())
        return held[-1]

    sink = Sink(answer=hold)
    async with serving(sink) as served:
        _, writer = await served.connect()
        for number in range(4):
            writer.write(b"a\n")
            await sink.until(lambda number=number: sink.calls == number + 1)  # type: ignore[misc]
        [connection] = served.port._intake.connections
        assert connection._paused
        writer.write(b"b\n")
        await writer.drain()
        held.pop(0).release(Answer(202))
        await sink.until(lambda: sink.calls == 5)
        assert sink.text == b"a\n" * 4 + b"b\n"


# --- leaving --------------------------------------------------------------------------------


@both_loops
async def test_an_idle_client_is_closed_after_its_time() -> None:
    async with serving(idle_timeout=0.05) as served:
        reader, writer = await served.connect()
        writer.write(b"a line\n")
        assert await reader.read() == b""
        assert served.count("connections_closed_total", "idle") == 1
        assert served.sink.text == b"a line\n"


@both_loops
async def test_age_sends_no_tcp_client_away() -> None:
    async with serving(connection_age_max=0.01) as served:
        _, writer = await served.connect()
        writer.write(b"a\n")
        await served.sink.until(lambda: bool(served.sink.text))
        [connection] = served.port._intake.connections
        await turns(lambda: connection._retiring)
        writer.write(b"b\n")
        await served.sink.until(lambda: served.sink.text == b"a\nb\n")


@both_loops
async def test_a_drain_shows_tcp_clients_our_end_and_takes_what_they_still_send() -> None:
    async with serving() as served:
        reader, writer = await served.connect()
        writer.write(b"a\n")
        await served.sink.until(lambda: bool(served.sink.text))
        stopping = asyncio.create_task(served.port.stop(5))
        assert await reader.read() == b""
        writer.write(b"b\n")
        await served.sink.until(lambda: served.sink.text == b"a\nb\n")
        # One that comes now is served until the linger is over, as an Envoy would be.
        late_reader, late = await served.connect()
        late.write(b"c\n")
        await served.sink.until(lambda: served.sink.text == b"a\nb\nc\n")
        assert not late_reader.at_eof()
        assert not stopping.done()
        stopping.cancel()
        await asyncio.wait({stopping})


@both_loops
async def test_the_end_of_a_drain_closes_clients_that_stay() -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("tracefwd.receiver.http_connection._LINGER_S", 0.01)
        async with serving(idle_timeout=0.2) as served:
            reader, writer = await served.connect()
            writer.write(b"a\n{unfinished")
            await served.sink.until(lambda: bool(served.sink.text))
            await served.port.stop(0.02)
            assert await reader.read() == b""
            assert served.sink.refusals == [("syntax", True)]
            assert served.count("connections_closed_total", "drain") == 1


# --- parts ----------------------------------------------------------------------------------


@given(st.lists(st.sampled_from([b"a", b"bb\r", b"\n", b"x" * 30, b"\n\n", b"{c"]), max_size=30))
@settings(deadline=None, max_examples=300)
def test_lines_are_the_same_however_they_are_cut_into_pieces(pieces: list[bytes]) -> None:
    sink = Sink()
    unfinished = Unfinished(sink)
    cutter = LineCutter(unfinished)
    whole = b"".join(cutter.cut(piece) for piece in pieces)
    text = b"".join(pieces)
    end = text.rfind(b"\n") + 1
    assert whole == text[:end]
    assert unfinished.bytes_kept == len(text) - end
    cutter.end()
    assert unfinished.bytes_kept == 0
    assert len(sink.refused) == bool(text[end:].strip())


@given(
    st.lists(st.sampled_from([b"ab", b"\n", b"abcdefghij", b"\r\n", b"x"]), max_size=40),
    st.integers(3, 12),
)
@settings(deadline=None, max_examples=300)
def test_every_line_is_handed_on_or_refused_once(pieces: list[bytes], limit: int) -> None:
    with pytest.MonkeyPatch.context() as patched:
        # The greatest piece must not hold a longest line whole, as no read does.
        patched.setattr(line_port, "LINE_BYTES_MAX", 10 + limit)
        sink = Sink()
        cutter = LineCutter(Unfinished(sink))
        whole = b"".join(cutter.cut(piece) for piece in pieces)
        *lines, rest = b"".join(pieces).split(b"\n")
        good = [line for line in lines if len(line.removesuffix(b"\r")) <= 10 + limit]
        assert whole == b"".join(line + b"\n" for line in good)
        cutter.end()
        assert len(sink.refused) == len(lines) - len(good) + bool(rest.strip())


def test_unfinished_lines_share_one_room() -> None:
    sink = Sink()
    unfinished = Unfinished(sink, bytes_max=10)
    first, second = LineCutter(unfinished), LineCutter(unfinished)
    assert first.cut(b"12345678") == second.cut(b"abc") == b""
    assert sink.refusals == [("invalid", False)]
    assert unfinished.bytes_kept == 8
    assert second.cut(b"def\nghi\n") == b"ghi\n"
    assert first.cut(b"\n") == b"12345678\n"
    assert unfinished.bytes_kept == 0


@given(st.binary(max_size=2_000), st.integers(1, 400), st.integers(1, 3))
@settings(deadline=None, max_examples=100)
def test_a_gzip_stream_gives_back_what_went_in(data: bytes, step: int, members: int) -> None:
    packed = b"".join(gzip.compress(data) for _ in range(members))
    stream = GzipStream()
    out = b""
    for at in range(0, len(packed), step):
        stream.feed(packed[at : at + step])
        while stream.has_more:
            out += stream.bite()
    assert out == data * members


@given(st.integers(1, 40), st.integers(1, 60))
def test_zeros_behind_a_gzip_member_are_padding(zeros: int, step: int) -> None:
    packed = gzip.compress(b"a\n") + bytes(zeros) + gzip.compress(b"b\n") + bytes(zeros)
    stream = GzipStream()
    out = b""
    for at in range(0, len(packed), step):
        stream.feed(packed[at : at + step])
        while stream.has_more:
            out += stream.bite()
    assert out == b"a\nb\n"


def test_a_bomb_comes_in_bites() -> None:
    stream = GzipStream()
    stream.feed(gzip.compress(b"\0" * 10**7))
    sizes = []
    while stream.has_more:
        sizes.append(len(stream.bite()))
    assert sum(sizes) == 10**7
    assert max(sizes) <= 64 * 2**10
    stream.feed(b"no gzip")
    with pytest.raises(zlib.error):
        stream.bite()


@both_loops
async def test_while_overloaded_lines_wait_with_their_sender_and_none_is_lost() -> None:
    """Over TCP nothing can be answered, but a sender that is not read waits."""
    async with serving() as served:
        _, writer = await served.connect()
        writer.write(b"one\n")
        await served.sink.until(lambda: served.sink.text == b"one\n")
        served.port.set_overloaded(True)
        writer.write(b"two\n")
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert served.sink.text == b"one\n"
        served.port.set_overloaded(False)
        await served.sink.until(lambda: served.sink.text == b"one\ntwo\n")


@both_loops
async def test_lines_over_tcp_cannot_show_a_token_and_are_not_taken(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("one\n")
    async with serving(token_file=str(tokens)) as served:
        reader, writer = await served.connect()
        writer.write(b"a line\n")
        with suppress(ConnectionError):
            assert await reader.read() == b""
        assert served.sink.calls == 0
        assert served.count("connections_closed_total", "no_token") == 1
        reader, writer = await served.connect()
        writer.write(
            b"POST / HTTP/1.1\r\nAuthorization: Bearer one\r\nContent-Length: 2\r\n\r\na\n"
        )
        assert (await reader.readline()).startswith(b"HTTP/1.1 202")
