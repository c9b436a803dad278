"""Promises of a report: one file that needs nothing, with what the API said, and no text of a span as markup."""

import json
import re
from typing import Any

import pytest

from tests.console.documents import example
from tests.console.test_page import read
from tracefwd.console.report import Documents, render

HOSTILE = "</td><script>alert(1)</script>\u202e\x1b[31m"


def documents(**more: Any) -> Documents:
    flow = example("Flow")
    history = json.loads(json.dumps(example("History")))
    history["at"] = [flow["at"] - 10, flow["at"]]
    parts: dict[str, Any] = {
        "flow": flow,
        "history": history,
        "services": example("Services"),
        "operations": example("Operations"),
        "edges": example("Edges"),
        "refused": example("Refused"),
        "metrics_path": {"at": flow["at"], "enabled": True, "sources": [example("Source")]},
        "configuration": example("Configuration"),
    }
    return Documents(**{**parts, **more})


def shown(made: Documents, since_s: float = 3_600.0) -> str:
    return render(made, since_s=since_s, where="http://here:9412", tell=lambda at: f"at {at:.0f}")


def spoiled(value: Any) -> Any:
    """Every text in it is hostile; names of states stay, because the page knows them."""
    if isinstance(value, str):
        return value + HOSTILE
    if isinstance(value, list):
        return [spoiled(each) for each in value]
    if isinstance(value, dict):
        return {key: spoiled(each) for key, each in value.items()}
    return value


def test_everything_that_the_api_said_is_in_it() -> None:
    text = shown(documents())
    for part in (
        "primary does not take spans: connection refused",
        "12.5",
        "0.8%",
        "trace_id",
        "WF-410: too many tags",
        "go.gc",
        "red.interval",
        "500",
        "worker 0",
    ):
        assert part in text


def test_it_needs_no_script_and_no_net() -> None:
    for tag, attributes in read(shown(documents())).tags:
        assert tag not in {"script", "link", "img", "iframe", "object", "form"}
        assert not {"src", "href", "style"} & set(attributes)
    assert "default-src 'none'" in shown(documents())


def test_plots_are_drawn_and_end_where_nothing_is_known() -> None:
    text = shown(documents())
    assert text.count("<svg") == 6
    lines = re.findall(r'<polyline class="c1" points="([^"]+)"', text)
    # 500 and 510 spans a second: near the top, the second one at it.
    assert lines[0] == "0.0,2.5 360.0,1.0"
    # The second median is not known.
    assert lines[2].split()[0] == lines[2].split()[1]


def test_what_is_older_than_asked_for_is_left_out() -> None:
    # The samples of the example are 10 and 20 seconds old.
    assert "WF-410" in shown(documents(), since_s=60.0)
    assert "WF-410" not in shown(documents(), since_s=15.0)
    assert "There is no history yet." in shown(documents(), since_s=5.0)


@pytest.mark.parametrize(
    "name", ["flow", "services", "operations", "edges", "refused", "metrics_path", "configuration"]
)
def test_no_text_becomes_markup(name: str) -> None:
    plain = documents()
    made = shown(documents(**{name: spoiled(getattr(plain, name))}))
    assert [tag for tag, _ in read(made).tags if tag == "script"] == []
    assert "&lt;script&gt;" in made
    assert "\u202e" not in made
    assert "\x1b" not in made
