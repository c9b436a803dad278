"""What a process cost and weighed, as Linux counts it, and which machine said so."""

import os
import platform
import resource
import socket
from pathlib import Path
from typing import NamedTuple

# What is measured has a core of its own; generator, sink and everything else share the other.
TARGET_CORE, OTHER_CORE = 0, 1
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Cpu(NamedTuple):
    """CPU-seconds of a process tree."""

    user_s: float
    system_s: float

    @property
    def total_s(self) -> float:
        return self.user_s + self.system_s

    def since(self, before: "Cpu") -> "Cpu":
        return Cpu(self.user_s - before.user_s, self.system_s - before.system_s)


def tree(pid: int) -> list[int]:
    """A process and its descendants."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += tree(int(child))
    return found


def cpu(pid: int) -> Cpu:
    """Of a whole tree; children that have ended count with whoever waited for them."""
    ticks = [0, 0]
    for process in tree(pid):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        ticks[0] += int(fields[11]) + int(fields[13])
        ticks[1] += int(fields[12]) + int(fields[14])
    return Cpu(ticks[0] / _TICKS_PER_S, ticks[1] / _TICKS_PER_S)


def stolen_s() -> float:
    """What the host has given to others of both cores' time since it began; 0 where it does not tell its guests."""
    lines = Path("/proc/stat").read_text().splitlines()
    cores = {f"cpu{TARGET_CORE}", f"cpu{OTHER_CORE}"}
    fields = [line.split() for line in lines if line.split(maxsplit=1)[0] in cores]
    return sum(int(each[8]) for each in fields) / _TICKS_PER_S


def pss_mib(pid: int) -> float:
    """Proportional set size of a process tree: shared pages count once, by share."""
    return sum(_pss_kib(process) for process in tree(pid)) / 1024


def pss_largest_mib(pid: int) -> float:
    """Of the tree's largest process: with one worker, the worker."""
    return max(_pss_kib(process) for process in tree(pid)) / 1024


def _pss_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0


def stay_off_the_target() -> None:
    """Generator and harness leave the target's core alone."""
    if (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(0, {OTHER_CORE})


def allow_files(count: int) -> None:
    """Each connection is an open file here and, by inheritance, in what is started."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + 256
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def facts() -> dict[str, str]:
    """What a figure cannot be read without; the load says whether anybody else was at work."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": str(os.cpu_count()),
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB",
        "python": platform.python_version(),
        "compiler": platform.python_compiler(),
        "kernel": platform.release(),
        "load": f"{os.getloadavg()[0]:.1f}",
    }
