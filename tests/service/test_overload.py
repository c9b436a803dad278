"""Shortage of memory in the real service: a real worker, limits injected where the kernel's are read, and real ones."""

import asyncio
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import pytest

from tests.service.test_memory import MIB, V2, machine
from tests.service.test_service import BODY, SPANS, client, loaded
from tracefwd.emulator.server import Emulator
from tracefwd.ledger import imbalance
from tracefwd.service import worker_parts
from tracefwd.service.memory import Machine
from tracefwd.service.supervisor import Service
from tracefwd.service.tally import balance
from tracefwd.settings import Settings

_ROOT = "TRACEFWD_TEST_ROOT"


def compose_elsewhere(settings: Settings, slot: int = 0) -> worker_parts.Parts:
    """The real parts on a machine whose kernel says what the test wrote."""
    return worker_parts.compose(settings, slot, Machine(Path(os.environ[_ROOT])))


def own(root: Path, size: int) -> None:
    """What the kernel says that the worker has for itself."""
    file = root / "proc/self/statm"
    pages = size // os.sysconf("SC_PAGE_SIZE")
    new = file.with_suffix(".new")
    new.write_text(f"{pages} {pages} 0 0 0 0 0\n")
    new.replace(file)


def post_body(traces: list[str]) -> bytes:
    [span, *_] = json.loads(BODY)
    return json.dumps([span | {"traceId": trace} for trace in traces]).encode()


async def status_of(session: aiohttp.ClientSession, service: Service, body: bytes) -> int:
    async with session.post(service.intake_url + "/api/v2/spans", data=body) as answer:
        return answer.status


async def samples(service: Service, name: str) -> dict[tuple[str, ...], float]:
    return (await service.samples()).get(name, {})


async def until(look: Callable[[], Any]) -> None:
    async with asyncio.timeout(30):
        while not await look():  # noqa: ASYNC110 - another process is asked
            await asyncio.sleep(0.02)


def said_wrong(service: Service) -> list[str]:
    return [problem for problems in service.problems().values() for problem in problems]


async def reaches(service: Service, stage: str) -> None:
    async def is_there() -> bool:
        return (await samples(service, "tracefwd_memory_stage_workers"))[stage,] == 1

    await until(is_there)


async def test_stages_of_a_cgroups_limit(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(tmp_path, V2 | {"sys/fs/cgroup/memory.max": str(512 * MIB), "proc/self/statm": ""})
    own(tmp_path, 40 * MIB)
    monkeypatch.setenv(_ROOT, str(tmp_path))
    random = Random(1)
    traces = [f"{random.getrandbits(128):032x}" for _ in range(400)]
    reference = f"{__name__}:compose_elsewhere"
    async with (
        Service(loaded(emulator), compose=reference) as service,
        client() as session,
    ):
        [share] = (await samples(service, "tracefwd_memory_max_bytes")).values()
        assert 300 * MIB < share < 512 * MIB
        assert await status_of(session, service, BODY) == 202
        assert said_wrong(service) == []

        own(tmp_path, int(0.8 * share))
        await reaches(service, "shed")
        assert await status_of(session, service, post_body(traces)) == 202
        whole = await service.ledger()
        assert imbalance(whole) == 0  # type: ignore[arg-type]
        shed = whole["dropped"]["shed"]
        assert 100 < shed < 350
        assert whole["received"] == SPANS + 400

        own(tmp_path, int(0.95 * share))
        await reaches(service, "refuse")
        refused = [await status_of(session, service, BODY) for _ in range(5)]
        assert refused == [503] * 5
        whole = await service.ledger()
        # Nothing refused was received.
        assert whole["received"] == SPANS + 400
        assert await samples(service, "tracefwd_receiver_refused_requests_total") == {
            ("memory",): 5
        }
        assert await samples(service, "tracefwd_receiver_refused_bytes_total") == {
            ("memory",): 5 * len(BODY)
        }
        await asyncio.sleep(1.1)
        assert "memory" in said_wrong(service)[0]

        own(tmp_path, 40 * MIB)
        await reaches(service, "calm")
        assert await status_of(session, service, BODY) == 202
    whole = await service.ledger()
    assert balance(whole)[0]
    assert whole["dropped"] == {"shed": shed}
    assert whole["delivered"] == 2 * SPANS + 400 - shed
    assert emulator.totals()["spans"]["accepted"] == whole["delivered"]
    # RED saw what was shed, and not what was refused.
    assert emulator.totals()["deltas"]["red"]["invocation.count"] == 2 * SPANS + 400


def incompressible(random: Random, spans: int) -> bytes:
    [span, *_] = json.loads(BODY)
    return json.dumps(
        [
            span
            | {
                "traceId": f"{random.getrandbits(128):032x}",
                "tags": span["tags"]
                | {f"payload.{n}": f"{random.getrandbits(500):0125x}" for n in range(20)},
            }
            for _ in range(spans)
        ]
    ).encode()


async def test_a_dead_backend_and_a_real_small_budget(emulator: Emulator) -> None:
    """Queues may grow above the budget here: traces are shed, posts refused, answers stay fast; and it all ends."""
    settings = loaded(
        emulator,
        **{
            "service.memory_max": "160MiB",
            "exporter.queue_bytes_max": "1GiB",
            "exporter.retry.backoff_max": "500ms",
        },
    )
    random = Random(2)
    bodies = [incompressible(random, 100) for _ in range(8)]
    slowest = 0.0
    statuses: list[int] = []
    async with Service(settings) as service, client() as session:
        async with session.post(f"{emulator.url}/faults", json={"status": 503}) as answer:
            assert answer.status < 300
        pid = service.slots[0].pid
        async with asyncio.timeout(90):
            while 503 not in statuses:
                begun = time.perf_counter()
                posts = [status_of(session, service, body) for body in bodies]
                statuses += await asyncio.gather(*posts)
                slowest = max(slowest, time.perf_counter() - begun)
        # Eight bodies of 400 KB take 100 ms, on a machine whose cores others use as well.
        assert slowest < 2.0
        assert pid == service.slots[0].pid
        assert pss_bytes(pid) < 160 * MIB
        whole = await service.ledger()
        assert imbalance(whole) == 0  # type: ignore[arg-type]
        assert whole["dropped"]["shed"] > 0
        assert "queue_full" not in whole["dropped"]
        assert whole["received"] == 100 * statuses.count(202)
        async with session.delete(f"{emulator.url}/faults") as answer:
            assert answer.status < 300
        await reaches(service, "calm")
        assert await status_of(session, service, bodies[0]) == 202
    whole = await service.ledger()
    assert balance(whole)[0]
    assert set(whole["dropped"]) == {"shed"}
    red = emulator.totals()["deltas"]["red"]["invocation.count"]
    assert red == whole["received"]


def pss_bytes(pid: int | None) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the kernel does not say PSS")
