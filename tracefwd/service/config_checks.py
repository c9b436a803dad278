"""What options mean together: ranges, templates, rules, targets.  Everything here looks at a complete tree.

Keys that were refused while they were read are left alone (``Report.is_broken``).
"""

import dataclasses
import ipaddress
import math
import re
from typing import Any

from tracefwd.limits import POINT_TAG_KEY_LENGTH_MAX, POINT_TAGS_MAX
from tracefwd.processor import templates
from tracefwd.processor.wavefront_proxy_rules import Deviations
from tracefwd.service import memory, units
from tracefwd.service.config_options import Option, catalogue, get
from tracefwd.service.config_report import Report, did_you_mean
from tracefwd.service.source_checks import check_sources, wants_scraper
from tracefwd.service.target_checks import check_targets
from tracefwd.settings import Settings

# Numbers that are not simply "above zero": (lowest, highest).
_RANGES: dict[str, tuple[float, float]] = {
    "receiver.connection_age_max": (0, math.inf),  # 0 is never
    "receiver.header_bytes_max": (1024, 2**20),  # Envoy's own headers take about 500 bytes
    "receiver.connections_per_address_max": (0, math.inf),  # 0 is no limit
    "sampling.duration": (0, math.inf),  # 0 is off
    "sampling.rate": (0, 1),
    "sampling.keep_slow": (0, math.inf),  # 0 is off, here and below
    "sampling.spans_per_second_max": (0, math.inf),
    "service.drain_timeout": (0, math.inf),  # 0 drops at once, counted
    "service.memory_max": (0, math.inf),  # 0 asks the cgroup
    "service.pre_stop_delay": (0, math.inf),  # 0 drains at once
    "service.workers": (1, 256),  # more than any machine's cores is a slip
    "red.centroids_max": (2, 10_000),
    "metrics.age_max": (0, math.inf),
    "metrics.ahead_max": (0, math.inf),
    "metrics.tags_max": (1, 1_000),
}
_LISTENERS = (
    "receiver.listen",
    "admin.listen",
    "receiver.trace_listen",
    "receiver.otlp.http.listen",
    "receiver.otlp.grpc.listen",
)
_LISTS_OF_NAMES = ("red.tags", "admin.masked_tags", "admin.allowed_hosts", "receiver.paths")
_GRPC_CODE_MAX = 16
# RED's own: application, service, cluster, shard, component, span.kind, http.status_code, operationName, error, source.
_RED_TAGS_MAX = POINT_TAGS_MAX - 10
_STANDARD_PATHS = ("/api/v2/spans", "/api/v1/spans")
_PATH = re.compile(r"/[^\s?#]*")
_FOREIGN_GROUP = re.compile(r"\$(?:[0-9]|\{[0-9])")
_FLAG = re.compile(r"[A-Z]{1,16}")


def check(settings: Settings, report: Report) -> None:
    """Everything that makes a configuration unusable, whatever command reads it."""
    _check_ranges(settings, report)
    _check_relations(settings, report)
    _check_spool(settings, report)
    _check_listeners(settings, report)
    _check_memory(settings, report)
    _check_intake(settings, report)
    _check_admission(settings, report)
    _check_mapping(settings, report)
    _check_names(settings, report)
    _check_templates(settings, report)
    _check_rules(settings, report)
    _check_sampling(settings, report)
    check_targets(settings, report)
    check_sources(settings, report)


def _as_written(option: Option, value: Any) -> str:
    if option.unit == "duration":
        return units.format_duration(value)
    return units.format_size(value) if option.unit == "size" else str(value)


def _check_ranges(settings: Settings, report: Report) -> None:
    for key, option in catalogue().items():
        if option.kind not in (int, float) or report.is_broken(key):
            continue
        value = get(settings, key)
        shown = _as_written(option, value)
        if key not in _RANGES:
            if value <= 0:
                default = _as_written(option, option.default)
                reason = f"must be above zero; the default is {default}"
                report.refuse(key, reason, shown=shown)
            continue
        low, high = _RANGES[key]
        if not low <= value <= high:
            form = f"at least {_as_written(option, low)}"
            if high != math.inf:
                form = f"from {_as_written(option, low)} to {_as_written(option, high)}"
            report.refuse(key, f"is out of range; write a value {form}", shown=shown)


