"""The mesh's Prometheus: what its ``/federate`` would answer about Bookinfo, as text of the exposition format.

The two populations of a federated Istio, under the same names: series summed over pods (job ``federate``, which end in
``instance=""``) and raw ones of single pods (job ``kubernetes-pods``, which bear ``destination_principal``); istiod's
own series beside them; percentiles that are NaN while nothing happens.  Everything is untyped and has a timestamp.

Pure: time is an argument, and the same time gives the same text.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tracefwd.generator.mesh import (
    DETAILS,
    GATEWAY,
    PRODUCTPAGE,
    RATINGS,
    REVIEWS_V1,
    REVIEWS_V2,
    REVIEWS_V3,
    WORKLOADS,
)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# The selector of the Wavefront integration for Istio.
SELECTOR = 'match[]={job=~"federate|kubernetes-pods"}'
# What a client has to keep of it, as that integration says: raw series of sidecars are told by their principals.
FILTERS = {
    "metricTagDenyList": {"destination_principal": ["*"]},
    "metricAllowList": ["istio.*", "pilot.*", "go.goroutines.value"],
}
PODS_EACH = 2

_BOUNDS_MS = ("0.5", "1", "5", "10", "25", "50", "100", "250", "500", "1000", "5000", "+Inf")
# Share of requests that took at most so long: half of them take 10 ms.
_SHARES = (0.0, 0.01, 0.3, 0.5, 0.75, 0.9, 0.97, 0.99, 0.997, 0.999, 1.0, 1.0)
_QUANTILES = (("p50", 10.0), ("p95", 85.0), ("p99", 250.0))
_MEAN_MS = 21.5
_REPORTERS = ("source", "destination")


class Edge(NamedTuple):
    """Who calls whom how often; ``code`` is what it is answered."""

    caller: int
    called: int
    per_second: float
    code: str = "200"


EDGES = (
    Edge(GATEWAY, PRODUCTPAGE, 6.0),
    Edge(GATEWAY, PRODUCTPAGE, 0.1, "503"),
    Edge(PRODUCTPAGE, DETAILS, 6.0),
    Edge(PRODUCTPAGE, REVIEWS_V1, 2.0),
    Edge(PRODUCTPAGE, REVIEWS_V2, 2.0),
    Edge(PRODUCTPAGE, REVIEWS_V3, 2.0),
    Edge(REVIEWS_V2, RATINGS, 2.0),
    Edge(REVIEWS_V3, RATINGS, 2.0),
    # Rolled out, and nobody has asked for it yet.
    Edge(REVIEWS_V1, RATINGS, 0.0),
)


def federated(age_s: float, now_ms: int) -> str:
    """The whole body of a mesh that began ``age_s`` ago."""
    lines: list[str] = []
    families = {
        "go_goroutines": _istiod([("", 417.0)]),
        "istio_build": _istiod([('component="pilot",tag="1.30.0"', 1.0)]),
        "istio_request_duration_milliseconds_bucket": _buckets(),
        **{
            f"istio_request_duration_milliseconds_bucket_{name}": _quantile(value)
            for name, value in _QUANTILES
        },
        "istio_request_duration_milliseconds_count": _counted(age_s, 1.0),
        "istio_request_duration_milliseconds_sum": _counted(age_s, _MEAN_MS),
        "istio_requests_total": [*_counted(age_s, 1.0), *_raw_requests(age_s)],
        "pilot_services": _istiod([("", 7.0)]),
        "pilot_xds_pushes": _istiod(
            [(f'type="{kind}"', float(int(age_s / 10))) for kind in ("cds", "eds", "lds", "rds")]
        ),
    }
    for name, rows in families.items():
        lines.append(f"# TYPE {name} untyped\n")
        lines += (f"{name}{{{labels}}} {_number(value)} {now_ms}\n" for labels, value in rows)
    return "".join(lines)


Rows = Iterator[tuple[str, float]]


def _summed(edge: Edge, reporter: str, extra: str = "") -> str:
    """The labels that the recording rules leave."""
    caller, called = WORKLOADS[edge.caller], WORKLOADS[edge.called]
    app = caller.service if reporter == "source" else called.service
    return (
        f'app="{app}",destination_workload="{called.name}",'
        f'destination_workload_namespace="{called.namespace}",job="federate",{extra}'
        f'reporter="{reporter}",response_code="{edge.code}",response_flags="-",'
        f'source_workload="{caller.name}",source_workload_namespace="{caller.namespace}",instance=""'
    )


def _counted(age_s: float, each: float) -> Rows:
    for edge in EDGES:
        for reporter in _REPORTERS:
            yield _summed(edge, reporter), int(edge.per_second * age_s) * each


def _buckets() -> Rows:
    """Rates, as ``sum(irate())`` makes them."""
    for edge in EDGES:
        for reporter in _REPORTERS:
            for bound, share in zip(_BOUNDS_MS, _SHARES, strict=True):
                yield _summed(edge, reporter, f'le="{bound}",'), edge.per_second * share


def _quantile(value: float) -> Rows:
    for edge in EDGES:
        for reporter in _REPORTERS:
            yield _summed(edge, reporter), value if edge.per_second else float("nan")


def _raw_requests(age_s: float) -> Rows:
    for edge in EDGES:
        caller, called = WORKLOADS[edge.caller], WORKLOADS[edge.called]
        account = f"spiffe://cluster.local/ns/{called.namespace}/sa/{called.service}"
        for pod in range(PODS_EACH):
            labels = (
                f'app="{called.service}",destination_principal="{account}",'
                f'destination_workload="{called.name}",instance="10.0.{edge.called}.{pod}:15020",'
                f'job="kubernetes-pods",kubernetes_pod_name="{called.name}-{called.replica_set}-{pod}",'
                f'reporter="destination",response_code="{edge.code}",source_workload="{caller.name}"'
            )
            yield labels, int(edge.per_second * age_s) / PODS_EACH


def _istiod(rows: Sequence[tuple[str, float]]) -> Rows:
    where = (
        'app="istiod",instance="10.0.9.1:15014",job="kubernetes-pods",'
        'kubernetes_pod_name="istiod-7d8f6b5c9-x2x4z"'
    )
    for labels, value in rows:
        yield f"{where},{labels}" if labels else where, value


def _number(value: float) -> str:
    return "NaN" if math.isnan(value) else repr(value)


__all__ = ["CONTENT_TYPE", "EDGES", "FILTERS", "SELECTOR", "federated"]
