"""The admin API of a running service: it answers what its document says, whatever senders post, and survives them."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.service.watched import (
    DOCUMENT,
    HOSTILE,
    LONG,
    SCHEMAS,
    SECRET,
    check,
    events,
    get,
    post,
    span,
    until,
    watched,
)
from tracefwd.service.supervisor import Service
from tracefwd.service.views import HISTORY_FILE, VIEWS

# One service for all that only look: starting one takes a second.
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(http: aiohttp.ClientSession) -> AsyncIterator[Service]:
    """It has seen a hostile sender, a secret, a failing call and a body that is no span."""
    async with watched(**{"red.interval": "1s"}) as running:
        for number, text in enumerate(HOSTILE, 1):
            await post(http, running, [hostile(number, text)])
        failing = span(50, "pay", duration=2_000_000)
        failing["tags"] |= {
            "http.status_code": "503",
            "authorization": f"Bearer {SECRET}",
            "http.url": f"http://shop/pay?key={SECRET}",
        }
        await post(http, running, [failing])
        await post(http, running, [span(60), {**span(61), "traceId": SECRET}])
        await until(lambda: complete(http, running))
        yield running


def hostile(number: int, text: str) -> dict[str, Any]:
    found = span(number, text)
    found["tags"] |= {"istio.canonical_service": f"svc{text}"[:128], "note": text}
    return found


async def complete(http: aiohttp.ClientSession, service: Service) -> bool:
    """Everything that was posted has come to the views."""
    spans = await get(http, service, "/api/v1/spans")
    services = await get(http, service, "/api/v1/services")
    edges = await get(http, service, "/api/v1/edges")
    number = sum(len(each["services"]) for each in services["applications"])
    return len(spans["spans"]) >= 5 and number >= 5 and len(edges["edges"]) >= 5


# --- the contract ---------------------------------------------------------------------------


async def test_every_path_is_described_and_everything_described_is_there(
    http: aiohttp.ClientSession, service: Service
) -> None:
    assert service._admin is not None
    served = {
        (route.method, route.resource.canonical)
        for route in service._admin.application.router.routes()
        if route.resource is not None and route.resource.canonical.startswith("/api/")
    }
    described = {
        (method.upper(), path) for path, item in DOCUMENT["paths"].items() for method in item
    }
    assert served == described
    assert await get(http, service, "/api/v1/openapi.json") == json.loads(json.dumps(DOCUMENT))


@pytest.mark.parametrize("view", sorted(SCHEMAS))
async def test_every_view_is_what_the_document_says(
    http: aiohttp.ClientSession, service: Service, view: str
) -> None:
    check(SCHEMAS[view], await get(http, service, f"/api/v1/{view}"))


async def test_parameters_of_the_document_are_those_that_are_taken(
    http: aiohttp.ClientSession, service: Service
) -> None:
    for path, item in DOCUMENT["paths"].items():
        if "get" not in item or "{" in path or path.endswith(("/events", "/tap")):
            continue
        for parameter in item["get"].get("parameters", []):
            name = parameter.get("name") or parameter["$ref"].rpartition("/")[2]
            described = (
                parameter.get("schema") or DOCUMENT["components"]["parameters"][name]["schema"]
            )
            value = str(described.get("default", "1")).lower()
            await get(http, service, f"{path}?{name}={value}")
        check("Error", await get(http, service, f"{path}?nonsense=1", 400))


@pytest.mark.parametrize(
    "query",
    [
        "spans?limit=0",
        "spans?limit=x",
        "spans?limit=1001",
        "spans?error=maybe",
        "spans?min_duration_ms=-1",
        "spans?min_duration_ms=nan",
        f"spans?text={'x' * 501}",
        "spans?limit=1&limit=2",
        "operations?sort=size",
        "events?views=",
        "events?views=flow,nonsense",
        "tap?rate=0",
        "tap?rate=1001",
    ],
)
async def test_a_bad_parameter_is_refused_in_words(
    http: aiohttp.ClientSession, service: Service, query: str
) -> None:
    refusal = await get(http, service, f"/api/v1/{query}", 400)
    check("Error", refusal)
    assert refusal["error"] == "parameter"
    assert refusal["todo"]


async def test_what_is_not_there_is_refused_in_the_same_form(
    http: aiohttp.ClientSession, service: Service
) -> None:
    check("Error", await get(http, service, "/api/v1/nothing", 404))
    check("Error", await get(http, service, "/api/v1/spans/9-9-9", 404))
    async with http.post(service.admin_url + "/api/v1/flow") as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "GET")
        check("Error", await answer.json())


# --- what spans say -------------------------------------------------------------------------


async def test_hostile_names_arrive_as_data(http: aiohttp.ClientSession, service: Service) -> None:
    found = await get(http, service, "/api/v1/spans?limit=1000")
    rows = {int(row["span"], 16): row for row in found["spans"]}
    for number, text in enumerate(HOSTILE, 1):
        row = rows[number]
        assert row["service"] == f"svc{text}"[:128].strip()
        detail = await get(http, service, f"/api/v1/spans/{row['id']}")
        check("SpanDetail", detail)
        received = json.loads(detail["received"])
        assert received["name"] == text
        assert received["tags"]["note"] == text
        told = {field["path"]: field for field in detail["fields"]}
        assert told["name"]["value"] == text
        assert {f"tags.{key}" for key in received["tags"]} <= set(told)
        assert detail["received_as"] == "its own bytes"
        assert len(detail["sent"]) >= 1
    operations = await get(http, service, "/api/v1/operations?limit=1000")
    names = {each["operation"] for each in operations["operations"]}
    assert any(LONG.startswith(name.removesuffix("...")) and len(name) == 128 for name in names)
    services = await get(http, service, "/api/v1/services")
    shown = {one["service"] for each in services["applications"] for one in each["services"]}
    edges = await get(http, service, "/api/v1/edges")
    callers = {node["service"] for node in edges["nodes"]}
    for text in HOSTILE:
        assert f"svc{text}"[:128].strip() in shown & callers


async def test_no_view_shows_what_is_masked(http: aiohttp.ClientSession, service: Service) -> None:
    for view in SCHEMAS:
        assert SECRET not in json.dumps(await get(http, service, f"/api/v1/{view}"))
    rows = (await get(http, service, "/api/v1/spans?error=true"))["spans"]
    assert [row["operation"] for row in rows] == ["pay"]
    detail = await get(http, service, f"/api/v1/spans/{rows[0]['id']}")
    assert SECRET not in json.dumps(detail)
    told = {field["path"]: field["value"] for field in detail["fields"]}
    assert told["tags.authorization"] == "***"
    assert told["tags.http.url"] == "http://shop/pay?key=***"


async def test_masks_that_a_reload_brings_hold_for_what_is_kept(
    http: aiohttp.ClientSession, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = service.loaded.settings
    masked = replace(settings.admin, masked_tags=["upstream_*"])
    loaded = replace(service.loaded, settings=replace(settings, admin=masked))
    row = (await get(http, service, "/api/v1/spans?error=true"))["spans"][0]

    async def shown() -> str:
        return str((await get(http, service, f"/api/v1/spans/{row['id']}"))["received"])

    with monkeypatch.context() as patch:
        patch.setattr(service, "loaded", loaded)
        await until(lambda: service.views.samples.masks.hides("upstream_cluster"))
        assert "stock" not in await shown()
    await until(lambda: service.views.samples.masks.hides("authorization"))
    assert "stock" in await shown()


async def test_spans_are_found_by_what_they_are(
    http: aiohttp.ClientSession, service: Service
) -> None:
    async def found(query: str) -> set[str]:
        rows = (await get(http, service, f"/api/v1/spans?{query}"))["spans"]
        return {row["operation"] for row in rows}

    assert await found("service=SHOP&min_duration_ms=1000") == {"pay"}
    assert await found("text=stock.default&service=shop") == {"get", "pay"}
    assert await found("text=no-such-text") == set()
    one = await get(http, service, "/api/v1/spans?limit=1")
    assert len(one["spans"]) == 1
    assert one["left_out"] >= 4


async def test_who_fails_and_who_calls_whom(http: aiohttp.ClientSession, service: Service) -> None:
    found = await get(http, service, "/api/v1/operations?service=shop&sort=p99")
    assert [each["operation"] for each in found["operations"]] == ["pay", "get"]
    red = found["operations"][0]["red"]
    assert red["error_share"] == 1.0
    assert red["p50_ms"] == pytest.approx(2_000, rel=0.045)
    edges = await get(http, service, "/api/v1/edges")
    nodes = {node["id"]: node for node in edges["nodes"]}
    shop = [e for e in edges["edges"] if nodes[e["from"]]["service"] == "shop"]
    assert [nodes[edge["to"]]["service"] for edge in shop] == ["stock"]
    assert nodes[shop[0]["to"]]["outside"] is True
    assert shop[0]["errors"] > 0


async def test_what_was_rejected_names_its_sender(
    http: aiohttp.ClientSession, service: Service
) -> None:
    async def counted() -> Any:
        shown = await get(http, service, "/api/v1/refused")
        return shown if any(each["what"] == "rejected" for each in shown["reasons"]) else None

    found = await until(counted)
    rejected = [each for each in found["samples"] if each["what"] == "rejected"]
    assert [(each["reason"], each["sender"]) for each in rejected] == [("trace_id", "shop.default")]
    counts = {(each["what"], each["reason"]): each["spans"] for each in found["reasons"]}
    assert counts["rejected", "trace_id"] == 1


async def test_the_picture_and_the_ledger_add_up(
    http: aiohttp.ClientSession, service: Service
) -> None:
    async def settled() -> Any:
        flow = await get(http, service, "/api/v1/flow")
        spans = flow["ledger"]["sections"][0]
        return flow if spans["delivered"] == 6 else None

    flow = await until(settled)
    assert flow["ledger"]["balanced"]
    ids = {node["id"] for node in flow["nodes"]}
    assert {"receiver/json_v2", "processor", "red", "queue/primary", "target/primary"} <= ids
    assert {end for edge in flow["edges"] for end in (edge["from"], edge["to"])} <= ids
    assert flow["verdict"]["causes"][0]["line"].endswith("rejected in the last 10 seconds.")


# --- streams --------------------------------------------------------------------------------


async def test_sources_that_are_not_scraped_are_not_shown(
    http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    file = tmp_path / "tracefwd.yaml"
    file.write_text("prometheus_sources: [{url: 'http://127.0.0.1:1/federate'}]\n")
    async with watched(file, **{"--only": "spans"}) as service:
        shown = await get(http, service, "/api/v1/metrics-path")
        assert (shown["enabled"], shown["sources"]) == (False, [])


async def test_events_are_the_views_documents(
    http: aiohttp.ClientSession, service: Service
) -> None:
    url = f"{service.admin_url}/api/v1/events?views={','.join(VIEWS)}"
    seen: dict[str, int] = {}
    async with http.get(url) as answer:
        assert answer.headers["Content-Type"] == "text/event-stream"
        async with asyncio.timeout(15):
            async for name, document in events(answer):
                seen[name] = seen.get(name, 0) + 1
                if name == "history":
                    assert set(document) == {
                        "at",
                        *DOCUMENT["components"]["schemas"]["History"]["properties"]["columns"][
                            "required"
                        ],
                    }
                else:
                    check(SCHEMAS[name], document)
                if seen.get("flow", 0) >= 3 and set(VIEWS) <= set(seen):
                    break


async def test_a_reader_that_leaves_midway_is_forgotten(
    http: aiohttp.ClientSession, service: Service
) -> None:
    streams = service.views.streams
    await until(lambda: not streams.number)
    async with aiohttp.ClientSession() as other:
        answer = await other.get(service.admin_url + "/api/v1/events?views=edges")
        await answer.content.readany()
        assert streams.number == 1
        assert answer.connection is not None
        assert answer.connection.transport is not None
        answer.connection.transport.abort()
        answer.close()
    await until(lambda: not streams.number)
    check("Flow", await get(http, service, "/api/v1/flow"))


async def test_a_tap_gets_what_it_wishes_and_is_told_what_it_missed(
    http: aiohttp.ClientSession, service: Service
) -> None:
    url = f"{service.admin_url}/api/v1/tap?service=tapped&min_duration_ms=10&rate=2"
    async with http.get(url) as answer:
        await until(lambda: service.views.streams.taps)
        await asyncio.sleep(0.3)  # the wish is on its way to the worker, who does not answer it
        spans = []
        for number in range(100, 108):
            each = span(number, "slow one" if number % 2 else "quick one")
            each["tags"]["istio.canonical_service"] = "tapped"
            each["tags"]["cookie"] = SECRET
            each["duration"] = 20_000 if number % 2 else 5_000
            spans.append(each)
        await post(http, service, spans)
        lines: list[Any] = []
        async with asyncio.timeout(10):
            while not any(line["type"] == "missed" and line["over_rate"] for line in lines):
                line = json.loads(await answer.content.readline())
                check("TapLine", line)
                lines.append(line)
    shown = [line for line in lines if line["type"] == "span"]
    assert [line["span"]["operation"] for line in shown] == ["slow one"] * 2
    assert sum(line["over_rate"] for line in lines if line["type"] == "missed") == 2
    assert {line["tags"]["cookie"] for line in shown} == {"***"}
    await until(lambda: not service.views.streams.taps)


async def test_too_many_streams_are_refused(
    http: aiohttp.ClientSession, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracefwd.service.streams.STREAMS_MAX", 0)
    refusal = await get(http, service, "/api/v1/events", 503)
    assert refusal["error"] == "too_many_streams"


# --- a service of its own -------------------------------------------------------------------


async def test_a_stream_outlives_a_worker_and_says_so(http: aiohttp.ClientSession) -> None:
    async with (
        watched() as service,
        http.get(service.admin_url + "/api/v1/events?views=flow") as answer,
    ):
        await post(http, service, [span(1)])
        pid = service.slots[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        lines = []
        async with asyncio.timeout(30):
            async for _, flow in events(answer):
                lines += [cause["line"] for cause in flow["verdict"]["causes"]]
                if flow["workers"][0]["pid"] not in (pid, None) and flow["workers"][0]["ready"]:
                    break
        assert flow["workers"][0]["restarts"] == 1
        assert any("died and were replaced" in line for line in lines)
        await post(http, service, [span(2, "after")])

        async def seen() -> bool:
            rows = (await get(http, service, "/api/v1/spans"))["spans"]
            return any(row["operation"] == "after" for row in rows)

        await until(seen)


async def test_the_history_outlives_the_process(
    http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    async with watched(**{"--spool": str(tmp_path)}) as service:
        await until(lambda: service.views.history()["at"])
        before = service.views.history()
    assert (tmp_path / HISTORY_FILE).is_file()
    async with watched(**{"--spool": str(tmp_path)}) as service:
        found = await get(http, service, "/api/v1/history")
        check("History", found)
        assert found["at"][: len(before["at"])] == before["at"]
        assert found["columns"]["spans_per_s"][0] == before["columns"]["spans_per_s"][0]
