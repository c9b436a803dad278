"""Which lines of a Wavefront proxy's ``wavefront.conf`` touch what tracefwd sends through it (``--proxy-conf``).

From outside none of it shows: the proxy answers 2xx whatever it then does.  What its preprocessor rules do is not
guessed: the RED of the doctor's own span goes through our copy of them, and what comes out is compared.

Sources: the proxy's ``ReportPointAddPrefixTransformer`` (a prefix is put before names but those that begin with a
delta or a tilde, so of RED the distributions alone are renamed), ``ProxyConfigDef``, ``PreprocessorConfigManager``.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from tracefwd.errors import ConfigError
from tracefwd.limits import POINT_TAGS_MAX
from tracefwd.model import Payload, Signal
from tracefwd.processor.ruled_points import RuledPoints
from tracefwd.processor.rules import read_rules
from tracefwd.service import doctor_test_lines
from tracefwd.service.config_report import Report
from tracefwd.service.doctor_findings import Finding, Rows
from tracefwd.service.source_checks import wants_scraper
from tracefwd.service.wavefront_conf import read_conf, read_values
from tracefwd.settings import Settings, TargetSettings

_PUSH_DEFAULT = "2878"
# The words of old and new for the two expressions over whole lines, and the action that does the same.
_LINE_FILTERS = (
    (("blockRegex", "blacklistRegex"), "block"),
    (("allowRegex", "whitelistRegex"), "allow"),
)
# Distributions pass no rules of ours; the same name as a point does.
_DISTRIBUTION = re.compile(rb'!M \d+(?: #\d+ \S+)+ ("(?:[^"]|(?<=\\)")*") (source=.*)\n')


def findings(path: Path, settings: Settings) -> list[Finding]:
    rows = Rows(f"proxy's {path.name}")
    report = Report()
    read_conf(path, report)
    found = [
        rows.cross("file", problem, "correct the line; the proxy would refuse it, too")
        for problem in report.problems
    ]
    values = read_values(path)
    if values is None:
        return found
    targets = [target for target in settings.exporter.targets if target.kind == "proxy"]
    if not targets:
        return [rows.skipped("file", "no target is a proxy")]
    for target in targets:
        found += _ports(rows, values, target, settings)
        found += _red(rows, values, path, target, settings)
    found += _sampling(rows, values)
    return list(dict.fromkeys(found))


# --- ports -----------------------------------------------------------------------------------


def _ports(
    rows: Rows, values: Mapping[str, str], target: TargetSettings, settings: Settings
) -> Iterator[Finding]:
    traces, metrics = (str(urlsplit(url).port or "") for url in (target.traces, target.metrics))
    push = _listed(values.get("pushListenerPorts") or _PUSH_DEFAULT)
    custom = _listed(values.get("customTracingListenerPorts", ""))
    spans = _listed(values.get("traceListenerPorts", ""))
    if target.traces:
        if traces in custom and settings.red.enabled:
            yield rows.warning(
                "trace port",
                f"{traces} is in customTracingListenerPorts, where the proxy derives RED itself",
                "send traces to traceListenerPorts, or every call counts twice; or set red.enabled: false",
            )
        elif traces in (*spans, *custom):
            yield rows.ok("trace port", f"the file has {traces}")
        elif not spans:
            yield rows.cross(
                "trace port",
                "the file has no traceListenerPorts: such a proxy takes no spans",
                f"add traceListenerPorts={traces or 30000} and restart the proxy",
            )
        else:
            yield _elsewhere(rows, "trace port", "traceListenerPorts", spans, traces)
    if target.metrics:
        if metrics in push:
            yield rows.ok("metrics port", f"the file has {metrics}")
        else:
            yield _elsewhere(rows, "metrics port", "pushListenerPorts", push, metrics)


def _elsewhere(rows: Rows, check: str, option: str, ports: list[str], ours: str) -> Finding:
    return rows.warning(
        check,
        f"{option} is {','.join(ports)}, the target's URL has {ours or 'no port'}",
        "that is right only if a Service or load balancer between them maps the port",
    )


def _listed(text: str) -> list[str]:
    return [port.strip() for port in text.split(",") if port.strip()]


# --- RED -------------------------------------------------------------------------------------


def _red(
    rows: Rows, values: Mapping[str, str], path: Path, target: TargetSettings, settings: Settings
) -> Iterator[Finding]:
    if not target.metrics or not settings.red.enabled:
        return
    check = "RED on the metrics port"
    touched = False
    if prefix := values.get("prefix", ""):
        touched = True
        also = ", and so are scraped points" if wants_scraper(settings) else ""
        yield rows.warning(
            check,
            f"prefix={prefix}: RED's distributions become {prefix}.tracing.derived.…{also}; ∆ counters and ~ "
            "heartbeats keep their names: durations are missing on Wavefront's service pages",
            "remove prefix, or give RED a proxy without one (the target's metrics URL)",
        )
    for what, text, where in _rule_files(values, path, target):
        if text is None:
            touched = True
            todo = "copy the rules file beside wavefront.conf and ask again"
            yield rows.warning(check, f"{what} {where} cannot be read here", todo)
            continue
        try:
            changed = _changed(text, where, target, settings)
        except ConfigError as error:
            touched = True
            todo = (
                "correct it: the proxy refuses such a file, or does something else than we can tell"
            )
            yield rows.warning(check, f"{what}: {error.problems[0]}", todo)
            continue
        if changed:
            touched = True
            todo = "let these rules leave ∆tracing.derived.*, tracing.derived.* and ~component.heartbeat alone"
            yield rows.warning(check, f"{what}: {', '.join(changed)}", todo)
    if not touched:
        yield rows.ok(
            check, "no prefix; filters and point rules leave the RED of a test span as it is"
        )


def _rule_files(
    values: Mapping[str, str], path: Path, target: TargetSettings
) -> Iterator[tuple[str, str | None, str]]:
    """Option, text in the form of a rules file (None: unreadable), and its name in messages."""
    port = str(urlsplit(target.metrics).port or _PUSH_DEFAULT)
    for names, action in _LINE_FILTERS:
        for name in names:
            if expression := values.get(name, ""):
                rule = {"rule": name, "action": action, "scope": "pointLine", "match": expression}
                # JSON is YAML, too, and quotes whatever the expression holds.
                yield name, json.dumps({port: [rule]}), name
    file = values.get("preprocessorConfigFile", "")
    if not file:
        return
    for place in (Path(file), path.parent / Path(file).name):
        try:
            yield "preprocessorConfigFile", place.read_text(encoding="utf-8"), str(place)
        except (OSError, UnicodeDecodeError):
            # The path is one of the proxy's container; the copy may lie beside the conf.
            continue
        return
    yield "preprocessorConfigFile", None, file


def _changed(text: str, where: str, target: TargetSettings, settings: Settings) -> list[str]:
    """What the rules do to the RED of a test span, in words; raises ``ConfigError``."""
    port = str(urlsplit(target.metrics).port or _PUSH_DEFAULT)
    rules = RuledPoints(read_rules(text, where=where).for_port(port), POINT_TAGS_MAX)
    for line in _red_points(target, settings):
        rules.filter(Payload(Signal.POINTS, line, 1))
    done = rules.samples()
    return [
        f"rule {rule} {'blocks' if result == 'blocked' else 'changes'} RED"
        for (rule, result), number in sorted(done.items())
        if number and result in ("applied", "blocked")
    ]


def _red_points(target: TargetSettings, settings: Settings) -> list[bytes]:
    payloads = doctor_test_lines.payloads(target, settings)
    counters = payloads[Signal.POINTS].data.splitlines(keepends=True)
    found = _DISTRIBUTION.findall(payloads[Signal.DISTRIBUTIONS].data)
    seconds = counters[0].split(b'" ', 1)[1].split(b" ")[1]
    return [*counters, *(b"%b 1 %b %b\n" % (name, seconds, rest) for name, rest in found)]


def _sampling(rows: Rows, values: Mapping[str, str]) -> Iterator[Finding]:
    rate = values.get("traceSamplingRate", "")
    try:
        samples = bool(rate) and float(rate) < 1
    except ValueError:
        return  # told as a mistake of the file
    if samples:
        yield rows.warning(
            "sampling",
            f"traceSamplingRate={rate} samples again what tracefwd has sampled",
            "leave sampling to one of them: set it to 1.0 there, or sampling.rate to 1 here",
        )


__all__ = ["findings"]
