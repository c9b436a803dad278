"""Compares span lines and span logs: which belong together, and in what fields they differ.

Spans belong together by trace id, span id and secondary id (or span.kind).  Of what is left, those whose span ids are
each other's bytes in reverse, then those that agree in all but the secondary id.  The order of different
tags means nothing; that of one key's values does.  Texts that are equal are not parsed at all.

Nothing is kept but the lines themselves and, per line that has no equal, its key.  Pure.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from tracefwd.emulator.rules import Limits, Refused, is_uuid
from tracefwd.emulator.span_log_reader import SpanLogReader
from tracefwd.emulator.span_reader import Span, parse_span
from tracefwd.processor.sampler_rules import PLACES, distance
from tracefwd.service import diff_words as words
from tracefwd.service.diff_report import Report

# Fewer spans than this could look sampled by chance.
_SAMPLED_MIN = 20
# Names that the parser takes for its own, and tokens that it reads as punctuation.
_SPECIAL_KEYS = frozenset({"source", "host", "spanId", "traceId", "=", "#", ""})
_HEAD = ["", " source=", " spanId=", " traceId="]
_ABSENT = object()
# Stands for an escaped quote while a line is cut at its quotes.
_QUOTE = "\0"

Identity = tuple[str, str, str]
Named = tuple[Identity, str]
"""A line and what it is found by."""


# --- reading ---------------------------------------------------------------------------------


def read_span(line: str) -> Span:
    """As the stand-in's parser reads it, by a short cut for lines as every sane writer makes them."""
    return _plain_span(line) or parse_span(line)[0]


def _plain_span(line: str) -> Span | None:
    escapes = '\\"' in line
    if escapes:
        if _QUOTE in line:
            return None
        # A backslash before a quote is always an escape, and nothing else is.
        line = line.replace('\\"', _QUOTE)
    parts = line.split('"')
    # "name" source="s" spanId="i" traceId="t" "key"="value" … start duration
    if len(parts) < 9 or len(parts) % 4 != 1 or parts[0:8:2] != _HEAD:
        return None
    keys, values = parts[9::4], parts[11::4]
    if not _SPECIAL_KEYS.isdisjoint(keys) or any(map(str.isdecimal, keys)):
        return None
    if parts[8:-1:4] != [" "] * len(keys) or parts[10::4] != ["="] * len(keys):
        return None
    start, _, duration = parts[-1][1:].partition(" ")
    # Thirteen digits are milliseconds; a longer second number may be an end.
    if not (parts[-1][0] == " " and len(start) == 13 and len(duration) < 13 and start[0] != "0"):
        return None
    if not (parts[-1].isascii() and start.isdecimal() and duration.isdecimal()):
        return None
    if escapes:
        keys, values = _unescaped(keys), _unescaped(values)
        parts = _unescaped(parts)
    tags = list(zip(keys, values, strict=True))
    return Span(parts[1], parts[3], parts[7], parts[5], int(start), int(duration), tags)


def _unescaped(texts: list[str]) -> list[str]:
    return [text.replace(_QUOTE, '"') for text in texts]


def _read_identity(line: str) -> Identity:
    span = read_span(line)
    return span.trace_id, span.span_id, span.secondary_id


def _glance(line: str) -> Identity:
    """The same for lines that can be read, without reading them whole."""
    if "\\" not in line and '"spanId"' not in line and '"traceId"' not in line:
        parts = line.split('"', 8)
        if len(parts) == 9 and parts[0:8:2] == _HEAD:
            return parts[7], parts[5], _secondary_id(parts[8])
    return _read_identity(line)


def _secondary_id(tags: str) -> str:
    """From the line's rest, in which no value holds a quote."""
    for label in ('"_spanSecondaryId"="', '"span.kind"="'):
        _, found, rest = tags.partition(label)
        if found and not rest.startswith('"'):
            return rest.partition('"')[0]
    return ""


_read_log = SpanLogReader(Limits(), policy_member=True, span_member=False).read


def log_identity(line: str) -> Identity:
    return _read_log(line, 0).identity


