"""Why a field differs, in words: what the Java proxy and tracefwd's profiles are known to do differently.  Pure.

Which side is which is not known, so every rule looks at both ways round.  A rule speaks only of what it can see in
the two values; ``""`` is an honest "no idea".
"""

from tracefwd.emulator.span_reader import Span

# How long a value may be on a span line, in UTF-16 units.
_VALUE_LENGTH_MAX = 128

_OWN_TAGS = {
    "zipkinSpanId": "the Java proxy repeats Zipkin's ids as tags; the istio profile has them in the line only",
    "zipkinTraceId": "the Java proxy repeats Zipkin's ids as tags; the istio profile has them in the line only",
    "_spanLogs": "it says that span logs follow: one side sends none for this span (mapping.span_logs;"
    " the istio profile leaves out Zipkin's core annotations)",
    "_spanSecondaryId": "it tells the halves of a shared span id apart; the istio profile leaves that to span.kind",
    "_sampledByPolicy": "the Java proxy says which sampling policy of the backend kept the span",
    "ipv4": "the endpoint's address, which Zipkin's library drops when it is none",
    "ipv6": "the Java proxy knows an endpoint's IPv4 address only",
    "debug": "Zipkin's debug flag",
    "tracefwd.repaired": "tracefwd says what it had to change in the span",
    "operation.name": "the span's own name, sent as _other because of mapping.operation.names_max",
    "error.message": "the istio profile keeps an error's text here, the Java proxy writes true for it",
}
_ISTIO_TAGS = "the Java proxy's default is {default}, the istio profile takes Istio's own tags"
_DEFAULTS = {"application": "Zipkin", "cluster": "none", "shard": "none"}

Values = tuple[str, ...]


def field(name: str, a: str, b: str) -> str:
    """Of ``name``, ``source``, ``trace id`` or ``span id``; both are there."""
    if name == "source":
        if "zipkin" in (a, b):
            return "the Java proxy's source is zipkin unless a tag says otherwise; the istio profile takes the pod"
        if "--" in (a, b):
            return "the Java proxy sends a blank source as --"
    if name == "span id" and reversed_bytes(a) == b:
        return (
            "the same id with its bytes in reverse order: Envoy's proto3 bodies have it so,"
            " and the istio profile turns it round (receiver.proto_ids)"
        )
    return _text(a, b)


def time(name: str, a: int, b: int) -> str:
    """Of ``start`` or ``duration``, in milliseconds."""
    low, high = sorted((a, b))
    if low and high == 1000 * low:
        return (
            "1000 times: a start before September 2001 is read as seconds, and the duration with it"
        )
    if name == "start" and low == 0:
        return "no timestamp: the Java proxy sends 0 (1970), tracefwd takes the time of arrival"
    if high - low == 1:
        return "one millisecond: cut on one side, rounded on the other"
    if name == "duration" and low == 0:
        return "negative or impossible on one side"
    return ""


def tag(key: str, a: Values, b: Values, span_a: Span, span_b: Span) -> str:
    """Of one key; the values in their order, none when the key is absent."""
    if sorted(a) == sorted(b):
        return "the same values in another order: the first one counts"
    if key == "error":
        return _error(a, b)
    if len(a) != len(b) and a and b:
        if key == "service":
            return "the Java proxy sends the endpoint's service and the tag's; otherwise the tag replaces it"
        return "the key repeats on one side; the first value counts"
    if not a or not b:
        there, other = (span_b, span_a) if not a else (span_a, span_b)
        return _OWN_TAGS.get(key) or _renamed(key, a or b, there, other)
    first, second = a[0], b[0]
    default = _DEFAULTS.get(key)
    if default in (first, second):
        return _ISTIO_TAGS.format(default=default)
    if key == "service" and _is_name_with_namespace(first, second):
        return "the Java proxy keeps Envoy's service.namespace, the istio profile takes the service"
    return _text(first, second)


def _error(a: Values, b: Values) -> str:
    values = set(a) | set(b)
    if "true" in values and "false" in values:
        return "the Java proxy counts any value as an error, even false"
    if not a or not b:
        if values == {"false"}:
            return "no error on either side; one side does not send the tag"
        return (
            "an error on one side only: an empty tag is none for the Java proxy, and the istio profile"
            " also judges by status codes and response flags (mapping.errors)"
        )
    if "true" in values:
        return "the Java proxy writes true in place of an error's text"
    return ""


