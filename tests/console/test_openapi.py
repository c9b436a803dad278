"""The document of the admin API is valid, and so is every example in it."""

from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

DOCUMENT = yaml.safe_load(
    (Path(__file__).parents[2] / "tracefwd" / "console" / "openapi.yaml").read_text()
)


def examples(node: Any) -> list[tuple[dict[str, Any], Any]]:
    """Every example with the schema that it is one of."""
    found: list[tuple[dict[str, Any], Any]] = []
    if isinstance(node, dict):
        if "example" in node and {"schema", "type", "oneOf"} & set(node):
            own = {key: value for key, value in node.items() if key != "example"}
            found.append((node.get("schema", own), node["example"]))
        for value in node.values():
            found += examples(value)
    elif isinstance(node, list):
        for value in node:
            found += examples(value)
    return found


def test_the_document_is_valid() -> None:
    validate(DOCUMENT)


def test_every_example_is_one_of_its_schema() -> None:
    found = examples(DOCUMENT)
    assert len(found) >= 15
    for schema, example in found:
        Draft202012Validator({**DOCUMENT, **schema}).validate(example)
