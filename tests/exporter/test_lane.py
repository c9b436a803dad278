"""The lane against a sender that the test plays: every promise about order, bounds and counts."""

import asyncio
import gzip
import logging
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracefwd.exporter import breaker, lane, repeat_log
from tracefwd.exporter.lane import Lane
from tracefwd.exporter.route import Route
from tracefwd.ledger import imbalance
from tracefwd.limits import REJECT_REASONS
from tracefwd.metrics import BY_NAME
from tracefwd.model import Outcome, Payload, Signal
from tracefwd.settings import ExporterSettings, RetrySettings

Until = Callable[..., Awaitable[None]]
DELIVERED = Outcome("delivered")
BUSY = Outcome("retry", "http_503", "HTTP 503")


class PlayedSender:
    """Answers from ``script``, then ``default``; None is no answer until ``answer`` is called."""

    def __init__(self, *, takes_gzip: bool = True) -> None:
        self.shown = "http://played"
        self.takes_gzip = takes_gzip
        self.script: list[Outcome | None] = []
        self.default: Outcome | None = DELIVERED
        self.bodies: list[bytes] = []
        self.encodings: list[str] = []
        self.waiting: list[asyncio.Future[Outcome]] = []
        self.look: Callable[[], None] = lambda: None

    async def send(self, data: bytes, encoding: str) -> Outcome:
        self.bodies.append(gzip.decompress(data) if encoding else data)
        self.encodings.append(encoding)
        self.look()
        outcome = self.script.pop(0) if self.script else self.default
        if outcome is None:
            future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
            self.waiting.append(future)
            outcome = await future
        else:
            await asyncio.sleep(0)
        self.look()
        return outcome

    async def close(self) -> None:
        """Nothing to close."""

    def answer(self, outcome: Outcome = DELIVERED) -> None:
        self.waiting.pop(0).set_result(outcome)


def payload(*lines: str, unsendable: int = 0) -> Payload:
    data = "".join(line + "\n" for line in lines).encode()
    return Payload(Signal.SPANS, data, len(lines), unsendable)


def make_lane(*senders: PlayedSender, **changes: Any) -> Lane:
    fast = {"batch_age_max": 0.001, "retry": RetrySettings(backoff_base=0.001, backoff_max=0.004)}
    exporter = ExporterSettings(**{**fast, **changes})
    names = ("primary", "second", "third")
    routes = [Route(names[i], Signal.SPANS, sender) for i, sender in enumerate(senders)]
    return Lane("primary", Signal.SPANS, routes, exporter, Random(1))


def check(checked: Lane) -> None:
    assert imbalance(checked.account.show()) == 0, checked.account.show()
    assert checked._held.size_bytes <= checked._gathering.queue_bytes_max
    for route in checked.routes[1:]:
        assert imbalance(route.account.show()) == 0


# Gathering.


async def test_a_batch_waits_for_its_age(until: Until) -> None:
    sender = PlayedSender()
    made = make_lane(sender)
    made.start()
    made.offer(payload("a"))
    made.offer(payload("b", "c"))
    assert made.account.held() == 3
    await until(lambda: made.account.delivered == 3)
    assert sender.bodies == [b"a\nb\nc\n"]
    check(made)
    await made.drain(1)


async def test_a_full_batch_leaves_at_once() -> None:
    sender = PlayedSender()
    made = make_lane(sender, batch_items_max=4, batch_age_max=60.0)
    made.start()
    for name in "abcdef":
        made.offer(payload(name * 2, name))
    made.offer(payload("x", "x", "x"))
    await made.drain(1)
    assert sender.bodies[:3] == [b"aa\na\nbb\nb\n", b"cc\nc\ndd\nd\n", b"ee\ne\nff\nf\n"]
    by_bytes = make_lane(sender, batch_bytes_max=10, batch_age_max=60.0)
    by_bytes.start()
    sender.bodies.clear()
    for _ in range(3):
        by_bytes.offer(payload("12345"))
    await by_bytes.drain(1)
    assert sender.bodies == [b"12345\n"] * 3


