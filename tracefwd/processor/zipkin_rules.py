"""What the Zipkin library makes of a span before the Wavefront proxy sees it.

Decoders deliver spans as they were sent, with ids in order; these are the other rules of the library (2.23): names
in lower case, nothing empty, addresses that parse, annotations sorted and without doubles.  Pure.
"""

import re
from collections.abc import Mapping, Sequence

from tracefwd.model import Annotation, Endpoint, Event, Span
from tracefwd.processor import java_text

_IPV4 = r"(?:(?:25[0-5]|2[0-4][0-9]|[01]?[0-9]?[0-9])\.){3}(?:25[0-5]|2[0-4][0-9]|[01]?[0-9]?[0-9])"
_PLAIN_IPV4 = re.compile(_IPV4)
# IPv4 within IPv6: "::1.2.3.4", "::ffff:1.2.3.4"; the library takes any mix of f and 0 in the last group.
_EMBEDDED_IPV4 = re.compile(rf"::(?:[fF0]{{4}}:)?({_IPV4})")


def lowered(text: str | None) -> str | None:
    """A span's or service's name: in lower case, absent when empty."""
    return text.lower() if text else None


def trace_id(hex_id: str) -> str:
    """32 digits of which the first 16 are zeros are a 64-bit id."""
    if len(hex_id) == 32 and hex_id.startswith("0000000000000000"):
        return hex_id[16:]
    return hex_id


def ipv4(endpoint: Endpoint) -> str | None:
    """The endpoint's IPv4 address as it was written; what is no address is absent, without an error."""
    for address in (endpoint.ipv4, endpoint.ipv6):
        if not address:
            continue
        if _PLAIN_IPV4.fullmatch(address):
            return address
        embedded = _EMBEDDED_IPV4.fullmatch(address)
        if embedded:
            return embedded[1]
    return None


def sorted_annotations(annotations: list[Annotation] | None) -> list[Annotation] | None:
    """By time, then by value, each once (but for events, which say more); ``None`` when there is none."""
    if not annotations:
        return None
    if len(annotations) == 1:
        return annotations
    if any(isinstance(entry, Event) for entry in annotations):
        return sorted(annotations, key=lambda entry: entry.timestamp_us)
    unique = {(entry.timestamp_us, entry.value): entry for entry in annotations}
    return [
        unique[key] for key in sorted(unique, key=lambda key: (key[0], java_text.order(key[1])))
    ]


def sorted_tags(tags: Mapping[str, str] | None) -> list[tuple[str, str]]:
    """Tags in the order of their keys' code units."""
    if not tags:
        return []
    if "".join(tags).isascii():
        return sorted(tags.items())
    return sorted(tags.items(), key=lambda pair: java_text.order(pair[0]))


def read_as_version_1(spans: Sequence[Span]) -> bool:
    """Whether the library takes these JSON v2 spans for v1, which has no ``kind``: none has an endpoint or a tag.

    The library looks for the words ``Endpoint"`` and ``"tags"`` anywhere in the body, so an empty
    ``"tags":{}`` makes it v2; here only an absent one tells.
    """
    return all(span.local is None and span.remote is None and span.tags is None for span in spans)
