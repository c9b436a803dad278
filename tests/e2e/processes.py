"""Processes of the end-to-end tests: started with their output in files, watched, and ended by their own id.

Nothing waits for a length of time: ``eventually`` looks again until what it waits for is there, and fails with what it
is waiting for.
"""

import http.client
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[2]
# Far above what anything takes, on a machine whose cores others use as well.
PATIENCE_S = 30.0
_LOOK_AGAIN_S = 0.02

T = TypeVar("T")


def eventually(
    look: Callable[[], T | None], what: str | Callable[[], str], patience_s: float = PATIENCE_S
) -> T:
    """The first true result of ``look``; false ones mean "not yet".  ``what`` says what was waited for in vain."""
    give_up_at = time.monotonic() + patience_s
    while not (found := look()):
        if time.monotonic() > give_up_at:
            text = what if isinstance(what, str) else what()
            raise AssertionError(f"not within {patience_s:g} s: {text}")
        time.sleep(_LOOK_AGAIN_S)
    return found


def free_port() -> int:
    """One of loopback's that nobody has at the moment."""
    with socket.socket() as finder:
        finder.bind(("127.0.0.1", 0))
        port: int = finder.getsockname()[1]
        return port


def request(
    method: str,
    url: str,
    *,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, bytes]:
    """One request on a connection of its own: (status, body)."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=PATIENCE_S)
    try:
        target = parts.path + ("?" + parts.query if parts.query else "")
        connection.request(method, target or "/", body, dict(headers or {}))
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def get_json(url: str) -> Any:
    status, body = request("GET", url)
    assert status == 200, (url, status, body)
    return json.loads(body)


class Process:
    """One child process in a ``with`` block, at whose end it is gone."""

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        name: str,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Output goes to ``folder``/``name``.out and .err; ``environment`` is added to ours."""
        self._name = name
        self._out, self._err = folder / f"{name}.out", folder / f"{name}.err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=ROOT,
                env=plain_environment() | dict(environment or {}),
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    @property
    def output(self) -> str:
        """Both streams so far, standard output first."""
        return self._out.read_text(errors="replace") + self._err.read_text(errors="replace")

    @property
    def is_running(self) -> bool:
        return self._popen.poll() is None

    def find(self, pattern: str) -> re.Match[str]:
        """Wait until the output has ``pattern``."""

        def look() -> re.Match[str] | None:
            is_running = self.is_running
            found = re.search(pattern, self.output)
            if found is None and not is_running:
                raise AssertionError(f"{self._name} ended without {pattern!r}:\n{self.output}")
            return found

        return eventually(look, lambda: f"{pattern!r} from {self._name}:\n{self.output}")

    @property
    def pid(self) -> int:
        return self._popen.pid

    def signal(self, number: int) -> None:
        self._popen.send_signal(number)

    def terminate(self) -> None:
        """SIGTERM, without waiting."""
        self._popen.terminate()

    def wait(self) -> int:
        """The exit code."""
        return self._popen.wait(PATIENCE_S)

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self.terminate()
        return self.wait()

    def kill(self) -> None:
        if self.is_running:
            self._popen.kill()
        self._popen.wait()


def plain_environment() -> dict[str, str]:
    """Ours without anything that would configure tracefwd or lead it through an HTTP proxy."""
    unwanted = ("TRACEFWD_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "NO_COLOR")
    return {key: value for key, value in os.environ.items() if not key.upper().startswith(unwanted)}


def tracefwd(*arguments: str) -> list[str]:
    """A command line as a user would type it."""
    return [sys.executable, "-m", "tracefwd", *arguments]
