"""Templates: fallback chains over tags and fields."""

import pytest

from tests.conftest import sidecar_span
from tracefwd.model import Endpoint
from tracefwd.processor.templates import Chain, Context, problem


def resolve(*templates: str, **changes: object) -> str | None:
    span = sidecar_span(**changes)
    return Chain(templates).resolve(Context(span.tags or {}, span))


def test_the_first_template_whose_parts_are_all_there_wins() -> None:
    assert (
        resolve("{no.such}", "{istio.namespace}-{no.such}", "{istio.namespace}/x", "last")
        == "bookinfo/x"
    )
    assert resolve("{no.such}", "fixed") == "fixed"
    assert resolve("{no.such}") is None
    assert resolve("{blank}", "next", tags={"blank": "  "}) == "next"


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("{@pod}", "reviews-v1-abc-xyz"),
        ("{@service_name}", "reviews.bookinfo"),
        ("{@app}", "reviews"),
        ("{@namespace}", "bookinfo"),
        ("{@kind}", "SERVER"),
        ("{@ipv4}", "10.1.2.3"),
        ("{@name}", "reviews.bookinfo.svc.cluster.local:9080/*"),
    ],
)
def test_fields_are_read_off_the_span(field: str, expected: str) -> None:
    assert resolve(field) == expected


def test_odd_names_and_node_ids_resolve_to_what_they_hold() -> None:
    assert resolve("{@app}", local=Endpoint("solo")) == "solo"
    assert resolve("{@namespace}", local=Endpoint("solo")) is None
    assert resolve("{@app}|{@namespace}", local=Endpoint("a.b.c")) == "a.b|c"
    assert resolve("{@pod}", tags={"node_id": "not-istio"}) is None
    assert resolve("{@pod}", tags={"node_id": "sidecar~1.2.3.4~pod~dom"}) == "pod"
    assert resolve("{@app}", local=None) is None


def test_a_value_with_braces_is_a_value() -> None:
    assert resolve("{zone}", tags={"zone": "{@pod}"}) == "{@pod}"


@pytest.mark.parametrize("template", ["{open", "close}", "{@nope}", " ", "{}"])
def test_a_bad_template_is_told_in_words(template: str) -> None:
    assert problem(template)


def test_a_good_template_has_no_problem() -> None:
    assert problem("{istio.namespace}-{@pod}.x") is None