def _renamed(key: str, values: Values, there: Span, other: Span) -> str:
    """Whether the other side has the tag under another name; ``there`` is the span that has ``key``."""
    for name, value in other.tags:
        if value not in values or there.value(name) is not None:
            continue
        if name == f"_{key}" or key == f"_{name}":
            return (
                f"sent as {min(name, key)} and {max(name, key)}: a key that Wavefront's reader takes"
                " for the span's own, or cannot read, gets an underscore"
            )
        if _alphabet(name) == _alphabet(key):
            return (
                f"sent as {min(name, key)} and {max(name, key)}:"
                " characters that a key may not have were replaced"
            )
    if len(there.tags) > len(other.tags) and len(other.tags) >= 50:
        return "the other side has the 50 tags that a span may have"
    return ""


def _alphabet(key: str) -> str:
    return "".join(
        char if char.isascii() and (char.isalnum() or char in "._/,") else "-" for char in key
    )


def _is_name_with_namespace(a: str, b: str) -> bool:
    short, long = sorted((a, b), key=len)
    return long.startswith(f"{short}.")


def _text(a: str, b: str) -> str:
    """Two texts that were one."""
    if a.lower() == b.lower():
        return "the Zipkin library writes names and services in lower case"
    if a.replace("*", "-") == b.replace("*", "-"):
        return "an asterisk in a name becomes a dash"
    if a.strip() == b.strip():
        return "blanks at the edges were taken off"
    short, long = sorted((a, b), key=len)
    if short.endswith("\\") and long == f"{short}.":
        return "a last backslash would swallow its quote, so one side adds a full stop"
    stems = [text.removesuffix("...").removesuffix("?")[:-1] for text in (a, b)]
    # Its length counts UTF-16 units: a cut text may have half as many characters.
    is_long = len(short) >= _VALUE_LENGTH_MAX // 2 - 1
    if is_long and (a.startswith(stems[1]) or b.startswith(stems[0])):
        return (
            f"cut at {_VALUE_LENGTH_MAX} characters, in another way or on one side only;"
            " the istio profile ends it in ..."
        )
    if a.replace("\ufffd", "?") == b.replace("\ufffd", "?"):
        return "half a character: a question mark on one side, U+FFFD on the other"
    if ("=***" in a or "?***" in a) != ("=***" in b or "?***" in b):
        return "values in query strings are masked (mapping.url_query)"
    if long.startswith(f"{short}?"):
        return "the query string was dropped (mapping.url_query)"
    return ""


def log_member(key: str, a: object, b: object, absent: object) -> str:
    """Of a member of a span log; ``absent`` stands for one that is not there."""
    if key == "span":
        return (
            "direct ingestion gets the member span; towards a proxy a span log goes without it,"
            " because the trace port would refuse it"
        )
    if key == "spanSecondaryId":
        if {None, absent} >= {_hashable(a), _hashable(b)}:
            return "null on one side, absent on the other; the backend reads both as none"
        return "which half of a shared span id the log belongs to"
    if key == "customer":
        return "the Java proxy marks logs of cut values with dummy; the backend does not look at it"
    return ""


def log_entry(entry: str) -> str:
    """Of an entry that only one side has, or a whole span log; as JSON without blanks."""
    if '"timestamp":-1' in entry:
        return "the full text of a value that was cut in the line (mapping.long_values)"
    if any(f'"annotation":"{core}"' in entry for core in ("cs", "cr", "ss", "sr")):
        return "one of Zipkin's core annotations, which the istio profile leaves out (mapping.span_logs)"
    return ""


def _hashable(value: object) -> object:
    return value if isinstance(value, str | None) or type(value) is object else str(value)


def reversed_bytes(span_id: str) -> str:
    """The low half of a UUID text with its bytes turned round."""
    digits = span_id.replace("-", "")
    if len(digits) != 32:
        return span_id
    pairs = [digits[at : at + 2] for at in range(16, 32, 2)]
    low = "".join(reversed(pairs))
    return f"{span_id[:19]}{low[:4]}-{low[4:]}"
