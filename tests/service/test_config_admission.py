"""What guards the intake is checked before anything starts: networks, pairs of files, files that are not there."""

from pathlib import Path
from typing import Any

import pytest

from tracefwd.errors import ConfigError
from tracefwd.service import config
from tracefwd.service.config_checks import check_files


def problems(tmp_path: Path, text: str) -> list[str]:
    file = tmp_path / "tracefwd.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        config.load(file, {}, {})
    return caught.value.problems


@pytest.mark.parametrize("network", ["10.0.0.1/8", "everybody", "10.0.0.0/33", "::1/200", ""])
def test_a_network_is_written_with_its_host_bits_zero(tmp_path: Path, network: str) -> None:
    [problem] = problems(tmp_path, f'receiver: {{allowed_networks: ["{network}"]}}')
    assert "receiver.allowed_networks[0]" in problem
    assert "10.0.0.0/8" in problem


@pytest.mark.parametrize("tls", ["cert_file: a", "key_file: a", "client_ca_file: a"])
def test_halves_of_tls_are_refused(tmp_path: Path, tls: str) -> None:
    [problem] = problems(tmp_path, f"receiver: {{tls: {{{tls}}}}}")
    assert "receiver.tls" in problem
    assert "cert_file and key_file" in problem


def test_limits_may_be_off_but_not_negative(tmp_path: Path) -> None:
    file = tmp_path / "tracefwd.yaml"
    file.write_text("receiver: {connections_per_address_max: 0}\nservice: {memory_max: 0}")
    assert config.load(file, {}, {}).settings.service.memory_max == 0
    file.write_text("service: {memory_max: 512MiB}")
    assert config.load(file, {}, {}).settings.service.memory_max == 512 * 2**20
    [problem] = problems(tmp_path, "receiver: {connections_per_address_max: -1}")
    assert "connections_per_address_max" in problem


def test_files_that_are_not_there_are_all_named(tmp_path: Path) -> None:
    file = tmp_path / "tracefwd.yaml"
    names = ("token_file", "cert_file", "key_file", "client_ca_file")
    paths: dict[str, Any] = {name: tmp_path / f"no-{name}" for name in names}
    tls = ", ".join(f"{name}: {paths[name]}" for name in names[1:])
    file.write_text(f"receiver: {{token_file: {paths['token_file']}, tls: {{{tls}}}}}")
    found = check_files(config.load(file, {}, {}).settings)
    assert len(found) == 4
    for name in names:
        assert any(name in problem for problem in found)
