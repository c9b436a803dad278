"""The process tree under test, as an operator would run it, and the ways in which it is ended."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

from tests.bench.machine import free_port
from tests.e2e.processes import ROOT, plain_environment, tracefwd

# Far above what anything takes on a machine whose cores others use as well.
PATIENCE_S = 60.0
_LOOK_AGAIN_S = 0.01
_ADMIN_S_MAX = 10.0


class Tree:
    """``tracefwd run`` with its workers."""

    def __init__(
        self,
        folder: Path,
        sink_port: int,
        random: Random,
        kinds: Sequence[str] = ("proxy", "proxy", "direct"),
    ) -> None:
        """``kinds`` of targets, one of which is chosen at each start."""
        self.folder = folder
        self.intake, self.admin = free_port(), free_port()
        self.kills = 0
        self.starts = 0
        self._sink_port = sink_port
        self._random = random
        self._kinds = kinds
        self._parent: asyncio.subprocess.Process | None = None
        self._orphans: set[int] = set()
        self._log = (folder / "tracefwd.log").open("ab")

    def _write_config(self, workers: int) -> Path:
        """Another one at each start; small bounds, so that a short outage reaches the spool."""
        kind = self._random.choice(self._kinds)
        base = f"http://127.0.0.1:{self._sink_port}"
        token = self.folder / "token"
        token.write_text("chaos\n")
        target: dict[str, str] = {"name": "primary", "kind": kind}
        if kind == "proxy":
            target |= {"traces": base, "metrics": base}
        else:
            target |= {"url": base, "token_file": str(token)}
        config = {
            "receiver": {"listen": f"127.0.0.1:{self.intake}"},
            "admin": {"listen": f"127.0.0.1:{self.admin}"},
            "exporter": {
                "targets": [target],
                "request_timeout": "1s",
                "connect_timeout": "1s",
                "batch_age_max": "100ms",
                "batch_bytes_max": "64KiB",
                "queue_bytes_max": self._random.choice(("256KiB", "4MiB")),
                "retry": {"backoff_base": "50ms", "backoff_max": "500ms"},
            },
            "red": {"interval": "1s"},
            "spool": {
                "folder": str(self.folder / "spool"),
                "durability": self._random.choice(("disk", "disk", "fsync")),
                "after": "1s",
            },
            "service": {"workers": workers, "drain_timeout": "3s"},
        }
        path = self.folder / "tracefwd.yaml"
        path.write_text(json.dumps(config))
        return path

    async def start(self, workers: int) -> None:
        """Returns when it is ready; tries again while orphans still have the port."""
        config = self._write_config(workers)
        give_up_at = time.monotonic() + PATIENCE_S
        while True:
            self.starts += 1
            self._parent = await asyncio.create_subprocess_exec(
                *tracefwd("run", "--config", str(config)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                cwd=ROOT,
                env=plain_environment(),
            )
            while self._parent.returncode is None:
                if await self._get("/readyz") is not None:
                    return
                self._check(give_up_at, "ready")
                await asyncio.sleep(_LOOK_AGAIN_S)
            self._check(give_up_at if self._parent.returncode != 2 else 0.0, "started")
            await asyncio.sleep(0.1)

    def _check(self, give_up_at: float, what: str) -> None:
        if time.monotonic() > give_up_at:
            tail = (self.folder / "tracefwd.log").read_text(errors="replace")[-3000:]
            raise AssertionError(f"not {what} within {PATIENCE_S:g} s:\n{tail}")

    @property
    def workers(self) -> list[int]:
        return [] if self._parent is None else list(_workers_of(self._parent.pid))

    async def some_workers(self) -> list[int]:
        """At least one: right after a kill the next one is still to come."""
        give_up_at = time.monotonic() + PATIENCE_S
        while not (pids := self.workers):
            self._check(give_up_at, "a worker")
            await asyncio.sleep(_LOOK_AGAIN_S)
        return pids

    # Ends.

    def kill(self, pid: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            self.kills += 1

    async def kill_parent(self) -> list[int]:
        """Its workers are orphans now."""
        assert self._parent is not None
        orphans = self.workers
        self.kill(self._parent.pid)
        await self._parent.wait()
        self._parent = None
        self._orphans |= set(orphans)
        return orphans

    async def see_orphans_off(self) -> None:
        """Until they are gone by themselves."""
        give_up_at = time.monotonic() + PATIENCE_S
        while self._orphans:
            for pid in list(self._orphans):
                if not _lives(pid):
                    self._orphans.discard(pid)
            self._check(give_up_at, "orphans gone")
            await asyncio.sleep(_LOOK_AGAIN_S)

    def reload(self) -> None:
        assert self._parent is not None
        self._parent.send_signal(signal.SIGHUP)

    async def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self._parent is not None
        self._parent.terminate()
        async with asyncio.timeout(PATIENCE_S):
            code = await self._parent.wait()
        self._parent = None
        return code

    async def close(self) -> None:
        """Whatever has happened, nothing is left running."""
        if self._parent is not None:
            await self.kill_parent()
        for pid in self._orphans:
            self.kill(pid)
        self._log.close()

    # What it says.

    async def ledger(self) -> dict[str, Any] | None:
        """None while nobody answers."""
        found = await self._get("/ledger")
        return None if found is None else json.loads(found)

    async def again(self) -> dict[str, int] | None:
        """What it says may be doubled: spans, and spans in RED's counters and distributions."""
        found = await self._get("/metrics")
        if found is None:
            return None
        names = {
            "spans": "tracefwd_exporter_maybe_duplicated_items_total",
            "points": "tracefwd_exporter_red_maybe_doubled_total",
            "distributions": "tracefwd_exporter_red_maybe_doubled_total",
        }
        return {
            signal: sum(
                int(float(line.rpartition(" ")[2]))
                for line in found.decode().splitlines()
                if line.startswith(name + "{") and f'signal="{signal}"' in line
            )
            for signal, name in names.items()
        }

    async def _get(self, path: str) -> bytes | None:
        """The body of a 200."""
        try:
            async with asyncio.timeout(_ADMIN_S_MAX):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.admin)
                try:
                    writer.write(b"GET %s HTTP/1.0\r\n\r\n" % path.encode())
                    answer = await reader.read()
                finally:
                    writer.transport.abort()
        except (OSError, TimeoutError):
            return None
        head, _, body = answer.partition(b"\r\n\r\n")
        return body if head.split(b" ", 2)[1:2] == [b"200"] else None


def _workers_of(parent: int) -> Iterator[int]:
    with suppress(OSError):
        for task in Path(f"/proc/{parent}/task").iterdir():
            for child in (task / "children").read_text().split():
                with suppress(OSError):
                    if b"tracefwd.service.worker" in Path(f"/proc/{child}/cmdline").read_bytes():
                        yield int(child)


def _lives(pid: int) -> bool:
    """A zombie, which waits for an init that does not care, does not live."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
