"""``tracefwd top``: its screens from events, its keys, and one run in a real terminal."""

import asyncio
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from textual.widgets import DataTable, Input, Static, TabbedContent

from tests.service.watched import CONTROL, DOCUMENT, HOSTILE, MARKUP, post, span, until, watched
from tracefwd.service import admin_client
from tracefwd.service.admin_client import Reach
from tracefwd.service.top import OperationsScreen, TopApp, ledger_text

SCHEMAS = DOCUMENT["components"]["schemas"]
FLOW: dict[str, Any] = SCHEMAS["Flow"]["example"]
SERVICES: dict[str, Any] = SCHEMAS["Services"]["example"]
REFUSED: dict[str, Any] = SCHEMAS["Refused"]["example"]
RED: dict[str, Any] = SERVICES["applications"][0]["services"][0]["red"]


class Told(TopApp):
    """It gets its events from the test."""

    async def follow(self) -> None:
        self.trouble = ""


def app() -> Told:
    return Told(Reach("http://127.0.0.1:1"))


def cells(screen: Any, name: str) -> list[list[str]]:
    table = screen.query_one(name, DataTable)
    return [[str(text) for text in table.get_row_at(at)] for at in range(table.row_count)]


def shown(app: TopApp, name: str) -> str:
    return str(app.query_one(name, Static).render())


def services(*names: str, **red: Any) -> dict[str, Any]:
    rows = [
        {"service": name, "operations": 1, "red": {**RED, "rate": float(at), **red}}
        for at, name in enumerate(names)
    ]
    return {**SERVICES, "applications": [{"application": "default", "services": rows}]}


async def test_every_view_shows_its_document() -> None:
    top = app()
    async with top.run_test(size=(120, 40)) as pilot:
        for name, document in (("flow", FLOW), ("services", SERVICES), ("refused", REFUSED)):
            top.take(name, document)
        await pilot.pause()
        assert "primary does not take spans: connection refused" in shown(top, "#verdict")
        assert shown(top, "#ledger") == "received 12 = delivered 9 + rejected 2 + held 1"
        assert [row[0] for row in cells(top, "#flow-table")] == [
            "receiver",
            "processor",
            "queue",
            "target",
        ]
        assert cells(top, "#services-table")[0][:4] == ["default", "reviews", "12.5", "0.8%"]
        assert cells(top, "#targets-table")[0][0] == "primary"
        assert cells(top, "#targets-table")[0][-1] == "connection refused"
        assert [row[1] for row in cells(top, "#refused-table")] == ["trace_id", "value_cut"]


async def test_keys_choose_views_sort_search_and_pause() -> None:
    top = app()
    async with top.run_test(size=(120, 40)) as pilot:
        top.take("flow", FLOW)
        for key, name in (("2", "services"), ("3", "targets"), ("4", "refused"), ("1", "flow")):
            await pilot.press(key)
            assert top.query_one(TabbedContent).active == name
        document = services("aaa", "bbb", "abc")
        rows = document["applications"][0]["services"]
        rows[0]["red"]["error_share"], rows[1]["red"]["error_share"] = 0.5, 0.2
        top.take("services", document)
        names = [row[1] for row in cells(top, "#services-table")]
        assert names == ["abc", "bbb", "aaa"]  # by rate
        await pilot.press("s")
        assert [row[1] for row in cells(top, "#services-table")][:2] == ["aaa", "bbb"]
        await pilot.press("slash", "b")
        assert top.query_one("#search", Input).has_focus
        await pilot.pause()
        assert {row[1] for row in cells(top, "#services-table")} == {"abc", "bbb"}
        await pilot.press("escape")
        await pilot.pause()
        assert len(cells(top, "#services-table")) == 3
        await pilot.press("p")
        top.take("services", services("later"))
        assert len(cells(top, "#services-table")) == 3
        assert "paused" in shown(top, "#verdict")
        await pilot.press("p")
        assert [row[1] for row in cells(top, "#services-table")] == ["later"]
        await pilot.press("q")
    assert top.return_value is None


async def test_the_cursor_stays_on_its_service_when_others_come() -> None:
    top = app()
    async with top.run_test() as pilot:
        await pilot.press("2")
        top.take("services", services("low", "high"))
        await pilot.press("down")
        top.take("services", services("low", "high", "highest"))
        await pilot.pause()
        table = top.query_one("#services-table", DataTable)
        assert str(table.get_row_at(table.cursor_row)[1]) == "low"


