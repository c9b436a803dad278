"""The catalogue of tracefwd's own metrics, and the one type that carries their values.

A metric exists only if it is declared here: name, kind, labels, meaning.  Names mirror the OpenTelemetry
Collector's families under the prefix ``tracefwd_``; every label has a closed or configured set of values.

Workers count in plain integers and hand over ``Samples`` when asked; the parent adds them up, so
every metric, gauges included, must make sense as a sum over workers.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """One family.  ``kind`` is counter, gauge or histogram (buckets in ``ANSWER_BUCKETS_S``)."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str


Samples = dict[str, dict[tuple[str, ...], float]]
"""Metric name -> label values -> value.  A histogram is its cumulative ``le`` series plus ``_sum`` and ``_count``."""

# From a fast answer on loopback to Envoy's own time-out (5 s).
ANSWER_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)

CATALOGUE: tuple[Metric, ...] = (
    # receiver
    Metric(
        "tracefwd_receiver_requests_total", "counter", ("code",), "Requests answered, by status."
    ),
    Metric(
        "tracefwd_receiver_grpc_requests_total",
        "counter",
        ("code",),
        "Calls over gRPC answered, by the name of their status.",
    ),
    Metric(
        "tracefwd_receiver_request_bytes_total",
        "counter",
        (),
        "Bytes of request bodies as they came, before inflation.",
    ),
    Metric(
        "tracefwd_receiver_request_duration_seconds",
        "histogram",
        (),
        "From a request's last byte to its answer's handing over to the kernel.",
    ),
    Metric("tracefwd_receiver_connections", "gauge", (), "Open connections."),
    Metric("tracefwd_receiver_connections_total", "counter", (), "Connections accepted."),
    Metric(
        "tracefwd_receiver_connections_closed_total",
        "counter",
        ("reason",),
        "Connections that tracefwd closed (age, idle, slow_headers, slow_body, slow_reader, too_large, protocol, too_many, drain, not_allowed, per_address, handshake, no_token, no_room, memory).",
    ),
    Metric(
        "tracefwd_receiver_refused_requests_total",
        "counter",
        ("reason",),
        "Requests refused before their body was decoded, so that they are not in the ledger: memory, no_room, too_many (503), token (401).",
    ),
    Metric(
        "tracefwd_receiver_refused_bytes_total",
        "counter",
        ("reason",),
        "Bytes of their bodies, as far as they had come.",
    ),
    Metric(
        "tracefwd_receiver_accepted_spans_total",
        "counter",
        ("format",),
        "Spans read from requests, by format.",
    ),
    Metric(
        "tracefwd_receiver_rejected_spans_total",
        "counter",
        ("reason",),
        "Spans that can never be delivered, as in the ledger's rejected, refused by the reader or the mapping.",
    ),
    Metric(
        "tracefwd_receiver_rejected_span_logs_total",
        "counter",
        ("reason",),
        "Span logs sent to receiver.trace_listen that cannot be read.",
    ),
    # processor
    Metric(
        "tracefwd_mapper_repairs_total",
        "counter",
        ("kind",),
        "What was mended or left out on the way, by kind.",
    ),
    Metric(
        "tracefwd_rules_spans_total",
        "counter",
        ("rule", "result"),
        "Spans by preprocessor rule and result (checked, applied, failed: the rule could not bear a value and was left out, blocked).",
    ),
    Metric(
        "tracefwd_sampler_sampled_out_spans_total",
        "counter",
        ("policy",),
        "Spans that sampling kept back, by the policy that let them go; RED counts them.",
    ),
    Metric(
        "tracefwd_shed_spans_total",
        "counter",
        (),
        "Spans let go of because memory ran short, as in the ledger's dropped{shed}; RED counts them.",
    ),
    Metric("tracefwd_red_active_series", "gauge", (), "RED series in memory."),
    Metric(
        "tracefwd_red_series_limit",
        "gauge",
        (),
        "Most RED series that memory may hold (red.series_max of all workers).",
    ),
    Metric(
        "tracefwd_red_overflow_spans_total",
        "counter",
        (),
        "Spans counted under operationName=_other because the limit was reached.",
    ),
    # scraper
    Metric(
        "tracefwd_scraper_up",
        "gauge",
        ("source",),
        "1 if the source's last scrape was whole, else 0.",
    ),
    Metric(
        "tracefwd_scraper_scrapes_total",
        "counter",
        ("source", "result"),
        "Scrapes, by result: ok, or why they failed (empty: an answer without a sample).",
    ),
    Metric(
        "tracefwd_scraper_missed_scrapes_total",
        "counter",
        ("source",),
        "Rounds that were skipped because the scrape before took longer than the interval.",
    ),
    Metric(
        "tracefwd_scraper_last_scrape_duration_seconds",
        "gauge",
        ("source",),
        "How long the last scrape took, translation included.",
    ),
    Metric(
        "tracefwd_scraper_last_success_timestamp_seconds",
        "gauge",
        ("source",),
        "When the last whole scrape ended, as Unix time.",
    ),
    Metric(
        "tracefwd_scraper_received_bytes_total",
        "counter",
        ("source",),
        "Bytes of bodies as they came over the wire.",
    ),
    Metric(
        "tracefwd_scraper_body_bytes_total",
        "counter",
        ("source",),
        "Bytes of bodies after inflation.",
    ),
    Metric("tracefwd_scraper_samples_total", "counter", ("source",), "Samples read from bodies."),
    Metric(
        "tracefwd_scraper_points_total",
        "counter",
        ("source",),
        "Points made of samples and offered.",
    ),
    Metric(
        "tracefwd_scraper_dropped_samples_total",
        "counter",
        ("source", "reason"),
        "Samples that became no point, by reason.",
    ),
    Metric(
        "tracefwd_scraper_bad_lines_total",
        "counter",
        ("source", "reason"),
        "Lines of bodies that cannot be read, by reason.",
    ),
    Metric(
        "tracefwd_scraper_distributions_total",
        "counter",
        ("source",),
        "Distributions made of samples and offered (convertHistograms).",
    ),
    Metric(
        "tracefwd_scraper_repairs_total",
        "counter",
        ("source", "kind"),
        "What was mended or left out on the way from a sample to its point, by kind.",
    ),
    Metric(
        "tracefwd_rules_points_total",
        "counter",
        ("rule", "result"),
        "Scraped points by preprocessor rule and result, as tracefwd_rules_spans_total.",
    ),
    # exporter
    Metric(
        "tracefwd_exporter_sent_items_total",
        "counter",
        ("target", "signal"),
        "Lines delivered (answered with 2xx).",
    ),
    Metric(
        "tracefwd_exporter_unacknowledged_items_total",
        "counter",
        ("target", "signal"),
        "Lines written to a TCP target, which never answers.",
    ),
    Metric(
        "tracefwd_exporter_rejected_items_total",
        "counter",
        ("target", "signal", "reason"),
        "Lines that the target refused for good, or that its version cannot take.",
    ),
    Metric(
        "tracefwd_exporter_dropped_items_total",
        "counter",
        ("target", "signal", "reason"),
        "Lines given up, by reason.",
    ),
    Metric(
        "tracefwd_exporter_queue_items",
        "gauge",
        ("target", "signal"),
        "Lines held: gathered, queued or in flight.",
    ),
    Metric("tracefwd_exporter_queue_bytes", "gauge", ("target", "signal"), "Bytes held."),
    Metric(
        "tracefwd_exporter_queue_bytes_max",
        "gauge",
        ("target", "signal"),
        "Bytes that may be held.",
    ),
    Metric(
        "tracefwd_exporter_paused",
        "gauge",
        ("target", "signal"),
        "1 while lines wait because the target refuses our credentials.",
    ),
    Metric(
        "tracefwd_exporter_maybe_duplicated_items_total",
        "counter",
        ("target", "signal"),
        "Lines sent again although an attempt before, of which no answer came, may have arrived.",
    ),
    Metric(
        "tracefwd_exporter_red_maybe_doubled_total",
        "counter",
        ("target", "signal"),
        "Spans whose share in delta counters (points) or in distributions was sent again in this way, and may count twice.",
    ),
    Metric(
        "tracefwd_exporter_in_flight_requests",
        "gauge",
        ("target", "signal"),
        "Requests waiting for an answer.",
    ),
    Metric(
        "tracefwd_exporter_requests_total",
        "counter",
        ("target", "signal", "result"),
        "Attempts, by result (delivered, or the reason of the failure).",
    ),
    Metric(
        "tracefwd_exporter_sent_bytes_total",
        "counter",
        ("target", "signal"),
        "Bytes of bodies sent, compressed where compression is on.",
    ),
    # spool
    Metric(
        "tracefwd_spool_items",
        "gauge",
        ("target", "signal"),
        "Lines in spooled batches, but for those that are being sent; part of what the ledger holds.",
    ),
    Metric("tracefwd_spool_batches", "gauge", ("target", "signal"), "Spooled batches."),
    Metric("tracefwd_spool_bytes", "gauge", (), "Bytes that spooled batches take on disk."),
    Metric("tracefwd_spool_bytes_max", "gauge", (), "Bytes that they may take (spool.bytes_max)."),
    Metric(
        "tracefwd_spool_refusing",
        "gauge",
        (),
        "1 for each worker whose disk refuses batches, so that they are in memory only.",
    ),
    Metric(
        "tracefwd_spool_errors_total",
        "counter",
        ("operation",),
        "Failures of the disk under spooled batches (write, read, mark, remove), and damaged files (damaged).",
    ),
    # journal
    Metric("tracefwd_journal_bytes", "gauge", (), "Bytes of the journals on disk."),
    Metric("tracefwd_journal_bytes_max", "gauge", (), "Bytes that they may take."),
    Metric("tracefwd_journal_segments", "gauge", (), "Files of the journals."),
    Metric(
        "tracefwd_journal_degraded",
        "gauge",
        (),
        "1 for each worker that cannot write its journal, so that what it accepts is in memory only.",
    ),
    Metric(
        "tracefwd_journal_entries_total",
        "counter",
        (),
        "Requests and parts of ticks that went to the journal.",
    ),
    Metric(
        "tracefwd_journal_unwritten_entries_total",
        "counter",
        (),
        "Those of them that it could not write, so that they were in memory only.",
    ),
    Metric("tracefwd_journal_written_bytes_total", "counter", (), "Bytes written."),
    Metric("tracefwd_journal_writes_total", "counter", (), "Turns of the loop that wrote."),
    Metric("tracefwd_journal_write_seconds_total", "counter", (), "Time that these writes took."),
    Metric(
        "tracefwd_journal_syncs_total", "counter", (), "Group commits (spool.durability: fsync)."
    ),
    Metric("tracefwd_journal_sync_seconds_total", "counter", (), "Time that these commits took."),
    Metric(
        "tracefwd_journal_corrupt_frames_total",
        "counter",
        (),
        "Places in the journals that could not be read at the start.",
    ),
    Metric("tracefwd_journal_corrupt_bytes_total", "counter", (), "Bytes in these places."),
    Metric(
        "tracefwd_journal_unreadable_files_total",
        "counter",
        (),
        "Files that the disk refused to read at the start; they stay where they are.",
    ),
    # ledger
    Metric(
        "tracefwd_ledger_spans",
        "gauge",
        ("state",),
        "The ledger: received, delivered, sampled_out, blocked, rejected, dropped, held; received is the sum of the others.",
    ),
    Metric(
        "tracefwd_ledger_points",
        "gauge",
        ("state",),
        "The same for points: scraped ones, RED counters and heartbeats.",
    ),
    # process
    Metric(
        "tracefwd_memory_used_bytes",
        "gauge",
        ("part",),
        "Memory in use, by part (base, connections, requests, queues, red; other: what the operating system says beyond them; predecessor: a worker that is being exchanged).",
    ),
    Metric("tracefwd_memory_max_bytes", "gauge", (), "The workers' shares of the memory budget."),
    Metric(
        "tracefwd_memory_stage_workers",
        "gauge",
        ("stage",),
        "Workers by what memory makes them do (calm, shed: traces are let go of, refuse: posts get 503).",
    ),
    Metric("tracefwd_workers", "gauge", (), "Worker processes that answer."),
    Metric("tracefwd_worker_restarts_total", "counter", (), "Workers that died and were replaced."),
    Metric(
        "tracefwd_config_reloads_total",
        "counter",
        ("result",),
        "SIGHUPs, by result (applied, refused: the configuration before it goes on).",
    ),
    Metric("tracefwd_open_files_max", "gauge", (), "Files that each process may have open."),
    Metric("tracefwd_build_info", "gauge", ("version", "python"), "Always 1."),
)
BY_NAME = {metric.name: metric for metric in CATALOGUE}


def add(total: Samples, part: Samples) -> None:
    """Add ``part`` into ``total``, series by series."""
    for name, series in part.items():
        into = total.setdefault(name, {})
        for labels, value in series.items():
            into[labels] = into.get(labels, 0) + value
