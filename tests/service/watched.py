"""A real service before the stand-in, watched over its admin API; and what a hostile sender posts."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from jsonschema import Draft202012Validator

from tracefwd.emulator.server import Emulator, EmulatorSettings
from tracefwd.service import config
from tracefwd.service.supervisor import Service

LOOPBACK = "127.0.0.1:0"
OPENAPI = Path(__file__).parents[2] / "tracefwd" / "console" / "openapi.yaml"
DOCUMENT: dict[str, Any] = yaml.safe_load(OPENAPI.read_text())
SCHEMAS = {
    "flow": "Flow",
    "history": "History",
    "services": "Services",
    "operations": "Operations",
    "edges": "Edges",
    "spans": "Spans",
    "refused": "Refused",
    "metrics-path": "MetricsPath",
    "configuration": "Configuration",
    "session": "Session",
}

MARKUP = "<img src=x onerror=alert(1)>[bold]"
CONTROL = "a\x1b[31m\x07\x9bb\x7f\r\nc"
TURNED = "x\u202egnp.exe\u2066y\u200f"
LONG = "n" * 10_000
HOSTILE = (MARKUP, CONTROL, TURNED, LONG)
SECRET = "sw0rdfish-51c0ffee"


def check(schema: str, document: Any) -> None:
    """It is what the API's document says."""
    Draft202012Validator({**DOCUMENT, "$ref": f"#/components/schemas/{schema}"}).validate(document)


@asynccontextmanager
async def watched(file: Path | None = None, **flags: Any) -> AsyncIterator[Service]:
    emulator = Emulator(EmulatorSettings(listen=LOOPBACK, trace_listen=LOOPBACK))
    await emulator.start()
    try:
        loaded = config.load(
            file,
            {},
            {
                "--listen": LOOPBACK,
                "--admin": LOOPBACK,
                "--proxy-traces": emulator.trace_url,
                "--proxy-metrics": emulator.url,
                "service.drain_timeout": "2s",
                **flags,
            },
        )
        async with Service(loaded) as service:
            yield service
    finally:
        await emulator.stop()


def span(number: int, name: str = "get", **more: Any) -> dict[str, Any]:
    return {
        "traceId": f"{number:032x}",
        "id": f"{number:016x}",
        "name": name,
        "kind": "CLIENT",
        "timestamp": 1_700_000_000_000_000,
        "duration": 1_500,
        "localEndpoint": {"serviceName": "shop.default"},
        "tags": {
            "istio.namespace": "default",
            "istio.canonical_service": "shop",
            "upstream_cluster": "outbound|80||stock.default.svc.cluster.local",
        },
        **more,
    }


async def post(
    http: aiohttp.ClientSession, service: Service, spans: list[dict[str, Any]], status: int = 202
) -> None:
    body = json.dumps(spans)
    # A connection each: one to a worker that died is of no use.
    headers = {"Content-Type": "application/json", "Connection": "close"}
    url = service.intake_url + "/api/v2/spans"
    async with http.post(url, data=body, headers=headers) as answer:
        assert answer.status == status, await answer.text()


async def get(http: aiohttp.ClientSession, service: Service, path: str, status: int = 200) -> Any:
    async with http.get(service.admin_url + path) as answer:
        assert answer.status == status, await answer.text()
        return await answer.json()


async def until(ask: Callable[[], Any], within_s: float = 30.0) -> Any:
    """What ``ask`` gives as soon as it gives something."""
    async with asyncio.timeout(within_s):
        while True:
            found = ask()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return found
            # Workers speak each second; there is no event that a client could wait for.
            await asyncio.sleep(0.05)


async def events(answer: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, Any]]:
    buffer = b""
    async for piece in answer.content.iter_any():
        buffer += piece
        *whole, buffer = buffer.split(b"\n\n")
        for text in whole:
            fields = dict(line.split(": ", 1) for line in text.decode().split("\n"))
            if "event" in fields:
                yield fields["event"], json.loads(fields["data"])
