"""Span lines through the pipeline: the same rules, sampling and ledger; every section balances."""

import json
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import NOW_US
from tests.test_pipeline import Sink, balanced
from tracefwd.exporter.lines import LineWriter
from tracefwd.model import Mapped, Reject, Signal
from tracefwd.pipeline import ACCEPTED, Pipeline
from tracefwd.plan import LineParts
from tracefwd.processor.line_check import make_line_check
from tracefwd.processor.red import RedAggregator
from tracefwd.processor.ruled import RuledMapper
from tracefwd.processor.rules import read_rules
from tracefwd.processor.sampler import make_sampler
from tracefwd.processor.wavefront_proxy_rules import REPAIRED
from tracefwd.receiver.decode import make_decode
from tracefwd.receiver.span_lines import read_lines
from tracefwd.settings import RedSettings, SamplingSettings

START_MS = NOW_US // 1_000 - 5_000
RULES = """
'30000':
- {rule: block, action: spanBlock, scope: spanName, match: "secret.*"}
- {rule: rename, action: spanRenameTag, key: old, newkey: new}
- {rule: shorten, action: spanLimitLength, scope: spanName, actionSubtype: truncate, maxLength: "128"}
"""
# Kept by every rate, and by none but 1: places 0 and 9,999 of 10,000.
FIRST = "00000000-0000-0000-0000-000000000000"
LAST = "00000000-0000-0000-0000-00000000270f"


def line(name: str = "op", trace: str = FIRST, tags: str = "") -> str:
    return f'"{name}" source=s spanId={FIRST} traceId={trace} {tags} {START_MS} 20'


def log(span: str | None = None, trace: str = FIRST, **more: Any) -> str:
    logs = [{"timestamp": 1, "fields": {"a": "b"}}]
    members = {"traceId": trace, "spanId": FIRST, "logs": logs, **more}
    return json.dumps(members if span is None else {**members, "span": span})


def make(
    *sinks: Sink, rules: str = "", direct: bool = False, exact: bool = False, **sampling: Any
) -> Pipeline:
    red = RedSettings()
    ruled = None
    if rules:
        rule_set = read_rules(rules, where="rules", exact=exact).for_port("30000")
        ruled = RuledMapper(lambda decoded, now_us: Mapped([]), rule_set, [])
    return Pipeline(
        decode=make_decode(),
        mapper=lambda decoded, now_us: Mapped([]),
        lines=LineParts(partial(read_lines, exact=exact), make_line_check(REPAIRED), ruled),
        sampler=make_sampler(SamplingSettings(**sampling)),
        red=RedAggregator(red),
        outlets=[(LineWriter(sampled_mark=direct), sinks or [Sink()])],
        now_us=lambda: NOW_US,
    )


def body(*lines: str) -> bytes:
    return "\n".join(lines).encode()


def test_lines_and_logs_are_taken_answered_and_delivered_without_red() -> None:
    sink = Sink()
    pipeline = make(sink)
    assert pipeline.ingest_lines(body(line(), line("two"), log(line())), "") is ACCEPTED
    assert [text.split()[0] for text in sink.lines(Signal.SPANS)] == ['"op"', '"two"']
    assert [json.loads(text) for text in sink.lines(Signal.SPAN_LOGS)] == [json.loads(log())]
    shown = pipeline.ledger()
    assert (shown["received"], shown["delivered"], shown["span_logs"]["received"]) == (2, 2, 1)
    assert balanced(shown)
    assert list(pipeline.tick()) == []
    samples = pipeline.samples()
    assert samples["tracefwd_receiver_accepted_spans_total"] == {("wavefront",): 2}


def test_the_span_member_becomes_a_mark_for_direct_ingestion_alone() -> None:
    sink = Sink()
    make(sink, direct=True).ingest_lines(body(log(line()), log()), "")
    marks = [json.loads(text).get("span") for text in sink.lines(Signal.SPAN_LOGS)]
    assert marks == ["_sampledByPolicy=NONE", None]


def test_a_bad_line_is_accepted_counted_and_shown() -> None:
    pipeline = make()
    answer = pipeline.ingest_lines(body('"bad', line(tags='k=""'), '{"traceId":1}', line()), "")
    assert answer is ACCEPTED
    shown = pipeline.ledger()
    assert (shown["received"], shown["delivered"]) == (3, 1)
    assert shown["rejected"] == {"syntax": 1, "invalid": 1}
    assert shown["span_logs"]["rejected"] == {"invalid": 1}
    assert balanced(shown)
    assert len(pipeline.rejected_samples()) == 3
    assert pipeline.samples()["tracefwd_receiver_rejected_span_logs_total"] == {("invalid",): 1}


