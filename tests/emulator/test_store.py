"""What the books say: RED series against the real proxy's totals, doubles, bounds."""

import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from tracefwd.emulator.intake import Intake
from tracefwd.emulator.metric_reader import Point
from tracefwd.emulator.ports import ProxyVersion
from tracefwd.emulator.query import lines, series, spans
from tracefwd.emulator.rules import Limits
from tracefwd.emulator.series import SeriesTable
from tracefwd.emulator.store import Doubles, Store

RECORDINGS = Path(__file__).parents[1] / "fixtures" / "java-proxy"
NOW_MS = 1_795_400_000_000


def intake_for(store: Store, **changes: Any) -> Intake:
    return Intake(limits=Limits(), version=ProxyVersion.named("current"), store=store, **changes)


def quoted(text: str) -> str:
    return '"' + text.replace('"', '\\"') + '"'


def tail(entry: dict[str, Any]) -> str:
    """Source and tags as the Java reporter writes them: the tags may hold a second source."""
    tags = " ".join(f"{quoted(key)}={quoted(value)}" for key, value in entry["tags"].items())
    return f"source={quoted(entry['source'])} {tags}"


def red_lines(red: dict[str, Any]) -> list[str]:
    """Lines whose sums are the recorded totals, each counter in two increments."""
    made = []
    for entry in red["delta_counters"]:
        shares = (entry["sum"] * 0.25, entry["sum"] * 0.75)
        made += [f"{quoted(entry['name'])} {share!r} 1795400000 {tail(entry)}" for share in shares]
    for entry in red["distributions"]:
        centroids = entry["centroids"]
        for some in (centroids[::2], centroids[1::2]):
            weights = " ".join(f"#{count} {mean!r}" for mean, count in some)
            if weights:
                made.append(f"!M 1795400000 {weights} {quoted(entry['name'])} {tail(entry)}")
    for entry in red["heartbeats"]:
        made.extend([f"{quoted(entry['name'])} {entry['value']} 1795400000 {tail(entry)}"] * 2)
    return made


def key_of(entry: dict[str, Any]) -> tuple[Any, ...]:
    """The series that the lines amount to: the last source wins and is no tag."""
    tags = dict(entry["tags"])
    source = tags.pop("source", entry["source"])
    return entry["name"], source, tuple(sorted(tags.items()))


@pytest.mark.parametrize(
    "name", ["red-totals.json", "red-totals-proto.json", "with-options/red-totals.json"]
)
def test_series_add_up_to_what_the_real_proxy_reported(name: str) -> None:
    red = json.loads((RECORDINGS / name).read_bytes())
    store = Store(keep_lines=10)
    intake_for(store).take(red_lines(red), port="metrics", form=None, now_ms=NOW_MS)
    totals = store.totals()
    assert totals["points"]["rejected"] == totals["distributions"]["rejected"] == 0
    shown = series(store, {})

    wanted: dict[Any, float] = defaultdict(float)
    for entry in red["delta_counters"]:
        wanted[key_of(entry)] += entry["sum"]
    found = {key_of(row): row["sum"] for row in shown["delta_counters"]}
    assert found == pytest.approx(dict(wanted))
    assert totals["deltas"]["sum"] == pytest.approx(sum(wanted.values()))
    invocations = sum(value for key, value in wanted.items() if key[0].endswith("invocation.count"))
    assert totals["deltas"]["red"]["invocation.count"] == pytest.approx(invocations)
    assert invocations == pytest.approx(red["spans"])

    rows = {key_of(row): row for row in shown["distributions"]}
    for entry in red["distributions"]:
        row = rows[key_of(entry)]
        assert (row["count"], row["sum"]) == (entry["count"], pytest.approx(entry["sum"]))
        assert row["centroids"] == sorted(entry["centroids"])
        assert row["centroids_complete"]
    assert totals["distributions"]["count"] == sum(e["count"] for e in red["distributions"])
    assert totals["distributions"]["sum"] == pytest.approx(
        math.fsum(e["sum"] for e in red["distributions"])
    )
    assert {key_of(row) for row in shown["heartbeats"]} == {key_of(e) for e in red["heartbeats"]}


