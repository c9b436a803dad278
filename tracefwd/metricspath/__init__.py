"""Metrics path: a Prometheus exposition becomes Wavefront points.

    chunks of bytes -> lines -> (filter by name) -> labels -> filters, tags -> point lines

``translate.py`` is the room's pure face::

    translation = Translation(source, metrics)  # one per source, for as long as its settings; ConfigError
    scrape = translation.begin(now_s, content_type)  # one per body; epoch seconds
    payloads = scrape.feed(chunk)  # any number of times; inflated bytes, cut anywhere
    payloads = scrape.finish(complete=True)  # once; False: the body ended early
    scrape.counts  # Counts: bytes, samples, points, families, dropped, bad_lines, repairs, ...
    scrape.truncated  # the body's last line was thrown away
    scrape.has_ended  # after finish; False: an OpenMetrics body without its # EOF, which ended early whatever HTTP says
    translation.report()  # Report: allow-listed but never seen, came but not sent

``feed`` and ``finish`` return ``list[Payload]`` of ``Signal.POINTS`` (and, with ``convertHistograms``, of
``Signal.DISTRIBUTIONS``), mostly of 256 KiB, ready to offer.  They never raise for what a body holds.  After a failure
in the middle call ``finish(complete=False)``; a scrape that is just forgotten loses what it has not handed out.

``counts.dropped``, ``bad_lines`` and ``repairs`` are by reason (``limits.SAMPLE_DROP_REASONS``, ``BAD_LINE_REASONS``,
``REPAIR_KINDS``); ``samples + added == points - delta_points + sum(dropped.values())``; bad lines are not samples.

All here but the scraper is pure: no socket, clock, randomness or logging.
"""