async def test_a_payload_larger_than_a_batch_is_cut_between_lines() -> None:
    sender = PlayedSender()
    made = make_lane(sender, batch_items_max=3, batch_age_max=60.0)
    made.start()
    made.offer(payload(*(f"line {n}" for n in range(8))))
    check(made)
    await made.drain(1)
    assert [body.count(b"\n") for body in sender.bodies] == [3, 3, 2]
    assert made.account.delivered == 8


async def test_the_queue_holds_packed_bytes() -> None:
    sender = PlayedSender()
    sender.default = None
    made = make_lane(sender, batch_items_max=100, batch_age_max=60.0)
    made.start()
    for _ in range(10):
        made.offer(payload(*["the same line again and again"] * 100))
    assert made._held.size_bytes < 10 * 3000 / 5
    await made.drain(0)
    plainly = make_lane(PlayedSender(takes_gzip=False), batch_items_max=100)
    plainly.start()
    plainly.offer(payload(*["the same line again and again"] * 100))
    assert plainly._held.size_bytes == 3000
    await plainly.drain(1)
    assert plainly.account.delivered == 100


async def test_gzip_can_be_switched_off() -> None:
    sender = PlayedSender()
    made = make_lane(sender, gzip=False)
    made.start()
    made.offer(payload(*["same"] * 100))
    await made.drain(1)
    assert sender.encodings == [""]


async def test_lines_that_the_target_cannot_take_are_rejected_at_once() -> None:
    made = make_lane(PlayedSender())
    made.start()
    made.offer(payload("a", unsendable=3))
    made.offer(Payload(Signal.SPANS, b"", 0, unsendable=2))
    check(made)
    assert made.account.received == 6
    assert made.account.rejected == {"too_long_for_target": 5}
    await made.drain(1)
    assert made.account.delivered == 1


async def test_what_is_offered_before_the_start_is_delivered_after_it() -> None:
    sender = PlayedSender()
    made = make_lane(sender, batch_items_max=2)
    for name in "abc":
        made.offer(payload(name))
    check(made)
    made.start()
    await made.drain(1)
    assert sender.bodies == [b"a\nb\n", b"c\n"]
    assert made.account.dropped == {}


async def test_a_signal_without_a_url_is_blocked() -> None:
    made = make_lane()
    made.start()
    made.offer(payload("a", "b"))
    assert made.account.blocked == 2
    check(made)
    await made.drain(1)


# The bound in bytes.


async def test_the_oldest_batch_that_is_not_in_flight_makes_room(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sender = PlayedSender()
    sender.default = None
    made = make_lane(
        sender, queue_bytes_max=50, batch_bytes_max=10, concurrency=1, gzip=False, batch_age_max=60
    )
    made.start()
    for n in range(8):
        made.offer(payload(f"line {n:4}"))  # ten bytes each: a batch
        check(made)
    assert made.account.dropped == {"queue_full": 3}
    await asyncio.sleep(0)
    sender.default = DELIVERED
    sender.answer()
    await made.drain(1)
    assert sender.bodies == [f"line {n:4}\n".encode() for n in (0, 4, 5, 6, 7)]
    text = "lines dropped (queue_full): the target was slower than the intake; "
    text += "see exporter.queue_bytes_max"
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.getMessage() for record in errors] == [
        f"primary/spans: 1 {text}",
        # The interval's rest, said at the end.
        f"primary/spans: 2 {text}",
    ]


async def test_a_batch_that_waits_for_its_retry_is_pushed_out_as_well(until: Until) -> None:
    sender = PlayedSender()
    sender.script = [Outcome("retry", "http_429", "", retry_after_ms=60_000)]
    made = make_lane(sender, queue_bytes_max=20, batch_bytes_max=10, gzip=False, batch_age_max=60)
    made.start()
    made.offer(payload("oldest..."))
    await until(lambda: bool(made._held.waits))
    for n in range(2):
        made.offer(payload(f"line {n:4}"))
    assert made.account.dropped == {"queue_full": 1}
    assert not made._held.waits
    await made.drain(1)
    assert b"".join(sender.bodies[1:]) == b"line    0\nline    1\n"


