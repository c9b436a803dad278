"""``tracefwd doctor``: looks at everything that ``run`` would need, and says of each cross what to do next.

All checks run at once, each within ``--timeout``; a target's steps follow each other and end at the first that fails.
So the whole takes some seconds even where nothing answers.  Exit codes: 0 no cross, 1 a cross, 2 a configuration that
cannot be used (then nothing else is looked at).
"""

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tracefwd.errors import ConfigError
from tracefwd.service import (
    doctor_certificate,
    doctor_listen,
    doctor_machine,
    doctor_proxy_conf,
    doctor_source,
    doctor_target,
    logs,
)
from tracefwd.service.config import Loaded
from tracefwd.service.doctor_findings import MACHINE, Finding, Rows, as_json, as_text, counts
from tracefwd.service.doctor_network import apart
from tracefwd.service.logs import colour_allowed
from tracefwd.service.units import format_duration
from tracefwd.settings import Settings
from tracefwd.spool.disk import Disk

LOG = logging.getLogger(__name__)

# A target's way has so many steps that may each take the whole time-out, but for the last moment.
_STEPS_MAX = 6


@dataclass(frozen=True, kw_only=True)
class DoctorOptions:
    """``timeout_s`` is for each check; ``proxy_conf`` a Wavefront proxy's own file."""

    timeout_s: float
    sends: bool
    proxy_conf: Path | None
    json: bool


def run(load: Callable[[], Loaded], options: DoctorOptions) -> int:
    """Prints to standard output; the exit code."""
    logs.setup("error")
    try:
        loaded = load()
    except ConfigError as error:
        todo = (
            "correct it; nothing else was looked at (tracefwd validate groups mistakes by section)"
        )
        _print([MACHINE.cross("configuration", each, todo) for each in error.problems], options)
        return 2
    found = asyncio.run(examine(loaded, options))
    _print(found, options)
    return 1 if counts(found)["cross"] else 0


async def examine(
    loaded: Loaded, options: DoctorOptions, disk: Disk | None = None
) -> list[Finding]:
    """All findings, in the order in which they are shown."""
    settings, timeout_s = loaded.settings, options.timeout_s
    parts: list[tuple[Rows, str, Awaitable[Sequence[Finding]]]] = [
        (MACHINE, "files", apart(lambda: list(doctor_machine.configuration(loaded)))),
        (MACHINE, "listen", doctor_listen.listening(settings, timeout_s)),
        (MACHINE, "limits", apart(lambda: _limits(settings))),
        (MACHINE, "spool", apart(lambda: doctor_machine.spool(settings, disk or Disk()))),
    ]
    targets = doctor_target.checks(settings, timeout_s=timeout_s, sends=options.sends)
    parts += [(each.rows, "target", each.run()) for each in targets]
    sources = doctor_source.checks(settings, timeout_s=timeout_s)
    parts += [(each.rows, "source", each.run()) for each in sources]
    asked = [_bounded(rows, check, part, timeout_s) for rows, check, part in parts]
    found = [each for part in await asyncio.gather(*asked) for each in part]
    return [*found, *_proxy(options.proxy_conf, settings)]


def _limits(settings: Settings) -> list[Finding]:
    return [
        *doctor_certificate.own(MACHINE, settings),
        *doctor_machine.open_files(settings),
    ]


def _proxy(file: Path | None, settings: Settings) -> list[Finding]:
    if file is not None:
        return doctor_proxy_conf.findings(file, settings)
    if any(target.kind == "proxy" for target in settings.exporter.targets):
        why = "a proxy's prefix, filters and point rules cannot be seen from outside"
        todo = "give the proxy's own file: --proxy-conf wavefront.conf"
        return [Rows("proxy's wavefront.conf").skipped("RED on the metrics port", why, todo)]
    return []


async def _bounded(
    rows: Rows, check: str, part: Awaitable[Sequence[Finding]], timeout_s: float
) -> Sequence[Finding]:
    """The last resort: every step has a time-out of its own, and none may take the others' answers with it."""
    limit_s = timeout_s * _STEPS_MAX
    try:
        async with asyncio.timeout(limit_s):
            return await part
    except TimeoutError:
        detail = f"not over within {format_duration(limit_s)}"
        return [rows.cross(check, detail, "a disk or a name server hangs; look at this machine")]
    except Exception as error:
        LOG.exception("%s of %s failed through a fault of ours", check, rows.part)
        detail = f"a fault of tracefwd's own: {type(error).__name__}"
        return [rows.cross(check, detail, "please report it, with what stands on standard error")]


def _print(found: Sequence[Finding], options: DoctorOptions) -> None:
    signs = (sys.stdout.encoding or "").lower().startswith("utf")
    if options.json:
        print(as_json(found, signs=signs))
        return
    print(as_text(found, signs=signs, colour=sys.stdout.isatty() and colour_allowed()))


__all__ = ["DoctorOptions", "examine", "run"]
