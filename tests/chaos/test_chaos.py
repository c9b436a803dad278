"""The short version of the chaos run, and whether its judge would notice."""

import asyncio
from pathlib import Path
from random import Random

import pytest

from tests.chaos import sink as sinks
from tests.chaos import truth
from tests.chaos.judge import NEWS_S, judge
from tests.chaos.run import Chaos, report
from tests.chaos.sink import Sink
from tests.chaos.truth import Truth
from tracefwd.ledger import empty_section

SEED = 20
# After these the sender knows that nothing was taken.
CLEAR = ((sinks.RESET, sinks.BUSY), (sinks.SLOW_DOWN, sinks.TOO_LARGE), (sinks.DENIED, sinks.BUSY))


async def test_nothing_acknowledged_is_lost_whatever_is_killed(tmp_path: Path) -> None:
    chaos = Chaos(tmp_path, SEED, rounds=5, posts_per_s=40.0)
    verdict = await chaos.run()
    assert not verdict.faults, f"seed {SEED}\n{report(chaos, verdict)}"
    # Of any five events of a deck one at most ends processes in order.
    assert chaos.tree.kills >= 4
    assert verdict.figures["acknowledged"] > 200


async def test_the_same_by_otlp(tmp_path: Path) -> None:
    chaos = Chaos(tmp_path, SEED, rounds=3, posts_per_s=40.0, otlp=True)
    chaos._deck = [chaos._kill_worker, chaos._reload_and_kill, chaos._kill_everything_at_once]
    verdict = await chaos.run()
    shown = f"seed {SEED}\n{report(chaos, verdict)}"
    assert not verdict.faults, shown
    assert chaos.tree.kills >= 4, shown
    assert verdict.figures["acknowledged"] > 100, shown
    assert verdict.figures["red_invocations"] >= verdict.figures["arrived"], shown


async def test_nothing_is_counted_twice_when_every_answer_is_heard(tmp_path: Path) -> None:
    chaos = Chaos(tmp_path, SEED, rounds=2, posts_per_s=40.0, faults=CLEAR, kills=False)
    verdict = await chaos.run()
    shown = f"seed {SEED}\n{report(chaos, verdict)}"
    assert not verdict.faults, shown
    assert verdict.figures["duplicates"] == 0, shown
    assert verdict.figures["red_invocations"] == verdict.figures["arrived"] > 200, shown
    assert verdict.figures["red_durations"] == verdict.figures["arrived"], shown


# The judge.


def line(number: int) -> bytes:
    return b'"op" source="a" spanId="%s" "x"="y" 1 1' % uuid(truth.id_of(number))


def uuid(number: int) -> bytes:
    text = f"{number:032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:])).encode()


def red(series: int, invocations: int, errors: int) -> list[bytes]:
    name = '"∆tracing.derived.mesh.chaos-0.op-%d.%s.count" %d source="a"'
    times = f'!M 0 #{invocations} 1.0 "tracing.derived.mesh.chaos-0.op-{series}.duration.micros.m"'
    return [
        (name % (series, "invocation", invocations)).encode(),
        (name % (series, "error", errors)).encode(),
        times.encode(),
    ]


class World:
    """Spans 1 to 5 acknowledged, taken in one request that was answered, and their RED in another one."""

    def __init__(self, spool: Path | None = None) -> None:
        self.truth = Truth()
        self.truth.set(self.truth.take(6), truth.ACKNOWLEDGED)
        self.truth.states[0] = truth.CUT
        self.sink = Sink(Random(1), spool)
        self.ledger = {
            **empty_section(),
            **{name: empty_section() for name in ("span_logs", "points", "distributions")},
            "targets": {},
            "received": 5,
            "delivered": 5,
        }
        self.take([line(number) for number in range(1, 6)])
        for number in range(1, 6):
            self.take(red(number, 1, 0))

    def take(self, lines: list[bytes], answered_at: float | None = 100.0) -> None:
        taken = self.sink._take(b"\n".join(lines))
        taken.answered_at = answered_at

    def faults(self, again: dict[str, int] | None = None) -> list[str]:
        return judge(self.truth, self.sink, self.ledger, again).faults


