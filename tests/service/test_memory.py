"""Memory: the least limit around us is found, shared out, and felt in stages that do not swing."""

import os
from pathlib import Path

import pytest

from tracefwd.service.memory import (
    CALM,
    REFUSE,
    SHED,
    WORKER_BYTES_MIN,
    Limit,
    Machine,
    Pressure,
    budget,
    budget_bytes_min,
    worker_share,
)

MIB, GIB = 2**20, 2**30
# What a cgroup v1 says that has no limit.
V1_UNLIMITED = "9223372036854771712"


def machine(root: Path, files: dict[str, str], memory: int = 8 * GIB) -> Machine:
    """A machine with ``memory`` and these files."""
    for path, text in {"proc/meminfo": f"MemTotal: {memory // 1024} kB\n", **files}.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return Machine(root)


V2 = {"proc/self/cgroup": "0::/\n"}
V1 = {"proc/self/cgroup": "5:cpu,cpuacct:/pods/a\n4:memory:/pods/a\n0::/\n"}
NESTED = {"proc/self/cgroup": "0::/system.slice/tracefwd.service\n"}
CASES = {
    "a container of v2": (
        V2 | {"sys/fs/cgroup/memory.max": "536870912\n"},
        512 * MIB,
        "memory.max",
    ),
    "v2 throttles before it kills": (
        V2 | {"sys/fs/cgroup/memory.max": "536870912", "sys/fs/cgroup/memory.high": "268435456"},
        256 * MIB,
        "memory.high",
    ),
    "a unit of systemd": (
        NESTED
        | {
            "sys/fs/cgroup/system.slice/tracefwd.service/memory.max": "max\n",
            "sys/fs/cgroup/system.slice/memory.max": "1073741824\n",
        },
        GIB,
        "memory.max",
    ),
    "v1, the path being the host's": (
        V1 | {"sys/fs/cgroup/memory/memory.limit_in_bytes": "314572800\n"},
        300 * MIB,
        "memory.limit_in_bytes",
    ),
    "v1, nested": (
        V1
        | {
            "sys/fs/cgroup/memory/pods/a/memory.limit_in_bytes": "314572800\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": V1_UNLIMITED,
        },
        300 * MIB,
        "memory.limit_in_bytes",
    ),
    "v1 without a limit": (
        V1 | {"sys/fs/cgroup/memory/memory.limit_in_bytes": V1_UNLIMITED},
        4 * GIB,
        "half of the machine's memory",
    ),
    "v2 without a limit": (
        V2 | {"sys/fs/cgroup/memory.max": "max\n"},
        4 * GIB,
        "half of the machine's memory",
    ),
    "no cgroups": ({}, 4 * GIB, "half of the machine's memory"),
    "nonsense": (V2 | {"sys/fs/cgroup/memory.max": "a lot\n"}, 4 * GIB, "half of the machine's"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_least_limit_around_us_holds(case: str, tmp_path: Path) -> None:
    files, size, source = CASES[case]
    found = machine(tmp_path, files).limit()
    assert found.size_bytes == size
    assert source in found.source


def test_what_the_operator_says_goes_before_the_cgroup(tmp_path: Path) -> None:
    here = machine(tmp_path, V2 | {"sys/fs/cgroup/memory.max": "536870912"})
    assert budget(100 * MIB, here) == Limit(100 * MIB, "service.memory_max")
    assert budget(0, here).size_bytes == 512 * MIB


def test_the_real_machine_answers() -> None:
    limit = Machine().limit()
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < limit.size_bytes <= physical
    block = bytearray(os.urandom(1)) * (32 * MIB)
    assert len(block) < Machine().own_bytes() < physical


def test_workers_share_what_the_others_leave() -> None:
    total = Limit(2 * GIB, "a test")
    one, four = (worker_share(total, workers=n, scrapes=False) for n in (1, 4))
    assert 4 * four <= one < 2 * GIB * 0.9
    assert worker_share(total, workers=1, scrapes=True) < one
    assert worker_share(Limit(MIB, "a test"), workers=4, scrapes=True) == WORKER_BYTES_MIN


@pytest.mark.parametrize("scrapes", [False, True])
@pytest.mark.parametrize("workers", [1, 2, 7, 256])
def test_the_least_budget_is_the_least_that_is_really_shared(workers: int, scrapes: bool) -> None:
    def share(size: int) -> int:
        return worker_share(Limit(size, "a test"), workers=workers, scrapes=scrapes)

    least = budget_bytes_min(workers=workers, scrapes=scrapes)
    assert share(least - MIB) == share(least - 2 * MIB) == WORKER_BYTES_MIN
    assert share(least + 2 * workers * MIB) > WORKER_BYTES_MIN


def felt(*used: float) -> list[tuple[str, float]]:
    pressure, found = Pressure(), []
    for each in used:
        pressure.feel(each)
        found.append((pressure.stage, pressure.share))
    return found


def test_stages_begin_high_and_end_low() -> None:
    stages = [
        stage for stage, _ in felt(0.69, 0.71, 0.65, 0.59, 0.69, 0.91, 0.85, 0.81, 0.79, 0.61, 0.5)
    ]
    assert stages == [CALM, SHED, SHED, CALM, CALM, REFUSE, REFUSE, REFUSE, SHED, SHED, CALM]


def test_the_more_is_in_use_the_fewer_traces_stay_and_never_none_before_503() -> None:
    shares = [share for _, share in felt(0.70, 0.75, 0.80, 0.85, 0.899)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == 7 / 8
    assert shares[-1] == 1 / 8


def test_traces_come_back_step_by_step() -> None:
    found = felt(0.95, *[0.65] * 10)
    assert [share for _, share in found] == [1 / 8, *(n / 8 for n in range(2, 8)), *[7 / 8] * 4]


def test_standing_use_gives_a_standing_share() -> None:
    assert len(set(felt(*[0.8] * 50))) == 1