# --- pairing ---------------------------------------------------------------------------------


class _Kind(NamedTuple):
    """What there is to know about one signal's lines.

    ``read`` reads a line whole; ``glance`` takes the shortest way to its identity, and may find it in a line that
    cannot be read.  All but ``canon`` raise ``Refused``.
    ``canon`` is equal for lines that say the same; ``judge`` reports how two differ, and says whether they do not.
    """

    signal: str
    read: Callable[[str], Identity]
    glance: Callable[[str], Identity]
    canon: Callable[[str], Hashable]
    judge: Callable[[Report, str, str], bool]


def compare_spans(a: list[str], b: list[str], report: Report) -> None:
    _compare(_Kind("spans", _read_identity, _glance, _span_canon, _judge_spans), a, b, report)
    tally = report.tally("spans")
    if tally.only_a or tally.only_b:
        _look_for_sampling(a, b, report)


def compare_span_logs(a: list[str], b: list[str], report: Report) -> None:
    _compare(_Kind("span_logs", log_identity, log_identity, _log_canon, _judge_logs), a, b, report)


def _compare(kind: _Kind, a: list[str], b: list[str], report: Report) -> None:
    left_a, left_b = _without_equals(a, b)
    tally = report.tally(kind.signal)
    tally.equal += len(a) - len(left_a)
    named_a = _named(kind, left_a, report, in_a=True)
    named_b = _named(kind, left_b, report, in_a=False)
    apart_a: list[Named] = []
    apart_b: list[Named] = []
    for key_of in (_exact, _either_order, _without_secondary):
        groups_a, groups_b = _grouped(named_a, key_of), _grouped(named_b, key_of)
        named_a, named_b = [], []
        for key, mine in groups_a.items():
            theirs = groups_b.pop(key, [])
            pairs = _pair_up(kind, mine, theirs)
            for (identity_a, one), (identity_b, other) in pairs:
                try:
                    same = kind.judge(report, one, other)
                except Refused:
                    apart_a.append((identity_a, one))
                    apart_b.append((identity_b, other))
                    continue
                tally.equal += same
                tally.differing += not same
            named_a += mine[len(pairs) :]
            named_b += theirs[len(pairs) :]
        named_b += [line for group in groups_b.values() for line in group]
    tally.only_a += _report_alone(kind, named_a + apart_a, b, report, in_a=True)
    tally.only_b += _report_alone(kind, named_b + apart_b, a, report, in_a=False)


def _without_equals(a: list[str], b: list[str]) -> tuple[list[str], list[str]]:
    """What has no equal on the other side; a line counts as often as it is there."""
    left_b = Counter(b)
    left_a = []
    for line in a:
        if left_b[line] > 0:
            left_b[line] -= 1
        else:
            left_a.append(line)
    return left_a, list(left_b.elements())


def _named(kind: _Kind, lines: Iterable[str], report: Report, *, in_a: bool) -> list[Named]:
    named: list[Named] = []
    for line in lines:
        try:
            identity = kind.glance(line)
        except (Refused, UnicodeEncodeError) as error:
            why = str(error) if isinstance(error, Refused) else "not UTF-8"
            report_unreadable(report, kind.signal, line, why, in_a=in_a)
        else:
            named.append((identity, line))
    return named


def report_unreadable(report: Report, signal: str, line: str, why: str, *, in_a: bool) -> None:
    """A line that Wavefront cannot read and that the other side does not have."""
    tally = report.tally("unreadable")
    side = "A" if in_a else "B"
    tally.only_a += in_a
    tally.only_b += not in_a
    shown = (line, None) if in_a else (None, line)
    report.add(signal, "unreadable line", f"only in {side}", why, "", *shown)


def _exact(identity: Identity) -> Hashable:
    return identity


def _either_order(identity: Identity) -> Hashable:
    trace_id, span_id, secondary_id = identity
    return trace_id, min(span_id, words.reversed_bytes(span_id)), secondary_id


