"""The comparison behind ``make real-proxy`` sees every difference that matters, and none that does not."""

import gzip
import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.proxy.backend import Backend
from tests.proxy.books import Books, differences

SPAN = (
    '"get" source="pod" spanId="00000000-0000-0000-0000-000000000001" '
    'traceId="00000000-0000-0000-0000-000000000002" "application"="shop" "service"="cart" '
    '"span.kind"="server" "a"="1" "a"="2" 1700000000123 4'
)
LOG = json.dumps(
    {
        "traceId": "00000000-0000-0000-0000-000000000002",
        "spanId": "00000000-0000-0000-0000-000000000001",
        "spanSecondaryId": "server",
        "logs": [{"timestamp": 1700000000123456, "fields": {"annotation": "ss"}}],
    }
)
DELTA = (
    '"∆tracing.derived.shop.cart.get.invocation.count" 3 1700000000 source="cart" "service"="cart"'
)
BINS = '!M 1699999980 {} "tracing.derived.shop.cart.get.duration.micros" source="cart"'
BEAT = '"~component.heartbeat" 1 1700000000 source="cart" "component"="proxy"'


def books(**lines: list[str]) -> Books:
    filled = Books()
    for signal, some in lines.items():
        filled.add(signal, some)
    return filled


def told(sent: Books, arrived: Books) -> dict[str, list[str]]:
    return {signal: texts for signal, texts in differences(sent, arrived).items() if texts}


def test_order_of_lines_and_the_proxys_own_marks_are_no_difference() -> None:
    other = SPAN.replace("000000000001", "000000000003")
    marked = json.dumps(json.loads(LOG) | {"customer": "x", "span": "_sampledByPolicy=NONE"})
    sent = books(spans=[SPAN, other], span_logs=[LOG])
    assert not told(sent, books(spans=[other, SPAN], span_logs=[marked]))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"a"="1" "a"="2"', '"a"="2" "a"="1"'),
        ('"get"', '"put"'),
        ("23 4", "23 5"),
        ("123 4", "124 4"),
        ('"pod"', '"pop"'),
        ('"span.kind"="server"', '"span.kind"="client"'),
    ],
)
def test_any_field_of_a_span_is_a_difference(old: str, new: str) -> None:
    assert old in SPAN
    assert told(books(spans=[SPAN]), books(spans=[SPAN.replace(old, new)])).keys() == {"spans"}


def test_lost_and_doubled_lines_are_differences() -> None:
    once, twice = books(spans=[SPAN], span_logs=[LOG]), books(spans=[SPAN] * 2, span_logs=[LOG] * 2)
    assert told(once, twice).keys() == {"spans", "span logs"}
    assert told(twice, once).keys() == {"spans", "span logs"}


def test_an_entry_of_a_span_log_is_a_difference() -> None:
    changed = books(span_logs=[LOG.replace("123456", "123457")])
    assert told(books(span_logs=[LOG]), changed).keys() == {"span logs"}


def test_delta_counters_count_by_their_sum() -> None:
    sent = books(points=[DELTA, DELTA])
    assert not told(sent, books(points=[DELTA.replace(" 3 ", " 6.0 ")]))
    assert told(sent, books(points=[DELTA])).keys() == {"delta counters"}


def test_distributions_count_by_their_count_and_sum_per_minute() -> None:
    sent = books(distributions=[BINS.format("#1 10 #3 20")])
    assert not told(sent, books(distributions=[BINS.format("#4 17.5")]))
    assert not told(sent, books(distributions=[BINS.format("#1 10"), BINS.format("#3 20")]))
    for other in ("#4 17.50001", "#3 20", "#2 35"):
        assert told(sent, books(distributions=[BINS.format(other)])).keys() == {"distributions"}
    later = BINS.format("#4 17.5").replace("1699999980", "1700000040")
    assert told(sent, books(distributions=[later])).keys() == {"distributions"}


def test_heartbeats_are_a_set() -> None:
    sent = books(points=[BEAT])
    assert not told(sent, books(points=[BEAT, BEAT]))
    assert told(sent, Books()).keys() == {"heartbeats"}
    assert told(Books(), sent).keys() == {"heartbeats"}


def test_a_line_that_nobody_can_read_is_told() -> None:
    assert told(Books(), books(spans=["no span"])).keys() == {"unreadable"}


def test_the_backend_keeps_what_it_is_sent_and_answers_check_ins() -> None:
    def post(port: int, path: str, body: bytes, **headers: str) -> bytes:
        url = f"http://127.0.0.1:{port}/api/v2/wfproxy/{path}"
        sent = urllib.request.Request(url, body, headers)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(sent, timeout=10) as answer:
            whole: bytes = answer.read()
        return whole

    with Backend() as backend:
        zipped = gzip.compress("é\u2028\nb\n".encode())
        post(backend.port, "report?format=trace", zipped, **{"Content-Encoding": "gzip"})
        metrics = {"spans.1.rejected$7": {"tags": {}, "value": 2}, "jvm": {"vm": {}}}
        answer = json.loads(post(backend.port, "checkin?x=1", json.dumps(metrics).encode()))
        assert backend.lines() == {"trace": ["é\u2028", "b"]}
        assert answer["validationConfiguration"]["spanAnnotationsCountLimit"] == 50
        assert backend.counters(0.0) == {"spans.1.rejected": 2}
        assert not backend.problems


def run_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    script = Path(__file__).with_name("run.py")
    command = [sys.executable, str(script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_without_a_jar_it_skips_loudly_and_says_how_to_get_one() -> None:
    done = run_command()
    assert done.returncode == 0
    assert "SKIPPED" in done.stdout
    assert "tests/proxy/build.sh" in done.stdout


def test_without_java_it_skips_loudly() -> None:
    done = run_command("--jar", __file__, "--java", "no-such-java")
    assert done.returncode == 0
    assert "SKIPPED" in done.stdout
    assert "missing JAVA" in done.stdout
