"""What becomes of a span's tags under the istio profile, when anything about them needs care.

Every tag of the input meets exactly one rule: it is kept (perhaps under another key, cut, masked), it becomes
part of the span's identity, or it is left out for a stated reason.  The budget of 50 tags is spent in this
order: identity and kind (the head), parent, what tells success from failure (``FIRST``), Istio's tags, then the
rest as they came; what is over is left out and counted, and the tag ``tracefwd.repaired`` names the kinds of
repair that changed facts.

Repairs (``limits.REPAIR_KINDS``) are counted into the mapping's dictionary.  Pure.
"""

import re
from collections.abc import Callable, Mapping

from tracefwd import naming
from tracefwd.limits import TAG_KEY_LENGTH_MAX, TAG_VALUE_LENGTH_MAX

REPAIRED = "tracefwd.repaired"
OWN_NAME = "operation.name"
ERROR_MESSAGE = "error.message"
# Consumed by Wavefront's parser, or given by the head or the writer: a tag of that name would override or double them.
RESERVED = frozenset(
    {
        "source",
        "host",
        "traceId",
        "spanId",
        "parent",
        "followsFrom",
        "application",
        "service",
        "cluster",
        "shard",
        "span.kind",
        "_spanLogs",
        "_spanSecondaryId",
        "_sampledByPolicy",
        REPAIRED,
        OWN_NAME,
    }
)
# Kept before all others when the budget is short: what the trace browser filters by.
FIRST = (
    "error",
    "http.status_code",
    "http.method",
    "component",
    "response_flags",
    "grpc.status_code",
    ERROR_MESSAGE,
    OWN_NAME,
    "http.url",
)
URL_KEYS = frozenset(
    {"http.url", "http.target", "http.path", "url", "url.full", "url.query", "uri"}
)
# What Envoy says, by Zipkin and OTLP alike, then OpenTelemetry's present conventions.
HTTP_STATUS_KEYS = ("http.status_code", "http.response.status_code")
GRPC_STATUS_KEYS = ("grpc.status_code", "rpc.grpc.status_code")
_QUERY_VALUE = re.compile(r"=[^&#]*")
_USER_INFO = re.compile(r"//[^/?#@]*@")

Repairs = dict[str, int]


def count(repairs: Repairs, kind: str, number: int = 1) -> None:
    repairs[kind] = repairs.get(kind, 0) + number


def url_rule(mode: str) -> Callable[[str], str] | None:
    """How a URL's query string and user info are treated; None keeps them."""
    if mode == "keep":
        return None

    def treat(url: str) -> str:
        if "@" in url:
            url = _USER_INFO.sub("//***@", url)
        path, mark, query = url.partition("?")
        if not mark:
            return url
        if mode == "drop":
            return path
        # A query without '=' is one value.
        return f"{path}?{_QUERY_VALUE.sub('=***', query) if '=' in query else '***'}"

    return treat


def is_simple(value: str) -> bool:
    """Of ASCII text: whether a line may hold it as it stands."""
    return (
        0 < len(value) <= TAG_VALUE_LENGTH_MAX and value[-1] not in "\\ " and value.strip() == value
    )


def clean_value(value: str, repairs: Repairs) -> str:
    """A value that Wavefront takes as it is, or "" when nothing but blanks is there."""
    value = value.strip()
    if value.endswith("\\"):
        count(repairs, "trailing_backslash")
        value = naming.guard_end(value)
    if len(value) > TAG_VALUE_LENGTH_MAX or (
        not value.isascii() and naming.length(value) > TAG_VALUE_LENGTH_MAX
    ):
        count(repairs, "value_cut")
        value = naming.cut(value, TAG_VALUE_LENGTH_MAX - 3) + "..."
    return value


def free_key(key: str, taken: Mapping[str, object] | set[str], repairs: Repairs) -> str:
    """``key`` as it may stand in a line beside the cleaned keys in ``taken``.

    Empty, digit-only (it would end the tag list) and reserved keys and a lone delta sign get a leading underscore, long
    ones are cut, doubles numbered: all counted as ``key_changed``.
    """
    changed = key
    if not key or key.isdigit() or key in RESERVED or key in naming.LONE_DELTAS:
        changed = "_" + key
    if len(changed) > TAG_KEY_LENGTH_MAX or naming.length(changed) > TAG_KEY_LENGTH_MAX:
        changed = naming.cut(changed, TAG_KEY_LENGTH_MAX)
    clean = naming.clean_key(changed)
    number = 2
    while clean in taken:
        clean = f"{naming.clean_key(changed)[: TAG_KEY_LENGTH_MAX - 4]}_{number}"
        changed = clean
        number += 1
    if changed != key:
        count(repairs, "key_changed")
    return changed


def spend(tags: dict[str, str], budget: int, repairs: Repairs) -> dict[str, str]:
    """The first ``budget`` of the tags in the stated order; the rest is counted as ``tag_budget``."""
    if len(tags) <= budget:
        return tags
    order = [key for key in FIRST if key in tags]
    order += [key for key in tags if key.startswith("istio.") and key not in FIRST]
    order += [key for key in tags if not key.startswith("istio.") and key not in FIRST]
    count(repairs, "tag_budget", len(tags) - budget)
    return {key: tags[key] for key in order[:budget]}
