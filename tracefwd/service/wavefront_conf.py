"""Reads the Wavefront proxy's own ``wavefront.conf`` and says of each of its lines what becomes of it.

1. Every line has one fate: honoured, another name here, no meaning here, unknown.  As in the proxy, an unknown option
   stops nothing, the last of several equal lines counts, and values are trimmed.
2. A value that the proxy's option cannot have is a mistake; the report gets all of them.
3. No secret leaves this module in a text: values are shown for honoured lines only, a credential's never, and what
   looks like a token is hidden wherever it stands.  Tokens are not taken over: they are read from files of their own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote as percent_encoded
from urllib.parse import urlsplit

from tracefwd.service import units
from tracefwd.service.config_file import FILE_BYTES_MAX
from tracefwd.service.config_options import catalogue
from tracefwd.service.config_report import Report, nearest
from tracefwd.service.config_show import written_value
from tracefwd.service.java_properties import Entry, read_properties
from tracefwd.service.masking import HIDDEN, looks_like_token, mask_url, redact
from tracefwd.service.units import UnitError
from tracefwd.service.wavefront_options import (
    ALIASES,
    BLANK_IS_DEFAULT,
    ELSEWHERE,
    SECRET_NAMES,
    TAKEN,
    TARGET_NAMES,
    is_known,
    known_names,
    meaningless,
)
from tracefwd.service.wavefront_values import Taken

HONOURED = "honoured"
ANOTHER_NAME = "another name here"
NO_MEANING = "no meaning here"
UNKNOWN = "unknown"
FATES = (HONOURED, ANOTHER_NAME, NO_MEANING, UNKNOWN)

# Names are the proxy's camel case, the longest has 45 characters; something longer is no name.
_NAME_LENGTH_MAX = 64
# Java's String.trim.
_TRIMMED = "".join(map(chr, range(0x21)))
_TARGET = "exporter.targets"
_SERVER_EXAMPLES = {"https": "https://INSTANCE.wavefront.com/api/", "http": "http://HOST:PORT/api/"}
_CSP_EXAMPLES = {"https": "https://console.cloud.vmware.com", "http": "http://HOST:PORT"}
_SECRET_FIELDS = {
    "token": "token_file",
    "cspAPIToken": "csp_token_file",
    "cspAppSecret": "csp_app_secret_file",
}


@dataclass(frozen=True)
class Remark:
    """The fate of one line; ``keys`` are our options that it set, ``note`` is what a value alone does not say."""

    line: int
    name: str
    fate: str
    text: str
    keys: tuple[str, ...] = ()
    note: str = ""

    @property
    def reason(self) -> str:
        return "; ".join(part for part in (self.text, self.note) if part)

    @property
    def sentence(self) -> str:
        return f"line {self.line} {self.name}: {self.fate}: {self.reason}"


@dataclass(frozen=True)
class Target:
    """Direct ingestion to ``server``.  ``fields`` are ``TargetSettings``' own and may hold the HTTP proxy's password.

    ``credential`` is the field that must name the secret's file; the proxy's option ``credential_name`` holds the
    secret in ``credential_line``, 0 is nowhere.  ``line`` is the server's.
    """

    fields: Mapping[str, str] = field(repr=False)
    lines: Mapping[str, tuple[int, ...]]
    credential: str
    credential_name: str
    credential_line: int
    line: int


@dataclass(frozen=True)
class WavefrontConf:
    """``values``: our value and its line, by dotted key."""

    path: Path
    remarks: tuple[Remark, ...]
    values: Mapping[str, tuple[Any, int]] = field(repr=False)
    target: Target | None

    def origin(self, line: int = 0) -> str:
        return origin(self.path, line)

    def account(self, origins: Mapping[str, str]) -> list[Remark]:
        """A remark for every line; ``origins`` tell what was overridden by a higher layer."""
        mine = self.origin()
        account: list[Remark] = []
        for remark in self.remarks:
            winners = {origins[key] for key in remark.keys if not origins[key].startswith(mine)}
            beaten = f"but {' and '.join(sorted(winners))} wins" if winners else ""
            note = "; ".join(part for part in (remark.note, beaten) if part)
            account.append(replace(remark, note=note))
        return account


def origin(path: Path, line: int = 0) -> str:
    return f"wavefront.conf {path}:{line}" if line else f"wavefront.conf {path}"


def read_conf(path: Path, report: Report) -> WavefrontConf | None:
    """None when the file cannot be read; mistakes in it are in the report."""
    try:
        with path.open("rb") as stream:
            data = stream.read(FILE_BYTES_MAX + 1)
    except OSError as exc:
        reason = f"cannot be read ({exc.strerror}); check the path"
        report.refuse(origin(path), reason)
        return None
    if len(data) > FILE_BYTES_MAX:
        report.refuse(origin(path), "is larger than 1MiB; a wavefront.conf is a short text")
        return None
    return _Reading(path, report).read(data)


def read_values(path: Path) -> dict[str, str] | None:
    """The proxy's options by name as it would read them, secrets left out; None when the file cannot be read."""
    try:
        with path.open("rb") as stream:
            data = stream.read(FILE_BYTES_MAX)
    except OSError:
        return None  # read_conf says why
    entries, _ = read_properties(data)
    known = {_canonical(entry.key): _trimmed(entry.value) for entry in entries}
    return {name: value for name, value in known.items() if name not in SECRET_NAMES}


