"""Runs a command whose processes are given long time slices, so that those which share a core seldom change places.

Run: ``python tests/bench/slices.py MILLISECONDS COMMAND ...``; Linux 6.12 or newer takes a task's wish (0.1 to 100 ms),
an older one does not look at it, and ``are_granted`` tells which.
"""

import ctypes
import os
import struct
import sys
from pathlib import Path

_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
# struct sched_attr: size, policy, flags, nice, priority, runtime, deadline, period, two clamps.
_ATTR = "IIQiIQQQII"
_SCRIPT = str(Path(__file__))


def wish(slice_ms: float) -> None:
    """For this process and what it starts; OSError where the kernel refuses."""
    size, slice_ns = struct.calcsize(_ATTR), int(slice_ms * 1e6)
    attr = struct.pack(_ATTR, size, 0, 0, 0, 0, slice_ns, 0, 0, 0, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(_SCHED_SETATTR[os.uname().machine], 0, attr, 0):
        raise OSError(ctypes.get_errno(), "sched_setattr")


def are_granted() -> bool:
    release = os.uname().release.split(".")
    return (int(release[0]), int(release[1])) >= (6, 12) and os.uname().machine in _SCHED_SETATTR


def long(command: list[str], slice_ms: float) -> list[str]:
    return [sys.executable, _SCRIPT, str(slice_ms), *command]


if __name__ == "__main__":
    wish(float(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])
