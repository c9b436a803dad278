from typing import Any

import pytest

from tracefwd.errors import ConfigError
from tracefwd.exporter.endpoint import endpoints, shown, tcp_address
from tracefwd.model import Signal
from tracefwd.settings import TargetSettings

ALL = (Signal.SPANS, Signal.SPAN_LOGS, Signal.POINTS, Signal.DISTRIBUTIONS)


def urls(**changes: Any) -> list[str]:
    found = endpoints(TargetSettings(**changes))
    return [found[signal] for signal in ALL]


def test_a_proxy_gets_traces_at_one_port_and_metrics_at_the_other_as_given() -> None:
    traces, metrics = "http://proxy:30000", "http://proxy:2878/any/path"
    assert urls(traces=traces, metrics=metrics) == [traces, traces, metrics, metrics]


def test_a_url_that_names_a_format_names_each_signals_own() -> None:
    assert urls(traces="http://p:2878/?f=trace", metrics="http://p:2878/?f=wavefront&x=") == [
        "http://p:2878/?f=trace",
        "http://p:2878/?f=spanLogs",
        "http://p:2878/?f=wavefront&x=",
        "http://p:2878/?f=histogram&x=",
    ]
    assert urls(traces="http://p/?a=1&format=trace", metrics="http://p/")[1] == (
        "http://p/?a=1&format=spanLogs"
    )


@pytest.mark.parametrize(
    "url",
    [
        "https://x.wavefront.com",
        "https://x.wavefront.com/",
        "https://x.wavefront.com//report",
        "https://x.wavefront.com/report/",
        "https://x.wavefront.com/report?f=wavefront",
    ],
)
def test_direct_ingestion_reports_once_whatever_the_slashes(url: str) -> None:
    assert urls(kind="direct", url=url) == [
        f"https://x.wavefront.com/report?f={f}"
        for f in ("trace", "spanLogs", "wavefront", "histogram")
    ]


def test_a_path_before_report_stays() -> None:
    assert urls(kind="direct", url="https://x//a///b/")[0] == "https://x/a/b/report?f=trace"


def test_a_signal_without_a_url_is_left_out() -> None:
    assert set(endpoints(TargetSettings(traces="http://p:1"))) == {Signal.SPANS, Signal.SPAN_LOGS}


def test_what_is_shown_has_no_user_password_or_query() -> None:
    assert shown("https://user:pass@h:8443/report?f=trace&key=abc") == "https://h:8443/report"
    assert shown("tcp://h:30000") == "tcp://h:30000"


def test_tcp_addresses() -> None:
    assert tcp_address("tcp://proxy:30000") == ("proxy", 30000)
    assert tcp_address("tcp://[::1]:30000") == ("::1", 30000)
    for wrong in ("tcp://proxy", "tcp://:30000", "tcp://proxy:0x"):
        with pytest.raises(ConfigError, match="tcp://HOST:PORT"):
            tcp_address(wrong)
