"""README and deploy's pages stay true: tables are the code's, commands exist, snippets parse, links lead somewhere."""

import re
import shlex
import textwrap
from pathlib import Path

import pytest
import yaml

from tests.docs import README, ROOT, render
from tracefwd.metrics import CATALOGUE
from tracefwd.service import cli, config

TEXT = README.read_text()
PAGES = [README, ROOT / "ARCHITECTURE.md", *sorted((ROOT / "deploy").rglob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
each_page = pytest.mark.parametrize("page", PAGES, ids=NAMES)


def blocks(page: Path, kind: str) -> list[str]:
    found = re.findall(rf"^ *```{kind}\n(.*?)^ *```", page.read_text(), re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(block) for block in found]


def commands(page: Path) -> list[str]:
    """Every tracefwd command of the page: in text and shell blocks (in a container, with variables before it, too)."""
    shell = "\n".join(blocks(page, "sh")).replace("\\\n", " ")
    inline = re.findall(r"`tracefwd ([^`\n]+)`", page.read_text())
    before = r"^(?:[A-Z_]+=\S+ +|kubectl .* -- |\.venv/bin/)*"
    return re.findall(rf"{before}tracefwd (.+?)(?:\s+#.*)?$", shell, re.MULTILINE) + inline


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_tables_are_what_the_code_says() -> None:
    assert render(TEXT) == TEXT, "run: make docs"


@each_page
def test_every_command_parses(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in commands(page):
        words = shlex.split(command.split("|")[0].split(">")[0])
        assert cli.main([words[0], "--help"]) == 0, command
        help_text = capsys.readouterr().out
        for word in words[1:]:
            if word.startswith("--"):
                assert word.split("=")[0] in help_text, f"{command}: {word}"


def test_commands_are_found_where_they_are() -> None:
    assert len(commands(README)) >= 20
    assert {command.split()[0] for command in commands(README)} >= {"run", "diff", "spool"}
    in_a_pod = commands(ROOT / "deploy" / "kubernetes" / "README.md")
    assert "spool ls --spool /var/spool/tracefwd" in in_a_pod


@each_page
def test_configuration_examples_load(page: Path, tmp_path: Path) -> None:
    for block in blocks(page, "yaml"):
        if block.startswith("# tracefwd.yaml"):
            file = tmp_path / "tracefwd.yaml"
            file.write_text(block)
            assert config.load(file, {}, {}).settings.exporter.targets


@each_page
def test_every_yaml_block_parses(page: Path) -> None:
    for block in blocks(page, "yaml"):
        assert list(yaml.safe_load_all(block))


def test_every_metric_is_counted_somewhere() -> None:
    sources = "".join(
        path.read_text() for path in (ROOT / "tracefwd").rglob("*.py") if path.name != "metrics.py"
    )
    for metric in CATALOGUE:
        # Some rooms put their families together from a prefix and the rest.
        rest = re.sub(r"^tracefwd_(exporter|spool)_", "", metric.name)
        assert metric.name in sources or f"{{prefix}}{rest}" in sources, metric.name


@each_page
def test_links_inside_the_repository_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", page.read_text()):
        there = page.parent / target if target else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), f"{target}#{anchor}"


def test_each_of_deploy_s_pages_is_linked_from_the_readme_or_deploy_s() -> None:
    linked = {
        (page.parent / target).resolve()
        for page in (README, ROOT / "deploy" / "README.md")
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    }
    assert set(PAGES[2:]) - {ROOT / "deploy" / "README.md"} <= linked
