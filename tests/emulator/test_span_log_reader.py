"""Span logs: what they must hold, and what the member ``span`` means to whom."""

import json
from typing import Any

import pytest

from tracefwd.emulator.rules import Limits, Refused
from tracefwd.emulator.span_log_reader import SpanLogReader, TakenSpanLog

TRACE = "463ac35c-9f64-13ad-4848-5a3953bb6124"
SPAN = "00000000-0000-0000-a2fb-4a1d1a96d312"
SPAN_LINE = f'"op" source="s" spanId="{SPAN}" traceId="{TRACE}" "k"="v" 1700000000123 4\n'
ENTRY = {"timestamp": 1_700_000_000_123_456, "fields": {"annotation": "ss"}}

trace_port = SpanLogReader(Limits())
direct = SpanLogReader(Limits(), policy_member=True)
before_8_1 = SpanLogReader(Limits(), span_member=False)


def log(**changes: Any) -> str:
    members = {"traceId": TRACE, "spanId": SPAN, "logs": [ENTRY]} | changes
    return json.dumps({key: value for key, value in members.items() if value is not ...})


def read(text: str, by: SpanLogReader = trace_port) -> TakenSpanLog:
    return by.read(text, 0)


def refusal(text: str, by: SpanLogReader = trace_port) -> str:
    with pytest.raises(Refused) as refused:
        read(text, by)
    return refused.value.reason


def test_the_secondary_id_may_be_named_either_way() -> None:
    assert read(log(spanSecondaryId="server")).identity == (TRACE, SPAN, "server")
    assert read(log(_spanSecondaryId="client")).identity == (TRACE, SPAN, "client")
    both = log(spanSecondaryId="server", _spanSecondaryId="client")
    assert read(both).identity == (TRACE, SPAN, "server")
    assert read(log(spanSecondaryId=None)).identity == (TRACE, SPAN, "")


def test_entries_are_counted_and_may_lie_before_all_time() -> None:
    oversize = {"timestamp": -1, "fields": {"k": "long"}}
    assert read(log(logs=[ENTRY, oversize], span=None, customer="dummy")).entries == 2
    assert read(log(logs=[])).entries == 0


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        log() + "}",
        log(traceId=...),
        log(traceId=None),
        log(spanId=7),
        log(logs=...),
        log(logs=None),
        log(logs={}),
        log(logs=["x"]),
        log(logs=[{"fields": {}}]),
        log(logs=[{"timestamp": "1", "fields": {}}]),
        log(logs=[{"timestamp": 1.5, "fields": {}}]),
        log(logs=[{"timestamp": True, "fields": {}}]),
        log(logs=[{"timestamp": 2**63, "fields": {}}]),
        log(logs=[{"timestamp": 1}]),
        log(logs=[{"timestamp": 1, "fields": []}]),
        '{"a":' * 5_000,
    ],
)
def test_what_is_no_span_log_is_refused(text: str) -> None:
    assert refusal(text) == "json"


def test_a_field_that_is_no_text_is_a_warning() -> None:
    assert read(log(logs=[{"timestamp": 1, "fields": {"n": 1}}])).warnings == ("field_no_text",)


def test_a_proxy_wants_a_span_line_where_direct_ingestion_takes_a_policy() -> None:
    for reader in (trace_port, direct, before_8_1):
        read(log(span=SPAN_LINE), reader)
        read(log(span=None), reader)
    policy = log(span="_sampledByPolicy=NONE")
    read(policy, direct)
    read(policy, before_8_1)
    assert refusal(policy) == "span_member"
    assert refusal(log(span="junk"), direct) == "span_member"


def test_the_backends_size_limit_is_a_warning_until_it_is_asked_for() -> None:
    def sized(size: int) -> str:
        entry = {
            "timestamp": 1,
            "fields": {"a": "x" * (size - len(log(logs=[{"timestamp": 1, "fields": {"a": ""}}])))},
        }
        text = log(logs=[entry])
        assert len(text) == size
        return text

    strict = SpanLogReader(Limits.chosen(tags_max=50, backend_limits=True))
    assert read(sized(32_768)).warnings == read(sized(32_768), strict).warnings == ()
    assert read(sized(32_769)).warnings == ("span_log_above_backend_limit",)
    assert refusal(sized(32_769), strict) == "span_log_too_long"


def test_size_is_in_bytes() -> None:
    entry = {"timestamp": 1, "fields": {"a": "é" * 16_400}}
    text = json.dumps({"traceId": TRACE, "spanId": SPAN, "logs": [entry]}, ensure_ascii=False)
    assert len(text) < 32_768
    assert read(text).warnings == ("span_log_above_backend_limit",)
