"""The folders of a spool: one for each life of a worker, locked as long as it lives.

    FOLDER/slot-<slot>.<life>/   lock  journal/  batches/

A worker never goes on in the folder of another one, dead or alive: it takes over from the dead, and what they had is
gone from their folder only when it is in its own.  So a worker may die at any moment, and two of one slot may live.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tracefwd.spool.disk import Disk

_NAME = re.compile(r"slot-(\d{1,4})\.(\d{1,9})")


@dataclass
class Life:
    """``lock`` is the descriptor that holds the folder, -1 while there is none."""

    folder: Path
    slot: int
    number: int
    lock: int = -1

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def journal(self) -> Path:
        return self.folder / "journal"

    @property
    def batches(self) -> Path:
        return self.folder / "batches"


class Lives:
    """``slot`` of ``slots``: the dead of slots that are no more belong to the slot that their number falls to."""

    def __init__(self, root: Path, disk: Disk, slot: int, slots: int) -> None:
        self._root = root
        self._disk = disk
        self._slot = slot
        self._slots = max(slots, 1)

    def begin(self) -> Life:
        """A new folder, locked.  Raises ``OSError`` when the disk refuses."""
        self._disk.make_folder(self._root)
        number = 1 + max((life.number for life in self._all()), default=0)
        while True:
            life = Life(self._root / f"slot-{self._slot}.{number}", self._slot, number)
            self._disk.make_folder(life.folder)
            try:
                life.lock = self._disk.lock(life.folder / "lock")
            except BlockingIOError:
                # Another worker of the slot was quicker.
                number += 1
            else:
                return life

    def unborn(self) -> Life:
        """The life of a worker whose disk refuses: it has a name, and a folder as soon as one can be made."""
        return Life(self._root / f"slot-{self._slot}.0", self._slot, 0)

    def dead(self, mine: Life) -> list[Life]:
        """Lives of this slot, and of slots that fall to it, that nobody holds: now held by us, oldest first."""
        found: list[Life] = []
        for life in sorted(self._all(), key=lambda life: life.number):
            if life.name == mine.name or life.slot % self._slots != self._slot:
                continue
            with suppress(OSError):
                life.lock = self._disk.lock(life.folder / "lock")
                found.append(life)
        return found

    def remove(self, life: Life) -> bool:
        """Remove what is left of a life that has been taken over; False if something still is there."""
        try:
            for part in (life.batches, life.journal):
                with suppress(FileNotFoundError):
                    self._disk.remove_folder(part)
            self._disk.remove(life.folder / "lock")
            self._disk.remove_folder(life.folder)
        except OSError:
            return False
        finally:
            self.release(life)
        return True

    def release(self, life: Life) -> None:
        if life.lock >= 0:
            self._disk.close(life.lock)
            life.lock = -1

    def _all(self) -> Iterator[Life]:
        try:
            names = self._disk.names(self._root)
        except FileNotFoundError:
            return
        for name in names:
            if match := _NAME.fullmatch(name):
                slot, number = map(int, match.groups())
                yield Life(self._root / name, slot, number)
