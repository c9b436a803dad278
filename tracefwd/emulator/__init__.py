"""The embedded Wavefront stand-in: proxy ports and direct ingestion, strict about formats and limits.

Contract: an independent reader.  It shares no parsing or writing code with the exporter, so that a mistake there is
seen here; its verdicts are those of the real proxy.
"""
