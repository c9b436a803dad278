"""What is posted: the generator's spans, made ahead, in the sizes, names, oddities and formats that are asked for.

Spans are those of ``tracefwd gen`` (Bookinfo under Istio, 1.1 kB, 21 tags, keys in random order), each of the
connections with one Envoy's own.  Pure but for the clock's time that is handed in.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from tests.bench.driver import Request
from tests.bench.proto3 import proto3_body
from tests.bench.v1 import v1_span
from tracefwd.generator.encodings import encoder
from tracefwd.generator.posts import POST_SPANS, Posts

CONNECTIONS = 32
# Enough that nothing can be learned by heart, and 22 MB.
SPANS = 20_000

_ESCAPE = 'Mozilla/5.0 \\"quoted\\" back\\\\slash'
_FOREIGN = "Mozilla/5.0 (Größe; 東京; 🦊)"
_LONG = "Mozilla/5.0 (" + "a very long agent " * 12 + ")"
ODDITIES = {"escapes": _ESCAPE, "non-ascii": _FOREIGN, "over-long": _LONG}


@dataclass(frozen=True)
class Traffic:
    """``series``: 0 leaves the mesh's names; else spans are made to belong to as many RED series.
    ``odd_share`` of the spans have their ``user_agent`` replaced by ``ODDITIES[oddity]``, evenly spread, or in posts of
    their own if ``odd_posts``."""

    encoding: str = "v2"
    connections: int = CONNECTIONS
    post_spans: int = POST_SPANS
    spans: int = SPANS
    series: int = 0
    oddity: str = "escapes"
    odd_share: float = 0.0
    odd_posts: bool = False

    def envoys(self, now_us: int) -> list[list[Request]]:
        """For each connection its requests."""
        changed = [self._odd(spans) for spans in self._named(self._spans(now_us))]
        make_body, head = ENCODINGS[self.encoding]
        return [
            [
                _request(head, make_body(spans[first : first + self.post_spans]), self.post_spans)
                for first in range(0, len(spans), self.post_spans)
            ]
            for spans in changed
        ]

    def _spans(self, now_us: int) -> list[list[bytes]]:
        """For each connection as many spans, in whole posts."""
        each = max(self.spans // self.connections // self.post_spans, 1) * self.post_spans
        found: list[list[bytes]] = [[] for _ in range(self.connections)]
        posts = Posts(connections=self.connections, seed=1, epoch_us=now_us)
        missing = self.connections
        while missing:
            post = posts.next(now_us)
            assert post is not None
            mine = found[post.connection]
            if len(mine) < each:
                mine += _split(post.body)
                missing -= len(mine) >= each
        return [spans[:each] for spans in found]

    def _named(self, envoys: list[list[bytes]]) -> list[list[bytes]]:
        """A series is a workload and a name: each connection is a workload of its own, and all have the same names.
        With fewer series than connections some say that they are the same workload, with one name; all else in their
        spans is their own, so that rows differ in the number of series alone."""
        if not self.series:
            return envoys
        workloads = min(self.series, self.connections)
        named = []
        for number in range(self.connections):
            workload = number % workloads
            # The first workloads take what does not come out even.
            names = cycle(range((self.series - workload - 1) // workloads + 1))
            whose = json.loads(envoys[workload][0])
            named.append(
                [
                    _renamed(span, whose, f"service-{workload}", next(names))
                    for span in envoys[number]
                ]
            )
        return named

    def _odd(self, spans: list[bytes]) -> list[bytes]:
        """Every so many a span, or a post, is odd: as many as the share says."""
        value, share = ODDITIES[self.oddity].encode(), self.odd_share
        together = self.post_spans if self.odd_posts else 1
        places = [number // together for number in range(len(spans))]
        return [
            _odd(span, value) if int((place + 1) * share) > int(place * share) else span
            for place, span in zip(places, spans, strict=True)
        ]


def _renamed(span: bytes, whose: dict[str, Any], service: str, name: int) -> bytes:
    """As if ``service``, at the place that the span ``whose`` names, had sent it.

    Kind and status, which are part of a series, are made equal too.
    """
    members = json.loads(span)
    members["name"] = f"operation-{name}.default.svc.cluster.local:9080/*"
    members["kind"] = "SERVER"
    members["localEndpoint"] = whose["localEndpoint"]
    tags = members["tags"]
    tags |= {key: value for key, value in whose["tags"].items() if key.startswith("istio.")}
    tags["istio.canonical_service"] = service
    tags["http.status_code"] = "200"
    for key in ("error", "node_id"):
        tags.pop(key, None)
    return _dumps(members)


def _odd(span: bytes, value: bytes) -> bytes:
    """As text, so that the oddity's own spelling stays."""
    head, mark, rest = span.partition(b'"user_agent":"')
    if not mark:
        head, mark, rest = span.partition(b'"upstream_cluster":"')
    return head + mark + value + rest[rest.index(b'"') :]


def _split(body: bytes) -> list[bytes]:
    """The spans of a list, byte by byte as they were: no text of the generator's holds this seam."""
    return [
        b"{" + part + b"}"
        for part in body[2:-2].split(b"},{")  # annotations hold one object each
    ]


def _dumps(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _v2_body(spans: Sequence[bytes]) -> bytes:
    return b"[" + b",".join(spans) + b"]"


def _v1_body(spans: Sequence[bytes]) -> bytes:
    return _dumps([v1_span(json.loads(span)) for span in spans])


def _proto3_body(spans: Sequence[bytes]) -> bytes:
    return proto3_body([json.loads(span) for span in spans])


_write_otlp = encoder("otlp-http")


def _otlp_body(spans: Sequence[bytes]) -> bytes:
    assert _write_otlp is not None
    return _write_otlp(_v2_body(spans))


def _head(path: str, content_type: str) -> bytes:
    """As Envoy writes it; the body is one chunk."""
    return (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: {content_type}\r\n"
        "x-envoy-internal: true\r\nx-forwarded-for: 10.244.0.10\r\n"
        "x-envoy-expected-rq-timeout-ms: 5000\r\ntransfer-encoding: chunked\r\n\r\n"
    ).encode()


Encode = Callable[[Sequence[bytes]], bytes]
ENCODINGS: dict[str, tuple[Encode, bytes]] = {
    "v2": (_v2_body, _head("/api/v2/spans", "application/json")),
    "v1": (_v1_body, _head("/api/v1/spans", "application/json")),
    "proto3": (_proto3_body, _head("/api/v2/spans", "application/x-protobuf")),
    "otlp": (_otlp_body, _head("/v1/traces", "application/x-protobuf")),
}


def _request(head: bytes, body: bytes, spans: int) -> Request:
    return Request(b"%b%x\r\n%b\r\n0\r\n\r\n" % (head, len(body), body), spans)
