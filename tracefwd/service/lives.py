"""The folders of a spool: one for each life of a worker, locked as long as it lives.

    FOLDER/lock                  held for a moment by whoever looks for the dead
    FOLDER/slot-<slot>.<number>/ lock  journal/  batches/
    FOLDER/gone-...              being removed

1. A worker never goes on in the folder of another one, dead or alive: it takes over from the dead, and what they had is
   gone from their folder only when it is in its own.  So a worker may die at any moment, and two of one slot may live.
2. A life's number is its own for ever.  Its slot says who takes it over, which may change with the number of slots.
3. Whoever takes over a dead worker also has everything that that one was taking over: all of it is found together,
   because what the one had done about the other is written in its journal alone.
"""

import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tracefwd.spool.disk import Disk

LOCK = "lock"
BATCH = ".batch"
_GONE = "gone-"
_NAME = re.compile(r"slot-(\d{1,4})\.(\d{1,18})")
# Above every slot: a number is milliseconds times this, plus the slot.
_SLOTS_MAX = 10_000


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
    def key(self) -> str:
        """The same for whichever slot it is taken over."""
        return str(self.number)

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
        # Of the dead whose files are another user's, and why: taken over as soon as they can be read.
        self._closed: dict[str, str] = {}

    def begin(self) -> Life:
        """A new folder, locked.  Raises ``OSError`` when the disk refuses."""
        self._disk.make_folder(self._root)
        # Clocks are set back.
        newest = max((life.number for life in self._all()), default=0)
        life = self._numbered(max(_now_ms(), newest // _SLOTS_MAX + 1))
        # Taken: another worker of the slot was quicker, or somebody took a folder without a lock for a dead one's.
        while not self._lock(life):
            life = self._numbered(life.number // _SLOTS_MAX + 1)
        return life

    def unborn(self) -> Life:
        """The life of a worker whose disk refuses: it has a name, and a folder as soon as one can be made."""
        return self._numbered(_now_ms())

    def _numbered(self, moment: int) -> Life:
        number = moment * _SLOTS_MAX + self._slot
        return Life(self._root / f"slot-{self._slot}.{number}", self._slot, number)

    def bear(self, life: Life) -> None:
        """Try to lock the folder of a life that has none yet; without it others take what is there for a dead one's."""
        with suppress(OSError):
            self._disk.make_folder(self._root)
            self._lock(life)

    def look(self, life: Life) -> None:
        """A lock that somebody has removed holds nobody off."""
        with suppress(OSError):
            if life.lock >= 0 and self._disk.is_removed(life.lock):
                self.release(life)

    def _lock(self, life: Life) -> bool:
        """Whether the folder is ours; a lock on a file that was removed meanwhile is none."""
        self._disk.make_folder(life.folder)
        try:
            life.lock = self._disk.lock(life.folder / LOCK)
            if LOCK in self._disk.names(life.folder):
                return True
        except (BlockingIOError, FileNotFoundError):
            pass
        self.release(life)
        return False

    def dead(self, mine: Life) -> list[Life] | None:
        """Lives of this slot, and of slots that fall to it, that nobody holds: now held by us, oldest first.

        None: somebody else is looking just now.  Raises ``OSError`` when the disk refuses.
        """
        try:
            looking = self._disk.lock(self._root / LOCK)
        except BlockingIOError:
            return None
        self._closed.clear()
        try:
            found: dict[int, Life] = {}
            # Who dies while we look sets free what it was taking over, which may have been passed by already.
            while new := [life for life in self._free(mine) if life.number not in found]:
                found |= {life.number: life for life in new}
        finally:
            self._close(looking)
        return sorted(found.values(), key=lambda life: life.number)

    def _free(self, mine: Life) -> Iterator[Life]:
        for life in list(self._all()):
            if life.number == mine.number or life.slot % self._slots != self._slot:
                continue
            try:
                life.lock = self._disk.lock(life.folder / LOCK)
                try_files(life.journal, self._disk)
            except PermissionError as error:
                self._closed[str(life.folder)] = error.strerror or "refused"
                self.release(life)
            except OSError:
                continue  # somebody holds it, or has just removed it
            else:
                if self._is_made_ours(life):
                    yield life

    def problems(self) -> list[str]:
        """In words, for a person: what could not be taken over for want of permission when somebody looked last."""
        return [
            f"{folder} cannot be read ({why}): nothing of it is delivered; "
            "give it, with all that is in it, to the user that tracefwd runs as"
            for folder, why in self._closed.items()
        ]

    def _is_made_ours(self, life: Life) -> bool:
        """With other slots the next time, it is still together with whatever is ours."""
        if life.slot == self._slot:
            return True
        folder = self._root / f"slot-{self._slot}.{life.number}"
        try:
            self._disk.replace(life.folder, folder)
        except OSError:
            self.release(life)
            return False
        life.folder, life.slot = folder, self._slot
        return True

    def remove(self, life: Life) -> bool:
        """Remove a life that has been taken over; False if its folder has to stay, which is then ours until we end.

        In one step it is no life any more, so that nobody takes over a part of it once more.
        """
        try:
            if not self._is_bare(life.batches):
                return False
            gone = self._root / f"{_GONE}{life.name}"
            self._disk.replace(life.folder, gone)
        except OSError:
            return False
        self._clear(gone)
        self.release(life)
        return True

    def clear(self) -> None:
        """What was removed by somebody who died over it."""
        with suppress(OSError):
            for name in self._disk.names(self._root):
                if name.startswith(_GONE):
                    self._clear(self._root / name)

    def _is_bare(self, batches: Path) -> bool:
        """Whether no batch is left; the beginning of one, whose writer died, is none."""
        try:
            return not any(name.endswith(BATCH) for name in self._disk.names(batches))
        except FileNotFoundError:
            return True

    def _clear(self, folder: Path) -> None:
        """As well as it goes; the next start tries again."""
        with suppress(OSError):
            for part in ("batches", "journal", ""):
                with suppress(FileNotFoundError):
                    for name in self._disk.names(folder / part):
                        if name not in ("batches", "journal"):
                            self._disk.remove(folder / part / name)
                    self._disk.remove_folder(folder / part)

    def release(self, life: Life) -> None:
        lock, life.lock = life.lock, -1
        if lock >= 0:
            self._close(lock)

    def _close(self, lock: int) -> None:
        # Nothing was written through it, and a close that fails has closed all the same.
        with suppress(OSError):
            self._disk.close(lock)

    def _all(self) -> Iterator[Life]:
        try:
            names = self._disk.names(self._root)
        except FileNotFoundError:
            return
        for name in names:
            if match := _NAME.fullmatch(name):
                slot, number = map(int, match.groups())
                yield Life(self._root / name, slot, number)


def try_files(journal: Path, disk: Disk) -> None:
    """Raises ``PermissionError``: what cannot be read now, and will be one day, must not go with its folder."""
    try:
        names = disk.names(journal)
    except FileNotFoundError:
        return
    for name in names:
        try:
            disk.close(disk.open_read(journal / name))
        except PermissionError:
            raise
        except OSError:
            continue  # damage, which does not mend


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
