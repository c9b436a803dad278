"""What several rooms' tests share: the real bodies, and one ordinary span to vary."""

import json
from pathlib import Path

import msgspec
import pytest

from tracefwd.model import Annotation, Decoded, Encoding, Endpoint, Span

FIXTURES = Path(__file__).parent / "fixtures"
ENVOY = FIXTURES / "envoy"
JAVA_PROXY = FIXTURES / "java-proxy"
# A moment after the captures were made (epoch microseconds).
NOW_US = 1_795_400_000_000_000


def pytest_make_parametrize_id(val: object) -> str | None:
    """Name no test after long bytes: gzip's hold the time, and processes that share tests must gather equal names."""
    return "bytes" if isinstance(val, bytes) and len(val) > 24 else None


def envoy_bodies(kind: str = "json") -> list[Path]:
    """The request bodies of one kind (json, proto, otlp), one-request included."""
    found = [
        path
        for path in (*ENVOY.glob(f"{kind}-*"), *(ENVOY / "one-request").glob("*"))
        if not path.name.endswith(".headers.json")
    ]
    suffix = ".json" if kind == "json" else ".bin"
    return sorted(path for path in found if path.suffix == suffix)


def bare(decoded: Decoded) -> list[Span]:
    """The spans as the model's own classes, to be compared; a decoder may make classes of its own."""
    return [msgspec.convert(msgspec.to_builtins(span), Span) for span in decoded.spans]


def read_spans(path: Path) -> Decoded:
    """An Envoy JSON body by msgspec alone, without the decoders under test."""
    return Decoded(Encoding.JSON_V2, msgspec.json.decode(path.read_bytes(), type=list[Span]))


def sidecar_span(**changes: object) -> Span:
    """An ordinary span of a Bookinfo sidecar; ``tags`` in ``changes`` are added, None takes one away."""
    tags: dict[str, str] = {
        "component": "proxy",
        "node_id": "sidecar~10.1.2.3~reviews-v1-abc-xyz.bookinfo~bookinfo.svc.cluster.local",
        "http.method": "GET",
        "http.url": "http://reviews:9080/reviews/0",
        "http.status_code": "200",
        "response_flags": "-",
        "istio.canonical_service": "reviews",
        "istio.canonical_revision": "v1",
        "istio.namespace": "bookinfo",
        "istio.cluster_id": "Kubernetes",
        "istio.mesh_id": "cluster.local",
    }
    added = changes.pop("tags", {})
    assert isinstance(added, dict)
    for key, value in added.items():
        if value is None:
            tags.pop(key, None)
        else:
            tags[key] = value
    fields: dict[str, object] = {
        "trace_id": "463ac35c9f6413ad48485a3953bb6124",
        "span_id": "a2fb4a1d1a96d312",
        "parent_id": "0020000000000001",
        "kind": "SERVER",
        "name": "reviews.bookinfo.svc.cluster.local:9080/*",
        "timestamp_us": NOW_US - 1_000_000,
        "duration_us": 4_999,
        "local": Endpoint("reviews.bookinfo", "10.1.2.3", None, 0),
        "annotations": [Annotation(NOW_US - 999_000, "ss")],
        "tags": tags,
    }
    return Span(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def manifest() -> dict[str, dict[str, object]]:
    files: dict[str, dict[str, object]] = json.loads((ENVOY / "manifest.json").read_text())["files"]
    return files
