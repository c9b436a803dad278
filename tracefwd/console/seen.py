"""What a worker tells its parent for the console: nouns only, as they cross the control channel.

Texts are as received: valid UTF-8, bounded, and otherwise whatever a sender wrote.
"""

from msgspec import Struct


class SpanRow(Struct):
    """The API's ``SpanRow``, field by field; ``id`` is given by the parent."""

    at: float
    trace: str
    span: str
    parent: str
    application: str
    service: str
    operation: str
    kind: str
    source: str
    status: str
    error: bool
    slow: bool
    duration_ms: float
    fate: str
    format: str
    id: str = ""


class Sample(Struct):
    """One span worth keeping, whole and unmasked.

    ``ring`` is where it is kept: ``recent``, ``error``, ``slow``, or ``refused`` alone.  ``what`` and ``reason`` say
    what happened to it, as the API's ``Sample`` has them, or are "".  ``repairs`` are those of its whole request.
    """

    row: SpanRow
    ring: str
    received: str
    received_as: str
    sent: list[str]
    tags: dict[str, str]
    what: str = ""
    reason: str = ""
    repairs: dict[str, int] = {}


class Blocked(Struct):
    """A span that a rule kept out: as received, and who sent it."""

    at: float
    sender: str
    received: str


class EdgeRow(Struct, array_like=True):
    """Calls that were examined.

    ``side`` is who told: ``client`` or ``server``; ``peer_outside``: no service of the mesh.
    """

    side: str
    application: str
    service: str
    peer_application: str
    peer_service: str
    peer_outside: bool
    calls: int
    errors: int
    micros: int


class TapWish(Struct, frozen=True):
    """What a tap lets pass.  ``service`` is case-folded, "" for any; ``rate`` in spans a second."""

    service: str = ""
    error: bool = False
    min_duration_us: int = 0
    rate: float = 20.0


class TapHit(Struct):
    """A span and the wishes (by place) that it fulfils."""

    wishes: list[int]
    row: SpanRow
    tags: dict[str, str]


class Seen(Struct):
    """What was seen since the last of these.  ``over`` is by place of the wish: matches beyond its rate.

    ``number`` names the wishes that places refer to; ``spans`` went by, ``examined`` of them were looked at, ``edged``
    of those for ``edges``.
    """

    spans: int = 0
    examined: int = 0
    edged: int = 0
    samples: list[Sample] = []
    blocked: list[Blocked] = []
    edges: list[EdgeRow] = []
    edges_left_out: int = 0
    hits: list[TapHit] = []
    over: list[int] = []
    number: int = 0

    @property
    def is_empty(self) -> bool:
        return not (self.spans or self.hits or self.blocked)


class RedRow(Struct, array_like=True):
    """What one RED series gathered; ``bins`` are (bucket, count) in turn, of ``operations.SCALE``."""

    application: str
    service: str
    operation: str
    minute: int
    spans: int
    errors: int
    bins: list[int]


__all__ = ["Blocked", "EdgeRow", "RedRow", "Sample", "Seen", "SpanRow", "TapHit", "TapWish"]
