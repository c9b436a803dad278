"""Reads YAML into plain nodes that remember where they stood; what a value means is not decided here.

Scalars stay text: ``4.40`` is no float and ``no`` no boolean until the option's own type says so.  Two things are
stricter than YAML: a key may stand only once in a mapping, and tags (``!x``) are refused.

``${VAR}`` and ``${VAR:-x}`` are expanded inside values after parsing, so that a variable can never add structure;
``$${`` is a literal ``${``.  An expanded value is a possible secret: errors show the reference, never what it gave.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tracefwd.service.config_report import Report

# The complete annotated example is 20 KB; an operator's list of rules may be long.
FILE_BYTES_MAX = 2**20
# An alias can multiply nodes (a "billion laughs"); no honest configuration comes near.
NODES_MAX = 50_000
# The option tree is five levels deep.
DEPTH_MAX = 20

_REFERENCE = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}|\$\{")
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_TAG = "tag:yaml.org,2002:"


@dataclass(frozen=True)
class Scalar:
    """``text`` is what counts; ``written`` is what an error may show."""

    text: str
    written: str
    place: str
    null: bool = False


@dataclass(frozen=True)
class Listing:
    items: list["Node"]
    place: str


@dataclass(frozen=True)
class Table:
    entries: dict[str, "Node"]
    place: str
    # Where each key stands.
    places: dict[str, str] = field(default_factory=dict)


Node = Scalar | Listing | Table


def read_file(path: Path, environ: Mapping[str, str], report: Report) -> Node | None:
    """The file's root, None when it is empty or could not be read (then ``report`` says why)."""
    name = f"file {path}"
    try:
        with path.open("rb") as stream:
            data = stream.read(FILE_BYTES_MAX + 1)
    except OSError as exc:
        report.refuse(name, f"cannot be read ({exc.strerror}); check the path given with --config")
        return None
    if len(data) > FILE_BYTES_MAX:
        report.refuse(name, "is larger than 1MiB; a configuration is a short YAML text")
        return None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        report.refuse(f"{name}, line {line}", "is not UTF-8; save it as UTF-8")
        return None
    return read_text(text, name, environ, report)


def read_text(
    text: str, name: str, environ: Mapping[str, str] | None, report: Report, *, lines: bool = True
) -> Node | None:
    """YAML text as nodes.

    ``environ`` None leaves ``${…}`` alone; ``lines`` False gives every node the place ``name``.
    """
    import yaml  # a command without a file does not pay for it

    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is None:
            return None
        return _Walk(name, environ, report, lines=lines).node(root, "", 0)
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        where = f"{name}, line {mark.line + 1}, column {mark.column + 1}" if mark else name
        context = f" {exc.context}" if exc.context else ""
        reason = _without_names(f"is not YAML: {exc.problem}{context}")
        report.refuse(where, f"{reason}; check indentation, quotes and colons there")
    except yaml.reader.ReaderError as exc:
        line = text.count("\n", 0, exc.position) + 1
        report.refuse(f"{name}, line {line}", "holds a control character; remove it")
    except RecursionError:
        report.refuse(name, "is nested too deeply; the option tree has five levels")
    return None


def _without_names(message: str) -> str:
    """The parser repeats the names of aliases, anchors and tags; a misplaced secret may look like one."""
    return re.sub(r"\b(alias|anchor|tag handle) .*", r"\1", message, flags=re.DOTALL)


class _Walk:
    """One pass over the composed tree."""

    def __init__(
        self, name: str, environ: Mapping[str, str] | None, report: Report, *, lines: bool
    ) -> None:
        self._name = name
        self._environ = environ
        self._report = report
        self._lines = lines
        self._count = 0
        self._is_refused = False
        # From the root to where we are.
        self._path: list[Any] = []

    def node(self, node: Any, key: str, depth: int) -> Node | None:
        """None when refused."""
        place = self._place(node)
        self._count += 1
        if depth > DEPTH_MAX or self._count > NODES_MAX or node in self._path:
            # Once: aliases that multiply would be refused thousands of times.
            if not self._is_refused:
                reason = "is nested too deeply or repeats itself through aliases; write it out"
                self._report.refuse(key or self._name, reason, place=place)
            self._is_refused = True
            return None
        if not node.tag.startswith(_TAG):
            reason = "YAML tags (!…) are not used here; remove it"
            self._report.refuse(key or self._name, reason, place=place)
            return None
        if node.id == "scalar":
            return self._scalar(node, key, place)
        self._path.append(node)
        try:
            if node.id != "sequence":
                return self._table(node, key, place, depth)
            children = [self.node(n, f"{key}[{i}]", depth + 1) for i, n in enumerate(node.value)]
            return Listing([child for child in children if child is not None], place)
        finally:
            self._path.pop()

    def _place(self, node: Any) -> str:
        return f"{self._name}, line {node.start_mark.line + 1}" if self._lines else self._name

    def _table(self, node: Any, key: str, place: str, depth: int) -> Table:
        table = Table({}, place)
        for name_node, value_node in node.value:
            where = self._place(name_node)
            if name_node.id != "scalar":
                self._report.refuse(key or self._name, "a key must be a plain word", place=where)
                continue
            name = str(name_node.value)
            child_key = f"{key}.{name}" if key else name
            if name in table.places:
                first = table.places[name]
                reason = f"the key stands twice, first at {first}; keep one of them"
                self._report.refuse(child_key, reason, place=where)
                continue
            table.places[name] = where
            child = self.node(value_node, child_key, depth + 1)
            if child is not None:
                table.entries[name] = child
        return table

    def _scalar(self, node: Any, key: str, place: str) -> Scalar | None:
        written = str(node.value)
        if self._environ is None or "${" not in written:
            null = node.style is None and written in _NULLS
            return Scalar(written, written, place, null)
        reasons: list[str] = []
        text = _REFERENCE.sub(lambda match: _expand(match, self._environ or {}, reasons), written)
        for reason in reasons:
            # Not shown: what stands around the reference may be half a credential.
            self._report.refuse(key or self._name, reason, place=place)
        return None if reasons else Scalar(text, written, place)


def _expand(match: re.Match[str], environ: Mapping[str, str], reasons: list[str]) -> str:
    if match[0] == "$${":
        return "${"
    name, default = match[1], match[2]
    if name is None:
        reasons.append("'${' starts no reference; write ${NAME} or ${NAME:-default}, or $${ for ${")
        return ""
    value = environ.get(name, "")
    if value or (default is None and name in environ):
        return value
    if default is None:
        reasons.append(
            f"the environment variable {name} is not set; set it or write ${{{name}:-default}}"
        )
        return ""
    return str(default)


__all__ = ["Listing", "Node", "Scalar", "Table", "read_file", "read_text"]
