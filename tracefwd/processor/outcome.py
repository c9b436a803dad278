"""Whether a call failed: what counts as an error beside the ``error`` tag.

The ``error`` tag is read as Zipkin means it: there is an error when the tag is there, even empty; but somebody who
writes ``false`` means false.  Envoy sets it for 5xx, for no answer at all and for some gRPC codes, never for 4xx, and
not for a body that broke off half-way (flag UPE, status 200).  For gRPC the HTTP status is 200 whatever happened.

Pure.
"""

from collections.abc import Mapping
from typing import Any

from tracefwd.limits import MEMO_ENTRIES_MAX
from tracefwd.processor.workload import is_small
from tracefwd.settings import ErrorSettings

_SIDES = {
    "none": frozenset[str](),
    "client": frozenset({"CLIENT"}),
    "server": frozenset({"SERVER"}),
    "both": frozenset({"CLIENT", "SERVER"}),
}

# Flags of a call that failed before any server saw it (its SERVER span does not exist).
NEVER_SERVED_FLAGS = frozenset({"UF", "UH", "NR", "UO", "FI"})


def tag_says_error(value: str | None) -> bool:
    return value is not None and value.strip().lower() != "false"


class OutcomeRules:
    """Whether a span failed by everything but its tag ``error``."""

    def __init__(self, settings: ErrorSettings) -> None:
        self._sides_4xx = _SIDES[settings.http_4xx]
        self._sides_5xx = _SIDES[settings.http_5xx]
        self._grpc = frozenset(str(code) for code in settings.grpc_codes)
        self._flags = frozenset(settings.response_flags)

    def failed(
        self, kind: str | None, status: str | None, grpc: str | None, flags: str | None
    ) -> bool:
        """By HTTP status, gRPC status and Envoy's response flags (a comma list), each None when absent."""
        if grpc is not None and grpc in self._grpc:
            return True
        if flags is not None and flags != "-" and not self._flags.isdisjoint(flags.split(",")):
            return True
        if status is not None and len(status) == 3:
            if status[0] == "5":
                return kind in self._sides_5xx
            if status[0] == "4":
                return kind in self._sides_4xx
        return False


class Verdicts:
    """``rules`` with a bounded memory of what they said."""

    def __init__(self, rules: OutcomeRules) -> None:
        self.rules = rules
        self._known: dict[Any, bool] = {}

    def failed(
        self, kind: str | None, status: str | None, grpc: str | None, flags: str | None
    ) -> bool:
        key = (kind, status, grpc, flags)
        verdict = self._known.get(key)
        if verdict is None:
            if len(self._known) >= MEMO_ENTRIES_MAX:
                self._known.clear()
            verdict = self.rules.failed(*key)
            if is_small(key):
                self._known[key] = verdict
        return verdict


def never_served(tags: Mapping[str, str]) -> bool:
    """Whether Envoy says that this call ended before it reached a server."""
    return not NEVER_SERVED_FLAGS.isdisjoint(tags.get("response_flags", "").split(","))
