"""Real Envoys that export by OTLP: over both transports what they sent arrives, and means what it means by Zipkin."""

from collections import Counter
from pathlib import Path
from typing import Any

from tests.e2e.mesh import Collector, Mesh
from tests.e2e.parts import forwarder, stand_in
from tests.e2e.test_envoys import (
    JOURNEYS,
    Traffic,
    assert_all_arrived,
    assert_every_workload_is_itself,
    assert_heartbeats,
    assert_red_counts,
    assert_traces_join,
)

_ANYWHERE = "127.0.0.1:0"
# What pages on services, traces and RED are made of.
_FACTS = ("application", "service", "cluster", "shard", "span.kind", "http.status_code", "error")


def spans_and_series(
    transport: str, envoy: Path, folder: Path
) -> tuple[Counter[Any], Counter[Any]]:
    """The same journeys through a mesh of its own: its spans and its RED series, by what they say."""
    flags = {"http": "--otlp-http", "grpc": "--otlp-grpc"}
    folder.mkdir()
    with stand_in(folder) as wavefront:
        more = [flags[transport], _ANYWHERE] if transport in flags else []
        with forwarder(folder, [*wavefront.proxy, *more], red={"interval": "1s"}) as part:
            port = part.port
            if transport in flags:
                found = part.process.find(
                    rf"OTLP over {transport.upper().replace('GRPC', 'gRPC')} (\S+?),"
                )
                port = int(found[1].rpartition(":")[2])
            otlp = transport if transport in flags else ""
            with Mesh(envoy, folder, [Collector(part.host, port)], otlp=otlp) as mesh:
                traffic = Traffic(mesh)
                for journey in JOURNEYS:
                    traffic.go(journey)
                sent = mesh.settled(traffic.spans.total())
            assert sent.spans == traffic.spans.total()
            assert sent.lost == 0
            ledger = part.delivered(sent.spans)
            assert ledger["received"] == ledger["delivered"] == sent.spans
            if transport in flags:
                accepted = "tracefwd_receiver_accepted_spans_total"
                assert part.metric(accepted, format="otlp_proto") == sent.spans
            last = part.stop()
            assert last == f"ledger balanced: received {sent.spans} = delivered {sent.spans}"
            assert_all_arrived(wavefront, traffic)
            spans = wavefront.spans()
            assert_every_workload_is_itself(spans, traffic)
            assert_traces_join(spans, traffic.requests)
            assert_red_counts(wavefront, traffic)
            assert_heartbeats(wavefront)
            return (
                Counter(
                    (span["name"], *(span["tags"].get(key) for key in _FACTS)) for span in spans
                ),
                Counter(
                    {
                        (row["name"], *sorted(row["tags"].items())): int(row["sum"])
                        for row in wavefront.series("tracing.derived.")["delta_counters"]
                        # Its value depends on the clock.
                        if not row["name"].endswith(".total_time.millis.count")
                    }
                ),
            )


def test_over_either_transport_spans_and_red_are_zipkins(envoy: Path, tmp_path: Path) -> None:
    by_zipkin = spans_and_series("zipkin", envoy, tmp_path / "zipkin")
    for transport in ("http", "grpc"):
        spans, series = spans_and_series(transport, envoy, tmp_path / transport)
        assert spans == by_zipkin[0], transport
        assert series == by_zipkin[1], transport
