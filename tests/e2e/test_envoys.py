"""Real Envoys, the real forwarder, the stand-in: what Envoys say they sent is what arrives, none more, none less."""

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.mesh import (
    DETAILS,
    GATEWAY,
    GATEWAY_HOST,
    WORKLOADS,
    Collector,
    Mesh,
)
from tests.e2e.parts import Forwarder, StandIn, forwarder, stand_in
from tests.e2e.processes import eventually

SECRET = "e2e-0b7c1a94-token"
ROUNDS = 4


@dataclass(frozen=True)
class Journey:
    """A request from outside, and the spans and errors by service that Envoys make of it."""

    path: str
    status: int
    spans: Mapping[str, int]
    errors: Mapping[str, int]
    host: str = GATEWAY_HOST


def _by_service(
    gateway: int, productpage: int = 0, details: int = 0, reviews: int = 0
) -> Mapping[str, int]:
    counts = (gateway, productpage, details, reviews)
    return dict(zip((one.service for one in WORKLOADS), counts, strict=True))


# A gateway makes two spans of a request and one more of each further attempt; a hop makes a CLIENT span of
# a request and a SERVER span of each attempt, of which Istio's policy allows three when the answer is 503.
JOURNEYS = (
    Journey("/productpage", 200, _by_service(2, 3, 1, 1), _by_service(0)),
    Journey("/productpage?details=503", 200, _by_service(2, 3, 3, 1), _by_service(0, 1, 3)),
    Journey("/productpage?reviews=500", 200, _by_service(2, 3, 1, 1), _by_service(0, 1, 0, 1)),
    Journey("/productpage?details=404", 200, _by_service(2, 3, 1, 1), _by_service(0)),
    # Connection refused, three times.
    Journey("/legacy/login", 503, _by_service(4), _by_service(4)),
    # No route: for a known host and for somebody's invention.
    Journey("/nowhere", 404, _by_service(1), _by_service(0)),
    Journey("/", 404, _by_service(1), _by_service(0), host="scanner.example.org"),
)
ORDINARY = JOURNEYS[0]


