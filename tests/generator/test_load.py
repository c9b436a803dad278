"""Promises of the sender: posts leave on time and as Envoy frames them, and every one is accounted for."""

import asyncio
import json
import math
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracefwd.doorways import Answer
from tracefwd.generator import load
from tracefwd.generator.load import GenOptions, generate
from tracefwd.generator.report import Latencies, Report
from tracefwd.receiver.decode import make_decode
from tracefwd.receiver.guard import Guard
from tracefwd.receiver.http import HttpReceiver
from tracefwd.receiver.otlp_decode import make_any_decode, make_otlp_decode
from tracefwd.receiver.otlp_grpc import GrpcReceiver
from tracefwd.settings import ReceiverSettings

FIXTURES = Path(__file__).parent.parent / "fixtures" / "envoy"
ACCEPTED = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"
CLOSING = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
CONTRACT = ["sent", "acked", "non_202", "connect_errors", "p50_ms", "p99_ms", "max_ms", "cpu_s"]


class Receiver:
    """Answers the n-th post with ``answer(n)``: bytes, or None to break off."""

    def __init__(self, answer: Callable[[int], bytes | None]) -> None:
        self.answer = answer
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.connections = 0
        self.at_once = 0
        self.most_at_once = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.stall_s = 0.0
        self.stall_spans = 0
        self.stall_blocking_s = 0.0
        self.closes_after_answer = False
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while await self._one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        size = int(await reader.readuntil(b"\r\n"), 16)
        body = await reader.readexactly(size)
        assert await reader.readexactly(7) == b"\r\n0\r\n\r\n"
        number = len(self.bodies)
        self.heads.append(head)
        self.bodies.append(body)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        if self.stall_s and number == 0:
            asyncio.get_running_loop().call_later(self.stall_s, self.gate.set)
        if self.stall_spans and self.spans == self.stall_spans:
            time.sleep(self.stall_blocking_s)  # noqa: ASYNC251 - as a frozen machine does
            self.gate.set()
        await self.gate.wait()
        self.at_once -= 1
        answer = self.answer(number)
        if answer is None:
            return False
        writer.write(answer)
        await writer.drain()
        return not self.closes_after_answer

    def stall(self, *, seconds: float = 0.0, spans: int = 0, blocking_s: float = 0.0) -> None:
        """Answer nobody for so long after the first post, or until so many spans are there."""
        self.gate.clear()
        self.stall_s = seconds
        self.stall_spans = spans
        self.stall_blocking_s = blocking_s

    @property
    def spans(self) -> int:
        return sum(len(json.loads(body)) for body in self.bodies)


@asynccontextmanager
async def receiving(
    answer: Callable[[int], bytes | None] = lambda _: ACCEPTED,
) -> AsyncIterator[Receiver]:
    receiver = Receiver(answer)
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    receiver.url = f"http://127.0.0.1:{port}"
    try:
        yield receiver
    finally:
        server.close()


def options(to: str, **more: object) -> GenOptions:
    base = GenOptions(to=to, rate=2_000, seconds=0.3, connections=4, seed=1, json=False)
    return replace(base, **more)  # type: ignore[arg-type]


async def test_exactly_the_rate_times_the_seconds_is_sent_and_acknowledged() -> None:
    async with receiving() as receiver:
        report = await generate(options(receiver.url))
    assert report.scheduled == report.sent == report.acked == receiver.spans == 600
    assert report.statuses == {202: len(receiver.bodies)}
    assert report.latencies.count == report.posts == len(receiver.bodies)
    assert report.complete
    assert report.in_flight == report.posts_lost == 0


async def test_posts_are_never_sent_before_their_time() -> None:
    async with receiving() as receiver:
        started = time.perf_counter()
        await generate(options(receiver.url, rate=500, seconds=0.4))
    # The last of 200 spans' posts is due when its first span is: at most 5 spans before the end.
    assert time.perf_counter() - started >= 195 / 500


