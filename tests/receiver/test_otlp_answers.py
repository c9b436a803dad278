"""Clients that export by OTLP over HTTP are answered as the specification says, in their request's encoding."""

import asyncio
import gzip
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceResponse,
)

from tests.receiver.test_http import Client, Reply, Server, both_loops, chunked, post
from tracefwd.doorways import Answer, HeldAnswer
from tracefwd.limits import SPANS_PER_BODY_MAX
from tracefwd.receiver.http import HttpReceiver
from tracefwd.receiver.otlp_answers import JSON, PROTOBUF, otlp_only
from tracefwd.receiver.weight import too_heavy_otlp
from tracefwd.settings import ReceiverSettings

Take = Callable[[bytes, str], Answer | HeldAnswer]


@asynccontextmanager
async def serving(
    take: Take = lambda *_: Answer(202), *, own_port: bool = True, **options: Any
) -> AsyncIterator[Server]:
    got: list[tuple[bytes, str]] = []

    def otlp(body: bytes, content_type: str) -> Answer | HeldAnswer:
        got.append((body, content_type))
        return take(body, content_type)

    def zipkin(body: bytes, content_type: str) -> Answer:
        got.append((b"zipkin:" + body, content_type))
        return Answer(202)

    settings = ReceiverSettings(**options)
    if own_port:
        receiver = HttpReceiver(settings, otlp, handlers=otlp_only(otlp))
    else:
        receiver = HttpReceiver(settings, zipkin, otlp=otlp)
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    server = Server(receiver, sock.getsockname()[1], got)
    await receiver.start(sock)
    try:
        yield server
    finally:
        for client in server.clients:
            client.close()
        await receiver.stop(0)


def traces(body: bytes, kind: str = PROTOBUF, *, path: str = "/v1/traces", more: str = "") -> bytes:
    return post(body, headers=f"Content-Type: {kind}\r\n{more}").replace(
        b"/api/v2/spans", path.encode()
    )


def said(reply: Reply, kind: str) -> Any:
    """The status that a refusal is, in the encoding that it says it has."""
    assert reply.headers["content-type"] == kind
    if kind == JSON:
        return json.loads(reply.body)
    status = Status.FromString(reply.body)
    return {"code": status.code, "message": status.message}


@both_loops
@pytest.mark.parametrize("own_port", [True, False])
async def test_what_is_taken_is_answered_in_the_encoding_it_came_in(own_port: bool) -> None:
    async with serving(own_port=own_port) as server:
        client = await server.connect()
        for _ in range(3):
            reply = await client.ask(traces(b"proto"))
            assert (reply.status, reply.headers["content-type"]) == (200, PROTOBUF)
            assert ExportTraceServiceResponse.FromString(reply.body) == ExportTraceServiceResponse()
        reply = await client.ask(traces(b"{}", f"{JSON}; charset=utf-8", path="/v1/traces/?a=b"))
        assert (reply.status, reply.headers["content-type"], reply.body) == (200, JSON, b"{}")
        reply = await client.ask(traces(gzip.compress(b"small"), more="Content-Encoding: gzip\r\n"))
        assert reply.status == 200
        assert server.bodies == [b"proto", b"proto", b"proto", b"{}", b"small"]
        assert server.count("requests_total", "200") == 5


@both_loops
async def test_envoys_repeated_head_gets_the_same_answer_by_the_express_lane() -> None:
    async with serving(own_port=False) as server:
        client = await server.connect()
        request = chunked(b"spans", headers=f"content-type: {PROTOBUF}\r\n").replace(
            b"/api/v2/spans", b"/v1/traces"
        )
        answers = [await client.ask(request) for _ in range(4)]
        assert {(reply.status, reply.headers["content-type"]) for reply in answers} == {
            (200, PROTOBUF)
        }
        zipkin = chunked(b"[]")
        assert [(await client.ask(zipkin)).status for _ in range(3)] == [202] * 3
        assert (await client.ask(request)).status == 200


@both_loops
@pytest.mark.parametrize("kind", [PROTOBUF, JSON])
async def test_of_a_partial_success_number_and_reason_are_told(kind: str) -> None:
    partly = Answer(202, rejected=3, detail="No readable span: id: is absent\n")
    async with serving(lambda *_: partly) as server:
        client = await server.connect()
        for _ in range(2):
            reply = await client.ask(traces(b"x", kind))
            assert reply.status == 200
            if kind == JSON:
                partial = json.loads(reply.body)["partialSuccess"]
                assert partial["rejectedSpans"] == "3"
                assert partial["errorMessage"] == partly.detail.strip()
            else:
                told = ExportTraceServiceResponse.FromString(reply.body).partial_success
                assert (told.rejected_spans, told.error_message) == (3, partly.detail.strip())


