"""Rules follow their file; a bad file keeps the rules that hold."""

import json
import logging
from pathlib import Path

import pytest

from tests.conftest import ENVOY
from tracefwd.compose import load_line_rules, make_parts
from tracefwd.errors import ConfigError
from tracefwd.service import cli
from tracefwd.service.config import load
from tracefwd.service.rules_watch import RulesWatch
from tracefwd.settings import ReceiverSettings, RulesSettings, Settings

BODY = ENVOY / "json-batch-5.json"
BLOCK = "'9411':\n  - {rule: one, action: spanBlock, scope: component, match: proxy}\n"


def spans_left(settings: Settings, watch_file: Path, text: str) -> tuple[int, int]:
    """Spans that pass before and after the file says ``text``."""
    parts = make_parts(settings)
    watch = RulesWatch(settings, parts.ruled)
    decoded = parts.decode(BODY.read_bytes(), "")
    before = len(parts.mapper(decoded, 1_795_400_000_000_000).spans)
    watch_file.write_text(text)
    watch.check()
    return before, len(parts.mapper(decoded, 1_795_400_000_000_000).spans)


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(BLOCK)
    settings = Settings(rules=RulesSettings(file=str(file)))
    assert spans_left(settings, file, BLOCK.replace("proxy", "no-such")) == (0, 5)


def test_a_bad_file_keeps_the_old_rules_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(BLOCK)
    settings = Settings(rules=RulesSettings(file=str(file)))
    with caplog.at_level(logging.ERROR):
        assert spans_left(settings, file, "'9411':\n  - {rule: one, action: spanNope}\n") == (0, 0)
    assert "spanNope" in caplog.text
    assert "one" in caplog.text


def test_rules_that_cannot_be_honoured_stop_the_start(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text("'9411':\n  - {rule: evil, action: spanBlock, scope: x, match: '(a)\\1'}\n")
    flags = {
        "--proxy-traces": "http://h:1",
        "--proxy-metrics": "http://h:2",
        "rules.file": str(file),
    }
    with pytest.raises(ConfigError) as caught:
        load(None, {}, flags, runnable=True)
    (problem,) = caught.value.problems
    assert f"{file}:2" in problem
    assert "evil" in problem


def test_a_missing_file_is_told_by_its_name(tmp_path: Path) -> None:
    settings = Settings(rules=RulesSettings(file=str(tmp_path / "none.yaml")))
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        make_parts(settings)


def test_the_command_shows_each_rule_and_its_change(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(
        "'9411':\n  - {rule: up, action: spanRenameTag, key: http.method, newkey: method}\n"
    )
    assert cli.main(["rules", "test", "--rules", str(file), "--json", str(BODY)]) == 0
    reports = json.loads(capsys.readouterr().out)
    assert len(reports) == 5
    (step,) = reports[0]["rules"]
    assert (step["rule"], step["line"]) == ("up", 2)
    assert ["method", "GET"] in reports[0]["after"]["tags"]
    assert ["http.method", "GET"] in reports[0]["before"]["tags"]
    cut = tmp_path / "cut.json"
    cut.write_bytes(BODY.read_bytes()[:3_000])
    assert cli.main(["rules", "test", "--rules", str(file), str(cut)]) == 0
    out, err = capsys.readouterr()
    assert "    http.method: 'GET' -> absent\n    method: absent -> 'GET'\n" in out
    assert "cut.json: rejected (syntax): byte" in err


SECRET = "- {rule: quiet, action: block, scope: pointLine, match: '.*secret.*'}\n"


@pytest.mark.parametrize(
    ("text", "trace_port", "rules"),
    [
        ("'9411': []\n'30000':\n" + SECRET, "", 1),
        ("'9411':\n" + SECRET + "'30000': []\n", "", 0),
        # A file that does not know the port: as for Zipkin spans.
        ("'9411':\n" + SECRET, "", 1),
        ("'9411':\n" + SECRET, "30001", 0),
        ("'30001':\n" + SECRET + "'30000': []\n", "30001", 1),
    ],
)
def test_span_lines_have_the_rules_of_their_own_port(
    tmp_path: Path, text: str, trace_port: str, rules: int
) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(text)
    settings = Settings(
        receiver=ReceiverSettings(trace_listen="0.0.0.0:30000"),
        rules=RulesSettings(file=str(file), trace_port=trace_port),
    )
    found = load_line_rules(settings)
    assert found is not None
    assert len(found.lines) == rules
