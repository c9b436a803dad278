"""Shedding in the hot path: RED sees everything, the ledger balances, traces go whole, logs go with their spans."""

import json
from random import Random

from tests.conftest import ENVOY, NOW_US
from tests.test_pipeline import Sink, balanced
from tracefwd.exporter.lines import LineWriter
from tracefwd.model import Signal
from tracefwd.pipeline import Pipeline
from tracefwd.plan import LineParts
from tracefwd.processor.istio import make_istio_mapper
from tracefwd.processor.line_check import make_line_check
from tracefwd.processor.red import RedAggregator
from tracefwd.processor.sampler import make_sampler
from tracefwd.processor.shed import Shedder
from tracefwd.processor.wavefront_proxy_rules import REPAIRED
from tracefwd.receiver.decode import make_decode
from tracefwd.receiver.span_lines import read_lines
from tracefwd.settings import MappingSettings, RedSettings, SamplingSettings

[SPAN, *_] = json.loads((ENVOY / "json-batch-5.json").read_bytes())
RANDOM = Random(3)
TRACES = [f"{RANDOM.getrandbits(128):032x}" for _ in range(200)]


def make(sink: Sink, rate: float = 1.0) -> Pipeline:
    red = RedSettings()
    sampler = make_sampler(SamplingSettings(rate=rate))
    return Pipeline(
        decode=make_decode(),
        mapper=make_istio_mapper(MappingSettings(), red),
        sampler=sampler,
        red=RedAggregator(red),
        lines=LineParts(read_lines, make_line_check(REPAIRED)),
        shedder=Shedder(None if sampler is None else sampler.reach),
        outlets=[(LineWriter(), [sink])],
        now_us=lambda: NOW_US,
    )


def body(*traces: str) -> bytes:
    return json.dumps([SPAN | {"traceId": trace} for trace in traces]).encode()


def red_count(sink: Sink) -> int:
    lines = sink.lines(Signal.POINTS)
    return sum(int(line.split()[1]) for line in lines if ".invocation.count" in line)


def test_red_and_the_ledger_see_what_is_shed() -> None:
    sink = Sink()
    pipeline = make(sink, rate=0.5)
    pipeline.shedder.set_share(0.5)
    assert pipeline.ingest(body(*TRACES), "application/json").status == 202  # type: ignore[union-attr]
    list(pipeline.tick())
    shown = pipeline.ledger()
    assert balanced(shown)
    assert shown["received"] == 200
    assert 60 < shown["sampled_out"] < 140
    assert 20 < shown["dropped"]["shed"] < 80
    assert shown["delivered"] == 200 - shown["sampled_out"] - shown["dropped"]["shed"]
    assert pipeline.samples()["tracefwd_shed_spans_total"] == {(): shown["dropped"]["shed"]}
    assert red_count(sink) == 200


def test_every_worker_sheds_the_same_traces() -> None:
    sinks = [Sink(), Sink()]
    for sink, order in zip(sinks, (TRACES, TRACES[::-1]), strict=True):
        pipeline = make(sink)
        pipeline.shedder.set_share(0.25)
        for trace in order:
            pipeline.ingest(body(trace), "application/json")
    first, other = (sorted(sink.lines(Signal.SPANS)) for sink in sinks)
    assert first == other
    assert 25 < len(first) < 75


def test_a_calm_pipeline_sheds_nothing() -> None:
    pipeline = make(Sink())
    pipeline.shedder.set_share(0.0)
    pipeline.shedder.set_share(1.0)
    pipeline.ingest(body(*TRACES), "application/json")
    assert pipeline.ledger()["dropped"] == {}


def line(trace: str) -> str:
    return f'"op" source="s" traceId="{trace}" spanId="{trace}" "application"="a" "service"="b" 1533529977000 5'


def uuid(trace: str) -> str:
    return f"{trace[:8]}-{trace[8:12]}-{trace[12:16]}-{trace[16:20]}-{trace[20:]}"


def test_span_lines_and_their_logs_are_shed_together() -> None:
    sink = Sink()
    pipeline = make(sink)
    pipeline.shedder.set_share(0.5)
    spans = [line(uuid(trace)) for trace in TRACES]
    logs = [
        json.dumps(
            {
                "traceId": uuid(trace),
                "spanId": uuid(trace),
                "logs": [{"timestamp": 1, "fields": {"a": "b"}}],
                "span": line(uuid(trace)),
            }
        )
        for trace in TRACES
    ]
    pipeline.ingest_lines("\n".join([*spans, *logs, ""]).encode(), "")
    shown = pipeline.ledger()
    assert balanced(shown)
    assert shown["received"] == shown["span_logs"]["received"] == 200
    assert shown["dropped"] == shown["span_logs"]["dropped"]
    assert 60 < shown["dropped"]["shed"] < 140
    assert shown["delivered"] == shown["span_logs"]["delivered"]
