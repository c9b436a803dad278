"""The command line: names and flags are a contract; every refusal says what to do; bodies are reached lazily."""

import dataclasses
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tomllib
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tracefwd import __version__
from tracefwd.errors import StartError
from tracefwd.service import cli
from tracefwd.service.config import load
from tracefwd.service.console_commands import TEXTUAL
from tracefwd.settings import Settings, TargetSettings

PROXY = ["--proxy-traces", "http://p:30000", "--proxy-metrics", "http://p:2878"]
COMMANDS = [
    "run",
    "demo",
    "gen",
    "emulate",
    "convert",
    "explain",
    "rules",
    "diff",
    "metrics",
    "spool",
    "validate",
    "doctor",
    "print-config",
    "import-conf",
    "version",
    "top",
    "tap",
    "report",
]


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    for name in [name for name in os.environ if name.startswith("TRACEFWD_")]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def quiet_logs(monkeypatch):
    """The commands set up the process's logs; here the process is the tests'."""
    import tracefwd.service.logs as module

    monkeypatch.setattr(module, "setup", lambda *_: None)
    monkeypatch.setattr(module, "configure", lambda _: None)


@pytest.fixture
def body(monkeypatch):
    """Puts a recorder in the place of a command's body."""

    def replace(module_name: str, answer: Any = 0, **others: Any) -> list[tuple[Any, ...]]:
        calls: list[tuple[Any, ...]] = []

        def run(*arguments: Any) -> int:
            calls.append(arguments)
            if isinstance(answer, BaseException):
                raise answer
            return answer

        fake = types.ModuleType(module_name)
        fake.run = run
        for name, value in others.items():
            setattr(fake, name, value)
        monkeypatch.setitem(sys.modules, module_name, fake)
        parent, _, name = module_name.rpartition(".")
        __import__(parent)
        monkeypatch.setattr(sys.modules[parent], name, fake, raising=False)
        return calls

    return replace


# --- help and usage --------------------------------------------------------------------------


def test_the_commands_are_the_contract():
    assert list(cli.COMMANDS) == COMMANDS


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_has_a_purpose_of_one_line_and_an_example(name, capsys):
    assert cli.main([name, "--help"]) == 0
    out = capsys.readouterr().out
    purpose = cli.COMMANDS[name].purpose
    assert purpose in out
    assert "\n" not in purpose
    assert re.search(rf"examples?:\n  tracefwd {name} ", out)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_example_is_understood(name):
    for example in cli.COMMANDS[name].examples:
        words = example.partition(" <")[0].split()
        assert words[:2] == ["tracefwd", name]
        cli.command_parser(cli.COMMANDS[name]).parse_args(words[2:])


def test_the_top_help_names_all_commands_and_the_precedence(capsys):
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in COMMANDS)
    assert "TRACEFWD_SECTION__KEY" in out
    assert "example:\n  tracefwd demo" in out
    assert cli.main([]) == 2
    assert "example" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["rnu"], ["did you mean run?"]),
        (["zzz"], ["commands are run, demo"]),
        (["--listen", "a:1"], ["the command comes first"]),
        (["run", "--lisen", "a:1"], ["no flag --lisen", "did you mean --listen?"]),
        (["run", "--list", "a:1"], ["no flag --list"]),
        (["run", "hunter2"], ["1 argument too many", "needs its flag"]),
        (["run", "--token=hunter2"], ["no flag --token;", "did you mean --token-file?"]),
        (["run", "--token", "hunter2"], ["no flag --token;"]),
        (["run", "--listen"], ["--listen", "expected one argument"]),
        (["gen", "--rate", "5"], ["--to"]),
        (["gen", "--to", "http://h", "--rate", "hunter2"], ["--rate", "above zero"]),
        (["gen", "--to", "http://h", "--seconds", "inf"], ["--seconds", "above zero"]),
        (["gen", "--to", "http://h", "--connections", "0"], ["--connections", "whole number"]),
        (["convert"], ["FILE"]),
        (["explain", "a", "b", "c"], ["2 arguments too many"]),
        (["print-config", "--format", "toml"], ["yaml"]),
    ],
)
def test_a_usage_mistake_exits_2_and_says_what_to_do(argv, words, capsys):
    assert cli.main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert all(word in err for word in words)
    assert "--help' shows an example" in err
    assert "hunter2" not in err


