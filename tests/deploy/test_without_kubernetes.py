"""The systemd unit, the Compose file and the image: what they say is what tracefwd takes; the tools do not complain."""

import configparser
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

import tracefwd
from tests.deploy.image import check as image_check
from tests.deploy.kube import schemas
from tracefwd.service import config
from tracefwd.service.config import option_rows
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
    said = re.search(r"service\.drain_timeout \((\d+s)\)", UNIT.read_text())
    assert said
    assert seconds(said[1]) == ServiceSettings().drain_timeout
    assert unit()["Type"] == "notify"


def test_the_unit_starts_what_the_command_line_has() -> None:
    assert unit()["ExecStart"].split()[1:] == ["run", "--config", "/etc/tracefwd/tracefwd.yaml"]
    name, _, folder = unit()["Environment"].partition("=")
    key = name.removeprefix("TRACEFWD_").lower().replace("__", ".")
    assert key in {row.key for row in option_rows()}
    assert folder.startswith(f"/var/lib/{unit()['StateDirectory']}/")


def test_a_configuration_that_cannot_be_used_is_not_tried_for_ever(tmp_path: Path) -> None:
    # RestartPreventExitStatus looks at the main process only.
    assert "ExecStartPre" not in unit()
    file = tmp_path / "tracefwd.yaml"
    file.write_text("receiver: {listne: 1}\n")
    command = [sys.executable, "-m", "tracefwd", "run", "--config", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, timeout=60)
    assert str(done.returncode) == unit()["RestartPreventExitStatus"]


@pytest.mark.parametrize("with_token", [False, True])
def test_systemd_has_no_complaint_about_the_unit(tmp_path: Path, with_token: bool) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("NO SYSTEMD: the unit is not verified (Debian: systemd)")
    copy = tmp_path / UNIT.name
    # It looks for the program, which is not installed here.
    text = UNIT.read_text().replace("/opt/tracefwd/.venv/bin/tracefwd", sys.executable)
    if with_token:
        # Where systemd puts it is where the comment says.
        assert f"token_file: /run/credentials/{UNIT.name}/token\n" in text
        text, changed = re.subn("^#(LoadCredential=token:/)", r"\1", text, flags=re.MULTILINE)
        assert changed == 1
    copy.write_text(text)
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    told = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert not told, told
    assert done.returncode == 0, done.stderr
    # Its own measure of what a broken service could do, in tenths: below 20 of 100 it is a guarded one.
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-200:] + done.stderr


def test_the_composed_configuration_is_one_that_runs() -> None:
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


def test_compose_takes_the_file_as_it_is_written() -> None:
    schema = json.loads(schemas.compose_file().read_text())
    judge = jsonschema.Draft202012Validator(schema)
    assert not [error.message for error in judge.iter_errors(compose())]
    misspelt = compose()
    misspelt["services"]["tracefwd"]["stop_grace"] = "60s"
    assert [*judge.iter_errors(misspelt)], "a judge that lets everything pass"


def test_what_the_composition_mounts_and_builds_is_there() -> None:
    parts = compose()
    own = parts["services"]["tracefwd"]
    assert (COMPOSE.parent / own["build"]["context"] / "Dockerfile").is_file()
    for service in parts["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in parts["volumes"] or (COMPOSE.parent / source).is_file(), source


def test_what_runs_has_a_version_and_publishes_only_the_intake() -> None:
    services = compose()["services"]
    assert services["tracefwd"]["image"] == f"tracefwd:{tracefwd.__version__}"
    for name, service in services.items():
        assert re.search(r":v?\d+(\.\d+)+$", service["image"]), f"{name}: what comes is chance"
        strangers = [each for each in service.get("ports", ()) if not each.startswith("127.0.0.1:")]
        assert strangers == (["9411:9411"] if name == "tracefwd" else [])


def test_the_token_is_in_a_file_that_git_ignores() -> None:
    parts = compose()["services"]["wavefront-proxy"]
    [file] = parts["env_file"]
    default = re.fullmatch(r"\$\{WAVEFRONT_TOKEN_FILE:-\./(\w+)\}", file)
    assert default
    assert f"/deploy/compose/{default[1]}" in (ROOT / ".gitignore").read_text().splitlines()
    assert "WAVEFRONT_TOKEN" not in parts["environment"], "it would be read from the shell, too"


def test_prometheus_watches_tracefwd_with_its_alerts(tmp_path: Path) -> None:
    mounts = [each.split(":") for each in compose()["services"]["prometheus"]["volumes"]]
    copies = [(tmp_path / Path(inside).name, COMPOSE.parent / here) for here, inside, _ in mounts]
    for copy, here in copies:
        shutil.copyfile(here, copy)
    found = yaml.safe_load((COMPOSE.parent / "prometheus.yaml").read_text())
    assert [(tmp_path / name).is_file() for name in found["rule_files"]] == [True]
    [job] = found["scrape_configs"]
    admin = config.load(COMPOSE.parent / "tracefwd.yaml", {}, {}).settings.admin.listen
    assert job["static_configs"] == [{"targets": [f"tracefwd:{admin.rpartition(':')[2]}"]}]
    if shutil.which("promtool") is None:
        pytest.skip("NO PROMTOOL: the composed Prometheus' configuration is not judged")
    command = ["promtool", "check", "config", str(tmp_path / "prometheus.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rules found" in done.stdout


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
    assert last.startswith("scratch\n")
    steps = re.split(r"&&|\n", DOCKERFILE.replace("\\\n", ""))
    installs = [step for step in steps if " install " in step and "pip" in step]
    assert installs
    assert all("--require-hashes" in step and "--only-binary :all:" in step for step in installs)
    assert DOCKERFILE.rstrip().endswith('CMD ["run"]')


def test_the_base_is_pinned_and_the_stand_in_is_of_its_kind() -> None:
    assert re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE) == ["${PYTHON}", "scratch"]
    version, release = image_check.pinned()
    stand_in = (image_check.HERE / "base.Dockerfile").read_text()
    assert "python${VERSION}" in stand_in
    assert "${RELEASE}" in stand_in
    assert f"Python {version}" in (ROOT / "deploy" / "README.md").read_text()
    assert release.isalpha()
    needed = re.search(r'requires-python = ">=([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    assert needed
    assert [*map(int, version.split("."))] >= [*map(int, needed[1].split("."))]


def test_the_image_says_whose_version_it_is() -> None:
    labels = dict(re.findall(r'org\.opencontainers\.image\.([\w.]+)="(.*?)"', DOCKERFILE))
    assert labels["version"] == tracefwd.__version__
    assert {"title", "description", "licenses", "revision", "base.name"} <= labels.keys()


def test_a_builder_gets_only_what_the_image_takes() -> None:
    rules = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert rules[0] == "*"
    taken = {line.removeprefix("!") for line in rules if line.startswith("!")}
    assert taken == set(re.findall(r"^COPY (?!--)(\S+) ", DOCKERFILE, re.MULTILINE))
    assert all((ROOT / each).exists() for each in taken)


def test_the_licence_goes_where_the_code_goes() -> None:
    text = (ROOT / "deploy" / "LICENSE").read_text()
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["license"] == "Apache-2.0"
    assert project["project"]["license-files"] == ["deploy/LICENSE"]
    sdist = project["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    assert {"deploy", "deploy/LICENSE"} & set(sdist)
    assert "/root.image/usr/share/doc/tracefwd/LICENSE" in DOCKERFILE
