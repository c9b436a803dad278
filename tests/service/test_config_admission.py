"""What guards the intake is checked before anything starts: networks, ports, memory, files that are not there."""

from pathlib import Path
from typing import Any

import pytest

from tracefwd.errors import ConfigError
from tracefwd.service import config
from tracefwd.service.file_checks import check_files


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


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("127.0.0.1:9500", "127.0.0.1:9500"),
        ("0.0.0.0:9500", "127.0.0.1:9500"),
        ("127.0.0.1:9500", "0.0.0.0:9500"),
        ("[::]:9500", "127.0.0.1:9500"),
        ("[::1]:9500", "[::]:9500"),
        ("0.0.0.0:9500", "spans.example:9500"),
        ("Spans.example:9500", "spans.example:9500"),
        ("[::1]:9500", "[0:0::1]:9500"),
    ],
)
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("receiver.listen", "admin.listen"),
        ("admin.listen", "receiver.trace_listen"),
        ("receiver.trace_listen", "receiver.otlp.http.listen"),
        ("receiver.otlp.http.listen", "receiver.otlp.grpc.listen"),
    ],
)
def test_no_two_listeners_have_one_port(first: str, second: str, one: str, other: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load(None, {}, {one: first, other: second})
    [problem] = caught.value.problems
    assert problem.startswith(f"{other} = '{second}' (flag --{other}): ")
    assert f"{one} ({first})" in problem
    assert "give each a port of its own" in problem


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("127.0.0.1:0", "127.0.0.1:0"),
        ("0.0.0.0:0", "127.0.0.1:0"),
        ("127.0.0.1:9500", "127.0.0.2:9500"),
        ("0.0.0.0:9500", "0.0.0.0:9501"),
        ("0.0.0.0:9500", "[::1]:9500"),
    ],
)
def test_listeners_may_share_all_but_a_port(first: str, second: str) -> None:
    assert config.load(None, {}, {"--listen": first, "--admin": second})


def test_ports_that_are_not_opened_clash_with_nothing() -> None:
    flags = {"--only": "metrics", "--listen": "0.0.0.0:9412"}
    assert config.load(None, {}, flags).settings.admin.listen == "127.0.0.1:9412"


def test_of_three_listeners_at_one_port_two_are_told() -> None:
    flags = dict.fromkeys(("--listen", "--admin", "--trace-listen"), "127.0.0.1:9500")
    with pytest.raises(ConfigError) as caught:
        config.load(None, {}, flags)
    assert [problem.split(" ")[0] for problem in caught.value.problems] == [
        "admin.listen",
        "receiver.trace_listen",
    ]


SOURCE = "prometheus_sources: [{url: 'http://p:9090/federate'}]"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("service: {memory_max: 1MiB}", ["1 worker and the parent", "at least 143MiB"]),
        ("service: {memory_max: 142MiB}", ["'142MiB'", "at least 143MiB"]),
        ("service: {memory_max: 300MiB, workers: 4}", ["4 workers", "at least 409MiB"]),
        (f"service: {{memory_max: 200MiB}}\n{SOURCE}", ["the scraper", "at least 285MiB"]),
    ],
)
def test_less_memory_than_the_processes_have_is_refused(
    tmp_path: Path, given: str, words: list[str]
) -> None:
    [problem] = problems(tmp_path, given)
    assert problem.startswith("service.memory_max = ")
    for word in words:
        assert word in problem


@pytest.mark.parametrize(
    "given",
    [
        "service: {memory_max: 143MiB}",
        "service: {memory_max: 409MiB, workers: 4}",
        f"service: {{memory_max: 285MiB}}\n{SOURCE}",
        # Another replica scrapes; here nobody asks for memory.
        f"service: {{memory_max: 143MiB, only: spans}}\n{SOURCE}",
        f"service: {{memory_max: 64MiB, only: metrics}}\n{SOURCE}",
    ],
)
def test_memory_for_all_processes_is_enough(tmp_path: Path, given: str) -> None:
    file = tmp_path / "tracefwd.yaml"
    file.write_text(given)
    assert config.load(file, {}, {})


@pytest.mark.parametrize("port", ["receiver", "admin"])
def test_files_that_are_not_there_are_all_named(tmp_path: Path, port: str) -> None:
    file = tmp_path / "tracefwd.yaml"
    names = ("token_file", "cert_file", "key_file", "client_ca_file")
    paths: dict[str, Any] = {name: tmp_path / f"no-{name}" for name in names}
    tls = ", ".join(f"{name}: {paths[name]}" for name in names[1:])
    file.write_text(f"{port}: {{token_file: {paths['token_file']}, tls: {{{tls}}}}}")
    found = check_files(config.load(file, {}, {}).settings)
    assert len(found) == 4
    for name in names:
        assert any(
            problem.startswith(port) and f"{name} = '{paths[name]}'" in problem for problem in found
        )
