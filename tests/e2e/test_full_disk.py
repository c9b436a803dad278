"""A real file system of one MiB under the spool: it fills, the service goes on and says so, and it mends itself."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ENVOY
from tests.e2e.parts import Forwarder, forwarder, stand_in
from tests.e2e.processes import eventually, request
from tracefwd.ledger import imbalance

BODY = (ENVOY / "json-batch-5.json").read_bytes()
SPANS = 5


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    program = shutil.which("mount")
    command = [program or "mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    if program is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip(
            "NO SMALL DISK: this user may not mount a tmpfs, so disks are full by injection only"
        )
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def named(name: str) -> bytes:
    spans = json.loads(BODY)
    return json.dumps([span | {"name": name} for span in spans]).encode()


def is_degraded(part: Forwarder) -> bool:
    return part.metric("tracefwd_journal_degraded") > 0


def test_a_full_disk_costs_the_promise_alone_until_it_has_room(
    tmp_path: Path, small_disk: Path
) -> None:
    spool = {"folder": str(small_disk / "spool"), "after": "1s"}
    retry = {"backoff_base": "50ms", "backoff_max": "200ms"}
    with (
        stand_in(tmp_path) as wavefront,
        forwarder(
            tmp_path,
            wavefront.proxy,
            spool=spool,
            exporter={"retry": retry},
            red={"interval": "1s"},
        ) as part,
    ):
        request("POST", f"{wavefront.url}/faults", body=json.dumps({"status": 503}).encode())
        posts = 0
        while not is_degraded(part):
            assert posts < 2_000, "one MiB holds for ever"
            for _ in range(10):
                assert part.post(BODY) == 202
            posts += 10
        at_risk = posts + 10
        assert [part.post(BODY) for _ in range(10)] == [202] * 10
        assert imbalance(part.ledger()) == 0  # type: ignore[arg-type]

        remount = ["mount", "-o", "remount,size=64m", str(small_disk)]
        subprocess.run(remount, check=True)

        def mended() -> bool:
            nonlocal at_risk
            assert part.post(BODY) == 202
            at_risk += 1
            return not is_degraded(part)

        eventually(mended, "the journal is written again")
        # What comes now is as safe as ever.
        safe = {f"safe-{number}" for number in range(20)}
        assert [part.post(named(name)) for name in safe] == [202] * 20
        [pid] = (
            Path(f"/proc/{part.process.pid}/task/{part.process.pid}/children").read_text().split()
        )
        os.kill(int(pid), signal.SIGKILL)
        request("DELETE", f"{wavefront.url}/faults")
        eventually(lambda: safe <= {span["name"] for span in wavefront.spans()}, "they arrived")
        whole = part.delivered(20 * SPANS)
        assert sum(whole["dropped"].values()) <= at_risk * SPANS
        assert set(whole["dropped"]) <= {"crash"}
        levels = {entry["message"]: entry["level"] for entry in part.logs()}
        assert any("No space left" in text and level == "error" for text, level in levels.items())
        part.process.terminate()
        assert part.process.wait() == 0, part.process.output
    assert part.logs()[-1]["message"].startswith("ledger balanced: ")
