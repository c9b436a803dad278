from math import inf

from tracefwd.exporter.breaker import FAILURES_MIN, OUTAGE_S, PROBE_S, Breaker, probe_wait_s


def fail(breaker: Breaker, *moments: float, outage: bool = True) -> None:
    for now in moments:
        breaker.failed(now, now, outage=outage)


def test_five_outages_within_less_than_five_seconds_do_not_open_it() -> None:
    breaker = Breaker()
    fail(breaker, *(100 + OUTAGE_S * n / 10 for n in range(FAILURES_MIN)))
    assert not breaker.down
    fail(breaker, 100 + OUTAGE_S)
    assert breaker.down


def test_four_outages_never_open_it() -> None:
    breaker = Breaker()
    fail(breaker, *(100 + OUTAGE_S * n for n in range(FAILURES_MIN - 1)))
    assert not breaker.down


def test_a_success_forgets_everything() -> None:
    breaker = Breaker()
    fail(breaker, *(100.0 * n for n in range(FAILURES_MIN)))
    breaker.ready_at = 1e9
    breaker.succeeded()
    assert (breaker.down, breaker.failures, breaker.rounds, breaker.ready_at) == (False, 0, 0, 0.0)
    fail(breaker, 2000.0)
    assert not breaker.down


def test_answers_that_ask_for_patience_are_failures_but_no_outage() -> None:
    breaker = Breaker()
    fail(breaker, *(10.0 * n for n in range(20)), outage=False)
    assert not breaker.down
    assert breaker.failures == 20
    # And one of them shows that somebody is there.
    fail(breaker, *(300.0 + 10 * n for n in range(FAILURES_MIN - 1)))
    fail(breaker, 400.0, outage=False)
    fail(breaker, 500.0)
    assert not breaker.down


def test_failures_that_flew_together_are_one_round() -> None:
    breaker = Breaker()
    for landed in (1.0, 1.1, 1.2, 1.3):
        breaker.failed(landed, 0.5, outage=True)
    assert (breaker.failures, breaker.rounds) == (4, 1)
    breaker.failed(2.0, 1.9, outage=True)
    assert breaker.rounds == 2


def test_while_down_one_probe_at_a_time() -> None:
    breaker = Breaker()
    breaker.launched()
    assert breaker.ready_at == 0.0
    fail(breaker, *(10.0 * n for n in range(FAILURES_MIN)))
    breaker.launched()
    assert breaker.ready_at == inf


def test_probes_are_some_seconds_apart() -> None:
    assert probe_wait_s(0.0) == PROBE_S / 2
    assert probe_wait_s(1.0) == PROBE_S * 1.5
