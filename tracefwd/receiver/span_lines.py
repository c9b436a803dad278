"""Wavefront span lines and span logs, read by the rules of the vendor's own parser.

    "name" source="s" spanId=uuid traceId=uuid "key"="value" ... start duration      a span
    {"traceId": ..., "spanId": ..., "logs": [...], "span": "..."}                    a span log

1. A line stands alone: what cannot be read becomes a reject with its line's number and costs no other line.
2. Tags keep their order, repeated keys included; ``source`` (or ``host``), ``spanId`` and ``traceId`` are none.
3. A span log passes as it came, but for fields that are no text: those become their JSON.
4. Both ids must be UUIDs: sampling needs them.  Their letters keep their case; a short spelling (``1-2-3-4-5``) becomes
   the UUID that it means.
5. Line rules see a line, or a span log's ``span``, trimmed and before it is read; whether it is a span log
   was settled before that.
6. The usual line matches one expression and one search; every other one is taken apart token by token, which
   defines what a line means.  A test holds the two together.

Lengths, alphabets and times are not checked here: rules and sampling come first, as in the proxy.  Pure; nothing
raises.
"""

import re
from typing import Any

import msgspec
from msgspec import Struct

from tracefwd.limits import REJECT_SAMPLE_BYTES_MAX, REJECTS_PER_BODY_MAX
from tracefwd.model import Identity, LineRules, Lines, Reject, SpanLog, WavefrontSpan
from tracefwd.receiver.fields import INT64_MAX, Micros

# What the proxy's listener says of a span without a source.
DEFAULT_SOURCE = "unknown"

# Character.isWhitespace: may stand between tokens.
_SPACE = (
    " \t\n\x0b\x0c\r\x1c\x1d\x1e\x1f\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2008\u2009"
    "\u200a\u2028\u2029\u205f\u3000"
)
# Cut off both ends of a line: what the proxy trims over TCP (all controls) and over HTTP.
_TRIM = "".join(map(chr, range(0x21))) + _SPACE + "\x85\xa0\u2007\u202f"
_LINE = re.compile("[^\n]+")
# A backslash escapes the quote of its own kind and nothing else, so that only the one right before it counts.
_TOKEN = re.compile(
    f"[{re.escape(_SPACE)}]*+"
    r'(?:"([^"\\]*+(?:(?:\\"|\\)[^"\\]*+)*+)"'
    r"|'([^'\\]*+(?:(?:\\'|\\)[^'\\]*+)*+)'"
    r"|([=#]|[^\"'=#][^ =\t]*+))"
)
# Double.parseDouble, but for hexadecimal numbers.
_NUMBER = re.compile(r"((?:[0-9]+\.?[0-9]*)(?:[eE][+-]?[0-9]+)?)[fFdD]?")
_CONTROLS = "".join(map(chr, range(0x21)))

# The usual line holds no backslash: a quoted name, ids and source with bare keys, then tags in quotes.
_KEY = "[A-Za-z_][A-Za-z0-9._-]*+"
_BARE = "[A-Za-z0-9][A-Za-z0-9._:/-]*+"
_USUAL = re.compile(
    rf'"([^"]*+)"((?: {_KEY}=(?:"[^"]*+"|{_BARE}))*+)((?: "{_KEY}"="[^"]*+")*+) ([0-9]{{1,18}}) ([0-9]{{1,18}})'
)
_BARE_PAIR = re.compile(rf'({_KEY})=(?:"([^"]*+)"|({_BARE}))')

