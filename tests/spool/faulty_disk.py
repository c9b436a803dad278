"""A disk that fails on request, and a process that dies at any call: the real one otherwise."""

import errno
from pathlib import Path

from tracefwd.spool.disk import Disk

SHORT = -1
"""Instead of an errno: a write takes half of the bytes, once."""


class Killed(BaseException):
    """The process ends here."""


class FaultyDisk(Disk):
    """Counts calls.  ``fail``: so many calls from one on fail with an errno, a write first taking half of its bytes.

    ``kill``: a call is the last one, and half of what it writes arrives.  ``reads``: calls that only read fail, too.
    """

    def __init__(self) -> None:
        self.calls = 0
        self.failures = 0
        self.open_fds: set[int] = set()
        self.mend()

    def mend(self) -> None:
        self.error = 0
        self.fail_from = self.kill_at = 1 << 60
        self.fail_calls = 0
        self.reads = False

    def fail(
        self, error: int, *, after: int = 0, calls: int = 1 << 60, reads: bool = False
    ) -> None:
        self.error, self.fail_from, self.fail_calls = error, self.calls + after, calls
        self.failures = 0
        self.reads = reads

    def kill(self, after: int) -> None:
        self.kill_at = self.calls + after

    def forget(self) -> None:
        """What the kernel does when a process has died."""
        for fd in list(self.open_fds):
            super().close(fd)
        self.open_fds.clear()

    def _call(self, name: str, *, reads: bool = False) -> bool:
        """True if the call shall do half of its work."""
        if reads and not self.reads:
            return False
        number = self.calls
        self.calls += 1
        if number >= self.kill_at:
            if name == "write":
                return True
            raise Killed
        if not self.fail_from <= number < self.fail_from + self.fail_calls:
            return False
        self.failures += 1
        if name == "write" and (self.error == SHORT or self.failures == 1):
            return True
        if self.error == SHORT:
            return False
        raise OSError(self.error, errno.errorcode[self.error], name)

    def make_folder(self, folder: Path) -> None:
        self._call("make_folder")
        super().make_folder(folder)

    def names(self, folder: Path) -> list[str]:
        self._call("names", reads=True)
        return super().names(folder)

    def create(self, path: Path) -> int:
        self._call("create")
        fd = super().create(path)
        self.open_fds.add(fd)
        return fd

    def write(self, fd: int, data: bytes | memoryview) -> int:
        if self._call("write"):
            taken = super().write(fd, data[: len(data) // 2])
            if self.calls > self.kill_at:
                raise Killed
            return taken
        return super().write(fd, data)

    def truncate(self, fd: int, size_bytes: int) -> None:
        self._call("truncate")
        super().truncate(fd, size_bytes)

    def sync(self, fd: int) -> None:
        self._call("sync")

    def sync_folder(self, folder: Path) -> None:
        self._call("sync_folder")

    def close(self, fd: int) -> None:
        # A close that fails has closed all the same.
        self.open_fds.discard(fd)
        super().close(fd)
        self._call("close")

    def remove(self, path: Path) -> None:
        self._call("remove")
        super().remove(path)

    def open_read(self, path: Path) -> int:
        self._call("open_read", reads=True)
        fd = super().open_read(path)
        self.open_fds.add(fd)
        return fd

    def size_bytes(self, fd: int) -> int:
        self._call("size_bytes", reads=True)
        return super().size_bytes(fd)

    def is_removed(self, fd: int) -> bool:
        self._call("is_removed", reads=True)
        return super().is_removed(fd)

    def read_at(self, fd: int, offset: int, size_bytes: int) -> bytes:
        self._call("read_at", reads=True)
        return super().read_at(fd, offset, size_bytes)