async def test_nothing_in_flight_is_pushed_out_and_a_line_that_never_fits_pushes_nothing() -> None:
    sender = PlayedSender()
    sender.default = None
    made = make_lane(sender, queue_bytes_max=20, batch_bytes_max=10, gzip=False, batch_age_max=60)
    made.start()
    for n in range(3):
        made.offer(payload(f"line {n:4}"))
    assert made.account.dropped == {"queue_full": 1}  # the newest: two are in flight
    made.offer(payload("x" * 30))
    assert made.account.dropped == {"queue_full": 2}
    check(made)
    await asyncio.sleep(0)
    assert sender.bodies == [b"line    0\n", b"line    1\n"]
    await made.drain(0)


# Flights.


async def test_no_more_requests_than_allowed_are_under_way(until: Until) -> None:
    sender = PlayedSender()
    sender.default = None
    made = make_lane(sender, concurrency=3, batch_items_max=1)
    made.start()
    for n in range(10):
        made.offer(payload(f"{n}"))
    await until(lambda: len(sender.waiting) == 3)
    assert len(sender.bodies) == 3
    sender.answer()
    await until(lambda: len(sender.bodies) == 4)
    assert len(sender.waiting) == 3
    assert made.account.held() == 9
    await made.drain(0)


async def test_a_failed_batch_is_sent_again_until_it_passes() -> None:
    sender = PlayedSender()
    sender.script = [BUSY, Outcome("retry", "timeout"), Outcome("retry", "http_429"), DELIVERED]
    made = make_lane(sender)
    made.start()
    made.offer(payload("a"))
    await made.drain(5)
    assert sender.bodies == [b"a\n"] * 4
    assert made.account.delivered == 1
    check(made)


async def test_retry_after_is_honoured_by_the_batch_and_the_lane(until: Until) -> None:
    sender = PlayedSender()
    sender.script = [Outcome("retry", "http_429", "", retry_after_ms=100)]
    made = make_lane(sender, batch_items_max=1)
    loop = asyncio.get_running_loop()
    made.start()
    started = loop.time()
    moments: list[float] = []
    sender.look = lambda: moments.append(loop.time() - started)
    made.offer(payload("a"))
    await until(lambda: bool(made._held.waits))
    made.offer(payload("b"))
    await until(lambda: made.account.delivered == 2)
    # Each send is seen twice: at its begin and at its end.
    assert len(moments) == 6
    assert min(moments[2:]) >= 0.1
    await made.drain(1)


async def test_a_batch_that_always_fails_does_not_keep_fresh_ones_back(until: Until) -> None:
    sender = PlayedSender()
    sender.default = None
    made = make_lane(sender, concurrency=1, batch_items_max=1)
    made.start()
    made.offer(payload("poison"))

    async def play() -> None:
        while True:
            await until(lambda: bool(sender.waiting))
            sender.answer(BUSY if sender.bodies[-1] == b"poison\n" else DELIVERED)

    playing = asyncio.create_task(play())
    for n in range(20):
        made.offer(payload(f"{n}"))
    await until(lambda: made.account.delivered == 20)
    assert made.account.held() == 1
    playing.cancel()
    await made.drain(0)
    assert made.account.dropped == {"drain_budget": 1}


@pytest.mark.parametrize(
    "script",
    [[], [Outcome("bisect", "http_400", "HTTP 400: bad line")]],
    ids=["whole", "in pieces"],
)
async def test_a_batch_that_grew_too_old_is_dropped(until: Until, script: list[Outcome]) -> None:
    sender = PlayedSender()
    sender.script, sender.default = [*script], BUSY
    retry = RetrySettings(backoff_base=0.001, backoff_max=0.004, age_max=0.05)
    made = make_lane(sender, retry=retry)
    made.start()
    made.offer(payload("a", "b"))
    await until(lambda: made.account.dropped == {"retries_exhausted": 2})
    check(made)
    assert made.account.held() == 0
    assert len(sender.bodies) > 1
    await made.drain(1)


