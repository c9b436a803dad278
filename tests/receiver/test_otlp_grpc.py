"""Calls over gRPC, by grpc's own client: taken, refused in ways that a client understands, and seen off."""

import asyncio
import gzip
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2, health_pb2_grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from tests.receiver.test_credentials import Authority
from tests.receiver.test_http import both_loops
from tracefwd.doorways import Answer, HeldAnswer, IngestAll, Post
from tracefwd.limits import SPANS_PER_BODY_MAX
from tracefwd.receiver import otlp_grpc
from tracefwd.receiver.guard import Guard
from tracefwd.receiver.otlp_grpc import SERVICE, GrpcReceiver
from tracefwd.settings import IntakeTlsSettings, ReceiverSettings

Take = Callable[[bytes, str], Answer | HeldAnswer]
METHOD = f"/{SERVICE}/Export"


def bound() -> socket.socket:
    """As the parent keeps a port: bound, and listening to nobody."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", 0))
    return sock


class Server:
    def __init__(self, receiver: GrpcReceiver, address: str) -> None:
        self.receiver = receiver
        self.address = address
        self.got: list[bytes] = []

    def count(self, code: str) -> float:
        return self.receiver.samples()["tracefwd_receiver_grpc_requests_total"].get((code,), 0)

    @asynccontextmanager
    async def client(
        self, credentials: grpc.ChannelCredentials | None = None, **options: Any
    ) -> AsyncIterator[Any]:
        named = [(f"grpc.{name}", value) for name, value in options.items()]
        # Each client has a connection of its own.
        named.append(("grpc.use_local_subchannel_pool", 1))
        channel = (
            grpc.aio.insecure_channel(self.address, named)
            if credentials is None
            else grpc.aio.secure_channel(self.address, credentials, named)
        )
        async with channel:
            yield channel.unary_unary(METHOD)


@asynccontextmanager
async def serving(
    take: Take = lambda *_: Answer(202), take_all: IngestAll | None = None, **options: Any
) -> AsyncIterator[Server]:
    settings = ReceiverSettings(**options)

    def ingest(body: bytes, content_type: str) -> Answer | HeldAnswer:
        server.got.append(body)
        return take(body, content_type)

    with bound() as sock:
        receiver = GrpcReceiver(settings, ingest, Guard(settings), take_all)
        server = Server(receiver, f"127.0.0.1:{sock.getsockname()[1]}")
        await receiver.start(sock)
        try:
            yield server
        finally:
            async with asyncio.timeout(20):
                await receiver.stop(0)


async def refused(call: Any, body: bytes = b"x", **options: Any) -> tuple[grpc.StatusCode, Status]:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call(body, timeout=10, **options)
    error = raised.value
    details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
    status = Status.FromString(details)
    assert not details or (status.code, status.message) == (error.code().value[0], error.details())
    return error.code(), status


@both_loops
async def test_a_message_is_taken_as_it_is_and_answered_with_an_empty_response() -> None:
    async with serving() as server, server.client() as call:
        for number in range(3):
            response = await call(b"message %d" % number, timeout=10)
            assert ExportTraceServiceResponse.FromString(response) == ExportTraceServiceResponse()
        assert server.got == [b"message 0", b"message 1", b"message 2"]
        assert server.count("OK") == 3
        compressed = await call(b"z" * 5_000, compression=grpc.Compression.Gzip, timeout=10)
        assert (compressed, server.got[-1]) == (b"", b"z" * 5_000)


async def test_of_a_partial_success_number_and_reason_are_told() -> None:
    partly = Answer(202, rejected=2, detail="id: is absent\n")
    async with serving(lambda *_: partly) as server, server.client() as call:
        told = ExportTraceServiceResponse.FromString(await call(b"x", timeout=10)).partial_success
        assert (told.rejected_spans, told.error_message) == (2, "id: is absent")


async def test_what_cannot_be_read_must_not_be_sent_again() -> None:
    async with serving(lambda *_: Answer(400, b"No readable span: why\n")) as server:
        async with server.client() as call:
            code, status = await refused(call)
            assert code is grpc.StatusCode.INVALID_ARGUMENT
            assert status.message == "No readable span: why"
            assert not status.details
        assert server.count("INVALID_ARGUMENT") == 1


async def test_a_shortage_is_unavailable_and_says_when_to_come_again() -> None:
    async with serving() as server, server.client() as call:
        server.receiver.set_overloaded(True)
        code, status = await refused(call)
        assert code is grpc.StatusCode.UNAVAILABLE
        info = RetryInfo()
        assert status.details[0].Unpack(info)
        assert info.retry_delay.seconds > 0
        assert server.got == []
        refusals = server.receiver.samples()["tracefwd_receiver_refused_requests_total"]
        assert refusals == {("memory",): 1}
        server.receiver.set_overloaded(False)
        await call(b"x", timeout=10)


async def test_messages_have_a_limit_also_after_inflation() -> None:
    async with serving(body_bytes_max=10_000) as server, server.client() as call:
        await call(b"x" * 10_000, timeout=10)
        assert (await refused(call, b"x" * 10_001))[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
        code, _ = await refused(call, b"x" * 10**6, compression=grpc.Compression.Gzip)
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert len(gzip.compress(b"x" * 10**6)) < 10_000
        assert len(server.got) == 1


async def test_a_long_message_waits_for_its_turn_and_is_weighed() -> None:
    async with serving() as server, server.client() as call:
        await call(b"x" * 100_000, timeout=10)
        spans = b"\x12\x00" * (SPANS_PER_BODY_MAX + 1)
        for tag in (b"\x12", b"\x0a"):
            spans = (
                tag
                + bytes([len(spans) & 0x7F | 0x80, len(spans) >> 7 & 0x7F | 0x80])
                + bytes([len(spans) >> 14])
                + spans
            )
        code, status = await refused(call, spans)
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "smaller batches" in status.message
        assert not status.details
        assert len(server.got) == 1


async def test_a_bug_of_ours_is_internal_and_costs_one_call() -> None:
    def fail_on(body: bytes, _: str) -> Answer:
        if body == b"bad":
            raise ValueError("oops")
        return Answer(202)

    async with serving(fail_on) as server, server.client() as call:
        assert (await refused(call, b"bad"))[0] is grpc.StatusCode.INTERNAL
        await call(b"good", timeout=10)


@both_loops
async def test_calls_are_gathered_by_number_and_bytes_and_each_gets_its_own_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Time alone would end no bout in this test.
    monkeypatch.setattr(otlp_grpc, "_GATHER_S", 600.0)

    def take(body: bytes, _: str) -> Answer:
        if body == b"7":
            raise RuntimeError("a bug")
        return Answer(202, rejected=int(body.strip()), detail="so many")

    def rejected(response: bytes) -> int:
        return ExportTraceServiceResponse.FromString(response).partial_success.rejected_spans

    async with serving(take) as server, server.client() as call:
        number = otlp_grpc._GATHERED_MAX
        calls = [call(b"%d" % each, timeout=10) for each in range(number)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        failed = answers.pop(7)
        assert isinstance(failed, grpc.aio.AioRpcError)
        assert failed.code() is grpc.StatusCode.INTERNAL
        others = [each for each in range(number) if each != 7]
        assert [rejected(answer) for answer in answers] == others
        # None is long enough for a turn of its own; together they are too long to wait for more.
        bodies = [b"%d" % each + b" " * 40_000 for each in range(1, 8)]
        heavy = await asyncio.gather(*(call(body, timeout=10) for body in bodies))
        assert [rejected(answer) for answer in heavy] == [*range(1, 8)]


async def test_calls_that_came_together_are_taken_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """And one by one where that shows a bug, so that only the call that has it is refused."""
    monkeypatch.setattr(otlp_grpc, "_GATHER_S", 600.0)
    bouts: list[list[bytes]] = []

    def take_all(posts: Sequence[Post]) -> list[Answer | HeldAnswer] | None:
        bouts.append([body for body, _ in posts])
        if bouts[-1][0].startswith(b"bug"):
            return None
        if bouts[-1][0].startswith(b"late"):
            raise RuntimeError("while it was put down")
        return [Answer(202, rejected=len(body), detail="so many") for body, _ in posts]

    def take(body: bytes, _: str) -> Answer:
        if body == b"bug 7":
            raise ValueError("oops")
        return Answer(202)

    async def outcomes(word: str) -> list[Any]:
        calls = [
            call(f"{word} {number}".encode(), timeout=10)
            for number in range(otlp_grpc._GATHERED_MAX)
        ]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        return [each.code() if isinstance(each, grpc.aio.AioRpcError) else each for each in answers]

    async with serving(take, take_all) as server, server.client() as call:
        told = [ExportTraceServiceResponse.FromString(each) for each in await outcomes("good")]
        assert {each.partial_success.rejected_spans for each in told} == {6, 7}
        assert server.got == []
        found = await outcomes("bug")
        assert found.pop(7) is grpc.StatusCode.INTERNAL
        assert set(found) == {b""}
        assert set(await outcomes("late")) == {grpc.StatusCode.INTERNAL}
    assert [len(bout) for bout in bouts] == [otlp_grpc._GATHERED_MAX] * 3


async def test_an_answer_waits_until_the_spans_are_durable() -> None:
    held: list[HeldAnswer] = []
    came = asyncio.Event()

    def take(*_: Any) -> HeldAnswer:
        held.append(HeldAnswer())
        came.set()
        return held[-1]

    async with serving(take) as server, server.client() as call:
        waiting = asyncio.ensure_future(call(b"x", timeout=10))
        async with asyncio.timeout(10):
            await came.wait()
        assert not waiting.done()
        held[0].release(Answer(202, rejected=1, detail="one"))
        response = ExportTraceServiceResponse.FromString(await waiting)
        assert response.partial_success.rejected_spans == 1


async def test_a_client_that_goes_away_while_it_waits_harms_nobody() -> None:
    held: list[HeldAnswer] = []
    came = asyncio.Event()

    def take(body: bytes, _: str) -> Answer | HeldAnswer:
        if body != b"held":
            return Answer(202)
        held.append(HeldAnswer())
        came.set()
        return held[-1]

    async with serving(take) as server, server.client() as call:
        waiting = asyncio.ensure_future(call(b"held", timeout=10))
        async with asyncio.timeout(10):
            await came.wait()
        waiting.cancel()
        await call(b"x", timeout=10)
        held[0].release(Answer(202))
        await call(b"x", timeout=10)


async def test_a_token_is_asked_for_and_renewed(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text("first\n")
    async with serving(token_file=str(file)) as server, server.client() as call:
        assert (await refused(call))[0] is grpc.StatusCode.UNAUTHENTICATED
        shown = [("authorization", "Bearer first")]
        await call(b"x", metadata=shown, timeout=10)
        file.write_text("second token\n".replace(" ", "-"))
        server.receiver._refresh()
        assert (await refused(call, metadata=shown))[0] is grpc.StatusCode.UNAUTHENTICATED
        await call(b"x", metadata=[("authorization", "Bearer second-token")], timeout=10)


async def test_only_allowed_networks_are_served() -> None:
    async with serving(allowed_networks=["10.0.0.0/8"]) as server, server.client() as call:
        code, _ = await refused(call)
        assert code is grpc.StatusCode.PERMISSION_DENIED
        assert server.got == []
    async with serving(allowed_networks=["127.0.0.0/8"]) as server, server.client() as call:
        await call(b"x", timeout=10)


def test_peers_are_read_however_grpc_writes_them() -> None:
    settings = ReceiverSettings(allowed_networks=["10.0.0.0/8", "::1"])
    receiver = GrpcReceiver(settings, lambda *_: Answer(202), Guard(settings))
    for peer in ("ipv4:10.1.2.3:5", "ipv6:[::1]:5", "ipv6:%5B::1%5D:5", "ipv6:[::ffff:10.1.2.3]:5"):
        assert receiver._is_allowed(peer), peer
    for peer in ("ipv4:11.1.2.3:5", "ipv6:[fe80::1%25eth0]:5", "unix:/x", ""):
        assert not receiver._is_allowed(peer), peer


async def test_the_health_service_answers_and_says_when_it_leaves() -> None:
    async with serving() as server, grpc.aio.insecure_channel(server.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for name in ("", SERVICE):
            request = health_pb2.HealthCheckRequest(service=name)
            answer = await stub.Check(request, timeout=10)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        server.receiver.drain()
        async with asyncio.timeout(10):
            while answer.status == health_pb2.HealthCheckResponse.SERVING:
                answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=10)
        assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING


@both_loops
async def test_a_drain_answers_calls_under_way_and_loses_none() -> None:
    held: list[HeldAnswer] = []

    def take(*_: Any) -> HeldAnswer:
        held.append(HeldAnswer())
        asyncio.get_running_loop().call_later(0.01, held[-1].release, Answer(202))
        return held[-1]

    with bound() as sock:
        settings = ReceiverSettings()
        address = f"127.0.0.1:{sock.getsockname()[1]}"
        receivers = [GrpcReceiver(settings, take, Guard(settings)) for _ in range(2)]
        await receivers[0].start(sock)
        answered = 0
        stopping: asyncio.Task[None] | None = None
        async with grpc.aio.insecure_channel(address) as channel:
            method = channel.unary_unary(METHOD)

            async def call(body: bytes) -> bytes:
                """As every exporter does: again after what OTLP calls retryable, which was not taken."""
                try:
                    return await method(body, timeout=10)
                except grpc.aio.AioRpcError as error:
                    if error.code() not in (
                        grpc.StatusCode.CANCELLED,
                        grpc.StatusCode.UNAVAILABLE,
                    ):
                        raise
                    return await call(body)

            await call(b"x")
            for number in range(60):
                calls = [asyncio.ensure_future(call(b"x")) for _ in range(4)]
                if number == 20:
                    # A successor serves at the same port before the first one leaves it.
                    await receivers[1].start(sock)
                    receivers[0].drain()
                    receivers[0].leave_port()
                    stopping = asyncio.ensure_future(receivers[0].stop(0))
                answered += len(await asyncio.gather(*calls))
            assert answered == len(held) - 1 == 240
        assert stopping is not None
        async with asyncio.timeout(10):
            await stopping
            await receivers[1].stop(0)


async def test_a_call_that_never_came_to_us_ends_with_the_drain_and_one_in_our_hands_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(otlp_grpc, "_FORGOTTEN_S", 0.2)
    held, taken = HeldAnswer(), asyncio.Event()

    def take(*_: Any) -> HeldAnswer:
        taken.set()
        return held

    async def silence() -> AsyncIterator[bytes]:
        """Of a message that does not come, as little reaches us as of a call that grpc forgets."""
        await asyncio.Event().wait()
        yield b""

    async with serving(take) as server, grpc.aio.insecure_channel(server.address) as channel:
        lost = channel.stream_unary(METHOD)(silence(), timeout=30)
        await lost.wait_for_connection()
        call = asyncio.ensure_future(channel.unary_unary(METHOD)(b"x", timeout=30))
        await taken.wait()
        server.receiver.leave_port()
        stopping = asyncio.ensure_future(server.receiver.stop(0))
        # So long it would have been cancelled five times, if nothing were in our hands.
        await asyncio.wait([stopping], timeout=1)
        assert not stopping.done()
        assert not lost.done()
        held.release(Answer(202))
        assert await call == b""
        async with asyncio.timeout(10):
            await stopping
            assert await lost.code() == grpc.StatusCode.UNAVAILABLE


async def test_a_port_that_somebody_else_has_is_refused_at_the_start() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = ReceiverSettings()
        receiver = GrpcReceiver(settings, lambda *_: Answer(202), Guard(settings))
        with pytest.raises(Exception, match="--otlp-grpc"):
            await receiver.start(taken)


@pytest.mark.parametrize("mutual", [False, True])
async def test_tls_is_spoken_and_certificates_are_read_again(tmp_path: Path, mutual: bool) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("NO OPENSSL: certificates for the tests of TLS cannot be made")
    authority, other = Authority(tmp_path, "first"), Authority(tmp_path, "second")
    cert, key = authority.issue("server")
    tls = IntakeTlsSettings(
        cert_file=str(cert), key_file=str(key), client_ca_file=str(authority.cert) if mutual else ""
    )
    roots = authority.cert.read_bytes()
    own_cert, own_key = authority.issue("client")
    good = grpc.ssl_channel_credentials(roots, own_key.read_bytes(), own_cert.read_bytes())
    async with serving(tls=tls) as server:
        async with server.client(good) as call:
            await call(b"x", timeout=10)
        if mutual:
            async with server.client(grpc.ssl_channel_credentials(roots)) as call:
                assert (await refused(call))[0] is grpc.StatusCode.UNAVAILABLE
        async with server.client() as call:
            assert (await refused(call))[0] is grpc.StatusCode.UNAVAILABLE
        # Another authority's certificate takes its place while we run.
        new_cert, new_key = other.issue("server")
        new_cert.replace(cert)
        new_key.replace(key)
        renewed = grpc.ssl_channel_credentials(
            other.cert.read_bytes(), own_key.read_bytes(), own_cert.read_bytes()
        )
        async with server.client(renewed) as call:
            await call(b"x", timeout=10)
        assert len(server.got) == 2


def test_grpc_is_loaded_only_by_whom_it_serves() -> None:
    code = (
        "import sys, tracefwd.service.worker_parts as parts, tracefwd.settings as s\n"
        "import tracefwd.receiver.otlp_grpc\n"
        "target = s.TargetSettings(traces='http://127.0.0.1:1', metrics='http://127.0.0.1:1')\n"
        "parts.compose(s.Settings(exporter=s.ExporterSettings(targets=[target])))\n"
        "print([name for name in ('grpc', 'google.protobuf', 'opentelemetry') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
