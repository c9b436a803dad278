"""The flow: the pipeline as a picture of nodes and edges with numbers, and the ledger as a list of balances.  Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tracefwd import ledger
from tracefwd.console.meter import Meter, number_at
from tracefwd.model import Signal

SPANS = Signal.SPANS.value
_SIGNALS = tuple(signal.value for signal in Signal)
# A queue as full as this will soon drop or spill.
_FULL_SHARE = 0.75
_LATENCY = "tracefwd_receiver_request_duration_seconds"


class TargetPlace(NamedTuple):
    """``where`` is its URL, masked.  A failover has no queue of its own."""

    name: str
    role: str
    where: str


class Layout(NamedTuple):
    """What of the settings decides the picture."""

    profile: str
    targets: tuple[TargetPlace, ...]
    sources: tuple[str, ...]
    red: bool
    spool: bool
    journal: bool
    intake: bool


class LaneState(NamedTuple):
    """What workers say of one lane: the oldest of them, the newest error."""

    oldest_s: float | None
    error_at: float
    error: str
    failing: bool


Lanes = Mapping[tuple[str, str], LaneState]
"""By target and signal."""
_QUIET = LaneState(None, 0.0, "", False)


def merge_lanes(parts: Sequence[Sequence[Mapping[str, Any]]]) -> dict[tuple[str, str], LaneState]:
    """One state for each lane out of what each worker said."""
    found: dict[tuple[str, str], LaneState] = {}
    for part in parts:
        for lane in part:
            key = (lane["target"], lane["signal"])
            before = found.get(key, _QUIET)
            oldest = [age for age in (before.oldest_s, lane["oldest_s"]) if age is not None]
            newer = lane["error_at"] > before.error_at
            found[key] = LaneState(
                max(oldest, default=None),
                max(before.error_at, lane["error_at"]),
                lane["error"] if newer else before.error,
                before.failing or lane["failing"],
            )
    return found


def ledger_view(whole: Mapping[str, Any]) -> dict[str, Any]:
    """The document ``Ledger`` of the API."""
    sections = [_section(SPANS, whole)]
    sections += [_section(name, whole[name]) for name in _SIGNALS[1:] if name in whole]
    for target, parts in whole.get("targets", {}).items():
        sections += [_section(f"targets.{target}.{name}", part) for name, part in parts.items()]
    return {"balanced": not any(part["missing"] for part in sections), "sections": sections}


def _section(name: str, part: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        **{key: part[key] for key in ("received", "delivered", "sampled_out", "blocked", "held")},
        "rejected": sum(part["rejected"].values()),
        "dropped": sum(part["dropped"].values()),
        "missing": ledger.imbalance(part),  # type: ignore[arg-type]
        "rejected_by": dict(part["rejected"]),
        "dropped_by": dict(part["dropped"]),
    }


def rates(meter: Meter) -> dict[str, float]:
    """The document ``Rates``."""
    return {
        "requests": meter.rate("tracefwd_receiver_requests_total"),
        "spans": meter.rate("tracefwd_receiver_accepted_spans_total"),
        "received_bytes": meter.rate("tracefwd_receiver_request_bytes_total"),
        "delivered_spans": meter.ledger_rate(("delivered",)),
        "sampled_out": meter.ledger_rate(("sampled_out",)),
        "blocked": meter.ledger_rate(("blocked",)),
        "rejected": meter.ledger_rate(("rejected",)),
        "dropped": meter.ledger_rate(("dropped",)),
        "repaired": meter.rate("tracefwd_mapper_repairs_total"),
        "scraped_points": meter.rate("tracefwd_scraper_points_total"),
        "sent_bytes": meter.rate("tracefwd_exporter_sent_bytes_total"),
    }


def memory(meter: Meter) -> dict[str, Any]:
    """The document ``Memory``; the worst stage of any worker counts."""
    parts = meter.by_label("tracefwd_memory_used_bytes")
    stages = meter.by_label("tracefwd_memory_stage_workers")
    stage = next((name for name in ("refuse", "shed") if stages.get(name)), "calm")
    return {
        "used_bytes": sum(parts.values()),
        "max_bytes": meter.value("tracefwd_memory_max_bytes"),
        "stage": stage,
        "parts": parts,
    }


def latency(meter: Meter) -> dict[str, float | None]:
    return meter.percentiles_ms(_LATENCY)


def history_row(meter: Meter) -> dict[str, float | None]:
    """The numbers of one step; see ``history.COLUMNS``."""
    now, waits = rates(meter), latency(meter)
    latest = meter.latest
    return {
        "spans_per_s": now["spans"],
        "delivered_per_s": now["delivered_spans"],
        "rejected_per_s": now["rejected"],
        "dropped_per_s": now["dropped"],
        **{f"latency_{name}_ms": value for name, value in waits.items()},
        "held_items": 0.0 if latest is None else number_at(latest.ledger, ("held",)),
        "queue_bytes": meter.value("tracefwd_exporter_queue_bytes"),
        "spool_bytes": meter.value("tracefwd_spool_bytes"),
        "memory_bytes": meter.value("tracefwd_memory_used_bytes"),
        "workers": meter.value("tracefwd_workers"),
    }


# The picture


def picture(
    meter: Meter, layout: Layout, lanes: Lanes
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Nodes and edges, in the order of the flow."""
    nodes, edges = _intake(meter, layout)
    for target in layout.targets:
        if target.role != "failover":
            more_nodes, more_edges = _way_to(meter, layout, target, lanes)
            nodes += more_nodes
            edges += more_edges
    if layout.spool:
        nodes.append(_spool(meter))
    nodes += [_target(meter, target, lanes) for target in layout.targets]
    return nodes, edges


