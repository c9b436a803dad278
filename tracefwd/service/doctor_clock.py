"""Our clock beside those of who answers, by their Date headers (RFC 9110, section 6.6.1)."""

from collections.abc import Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime

from tracefwd.service.doctor_findings import Finding, Rows

# Dates have whole seconds, and a request takes its time.
SKEW_S_MAX = 5.0


def skew_s(date: str | None, now_s: float) -> float | None:
    """How far ahead of ours (epoch seconds) the clock behind a Date is; None without a date that can be read."""
    if date is None:
        return None
    try:
        there = parsedate_to_datetime(date)
    except ValueError:
        return None
    # "-0000" is UTC, too.
    there = there if there.tzinfo is not None else there.replace(tzinfo=UTC)
    # It was cut to whole seconds.
    return there.timestamp() + 0.5 - now_s


def judged(rows: Rows, skews: Sequence[float]) -> Finding:
    """Of the answers of one server, at least one."""
    skew = min(skews, key=abs)
    if abs(skew) <= SKEW_S_MAX:
        return rows.ok("clock", f"within {SKEW_S_MAX:g} s of theirs")
    detail = f"ours is {abs(skew):,.0f} s {'behind' if skew > 0 else 'ahead of'} theirs"
    todo = (
        "start time synchronization on whichever is wrong (chrony, systemd-timesyncd; of a pod: its node): RED is "
        "stamped with our clock, and lines far from the target's are refused"
    )
    return rows.cross("clock", detail, todo)


__all__ = ["SKEW_S_MAX", "judged", "skew_s"]
