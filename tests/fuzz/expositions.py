"""What is thrown at the metrics path: bodies of scrapes, as text and as OpenMetrics, in both modes.

What must hold whatever a body is: nothing raises, every sample is a point or counted, every line sent is one that a
reader refuses nothing of who refuses what Wavefront would, and where the body is cut into pieces changes nothing.
"""

from typing import Any

from tests.metricspath.parts import Result, scrape
from tracefwd.settings import DeltaSettings

_OPENMETRICS = "application/openmetrics-text"
# So that the room of histograms and delta counters is entered, too.
_OPTIONS: dict[str, Any] = {
    "convertHistograms": True,
    "deltas": DeltaSettings(names=["c.total.*"], without=["pod"]),
}


def exposition_target(data: bytes) -> str:
    content_type = _OPENMETRICS if b"# EOF" in data else ""
    signature = []
    ways: list[tuple[str, dict[str, Any]]] = [
        ("default", {}),
        ("default", _OPTIONS),
        ("collector", {}),
    ]
    for mode, options in ways:
        whole = _scrape(data, len(data) + 1, content_type, mode, options)
        pieces = _scrape(data, 1 + len(data) // 7, content_type, mode, options)
        assert (pieces.lines, pieces.counts) == (whole.lines, whole.counts)
        if mode == "default":
            whole.points()
        cut = scrape(data, complete=False, mode=mode, content_type=content_type, **options)
        assert cut.counts.samples <= whole.counts.samples, "a cut body has more than the whole"
        counts = whole.counts
        signature += [
            *sorted(counts.dropped),
            *sorted(counts.bad_lines),
            *sorted(counts.repairs),
            str(min(counts.points, 3)),
            str(min(counts.distributions, 2)),
            str(whole.scrape.has_ended),
        ]
    return " ".join(signature)


def _scrape(
    data: bytes, chunk: int, content_type: str, mode: str, options: dict[str, Any]
) -> Result:
    return scrape(data, chunk=chunk, content_type=content_type, mode=mode, **options)


__all__ = ["exposition_target"]