@both_loops
@pytest.mark.parametrize("kind", [PROTOBUF, JSON])
async def test_every_refusal_is_a_status_in_the_requests_encoding(kind: str) -> None:
    async with serving(lambda *_: Answer(400, b"no span\n"), body_bytes_max=1_000) as server:
        client = await server.connect()

        async def refused(request: bytes) -> tuple[int, int, str]:
            reply = await client.ask(request)
            status = said(reply, kind)
            assert status["message"]
            assert "retry-after" not in reply.headers
            return reply.status, status["code"], status["message"]

        assert (await refused(traces(b"x", kind)))[:2] == (400, 3)
        broken = traces(b"not gzip", kind, more="Content-Encoding: gzip\r\n")
        assert (await refused(broken))[:2] == (400, 3)
        odd = traces(b"x", kind, more="Content-Encoding: br\r\n")
        assert (await refused(odd))[:2] == (415, 3)
        bomb = traces(gzip.compress(b"x" * 5_000), kind, more="Content-Encoding: gzip\r\n")
        assert (await refused(bomb))[:2] == (413, 8)
        elsewhere = await refused(traces(b"x", kind, path="/v1/metrics"))
        assert elsewhere[:2] == (404, 5)
        assert "/v1/traces" in elsewhere[2]
        got = await refused(traces(b"", kind).replace(b"POST", b"GET"))
        assert got[:2] == (405, 12)
        # The last one ends the connection.
        assert (await refused(traces(b"x" * 2_000, kind)))[:2] == (413, 8)


@both_loops
async def test_a_body_of_another_kind_is_told_what_is_read_here() -> None:
    async with serving() as server:
        client = await server.connect()
        reply = await client.ask(traces(b"x", "text/plain"))
        assert reply.status == 415
        assert PROTOBUF in said(reply, PROTOBUF)["message"]
        assert server.got == []
        assert (await client.ask(post(b"x").replace(b"/api/v2/spans", b"/v1/traces"))).status == 200


@both_loops
async def test_a_shortage_is_retryable_and_says_when() -> None:
    async with serving() as server:
        client = await server.connect()
        assert (await client.ask(traces(b"x"))).status == 200
        server.receiver.set_overloaded(True)
        for kind in (PROTOBUF, JSON):
            reply = await client.ask(traces(b"x", kind))
            assert reply.status == 503
            assert int(reply.headers["retry-after"]) > 0
            assert said(reply, kind)["code"] == 14
        late = await server.connect()
        reply = await late.reply()
        assert (reply.status, said(reply, PROTOBUF)["code"]) == (503, 14)
        server.receiver.set_overloaded(False)
        assert (await client.ask(traces(b"x"))).status == 200


@both_loops
async def test_an_answer_waits_until_the_spans_are_durable() -> None:
    held: list[HeldAnswer] = []

    def take(_: bytes, __: str) -> HeldAnswer:
        held.append(HeldAnswer())
        return held[-1]

    async with serving(take) as server:
        client = await server.connect()
        client.send(traces(b"1") + traces(b"2", JSON))
        while len(held) < 2:
            await asyncio_tick()
        held[1].release(Answer(202))
        held[0].release(Answer(202, rejected=1, detail="one"))
        first, second = await client.reply(), await client.reply()
        assert ExportTraceServiceResponse.FromString(first.body).partial_success.rejected_spans == 1
        assert (second.headers["content-type"], second.body) == (JSON, b"{}")


async def asyncio_tick() -> None:
    await asyncio.sleep(0)


async def test_a_token_is_asked_for_here_too(tmp_path: Any) -> None:
    file = tmp_path / "tokens"
    file.write_text("secret\n")
    async with serving(token_file=str(file)) as server:
        client: Client = await server.connect()
        reply = await client.ask(traces(b"x"))
        assert (reply.status, said(reply, PROTOBUF)["code"]) == (401, 16)
        assert (
            await client.ask(traces(b"x", more="Authorization: Bearer secret\r\n"))
        ).status == 200


def test_bodies_of_too_many_spans_are_weighed_before_they_are_read() -> None:
    span = b"\x12\x00"

    def framed(tag: bytes, inner: bytes) -> bytes:
        size, out = len(inner), bytearray()
        while size > 0x7F:
            out.append(size & 0x7F | 0x80)
            size >>= 7
        return tag + bytes([*out, size]) + inner

    def request(number: int) -> bytes:
        return framed(b"\x0a", framed(b"\x12", span * number))

    assert too_heavy_otlp(request(SPANS_PER_BODY_MAX)) == ""
    assert "spans" in too_heavy_otlp(request(SPANS_PER_BODY_MAX + 1))
    half = request(SPANS_PER_BODY_MAX // 2 + 1)
    assert "spans" in too_heavy_otlp(half + half)
    assert too_heavy_otlp(half + b"\xff" * 50) == ""
    many = b'{"traceId":1}' * (SPANS_PER_BODY_MAX + 1)
    assert "spans" in too_heavy_otlp(b'{"resourceSpans":' + many)
