"""The option tree of ``settings.py`` as a flat catalogue by dotted key, and the way back to a tree."""

import dataclasses
import functools
import typing
from collections.abc import Iterator
from typing import Any

from tracefwd.settings import Settings


@dataclasses.dataclass(frozen=True)
class Option:
    """One leaf of the tree; ``kind`` is its resolved type, ``key`` its dotted name.

    ``old_name`` may stand for the last part of ``key``; "" is none.
    """

    key: str
    kind: Any
    unit: str
    choices: tuple[str, ...]
    default: Any
    doc: str
    old_name: str = ""


@functools.cache
def catalogue(kind: type = Settings) -> dict[str, Option]:
    """Every option of a tree by its dotted key, in the order of declaration."""
    return {option.key: option for option in _options(kind, "")}


def _options(kind: type, prefix: str) -> Iterator[Option]:
    types = typing.get_type_hints(kind)
    for item in dataclasses.fields(kind):
        key = f"{prefix}{item.name}"
        unit = item.metadata["unit"]
        if unit == "section":
            yield from _options(types[item.name], f"{key}.")
            continue
        factory = item.default_factory
        default = item.default if factory is dataclasses.MISSING else factory()
        choices, old_name = item.metadata["choices"], item.metadata.get("old_name", "")
        yield Option(key, types[item.name], unit, choices, default, item.metadata["doc"], old_name)


def section_names(kind: type = Settings) -> dict[str, set[str]]:
    """Dotted section ("" is the root) -> the names that may stand in it."""
    names: dict[str, set[str]] = {}
    for key in catalogue(kind):
        parts = key.split(".")
        for depth, name in enumerate(parts):
            names.setdefault(".".join(parts[:depth]), set()).add(name)
    return names


def get(settings: Any, key: str) -> Any:
    """The value at a dotted key."""
    return functools.reduce(getattr, key.split("."), settings)


def build(kind: type, values: dict[str, Any], prefix: str = "") -> Any:
    """A tree of ``kind`` with ``values`` (by dotted key) over its defaults."""
    types = typing.get_type_hints(kind)
    arguments: dict[str, Any] = {}
    for item in dataclasses.fields(kind):
        key = f"{prefix}{item.name}"
        if item.metadata["unit"] == "section":
            arguments[item.name] = build(types[item.name], values, f"{key}.")
        elif key in values:
            arguments[item.name] = values[key]
    return kind(**arguments)


__all__ = ["Option", "build", "catalogue", "get", "section_names"]
