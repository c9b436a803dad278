"""``make screenshots``: the pictures of the README, taken of the running demo by a real browser.

Takes a minute and a half, so that the plots have something to show.
"""

import sys
import tempfile
from pathlib import Path

from tests.e2e.browser import chromium, watched_page
from tests.e2e.processes import ROOT, Process, eventually, get_json, tracefwd

FOLDER = ROOT / "deploy" / "screenshots"
BYTES_MAX = 150_000
STEPS = 8


def main() -> int:
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        command = tracefwd("demo", "--rate", "300")
        with Process(command, Path(folder), "demo") as demo, chromium() as browser:
            admin = demo.find(r"console +(http://\S+)/ ")[1]
            eventually(
                lambda: len(get_json(f"{admin}/api/v1/history")["at"]) >= STEPS,
                "a history",
                patience_s=STEPS * 12.0,
            )
            take(browser, f"{admin}/")
            demo.stop()
    sizes = {file.name: file.stat().st_size for file in sorted(FOLDER.glob("*.png"))}
    print("\n".join(f"{name}: {size:,} bytes" for name, size in sizes.items()))
    return int(any(size > BYTES_MAX for size in sizes.values()))


def take(browser: object, url: str) -> None:
    size = {"width": 1280, "height": 860}
    with watched_page(browser, url, viewport=size) as page:
        page.wait_for_selector("#worst tbody tr")
        page.wait_for_selector("#plots figure")
        page.screenshot(path=FOLDER / "flow.png")
        page.goto(f"{url}#/services")
        page.wait_for_selector("#graph .node")
        page.locator("#services-table button.link", has_text="ratings").click()
        page.wait_for_function(
            "() => document.querySelectorAll('#operations-table tbody tr').length === 1"
        )
        page.screenshot(path=FOLDER / "services.png", full_page=True)
    # Smaller: most of it is text, which weighs much as a picture.
    size = {"width": 1000, "height": 560}
    with watched_page(browser, f"{url}#/spans", viewport=size, color_scheme="dark") as page:
        page.locator("#spans input[name=error]").check()
        page.wait_for_selector("#spans-table td.bad")
        page.locator("#pause").click()
        page.locator("#spans-table tbody button").first.click()
        page.wait_for_selector("#span[open] #span-fields tr")
        page.screenshot(path=FOLDER / "span.png")


if __name__ == "__main__":
    sys.exit(main())
