"""How a body gets from a port into the pipeline: the shapes of the calls."""

from collections.abc import Callable, Sequence

from tracefwd.model import Answer, Decoded, HeldAnswer

Decode = Callable[[bytes, str], Decoded]
"""``(inflated body, content-type or "") -> Decoded``; never raises, never waits."""

Ingest = Callable[[bytes, str], Answer | HeldAnswer]
"""``(inflated body, content-type header or "") -> answer``; never waits, never raises."""

Post = tuple[bytes, str]
"""What ``Ingest`` is given."""

IngestAll = Callable[[Sequence[Post]], list[Answer | HeldAnswer] | None]
"""The same for several requests in one bout; None: nothing was taken, hand them over one by one."""
