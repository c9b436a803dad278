"""What the scraper's process is made of: ``worker.py`` runs ``compose`` there instead of its own.

Targets are the workers' (lanes, queues, failovers, spool and all), with accounts of this process.
"""

import logging
from random import Random
from urllib.parse import urlsplit

from tracefwd.compose import load_point_rules
from tracefwd.exporter.http_client import is_loopback
from tracefwd.metricspath.translate import Translation
from tracefwd.processor.ruled_points import RuledPoints
from tracefwd.service.rules_watch import RulesWatch
from tracefwd.service.scrape_client import ScrapeClient
from tracefwd.service.scraper import PointOutlets, Scraper, SourceLoop
from tracefwd.service.scraper_spool import ScraperSpool
from tracefwd.service.source_checks import source_name
from tracefwd.service.worker_parts import Parts, lanes_of, make_targets, refused_lines_of
from tracefwd.settings import PrometheusSourceSettings, Settings

LOG = logging.getLogger(__name__)


def compose(settings: Settings, slot: int = 0) -> Parts:
    spool = ScraperSpool(settings) if settings.spool.folder else None
    made = make_targets(settings, spool)
    targets = [target for _, target in made]
    for source in settings.prometheus_sources:
        if _tells_everybody(source):
            LOG.warning("source %s: its credentials go out in clear text", source_name(source))
    rules = load_point_rules(settings)
    ruled = None if rules is None else RuledPoints(rules, settings.metrics.tags_max)
    otlp = {options.name for options, _ in made if options.kind == "otlp"}
    outlets = PointOutlets(targets, ruled, otlp)
    # Jitter, no secrets.
    random = Random()  # noqa: S311
    loops = [
        SourceLoop(
            source,
            Translation(source, settings.metrics),
            ScrapeClient(source, body_bytes_max=settings.metrics.body_bytes_max),
            outlets.offer,
            random=random,
        )
        for source in settings.prometheus_sources
    ]
    return Parts(
        pipeline=outlets,
        receiver=None,
        targets=targets,
        each_second=RulesWatch(settings, ruled, load_point_rules).check,
        journal=spool,
        scraper=Scraper(loops),
        lanes=lambda: lanes_of(targets),
        refused_lines=lambda: refused_lines_of(targets),
    )


def _tells_everybody(source: PrometheusSourceSettings) -> bool:
    """Whether credentials leave this machine over plain http."""
    http, parts = source.httpConfig, urlsplit(source.url)
    bears = http.bearer_token or http.bearer_token_file or http.basic_auth.username
    is_open = parts.scheme == "http" and not is_loopback(parts.hostname or "")
    return is_open and bool(bears or parts.username)
