"""Prometheus text format 0.0.4 from ``metrics.Samples``.

Every family of ``metrics.CATALOGUE`` appears with its help and type, in the catalogue's order.  A family
without labels appears as 0 when nobody counted yet, so that a rate has a start; one with labels has no series
then.  What is not in the catalogue is a bug of whoever counted it, never shown.

A histogram ``h`` comes as three entries of ``Samples``: ``h_bucket`` (its last label is ``le``, cumulative,
``+Inf`` included), ``h_sum`` and ``h_count``.

Pure.
"""

from collections.abc import Iterator

from tracefwd.metrics import ANSWER_BUCKETS_S, CATALOGUE, Metric, Samples

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_LABEL_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
_HELP_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n"})


def render(samples: Samples) -> str:
    """The whole page, ended by LF."""
    lines: list[str] = []
    for metric in CATALOGUE:
        lines.append(f"# HELP {metric.name} {metric.meaning.translate(_HELP_ESCAPES)}")
        lines.append(f"# TYPE {metric.name} {metric.kind}")
        if metric.kind == "histogram":
            lines.extend(_histogram(metric, samples))
        else:
            series = samples.get(metric.name) or ({} if metric.labels else {(): 0})
            lines.extend(_series(metric.name, metric.labels, series))
    return "\n".join(lines) + "\n"


def _histogram(metric: Metric, samples: Samples) -> Iterator[str]:
    empty: dict[tuple[str, ...], float] = {(): 0}
    no_buckets = {(_number(edge),): 0.0 for edge in ANSWER_BUCKETS_S} | {("+Inf",): 0.0}
    if metric.labels:
        empty, no_buckets = {}, {}
    buckets = samples.get(f"{metric.name}_bucket") or no_buckets
    # Ascending by edge within the same labels, as the format wants it.
    ordered = dict(sorted(buckets.items(), key=lambda item: (item[0][:-1], float(item[0][-1]))))
    yield from _series(f"{metric.name}_bucket", (*metric.labels, "le"), ordered)
    for part in ("sum", "count"):
        name = f"{metric.name}_{part}"
        yield from _series(name, metric.labels, samples.get(name) or empty)


def _series(
    name: str, labels: tuple[str, ...], series: dict[tuple[str, ...], float]
) -> Iterator[str]:
    for values, number in series.items():
        assert len(values) == len(labels), f"{name} has the labels {labels}, not {values}"
        pairs = ",".join(
            f'{label}="{value.translate(_LABEL_ESCAPES)}"'
            for label, value in zip(labels, values, strict=True)
        )
        yield f"{name}{{{pairs}}} {_number(number)}" if pairs else f"{name} {_number(number)}"


def _number(value: float) -> str:
    """Whole numbers without a fraction, so that counters read as what they are."""
    return str(int(value)) if float(value).is_integer() else repr(float(value))
