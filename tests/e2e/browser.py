"""A real Chromium before the console: pages that fail a test when they complain or ask elsewhere."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
# What the page may complain about when its server is gone on purpose.
GONE = ("net::ERR_", "Failed to load resource")


@contextmanager
def chromium() -> Iterator[Any]:
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="NO PLAYWRIGHT: the console was seen by no browser"
    )
    if not CHROMIUM.exists():
        pytest.skip(f"NO CHROMIUM at {CHROMIUM}: the console was seen by no browser")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def watched_page(
    browser: Any, url: str, *, server_may_go: bool = False, **options: Any
) -> Iterator[Any]:
    """A page at ``url``; at the end nothing was logged as an error and nothing asked of another origin."""
    options.setdefault("viewport", {"width": 1400, "height": 900})
    context = browser.new_context(**options)
    complaints: list[str] = []
    requests: list[str] = []
    context.on("request", lambda request: requests.append(request.url))
    page = context.new_page()
    page.set_default_timeout(20_000)

    def hear(message: Any) -> None:
        harmless = server_may_go and any(part in message.text for part in GONE)
        if message.type in ("error", "warning") and not harmless:
            complaints.append(message.text)

    page.on("console", hear)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(f"a dialog said {dialog.message}"))
    try:
        page.goto(url)
        yield page
        assert not complaints, complaints
        origin = urlsplit(url).netloc
        elsewhere = [
            each for each in requests if urlsplit(each).netloc != origin and each[:5] != "data:"
        ]
        assert not elsewhere, elsewhere
    finally:
        context.close()


class Relay:
    """Connections to ``port`` go on to ``target``; ``cut`` breaks them all and refuses new ones until ``mend``."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._is_cut = False
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self._is_cut = True
        for sock in self._open:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def mend(self) -> None:
        self._is_cut = False

    def close(self) -> None:
        self.cut()
        # Wakes the thread that accepts, which then ends.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self._is_cut:
                near.close()
                continue
            far = socket.create_connection(("127.0.0.1", self._target))
            self._open += [near, far]
            for begin, end in ((near, far), (far, near)):
                threading.Thread(target=_pump, args=(begin, end), daemon=True).start()


def _pump(begin: socket.socket, end: socket.socket) -> None:
    with suppress(OSError):
        while data := begin.recv(65_536):
            end.sendall(data)
    for sock in (begin, end):
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        sock.close()
