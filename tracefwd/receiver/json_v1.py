"""Zipkin JSON v1: tells it from v2, and reads it strictly or leniently; ``v1_convert.py`` makes v2 spans of it.

Envoy has not sent v1 since 2019; applications and older libraries still do.
"""

from itertools import chain
from typing import Any

import msgspec

from tracefwd.model import Decoded, Encoding, Endpoint, Span
from tracefwd.receiver import fields
from tracefwd.receiver.fields import PORT_MAX, BadIdError, Mends
from tracefwd.receiver.v1_convert import (
    ADDRESS_KEYS,
    V1Annotation,
    V1BinaryAnnotation,
    V1Span,
    convert,
)

# A body without these words is hardly v1; with them it is worth a try.
HINT = b'"endpoint"'

# --- reading --------------------------------------------------------------------------------


def is_v1(members: dict[str, Any]) -> bool:
    """Whether an object is a v1 span; one that either version could have sent is v1, as for Zipkin.

    The Java proxy looks for words in the whole body and so takes the kind of a v2 span that has neither
    endpoint nor tags away; here it is v1 only without a kind.
    """
    if any(members.get(name) is not None for name in ("localEndpoint", "tags", "remoteEndpoint")):
        return False
    if members.get("binaryAnnotations") is not None:
        return True
    listed = members.get("annotations")
    if isinstance(listed, list) and any(isinstance(a, dict) and "endpoint" in a for a in listed):
        return True
    return members.get("kind") is None and members.get("shared") is None


def read(members: dict[str, Any], mends: Mends) -> list[Span]:
    """One or more v2 spans out of any JSON object; raises BadIdError when a trace or span id is unusable."""
    trace_id = fields.trace_id(members.get("traceId"), mends)
    span_id = fields.span_id(members.get("id"), mends)
    return convert(
        V1Span(
            trace_id=trace_id,
            span_id=span_id,
            parent_id=fields.parent_id(members.get("parentId"), span_id, mends),
            name=fields.text(members.get("name"), mends),
            timestamp=fields.micros(members.get("timestamp"), mends),
            duration=fields.micros(members.get("duration"), mends),
            debug=fields.flag(members.get("debug"), mends),
            annotations=_annotations(members.get("annotations"), mends),
            binary_annotations=_binary_annotations(members.get("binaryAnnotations"), mends),
        )
    )


def _objects(value: Any, mends: Mends) -> list[dict[str, Any]]:
    """The objects of what should be a list of objects."""
    if not isinstance(value, list):
        mends.field_type |= value is not None
        return []
    found = [item for item in value if isinstance(item, dict)]
    mends.field_type |= len(found) != len(value)
    return found


def _annotations(value: Any, mends: Mends) -> list[V1Annotation]:
    found = []
    for item in _objects(value, mends):
        at = fields.micros(item.get("timestamp"), mends)
        said = fields.text(item.get("value"), mends)
        if at is None or said is None:
            mends.field_type = True
        else:
            found.append(V1Annotation(at, said, fields.endpoint(item.get("endpoint"), mends)))
    return found


def _binary_annotations(value: Any, mends: Mends) -> list[V1BinaryAnnotation]:
    found = []
    for item in _objects(value, mends):
        key = fields.text(item.get("key"), mends)
        said = item.get("value")
        endpoint = fields.endpoint(item.get("endpoint"), mends)
        if key is None or said is None:
            mends.field_type = True
        elif said is True and key in ADDRESS_KEYS:
            if endpoint is not None:
                found.append(V1BinaryAnnotation(key, True, endpoint))
        elif type(said) is str:
            found.append(V1BinaryAnnotation(key, said, endpoint))
        else:
            mends.field_type = True
            found.append(V1BinaryAnnotation(key, fields.json_text(said), endpoint))
    return found


_decode = msgspec.json.Decoder(list[V1Span]).decode


def read_strict(body: bytes) -> Decoded | None:
    """A body that begins at its ``[`` and is strictly v1 throughout; None: let somebody look closer."""
    try:
        sources = _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    spans: list[Span] = []
    mends = Mends()
    for source in sources:
        if not _settle(source, mends):
            return None
        spans += convert(source)
    return None if mends.field_type else Decoded(Encoding.JSON_V1, spans)


def _settle(source: V1Span, mends: Mends) -> bool:
    """Ids and addresses into the model's form; False when the span is not strictly v1."""
    if any(member is not None for member in (source.local, source.remote, source.tags)):
        return False
    if source.kind is not None or source.shared is not None:
        return False
    try:
        source.trace_id = fields.trace_id(source.trace_id, mends)
        source.span_id = fields.span_id(source.span_id, mends)
    except BadIdError:
        return False
    source.parent_id = fields.parent_id(source.parent_id, source.span_id, mends)
    settled: Endpoint | None = None
    items: chain[V1Annotation | V1BinaryAnnotation]
    items = chain(source.annotations or (), source.binary_annotations or ())
    for item in items:
        if isinstance(item, V1BinaryAnnotation) and not _is_sound(item):
            return False
        # A span names few endpoints, and one of them over and over: they may as well share it.
        if item.endpoint == settled:
            item.endpoint = settled
        elif item.endpoint is not None:
            settled = item.endpoint
            fields.settle_addresses(settled, mends)
            mends.field_type |= settled.port is not None and not 0 <= settled.port <= PORT_MAX
    return True


def _is_sound(item: V1BinaryAnnotation) -> bool:
    return isinstance(item.value, str) or (item.value and item.key in ADDRESS_KEYS)