class Traffic:
    """Requests from outside, and what must come of them."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self.requests = 0
        self.spans: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()

    def go(self, journey: Journey, headers: Mapping[str, str] | None = None) -> None:
        status = self._mesh.get(journey.path, host=journey.host, headers=headers)
        assert status == journey.status, journey
        self.requests += 1
        self.spans.update(journey.spans)
        self.errors.update(journey.errors)

    @contextmanager
    def flowing(self) -> Iterator[None]:
        """Ordinary requests one after the other, as long as the block lasts."""
        stop = threading.Event()
        failures: list[BaseException] = []

        def flow() -> None:
            try:
                while not stop.is_set():
                    self.go(ORDINARY)
            except BaseException as error:  # noqa: BLE001 - told where the test can see it
                failures.append(error)

        thread = threading.Thread(target=flow)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
        assert not failures, failures


def _collector(part: Forwarder, *, checked: bool = False) -> Collector:
    return Collector(part.host, part.port, part.admin_port if checked else None)


# What must be true of every run ------------------------------------------------------------------


def assert_all_arrived(wavefront: StandIn, traffic: Traffic) -> None:
    """Once the forwarder has left: spans and RED in Wavefront are what the requests were bound to cause."""
    spans, errors = traffic.spans.total(), traffic.errors.total()
    totals = wavefront.totals()
    assert totals["spans"]["accepted"] == spans
    assert totals["duplicates"] == 0
    assert wavefront.refused() == {}
    assert totals["deltas"]["red"]["invocation.count"] == spans
    assert totals["deltas"]["red"]["error.count"] == errors
    assert totals["distributions"]["count"] == spans


def assert_every_workload_is_itself(spans: list[dict[str, Any]], traffic: Traffic) -> None:
    found = Counter(
        tuple(span["tags"][key] for key in ("application", "service", "cluster", "shard"))
        for span in spans
    )
    assert found == {
        (one.namespace, one.service, "Kubernetes", one.revision): traffic.spans[one.service]
        for one in WORKLOADS
    }
    sources = {
        (span["tags"]["service"], span["source"]) for span in spans if "node_id" in span["tags"]
    }
    assert sources == {(one.service, one.pod) for one in WORKLOADS}


def assert_traces_join(
    spans: list[dict[str, Any]], traces: int, callers: Mapping[str, str] | None = None
) -> None:
    """Each trace has one root, the gateway's, and every other span's parent is there.

    ``callers``: for traces that somebody outside began, the root's parent by trace.
    """
    by_trace: dict[str, dict[str, dict[str, Any]]] = {}
    for span in spans:
        siblings = by_trace.setdefault(span["trace_id"], {})
        assert span["span_id"] not in siblings
        siblings[span["span_id"]] = span
    assert len(by_trace) == traces
    for trace_id, members in by_trace.items():
        parents = [(span, members.get(span["tags"].get("parent", ""))) for span in members.values()]
        roots = [span for span, parent in parents if parent is None]
        assert [root["tags"]["service"] for root in roots] == [GATEWAY.service]
        assert roots[0]["tags"].get("parent") == (callers or {}).get(trace_id)
        for span, parent in parents:
            if parent is not None and span["tags"]["span.kind"] == "server":
                assert parent["tags"]["span.kind"] == "client"
                assert span["tags"]["service"] in parent["tags"]["upstream_cluster"]


def assert_red_counts(wavefront: StandIn, traffic: Traffic) -> None:
    """By service, and by ``span.kind``: so a rate of served requests is exact."""
    invocations: Counter[str] = Counter()
    served: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    rows = wavefront.series("tracing.derived.")["delta_counters"]
    for row in rows:
        service, count = row["tags"]["service"], int(row["sum"])
        assert row["source"] == service
        if row["name"].endswith(".invocation.count"):
            invocations[service] += count
            served[service] += count * (row["tags"]["span.kind"] == "server")
        elif row["name"].endswith(".error.count"):
            failed[service] += count
    assert invocations == traffic.spans
    assert failed == +traffic.errors
    assert served[GATEWAY.service] == traffic.requests
    assert served[DETAILS.service] == traffic.spans[DETAILS.service]


def assert_heartbeats(wavefront: StandIn) -> None:
    beats = wavefront.series("~component.heartbeat")["heartbeats"]
    keys = ("application", "service", "cluster", "shard")
    assert {tuple(row["tags"][key] for key in keys) for row in beats} == {
        (one.namespace, one.service, "Kubernetes", one.revision) for one in WORKLOADS
    }
    assert {row["value"] for row in beats} == {1}


# The tests ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["proxy", "direct", "proxy-4.35"])
def test_what_envoys_sent_is_what_wavefront_got(target: str, envoy: Path, tmp_path: Path) -> None:
    version = "4.35" if target == "proxy-4.35" else "current"
    token = tmp_path / "token"
    token.write_text(SECRET + "\n")
    with (
        stand_in(
            tmp_path, version=version, token_file=token if target == "direct" else None
        ) as wavefront,
        forwarder(
            tmp_path,
            ["--direct", wavefront.url, "--token-file", str(token)]
            if target == "direct"
            else wavefront.proxy,
            exporter={"proxy_version": version, "batch_age_max": "100ms"},
            # Envoy's lone annotations, which are left out otherwise: every span brings one.
            mapping={"span_logs": "all"},
            red={"interval": "1s"},
            service={"workers": 2 if target == "proxy" else 1},
        ) as part,
    ):
        with Mesh(envoy, tmp_path, [_collector(part)]) as mesh:
            traffic = Traffic(mesh)
            for journey in JOURNEYS * ROUNDS:
                traffic.go(journey)
            sent = mesh.settled(traffic.spans.total())
        assert sent.spans == traffic.spans.total()
        assert sent.lost == 0
        assert sent.reports == sent.posts

        ledger = part.delivered(sent.spans)
        assert ledger["received"] == ledger["delivered"] == sent.spans
        assert (ledger["rejected"], ledger["dropped"]) == ({}, {})
        assert part.metric("tracefwd_receiver_requests_total", code="202") == sent.posts
        assert part.stop() == f"ledger balanced: received {sent.spans} = delivered {sent.spans}"
        assert SECRET not in part.process.output

        assert_all_arrived(wavefront, traffic)
        spans = wavefront.spans()
        assert_every_workload_is_itself(spans, traffic)
        assert_traces_join(spans, traffic.requests)
        assert_red_counts(wavefront, traffic)
        assert_heartbeats(wavefront)
        with_logs = 0 if version == "4.35" else sent.spans
        assert wavefront.totals()["span_logs"]["accepted"] == with_logs
        assert sum("_spanLogs" in span["tags"] for span in spans) == with_logs


def test_proto_and_json_envoys_join_in_one_trace(envoy: Path, tmp_path: Path) -> None:
    """Envoy writes span ids byte-reversed in proto3, here at every other hop."""
    trace_id, caller = "463ac35c9f6413ad48485a3953bb6124", "a2fb4a1d1a96d312"
    proto = frozenset({GATEWAY.service, DETAILS.service})
    with ExitStack() as stack:
        wavefront = stack.enter_context(stand_in(tmp_path))
        part = stack.enter_context(forwarder(tmp_path, wavefront.proxy))
        with Mesh(envoy, tmp_path, [_collector(part)], proto=proto) as mesh:
            traffic = Traffic(mesh)
            for journey in JOURNEYS:
                traffic.go(journey)
            context = {"x-b3-traceid": trace_id, "x-b3-spanid": caller, "x-b3-sampled": "1"}
            traffic.go(ORDINARY, context)
            sent = mesh.settled(traffic.spans.total())
        assert (sent.spans, sent.lost) == (traffic.spans.total(), 0)
        reversed_spans = sum(traffic.spans[service] for service in proto)
        accepted = "tracefwd_receiver_accepted_spans_total"
        assert part.metric(accepted, format="proto3") == reversed_spans
        assert part.metric(accepted, format="json_v2") == sent.spans - reversed_spans
        repairs = part.metric("tracefwd_mapper_repairs_total", kind="ids_reversed")
        assert repairs == reversed_spans
        part.stop()
        assert_all_arrived(wavefront, traffic)
        callers = {
            "463ac35c-9f64-13ad-4848-5a3953bb6124": "00000000-0000-0000-a2fb-4a1d1a96d312",
        }
        assert_traces_join(wavefront.spans(), traffic.requests, callers)
        assert_red_counts(wavefront, traffic)


def test_renewing_connections_costs_no_report(envoy: Path, tmp_path: Path) -> None:
    renewals = 25
    closed = "tracefwd_receiver_connections_closed_total"
    with (
        stand_in(tmp_path) as wavefront,
        forwarder(tmp_path, wavefront.proxy, receiver={"connection_age_max": "300ms"}) as part,
    ):
        with Mesh(envoy, tmp_path, [_collector(part)]) as mesh:
            traffic = Traffic(mesh)
            with traffic.flowing():
                eventually(
                    lambda: part.metric(closed, reason="age") >= renewals,
                    f"{renewals} connections closed for their age",
                )
            sent = mesh.settled(traffic.spans.total())
        assert (sent.spans, sent.lost) == (traffic.spans.total(), 0)
        assert sent.connections > renewals
        part.stop()
        assert_all_arrived(wavefront, traffic)


def test_sigterm_delivers_what_is_held(envoy: Path, tmp_path: Path) -> None:
    """The Envoys' connections are still open, and no batch has left yet."""
    with (
        stand_in(tmp_path) as wavefront,
        forwarder(
            tmp_path,
            wavefront.proxy,
            exporter={"batch_age_max": "10m"},
            red={"interval": "1h"},
            service={"drain_timeout": "4s"},
        ) as part,
        Mesh(envoy, tmp_path, [_collector(part)]) as mesh,
    ):
        traffic = Traffic(mesh)
        for journey in JOURNEYS:
            traffic.go(journey)
        sent = mesh.settled(traffic.spans.total())
        ledger = part.ledger()
        assert (ledger["received"], ledger["held"]) == (sent.spans, sent.spans)
        assert part.stop() == f"ledger balanced: received {sent.spans} = delivered {sent.spans}"
        assert_all_arrived(wavefront, traffic)
        assert_red_counts(wavefront, traffic)