def _without_secondary(identity: Identity) -> Hashable:
    return _either_order((identity[0], identity[1], ""))


def _grouped(
    named: Iterable[Named], key_of: Callable[[Identity], Hashable]
) -> dict[Hashable, list[Named]]:
    groups: dict[Hashable, list[Named]] = defaultdict(list)
    for entry in named:
        groups[key_of(entry[0])].append(entry)
    return groups


def _pair_up(kind: _Kind, mine: list[Named], theirs: list[Named]) -> list[tuple[Named, Named]]:
    """As many pairs as the shorter list allows, its entries first in both; those that say the same go together."""
    if len(mine) > 1 or len(theirs) > 1:
        wanted = Counter(kind.canon(line) for _, line in theirs)
        wanted &= Counter(kind.canon(line) for _, line in mine)
        for group in (mine, theirs):
            _equals_first(kind, group, wanted)
    return list(zip(mine, theirs, strict=False))


def _equals_first(kind: _Kind, group: list[Named], common: Counter[Hashable]) -> None:
    """Sorts: what both sides have, by what it says, before the rest."""
    left = common.copy()

    def place(entry: Named) -> tuple[bool, str]:
        canon = kind.canon(entry[1])
        left[canon] -= 1
        return left[canon] < 0, repr(canon)

    group.sort(key=place)


def _report_alone(
    kind: _Kind, named: list[Named], others: list[str], report: Report, *, in_a: bool
) -> int:
    """How many they are, those that cannot be read left out."""
    if not named:
        return 0
    traces = set()
    for line in others:
        try:
            traces.add(kind.glance(line)[0])
        except (Refused, UnicodeEncodeError):
            continue  # told as unreadable, unless both sides have it
    alone = 0
    for identity, line in named:
        try:
            kind.read(line)
        except Refused as refused:
            report_unreadable(report, kind.signal, line, str(refused), in_a=in_a)
            continue
        alone += 1
        why = "other lines of its trace are on the other side"
        if kind.signal == "span_logs":
            why = words.log_entry(line)
        elif identity[0] not in traces:
            why = "nothing of its trace is on the other side: sampled out, or lost as a whole"
        shown = (line, None) if in_a else (None, line)
        change = f"only in {'A' if in_a else 'B'}"
        report.add(kind.signal, "line", change, why, _where(identity), *shown)
    return alone


def _where(identity: Identity) -> str:
    trace_id, span_id, secondary_id = identity
    return f"trace {trace_id} span {span_id} {secondary_id}".rstrip()


def _look_for_sampling(a: list[str], b: list[str], report: Report) -> None:
    """Says so when one side lacks exactly the traces above some place."""
    places_a, places_b = _places(a), _places(b)
    for name, full, part in (("B", places_a, places_b), ("A", places_b, places_a)):
        if not part < full or len(full) < _SAMPLED_MIN:
            continue
        line, missing = max(part, default=-1), min(full - part)
        if line < missing:
            rate = f"{(line + missing) / 2 / PLACES:.2g}"
            report.notes.append(
                f"{name} has every trace up to place {line} of {PLACES} and none from {missing} on: "
                f"it samples by trace id, at a rate of about {rate}"
            )


def _places(lines: Iterable[str]) -> set[int]:
    places = set()
    for line in lines:
        try:
            trace_id = _glance(line)[0]
        except Refused:
            continue  # told as unreadable, unless both sides have it
        if is_uuid(trace_id):
            places.add(distance(trace_id.replace("-", "")))
    return places


# --- fields ----------------------------------------------------------------------------------


def _fields(span: Span) -> tuple[object, ...]:
    ids = span.trace_id, span.span_id
    return (span.name, span.source, *ids, span.start_ms, span.duration_ms)


def _tags(span: Span) -> dict[str, tuple[str, ...]]:
    """A key's values in their order."""
    tags: dict[str, tuple[str, ...]] = {key: (value,) for key, value in span.tags}
    if len(tags) != len(span.tags):
        tags = dict.fromkeys(tags, ())
        for key, value in span.tags:
            tags[key] += (value,)
    return tags


