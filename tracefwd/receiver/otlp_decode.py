"""Tells OTLP's encodings apart by content, and OTLP from Zipkin where nobody says which it is.

A body in JSON begins with a brace, and no protobuf message of OTLP does.  Nothing here raises: a body without a
readable span comes back with at least one reject that says what and where, unless it is an empty request.  Pure.
"""

from tracefwd.doorways import Decode
from tracefwd.limits import REJECT_SAMPLE_BYTES_MAX
from tracefwd.model import Decoded, Encoding, Reject
from tracefwd.receiver import decode as zipkin
from tracefwd.receiver import otlp_json, otlp_proto

_GRPC_FRAME_BYTES = 5


def make_otlp_decode(*, as_the_proxy: bool = False) -> Decode:
    """``as_the_proxy``: as in ``otlp.finish``."""
    memo = otlp_proto.Memo()

    def decode(body: bytes, content_type: str) -> Decoded:
        at = zipkin.json_at(body)
        if at is not None:
            if body[at] == ord("["):
                detail = (
                    "a list is no ExportTraceServiceRequest; POST Zipkin's spans to /api/v2/spans"
                )
                sample = body[:REJECT_SAMPLE_BYTES_MAX]
                return Decoded(Encoding.OTLP_JSON, [], [Reject("syntax", "byte 0", detail, sample)])
            decoded = otlp_json.decode(body, at, as_the_proxy=as_the_proxy)
        else:
            decoded = otlp_proto.decode(body, memo, as_the_proxy=as_the_proxy)
        if len(body) > zipkin.TAGS_CHECKED_FROM_BYTES:
            zipkin.bound_tags(decoded)
        return decoded

    return decode


def make_any_decode(zipkin_decode: Decode, otlp_decode: Decode) -> Decode:
    """For bodies that came on no path: whoever reads more spans out of one is right.

    An OTLP/gRPC message may have its frame (five bytes: a flag and the length) in front.
    """

    def decode(body: bytes, content_type: str) -> Decoded:
        body = without_frame(body)
        at = zipkin.json_at(body)
        if at is not None:
            is_otlp = body[at] == ord("{") and otlp_json.is_request(body)
            return (otlp_decode if is_otlp else zipkin_decode)(body, content_type)
        first = zipkin_decode(body, content_type)
        if first.spans and not first.rejects:
            return first
        second = otlp_decode(body, content_type)
        return second if len(second.spans) > len(first.spans) else first

    return decode


def without_frame(body: bytes) -> bytes:
    """The message of a gRPC frame that is all of ``body``, or ``body``."""
    size = len(body) - _GRPC_FRAME_BYTES
    if size >= 0 and body[:_GRPC_FRAME_BYTES] == b"\0" + size.to_bytes(4, "big"):
        return body[_GRPC_FRAME_BYTES:]
    return body
