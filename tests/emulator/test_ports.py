"""Which port of which version takes what."""

import pytest

from tracefwd.emulator.ports import Port, ProxyVersion, Signal, count_lines, format_named, signal_of

CURRENT = ProxyVersion.named("current")
OLD = ProxyVersion.named("4.35")


def sorted_by(
    line: str, port: Port, form: Signal | None = None, version: ProxyVersion = CURRENT
) -> tuple[Signal, str | None]:
    signal, refused = signal_of(line, port=port, form=form, version=version)
    return signal, refused.reason if refused is not None else None


@pytest.mark.parametrize(
    ("name", "status", "trace_bytes", "metrics_bytes", "logs", "formats"),
    [
        ("4.35", 204, 4_096, 4_096, False, False),
        ("4.36", 204, 4_096, 4_096, False, False),
        ("4.37", 204, 1_048_576, 4_096, True, False),
        ("4.39", 204, 1_048_576, 32_768, True, False),
        ("5.0", 202, 1_048_576, 32_768, True, False),
        ("6.4", 202, 1_048_576, 32_768, True, False),
        ("7.0", 202, 1_048_576, 32_768, True, True),
        ("13.8", 202, 1_048_576, 32_768, True, True),
        ("current", 202, 1_048_576, 32_768, True, True),
    ],
)
def test_versions_differ_as_the_releases_do(
    name: str, status: int, trace_bytes: int, metrics_bytes: int, logs: bool, formats: bool
) -> None:
    version = ProxyVersion.named(name)
    assert version.status == status
    assert version.line_bytes_max("trace") == trace_bytes
    assert version.line_bytes_max("metrics") == metrics_bytes
    assert (version.trace_span_logs, version.metrics_formats) == (logs, formats)


def test_a_version_that_is_none_is_a_mistake() -> None:
    for name in ("", "new", "4.x"):
        with pytest.raises(ValueError, match="expected 'current'"):
            ProxyVersion.named(name)


def test_on_the_trace_port_everything_is_a_span_but_json() -> None:
    assert sorted_by('"op" k=v', "trace") == ("spans", None)
    assert sorted_by("!M #1 1 a", "trace") == ("spans", None)
    assert sorted_by('{"a":1}', "trace") == ("span_logs", None)
    assert sorted_by('{"a":1', "trace") == ("spans", None)
    assert sorted_by("x", "trace", "span_logs") == ("span_logs", None)
    assert sorted_by('{"a":1}', "trace", None, OLD) == ("span_logs", "not_in_this_version")


def test_the_metrics_port_reads_the_line_unless_the_request_names_a_format() -> None:
    assert sorted_by("a.b 1", "metrics") == ("points", None)
    assert sorted_by('"op" spanId=a', "metrics") == ("points", None)
    assert sorted_by("!M #1 1 a", "metrics") == ("distributions", None)
    assert sorted_by("!Max 1", "metrics") == ("points", None)
    assert sorted_by('{"a":1}', "metrics") == ("span_logs", None)
    assert sorted_by("anything", "metrics", "spans") == ("spans", None)
    assert sorted_by("a\x04b 1", "metrics") == ("points", "eot")
    assert sorted_by("@SourceTag action=add", "metrics") == ("points", "not_imitated")


def test_old_metrics_ports_know_no_formats() -> None:
    assert sorted_by('"op" k=v', "metrics", "spans", OLD) == ("points", None)
    assert sorted_by("!M #1 1 a", "metrics", None, OLD) == ("distributions", None)
    assert sorted_by('{"a":1}', "metrics", None, OLD) == ("points", None)


def test_direct_ingestion_goes_by_the_format_alone() -> None:
    assert sorted_by("!M #1 1 a", "direct") == ("points", None)
    assert sorted_by("!M #1 1 a", "direct", format_named("histogram")) == ("distributions", None)
    assert [format_named(name) for name in ("trace", "spanLogs", "wavefront", "x", None)] == [
        "spans", "span_logs", "points", None, None,
    ]  # fmt: skip


def test_counting_looks_at_first_bytes_only() -> None:
    body = b"a 1\n!M #1 1 a\n{}\nb 2"
    assert count_lines(body, port="metrics", form=None) == {
        "points": 2, "distributions": 1, "span_logs": 1,
    }  # fmt: skip
    assert count_lines(b"x\n{}\n", port="trace", form=None) == {"spans": 1, "span_logs": 1}
    assert count_lines(body, port="direct", form="spans") == {"spans": 4}
    assert count_lines(b"", port="direct", form="spans") == {"spans": 0}
