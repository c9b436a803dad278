"""Promises of the console's page before its script runs: it says the state, and no text becomes markup."""

import json
import re
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.console.documents import example
from tracefwd.console import page

ROOT = Path(__file__).parents[2]
HOSTILE = "</script><img src=x onerror=alert(1)>&\u2028\u202e"


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.data: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        tag, attributes = self.tags[-1] if self.tags else ("", {})
        name = attributes.get("id") or tag
        self.data[name] = self.data.get(name, "") + data


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    return reader


def hostile_flow() -> dict[str, Any]:
    flow: dict[str, Any] = json.loads(json.dumps(example("Flow")))
    flow["verdict"] |= {"line": HOSTILE, "todo": HOSTILE, "level": "bad"}
    flow["nodes"][0]["note"] = HOSTILE
    return flow


def test_the_page_says_verdict_and_balance_without_its_script() -> None:
    flow = example("Flow")
    text = page.console(flow)
    assert flow["verdict"]["line"] in text
    spans = flow["ledger"]["sections"][0]
    assert f"{spans['received']:,} received = {spans['delivered']:,} delivered + " in text
    assert f"tracefwd {flow['version']}" in text


def test_no_text_of_a_document_becomes_markup() -> None:
    plain, hostile = read(page.console(example("Flow"))), read(page.console(hostile_flow()))
    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in plain.tags]
    assert json.loads(hostile.data["first"]) == hostile_flow()
    assert "img" not in {tag for tag, _ in read(page.sign_in(HOSTILE)).tags}


@pytest.mark.parametrize("text", [page.console(example("Flow")), page.sign_in("no")])
def test_nothing_is_inline_and_nothing_comes_from_elsewhere(text: str) -> None:
    for tag, attributes in read(text).tags:
        assert tag != "style"
        assert "style" not in attributes
        assert not [name for name in attributes if name.startswith("on")]
        if tag == "script":
            assert attributes.get("src") or attributes["type"] == "application/json"
        for name in ("src", "href", "action"):
            value = attributes.get(name) or ""
            assert value.startswith(("/", "#", "data:")) or not value
            assert not value.startswith("//")


def test_the_script_never_writes_markup_and_the_files_name_no_other_host() -> None:
    script = page.asset("console.js")
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|Function\(", script
    )
    for name in ("console.js", "console.css", "console.html", "signin.html", "report.css"):
        found = set(re.findall(r"https?://[^\s\"'`)]+", page.asset(name)))
        # The name of a vocabulary, and what is shown to be pasted or typed.
        assert found <= {
            "http://www.w3.org/2000/svg",
            "http://prometheus.istio-system:9090/federate?match[]={job=~\\",
            "http://HOST:9411",
        }


def test_the_wheel_takes_the_page_along() -> None:
    """It packs the whole folder but for what git ignores."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel == {"packages": ["tracefwd"]}
    files = [*(ROOT / "tracefwd" / "console" / "page").iterdir()]
    assert {file.name for file in files} >= {"console.html", "console.css", "console.js"}
    for pattern in (ROOT / ".gitignore").read_text().split():
        assert not [file for file in files if file.match(pattern.strip("/"))]
