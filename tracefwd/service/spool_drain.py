"""``tracefwd spool drain``: send everything that a spool holds to the configured targets, and remove what has arrived.

The same parts as in a worker, without an intake: they take over what dead workers left, RED that was not sent included.
Folders of running workers are left alone.  What cannot be delivered stays; so does the history of the accounts, for
the next worker.
"""

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tracefwd.exporter.target import Target
from tracefwd.ledger import Account
from tracefwd.service.spool_roots import (
    SCRAPER,
    Foreign,
    is_closed,
    is_running,
    shown,
    worker_folders,
)
from tracefwd.service.worker_parts import compose
from tracefwd.settings import Settings
from tracefwd.spool.disk import Disk

_LOOK_S = 0.1
# For what is under way when the time is over.
_LAST_S = 2.0


def drain(settings: Settings, root: Path, seconds: float) -> int:
    """0 when nothing is left, 1 otherwise; ``seconds`` bounds how long a target is waited for."""
    disk = Disk()
    running = [shown(folder) for folder in worker_folders(root) if is_running(folder, disk)]
    for name in running:
        print(f"tracefwd: {name}: a worker runs on it, left alone", file=sys.stderr)
    # Everything falls to one slot, whatever the number of workers was.
    service = replace(settings.service, workers=1)
    durability = "fsync" if settings.spool.durability == "fsync" else "disk"
    left = 0
    # The scraper has no journal, and would not read one that it found.
    for folder, level in ((root, durability), (root / SCRAPER, "memory")):
        if folder.is_dir():
            spool = replace(settings.spool, folder=str(folder), durability=level)
            left += asyncio.run(_drain(replace(settings, service=service, spool=spool), seconds))
    foreign = Foreign(settings)
    foreign.look()
    for problem in foreign.problems():
        print(f"tracefwd: {problem}", file=sys.stderr)
    # Which ones, the log has said.
    closed = any(is_closed(folder, disk) for folder in worker_folders(root))
    return 1 if left or running or closed or foreign.problems() else 0


async def _drain(settings: Settings, seconds: float) -> int:
    """How many lines are left."""
    parts = compose(settings)
    journal = parts.journal
    assert journal is not None, "the settings name a spool"
    targets = [target for target in parts.targets if isinstance(target, Target)]
    await journal.open()
    for target in targets:
        await target.start()
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    await journal.recover()
    # The accounts begin with what the dead workers' came to.
    before = _lost(targets)
    await _wait(targets, deadline)
    for _ in parts.pipeline.tick():  # what RED gathered from the journal
        await asyncio.sleep(0)
    await _wait(targets, deadline)
    problems = parts.problems()
    await asyncio.gather(*(target.drain(_LAST_S) for target in targets))
    await journal.close()
    left, lost = _held(targets), _lost(targets) - before
    print(f"{_delivered(targets):,} lines delivered, {lost:,} lost, {left:,} left")
    for problem in problems if left or lost else []:
        print(f"tracefwd: {problem}", file=sys.stderr)
    return left


async def _wait(targets: Sequence[Target], deadline: float) -> None:
    loop = asyncio.get_running_loop()
    while _held(targets) and loop.time() < deadline:  # noqa: ASYNC110  # disk, timers, targets: no one event
        await asyncio.sleep(_LOOK_S)


def _held(targets: Sequence[Target]) -> int:
    return sum(account.held() for account in _accounts(targets))


def _lost(targets: Sequence[Target]) -> int:
    return sum(
        sum(account.rejected.values()) + sum(account.dropped.values())
        for account in _accounts(targets)
    )


def _delivered(targets: Sequence[Target]) -> int:
    """By this process; the accounts' figures are older."""
    names = ("sent_items_total", "unacknowledged_items_total")
    return sum(
        int(count)
        for target in targets
        for name in names
        for count in target.samples()[f"tracefwd_exporter_{name}"].values()
    )


def _accounts(targets: Sequence[Target]) -> list[Account]:
    """A tee is a copy that nobody waits for."""
    return [
        account
        for target in targets
        if target.role != "tee"
        for account in target.accounts.values()
    ]


__all__ = ["drain"]