def test_another_replica_takes_over_without_a_loss(envoy: Path, tmp_path: Path) -> None:
    """As in a rollout: SIGTERM under traffic, and readiness tells the Envoys where to go."""
    config = {"service": {"drain_timeout": "5s"}, "red": {"interval": "1s"}}
    with ExitStack() as stack:
        wavefront = stack.enter_context(stand_in(tmp_path))
        leaving, staying = (
            stack.enter_context(forwarder(tmp_path, wavefront.proxy, name=name, **config))
            for name in ("leaving", "staying")
        )
        collectors = [_collector(part, checked=True) for part in (leaving, staying)]
        with Mesh(envoy, tmp_path, collectors) as mesh:
            traffic = Traffic(mesh)
            with traffic.flowing():
                eventually(
                    lambda: min(part.ledger()["received"] for part in (leaving, staying)) > 50,
                    "50 spans at each",
                )
                leaving.process.terminate()
                last_words = leaving.farewell()
            sent = mesh.settled(traffic.spans.total())
        assert (sent.spans, sent.lost) == (traffic.spans.total(), 0)
        at_leaving = int(last_words.rpartition(" ")[2])
        assert last_words == f"ledger balanced: received {at_leaving} = delivered {at_leaving}"
        at_staying = sent.spans - at_leaving
        assert staying.stop() == f"ledger balanced: received {at_staying} = delivered {at_staying}"
        assert_all_arrived(wavefront, traffic)
        assert_traces_join(wavefront.spans(), traffic.requests)
