"""The made-up Prometheus: a body that others can read, with the traps of the real one."""

from prometheus_client.parser import text_string_to_metric_families

from tracefwd.generator.federation import EDGES, FILTERS, federated
from tracefwd.metricspath.translate import Translation
from tracefwd.settings import FilterSettings, MetricsSettings, PrometheusSourceSettings

NOW_MS = 1_795_000_000_123


def test_the_reference_parser_reads_it() -> None:
    families = list(text_string_to_metric_families(federated(60.0, NOW_MS)))
    assert {family.type for family in families} == {"unknown"}
    assert all(sample.timestamp for family in families for sample in family.samples)
    names = {family.name for family in families}
    assert {"istio_requests_total", "istio_build", "pilot_services"} <= names


def test_time_alone_decides() -> None:
    assert federated(60.0, NOW_MS) == federated(60.0, NOW_MS)
    assert federated(120.0, NOW_MS) != federated(60.0, NOW_MS)


def test_both_populations_come_under_one_name_and_the_deny_list_parts_them() -> None:
    source = PrometheusSourceSettings(filters=FilterSettings(**FILTERS))  # type: ignore[arg-type]
    scrape = Translation(source, MetricsSettings()).begin(NOW_MS / 1000)
    payloads = scrape.feed(federated(60.0, NOW_MS).encode()) + scrape.finish(complete=True)
    lines = [line for payload in payloads for line in payload.data.decode().splitlines()]
    requests = [line for line in lines if line.startswith('"istio.requests.total.value"')]
    assert len(requests) == 2 * len(EDGES)
    assert scrape.counts.dropped["tag_denied"] == 2 * len(EDGES)
    assert scrape.counts.dropped["nan"] > 0
    assert not scrape.counts.bad_lines
