"""``tracefwd import-conf``: a Wavefront proxy's ``wavefront.conf`` as our own configuration file.

The YAML has what ``--wavefront-conf`` would set and nothing else, each option with the line that it comes from; what
was not carried over stands below as comments, with the reason.  Secrets are never written: where the proxy's file
holds one, the YAML names a file to put it into, or a variable.
"""

import logging
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tracefwd.errors import StartError
from tracefwd.service.config import load
from tracefwd.service.config_options import catalogue
from tracefwd.service.config_report import quote
from tracefwd.service.config_show import written_value, yaml_leaf
from tracefwd.service.wavefront_conf import FATES, HONOURED, UNKNOWN, Remark, Target, WavefrontConf

LOG = logging.getLogger(__name__)

SECRET_FILES = {
    "token_file": "/etc/tracefwd/token",
    "csp_token_file": "/etc/tracefwd/csp-token",
    "csp_app_secret_file": "/etc/tracefwd/csp-app-secret",
}
"""Where the YAML expects a secret that it must not hold."""

USER_VARIABLE, PASSWORD_VARIABLE = "HTTP_PROXY_USER", "HTTP_PROXY_PASSWORD"


def run(file: Path, output: str) -> int:
    """Writes YAML to ``output`` and a summary to standard error; the exit code.

    Raises ``ConfigError`` with all mistakes of the file, ``StartError`` when ``output`` cannot be written.
    """
    loaded = load(None, {}, {}, wavefront_conf=file)
    assert loaded.wavefront is not None
    text = as_yaml(loaded.wavefront, loaded.origins)
    if output == "-":
        sys.stdout.write(text)
    else:
        _write(Path(output), file, text)
    account = loaded.wavefront.account(loaded.origins)
    fates = [remark.fate for remark in account]
    counts = ", ".join(f"{fates.count(fate)} {fate}" for fate in FATES)
    print(f"tracefwd: lines of {quote(str(file))}: {counts}", file=sys.stderr)
    for line in _chores(loaded.wavefront.target):
        print(f"tracefwd: {line}", file=sys.stderr)
    return 0


def _write(output: Path, source: Path, text: str) -> None:
    try:
        if output.exists() and output.samefile(source):
            raise StartError("--output names the file that is imported; choose another")
        output.write_text(text, encoding="utf-8")
    except OSError as exc:
        shown = quote(str(output))
        raise StartError(f"{shown} cannot be written ({exc.strerror}); check --output") from None


def _chores(target: Target | None) -> list[str]:
    """What the operator has to do before the YAML can run."""
    if target is None:
        return []
    file = SECRET_FILES[target.credential]
    what = target.credential_name
    lines = [f"put the value of {what} into {file}, readable by tracefwd alone"]
    if "@" in target.fields.get("http_proxy", ""):
        names = f"{USER_VARIABLE} and {PASSWORD_VARIABLE}"
        lines.append(f"set {names} to proxyUser and proxyPassword, percent-encoded")
    return lines


# --- the YAML --------------------------------------------------------------------------------


def as_yaml(conf: WavefrontConf, origins: Mapping[str, str]) -> str:
    """Loads to the settings that ``--wavefront-conf`` gives; every line of the file stands in a comment."""
    remarks = {remark.line: remark for remark in conf.account(origins)}
    tree: dict[str, Any] = {}
    values: dict[str, tuple[Any, int]] = {"mapping.profile": ("wavefront-proxy", 0)}
    values.update(conf.values)
    for key, option in catalogue().items():
        *sections, name = key.split(".")
        if key in values:
            value, line = values[key]
            place = _branch(tree, sections)
            leaf = yaml_leaf(name, written_value(option, value))
            place[name] = _commented(leaf, _places([line], remarks) if line else "")
        elif key == "exporter.targets" and conf.target is not None:
            _branch(tree, sections)[name] = _target(conf.target, remarks)
    lines = [f"# {_safe(f'Imported from {conf.path}; what was not carried over stands below.')}"]
    lines += _lines(tree, "")
    for fate, account in _by_fate(remarks.values()):
        if fate != HONOURED:
            texts = [f"line {r.line} {r.name}: {r.reason}" for r in account]
            lines += ["", f"# {fate}:", *(f"#   {_safe(text)}" for text in texts)]
    return "\n".join(lines) + "\n"


def _by_fate(remarks: Iterable[Remark]) -> Iterator[tuple[str, list[Remark]]]:
    """The lines that met each fate, where there are any."""
    known = list(remarks)
    for fate in FATES:
        account = [remark for remark in known if remark.fate == fate]
        if account:
            yield fate, account


def _branch(tree: dict[str, Any], sections: Sequence[str]) -> dict[str, Any]:
    for section in sections:
        tree = tree.setdefault(section, {})
    return tree


def _lines(tree: Mapping[str, Any], indent: str) -> list[str]:
    lines: list[str] = []
    for name, child in tree.items():
        if isinstance(child, dict):
            lines += [f"{indent}{name}:", *_lines(child, f"{indent}  ")]
        else:
            lines += [f"{indent}{line}" for line in child]
    return lines


def _target(target: Target, remarks: Mapping[int, Remark]) -> list[str]:
    fields: list[str] = ["kind: direct"]
    for name, value in target.fields.items():
        comment = _places(target.lines[name], remarks)
        leaf = yaml_leaf(name, value)
        if name == "http_proxy" and "@" in value:
            # Percent-encoded by whoever sets them; references stand for what must not be written here.
            login = f"${{{USER_VARIABLE}}}:${{{PASSWORD_VARIABLE}}}"
            address = value.rpartition("@")[2]
            leaf = [f'http_proxy: "http://{login}@{address}"']
        fields += _commented(leaf, comment)
    if target.credential_line:
        comment = f"{_places([target.credential_line], remarks)}: put the secret into this file"
    else:
        comment = "the proxy's file holds no token: put it into this file"
    fields += _commented([f"{target.credential}: {SECRET_FILES[target.credential]}"], comment)
    return ["targets:", *(f"{'    ' if i else '  - '}{line}" for i, line in enumerate(fields))]


def _places(lines: Sequence[int], remarks: Mapping[int, Remark]) -> str:
    """Where an option comes from, and what is worth saying about it."""
    places = ", ".join(f"line {line} {remarks[line].name}" for line in lines)
    notes = [remarks[line].note for line in lines if remarks[line].note]
    return "; ".join([places, *notes])


def _commented(leaf: Sequence[str], comment: str) -> list[str]:
    head, *rest = leaf
    return [f"{head}  # {_safe(comment)}" if comment else head, *rest]


def _safe(text: str) -> str:
    """A comment ends where its line ends; nothing in it may begin another one."""
    return text if text.isprintable() else ascii(text)[1:-1]


# --- the log ---------------------------------------------------------------------------------


def log_account(conf: WavefrontConf, origins: Mapping[str, str]) -> None:
    """One record for each fate: what a service that starts with ``--wavefront-conf`` says of its lines."""
    for fate, account in _by_fate(conf.account(origins)):
        level = logging.WARNING if fate == UNKNOWN else logging.INFO
        # In brackets: behind "token:" the log's net against secrets would hide what we say.
        texts = [f"line {r.line} {r.name} ({r.reason})" for r in account]
        LOG.log(level, "wavefront.conf %s, %s: %s", conf.path, fate, ", ".join(texts))


__all__ = ["PASSWORD_VARIABLE", "SECRET_FILES", "USER_VARIABLE", "as_yaml", "log_account", "run"]
