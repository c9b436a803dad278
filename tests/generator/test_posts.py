"""Promises of the synthetic mesh: its bodies are Envoy's, its traces hold together."""

import json
import random
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from tracefwd.generator import mesh
from tracefwd.generator.posts import FLUSH_US, POST_SPANS, Post, Posts

FIXTURES = Path(__file__).parent.parent / "fixtures" / "envoy"
NOW_US = 1_795_352_749_000_000

Span = dict[str, Any]


def posts(spans: int, *, connections: int = 32, seed: int = 1, epoch_us: int = 7) -> list[Post]:
    source = Posts(connections=connections, seed=seed, epoch_us=epoch_us, spans_max=spans)
    return list(iter(lambda: source.next(NOW_US), None))


def spans_of(made: list[Post]) -> list[Span]:
    return [span for post in made for span in json.loads(post.body)]


@pytest.fixture(scope="module")
def spans() -> list[Span]:
    return spans_of(posts(10_000))


def captured() -> list[Span]:
    """Spans of the captured Bookinfo mesh."""
    names = ["json-batch-100", "json-404", "json-ratings-503", "json-reset-uc-retried"]
    names += ["json-no-route-nr", "json-gateway-server-and-client", "json-post-body", "json-500"]
    files = [FIXTURES / f"{name}.json" for name in names]
    files += [path for path in (FIXTURES / "one-request").glob("*.json") if path.stem.isdigit()]
    return [span for path in files for span in json.loads(path.read_bytes())]


def sort_of(span: Span) -> tuple[str, ...]:
    """What decides which fields and tags Envoy writes."""
    tags = span["tags"]
    role = "egress" if span["name"].endswith(" egress") else span["kind"]
    kept = tags["response_flags"] == "NR" or tags["http.status_code"] >= "500"
    service = span["localEndpoint"]["serviceName"].split(".")[0]
    return (
        "gateway" if service.startswith("istio-") else "sidecar",
        role,
        tags["http.status_code"] if kept else "fine",
        "child" if "parentId" in span else "root",
    )


def shape(span: Span) -> tuple[frozenset[str], ...]:
    tags = {key for key in span["tags"] if not key.startswith("istio.authorization.dry_run")}
    return (
        frozenset(span),
        frozenset(tags),
        frozenset(span["localEndpoint"]),
        frozenset(span["annotations"][0]),
    )


def test_every_sort_of_span_has_the_fields_and_tags_that_envoy_gives_it(spans: list[Span]) -> None:
    real = {sort_of(span): shape(span) for span in captured()}
    ours = defaultdict(set)
    for span in spans:
        ours[sort_of(span)].add(shape(span))
    # Failing sidecars differ by flags only: all have the shape of 503 UC.
    assert set(ours) <= set(real)
    assert {sort: {shape} for sort, shape in real.items() if sort in ours} == ours


def test_values_have_the_types_and_forms_of_the_captures(spans: list[Span]) -> None:
    for span in spans[:1000]:
        assert type(span["timestamp"]) is type(span["duration"]) is int
        assert span["localEndpoint"]["port"] == 0
        assert all(type(value) is str and value for value in span["tags"].values())
        (annotation,) = span["annotations"]
        assert annotation["value"] == {"CLIENT": "cr", "SERVER": "ss"}[span["kind"]]
        late_us = annotation["timestamp"] - span["timestamp"] - span["duration"]
        assert 0 < late_us < 200
        assert len(span["traceId"]) == 32
        assert len(span["id"]) == 16


def test_names_hosts_and_clusters_are_the_captured_ones(spans: list[Span]) -> None:
    def words(some: list[Span]) -> dict[str, set[str]]:
        found = defaultdict(set)
        for span in some:
            tags = span["tags"]
            found["service"].add(span["localEndpoint"]["serviceName"])
            found["name"].add(span["name"])
            for key in ("upstream_cluster", "http.protocol", "component", "istio.mesh_id"):
                found[key].add(tags.get(key))
        return found

    real = words(captured())
    for what, values in words(spans).items():
        assert values <= real[what], what


def test_key_order_varies_as_envoys_does(spans: list[Span]) -> None:
    pages = [span for span in spans if span["name"].endswith("/productpage")]
    assert len({tuple(span) for span in pages}) >= mesh.ORDERS
    assert len({tuple(span["tags"]) for span in pages}) >= mesh.ORDERS


def test_ids_are_unique_and_a_roots_id_is_half_its_trace_id(spans: list[Span]) -> None:
    assert len(spans) == 10_000
    assert len({span["id"] for span in spans}) == 10_000
    roots = [span for span in spans if "parentId" not in span]
    assert len({span["traceId"] for span in roots}) == len(roots)
    assert all(span["traceId"].endswith(span["id"]) for span in roots)


def test_ids_of_two_runs_with_one_seed_differ() -> None:
    first = {span["id"] for span in spans_of(posts(2_000, epoch_us=1))}
    second = {span["id"] for span in spans_of(posts(2_000, epoch_us=2))}
    assert not first & second


def test_one_seed_and_epoch_give_one_traffic() -> None:
    assert posts(500) == posts(500)
    assert posts(500) != posts(500, seed=2)


