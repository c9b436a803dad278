"""The stand-in's verdicts are those of the real proxy: every recorded line, every recorded refusal."""

import json
from pathlib import Path
from typing import Any

import pytest

from tracefwd.emulator.rules import Limits, Refused
from tracefwd.emulator.span_log_reader import SpanLogReader
from tracefwd.emulator.span_reader import SpanReader, check_span, parse_span

RECORDINGS = Path(__file__).parents[1] / "fixtures" / "java-proxy"
# A moment after the recordings were made.
NOW_MS = 1_795_400_000_000
ODD: list[dict[str, Any]] = json.loads((RECORDINGS / "odd-inputs.json").read_bytes())

# Lines that are not parseable as meant, and what the proxy's own parser makes of them.
CORRUPT = {
    "name that ends in a backslash": ("syntax", "must be separated by '=', found spanId"),
    "tag value that ends in a backslash": ("WF-416", 'illegal character(s): x"'),
    "tag key of digits": ("syntax", "Expected timestamp, found ="),
}
# Accepted, but not without a word.
WARNED = {
    "source of 200 characters": {"source_above_backend_limit"},
    "tags traceId, spanId, parent": {"trace_id_no_uuid"},
    "tag value of 40000 characters": {"span_log_above_backend_limit"},
    "annotation of 40000 characters": {"span_log_above_backend_limit"},
}

spans_direct = SpanReader(Limits(), samples=False)
spans_trace = SpanReader(Limits(), samples=True)
logs_direct = SpanLogReader(Limits(), policy_member=True)
logs_trace = SpanLogReader(Limits())


def recorded(kind: str) -> list[Path]:
    return sorted(RECORDINGS.rglob(f"*.{kind}.txt"))


@pytest.mark.parametrize(
    "path", recorded("spans"), ids=lambda path: str(path.relative_to(RECORDINGS))
)
def test_every_recorded_span_line_is_accepted_without_a_warning(path: Path) -> None:
    for line in path.read_text(encoding="utf-8").split("\n"):
        if line:
            for reader in (spans_direct, spans_trace):
                taken = reader.read(line, NOW_MS)
                assert taken.warnings == ()
                assert taken == reader.read_apart(line, NOW_MS)


@pytest.mark.parametrize(
    "path", recorded("spanlogs"), ids=lambda path: str(path.relative_to(RECORDINGS))
)
def test_every_recorded_span_log_is_accepted_by_direct_ingestion_only(path: Path) -> None:
    for line in filter(None, path.read_text(encoding="utf-8").split("\n")):
        assert logs_direct.read(line, NOW_MS).warnings == ()
        log = json.loads(line)
        if log["span"] is None:
            logs_trace.read(line, NOW_MS)
            continue
        # The proxy's trace port would parse this member as a span line.
        with pytest.raises(Refused, match="span is no span line") as refused:
            logs_trace.read(line, NOW_MS)
        assert refused.value.reason == "span_member"
        del log["span"]
        logs_trace.read(json.dumps(log), NOW_MS)


def test_the_recordings_are_there() -> None:
    assert len(recorded("spans")) > 100
    assert sum(len(entry["lines"]) for entry in ODD) > 200


@pytest.mark.parametrize("entry", [e for e in ODD if e["lines"]], ids=lambda entry: entry["name"])
def test_every_odd_line_is_accepted_unless_its_text_is_corrupt(entry: dict[str, Any]) -> None:
    warnings = set()
    for line in entry["lines"]:
        if line.startswith("{"):
            warnings |= set(logs_direct.read(line, NOW_MS).warnings)
        elif entry["name"] in CORRUPT:
            reason, message = CORRUPT[entry["name"]]
            with pytest.raises(Refused) as refused:
                spans_direct.read(line, NOW_MS)
            assert refused.value.reason == reason
            assert message in str(refused.value)
        else:
            warnings |= set(spans_direct.read(line, NOW_MS).warnings)
    assert warnings == WARNED.get(entry["name"], set())


def test_tags_that_are_the_parsers_own_replace_source_and_ids() -> None:
    lines = {entry["name"]: entry["lines"][0] for entry in ODD if entry["lines"]}
    assert parse_span(lines["tag host"])[0].source == "h-zeta"
    span, _ = parse_span(lines["tags traceId, spanId, parent"])
    assert (span.trace_id, span.span_id) == ("t-zeta", "s-zeta")
    # The proxy's sampler cannot read that trace id: the span is lost at a proxy's port.
    with pytest.raises(Refused, match="Invalid UUID string: t-zeta"):
        spans_trace.read(lines["tags traceId, spanId, parent"], NOW_MS)


def test_a_start_of_zero_is_read_as_seconds() -> None:
    line = next(entry["lines"][0] for entry in ODD if entry["name"] == "no timestamp")
    span, _ = parse_span(line)
    assert (span.start_ms, span.duration_ms) == (0, 4000)


def as_line(span: dict[str, Any]) -> str:
    """The span line that the proxy made and then refused: as much of its mapping as these inputs need."""

    def uuid(text: str) -> str:
        digits = text.zfill(32)
        return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))

    tags = dict(span.get("tags", {}))
    source = tags.pop("source", "zipkin")
    local = span.get("localEndpoint", {})
    pairs = [("zipkinSpanId", span["id"]), ("zipkinTraceId", span["traceId"])]
    pairs += [("span.kind", span["kind"].lower())] if "kind" in span else []
    pairs += [("service", local.get("serviceName", "defaultService").lower())]
    pairs += sorted(tags.items())
    pairs += [("application", "Zipkin"), ("cluster", "none"), ("shard", "none")]
    pairs += [("ipv4", local["ipv4"])] if "ipv4" in local else []
    text = " ".join(f'"{key}"="{value}"' for key, value in pairs)
    start_ms = span["timestamp"] // 1000
    return (
        f'"{span["name"].lower().replace("*", "-")}" source="{source}" spanId="{uuid(span["id"])}"'
        f' traceId="{uuid(span["traceId"])}" {text} {start_ms} {span.get("duration", 0) // 1000}'
    )


@pytest.mark.parametrize(
    "entry", [e for e in ODD if e.get("rejects")], ids=lambda entry: entry["name"]
)
def test_every_recorded_refusal_is_repeated_with_its_reason(entry: dict[str, Any]) -> None:
    messages, reasons = [], []
    for zipkin in json.loads(entry["body"]):
        try:
            spans_trace.read(as_line(zipkin), NOW_MS)
            # The proxy judged the span before it wrote it: 16 digits of milliseconds come back as microseconds.
            span, _ = parse_span(as_line(zipkin))
            span.start_ms = zipkin["timestamp"] // 1000
            check_span(span, Limits(), NOW_MS)
        except Refused as refused:
            messages.append(str(refused))
            reasons.append(refused.reason)
    assert messages == entry["rejects"]
    codes = [message.partition(":")[0] for message in messages]
    assert reasons == [code if code.startswith("WF-") else "outside_timeframe" for code in codes]
