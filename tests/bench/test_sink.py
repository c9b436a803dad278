from collections import Counter

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.bench.sink import take_backend, take_lines, take_otlp


def test_lines_of_a_tracing_port_are_spans_and_span_logs() -> None:
    counts: Counter[str] = Counter()
    take_lines(counts, "/", b'"a" source=b 1 2\n{"traceId":"x"}\n"c" source=d 3 4\n', "lines")
    assert counts == {"spans": 2, "span_logs": 1}


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("/api/v2/wfproxy/report?format=trace", "spans"),
        ("/api/v2/wfproxy/report?format=spanLogs", "span_logs"),
        ("/api/v2/wfproxy/report?format=histogram", "metrics"),
        ("/report?f=trace", "spans"),
    ],
)
def test_a_report_says_what_it_holds(url: str, kind: str) -> None:
    counts: Counter[str] = Counter()
    take_backend(counts, url, b"one\ntwo\nthree")
    assert +counts == {kind: 3}


def test_a_check_in_is_answered_and_not_counted() -> None:
    counts: Counter[str] = Counter()
    assert b"spanAnnotationsCountLimit" in take_backend(
        counts, "/api/v2/wfproxy/checkin?a=b", b"{}"
    )
    assert not counts


def test_spans_of_otlp_are_counted_by_their_frames() -> None:
    request = ExportTraceServiceRequest()
    for spans in (1, 3):
        resource = request.resource_spans.add()
        resource.resource.attributes.add(key="service.name").value.string_value = "a" * 200
        for _ in range(2):
            scope = resource.scope_spans.add()
            scope.scope.name = "test"
            for _ in range(spans):
                scope.spans.add(name="x" * 300, trace_id=b"t" * 16)
    counts: Counter[str] = Counter()
    take_otlp(counts, "/v1/traces", request.SerializeToString())
    assert counts == {"spans": 8}
