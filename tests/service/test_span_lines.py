"""The port for span lines in a running service: HTTP and TCP in, what the stand-in got out, and a drain in between."""

import asyncio
import gzip
import json
import os
import signal
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from tests.conftest import JAVA_PROXY
from tracefwd.emulator.server import Emulator
from tracefwd.service import config
from tracefwd.service.supervisor import Service
from tracefwd.service.tally import balance

LOOPBACK = "127.0.0.1:0"
LINES = (JAVA_PROXY / "json-batch-100.spans.txt").read_bytes().rstrip(b"\n") + b"\n"
LOGS = (JAVA_PROXY / "json-batch-100.spanlogs.txt").read_bytes().rstrip(b"\n") + b"\n"
SPANS, SPAN_LOGS = LINES.count(b"\n"), LOGS.count(b"\n")


def loaded(emulator: Emulator, **flags: Any) -> config.Loaded:
    return config.load(
        None,
        {},
        {
            "--listen": LOOPBACK,
            "--trace-listen": LOOPBACK,
            "--admin": LOOPBACK,
            "--proxy-traces": emulator.trace_url,
            "--proxy-metrics": emulator.url,
            **flags,
        },
    )


def logs_for_a_proxy() -> bytes:
    """The recorded span logs are those that a backend gets; a client leaves ``span`` out, or has a span line there."""
    first = LINES.split(b"\n", 1)[0].decode()
    logs = [json.loads(line) for line in LOGS.splitlines()]
    for number, log in enumerate(logs):
        log.pop("span")
        if number % 2:
            log["span"] = first + "\n"
    return b"".join(json.dumps(log).encode() + b"\n" for log in logs)


async def post(service: Service, body: bytes, **headers: str) -> int:
    async with (
        aiohttp.ClientSession() as session,
        session.post(service.lines_url + "/any/path", data=body, headers=headers) as answer,
    ):
        return answer.status


async def lines_at(emulator: Emulator) -> list[str]:
    url = f"{emulator.url}/lines?signal=spans&limit=100000"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        lines: list[str] = (await answer.json())["lines"]
    return lines


async def until(service: Service, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    async with asyncio.timeout(20):
        # What happens in a worker sets no event here.
        while not condition(whole := await service.ledger()):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return whole


async def test_lines_over_http_and_tcp_reach_the_target_as_they_came(emulator: Emulator) -> None:
    async with Service(loaded(emulator, **{"--workers": "2"})) as service:
        assert service.lines_url
        assert await post(service, LINES) == 202
        packed = gzip.compress(LINES + logs_for_a_proxy())
        assert await post(service, packed, **{"content-encoding": "gzip"}) == 202
        parts = urlsplit(service.lines_url)
        for _ in range(2):
            _, writer = await asyncio.open_connection(parts.hostname, parts.port)
            writer.write(LINES + logs_for_a_proxy() + b'"unterminated')
            writer.close()
            await writer.wait_closed()
        await until(service, lambda whole: whole["received"] >= 4 * SPANS + 2)
        whole = await service.ledger()
        assert balance(whole)[0]
        samples = await service.samples()
        assert samples["tracefwd_receiver_accepted_spans_total"] == {("wavefront",): 4 * SPANS}
    whole = await service.ledger()
    assert (whole["received"], whole["delivered"]) == (4 * SPANS + 2, 4 * SPANS)
    assert whole["rejected"] == {"syntax": 2}
    assert whole["span_logs"]["delivered"] == 3 * SPAN_LOGS
    totals = emulator.totals()
    assert totals["spans"]["accepted"] == 4 * SPANS
    assert totals["span_logs"]["accepted"] == 3 * SPAN_LOGS
    assert totals["spans"]["rejected"] == totals["span_logs"]["rejected"] == 0
    # Whoever sends lines derives RED where they come from.
    assert totals["points"]["accepted"] == 0
    assert set(await lines_at(emulator)) == set(LINES.decode().splitlines())


async def test_rejects_are_answered_202_and_seen_at_the_admin_port(emulator: Emulator) -> None:
    async with Service(loaded(emulator)) as service:
        assert await post(service, b'"bad" source=secret\n{"no": "log"}\n') == 202
        assert await post(service, b"\xff\xfe\x00") == 400
        whole = await service.ledger()
        assert (whole["rejected"], whole["span_logs"]["rejected"]) == (
            {"syntax": 2},
            {"invalid": 1},
        )
        samples = await service.rejected_samples()
        assert len(samples) == 3
        assert "secret" not in json.dumps(samples)


async def test_a_drain_takes_the_last_lines_of_a_tcp_client(emulator: Emulator) -> None:
    settings = loaded(emulator, **{"service.drain_timeout": "3s"})
    async with Service(settings) as service:
        parts = urlsplit(service.lines_url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(LINES)
        await until(service, lambda whole: whole["received"] == SPANS)
        stopping = asyncio.create_task(service.stop())
        # Our end tells the client that it should go.
        assert await reader.read() == b""
        writer.write(LINES)
        writer.close()
        await writer.wait_closed()
        await stopping
    whole = await service.ledger()
    assert whole["delivered"] == emulator.totals()["spans"]["accepted"] == 2 * SPANS
    assert balance(whole)[0]


async def test_without_the_option_there_is_no_port(emulator: Emulator) -> None:
    async with Service(loaded(emulator, **{"--trace-listen": ""})) as service:
        assert service.lines_url == ""


async def test_the_port_survives_its_worker(emulator: Emulator) -> None:
    async with Service(loaded(emulator)) as service:
        assert await post(service, LINES) == 202
        pid = service.slots[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await until(service, lambda _: service.slots[0].restarts > 0)
        # The socket is the parent's: a client that connects meanwhile waits for the next worker.
        assert await post(service, LINES) == 202
