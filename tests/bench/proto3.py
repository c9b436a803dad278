"""A list of spans in Zipkin's proto3 form (``proto/zipkin.proto``), as Envoy writes it.

A writer of its own: what it writes is read by the code that is measured.  Span and parent ids are little-endian.
"""

import socket
import struct
from collections.abc import Sequence
from typing import Any

_KINDS = {"CLIENT": 1, "SERVER": 2, "PRODUCER": 3, "CONSUMER": 4}


def proto3_body(spans: Sequence[dict[str, Any]]) -> bytes:
    return b"".join(_framed(1, _span(span)) for span in spans)


def _span(span: dict[str, Any]) -> bytes:
    parts = [_framed(1, bytes.fromhex(span["traceId"]))]
    if "parentId" in span:
        parts.append(_framed(2, bytes.fromhex(span["parentId"])[::-1]))
    parts.append(_framed(3, bytes.fromhex(span["id"])[::-1]))
    parts.append(_number(4, _KINDS[span["kind"]]))
    parts.append(_framed(5, span["name"].encode()))
    parts.append(_fixed(6, span["timestamp"]))
    parts.append(_number(7, span["duration"]))
    parts.append(_framed(8, _endpoint(span["localEndpoint"])))
    for note in span["annotations"]:
        text = _framed(2, note["value"].encode())
        parts.append(_framed(10, _fixed(1, note["timestamp"]) + text))
    for key, value in span["tags"].items():
        parts.append(_framed(11, _framed(1, key.encode()) + _framed(2, value.encode())))
    return b"".join(parts)


def _endpoint(endpoint: dict[str, Any]) -> bytes:
    name = _framed(1, endpoint["serviceName"].encode())
    return name + _framed(2, socket.inet_aton(endpoint["ipv4"]))


def _framed(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _fixed(field: int, value: int) -> bytes:
    return _varint(field << 3 | 1) + struct.pack("<Q", value)


def _varint(value: int) -> bytes:
    data = bytearray()
    while value > 127:
        data.append(value & 127 | 128)
        value >>= 7
    data.append(value)
    return bytes(data)
