"""What the options of targets mean together: which belong to which kind, and which targets go together."""

import re
from collections.abc import Iterable, Mapping

from tracefwd.service.config_report import Report
from tracefwd.settings import Settings, TargetSettings

_TARGET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_CSP_ONLY = ("csp_token_file", "csp_app_id", "csp_app_secret_file", "csp_org_id")
_DIRECT_ONLY = ("url", *_CSP_ONLY)
_PROXY_ONLY = ("traces", "metrics")
_OTLP_ONLY = ("headers", "header_files", "compression")
_HEADER_NAME = re.compile(r"[A-Za-z0-9-]{1,64}")
_HEADER_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e]{0,8190}[\x21-\x7e])?")
# What decides how a request is read, and what a connection is for.
_OUR_HEADERS = frozenset(
    {
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
    }
)


def check_targets(settings: Settings, report: Report) -> None:
    targets = settings.exporter.targets
    key = "exporter.targets"
    keys = [f"{key}[{index}]" for index in range(len(targets))]
    # Not even a mapping: nothing is known about them.
    unread = report.broken.intersection(keys)
    seen: dict[str, int] = {}
    for index, target in enumerate(targets):
        target_key = keys[index]
        if target_key in unread:
            continue
        if not report.is_broken(f"{target_key}.name"):
            _check_target_name(target.name, target_key, seen, index, report)
        if bool(target.cert_file) != bool(target.key_file):
            reason = "cert_file and key_file go together; give both or neither"
            report.refuse(target_key, reason)
        if report.is_broken(f"{target_key}.kind"):
            continue
        if target.kind == "proxy":
            spans_wanted = settings.service.only != "metrics"
            _check_proxy(target, target_key, report, spans_wanted=spans_wanted)
        elif target.kind == "direct":
            _check_direct(target, target_key, report)
        else:
            _check_otlp(target, target_key, report)
    if unread or any(report.is_broken(f"{name}.role") for name in keys):
        return
    _check_failovers(targets, keys, report)
    primaries = sum(target.role == "primary" for target in targets)
    if targets and not primaries:
        reason = (
            "failover and tee targets need a primary beside them; give one target role: primary"
        )
        report.refuse(key, reason)
    elif primaries > 1:
        reason = (
            f"there are {primaries} primary targets; keep one and make the others failover or tee"
        )
        report.refuse(key, reason)


def _check_target_name(
    name: str, key: str, seen: dict[str, int], index: int, report: Report
) -> None:
    if not _TARGET_NAME.fullmatch(name):
        reason = "is no target name; write letters, digits, '.', '_' and '-', at most 63"
        report.refuse(f"{key}.name", reason, shown=name)
    elif name in seen:
        reason = f"is the name of exporter.targets[{seen[name]}], too; names must differ"
        report.refuse(f"{key}.name", reason, shown=name)
    seen.setdefault(name, index)


def _check_proxy(target: TargetSettings, key: str, report: Report, *, spans_wanted: bool) -> None:
    examples = {"traces": "http://HOST:30000", "metrics": "http://HOST:2878"}
    for name, example in examples.items():
        if name == "traces" and not spans_wanted:
            continue
        if not getattr(target, name) and not report.is_broken(f"{key}.{name}"):
            reason = f"a proxy target needs it; write {example} (flag --proxy-{name})"
            report.refuse(f"{key}.{name}", reason, place=report.places.get(key, ""))
    _refuse_foreign(target, _DIRECT_ONLY, "direct", key, report)
    _refuse_foreign(target, _OTLP_ONLY, "otlp", key, report)


def _refuse_foreign(
    target: TargetSettings, names: Iterable[str], kind: str, key: str, report: Report
) -> None:
    for name in names:
        if getattr(target, name) not in ("", "auto", {}) and not report.is_broken(f"{key}.{name}"):
            article = "an" if kind == "otlp" else "a"
            reason = f"belongs to {article} {kind} target; remove it or write kind: {kind}"
            report.refuse(f"{key}.{name}", reason)


