"""Disk: every call to the file system that the spool makes, and nothing else.

Tests inject full disks, broken ones and short writes here; whoever needs another call adds it here.  All calls raise
``OSError`` and nothing else.  Files hold spans, which are nobody else's business: they are their owner's alone.
"""

import fcntl
import os
from pathlib import Path


class Disk:
    """The real one.  A file descriptor that was handed out is closed by whoever asked for it."""

    def make_folder(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def names(self, folder: Path) -> list[str]:
        return os.listdir(folder)  # noqa: PTH208 - names are what is wanted

    def create(self, path: Path) -> int:
        """A new file to append to; one that exists is an error, because nothing may follow a torn tail."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        return os.open(path, flags, 0o600)

    def write(self, fd: int, data: bytes | memoryview) -> int:
        """How many bytes were taken, which may be fewer than there are."""
        return os.write(fd, data)

    def truncate(self, fd: int, size_bytes: int) -> None:
        os.ftruncate(fd, size_bytes)

    def sync(self, fd: int) -> None:
        """Until the file's bytes and length survive a loss of power."""
        os.fdatasync(fd)

    def sync_folder(self, folder: Path) -> None:
        """Until the names in a folder survive a loss of power."""
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def close(self, fd: int) -> None:
        os.close(fd)

    def replace(self, source: Path, target: Path) -> None:
        """Give a file another name, in one step."""
        source.replace(target)

    def remove(self, path: Path) -> None:
        path.unlink()

    def remove_folder(self, folder: Path) -> None:
        folder.rmdir()

    def open_read(self, path: Path) -> int:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def size_bytes(self, fd: int) -> int:
        return os.fstat(fd).st_size

    def is_removed(self, fd: int) -> bool:
        """Whether somebody has removed the open file, so that nobody will find what is in it."""
        return os.fstat(fd).st_nlink == 0

    def read_at(self, fd: int, offset: int, size_bytes: int) -> bytes:
        """Fewer bytes than asked for, or none, at the file's end."""
        return os.pread(fd, size_bytes, offset)

    def lock(self, path: Path) -> int:
        """Hold ``path`` alone until the descriptor is closed or the process ends, however it ends.

        Raises ``BlockingIOError`` while another process holds it.
        """
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            raise
        return fd