def test_the_judge_passes_what_is_right() -> None:
    assert World().faults() == []


def test_the_judge_notices_a_lost_span() -> None:
    world = World()
    world.truth.set(world.truth.take(1), truth.ACKNOWLEDGED)
    assert "1 acknowledged spans never arrived, such as [6]" in world.faults()


def test_the_judge_notices_a_refused_span_that_arrives() -> None:
    world = World()
    world.truth.states[3] = truth.REFUSED
    assert any("refused" in fault for fault in world.faults())


def test_the_judge_wants_a_reason_for_every_double() -> None:
    world = World()
    world.take([line(2)])
    assert any("came again" in fault for fault in world.faults())
    # The sender hung up before it can have read the answer; or long after that.
    for lag_s, is_doubtful in ((NEWS_S / 2, True), (2 * NEWS_S, False)):
        world.sink.requests[0].hung_up_at = 100.0 + lag_s
        assert (world.faults() == []) == is_doubtful


async def second_request(sink: Sink, *, held_s: float = 0.0) -> None:
    """One sender's two requests on one connection, of one span each; the sender leaves ``held_s`` after the second."""
    reader, writer = await asyncio.open_connection("127.0.0.1", sink.port)
    for number in (6, 7):
        body = line(number)
        writer.write(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        await reader.readuntil(b"\r\n\r\n")
    await asyncio.sleep(held_s)
    writer.close()
    while sink._writers:  # noqa: ASYNC110 - a connection's end has no event
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("held_s", [0.0, NEWS_S + 0.1])
@pytest.mark.parametrize("lines_spooled", [0, 1, 2])
async def test_the_judge_takes_more_on_a_connection_for_news_unless_a_file_must_go(
    tmp_path: Path, lines_spooled: int, held_s: float
) -> None:
    world = World(tmp_path)
    world.truth.set(world.truth.take(2), truth.ACKNOWLEDGED)
    world.ledger |= {"received": 7, "delivered": 7}
    for series in (6, 7):
        world.take(red(series, 1, int(series == 7)))
    batches = tmp_path / "slot-0.1" / "batches"
    batches.mkdir(parents=True)
    (batches / f"000000000001+1+{lines_spooled}+primary+spans+sent.batch").touch()
    async with world.sink as sink:
        await second_request(sink, held_s=held_s)
    assert world.faults() == []
    world.take([line(6)])
    # Only a file of as many lines may outlive its answer, and for a moment.
    assert (world.faults() == []) == (lines_spooled == 1 and held_s == 0.0)


def test_the_judge_compares_with_what_the_service_counted() -> None:
    world = World()
    world.sink.requests[0].answered_at = None
    world.take([line(2)])
    counted = {"spans": 1, "points": 0, "distributions": 0}
    assert world.faults(counted) == []
    assert world.faults({**counted, "spans": 0}) == [
        "duplicates 1, but only 0 were counted as maybe doubled"
    ]


def test_the_judge_knows_pieces() -> None:
    world = World()
    world.sink._cut.add(hash(line(2)))
    world.take([line(2)])
    assert any("came again" in fault for fault in world.faults())
    world.take([line(2)])
    assert len(world.faults()) == 1


def test_the_judge_notices_red_that_is_short() -> None:
    world = World()
    world.truth.set(world.truth.take(1), truth.ACKNOWLEDGED)
    world.take([line(6)])
    world.ledger |= {"received": 6, "delivered": 6}
    assert any("RED invocations of series 6" in fault for fault in world.faults())


def test_the_judge_allows_more_red_only_where_an_answer_may_be_lost() -> None:
    world = World()
    world.take(red(3, 1, 0))
    assert any("RED durations of series 3" in fault for fault in world.faults())
    world = World()
    world.take(red(3, 1, 0), answered_at=None)
    assert world.faults() == []


def test_the_judge_reads_the_ledger() -> None:
    world = World()
    world.ledger["received"] = 6
    faults = world.faults()
    assert any("does not balance" in fault for fault in faults)
    assert any("ledger: received 6" in fault for fault in faults)