_UUID = re.compile("[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
_SHORT_UUID = re.compile("[0-9a-fA-F]{1,16}(?:-[0-9a-fA-F]{1,16}){4}")
_UUID_LENGTH = 36
_UUID_GROUPS = (8, 4, 4, 4, 12)

# Times above these are nanoseconds, microseconds, milliseconds; else seconds.
_NANOS_ABOVE = 999_999_999_999_999_999
_MICROS_ABOVE = 999_999_999_999_999
_MILLIS_ABOVE = 999_999_999_999

Pairs = list[tuple[str, str]]


class BlockedError(Exception):
    """A rule keeps a line out."""


class BadLineError(Exception):
    """Why a line is no span or no span log: a reason of ``limits.REJECT_REASONS``, and words for a person."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class _Entry(Struct):
    timestamp: Micros
    fields: dict[str, Any]


class _Log(Struct, rename={"trace_id": "traceId", "span_id": "spanId"}):
    """What a span log must have; everything else of it passes through unread."""

    trace_id: str
    span_id: str
    logs: list[_Entry]
    span: Any = None


_read_log = msgspec.json.Decoder(_Log).decode
_read_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def read_lines(body: bytes, rules: LineRules | None = None, *, exact: bool = False) -> Lines:
    """Every line of ``body``, which LF separates; blank ones are nothing.  Never raises.

    With ``exact`` rules that keep lines out look at the whole JSON of a span log, as in the proxy, not at its span.
    A thousand bad lines without a good one are no list of spans: the rest of such a body counts as one reject more.
    """
    lines = Lines([])
    try:
        text = body.decode()
        broken = False
    except UnicodeDecodeError:
        text = body.decode("utf-8", "replace")
        broken = True
    lines.is_text = not broken
    number = at = 0
    for found in _LINE.finditer(text):
        line = found[0].strip(_TRIM)
        if not line:
            continue
        # Only a reject says its number, and counting costs nothing where every line is a span.
        number += text.count("\n", at, found.start())
        at = found.start()
        mended = broken and "\ufffd" in line
        lines.is_text |= not mended
        _take(lines, line, number + 1, rules, mended=mended, exact=exact)
        if lines.refused.number >= REJECTS_PER_BODY_MAX and not (
            lines.spans or lines.logs or lines.blocked
        ):
            if text[found.end() :].strip(_TRIM):
                detail = f"not read: the {REJECTS_PER_BODY_MAX} lines before it are no span lines"
                lines.refused.add(Reject("syntax", f"from line {number + 2} on", detail))
            break
    return lines


def _take(
    lines: Lines,
    line: str,
    number: int,
    rules: LineRules | None,
    *,
    mended: bool,
    exact: bool,
) -> None:
    is_log = line.startswith("{") and line.endswith("}")
    try:
        if is_log:
            lines.logs.append(read_span_log(line, rules, exact=exact))
        else:
            lines.spans.append(read_span(line if rules is None else _ruled(rules, line)))
    except BlockedError:
        if is_log:
            lines.logs_blocked += 1
        else:
            lines.blocked += 1
    except BadLineError as bad:
        refused = lines.logs_refused if is_log else lines.refused
        sample = line[:REJECT_SAMPLE_BYTES_MAX].encode("utf-8", "replace")
        where, sample = f"line {number}", sample[:REJECT_SAMPLE_BYTES_MAX]
        refused.add(Reject(bad.reason, where, str(bad), sample))
    else:
        if mended:
            lines.repairs["utf8"] = lines.repairs.get("utf8", 0) + 1


def _ruled(rules: LineRules, line: str, judged: str | None = None) -> str:
    changed = rules(line, judged)
    if changed is None:
        raise BlockedError
    return changed


# --- spans ----------------------------------------------------------------------------------


def read_span(line: str) -> WavefrontSpan:
    """A span line's span.  Raises ``BadLineError``."""
    # A line feed can come from a rule, or stand in a span log's text.
    if "\\" not in line and "\n" not in line:
        usual = _USUAL.fullmatch(line)
        if usual is not None:
            name, bare_keys, quoted, start, second = usual.groups()
            found = _BARE_PAIR.findall(bare_keys)
            tags = {key: in_quotes or bare for key, in_quotes, bare in found}
            # Between the quotes stand, in turn: a blank, a key, "=", a value.
            pieces = quoted.split('"')
            tags.update(zip(pieces[1::4], pieces[3::4], strict=True))
            # Repeated keys and "host" need the order in which they came.
            if len(tags) == len(found) + len(pieces) // 4 and "host" not in tags:
                source = tags.pop("source", DEFAULT_SOURCE)
                trace_id, span_id = tags.pop("traceId", None), tags.pop("spanId", None)
                times = _times(int(start), int(second))
                return _span(name, source, trace_id, span_id, times, tags, tags, ())
    return read_span_apart(line)


def read_span_apart(line: str) -> WavefrontSpan:
    """The same for any line, token by token.  Raises ``BadLineError``."""
    name, pairs, start, second = _taken_apart(line)
    own: dict[str, str] = {}
    tags: dict[str, str] = {}
    # From the first repeated key on, so that tags and tail together keep the order.
    tail: Pairs = []
    for key, value in pairs:
        if key in ("source", "host"):
            own["source"] = value
        elif key in ("spanId", "traceId"):
            own[key] = value
        elif tail or key in tags:
            tail.append((key, value))
        else:
            tags[key] = value
    # The first of a repeated key counts, as the Java side looks it up.
    looked_up = {**dict(reversed(tail)), **tags} if tail else tags
    source = own.get("source", DEFAULT_SOURCE)
    times = _times(start, second)
    return _span(
        name,
        source,
        own.get("traceId"),
        own.get("spanId"),
        times,
        looked_up,
        tags,
        tuple(tail),
        plain=False,
    )


def _taken_apart(line: str) -> tuple[str, Pairs, int, int]:
    """Name, tags in order, and the two numbers."""
    tokens = _tokens(line)
    if not tokens:
        raise BadLineError("syntax", "a span name is expected, but the line is empty")
    pairs: Pairs = []
    at = 1
    # A token of digits alone ends the tags, and so does an empty one, which no tag may be called.
    while at < len(tokens) and tokens[at] and not tokens[at].isdecimal():
        if tokens[at + 1 : at + 2] != ["="]:
            raise BadLineError("syntax", f"tag {len(pairs) + 1} has no '=' behind its key")
        if at + 2 == len(tokens):
            raise BadLineError("syntax", f"tag {len(pairs) + 1} has no value")
        pairs.append((tokens[at], tokens[at + 2]))
        at += 3
    start, second = (_number(tokens, at + index) for index in (0, 1))
    if at + 2 < len(tokens):
        raise BadLineError("syntax", "something follows behind start and duration")
    return tokens[0], pairs, start, second


def _tokens(line: str) -> list[str]:
    """The line's tokens without their quotes: whether they had any is forgotten, as in the vendor's parser."""
    tokens: list[str] = []
    at = 0
    while (found := _TOKEN.match(line, at)) is not None:
        at = found.end()
        double, single, bare = found.groups()
        if bare is not None:
            tokens.append(bare)
        elif double is not None:
            tokens.append(double.replace('\\"', '"'))
        else:
            tokens.append(single.replace("\\'", "'"))
    if line[at:].strip(_SPACE):
        raise BadLineError("syntax", "a quote has no other end")
    return tokens


def _number(tokens: list[str], at: int) -> int:
    """A time in whole units, held within 64 bits as Java does."""
    token = tokens[at] if at < len(tokens) else ""
    found = _NUMBER.fullmatch(token.rstrip(_CONTROLS)) if token[:1].isdecimal() else None
    if found is None:
        what = "no number" if token else "nothing"
        raise BadLineError("syntax", f"start and duration are expected, {what} stands there")
    number = float(found[1])
    return int(number) if number < INT64_MAX else INT64_MAX


def _times(start: int, second: int) -> tuple[int, int]:
    """Start and duration in ms; ``second`` is an end unless it is before the start."""
    duration = second - start if second >= start else second
    if start > _NANOS_ABOVE:
        return start // 1_000_000, duration // 1_000_000
    if start > _MICROS_ABOVE:
        return start // 1_000, duration // 1_000
    if start > _MILLIS_ABOVE:
        return start, duration
    return start * 1_000, _as_long(duration * 1_000)


def _as_long(number: int) -> int:
    """What Java's 64 bits make of it: no reader of a longer number would take the line."""
    return (number - INT64_MAX - 1) % 2**64 + INT64_MAX + 1 - 2**64


def _span(
    name: str,
    source: str,
    trace_id: str | None,
    span_id: str | None,
    times: tuple[int, int],
    looked_up: dict[str, str],
    tags: dict[str, str],
    tail: tuple[tuple[str, str], ...],
    *,
    plain: bool = True,
) -> WavefrontSpan:
    find = looked_up.get
    service = find("service", "none")
    error = find("error")
    return WavefrontSpan(
        identity=Identity(
            find("application", "none"),
            service,
            find("cluster", "none"),
            find("shard", "none"),
            find("component", "none"),
            source,
        ),
        name=name,
        source=source,
        trace_id=_hex("trace_id", "traceId", trace_id),
        span_id=_hex("span_id", "spanId", span_id),
        # A tag like any other here: it may repeat, and its place is kept.
        parent_id=None,
        kind=find("span.kind", "").lower(),
        http_status=find("http.status_code", ""),
        error=error is not None and error.lower() != "false",
        start_ms=times[0],
        duration_ms=times[1],
        duration_us=times[1] * 1_000,
        head=(),
        tags=tags,
        tail=tail,
        plain=plain,
        red=False,
        debug=find("debug") == "true",
        secondary_id=find("_spanSecondaryId"),
        keys_kept=True,
    )


def _hex(reason: str, key: str, said: str | None) -> str:
    """The 32 digits of a UUID."""
    if said is None:
        raise BadLineError(reason, f"{key} is absent")
    if _UUID.fullmatch(said):
        return said.replace("-", "")
    if len(said) > _UUID_LENGTH or not _SHORT_UUID.fullmatch(said):
        raise BadLineError(reason, f"{key} is no UUID")
    # Java pads each group, or keeps its last digits.
    groups = zip(said.split("-"), _UUID_GROUPS, strict=True)
    return "".join(group.rjust(digits, "0")[-digits:] for group, digits in groups)


# --- span logs ------------------------------------------------------------------------------


def read_span_log(line: str, rules: LineRules | None = None, *, exact: bool = False) -> SpanLog:
    """A span log as it is passed on.  Raises ``BadLineError``; a ``span`` that is text must be a span line."""
    data = line.encode("utf-8", "replace")
    try:
        log = _read_log(data)
        members = _read_members(data)
    except (msgspec.DecodeError, RecursionError) as error:
        reason = "invalid" if isinstance(error, msgspec.ValidationError) else "syntax"
        raise BadLineError(reason, f"no span log: {error}") from None
    for reason, key, said in (
        ("trace_id", "traceId", log.trace_id),
        ("span_id", "spanId", log.span_id),
    ):
        # As the span's own line will have it.
        members[key] = msgspec.Raw(msgspec.json.encode(_uuid(_hex(reason, key, said))))
    members.pop("span", None)
    if not all(_is_text(said) for entry in log.logs for said in entry.fields.values()):
        # The proxy loses such a log when it writes it, behind a 2xx and without a count.
        if exact:
            raise BadLineError("invalid", "a field of its logs is no text")
        members["logs"] = msgspec.Raw(msgspec.json.encode([*map(_with_texts, log.logs)]))
    if not isinstance(log.span, str):
        return SpanLog(members)
    text = log.span
    if rules is not None:
        text = _ruled(rules, text, line) if exact else _ruled(rules, text.strip(_TRIM))
    try:
        return SpanLog(members, read_span(text))
    except BadLineError as bad:
        raise BadLineError(bad.reason, f"its member span is no span line: {bad}") from None


def _is_text(said: Any) -> bool:
    return said is None or isinstance(said, str)


def _with_texts(entry: _Entry) -> _Entry:
    """What is no text as its JSON."""
    fields = {
        key: said if _is_text(said) else msgspec.json.encode(said).decode()
        for key, said in entry.fields.items()
    }
    return _Entry(entry.timestamp, fields)


def _uuid(digits: str) -> str:
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


__all__ = ["BadLineError", "read_lines", "read_span", "read_span_apart", "read_span_log"]
