"""The metrics page is complete, well-formed, and means what the samples say."""

import math
import shutil
import subprocess

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tracefwd.metrics import ANSWER_BUCKETS_S, BY_NAME, CATALOGUE, Samples
from tracefwd.service.exposition import render

DURATION = "tracefwd_receiver_request_duration_seconds"


def full_samples() -> Samples:
    """At least one series for every metric."""
    samples: Samples = {
        metric.name: {tuple(f"{label}-value" for label in metric.labels): 2.0}
        for metric in CATALOGUE
        if metric.kind != "histogram"
    }
    edges = [f"{edge:g}" for edge in ANSWER_BUCKETS_S] + ["+Inf"]
    samples[f"{DURATION}_bucket"] = {(edge,): float(i) for i, edge in enumerate(edges)}
    samples[f"{DURATION}_sum"] = {(): 0.125}
    samples[f"{DURATION}_count"] = {(): float(len(edges) - 1)}
    return samples


def parsed(page: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


@pytest.mark.parametrize("samples", [{}, full_samples()], ids=["empty", "full"])
def test_every_metric_of_the_catalogue_appears_with_help_and_type(samples: Samples) -> None:
    page = render(samples)
    for metric in CATALOGUE:
        assert f"# HELP {metric.name} " in page
        assert f"# TYPE {metric.name} {metric.kind}\n" in page
    assert page.count("# TYPE") == len(CATALOGUE)


def test_what_nobody_counted_yet_is_zero() -> None:
    page = parsed(render({}))
    assert page["tracefwd_receiver_connections_total", ()] == 0
    assert page[f"{DURATION}_count", ()] == 0
    assert page[f"{DURATION}_bucket", (("le", "+Inf"),)] == 0
    assert not any(name == "tracefwd_exporter_queue_items" for name, _ in page)


def test_values_labels_and_buckets_survive_the_round_trip() -> None:
    samples = full_samples()
    page = parsed(render(samples))
    assert page[f"{DURATION}_sum", ()] == 0.125
    assert page[f"{DURATION}_bucket", (("le", "0.0005"),)] == 0
    assert page["tracefwd_build_info", (("python", "python-value"), ("version", "version-value"))]
    series = sum(len(by_labels) for by_labels in samples.values())
    assert len(page) == series


def test_label_values_are_escaped() -> None:
    odd = 'a"b\\c\nd'
    page = parsed(render({"tracefwd_receiver_requests_total": {(odd,): 1}}))
    assert page["tracefwd_receiver_requests_total", (("code", odd),)] == 1


def test_buckets_come_in_ascending_order() -> None:
    samples = full_samples()
    buckets = samples[f"{DURATION}_bucket"]
    samples[f"{DURATION}_bucket"] = dict(reversed(buckets.items()))
    edges = [
        float(line.split('"')[1])
        for line in render(samples).splitlines()
        if line.startswith(f"{DURATION}_bucket")
    ]
    assert edges == sorted(edges)
    assert edges[-1] == math.inf


def test_numbers_read_as_what_they_are() -> None:
    page = render(
        {
            "tracefwd_receiver_connections": {(): 12.0},
            "tracefwd_receiver_request_bytes_total": {(): 123_456_789_012_345_678},
            "tracefwd_ledger_spans": {("held",): 0.5},
        }
    )
    assert "\ntracefwd_receiver_connections 12\n" in page
    assert "\ntracefwd_receiver_request_bytes_total 123456789012345678\n" in page
    assert 'tracefwd_ledger_spans{state="held"} 0.5\n' in page


def test_labels_that_do_not_fit_the_catalogue_are_a_bug() -> None:
    with pytest.raises(AssertionError, match="tracefwd_receiver_requests_total"):
        render({"tracefwd_receiver_requests_total": {(): 1}})


def test_every_metric_has_a_unit_suffix_that_fits_its_kind() -> None:
    for metric in BY_NAME.values():
        assert metric.name.startswith("tracefwd_")
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name


@pytest.mark.parametrize("samples", [{}, full_samples()], ids=["empty", "full"])
def test_promtool_finds_nothing_to_say(samples: Samples) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip(
            "promtool is not installed: the metrics page is not linted by Prometheus' own tool"
        )
    done = subprocess.run(
        [promtool, "check", "metrics"], input=render(samples), capture_output=True, text=True
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