def test_only_a_body_without_any_text_is_a_400() -> None:
    pipeline = make()
    answer = pipeline.ingest_lines(b"\xff\x00\x9f", "")
    assert answer.status == 400  # type: ignore[union-attr]
    for text in (b"", b"\n", b"garbage", b"\xff\ngarbage"):
        assert pipeline.ingest_lines(text, "") is ACCEPTED
    assert pipeline.ledger()["rejected"] == {"syntax": 4}
    assert balanced(pipeline.ledger())


@pytest.mark.parametrize("sampling", [{}, {"spans_per_second_max": 1_000}])
def test_sampling_judges_spans_and_logs_alike(sampling: dict[str, Any]) -> None:
    sink = Sink()
    pipeline = make(sink, rate=0.5, **sampling)
    pipeline.ingest_lines(
        body(
            line(),
            line(trace=LAST),
            line(trace=LAST, tags="debug=true"),
            log(line(), n=1),
            log(line(trace=LAST), n=2),
            log(trace=LAST, n=3),
        ),
        "",
    )
    assert len(sink.lines(Signal.SPANS)) == 2
    assert [json.loads(text)["n"] for text in sink.lines(Signal.SPAN_LOGS)] == [1, 3]
    shown = pipeline.ledger()
    assert (shown["sampled_out"], shown["span_logs"]["sampled_out"]) == (1, 1)
    assert balanced(shown)


def test_logs_are_no_load_for_the_ceiling() -> None:
    sink = Sink()
    pipeline = make(sink, spans_per_second_max=1)
    pipeline.ingest_lines(body(*[log(line())] * 50), "")
    assert len(sink.lines(Signal.SPAN_LOGS)) == 50
    pipeline.ingest_lines(body(line()), "")
    assert len(sink.lines(Signal.SPANS)) == 1


def test_rules_come_first_and_the_check_sees_what_they_leave() -> None:
    sink = Sink()
    pipeline = make(sink, rules=RULES)
    long = "n" * 200
    pipeline.ingest_lines(
        body(
            line("secret one"),
            line(long),
            line(tags="old=x"),
            log(line("secret")),
            log(line("open")),
        ),
        "",
    )
    spans = sink.lines(Signal.SPANS)
    assert len(spans) == 2
    assert spans[0].startswith('"' + "n" * 128 + '"')
    assert '"new"="x"' in spans[1]
    shown = pipeline.ledger()
    assert (shown["blocked"], shown["span_logs"]["blocked"]) == (1, 1)
    assert (shown["received"], shown["rejected"]) == (3, {})
    assert balanced(shown)


LINE_RULES = r"""
'30000':
- {rule: rename, action: replaceRegex, scope: pointLine, search: '"old"=', replace: '"new"='}
- {rule: mangle, action: replaceRegex, scope: pointLine, search: '^"break.*', replace: 'no span'}
- {rule: grow, action: replaceRegex, scope: pointLine, search: 'grow', replace: 'growgrow', iterations: 40}
- {rule: quiet, action: block, scope: pointLine, match: '.*secret.*'}
- {rule: named, action: spanBlock, scope: new, match: 'by its new key'}
"""


def line_ruled(sink: Sink, *, exact: bool = False) -> Pipeline:
    return make(sink, rules=LINE_RULES, exact=exact)


def test_line_rules_see_lines_before_they_are_read_and_span_rules_what_they_leave() -> None:
    sink = Sink()
    pipeline = line_ruled(sink)
    pipeline.ingest_lines(
        body(
            line(tags='"old"="x"'),
            line("break"),
            line("grow"),
            line(tags='k="a secret"'),
            # A rule may save what could not be read, and keep out what is none.
            line(tags='"old"="by its new key"'),
            "secret garbage",
        ),
        "",
    )
    first, second = sink.lines(Signal.SPANS)
    assert '"new"="x"' in first
    assert second.startswith('"grow"'), "a rule that cannot be applied is left out for this line"
    shown = pipeline.ledger()
    assert (shown["received"], shown["blocked"], shown["delivered"]) == (6, 3, 2)
    assert shown["rejected"] == {"syntax": 1}
    assert balanced(shown)
    counts = pipeline.samples()["tracefwd_rules_spans_total"]
    assert [counts["quiet", key] for key in ("checked", "blocked")] == [6, 2]
    assert counts["grow", "failed"] == 1
    assert counts["rename", "applied"] == 2


