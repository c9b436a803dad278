"""Promises of the console in a real browser, before the running demo: what it shows is what the API says, it is usable
by keyboard and in any width, no text of a span is more than text, and what goes wrong shows and mends itself."""

import json
import os
import signal
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.e2e.browser import Relay, chromium, watched_page
from tests.e2e.processes import Process, eventually, get_json, request, tracefwd

VIEWS = ("flow", "services", "spans", "refused", "metrics", "configuration")
MARKUP = "<img src=x onerror=alert(1)>"
CONTROL = "a\x1b[31m\x07\x9bb\x7fc"
TURNED = "x\u202egnp.exe\u2066y\u200f"
LONG = "n" * 10_000
# None of these may stand in the page as they are.
INVISIBLE = "\x1b\x07\x9b\x7f\u202e\u2066\u200f"
TOKEN = "console-0123456789abcdef"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def demo(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator["Demo"]:
    command = tracefwd("demo", "--rate", "200")
    with Process(command, tmp_path_factory.mktemp("demo"), "demo") as process:
        admin = process.find(r"console +(http://\S+)/ ")[1]
        intake = process.find(r"intake +(http://\S+)/api")[1]
        running = Demo(admin, intake)
        eventually(lambda: len(running.get("services")["applications"]) >= 2, "services")
        yield running
        process.stop()


@pytest.fixture
def empty(browser: Any, tmp_path: Path) -> Iterator["Demo"]:
    """A forwarder that nobody has sent anything."""
    with forwarder(tmp_path) as running:
        yield running


class Demo:
    """``admin`` and ``intake`` are URLs without a last slash."""

    def __init__(self, admin: str, intake: str) -> None:
        self.admin = admin
        self.intake = intake

    def get(self, path: str) -> Any:
        return get_json(f"{self.admin}/api/v1/{path}")

    def post(self, spans: list[dict[str, Any]]) -> None:
        headers = {"content-type": "application/json"}
        body = json.dumps(spans).encode()
        status, _ = request("POST", f"{self.intake}/api/v2/spans", body=body, headers=headers)
        assert status == 202


class forwarder:  # noqa: N801 - a context manager
    def __init__(self, folder: Path, environment: dict[str, str] | None = None) -> None:
        arguments = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
        arguments += [
            "--proxy-traces",
            "http://127.0.0.1:9",
            "--proxy-metrics",
            "http://127.0.0.1:9",
        ]
        quick = {"TRACEFWD_SERVICE__DRAIN_TIMEOUT": "0s", "TRACEFWD_RED__INTERVAL": "5s"}
        self._process = Process(
            tracefwd("run", *arguments), folder, "run", {**quick, **(environment or {})}
        )

    def __enter__(self) -> Demo:
        found = self._process.find(r"ready: intake (http://[^ ]+) .*admin (http://[^ \"]+)")
        return Demo(found[2], found[1])

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        self._process.kill()


def span(number: int, name: str, service: str, **more: Any) -> dict[str, Any]:
    tags = {"istio.canonical_service": service, "istio.namespace": "default", "error": "true"}
    return {
        "traceId": f"{number + 1:032x}",
        "id": f"{number + 1:016x}",
        "name": name,
        "kind": "CLIENT",
        "timestamp": 1_700_000_000_000_000,
        "duration": 1_500,
        "localEndpoint": {"serviceName": f"{service}.default"},
        **more,
        "tags": {**tags, **more.get("tags", {})},
    }


def open_view(page: Any, view: str) -> None:
    page.evaluate("view => { location.hash = `#/${view}` }", view)
    page.wait_for_selector(f"#{view}:not([hidden])")


def wait_for_changes(page: Any, element: str, count: int) -> None:
    """Until the text of this id has changed so many times."""
    changed = "([id, shown]) => document.getElementById(id).textContent !== shown"
    for _ in range(count):
        page.wait_for_function(changed, arg=[element, page.locator(f"#{element}").inner_text()])


def texts(page: Any, selector: str) -> list[str]:
    found: list[str] = page.locator(selector).all_text_contents()
    return [text.strip() for text in found]


def number(text: str) -> int:
    return int(text.replace(",", ""))


# --- what is shown --------------------------------------------------------------------------------


def test_flow_shows_the_pipeline_and_a_ledger_that_adds_up(browser: Any, demo: Demo) -> None:
    with watched_page(browser, demo.admin + "/") as page:
        page.wait_for_selector("#live.ok")
        before = demo.get("flow")
        # Two readings of the page later it can only be newer.
        wait_for_changes(page, "ledger-received", 2)
        terms = ("received", "delivered", "sampled_out", "blocked", "rejected", "dropped", "held")
        read = "terms => terms.map(name => document.getElementById(`ledger-${name}`).textContent)"
        received, *parts = [number(text) for text in page.evaluate(read, list(terms))]
        after = eventually(
            lambda: flow if (flow := demo.get("flow"))["at"] > before["at"] + 2 else None,
            "a reading",
        )
        assert received == sum(parts)
        first, last = (flow["ledger"]["sections"][0]["received"] for flow in (before, after))
        assert first <= received <= last
        assert page.locator("#verdict .line").inner_text() == after["verdict"]["line"]
        boxes = texts(page, "#picture .node .name")
        assert len(boxes) == len(after["nodes"])
        assert {"Zipkin JSON v2", "processor", "RED", "queue", "primary"} <= set(boxes)
        failing = texts(page, "#worst tbody tr td:first-child")
        assert failing[0] == "ratings (default)"
        assert [row for row in failing if row.startswith("details")]
        page.wait_for_selector("#plots figure polyline")
        assert page.locator("#plots figure").count() == 6
        workers = texts(page, "#workers tbody td:nth-child(2)")
        assert workers == [str(worker["pid"]) for worker in after["workers"]]


def test_services_are_those_of_the_api_sortable_searchable_and_lead_to_their_operations(
    browser: Any, demo: Demo
) -> None:
    with watched_page(browser, demo.admin + "/#/services") as page:
        wanted = {
            each["service"]: each["red"]
            for group in demo.get("services")["applications"]
            for each in group["services"]
        }
        page.wait_for_selector("#services-table tbody tr")
        names = "#services-table tbody td:first-child"
        assert set(texts(page, names)) == set(wanted)
        page.locator("#services-table th button", has_text="Errors").nth(1).click()
        assert texts(page, names)[0] == "ratings"
        share = page.locator("#services-table tbody tr").first.locator("td").nth(4).inner_text()
        assert abs(float(share.split()[0]) - 100 * wanted["ratings"]["error_share"]) < 10
        page.locator("#services-table button.link", has_text="reviews").click()
        page.wait_for_function(
            "() => document.getElementById('operations-title').textContent.endsWith('reviews')"
        )
        operations = demo.get("operations?application=default&service=reviews")["operations"]
        page.wait_for_function(
            f"() => document.querySelectorAll('#operations-table tbody tr').length === {len(operations)}"
        )
        assert set(texts(page, "#operations-table tbody td:first-child")) == {
            each["operation"] for each in operations
        }
        nodes = {node["service"] for node in demo.get("edges")["nodes"]}
        assert set(texts(page, "#graph .node text")) == nodes
        page.locator("#services input[name=search]").fill("rat")
        page.wait_for_function(
            "() => document.querySelectorAll('#services-table tbody tr').length === 1"
        )
        page.locator("#graph .node", has_text="ratings").click()
        assert "called" in page.locator("#graph p").inner_text()


def test_a_press_that_a_reading_falls_into_is_still_a_click(browser: Any, demo: Demo) -> None:
    with watched_page(browser, demo.admin + "/#/services") as page:
        page.wait_for_selector("#graph .node")
        page.evaluate("document.querySelectorAll('#graph .edge').forEach(e => e.mark = true)")
        page.locator("#graph .node", has_text="ratings").hover()
        page.mouse.down()
        wait_for_changes(page, "live", 2)
        page.mouse.up()
        assert "ratings: called" in page.locator("#graph p").inner_text()
        wait_for_changes(page, "live", 2)
        # What is drawn anew is changed where it is, not put in again.
        assert page.evaluate("[...document.querySelectorAll('#graph .edge')].some(e => e.mark)")


def test_spans_are_filtered_and_one_click_shows_the_whole_span(browser: Any, demo: Demo) -> None:
    with watched_page(browser, demo.admin + "/#/spans") as page:
        page.wait_for_selector("#spans-table tbody tr")
        page.locator("#spans input[name=service]").fill("ratings")
        page.locator("#spans input[name=error]").check()
        cells = "[...document.querySelectorAll('#spans-table tbody td:nth-child(3)')]"
        only = f"{cells}.every(td => td.textContent === 'ratings')"
        page.wait_for_function(f"() => {only} && document.querySelector('#spans-table tbody tr')")
        page.locator("#pause").click()
        row = page.locator("#spans-table tbody tr").first
        key = row.get_attribute("data-key")
        row.locator("button").click()
        page.wait_for_selector("#span[open] #span-fields tbody tr")
        detail = demo.get(f"spans/{key}")
        assert page.locator("#span-received").inner_text() == detail["received"]
        assert page.locator("#span-sent").inner_text() == "\n\n".join(detail["sent"])
        paths = texts(page, "#span-fields tbody td:first-child")
        assert paths == [field["path"] for field in detail["fields"]]
        page.locator("#span button.close").click()
        assert page.locator("#span[open]").count() == 0


def test_what_was_refused_scraped_and_configured_is_what_the_api_says(
    browser: Any, demo: Demo
) -> None:
    demo.post([span(0, "bad", "shop", traceId="not hex"), span(1, "good", "shop")])
    with watched_page(browser, demo.admin + "/#/refused") as page:
        page.wait_for_selector("#reasons tbody tr >> text=trace_id")
        wanted = {each["reason"] for each in demo.get("refused")["reasons"]}
        assert set(texts(page, "#reasons tbody td:nth-child(2)")) == wanted
        assert "shop.default" in texts(page, "#samples tbody td:nth-child(4)")
        open_view(page, "metrics")
        page.wait_for_selector("#sources tbody tr")
        [source] = demo.get("metrics-path")["sources"]
        shown = set(texts(page, "#sources tbody td:first-child"))
        assert {family["name"] for family in source["families"]} <= shown
        assert source["name"] in page.locator("#sources h2").inner_text()
        open_view(page, "configuration")
        page.wait_for_selector("#options tbody tr")
        options = {each["key"]: each for each in demo.get("configuration")["options"]}
        assert set(texts(page, "#options tbody td:first-child")) == set(options)
        page.locator("#configuration input[name=search]").fill("red.interval")
        page.wait_for_function("() => document.querySelectorAll('#options tbody tr').length === 1")
        [row] = texts(page, "#options tbody tr")
        assert options["red.interval"]["value"] in row
        assert options["red.interval"]["origin"] in row


def test_without_a_span_it_says_what_to_do_next(browser: Any, empty: Demo) -> None:
    with watched_page(browser, empty.admin + "/") as page:
        page.wait_for_selector("#how-to-start")
        assert "zipkin:" in page.locator("#how-to-start pre").inner_text()
        assert "No span has come yet" in page.locator("#verdict .line").inner_text()
        for view, words in (
            ("spans", "No span has come yet"),
            ("refused", "Nothing was refused"),
            ("metrics", "prometheus_sources"),
        ):
            open_view(page, view)
            page.wait_for_selector(f"#{view} .empty:visible")
            assert words in page.locator(f"#{view}").inner_text()


# --- how it is used -------------------------------------------------------------------------------


def test_everything_is_reached_by_keyboard(browser: Any, demo: Demo) -> None:
    with watched_page(browser, demo.admin + "/") as page:
        page.wait_for_selector("#live.ok")
        focused = "document.activeElement.textContent"
        page.keyboard.press("Tab")
        assert page.evaluate(focused) == "Skip to the view"
        for word in ("Flow", "Services", "Spans"):
            page.keyboard.press("Tab")
            assert page.evaluate(focused) == word
        page.keyboard.press("Enter")
        page.wait_for_selector("#spans:not([hidden])")
        page.keyboard.press("2")
        page.wait_for_selector("#services-table tbody tr")
        page.keyboard.press("/")
        page.keyboard.type("ratings")
        page.wait_for_function(
            "() => document.querySelectorAll('#services-table tbody tr').length === 1"
        )
        # Past the table's head to its only service.
        for _ in range(20):
            page.keyboard.press("Tab")
            if page.evaluate(focused) == "ratings":
                break
        page.keyboard.press("Enter")
        page.wait_for_function(
            "() => document.getElementById('operations-title').textContent.endsWith('ratings')"
        )
        page.locator("#graph svg").focus()
        page.keyboard.press("ArrowRight")
        page.wait_for_selector("#graph .node.picked")
        page.keyboard.press("3")
        page.wait_for_selector("#spans-table tbody tr")
        page.locator("#pause").focus()
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.wait_for_selector("#span[open]")
        page.keyboard.press("Escape")
        page.wait_for_selector("#span", state="hidden")
        assert page.evaluate("document.activeElement.closest('#spans-table') !== null")


@pytest.mark.parametrize(("width", "scheme"), [(400, "light"), (2560, "dark")])
def test_narrow_or_wide_nothing_runs_out_of_the_page(
    browser: Any, demo: Demo, tmp_path: Path, width: int, scheme: str
) -> None:
    viewport = {"width": width, "height": 900}
    with watched_page(browser, demo.admin + "/", viewport=viewport, color_scheme=scheme) as page:
        page.wait_for_selector("#live.ok")
        for view in VIEWS:
            open_view(page, view)
            page.wait_for_selector(f"#{view} tbody tr:visible, #{view} .empty:visible")
            assert page.evaluate("document.documentElement.scrollWidth") <= width, view
            page.screenshot(path=tmp_path / f"{view}.png")
            assert (tmp_path / f"{view}.png").stat().st_size > 5_000
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(15, 19, 24)"
        assert dark == (scheme == "dark")


def test_nothing_moves_while_numbers_change(browser: Any, demo: Demo) -> None:
    with watched_page(browser, demo.admin + "/") as page:
        page.wait_for_selector("#worst tbody tr")
        page.wait_for_selector("#plots figure")
        page.evaluate(
            """() => { window.moved = 0; window.movers = []; new PerformanceObserver(list => {
              for (const entry of list.getEntries()) {
                window.moved += entry.value;
                window.movers.push(...entry.sources.map(({ node }) => node?.parentElement?.outerHTML?.slice(0, 200)));
              }
            }).observe({ type: "layout-shift" }); }"""
        )
        wait_for_changes(page, "live", 4)
        assert page.evaluate("window.moved") < 0.01, page.evaluate("window.movers")


def test_a_hundred_services_stay_apart_in_the_picture(browser: Any, empty: Demo) -> None:
    calls = [(n, 2 * n + k) for n in range(50) for k in (1, 2) if 2 * n + k < 100]
    calls += [(n, n // 3) for n in range(60, 90)]
    spans = [
        span(
            place,
            "call",
            f"service-{begin:02d}",
            tags={"upstream_cluster": f"outbound|80||service-{end:02d}.default.svc.cluster.local"},
        )
        for place, (begin, end) in enumerate(calls)
    ]
    for first in range(0, len(spans), 10):
        empty.post(spans[first : first + 10])
    eventually(
        lambda: len(empty.get("edges")["nodes"]) == 100, lambda: str(empty.get("edges"))[:200]
    )
    with watched_page(browser, empty.admin + "/#/services") as page:
        page.wait_for_function("() => document.querySelectorAll('#graph .node').length === 100")
        boxes = page.evaluate(
            """[...document.querySelectorAll('#graph .box')]
              .map(box => ['x', 'y', 'width', 'height'].map(name => +box.getAttribute(name)))"""
        )
        for (x, y, w, h), (x2, y2, w2, h2) in combinations(boxes, 2):
            assert x + w <= x2 or x2 + w2 <= x or y + h <= y2 or y2 + h2 <= y
        page.locator("#graph .node", has_text="service-07").click()
        # It, who calls it, and whom it calls.
        bright = set(texts(page, "#graph .node:not(.faint) text"))
        near = {begin for begin, end in calls if end == 7} | {
            end for begin, end in calls if begin == 7
        }
        assert bright == {f"service-{n:02d}" for n in near | {7}}
        assert page.locator("#edges-table tbody tr").count() == len(set(calls))


# --- what strangers send --------------------------------------------------------------------------


def test_a_hostile_span_is_text_in_every_view(browser: Any, demo: Demo) -> None:
    bad = span(990, MARKUP, MARKUP, traceId=f"{MARKUP}{TURNED}{CONTROL}")
    demo.post([bad, span(991, "x", "y")])
    found = [
        sampled(demo, span(900 + n, name, name[:120]))
        for n, name in enumerate((CONTROL, TURNED, LONG, MARKUP))
    ]
    with watched_page(browser, demo.admin + "/") as page:
        page.wait_for_selector("#live.ok")
        for view in VIEWS:
            open_view(page, view)
            page.wait_for_selector(f"#{view} tbody tr:visible")
            clean(page)
        open_view(page, "spans")
        for wanted, shown in (
            ("onerror", MARKUP),
            ("[31m", "\\u001b[31m"),
            ("gnp.exe", "\\u202egnp.exe"),
            ("nnnnnnnn", "n" * 40),
        ):
            page.locator("#spans input[name=text]").fill(wanted)
            page.locator("#spans-table tbody tr", has_text=shown).first.wait_for()
            clean(page)
        open_view(page, "services")
        page.locator("#services input[name=search]").fill("onerror")
        # Rows of before the search may still stand there.
        page.locator("#services-table tbody tr", has_text=MARKUP[:20]).first.wait_for()
        clean(page)
        open_view(page, "refused")
        # Values of a sample are masked; its sender is not.
        page.locator("#samples tr", has_text=MARKUP).locator("summary").first.click()
        clean(page)
        open_view(page, "spans")
        page.locator("#spans input[name=text]").fill("onerror")
        page.locator(f"#spans-table tr[data-key='{found[-1]}'] button").click()
        page.wait_for_selector("#span[open]")
        assert MARKUP in page.locator("#span-received").inner_text()
        clean(page)


def sampled(demo: Demo, hostile: dict[str, Any]) -> str:
    """Post it until it is among the samples; its number there.  (Its trace id ends in its own.)"""

    def look() -> str | None:
        demo.post([hostile])
        rows = demo.get(f"spans?text={hostile['id']}")["spans"]
        return str(rows[0]["id"]) if rows else None

    return eventually(look, lambda: f"a sample of {hostile['name'][:40]!r}")


def clean(page: Any) -> None:
    assert page.locator("img, main script, dialog script, iframe").count() == 0
    assert not set(INVISIBLE) & set(page.evaluate("document.body.textContent"))
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


# --- what goes wrong ------------------------------------------------------------------------------


def test_a_wrong_token_is_told_and_the_right_one_opens_the_console(
    browser: Any, tmp_path: Path
) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"{TOKEN}\n")
    environment = {"TRACEFWD_ADMIN__TOKEN_FILE": str(file)}
    with (
        forwarder(tmp_path, environment) as running,
        watched_page(browser, running.admin + "/", server_may_go=True) as page,
    ):
        assert "A token is asked for" in page.inner_text("body")
        page.fill("input[name=token]", "wrong-0123456789abcdef")
        page.click("button")
        page.wait_for_selector("[role=alert] >> text=no token of")
        page.fill("input[name=token]", TOKEN)
        page.click("button")
        page.wait_for_selector("#live.ok")
        # The tokens are exchanged while the page is open: it asks, and goes on.
        open_view(page, "configuration")
        file.write_text("other-0123456789abcdef\n")
        eventually(
            lambda: (
                request(
                    "GET", f"{running.admin}/ledger", headers={"Authorization": f"Bearer {TOKEN}"}
                )[0]
                == 401
            ),
            "the exchange",
        )
        page.evaluate("location.hash = '#/spans'")
        page.wait_for_selector("#signin:not([hidden])")
        page.fill("#signin input", "wrong-0123456789abcdef")
        page.click("#signin button")
        page.wait_for_selector("#signin .wrong >> text=no token of")
        page.fill("#signin input", "other-0123456789abcdef")
        page.click("#signin button")
        page.wait_for_selector("#signin", state="hidden")
        page.wait_for_selector("#live.ok")


def test_a_stream_that_breaks_shows_and_comes_back_by_itself(browser: Any, demo: Demo) -> None:
    port = urlsplit(demo.admin).port
    assert port is not None
    relay = Relay(port)
    try:
        with watched_page(browser, f"http://127.0.0.1:{relay.port}/", server_may_go=True) as page:
            page.wait_for_selector("#live.ok")
            relay.cut()
            page.wait_for_selector("#live.bad >> text=stale for")
            assert page.evaluate("document.body.classList.contains('stale')")
            relay.mend()
            page.wait_for_selector("#live.ok")
            assert not page.evaluate("document.body.classList.contains('stale')")
    finally:
        relay.close()


def test_a_worker_that_dies_shows_and_the_page_goes_on(browser: Any, demo: Demo) -> None:
    with watched_page(browser, demo.admin + "/") as page:
        page.wait_for_selector("#workers tbody tr")
        before = demo.get("flow")["workers"][0]
        os.kill(before["pid"], signal.SIGKILL)
        row = page.locator("#workers tbody tr", has_text="worker 0")
        page.wait_for_function(
            "old => document.querySelector('#workers tbody td:nth-child(2)').textContent !== old",
            arg=str(before["pid"]),
        )
        eventually(lambda: demo.get("flow")["workers"][0]["ready"], "its successor")
        page.wait_for_selector("#workers tbody tr:first-child >> text=works")
        assert row.locator("td").nth(3).inner_text() == str(before["restarts"] + 1)
        assert page.locator("#live.ok").count() == 1
        assert (
            "restart" in page.locator("#verdict").inner_text()
            or "dropped" in page.locator("#verdict").inner_text()
        )


# --- the report -----------------------------------------------------------------------------------


def test_a_report_is_one_file_that_says_what_the_console_says(
    browser: Any, demo: Demo, tmp_path: Path
) -> None:
    file = tmp_path / "report.html"
    command = tracefwd("report", "--admin", demo.admin, "--since", "1h", "--output", str(file))
    with Process(command, tmp_path, "report") as process:
        assert process.wait() == 0, process.output
        assert "needs no script" in process.output
    with watched_page(browser, file.as_uri(), java_script_enabled=False) as page:
        text = page.inner_text("body")
        assert "ratings" in text
        assert page.locator("svg polyline").count() >= 6
        assert page.locator("img").count() == 0


@pytest.mark.parametrize("width", [390, 800, 1280, 1400, 1600, 1920])
def test_no_number_runs_into_its_neighbour(browser: Any, demo: Demo, width: int) -> None:
    viewport = {"width": width, "height": 900}
    with watched_page(browser, demo.admin + "/", viewport=viewport) as page:
        page.wait_for_selector("#worst tbody tr")
        page.locator("#ledger summary").click()
        page.locator("#picture-table").locator("..").locator("summary").click()
        for view in VIEWS:
            open_view(page, view)
            page.wait_for_selector(f"#{view} tbody tr:visible, #{view} .empty:visible")
            too_wide = page.evaluate(
                """view => {
                  // As they are after a day of a busy mesh.
                  document.querySelectorAll("#ledger td.n").forEach(cell => { cell.textContent = "1,234,567,890"; });
                  return [...document.querySelectorAll(`#${view} td.n`)]
                    .filter(cell => cell.scrollWidth > cell.clientWidth).map(cell => cell.textContent);
                }""",
                view,
            )
            assert not too_wide, view


def test_a_view_chosen_by_its_key_has_no_frame_over_the_footer(browser: Any, demo: Demo) -> None:
    with watched_page(browser, demo.admin + "/") as page:
        page.wait_for_selector("#worst tbody tr")
        page.keyboard.press("2")
        page.wait_for_selector("#services-table tbody tr")
        assert page.evaluate("document.activeElement.id") == "main"
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "none"