async def test_too_large_is_halved_down_to_the_line_that_cannot_pass(until: Until) -> None:
    sender = PlayedSender()
    made = make_lane(sender, batch_items_max=8, concurrency=1)
    lines = ["a", "b", "c" * 50, "d", "e", "f", "g", "h"]

    def limit() -> None:
        check(made)
        too_large = len(sender.bodies[-1]) > 12
        sender.script = [Outcome("split", "http_413", "HTTP 413") if too_large else DELIVERED]

    sender.look = limit
    made.start()
    made.offer(payload(*lines))
    await until(lambda: made.account.held() == 0)
    assert made.account.delivered == 7
    assert made.account.rejected == {"refused": 1}
    taken = b"".join(body for body in sender.bodies if len(body) <= 12)
    assert sorted(taken.split()) == [b"a", b"b", b"d", b"e", b"f", b"g", b"h"]
    await made.drain(1)


async def test_refusals_are_counted_by_reason_and_kept_for_a_person(until: Until) -> None:
    sender = PlayedSender()
    sender.script = [
        Outcome("rejected", "http_400", "HTTP 400: bad"),
        Outcome("rejected", "http_400", "HTTP 400: bad"),
        Outcome("rejected", "http_403", "HTTP 403: disabled"),
    ]
    made = make_lane(sender, batch_items_max=2, concurrency=1)
    made.start()
    for _ in range(3):
        made.offer(payload("a", "b"))
    await until(lambda: made.account.held() == 0)
    assert made.account.rejected == {"refused": 4, "feature_disabled": 2}
    assert set(made.account.rejected) <= REJECT_REASONS
    assert made.refused() == [
        "primary (http://played) refused spans for good: HTTP 400: bad (4 lines)",
        "primary (http://played) refused spans for good: HTTP 403: disabled (2 lines)",
    ]
    await made.drain(1)


async def test_a_fault_of_our_own_is_loud_loses_nothing_and_shows_no_secret(
    until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    sender = PlayedSender()
    made = make_lane(sender)
    faults = [RuntimeError("s3cret")]

    def fault() -> None:
        if faults:
            raise faults.pop()

    sender.look = fault
    made.start()
    made.offer(payload("a"))
    await until(lambda: made.account.delivered == 1)
    assert "attempts failed inside tracefwd: RuntimeError" in caplog.text
    assert "test_lane.py" in caplog.text
    assert "s3cret" not in caplog.text
    await made.drain(1)


# Failover.


@pytest.fixture
def quick_breaker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker, "OUTAGE_S", 0.0)
    monkeypatch.setattr(breaker, "PROBE_S", 0.02)


@pytest.mark.usefixtures("quick_breaker")
async def test_a_failover_takes_over_and_the_primary_takes_it_back(until: Until) -> None:
    primary, second = PlayedSender(), PlayedSender()
    primary.default = BUSY
    made = make_lane(primary, second, batch_items_max=1)
    for sender in (primary, second):
        sender.look = lambda: check(made)
    made.start()
    for n in range(20):
        made.offer(payload(f"{n}"))
    await until(lambda: made.account.delivered == 20)
    assert len(second.bodies) == 20
    account = made.routes[1].account
    assert (account.received, account.delivered, account.held()) == (20, 20, 0)
    assert [route.name for route in made.failing()] == ["primary"]
    # Probes are real batches; the first that passes ends it.
    primary.default = DELIVERED
    offered = 20
    while made.routes[0].breaker.down:
        made.offer(payload("probe"))
        offered += 1
        await asyncio.sleep(0.002)
    assert made.failing() == []
    second.bodies.clear()
    for n in range(5):
        made.offer(payload(f"{n}"))
    await until(lambda: made.account.delivered == offered + 5)
    assert second.bodies == []
    await made.drain(1)
    check(made)


