"""The effective configuration as text, and the table of all options for the README.

Never a secret: URLs lose their credentials, files of secrets are shown by path only.  YAML output loads again to
equal settings (unless something was masked); JSON is for programs, its values are written as in YAML.
"""

import dataclasses
import functools
import json
from collections.abc import Mapping
from typing import Any, Literal

from tracefwd.service import units
from tracefwd.service.config_options import Option, catalogue, get
from tracefwd.service.config_values import ELEMENTS
from tracefwd.service.masking import HIDDEN, mask_query_url, mask_secret_path, mask_url
from tracefwd.settings import PrometheusSourceSettings, Settings, TargetSettings

_KINDS: dict[Any, str] = {
    str: "text",
    bool: "true or false",
    int: "whole number",
    float: "number",
    list[str]: "list of texts",
    list[int]: "list of whole numbers",
    list[dict[str, str]]: "list of rules",
    list[TargetSettings]: "list of targets",
    list[PrometheusSourceSettings]: "list of sources",
    dict[str, str]: "mapping",
    dict[str, list[str]]: "mapping",
    dict[str, dict[str, dict[str, Any]]]: "mapping",
    dict[str, dict[str, float]]: "mapping",
    dict[str, bool]: "mapping",
}
_UNITS = {"secret_path": "path of a secret", "url": "URL", "query_url": "URL"}


@dataclasses.dataclass(frozen=True)
class OptionRow:
    """One option as the README shows it.  Keys of a list element's options read ``exporter.targets[].url``."""

    key: str
    kind: str
    default: str
    choices: tuple[str, ...]
    doc: str


def option_rows() -> list[OptionRow]:
    """Every option in the order of declaration; a list element's own follow their list."""
    rows: list[OptionRow] = []
    for option in catalogue().values():
        rows.append(_row(option, option.key))
        element = _element(option)
        if element is not None:
            children = catalogue(element).values()
            rows.extend(_row(child, f"{option.key}[].{child.key}") for child in children)
    return rows


def _row(option: Option, key: str) -> OptionRow:
    kind = _UNITS.get(option.unit, option.unit) or _KINDS[option.kind]
    if option.kind == dict[str, str]:
        kind = "mapping"
    written = written_value(option, option.default)
    default = written if isinstance(written, str) else json.dumps(written, ensure_ascii=False)
    return OptionRow(key, kind, default, option.choices, option.doc)


def written_value(option: Option, value: Any) -> Any:
    """The value as an operator would write it, masked: plain texts, numbers, booleans, lists, mappings."""
    if option.unit == "duration":
        return units.format_duration(value)
    if option.unit == "size":
        return units.format_size(value)
    if isinstance(value, dict) and option.unit:
        single = dataclasses.replace(option, kind=str)
        return {name: written_value(single, item) for name, item in value.items()}
    if option.unit == "url":
        return mask_url(value)
    if option.unit == "query_url":
        return mask_query_url(value)
    if option.unit == "secret_path":
        return mask_secret_path(value)
    if option.unit == "secret":
        return HIDDEN if value else value
    element = _element(option)
    if element is not None:
        return [_written_element(element, item) for item in value]
    return value


def _element(option: Option) -> type | None:
    """What the list holds, if that has options of its own."""
    return next((kind for kind in ELEMENTS if option.kind == list[kind]), None)  # type: ignore[valid-type]


def _written_element(kind: type, element: Any) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, option in catalogue(kind).items():
        *sections, name = key.split(".")
        place = tree
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = written_value(option, get(element, key))
    return tree


def show(
    settings: Settings,
    origins: Mapping[str, str],
    *,
    format: Literal["yaml", "json"] = "yaml",  # noqa: A002
    origins_shown: bool = False,
) -> str:
    """The whole tree, ending in a newline.  With origins, YAML gets comments and JSON ``{value, origin}``."""
    tree: dict[str, Any] = {}
    for key, option in catalogue().items():
        *sections, name = key.split(".")
        place = tree
        for section in sections:
            place = place.setdefault(section, {})
        value = written_value(option, get(settings, key))
        place[name] = _Leaf(value, origins.get(key, "default") if origins_shown else None)
    if format == "json":
        return json.dumps(_plain(tree), indent=2, ensure_ascii=False) + "\n"
    return "".join(f"{line}\n" for line in _yaml_lines(tree, ""))


@dataclasses.dataclass(frozen=True)
class _Leaf:
    value: Any
    origin: str | None


def _plain(node: Any) -> Any:
    if isinstance(node, dict):
        return {name: _plain(child) for name, child in node.items()}
    return node.value if node.origin is None else {"value": node.value, "origin": node.origin}


def _yaml_lines(tree: dict[str, Any], indent: str) -> list[str]:
    lines: list[str] = []
    for name, child in tree.items():
        if isinstance(child, dict):
            lines += [f"{indent}{name}:", *_yaml_lines(child, f"{indent}  ")]
            continue
        head, *rest = yaml_leaf(name, child.value)
        # An origin holds a path or a variable's name; a line break in it must not become YAML.
        comment = "" if child.origin is None else "  # " + ascii(child.origin)[1:-1]
        lines += [f"{indent}{head}{comment}", *(f"{indent}{line}" for line in rest)]
    return lines


def yaml_leaf(name: str, value: Any) -> list[str]:
    """``name: value`` as lines of YAML that load to the same value; a comment may be put behind the first."""
    import yaml

    # Wide, so that no text is folded: a folded text would take the comment into itself.
    text = yaml.dump(
        {name: _escaped(value)}, Dumper=_dumper(), sort_keys=False, allow_unicode=True, width=2**20
    )
    return text.rstrip("\n").split("\n")


@functools.cache
def _dumper() -> Any:
    """YAML's safe dumper, but a text with line breaks is written on one line with escapes."""
    import yaml

    class Dumper(yaml.SafeDumper):
        pass

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        style = None if value.isprintable() else '"'
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    return Dumper


def _escaped(value: Any) -> Any:
    """The file's reader expands ``${``; what is meant literally is written ``$${``."""
    if isinstance(value, str):
        return value.replace("${", "$${")
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    if isinstance(value, dict):
        return {name: _escaped(item) for name, item in value.items()}
    return value


__all__ = ["OptionRow", "option_rows", "show", "written_value", "yaml_leaf"]
