"""Standard output where it is not there, or ends before we do."""

import errno
import os
import sys
from pathlib import Path

# What a disk says when it takes no more.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def open_what_is_closed() -> None:
    """Python has ``None`` for what the caller closed (`>&-`): what would be said there is said to nobody."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115  # for good


def sentence_of(error: OSError) -> str:
    """What to say of it, "" where nobody reads any more (`| head`).  Raises what is not about output."""
    if isinstance(error, BrokenPipeError):
        return ""
    if error.errno not in _FULL:
        raise error
    return f"{error.strerror}: the output is not whole; make room and call again"


def leave() -> None:
    """Python would complain once more when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


__all__ = ["leave", "open_what_is_closed", "sentence_of"]
