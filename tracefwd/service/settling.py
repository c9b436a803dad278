"""Settling: lines that a crash left both in a journal and in a batch of the spool are the batch's alone.

A batch is a whole file first, and then the journal hears that its entries are over.  A worker that dies between the
two leaves its lines twice.  The file says which entries of whose journal it covers, so whoever takes over writes into
that journal what the dead worker could not, before it moves the file; however often it dies itself, no line comes
twice.  For a thread: all of it is file work.
"""

import logging
import time
from collections.abc import Iterator, Sequence

from tracefwd.service.adoption import Estate
from tracefwd.spool import frames
from tracefwd.spool.batch_file import BatchFolder, DamagedError
from tracefwd.spool.disk import Disk
from tracefwd.spool.log import Log

LOG = logging.getLogger("tracefwd.spool")

_Over = list[tuple[int, int, int]]
"""(lane id, first seq, last seq)"""


def settle(estates: Sequence[Estate], disk: Disk) -> None:
    """For all dead lives that were found together: a batch may have been moved from one's folder to another's."""
    over: dict[str, _Over] = {estate.origin: [] for estate in estates}
    by_origin = {estate.origin: estate for estate in estates}
    for folder in [BatchFolder(estate.life.batches, disk) for estate in estates]:
        for writer, part in _covered(folder, by_origin):
            over[writer] += part
    for origin, parts in over.items():
        if parts:
            _end(by_origin[origin], parts, disk)


def _covered(folder: BatchFolder, estates: dict[str, Estate]) -> Iterator[tuple[str, _Over]]:
    """Of each file's entries those that their journal takes for pending."""
    try:
        names = folder.names()
    except OSError:
        return  # it is not moved either
    for named in names:
        try:
            stored = folder.read_header(named)
            estate = estates.get(stored.writer)
            lane = None if estate is None else estate.found.lane_ids.get(stored.lane)
            if estate is None or lane is None:
                continue
            pending = estate.found.pending
            parts = [(lane, *part) for part in stored.seqs if pending.touches(lane, *part)]
            if parts:
                folder.read(stored.file)  # the lines are there, or the journal's are needed
                yield stored.writer, parts
        except (DamagedError, OSError) as problem:
            LOG.warning("%s/%s is not settled: %s", folder.folder, named.name, problem)


def _end(estate: Estate, parts: _Over, disk: Disk) -> None:
    found = estate.found
    log = Log(estate.life.journal, "data", disk, fsync=False, now=time.monotonic)
    log.inherit(found.data_segments)
    ends = [frames.done(lane, first, last) for lane, first, last in parts]
    is_written = log.open(b"".join([frames.start(list(found.lane_ids)), *ends]))
    log.seal()
    for part in parts:
        found.pending.done(*part)
        found.launches.end(*part)
    if not is_written:
        LOG.error("%s: lines of the spool may come twice after another crash", estate.life.name)


__all__ = ["settle"]
