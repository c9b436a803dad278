"""``tracefwd emulate``: the Wavefront stand-in in the foreground, until SIGINT or SIGTERM.

Standard output says first where it listens, one line per port, and last what it took and refused.
"""

import asyncio
import errno
import json
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracefwd.emulator.server import Emulator, EmulatorSettings
from tracefwd.errors import ConfigError, StartError
from tracefwd.service import units


@dataclass(frozen=True, kw_only=True)
class EmulateOptions:
    """As typed; ``run`` checks them.  ``token_file`` holds the API token that direct ingestion demands."""

    listen: str
    trace_listen: str | None
    record: Path | None
    version: str
    token_file: Path | None


def run(options: EmulateOptions) -> int:
    """0 after a signal.  Raises ``ConfigError`` for options and ``StartError`` for ports and files."""
    _check(options)
    settings = EmulatorSettings(
        listen=options.listen,
        trace_listen=options.trace_listen,
        record=options.record,
        version=options.version,
        token=None if options.token_file is None else _token(options.token_file),
    )
    return asyncio.run(_serve(settings))


def _check(options: EmulateOptions) -> None:
    problems: list[str] = []
    for flag, address in (("--listen", options.listen), ("--trace-listen", options.trace_listen)):
        try:
            if address is not None:
                units.parse_address(address)
        except units.UnitError as exc:
            problems.append(f"{flag}: {exc}.")
    try:
        units.parse_version(options.version)
    except units.UnitError as exc:
        problems.append(f"--version: {exc}.")
    if problems:
        raise ConfigError(problems)


def _token(file: Path) -> str:
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as exc:
        what = exc.strerror if isinstance(exc, OSError) else "not UTF-8"
        raise StartError(
            f"--token-file cannot be read ({what}); check the path and that this user may read it"
        ) from exc
    if not token:
        raise StartError("--token-file is empty; write the token into it")
    return token


async def _serve(settings: EmulatorSettings) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    emulator = Emulator(settings)
    try:
        await emulator.start()
    except OSError as exc:
        raise StartError(_why_not(exc)) from exc
    try:
        for line in _places(emulator):
            print(line, flush=True)
        await stopping.wait()
    finally:
        totals = emulator.totals()
        await emulator.stop()
    for line in _account(totals):
        print(line, flush=True)
    return 0


def _places(emulator: Emulator) -> list[str]:
    lines = [f"listening on {emulator.url} for metrics, direct ingestion and queries"]
    if emulator.trace_url is not None:
        lines.append(f"listening on {emulator.trace_url} for spans and span logs")
    return lines


def _why_not(exc: OSError) -> str:
    what = exc.strerror or str(exc)
    if exc.errno == errno.EADDRINUSE:
        return f"{what}; stop the program that has the port, or change --listen or --trace-listen"
    if exc.filename is not None:
        return f"--record cannot be written ({what}); give a file in a folder that this user may write to"
    return f"{what}; check --listen and --trace-listen"


def _account(totals: Mapping[str, Any]) -> list[str]:
    return [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in totals.items()]


__all__ = ["EmulateOptions", "run"]
