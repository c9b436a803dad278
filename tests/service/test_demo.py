"""Promises of the demo: it runs with nothing outside, shows where to look, and tells the truth in its last line."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

from tracefwd.errors import StartError
from tracefwd.generator.report import Report
from tracefwd.service import demo, tally
from tracefwd.service.demo import Screen, missing, summary, where_to_look

LAST_LINE = re.compile(r"ledger balanced: received (\d+) = delivered \1")


def good_report(spans: int = 100) -> Report:
    report = Report(scheduled=spans, sent=spans, acked=spans, posts=spans // 5, seconds=3.0)
    report.latencies.add(0.002)
    return report


def good_ledger(spans: int = 100) -> dict[str, Any]:
    ledger = tally.empty_ledger()
    ledger.update(received=spans, delivered=spans)
    ledger["points"].update(received=spans, delivered=spans)
    return ledger


def good_totals(spans: int = 100) -> dict[str, Any]:
    signal_totals = {"accepted": spans, "rejected": 0, "by_reason": {}, "warnings": {}}
    return {
        **{name: dict(signal_totals) for name in ("spans", "span_logs", "points")},
        "distributions": {**signal_totals, "count": spans, "sum": 1.0},
        "deltas": {"red": {"invocation.count": float(spans), "error.count": 3.0}},
        "duplicates": 0,
    }


def test_nothing_is_missing_when_all_three_counts_agree() -> None:
    assert list(missing(good_report(), good_ledger(), good_totals())) == []


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda r, _l, _t: setattr(r, "acked", 90), "10 of 100 spans were not acknowledged"),
        (lambda r, _l, _t: setattr(r, "connect_errors", 2), "without a connection 2 posts"),
        (lambda _r, b, _t: b.update(delivered=99), "the ledger delivered 99 of 100"),
        (lambda _r, b, _t: b.update(delivered=99), "NOT balanced"),
        (lambda _r, b, _t: b.update(received=99, delivered=99), "the ledger received 99 of 100"),
        (lambda _r, b, _t: b["points"].update(received=107), "points +7"),
        (
            lambda _r, _l, t: t["points"].update(accepted=99),
            "the stand-in accepted 99 of 100 points",
        ),
        (lambda _r, _l, t: t["spans"].update(accepted=101), "the stand-in accepted 101 of 100"),
        (
            lambda _r, _l, t: t["deltas"]["red"].update({"invocation.count": 98.0}),
            "RED's invocation counters add up to 98 of 100",
        ),
        (lambda _r, _l, t: t["distributions"].update(count=97), "distributions count 97 of 100"),
        (
            lambda _r, _l, t: t["points"].update(rejected=2, by_reason={"name": 2}),
            "refused 2 points: {'name': 2}",
        ),
        (lambda _r, _l, t: t.update(duplicates=1), "1 spans twice"),
    ],
)
def test_whatever_does_not_agree_is_said(
    spoil: Callable[[Report, dict[str, Any], dict[str, Any]], object], complaint: str
) -> None:
    report, ledger, totals = good_report(), good_ledger(), good_totals()
    spoil(report, ledger, totals)
    assert any(complaint in sentence for sentence in missing(report, ledger, totals))


def test_the_summary_shows_spans_series_errors_and_losses() -> None:
    ledger = good_ledger()
    ledger.update(held=4, rejected={"syntax": 2}, dropped={"crash": 3})
    samples = {
        "tracefwd_red_active_series": {(): 31.0},
        "tracefwd_scraper_points_total": {("mesh",): 12.0},
    }
    text = summary(good_report(), ledger, samples, good_totals())
    for part in (
        "in 100",
        "out 100",
        "held 4",
        "lost 5",
        "points scraped 12",
        "RED series 31",
        "errors 3",
        "p99 2.0 ms",
    ):
        assert part in text


def test_where_to_look_names_intake_istio_admin_and_stand_in() -> None:
    text = "\n".join(
        where_to_look(
            "http://127.0.0.1:1", "http://127.0.0.1:2", "http://127.0.0.1:3", "http://127.0.0.1:4"
        )
    )
    assert text.index("http://127.0.0.1:2/ (open it") < text.index("http://127.0.0.1:1")
    assert "http://127.0.0.1:1/api/v2/spans" in text
    assert "zipkin.address: 127.0.0.1:1" in text
    assert "http://127.0.0.1:2/metrics" in text
    assert "http://127.0.0.1:2/ledger" in text
    assert "http://127.0.0.1:3/totals" in text
    assert "scraped    http://127.0.0.1:4" in text


def shown(monkeypatch: pytest.MonkeyPatch, *, terminal: bool, no_color: bool) -> str:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1" if no_color else "")
    written: list[str] = []
    screen = Screen(written.append)
    screen.live("one")
    screen.live("two")
    screen.verdict("done", good=True)
    return "".join(written)


def test_without_a_terminal_the_summary_is_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, terminal=False, no_color=False) == "one\ntwo\ndone\n"


def test_on_a_terminal_the_summary_stays_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(monkeypatch, terminal=True, no_color=False)
    assert text == "\rone\x1b[K\rtwo\x1b[K\n\x1b[32mdone\x1b[0m\n"
    assert shown(monkeypatch, terminal=True, no_color=True).endswith("\ndone\n")


class FailingService:
    """Starts, and then loses a worker for good."""

    def __init__(self, *_: object) -> None:
        self.intake_url = self.admin_url = "http://127.0.0.1:1"
        self.stopped = False

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        self.stopped = True

    async def failed(self) -> StartError:
        await asyncio.sleep(0)
        return StartError("worker 0 could not start: no reason")


def test_a_worker_that_cannot_be_replaced_ends_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "Service", FailingService)
    with pytest.raises(StartError, match="worker 0 could not start"):
        demo.run(60.0, 100.0)


@pytest.mark.parametrize("otlp", [False, True])
def test_the_demo_balances_and_says_so_in_its_last_line(
    capsys: pytest.CaptureFixture[str], otlp: bool
) -> None:
    assert demo.run(2.0, 400.0, otlp) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("OTLP over gRPC" in line for line in lines) is otlp
    found = LAST_LINE.match(lines[-1])
    assert found is not None
    assert found[1] == "800"
    scraped = re.search(r"([\d,]+) of the points were scraped", "\n".join(lines))
    assert scraped is not None
    # What the mesh of the demo is there to show.
    errors = re.search(r"([\d,]+) of them errors", "\n".join(lines))
    assert errors is not None
    assert int(errors[1].replace(",", "")) > 40
    # Two populations come; only the summed one is sent.
    assert int(scraped[1].replace(",", "")) > 100
    assert sum(" held " in line for line in lines) >= 1


def test_without_seconds_it_runs_until_interrupted_and_then_balances_as_well() -> None:
    command = [
        sys.executable,
        "-c",
        "from tracefwd.service.demo import run; exit(run(None, 300.0))",
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"}
    ) as process:
        assert process.stdout is not None
        output = []
        while not re.search(r"  in [1-9]", line := process.stdout.readline()):
            assert line, output
            output.append(line)
        url = next(text.split()[-1] for text in output if "/ledger" in text)
        with urllib.request.urlopen(url, timeout=5) as answer:
            assert json.load(answer)["received"] > 0
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read().splitlines()
    assert process.returncode == 0
    assert LAST_LINE.match(rest[-1])
