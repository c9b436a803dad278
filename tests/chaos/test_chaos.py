"""The short version of the chaos run, and whether its judge would notice."""

from pathlib import Path
from random import Random

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

    def __init__(self) -> None:
        self.truth = Truth()
        self.truth.set(self.truth.take(6), truth.ACKNOWLEDGED)
        self.truth.states[0] = truth.CUT
        self.sink = Sink(Random(1))
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
