"""SIGHUP: read the configuration again, take over what can change, and exchange the workers one by one.

1. A configuration that cannot be used changes nothing: not a worker is touched, and the log says what is wrong.
2. Options that the parent used before there were workers stay as they are until a restart, and the log says which.
3. Workers are exchanged even if nothing has changed: they read secrets, certificates and rules anew.
4. What rests in a spool that is left for another folder stays there: the log says so.
5. A wish that comes while one is being fulfilled is fulfilled afterwards, once.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tracefwd.errors import ConfigError, StartError
from tracefwd.service import logs
from tracefwd.service.config import Loaded
from tracefwd.service.config_options import build, catalogue, get
from tracefwd.service.spool_roots import lines_left
from tracefwd.service.systemd import Systemd
from tracefwd.settings import Settings

if TYPE_CHECKING:
    from tracefwd.service.supervisor import Service

LOG = logging.getLogger(__name__)

# Each decides about sockets that are bound once, at the start, or about who may come to them.
NEEDS_RESTART = (
    "receiver.listen",
    "receiver.trace_listen",
    "receiver.otlp.http.listen",
    "receiver.otlp.grpc.listen",
    "admin.listen",
    "admin.token_file",
    "admin.tls.cert_file",
    "admin.tls.key_file",
    "admin.tls.client_ca_file",
    "admin.allowed_hosts",
    "service.only",
    "service.workers",
)


@dataclass(frozen=True)
class Change:
    """``loaded`` is what holds from now on; ``changed`` and ``kept`` are keys that differ from before."""

    loaded: Loaded
    changed: list[str]
    kept: list[str]

    @property
    def summary(self) -> str:
        return ", ".join(self.changed) or "nothing"


def change(old: Loaded, new: Loaded) -> Change:
    """What of ``new`` can be had without a restart."""
    values = {key: get(new.settings, key) for key in catalogue()}
    differing = [key for key, value in values.items() if value != get(old.settings, key)]
    kept = [key for key in differing if key in NEEDS_RESTART]
    origins = dict(new.origins)
    for key in kept:
        values[key] = get(old.settings, key)
        origins[key] = old.origins.get(key, "default")
    settings: Settings = build(Settings, values)
    changed = [key for key in differing if key not in kept]
    return Change(replace(new, settings=settings, origins=origins), changed, kept)


class Reloader:
    """``wish`` may be called at any time, ``run`` fulfils until it is cancelled."""

    def __init__(
        self, service: "Service", reread: Callable[[], Loaded] | None, systemd: Systemd
    ) -> None:
        """``reread`` raises ``ConfigError`` or ``StartError``; None: there is nothing to read."""
        self._service = service
        self._reread = reread
        self._systemd = systemd
        self._wished = asyncio.Event()

    def wish(self) -> None:
        self._wished.set()

    async def run(self) -> None:
        while True:
            await self._wished.wait()
            self._wished.clear()
            if self._service.draining:
                LOG.warning("draining: the configuration is not read again")
                continue
            self._systemd.reloading()
            status = await self._reload()
            if not self._service.draining:
                self._systemd.ready(status)

    async def _reload(self) -> str:
        """One line for people about how it went."""
        before = self._service.loaded.settings.spool.folder
        try:
            loaded = self._service.loaded if self._reread is None else self._reread()
            await self._service.reload(loaded)
        except ConfigError as error:
            reason = "; ".join(error.problems)
        except StartError as error:
            reason = str(error)
        except Exception as error:
            LOG.exception("reading the configuration again failed; the one before it goes on")
            return f"{self._service.status}; a reload failed: {type(error).__name__}"
        else:
            logs.configure(self._service.loaded.settings.service)
            await self._tell_left(before)
            return self._service.status
        self._service.reloads_refused += 1
        # One line, as everywhere: the reasons of a start are lines.
        reason = " ".join(reason.split("\n"))
        LOG.error("the configuration cannot be used, the one before it goes on: %s", reason)
        return f"{self._service.status}; the last reload was refused: {reason}"

    async def _tell_left(self, folder: str) -> None:
        """A spool whose folder is not ours any more: nobody takes over what its workers could not deliver."""
        if not folder or folder == self._service.loaded.settings.spool.folder:
            return
        lines = await asyncio.to_thread(lines_left, Path(folder))
        if lines:
            LOG.error(
                "%s is no longer the spool and holds %d lines, which nobody sends: 'tracefwd spool drain --spool %s' "
                "with a target does",
                folder,
                lines,
                folder,
            )
