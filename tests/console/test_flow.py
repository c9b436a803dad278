"""Numbers, picture and verdict out of the same readings: they cannot disagree, and words say what to do."""

import json
from typing import Any

import pytest

from tests.service.watched import check
from tracefwd.console import flow, refused, verdict
from tracefwd.console.history import COLUMNS, STEPS_MAX, History
from tracefwd.console.meter import Meter, Reading
from tracefwd.metrics import Samples
from tracefwd.service.tally import empty_ledger

NOW_S = 1_700_000_000.0
LAYOUT = flow.Layout(
    "istio",
    (
        flow.TargetPlace("primary", "primary", "http://p:1"),
        flow.TargetPlace("spare", "failover", ""),
    ),
    ("prom",),
    red=True,
    spool=True,
    journal=True,
    intake=True,
)
QUIET = verdict.Happened(NOW_S, NOW_S - 9, False, (), NOW_S, "http://t:9411", False)
WORKER: dict[str, Any] = {"name": "worker 0", "ready": True, "stale": False, "problems": []}
SPANS = "tracefwd_receiver_accepted_spans_total"
BUCKET = "tracefwd_receiver_request_duration_seconds_bucket"


def meter(*steps: tuple[Samples, dict[str, Any]], each_s: float = 5.0) -> Meter:
    made = Meter()
    for at, (samples, ledger) in enumerate(steps):
        whole = empty_ledger() | ledger
        made.take(Reading(NOW_S + at * each_s, samples, whole))
    return made


def judge(made: Meter, *, workers: Any = (WORKER,), happened: Any = QUIET) -> dict[str, Any]:
    latest = made.latest
    assert latest is not None
    found = verdict.judge(made, workers, flow.ledger_view(latest.ledger)["sections"], happened)
    check("Verdict", found)
    return found


def test_rates_are_of_the_window_and_never_negative() -> None:
    made = meter(({SPANS: {("json_v2",): 100}}, {}), ({SPANS: {("json_v2",): 600}}, {}))
    assert made.rate(SPANS) == 100.0
    assert made.rate(SPANS, "proto3") == 0.0
    made.take(Reading(NOW_S + 6, {SPANS: {("json_v2",): 1}}, empty_ledger()))
    assert made.rate(SPANS) == 0.0


def test_a_clock_that_is_set_begins_a_new_window() -> None:
    made = meter(({SPANS: {("a",): 0}}, {}), ({SPANS: {("a",): 50}}, {}))
    made.take(Reading(NOW_S - 100, {SPANS: {("a",): 60}}, empty_ledger()))
    assert made.rate(SPANS) == 0.0
    made.take(Reading(NOW_S - 99, {SPANS: {("a",): 70}}, empty_ledger()))
    assert made.rate(SPANS) == 10.0


def test_latency_is_read_off_within_its_bucket() -> None:
    before = {BUCKET: {("0.001",): 10.0, ("0.01",): 10.0, ("+Inf",): 10.0}}
    after = {BUCKET: {("0.001",): 10.0, ("0.01",): 110.0, ("+Inf",): 110.0}}
    found = flow.latency(meter((before, {}), (after, {})))
    assert found["p50"] == pytest.approx(5.5)
    assert found["p99"] == pytest.approx(9.91)
    assert flow.latency(meter((after, {}), (after, {}))) == {"p50": None, "p95": None, "p99": None}


