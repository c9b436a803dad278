"""The whole service with its real parts: real bodies in, the stand-in's counts out, workers dying in between."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tracefwd.emulator.server import Emulator
from tracefwd.service import config
from tracefwd.service.supervisor import Service
from tracefwd.service.tally import balance

BODY = (Path(__file__).parent.parent / "fixtures/envoy/json-batch-5.json").read_bytes()
SPANS = BODY.count(b'"traceId"')
LOOPBACK = "127.0.0.1:0"


def loaded(emulator: Emulator, **flags: Any) -> config.Loaded:
    return config.load(
        None,
        {},
        {
            "--listen": LOOPBACK,
            "--admin": LOOPBACK,
            "--proxy-traces": emulator.trace_url,
            "--proxy-metrics": emulator.url,
            **flags,
        },
    )


@asynccontextmanager
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def post(session: aiohttp.ClientSession, service: Service, **headers: str) -> Any:
    """The answer's headers; None if the connection broke."""
    given = {"content-type": "application/json", **headers}
    try:
        async with session.post(
            service.intake_url + "/api/v2/spans", data=BODY, headers=given
        ) as answer:
            assert answer.status == 202
            return answer.headers
    except aiohttp.ClientConnectionError:
        return None


async def test_what_was_acknowledged_is_what_wavefront_got(emulator: Emulator) -> None:
    async with Service(loaded(emulator, **{"--workers": "2"})) as service, client() as session:
        answers = [await post(session, service, connection="close") for _ in range(40)]
        assert None not in answers
        whole = await service.ledger()
        assert whole["received"] == 40 * SPANS
        assert balance(whole)[0]
    whole = await service.ledger()
    assert balance(whole) == (
        True,
        f"ledger balanced: received {40 * SPANS} = delivered {40 * SPANS}",
    )
    totals = emulator.totals()
    assert totals["spans"]["accepted"] == 40 * SPANS
    assert totals["spans"]["rejected"] == 0
    assert totals["deltas"]["red"]["invocation.count"] == 40 * SPANS
    assert whole["points"]["delivered"] == totals["points"]["accepted"]


async def test_a_killed_worker_costs_no_more_than_it_held(emulator: Emulator) -> None:
    async with Service(loaded(emulator, **{"--workers": "2"})) as service, client() as session:
        acknowledged = 0
        received = 0
        for number in range(60):
            if number == 20:
                pid = service.slots[0].pid
                assert pid is not None
                os.kill(pid, signal.SIGKILL)
            if await post(session, service, connection="close") is not None:
                acknowledged += SPANS
            whole = await service.ledger()
            assert balance(whole)[0]
            assert whole["received"] >= received
            received = whole["received"]
    whole = await service.ledger()
    assert balance(whole)[0]
    assert service.slots[0].restarts == 1
    # Each post was followed by a read of the ledger, so nothing was left uncounted.
    assert whole["received"] == acknowledged
    assert whole["delivered"] + sum(whole["dropped"].values()) == acknowledged
    assert set(whole["dropped"]) <= {"crash"}
    assert acknowledged > 55 * SPANS
    assert whole["delivered"] <= emulator.totals()["spans"]["accepted"] <= acknowledged


async def test_a_drain_sees_everybody_off_with_an_answer(emulator: Emulator) -> None:
    settings = loaded(emulator, **{"service.drain_timeout": "3s"})
    async with Service(settings) as service, client() as session:
        answer = await post(session, service)
        assert answer is not None
        assert answer.get("connection", "").lower() != "close"
        stopping = asyncio.create_task(service.stop())
        # The answer that says so proves that the drain has begun.
        async with asyncio.timeout(10):
            while answer is not None and answer.get("connection", "").lower() != "close":
                answer = await post(session, service)
        assert answer is not None
        async with client() as late:
            answer = await post(late, service)
        assert answer is not None
        assert answer["connection"].lower() == "close"
        assert not stopping.done()
        await stopping
        async with client() as late:
            assert await post(late, service) is None
    whole = await service.ledger()
    assert whole["held"] == 0
    assert whole["delivered"] == whole["received"] == emulator.totals()["spans"]["accepted"]


async def test_an_unreachable_target_stops_neither_start_nor_intake(emulator: Emulator) -> None:
    settings = loaded(
        emulator,
        **{
            "--proxy-traces": "http://127.0.0.1:9",
            "--proxy-metrics": "http://127.0.0.1:9",
            "service.drain_timeout": "1s",
        },
    )
    async with Service(settings) as service, client() as session:
        assert await post(session, service) is not None
        assert service.ready
        assert (await service.ledger())["held"] == SPANS
    whole = await service.ledger()
    assert whole["dropped"] == {"drain_budget": SPANS}
    assert balance(whole)[0]


async def test_a_second_signal_leaves_soon(emulator: Emulator) -> None:
    settings = loaded(
        emulator,
        **{"--proxy-traces": "http://127.0.0.1:9", "service.drain_timeout": "10m"},
    )
    async with Service(settings) as service, client() as session:
        await post(session, service)
        stopping = asyncio.create_task(service.stop())
        await asyncio.sleep(0)
        service.hurry()
        async with asyncio.timeout(10):
            await stopping
    assert (await service.ledger())["dropped"] == {"drain_budget": SPANS}


async def test_samples_of_the_real_parts_are_all_in_the_catalogue(emulator: Emulator) -> None:
    from tracefwd.metrics import BY_NAME

    async with Service(loaded(emulator)) as service, client() as session:
        await post(session, service)
        samples = await service.samples()
        async with session.get(service.admin_url + "/metrics") as answer:
            assert answer.status == 200
    for name in samples:
        family = name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count")
        assert name in BY_NAME or BY_NAME[family].kind == "histogram"
