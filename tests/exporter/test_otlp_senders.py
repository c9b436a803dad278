"""Batches of OTLP records: what is on the wire, and what every answer of a receiver comes to."""

import gzip
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from aiohttp import web
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from grpc import aio
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests.conftest import NOW_US, sidecar_span
from tests.exporter.conftest import FAST, FAST_RETRY, ScriptedTarget, until_true
from tracefwd.exporter import otlp_frames
from tracefwd.exporter.otlp_answers import retry_after_ms
from tracefwd.exporter.otlp_encode import text_field
from tracefwd.exporter.otlp_writer import OtlpWriter
from tracefwd.exporter.target import Target
from tracefwd.model import Decoded, Encoding, Payload, Signal
from tracefwd.processor.istio import make_istio_mapper
from tracefwd.settings import ExporterSettings, MappingSettings, RedSettings, TargetSettings

EXPORTER = ExporterSettings(**FAST, retry=FAST_RETRY)
TRACES = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
METRICS = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"


def spans(number: int) -> Payload:
    mapper = make_istio_mapper(MappingSettings(), RedSettings())
    found = [sidecar_span(span_id=f"{index + 1:016x}", name=f"n{index}") for index in range(number)]
    [payload] = OtlpWriter().write(mapper(Decoded(Encoding.JSON_V2, found), NOW_US).spans)
    return payload


def points(number: int) -> Payload:
    line = otlp_frames.line(b"", text_field(1, "m"), 3)
    return Payload(Signal.POINTS, line * number, number)


@asynccontextmanager
async def running(**settings: Any) -> AsyncIterator[Target]:
    target = Target(TargetSettings(kind="otlp", **settings), EXPORTER)
    await target.start()
    try:
        yield target
    finally:
        await target.drain(1.0)


async def deliver(target: Target, payload: Payload) -> dict[str, Any]:
    target.offer(payload)
    await until_true(lambda: not target.accounts[payload.signal].held())
    return {**target.accounts[payload.signal].show()}


# HTTP


async def test_http_gets_one_gzipped_request_per_signal_at_its_path(
    remote: ScriptedTarget,
) -> None:
    remote.default = 200
    async with running(url=f"{remote.url}/base/") as target:
        assert (await deliver(target, spans(40)))["delivered"] == 40
        assert (await deliver(target, points(2)))["delivered"] == 2
    traces, metrics = remote.requests
    assert (traces.path, metrics.path) == ("/base/v1/traces", "/base/v1/metrics")
    assert traces.headers["Content-Type"] == "application/x-protobuf"
    assert traces.headers["Content-Encoding"] == "gzip"
    request = ExportTraceServiceRequest.FromString(gzip.decompress(traces.raw))
    names = [span.name for part in request.resource_spans for span in part.scope_spans[0].spans]
    assert names == [f"n{index}" for index in range(40)]
    assert len(ExportMetricsServiceRequest.FromString(metrics.body).resource_metrics) == 1


@pytest.mark.parametrize("header", ["Authorization", "x-api-key"])
async def test_the_token_is_where_the_receiver_wants_it(
    remote: ScriptedTarget, tmp_path: Path, header: str
) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    async with running(url=remote.url, token_file=str(token), token_header=header) as target:
        await deliver(target, spans(1))
    expected = "Bearer s3cret" if header == "Authorization" else "s3cret"
    assert remote.requests[0].headers[header] == expected


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (429, "again"),
        (502, "again"),
        (503, "again"),
        (504, "again"),
        (404, "refused"),
        (415, "refused"),
        (500, "refused"),
        (501, "refused"),
    ],
)
async def test_http_statuses_are_taken_as_the_specification_says(
    remote: ScriptedTarget, status: int, outcome: str
) -> None:
    remote.script.append(status)
    remote.default = 200
    async with running(url=remote.url) as target:
        account = await deliver(target, spans(3))
    if outcome == "again":
        assert account["delivered"] == 3
        assert len(remote.requests) == 2
    else:
        assert account["rejected"] == {"refused": 3}
        assert len(remote.requests) == 1


@pytest.mark.parametrize("status", [401, 403])
async def test_refused_credentials_pause_and_keep(remote: ScriptedTarget, status: int) -> None:
    remote.default = status
    async with running(url=remote.url) as target:
        target.offer(spans(3))
        await until_true(lambda: bool(target.problems()))
        assert target.accounts[Signal.SPANS].held() == 3
        assert "token" in target.problems()[0]


async def test_a_bad_record_is_searched_until_it_is_alone(remote: ScriptedTarget) -> None:
    remote.default = 200

    def choose(request: Any) -> web.Response | None:
        if b"n13" not in request.body:
            return None
        # So long that the byte before it, its length, can be read as a letter.
        words = Status(code=3, message="no such thing" * 5).SerializeToString()
        return web.Response(status=400, body=words, content_type="application/x-protobuf")

    remote.choose = choose
    async with running(url=remote.url) as target:
        account = await deliver(target, spans(20))
        assert account["delivered"] == 19
        assert account["rejected"] == {"refused": 1}
        [sample] = target.rejected_samples()
        assert sample["detail"] == "HTTP 400: " + "no such thing" * 5


