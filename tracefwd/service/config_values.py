"""How a node becomes the value that an option wants.

``read`` returns the value or ``MISSING`` after it has told the report why not; a mistake raises nothing.  What
several options mean together is ``config_checks.py``'s affair.
"""

import dataclasses
import math
import re
import typing
from collections.abc import Callable
from typing import Any, Final

from tracefwd.service import units
from tracefwd.service.config_file import Listing, Node, Scalar, Table, read_text
from tracefwd.service.config_options import Option, build, catalogue, section_names
from tracefwd.service.config_report import Report, did_you_mean
from tracefwd.service.masking import mask_url, redact
from tracefwd.settings import PrometheusSourceSettings, TargetSettings

MISSING: Final = object()

_TRUE = frozenset({"true", "yes", "on"})
_FALSE = frozenset({"false", "no", "off"})
_INTEGER = re.compile(r"[+-]?[0-9][0-9_]{0,18}")
_FLOAT = re.compile(r"[+-]?[0-9]{1,15}(\.[0-9]{0,15})?([eE][+-]?[0-9]{1,3})?")

_HTTP_TRACES = {"http": "http://HOST:30000", "https": "https://HOST", "tcp": "tcp://HOST:30000"}
_HTTP_METRICS = {"http": "http://HOST:2878", "https": "https://HOST", "tcp": "tcp://HOST:2878"}
_URL_EXAMPLES: dict[str, dict[str, str]] = {
    "traces": _HTTP_TRACES,
    "metrics": _HTTP_METRICS,
    "url": {"https": "https://INSTANCE.wavefront.com", "http": "http://HOST:PORT"},
    "csp_base": {"https": "https://console.cloud.vmware.com", "http": "http://HOST:PORT"},
    "http_proxy": {"http": "http://HOST:3128", "https": "https://HOST:3128"},
}
# Types whose values are mappings with options of their own, and how to write one.
ELEMENTS: dict[type, str] = {
    TargetSettings: "a target is a mapping with name, kind and URLs; write '- name: primary'",
    PrometheusSourceSettings: "a source is a mapping with a url; write '- url: http://HOST:9090/federate?match[]=…'",
}
_SCRAPE_URLS = {
    "http": 'http://HOST:9090/federate?match[]={job="…"}',
    "https": 'https://HOST/federate?match[]={job="…"}',
}
_URL_ANY = {"https": "https://HOST", "http": "http://HOST:PORT"}


def shown_value(option: Option, text: str) -> str | None:
    """What an error may show of a given value; None is nothing."""
    if option.unit in ("secret_path", "secret"):
        return None
    # A URL with credentials may stand under the wrong key; only free text can hold an honest '@'.
    return redact(text) if option.kind is str and not option.unit else redact(mask_url(text))


def read(option: Option, node: Node, report: Report, key: str = "") -> Any:
    """The node as the option's type, or ``MISSING``."""
    key = key or option.key
    report.places[key] = node.place
    if isinstance(node, Scalar) and node.null:
        reason = "has no value; give one, or leave the key out for the default"
        report.refuse(key, reason)
        return MISSING
    reader = _READERS.get(option.kind)
    if reader is None:
        raise TypeError(f"no reader for the type of {option.key}")
    return reader(option, node, report, key)


def _scalar(option: Option, node: Node, report: Report, key: str, wanted: str) -> str | None:
    if isinstance(node, Scalar):
        return node.text
    given = "a list" if isinstance(node, Listing) else "a mapping"
    hint = "; put quotes around {…}" if isinstance(node, Table) and option.kind is str else ""
    report.refuse(key, f"{given} was given where {wanted} is expected{hint}")
    return None


def _read_text(option: Option, node: Node, report: Report, key: str) -> Any:
    text = _scalar(option, node, report, key, "one text")
    if text is None:
        return MISSING
    assert isinstance(node, Scalar)
    shown = shown_value(option, node.written)
    if option.choices and text not in option.choices:
        hint = did_you_mean(text, option.choices)
        report.refuse(key, f"is not one of {', '.join(option.choices)}; {hint}", shown=shown)
        return MISSING
    try:
        _check_unit(option, text)
    except units.UnitError as exc:
        report.refuse(key, str(exc), shown=shown)
        return MISSING
    return text


