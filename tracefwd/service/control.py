"""The channel between the parent and one worker: a socket pair that carries framed JSON messages.

A frame is its length (4 bytes, big endian), then that many bytes of JSON: one message, told apart by its
``type``.  The parent says ``start`` (once, first), ``ask``, ``look`` and ``drain``; the worker says ``ready`` or
``failed`` (once), ``snapshot``, as an answer (with the ask's ``id``) or by itself (``id`` 0), ``noticed`` and
``gathered`` for the console, and ``leaving`` (once) when it goes without having been told to.

1. Messages are handled where they are read, in one turn of the loop: a snapshot is never torn.
2. End of file is a message, too: the other process is gone.
3. Settings cross it once, with what secrets stand in them (a source's inline token or password, headers of a target):
   a socket pair is nobody else's.  All other secrets are in files, whose paths alone are in the settings.

It must never wait: a worker that answers its parent slowly must not slow its intake.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Struct

from tracefwd.console.seen import RedRow, Seen, TapWish

LOG = logging.getLogger(__name__)

# A worker's exit code that tells the parent: starting again would fail again.
EXIT_FAILED_TO_START = 3

_LENGTH_BYTES = 4
# A snapshot's largest part are limits.REJECT_SAMPLES_MAX samples of some 3 KiB; a frame above this is no
# message of ours.
FRAME_BYTES_MAX = 8 * 2**20
# Above this the other side has not read for a while; what can be left unsaid is left unsaid.
UNSENT_BYTES_MAX = 256 * 2**10


class Start(Struct, tag_field="type", tag="start"):
    """What a worker needs to know; ``settings`` is ``settings.Settings`` as JSON.

    ``beside`` is the process that it is to follow, and that lives on for a while; 0: none.
    """

    slot: int
    settings: msgspec.Raw
    beside: int = 0


class Ask(Struct, tag_field="type", tag="ask"):
    """Answer at once with a snapshot that carries this id (1 and up), and with the parts that are costly if wanted."""

    id: int
    rejected: bool = False
    sources: bool = False


class Look(Struct, tag_field="type", tag="look"):
    """What people look at just now: these taps, and RED's series between two drains.  Holds until the next of these."""

    wishes: list[TapWish]
    number: int
    red: bool


class Drain(Struct, tag_field="type", tag="drain"):
    """Take leave within ``budget_s``; a second one with less hurries.

    ``handed_over``: another worker accepts at the same sockets by now, so leave them at once.
    """

    budget_s: float
    handed_over: bool = False


class Ready(Struct, tag_field="type", tag="ready"):
    """The worker listens.  ``loop`` names its event loop's implementation."""

    loop: str


class Failed(Struct, tag_field="type", tag="failed"):
    """The worker could not start and is about to exit."""

    message: str


class Leaving(Struct, tag_field="type", tag="leaving"):
    """The worker takes leave although the parent did not say so; it accepts until it hears ``drain``."""

    reason: str


class Snapshot(Struct, tag_field="type", tag="snapshot"):
    """A worker's whole account at one moment.

    ``ledger`` is shaped as ``tally.empty_ledger``; ``samples`` are (metric, label values, value), as in
    ``metrics.Samples``; ``rejected_samples`` are newest first and masked, ``None`` when nobody asked: masking
    them takes milliseconds.  ``sources`` is the scraper's account of each source, likewise.

    ``journal`` names the journal that has all of ``ledger`` ("": nothing outlives this worker); ``adopted`` names those
    of the dead whose whole account is part of ``ledger`` by now.  Both stand in one message, so that no read counts
    anything twice or misses it.
    """

    ledger: dict[str, Any]
    samples: list[tuple[str, tuple[str, ...], int | float]]
    rejected_samples: list[dict[str, str]] | None = None
    problems: list[str] = []
    id: int = 0
    journal: str = ""
    adopted: list[str] = []
    sources: list[dict[str, Any]] | None = None
    lanes: list[dict[str, Any]] = []
    """``Target.lanes`` of each target."""
    refused_lines: list[dict[str, str]] | None = None
    """``Target.rejected_samples``, like ``rejected_samples``."""


class Noticed(Struct, tag_field="type", tag="noticed"):
    """What the worker's watch saw; bounded by what it examines in a second."""

    seen: Seen


class Gathered(Struct, tag_field="type", tag="gathered"):
    """RED by operation: what was ``drained``, or a part (maybe the first or the last) of what came since."""

    rows: list[RedRow]
    drained: bool = False
    first: bool = False
    last: bool = False


FromParent = Start | Ask | Look | Drain
FromWorker = Ready | Leaving | Failed | Snapshot | Noticed | Gathered

Message = TypeVar("Message")


class Channel(asyncio.Protocol, Generic[Message]):
    """One end.  ``receive`` is called with each message; ``closed`` is set when the other end is gone.

    A frame that cannot be read closes the channel: both sides are one version of one program, so it is a
    bug, and whoever loses the channel knows how to leave.
    """

    def __init__(self, kind: Any, receive: Callable[[Message], None]) -> None:
        self.closed = asyncio.Event()
        self._decoder: msgspec.json.Decoder[Message] = msgspec.json.Decoder(kind)
        self._receive = receive
        self._unread = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]  # uvloop's is one by shape only

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.closed.set()

    def data_received(self, data: bytes) -> None:
        self._unread += data
        try:
            while (frame := self._next_frame()) is not None:
                self._receive(self._decoder.decode(frame))
        except msgspec.MsgspecError:
            LOG.exception("control channel closed: unreadable message")
            self.close()

    def send(self, message: Struct) -> None:
        """Queue one message; without effect when the other end is gone."""
        if self._transport is None or self._transport.is_closing():
            return
        frame = msgspec.json.encode(message)
        assert len(frame) <= FRAME_BYTES_MAX, "a message is bounded by what it is made of"
        self._transport.write(len(frame).to_bytes(_LENGTH_BYTES, "big") + frame)

    @property
    def congested(self) -> bool:
        """Whether so much is unsent that a message that can wait should not be added."""
        transport = self._transport
        return transport is not None and transport.get_write_buffer_size() > UNSENT_BYTES_MAX

    def close(self) -> None:
        """Send what is queued, then close; ``closed`` is set when that is done."""
        if self._transport is not None:
            self._transport.close()

    def _next_frame(self) -> bytes | None:
        if len(self._unread) < _LENGTH_BYTES:
            return None
        length = int.from_bytes(self._unread[:_LENGTH_BYTES], "big")
        if length > FRAME_BYTES_MAX:
            raise msgspec.DecodeError(f"a frame of {length} bytes")
        end = _LENGTH_BYTES + length
        if len(self._unread) < end:
            return None
        frame = bytes(self._unread[_LENGTH_BYTES:end])
        del self._unread[:end]
        return frame