def test_a_span_logs_span_goes_through_the_line_rules() -> None:
    sink = Sink()
    pipeline = line_ruled(sink)
    logs = [
        log(line("a secret") + "\n", n=1),
        log(line("open"), n=2, note="a secret"),
        log(line("break"), n=3),
        log(line(tags='"old"="by its new key"'), n=4),
        log(n=5),
    ]
    pipeline.ingest_lines(body(*logs), "")
    assert [json.loads(text)["n"] for text in sink.lines(Signal.SPAN_LOGS)] == [2, 5]
    shown = pipeline.ledger()["span_logs"]
    assert (shown["received"], shown["blocked"], shown["rejected"]) == (5, 2, {"syntax": 1})
    assert balanced(pipeline.ledger())


def test_in_exact_mode_what_keeps_lines_out_looks_at_a_span_logs_json() -> None:
    sink = Sink()
    line_ruled(sink, exact=True).ingest_lines(body(log(line("open"), n=2, note="a secret")), "")
    assert sink.lines(Signal.SPAN_LOGS) == []


def test_a_line_feed_from_a_rule_stays_within_its_line() -> None:
    sink = Sink()
    text = r"""
'30000':
- {rule: feed, action: replaceRegex, scope: pointLine, search: 'here', replace: "x\ny"}
- {rule: add, action: spanAddTag, key: more, value: z}
"""
    pipeline = make(sink, rules=text)
    pipeline.ingest_lines(body(line(tags='"k"="here"')), "")
    [found] = sink.lines(Signal.SPANS)
    assert r'"k"="x\ny" "more"="z"' in found


def test_exchanged_line_rules_hold_from_the_next_body_on() -> None:
    sink = Sink()
    pipeline = line_ruled(sink)
    assert pipeline.line_ruled is not None
    pipeline.ingest_lines(body(line("secret")), "")
    pipeline.line_ruled.exchange(
        read_rules("'1': []", where="rules", exact=False).for_port("30000")
    )
    pipeline.ingest_lines(body(line("secret")), "")
    assert len(sink.lines(Signal.SPANS)) == 1
    assert pipeline.samples()["tracefwd_rules_spans_total"]["quiet", "blocked"] == 1


def test_a_sampled_out_span_is_not_checked() -> None:
    pipeline = make(rate=0.0)
    pipeline.ingest_lines(body(line(trace=LAST, tags='k=""')), "")
    shown = pipeline.ledger()
    assert (shown["sampled_out"], shown["rejected"]) == (1, {})
    assert balanced(shown)


def test_lines_that_never_came_whole_are_counted_where_they_belong() -> None:
    pipeline = make()
    pipeline.refuse_line(Reject("syntax", "a line over TCP", "cut", b'"x'), is_log=False)
    pipeline.refuse_line(Reject("invalid", "a line over TCP", "long", b"{"), is_log=True)
    shown = pipeline.ledger()
    assert (shown["rejected"], shown["span_logs"]["rejected"]) == ({"syntax": 1}, {"invalid": 1})
    assert balanced(shown)
    assert len(pipeline.rejected_samples()) == 2


def test_a_target_without_span_logs_counts_them_as_unsendable() -> None:
    pipeline = make()
    writer = LineWriter(span_logs=False)
    [payload] = writer.write_span_logs(read_lines(body(log())).logs)
    assert payload.unsendable == 1
    assert balanced(pipeline.ledger())


PIECES = st.sampled_from(
    [
        line(),
        line(trace=LAST),
        line("secret"),
        line(tags='k=""'),
        line(tags=f'k="{"v" * 200}"'),
        line("n" * 200),
        log(),
        log(line()),
        log(line("secret")),
        log(line(trace=LAST)),
        log("_sampledByPolicy=NONE"),
        "{}",
        '"bad',
        "",
        "\udc80",
    ]
)


@given(
    st.lists(st.lists(PIECES, max_size=8), max_size=4),
    st.booleans(),
    st.sampled_from([{}, {"rate": 0.5}, {"rate": 1.0, "spans_per_second_max": 2}]),
)
@settings(deadline=None, max_examples=150)
def test_the_ledger_balances_whatever_comes(
    bodies: list[list[str]],
    rules: bool,
    sampling: dict[str, Any],
) -> None:
    sink = Sink()
    pipeline = make(
        sink, rules=RULES + LINE_RULES.replace("30000", "1") if rules else "", **sampling
    )
    total = 0
    for lines in bodies:
        pipeline.ingest_lines("\n".join(lines).encode("utf-8", "surrogateescape"), "")
        total += sum(1 for text in lines if text)
        shown = pipeline.ledger()
        assert balanced(shown)
        own_logs = sum(b"dummy" in text.encode() for text in sink.lines(Signal.SPAN_LOGS))
        assert shown["received"] + shown["span_logs"]["received"] - own_logs == total
