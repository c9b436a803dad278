"""From settings to parts: the one place that knows which mapper, sampler and writers an operator chose.

``service/worker.py`` adds sockets and tasks; ``convert`` and ``explain`` use the same parts without them, which is why
they show exactly what ``run`` would send.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tracefwd.doorways import Decode, Ingest, IngestAll
from tracefwd.errors import ConfigError
from tracefwd.exporter.lines import LineWriter
from tracefwd.exporter.otlp_writer import OtlpWriter
from tracefwd.model import Mapper
from tracefwd.pipeline import Pipeline
from tracefwd.plan import Destination, LineParts, Writer
from tracefwd.processor.istio import make_istio_mapper
from tracefwd.processor.line_check import make_line_check
from tracefwd.processor.red import RedAggregator
from tracefwd.processor.ruled import RuledMapper
from tracefwd.processor.sampler import SpanSampler, make_sampler
from tracefwd.processor.shed import Shedder
from tracefwd.processor.wavefront_proxy import make_wavefront_proxy_mapper
from tracefwd.processor.wavefront_proxy_rules import chosen_deviations
from tracefwd.receiver.decode import make_decode
from tracefwd.receiver.exact import make_exact_decode
from tracefwd.receiver.otlp_decode import make_any_decode, make_otlp_decode
from tracefwd.receiver.span_lines import read_lines
from tracefwd.settings import Settings, TargetSettings

if TYPE_CHECKING:
    from tracefwd.processor.rules import RuleSet, RulesFile

# Span logs are taken from here on; below, a JSON line on the trace port counts as a malformed span.
_SPAN_LOGS_SINCE = (4, 37)
# Before these versions a line over TCP ended here, and its rest was a malformed line of its own.
_TCP_LINE_BYTES_MAX = 4_096
_TCP_LINES_SINCE = (4, 37)
_TCP_POINTS_SINCE = (4, 39)
# And since then on the port of points here (pushListenerMaxReceivedLength).
_TCP_POINT_BYTES_MAX = 32_768

_MAPPERS = {"istio": make_istio_mapper, "wavefront-proxy": make_wavefront_proxy_mapper}


class Parts(NamedTuple):
    """The pure middle, ready to be fed.  ``mapper`` is ``ruled`` where there are rules."""

    decode: Decode
    decode_otlp: Decode
    mapper: Mapper
    ruled: RuledMapper | None
    sampler: SpanSampler | None
    red: RedAggregator | None


def make_parts(settings: Settings) -> Parts:
    profile = settings.mapping.profile
    # Only the istio profile turns Envoy's byte-reversed ids round; the Java proxy passes them as they are.
    proto_ids = settings.receiver.proto_ids
    if proto_ids == "auto" and profile != "istio":
        proto_ids = "keep"
    mapper = _MAPPERS[profile](settings.mapping, settings.red)
    rules = load_rules(settings)
    ruled = None if rules is None else RuledMapper(mapper, rules, settings.red.tags)
    return Parts(
        make_exact_decode(proto_ids) if settings.mapping.exact else make_decode(proto_ids),
        _otlp_decode(settings),
        ruled or mapper,
        ruled,
        make_sampler(settings.sampling, exact=settings.mapping.exact),
        RedAggregator(settings.red) if settings.red.enabled else None,
    )


def decode_anything(parts: Parts) -> Decode:
    """For bodies that came on no path: Zipkin or OTLP, by content."""
    return make_any_decode(parts.decode, parts.decode_otlp)


def otlp_ingest(settings: Settings, pipeline: Pipeline) -> tuple[Ingest, IngestAll]:
    """The ways into ``pipeline`` for requests by OTLP."""
    decode = _otlp_decode(settings)
    return partial(pipeline.ingest, decode=decode), partial(pipeline.ingest_all, decode=decode)


def _otlp_decode(settings: Settings) -> Decode:
    return make_otlp_decode(as_the_proxy=settings.mapping.profile == "wavefront-proxy")


def load_rules(settings: Settings) -> "RuleSet | None":
    """The operator's rules for Zipkin spans; raises ``ConfigError`` with all mistakes of the file.

    The engine is imported only when there are rules.
    """
    file = _rules_file(settings)
    return None if file is None else file.for_port(_zipkin_port(settings))


def load_line_rules(settings: Settings) -> "RuleSet | None":
    """The same for span lines: their own port's, as in the proxy, or those for Zipkin spans if it names none."""
    file = _rules_file(settings)
    if file is None:
        return None
    own = settings.rules.trace_port or settings.receiver.trace_listen.rpartition(":")[2]
    if settings.rules.trace_port or own in file.ports():
        return file.for_port(own)
    return file.for_port(_zipkin_port(settings))


