"""How much memory there is, and what using too much of it means.

The budget is one for the process tree: ``service.memory_max``, or the least limit of the cgroups around us (v2
``memory.max`` and ``memory.high``, v1 ``memory.limit_in_bytes``), or, where nothing limits us, half of the machine's.
Of it a part is left to the kernel and to the other processes of the tree; workers share the rest alike.  While workers
are exchanged, the two of a slot have one share: what the old one still holds is taken off the new one's.  On top of the
budget comes then one interpreter (some 50 MiB), for as long as the old worker delivers.

``Machine`` reads files under a root and is the seam where tests inject limits; everything else here is pure.
"""

import math
import os
from pathlib import Path
from typing import NamedTuple

# Without a limit others live on the machine, too.
_MACHINE_SHARE = 0.5
# Sockets' buffers, page tables and the page cache of fresh files count against a cgroup as well.
_KERNEL_SHARE = 0.1
# The parent, which touches no span.
_PARENT_BYTES = 48 * 2**20
# The process that scrapes Prometheus, where there is one.
_SCRAPER_BYTES = 128 * 2**20
# An interpreter with everything imported has 45 MiB; below this nothing could be held.
WORKER_BYTES_MIN = 80 * 2**20

# Stages, in order.
CALM, SHED, REFUSE = "calm", "shed", "refuse"
STAGES = (CALM, SHED, REFUSE)
# Of a worker's share: where each stage begins, and below what it ends again.
_SHED_FROM, _SHED_UNTIL = 0.70, 0.60
_REFUSE_FROM, _REFUSE_UNTIL = 0.90, 0.80
# Shares of traces that are kept while shedding: coarse, so that noise does not cut traces in two.
_STEPS = 8


class Limit(NamedTuple):
    size_bytes: int
    source: str


class Machine:
    """What the kernel says, as files under ``root``; what is not there, or not readable, is no limit."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def limit(self) -> Limit:
        """The least limit around this process, or a share of the machine's memory."""
        machine_bytes = self._machine_bytes()
        found = [limit for limit in self._cgroup_limits() if limit.size_bytes < machine_bytes]
        if found:
            return min(found)
        return Limit(int(machine_bytes * _MACHINE_SHARE), "half of the machine's memory")

    def own_bytes(self, process: int | str = "self") -> int:
        """A process's memory that nobody shares; 0 if the kernel does not say, or there is none (any more)."""
        words = self._read(f"proc/{process}/statm").split()
        if len(words) < 3:
            return 0
        return (int(words[1]) - int(words[2])) * os.sysconf("SC_PAGE_SIZE")

    def _machine_bytes(self) -> int:
        for line in self._read("proc/meminfo").splitlines():
            if line.startswith("MemTotal:"):
                return int(line.split()[1]) * 1024
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

    def _cgroup_limits(self) -> list[Limit]:
        """Limits of our cgroups and of those around them."""
        limits: list[Limit] = []
        for line in self._read("proc/self/cgroup").splitlines():
            number, _, rest = line.partition(":")
            controllers, _, path = rest.partition(":")
            names: tuple[str, ...] = ("memory.max", "memory.high")
            mounts: tuple[str, ...] = ("sys/fs/cgroup", "sys/fs/cgroup/unified")
            if "memory" in controllers.split(","):
                names, mounts = ("memory.limit_in_bytes",), ("sys/fs/cgroup/memory",)
            elif number != "0" or controllers:
                continue
            for mount in mounts:
                limits += self._limits_along(mount, path, names)
        return limits

    def _limits_along(self, mount: str, path: str, names: tuple[str, ...]) -> list[Limit]:
        """From the cgroup up to its mount: in a container the path may be the host's, and the mount our own."""
        limits = []
        group = Path(path.lstrip("/"))
        for folder in (group, *group.parents):
            for name in names:
                text = self._read(f"{mount}/{folder}/{name}").strip()
                if text.isdigit():
                    limits.append(Limit(int(text), f"the cgroup's {name}"))
        return limits

    def _read(self, path: str) -> str:
        try:
            return (self._root / path).read_text()
        except OSError:
            return ""


def budget(memory_max: int, machine: Machine) -> Limit:
    """For the whole tree; ``memory_max`` 0 asks the machine."""
    return Limit(memory_max, "service.memory_max") if memory_max else machine.limit()


def worker_share(total: Limit, *, workers: int, scrapes: bool) -> int:
    """Bytes for one worker, at least ``WORKER_BYTES_MIN``."""
    left = int(total.size_bytes * (1 - _KERNEL_SHARE)) - _beside_workers(scrapes)
    return max(left // workers, WORKER_BYTES_MIN)


def budget_bytes_min(*, workers: int, scrapes: bool) -> int:
    """The least budget, in whole MiB, that holds what ``worker_share`` hands out."""
    wanted = _beside_workers(scrapes) + workers * WORKER_BYTES_MIN
    return math.ceil(wanted / (1 - _KERNEL_SHARE) / 2**20) * 2**20


def _beside_workers(scrapes: bool) -> int:
    return _PARENT_BYTES + (_SCRAPER_BYTES if scrapes else 0)


class Pressure:
    """The stage that memory in use calls for, and the share of traces to keep.

    From the soft mark on the share falls in steps with what is in use, at once; it rises by one step a look.  So use
    settles where what comes in equals what goes out.
    """

    def __init__(self) -> None:
        self.stage = CALM
        self.share = 1.0

    def feel(self, used: float) -> None:
        """``used`` is the part of the worker's share that is in use."""
        if used >= _REFUSE_FROM:
            self.stage = REFUSE
        elif self.stage == REFUSE and used < _REFUSE_UNTIL:
            self.stage = SHED
        if self.stage == CALM and used >= _SHED_FROM:
            self.stage = SHED
        elif self.stage == SHED and used < _SHED_UNTIL:
            self.stage = CALM
        self.share = 1.0 if self.stage == CALM else self._next_share(used)

    def _next_share(self, used: float) -> float:
        left = (_REFUSE_FROM - used) / (_REFUSE_FROM - _SHED_FROM)
        wanted = min(max(int(left * _STEPS), 1), _STEPS - 1)
        before = round(self.share * _STEPS)
        if before == _STEPS or wanted < before:
            return wanted / _STEPS
        return (before + (wanted > before)) / _STEPS


__all__ = [
    "CALM",
    "REFUSE",
    "SHED",
    "STAGES",
    "WORKER_BYTES_MIN",
    "Limit",
    "Machine",
    "Pressure",
    "budget",
    "budget_bytes_min",
    "worker_share",
]
