"""What of a Wavefront proxy's own file touches RED and spans; ``tests/proxy/run.py`` holds it to the real one."""

from pathlib import Path
from typing import Any

import pytest

from tests.service.answering import crosses, loaded, of, proxy
from tracefwd.service.doctor_findings import Finding, Mark
from tracefwd.service.doctor_proxy_conf import findings

PORTS = "traceListenerPorts=30000\npushListenerPorts=2878\n"
RED = "RED on the metrics port"


def told(
    folder: Path,
    text: str,
    *,
    traces: str = "http://p:30000",
    metrics: str = "http://p:2878",
    **more: Any,
) -> list[Finding]:
    conf = folder / "wavefront.conf"
    conf.write_text(f"server=https://x.wavefront.com/api/\ntoken=s3cret-of-nobody-1\n{text}")
    found = findings(conf, loaded(proxy(traces, metrics), **more).settings)
    assert "s3cret-of-nobody-1" not in repr(found)
    return found


def ruled(folder: Path, rules: str) -> Finding:
    (folder / "rules.yaml").write_text(rules)
    return of(told(folder, f"{PORTS}preprocessorConfigFile=/etc/wavefront/rules.yaml\n"), RED)


def test_a_plain_file_is_three_ticks(tmp_path: Path) -> None:
    found = told(tmp_path, PORTS)
    assert [each.mark for each in found] == [Mark.OK] * 3


def test_a_prefix_is_a_warning_that_says_what_it_renames(tmp_path: Path) -> None:
    warning = of(told(tmp_path, f"{PORTS}prefix=acme\n"), RED)
    assert warning.mark is Mark.WARNING
    assert "acme.tracing.derived" in warning.detail
    assert "∆ counters and ~ heartbeats keep their names" in warning.detail
    assert "remove prefix" in warning.advice


def test_scraped_points_are_named_where_there_are_any(tmp_path: Path) -> None:
    source = {"url": "http://h/federate"}
    found = told(tmp_path, f"{PORTS}prefix=acme\n", prometheus_sources=[source])
    assert "scraped points" in of(found, RED).detail
    unscraped = {"prometheus_sources": [source], "service__only": "spans"}
    found = told(tmp_path, f"{PORTS}prefix=acme\n", **unscraped)
    assert "scraped points" not in of(found, RED).detail


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        (
            "{rule: rename, action: replaceRegex, scope: metricName, search: tracing, replace: x}",
            "rule rename changes RED",
        ),
        ("{rule: drop, action: dropTag, tag: shard}", "rule drop changes RED"),
        (
            "{rule: stop, action: block, scope: metricName, match: '.*duration.*'}",
            "rule stop blocks RED",
        ),
        (
            "{rule: line, action: block, scope: pointLine, match: '.*invocation.*'}",
            "rule line blocks RED",
        ),
    ],
)
def test_point_rules_that_touch_red_are_warnings(tmp_path: Path, rules: str, words: str) -> None:
    warning = ruled(tmp_path, f"'2878':\n  - {rules}\n")
    assert warning.mark is Mark.WARNING
    assert words in warning.detail
    assert "tracing.derived" in warning.advice


def test_point_rules_that_leave_red_alone_are_a_tick(tmp_path: Path) -> None:
    other = "{rule: a, action: block, scope: metricName, match: 'jvm.*'}"
    assert ruled(tmp_path, f"'2878':\n  - {other}\n").mark is Mark.OK
    elsewhere = "{rule: a, action: block, scope: metricName, match: '.*'}"
    assert ruled(tmp_path, f"'2879':\n  - {elsewhere}\n").mark is Mark.OK


def test_rules_that_cannot_be_read_are_a_warning(tmp_path: Path) -> None:
    found = told(tmp_path, f"{PORTS}preprocessorConfigFile=/etc/nowhere/rules.yaml\n")
    assert "beside wavefront.conf" in of(found, RED).advice
    assert "correct it" in ruled(tmp_path, "'2878':\n  - {rule: a, action: nonsense}\n").advice


@pytest.mark.parametrize(
    ("line", "is_touched"),
    [
        ("blockRegex=.*tracing.*", True),
        ("blacklistRegex=.*tracing.*", True),
        ("allowRegex=^jvm.*", True),
        ("whitelistRegex=.*", False),
        ("blockRegex=^jvm.*", False),
    ],
)
def test_filters_over_lines_are_tried_on_red(tmp_path: Path, line: str, is_touched: bool) -> None:
    finding = of(told(tmp_path, f"{PORTS}{line}\n"), RED)
    assert finding.mark is (Mark.WARNING if is_touched else Mark.OK)
    assert (line.partition("=")[0] in finding.detail) == is_touched


def test_a_proxy_without_a_trace_port_is_a_cross(tmp_path: Path) -> None:
    found = told(tmp_path, "pushListenerPorts=2878\n")
    assert crosses(found) == ["trace port"]
    assert "add traceListenerPorts=30000" in of(found, "trace port").advice


def test_ports_of_another_number_may_be_mapped_and_are_warnings(tmp_path: Path) -> None:
    found = told(tmp_path, PORTS, traces="http://p:80", metrics="http://p:81")
    for check in ("trace port", "metrics port"):
        assert of(found, check).mark is Mark.WARNING
        assert "maps the port" in of(found, check).advice


def test_a_port_where_the_proxy_derives_red_itself_is_a_warning(tmp_path: Path) -> None:
    found = told(tmp_path, "customTracingListenerPorts=30000\n")
    assert "counts twice" in of(found, "trace port").advice


def test_a_second_sampling_is_a_warning(tmp_path: Path) -> None:
    assert (
        "samples again" in of(told(tmp_path, f"{PORTS}traceSamplingRate=0.5\n"), "sampling").detail
    )
    assert not [
        each
        for each in told(tmp_path, f"{PORTS}traceSamplingRate=1.0\n")
        if each.check == "sampling"
    ]


def test_a_file_that_is_not_there_or_wrong_is_a_cross(tmp_path: Path) -> None:
    settings = loaded(proxy("http://p:30000", "http://p:2878")).settings
    (cross,) = findings(tmp_path / "missing.conf", settings)
    assert cross.mark is Mark.CROSS
    assert "cannot be read" in cross.detail
    found = told(tmp_path, f"{PORTS}pushFlushInterval=soon\n")
    assert crosses(found) == ["file"]


def test_without_a_proxy_among_the_targets_there_is_nothing_to_look_at(tmp_path: Path) -> None:
    conf = tmp_path / "wavefront.conf"
    conf.write_text("prefix=acme\n")
    settings = loaded({"kind": "otlp", "url": "http://h"}).settings
    (skipped,) = findings(conf, settings)
    assert skipped.mark is Mark.SKIPPED
