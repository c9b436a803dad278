"""What a target's answer, or its silence, means: delivered, again later, in halves, or never.  Pure tables.

The question is always what we should do next.  Statuses that stand in no table follow their class.
Sources: the Java proxy's and the SDKs' senders; different from them where they lose or loop: what can never
succeed (400, 404) is not retried for ever, and credentials that may rotate (401, 403) do not disable a signal.
"""

from http import HTTPStatus

from tracefwd.model import Outcome

DELIVERED = "delivered"
UNACKNOWLEDGED = "unacknowledged"
RETRY = "retry"
SPLIT = "split"
BISECT = "bisect"
REJECTED = "rejected"

# 406 is the backend's pushback, 407 an HTTP proxy between us, 408 a slow network.
_LATER = dict.fromkeys((401, 406, 407, 408, 425, 429), RETRY) | {413: SPLIT}

OUTCOMES: dict[str, dict[int, str]] = {
    # A proxy's 403 says that the account has no histograms, traces or span logs: no retry changes that.
    "proxy": _LATER | {403: REJECTED},
    # The backend refuses a request for one bad line in it; a proxy takes every line and says nothing.
    "direct": _LATER | {403: RETRY, 400: BISECT},
    # OTLP names what may be sent again, 429 and the three of gateways; credentials may rotate.
    "otlp": dict.fromkeys((401, 403, 407, 429, 502, 503, 504), RETRY) | {413: SPLIT, 400: BISECT},
}
_BY_CLASS = {2: DELIVERED, 3: REJECTED, 4: REJECTED}
_BY_CLASS_OTLP = {**_BY_CLASS, 5: REJECTED}

GRPC_OUTCOMES = {
    "OK": DELIVERED,
    # Those that the OTLP specification calls retryable.
    **dict.fromkeys(
        ("CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"),
        RETRY,
    ),
    # Not retryable by the specification, but mended by a better token.
    "UNAUTHENTICATED": RETRY,
    "PERMISSION_DENIED": RETRY,
    "INVALID_ARGUMENT": BISECT,
}
"""By gRPC's name of a status; all others can never succeed, but ``RESOURCE_EXHAUSTED``: see ``otlp_grpc_sender``."""

_NAMED = frozenset(int(status) for status in HTTPStatus)

# Failures that a person mends, by a better token.
_REFUSED_CREDENTIALS = frozenset(
    {"http_401", "http_403", "grpc_unauthenticated", "grpc_permission_denied"}
)
CREDENTIALS = _REFUSED_CREDENTIALS | {"auth"}
# Of these, what the target itself says: no hurry mends it.
PAUSING = _REFUSED_CREDENTIALS
# Gateways that lost sight of a request, which may have arrived behind them.
_AMBIGUOUS_STATUSES = frozenset({502, 504})
# Failures where somebody answered: another destination would not be better.
_ANSWERED = frozenset(
    {"auth", "grpc_resource_exhausted", *_REFUSED_CREDENTIALS}
    | {f"http_{status}" for status in (406, 407, 408, 425, 429)}
)


def verdict(kind: str, status: int) -> str:
    """One of the words of ``Outcome.verdict``; ``kind`` is the target's."""
    by_class = _BY_CLASS_OTLP if kind == "otlp" else _BY_CLASS
    return OUTCOMES[kind].get(status) or by_class.get(status // 100, RETRY)


def reason(status: int) -> str:
    """A short name for a status, from a closed set: it becomes a label value."""
    if status in _NAMED:
        return f"http_{status}"
    return f"http_{status // 100}xx" if 1 <= status // 100 <= 9 else "http_odd"


def is_ambiguous(status: int) -> bool:
    """Whether the lines may have been taken although the answer says something else."""
    return status in _AMBIGUOUS_STATUSES


def is_outage(outcome: Outcome) -> bool:
    """Whether a failed attempt speaks for the destination being away (network, time-out, 5xx)."""
    return outcome.reason not in _ANSWERED


def ledger_reason(outcome: Outcome) -> str:
    """Under which of ``limits.REJECT_REASONS`` a rejected outcome is counted."""
    return "feature_disabled" if outcome.reason == "http_403" else "refused"
