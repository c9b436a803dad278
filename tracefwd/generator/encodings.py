"""Posts in other formats than Zipkin's JSON: what the same spans are when Envoy writes proto3 or OTLP.

1. Zipkin proto3: span and parent ids in the machine's byte order, which is reversed against the JSON, as Envoy's are.
2. OTLP: one resource with the proxy's service name and the SDK's, one scope "envoy", attributes under the tags' names
   in Envoy's own order, ``flags`` set, no events.  Over gRPC and HTTP the message is the same.
3. The JSON of a post is read once; what comes again in every span is remembered by its value, within bounds.

Pure.
"""

from collections.abc import Callable
from struct import Struct

import msgspec

Encode = Callable[[bytes], bytes]
"""A body in Zipkin's JSON v2 as another body."""

_SDK_VERSION = "9e5580933739775e8bce696a57a2e1bc99368f23/1.40.0/Clean/RELEASE/BoringSSL"
USER_AGENT = f"OTel-OTLP-Exporter-Envoy/{_SDK_VERSION}"
_ZIPKIN_KINDS = {"CLIENT": b"\x20\x01", "SERVER": b"\x20\x02"}
_OTLP_KINDS = {"CLIENT": b"\x30\x03", "SERVER": b"\x30\x02"}
# W3C's "sampled", and whether the parent is another process's, as OTLP tells it.
_FLAGS_ROOT, _FLAGS_CHILD = b"\x85\x01\x01\x01\x00\x00", b"\x85\x01\x01\x03\x00\x00"
_STATUS_ERROR = b"\x7a\x02\x18\x02"
# The order in which Envoy sets a span's tags; Istio's own come behind, in an order that a process keeps.  What failed
# before an answer comes first.
_FAILED = ("retry.count", "error", "error.reason")
_ORDER = (
    *("node_id", "zone", "guid:x-request-id", "http.url", "http.method", "downstream_cluster"),
    *("user_agent", "http.protocol", "upstream_address", "peer.address", "grpc.path"),
    *("grpc.authority", "grpc.content_type", "grpc.timeout", "request_size", "response_size"),
    *("component", "upstream_cluster", "upstream_cluster.name", "http.status_code"),
    *("response_flags", "grpc.status_code", "grpc.message", "error"),
)
# Attributes, and orders of keys, that are remembered; a run has a few thousand of the former.
_MEMO_MAX = 8_192
_U64 = Struct("<Q").pack


class _Endpoint(msgspec.Struct, gc=False, rename="camel"):
    service_name: str = ""
    ipv4: str = ""


class _Note(msgspec.Struct, gc=False):
    timestamp: int
    value: str


class _Span(msgspec.Struct, gc=False, rename="camel"):
    trace_id: str
    id: str
    name: str
    kind: str
    timestamp: int
    duration: int
    local_endpoint: _Endpoint
    tags: dict[str, str]
    parent_id: str = ""
    annotations: list[_Note] = []


_read = msgspec.json.Decoder(list[_Span]).decode


def encoder(protocol: str) -> Encode | None:
    """For a name of ``connection.PROTOCOLS``; None where the JSON is what is sent."""
    if protocol == "zipkin-proto":
        return _ProtoWriter().write
    return _OtlpWriter().write if protocol.startswith("otlp-") else None


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def framed(tag: bytes, content: bytes) -> bytes:
    size = len(content)
    return tag + (bytes((size,)) if size < 0x80 else varint(size)) + content


class _Writer:
    """``_pair`` gives a tag's field, remembered whole."""

    def __init__(self) -> None:
        self._pairs: dict[tuple[str, str], bytes] = {}
        self._orders: dict[tuple[str, ...], list[str]] = {}

    def _pair(self, pair: tuple[str, str]) -> bytes:
        found = self._pairs.get(pair)
        if found is None:
            found = self._write_pair(*map(str.encode, pair))
            if len(self._pairs) >= _MEMO_MAX:
                self._pairs.clear()
            self._pairs[pair] = found
        return found

    def _write_pair(self, key: bytes, value: bytes) -> bytes:
        raise NotImplementedError


