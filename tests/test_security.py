"""SECURITY.md stays true: its configuration loads, and what it names exists."""

import re
from pathlib import Path

from tests.docs import ROOT
from tracefwd.limits import (
    JSON_DEPTH_MAX,
    MEMBERS_PER_BODY_MAX,
    REJECT_SAMPLES_MAX,
    SPANS_PER_BODY_MAX,
)
from tracefwd.metrics import BY_NAME
from tracefwd.receiver.http_connection import _BITE_BYTES
from tracefwd.service import config
from tracefwd.settings import ReceiverSettings

TEXT = (ROOT / "SECURITY.md").read_text()
OPTIONS = {row.key for row in config.option_rows()}


def test_its_configuration_loads(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        file = tmp_path / "tracefwd.yaml"
        file.write_text(block)
        loaded = config.load(file, {}, {})
        assert loaded.settings.receiver != ReceiverSettings()


def test_every_option_it_names_exists() -> None:
    sections = "receiver|service|sampling|mapping|red|admin|exporter"
    named = set(re.findall(rf"`((?:{sections})\.[a-z_.]+)[`:]", TEXT))
    assert len(named) >= 9
    assert named <= OPTIONS
    # In the table the section is left out.
    bare = {word for word in re.findall(r"`([a-z]+_[a-z_]+)`", TEXT) if "tracefwd_" not in word}
    keys = {key.rpartition(".")[2] for key in OPTIONS}
    assert len(bare) >= 8
    assert bare <= keys


def test_every_metric_and_reason_it_names_exists() -> None:
    named = set(re.findall(r"`(tracefwd_[a-z_]+)", TEXT))
    assert named
    assert named <= BY_NAME.keys()
    closed = BY_NAME["tracefwd_receiver_connections_closed_total"].meaning
    for reason in ("not_allowed", "per_address", "handshake", "no_token"):
        assert reason in TEXT
        assert reason in closed


def test_its_numbers_are_the_codes() -> None:
    for number in (f"{SPANS_PER_BODY_MAX:,} spans", f"{MEMBERS_PER_BODY_MAX:,} members"):
        assert number in TEXT
    assert f"{JSON_DEPTH_MAX} levels" in TEXT
    assert f"last {REJECT_SAMPLES_MAX} rejected" in TEXT
    assert f"{_BITE_BYTES >> 10} KiB a turn" in TEXT


def test_the_files_it_points_to_are_there() -> None:
    for path in re.findall(r"`((?:tests|deploy)/[\w./]+)`", TEXT):
        assert (ROOT / path).exists(), path