@pytest.mark.usefixtures("quick_breaker")
async def test_a_probe_that_fails_costs_nothing(until: Until) -> None:
    primary, second = PlayedSender(), PlayedSender()
    primary.default = BUSY
    made = make_lane(primary, second, batch_items_max=1)
    made.start()
    loop = asyncio.get_running_loop()
    end = loop.time() + 0.2
    offered = 0
    while loop.time() < end:
        made.offer(payload("a"))
        offered += 1
        await asyncio.sleep(0.001)
    await until(lambda: made.account.delivered == offered)
    # 200 ms of probes each 10 to 30 ms, and what it took to open.
    assert 5 < len(primary.bodies) <= 5 + 4 + 20
    await made.drain(1)


@pytest.mark.usefixtures("quick_breaker")
async def test_the_second_failover_stands_in_for_the_first() -> None:
    senders = PlayedSender(), PlayedSender(), PlayedSender()
    senders[0].default = senders[1].default = BUSY
    made = make_lane(*senders, batch_items_max=1)
    made.start()
    for n in range(30):
        made.offer(payload(f"{n}"))
    await made.drain(5)
    assert made.account.delivered == 30
    assert made.routes[2].account.delivered == 30
    assert made.routes[1].account.received == 0
    check(made)


async def test_short_trouble_does_not_move_a_batch_to_the_failover() -> None:
    primary, second = PlayedSender(), PlayedSender()
    primary.script = [BUSY] * 4
    made = make_lane(primary, second)
    made.start()
    made.offer(payload("a"))
    await made.drain(5)
    assert made.account.delivered == 1
    assert second.bodies == []


@pytest.mark.usefixtures("quick_breaker")
async def test_a_quiet_lane_notices_recovery_by_its_waiting_batch(until: Until) -> None:
    sender = PlayedSender()
    sender.default = BUSY
    # The batch's own wait would be up to a minute; the probe takes it earlier.
    made = make_lane(sender, retry=RetrySettings(backoff_base=0.001, backoff_max=60.0))
    made.start()
    made.offer(payload("a"))
    await until(lambda: made.routes[0].breaker.down)
    sender.default = DELIVERED
    await until(lambda: made.account.delivered == 1)
    await made.drain(1)


# Leaving.


async def test_a_drain_ends_as_soon_as_nothing_is_left() -> None:
    sender = PlayedSender()
    made = make_lane(sender, batch_age_max=60)
    made.start()
    loop = asyncio.get_running_loop()
    started = loop.time()
    await make_lane().drain(30)
    for n in range(5):
        made.offer(payload(f"{n}"))
    await made.drain(30)
    assert loop.time() - started < 5
    assert made.account.delivered == 5


async def test_a_drain_does_not_wait_out_a_backoff(until: Until) -> None:
    sender = PlayedSender()
    sender.script = [Outcome("retry", "http_503", "", retry_after_ms=300_000)]
    made = make_lane(sender)
    made.start()
    made.offer(payload("a"))
    await until(lambda: bool(made._held.waits))
    await made.drain(5)
    assert made.account.delivered == 1


async def test_while_draining_no_wait_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "DRAIN_WAIT_S", 0.01)
    sender = PlayedSender()
    sender.script = [Outcome("retry", "http_503", "", retry_after_ms=300_000)] * 3
    made = make_lane(sender)
    made.start()
    made.offer(payload("a"))
    await made.drain(5)
    assert made.account.delivered == 1
    assert len(sender.bodies) == 4


async def test_what_the_budget_leaves_is_dropped_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hanging, second = PlayedSender(), PlayedSender()
    hanging.default = None
    made = make_lane(hanging, second, concurrency=2, batch_items_max=1)
    made.start()
    for n in range(5):
        made.offer(payload(f"{n}"))
    await made.drain(0.05)
    assert made.account.dropped == {"drain_budget": 5}
    assert made.account.held() == 0
    assert made._held.size_bytes == 0
    check(made)
    assert "5 lines dropped (drain_budget)" in caplog.text
    # Whoever comes now comes too late, and is counted too.
    made.offer(payload("late", unsendable=1))
    assert made.account.dropped == {"drain_budget": 6}
    check(made)


