"""The stand-in as a Java proxy's backend: it configures the proxy and reads what it reports."""

import gzip
from pathlib import Path

import aiohttp
import pytest

from tracefwd.emulator.backend import action_of, answer_to
from tracefwd.emulator.server import Emulator, EmulatorSettings

RECORDED = Path(__file__).parents[1] / "fixtures" / "java-proxy"


@pytest.mark.parametrize(
    ("path", "action"),
    [
        ("/api/v2/wfproxy/checkin", "checkin"),
        ("/v2/wfproxy/config/processed", "config/processed"),
        ("/api/v2/wfproxy/report/", "report"),
        ("/report", None),
        ("/wfproxy", None),
    ],
)
def test_a_proxys_requests_are_recognised_wherever_its_server_option_points(
    path: str, action: str | None
) -> None:
    assert action_of(path) == action


async def test_a_proxy_is_configured_and_its_reports_are_read_as_direct_ingestion() -> None:
    emulator = Emulator(EmulatorSettings(listen="127.0.0.1:0"))
    await emulator.start()
    url = f"{emulator.url}/api/v2/wfproxy"
    zipped = {"Content-Encoding": "gzip"}
    try:
        async with aiohttp.ClientSession(headers=zipped) as session:
            for name, form in (("spans", "trace"), ("spanlogs", "spanLogs")):
                body = gzip.compress((RECORDED / f"json-batch-5.{name}.txt").read_bytes())
                async with session.post(f"{url}/report?format={form}", data=body) as answer:
                    assert (answer.status, await answer.json()) == (200, {})
            async with session.post(f"{url}/checkin?x=1", data=gzip.compress(b"{}")) as answer:
                assert await answer.json() == answer_to("checkin")
            async with session.post(f"{url}/report?format=nonsense", data=body) as answer:
                assert answer.status == 400
        totals = emulator.totals()
    finally:
        await emulator.stop()
    assert totals["spans"]["accepted"] == totals["span_logs"]["accepted"] == 5
    assert totals["spans"]["rejected"] == totals["span_logs"]["rejected"] == 0


async def test_an_old_proxys_stand_in_is_nobodys_backend() -> None:
    emulator = Emulator(EmulatorSettings(listen="127.0.0.1:0", version="4.35"))
    await emulator.start()
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{emulator.url}/api/v2/wfproxy/checkin", data=b"{}") as answer,
        ):
            assert answer.status == 204
    finally:
        await emulator.stop()