class _Reading:
    """One pass over the file."""

    def __init__(self, path: Path, report: Report) -> None:
        self._path = path
        self._report = report
        self._remarks: list[Remark] = []
        self._values: dict[str, tuple[Any, int]] = {}

    def read(self, data: bytes) -> WavefrontConf:
        entries, unreadable = read_properties(data)
        for line in unreadable:
            reason = "holds \\u without four hexadecimal digits; write two backslashes for one"
            self._report.refuse(origin(self._path, line), reason)
        last = {_canonical(entry.key): entry for entry in entries}
        for entry in entries:
            if last[_canonical(entry.key)] is not entry:
                again = last[_canonical(entry.key)].line
                self._say(entry, NO_MEANING, f"line {again} says it again, and the last one counts")
            elif _canonical(entry.key) not in TARGET_NAMES:
                self._option(entry)
        if entries and not any(is_known(name) for name in last):
            reason = "holds no option of the Wavefront proxy; give the path of its wavefront.conf"
            self._report.refuse(origin(self._path), reason)
        target = self._target({name: last[name] for name in last if name in TARGET_NAMES})
        remarks = tuple(sorted(self._remarks, key=lambda remark: remark.line))
        return WavefrontConf(self._path, remarks, self._values, target)

    # --- one line ---

    def _option(self, entry: Entry) -> None:
        name, value = entry.key, _trimmed(entry.value)
        if name in TAKEN:
            self._take(entry, value)
        elif name in ELSEWHERE:
            key, difference = ELSEWHERE[name]
            self._say(entry, ANOTHER_NAME, f"{key}: {difference}")
        elif (reason := meaningless(name)) is not None:
            self._say(entry, NO_MEANING, reason)
        else:
            self._say(entry, UNKNOWN, f"the proxy ignores such a line, too{_hint(name)}")

    def _take(self, entry: Entry, value: str) -> None:
        if not value:
            self._blank(entry)
            return
        try:
            taken = TAKEN[entry.key](value)
            shown = _shown_values(taken)
        except UnitError as exc:
            self._refuse(entry, str(exc))
            return
        for key, ours in taken.values.items():
            self._values[key] = (ours, entry.line)
        if taken.values:
            self._say(entry, HONOURED, shown, *taken.values, note=taken.note)
        else:
            self._say(entry, NO_MEANING, taken.note)

    def _blank(self, entry: Entry) -> None:
        name = _canonical(entry.key)
        if name in BLANK_IS_DEFAULT or name in TARGET_NAMES:
            self._say(entry, NO_MEANING, "is blank, so the default holds")
        else:
            reason = "has no value; give one, or remove the line for the default"
            self._refuse(entry, reason, value=False)

    def _say(self, entry: Entry, fate: str, text: str, *keys: str, note: str = "") -> None:
        self._remarks.append(Remark(entry.line, _shown_name(entry.key), fate, text, keys, note))

    def _refuse(self, entry: Entry, reason: str, *, value: bool = True) -> None:
        shown = None
        if value and _canonical(entry.key) not in SECRET_NAMES:
            text = _trimmed(entry.value)
            shown = HIDDEN if looks_like_token(text) else redact(mask_url(text))
        key = f"{origin(self._path, entry.line)} {_shown_name(entry.key)}"
        self._report.refuse(key, reason, shown=shown)

    # --- the lines that make a target together ---

    def _target(self, entries: Mapping[str, Entry]) -> Target | None:
        given: dict[str, Entry] = {}
        for name, entry in entries.items():
            if _trimmed(entry.value):
                given[name] = entry
            else:
                self._blank(entry)
        if "server" not in given:
            for entry in given.values():
                self._say(entry, NO_MEANING, "without server there is no target that would use it")
            return None
        fields: dict[str, str] = {}
        lines: dict[str, tuple[int, ...]] = {}
        self._url(given["server"], "url", _SERVER_EXAMPLES, fields, lines)
        if "cspBaseUrl" in given:
            self._url(given["cspBaseUrl"], "csp_base", _CSP_EXAMPLES, fields, lines)
        for name, ours in (("cspAppId", "csp_app_id"), ("cspOrgId", "csp_org_id")):
            if name in given:
                fields[ours] = _trimmed(given[name].value)
                lines[ours] = (given[name].line,)
                self._say(given[name], HONOURED, f"{_TARGET}[0].{ours}", _TARGET)
        self._http_proxy(given, fields, lines)
        name, line = self._credential(given)
        return Target(fields, lines, _SECRET_FIELDS[name], name, line, given["server"].line)

    def _url(
        self,
        entry: Entry,
        ours: str,
        examples: Mapping[str, str],
        fields: dict[str, str],
        lines: dict[str, tuple[int, ...]],
    ) -> None:
        url = _trimmed(entry.value)
        try:
            _check_url(url, examples)
        except UnitError as exc:
            self._refuse(entry, str(exc))
            return
        url = url.rstrip("/")
        if ours == "url":
            # The API's own path; direct ingestion is at /report beside it.
            url = url.removesuffix("/api").rstrip("/")
        fields[ours] = url
        lines[ours] = (entry.line,)
        self._say(entry, HONOURED, f"{_TARGET}[0].{ours} = {url}", _TARGET)

    def _http_proxy(
        self,
        given: Mapping[str, Entry],
        fields: dict[str, str],
        lines: dict[str, tuple[int, ...]],
    ) -> None:
        mine = [name for name in ("proxyHost", "proxyPort") if name in given]
        login = [name for name in ("proxyUser", "proxyPassword") if name in given]
        if mine == ["proxyHost"]:
            self._refuse(given["proxyHost"], "needs proxyPort beside it; write both")
            return
        if not mine or mine == ["proxyPort"]:
            for name in [*mine, *login]:
                self._say(given[name], NO_MEANING, "without proxyHost there is no HTTP proxy")
            return
        host, port = (_trimmed(given[name].value) for name in mine)
        if not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 2**16):
            reason = "is no port; write a number from 1 to 65535, such as 3128"
            self._refuse(given["proxyPort"], reason)
            return
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            _check_url(f"http://{address}", {"http": "http://proxy.example.com"})
        except UnitError:
            reason = "is no host; write a name or an IP address, such as proxy.example.com"
            self._refuse(given["proxyHost"], reason)
            return
        for name in mine:
            text = f"{_TARGET}[0].http_proxy = http://{address}"
            self._say(given[name], HONOURED, text, _TARGET)
        user = ""
        if len(login) == 2:
            parts = (percent_encoded(_trimmed(given[name].value), safe="") for name in login)
            user = ":".join(parts) + "@"
            mine += login
        for name in login:
            fate = HONOURED if user else NO_MEANING
            text = f"in {_TARGET}[0].http_proxy" if user else "user and password go together"
            self._say(given[name], fate, text, *([_TARGET] if user else []))
        fields["http_proxy"] = f"http://{user}{address}"
        lines["http_proxy"] = tuple(given[name].line for name in mine)

    def _credential(self, given: Mapping[str, Entry]) -> tuple[str, int]:
        """Name and line of the one secret; the proxy, too, takes exactly one."""
        kinds = [name for name in ("token", "cspAPIToken") if name in given]
        app = [name for name in ("cspAppId", "cspAppSecret") if name in given]
        if len(app) == 1:
            other = "cspAppSecret" if app == ["cspAppId"] else "cspAppId"
            self._refuse(given[app[0]], f"needs {other} beside it; write both", value=False)
        if app:
            kinds.append(app[-1])
        if len(kinds) > 1:
            names = " and ".join(kinds)
            reason = f"{names} are given, but a target has one credential; keep one"
            self._refuse(given[kinds[-1]], reason, value=False)
        for name in (name for name in _SECRET_FIELDS if name in given):
            text = f"{_TARGET}[0].{_SECRET_FIELDS[name]}: a secret is read from a file of its own; put it into one"
            self._say(given[name], ANOTHER_NAME, text)
        held = [name for name in kinds if name in _SECRET_FIELDS]
        return (held[0], given[held[0]].line) if held else ("token", 0)


