"""``tracefwd convert --metrics`` and ``tracefwd metrics check``: what is sent of an exposition, and what is not.

Both translate a file as ``run`` would translate a scrape of the configuration's source (or of one without filters if
there is none).  A file is old by nature, so no sample is dropped for its age.  What compares scrapes (delta counters,
distributions) has nothing to compare one file with, and says so in its counts.
"""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tracefwd.compose import load_point_rules
from tracefwd.errors import ConfigError
from tracefwd.metricspath.translate import Scrape, Translation
from tracefwd.model import Payload
from tracefwd.processor.ruled_points import RuledPoints
from tracefwd.service.convert import read_body
from tracefwd.service.source_checks import source_name
from tracefwd.settings import PrometheusSourceSettings, Settings

if TYPE_CHECKING:
    from tracefwd.service.config import Loaded

_PIECE_BYTES = 2**18
_OPENMETRICS_END = b"# EOF"
_SHOWN_MAX = 50
# Of a bad line.
_SHOWN_BYTES_MAX = 200


def convert(loaded: "Loaded", files: Sequence[str], source: str) -> int:
    """Point lines to standard output, losses to standard error; 0 if every file held a sample."""
    settings = loaded.settings
    translation = _translation(settings, source)
    rules = load_point_rules(settings)
    ruled = None if rules is None else RuledPoints(rules, settings.metrics.tags_max)
    worst = 0
    for file in files:
        body = read_body(file)
        if body is None:
            worst = 1
            continue
        scrape = _begin(translation, body)
        for payload in _payloads(scrape, body):
            passed = payload if ruled is None else ruled.filter(payload).payload
            if passed is not None:
                sys.stdout.buffer.write(passed.data)
        _complain(file, scrape)
        for shown in _bad_lines(settings, source, body) if scrape.counts.bad_lines else ():
            print(f"tracefwd: {file}: {shown}", file=sys.stderr)
        if not scrape.counts.samples:
            advice = "give a Prometheus exposition, such as an answer of /federate"
            print(f"tracefwd: {file}: holds no sample; {advice}", file=sys.stderr)
            worst = 1
    sys.stdout.buffer.flush()
    return worst


def check(loaded: "Loaded", file: str, source: str, *, as_json: bool) -> int:
    """What the filters and limits do to a file, and which allow-listed names it lacks; 0 if a point is left of it."""
    translation = _translation(loaded.settings, source)
    body = read_body(file)
    if body is None:
        return 1
    scrape = _begin(translation, body)
    for _ in _payloads(scrape, body):
        pass
    report = translation.report()
    counts = scrape.counts
    facts = {
        "source": source_name(_source(loaded.settings, source)),
        "samples": counts.samples,
        "families": counts.families,
        "points": counts.points,
        "dropped": counts.dropped,
        "bad_lines": counts.bad_lines,
        "tags_changed": counts.repairs,
        "never_seen": report.never_seen,
        "not_sent": report.not_sent,
    }
    if as_json:
        print(json.dumps(facts, indent=2, ensure_ascii=False))
    else:
        print("\n".join(_text(facts)))
    return 0 if counts.points else 1


def _source(settings: Settings, name: str) -> PrometheusSourceSettings:
    """Raises ``ConfigError`` if there is none of this name."""
    sources = settings.prometheus_sources
    if not name:
        return sources[0] if sources else PrometheusSourceSettings()
    for source in sources:
        if source_name(source) == name:
            return source
    known = ", ".join(source_name(source) for source in sources) or "none"
    raise ConfigError([f"--source: there is no source {name!r}; the configuration has {known}"])


def _translation(settings: Settings, name: str) -> Translation:
    metrics = replace(settings.metrics, age_max=0.0, ahead_max=0.0)
    return Translation(_source(settings, name), metrics, "prometheus_sources")


def _begin(translation: Translation, body: bytes) -> Scrape:
    is_openmetrics = body.rstrip().endswith(_OPENMETRICS_END)
    return translation.begin(time.time(), "application/openmetrics-text" if is_openmetrics else "")


def _payloads(scrape: Scrape, body: bytes) -> Iterator[Payload]:
    for start in range(0, len(body), _PIECE_BYTES):
        yield from scrape.feed(body[start : start + _PIECE_BYTES])
    yield from scrape.finish(complete=True)


def _bad_lines(settings: Settings, source: str, body: bytes) -> Iterator[str]:
    """The first of them, each with its number, reason and beginning."""
    scrape = _begin(_translation(settings, source), body)
    found = 0
    before: dict[str, int] = {}
    for number, line in enumerate(body.split(b"\n"), 1):
        scrape.feed(line + b"\n")
        bad = scrape.counts.bad_lines
        if bad == before:
            continue
        reason = next(reason for reason in bad if bad[reason] != before.get(reason))
        before = dict(bad)
        found += 1
        if found > _SHOWN_MAX:
            yield f"further bad lines from line {number:,} on"
            return
        yield f"line {number:,}: {reason}: {line[:_SHOWN_BYTES_MAX].decode('utf-8', 'replace')!r}"


def _complain(file: str, scrape: Scrape) -> None:
    counts = scrape.counts
    for title, table in (
        ("samples not sent", counts.dropped),
        ("bad lines", counts.bad_lines),
        ("tags changed or taken off", counts.repairs),
    ):
        if table:
            print(f"tracefwd: {file}: {title}: {_listed(table)}", file=sys.stderr)


def _text(facts: dict[str, Any]) -> Iterator[str]:
    yield f"source: {facts['source'] or 'none configured: no filters'}"
    yield f"samples: {facts['samples']:,} in {facts['families']:,} families; points: {facts['points']:,}"
    for key, title in (
        ("dropped", "samples not sent"),
        ("bad_lines", "bad lines"),
        ("tags_changed", "tags changed or taken off"),
    ):
        yield f"{title}: {_listed(facts[key]) or 'none'}"
    never = facts["never_seen"]
    yield f"allow-listed but not in this body: {', '.join(never) or 'none'}"
    by_number = sorted(facts["not_sent"].items(), key=lambda row: (-sum(row[1].values()), row[0]))
    yield "came but not sent:" if by_number else "came but not sent: none"
    for name, reasons in by_number[:_SHOWN_MAX]:
        yield f"  {name}: {_listed(reasons)}"
    if len(by_number) > _SHOWN_MAX:
        yield f"  and {len(by_number) - _SHOWN_MAX:,} names more (--json has all)"


def _listed(table: dict[str, int]) -> str:
    return ", ".join(f"{key} {number:,}" for key, number in sorted(table.items()))