def _check_unit(option: Option, text: str) -> None:
    if option.unit == "address":
        if text or option.default:  # an address that is not needed may be empty
            units.parse_address(text)
    elif option.unit == "url" and text:
        units.check_url(text, _URL_EXAMPLES.get(option.key.rpartition(".")[2], _URL_ANY))
    elif option.unit == "query_url" and text:
        units.check_query_url(text, _SCRAPE_URLS)
    elif option.unit in ("path", "secret_path") and ("\0" in text or "\n" in text):
        raise units.UnitError("is no path; write the file's path, never its content")


def _read_bool(option: Option, node: Node, report: Report, key: str) -> Any:
    text = _scalar(option, node, report, key, "true or false")
    if text is None:
        return MISSING
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    assert isinstance(node, Scalar)
    shown = shown_value(option, node.written)
    report.refuse(key, "is neither true nor false; write true or false", shown=shown)
    return MISSING


def _with_unit(
    parse: Callable[[str], Any], text: str, report: Report, key: str, shown: str | None
) -> Any:
    try:
        return parse(text)
    except units.UnitError as exc:
        report.refuse(key, str(exc), shown=shown)
        return MISSING


def _read_int(option: Option, node: Node, report: Report, key: str) -> Any:
    wanted = "a size such as 16MiB" if option.unit == "size" else "a whole number"
    text = _scalar(option, node, report, key, wanted)
    if text is None:
        return MISSING
    assert isinstance(node, Scalar)
    shown = shown_value(option, node.written)
    if option.unit == "size":
        return _with_unit(units.parse_size, text, report, key, shown)
    if not _INTEGER.fullmatch(text):
        hint = f"write a whole number such as {option.default}"
        report.refuse(key, f"is not a whole number; {hint}", shown=shown)
        return MISSING
    return int(text)


def _read_float(option: Option, node: Node, report: Report, key: str) -> Any:
    wanted = "a duration such as 5s" if option.unit == "duration" else "a number"
    text = _scalar(option, node, report, key, wanted)
    if text is None:
        return MISSING
    assert isinstance(node, Scalar)
    shown = shown_value(option, node.written)
    if option.unit == "duration":
        return _with_unit(units.parse_duration, text, report, key, shown)
    if not _FLOAT.fullmatch(text) or not math.isfinite(float(text)):
        report.refuse(key, f"is not a number; write {_share_hint(text)}", shown=shown)
        return MISSING
    return float(text)


def _share_hint(text: str) -> str:
    """What to write for ``text``: every number without a unit is a share."""
    if not text.endswith("%") or not _FLOAT.fullmatch(text[:-1]):
        return "a number such as 0.5"
    share = float(text[:-1]) / 100
    return f"{share:g} for {text}" if 0 <= share <= 1 else "a number from 0 to 1"


def _as_listing(option: Option, node: Node, report: Report, key: str) -> Listing | None:
    """A list in YAML; one text in an environment variable or from ``${VAR}`` that holds a YAML or JSON list."""
    if isinstance(node, Scalar) and node.text.lstrip().startswith(("[", "- ")):
        before = len(report.problems)
        # No environ: a variable's text is not expanded once more.
        inner = read_text(node.text, f"{key} ({node.place})", None, report, lines=False)
        if isinstance(inner, Listing):
            return inner
        if len(report.problems) > before:
            report.broken.add(key)
            return None
    if isinstance(node, Listing):
        return node
    if isinstance(node, Scalar) and option.kind == list[str]:
        # One text is a list of one: `application: "{app}"`.
        return Listing([node], node.place)
    given = "a mapping" if isinstance(node, Table) else "one text"
    report.refuse(key, f"{given} was given where a list is expected; write [a, b] or '- a' lines")
    return None


def _read_list(option: Option, node: Node, report: Report, key: str) -> Any:
    listing = _as_listing(option, node, report, key)
    if listing is None:
        return MISSING
    (kind,) = typing.get_args(option.kind)
    values: list[Any] = []
    for index, child in enumerate(listing.items):
        child_key = f"{key}[{index}]"
        if kind in ELEMENTS:
            values.append(_read_element(kind, child, report, child_key))
        elif kind == dict[str, str]:
            values.append(_read_rule(child, report, child_key))
        else:
            values.append(
                read(dataclasses.replace(option, kind=kind, choices=()), child, report, child_key)
            )
    return MISSING if any(value is MISSING for value in values) else values


