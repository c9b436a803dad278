"""Reads span lines as the Java proxy's trace port and direct ingestion do.

    "name" source="s" spanId="uuid" traceId="uuid" "key"="value" ... start duration

Two ways to one verdict.  Almost every line that a sane writer sends matches one expression (``_plain``) that implies
all checks, so that a benchmark's sink stays cheap; everything else is taken apart token by token.  A test holds the
two together.  Pure: the time of day is an argument.
"""

import re
from dataclasses import dataclass
from typing import NamedTuple

from tracefwd.emulator.rules import Limits, Refused, head, is_blank, is_name, is_uuid, length
from tracefwd.emulator.tokens import Pairs, Tokens, whole

# Start of the span in its own unit: above these it is nanoseconds, microseconds, milliseconds; else seconds.
_NANOS_ABOVE = 999_999_999_999_999_999
_MICROS_ABOVE = 999_999_999_999_999
_MILLIS_ABOVE = 999_999_999_999

_UUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"


@dataclass(slots=True)
class Span:
    """What a span line says, after the parser's own rules and before any check."""

    name: str
    source: str
    trace_id: str
    span_id: str
    start_ms: int
    duration_ms: int
    tags: Pairs

    def value(self, key: str) -> str | None:
        """The first one, as the Java side looks it up."""
        return next((value for name, value in self.tags if name == key), None)

    @property
    def secondary_id(self) -> str:
        """What tells the client's half from the server's half of a shared span id."""
        return self.value("_spanSecondaryId") or self.value("span.kind") or ""


class TakenSpan(NamedTuple):
    """``identity``: trace id, span id, secondary id.  ``warnings``: what was changed or would be refused elsewhere."""

    identity: tuple[str, str, str]
    warnings: tuple[str, ...]


def parse_span(line: str) -> tuple[Span, bool]:
    """The span, and whether the line named its source; ``Refused`` if it is no span line."""
    tokens = Tokens(line)
    name = tokens.text("a span name")
    pairs: Pairs = []
    # commons-lang's isNumeric: only digits of any script, and nothing at all.
    while (key := tokens.peek) is not None and key != "" and not key.isdecimal():
        pairs.append(tokens.pair())
    start, second = whole(tokens.time()), whole(tokens.time())
    tokens.end()
    system: dict[str, str] = {}
    tags: Pairs = []
    for key, value in pairs:
        if key in {"source", "host"}:
            system["source"] = value
        elif key in {"spanId", "traceId"}:
            system[key] = value
        else:
            tags.append((key, value))
    for key, reason in (("spanId", "span_id_missing"), ("traceId", "trace_id_missing")):
        if key not in system:
            raise Refused(reason, f"{key} can't be null")
    start_ms, duration_ms = _times(start, second)
    span = Span(
        name=name,
        source=system.get("source", "unknown"),
        trace_id=system["traceId"],
        span_id=system["spanId"],
        start_ms=start_ms,
        duration_ms=duration_ms,
        tags=tags,
    )
    return span, "source" in system


def _times(start: int, second: int) -> tuple[int, int]:
    """Milliseconds; the second number is an end unless it is before the start."""
    duration = second - start if second >= start else second
    if start > _NANOS_ABOVE:
        return start // 1_000_000, duration // 1_000_000
    if start > _MICROS_ABOVE:
        return start // 1000, duration // 1000
    if start > _MILLIS_ABOVE:
        return start, duration
    return start * 1000, duration * 1000


def check_span(span: Span, limits: Limits, now_ms: int) -> list[str]:
    """The proxy's validation in the proxy's order; cuts long values in place and returns the warnings."""
    if span.start_ms > now_ms + limits.future_ms_max:
        raise Refused("outside_timeframe", "Span outside of reasonable timeframe")
    warnings = []
    if "*" in span.name:
        span.name = span.name.replace("*", "-")
        warnings.append("name_star_replaced")
    if is_blank(span.source):
        raise Refused("WF-426", "WF-426: Span source/host name is required")
    if (size := length(span.source)) > limits.span_source_max:
        raise Refused(
            "WF-427",
            f"WF-427: Span source/host name is too long ({size} characters, max: {limits.span_source_max})",
        )
    if size > limits.source_backend_max:
        warnings.append("source_above_backend_limit")
    if (size := length(span.name)) > limits.span_name_max:
        raise Refused(
            "WF-428",
            f"WF-428: Span name is too long ({size} characters, max: {limits.span_name_max})",
        )
    if len(span.tags) > limits.span_tags_max:
        raise Refused(
            "WF-430",
            f"WF-430: Span has too many annotations ({len(span.tags)}, max {limits.span_tags_max})",
        )
    return warnings + _check_tags(span.tags, limits)


