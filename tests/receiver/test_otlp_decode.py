"""Which format a body is in is told by its content, whatever its header says."""

from pathlib import Path

import pytest

from tracefwd.model import Encoding
from tracefwd.receiver.decode import make_decode
from tracefwd.receiver.otlp_decode import make_any_decode, make_otlp_decode, without_frame

ENVOY = Path(__file__).parent.parent / "fixtures" / "envoy"
FORMATS = {"json-": Encoding.JSON_V2, "proto-": Encoding.PROTO3, "otlp-": Encoding.OTLP_PROTO}
BODIES = sorted([*ENVOY.glob("*.bin"), *ENVOY.glob("json-*[!s].json")])

decode = make_any_decode(make_decode(), make_otlp_decode())


@pytest.mark.parametrize("path", BODIES, ids=[path.stem for path in BODIES])
def test_each_of_envoys_bodies_is_known_by_its_content(path: Path) -> None:
    wanted = next(encoding for prefix, encoding in FORMATS.items() if path.name.startswith(prefix))
    for content_type in ("", "application/json", "application/x-protobuf"):
        decoded = decode(path.read_bytes(), content_type)
        assert decoded.encoding is wanted
        assert decoded.spans
        assert not decoded.rejects


@pytest.mark.parametrize("path", BODIES, ids=[path.stem for path in BODIES])
def test_a_cut_body_is_known_as_well_once_it_holds_a_span(path: Path) -> None:
    body = path.read_bytes()
    if path.name.startswith("otlp-grpc"):
        body = without_frame(body)
    decoded = decode(body[:-1], "")
    wanted = next(encoding for prefix, encoding in FORMATS.items() if path.name.startswith(prefix))
    if decoded.spans:
        assert decoded.encoding is wanted


def test_zipkins_spans_may_speak_of_otlp() -> None:
    body = (
        (ENVOY / "json-404.json").read_bytes().replace(b'"tags":{', b'"tags":{"resourceSpans":"1",')
    )
    assert b'"resourceSpans"' in body
    decoded = decode(body, "")
    assert (decoded.encoding, decoded.rejects) == (Encoding.JSON_V2, ())
    assert decoded.spans[0].tags["resourceSpans"] == "1"


def test_a_frame_is_taken_off_only_if_it_is_one() -> None:
    body = (ENVOY / "otlp-grpc-single.bin").read_bytes()
    assert len(without_frame(body)) == len(body) - 5
    assert without_frame(body + b"x") == body + b"x"
    assert without_frame(b"") == b""


def test_zipkins_list_on_otlps_path_is_told_where_it_belongs() -> None:
    decoded = make_otlp_decode()(b'[{"traceId":"1","id":"2"}]', "application/json")
    (reject,) = decoded.rejects
    assert "/api/v2/spans" in reject.detail