def _span_canon(line: str) -> Hashable:
    """Equal for lines that say the same; the order of different keys is left out."""
    try:
        span = read_span(line)
    except Refused:
        return line
    # Stable: the values of one key keep their order.
    tags = tuple(sorted(span.tags, key=_first))
    return (*_fields(span), tags)


def _first(pair: tuple[str, str]) -> str:
    return pair[0]


def _judge_spans(report: Report, line_a: str, line_b: str) -> bool:
    a, b = read_span(line_a), read_span(line_b)
    tags_a, tags_b = _tags(a), _tags(b)
    if _fields(a) == _fields(b) and tags_a == tags_b:
        return True
    where = _where((a.trace_id, a.span_id, a.secondary_id))
    for name, one, other in (
        ("name", a.name, b.name),
        ("source", a.source, b.source),
        ("trace id", a.trace_id, b.trace_id),
        ("span id", a.span_id, b.span_id),
    ):
        if one != other:
            why = words.field(name, one, other)
            report.add("spans", name, "another value", why, where, one, other)
    for name, mine, theirs in (
        ("start", a.start_ms, b.start_ms),
        ("duration", a.duration_ms, b.duration_ms),
    ):
        if mine != theirs:
            why = words.time(name, mine, theirs)
            report.add("spans", name, "another value", why, where, f"{mine} ms", f"{theirs} ms")
    for key in {**tags_a, **tags_b}:
        ours, others = tags_a.get(key, ()), tags_b.get(key, ())
        if ours != others:
            why = words.tag(key, ours, others, a, b)
            change = _change(ours, others)
            report.add("spans", f"tag {key}", change, why, where, _listed(ours), _listed(others))
    return False


def _change(a: tuple[str, ...], b: tuple[str, ...]) -> str:
    if not a or not b:
        return "only in B" if not a else "only in A"
    if sorted(a) == sorted(b):
        return "another order"
    return "another value" if len(a) == len(b) else "another number of values"


def _listed(values: tuple[str, ...]) -> str | None:
    return ", ".join(values) if values else None


# One line feeds the canon twice and the judge once: the last few objects are worth keeping.
@lru_cache(maxsize=64)
def _log(line: str) -> dict[str, Any]:
    log: dict[str, Any] = msgspec.json.decode(line, type=dict[str, Any])
    return log


def _log_canon(line: str) -> Hashable:
    return json.dumps(_log(line), sort_keys=True)


def _judge_logs(report: Report, line_a: str, line_b: str) -> bool:
    a, b = _log(line_a), _log(line_b)
    if a == b:
        return True
    where = _where(log_identity(line_a))
    for key in {**a, **b}:
        mine, theirs = a.get(key, _ABSENT), b.get(key, _ABSENT)
        if key == "logs":
            _judge_entries(report, where, a["logs"], b["logs"])
        elif mine is _ABSENT or theirs is _ABSENT or mine != theirs:
            change = "only in B" if mine is _ABSENT else "only in A"
            change = "another value" if _ABSENT not in (mine, theirs) else change
            why = words.log_member(key, mine, theirs, _ABSENT)
            report.add("span_logs", key, change, why, where, _json(mine), _json(theirs))
    return False


def _judge_entries(report: Report, where: str, a: list[Any], b: list[Any]) -> None:
    ours, others = [str(_json(entry)) for entry in a], [str(_json(entry)) for entry in b]
    if ours == others:
        return
    if sorted(ours) == sorted(others):
        shown = ", ".join(ours), ", ".join(others)
        report.add("span_logs", "logs", "another order", "", where, *shown)
        return
    only_a, only_b = Counter(ours) - Counter(others), Counter(others) - Counter(ours)
    for entry in only_a.elements():
        report.add("span_logs", "entry", "only in A", words.log_entry(entry), where, entry)
    for entry in only_b.elements():
        report.add("span_logs", "entry", "only in B", words.log_entry(entry), where, None, entry)


def _json(value: Any) -> str | None:
    if value is _ABSENT:
        return None
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
