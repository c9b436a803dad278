"""Signals after the loop: what comes then must not spoil the exit code."""

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