def load_point_rules(settings: Settings) -> "RuleSet | None":
    """The same for scraped points."""
    file = _rules_file(settings)
    return None if file is None else file.for_port(settings.rules.metrics_port)


def _zipkin_port(settings: Settings) -> str:
    return settings.rules.port or settings.receiver.listen.rpartition(":")[2]


def _rules_file(settings: Settings) -> "RulesFile | None":
    file = settings.rules.file
    if not file:
        return None
    from tracefwd.processor.rules import read_rules

    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8"
        raise ConfigError(
            [f"rules.file = {file!r}: {reason}; name a readable rules file"]
        ) from error
    return read_rules(text, where=file, exact=settings.mapping.exact)


def _line_ruled(settings: Settings, mapper: Mapper) -> RuledMapper | None:
    if not settings.receiver.trace_listen:
        return None
    rules = load_line_rules(settings)
    return None if rules is None else RuledMapper(mapper, rules, ())


def make_writer(target: TargetSettings, settings: Settings) -> LineWriter:
    """The writer of Wavefront lines for one target; equal ``writer_key`` means equal bytes.

    For a target of OTLP: the lines that direct ingestion would get, for people to read.
    """
    key = writer_key(target, settings)
    return LineWriter(
        span_logs=key.span_logs,
        sampled_mark=key.sampled_mark,
        line_bytes_max=key.line_bytes_max,
        point_line_bytes_max=key.point_line_bytes_max,
        reporter="zipkin" if settings.mapping.profile == "wavefront-proxy" else "",
        as_the_proxy=settings.mapping.exact,
    )


class WriterKey(NamedTuple):
    """What of a target decides its bytes; the rest is the same for all targets."""

    span_logs: bool
    sampled_mark: bool
    line_bytes_max: int
    point_line_bytes_max: int
    otlp: bool = False


def writer_key(target: TargetSettings, settings: Settings) -> WriterKey:
    if target.kind != "proxy":
        return WriterKey(True, True, 0, 0, target.kind == "otlp")
    version = proxy_version(settings.exporter.proxy_version)
    line_bytes_max = point_line_bytes_max = 0
    if target.traces.startswith("tcp://") and version < _TCP_LINES_SINCE:
        line_bytes_max = _TCP_LINE_BYTES_MAX
    if target.metrics.startswith("tcp://"):
        is_old = version < _TCP_POINTS_SINCE
        point_line_bytes_max = _TCP_LINE_BYTES_MAX if is_old else _TCP_POINT_BYTES_MAX
    return WriterKey(version >= _SPAN_LOGS_SINCE, False, line_bytes_max, point_line_bytes_max)


def proxy_version(text: str) -> tuple[int, ...]:
    """``4.35`` as (4, 35); ``current`` is above every version."""
    return (1_000,) if text == "current" else tuple(int(part) for part in text.split("."))


def make_pipeline(
    settings: Settings,
    targets: Sequence[tuple[TargetSettings, Destination]],
    *,
    now_us: Callable[[], int],
    instance: str = "",
) -> Pipeline:
    """Targets that want the same bytes share one writer, so that spans are rendered once for them.

    ``instance`` tells this worker's RED by OTLP from that of others.
    """
    parts = make_parts(settings)
    outlets: dict[WriterKey, tuple[Writer, list[Destination]]] = {}
    for options, target in targets:
        key = writer_key(options, settings)
        if key not in outlets:
            outlets[key] = (
                OtlpWriter(instance) if key.otlp else make_writer(options, settings),
                [],
            )
        outlets[key][1].append(target)
    lines = LineParts(
        partial(read_lines, exact=settings.mapping.exact),
        make_line_check(chosen_deviations(settings.mapping)),
        _line_ruled(settings, parts.mapper),
    )
    return Pipeline(
        decode=parts.decode,
        mapper=parts.mapper,
        ruled=parts.ruled,
        lines=lines if settings.receiver.trace_listen else None,
        sampler=parts.sampler,
        red=parts.red,
        shedder=Shedder(None if parts.sampler is None else parts.sampler.reach),
        outlets=list(outlets.values()),
        now_us=now_us,
    )
