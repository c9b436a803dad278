"""An audit that looked at nothing must not pass."""

import sys
from pathlib import Path

import pytest

from tests import audit

ROOT = Path(__file__).parents[1]
LOCK = """aiohttp==3.14.5 \\
    --hash=sha256:00
uvloop==0.22.1 ; sys_platform != 'win32' \\
    --hash=sha256:00
colorama==0.4.6 ; sys_platform == 'nowhere' \\
    --hash=sha256:00
Some_Thing==1
    # via nobody
"""
NAMES = {"aiohttp", "uvloop", "some-thing"}


def answer(name: str, *vulns: dict[str, object]) -> dict[str, object]:
    return {"name": name, "version": "1", "vulns": list(vulns)}


def test_a_lock_is_read_with_its_conditions() -> None:
    assert audit.locked(LOCK) == NAMES


@pytest.mark.parametrize("lock", ["deploy/requirements.lock", "tests/requirements.lock"])
def test_every_line_of_our_locks_is_read(lock: str) -> None:
    text = (ROOT / lock).read_text()
    lines = [line for line in text.splitlines() if line and line[0] not in " #-"]
    assert len(audit._LOCKED.findall(text)) == len(lines) > 10
    assert "aiohttp" in audit.locked(text) or "pytest" in audit.locked(text)


def test_all_answered_and_nothing_known_is_well() -> None:
    assert audit.judge(NAMES, {"dependencies": [answer(name) for name in NAMES]}) == []


def test_a_vulnerability_is_said_with_its_cure() -> None:
    known = {"id": "PYSEC-1", "fix_versions": ["2"]}
    report = {"dependencies": [answer("aiohttp", known), answer("uvloop"), answer("some-thing")]}
    assert audit.judge(NAMES, report) == ["aiohttp 1: PYSEC-1, mended by 2"]


@pytest.mark.parametrize(
    "report",
    [{}, {"dependencies": []}, {"dependencies": [{"name": n, "skip_reason": "?"} for n in NAMES]}],
)
def test_silence_is_no_answer(report: dict[str, object]) -> None:
    [fault] = audit.judge(NAMES, report)
    assert fault == "no answer about 3 packages: aiohttp, some-thing, uvloop"


def test_nothing_to_ask_about_is_a_fault() -> None:
    assert audit.judge(set(), {"dependencies": []})
    assert audit.main([]) == 1


def test_without_the_tool_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = tmp_path / "a.lock"
    lock.write_text(LOCK)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert audit.main([str(lock)]) == 1
    assert "no answer about 3 packages" in capsys.readouterr().out
