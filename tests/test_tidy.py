"""The house style as a red test: layers, purity, sizes, preambles, mirrors."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "tracefwd"
MODULES = sorted(PACKAGE.rglob("*.py"))
# Who may be imported by whom: a module may import from its own row and the rows below it.
LAYERS = [
    {"service", "__main__"},
    {"compose"},
    {"pipeline", "plan"},
    {
        "receiver",
        "processor",
        "exporter",
        "spool",
        "emulator",
        "generator",
        "metricspath",
        "console",
        "quarantine",
    },
    {
        "doorways",
        "model",
        "errors",
        "limits",
        "naming",
        "settings",
        "metrics",
        "ledger",
        "span_log",
        "tag_record",
    },
]
ROOMS = {
    "receiver",
    "processor",
    "exporter",
    "spool",
    "emulator",
    "generator",
    "metricspath",
    "console",
    "service",
}
# These do what their room does at the edge: sockets, clocks, files, logs.
EDGES = {
    "receiver": {
        "otlp_grpc",
        "http",
        "http_connection",
        "line_port",
        "intake",
        "door",
        "credentials",
        "turns",
    },
    "exporter": "*",
    "spool": {"disk", "log", "shelf", "store"},
    "emulator": "*",
    "generator": "*",
    "service": "*",
}
PURE_EXPORTER = {"lines", "verdicts"}
IMPURE_IMPORTS = {
    "asyncio",
    "socket",
    "os",
    "time",
    "random",
    "logging",
    "threading",
    "aiohttp",
    "datetime",
}
MODULE_LINES_MAX = 480
# Lists of declarations, looked up and not read in one sitting.
DECLARATIONS = {"settings", "metrics"}
FUNCTION_LINES_MAX = 75


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def layer_of(name: str) -> int:
    return next((index for index, names in enumerate(LAYERS) if name in names), len(LAYERS))


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def ids(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_imports_point_down_and_rooms_stay_apart(path: Path) -> None:
    mine = room_of(path)
    if mine == "__init__":
        return
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "tracefwd" or len(parts) < 2:
            continue
        theirs = parts[1]
        if theirs in ("__version__", mine):
            continue
        assert layer_of(theirs) >= layer_of(mine), f"{ids(path)} imports {name}, which is above it"
        if mine in ROOMS - {"service"}:
            assert theirs not in ROOMS, f"{ids(path)} imports another room: {name}"


def is_pure(path: Path) -> bool:
    room, stem = room_of(path), path.stem
    if room == "exporter":
        return stem in PURE_EXPORTER
    edges = EDGES.get(room, set())
    return edges != "*" and stem not in edges and room != "__main__"


@pytest.mark.parametrize("path", [path for path in MODULES if is_pure(path)], ids=ids)
def test_the_middle_is_pure(path: Path) -> None:
    impure = {name for name in imports(path) if name.split(".")[0] in IMPURE_IMPORTS}
    assert not impure, (
        f"{ids(path)} must get time, chance and the world handed in, not import {impure}"
    )


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_every_module_has_a_preamble_and_fits_in_one_sitting(path: Path) -> None:
    text = path.read_text()
    if not text.strip():
        return
    assert ast.get_docstring(ast.parse(text)), f"{ids(path)} does not say what it is for"
    assert path.stem in DECLARATIONS or len(text.splitlines()) <= MODULE_LINES_MAX


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_functions_fit_on_a_screen(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            first = node.body[0]
            documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
            start = first.end_lineno if documented and first.end_lineno else node.lineno
            assert node.end_lineno - start <= FUNCTION_LINES_MAX, (
                f"{ids(path)}: {node.name} is too long"
            )


def test_modules_that_are_named_exist() -> None:
    known = {path.name for path in MODULES} | {path.name for path in (ROOT / "tests").rglob("*.py")}
    named = {
        (str(path.relative_to(ROOT)), name)
        for path in MODULES
        for name in re.findall(r"``[\w/]*?(\w+\.py)``", path.read_text(encoding="utf-8"))
    }
    assert {(where, name) for where, name in named if name not in known} == set()


def test_no_cupboards() -> None:
    assert not [path for path in MODULES if path.stem in {"utils", "helpers", "common", "misc"}]


def test_no_module_is_dead() -> None:
    used = {name for path in MODULES for name in imports(path)}
    # The last is named where the scraper's process is started.
    entry_points = {
        "tracefwd.__main__",
        "tracefwd.service.worker",
        "tracefwd.service.scraper_parts",
    }
    for path in MODULES:
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if path.stem != "__init__":
            assert name in used | entry_points, f"nobody imports {name}"
