"""``tracefwd validate``: says what ``run`` with the same arguments would say, and starts nothing.

One tick per part of the configuration, its mistakes below it.  Exit code 2 for a mistake in the configuration, 1 when
only a file that it names cannot be read now; files of scraped sources may come later, so they are warnings, as are
ports that usually mean something else.
"""

import dataclasses
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tracefwd.errors import ConfigError
from tracefwd.service.config import Loaded, check_files, load
from tracefwd.service.doctor_advice import oddities
from tracefwd.service.file_checks import check_folder
from tracefwd.service.logs import colour_allowed
from tracefwd.service.source_checks import check_source_files
from tracefwd.service.units import counted
from tracefwd.settings import Settings


@dataclasses.dataclass(frozen=True)
class Check:
    """A part that was looked at; fine when it has no problems."""

    name: str
    problems: list[str]
    warnings: list[str] = dataclasses.field(default_factory=list)

    @property
    def fine(self) -> bool:
        return not self.problems


_SECTIONS = tuple(item.name for item in dataclasses.fields(Settings))
_SOURCES = {"file": "file", "environment": "environment", "wavefront": "wavefront.conf"}


def run(
    file: Path | None,
    environ: Mapping[str, str],
    flags: Mapping[str, Any],
    *,
    wavefront_conf: Path | None = None,
    as_json: bool,
) -> int:
    """Prints to standard output; the exit code."""
    account: list[str] = []
    try:
        loaded = load(file, environ, flags, wavefront_conf=wavefront_conf, runnable=True)
    except ConfigError as exc:
        checks = _grouped(exc.problems)
        code = 2
    else:
        odd = {"exporter": list(_odd_ports(loaded.settings))}
        checks = [Check(name, [], odd.get(name, [])) for name in _SECTIONS]
        missing = [*check_source_files(loaded.settings), *check_folder(loaded.settings)]
        files = Check("files", check_files(loaded.settings), missing)
        checks.append(files)
        account = _account(loaded)
        code = int(bool(files.problems))
    if as_json:
        rows = [dataclasses.asdict(check) | {"fine": check.fine} for check in checks]
        tree: dict[str, Any] = {"fine": not code, "checks": rows}
        if wavefront_conf is not None:
            tree["wavefront_conf"] = account
        print(json.dumps(tree, indent=2, ensure_ascii=False))
    else:
        given = " and ".join(str(path) for path in (wavefront_conf, file) if path is not None)
        _print(checks, given, code)
        for sentence in account:
            print(f"wavefront.conf, {sentence}")
    return code


def _odd_ports(settings: Settings) -> Iterator[str]:
    """Ports that would take what they get and make something else of it, as the doctor says."""
    for index, target in enumerate(settings.exporter.targets):
        for what, todo in oddities(target, settings):
            yield f"exporter.targets[{index}]: {what}; {todo}."


def _account(loaded: Loaded) -> list[str]:
    """What became of every line of the Wavefront proxy's file."""
    if loaded.wavefront is None:
        return []
    return [remark.sentence for remark in loaded.wavefront.account(loaded.origins)]


def _grouped(problems: list[str]) -> list[Check]:
    """By section; sections without a problem are ticked only if the file could be read as a whole."""
    groups: dict[str, list[str]] = {}
    for problem in problems:
        groups.setdefault(_group(problem), []).append(problem)
    names = list(groups) if "file" in groups else [*_SECTIONS, *groups]
    return [Check(name, groups.get(name, [])) for name in dict.fromkeys(names)]


def _group(problem: str) -> str:
    word = re.match(r"[A-Za-z_]*", problem)
    name = word[0] if word else ""
    if name in _SECTIONS:
        return name
    return _SOURCES.get(name, "flags" if problem.startswith("--") else "sections")


def _print(checks: list[Check], given: str, code: int) -> None:
    colour = sys.stdout.isatty() and colour_allowed()
    # A terminal without UTF-8 gets words.
    signs = (sys.stdout.encoding or "").lower().startswith("utf")
    tick, cross = ("✓", "✗") if signs else ("ok ", "bad")
    if colour:
        tick, cross = f"\x1b[32m{tick}\x1b[0m", f"\x1b[31m{cross}\x1b[0m"
    print(f"configuration: {given or 'defaults, environment and flags'}")
    for check in checks:
        print(f"{tick if check.fine else cross} {check.name}")
        for problem in check.problems:
            print(f"    {problem}")
        for warning in check.warnings:
            print(f"    warning: {warning}")
    count = sum(len(check.problems) for check in checks)
    warned = sum(len(check.warnings) for check in checks)
    verdict = counted(count, "problem") if code else "valid"
    print(f"{verdict}, {counted(warned, 'warning')}" if warned else verdict)


__all__ = ["Check", "run"]