def _read_element(kind: type, node: Node, report: Report, key: str) -> Any:
    """Partly refused elements come back with defaults for the refused keys, so that the others are still checked."""
    report.places[key] = node.place
    if not isinstance(node, Table):
        report.refuse(key, ELEMENTS[kind])
        return kind()
    values: dict[str, Any] = {}
    _read_part(kind, node, "", report, key, values)
    return build(kind, values)


def _read_part(
    kind: type, table: Table, section: str, report: Report, key: str, values: dict[str, Any]
) -> None:
    """One mapping of an element: the element itself, or one of its sections."""
    options = catalogue(kind)
    sections = section_names(kind)
    prefix = f"{section}." if section else ""
    old_names = {
        option.old_name: option.key
        for option in options.values()
        if option.old_name and option.key.startswith(prefix)
    }
    for name, child in table.entries.items():
        part = old_names.get(name, f"{prefix}{name}")
        child_key = f"{key}.{prefix}{name}"
        place = table.places.get(name, "")
        if part in options:
            if part in values:
                reason = f"is another name of {part.rpartition('.')[2]}, which is given as well; keep one of them"
                report.refuse(child_key, reason, place=place)
                continue
            value = read(options[part], child, report, child_key)
            if value is not MISSING:
                values[part] = value
        elif part not in sections or not name:
            hint = did_you_mean(name, sorted(sections[section]))
            report.refuse(child_key, f"unknown key; {hint}", place=place)
        elif isinstance(child, Table):
            _read_part(kind, child, part, report, key, values)
        elif not (isinstance(child, Scalar) and child.null):
            names = ", ".join(sorted(sections[part]))
            reason = f"is a section, so a mapping is expected; its keys are {names}"
            report.refuse(child_key, reason, place=child.place)


def _read_rule(node: Node, report: Report, key: str) -> Any:
    report.places[key] = node.place
    if not isinstance(node, Table):
        report.refuse(key, "a rule is a mapping; write {match: EXPRESSION, replace: TEXT}")
        return MISSING
    rule = {name: child.text for name, child in node.entries.items() if isinstance(child, Scalar)}
    for name in node.entries:
        if name not in ("match", "replace"):
            hint = did_you_mean(name, ("match", "replace"))
            place = node.places.get(name, "")
            report.refuse(f"{key}.{name}", f"unknown key; {hint}", place=place)
        elif name not in rule:
            report.refuse(f"{key}.{name}", "one text is expected; write it in quotes")
    for name in ("match", "replace"):
        if name not in node.entries:
            report.refuse(key, f"a rule needs {name}; write {{match: EXPRESSION, replace: TEXT}}")
    return MISSING if report.is_broken(key) else rule


def _read_overrides(option: Option, node: Node, report: Report, key: str) -> Any:
    """{namespaces|services: {NAME: {field: template or list of templates}}}; a single template becomes a list."""
    if isinstance(node, Scalar) and node.text.lstrip().startswith("{"):
        inner = read_text(node.text, f"{key} ({node.place})", None, report, lines=False)
        node = inner if inner is not None else node
    form = "write {namespaces: {NAME: {application: [TEMPLATE]}}}"
    if not isinstance(node, Table):
        report.refuse(key, f"a mapping is expected; {form}")
        return MISSING
    values: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in option.default}
    for group, names in node.entries.items():
        if group not in values:
            hint = did_you_mean(group, values)
            report.refuse(f"{key}.{group}", f"unknown key; {hint}", place=names.place)
        elif not isinstance(names, Table):
            report.refuse(f"{key}.{group}", f"a mapping is expected; {form}", place=names.place)
        else:
            for name, fields in names.entries.items():
                name_key = f"{key}.{group}.{name}"
                values[group][name] = _read_override(fields, report, name_key)
    return MISSING if report.is_broken(key) else values


OVERRIDABLE = ("application", "service", "cluster", "shard", "source")