def _intake(meter: Meter, layout: Layout) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    nodes: list[dict[str, Any]] = []
    edges: list[dict[str, Any]] = []
    family = "tracefwd_receiver_accepted_spans_total"
    if layout.intake:
        for name, total in sorted(meter.by_label(family).items()):
            per_s = meter.rate(family, name)
            title = _FORMATS.get(name, name)
            nodes.append(_node(f"receiver/{name}", "receiver", title, per_s, total))
            edges.append(_edge(f"receiver/{name}", "processor", SPANS, per_s))
        if not nodes:
            nodes.append(
                _node("receiver/none", "receiver", "receiver", 0.0, 0.0, "nothing came yet")
            )
            edges.append(_edge("receiver/none", "processor", SPANS, 0.0))
        per_s, total = meter.rate(family), meter.value(family)
        note = f"profile {layout.profile}"
        nodes.append(_node("processor", "processor", "processor", per_s, total, note))
    nodes += [_scraper(meter, source) for source in layout.sources]
    if layout.red and layout.intake:
        series = meter.value("tracefwd_red_active_series")
        nodes.append(_node("red", "red", "RED", meter.rate(family), series, "series"))
        edges.append(_edge("processor", "red", SPANS, meter.rate(family)))
    if layout.journal and layout.intake:
        nodes.append(_journal(meter))
        edges.append(_edge("processor", "journal", SPANS, nodes[-1]["per_s"]))
    return nodes, edges


_FORMATS = {
    "json_v2": "Zipkin JSON v2",
    "json_v1": "Zipkin JSON v1",
    "proto3": "Zipkin proto3",
    "otlp_proto": "OTLP protobuf",
    "otlp_json": "OTLP JSON",
    "wavefront": "span lines",
}


def _scraper(meter: Meter, source: str) -> dict[str, Any]:
    name = "tracefwd_scraper_points_total"
    up = meter.by_label("tracefwd_scraper_up").get(source)
    node = _node(
        f"scraper/{source}", "scraper", source, meter.rate(name, source), meter.value(name, source)
    )
    node["state"] = "idle" if up is None else "ok" if up else "bad"
    return node


def _journal(meter: Meter) -> dict[str, Any]:
    per_s = meter.rate("tracefwd_journal_entries_total")
    node = _node("journal", "journal", "journal", per_s, meter.value("tracefwd_journal_bytes"))
    if meter.value("tracefwd_journal_degraded"):
        node |= {"state": "bad", "note": "the disk refuses it: what comes is in memory only"}
    return node