def test_the_picture_names_only_nodes_that_are_there() -> None:
    samples: Samples = {
        SPANS: {("json_v2",): 9},
        "tracefwd_scraper_up": {("prom",): 0},
        "tracefwd_spool_items": {("primary", "spans"): 4},
        "tracefwd_spool_bytes_max": {(): 100},
        "tracefwd_exporter_queue_bytes": {("primary", "spans"): 90},
        "tracefwd_exporter_queue_bytes_max": {("primary", "spans"): 100},
        "tracefwd_exporter_sent_items_total": {("spare", "spans"): 5},
        "tracefwd_exporter_unacknowledged_items_total": {("spare", "spans"): 10},
    }
    lanes = flow.merge_lanes(
        [
            [
                {
                    "target": "primary",
                    "signal": "spans",
                    "oldest_s": 3.0,
                    "error": "old",
                    "error_at": 1.0,
                    "failing": True,
                }
            ],
            [
                {
                    "target": "primary",
                    "signal": "spans",
                    "oldest_s": 7.0,
                    "error": "new",
                    "error_at": 2.0,
                    "failing": False,
                }
            ],
        ]
    )
    nodes, edges = flow.picture(meter(({}, {}), (samples, {})), LAYOUT, lanes)
    for kind, parts in (("Node", nodes), ("FlowEdge", edges)):
        for part in parts:
            check(kind, part)
    ids = [node["id"] for node in nodes]
    assert len(ids) == len(set(ids))
    assert {end for edge in edges for end in (edge["from"], edge["to"])} <= set(ids)
    by_id = {node["id"]: node["state"] for node in nodes}
    assert by_id["target/primary"] == "bad"
    assert by_id["scraper/prom"] == "bad"
    assert by_id["spool"] == "watch"
    ways = {(edge["from"], edge["to"]): edge for edge in edges if edge["signal"] == "spans"}
    assert ways["queue/primary", "target/primary"]["oldest_age_s"] == 7.0
    assert ways["queue/primary", "target/primary"]["last_error"] == {
        "at": 2.0,
        "text": "new",
        "now": True,
    }
    assert ways["queue/primary", "target/spare"]["per_s"] == 3.0
    assert [node["per_s"] for node in nodes if node["id"] == "target/spare"] == [3.0]
    assert ways["spool", "queue/primary"]["backlog_items"] == 4


def test_all_is_well_is_said_too() -> None:
    found = judge(meter(({SPANS: {("a",): 1}}, {}), ({SPANS: {("a",): 9}}, {})))
    assert (found["level"], found["todo"], found["causes"]) == ("ok", "", [])


@pytest.mark.parametrize(
    ("what", "level", "words"),
    [
        ({"workers": ({**WORKER, "ready": False},)}, "bad", "worker 0 does not run"),
        ({"workers": ({**WORKER, "stale": True},)}, "bad", "does not answer"),
        (
            {
                "workers": ({**WORKER, "problems": ["primary (x) does not take spans: refused"]},)
                * 2
            },
            "bad",
            "(2 workers)",
        ),
        ({"happened": QUIET._replace(restarts=(NOW_S - 5,))}, "watch", "died and were replaced 1"),
        ({"happened": QUIET._replace(heard_at=NOW_S - 400)}, "watch", "for 6 minutes"),
        ({"happened": QUIET._replace(draining=True)}, "watch", "leaving"),
    ],
)
def test_what_is_wrong_is_said(what: dict[str, Any], level: str, words: str) -> None:
    found = judge(meter(({SPANS: {("a",): 1}}, {}), ({SPANS: {("a",): 9}}, {})), **what)
    assert found["level"] == level
    assert words in found["line"]


@pytest.mark.parametrize(
    "problem",
    [
        "the journal in /spool cannot be written: answers promise only memory",
        "the spool /spool/slot-0/batches is not written to: No space left on device",
    ],
)
def test_a_broken_disk_is_not_taken_for_a_broken_target(problem: str) -> None:
    worker = {**WORKER, "problems": [problem]}
    found = judge(meter(({SPANS: {("a",): 1}}, {}), ({SPANS: {("a",): 9}}, {})), workers=(worker,))
    assert "spool.folder" in found["todo"]


@pytest.mark.parametrize(
    ("ledger", "samples", "level", "words"),
    [
        ({"received": 5, "dropped": {"queue_full": 5}}, {}, "bad", "exporter.queue_bytes_max"),
        ({"received": 5, "dropped": {"shed": 5}}, {}, "bad", "service.memory_max"),
        ({"received": 5, "rejected": {"syntax": 5}}, {}, "watch", "Refused and changed"),
        ({"received": 5}, {}, "bad", "fault of tracefwd"),
        ({}, {"tracefwd_receiver_refused_requests_total": {("memory",): 2}}, "bad", "replicas"),
        (
            {},
            {"tracefwd_receiver_refused_requests_total": {("too_many",): 2}},
            "bad",
            "receiver.connections_max",
        ),
        ({}, {"tracefwd_red_overflow_spans_total": {(): 2}}, "watch", "red.series_max"),
    ],
)
def test_losses_are_said_with_what_to_do(
    ledger: dict[str, Any], samples: Samples, level: str, words: str
) -> None:
    made = meter(({SPANS: {("a",): 1}}, {}), ({SPANS: {("a",): 9}, **samples}, ledger))
    found = judge(made)
    assert found["level"] == level
    assert words in found["todo"]


