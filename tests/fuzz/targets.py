"""What bytes are thrown at, and what must hold whatever they are.

Every target takes one input and returns its *signature*: a few words on what became of it.  Inputs with a signature
that was not seen before are kept as further seeds, which leads the search into corners at almost no cost.

What must hold: nothing raises but what is asserted here, the answer is one of the documented ones, the ledger balances,
and what was counted is what was answered.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from tests.conftest import NOW_US
from tests.fuzz.expositions import exposition_target
from tests.test_pipeline import Sink, balanced
from tracefwd.doorways import Answer, HeldAnswer
from tracefwd.exporter.lines import LineWriter
from tracefwd.pipeline import Pipeline
from tracefwd.plan import LineParts
from tracefwd.processor.istio import make_istio_mapper
from tracefwd.processor.line_check import make_line_check
from tracefwd.processor.red import RedAggregator
from tracefwd.processor.wavefront_proxy import make_wavefront_proxy_mapper
from tracefwd.processor.wavefront_proxy_rules import EXACT, REPAIRED
from tracefwd.receiver.decode import make_decode
from tracefwd.receiver.exact import make_exact_decode
from tracefwd.receiver.handler import Handlers, zipkin_handlers
from tracefwd.receiver.http_connection import Connection
from tracefwd.receiver.intake import Intake
from tracefwd.receiver.otlp_decode import make_otlp_decode
from tracefwd.receiver.otlp_view import look
from tracefwd.receiver.span_lines import read_lines
from tracefwd.receiver.weight import too_heavy_otlp
from tracefwd.settings import MappingSettings, ReceiverSettings, RedSettings

CORPUS = Path(__file__).parent / "corpus"
_KINDS = ("application/json", "application/x-protobuf", "", "text/plain")
# As many answers as a connection may give; others are bugs.
_STATUSES = frozenset((100, 202, 400, 404, 405, 408, 413, 415, 431, 501, 503, 505))
_SETTINGS = ReceiverSettings(body_bytes_max=50_000, unfinished_bytes_max=100_000)

Target = Callable[[bytes], str]


def _pipeline(*, exact: bool) -> tuple[Pipeline, Sink]:
    sink, red = Sink(), RedSettings(series_max=200)
    mapping = MappingSettings(profile="wavefront-proxy" if exact else "istio", exact=exact)
    make_mapper = make_wavefront_proxy_mapper if exact else make_istio_mapper
    pipeline = Pipeline(
        decode=make_exact_decode("keep") if exact else make_decode(),
        mapper=make_mapper(mapping, red),
        sampler=None,
        red=RedAggregator(red),
        lines=LineParts(read_lines, make_line_check(EXACT if exact else REPAIRED)),
        outlets=[(LineWriter(), [sink])],
        now_us=lambda: NOW_US,
    )
    return pipeline, sink


def body_target(*, exact: bool, otlp: bool = False) -> Target:
    """Bodies of any format through the whole pipeline; of OTLP both ways of mapping, twice for its memos."""
    decoders = [make_otlp_decode(as_the_proxy=as_the_proxy) for as_the_proxy in (False, True)]

    def throw(body: bytes) -> str:
        pipeline, sink = _pipeline(exact=exact)
        if otlp:
            assert too_heavy_otlp(body) == ""
            answers = [pipeline.ingest(body, "", decode) for decode in decoders * 2]
            assert len({repr(answer) for answer in answers}) == 1, "a memo makes a difference"
            assert all(len(seen.fields) for seen in look(body))
        else:
            answers = [pipeline.ingest(body, kind) for kind in _KINDS]
            answers.append(pipeline.ingest_lines(body, ""))
        list(pipeline.tick())
        shown = pipeline.ledger()
        assert balanced(shown), shown
        statuses = []
        for answer in answers:
            assert isinstance(answer, Answer)
            assert answer.status in (202, 400), answer
            assert len(answer.body) < 10_000
            statuses.append(answer.status)
        for payload in sink.payloads:
            # One line for each item, and none that could be read as two.
            assert payload.data.count(b"\n") == payload.items
        repairs = pipeline.samples()["tracefwd_mapper_repairs_total"]
        accepted = pipeline.samples()["tracefwd_receiver_accepted_spans_total"]
        return f"{statuses} {sorted(shown['rejected'])} {sorted(repairs)} {sorted(accepted)}"

    return throw


class _Wire(asyncio.Transport):
    """A transport without a network."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.is_ended = False
        self.is_paused = False

    def write(self, data: Any) -> None:
        assert not self.is_ended, "something was said after the end"
        self.written += data

    def write_eof(self) -> None:
        self.is_ended = True

    def can_write_eof(self) -> bool:
        return True

    def abort(self) -> None:
        self.is_ended = True

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False


