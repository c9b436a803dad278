"""How a body gets from a port into the pipeline, and its answer back: the shapes of the calls."""

from collections.abc import Callable, Sequence

from msgspec import Struct

from tracefwd.model import Decoded


class Answer(Struct, gc=False, frozen=True):
    """What the client of a request is told.

    ``content_type`` of the body, "" for plain text; ``retry_after_s`` is 0 unless the client should come again.  Of a
    request of which only a part was taken, ``rejected`` says how many spans were not, and ``detail`` why; nobody who
    posts by Zipkin's API hears of that.
    """

    status: int
    body: bytes = b""
    content_type: str = ""
    retry_after_s: int = 0
    rejected: int = 0
    detail: str = ""


class HeldAnswer:
    """An answer that waits until its spans are durable.  ``release`` may be called once."""

    __slots__ = ("_listener", "answer")

    def __init__(self) -> None:
        self.answer: Answer | None = None
        self._listener: Callable[[], None] | None = None

    def release(self, answer: Answer) -> None:
        assert self.answer is None, "an answer is given once"
        self.answer = answer
        if self._listener is not None:
            self._listener()

    def when_released(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` at release, at once if that has happened."""
        self._listener = listener
        if self.answer is not None:
            listener()


Decode = Callable[[bytes, str], Decoded]
"""``(inflated body, content-type or "") -> Decoded``; never raises, never waits."""

Ingest = Callable[[bytes, str], Answer | HeldAnswer]
"""``(inflated body, content-type header or "") -> answer``; never waits, never raises."""

Post = tuple[bytes, str]
"""What ``Ingest`` is given."""

IngestAll = Callable[[Sequence[Post]], list[Answer | HeldAnswer] | None]
"""The same for several requests in one bout; None: nothing was taken, hand them over one by one."""
