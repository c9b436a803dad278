"""A spool of OTLP records: readable, sent by ``drain``, and kept apart from the lines of Wavefront's targets."""

import asyncio
import errno
import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import Parse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)

from tests.chaos import sink as sinks
from tests.chaos import truth
from tests.chaos.otlp_records import records
from tests.chaos.sink import Sink
from tests.service.test_durable import World, world  # noqa: F401 - a fixture
from tracefwd.receiver.otlp_decode import make_otlp_decode
from tracefwd.service import cli

SPANS = 40


@pytest.fixture
async def left(world: World) -> World:  # noqa: F811
    """By a worker that died in an outage: spans in a batch and in the journal, RED's records of one tick, and facts."""
    world.kind = "otlp"
    world.outage()
    slow = {"request_timeout": 0.05, "batch_age_max": 0.005}
    one = await world.body(spool={"after": 0.02}, exporter=slow)
    await one.post(world.spans(SPANS // 2))
    await one.until(lambda: one.durable.store.shelf("primary/spans").items == SPANS // 2)
    await one.tick()
    await one.post(world.spans(SPANS // 2))
    await one.die()
    return world


async def run(world: World, *arguments: str, kind: str = "otlp") -> int:  # noqa: F811
    """``tracefwd spool`` beside the sink's loop."""
    base = f"http://127.0.0.1:{world.sink.port}"
    where = {"url": base} if kind == "otlp" else {"traces": base, "metrics": base}
    target = {"name": "primary", "kind": kind, **where}
    file = world.root.parent / "tracefwd.yaml"
    exporter = {"targets": [target], "batch_age_max": "10ms"}
    file.write_text(json.dumps({"exporter": exporter, "spool": {"folder": str(world.root)}}))
    command = ["spool", arguments[0], "--config", str(file), *arguments[1:]]
    return await asyncio.to_thread(cli.main, command)


def span_ids(lines: bytes) -> list[int]:
    """Of OTLP's JSON, by our own reader of what clients send."""
    decode = make_otlp_decode(as_the_proxy=False)
    spans = [decode(line, "application/json").spans for line in lines.splitlines()]
    assert all(len(each) == 1 for each in spans), "one record a line"
    return sorted(truth.number_of(int(each[0].span_id, 16)) for each in spans)


async def test_cat_shows_one_record_in_otlps_json_on_each_line(
    left: World, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert await run(left, "cat", "--lane", "primary/spans") == 0
    shown = capfdbinary.readouterr().out
    assert span_ids(shown) == [*range(SPANS)]
    assert json.loads(shown.splitlines()[0])["resourceSpans"][0]["resource"]["attributes"]
    assert await run(left, "cat", "--lane", "primary/points") == 0
    calls = [
        record
        for line in capfdbinary.readouterr().out.splitlines()
        for record in records(b"/v1/metrics", metrics(line))
    ]
    assert {each.kind for each in calls} == {"calls"}
    assert sum(each.count for each in calls) == SPANS // 2


def metrics(line: bytes) -> bytes:
    parsed: Any = Parse(line, ExportMetricsServiceRequest())
    return bytes(parsed.SerializeToString())


async def test_export_writes_them_beside_the_lines_of_others(
    left: World, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    output = tmp_path / "out"
    assert await run(left, "export", "--output", str(output)) == 0
    assert span_ids((output / "spans.otlp.jsonl").read_bytes()) == [*range(SPANS)]
    assert (output / "distributions.otlp.jsonl").read_bytes()
    assert (output / "spans.txt").read_bytes() == b""
    assert await run(left, "export", "--signal", "spans") == 0
    assert span_ids(capfdbinary.readouterr().out) == [*range(SPANS)]


async def test_drain_sends_them_with_red_and_removes_them(
    left: World, capsys: pytest.CaptureFixture[str]
) -> None:
    left.sink.calm()
    assert await run(left, "drain") == 0
    assert " 0 lost, 0 left" in capsys.readouterr().out
    assert sorted(left.sink.first) == [*range(SPANS)]
    assert left.sink.again == []
    assert left.red() == SPANS
    assert sum(taken.durations.total() for taken in left.sink.requests) == SPANS
    assert [*left.root.rglob("*.batch")] == []


async def test_a_target_of_the_other_kind_leaves_them_alone_and_says_so(
    left: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else a collector's records went to a proxy as lines, or a proxy's lines stopped a collector's lane."""
    left.sink.calm()
    left.kind = "proxy"
    other = await left.body()
    [problem] = other.durable.problems()
    assert "lines for OTLP, and the primary target takes Wavefront" in problem
    await other.post(left.spans(3))
    await other.delivers(3)
    await other.leave()
    assert sorted(left.sink.first) == [SPANS, SPANS + 1, SPANS + 2]
    assert await run(left, "drain", kind="proxy") == 1
    assert "holds" in capsys.readouterr().err
    # With a target of theirs they go, and the word with them.
    assert await run(left, "drain") == 0
    assert len(left.sink.first) == SPANS + 3
    assert left.sink.unread == []
    assert problem not in other.durable.problems()


async def test_lines_of_wavefront_wait_likewise(world: World) -> None:  # noqa: F811
    world.sink.trouble((sinks.BUSY,))
    one = await world.body()
    await one.post(world.spans(5))
    await one.die()
    world.sink.calm()
    world.kind = "otlp"
    other = await world.body()
    assert "5 lines for Wavefront" in other.durable.problems()[0]
    await other.leave()
    world.kind = "proxy"
    heir = await world.body()
    await heir.delivers(5)
    await heir.leave()
    assert isinstance(world.sink, Sink)
    assert sorted(world.sink.first) == [*range(5)]


async def test_a_folder_that_cannot_be_read_hinders_no_start(
    world: World,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody looks for what is not ours at the cost of what is."""

    def refuse(_: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    world.kind = "otlp"
    (world.root / "otlp").mkdir(parents=True)
    monkeypatch.setattr(Path, "iterdir", refuse)
    one = await world.body()
    await one.post(world.spans(5))
    await one.delivers(5)
