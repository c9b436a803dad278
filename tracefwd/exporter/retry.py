"""How long to wait after a failed attempt.  Pure: randomness and the wall clock are arguments.

Two sources: our own back-off (exponential with full jitter, so that many lanes and many replicas that failed
together do not come back together), and the target's ``Retry-After``, which is bounded here because a wrong
header must not silence us for a day.
"""

from datetime import UTC
from email.utils import parsedate_to_datetime

# Longer than any restart of a proxy; beyond it we ask again, which is cheap.
RETRY_AFTER_MAX_S = 300.0
# 2 ** 62 times any base is beyond every maximum; more would overflow a float after days of failing.
_DOUBLINGS_MAX = 62


def backoff_s(attempt: int, base_s: float, max_s: float, unit: float) -> float:
    """Seconds to wait after the ``attempt``-th failure (from 1): ``unit`` (0 to 1) of the doubled base.

    Full jitter: any wait from none to the ceiling, which spreads best.
    """
    ceiling = min(max_s, base_s * 2.0 ** min(max(attempt, 1) - 1, _DOUBLINGS_MAX))
    return unit * ceiling


def retry_after_ms(header: str | None, now_s: float) -> int | None:
    """A ``Retry-After`` header in milliseconds from ``now_s`` (epoch seconds), or None if unreadable.

    Both forms of RFC 9110 are read: seconds, and an HTTP date.  Never negative, never above the bound.
    """
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        # Nine digits are 31 years: enough to be above the bound, and no huge integer is built.
        wait_s = float(text[:9])
    else:
        try:
            moment = parsedate_to_datetime(text)
        except (ValueError, OverflowError):  # the latter for numbers beyond a machine's
            return None
        # A date without a zone is GMT by the RFC.
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        wait_s = moment.timestamp() - now_s
    return int(1000 * min(max(wait_s, 0.0), RETRY_AFTER_MAX_S))
