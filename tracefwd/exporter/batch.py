"""Batches, and the two ways to cut lines: to a batch's size, and in halves.  Pure.

Lines end in LF and are never cut inside; a single line that is larger than a batch is a batch of its own.
"""

from collections.abc import Iterator

from tracefwd.exporter.origin import Origin
from tracefwd.model import Stored


class Batch:
    """Lines of one request, as they will be sent.  Identity is what tells two batches apart.

    ``encoding`` is the content-encoding of ``data``: ``gzip`` or "".  ``plain_bytes`` is its size without.
    ``born`` is when it was closed (loop time); halves keep their batch's.  ``attempts`` counts those that failed.
    ``old``: a batch of the spool, or a piece in the search for a bad line (``Turns``).
    ``maybe_sent``: an attempt before may have arrived, and no answer told.
    """

    __slots__ = (
        "attempts",
        "born",
        "data",
        "encoding",
        "items",
        "maybe_sent",
        "old",
        "origin",
        "plain_bytes",
        "stored",
    )

    def __init__(
        self,
        data: bytes,
        encoding: str,
        items: int,
        born: float,
        *,
        plain_bytes: int = 0,
        origin: Origin | None = None,
    ) -> None:
        self.data = data
        self.encoding = encoding
        self.items = items
        self.born = born
        self.plain_bytes = plain_bytes
        self.origin = origin
        self.attempts = 0
        self.old = False
        self.maybe_sent = False
        # The whole of this batch on disk: there it may wait, and cost no memory.
        self.stored: Stored | None = None

    @property
    def in_spool(self) -> bool:
        """Whether its lines, or more, have a file there."""
        return self.origin is not None and self.origin.stored is not None


def cut(data: bytes, *, bytes_max: int, items_max: int) -> Iterator[tuple[bytes, int]]:
    """Pieces of at most ``bytes_max`` and ``items_max`` lines, each with its number of lines."""
    start = 0
    while start < len(data):
        end = start
        lines = 0
        while lines < items_max and end < len(data):
            stop = _line_end(data, end)
            if lines and stop - start > bytes_max:
                break
            end = stop
            lines += 1
        yield data[start:end], lines
        start = end


def halves(data: bytes, items: int) -> tuple[tuple[bytes, int], tuple[bytes, int]]:
    """Two pieces of about the same size in bytes, each with its number of lines; ``items`` is 2 or more."""
    assert items >= 2, "a single line has no halves"
    middle = data.rfind(b"\n", 0, len(data) // 2) + 1
    if middle == 0:
        middle = _line_end(data, 0)
    first = data.count(b"\n", 0, middle)
    return (data[:middle], first), (data[middle:], items - first)


def _line_end(data: bytes, start: int) -> int:
    """Where the line that begins at ``start`` has ended, its LF included."""
    return data.find(b"\n", start) + 1 or len(data)