async def test_halves_are_sent_where_a_request_is_too_large(remote: ScriptedTarget) -> None:
    remote.choose = lambda request: 413 if len(request.body) > 2_000 else 200
    async with running(url=remote.url) as target:
        assert (await deliver(target, spans(20)))["delivered"] == 20
    assert len(remote.requests) > 2


async def test_partial_success_counts_what_was_refused_and_says_why(
    remote: ScriptedTarget,
) -> None:
    told = ExportTraceServiceResponse()
    told.partial_success.rejected_spans = 4
    told.partial_success.error_message = "four are too old"
    remote.script.append(web.Response(status=200, body=told.SerializeToString()))
    async with running(url=remote.url) as target:
        account = await deliver(target, spans(10))
        assert account["delivered"] == 6
        assert account["rejected"] == {"refused": 4}
        assert account["received"] == 10
        assert "four are too old" in str(target.rejected_samples())
        assert any("four are too old" in line for line in target.problems())


async def test_a_partial_success_with_many_words_is_counted_too(remote: ScriptedTarget) -> None:
    told = ExportTraceServiceResponse()
    told.partial_success.rejected_spans = 4
    told.partial_success.error_message = "one is too old; " * 5_000
    remote.script.append(web.Response(status=200, body=told.SerializeToString()))
    async with running(url=remote.url) as target:
        account = await deliver(target, spans(10))
    assert (account["delivered"], account["rejected"]) == (6, {"refused": 4})


async def test_no_more_can_be_refused_than_was_sent(remote: ScriptedTarget) -> None:
    told = ExportMetricsServiceResponse()
    told.partial_success.rejected_data_points = 1_000
    remote.script.append(web.Response(status=200, body=told.SerializeToString()))
    async with running(url=remote.url) as target:
        account = await deliver(target, points(3))
    assert (account["delivered"], account["rejected"]) == (0, {"refused": 3})


async def test_clients_own_span_logs_have_no_place(remote: ScriptedTarget) -> None:
    async with running(url=remote.url) as target:
        target.offer(Payload(Signal.SPAN_LOGS, b"0\n", 1))
        assert target.accounts[Signal.SPAN_LOGS].show()["blocked"] == 1


# gRPC

Reply = Callable[[aio.ServicerContext], Any]


class Receiver:
    """A gRPC server that answers from ``script`` in turn, then with an empty message; bytes in, bytes out."""

    def __init__(self) -> None:
        self.script: list[Reply] = []
        self.requests: list[tuple[str, bytes]] = []
        self.metadata: list[dict[str, Any]] = []

        self._running = AsyncExitStack()

    async def __aenter__(self) -> str:
        return await self._running.enter_async_context(self.secure(None))

    async def __aexit__(self, *_: object) -> None:
        await self._running.aclose()

    @asynccontextmanager
    async def secure(self, credentials: grpc.ServerCredentials | None) -> AsyncIterator[str]:
        """The URL of a server with these credentials."""
        server = aio.server()
        server.add_generic_rpc_handlers((self,))
        if credentials is None:
            port = server.add_insecure_port("127.0.0.1:0")
        else:
            port = server.add_secure_port("127.0.0.1:0", credentials)
        await server.start()
        try:
            yield f"{'http' if credentials is None else 'https'}://127.0.0.1:{port}"
        finally:
            await server.stop(None)

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        async def answer(request: bytes, context: aio.ServicerContext) -> bytes:
            self.requests.append((details.method, request))
            self.metadata.append(dict(context.invocation_metadata() or ()))
            if self.script:
                found = await self.script.pop(0)(context)
                assert isinstance(found, bytes)
                return found
            return b""

        return grpc.unary_unary_rpc_method_handler(answer)


async def test_a_server_at_its_defaults_refuses_no_request_for_its_size() -> None:
    # Each of another resource, so that its message is longer than its line.
    number, item = 4_500, text_field(1, "x" * 1_200)
    lines = [otlp_frames.line(text_field(1, f"{place}"), item) for place in range(number)]
    receiver = Receiver()
    async with receiver as url, running(url=url, protocol="grpc") as target:
        account = await deliver(target, Payload(Signal.SPANS, b"".join(lines), number))
        results = target.samples()["tracefwd_exporter_requests_total"]
    assert account["delivered"] == number
    assert number < EXPORTER.batch_items_max
    assert {result for *_, result in results} == {"delivered"}
    assert len(receiver.requests) > 1


def failing(code: grpc.StatusCode, details: str = "", *, wait_s: float | None = None) -> Reply:
    async def reply(context: aio.ServicerContext) -> bytes:
        trailing: tuple[tuple[str, bytes], ...] = ()
        if wait_s is not None:
            info = RetryInfo(retry_delay=Duration(nanos=int(wait_s * 1e9)))
            packed = AnyMessage()
            packed.Pack(info)
            status = Status(code=code.value[0], details=[packed])
            trailing = (("grpc-status-details-bin", status.SerializeToString()),)
        await context.abort(code, details, trailing)
        raise AssertionError

    return reply


