"""Fills the option tree once, from defaults, files, environment and flags, or lists everything that is wrong.

1. Flags go over the environment, that over the file, that over a Wavefront proxy's ``wavefront.conf``, that over the
   defaults; a list counts as one value.
2. Environment: ``TRACEFWD_SECTION__KEY``, nested with ``__``; lists as YAML or JSON text.  Variables without ``__``
   are not ours: Kubernetes itself sets ``TRACEFWD_PORT`` and the like beside a Service called tracefwd.
3. Unknown keys, wrong types and bare numbers are errors in every layer, also where a higher layer wins.
4. Nothing is opened but the configuration files and the rules: secrets stay in their files until somebody needs them.
   One exception: beside other mistakes of what is to be run, files that cannot be read are told, too.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tracefwd.errors import ConfigError
from tracefwd.service import config_checks
from tracefwd.service.config_checks import check_runnable
from tracefwd.service.config_file import Listing, Node, Scalar, Table, read_file
from tracefwd.service.config_options import build, catalogue, section_names
from tracefwd.service.config_report import Report, did_you_mean, nearest
from tracefwd.service.config_show import OptionRow, option_rows, show
from tracefwd.service.config_values import MISSING, read
from tracefwd.service.file_checks import check_files
from tracefwd.service.wavefront_conf import WavefrontConf
from tracefwd.service.wavefront_layer import ConfLayer
from tracefwd.settings import Settings

ENVIRONMENT_PREFIX = "TRACEFWD_"

FLAG_KEYS = {
    "--listen": "receiver.listen",
    "--trace-listen": "receiver.trace_listen",
    "--otlp-http": "receiver.otlp.http.listen",
    "--otlp-grpc": "receiver.otlp.grpc.listen",
    "--admin": "admin.listen",
    "--profile": "mapping.profile",
    "--exact": "mapping.exact",
    "--workers": "service.workers",
    "--spool": "spool.folder",
    "--only": "service.only",
}
"""Flags that stand for one option; the target's flags are short for ``exporter.targets`` with one element."""

_TARGET_FLAGS = {
    "--proxy-traces": "traces",
    "--proxy-metrics": "metrics",
    "--direct": "url",
    "--token-file": "token_file",
}


@dataclass(frozen=True)
class Loaded:
    """``origins``: dotted key -> "default", "wavefront.conf X:LINE", "file X", "environment TRACEFWD_…", "flag --…"."""

    settings: Settings
    origins: dict[str, str]
    wavefront: WavefrontConf | None = field(default=None, repr=False)


def _rules_problems(settings: Settings) -> list[str]:
    """What is wrong with the rules file; the engine is loaded only where there is one."""
    from tracefwd.compose import load_rules

    try:
        load_rules(settings)
    except ConfigError as error:
        return error.problems
    return []


def _rules_are_unclear(report: Report) -> bool:
    """Another port's section, or another file, might have been meant."""
    return report.is_broken("rules") or report.is_broken("receiver.listen")


def _unreadable_files(settings: Settings, report: Report) -> list[str]:
    """Those whose options were not refused already."""
    return [
        problem
        for problem in check_files(settings)
        if not report.is_broken(problem.partition(" = ")[0])
    ]


def load(
    file: Path | None,
    environ: Mapping[str, str],
    flags: Mapping[str, Any],
    *,
    wavefront_conf: Path | None = None,
    runnable: bool = False,
) -> Loaded:
    """``flags`` are keyed as typed (``--listen``) or by dotted key; None is a flag that was not given.

    Raises ``ConfigError`` with all mistakes at once; with ``runnable`` those of ``check_runnable`` are among them, and
    those of ``check_files`` beside others: alone they do not make a configuration wrong.
    """
    report = Report()
    values: dict[str, Any] = {}
    origins = dict.fromkeys(catalogue(), "default")
    given = {name: value for name, value in flags.items() if value is not None}
    conf = None
    if wavefront_conf is not None:
        target = {name: given[name] for name in _TARGET_FLAGS if name in given}
        conf = ConfLayer(wavefront_conf, target, report)
        for key, value, origin in conf.values():
            values[key], origins[key] = value, origin
        given = {name: value for name, value in given.items() if name not in conf.taken_flags}
    for layer in (
        _file_layer(file, environ, report),
        _environment_layer(environ, report),
        _flag_layer(given, report),
    ):
        for key, node, origin in layer:
            value = read(catalogue()[key], node, report)
            if value is not MISSING:
                values[key] = value
                origins[key] = origin
    if conf is not None:
        conf.check(origins, runnable=runnable)
    settings: Settings = build(Settings, values)
    config_checks.check(settings, report)
    # A file that could not be read may have had targets.
    unread = any(key.startswith("file ") for key in report.broken)
    unread = unread or f"wavefront.conf {wavefront_conf}" in report.broken
    if runnable and not unread and not report.is_broken("exporter.targets"):
        report.problems += check_runnable(settings)
    if runnable and settings.rules.file and not (unread or _rules_are_unclear(report)):
        report.problems += _rules_problems(settings)
    if runnable and report.problems:
        report.problems += _unreadable_files(settings, report)
    if report.problems:
        raise ConfigError(report.problems)
    return Loaded(settings, origins, conf.conf if conf is not None else None)


_Layer = Iterator[tuple[str, Node, str]]