def _check_direct(target: TargetSettings, key: str, report: Report) -> None:
    if not target.url and not report.is_broken(f"{key}.url"):
        reason = "a direct target needs it; write https://INSTANCE.wavefront.com (flag --direct)"
        report.refuse(f"{key}.url", reason, place=report.places.get(key, ""))
    _refuse_foreign(target, _PROXY_ONLY, "proxy", key, report)
    _refuse_foreign(target, _OTLP_ONLY, "otlp", key, report)
    credentials = ("token_file", "csp_token_file", "csp_app_id", "csp_app_secret_file")
    if any(report.is_broken(f"{key}.{name}") for name in credentials):
        return
    app = bool(target.csp_app_id), bool(target.csp_app_secret_file)
    if any(app) and not all(app):
        reason = "csp_app_id and csp_app_secret_file go together; give both or neither"
        report.refuse(key, reason)
        return
    given = [name for name in ("token_file", "csp_token_file") if getattr(target, name)]
    given += ["csp_app_id"] if all(app) else []
    forms = "token_file (flag --token-file), csp_token_file, or csp_app_id with csp_app_secret_file"
    if not given:
        report.refuse(key, f"a direct target needs a credential; give {forms}")
    elif len(given) > 1:
        reason = f"{' and '.join(given)} are given, but a target has one credential; keep one"
        report.refuse(key, reason)


def _check_otlp(target: TargetSettings, key: str, report: Report) -> None:
    if not target.url and not report.is_broken(f"{key}.url"):
        example = "4317" if target.protocol == "grpc" else "4318"
        reason = f"an otlp target needs it; write http://HOST:{example}, or https:// with TLS"
        report.refuse(f"{key}.url", reason, place=report.places.get(key, ""))
    _refuse_foreign(target, _PROXY_ONLY, "proxy", key, report)
    _refuse_foreign(target, _CSP_ONLY, "direct", key, report)
    if not _HEADER_NAME.fullmatch(target.token_header):
        reason = "is no header's name; write letters, digits and '-'"
        report.refuse(f"{key}.token_header", reason, shown=target.token_header)
    for name in ("headers", "header_files"):
        if not report.is_broken(f"{key}.{name}"):
            _check_headers(target, getattr(target, name), f"{key}.{name}", report)
    if target.protocol != "grpc":
        return
    if not target.tls_verify:
        reason = "cannot be switched off for gRPC; give ca_file, or use protocol: http"
        report.refuse(f"{key}.tls_verify", reason)
    if target.http_proxy:
        reason = "is not used by gRPC, which reads https_proxy and no_proxy; set those, or use protocol: http"
        report.refuse(f"{key}.http_proxy", reason)


def _check_headers(
    target: TargetSettings, given: Mapping[str, str], key: str, report: Report
) -> None:
    """Names are shown only where they can be one; values never."""
    seen = {target.token_header.lower()} if target.token_file else set()
    if given is target.header_files:
        seen.update(name.lower() for name in target.headers)
    for name, value in given.items():
        own = name.lower()
        if not _HEADER_NAME.fullmatch(name):
            reason = "one of its names is no header's name; write letters, digits and '-'"
            report.refuse(key, reason)
        elif own in _OUR_HEADERS or own.startswith("grpc-") or own.endswith("-bin"):
            report.refuse(f"{key}.{name}", "is a header that tracefwd sets itself; remove it")
        elif own in seen:
            reason = "is given twice (token_header with token_file, headers, header_files); keep one of them"
            report.refuse(f"{key}.{name}", reason)
        elif given is target.headers and not _HEADER_VALUE.fullmatch(value):
            reason = (
                "has a value that no header can carry; write visible ASCII without blanks around it"
            )
            report.refuse(f"{key}.{name}", reason)
        seen.add(own)


def _check_failovers(targets: list[TargetSettings], keys: list[str], report: Report) -> None:
    """A batch goes to a failover as it is, so that both must speak the same."""
    wants_otlp = {target.kind == "otlp" for target in targets if target.role == "primary"}
    for target, key in zip(targets, keys, strict=True):
        if target.role == "failover" and wants_otlp == {target.kind != "otlp"}:
            reason = "a failover must take what the primary takes, OTLP or lines; make it a tee or change its kind"
            report.refuse(f"{key}.kind", reason, shown=target.kind)


__all__ = ["check_targets"]