def test_a_failing_target_is_said_with_the_time_that_is_left() -> None:
    size, most = "tracefwd_exporter_queue_bytes", "tracefwd_exporter_queue_bytes_max"
    at = ("primary", "spans")
    before: Samples = {size: {at: 0}, most: {at: 10_000}}
    after: Samples = {
        size: {at: 1_000},
        most: {at: 10_000},
        "tracefwd_exporter_queue_items": {at: 70},
    }
    worker = {**WORKER, "problems": ["primary (x) does not take spans: timeout"]}
    found = judge(meter((before, {}), (after, {}), each_s=10.0), workers=(worker,))
    assert "70 lines are held, and there is room for about 2 minutes more" in found["todo"]


def test_nothing_yet_says_where_to_point_the_mesh() -> None:
    found = judge(meter(({}, {})), happened=QUIET._replace(heard_at=None))
    assert found["line"] == "No span has come yet."
    assert "http://t:9411" in found["todo"]


def test_reasons_have_meanings_and_rates() -> None:
    samples: Samples = {
        "tracefwd_mapper_repairs_total": {("value_cut",): 4},
        "tracefwd_rules_spans_total": {("no-health", "blocked"): 2, ("no-health", "checked"): 9},
        "tracefwd_sampler_sampled_out_spans_total": {("rate",): 0},
    }
    made = meter(({}, {}), (samples, {"rejected": {"syntax": 10}, "blocked": 3}))
    rows = {(row["what"], row["reason"]): row for row in refused.reasons(made)}
    assert {key: row["spans"] for key, row in rows.items()} == {
        ("rejected", "syntax"): 10,
        ("changed", "value_cut"): 4,
        ("blocked", "no-health"): 2,
        ("blocked", "rule"): 1,
    }
    assert rows["rejected", "syntax"]["per_s"] == 2.0
    assert all(row["meaning"] for row in rows.values())


# --- history --------------------------------------------------------------------------------


def test_the_history_is_an_hour_with_its_gaps() -> None:
    history = History()
    for step in range(STEPS_MAX + 40):
        history.add(NOW_S + step * 10, {"spans_per_s": float(step)})
    assert not history.is_due(NOW_S + (STEPS_MAX + 39) * 10 + 5)
    shown = history.show()
    check("History", shown)
    assert len(shown["at"]) == STEPS_MAX
    history.add(NOW_S + (STEPS_MAX + 42) * 10, {"spans_per_s": 1.0})
    assert history.show()["columns"]["spans_per_s"][-4:] == [399.0, None, None, 1.0]


def test_the_history_comes_back_as_far_as_it_is_of_the_last_hour() -> None:
    history = History()
    history.add(NOW_S, {"workers": 2.0})
    again, late = History(), History()
    assert again.restore(history.text(), NOW_S + 100)
    again.add(NOW_S + 100, {})
    assert again.show()["columns"]["workers"] == [2.0] + [None] * 10
    assert late.restore(history.text(), NOW_S + 3_700)
    assert late.show()["at"] == []


STRANGE = {key: ["x"] for key in COLUMNS}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[1]",
        "null",
        '{"step_s":10,"at":[1],"columns":{}}',
        "[" * 100_000,
        History().text().replace('"step_s": 10', '"step_s": 11'),
        json.dumps({"step_s": 10, "at": [1], "columns": STRANGE}),
        json.dumps({"step_s": 10, "at": ["x"], "columns": {key: [1] for key in COLUMNS}}),
    ],
)
def test_what_is_no_history_is_left_alone(text: str) -> None:
    history = History()
    assert not history.restore(text, NOW_S)
    assert history.show()["at"] == []
