"""``tracefwd explain``: what becomes of every field and tag of a span, and why.

It runs the same parts as ``run`` on each span alone and then compares what went in with what came out, so it cannot
promise what the mapping does not do.  Every input field and every tag appears exactly once, with its ``fate`` (kept,
renamed, changed, became, dropped, rejected, used) and a reason in words.
"""

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from tracefwd import naming
from tracefwd.compose import Parts, decode_anything, make_parts, make_writer
from tracefwd.model import Decoded, Encoding, RedKey, RedPoint, Span, WavefrontSpan
from tracefwd.receiver.otlp_decode import without_frame
from tracefwd.receiver.otlp_view import Fields, look
from tracefwd.service import explain_otlp
from tracefwd.service.convert import complain, first_target, read_body

if TYPE_CHECKING:
    from tracefwd.service.config import Loaded
    from tracefwd.settings import Settings

_ENDPOINTS = ("localEndpoint", "remoteEndpoint")
_OTLP = (Encoding.OTLP_PROTO, Encoding.OTLP_JSON)
_IDENTITY = ("application", "service", "cluster", "shard")


@dataclass(frozen=True)
class Fate:
    """One input field or tag: ``path`` as in the input (``tags.http.url``), its value, and what became of it."""

    path: str
    value: str
    fate: str
    reason: str


def run(loaded: "Loaded", file: str, as_json: bool) -> int:
    """0 when at least one span was explained, 1 when nothing in the file is a span."""
    body = read_body(file)
    if body is None:
        return 1
    reports = list(explain(loaded.settings, body))
    if as_json:
        print(json.dumps(reports, indent=2, ensure_ascii=False))
    else:
        for report in reports:
            _print(report)
    if not reports:
        complain(file, decode_anything(make_parts(loaded.settings))(body, ""))
        print("tracefwd: nothing to explain: the input holds no span", file=sys.stderr)
    return 0 if any("line" in report for report in reports) else 1


def explain(settings: "Settings", body: bytes) -> Iterator[dict[str, Any]]:
    """A report for each span of a body, in order, rejected ones included."""
    parts = make_parts(settings)
    writer = make_writer(first_target(settings), settings)
    now_us = time.time_ns() // 1_000
    for told, decoded in _elements(parts, body):
        mapped = parts.mapper(decoded, now_us)
        judge = _otlp_fate if decoded.encoding in _OTLP else _fate
        for reject in (*decoded.rejects, *mapped.rejects):
            fates = [Fate(*field, "rejected", "its span was rejected") for field in told]
            yield {
                "rejected": reject.reason,
                "where": reject.where,
                "detail": reject.detail,
                "fields": [vars(fate) for fate in fates],
            }
        for span, out in zip(decoded.spans, mapped.spans, strict=False):
            # A name may hold other characters that end a line for ``splitlines``.
            written = b"".join(payload.data for payload in writer.write([out])).decode()
            lines = written.rstrip("\n").split("\n")
            policy = "" if parts.sampler is None else parts.sampler.judge(out)
            yield {
                "span": out.span_id,
                "trace": out.trace_id,
                "line": lines[0],
                "span_logs": lines[1:],
                "fields": [vars(judge(*field, span, out)) for field in told],
                "red": _red(out) if settings.red.enabled and out.red else [],
                "sampling": f"sampled out by {policy}" if policy else "kept",
                "repairs": {**(decoded.repairs or {}), **(mapped.repairs or {})},
            }