def _way_to(
    meter: Meter, layout: Layout, target: TargetPlace, lanes: Lanes
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """One target's queue, what comes into it, and what leaves it to wherever."""
    queue, name = f"queue/{target.name}", target.name
    size = meter.value("tracefwd_exporter_queue_bytes", name)
    most = meter.value("tracefwd_exporter_queue_bytes_max", name) or 1.0
    items = meter.value("tracefwd_exporter_queue_items", name)
    states = [state for (at, _), state in lanes.items() if at == name]
    edges: list[dict[str, Any]] = []
    offered = 0.0
    for signal in _SIGNALS:
        per_s = meter.ledger_rate(("targets", name, signal, "received"))
        offered += per_s
        edges += _into(meter, layout, queue, signal, per_s)
        edges += _out_of(meter, layout, target, signal, lanes.get((name, signal), _QUIET))
    node = _node(queue, "queue", "queue", offered, items, f"{min(1.0, size / most):.0%} full")
    if any(state.failing for state in states):
        node["state"] = "bad" if size > _FULL_SHARE * most and not layout.spool else "watch"
    if target.role == "primary":
        edges += _spooling(meter, layout, target)
    return [node], edges


def _into(
    meter: Meter, layout: Layout, queue: str, signal: str, per_s: float
) -> list[dict[str, Any]]:
    if signal in (Signal.SPANS, Signal.SPAN_LOGS):
        if not layout.intake or (signal != SPANS and not per_s):
            return []
        return [_edge("processor", queue, signal, per_s)]
    found = []
    if layout.red and layout.intake:
        scraped = "points" if signal == Signal.POINTS else "distributions"
        own = max(0.0, per_s - meter.rate(f"tracefwd_scraper_{scraped}_total"))
        found.append(_edge("red", queue, signal, own))
    for source in layout.sources if signal == Signal.POINTS else ():
        points = meter.rate("tracefwd_scraper_points_total", source)
        found.append(_edge(f"scraper/{source}", queue, signal, points))
    return found


def _out_of(
    meter: Meter, layout: Layout, target: TargetPlace, signal: str, lane: LaneState
) -> list[dict[str, Any]]:
    latest = meter.latest
    ever = 0.0
    if latest is not None:
        ever = number_at(latest.ledger, ("targets", target.name, signal, "received"))
    if not ever and not (signal == SPANS and layout.intake):
        return []
    found = []
    standins = [each for each in layout.targets if each.role == "failover"]
    for place in (target, *(standins if target.role == "primary" else ())):
        per_s = meter.rate("tracefwd_exporter_sent_items_total", place.name, signal)
        per_s += meter.rate("tracefwd_exporter_unacknowledged_items_total", place.name, signal)
        if place is not target and not per_s:
            continue
        edge = _edge(f"queue/{target.name}", f"target/{place.name}", signal, per_s)
        if place is target:
            size = meter.value("tracefwd_exporter_queue_bytes", target.name, signal)
            most = meter.value("tracefwd_exporter_queue_bytes_max", target.name, signal) or 1.0
            items = meter.value("tracefwd_exporter_queue_items", target.name, signal)
            edge |= {
                "backlog_items": int(items),
                "backlog_bytes": int(size),
                "backlog_share": round(min(1.0, size / most), 4),
                "oldest_age_s": None if lane.oldest_s is None else round(lane.oldest_s, 1),
            }
            if lane.error:
                edge["last_error"] = {
                    "at": round(lane.error_at, 3),
                    "text": lane.error,
                    "now": lane.failing,
                }
            if lane.failing:
                edge["state"] = "bad"
        found.append(edge)
    return found


def _spooling(meter: Meter, layout: Layout, target: TargetPlace) -> list[dict[str, Any]]:
    """To the spool and back, where anything is there."""
    found = []
    for signal in _SIGNALS if layout.spool else ():
        items = meter.value("tracefwd_spool_items", target.name, signal)
        moves = meter.change("tracefwd_spool_items", target.name, signal)
        if not items and not moves:
            continue
        out = _edge(f"queue/{target.name}", "spool", signal, round(max(0.0, moves), 3))
        back = _edge("spool", f"queue/{target.name}", signal, round(max(0.0, -moves), 3))
        back["backlog_items"] = int(items)
        found += [out, back]
    return found


def _spool(meter: Meter) -> dict[str, Any]:
    size, most = meter.value("tracefwd_spool_bytes"), meter.value("tracefwd_spool_bytes_max")
    items = meter.value("tracefwd_spool_items")
    note = f"{min(1.0, size / most):.0%} full" if most else ""
    node = _node("spool", "spool", "spool", 0.0, items, note)
    node["state"] = "watch" if items else "idle"
    if meter.value("tracefwd_spool_refusing"):
        node |= {"state": "bad", "note": "the disk refuses batches"}
    return node


def _target(meter: Meter, target: TargetPlace, lanes: Lanes) -> dict[str, Any]:
    per_s = meter.rate("tracefwd_exporter_sent_items_total", target.name)
    per_s += meter.rate("tracefwd_exporter_unacknowledged_items_total", target.name)
    latest = meter.latest
    total = 0.0
    if latest is not None:
        paths = [("targets", target.name, signal, "delivered") for signal in _SIGNALS]
        total = sum(number_at(latest.ledger, path) for path in paths)
    node = _node(f"target/{target.name}", "target", target.name, per_s, total, target.where)
    if any(state.failing for (name, _), state in lanes.items() if name == target.name):
        node["state"] = "bad"
    return node


def _node(
    number: str, kind: str, title: str, per_s: float, total: float, note: str = ""
) -> dict[str, Any]:
    return {
        "id": number,
        "kind": kind,
        "title": title,
        "state": "ok" if per_s else "idle",
        "per_s": round(per_s, 3),
        "total": total,
        "note": note,
    }


def _edge(begin: str, end: str, signal: str, per_s: float) -> dict[str, Any]:
    return {
        "from": begin,
        "to": end,
        "signal": signal,
        "state": "ok" if per_s else "idle",
        "per_s": round(per_s, 3),
        "backlog_items": 0,
        "backlog_bytes": 0,
        "backlog_share": 0.0,
        "oldest_age_s": None,
        "last_error": None,
    }


__all__ = [
    "LaneState",
    "Lanes",
    "Layout",
    "TargetPlace",
    "history_row",
    "latency",
    "ledger_view",
    "memory",
    "merge_lanes",
    "picture",
    "rates",
]
