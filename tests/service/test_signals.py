"""Signals before and after the loop: what comes then must not spoil the exit code."""

import subprocess
import sys


def test_no_signal_spoils_the_exit_code_once_the_loop_is_gone() -> None:
    program = (
        "import asyncio, signal\n"
        "from tracefwd.service.signals import after_the_loop\n"
        "NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)\n"
        "async def main():\n"
        "    loop = asyncio.get_running_loop()\n"
        "    for number in NUMBERS: loop.add_signal_handler(number, print)\n"
        "    after_the_loop(loop)\n"
        "asyncio.run(main())\n"
        "for number in NUMBERS: signal.raise_signal(number)\n"
        "raise SystemExit(7)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=30)
    assert (done.returncode, done.stderr) == (7, b"")


def test_before_the_loop_a_reload_is_under_way_anyway_and_a_stop_is_obeyed() -> None:
    program = (
        "import signal\n"
        "from tracefwd.service.signals import before_the_loop\n"
        "before_the_loop()\n"
        "signal.raise_signal(signal.SIGHUP)\n"
        "print('lives')\n"
        "signal.raise_signal(signal.SIGTERM)\n"
        "print('still')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"lives\n", b"")