def _check_tags(tags: Pairs, limits: Limits) -> list[str]:
    warnings = []
    for index, (key, value) in enumerate(tags):
        if (size := length(key)) > limits.span_key_max:
            raise Refused(
                "WF-432",
                f"WF-432: Span annotation key is too long ({size} characters, max: {limits.span_key_max})",
            )
        if not is_name(key):
            raise Refused("WF-416", f"WF-416: Span annotation key has illegal character(s): {key}")
        if is_blank(value):
            raise Refused("WF-434", f"WF-434: Span annotation value for {key} is empty or missing")
        if length(value) > limits.span_value_max:
            tags[index] = (key, head(value, limits.span_value_max))
            warnings.append("value_truncated")
    return warnings


class SpanReader:
    """The verdict on span lines.

    ``samples``: a proxy's port parses the trace id as a UUID in its sampler, unless the span says ``debug=true``, and
    loses the span if it cannot; direct ingestion has no such step.
    """

    def __init__(self, limits: Limits, *, samples: bool) -> None:
        self._limits = limits
        self._samples = samples
        self._plain = _plain(limits).fullmatch

    def read(self, line: str, now_ms: int) -> TakenSpan:
        """``Refused`` if Wavefront would not take the line."""
        if "\\" not in line and line.isascii():
            plain = self._plain(line)
            if plain is not None and int(plain[3]) <= now_ms + self._limits.future_ms_max:
                return TakenSpan((plain[2], plain[1], _secondary_id(line)), ())
        return self.read_apart(line, now_ms)

    def read_apart(self, line: str, now_ms: int) -> TakenSpan:
        """The same, token by token: the long way, and the one that defines the verdict."""
        span, sourced = parse_span(line)
        warnings = [] if sourced else ["source_missing"]
        if not is_uuid(span.trace_id):
            if self._samples and ("debug", "true") not in span.tags:
                raise Refused("trace_id", f"Invalid UUID string: {span.trace_id}")
            warnings.append("trace_id_no_uuid")
        warnings += check_span(span, self._limits, now_ms)
        identity = (span.trace_id, span.span_id, span.secondary_id)
        return TakenSpan(identity, tuple(warnings))


def _plain(limits: Limits) -> re.Pattern[str]:
    """Lines that pass every check but the one on time, without a warning; for ASCII without a backslash only.

    Possessive throughout: a line that does not match fails in one pass.  The engine has a loop of
    its own for one excluded character, hence ``[^"]`` with the backslash looked for beforehand.
    """
    key = rf"(?!(?:source|host|spanId|traceId)\")[A-Za-z_][A-Za-z0-9,\-./_]{{0,{limits.span_key_max - 1}}}+"
    text = r"[!#-~][^\"]{0,%d}+"
    return re.compile(
        rf"\"[^\"*]{{0,{limits.span_name_max}}}+\""
        rf" source=\"{text % (min(limits.source_backend_max, limits.span_source_max) - 1)}\""
        rf" spanId=\"({_UUID})\" traceId=\"({_UUID})\""
        rf"(?: \"{key}\"=\"{text % (limits.span_value_max - 1)}\"){{0,{limits.span_tags_max}}}+"
        r" ([1-9][0-9]{12}) [0-9]{1,12}"
    )


def _secondary_id(line: str) -> str:
    """Of a plain line, where no value holds a quote."""
    for label in ('"_spanSecondaryId"="', '"span.kind"="'):
        at = line.find(label)
        if at >= 0:
            at += len(label)
            return line[at : line.index('"', at)]
    return ""