async def test_a_post_is_framed_as_envoy_frames_it() -> None:
    async with receiving() as receiver:
        await generate(options(f"{receiver.url}", seconds=0.05))
    captured = json.loads((FIXTURES / "json-batch-5.headers.json").read_bytes())
    line, *headers = receiver.heads[0].decode().split("\r\n")[:-2]
    assert line == captured["request_line"]
    ours = dict(header.split(": ", 1) for header in headers)
    assert list(ours) == [name for name, _ in captured["headers"]]
    varying = {"host": "127.0.0.1", "x-forwarded-for": ours["x-forwarded-for"]}
    assert ours == dict(captured["headers"]) | varying
    spans = json.loads(receiver.bodies[0])
    assert spans[0]["localEndpoint"]["ipv4"] == ours["x-forwarded-for"]


async def test_path_and_query_of_the_url_are_kept() -> None:
    async with receiving() as receiver:
        await generate(options(f"{receiver.url}/in/spans?token=x", seconds=0.01))
    assert receiver.heads[0].startswith(b"POST /in/spans?token=x HTTP/1.1\r\n")


async def test_all_kept_connections_are_used_and_no_more() -> None:
    async with receiving() as receiver:
        report = await generate(options(receiver.url, rate=1_000, connections=9))
    assert report.connections_opened == receiver.connections >= 9
    assert report.connections_opened - report.connections_extra == 9


async def test_a_stall_is_seen_by_all_posts_that_it_held_up() -> None:
    async with receiving() as receiver:
        receiver.stall(seconds=0.25)
        report = await generate(options(receiver.url, seconds=0.25))
    assert report.complete
    # Evenly over the stall: the median post waited half of it, the first nearly all.
    assert report.latencies.percentile_ms(0.5) > 60
    assert report.latencies.max_s > 0.2


async def test_a_stall_opens_further_connections_and_posts_keep_leaving() -> None:
    async with receiving() as receiver:
        receiver.stall(spans=400)
        report = await generate(options(receiver.url, seconds=0.2))
    assert receiver.most_at_once == report.posts
    assert report.connections_extra == report.posts - 4


async def test_latency_counts_from_the_schedule_when_no_connection_is_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(load, "EXTRA_CONNECTIONS_MAX", 0)
    async with receiving() as receiver:
        receiver.stall(seconds=0.25)
        report = await generate(options(receiver.url, seconds=0.25))
    assert receiver.connections == receiver.most_at_once == 4
    assert report.complete
    assert report.late_posts > report.posts / 2
    assert report.latencies.percentile_ms(0.5) > 60
    assert report.answers.percentile_ms(0.5) < report.latencies.percentile_ms(0.5)


async def test_what_finds_no_connection_in_time_overflows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "EXTRA_CONNECTIONS_MAX", 0)
    monkeypatch.setattr(load, "POST_TIMEOUT_S", 0.3)
    async with receiving() as receiver:
        receiver.gate.clear()
        report = await generate(options(receiver.url, seconds=0.1))
        receiver.gate.set()
    assert report.overflowed > 0
    assert report.timeouts == report.unanswered == report.posts > 0
    assert report.acked == 0
    assert report.latencies.max_s >= 0.3
    assert report.in_flight == 0


async def test_a_stall_of_the_senders_own_loses_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "POST_TIMEOUT_S", 0.3)
    async with receiving() as receiver:
        # Eight posts wait, then nobody in this process gets a turn for two time-outs, then all are answered.
        receiver.stall(spans=40, blocking_s=0.6)
        report = await generate(options(receiver.url, rate=400))
    assert report.timeouts == report.unanswered == 0
    assert report.acked == report.sent == receiver.spans
    assert report.latencies.max_s > 0.5


