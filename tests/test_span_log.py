"""A log that goes without its span's line is the one that would have stood beside it."""

import pytest

from tracefwd import span_log
from tracefwd.exporter.lines import LineWriter
from tracefwd.model import Annotation, Event, Identity, Signal, WavefrontSpan


@pytest.mark.parametrize("sampled_mark", [True, False])
@pytest.mark.parametrize(
    "annotation",
    [
        Annotation(1_700_000_000_000_000, 'retry "1"'),
        Event(1_700_000_000_000_000, "exception", {"event": "exception", "type": "ü"}),
    ],
    ids=["annotation", "event"],
)
def test_alone_it_is_what_it_is_beside_its_line(annotation: Annotation, sampled_mark: bool) -> None:
    span = WavefrontSpan(
        Identity("app", "service", "cluster", "shard", "component", "source"),
        "get", "source", "1" * 32, "2" * 16, None, "client", "", False, 1, 2, 2_000, (), {},
        logs=[annotation], secondary_id="client",
    )  # fmt: skip
    writer = LineWriter(sampled_mark=sampled_mark)
    [beside] = [each for each in writer.write([span]) if each.signal is Signal.SPAN_LOGS]
    log = span_log.alone(span)
    assert log is not None
    assert writer.write_span_logs([log]) == [beside]
    span.logs = None
    assert span_log.alone(span) is None
