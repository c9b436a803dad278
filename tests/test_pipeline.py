"""The hot path: a plan changes nothing, a commit happens whole, the ledger always balances."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import ENVOY, NOW_US
from tracefwd import ledger
from tracefwd.doorways import Answer
from tracefwd.exporter.lines import LineWriter
from tracefwd.ledger import Account
from tracefwd.metrics import BY_NAME, Samples
from tracefwd.model import Decoded, Payload, Signal
from tracefwd.pipeline import ACCEPTED, Pipeline
from tracefwd.processor.istio import make_istio_mapper
from tracefwd.processor.red import RedAggregator
from tracefwd.processor.sampler import make_sampler
from tracefwd.receiver.decode import make_decode
from tracefwd.settings import MappingSettings, RedSettings, SamplingSettings

BATCH = (ENVOY / "json-batch-5.json").read_bytes()


class Sink:
    """A destination that keeps what it is offered."""

    def __init__(self, name: str = "primary", role: str = "primary") -> None:
        self.name = name
        self.role = role
        self.payloads: list[Payload] = []
        self.accounts = {signal: Account(lambda: 0) for signal in Signal}

    def offer(self, payload: Payload) -> None:
        account = self.accounts[payload.signal]
        account.received += payload.items
        account.delivered += payload.items
        self.payloads.append(payload)

    def failover_accounts(self) -> dict[str, dict[Signal, Account]]:
        return {}

    def samples(self) -> Samples:
        return {}

    def lines(self, signal: Signal) -> list[str]:
        texts = [payload.data.decode() for payload in self.payloads if payload.signal == signal]
        return "".join(texts).splitlines()


def make(*sinks: Sink, rate: float = 1.0) -> Pipeline:
    red = RedSettings()
    return Pipeline(
        decode=make_decode(),
        mapper=make_istio_mapper(MappingSettings(), red),
        sampler=make_sampler(SamplingSettings(rate=rate)),
        red=RedAggregator(red),
        outlets=[(LineWriter(), sinks)],
        now_us=lambda: NOW_US,
    )


def balanced(shown: dict[str, Any]) -> bool:
    sections = [shown, shown["span_logs"], shown["points"], shown["distributions"]]
    sections += [section for target in shown["targets"].values() for section in target.values()]
    return all(ledger.imbalance(section) == 0 for section in sections)


def test_a_plan_changes_nothing() -> None:
    sink = Sink()
    pipeline = make(sink)
    plan = pipeline.plan([make_decode()(BATCH, "application/json")], NOW_US)
    [part] = plan.parts
    assert (len(part.mapped.spans), len(part.good)) == (5, 5)
    assert sink.payloads == []
    assert pipeline.ledger()["received"] == 0
    assert list(pipeline.tick()) == []


def test_a_batch_is_taken_answered_and_delivered() -> None:
    sink = Sink()
    pipeline = make(sink)
    assert pipeline.ingest(BATCH, "application/json") is ACCEPTED
    assert len(sink.lines(Signal.SPANS)) == 5
    shown = pipeline.ledger()
    assert (shown["received"], shown["delivered"]) == (5, 5)
    assert balanced(shown)


def test_red_sees_what_sampling_keeps_back() -> None:
    sink = Sink()
    pipeline = make(sink, rate=0.0)
    assert pipeline.ingest(BATCH, "") is ACCEPTED
    assert sink.lines(Signal.SPANS) == []
    list(pipeline.tick())
    counts = [line for line in sink.lines(Signal.POINTS) if ".invocation.count" in line]
    assert sum(int(line.split('" ')[1].split()[0]) for line in counts) == 5
    shown = pipeline.ledger()
    assert shown["sampled_out"] == 5
    assert balanced(shown)


def test_a_bad_span_costs_only_itself() -> None:
    sink = Sink()
    pipeline = make(sink)
    spans = json.loads(BATCH)
    spans[2]["traceId"] = "not hex"
    answer = pipeline.ingest(json.dumps(spans).encode(), "")
    assert isinstance(answer, Answer)
    assert (answer.status, answer.body, answer.rejected) == (202, b"", 1)
    assert "traceId is not hex" in answer.detail
    shown = pipeline.ledger()
    assert (shown["received"], shown["delivered"], shown["rejected"]) == (5, 4, {"trace_id": 1})
    assert balanced(shown)
    assert pipeline.rejected_samples()[0]["reason"] == "trace_id"


def test_nothing_readable_is_a_400_that_says_what_and_where() -> None:
    pipeline = make(Sink())
    answer = pipeline.ingest(b'[{"id": "1"}]', "")
    assert isinstance(answer, Answer)
    assert answer.status == 400
    assert b"traceId" in answer.body
    assert balanced(pipeline.ledger())


def test_an_empty_list_is_fine() -> None:
    pipeline = make(Sink())
    assert pipeline.ingest(b"[]", "") is ACCEPTED
    assert pipeline.ledger()["received"] == 0


def test_targets_with_the_same_writer_get_the_same_bytes() -> None:
    primary, tee = Sink(), Sink("copy", "tee")
    pipeline = make(primary, tee)
    pipeline.ingest(BATCH, "")
    assert primary.payloads == tee.payloads
    shown = pipeline.ledger()
    assert shown["delivered"] == 5
    assert shown["targets"]["copy"]["spans"]["delivered"] == 5


def test_every_metric_handed_over_is_declared() -> None:
    pipeline = make(Sink())
    pipeline.ingest(BATCH, "")
    for name, series in pipeline.samples().items():
        assert name in BY_NAME
        assert all(len(labels) == len(BY_NAME[name].labels) for labels in series)


_BODIES = st.one_of(
    st.just(BATCH),
    st.binary(max_size=200),
    st.integers(0, len(BATCH)).map(lambda end: BATCH[:end]),
    st.just((ENVOY / "proto-batch-5.bin").read_bytes()),
)


@settings(deadline=None, max_examples=100)
@given(bodies=st.lists(_BODIES, max_size=5), rate=st.sampled_from([0.0, 0.5, 1.0]))
def test_whatever_comes_the_ledger_balances_and_red_counts_every_mapped_span(
    bodies: list[bytes], rate: float
) -> None:
    sink = Sink()
    pipeline = make(sink, rate=rate)
    for body in bodies:
        answer = pipeline.ingest(body, "")
        assert isinstance(answer, Answer)
        assert answer.status in (202, 400)
        assert balanced(pipeline.ledger())
    list(pipeline.tick())
    shown = pipeline.ledger()
    counts = [line for line in sink.lines(Signal.POINTS) if ".invocation.count" in line]
    invocations = sum(int(line.split('" ')[1].split()[0]) for line in counts)
    assert invocations == shown["received"] - sum(shown["rejected"].values())
    assert balanced(shown)


@settings(deadline=None, max_examples=50)
@given(bodies=st.lists(_BODIES, min_size=1, max_size=5), rate=st.sampled_from([0.0, 0.5, 1.0]))
def test_requests_taken_together_fare_as_one_by_one(bodies: list[bytes], rate: float) -> None:
    alone, together = Sink(), Sink()
    one, other = make(alone, rate=rate), make(together, rate=rate)
    assert other.ingest_all([(body, "") for body in bodies]) == [
        one.ingest(body, "") for body in bodies
    ]
    for pipeline in (one, other):
        list(pipeline.tick())
    for signal in Signal:
        assert together.lines(signal) == alone.lines(signal)
    assert other.ledger() == one.ledger()
    assert other.rejected_samples() == one.rejected_samples()
    ours, theirs = other.samples(), one.samples()
    assert ours == theirs


def test_a_bug_that_one_of_several_requests_shows_changes_nothing() -> None:
    def decode(body: bytes, content_type: str) -> Decoded:
        if body == b"bug":
            raise ZeroDivisionError
        return make_decode()(body, content_type)

    pipeline = make(Sink())
    assert pipeline.ingest_all([(BATCH, ""), (b"bug", "")], decode) is None
    assert pipeline.ledger()["received"] == 0
    assert pipeline.ingest_all([(BATCH, ""), (BATCH, "")], decode) == [ACCEPTED, ACCEPTED]
    assert pipeline.ledger()["received"] == 10


def test_what_people_see_is_each_request_by_itself() -> None:
    pipeline = make(Sink())
    seen: list[tuple[bytes, int]] = []
    pipeline.watch = lambda part, _: seen.append((part.decoded.body, len(part.good)))
    pipeline.ingest_all([(BATCH, ""), (b"[]", "")])
    assert seen == [(BATCH, 5), (b"[]", 0)]