async def test_grpc_gets_one_call_per_batch_and_signal(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret")
    receiver = Receiver()
    async with receiver as url, running(url=url, protocol="grpc", token_file=str(token)) as target:
        assert (await deliver(target, spans(40)))["delivered"] == 40
        assert (await deliver(target, points(2)))["delivered"] == 2
    (traces, body), (metrics, _) = receiver.requests
    assert (traces, metrics) == (TRACES, METRICS)
    assert (
        len(ExportTraceServiceRequest.FromString(body).resource_spans[0].scope_spans[0].spans) == 40
    )
    assert receiver.metadata[0]["authorization"] == "Bearer s3cret"
    assert receiver.metadata[0]["user-agent"].startswith("tracefwd/")


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (failing(grpc.StatusCode.UNAVAILABLE), "again"),
        (failing(grpc.StatusCode.DEADLINE_EXCEEDED), "again"),
        (failing(grpc.StatusCode.ABORTED), "again"),
        (failing(grpc.StatusCode.DATA_LOSS), "again"),
        (failing(grpc.StatusCode.RESOURCE_EXHAUSTED, wait_s=0.01), "again"),
        (failing(grpc.StatusCode.RESOURCE_EXHAUSTED, "quota"), "refused"),
        (failing(grpc.StatusCode.UNIMPLEMENTED), "refused"),
        (failing(grpc.StatusCode.INTERNAL), "refused"),
        (failing(grpc.StatusCode.UNKNOWN), "refused"),
    ],
)
async def test_grpc_statuses_are_taken_as_the_specification_says(
    reply: Reply, outcome: str
) -> None:
    receiver = Receiver()
    receiver.script.append(reply)
    async with receiver as url, running(url=url, protocol="grpc") as target:
        account = await deliver(target, spans(3))
    if outcome == "again":
        assert account["delivered"] == 3
        assert len(receiver.requests) == 2
    else:
        assert account["rejected"] == {"refused": 3}
        assert len(receiver.requests) == 1


async def test_refused_credentials_over_grpc_pause_and_keep() -> None:
    receiver = Receiver()
    receiver.script += [failing(grpc.StatusCode.UNAUTHENTICATED)] * 9
    async with receiver as url, running(url=url, protocol="grpc") as target:
        target.offer(spans(3))
        await until_true(lambda: bool(target.problems()))
        assert target.accounts[Signal.SPANS].held() == 3
        assert "UNAUTHENTICATED" in target.problems()[0]


async def test_what_never_left_for_want_of_a_connection_is_not_maybe_doubled() -> None:
    async with running(url="http://127.0.0.1:1", protocol="grpc") as target:
        target.offer(spans(3))
        attempts = ("primary", "spans", "grpc_unavailable")
        await until_true(
            lambda: target.samples()["tracefwd_exporter_requests_total"].get(attempts, 0) > 2
        )
        assert target.again[Signal.SPANS].items == 0


async def test_a_message_above_the_servers_limit_goes_in_halves() -> None:
    receiver = Receiver()
    too_large = "Received message larger than max (5000 vs. 4096)"
    receiver.script.append(failing(grpc.StatusCode.RESOURCE_EXHAUSTED, too_large))
    async with receiver as url, running(url=url, protocol="grpc") as target:
        assert (await deliver(target, spans(8)))["delivered"] == 8
    assert len(receiver.requests) == 3


async def test_partial_success_over_grpc_is_counted() -> None:
    told = ExportTraceServiceResponse()
    told.partial_success.rejected_spans = 1
    told.partial_success.error_message = "no room"

    async def reply(_: aio.ServicerContext) -> bytes:
        return told.SerializeToString()

    receiver = Receiver()
    receiver.script.append(reply)
    async with receiver as url, running(url=url, protocol="grpc") as target:
        account = await deliver(target, spans(3))
        assert (account["delivered"], account["rejected"]) == (2, {"refused": 1})


def test_a_wait_is_never_negative_and_never_longer_than_ours() -> None:
    def asked(seconds: int) -> int | None:
        packed = AnyMessage()
        packed.Pack(RetryInfo(retry_delay=Duration(seconds=seconds)))
        return retry_after_ms(Status(details=[packed]).SerializeToString())

    assert [asked(seconds) for seconds in (-5, 2, 10**9)] == [0, 2_000, 300_000]
    assert retry_after_ms(Status(message="x").SerializeToString()) is None
    assert retry_after_ms(b"\xff\xff") is None


def test_nothing_of_otlp_is_loaded_for_a_wavefront_target() -> None:
    program = (
        "import sys; from tracefwd.exporter.target import Target;"
        "from tracefwd.settings import ExporterSettings, TargetSettings;"
        "import tracefwd.compose;"
        "Target(TargetSettings(traces='http://127.0.0.1:1'), ExporterSettings());"
        "print([name for name in ('grpc', 'google.protobuf', 'opentelemetry') if name in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert found.stdout == "[]\n"
