"""What systemd wants to hear of a service of ``Type=notify`` or ``notify-reload``: a few words into a Unix socket.

Without ``NOTIFY_SOCKET`` in the environment everything here does nothing.  Saying something never waits and never
raises: whoever does not listen shall not stop us.
"""

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Mapping

LOG = logging.getLogger(__name__)

# Pings per watchdog period: one may fail while a dead worker is being replaced.
_PINGS_PER_PERIOD = 3


class Systemd:
    """``watchdog_s`` is how long systemd bears our silence; None: it does not watch."""

    def __init__(self, environ: Mapping[str, str], pid: int) -> None:
        """``pid`` is ours: a watchdog that is meant for another process is none."""
        self._address = environ.get("NOTIFY_SOCKET", "")
        # A leading @ stands for the NUL of an abstract name.
        if self._address.startswith("@"):
            self._address = "\0" + self._address[1:]
        self._deaf = not self._address
        self.watchdog_s: float | None = None
        period_us = environ.get("WATCHDOG_USEC", "")
        mine = environ.get("WATCHDOG_PID", str(pid)) == str(pid)
        if not self._deaf and mine and period_us.isascii() and period_us.isdigit():
            self.watchdog_s = int(period_us) / 1e6 or None

    def ready(self, status: str) -> None:
        """We serve; also said when a reload is over."""
        self._say("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        # systemd tells by the time which of its wishes this answers.
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000
        self._say("RELOADING=1", f"MONOTONIC_USEC={now_us}", "STATUS=exchanging the workers")

    def stopping(self, status: str, within_s: float) -> None:
        """We leave, and ask to be left in peace for so long, whatever ``TimeoutStopSec`` says."""
        extension = f"EXTEND_TIMEOUT_USEC={round(within_s * 1e6)}"
        self._say("STOPPING=1", f"STATUS={status}", extension)

    async def watch(self, answers: Callable[[], Awaitable[bool]]) -> None:
        """Say that all is well for as long as it is; returns at once when nobody watches."""
        if self.watchdog_s is None:
            return
        while True:
            if await answers():
                self._say("WATCHDOG=1")
            await asyncio.sleep(self.watchdog_s / _PINGS_PER_PERIOD)

    def _say(self, *lines: str) -> None:
        if not self._address:
            return
        text = "\n".join(line.replace("\n", " ") for line in lines)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.sendto(text.encode(), self._address)
        except OSError as error:
            if not self._deaf:
                LOG.warning("systemd does not hear us at NOTIFY_SOCKET: %s", error)
            self._deaf = True
