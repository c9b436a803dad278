"""Refused and changed: every reason that ever held, with its meaning and its counts.  Pure."""

from collections.abc import Iterator
from typing import Any

from tracefwd.console.meter import Meter, number_at

_REJECTED = {
    "syntax": "the rest of a body after a syntax error; it counts as one",
    "not_a_span": "an element of the list that is no span",
    "trace_id": "the trace id is absent, not hex, all zeros, or too long",
    "span_id": "the span id is absent, not hex, all zeros, or too long",
    "invalid": "the profile must not mend it: it is beyond the Java proxy's limits",
    "too_long_for_target": "longer than this version of the target takes",
    "feature_disabled": "the target says that this account may not send it",
    "refused": "the target said no for good",
}
_DROPPED = {
    "queue_full": "the target was slower than the intake for too long",
    "drain_budget": "still queued when the time for leaving was over",
    "crash": "held by a worker that died",
    "retries_exhausted": "older than exporter.retry.age_max",
    "spool_full": "the spool was at spool.bytes_max",
    "spool_expired": "older than spool.age_max",
    "spool_damaged": "its file cannot be read any more",
    "shed": "memory ran short; whole traces, by trace id",
}
_CHANGED = {
    "batch_salvaged": "a bad span was taken out of its batch",
    "ids_reversed": "Envoy's byte-reversed ids were turned round",
    "field_type": "a field had another type than it should, and was read as meant",
    "utf8": "invalid bytes were replaced",
    "no_timestamp": "no start: arrival minus duration",
    "future_start": "a start in the future: arrival minus duration",
    "past_start": "a start before 2001: arrival minus duration",
    "duration": "an impossible duration",
    "blank_value": "a tag without a value was left out",
    "value_cut": "a value was cut to Wavefront's 128 characters",
    "name_cut": "a name was cut to Wavefront's 128 characters",
    "source_cut": "a source was cut to Wavefront's 128 characters",
    "key_changed": "a tag's key was empty, reserved, too long or taken",
    "trailing_backslash": "a last backslash would swallow the quote",
    "tag_budget": "a tag was left out because 50 are taken",
    "name_capped": "an operation beyond the cap was sent as _other",
    "url_masked": "values in a URL's query were masked",
    "control_character": "a control character in a point tag became a blank",
}
_REFUSED = {
    "memory": "answered 503 because memory was short",
    "no_room": "answered 503 because unfinished requests took all their room",
    "token": "answered 401: no token, or a wrong one",
}
_SAMPLED_OUT = {
    "rate": "its trace's place lies beyond the sampling rate",
    "duration": "it was shorter than sampling.duration",
    "ceiling": "there were more spans than the ceiling lets pass",
}


def reasons(meter: Meter) -> list[dict[str, Any]]:
    """Rows of the document ``Refused``, largest rate first."""
    latest = meter.latest
    if latest is None:
        return []
    rows = [
        *_of_ledger(meter, "rejected", _REJECTED),
        *_of_ledger(meter, "dropped", _DROPPED),
        *_of_metric(meter, "sampled_out", "tracefwd_sampler_sampled_out_spans_total", _SAMPLED_OUT),
        *_of_metric(meter, "changed", "tracefwd_mapper_repairs_total", _CHANGED),
        *_of_metric(meter, "refused", "tracefwd_receiver_refused_requests_total", _REFUSED),
        *_blocked(meter),
    ]
    return sorted(
        (row for row in rows if row["spans"]), key=lambda row: (-row["per_s"], -row["spans"])
    )


def _of_ledger(meter: Meter, state: str, meanings: dict[str, str]) -> Iterator[dict[str, Any]]:
    latest = meter.latest
    assert latest is not None
    for reason in latest.ledger.get(state, {}):
        number = number_at(latest.ledger, (state, reason))
        per_s = meter.ledger_rate((state, reason))
        yield _row(state, reason, meanings.get(reason, ""), number, per_s)


def _of_metric(
    meter: Meter, what: str, family: str, meanings: dict[str, str]
) -> Iterator[dict[str, Any]]:
    for reason, number in meter.by_label(family).items():
        yield _row(what, reason, meanings.get(reason, ""), number, meter.rate(family, reason))


def _blocked(meter: Meter) -> Iterator[dict[str, Any]]:
    """By rule; what rules of the line port kept out before they had a name is under ``rule``."""
    family, told = "tracefwd_rules_spans_total", 0.0
    for rule in meter.by_label(family):
        number = meter.value(family, rule, "blocked")
        told += number
        yield _row(
            "blocked", rule, "this rule kept it out", number, meter.rate(family, rule, "blocked")
        )
    latest = meter.latest
    rest = 0.0 if latest is None else number_at(latest.ledger, ("blocked",)) - told
    if rest > 0:
        yield _row("blocked", "rule", "a rule kept it out", rest, 0.0)


def _row(what: str, reason: str, meaning: str, number: float, per_s: float) -> dict[str, Any]:
    return {
        "what": what,
        "reason": reason,
        "meaning": meaning,
        "spans": int(number),
        "per_s": per_s,
    }


__all__ = ["reasons"]
