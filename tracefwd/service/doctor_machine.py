"""What ``tracefwd doctor`` looks at on this machine: files, open files, the spool's disk.

It leaves nothing behind: a probe's file and the folders that were made for it are removed.
"""

import os
import resource
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from tracefwd.receiver.door import OWN_DESCRIPTORS
from tracefwd.service.config import Loaded, check_files
from tracefwd.service.doctor_findings import MACHINE, Finding
from tracefwd.service.source_checks import check_source_files, wants_scraper
from tracefwd.service.units import format_size
from tracefwd.settings import Settings, SpoolSettings
from tracefwd.spool.disk import Disk

# Every Envoy keeps a connection per worker thread: below this it is no mesh, but a limit that somebody forgot.
CONNECTIONS_MIN = 1_000
# Below this a spool holds no more than a moment: one queue of exporter.queue_bytes_max at its default.
SPOOL_FREE_MIN = 64 * 2**20
# Each answer waits for a sync (durability fsync): above this Envoys' posts take visibly longer.
SYNC_MS_MAX = 50.0
_SYNCS, _SYNCS_TIME_S = 8, 1.0
_PROBE_BYTES = 4096


def configuration(loaded: Loaded) -> Iterator[Finding]:
    """It has loaded, or nobody would be here; the files that it names may still be missing."""
    settings = loaded.settings
    places = sorted({origin.partition(" ")[0] for origin in loaded.origins.values()} - {"default"})
    targets = ", ".join(f"{target.name} ({target.kind})" for target in settings.exporter.targets)
    detail = f"valid; from {', '.join(places) or 'defaults'}; targets: {targets}"
    yield MACHINE.ok("configuration", detail)
    # Of targets' certificates the targets' own checks speak.
    for problem in check_files(settings, certificates=False):
        what, _, todo = problem.rstrip(".").rpartition("; ")
        yield MACHINE.cross("files", what or problem, todo or "give a readable file")
    for problem in check_source_files(settings):
        yield MACHINE.warning("files", problem, "mount the file, or correct its path")


# --- open files ------------------------------------------------------------------------------


def open_files(settings: Settings) -> Iterator[Finding]:
    """``run`` raises the soft limit to the hard one by itself, so the hard one decides."""
    if settings.service.only == "metrics":
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = settings.receiver.connections_max + OWN_DESCRIPTORS
    raised = "" if soft == hard else f", which run raises to {_limit(hard)}"
    says = (
        f"{_limit(soft)}{raised}; each worker wants {wanted:,} "
        f"(receiver.connections_max {settings.receiver.connections_max:,})"
    )
    if hard == resource.RLIM_INFINITY or hard >= wanted:
        yield MACHINE.ok("open files", says)
        return
    room = hard - min(OWN_DESCRIPTORS, hard // 4)
    advice = (
        "raise the hard limit (ulimit -Hn, LimitNOFILE= of systemd, the container runtime's), or "
        f"set receiver.connections_max to {room:,}: further connections would be refused"
    )
    make = MACHINE.cross if room < min(CONNECTIONS_MIN, wanted) else MACHINE.warning
    yield make("open files", says, advice)


def _limit(number: int) -> str:
    return "unlimited" if number == resource.RLIM_INFINITY else f"{number:,}"


# --- the spool -------------------------------------------------------------------------------


def spool(settings: Settings, disk: Disk) -> list[Finding]:
    """Blocks while the disk does."""
    options = settings.spool
    if not options.folder:
        reason = "spool.folder is not set: what is accepted is held in memory only"
        return [MACHINE.skipped("spool", reason)]
    folder = Path(options.folder)
    made = _missing(folder)
    try:
        disk.make_folder(folder)
        syncs = _timed_writes(folder, disk)
    except OSError as error:
        what = os.strerror(error.errno) if error.errno else type(error).__name__
        advice = (
            f"give a folder that user {os.geteuid()} may write to (in Kubernetes: a volume, and "
            "fsGroup for its group; a root file system that is read-only needs one)"
        )
        return [MACHINE.cross("spool", f"{folder} cannot be written ({what})", advice)]
    finally:
        _remove(made, disk)
    return [_writable(folder, options, syncs), _room(folder, settings)]


def _missing(folder: Path) -> list[Path]:
    """What ``make_folder`` would make, the deepest first."""
    missing = []
    for path in (folder, *folder.parents):
        if path.exists():
            break
        missing.append(path)
    return missing


def _remove(folders: list[Path], disk: Disk) -> None:
    for path in folders:
        try:
            disk.remove_folder(path)
        except OSError:
            # It was never made, or somebody has begun to use it.
            return


def _timed_writes(folder: Path, disk: Disk) -> list[float]:
    """How long some writes with their sync took (ms); the file is gone afterwards."""
    probe = folder / f"doctor-{os.getpid()}.probe"
    times: list[float] = []
    began = time.monotonic()
    fd = disk.create(probe)
    try:
        while len(times) < _SYNCS and time.monotonic() - began < _SYNCS_TIME_S:
            at = time.monotonic()
            disk.write(fd, bytes(_PROBE_BYTES))
            disk.sync(fd)
            times.append((time.monotonic() - at) * 1e3)
    finally:
        disk.close(fd)
        disk.remove(probe)
    return times


def _writable(folder: Path, options: SpoolSettings, syncs: list[float]) -> Finding:
    median = statistics.median(syncs)
    detail = f"{folder} can be written; a sync takes {median:.1f} ms (median of {len(syncs)})"
    if median > SYNC_MS_MAX and options.durability == "fsync":
        advice = (
            "every answer waits for one: take a faster disk, or spool.durability: disk, which survives "
            "crashes but no loss of power"
        )
        return MACHINE.warning("spool", detail, advice)
    return MACHINE.ok("spool", detail)


def _room(folder: Path, settings: Settings) -> Finding:
    """The bound counts for batches and journal of each worker; the scraper has batches."""
    options = settings.spool
    shares = 0 if settings.service.only == "metrics" else 2 * settings.service.workers
    shares += wants_scraper(settings)
    wanted = shares * options.bytes_max
    looked_at = next(path for path in (folder, *folder.parents) if path.exists())
    space = os.statvfs(looked_at)
    free, used = space.f_bavail * space.f_frsize, _used(folder)
    detail = (
        f"{format_bytes(free)} free, {format_bytes(used)} in use; at most "
        f"{format_bytes(wanted)} are wanted (spool.bytes_max {format_size(options.bytes_max)})"
    )
    advice = "give it more room, or lower spool.bytes_max"
    if free < SPOOL_FREE_MIN:
        return MACHINE.cross("spool room", detail, advice)
    if free + used < wanted:
        return MACHINE.warning(
            "spool room", detail, f"a long outage of the target fills the disk: {advice}"
        )
    return MACHINE.ok("spool room", detail)


def _used(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except OSError:
            # A batch that was delivered meanwhile.
            continue
    return total


def format_bytes(number: int) -> str:
    """About how many, for people."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number} B"


__all__ = [
    "configuration",
    "format_bytes",
    "open_files",
    "spool",
]