def _elements(parts: Parts, body: bytes) -> Iterator[tuple[Fields, Decoded]]:
    """Each span of the body, member by member as its sender wrote it, with its decoding alone."""
    whole = decode_anything(parts)(body, "")
    if whole.encoding in _OTLP:
        yield from _otlp_elements(parts, without_frame(body), whole)
        return
    try:
        items = msgspec.json.decode(body, type=list[msgspec.Raw])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        # Not clean JSON (proto3, a broken tail, a single object): what the decoder read stands for the input.
        for span in whole.spans:
            yield [*_fields(_as_sent(span))], Decoded(whole.encoding, [span])
        for reject in whole.rejects:
            yield [], Decoded(whole.encoding, [], [reject])
        return
    for item in items:
        text = bytes(item)
        decoded = parts.decode(b"[" + text + b"]", "")
        try:
            raw = json.loads(text.decode("utf-8", "replace"), strict=False)
        except (ValueError, RecursionError):
            raw = None
        yield [*_fields(raw)] if isinstance(raw, dict) else [], decoded


def _otlp_elements(parts: Parts, body: bytes, whole: Decoded) -> Iterator[tuple[Fields, Decoded]]:
    told = 0
    for seen in look(body):
        alone = parts.decode_otlp(seen.alone, "")
        told += len(alone.spans) + len(alone.rejects)
        yield seen.fields, alone
    # What is broken is no span's.
    for reject in whole.rejects if told < len(whole.spans) + len(whole.rejects) else ():
        yield [], Decoded(whole.encoding, [], [reject])


def _as_sent(span: Span) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(span)
    return {key: value for key, value in fields.items() if value is not None}


