"""Runs one command in an image's root as a `restricted` pod would: ``inside.py ROOT STATE ENV... -- COMMAND...``.

Read-only root, a user that is not root, no capability and none to be had, a writable folder where a volume would be.
Starts as root in a mount namespace of its own (``unshare --mount``), so nothing of it outlives the process.
"""

import ctypes
import os
import sys
from pathlib import Path

UID = 10001
_MS_RDONLY, _MS_NOSUID, _MS_REMOUNT, _MS_BIND = 1, 2, 32, 4096
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 24, 38
_LIBC = ctypes.CDLL(None, use_errno=True)


def _must(result: int, what: str) -> None:
    if result:
        raise OSError(ctypes.get_errno(), what)


def mount(source: str, target: str, kind: str | None, flags: int) -> None:
    words = [each.encode() if each else None for each in (source, target, kind)]
    _must(_LIBC.mount(*words, flags, None), f"mount {target}")


def enter(root: str, state: str) -> None:
    mount(root, root, None, _MS_BIND)
    mount("", root, None, _MS_BIND | _MS_REMOUNT | _MS_RDONLY | _MS_NOSUID)
    # What every runtime brings along; the image has the folders only if it must.
    mount(state, f"{root}/var/lib/tracefwd", None, _MS_BIND)
    mount("/proc", f"{root}/proc", None, _MS_BIND)
    mount("/dev", f"{root}/dev", None, _MS_BIND)
    os.chroot(root)
    os.chdir("/")
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    for capability in range(last + 1):
        _must(_LIBC.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0), "drop a capability")
    _must(_LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no new privileges")
    os.setgroups([])
    os.setgid(UID)
    os.setuid(UID)


def main(words: list[str]) -> None:
    root, state, *rest = words
    end = rest.index("--")
    environment = dict(each.split("=", 1) for each in rest[:end])
    command = rest[end + 1 :]
    enter(root, state)
    # Found as a runtime finds an entry point.
    os.environ["PATH"] = environment["PATH"]
    os.execvpe(command[0], command, environment)


if __name__ == "__main__":
    main(sys.argv[1:])
