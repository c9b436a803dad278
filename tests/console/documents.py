"""The examples of the API's own document, as what a page is made of."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml

_FILE = Path(__file__).parents[2] / "tracefwd" / "console" / "openapi.yaml"


@cache
def _schemas() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(_FILE.read_text())["components"]["schemas"]
    return found


def example(name: str) -> dict[str, Any]:
    found: dict[str, Any] = _schemas()[name]["example"]
    return found