def _check_relations(settings: Settings, report: Report) -> None:
    """Pairs of which the first must not exceed the second."""
    pairs = (
        ("exporter.retry.backoff_base", "exporter.retry.backoff_max"),
        ("exporter.batch_bytes_max", "exporter.queue_bytes_max"),
        ("exporter.batch_bytes_max", "spool.bytes_max"),
        ("spool.after", "spool.age_max"),
    )
    for small, large in pairs:
        if report.is_broken(small) or report.is_broken(large):
            continue
        first, second = get(settings, small), get(settings, large)
        if first > second:
            option = catalogue()[small]
            reason = f"exceeds {large} ({_as_written(option, second)}); lower it or raise {large}"
            report.refuse(small, reason, shown=_as_written(option, first))


def _check_spool(settings: Settings, report: Report) -> None:
    spool = settings.spool
    if any(report.is_broken(f"spool.{name}") for name in ("folder", "durability")):
        return
    if spool.durability in ("disk", "fsync") and not spool.folder:
        reason = "needs a folder to write to; set spool.folder (flag --spool)"
        report.refuse("spool.durability", reason, shown=spool.durability)


def _check_listeners(settings: Settings, report: Report) -> None:
    """No two of them at one port, unless at different addresses of this machine."""
    if settings.service.only == "metrics":
        return  # the admin port is the only one that is opened
    taken: list[tuple[str, str, int]] = []
    for key in _LISTENERS:
        address = get(settings, key)
        if not address or report.is_broken(key):
            continue
        host, port = units.parse_address(address)
        for other, there, its_port in taken:
            # Port 0 is another one each time.
            if port and port == its_port and _overlap(host, there):
                shown = units.format_address(there, its_port)
                reason = f"takes the port of {other} ({shown}), too; give each a port of its own"
                report.refuse(key, reason, shown=address)
                break
        taken.append((key, host, port))


def _overlap(first: str, second: str) -> bool:
    """Names are not looked up: that two are one address is found out when they listen."""
    hosts = {_plain_host(first), _plain_host(second)}
    if len(hosts) == 1 or "::" in hosts:
        return True  # a socket at :: takes IPv4, too
    return "0.0.0.0" in hosts and not any(":" in host for host in hosts)  # noqa: S104  # compared, not bound


def _plain_host(host: str) -> str:
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host.lower()


def _check_memory(settings: Settings, report: Report) -> None:
    """Each worker gets its least even of less, which would be more than was allowed."""
    key, service = "service.memory_max", settings.service
    if service.only == "metrics" or any(
        report.is_broken(name) for name in (key, "service.workers", "service.only")
    ):
        return  # without workers nobody asks for it
    scrapes = wants_scraper(settings)
    least = memory.budget_bytes_min(workers=service.workers, scrapes=scrapes)
    if 0 < service.memory_max < least:
        who = f"{service.workers} worker{'s' if service.workers > 1 else ''}"
        who = f"{who}, the scraper and the parent" if scrapes else f"{who} and the parent"
        reason = f"is less than {who} need; write at least {units.format_size(least)}"
        report.refuse(key, reason, shown=units.format_size(service.memory_max))


def _check_intake(settings: Settings, report: Report) -> None:
    for index, path in enumerate(settings.receiver.paths):
        key = f"receiver.paths[{index}]"
        if not _PATH.fullmatch(path):
            reason = "is no path; write it with a leading slash and no query, such as /zipkin/spans"
            report.refuse(key, reason, shown=path)
        elif path.rstrip("/") in _STANDARD_PATHS:
            report.refuse(key, "takes spans already; remove it", shown=path)
    try:
        units.parse_version(settings.exporter.proxy_version)
    except units.UnitError as exc:
        report.refuse("exporter.proxy_version", str(exc), shown=settings.exporter.proxy_version)


