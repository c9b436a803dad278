"""The query API's answers, made from the store.

    GET /totals   /spans?application=&service=&limit=   /series?prefix=   /rejects   /lines?signal=&limit=

Pure: plain data in, plain data out; ``ValueError`` for a bad parameter.
"""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from tracefwd.emulator.ports import SIGNALS
from tracefwd.emulator.span_reader import Span, parse_span
from tracefwd.emulator.store import Store

LIMIT_DEFAULT = 1_000


def _limit(query: Mapping[str, str]) -> int:
    text = query.get("limit", str(LIMIT_DEFAULT))
    if not text.isdecimal():
        raise ValueError(f"limit {text!r}: expected a number")
    return int(text)


def spans(store: Store, query: Mapping[str, str]) -> dict[str, Any]:
    """Accepted spans, newest first, as the parser reads them; only lines still kept are searched."""
    wanted = {key: query[key] for key in ("application", "service") if key in query}
    tally = store.tallies["spans"]
    found = islice(_matching(store, wanted), _limit(query))
    return {"kept": len(tally.kept), "total": tally.accepted, "spans": list(found)}


def _matching(store: Store, wanted: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    for line, _ in reversed(store.tallies["spans"].kept):
        # A cheap look before the long way; an escaped value is rare enough to be parsed in vain.
        if "\\" not in line and not all(value in line for value in wanted.values()):
            continue
        span, _ = parse_span(line)
        if all(span.value(key) == value for key, value in wanted.items()):
            yield _shown(span)


def _shown(span: Span) -> dict[str, Any]:
    """``tags``: one value per key, the first; ``tag_list`` has them all, in order."""
    tags: dict[str, str] = {}
    for key, value in span.tags:
        tags.setdefault(key, value)
    return {
        "name": span.name,
        "source": span.source,
        "trace_id": span.trace_id,
        "span_id": span.span_id,
        "start_ms": span.start_ms,
        "duration_ms": span.duration_ms,
        "tags": tags,
        "tag_list": span.tags,
    }


def series(store: Store, query: Mapping[str, str]) -> dict[str, Any]:
    return store.series.shown(query.get("prefix", ""))


def rejects(store: Store, query: Mapping[str, str]) -> dict[str, Any]:
    """Newest first."""
    reasons: dict[str, int] = {}
    for tally in store.tallies.values():
        for reason, count in tally.by_reason.items():
            reasons[reason] = reasons.get(reason, 0) + count
    samples = list(islice(reversed(store.rejects), _limit(query)))
    return {"total": sum(reasons.values()), "by_reason": reasons, "samples": samples}


def lines(store: Store, query: Mapping[str, str]) -> dict[str, Any]:
    """Accepted lines as they came, in order of arrival, the newest ``limit`` of them."""
    wanted = query.get("signal", "spans")
    signal = next((signal for signal in SIGNALS if signal == wanted), None)
    if signal is None:
        raise ValueError(f"signal {wanted!r}: expected one of {', '.join(SIGNALS)}")
    tally = store.tallies[signal]
    newest = list(islice(reversed(tally.kept), _limit(query)))
    return {
        "signal": signal,
        "kept": len(tally.kept),
        "total": tally.accepted,
        "lines": [line for line, _ in reversed(newest)],
    }


ANSWERS = {"/spans": spans, "/series": series, "/rejects": rejects, "/lines": lines}