def _file_layer(file: Path | None, environ: Mapping[str, str], report: Report) -> _Layer:
    if file is None:
        return
    root = read_file(file, environ, report)
    origin = f"file {file}"
    if root is None or (isinstance(root, Scalar) and root.null):
        return  # a file whose lines are all comments, below "---" or not
    if not isinstance(root, Table):
        sections = ", ".join(sorted(section_names()[""]))
        report.refuse(origin, f"is no mapping; its keys are the sections {sections}")
        return
    first: dict[str, str] = {}
    for key, node in _leaves(root, "", report):
        # Written with dots beside its section.
        if key in first:
            reason = f"the key stands twice, first at {first[key]}; keep one of them"
            report.refuse(key, reason, place=node.place)
        first.setdefault(key, node.place)
        yield key, node, origin


def _leaves(table: Table, section: str, report: Report) -> Iterator[tuple[str, Node]]:
    """The options that a mapping gives; what is no option of its section is refused."""
    sections = section_names()
    for name, node in table.entries.items():
        key = f"{section}.{name}" if section else name
        if key in catalogue():
            yield key, node
        elif key not in sections or not name:
            hint = _unknown_key_hint(name, section)
            report.refuse(key, f"unknown key; {hint}", place=table.places.get(name, node.place))
        elif isinstance(node, Table):
            yield from _leaves(node, key, report)
        elif not (isinstance(node, Scalar) and node.null) and not report.is_broken(key):
            names = ", ".join(sorted(sections[key]))
            reason = f"is a section, so a mapping is expected; its keys are {names}"
            report.refuse(key, reason, place=node.place)


def _unknown_key_hint(name: str, section: str) -> str:
    """A near name in the same section, else the same name in another one, else what there is."""
    siblings = sorted(section_names()[section])
    if nearest(name, siblings):
        return did_you_mean(name, siblings)
    elsewhere = [key for key in catalogue() if key.rpartition(".")[2] == name.lower()]
    if elsewhere:
        return f"did you mean {' or '.join(elsewhere[:3])}?"
    return did_you_mean(name, siblings)


def _environment_layer(environ: Mapping[str, str], report: Report) -> _Layer:
    names = {_variable(key): key for key in catalogue()}
    flattened = {name.replace("__", "_"): name for name in names}
    for variable in sorted(environ):
        if not variable.startswith(ENVIRONMENT_PREFIX):
            continue
        key = names.get(variable)
        origin = f"environment {variable}"
        if key is not None:
            yield key, Scalar(environ[variable], environ[variable], origin), origin
        elif "__" in variable:
            report.refuse(origin, f"unknown option; {_variable_hint(variable, names)}")
        elif variable in flattened:
            report.refuse(origin, f"names nest with '__'; did you mean {flattened[variable]}?")


def _variable(key: str) -> str:
    return ENVIRONMENT_PREFIX + key.upper().replace(".", "__")


def _variable_hint(variable: str, names: Mapping[str, str]) -> str:
    lists = [name for name in names if variable.startswith(f"{name}__")]
    if lists:
        return f"{names[lists[0]]} is one value; give it whole as YAML text in {lists[0]}"
    known = {name.lower(): name for name in names}
    near = nearest(variable, known)
    if near:
        return f"did you mean {known[near]}?"
    return "print-config shows all keys; write TRACEFWD_SECTION__KEY"


def _flag_layer(flags: Mapping[str, Any], report: Report) -> _Layer:
    given = dict(flags)
    target = {name: given.pop(name) for name in _TARGET_FLAGS if name in given}
    for name, value in given.items():
        key = FLAG_KEYS.get(name, name)
        if key not in catalogue():
            raise KeyError(f"{name} is neither a flag nor an option")
        origin = f"flag {name if name.startswith('-') else f'--{name}'}"
        yield key, _node(value, origin), origin
    if target:
        node = _target_node(target, report)
        if node is not None:
            yield "exporter.targets", node, f"flag {' '.join(target)}"


def _node(value: Any, place: str) -> Node:
    """A Python value as a file would have given it."""
    if isinstance(value, (list, tuple)):
        return Listing([_node(item, place) for item in value], place)
    if isinstance(value, Mapping):
        return Table({str(name): _node(item, place) for name, item in value.items()}, place)
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return Scalar(text, text, place)


def _target_node(given: Mapping[str, str], report: Report) -> Node | None:
    """The flags' one target; None when they contradict each other."""
    proxies = [name for name in ("--proxy-traces", "--proxy-metrics") if name in given]
    if "--direct" in given and proxies:
        reason = "one target is either a proxy or direct; give one of them, or list both in exporter.targets"
        report.refuse(f"--direct with {' and '.join(proxies)}", reason)
        report.broken.add("exporter.targets")
        return None
    if "--direct" not in given and not proxies:
        reason = (
            "belongs to a target; give it with --direct, or with --proxy-traces and --proxy-metrics"
        )
        report.refuse("--token-file", reason)
        report.broken.add("exporter.targets")
        return None
    kind = "direct" if "--direct" in given else "proxy"
    place = f"flag {' '.join(given)}"
    entries: dict[str, Node] = {"kind": Scalar(kind, kind, place)}
    for name, value in given.items():
        entries[_TARGET_FLAGS[name]] = _node(value, f"flag {name}")
    return Listing([Table(entries, place)], place)


__all__ = [
    "FLAG_KEYS",
    "Loaded",
    "OptionRow",
    "check_files",
    "check_runnable",
    "load",
    "option_rows",
    "show",
]