async def test_a_strangers_name_is_text_in_every_table() -> None:
    top = app()
    async with top.run_test(size=(160, 40)) as pilot:
        document = services(*HOSTILE)
        top.take("services", document)
        flow = {**FLOW, "nodes": [{**FLOW["nodes"][0], "title": CONTROL, "note": MARKUP}]}
        top.take("flow", {**flow, "verdict": {**FLOW["verdict"], "line": MARKUP + CONTROL}})
        await pilot.press("2")
        await pilot.pause()
        texts = [text for row in cells(top, "#services-table") for text in row]
        texts += [text for row in cells(top, "#flow-table") for text in row]
        assert all(text.isprintable() for text in texts)
        assert any(MARKUP in text for text in texts)
        verdict = shown(top, "#verdict")
        assert MARKUP in verdict
        assert "\x1b" not in verdict
        operation = {"application": "a", "service": MARKUP, "operation": CONTROL, "red": RED}
        screen = OperationsScreen(f"a / {MARKUP}", {"operations": [operation]})
        await top.push_screen(screen)
        await pilot.pause()
        assert cells(screen, "#operations-table")[0][0].isprintable()
        await pilot.press("escape")
        assert top.screen is not screen


async def test_ten_thousand_services_are_cut_to_what_a_person_reads() -> None:
    top = app()
    async with top.run_test():
        top.take("services", services(*(f"s{n}" for n in range(10_000))))
        assert len(cells(top, "#services-table")) == 1_000


def test_a_ledger_that_does_not_balance_says_so() -> None:
    sections = [{**FLOW["ledger"]["sections"][0], "missing": 3}]
    text = str(ledger_text({"balanced": False, "sections": sections}))
    assert text.endswith("missing 3  NOT BALANCED")


async def test_a_lost_connection_is_said_and_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    """From a real service, its operations included."""
    monkeypatch.setattr(admin_client, "AGAIN_S", 0.05)
    async with watched(**{"red.interval": "1s"}) as service:
        top = TopApp(Reach(service.admin_url))
        async with top.run_test(size=(120, 40)) as pilot, aiohttp.ClientSession() as http:
            await post(http, service, [span(1)])
            await pilot.press("2")
            await until(lambda: cells(top, "#services-table"))
            await pilot.press("enter")
            await until(lambda: isinstance(top.screen, OperationsScreen))
            assert cells(top.screen, "#operations-table")[0][0] == "get"
            await pilot.press("escape")
            await service.views.streams.close()
            await until(lambda: top.trouble)
            await until(lambda: not top.trouble)
            assert cells(top, "#services-table")


async def test_an_event_behind_the_end_is_no_matter() -> None:
    async with watched() as service:
        top = TopApp(Reach(service.admin_url))
        async with top.run_test(size=(120, 40)):
            await until(lambda: "flow" in top._documents)
            flow = top._documents["flow"]
            await top.query("#verdict").remove()
            top.take("flow", flow)


async def test_a_wrong_token_is_told_in_the_words_of_the_api(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("the-right-one")
    async with watched(**{"admin.token_file": str(file)}) as service:
        top = TopApp(Reach(service.admin_url, token="the-wrong-one"))
        async with top.run_test(size=(120, 40)):
            await until(lambda: "admin.token_file" in shown(top, "#verdict"))


def test_in_a_real_terminal(tmp_path: Path) -> None:
    if shutil.which("tmux") is None:
        pytest.skip("NO TMUX: top is not seen in a real terminal")
    asyncio.run(_in_a_terminal(str(tmp_path / "tmux")))


async def _in_a_terminal(socket: str) -> None:
    def tmux(*arguments: str) -> str:
        command = ["tmux", "-S", socket, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    async with watched(**{"red.interval": "1s"}) as service, aiohttp.ClientSession() as http:
        spans = [span(n, text) for n, text in enumerate(HOSTILE, 1)]
        for each, text in zip(spans, HOSTILE, strict=True):
            each["tags"]["istio.canonical_service"] = text[:100]
        await post(http, service, spans)
        top = f"{sys.executable} -m tracefwd top --admin {service.admin_url}"
        path = os.pathsep.join(filter(None, sys.path))
        session = ("new-session", "-d", "-x", "110", "-y", "30", "-e", f"PYTHONPATH={path}", top)
        await asyncio.to_thread(tmux, *session)
        try:
            await _screen_has(tmux, "received 4 = ")
            tmux("send-keys", "2")
            screen = await _screen_has(tmux, "<img src=x onerror=alert(1)>[bold]")
            assert "a\\x1b[31m" in screen
            assert "\u202e" not in screen
            tmux("send-keys", "3")
            await _screen_has(tmux, "primary")
            tmux("send-keys", "q")
            await until(lambda: not tmux("ls"))
        finally:
            tmux("kill-server")


async def _screen_has(tmux: Any, text: str) -> str:
    screen = ""
    end = time.monotonic() + 30
    while text not in screen:
        assert time.monotonic() < end, screen
        await asyncio.sleep(0.1)  # a terminal tells nobody that it was painted
        screen = await asyncio.to_thread(tmux, "capture-pane", "-p")
    return screen
