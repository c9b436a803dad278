"""A v2 span as a client of Zipkin's version 1 would have sent it: its endpoint at every annotation."""

from typing import Any

_EVENTS = {"CLIENT": ("cs", "cr"), "SERVER": ("sr", "ss")}


def v1_span(span: dict[str, Any]) -> dict[str, Any]:
    endpoint = span["localEndpoint"]
    start_us = span["timestamp"]
    begin, end = _EVENTS[span["kind"]]
    annotations = [
        {"timestamp": start_us, "value": begin, "endpoint": endpoint},
        {"timestamp": start_us + span["duration"], "value": end, "endpoint": endpoint},
    ]
    tags = [
        {"key": key, "value": value, "endpoint": endpoint} for key, value in span["tags"].items()
    ]
    kept = ("traceId", "id", "parentId", "name", "timestamp", "duration")
    members = {name: span[name] for name in kept if name in span}
    return members | {"annotations": annotations, "binaryAnnotations": tags}
