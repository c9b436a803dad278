"""Scraped points arrive by OTLP under the names, values and tags that Wavefront gets."""

from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)

from tracefwd import naming
from tracefwd.exporter import otlp_frames
from tracefwd.exporter.otlp_points import otlp_points
from tracefwd.model import Payload, Signal


def read(*lines: str, signal: Signal = Signal.POINTS) -> list[tuple[str, Any]]:
    data = "".join(f"{line}\n" for line in lines).encode()
    payload = otlp_points(Payload(signal, data, len(lines)))
    assert (payload.items, payload.unsendable) == (len(lines), 0)
    request = ExportMetricsServiceRequest.FromString(otlp_frames.request(payload.data))
    return [
        (part.resource.attributes[0].value.string_value, metric)
        for part in request.resource_metrics
        for metric in part.scope_metrics[0].metrics
    ]


def tags(point: Any) -> dict[str, str]:
    return {each.key: each.value.string_value for each in point.attributes}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("istio.requests.total.value", "sum"),
        ("istio.request.bytes.count.value", "sum"),
        ("istio.request.bytes.bucket.value", "gauge"),
        ("mesh.istio.request.duration.milliseconds.bucket.value", "gauge"),
        ("pilot.proxy.convergence.time.bucket.value", "sum"),
        ("istio.request.bytes.bucket", "sum"),
        ("process.cpu.seconds.total.counter", "sum"),
        ("open.files.counter", "sum"),
        ("queue.count.gauge", "gauge"),
        ("istio.request.bytes.bucket.p99.value", "gauge"),
        ("go.goroutines.value", "gauge"),
    ],
)
def test_a_counter_is_known_by_its_name(name: str, kind: str) -> None:
    [(source, metric)] = read(
        f'"{name}" 4.5 1700000000 source="prom \\"a\\"" "k"="v\\"w" "app"="x"'
    )
    assert metric.name == name
    assert metric.WhichOneof("data") == kind
    points = getattr(metric, kind).data_points
    assert points[0].as_double == 4.5
    assert points[0].time_unix_nano == 1_700_000_000 * 10**9
    assert points[0].start_time_unix_nano == 0
    assert tags(points[0]) == {"k": 'v"w', "app": "x"}
    assert source == 'prom "a"'
    if kind == "sum":
        assert metric.sum.is_monotonic
        assert metric.sum.aggregation_temporality == 2


@pytest.mark.parametrize("value", ['C:\\"x" y', "C:\\\\x", '\\\\"', 'a" "b"="c'])
def test_a_tag_arrives_as_wavefront_would_read_it(value: str) -> None:
    quoted = naming.quoted(value)
    [(_, metric)] = read(f'"n" 1 1700000000 source="s" "k"="{quoted}" "l"="m"')
    assert tags(metric.gauge.data_points[0]) == {"k": value, "l": "m"}


def test_a_delta_counter_is_a_delta_sum() -> None:
    [(_, metric)] = read('"\N{INCREMENT}istio.requests.total" 7 1700000000 source="s" "k"="v"')
    assert metric.name == "istio.requests.total"
    assert metric.sum.aggregation_temporality == 1
    assert metric.sum.data_points[0].as_double == 7


def test_a_distribution_is_a_histogram_of_count_and_sum() -> None:
    line = '!M 1700000040 #2 1.5 #3 10 "d" source="s" "k"="v"'
    [(_, metric)] = read(line, signal=Signal.DISTRIBUTIONS)
    [point] = metric.histogram.data_points
    assert (point.count, point.sum, tags(point)) == (5, 33.0, {"k": "v"})


def test_what_is_no_line_of_ours_is_counted() -> None:
    payload = otlp_points(Payload(Signal.POINTS, b'nonsense\n"a" 1 1 source="s"\n', 2))
    assert (payload.items, payload.unsendable) == (1, 1)
