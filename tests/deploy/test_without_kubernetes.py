"""The systemd unit, the Compose file and the image: what they say is what tracefwd takes; the tools do not complain."""

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tracefwd.service import config
from tracefwd.service.config import FLAG_KEYS, option_rows
from tracefwd.settings import ServiceSettings

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "deploy" / "systemd" / "tracefwd.service"
COMPOSE = ROOT / "deploy" / "compose" / "compose.yaml"
DOCKERFILE = (ROOT / "Dockerfile").read_text()
# Idle connections are kept for 6 s beside the drain.
LINGER_S = 6.0


def unit() -> configparser.SectionProxy:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNIT)
    return parser["Service"]


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return found


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


def test_the_unit_gives_more_time_than_a_drain_takes() -> None:
    wanted = ServiceSettings().drain_timeout + LINGER_S
    assert seconds(unit()["TimeoutStopSec"]) > wanted
    assert unit()["Type"] == "notify"


def test_the_unit_starts_what_the_command_line_has() -> None:
    before, start = unit()["ExecStartPre"].split(), unit()["ExecStart"].split()
    assert (before[1], start[1]) == ("validate", "run")
    assert before[2:] == start[2:] == ["--config", "/etc/tracefwd/tracefwd.yaml"]
    name, _, folder = unit()["Environment"].partition("=")
    key = name.removeprefix("TRACEFWD_").lower().replace("__", ".")
    assert key in {row.key for row in option_rows()}
    assert folder.startswith(f"/var/lib/{unit()['StateDirectory']}/")


def test_systemd_has_no_complaint_about_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("NO SYSTEMD: the unit is not verified (Debian: systemd)")
    copy = tmp_path / UNIT.name
    # It looks for the program, which is not installed here.
    copy.write_text(UNIT.read_text().replace("/opt/tracefwd/.venv/bin/tracefwd", sys.executable))
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    told = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert not told, told
    assert done.returncode == 0, done.stderr


def test_the_composed_configuration_is_one_that_runs(tmp_path: Path) -> None:
    service = compose()["services"]["tracefwd"]
    mounted = dict(each.split(":")[:2] for each in service["volumes"])
    file = COMPOSE.parent / "tracefwd.yaml"
    loaded = config.load(file, {}, {}).settings
    assert mounted["./tracefwd.yaml"] in service["command"]
    assert loaded.spool.folder.startswith(mounted["spool"])
    published = {each.rpartition(":")[2] for each in service["ports"]}
    listened = {each.rpartition(":")[2] for each in (loaded.receiver.listen, loaded.admin.listen)}
    assert published == listened
    assert seconds(service["stop_grace_period"]) > ServiceSettings().drain_timeout + LINGER_S
    [target] = loaded.exporter.targets
    arguments = compose()["services"]["wavefront-proxy"]["environment"]["WAVEFRONT_PROXY_ARGS"]
    for url, option in ((target.traces, "trace"), (target.metrics, "push")):
        port = url.rpartition(":")[2]
        assert f"--{option}ListenerPorts {port}" in arguments
        assert "//wavefront-proxy:" in url


def test_what_the_composition_mounts_and_builds_is_there() -> None:
    parts = compose()
    assert (
        COMPOSE.parent / parts["services"]["tracefwd"]["build"]["context"] / "Dockerfile"
    ).is_file()
    for service in parts["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in parts["volumes"] or (COMPOSE.parent / source).is_file(), source


def test_the_image_keeps_the_rules_of_images() -> None:
    linter = Path(sys.executable).with_name("hadolint")
    if not linter.exists():
        pytest.skip("NO HADOLINT: the Dockerfile is not linted")
    done = subprocess.run(
        [linter, str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_the_image_runs_without_root_shell_or_compiler() -> None:
    *_, last = DOCKERFILE.split("FROM ")
    assert re.search(r"^USER \d+:\d+$", last, re.MULTILINE)
    assert "RUN " not in last
    assert "STOPSIGNAL SIGTERM" in last
    for line in re.findall(r"^(?:ENTRYPOINT|CMD|HEALTHCHECK.*?CMD) (.*)$", last, re.MULTILINE):
        assert line.startswith("["), f"{line} would want a shell"
    installs = [
        line for line in DOCKERFILE.replace("\\\n", "").splitlines() if "pip install" in line
    ]
    assert installs
    assert all("--require-hashes" in line and "--only-binary :all:" in line for line in installs)
    assert "--config" in FLAG_KEYS or DOCKERFILE.rstrip().endswith('CMD ["run"]')
