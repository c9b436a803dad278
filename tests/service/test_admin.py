"""The admin port: probes, metrics, ledger, configuration; nothing secret, nothing that waits for backends."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tracefwd import __version__, ledger
from tracefwd.metrics import CATALOGUE
from tracefwd.service import admin_door
from tracefwd.service import child as child_module
from tracefwd.service import slot as slot_module
from tracefwd.service.config import Loaded
from tracefwd.service.supervisor import Service
from tracefwd.service.tally import sections
from tracefwd.settings import (
    AdminSettings,
    ExporterSettings,
    ReceiverSettings,
    ServiceSettings,
    Settings,
    TargetSettings,
)

TOKEN = "0123456789abcdef-very-secret"
PASSWORD = "hunter2hunter2"


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Loaded:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    token_file = tmp_path / "token"
    token_file.write_text(TOKEN)
    target = TargetSettings(
        name="primary",
        kind="direct",
        url="https://example.wavefront.com",
        token_file=str(token_file),
        http_proxy=f"http://user:{PASSWORD}@proxy:3128",
    )
    settings = Settings(
        receiver=ReceiverSettings(listen="127.0.0.1:0"),
        admin=AdminSettings(listen="127.0.0.1:0"),
        exporter=ExporterSettings(targets=[target]),
        service=ServiceSettings(workers=2, drain_timeout=5.0),
    )
    return Loaded(settings, {})


@pytest.fixture
async def service(loaded: Loaded) -> AsyncIterator[Service]:
    async with Service(loaded, compose="fake_parts:compose") as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def page(http: aiohttp.ClientSession, service: Service, path: str) -> tuple[int, str]:
    async with http.get(service.admin_url + path) as answer:
        return answer.status, await answer.text()


async def document(http: aiohttp.ClientSession, service: Service, path: str) -> Any:
    status, text = await page(http, service, path)
    assert status == 200
    return json.loads(text)


async def post(http: aiohttp.ClientSession, service: Service, path: str = "/deliver") -> None:
    # A connection each, so that both workers get some.
    async with http.post(service.intake_url + path, headers={"connection": "close"}) as answer:
        assert answer.status == 202


async def test_alive_and_ready(http: aiohttp.ClientSession, service: Service) -> None:
    assert await page(http, service, "/livez") == (200, "ok\n")
    assert await page(http, service, "/readyz") == (200, "ready\n")


async def test_readiness_names_parts_but_never_heeds_backends(
    http: aiohttp.ClientSession, service: Service
) -> None:
    status, text = await page(http, service, "/readyz?verbose")
    assert status == 200
    assert text.splitlines() == [
        "ready",
        "worker 0: listens",
        "worker 1: listens",
        "worker 0: primary: nobody answers (does not count)",
        "worker 1: primary: nobody answers (does not count)",
    ]


async def test_alive_but_not_ready_while_a_worker_is_missing(
    http: aiohttp.ClientSession, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = asyncio.Event()

    async def wait(*given: Any) -> Any:
        await held.wait()
        return await spawn(*given)

    spawn = slot_module.Slot._spawn
    monkeypatch.setattr(slot_module.Slot, "_spawn", wait)
    pid = service.slots[0].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    while service.ready:
        service._changed.clear()
        await service._changed.wait()
    assert (await page(http, service, "/livez"))[0] == 200
    status, text = await page(http, service, "/readyz?verbose")
    assert status == 503
    assert text.startswith("not ready\nworker 0: does not listen\nworker 1: listens\n")
    held.set()
    while not service.ready:
        service._changed.clear()
        await service._changed.wait()
    assert (await page(http, service, "/readyz"))[0] == 200


async def test_not_ready_while_draining(http: aiohttp.ClientSession, service: Service) -> None:
    pid = service.slots[0].pid
    assert pid is not None
    # A stopped worker keeps the drain from ending.
    os.kill(pid, signal.SIGSTOP)
    stopping = asyncio.create_task(service.stop(4.0))
    await asyncio.sleep(0)
    try:
        assert (await page(http, service, "/livez"))[0] == 200
        assert await page(http, service, "/readyz") == (503, "draining\n")
    finally:
        os.kill(pid, signal.SIGCONT)
        await stopping


async def test_the_ledger_is_fresh_and_balances_in_every_section_at_every_read(
    http: aiohttp.ClientSession, service: Service
) -> None:
    for number in range(1, 21):
        await post(http, service, "/hold" if number % 3 else "/deliver")
        whole = await document(http, service, "/ledger")
        assert whole["received"] == number
        for part in sections(whole).values():
            assert ledger.imbalance(part) == 0
    assert set(whole) == {
        *ledger.empty_section(),
        "span_logs",
        "points",
        "distributions",
        "targets",
    }
    assert (whole["held"], whole["delivered"]) == (14, 6)


async def test_the_ledger_balances_under_concurrent_reads_and_traffic(
    http: aiohttp.ClientSession, service: Service
) -> None:
    async def read() -> list[dict[str, Any]]:
        return [await document(http, service, "/ledger") for _ in range(15)]

    async def write() -> None:
        for number in range(60):
            await post(http, service, ("/hold", "/deliver", "/lose")[number % 3])

    *reads, _, _ = await asyncio.gather(read(), read(), read(), write(), write())
    for series in reads:
        received = [whole["received"] for whole in series]
        assert received == sorted(received)
        assert {ledger.imbalance(whole) for whole in series} == {0}  # type: ignore[arg-type]
    assert (await document(http, service, "/ledger"))["received"] == 120


async def test_a_verbose_ledger_shows_the_workers_and_who_does_not_answer(
    http: aiohttp.ClientSession, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_module, "ANSWER_TIMEOUT_S", 0.2)
    pid = service.slots[1].pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        whole = await document(http, service, "/ledger?verbose")
    finally:
        os.kill(pid, signal.SIGCONT)
    assert [worker["stale"] for worker in whole["workers"]] == [False, True]
    assert whole["workers"][1] == {
        "name": "worker 1",
        "slot": 1,
        "pid": pid,
        "ready": True,
        "stale": True,
        "restarts": 0,
        "problems": ["primary: nobody answers"],
    }
    assert "workers" not in await document(http, service, "/ledger")


async def test_metrics_are_complete_and_pass_promtool(
    http: aiohttp.ClientSession, service: Service
) -> None:
    await post(http, service)
    async with http.get(service.admin_url + "/metrics") as answer:
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        text = await answer.text()
    for metric in CATALOGUE:
        assert f"# TYPE {metric.name} {metric.kind}\n" in text
    assert "\ntracefwd_workers 2\n" in text
    # A gauge that every worker has is the sum of both.
    assert "\ntracefwd_red_active_series 6\n" in text
    assert '\ntracefwd_receiver_requests_total{code="202"} 1\n' in text
    assert f'\ntracefwd_build_info{{version="{__version__}",python=' in text
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: /metrics is not linted by Prometheus' own tool")
    done = await asyncio.to_thread(
        subprocess.run,
        [promtool, "check", "metrics"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


async def test_version_says_which_loop_runs(http: aiohttp.ClientSession, service: Service) -> None:
    shown = await document(http, service, "/version")
    assert shown["version"] == __version__
    assert shown["workers"] == 2
    assert shown["event_loop"] in ("uvloop", "asyncio")


async def test_configuration_is_shown_with_its_origins(
    http: aiohttp.ClientSession, service: Service
) -> None:
    shown = await document(http, service, "/config")
    assert shown["red"]["interval"]["value"] == "1m"


async def test_rejected_samples_of_all_workers_are_newest_first(
    http: aiohttp.ClientSession, service: Service
) -> None:
    samples = await document(http, service, "/rejected")
    assert {int(sample["pid"]) for sample in samples} == {slot.pid for slot in service.slots}
    assert [sample["at"] for sample in samples] == sorted(
        (sample["at"] for sample in samples), reverse=True
    )


async def test_no_page_shows_a_secret_and_the_index_names_them_all(
    http: aiohttp.ClientSession, service: Service
) -> None:
    status, index = await page(http, service, "/")
    assert status == 200
    paths = [line.split()[0] for line in index.splitlines() if line.startswith("/")]
    assert set(paths) == {
        "/livez",
        "/readyz",
        "/metrics",
        "/ledger",
        "/rejected",
        "/sources",
        "/config",
        "/version",
    }
    for path in ["/", *paths, "/readyz?verbose", "/ledger?verbose"]:
        _, text = await page(http, service, path)
        assert TOKEN not in text
        assert PASSWORD not in text


async def test_probes_get_through_while_others_hold_all_places(
    http: aiohttp.ClientSession, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin_door, "ADMIN_CONNECTIONS_MAX", 8)
    host, _, port = service.admin_url.rpartition("/")[2].partition(":")
    async with http.get(service.admin_url + "/api/v1/events") as events:
        assert await events.content.readline()
        silent = [await asyncio.open_connection(host, int(port)) for _ in range(20)]
        assert await page(http, service, "/livez") == (200, "ok\n")
        assert [await reader.read(1) for reader, _ in silent[:12]] == [b""] * 12
        # A console has its place for as long as it listens.
        for _ in range(3):
            assert await events.content.readline()
        for _, writer in silent:
            writer.close()


async def test_probes_get_through_while_many_wait_for_workers(
    http: aiohttp.ClientSession, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin_door, "ADMIN_CONNECTIONS_MAX", 8)
    host, _, port = service.admin_url.rpartition("/")[2].partition(":")
    for slot in service.workers:
        os.kill(slot.pid, signal.SIGSTOP)
    try:
        asking = [await asyncio.open_connection(host, int(port)) for _ in range(8)]
        for _, writer in asking:
            writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await asyncio.sleep(0.1)
        async with http.get(service.admin_url + "/livez") as answer:
            assert answer.status == 200
        async with http.get(service.admin_url + "/api/v1/refused") as answer:
            assert answer.status == 503
            assert (await answer.json())["error"] == "busy"
            assert answer.headers["X-Frame-Options"] == "DENY"
        for _, writer in asking:
            writer.close()
    finally:
        for slot in service.workers:
            os.kill(slot.pid, signal.SIGCONT)


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/x", 404), ("POST", "/ledger", 405)]
)
async def test_everything_else_is_refused(
    http: aiohttp.ClientSession, service: Service, method: str, path: str, status: int
) -> None:
    async with http.request(method, service.admin_url + path) as answer:
        assert answer.status == status
