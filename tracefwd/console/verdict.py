"""The verdict: what is wrong, in words, and what to do about it; or that all is well.

A cause is (level, line, todo).  ``bad`` is for what loses data, or will if nobody does anything; ``watch`` for what
somebody should look at.  Causes come from the same numbers that the picture shows, so the two cannot disagree.  Pure.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tracefwd.console.meter import Meter

OK, WATCH, BAD = "ok", "watch", "bad"
CAUSES_MAX = 50
# A mesh that posts at all posts more often than this.
SILENCE_S = 300.0
_RESTART_S = 600.0

DROP_ADVICE: Mapping[str, str] = {
    "queue_full": "The target is slower than the intake: mend it, raise exporter.queue_bytes_max, or set spool.folder.",
    "drain_budget": "They were queued when a worker left: raise service.drain_timeout, or set spool.folder.",
    "crash": "A worker died: see its log. With spool.folder its spans outlive it.",
    "retries_exhausted": "The target did not take them within exporter.retry.age_max: mend the target.",
    "spool_full": "The spool is full: mend the target, or raise spool.bytes_max.",
    "spool_expired": "They were older than spool.age_max: mend the target.",
    "spool_damaged": "Their file in the spool cannot be read any more: see the disk.",
    "shed": "Memory is short: raise service.memory_max or add replicas. RED still counts every span.",
}
_REFUSED_ADVICE: Mapping[str, str] = {
    "memory": "Raise service.memory_max, or add replicas.",
    "no_room": "Raise receiver.unfinished_bytes_max, or add replicas.",
    "too_many": "Raise receiver.connections_max and the limit of open files, or add replicas.",
    "token": "Clients show no token of receiver.token_file, or a wrong one.",
}


class Cause(NamedTuple):
    level: str
    line: str
    todo: str


class Happened(NamedTuple):
    """What is not in the counters.  ``restarts`` are moments; ``heard_at``: when spans came last."""

    now_s: float
    started_at: float
    draining: bool
    restarts: Sequence[float]
    heard_at: float | None
    intake: str
    only_metrics: bool


def judge(
    meter: Meter,
    workers: Sequence[Mapping[str, Any]],
    sections: Sequence[Mapping[str, Any]],
    happened: Happened,
) -> dict[str, Any]:
    """The document ``Verdict`` of the API."""
    causes = [
        *_of_processes(workers, happened),
        *_of_balance(sections),
        *_of_problems(meter, workers),
        *_of_losses(meter),
        *_of_silence(meter, happened),
    ]
    causes.sort(key=lambda cause: cause.level != BAD)
    shown = [cause._asdict() for cause in causes[:CAUSES_MAX]]
    if shown:
        return {**shown[0], "causes": shown}
    spans = meter.rate("tracefwd_receiver_accepted_spans_total")
    what = "spans come in and are delivered" if spans else "nothing is coming in just now"
    return {"level": OK, "line": f"All is well: {what}.", "todo": "", "causes": []}


def _of_processes(workers: Sequence[Mapping[str, Any]], happened: Happened) -> Iterator[Cause]:
    if happened.draining:
        yield Cause(WATCH, "The service is leaving: it delivers what it holds.", "")
    for worker in workers:
        name = worker["name"]
        if not worker["ready"] and not happened.draining:
            yield Cause(
                BAD, f"{name} does not run; it is being replaced.", "See its log if it stays so."
            )
        elif worker["stale"]:
            yield Cause(
                BAD,
                f"{name} does not answer.",
                "It is killed and replaced after a minute of silence.",
            )
    recent = [at for at in happened.restarts if happened.now_s - at < _RESTART_S]
    if recent:
        yield Cause(
            WATCH,
            f"Workers died and were replaced {len(recent)} time(s) in the last 10 minutes.",
            "See the log for the cause.",
        )


def _of_balance(sections: Sequence[Mapping[str, Any]]) -> Iterator[Cause]:
    for section in sections:
        if section["missing"]:
            yield Cause(
                BAD,
                f"The ledger's section {section['name']} does not balance: {section['missing']} are unaccounted for.",
                "This is a fault of tracefwd: please report it with /ledger?verbose.",
            )


def _of_problems(meter: Meter, workers: Sequence[Mapping[str, Any]]) -> Iterator[Cause]:
    """What workers say is wrong outside; equal words of several workers are one cause."""
    told: dict[str, int] = {}
    for worker in workers:
        for problem in worker["problems"]:
            told[problem] = told.get(problem, 0) + 1
    for problem, number in told.items():
        suffix = f" ({number} workers)" if number > 1 else ""
        yield Cause(BAD, problem + suffix, _todo(meter, problem))


def _todo(meter: Meter, problem: str) -> str:
    if problem.startswith("source "):
        return "Check prometheus_sources: its URL, its credentials, and that Prometheus runs."
    if problem.startswith("memory"):
        return "Raise service.memory_max, or add replicas."
    if problem.startswith(("the journal", "the spool")):
        return "See the disk under spool.folder: is it full, or mounted read-only?"
    if " refused " in problem:
        return "See Refused and changed for the lines and the backend's words."
    return f"Mend the target, or exporter.targets; {_time_left(meter)}."


def _time_left(meter: Meter) -> str:
    """How long the queues bear it."""
    held = int(meter.value("tracefwd_exporter_queue_items") + meter.value("tracefwd_spool_items"))
    size, grows = meter.value("tracefwd_exporter_queue_bytes"), 0.0
    most = meter.value("tracefwd_exporter_queue_bytes_max")
    if meter.value("tracefwd_spool_bytes_max"):
        size += meter.value("tracefwd_spool_bytes")
        most += meter.value("tracefwd_spool_bytes_max")
        grows += meter.change("tracefwd_spool_bytes")
    grows += meter.change("tracefwd_exporter_queue_bytes")
    if grows <= 0 or most <= size:
        return f"{held:,} lines are held"
    minutes = (most - size) / grows / 60
    left = f"about {minutes:,.0f} minutes" if minutes < 120 else f"about {minutes / 60:,.0f} hours"
    return f"{held:,} lines are held, and there is room for {left} more"


def _of_losses(meter: Meter) -> Iterator[Cause]:
    latest = meter.latest
    if latest is None:
        return
    for reason in latest.ledger.get("dropped", {}):
        number = meter.ledger_gain(("dropped", reason))
        if number > 0:
            yield Cause(
                BAD,
                f"{number:,.0f} spans were dropped in the last 10 seconds ({reason}).",
                DROP_ADVICE.get(reason, ""),
            )
    for reason in meter.by_label("tracefwd_receiver_refused_requests_total"):
        number = meter.gain("tracefwd_receiver_refused_requests_total", reason)
        if number > 0:
            yield Cause(
                BAD,
                f"{number:,.0f} posts were refused in the last 10 seconds ({reason}).",
                _REFUSED_ADVICE.get(reason, ""),
            )
    rejected = meter.ledger_gain(("rejected",))
    if rejected > 0:
        yield Cause(
            WATCH,
            f"{rejected:,.0f} spans were rejected in the last 10 seconds.",
            "See Refused and changed for the reasons and the senders.",
        )
    overflow = meter.gain("tracefwd_red_overflow_spans_total")
    if overflow > 0:
        yield Cause(
            WATCH,
            "There are more RED series than red.series_max: some operations are counted as _other.",
            "Raise red.series_max, or let mapping.operation.rules join operations.",
        )


def _of_silence(meter: Meter, happened: Happened) -> Iterator[Cause]:
    if happened.only_metrics or happened.draining:
        return
    if happened.heard_at is None:
        if not meter.value("tracefwd_receiver_accepted_spans_total"):
            yield Cause(
                WATCH,
                "No span has come yet.",
                f"Point the mesh's Zipkin tracing at {happened.intake} (README, 'Istio').",
            )
    elif happened.now_s - happened.heard_at > SILENCE_S:
        minutes = int((happened.now_s - happened.heard_at) // 60)
        yield Cause(
            WATCH,
            f"No span has come for {minutes} minutes.",
            "Is the mesh idle, or do Envoys send elsewhere? See tracing's sampling in Istio.",
        )


__all__ = ["BAD", "DROP_ADVICE", "OK", "WATCH", "Cause", "Happened", "judge"]
