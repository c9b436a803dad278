"""The soak in a minute, with a spool and an exchange of workers, and that it would notice what it is there for."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.e2e.processes import ROOT, plain_environment
from tests.soak.soak import Row, conclude, judge
from tracefwd.generator.report import Report

STEADY = Row(0.0, 1_500.0, 1.2, 4.0, 28.0, 64.0, 84, 500, 0)
ROWS = [replace(STEADY, at_s=float(at)) for at in range(40)]
LOG = [{"level": "info", "message": "ledger balanced: received 5 = delivered 5"}]


def test_a_minute_is_flat_and_loses_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "tests/soak/soak.py", "--seconds", "60", "--rate", "1000"]
    command += ["--reload-every", "35", "--", "--spool", str(tmp_path / "spool")]
    done = subprocess.run(
        command, cwd=ROOT, env=plain_environment(), capture_output=True, text=True, timeout=150
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "acknowledged 60,000, arrived at the sink 60,000" in done.stdout
    assert "ledger balanced: received 60000 = delivered 60000" in done.stdout
    assert done.stdout.count(": flat") == 5
    assert done.stderr == ""


def test_what_is_steady_is_flat_whatever_one_moment_was_like() -> None:
    rows = [*ROWS]
    rows[-2] = replace(STEADY, p50_ms=900.0, p99_ms=5_000.0, pss_workers_mib=200.0)
    assert all(judged.is_flat for judged in judge(rows))


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("pss_parent_mib", 0.3),
        ("pss_workers_mib", 0.4),
        ("p50_ms", 0.4),
        ("p99_ms", 2.0),
        ("files", 5),
    ],
)
def test_a_slow_growth_is_noticed(name: str, step: float) -> None:
    rows = [replace(row, **{name: getattr(row, name) + row.at_s * step}) for row in ROWS]
    assert [judged.name for judged in judge(rows) if not judged.is_flat] == [name]


def test_a_machine_that_grows_busy_is_not_the_services_fault() -> None:
    slow = [replace(row, p99_ms=row.p99_ms + 2.5 * row.at_s) for row in ROWS]
    busy = [replace(row, noise_ms=row.at_s) for row in slow]
    assert not all(judged.is_flat for judged in judge(slow))
    assert all(judged.is_flat for judged in judge(busy))


def test_warming_up_is_no_growth() -> None:
    rows = [replace(row, pss_workers_mib=min(64.0, 20 + 5 * row.at_s)) for row in ROWS]
    assert all(judged.is_flat for judged in judge(rows))


@pytest.mark.parametrize(
    ("acked", "arrived", "code", "level"),
    [
        (4, 4, 0, "info"),
        (5, 4, 0, "info"),
        (5, 6, 0, "info"),
        (5, 5, 1, "info"),
        (5, 5, 0, "error"),
    ],
)
def test_any_loss_fails_it(acked: int, arrived: int, code: int, level: str) -> None:
    report = Report(scheduled=5, sent=5, acked=acked)
    log = [{**LOG[0], "level": level}]
    assert conclude(report, ROWS, arrived, code, log, lambda _: None) == 1
    assert conclude(Report(scheduled=5, acked=5), ROWS, 5, 0, LOG, lambda _: None) == 0