async def test_a_cancelled_drain_counts_as_well() -> None:
    sender = PlayedSender()
    sender.default = None
    made = make_lane(sender)
    made.start()
    made.offer(payload("a"))
    draining = asyncio.create_task(made.drain(60))
    await asyncio.sleep(0)
    draining.cancel()
    with pytest.raises(asyncio.CancelledError):
        await draining
    assert made.account.dropped == {"drain_budget": 1}
    check(made)


async def test_a_lane_that_never_started_drops_what_it_holds() -> None:
    made = make_lane(PlayedSender())
    made.offer(payload("a"))
    await made.drain(60)
    assert made.account.dropped == {"drain_budget": 1}
    check(made)


# What is said.


async def test_repeats_are_counted_not_repeated(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, until: Until
) -> None:
    monkeypatch.setattr(repeat_log, "INTERVAL_S", 0.05)
    log = repeat_log.RepeatLog(logging.getLogger("tracefwd.exporter"), "here")
    log.note("key", logging.ERROR, 1, "before the start")
    assert caplog.records == []
    log.open(asyncio.get_running_loop())
    for _ in range(100):
        log.note("key", logging.ERROR, 2, "things")
    assert [record.getMessage() for record in caplog.records] == ["here: 1 before the start"]
    await until(lambda: len(caplog.records) == 2)
    assert caplog.records[1].getMessage() == "here: 200 things"
    # What bounds repeats in the whole log must not take one key's lines for another's.
    assert vars(caplog.records[1])["sentence"] == "here: key"
    log.note("key", logging.ERROR, 5, "things")
    log.note("other", logging.WARNING, 1, "other things")
    assert len(caplog.records) == 3
    log.close()
    assert [record.getMessage() for record in caplog.records[2:]] == [
        "here: 1 other things",
        "here: 5 things",
    ]


