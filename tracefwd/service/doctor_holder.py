"""Which process listens at a port of this machine, as far as this user may see.

Linux tells it in two steps: /proc/net/tcp has the socket's number by port, and the descriptors of processes name
sockets by number.  Processes of other users, and other systems, stay unknown.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_LISTEN = "0A"
# Columns of /proc/net/tcp.
_LOCAL, _STATE, _INODE = 1, 3, 9
_PROC = Path("/proc")
# What serves an intake.
_FORWARDERS = frozenset({"run", "demo"})


class Holder(NamedTuple):
    """``command`` is ``tracefwd run`` and the like, or a process's own name: arguments may hold secrets."""

    pid: int
    command: str

    @property
    def is_forwarder(self) -> bool:
        name, _, action = self.command.partition(" ")
        return name == "tracefwd" and action in _FORWARDERS

    def __str__(self) -> str:
        return f"{self.command}, process {self.pid}"


def holder_of(port: int) -> Holder | None:
    """None where nobody may tell."""
    inodes = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    if not inodes:
        return None
    for process in _PROC.glob("[0-9]*"):
        if inodes.intersection(_links(process)):
            holder = Holder(int(process.name), _command(process))
            parent = _parent(process)
            if not holder.is_forwarder and parent is not None:
                # A worker bears no name of ours; gRPC's ports are its own.
                over = Holder(int(parent.name), _command(parent))
                return over if over.is_forwarder else holder
            return holder
    return None


def _parent(process: Path) -> Path | None:
    try:
        status = (process / "status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    number = next(line.split()[1] for line in status.splitlines() if line.startswith("PPid:"))
    return _PROC / number if number != "0" else None


def _links(process: Path) -> Iterator[str]:
    """What its descriptors are; none of a process that is gone, or another user's."""
    try:
        names = os.listdir(process / "fd")  # noqa: PTH208 - names are what is wanted
    except OSError:
        return
    for name in names:
        try:
            yield os.readlink(process / "fd" / name)  # noqa: PTH115 - a socket's is no path
        except OSError:
            # Closed meanwhile.
            continue


def _listening_inodes(port: int) -> set[str]:
    found: set[str] = set()
    for name in ("tcp", "tcp6"):
        try:
            rows = (_PROC / "net" / name).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            fields = row.split()
            if fields[_STATE] == _LISTEN and int(fields[_LOCAL].rpartition(":")[2], 16) == port:
                found.add(fields[_INODE])
    return found


def _command(process: Path) -> str:
    try:
        words = (process / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
        name = (process / "comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "a process that has just ended"
    for index, word in enumerate(words[:-1]):
        # The installed command, or python -m tracefwd (where the word is the module's file once it runs).
        if word.rpartition("/")[2] == "tracefwd" or word.endswith("/tracefwd/__main__.py"):
            return f"tracefwd {words[index + 1]}".rstrip()
    return name


__all__ = ["Holder", "holder_of"]