def test_series_are_found_by_prefix_with_or_without_the_delta_sign() -> None:
    store = Store(keep_lines=10)
    taken = ['"∆a.b" 1 source=s', '"∆x" 2 source=s', "a.c 3 source=s"]
    intake_for(store).take(taken, port="metrics", form=None, now_ms=NOW_MS)
    found = series(store, {"prefix": "a."})
    assert [row["name"] for row in found["delta_counters"]] == ["∆a.b"]
    assert [(row["name"], row["value"]) for row in found["points"]] == [("a.c", 3.0)]
    assert [row["name"] for row in series(store, {"prefix": "∆"})["delta_counters"]] == [
        "∆a.b",
        "∆x",
    ]


def test_full_series_tables_leave_totals_exact() -> None:
    table = SeriesTable(series_max=2)
    for index in range(5):
        table.add_point(Point(f"∆{index}.error.count", 2.0, 0, "s", (), ()))
    table.add_point(Point("∆0.error.count", 2.0, 0, "s", (), ()))
    assert (len(table.deltas), table.untracked) == (2, 3)
    assert (table.delta_lines, table.delta_sum, table.red["error.count"]) == (6, 12.0, 12.0)


def test_doubles_are_told_by_trace_span_and_half() -> None:
    doubles = Doubles()
    for identity in [
        ("t", "s", ""),
        ("t", "s", "client"),
        ("t", "s", ""),
        ("u", "s", ""),
        ("t", "s", ""),
    ]:
        doubles.see(identity)
    assert (doubles.count, doubles.complete) == (2, True)


def test_doubles_are_remembered_for_one_to_two_generations() -> None:
    doubles = Doubles(generation_max=2)
    for number in range(5):
        doubles.see(("t", str(number), ""))
    # Two generations stand: {2, 3} and {4}.
    doubles.see(("t", "2", ""))
    assert (doubles.count, doubles.complete) == (1, False)
    doubles.see(("t", "0", ""))
    assert doubles.count == 1


def test_lines_and_samples_are_bounded_while_counts_are_not() -> None:
    store = Store(keep_lines=3)
    good = [f"a{index} 1 source=s" for index in range(10)]
    bad = ["x" * 5_000] * 300
    intake_for(store).take(good + bad, port="metrics", form=None, now_ms=NOW_MS)
    assert lines(store, {"signal": "points"}) == {
        "signal": "points", "kept": 3, "total": 10, "lines": good[-3:],
    }  # fmt: skip
    assert store.totals()["points"]["by_reason"] == {"WF-300": 300}
    assert len(store.rejects) == 256
    assert len(store.rejects[0]["line"]) == 2_048


def test_spans_are_found_by_application_and_service() -> None:
    def line(number: int, application: str, service: str) -> str:
        tags = f'"application"="{application}" "service"="{service}" "k"="1" "k"="2"'
        return (
            f'"op" source="s" spanId="{number}" traceId="0-0-0-0-{number}" {tags} 1700000000123 4'
        )

    store = Store(keep_lines=100)
    taken = [
        line(1, "shop", "a"),
        line(2, "shop", "b"),
        line(3, 'sh\\"op', "shop"),
        line(4, "shop", "a"),
    ]
    intake_for(store).take(taken, port="trace", form=None, now_ms=NOW_MS)
    found = spans(store, {"application": "shop"})
    assert [span["span_id"] for span in found["spans"]] == ["4", "2", "1"]
    assert [
        span["span_id"]
        for span in spans(store, {"application": "shop", "service": "a", "limit": "1"})["spans"]
    ] == ["4"]
    assert [span["span_id"] for span in spans(store, {"application": 'sh"op'})["spans"]] == ["3"]
    newest = found["spans"][0]
    assert newest["tags"]["k"] == "1"
    assert newest["tag_list"][-2:] == [("k", "1"), ("k", "2")]
    assert (newest["start_ms"], newest["duration_ms"], found["total"]) == (1700000000123, 4, 4)
