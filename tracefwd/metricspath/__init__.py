"""Metrics path: a Prometheus exposition becomes Wavefront points.

    chunks of bytes -> lines -> (filter by name) -> labels -> filters, tags -> point lines

``translate.py`` is the room's pure face::

    translation = Translation(source, metrics)     # one per source, lives as long as its settings; ConfigError for bad globs
    scrape = translation.begin(now_s)              # one per body; now_s: epoch seconds, float
    payloads = scrape.feed(chunk)                  # any number of times; inflated bytes, cut anywhere
    payloads = scrape.finish(complete=True)        # once; complete=False: the body ended early
    scrape.counts                                  # Counts: samples, points, bytes, families, dropped, bad_lines, tags_dropped
    scrape.truncated                               # finish(complete=False) threw away a last, unended line
    translation.report()                           # Report: allow-listed but never seen, came but dropped

``feed`` and ``finish`` return ``list[Payload]`` of ``Signal.POINTS`` (and ``Signal.DISTRIBUTIONS`` with
``convertHistograms``), each at most about 256 KiB, ready to offer.  They never raise for what a body holds.  A scrape that
is given up is just forgotten; state that outlives a scrape (delta counters) changes in ``finish`` alone.

``counts.dropped`` and ``counts.bad_lines`` are by reason (``limits.SAMPLE_DROP_REASONS``, ``limits.BAD_LINE_REASONS``);
``counts.samples == counts.points + sum(dropped.values()) + held back for differences``, bad lines are not samples.

All here but the scraper is pure: no socket, clock, randomness or logging.
"""
