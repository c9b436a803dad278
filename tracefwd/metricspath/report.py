"""What an operator wants to know about a source's names: configured but never seen, came but was not sent.  Pure."""

from collections.abc import Iterable

from msgspec import Struct

from tracefwd.limits import POINT_NAME_LENGTH_MAX, REPORTED_NAMES_MAX
from tracefwd.metricspath.globs import Globs
from tracefwd.settings import FilterSettings

# Counts of names beyond the bound come together under this.
OTHER = "_other"


class Report(Struct):
    """``never_seen`` are patterns of allow lists; by final name, ``not_sent`` has reasons and ``sent`` points."""

    never_seen: list[str]
    not_sent: dict[str, dict[str, int]]
    sent: dict[str, int] = {}


class Watch:
    """Hears every name once and every loss; bounded."""

    def __init__(self, filters: Iterable[FilterSettings]) -> None:
        self._unseen: list[tuple[str, Globs]] = []
        for each in filters:
            patterns = each.metricAllowList
            for text in patterns:
                # Twice, because a comma separates only in lists of two or more.
                self._unseen.append((text, Globs([text] * min(2, len(patterns)))))
        self._not_sent: dict[str, dict[str, int]] = {}
        self._sent: dict[str, int] = {}

    def seen(self, name: str) -> None:
        if self._unseen:
            self._unseen = [
                (text, globs) for text, globs in self._unseen if not globs.matches(name)
            ]

    def lost(self, name: str, reason: str, number: int) -> None:
        name = name[:POINT_NAME_LENGTH_MAX]  # which no name that is sent exceeds
        reasons = self._not_sent.get(name)
        if reasons is None:
            is_full = len(self._not_sent) >= REPORTED_NAMES_MAX
            reasons = self._not_sent.setdefault(OTHER if is_full else name, {})
        reasons[reason] = reasons.get(reason, 0) + number

    def sent(self, name: str, number: int) -> None:
        if name not in self._sent and len(self._sent) >= REPORTED_NAMES_MAX:
            name = OTHER
        self._sent[name] = self._sent.get(name, 0) + number

    def report(self) -> Report:
        not_sent = {name: dict(reasons) for name, reasons in sorted(self._not_sent.items())}
        return Report([text for text, _ in self._unseen], not_sent, dict(self._sent))