def _fields(raw: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Every field and tag of a span as (path, text)."""
    for key, value in raw.items():
        if key == "tags" and isinstance(value, dict):
            yield from ((f"tags.{name}", _text(entry)) for name, entry in value.items())
        elif key in _ENDPOINTS and isinstance(value, dict):
            yield from ((f"{key}.{name}", _text(entry)) for name, entry in value.items())
        elif key in ("annotations", "binaryAnnotations") and isinstance(value, list):
            yield from ((f"{key}[{index}]", _text(entry)) for index, entry in enumerate(value))
        else:
            yield key, _text(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _otlp_fate(path: str, value: str, span: Span, out: WavefrontSpan) -> Fate:
    return Fate(path, value, *explain_otlp.fate(path, value, span, out, _judge_tag))


def _fate(path: str, value: str, span: Span, out: WavefrontSpan) -> Fate:
    if path.startswith("tags."):
        return _tag_fate(path, path.removeprefix("tags."), value, out)
    for prefix, judge in _JUDGES.items():
        if path == prefix or path.startswith((prefix + ".", prefix + "[")):
            fate, reason = judge(path, value, span, out)
            return Fate(path, value, fate, reason)
    return Fate(path, value, "dropped", "not a field of a Zipkin span")


# Fields


def _trace_id(path: str, value: str, span: Span, out: WavefrontSpan) -> tuple[str, str]:
    return "became", f'traceId="{naming.uuid(out.trace_id)}": Wavefront writes ids as UUIDs'


def _span_id(path: str, value: str, span: Span, out: WavefrontSpan) -> tuple[str, str]:
    return "became", f'spanId="{naming.uuid(out.span_id)}": Wavefront writes ids as UUIDs'


def _parent(path: str, value: str, span: Span, out: WavefrontSpan) -> tuple[str, str]:
    if out.parent_id is None:
        return "dropped", "no parent: it is empty, zeros, no hex, or the span's own id"
    return "became", f'"parent"="{naming.uuid(out.parent_id)}"'


def _name(path: str, value: str, span: Span, out: WavefrontSpan) -> tuple[str, str]:
    if out.name == value:
        return "kept", "the span's name"
    if out.name == "_other":
        return (
            "renamed",
            "_other: the cap on operation names is reached; the name is in the tag operation.name",
        )
    return (
        "changed",
        f"the span's name is {out.name!r}: rules, * to -, length and letter case of the profile",
    )


def _kind(path: str, value: str, span: Span, out: WavefrontSpan) -> tuple[str, str]:
    if not out.kind:
        return "dropped", "not one of CLIENT, SERVER, PRODUCER, CONSUMER"
    return "became", f'"span.kind"="{out.kind}"'


def _start(path: str, value: str, span: Span, out: WavefrontSpan) -> tuple[str, str]:
    if span.timestamp_us is not None and span.timestamp_us // 1000 == out.start_ms:
        return "became", f"start {out.start_ms}: milliseconds"
    return (
        "changed",
        f"start {out.start_ms}: {value} cannot be a start, so it is arrival minus duration",
    )


def _duration(path: str, value: str, span: Span, out: WavefrontSpan) -> tuple[str, str]:
    if span.duration_us == out.duration_us:
        return (
            "became",
            f"duration {out.duration_ms}: milliseconds; RED counts {out.duration_us} microseconds",
        )
    return "changed", f"duration {out.duration_ms}: {value} cannot be a duration"


def _local(path: str, value: str, span: Span, out: WavefrontSpan) -> tuple[str, str]:
    name = path.rpartition(".")[2]
    if name == "serviceName":
        taken = [
            key
            for key in _IDENTITY
            if dict(out.head).get(key, "").lower() in value.lower().split(".")
        ]
        if dict(out.head).get("service") == value.lower() or taken:
            return "used", f"read for {', '.join(taken) or 'service'}"
        return "used", "a fallback for application, service and source; better tags came first"
    if name in ("ipv4", "ipv6") and (name, value) in (*out.head, *out.tags.items(), *out.tail):
        return "became", f'"{name}"="{value}"'
    return "dropped", "a Wavefront span has no place for it"


def _remote(path: str, value: str, span: Span, out: WavefrontSpan) -> tuple[str, str]:
    name = path.rpartition(".")[2]
    key = "peer." + {"serviceName": "service"}.get(name, name)
    if out.tags.get(key) == value:
        return "became", f'"{key}"="{value}"'
    return "dropped", "this profile does not send it, or the span has that tag itself"


def _annotation(path: str, value: str, span: Span, out: WavefrontSpan) -> tuple[str, str]:
    entry = json.loads(value)
    text = entry.get("value") if isinstance(entry, dict) else None
    if any(log.value == text for log in out.logs or ()):
        return "became", "a span log entry"
    if text in ("cs", "cr", "ss", "sr"):
        return "dropped", "a core annotation repeats what kind, start and duration say"
    return "dropped", "unreadable, too long together, or span logs are switched off"


def _debug(path: str, value: str, span: Span, out: WavefrontSpan) -> tuple[str, str]:
    if span.debug:
        return "became", '"debug"="true": sampling keeps the span'
    return "dropped", "false is the same as absent"


def _shared(path: str, value: str, span: Span, out: WavefrontSpan) -> tuple[str, str]:
    if span.shared and out.secondary_id:
        return "became", f'"_spanSecondaryId"="{out.secondary_id}": both halves have one id'
    return "dropped", "this profile does not tell shared halves apart, or it is false"


def _binary(path: str, value: str, span: Span, out: WavefrontSpan) -> tuple[str, str]:
    entry = json.loads(value)
    key = entry.get("key") if isinstance(entry, dict) else None
    if key in ("sa", "ca", "ma"):
        return "used", "the other side of the call (remote endpoint)"
    if isinstance(key, str) and key in (span.tags or {}):
        return "became", f"tag: {_tag_fate('', key, (span.tags or {})[key], out).reason}"
    return "dropped", "not a text: version 1 tags are texts"


def _no_tags(path: str, value: str, span: Span, out: WavefrontSpan) -> tuple[str, str]:
    return "dropped", "not an object of texts"


_JUDGES = {
    "traceId": _trace_id,
    "id": _span_id,
    "parentId": _parent,
    "name": _name,
    "kind": _kind,
    "timestamp": _start,
    "duration": _duration,
    "localEndpoint": _local,
    "remoteEndpoint": _remote,
    "annotations": _annotation,
    "binaryAnnotations": _binary,
    "debug": _debug,
    "shared": _shared,
    "tags": _no_tags,
}


# Tags


def _tag_fate(path: str, key: str, value: str, out: WavefrontSpan) -> Fate:
    fate, reason = _judge_tag(key, value, out)
    return Fate(path, value, fate, reason)


def _judge_tag(key: str, value: str, out: WavefrontSpan) -> tuple[str, str]:
    written = [(naming.clean_key(name), text) for name, text in (*out.tags.items(), *out.tail)]
    head = dict(out.head)
    clean = naming.clean_key(key) if key else ""
    also = [name for name in _IDENTITY if head.get(name) == value.strip() and value.strip()]
    note = f"; also the {' and '.join(also)}" if also and key not in _IDENTITY else ""
    if key == "error":
        return _judge_error(value, out)
    if key in head and head[key] in (value.strip(), value.strip().lower()):
        return "became", f'the span\'s own "{key}"'
    if key == "source" and out.source in (value, naming.clean_key(value.strip() or "-")):
        return "became", f'source="{out.source}"'
    if not value.strip():
        return "dropped", "blank: Wavefront refuses tags without a value"
    if (clean, value) in written:
        how = (
            "as it is"
            if clean == key
            else f"under {clean!r}: Wavefront's keys have letters, digits, . - _ ,"
        )
        return ("kept" if clean == key else "renamed"), how + note
    for name, text in written:
        if name == clean:
            return "changed", f"now {text!r}: {_why_changed(value, text)}{note}"
    for name, text in written:
        if text == value and (name == "_" + clean or name.startswith(clean[:100])):
            return (
                "renamed",
                f"under {name!r}: its own key is reserved, empty, all digits, too long or taken",
            )
    return (
        "dropped",
        "the budget of 50 tags was spent on more telling ones, or the profile leaves it out",
    )


def _judge_error(value: str, out: WavefrontSpan) -> tuple[str, str]:
    if not out.error:
        return "dropped", "false: there was no error"
    if out.tags.get("error.message") == value.strip():
        return "became", '"error"="true", its text in "error.message"'
    return "became", '"error"="true": the span counts as an error'


def _why_changed(value: str, text: str) -> str:
    if text.endswith("..."):
        return "cut to Wavefront's 128 characters"
    if "***" in text:
        return "values in the query string are masked (mapping.url_query)"
    if text == value.strip():
        return "blanks at the edges are left out"
    return "a last backslash would swallow the quote, or the profile rewrites it"


# What it feeds


def _red(out: WavefrontSpan) -> list[str]:
    """The RED series as the lines' own names and tags, without values."""
    from tracefwd.exporter.lines import LineWriter

    key = RedKey(out.identity, out.name, out.kind, out.http_status, out.red_tags)
    point = RedPoint(key, 1, int(out.error), out.duration_us // 1000, [], [])
    lines = [payload.data.decode() for payload in LineWriter().write_red([point], 0)]
    stem = naming.clean_stem(out.identity.application, out.identity.service, out.name)
    shown = [line.split(" 0 ", 1) for text in lines for line in text.rstrip("\n").split("\n")]
    counters = [f"{name.rpartition(' ')[0]} {rest}" for name, rest in shown]
    return [
        *counters,
        f'!M "tracing.derived.{stem}.duration.micros"' + (' "error"="true"' if out.error else ""),
    ]


def _print(report: dict[str, Any]) -> None:
    if "rejected" in report:
        print(f"rejected ({report['rejected']}): {report['where']}: {report['detail']}")
    else:
        print(f"span {report['span']} of trace {report['trace']}: {report['sampling']}")
        print(f"  {report['line']}")
        for log in report["span_logs"]:
            print(f"  {log}")
    width = max((len(field["path"]) for field in report["fields"]), default=0)
    for field in report["fields"]:
        print(f"  {field['path']:<{width}}  {field['fate']:<8}  {field['reason']}")
    for series in report.get("red", ()):
        print(f"  feeds {series}")
    for kind, number in report.get("repairs", {}).items():
        print(f"  repaired: {kind} ({number})")
    print()
