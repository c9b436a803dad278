"""Edges: which service a span's tags mean, one side's count of a call, and bounds."""

import pytest

from tracefwd.console.edges import Edges, Peer, peer_of_cluster, peer_of_name
from tracefwd.console.seen import EdgeRow
from tracefwd.limits import CONSOLE_EDGES_MAX

NOW_S = 1_700_000_000.0


@pytest.mark.parametrize(
    ("cluster", "peer"),
    [
        ("outbound|9080||reviews.default.svc.cluster.local", ("default", "reviews", False)),
        ("outbound|80|v1|a.b.svc", ("b", "a", False)),
        ("outbound_.443_._.x.y.svc.z", ("", "", True)),
        ("outbound|443||api.stripe.com", ("", "api.stripe.com", True)),
        ("inbound|9080||", ("", "", True)),
        ("PassthroughCluster", ("", "PassthroughCluster", True)),
        ("BlackHoleCluster", ("", "BlackHoleCluster", True)),
        ("", ("", "", True)),
        ("|||", ("", "", True)),
    ],
)
def test_a_cluster_names_a_service(cluster: str, peer: tuple[str, str, bool]) -> None:
    assert peer_of_cluster(cluster) == Peer(*peer)


@pytest.mark.parametrize(
    ("name", "peer"),
    [
        ("reviews.default", ("default", "reviews", False)),
        ("db", ("", "db", False)),
        ("a.b.svc.cluster.local", ("b", "a", False)),
        ("api.stripe.com", ("", "api.stripe.com", True)),
        ("-", ("", "", True)),
    ],
)
def test_a_name_names_a_service(name: str, peer: tuple[str, str, bool]) -> None:
    assert peer_of_name(name) == Peer(*peer)


def row(side: str, mine: str, theirs: str, calls: int = 10, **more: int) -> EdgeRow:
    errors = more.get("errors", 0)
    return EdgeRow(side, "app", mine, "ns", theirs, False, calls, errors, calls * 2_000)


def test_both_sides_of_a_call_count_once_and_samples_are_scaled_up() -> None:
    edges = Edges(NOW_S - 1_000)
    told = [row("client", "shop", "stock", errors=2), row("server", "stock", "shop", calls=9)]
    edges.add(told, spans=400, examined=100, left_out=0, now_s=NOW_S)
    shown = edges.show(NOW_S, [("app", "shop"), ("app", "stock")], 10)
    assert shown["examined_share"] == 0.25
    nodes = {node["id"]: node["service"] for node in shown["nodes"]}
    ends = [(nodes[edge["from"]], nodes[edge["to"]]) for edge in shown["edges"]]
    assert ends == [("shop", "stock")]
    window = shown["window_s"]
    assert shown["edges"][0]["calls"] == pytest.approx(40 / window, abs=0.001)
    assert shown["edges"][0]["errors"] == pytest.approx(8 / window, abs=0.001)
    assert shown["edges"][0]["mean_ms"] == 2.0
    assert [node["outside"] for node in shown["nodes"]] == [False, False]


def test_who_sends_nothing_is_outside_and_old_calls_are_forgotten() -> None:
    edges = Edges(NOW_S)
    edges.add([row("client", "shop", "bank")], spans=1, examined=1, left_out=0, now_s=NOW_S)
    shown = edges.show(NOW_S, [("app", "shop")], 10)
    assert [(n["application"], n["service"], n["outside"]) for n in shown["nodes"]] == [
        ("app", "shop", False),
        ("ns", "bank", True),
    ]
    assert edges.show(NOW_S + 600, [], 10)["edges"] == []


def test_edges_are_bounded_and_idle_ones_make_room() -> None:
    edges = Edges(NOW_S)
    rows = [row("client", f"a{n}", f"b{n}", calls=n + 1) for n in range(CONSOLE_EDGES_MAX + 5)]
    edges.add(rows, spans=1, examined=1, left_out=0, now_s=NOW_S)
    shown = edges.show(NOW_S, [], 500)
    assert len(shown["edges"]) == 500
    assert len(shown["nodes"]) == 1_000
    assert shown["left_out"] == CONSOLE_EDGES_MAX - 500 + 5
    later = NOW_S + 600
    edges.add([row("client", "new", "newer")], spans=1, examined=1, left_out=0, now_s=later)
    assert len(edges.show(later, [], 500)["edges"]) == 1
