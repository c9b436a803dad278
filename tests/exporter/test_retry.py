from datetime import UTC, datetime
from email.utils import format_datetime

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tracefwd.exporter.retry import RETRY_AFTER_MAX_S, backoff_s, retry_after_ms

NOW_S = 1_700_000_000.0


def test_the_ceiling_doubles_from_the_base_to_the_maximum() -> None:
    assert [backoff_s(attempt, 0.5, 30.0, 1.0) for attempt in (1, 2, 3, 6, 7, 8)] == [
        0.5,
        1.0,
        2.0,
        16.0,
        30.0,
        30.0,
    ]


@given(
    attempt=st.integers(0, 10**9),
    base=st.floats(0.001, 60),
    most=st.floats(0.001, 3600),
    unit=st.floats(0, 1),
)
@settings(deadline=None, max_examples=100)
def test_a_wait_is_anything_from_nothing_to_the_ceiling(
    attempt: int, base: float, most: float, unit: float
) -> None:
    wait = backoff_s(attempt, base, most, unit)
    assert 0 <= wait <= most
    assert wait == unit * backoff_s(attempt, base, most, 1.0)


def test_retry_after_is_read_as_seconds_and_as_a_date() -> None:
    assert retry_after_ms(None, NOW_S) is None
    assert retry_after_ms("7", NOW_S) == 7_000
    assert retry_after_ms(" 0 ", NOW_S) == 0
    later = format_datetime(datetime.fromtimestamp(NOW_S + 20, UTC), usegmt=True)
    assert retry_after_ms(later, NOW_S) == 20_000
    assert retry_after_ms(later.replace(" GMT", ""), NOW_S) == 20_000


def test_retry_after_is_bounded_on_both_sides() -> None:
    bound_ms = int(RETRY_AFTER_MAX_S * 1000)
    assert retry_after_ms("86400", NOW_S) == bound_ms
    assert retry_after_ms("9" * 4000, NOW_S) == bound_ms
    assert retry_after_ms("Fri, 31 Dec 9999 23:59:59 GMT", NOW_S) == bound_ms
    assert retry_after_ms("Mon, 01 Jan 0001 00:00:00 +1400", NOW_S) == 0


@example("Wed, 21 Oct 2015 07:28:00 +99999999999999999999")
@example("Wed, 21 Oct 99999999999999999999 07:28:00 GMT")
@given(text=st.text(max_size=40) | st.from_regex(r"\w{3}, \d{1,3} \w{3} \d{1,6} [\d:]{1,9} .{0,6}"))
@settings(deadline=None, max_examples=200)
def test_an_unreadable_retry_after_is_none_and_never_an_error(text: str) -> None:
    wait_ms = retry_after_ms(text, NOW_S)
    assert wait_ms is None or 0 <= wait_ms <= RETRY_AFTER_MAX_S * 1000
