"""``explain`` on OTLP: every member exactly once, with a fate and a reason."""

import json
from collections import Counter
from pathlib import Path

import pytest

from tests.receiver.test_otlp_json import GOOD, as_json
from tests.receiver.test_otlp_proto import body_of
from tracefwd.receiver.otlp_view import look
from tracefwd.service.explain import explain
from tracefwd.settings import MappingSettings, Settings

ENVOY = Path(__file__).parent.parent / "fixtures" / "envoy"
PROFILES = [Settings(), Settings(mapping=MappingSettings(profile="wavefront-proxy"))]


@pytest.mark.parametrize("settings", PROFILES, ids=["istio", "wavefront-proxy"])
@pytest.mark.parametrize("path", GOOD, ids=[path.stem for path in GOOD])
def test_every_member_of_envoys_spans_is_explained_once(path: Path, settings: Settings) -> None:
    proto = body_of(path)
    for body in (path.read_bytes(), json.dumps(as_json(proto)).encode()):
        reports = list(explain(settings, body))
        assert len(reports) == len(list(look(proto)))
        for report, seen in zip(reports, look(proto), strict=True):
            told = Counter(field["path"] for field in report["fields"])
            assert told == Counter(name for name, _ in seen.fields)
            assert report["line"]
            for field in report["fields"]:
                assert field["fate"] in {"kept", "renamed", "changed", "became", "dropped", "used"}
                assert field["reason"]


def test_what_only_otlp_has_is_explained() -> None:
    def pair(key: str, value: str) -> dict[str, object]:
        return {"key": key, "value": {"stringValue": value}}

    span = {
        "traceId": "1" * 32,
        "spanId": "2" * 16,
        "name": "n",
        "kind": 1,
        "startTimeUnixNano": "0",
        "attributes": [pair("k", "own"), pair("blank", "")],
        "links": [{"traceId": "3" * 32}],
        "events": [{"name": "e", "timeUnixNano": "1"}],
        "status": {"code": 2, "message": "why"},
        "droppedLinksCount": 2,
        "droppedEventsCount": 0,
        "traceState": "a=b",
        "unheardOf": 1,
    }
    resource = {
        "attributes": [pair("host.name", "node"), pair("host.id", "id"), pair("k", "shared")]
    }
    body = {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [span]}]}]}
    (report,) = explain(Settings(), json.dumps(body).encode())
    fates = {field["path"]: (field["fate"], field["reason"]) for field in report["fields"]}
    assert fates["resource.attributes.host.name"] == ("became", 'source="node"')
    assert fates["resource.attributes.host.id"][0] == "kept"
    assert fates["resource.attributes.k"] == (
        "dropped",
        "the span's own attribute of this key wins",
    )
    assert fates["attributes.k"][0] == "kept"
    assert fates["attributes.blank"][0] == "dropped"
    assert fates["links[0]"] == ("dropped", "Wavefront has no place for links")
    assert fates["events[0]"][0] == "became"
    assert fates["startTimeUnixNano"][0] == "changed"
    assert fates["status.code"][0] == "became"
    assert fates["status.message"] == ("became", '"otel.status_description"="why"')
    assert fates["droppedLinksCount"] == ("became", '"otel.dropped_links_count"="2"')
    assert fates["droppedEventsCount"][0] == "dropped"
    assert fates["traceState"] == ("became", '"w3c.tracestate"="a=b"')
    assert fates["kind"] == ("became", '"span.kind"="internal"')
    assert fates["unheardOf"][0] == "dropped"


def test_a_rejected_span_is_told_with_what_it_said() -> None:
    span = {"traceId": "1" * 32, "name": "without an id"}
    body = {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}
    (report,) = explain(Settings(), json.dumps(body).encode())
    assert report["rejected"] == "span_id"
    assert {field["path"] for field in report["fields"]} == {"traceId", "name"}