def test_version(capsys):
    for argv in (["version"], ["--version"]):
        assert cli.main(argv) == 0
        assert capsys.readouterr().out.startswith(f"tracefwd {__version__} (")
    assert cli.main(["version", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["version"] == __version__


def test_version_and_help_load_nothing_heavy():
    heavy = ["yaml", "asyncio", "logging", "msgspec", "aiohttp", "re2", "uvloop", "json"]
    code = (
        "import sys; from tracefwd.service.cli import main; main(['version']); main(['run', '--help']);"
        f"print(sorted(set({heavy}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


# --- run -------------------------------------------------------------------------------------


def test_run_hands_the_configuration_over(body, tmp_path):
    calls = body("tracefwd.service.supervisor")
    file = tmp_path / "c.yaml"
    file.write_text("red: {interval: 5s}\nservice: {workers: 4}\n")
    argv = ["run", "--config", str(file), *PROXY, "--listen", "127.0.0.1:1", "--admin", "[::1]:2"]
    argv += ["--profile", "wavefront-proxy", "--exact", "--workers", "2"]
    assert cli.main(argv) == 0
    ((loaded, reread),) = calls
    assert reread().settings == loaded.settings
    settings = loaded.settings
    assert settings.receiver.listen == "127.0.0.1:1"
    assert settings.admin.listen == "[::1]:2"
    assert (settings.mapping.profile, settings.mapping.exact) == ("wavefront-proxy", True)
    assert (settings.service.workers, settings.red.interval) == (2, 5.0)
    assert settings.exporter.targets == [
        TargetSettings(traces="http://p:30000", metrics="http://p:2878")
    ]
    assert loaded.origins["service.workers"] == "flag --workers"


def test_run_takes_direct_ingestion_and_the_environment(body, tmp_path, monkeypatch):
    calls = body("tracefwd.service.supervisor", 1)
    token = tmp_path / "token"
    token.write_text("hunter2")
    monkeypatch.setenv("TRACEFWD_RED__INTERVAL", "7s")
    assert cli.main(["run", "--direct", "https://x.y", "--token-file", str(token)]) == 1
    settings = calls[0][0].settings
    assert settings.exporter.targets[0].kind == "direct"
    assert settings.red.interval == 7.0


def test_run_tells_all_mistakes_one_per_line_and_starts_nothing(body, capsys):
    calls = body("tracefwd.service.supervisor")
    assert cli.main(["run", "--listen", "9411", "--admin", "x", "--workers", "many"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" ")[1] for line in lines] == [
        "receiver.listen",
        "admin.listen",
        "service.workers",
        "exporter.targets:",
    ]
    assert all(line.startswith("tracefwd: ") for line in lines)
    assert not calls


def test_run_without_a_token_it_can_read_fails_before_it_starts(body, capsys):
    calls = body("tracefwd.service.supervisor")
    assert cli.main(["run", "--direct", "https://x.y", "--token-file", "/nowhere/token"]) == 1
    assert "'/nowhere/token': cannot be read (No such file or directory); check" in (
        capsys.readouterr().err
    )
    assert not calls


@pytest.mark.parametrize(
    ("error", "code"),
    [(StartError("port 1 is taken; choose another"), 1), (KeyboardInterrupt(), 1)],
)
def test_what_stops_a_command_is_an_exit_code(body, capsys, error, code):
    body("tracefwd.service.supervisor", error)
    assert cli.main(["run", *PROXY]) == code
    if isinstance(error, StartError):
        assert capsys.readouterr().err == "tracefwd: port 1 is taken; choose another\n"


# --- the other commands ----------------------------------------------------------------------


def test_demo(body):
    calls = body("tracefwd.service.demo")
    assert cli.main(["demo", "--seconds", "3", "--rate", "50"]) == 0
    assert cli.main(["demo"]) == 0
    assert cli.main(["demo", "--otlp"]) == 0
    assert calls == [(3.0, 50.0, False), (None, 500.0, False), (None, 500.0, True)]


def test_gen(body):
    @dataclasses.dataclass
    class GenOptions:
        to: str
        rate: float
        seconds: float
        connections: int
        seed: int
        json: bool
        protocol: str
        token: str
        tls: object

    calls = body("tracefwd.generator.load", GenOptions=GenOptions)
    argv = ["gen", "--to", "http://h:1", "--rate", "99.5", "--seconds", "2", "--connections", "3"]
    assert cli.main([*argv, "--seed", "-4", "--json"]) == 0
    ((options,),) = calls
    assert options == GenOptions("http://h:1", 99.5, 2.0, 3, -4, True, "zipkin-json", "", None)
    assert cli.main([*argv, "--protocol", "otlp-grpc"]) == 0
    assert calls[1][0].protocol == "otlp-grpc"
    assert cli.main([*argv, "--protocol", "thrift"]) == 2


def test_convert_and_explain(body):
    converted, explained = body("tracefwd.service.convert"), body("tracefwd.service.explain", 1)
    assert cli.main(["convert", "--profile", "wavefront-proxy", "--exact", "a", "-"]) == 0
    loaded, files = converted[0]
    assert (loaded.settings.mapping.exact, files) == (True, ["a", "-"])
    assert cli.main(["explain", "--json", "-"]) == 1
    loaded, file, as_json = explained[0]
    assert (loaded.settings, file, as_json) == (Settings(), "-", True)
    assert cli.main(["convert", "--profile", "x", "a"]) == 2


# --- validate and print-config ---------------------------------------------------------------


def test_validate_ticks_what_is_fine(tmp_path, capsys):
    file = tmp_path / "c.yaml"
    file.write_text("red: {interval: 5s}")
    assert cli.main(["validate", "--config", str(file), *PROXY]) == 0
    out = capsys.readouterr().out
    assert "✓ receiver\n" in out
    assert "✗" not in out
    assert out.endswith("valid\n")


def test_validate_puts_every_mistake_under_its_section(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TRACEFWD_A__B", "1")
    file = tmp_path / "c.yaml"
    file.write_text("red: {interval: 5}\nmapping: {profile: x, y: z}\nq: 1\n")
    assert cli.main(["validate", "--config", str(file), "--token-file", "t", "--json"]) == 2
    told = json.loads(capsys.readouterr().out)
    assert told["fine"] is False
    counts = {check["name"]: len(check["problems"]) for check in told["checks"]}
    assert {name: count for name, count in counts.items() if count} == {
        "mapping": 2,
        "red": 1,
        "environment": 1,
        "flags": 1,
        "sections": 1,
    }
    assert {"receiver", "exporter", "admin"} <= counts.keys()
    assert cli.main(["validate", "--config", str(file)]) == 2
    out = capsys.readouterr().out
    assert "✗ red\n    red.interval = '5'" in out
    assert "✓ receiver\n" in out
    assert out.endswith("6 problems\n")


def test_validate_of_a_broken_file_ticks_nothing(tmp_path, capsys):
    file = tmp_path / "c.yaml"
    file.write_text("red: [")
    assert cli.main(["validate", "--config", str(file)]) == 2
    assert "✓" not in capsys.readouterr().out


def test_validate_exits_1_for_a_file_that_it_names_and_2_without_a_target(capsys):
    assert cli.main(["validate", "--direct", "https://h", "--token-file", "/nowhere/t"]) == 1
    assert "✗ files" in capsys.readouterr().out
    assert cli.main(["validate"]) == 2
    assert "--proxy-traces" in capsys.readouterr().out


def test_validate_warns_of_ports_that_make_something_else_of_spans(tmp_path, capsys):
    flags = ["--proxy-traces", "http://p:30001", "--proxy-metrics", "http://p:30000"]
    assert cli.main(["validate", *flags]) == 0
    told = capsys.readouterr().out
    assert "    warning: exporter.targets[0]: traces go to 30001, " in told
    assert "    warning: exporter.targets[0]: metrics go to 30000, " in told
    assert told.endswith("valid, 2 warnings\n")
    token = tmp_path / "token"
    token.write_text("a-token")
    for url, words in (("https://h/api/", "valid, 1 warning\n"), ("https://h", "valid\n")):
        assert cli.main(["validate", "--direct", url, "--token-file", str(token)]) == 0
        assert capsys.readouterr().out.endswith(words)


def test_validate_warns_of_a_spool_that_is_no_folder(tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("")
    for folder, words in ((file, "is no folder"), (file / "spool", "cannot be a folder below")):
        assert cli.main(["validate", *PROXY, "--spool", str(folder)]) == 0
        told = capsys.readouterr().out
        assert f"    warning: spool.folder = '{folder}': {words}" in told
    for folder in (tmp_path, tmp_path / "later" / "spool", "later"):
        assert cli.main(["validate", *PROXY, "--spool", str(folder)]) == 0
        assert capsys.readouterr().out.endswith("valid\n")


def test_validate_refuses_the_files_that_run_refuses_and_both_say_which(tmp_path, capsys, body):
    body("tracefwd.service.supervisor")
    names = {"token_file": "t", "cert_file": "c", "key_file": "k", "client_ca_file": "a"}
    paths = {name: tmp_path / file for name, file in names.items()}
    tls = ", ".join(f"{name}: {paths[name]}" for name in ("cert_file", "key_file"))
    tls += f", client_ca_file: {paths['client_ca_file']}"
    file = tmp_path / "tracefwd.yaml"
    file.write_text(f"admin: {{token_file: {paths['token_file']}, tls: {{{tls}}}}}")
    assert cli.main(["validate", "--config", str(file), *PROXY]) == 1
    told = capsys.readouterr().out
    assert cli.main(["run", "--config", str(file), *PROXY]) == 1
    refused = capsys.readouterr().err
    for name, path in paths.items():
        for text in (told, refused):
            assert f"{name} = '{path}': cannot be read" in text


def test_print_config_takes_runs_flags_masks_and_loads_again(tmp_path, capsys):
    argv = ["print-config", "--proxy-traces", "http://u:hunter2@p:1", *PROXY[2:], "--workers", "2"]
    assert cli.main([*argv, "--origins"]) == 0
    out = capsys.readouterr().out
    assert "hunter2" not in out
    assert "workers: 2  # flag --workers\n" in out
    assert cli.main(["print-config", *PROXY, "--workers", "2"]) == 0
    file = tmp_path / "printed.yaml"
    file.write_text(capsys.readouterr().out)
    expected = load(None, {}, dict(zip(PROXY[::2], PROXY[1::2], strict=True)) | {"--workers": "2"})
    assert load(file, {}, {}).settings == expected.settings
    assert cli.main(["print-config", "--format", "json", "--origins"]) == 0
    tree = json.loads(capsys.readouterr().out)
    assert tree["service"]["workers"] == {"value": 1, "origin": "default"}


def test_a_reader_that_leaves_is_no_traceback():
    code = "import sys; from tracefwd.service.cli import main; sys.exit(main(['print-config']))"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        error = process.stderr.read()
    assert (process.returncode, error) == (1, b"")


@pytest.mark.parametrize("command", ["print-config", "version"])
def test_a_full_disk_under_the_output_is_told_in_a_sentence(command):
    with Path("/dev/full").open("wb") as full:
        told = subprocess.run(
            [sys.executable, "-m", "tracefwd", command],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert told.returncode == 1
    assert told.stderr.startswith("tracefwd: No space left on device: ")
    assert len(told.stderr.splitlines()) == 1


def test_a_command_whose_caller_closed_its_output_does_its_work_all_the_same():
    command = [shlex.quote(sys.executable), "-m", "tracefwd", "version", ">&-"]
    told = subprocess.run(["/bin/sh", "-c", " ".join(command)], stderr=subprocess.PIPE, check=False)
    assert (told.returncode, told.stderr) == (0, b"")


# --- emulate ---------------------------------------------------------------------------------


@pytest.fixture
def emulate() -> Callable[..., subprocess.Popen[str]]:
    def start(*argv: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "tracefwd", "emulate", *argv],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def test_run_obeys_before_it_has_read_its_configuration(tmp_path):
    """No default of the kernel's: one kills, and none reaches a container's first process."""
    file = tmp_path / "tracefwd.yaml"
    os.mkfifo(file)
    command = [sys.executable, "-m", "tracefwd", "run", "--config", str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        # Opens as soon as it is being read, and keeps the reader waiting.
        with file.open("w"):
            process.send_signal(signal.SIGHUP)
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        assert process.stdout.read() == b""


def test_emulate_says_where_it_listens_and_ends_with_its_totals(emulate):
    with emulate("--listen", "127.0.0.1:0", "--trace-listen", "127.0.0.1:0") as process:
        first, second = process.stdout.readline(), process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=20)
    assert re.match(r"listening on http://127\.0\.0\.1:[1-9]\d* for metrics", first)
    assert re.match(r"listening on http://127\.0\.0\.1:[1-9]\d* for spans", second)
    totals = dict(line.split(": ", 1) for line in out.splitlines())
    assert json.loads(totals["spans"])["accepted"] == 0
    assert (process.returncode, err) == (0, "")


def test_emulate_on_a_taken_port_says_what_to_do():
    from tracefwd.service import emulate

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        options = emulate.EmulateOptions(
            listen=f"127.0.0.1:{port}",
            trace_listen=None,
            record=None,
            version="current",
            token_file=None,
        )
        with pytest.raises(StartError, match=rf"{port}.*stop the program that has the port"):
            emulate.run(options)


def test_emulate_refuses_options_and_unreadable_files(tmp_path, capsys):
    assert cli.main(["emulate", "--listen", "1", "--trace-listen", "x", "--version", "old"]) == 2
    assert [line.split(":")[1] for line in capsys.readouterr().err.splitlines()] == [
        " --listen",
        " --trace-listen",
        " --version",
    ]
    assert cli.main(["emulate", "--token-file", str(tmp_path / "none")]) == 1
    assert "--token-file cannot be read" in capsys.readouterr().err
    empty = tmp_path / "empty"
    empty.write_text("")
    assert cli.main(["emulate", "--token-file", str(empty)]) == 1
    assert "is empty" in capsys.readouterr().err
    record = ["--listen", "127.0.0.1:0", "--record", str(tmp_path / "no" / "file")]
    assert cli.main(["emulate", *record]) == 1
    assert "--record cannot be written" in capsys.readouterr().err


def test_top_says_which_command_installs_what_it_needs():
    code = "import sys; sys.modules['textual'] = None; from tracefwd.service import cli; sys.exit(cli.main(['top']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.endswith(f"run {sys.executable} -m pip install '{TEXTUAL}'\n")


def test_what_top_needs_is_the_same_everywhere():
    root = Path(__file__).parents[2]
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert project["optional-dependencies"]["top"] == [TEXTUAL]
    assert f".venv/bin/pip install '{TEXTUAL}'" in (root / "README.md").read_text()


def test_the_module_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "tracefwd", "version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("tracefwd ")
    assert Path(cli.__file__).exists()