class _ProtoWriter(_Writer):
    def write(self, body: bytes) -> bytes:
        return b"".join([framed(b"\x0a", self._span(span)) for span in _read(body)])

    def _write_pair(self, key: bytes, value: bytes) -> bytes:
        return framed(b"\x5a", framed(b"\x0a", key) + framed(b"\x12", value))

    def _span(self, span: _Span) -> bytes:
        endpoint = span.local_endpoint
        address = bytes(map(int, endpoint.ipv4.split("."))) if endpoint.ipv4 else b""
        parts = [
            framed(b"\x0a", bytes.fromhex(span.trace_id)),
            framed(b"\x12", bytes.fromhex(span.parent_id)[::-1]) if span.parent_id else b"",
            framed(b"\x1a", bytes.fromhex(span.id)[::-1]),
            _ZIPKIN_KINDS[span.kind],
            framed(b"\x2a", span.name.encode()),
            b"\x31" + _U64(span.timestamp),
            b"\x38" + varint(span.duration),
            framed(
                b"\x42",
                framed(b"\x0a", endpoint.service_name.encode())
                + (framed(b"\x12", address) if address else b""),
            ),
        ]
        parts += [
            framed(b"\x52", b"\x09" + _U64(note.timestamp) + framed(b"\x12", note.value.encode()))
            for note in span.annotations
        ]
        parts += map(self._pair, span.tags.items())
        return b"".join(parts)


class _OtlpWriter(_Writer):
    def __init__(self) -> None:
        super().__init__()
        sdk = {
            "telemetry.sdk.version": _SDK_VERSION,
            "telemetry.sdk.language": "cpp",
            "telemetry.sdk.name": "envoy",
        }
        self._sdk = b"".join(
            framed(b"\x0a", self._attribute(*map(str.encode, pair))) for pair in sdk.items()
        )
        self._scope = framed(
            b"\x0a", framed(b"\x0a", b"envoy") + framed(b"\x12", _SDK_VERSION.encode())
        )

    def write(self, body: bytes) -> bytes:
        spans = _read(body)
        # A worker thread is one proxy's.
        name = spans[0].local_endpoint.service_name.encode()
        service = framed(b"\x0a", self._attribute(b"service.name", name))
        resource = framed(b"\x0a", self._sdk + service)
        written = b"".join([framed(b"\x12", self._span(span)) for span in spans])
        return framed(b"\x0a", resource + framed(b"\x12", self._scope + written))

    def _attribute(self, key: bytes, value: bytes) -> bytes:
        return framed(b"\x0a", key) + framed(b"\x12", framed(b"\x0a", value))

    def _write_pair(self, key: bytes, value: bytes) -> bytes:
        return framed(b"\x4a", self._attribute(key, value))

    def _span(self, span: _Span) -> bytes:
        tags = span.tags
        start_ns = span.timestamp * 1000
        parent = framed(b"\x22", bytes.fromhex(span.parent_id)) if span.parent_id else b""
        parts = [
            framed(b"\x0a", bytes.fromhex(span.trace_id)),
            framed(b"\x12", bytes.fromhex(span.id)),
            parent,
            framed(b"\x2a", span.name.encode()),
            _OTLP_KINDS[span.kind],
            b"\x39" + _U64(start_ns) + b"\x41" + _U64(start_ns + span.duration * 1000),
        ]
        pairs = self._pair
        parts += [pairs((key, tags[key])) for key in self._order(tuple(tags))]
        if tags.get("error") == "true":
            parts.append(_STATUS_ERROR)
        parts.append(_FLAGS_CHILD if parent else _FLAGS_ROOT)
        return b"".join(parts)

    def _order(self, keys: tuple[str, ...]) -> list[str]:
        order = self._orders.get(keys)
        if order is None:
            known = (*_FAILED, *_ORDER) if "error.reason" in keys else _ORDER
            places = {key: place for place, key in reversed([*enumerate(known)])}
            order = sorted(keys, key=lambda key: (places.get(key, len(known)), key))
            if len(self._orders) >= _MEMO_MAX:
                self._orders.clear()
            self._orders[keys] = order
        return order


__all__ = ["USER_AGENT", "Encode", "encoder", "framed", "varint"]