async def test_a_failing_destination_is_a_warning_from_the_second_time_and_an_error_when_down(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, until: Until
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(breaker, "OUTAGE_S", 0.0)
    monkeypatch.setattr(breaker, "PROBE_S", 0.01)
    sender = PlayedSender()
    sender.script = [BUSY] * 7
    made = make_lane(sender)
    made.start()
    made.offer(payload("a"))
    await until(lambda: made.account.delivered == 1)
    said = [(record.levelname, record.getMessage()) for record in caplog.records]
    where = "primary (http://played)"
    assert said == [
        ("WARNING", f"primary/spans: 1 attempts failed at {where}, lines kept: HTTP 503"),
        (
            "ERROR",
            f"primary/spans: 5 failures in a row: {where} is down and will be probed: HTTP 503",
        ),
        ("INFO", f"primary/spans: {where} takes lines again"),
    ]
    assert made.failing() == []
    await made.drain(1)


async def test_every_sample_is_in_the_catalogue_and_adds_up() -> None:
    sender = PlayedSender()
    sender.script = [BUSY, Outcome("rejected", "http_400", "no"), DELIVERED]
    made = make_lane(sender, batch_items_max=2, concurrency=1)
    made.start()
    for _ in range(3):
        made.offer(payload("a", "b", unsendable=1))
    await made.drain(5)
    samples = made.samples()
    for name, series in samples.items():
        assert all(len(labels) == len(BY_NAME[name].labels) for labels in series), name
    at = ("primary", "spans")
    assert samples["tracefwd_exporter_sent_items_total"] == {at: 4}
    assert samples["tracefwd_exporter_rejected_items_total"] == {
        (*at, "too_long_for_target"): 3,
        (*at, "refused"): 2,
    }
    assert samples["tracefwd_exporter_requests_total"] == {
        (*at, "http_503"): 1,
        (*at, "http_400"): 1,
        (*at, "delivered"): 2,
    }
    assert samples["tracefwd_exporter_queue_items"] == {at: 0}


async def test_requests_in_flight_are_counted(until: Until) -> None:
    sender = PlayedSender()
    sender.default = None
    made = make_lane(sender, batch_items_max=1, concurrency=2)
    made.start()
    in_flight = lambda: made.samples()["tracefwd_exporter_in_flight_requests"]  # noqa: E731
    for line in ("a", "b", "c"):
        made.offer(payload(line))
    await until(lambda: len(sender.waiting) == 2)
    assert in_flight() == {("primary", "spans"): 2}
    sender.default = DELIVERED
    for _ in range(2):
        sender.answer()
    await made.drain(5)
    assert in_flight() == {("primary", "spans"): 0}


async def test_lines_over_tcp_are_delivered_and_unacknowledged() -> None:
    sender = PlayedSender(takes_gzip=False)
    sender.default = Outcome("unacknowledged")
    made = make_lane(sender)
    made.start()
    made.offer(payload("a", "b"))
    await made.drain(1)
    at = ("primary", "spans")
    assert made.account.delivered == 2
    assert made.samples()["tracefwd_exporter_unacknowledged_items_total"] == {at: 2}
    assert made.samples()["tracefwd_exporter_sent_items_total"] == {at: 0}


# Whatever the target does, nothing is lost uncounted.

OUTCOMES = st.sampled_from(
    [
        DELIVERED,
        Outcome("unacknowledged"),
        BUSY,
        Outcome("retry", "timeout", "slow"),
        Outcome("retry", "http_429", "slow down", retry_after_ms=3),
        Outcome("retry", "http_401", "who are you"),
        Outcome("split", "http_413", "too large"),
        Outcome("rejected", "http_400", "bad"),
        Outcome("rejected", "http_403", "disabled"),
        None,
    ]
)
OFFERS = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 40), st.integers(0, 2)), max_size=15)


@given(
    offers=OFFERS,
    scripts=st.lists(st.lists(OUTCOMES, max_size=25), min_size=1, max_size=3),
    queue_bytes_max=st.sampled_from([60, 200, 10_000]),
    packs=st.booleans(),
    age_max=st.sampled_from([0.01, 60.0]),
)
@settings(deadline=None, max_examples=120)
def test_the_ledger_balances_at_every_event(
    offers: list[tuple[int, int, int]],
    scripts: list[list[Outcome | None]],
    queue_bytes_max: int,
    packs: bool,
    age_max: float,
) -> None:
    async def run() -> None:
        senders = [PlayedSender() for _ in scripts]
        made = make_lane(
            *senders,
            gzip=packs,
            batch_items_max=5,
            batch_bytes_max=150,
            queue_bytes_max=queue_bytes_max,
            concurrency=2,
            retry=RetrySettings(backoff_base=0.001, backoff_max=0.002, age_max=age_max),
        )
        for sender, script in zip(senders, scripts, strict=True):
            sender.script = list(script)
            sender.look = lambda: check(made)
        received = 0
        made.start()
        for items, length, unsendable in offers:
            made.offer(payload(*["x" * length] * items, unsendable=unsendable))
            received += items + unsendable
            check(made)
            await asyncio.sleep(0)
            check(made)
        await made.drain(0.03)
        check(made)
        assert made.account.received == received
        assert made.account.held() == 0
        assert all(route.account.held() == 0 for route in made.routes)
        finished = sum(route.account.delivered for route in made.routes)
        assert finished == made.account.delivered
        refused = sum(sum(route.account.rejected.values()) for route in made.routes)
        refused += made.account.rejected.get("too_long_for_target", 0)
        assert refused == sum(made.account.rejected.values())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(breaker, "OUTAGE_S", 0.0)
        patch.setattr(breaker, "PROBE_S", 0.002)
        patch.setattr(logging.getLogger("tracefwd.exporter"), "disabled", True)
        asyncio.run(run())