def http_target(stream: bytes) -> str:
    """A connection's bytes, whole and in pieces: the same requests, the same answers, and no room kept afterwards."""
    bodies, statuses = asyncio.run(_connection([stream]))
    # The cuts depend on the input alone, so that a finding can be replayed.
    pieces = list(_pieces(stream, Random(stream)))
    again, said = asyncio.run(_connection(pieces))
    assert again == bodies, "cuts make a difference"
    # What is refused at last, and whether it is refused yet, may depend on how much of it is there.
    assert _accepted(said) == _accepted(statuses)
    return f"{len(bodies)} {sorted(Counter(statuses).items())}"


def _accepted(statuses: list[int]) -> list[int]:
    """All answers but a last refusal."""
    return statuses[:-1] if statuses and statuses[-1] >= 400 else statuses


def _pieces(stream: bytes, random: Random) -> Iterator[bytes]:
    at = 0
    while at < len(stream):
        size = random.choice((1, 2, 7, 30, 300, 5_000))
        yield stream[at : at + size]
        at += size


async def _connection(reads: list[bytes]) -> tuple[list[tuple[bytes, str]], list[int]]:
    """(bodies with their content type, statuses of answers)."""
    got: list[tuple[bytes, str]] = []

    def take(body: bytes, kind: str) -> Answer | HeldAnswer:
        assert len(body) <= _SETTINGS.body_bytes_max
        got.append((body, kind))
        return Answer(202)

    intake = Intake(_SETTINGS, Handlers(zipkin_handlers([], take)))
    wire, connection = _Wire(), Connection(intake, retire_at=float("inf"))
    connection.connection_made(wire)
    for read in reads:
        connection.data_received(read)
        while wire.is_paused:  # noqa: ASYNC110 - the connection goes on at the loop's next turn
            await asyncio.sleep(0)
    connection.look_at_clock(0.0)
    await intake.turns.over.wait()
    await asyncio.sleep(0)
    connection.connection_lost(None)
    assert intake.guard.unfinished_bytes == 0, "room is kept for a connection that is gone"
    assert not intake.connections
    statuses = list(_statuses(bytes(wire.written)))
    assert _STATUSES.issuperset(statuses), statuses
    assert 500 not in statuses
    assert statuses.count(202) == len(got)
    return got, statuses


def _statuses(written: bytes) -> Iterator[int]:
    """The answers, read strictly by their lengths."""
    while written:
        head, found, rest = written.partition(b"\r\n\r\n")
        assert found, "an answer without an end"
        lines = head.split(b"\r\n")
        version, status, _ = lines[0].split(b" ", 2)
        assert version == b"HTTP/1.1"
        fields = dict(line.split(b": ", 1) for line in lines[1:])
        length = int(fields.get(b"Content-Length", 0))
        # An answer to HEAD gives the length of what it does not have.
        written = rest if rest[:5] == b"HTTP/" or not rest else rest[length:]
        yield int(status)


TARGETS: dict[str, tuple[str, Target]] = {
    "http": ("http", http_target),
    "json_v2": ("json", body_target(exact=False)),
    "json_v1": ("json", body_target(exact=False)),
    "proto3": ("proto3", body_target(exact=False)),
    "otlp_proto": ("proto3", body_target(exact=False, otlp=True)),
    "otlp_json": ("json", body_target(exact=False, otlp=True)),
    "exact": ("json", body_target(exact=True)),
    "exposition": ("exposition", exposition_target),
}
"""Name -> (the tokens that fit it, the target)."""


def seeds(name: str) -> list[bytes]:
    """The corpus of a target; exact mode reads what JSON has."""
    folders = ("json_v2", "json_v1", "proto3") if name == "exact" else (name,)
    files = [file for folder in folders for file in sorted((CORPUS / folder).iterdir())]
    return [file.read_bytes() for file in files]


__all__ = ["CORPUS", "TARGETS", "seeds"]