@pytest.mark.parametrize("closes", [True, False])
async def test_connection_close_is_honoured_without_loss(closes: bool) -> None:
    async with receiving(lambda number: CLOSING if number % 3 == 0 else ACCEPTED) as receiver:
        # Whether or not the receiver closes by itself, nothing may follow the announcement.
        receiver.closes_after_answer = closes
        report = await generate(options(receiver.url, rate=1_000))
    closings = (len(receiver.bodies) + 2) // 3
    assert closings > 10
    assert report.connections_opened > closings - 4
    if not closes:
        assert report.complete


async def test_other_answers_are_counted_by_status_and_not_repeated() -> None:
    answers = [
        ACCEPTED,
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 503 Service Unavailable\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nbad\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
    ]
    async with receiving(lambda number: answers[number % 5]) as receiver:
        report = await generate(options(receiver.url))
    posts = len(receiver.bodies)
    per_answer = Counter(number % 5 for number in range(posts))
    assert report.statuses == {
        202: per_answer[0] + per_answer[3],
        200: per_answer[1],
        503: per_answer[2],
        204: per_answer[4],
    }
    assert report.non_202 == per_answer[1] + per_answer[2] + per_answer[4]
    assert report.sent == 600 > report.acked
    assert not report.complete


async def test_an_answer_that_ends_with_the_connection_counts() -> None:
    async with receiving(lambda _: b"HTTP/1.0 500 Oh\r\n\r\nsorry") as receiver:
        receiver.closes_after_answer = True
        report = await generate(options(receiver.url, seconds=0.1))
    assert report.statuses == {500: report.posts}
    assert f"answers by status: 500 ({report.posts:,})" in list(report.lines())
    assert report.unanswered == 0


@pytest.mark.parametrize("broken", [None, b"\x00\x01 no HTTP\r\n\r\n", b"HTTP/1.1 202"])
async def test_posts_without_an_answer_are_counted(broken: bytes | None) -> None:
    async with receiving(lambda _: broken) as receiver:
        receiver.closes_after_answer = True
        report = await generate(options(receiver.url, seconds=0.1))
    assert report.unanswered == report.posts == len(receiver.bodies)
    assert report.acked == report.in_flight == 0
    assert not report.complete


async def test_a_refused_connection_is_counted_for_every_post() -> None:
    async with receiving() as receiver:
        pass
    report = await generate(options(receiver.url, seconds=0.1))
    assert report.scheduled == 200
    assert report.connect_errors >= 40
    assert report.sent == report.posts == report.in_flight == 0
    assert sum(report.errors.values()) == report.connect_errors


async def test_a_receiver_that_comes_back_is_found_again() -> None:
    async with receiving(lambda number: None if number < 10 else ACCEPTED) as receiver:
        report = await generate(options(receiver.url))
    assert report.unanswered == 10
    assert report.posts == report.unanswered + report.statuses[202]


async def test_a_closed_loop_keeps_one_post_on_each_connection() -> None:
    async with receiving() as receiver:
        report = await generate(options(receiver.url, closed=True, seconds=0.2))
    assert receiver.connections == 4
    assert receiver.most_at_once <= 4
    assert report.acked == report.scheduled == receiver.spans > 0


async def test_a_closed_loop_survives_a_receiver_that_refuses() -> None:
    async with receiving() as receiver:
        pass
    report = await generate(options(receiver.url, closed=True, seconds=0.1))
    assert report.connect_errors > 0
    assert report.connect_errors < 100


async def test_stop_ends_an_endless_run() -> None:
    stop = asyncio.Event()
    async with receiving(lambda number: stop.set() if number == 20 else ACCEPTED) as receiver:  # type: ignore[func-returns-value]
        report = await generate(options(receiver.url, seconds=float("inf")), stop=stop)
    assert report.posts >= 20
    assert report.unanswered == 1
    assert report.in_flight == 0


async def test_progress_is_told_every_second_while_running() -> None:
    seen: list[int] = []

    def progress(report: Report) -> None:
        seen.append(report.sent)
        assert str(f"{report.sent:,} sent") in report.progress()

    async with receiving() as receiver:
        await generate(options(receiver.url, rate=100, seconds=1.5), progress=progress)
    assert len(seen) == 1
    assert 0 < seen[0] < 150