def test_parents_hold_across_sidecars_and_children_lie_within_them(spans: list[Span]) -> None:
    by_id = {span["id"]: span for span in spans}
    for span in spans:
        if "parentId" not in span:
            continue
        parent = by_id[span["parentId"]]
        assert parent["traceId"] == span["traceId"]
        assert parent["timestamp"] <= span["timestamp"]
        end = span["timestamp"] + span["duration"]
        # Times are cut to whole microseconds, each for itself.
        assert end <= parent["timestamp"] + parent["duration"] + 1
        hop = (parent["localEndpoint"]["serviceName"], span["localEndpoint"]["serviceName"])
        assert (hop[0] == hop[1]) == (span["kind"] == "CLIENT")


def test_a_trace_has_one_root_one_request_id_and_several_posts() -> None:
    made = posts(3_000)
    roots: Counter[str] = Counter()
    requests = defaultdict(set)
    places = defaultdict(set)
    sizes: Counter[str] = Counter()
    for number, post in enumerate(made):
        for span in json.loads(post.body):
            trace = span["traceId"]
            roots[trace] += "parentId" not in span
            requests[trace].add(span["tags"].get("guid:x-request-id"))
            places[trace].add(number)
            sizes[trace] += 1
    assert set(roots.values()) == {1}
    assert all(len(found - {None}) == 1 for found in requests.values())
    pages = [trace for trace, size in sizes.items() if size >= 7]
    assert len(pages) > 250
    assert all(len(places[trace]) >= 4 for trace in pages)


def test_a_post_holds_the_spans_of_one_envoy() -> None:
    for post in posts(2_000):
        found = json.loads(post.body)
        assert len(found) == post.spans <= POST_SPANS
        (address,) = {span["localEndpoint"]["ipv4"] for span in found}
        assert address.encode() == post.forwarded_for
        nodes = {span["tags"].get("node_id") for span in found} - {None}
        assert len(nodes) <= 1
        assert all(f"~{address}~" in node for node in nodes)


def test_posts_are_full_but_for_what_is_left_at_the_end() -> None:
    made = posts(10_000, connections=16)
    full = [post.spans == POST_SPANS for post in made]
    assert sum(post.spans for post in made) == 10_000
    assert full[: full.index(False)] == [True] * full.index(False)
    assert len(full) - sum(full) <= 16


def test_an_envoy_posts_what_it_holds_after_five_seconds() -> None:
    source = Posts(connections=7, seed=1, epoch_us=1)
    first = source.next(NOW_US)
    while first is not None and first.spans == POST_SPANS:
        first = source.next(NOW_US + FLUSH_US)
    assert first is not None
    assert 1 <= first.spans < POST_SPANS


@pytest.mark.parametrize("connections", [1, 3, 7, 8, 64, 1000])
def test_every_connection_gets_posts(connections: int) -> None:
    made = posts(40_000, connections=connections)
    assert {post.connection for post in made} == set(range(connections))


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 11])
def test_small_budgets_are_met_exactly(count: int) -> None:
    assert len(spans_of(posts(count))) == count


def test_the_mix_has_the_usual_faults(spans: list[Span]) -> None:
    seen = Counter(
        (
            span["localEndpoint"]["serviceName"].split(".")[0],
            span["kind"],
            span["tags"]["http.status_code"],
            span["tags"]["response_flags"],
        )
        for span in spans
    )
    unavailable = seen["ratings", "SERVER", "503", "UC"]
    assert unavailable == 3 * seen["reviews", "CLIENT", "503", "URX"] > 0
    assert seen["reviews", "SERVER", "404", "-"] > 0
    assert seen["istio-ingressgateway", "SERVER", "404", "NR"] > 0
    slow = [span for span in spans if span["duration"] > 300_000]
    assert any("reviews-v3" in span["tags"].get("node_id", "") for span in slow)
    errors = sum("error" in span["tags"] for span in spans)
    assert 0 < errors < len(spans) / 20


def test_spans_end_now() -> None:
    for span in spans_of(posts(1_000)):
        assert NOW_US - 10_000_000 < span["timestamp"] + span["duration"] <= NOW_US


def test_shares_of_spans_are_those_of_the_scripts() -> None:
    found: Counter[int] = Counter()
    for script in mesh.scripts(random.Random(1)):
        found.update(step.workload for step in script.steps)
    total, shares = found.total(), sum(mesh.SPAN_SHARES)
    for workload, share in enumerate(mesh.SPAN_SHARES):
        assert abs(found[workload] / total - share / shares) < 0.02


def test_a_mesh_in_trouble_has_one_service_that_fails_and_one_that_is_slow() -> None:
    made = Posts(connections=28, seed=1, epoch_us=1, spans_max=4_000, mood=mesh.TROUBLED)
    by_service: dict[str, list[dict[str, Any]]] = {}
    while (post := made.next(NOW_US)) is not None:
        for span in json.loads(post.body):
            if span["kind"] == "SERVER":
                by_service.setdefault(span["tags"]["istio.canonical_service"], []).append(span)
    share = {
        name: sum("error" in span["tags"] for span in spans) / len(spans)
        for name, spans in by_service.items()
    }
    median_us = {
        name: sorted(span["duration"] for span in spans)[len(spans) // 2]
        for name, spans in by_service.items()
    }
    assert share["ratings"] > 0.2
    assert max(value for name, value in share.items() if name != "ratings") < 0.05
    assert median_us["details"] > 10 * median_us["ratings"]
