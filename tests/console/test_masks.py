"""What is hidden stays hidden, in every form in which a span is shown."""

import json

import pytest

from tracefwd.console.masks import Masks, text
from tracefwd.settings import AdminSettings

SECRET = "s3cret-value"
MASKS = Masks(AdminSettings().masked_tags)


@pytest.mark.parametrize(
    "key",
    [
        "authorization",
        "http.request.header.Authorization",
        "Set-Cookie",
        "x-api-key",
        "db.PASSWORD",
    ],
)
def test_values_of_these_tags_are_hidden(key: str) -> None:
    assert MASKS.tags({key: SECRET, "other": "x"}) == {key: "***", "other": "x"}
    assert SECRET not in MASKS.line(f'"op" source="s" "{key}"="{SECRET}" 1 2')
    assert SECRET not in MASKS.received(json.dumps({"tags": {key: SECRET}}))
    version_1 = {"binaryAnnotations": [{"key": key, "value": SECRET}]}
    assert SECRET not in MASKS.received(json.dumps(version_1))
    assert SECRET not in " ".join(MASKS.field(f"tags.{key}", SECRET, f"now '{SECRET}': cut"))


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (f"http://x/y?token={SECRET}&b=1#f", "http://x/y?token=***&b=***#f"),
        (f"https://user:{SECRET}@x/y", "https://***@x/y"),
        (f"Bearer {SECRET}", "Bearer ***"),
        ("GET /a/b", "GET /a/b"),
        ("what? yes", "what? yes"),
    ],
)
def test_secrets_of_urls_and_headers_are_hidden(value: str, shown: str) -> None:
    assert text(value) == shown
    assert text(text(value)) == shown


def test_a_line_keeps_its_form() -> None:
    line = '"a \\" b" source="s" spanId="1" "k"="v \\" w" "cookie"="x \\" y" 1 2'
    assert MASKS.line(line) == line.replace('"x \\" y"', '"***"')


def test_what_is_no_json_shows_no_value() -> None:
    assert SECRET not in MASKS.received(f'{{"a": "{SECRET}", ')
    assert SECRET not in MASKS.received(SECRET)


def test_surrogates_and_depth_are_borne() -> None:
    assert MASKS.received('{"name":"\\ud800"}').encode()
    assert MASKS.received("[" * 100_000)


def test_an_operator_may_mask_nothing() -> None:
    assert Masks([]).tags({"password": "x"}) == {"password": "x"}