def _check_admission(settings: Settings, report: Report) -> None:
    receiver = settings.receiver
    for index, network in enumerate(receiver.allowed_networks):
        try:
            ipaddress.ip_network(network)
        except ValueError:
            key = f"receiver.allowed_networks[{index}]"
            reason = "is no network; write it as 10.0.0.0/8, fd00::/8 or a single address, host bits zero"
            report.refuse(key, reason, shown=network)
    for section, tls in (("receiver", receiver.tls), ("admin", settings.admin.tls)):
        if bool(tls.cert_file) != bool(tls.key_file):
            reason = "a certificate and its key go together; give cert_file and key_file"
            report.refuse(f"{section}.tls", reason)
        elif tls.client_ca_file and not tls.cert_file:
            reason = "asks for clients' certificates without TLS; give cert_file and key_file, too"
            report.refuse(f"{section}.tls.client_ca_file", reason)


def _check_mapping(settings: Settings, report: Report) -> None:
    mapping = settings.mapping
    if mapping.exact and mapping.profile == "istio" and not report.is_broken("mapping.profile"):
        reason = "has a meaning in the profile wavefront-proxy only; set mapping.profile (--profile wavefront-proxy)"
        report.refuse("mapping.exact", reason, shown="true")
    _check_deviations(settings, report)
    for index, code in enumerate(mapping.errors.grpc_codes):
        if not 0 <= code <= _GRPC_CODE_MAX:
            reason = f"is no gRPC status code; write 0 to {_GRPC_CODE_MAX}"
            report.refuse(f"mapping.errors.grpc_codes[{index}]", reason, shown=str(code))
    for index, flag in enumerate(mapping.errors.response_flags):
        if not _FLAG.fullmatch(flag):
            reason = "is no Envoy response flag; write capitals such as UF"
            report.refuse(f"mapping.errors.response_flags[{index}]", reason, shown=flag)
    for index, tag in enumerate(settings.red.tags):
        if not tag.strip():
            report.refuse(f"red.tags[{index}]", "is blank; write a tag's key", shown=tag)
        elif len(tag) > POINT_TAG_KEY_LENGTH_MAX:
            reason = (
                f"is longer than the {POINT_TAG_KEY_LENGTH_MAX} characters of a point tag's key"
            )
            report.refuse(f"red.tags[{index}]", f"{reason}; choose a shorter tag", shown=tag)
    if len(settings.red.tags) > _RED_TAGS_MAX and not mapping.exact:
        reason = f"are more than {_RED_TAGS_MAX}; with RED's own Wavefront's {POINT_TAGS_MAX} point tags are full"
        report.refuse(
            "red.tags",
            f"{reason}, and it would refuse every point",
            shown=f"{len(settings.red.tags)} tags",
        )


def _check_names(settings: Settings, report: Report) -> None:
    """Lists as people write them into a variable: "a,b" would be one name, which nothing ever has."""
    for key in _LISTS_OF_NAMES:
        for index, name in enumerate(get(settings, key)):
            if "," in name:
                reason = "holds a comma; write several as [a, b], in a variable, too"
                report.refuse(f"{key}[{index}]", reason, shown=name)


def _check_deviations(settings: Settings, report: Report) -> None:
    mapping = settings.mapping
    key = "mapping.deviations"
    if (
        mapping.deviations
        and mapping.profile == "istio"
        and not report.is_broken("mapping.profile")
    ):
        reason = "has a meaning in the profile wavefront-proxy only; set mapping.profile (--profile wavefront-proxy)"
        report.refuse(key, reason)
        return
    names = [field.name for field in dataclasses.fields(Deviations)]
    for name, wanted in mapping.deviations.items():
        if name not in names:
            reason = f"there is no such deviation; {did_you_mean(name, names)}"
            report.refuse(f"{key}.{name}", reason)
        elif wanted and mapping.exact and not report.is_broken("mapping.exact"):
            reason = "contradicts mapping.exact, which allows no deviation; remove one of them"
            report.refuse(f"{key}.{name}", reason, shown="true")


