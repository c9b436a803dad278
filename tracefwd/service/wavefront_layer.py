"""The Wavefront proxy's ``wavefront.conf`` as a layer of the configuration, above the defaults and below all else.

It brings the profile ``wavefront-proxy``, the values of the lines that are honoured, and one direct target to
``server``.  A target's secret is not among them: ``--token-file`` names its file, or the target is written into our own
file.  Without it the result can be shown, but not run.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tracefwd.service.config_file import Scalar
from tracefwd.service.config_options import catalogue
from tracefwd.service.config_report import Report
from tracefwd.service.config_values import MISSING, read
from tracefwd.service.wavefront_conf import WavefrontConf, origin, read_conf
from tracefwd.settings import TargetSettings

_TARGETS = "exporter.targets"
_TOKEN_FLAG = "--token-file"  # noqa: S105  # the flag, no token


class ConfLayer:
    """``flags`` are those for a target, as typed; ``taken_flags`` belong to the conf's target and to nobody else."""

    def __init__(self, path: Path, flags: Mapping[str, Any], report: Report) -> None:
        self.conf: WavefrontConf | None = read_conf(path, report)
        self._path = path
        self._report = report
        self._target = self.conf.target if self.conf is not None else None
        lone = self._target is not None and set(flags) == {_TOKEN_FLAG}
        self.taken_flags = {_TOKEN_FLAG} if lone else set()
        self._token_file: str | None = str(flags[_TOKEN_FLAG]) if lone else None

    def values(self) -> Iterator[tuple[str, Any, str]]:
        """(key, value, origin)."""
        if self.conf is None:
            return
        yield "mapping.profile", "wavefront-proxy", self.conf.origin()
        for key, (value, line) in self.conf.values.items():
            self._report.places[key] = self.conf.origin(line)
            yield key, value, self.conf.origin(line)
        if self._target is not None:
            where = self.conf.origin(self._target.line)
            self._report.places[_TARGETS] = where
            flag = f" and flag {_TOKEN_FLAG}" if self._token_file is not None else ""
            yield _TARGETS, [self._settings()], f"{where}{flag}"

    def _settings(self) -> TargetSettings:
        assert self._target is not None
        fields: dict[str, Any] = dict(self._target.fields)
        if self._token_file is not None:
            # One credential: the flag is above the file.
            fields.pop("csp_app_id", None)
            node = Scalar(self._token_file, self._token_file, f"flag {_TOKEN_FLAG}")
            option = catalogue(TargetSettings)["token_file"]
            value = read(option, node, self._report, f"{_TARGETS}[0].token_file")
            if value is not MISSING:
                fields["token_file"] = value
        return TargetSettings(kind="direct", **fields)

    def check(self, origins: Mapping[str, str], *, runnable: bool) -> None:
        """After all layers: does the conf's target hold, and has it what it needs?"""
        if self._target is None:
            return
        winner = origins[_TARGETS]
        if not winner.startswith(origin(self._path)):
            if self._token_file is not None:
                reason = f"belongs to a target, and those come from {winner}; give token_file there"
                self._report.refuse(_TOKEN_FLAG, reason)
            return
        if "url" not in self._target.fields:
            self._report.broken.add(f"{_TARGETS}[0].url")
        if self._token_file is not None:
            return
        if not runnable or self._target.credential_line:
            # What is shown needs no credential, and what lacks one is told here.
            self._report.broken.add(f"{_TARGETS}[0].{self._target.credential}")
        if runnable and self._target.credential_line:
            self._refuse_secret()

    def _refuse_secret(self) -> None:
        assert self._target is not None
        field = self._target.credential
        if field == "token_file":
            hint = f"write it into one and give {_TOKEN_FLAG} FILE"
        else:
            hint = f"write it into one and name that as {field} in {_TARGETS} of --config"
        key = f"{origin(self._path, self._target.credential_line)} {self._target.credential_name}"
        reason = f"a secret is read from a file of its own; {hint} (tracefwd import-conf writes such a configuration)"
        self._report.refuse(key, reason)


__all__ = ["ConfLayer"]
