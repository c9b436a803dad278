"""Whether the files that a configuration names can be used now: tokens, certificates, keys.  Rules are read with it.

Whoever opens them at the start is asked, so that ``validate`` and ``doctor`` refuse what ``run`` would.  No sentence
holds a file's content, nor a secret that stands where its path belongs.
"""

import os
from pathlib import Path

from tracefwd.errors import StartError
from tracefwd.service.config_options import get
from tracefwd.service.masking import mask_secret_path
from tracefwd.settings import (
    AdminSettings,
    ExporterSettings,
    ReceiverSettings,
    Settings,
    TargetSettings,
)

_PORT_FILES = ("token_file", "tls.cert_file", "tls.key_file", "tls.client_ca_file")
_TARGET_FILES = (
    "token_file",
    "csp_token_file",
    "csp_app_secret_file",
    "ca_file",
    "cert_file",
    "key_file",
)
_NO_SECRETS = ("ca_file", "cert_file", "key_file")


def check_files(settings: Settings, *, certificates: bool = True) -> list[str]:
    """Files that are named but cannot be used now, as whoever opens them at the start will find.

    ``certificates``: what targets' hold, too; else whether they are there is all.
    """
    problems: list[str] = []
    for section in ("receiver", "admin"):
        problems += _unusable_files(settings, section)
    for index, target in enumerate(settings.exporter.targets):
        files = {name: getattr(target, name) for name in _TARGET_FILES}
        files |= {f"header_files.{name}": path for name, path in target.header_files.items()}
        found: list[str] = []
        for name, path in files.items():
            reason = unreadable(path) if path else None
            if path and reason is None and name not in _NO_SECRETS:
                reason = _no_secret(path, blanks=name.startswith("header_files."))
            if reason is not None:
                shown = repr(mask_secret_path(path))
                found.append(f"exporter.targets[{index}].{name} = {shown}: {reason}.")
        if certificates and not found:
            reason = _unusable_certificates(target, settings.exporter)
            found += [f"exporter.targets[{index}]: {reason}."] if reason else []
        problems += found
    return problems


def check_folder(settings: Settings) -> list[str]:
    """A spool's folder that cannot be one: run starts and says so, but then nothing outlives it."""
    folder = settings.spool.folder
    if not folder:
        return []
    path = Path(folder)
    # os.path, which says no where this user may not look.
    there = next((each for each in (path, *path.parents) if os.path.exists(each)), None)  # noqa: PTH110
    if there is None or os.path.isdir(there):  # noqa: PTH112
        return []  # made at the start
    what = "is no folder" if there == path else f"cannot be a folder below {str(there)!r}"
    return [f"spool.folder = {folder!r}: {what}; until it is one nothing is durable."]


def _unusable_certificates(target: TargetSettings, exporter: ExporterSettings) -> str | None:
    """Why its connections could not be opened, whatever their scheme."""
    # One without the other was refused before.
    if bool(target.cert_file) != bool(target.key_file) or not (target.ca_file or target.cert_file):
        return None
    from tracefwd.exporter.http_client import HttpClient  # TLS and HTTP: most name no such files

    try:
        HttpClient(target, exporter).tls_context()
    except StartError as error:
        return str(error).removeprefix(f"target {target.name}: ")
    return None


def _unusable_files(settings: Settings, section: str) -> list[str]:
    """A port's tokens and certificate, as the port itself will read them."""
    problems: list[str] = []
    for name in _PORT_FILES:
        path = get(settings, f"{section}.{name}")
        reason = unreadable(path) if path else None
        if reason is not None:
            problems.append(f"{section}.{name} = {mask_secret_path(path)!r}: {reason}.")
    port: ReceiverSettings | AdminSettings = getattr(settings, section)
    # One without the other was refused before.
    if problems or bool(port.tls.cert_file) != bool(port.tls.key_file):
        return problems
    if not (port.token_file or port.tls.cert_file):
        return []
    from tracefwd.receiver.credentials import Credentials  # TLS: most have none

    try:
        Credentials(port, section).load()
    except StartError as error:
        return [f"{error}."]
    return []


def _no_secret(path: str, *, blanks: bool) -> str | None:
    """Why a file's content could not be sent as a secret."""
    from tracefwd.exporter.auth import (
        CredentialsError,
        SecretFile,
    )  # an HTTP client: most have none

    try:
        SecretFile(path, blanks=blanks).read()
    except CredentialsError as error:
        return str(error).removeprefix(f"{Path(path)} ")
    return None


def unreadable(path: str) -> str | None:
    """Why a file cannot be used now, and what to do; None if it can."""
    try:
        with Path(path).open("rb") as stream:
            blank = not stream.read(4096).strip()
    except (OSError, ValueError) as exc:
        if mask_secret_path(path) != path:
            return "looks like the secret itself; write it into a file and give the file's path"
        what = exc.strerror if isinstance(exc, OSError) else "no path"
        return f"cannot be read ({what}); check the path and that this user may read it"
    return "is empty; write the secret into it" if blank else None


__all__ = ["check_files", "check_folder", "unreadable"]
