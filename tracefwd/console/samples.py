"""Samples: the newest spans that workers found worth keeping, and those that came to grief, in bounded rings.

Errors and slow spans have rings of their own, so that the usual traffic does not push them out.  What is kept is whole;
it is masked when it is shown.  Pure.
"""

from collections import deque
from collections.abc import Iterator
from typing import Any

import msgspec

from tracefwd.console.masks import Masks
from tracefwd.console.seen import Blocked, Sample
from tracefwd.limits import SAMPLES_BYTES_MAX

_RINGS = {"recent": 500, "error": 250, "slow": 250, "refused": 100}
_BLOCKED_MAX = 50
_ROW_BYTES = 1_000


class _Ring:
    """The newest, as many as fit into both bounds."""

    def __init__(self, number_max: int, bytes_max: int) -> None:
        self.samples: deque[Sample] = deque()
        self._number_max = number_max
        self._bytes_max = bytes_max
        self._bytes = 0

    def add(self, sample: Sample) -> list[Sample]:
        """What had to go for it."""
        self.samples.append(sample)
        self._bytes += _weight(sample)
        gone = []
        while len(self.samples) > self._number_max or self._bytes > self._bytes_max:
            old = self.samples.popleft()
            self._bytes -= _weight(old)
            gone.append(old)
        return gone


class Samples:
    """``masks`` are the operator's."""

    def __init__(self, masks: Masks) -> None:
        self.masks = masks
        self.examined = 0
        share = SAMPLES_BYTES_MAX // len(_RINGS)
        self._rings = {name: _Ring(number, share) for name, number in _RINGS.items()}
        self._by_id: dict[str, Sample] = {}
        self._blocked: deque[Blocked] = deque(maxlen=_BLOCKED_MAX)
        self._number = 0

    def add(self, sample: Sample, life: str) -> None:
        """``life`` names the worker process: SLOT-NUMBER."""
        self._number += 1
        sample.row.id = f"{life}-{self._number}"
        self._by_id[sample.row.id] = sample
        for old in self._rings[sample.ring].add(sample):
            self._by_id.pop(old.row.id, None)

    def block(self, blocked: Blocked) -> None:
        self._blocked.append(blocked)

    def find(self, number: str) -> Sample | None:
        return self._by_id.get(number)

    def rows(
        self,
        *,
        service: str = "",
        error: bool = False,
        slow: bool = False,
        min_duration_ms: float = 0.0,
        text: str = "",
        limit: int = 200,
    ) -> tuple[list[dict[str, Any]], int]:
        """Newest first; and how many more match."""
        wanted, needle = service.casefold(), text.casefold()
        found = [
            sample
            for name in ("recent", "error", "slow")
            for sample in self._rings[name].samples
            if (not error or sample.row.error)
            and (not slow or sample.row.slow)
            and sample.row.duration_ms >= min_duration_ms
            and (not wanted or sample.row.service.casefold() == wanted)
            and (not needle or any(needle in each for each in self._texts(sample)))
        ]
        found.sort(key=lambda sample: sample.row.at, reverse=True)
        shown = [msgspec.to_builtins(sample.row) for sample in found[:limit]]
        return shown, max(0, len(found) - limit)

    def _texts(self, sample: Sample) -> Iterator[str]:
        row = sample.row
        for each in (row.operation, row.service, row.application, row.source, row.trace):
            yield each.casefold()
        for key, value in self.masks.tags(sample.tags).items():
            yield f"{key}={value}".casefold()

    def refused(self) -> list[dict[str, Any]]:
        """Documents ``Sample`` of what was blocked, sampled out, shed or changed, newest first."""
        found = [
            {
                "at": sample.row.at,
                "what": sample.what,
                "reason": sample.reason,
                "where": "",
                "detail": _DETAILS[sample.what],
                "sender": f"{sample.row.service}.{sample.row.application}",
                "sample": self.masks.received(sample.received)[:_SHOWN_MAX],
                "span": sample.row.id,
            }
            for sample in self._rings["refused"].samples
        ]
        found += [
            {
                "at": blocked.at,
                "what": "blocked",
                "reason": "rule",
                "where": "",
                "detail": "a rule of rules.file kept it out",
                "sender": blocked.sender,
                "sample": self.masks.received(blocked.received)[:_SHOWN_MAX],
                "span": "",
            }
            for blocked in self._blocked
        ]
        return sorted(found, key=lambda each: -each["at"])


# A list shows enough to recognise a span; the whole of it is a click away.
_SHOWN_MAX = 2_000
_DETAILS = {
    "sampled_out": "sampling let it go; RED counted it",
    "dropped": "memory was short; RED counted it",
    "changed": "something in its request was mended; its own page says what",
}


def _weight(sample: Sample) -> int:
    texts = sum(map(len, sample.sent)) + len(sample.received)
    return _ROW_BYTES + texts + sum(len(k) + len(v) for k, v in sample.tags.items())


__all__ = ["Samples"]