def _check_templates(settings: Settings, report: Report) -> None:
    mapping = settings.mapping
    for name in ("application", "service", "cluster", "shard", "source"):
        _check_chain(f"mapping.{name}", getattr(mapping, name), report)
    _check_chain("mapping.operation.template", mapping.operation.template, report)
    for group, names in mapping.overrides.items():
        for name, fields in names.items():
            for field, chain in fields.items():
                _check_chain(f"mapping.overrides.{group}.{name}.{field}", chain, report)
    if _check_chain("red.source", settings.red.source, report):
        for index, template in enumerate(settings.red.source):
            if any(f"{{{field}}}" in template for field in templates.FIELDS):
                reason = "a span's own field would multiply the series at every rollout; use {service} or a tag"
                report.refuse(f"red.source[{index}]", reason, shown=template)


def _check_chain(key: str, chain: list[str], report: Report) -> bool:
    """True when every template can be compiled."""
    if report.is_broken(key):
        return False
    if not chain:
        report.refuse(key, "is an empty list; write at least one template, such as none")
        return False
    fine = True
    for index, template in enumerate(chain):
        problem = templates.problem(template)
        if problem is None:
            continue
        fine = False
        unknown = re.search(r"\{(@[^{}]*)\}", template) if "there is no field" in problem else None
        hint = did_you_mean(unknown[1], templates.FIELDS) if unknown else ""
        if not hint.startswith("did"):
            hint = "write text with parts such as {tag.key} or {@service_name}"
        report.refuse(f"{key}[{index}]", f"{problem}; {hint}", shown=template)
    return fine


def _check_rules(settings: Settings, report: Report) -> None:
    rules = settings.mapping.operation.rules
    if not rules or report.is_broken("mapping.operation.rules"):
        return
    import re2  # only configurations with rules pay for the engine

    options = re2.Options()
    options.log_errors = False
    for index, rule in enumerate(rules):
        key = f"mapping.operation.rules[{index}]"
        try:
            re2.compile(rule["match"], options)
        except re2.error as exc:
            what = exc.args[0].decode("utf-8", "replace") if exc.args else "unreadable"
            reason = f"is no RE2 expression ({what}); RE2 has no look-around and no back-references"
            report.refuse(f"{key}.match", reason, shown=rule["match"])
            continue
        if _FOREIGN_GROUP.search(rule["replace"]):
            reason = "has a '$' that would stand in every name; RE2 writes the first group \\1"
            report.refuse(f"{key}.replace", reason, shown=rule["replace"])
            continue
        try:
            # The empty alternative matches always, so the replacement is expanded with this rule's own groups.
            re2.compile(f"(?:{rule['match']})|", options).sub(rule["replace"], "")
        except re2.error:
            pass  # an open \Q swallows the alternative; the rule itself has compiled
        except (IndexError, KeyError, ValueError):
            reason = "refers to a group that match does not have, or ends in a backslash; write \\1 for the first group"
            report.refuse(f"{key}.replace", reason, shown=rule["replace"])


def _check_sampling(settings: Settings, report: Report) -> None:
    for group, rates in settings.sampling.rates.items():
        for name, rate in rates.items():
            key = f"sampling.rates.{group}.{name}"
            if group == "services" and not all(name.partition("/")):
                report.refuse(key, "names no service; write APPLICATION/SERVICE: RATE")
            elif not 0 <= rate <= 1 and not report.is_broken(key):
                reason = "is out of range; write a value from 0 to 1"
                report.refuse(key, reason, shown=str(rate))


def check_runnable(settings: Settings) -> list[str]:
    """What ``run`` needs beyond a valid configuration: something to do, and somewhere to deliver to."""
    problems = []
    if settings.service.only == "metrics" and not settings.prometheus_sources:
        reason = "there is nothing to scrape, and nothing else is to be done (service.only, --only)"
        problems.append(f"prometheus_sources: {reason}; list a source.")
    if settings.exporter.targets:
        return problems
    proxy = "--proxy-traces http://HOST:30000 with --proxy-metrics http://HOST:2878"
    direct = "--direct https://INSTANCE.wavefront.com with --token-file FILE"
    otlp = "{kind: otlp, url: http://HOST:4318}"
    reason = f"there is nowhere to deliver to; give {proxy}, or {direct}, or set exporter.targets, for OTLP to [{otlp}]"
    return [*problems, f"exporter.targets: {reason}."]


__all__ = ["check", "check_runnable"]
