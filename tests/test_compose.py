"""Which bytes a target gets is decided by what it is, and by how old."""

import pytest

from tracefwd.compose import writer_key
from tracefwd.settings import ExporterSettings, Settings, TargetSettings

TCP = TargetSettings(traces="tcp://p:30000", metrics="tcp://p:2878")
HTTP = TargetSettings(traces="http://p:30000", metrics="http://p:2878")
DIRECT = TargetSettings(kind="direct", url="https://x")


@pytest.mark.parametrize(
    ("target", "version", "spans", "points"),
    [
        (TCP, "4.35", 4_096, 4_096),
        (TCP, "4.36", 4_096, 4_096),
        (TCP, "4.37", 0, 4_096),
        (TCP, "4.39", 0, 32_768),
        (TCP, "current", 0, 32_768),
        (HTTP, "4.35", 0, 0),
        (HTTP, "current", 0, 0),
        (DIRECT, "4.35", 0, 0),
    ],
)
def test_lines_over_tcp_are_as_long_as_the_proxys_release_reads_them(
    target: TargetSettings, version: str, spans: int, points: int
) -> None:
    key = writer_key(target, Settings(exporter=ExporterSettings(proxy_version=version)))
    assert (key.line_bytes_max, key.point_line_bytes_max) == (spans, points)
