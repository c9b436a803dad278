"""Where in the folder of a spool whose lines are.

    FOLDER/slot-...          workers whose primary target takes Wavefront's lines
    FOLDER/otlp/slot-...     workers whose primary target takes OTLP
    FOLDER/scraper/slot-...  scrapers; FOLDER/scraper/otlp likewise

Apart, because no target takes both: after a change of the primary's kind nobody would know what to do with what the
workers before had left.  It stays, is told of, and ``tracefwd spool drain`` with a target of its kind sends it.
"""

from collections.abc import Callable
from pathlib import Path

from tracefwd.errors import StartError
from tracefwd.model import Signal
from tracefwd.service.lives import LOCK, try_files
from tracefwd.settings import Settings
from tracefwd.spool.batch_file import BatchFolder
from tracefwd.spool.disk import Disk
from tracefwd.spool.recovery import recover

SCRAPER = "scraper"
OTLP = "otlp"
_KINDS = {True: "OTLP", False: "Wavefront"}


def takes_otlp(settings: Settings) -> bool:
    """Whether the primary target, and with it all that is spooled, is of OTLP."""
    return any(each.kind == "otlp" for each in settings.exporter.targets if each.role == "primary")


def root_of(settings: Settings, *, scraper: bool = False) -> Path:
    """Where the folders of these settings' processes are."""
    root = Path(settings.spool.folder)
    return _place(root / SCRAPER if scraper else root, takes_otlp(settings))


def heir_in(settings: Settings) -> Callable[[str], str]:
    """The lane that takes what a lane left in spool and journal: all is the primary's, whatever it was called then.
    Lines whose name is lost count as spans."""
    primary = next(each.name for each in settings.exporter.targets if each.role == "primary")
    return lambda lane: f"{primary}/{lane.rpartition('/')[2] if is_named(lane) else Signal.SPANS}"


def is_named(lane: str) -> bool:
    """Not if damage took its name, and no target here has it."""
    return "/" in lane


def _place(root: Path, is_otlp: bool) -> Path:
    return root / OTLP if is_otlp else root


def worker_folders(root: Path) -> list[Path]:
    """The folders of all workers and scrapers, dead and alive.  Raises ``StartError`` where there is no spool."""
    try:
        parts = sorted(root.iterdir())
        for more in (root / OTLP, root / SCRAPER, root / SCRAPER / OTLP):
            if more.is_dir():
                parts += sorted(more.iterdir())
    except OSError as error:
        raise StartError(
            f"{root}: {error.strerror}: give the folder that spool.folder names (--spool DIR)"
        ) from error
    return [path for path in parts if _is_workers(path)]


def _is_workers(path: Path) -> bool:
    """Also one that cannot be looked into, which its reading will say."""
    try:
        return (path / "batches").is_dir() or (path / "journal").is_dir()
    except PermissionError:
        return True


def lines_left(root: Path) -> int:
    """Lines of all kinds in folders that nobody runs in; 0 where it cannot be read.  Reads all of it: for a thread."""
    return sum(_left(root, lambda folder: True).values())


def shown(folder: Path) -> str:
    """Its name, behind those of the folders that say whose it is."""
    name, parent = folder.name, folder.parent
    while parent.name in (SCRAPER, OTLP):
        name, parent = f"{parent.name}/{name}", parent.parent
    return name


def is_running(folder: Path, disk: Disk) -> bool:
    """Whether a worker holds the folder; one that cannot be locked for another reason is nobody's."""
    try:
        disk.close(disk.lock(folder / LOCK))
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def is_closed(folder: Path, disk: Disk) -> bool:
    """Whether it is nobody's, and we may not take it over."""
    try:
        disk.close(disk.lock(folder / LOCK))
        try_files(folder / "journal", disk)
    except OSError as error:
        return isinstance(error, PermissionError)
    return False


class Foreign:
    """What is left of the other kind: lines that the primary target does not take."""

    def __init__(self, settings: Settings) -> None:
        self._folder = settings.spool.folder
        self._is_otlp = takes_otlp(settings)
        self._lines: dict[Path, int] = {}

    def look(self) -> None:
        """Reads all of it: for a thread."""
        root = Path(self._folder)
        places = [_place(each, not self._is_otlp) for each in (root, root / SCRAPER)]
        self._lines = _left(root, lambda folder: folder.parent in places)

    def problems(self) -> list[str]:
        """In words, for a person, until it is gone."""
        lines = sum(count for folder, count in self._lines.items() if folder.exists())
        if not lines:
            return []
        ours, theirs = _KINDS[self._is_otlp], _KINDS[not self._is_otlp]
        left = f"{self._folder} holds {lines:,} lines for {theirs}, and the primary target takes {ours}"
        return [f"{left}: send them by 'tracefwd spool drain' with a target of their kind"]


def _left(root: Path, is_meant: Callable[[Path], bool]) -> dict[Path, int]:
    """Lines of all kinds in the folders that are meant and that nobody runs in; none where it cannot be read."""
    disk = Disk()
    try:
        folders = [each for each in worker_folders(root) if is_meant(each)]
        return {each: _lines_in(each, disk) for each in folders if not is_running(each, disk)}
    except (StartError, OSError):
        return {}


def _lines_in(folder: Path, disk: Disk) -> int:
    try:
        batches = sum(named.items for named in BatchFolder(folder / "batches", disk).names())
    except OSError:
        batches = 0  # its journal alone, or nothing
    return batches + sum(line.items for line in recover(folder / "journal", disk).outstanding())


__all__ = [
    "OTLP",
    "SCRAPER",
    "Foreign",
    "heir_in",
    "is_closed",
    "is_named",
    "is_running",
    "lines_left",
    "root_of",
    "shown",
    "worker_folders",
]
