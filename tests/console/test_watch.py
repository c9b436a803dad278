"""The watch looks at so many spans a second and no more, and what it keeps is what came."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from tracefwd.compose import make_parts, make_writer
from tracefwd.console.seen import Seen, TapWish
from tracefwd.console.watch import EXAMINED_PER_S, TAPPED_PER_S, Watch
from tracefwd.limits import SAMPLE_BYTES_MAX
from tracefwd.model import Decoded, WavefrontSpan
from tracefwd.plan import Part
from tracefwd.settings import Settings, TargetSettings

NOW_US = 1_700_000_000_000_000
SETTINGS = Settings()
PARTS = make_parts(SETTINGS)
WRITER = make_writer(TargetSettings(name="primary", traces="tcp://127.0.0.1:1"), SETTINGS)


def watch() -> Watch:
    return Watch(WRITER.write, seed=1)


def span(number: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "traceId": f"{number:032x}",
        "id": f"{number:016x}",
        "name": "get",
        "kind": "CLIENT",
        "timestamp": NOW_US,
        "duration": 1_500,
        "localEndpoint": {"serviceName": "shop.default"},
        "tags": {"upstream_cluster": "outbound|80||stock.default.svc.cluster.local"},
        **more,
    }


def plan(spans: Sequence[dict[str, Any]], *, kept: int | None = None, **more: Any) -> Part:
    body = json.dumps(spans).encode()
    decoded = PARTS.decode(body, "application/json")
    decoded.body = body
    mapped = PARTS.mapper(decoded, NOW_US)
    good: Sequence[WavefrontSpan] = mapped.spans if kept is None else mapped.spans[:kept]
    return Part(decoded, mapped, good, more.get("sampled_out"), more.get("shed", 0))


def second(eye: Watch, batches: int, batch: Part) -> Seen:
    for _ in range(batches):
        eye(batch, NOW_US)
    return eye.each_second()


@pytest.mark.parametrize(("wishes", "most"), [([], EXAMINED_PER_S), ([TapWish()], TAPPED_PER_S)])
def test_no_more_is_examined_than_the_budget_whatever_comes(
    wishes: list[TapWish], most: int
) -> None:
    eye = watch()
    eye.wish(wishes, 1)
    batch = plan([span(n) for n in range(1, 6)])
    examined, edged = [], []
    for _ in range(6):
        seen = second(eye, 8_000, batch)
        assert seen.spans == 40_000
        examined.append(seen.examined)
        edged.append(seen.edged)
        assert sum(row.calls for row in seen.edges) == seen.edged
    # A tap asks for spans, and no more edges for that.
    assert max(edged) <= EXAMINED_PER_S + 4
    assert max(examined) <= most + 4
    # And no fewer than half of it, spread over the second.
    assert min(examined) > most / 2
    assert len(seen.samples) <= 10


def test_which_batches_are_examined_has_no_rhythm() -> None:
    """Two senders that take turns are seen alike."""
    eye = watch()
    batches = [
        plan([span(1)]),
        plan([span(2, tags={"upstream_cluster": "outbound|80||b.x.svc.y"})]),
    ]
    second(eye, 40_000, batches[0])
    seen = {"stock": 0, "b": 0}
    for _ in range(20):
        for at in range(40_000):
            eye(batches[at % 2], NOW_US)
        for row in eye.each_second().edges:
            seen[row.peer_service] += row.calls
    assert 0.8 < seen["stock"] / seen["b"] < 1.25


def test_a_little_traffic_is_seen_whole_and_as_it_came() -> None:
    eye = watch()
    odd = span(1, name="x", extra={"a": [1]}, tags={"note": "\u202e"})
    seen = second(eye, 1, plan([odd, span(2)]))
    assert (seen.spans, seen.examined, len(seen.samples)) == (2, 2, 2)
    first, other = seen.samples
    assert json.loads(first.received) == odd
    assert first.received_as == "its own bytes"
    assert first.row.operation == "x"
    assert first.sent[0].startswith('"x" source=')
    assert len(other.sent) == 1
    assert [(row.peer_service, row.calls) for row in seen.edges] == [("stock", 1)]


def test_a_span_that_is_too_large_is_kept_without_its_text() -> None:
    seen = second(watch(), 1, plan([span(1, name="n" * (SAMPLE_BYTES_MAX + 1))]))
    assert (seen.samples[0].received, seen.samples[0].received_as) == ("", "nothing")


def test_what_was_held_back_is_told_with_its_reason() -> None:
    eye = watch()
    seen = second(eye, 1, plan([span(1), span(2)], kept=1, sampled_out={"rate": 1}))
    held = [sample for sample in seen.samples if sample.ring == "refused"]
    assert [(s.what, s.reason, s.row.fate, s.sent) for s in held] == [
        ("sampled_out", "rate", "sampled_out", [])
    ]
    seen = second(eye, 1, plan([span(1), span(2)], kept=1, shed=1))
    held = [sample for sample in seen.samples if sample.ring == "refused"]
    assert [(s.what, s.reason, s.row.fate) for s in held] == [("dropped", "shed", "shed")]


def test_what_was_blocked_is_told_with_its_sender() -> None:
    batch = plan([span(1), span(2)])
    batch.mapped.spans.pop(0)
    batch.mapped.blocked = 1
    seen = second(watch(), 1, batch)
    assert [blocked.sender for blocked in seen.blocked] == ["shop.default"]
    assert json.loads(seen.blocked[0].received)["id"] == f"{1:016x}"


def test_what_was_changed_is_told_with_its_kinds() -> None:
    seen = second(watch(), 1, plan([span(1), span(2, name="n" * 200)]))
    changed = [sample for sample in seen.samples if sample.what == "changed"]
    assert [(s.reason, s.row.span) for s in changed] == [("name_cut", f"{2:016x}")]


def test_only_the_slowest_hundredth_is_slow() -> None:
    eye = watch()
    flags: list[bool] = []
    for at in range(400):
        batch = plan([span(n, duration=1_000 + n) for n in range(1, 5)])
        if at % 25 == 24:
            batch.mapped.spans[0].duration_us = 900_000
        seen = second(eye, 1, batch)
        flags += [sample.row.slow for sample in seen.samples if at > 200]
    assert 0 < sum(flags) <= 0.03 * 800


def test_a_tap_gets_its_rate_and_hears_of_the_rest() -> None:
    eye = watch()
    eye.wish([TapWish(rate=2.0), TapWish(service="other"), TapWish(min_duration_us=5_000)], 7)
    eye(plan([span(1), span(2), span(3), span(4, duration=9_000)]), NOW_US)
    hits = eye.take_hits()
    assert hits is not None
    assert [(hit.wishes, hit.row.span[-1]) for hit in hits.hits] == [
        ([0], "1"),
        ([0], "2"),
        ([2], "4"),
    ]
    assert hits.hits[0].tags["upstream_cluster"].startswith("outbound")
    assert eye.take_hits() is None
    seen = eye.each_second()
    assert (seen.number, seen.over) == (7, [2, 0, 0])
    assert eye.each_second().over == [0, 0, 0]


def test_formats_without_json_of_their_own_are_shown_as_json() -> None:
    decoded = PARTS.decode(json.dumps([span(1)]).encode(), "")
    mapped = PARTS.mapper(Decoded(decoded.encoding, decoded.spans), NOW_US)
    seen = second(watch(), 1, Part(decoded, mapped, mapped.spans))
    assert seen.samples[0].received_as == "as Zipkin JSON"
    # Nothing is there that was not said; leading zeros of a trace id say nothing.
    assert json.loads(seen.samples[0].received) == span(1, traceId=f"{1:016x}")
