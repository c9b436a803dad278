"""OTLP at a running service: its three ways in, two workers, what the stand-in got out, and a reload in between."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import aiohttp
import grpc.aio
import pytest

from tracefwd.emulator.server import Emulator
from tracefwd.errors import ConfigError
from tracefwd.receiver.otlp_decode import without_frame
from tracefwd.receiver.otlp_grpc import SERVICE
from tracefwd.service import config
from tracefwd.service.supervisor import Service
from tracefwd.service.tally import balance

LOOPBACK = "127.0.0.1:0"
ENVOY = Path(__file__).parent.parent / "fixtures" / "envoy"
BATCH = (ENVOY / "otlp-http-batch.bin").read_bytes()
FRAMED = without_frame((ENVOY / "otlp-grpc-batch.bin").read_bytes())
PROTOBUF = {"Content-Type": "application/x-protobuf"}


def loaded(emulator: Emulator, **flags: Any) -> config.Loaded:
    base = {
        "--listen": LOOPBACK,
        "--otlp-http": LOOPBACK,
        "--otlp-grpc": LOOPBACK,
        "--admin": LOOPBACK,
        "--proxy-traces": emulator.trace_url,
        "--proxy-metrics": emulator.url,
        # Clients are lingered for in proportion.
        "service.drain_timeout": "2s",
    }
    return config.load(None, {}, base | flags)


async def post(url: str, body: bytes) -> tuple[int, str, bytes]:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/v1/traces", data=body, headers=PROTOBUF) as answer,
    ):
        return answer.status, answer.content_type, await answer.read()


async def export(service: Service, *bodies: bytes) -> list[bytes]:
    address = service.otlp_grpc_url.partition("//")[2]
    async with grpc.aio.insecure_channel(
        address, [("grpc.use_local_subchannel_pool", 1)]
    ) as channel:
        call = channel.unary_unary(f"/{SERVICE}/Export")
        return [await call(body, timeout=10) for body in bodies]


async def test_spans_of_all_three_ways_in_reach_the_target(emulator: Emulator) -> None:
    async with Service(loaded(emulator, **{"--workers": "2"})) as service:
        taken = (200, "application/x-protobuf", b"")
        for url in (service.otlp_http_url, service.intake_url):
            assert await post(url, BATCH) == taken
        for _ in range(4):
            assert await export(service, FRAMED, FRAMED) == [b"", b""]
        status, _, body = await post(service.otlp_http_url, BATCH[:-40])
        assert (status, body[:1]) == (200, b"\x0a")
        assert (await post(service.otlp_http_url, b"\xff"))[0] == 400
        samples = await service.samples()
        spans = 2 * 5 + 8 * 5 + 4
        assert samples["tracefwd_receiver_accepted_spans_total"] == {("otlp_proto",): spans}
        assert samples["tracefwd_receiver_grpc_requests_total"] == {("OK",): 8}
    whole = await service.ledger()
    assert balance(whole)[0]
    assert whole["delivered"] == spans
    assert whole["rejected"] == {"syntax": 2}
    totals = emulator.totals()
    assert totals["spans"]["accepted"] == spans
    assert totals["spans"]["rejected"] == 0


async def test_a_reload_loses_no_call(emulator: Emulator) -> None:
    flags = loaded(emulator)
    async with Service(flags) as service:
        stop = asyncio.Event()
        answered = 0

        async def exporter() -> None:
            nonlocal answered
            address = service.otlp_grpc_url.partition("//")[2]
            async with grpc.aio.insecure_channel(address) as channel:
                call = channel.unary_unary(f"/{SERVICE}/Export")
                while not stop.is_set():
                    try:
                        await call(FRAMED, timeout=10)
                    except grpc.aio.AioRpcError as error:
                        # Which OTLP's exporters answer by sending again: it was not taken.
                        if error.code() not in (
                            grpc.StatusCode.CANCELLED,
                            grpc.StatusCode.UNAVAILABLE,
                        ):
                            raise
                        continue
                    answered += 1

        async with asyncio.timeout(30), asyncio.TaskGroup() as exporting:
            exporting.create_task(exporter())  # if it fails, what is waited for below fails with it
            while answered < 20:  # noqa: ASYNC110 - it is the traffic that is waited for
                await asyncio.sleep(0.01)
            await service.reload(flags)
            before = answered
            while answered < before + 20:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            stop.set()
    whole = await service.ledger()
    assert balance(whole)[0]
    assert whole["received"] == whole["delivered"] == 5 * answered


async def test_a_worker_that_dies_is_replaced_at_the_port(emulator: Emulator) -> None:
    async with Service(loaded(emulator)) as service:
        await export(service, FRAMED)
        pid = service.workers[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(20):
            while True:
                try:
                    await export(service, FRAMED)
                    break
                except grpc.aio.AioRpcError as error:
                    assert error.code() is grpc.StatusCode.UNAVAILABLE  # noqa: PT017
                    await asyncio.sleep(0.05)
        assert service.workers[0].restarts == 1


async def test_what_is_accepted_over_grpc_is_durable_with_a_spool(
    emulator: Emulator, tmp_path: Path
) -> None:
    settings = loaded(emulator, **{"--spool": str(tmp_path / "spool")})
    async with Service(settings) as service:
        await export(service, FRAMED, BATCH)
        ledger = await service.ledger()
        assert ledger["received"] == 10
    assert (await service.ledger())["delivered"] == 10


def test_each_port_has_an_address_of_its_own(emulator: Emulator) -> None:
    for flag, key in (
        ("--otlp-http", "receiver.otlp.http.listen"),
        ("--otlp-grpc", "receiver.otlp.grpc.listen"),
    ):
        with pytest.raises(ConfigError, match=key):
            loaded(emulator, **{"--listen": "127.0.0.1:9411", flag: "127.0.0.1:9411"})