def _check_url(url: str, examples: Mapping[str, str]) -> None:
    units.check_url(url, examples)
    if "@" in urlsplit(url).netloc:
        raise UnitError(
            f"a password does not belong into it; write {next(iter(examples.values()))}"
        )


def _canonical(name: str) -> str:
    return ALIASES.get(name, name)


def _trimmed(value: str) -> str:
    """As the proxy's command line parser does it, through which its file goes: blanks and a pair of quotes."""
    value = value.strip(_TRIMMED)
    if value.startswith('"'):
        value = value[1:-1] if len(value) > 1 and value.endswith('"') else value[1:]
    return value.strip(_TRIMMED)


def _shown_name(name: str) -> str:
    """The name, unless somebody pasted something else there."""
    if is_known(name):
        return name
    # A misspelt name is near a real one; a token is near none.
    strange = len(name) > _NAME_LENGTH_MAX or (looks_like_token(name) and not _near(name))
    if strange or not (name.isascii() and name.isprintable()):
        return HIDDEN
    return redact(name)


def _near(name: str) -> str | None:
    known = {known.lower(): known for known in known_names()}
    near = nearest(name, known)
    return known[near] if near else None


def _hint(name: str) -> str:
    near = _near(name) if len(name) <= _NAME_LENGTH_MAX else None
    return f"; did you mean {near}?" if near else ""


def _shown_values(taken: Taken) -> str:
    parts: list[str] = []
    for key, value in taken.values.items():
        written = written_value(catalogue()[key], value)
        text = ", ".join(written) if isinstance(written, list) else str(written)
        text = str(written).lower() if isinstance(written, bool) else text
        text = HIDDEN if looks_like_token(text) else redact(text)
        parts.append(f"{key} = {text if text.isprintable() else ascii(text)}")
    return ", ".join(parts)


__all__ = [
    "ANOTHER_NAME",
    "FATES",
    "HONOURED",
    "NO_MEANING",
    "UNKNOWN",
    "Remark",
    "Target",
    "WavefrontConf",
    "origin",
    "read_conf",
    "read_values",
]