def _read_override(node: Node, report: Report, key: str) -> dict[str, Any]:
    templates = Option(key, list[str], "", (), [], "")
    values: dict[str, Any] = {}
    if not isinstance(node, Table):
        reason = "a mapping is expected; write {application: [TEMPLATE]}"
        report.refuse(key, reason, place=node.place)
        return values
    for name, child in node.entries.items():
        if name not in OVERRIDABLE:
            hint = did_you_mean(name, OVERRIDABLE)
            report.refuse(f"{key}.{name}", f"unknown key; {hint}", place=child.place)
            continue
        values[name] = read(templates, child, report, f"{key}.{name}")
    return values


def _read_rates(option: Option, node: Node, report: Report, key: str) -> Any:
    """{applications|services: {NAME: rate}}."""
    if isinstance(node, Scalar) and node.text.lstrip().startswith("{"):
        inner = read_text(node.text, f"{key} ({node.place})", None, report, lines=False)
        node = inner if inner is not None else node
    form = "write {applications: {NAME: 0.1}, services: {APPLICATION/SERVICE: 1.0}}"
    if not isinstance(node, Table):
        report.refuse(key, f"a mapping is expected; {form}")
        return MISSING
    rate = dataclasses.replace(option, kind=float, default=1.0)
    values: dict[str, dict[str, float]] = {name: {} for name in option.default}
    for group, names in node.entries.items():
        if group not in values:
            hint = did_you_mean(group, values)
            report.refuse(f"{key}.{group}", f"unknown key; {hint}", place=names.place)
        elif not isinstance(names, Table):
            report.refuse(f"{key}.{group}", f"a mapping is expected; {form}", place=names.place)
        else:
            for name, child in names.entries.items():
                value = read(rate, child, report, f"{key}.{group}.{name}")
                if value is not MISSING:
                    values[group][name] = value
    return MISSING if report.is_broken(key) else values


def _read_switches(option: Option, node: Node, report: Report, key: str) -> Any:
    """{NAME: true or false}; which names there are is ``config_checks.py``'s affair."""
    if isinstance(node, Scalar) and node.text.lstrip().startswith("{"):
        inner = read_text(node.text, f"{key} ({node.place})", None, report, lines=False)
        node = inner if inner is not None else node
    if not isinstance(node, Table):
        report.refuse(key, "a mapping is expected; write {NAME: false}")
        return MISSING
    switch = dataclasses.replace(option, kind=bool, default=False)
    return {
        name: value
        for name, child in node.entries.items()
        if (value := read(switch, child, report, f"{key}.{name}")) is not MISSING
    }


def _read_texts(option: Option, node: Node, report: Report, key: str) -> Any:
    """{NAME: text}, or {NAME: list of texts} where a single text is a list of one."""
    (_, kind) = typing.get_args(option.kind)
    form = "write {NAME: text}" if kind is str else "write {NAME: [text, text]}"
    if isinstance(node, Scalar) and node.text.lstrip().startswith("{"):
        inner_node = read_text(node.text, f"{key} ({node.place})", None, report, lines=False)
        node = inner_node if inner_node is not None else node
    if not isinstance(node, Table):
        report.refuse(key, f"a mapping is expected; {form}")
        return MISSING
    inner = dataclasses.replace(option, kind=kind, default=kind())
    values = {
        name: read(inner, child, report, f"{key}.{name}") for name, child in node.entries.items()
    }
    return MISSING if any(value is MISSING for value in values.values()) else values


_Reader = Callable[[Option, Node, Report, str], Any]
_READERS: dict[Any, _Reader] = {
    str: _read_text,
    bool: _read_bool,
    int: _read_int,
    float: _read_float,
    list[str]: _read_list,
    list[int]: _read_list,
    list[dict[str, str]]: _read_list,
    list[TargetSettings]: _read_list,
    list[PrometheusSourceSettings]: _read_list,
    dict[str, dict[str, dict[str, Any]]]: _read_overrides,
    dict[str, dict[str, float]]: _read_rates,
    dict[str, bool]: _read_switches,
    dict[str, str]: _read_texts,
    dict[str, list[str]]: _read_texts,
}

__all__ = ["ELEMENTS", "MISSING", "OVERRIDABLE", "read", "shown_value"]
