"""The README stays true: its tables are the code's, its commands exist, its snippets parse."""

import re
import shlex
import textwrap

import pytest
import yaml

from tests.docs import README, ROOT, render
from tracefwd.metrics import CATALOGUE
from tracefwd.service import cli, config

TEXT = README.read_text()


def test_the_tables_are_what_the_code_says() -> None:
    assert render(TEXT) == TEXT, "run: make docs"


def test_every_command_of_the_readme_parses(capsys: pytest.CaptureFixture[str]) -> None:
    commands = re.findall(r"^(?:\.venv/bin/)?tracefwd (.+?)(?:\s+#.*)?$", TEXT, re.MULTILINE)
    assert len(commands) >= 8
    for command in commands:
        words = shlex.split(command.split("|")[0].split(">")[0])
        assert cli.main([words[0], "--help"]) == 0, command
        help_text = capsys.readouterr().out
        for word in words[1:]:
            if word.startswith("--"):
                assert word.split("=")[0] in help_text, f"{command}: {word}"


def test_the_configuration_example_loads(tmp_path: pytest.TempPathFactory) -> None:
    blocks = re.findall(r"```yaml\n# tracefwd\.yaml\n(.*?)```", TEXT, re.DOTALL)
    assert blocks
    for block in blocks:
        file = tmp_path / "tracefwd.yaml"  # type: ignore[operator]
        file.write_text(block)
        loaded = config.load(file, {}, {})
        assert loaded.settings.exporter.targets


def test_every_yaml_block_parses() -> None:
    for block in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL):
        assert list(yaml.safe_load_all(textwrap.dedent(block)))


def test_every_metric_is_counted_somewhere() -> None:
    sources = "".join(
        path.read_text() for path in (ROOT / "tracefwd").rglob("*.py") if path.name != "metrics.py"
    )
    for metric in CATALOGUE:
        # Some rooms put their families together from a prefix and the rest.
        rest = re.sub(r"^tracefwd_(exporter|spool)_", "", metric.name)
        assert metric.name in sources or f"{{prefix}}{rest}" in sources, metric.name


def test_links_inside_the_repository_lead_somewhere() -> None:
    for page in (README, ROOT / "ARCHITECTURE.md"):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (ROOT / target).exists(), f"{page.name}: {target}"
