"""What signals mean to ``run`` before its loop takes them over, and once the loop is gone.

By default a SIGHUP ends a process, and systemd takes that for an exit in good order; a SIGTERM to a container's first
process, which has no handler for it, never arrives at all.
"""

import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop


def before_the_loop() -> None:
    """While files are read and modules are loaded: leave when asked to; what a SIGHUP wants is being done."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))


def after_the_loop(loop: "AbstractEventLoop") -> None:
    """While the interpreter closes: a signal would kill us and spoil the exit code."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_IGN)


__all__ = ["after_the_loop", "before_the_loop"]
