"""What is remembered under the keys of tags is found by them alone, and is bounded."""

from typing import Any

import msgspec

from tests.conftest import ENVOY, NOW_US
from tracefwd.exporter.lines import LineWriter
from tracefwd.limits import MEMO_ENTRIES_MAX
from tracefwd.model import Decoded, LineShape
from tracefwd.processor.istio import make_istio_mapper
from tracefwd.processor.shapes import picker
from tracefwd.receiver.json_v2 import StrictReader
from tracefwd.settings import MappingSettings, RedSettings

BODY: list[dict[str, Any]] = msgspec.json.decode((ENVOY / "json-batch-5.json").read_bytes())


def decoded(reader: StrictReader, spans: list[dict[str, Any]]) -> Decoded:
    found = reader.read(msgspec.json.encode(spans))
    assert found is not None
    return found


def shapes_of(spans: list[dict[str, Any]]) -> list[LineShape | None]:
    reader, mapper = StrictReader(), make_istio_mapper(MappingSettings(), RedSettings())
    mapper(decoded(reader, spans), NOW_US)
    return [span.shape for span in mapper(decoded(reader, spans), NOW_US).spans]


def changed(span: dict[str, Any], **tags: str | None) -> dict[str, Any]:
    together = {**span["tags"], **{key.replace("_", "."): value for key, value in tags.items()}}
    return {**span, "tags": {key: value for key, value in together.items() if value is not None}}


def test_spans_of_one_workload_kind_and_set_of_keys_share_one_shape() -> None:
    span = BODY[0]
    other_order = {**span, "tags": dict(reversed(span["tags"].items()))}
    first, second, fewer, elsewhere, other_kind = shapes_of(
        [
            span,
            changed(other_order, http_url="http://other/"),
            changed(span, http_protocol=None),
            changed(span, istio_namespace="elsewhere"),
            {**span, "kind": "SERVER"},
        ]
    )
    assert first is second is not None
    assert len({id(shape) for shape in (first, fewer, elsewhere, other_kind)}) == 4


def test_keys_that_need_care_keep_a_span_from_the_plain_path() -> None:
    for more in (
        {"error": "v"},
        {"span.kind": "v"},
        {"12": "v"},
        {"url": "v"},
        {"x!y": "v", "x?y": "w"},
    ):
        span = {**BODY[0], "tags": {**BODY[0]["tags"], **more}}
        assert shapes_of([span]) == [None], more


def test_a_url_in_an_identity_is_masked_among_the_tags() -> None:
    mapping = MappingSettings(shard=["{http.url}"])
    mapper, reader = make_istio_mapper(mapping, RedSettings()), StrictReader()
    span = changed(BODY[0], http_url="http://h/?token=abc")
    for _ in range(2):
        mapped = mapper(decoded(reader, [span]), NOW_US)
        assert (
            '"http.url"="http://h/?token=***"' in LineWriter().write(mapped.spans)[0].data.decode()
        )


def test_tables_do_not_grow_with_what_clients_send() -> None:
    mapper: Any = make_istio_mapper(MappingSettings(), RedSettings())
    reader = StrictReader()
    for number in range(MEMO_ENTRIES_MAX + 10):
        mapper(
            decoded(reader, [changed(BODY[0], node_id=None, istio_namespace=f"n{number}")]), NOW_US
        )
    plain = mapper._plain
    [layout] = list(plain._layouts.values())[-1:]
    assert len(layout.workloads) <= MEMO_ENTRIES_MAX
    assert len(plain._shapes._memo) <= MEMO_ENTRIES_MAX


def test_a_pick_is_a_tuple_however_many_places_there_are() -> None:
    values = ("", "a", "b", "c")
    assert [picker(places)(values) for places in ([], [1], [3, 1], [1, 2, 3])] == [
        (),
        ("a",),
        ("c", "a"),
        ("a", "b", "c"),
    ]
