"""Log: one append-only file after another, oldest removed first.

1. What is in ``buffer`` goes down with one write; ``write`` says whether all of it did.  A failed or short write is cut
   off again and closes its segment: nothing is ever written behind a torn frame.
2. ``open`` switches to a new segment only when its head was written whole; until then the old one stays.
3. A failure is followed by one immediate try of a new segment, then by tries with growing waits.  Between them the log
   is not open, what is buffered is discarded by its owner, and an ERROR says so once per interval.
4. With ``fsync``, ``sync`` runs in a thread beside everything else.  It alone closes what it may be syncing.

Never: raise for a disk.
"""

import logging
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from errno import EIO, ENOENT
from pathlib import Path
from typing import NamedTuple

from tracefwd.spool.disk import Disk

_logger = logging.getLogger(__name__)

# Waits between tries of a new segment: a full disk is tried once a minute, and a file costs the loop 50 us.
_RETRY_FIRST_S = 1.0
_RETRY_MAX_S = 60.0
# The same trouble is told again after this long.
_SAY_INTERVAL_S = 60.0


class Segment(NamedTuple):
    number: int
    path: Path
    size_bytes: int


class Log:
    """``prefix`` names the files: PREFIX-00000001.log.  ``now`` is monotonic seconds."""

    def __init__(
        self, folder: Path, prefix: str, disk: Disk, *, fsync: bool, now: Callable[[], float]
    ) -> None:
        self.buffer: list[bytes] = []
        self.sealed: list[Segment] = []
        self.size_bytes = 0
        self.sealed_bytes = 0
        self.written_bytes = 0
        # The newest segment's number, and whether it is open.
        self.number = 0
        self._fd = -1
        self._open_number = 0
        self._folder = folder
        self._prefix = prefix
        self._disk = disk
        self._fsync = fsync
        self._now = now
        self._failures = 0
        self._is_down = False
        self._failed_at = self._retry_at = self._said_at = -_SAY_INTERVAL_S
        # Writes so far, and how many of them survive a loss of power; equal without fsync.
        self.writes = self._synced = 0
        self._lock = threading.Lock()
        self._unsynced: dict[int, bool] = {}
        self._folder_unsynced = False
        self._sync_error: OSError | None = None

    @property
    def is_open(self) -> bool:
        return self._fd >= 0

    @property
    def held_bytes(self) -> int:
        return self.sealed_bytes + self.size_bytes

    @property
    def synced(self) -> int:
        return self._synced if self._fsync else self.writes

    def inherit(self, segments: Iterable[Segment]) -> None:
        """Segments of an earlier run, oldest first."""
        self.sealed += segments
        self.sealed_bytes = sum(segment.size_bytes for segment in self.sealed)
        self.number = max((segment.number for segment in self.sealed), default=0)

    # Writing.

    def write(self) -> bool:
        """Put down the buffer.  If that fails the buffer stays, for the next segment, and the log is closed."""
        if not self.buffer:
            return self.is_open
        if not self.is_open:
            return False
        if self._sync_error is not None:
            # What was written before the error may be lost although a later sync succeeds.
            self.give_up(self._sync_error)
            return False
        data = self.buffer[0] if len(self.buffer) == 1 else b"".join(self.buffer)
        try:
            self._write_all(self._fd, data)
        except OSError as error:
            self.give_up(error)
            return False
        self.buffer.clear()
        self.size_bytes += len(data)
        self._wrote(self._fd, len(data))
        if self._is_down:
            self._is_down = False
            _logger.warning("%s: writes again", self._path_of(self._open_number))
        return True

    def _write_all(self, fd: int, data: bytes) -> None:
        taken = self._disk.write(fd, data)
        if taken == len(data):
            return
        rest = memoryview(data)
        while taken:
            rest = rest[taken:]
            if not rest:
                return
            taken = self._disk.write(fd, rest)
        raise OSError(EIO, "the disk takes no bytes")

    def _wrote(self, fd: int, size_bytes: int) -> None:
        self.writes += 1
        self.written_bytes += size_bytes
        if self._fsync:
            with self._lock:
                self._unsynced.setdefault(fd, False)

    def discard(self) -> None:
        self.buffer.clear()

    # Segments.

    def may_open(self) -> bool:
        return self._now() >= self._retry_at

    def open(self, head: bytes) -> bool:
        """Go on in a new segment that begins with ``head``; the old one is closed if that works."""
        fd, path = -1, self._folder
        try:
            self._disk.make_folder(self._folder)
            self.number = max([self.number, *self._numbers()]) + 1
            path = self._path_of(self.number)
            fd = self._disk.create(path)
            self._write_all(fd, head)
        except OSError as error:
            if fd >= 0:
                self._abandon(fd, path)
            self._failed(error)
            return False
        self.seal()
        self._fd, self._open_number, self.size_bytes = fd, self.number, len(head)
        self._folder_unsynced = True
        self._sync_error = None
        self._wrote(fd, len(head))
        return True

    def _path_of(self, number: int) -> Path:
        return self._folder / f"{self._prefix}-{number:08d}.log"

    def _numbers(self) -> list[int]:
        return [
            number
            for name in self._disk.names(self._folder)
            if (number := number_of(name, self._prefix)) is not None
        ]

    def _abandon(self, fd: int, path: Path) -> None:
        # A head alone holds nothing that anybody was told of, so what is left of it harms nobody.
        with suppress(OSError):
            self._disk.close(fd)
        with suppress(OSError):
            self._disk.remove(path)

    def seal(self) -> None:
        """No more goes into the open segment."""
        if not self.is_open:
            return
        number = self._open_number
        self.sealed.append(Segment(number, self._path_of(number), self.size_bytes))
        self.sealed_bytes += self.size_bytes
        fd, self._fd, self.size_bytes = self._fd, -1, 0
        if self._fsync:
            with self._lock:
                self._unsynced[fd] = True
        else:
            self._close(fd)

    @property
    def oldest_open(self) -> int:
        """Segments below this number are closed."""
        return self._open_number if self.is_open else self.number + 1

    def _close(self, fd: int) -> None:
        try:
            self._disk.close(fd)
        except OSError as error:
            _logger.warning("%s: a segment did not close well: %s", self._folder, error)

    def give_up(self, error: OSError) -> None:
        """Close the open segment behind its last whole frame."""
        with suppress(OSError):  # a torn tail is what readers expect; nothing follows it
            self._disk.truncate(self._fd, self.size_bytes)
        self.seal()
        self._sync_error = None
        self._failed(error)

    def look(self) -> bool:
        """Whether the open segment is still there; one that somebody has removed is given up."""
        try:
            if not self.is_open or not self._disk.is_removed(self._fd):
                return True
        except OSError:
            return True  # the next write says more
        text = "it was removed while in use, with all that is not delivered: leave a running service its folder"
        self.give_up(OSError(ENOENT, text))
        return False

    def _failed(self, error: OSError) -> None:
        now = self._now()
        if now - self._failed_at >= _RETRY_MAX_S:
            self._failures = 0
        self._failed_at = now
        # The first failure may be this file's alone.
        wait_s = min(_RETRY_MAX_S, _RETRY_FIRST_S * 2.0 ** (self._failures - 1))
        self._retry_at = now + (wait_s if self._failures else 0.0)
        self._failures += 1
        self._is_down = True
        if now - self._said_at >= _SAY_INTERVAL_S:
            self._said_at = now
            text = "%s: cannot write (%s); until this is mended what is accepted is held in memory only"
            _logger.error(text, self._folder / f"{self._prefix}-*.log", error)

    def remove(self, segment: Segment) -> bool:
        """Whether the file is gone."""
        try:
            self._disk.remove(segment.path)
        except FileNotFoundError:
            pass
        except OSError as error:
            self._failed_to_remove(segment, error)
            return False
        if segment in self.sealed:
            self.sealed.remove(segment)
            self.sealed_bytes -= segment.size_bytes
        return True

    def _failed_to_remove(self, segment: Segment, error: OSError) -> None:
        now = self._now()
        if now - self._said_at >= _SAY_INTERVAL_S:
            self._said_at = now
            _logger.error("%s: cannot be removed (%s)", segment.path, error)

    # In a thread.

    def sync(self) -> bool:
        """Until what was written before the call survives a loss of power; blocks, one call at a time."""
        with self._lock:
            unsynced, self._unsynced = self._unsynced, {}
            folder, self._folder_unsynced = self._folder_unsynced, False
            upto = self.writes
        failure: OSError | None = None
        for fd, is_sealed in unsynced.items():
            failure = self._attempt(lambda fd=fd: self._disk.sync(fd)) or failure  # type: ignore[misc]
            if is_sealed:
                failure = self._attempt(lambda fd=fd: self._disk.close(fd)) or failure  # type: ignore[misc]
        if folder:
            failure = self._attempt(lambda: self._disk.sync_folder(self._folder)) or failure
        if failure is not None:
            self._sync_error = failure
            return False
        self._synced = upto
        return True

    def _attempt(self, call: Callable[[], None]) -> OSError | None:
        try:
            call()
        except OSError as error:
            return error
        return None


def number_of(name: str, prefix: str) -> int | None:
    """The number in a segment's name; None if it is another file."""
    digits = name.removeprefix(f"{prefix}-").removesuffix(".log")
    if name != f"{prefix}-{digits}.log" or not (digits.isascii() and digits.isdigit()):
        return None
    return int(digits)