# --- the command ---------------------------------------------------------------------------------


@pytest.fixture
def receiver_thread() -> Iterator[Callable[[Callable[[int], bytes | None]], Receiver]]:
    """Starts a receiver beside the test, which itself has the main thread, where signals arrive."""
    stops: list[Callable[[], object]] = []

    def start(answer: Callable[[int], bytes | None]) -> Receiver:
        started: Future[tuple[Receiver, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

        async def serve() -> None:
            async with receiving(answer) as receiver:
                stop = asyncio.Event()
                started.set_result((receiver, asyncio.get_running_loop(), stop))
                await stop.wait()

        thread = threading.Thread(target=lambda: asyncio.run(serve()))
        thread.start()
        receiver, loop, stop = started.result(10)
        stops.append(lambda: (loop.call_soon_threadsafe(stop.set), thread.join(10)))
        return receiver

    yield start
    for stop in stops:
        stop()


def test_json_has_the_contract_keys_first_and_alone_on_stdout(
    receiver_thread: Callable[..., Receiver], capsys: pytest.CaptureFixture[str]
) -> None:
    receiver = receiver_thread(lambda _: ACCEPTED)
    assert load.run(options(receiver.url, json=True)) == 0
    out = json.loads(capsys.readouterr().out)
    assert list(out)[:8] == CONTRACT
    assert out["sent"] == out["acked"] == receiver.spans == 600
    assert out["non_202"] == out["connect_errors"] == 0
    assert 0 < out["p50_ms"] <= out["p99_ms"] <= out["max_ms"]
    assert out["cpu_s"] > 0


def test_text_and_progress_are_for_people(
    receiver_thread: Callable[..., Receiver], capsys: pytest.CaptureFixture[str]
) -> None:
    receiver = receiver_thread(lambda _: ACCEPTED)
    assert load.run(options(receiver.url, rate=100, seconds=1.3)) == 0
    out, err = capsys.readouterr()
    assert out.startswith("sent 130 spans")
    assert "acknowledged 130" in out
    assert err.count("\n") == 1
    assert "\r" not in err


def test_exit_code_1_when_not_all_was_acknowledged(
    receiver_thread: Callable[..., Receiver], capsys: pytest.CaptureFixture[str]
) -> None:
    receiver = receiver_thread(lambda number: ACCEPTED if number else None)
    assert load.run(options(receiver.url, seconds=0.1)) == 1
    assert "without an answer: 1" in capsys.readouterr().out


def test_exit_code_1_and_a_hint_when_nobody_listens(capsys: pytest.CaptureFixture[str]) -> None:
    # Port 1 is nobody's.
    assert load.run(options("http://127.0.0.1:1", seconds=0.05)) == 1
    out, err = capsys.readouterr()
    assert "is a receiver listening at http://127.0.0.1:1?" in err
    assert "refused" in out


def test_a_signal_ends_the_run_with_its_report(
    receiver_thread: Callable[..., Receiver], capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(number: int) -> bytes:
        if number == 10:
            os.kill(os.getpid(), signal.SIGINT)
        return ACCEPTED

    receiver = receiver_thread(answer)
    assert load.run(options(receiver.url, seconds=600.0, json=True)) == 0
    out = json.loads(capsys.readouterr().out)
    assert out["sent"] == out["acked"] == receiver.spans >= 50


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        ({"to": "ftp://127.0.0.1:1"}, "expected http://HOST:PORT"),
        ({"to": "127.0.0.1:9411"}, "expected http://HOST:PORT"),
        ({"to": "http://127.0.0.1:99999"}, "ort out of range"),
        ({"to": "http://127.0.0.1:port"}, "ort could not be cast"),
        ({"to": "http://user@127.0.0.1:1"}, "a user or a fragment"),
        ({"to": "http://127.0.0.1:1/a b"}, "percent-encoded"),
        ({"to": "http://a..b:1/"}, "a..b"),
        ({"rate": 0.0}, "--rate"),
        ({"rate": float("nan")}, "--rate"),
        ({"seconds": 0.0}, "--seconds"),
        ({"connections": 0}, "--connections"),
    ],
)
def test_options_that_cannot_be_used_exit_2_and_say_why(
    bad: dict[str, object], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert load.run(replace(options("http://127.0.0.1:1"), **bad)) == 2  # type: ignore[arg-type]
    out, err = capsys.readouterr()
    assert out == ""
    assert complaint in err


# --- latencies -----------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 100), min_size=1, max_size=200), st.sampled_from([0.5, 0.99]))
@settings(deadline=None, max_examples=100)
def test_percentiles_are_within_half_a_percent_above(values: list[float], share: float) -> None:
    latencies = Latencies()
    for value in values:
        latencies.add(value)
    exact_ms = sorted(values)[math.ceil(share * len(values)) - 1] * 1e3
    found_ms = latencies.percentile_ms(share)
    assert exact_ms * 0.9999 - 0.001 <= found_ms <= exact_ms * 1.0051 + 0.002


def test_without_answers_latencies_are_zero() -> None:
    assert Latencies().percentile_ms(0.99) == 0


# --- other formats --------------------------------------------------------------------------------


@asynccontextmanager
async def taking_otlp(
    answer: Callable[[], Answer] = lambda: Answer(202),
) -> AsyncIterator[tuple[list[bytes], dict[str, str]]]:
    """The real receivers; bodies, and where each protocol is taken."""
    bodies: list[bytes] = []

    def take(body: bytes, _: str) -> Answer:
        bodies.append(body)
        return answer()

    settings = ReceiverSettings()
    guard = Guard(settings)
    http, over_grpc = socket.socket(), socket.socket()
    over_grpc.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    for sock in (http, over_grpc):
        sock.bind(("127.0.0.1", 0))
    urls = [f"http://127.0.0.1:{sock.getsockname()[1]}" for sock in (http, over_grpc)]
    receivers = [
        HttpReceiver(settings, take, otlp=take, guard=guard),
        GrpcReceiver(settings, take, guard),
    ]
    for receiver, sock in zip(receivers, (http, over_grpc), strict=True):
        await receiver.start(sock)
    try:
        yield bodies, {"zipkin-proto": urls[0], "otlp-http": urls[0], "otlp-grpc": urls[1]}
    finally:
        for receiver in receivers:
            await receiver.stop(0)
        over_grpc.close()


@pytest.mark.parametrize(
    ("protocol", "status"), [("zipkin-proto", 202), ("otlp-http", 200), ("otlp-grpc", 0)]
)
async def test_each_protocol_is_sent_and_acknowledged(protocol: str, status: int) -> None:
    async with taking_otlp() as (bodies, urls):
        report = await generate(options(urls[protocol], protocol=protocol))
    assert report.scheduled == report.sent == report.acked == 600
    assert report.statuses == {status: len(bodies)}
    assert report.complete
    decode = make_any_decode(make_decode(), make_otlp_decode())
    assert sum(len(decode(body, "").spans) for body in bodies) == 600


@pytest.mark.parametrize(("protocol", "status"), [("otlp-http", 503), ("otlp-grpc", 14)])
async def test_what_is_not_taken_counts_as_such(protocol: str, status: int) -> None:
    async with taking_otlp(lambda: Answer(503, b"no")) as (bodies, urls):
        report = await generate(options(urls[protocol], protocol=protocol, seconds=0.1))
    assert report.acked == 0
    assert report.statuses == {status: len(bodies)}
    assert not report.complete


async def test_nobody_at_grpcs_port_is_a_connection_that_was_refused() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        report = await generate(options(url, protocol="otlp-grpc", seconds=0.05))
    assert report.acked == 0
    assert report.connect_errors
