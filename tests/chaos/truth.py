"""What is true of the chaos run's spans: which there are, what was answered for them, what they count in RED.

A span is a number.  Its id, its series and whether it is an error follow from the number alone, so that sink, load and
judge need not tell each other.
"""

import json
from array import array

# Of its own, so that a run that finds another one's spans fails.
_FIRST_BYTES = 0xC4A05
_NUMBER_BITS = 40
SERIES = 12
# Not a divisor of the number of series: each has errors and others.
_ERROR_EACH = 7

# What became of a span's post.
UNSENT, ACKNOWLEDGED, REFUSED, CUT = range(4)
WORDS = ("unsent", "acknowledged", "refused", "cut")


def series_of(number: int) -> int:
    return number % SERIES


def is_error(number: int) -> bool:
    return number % _ERROR_EACH == 0


def id_of(number: int) -> int:
    return _FIRST_BYTES << _NUMBER_BITS | number


def number_of(span_id: int) -> int:
    """Raises ``ValueError`` for an id that is none of ours."""
    number = span_id & (1 << _NUMBER_BITS) - 1
    if span_id != id_of(number):
        raise ValueError(f"{span_id:x} was never posted")
    return number


def span(number: int, now_us: int) -> dict[str, object]:
    """As an Envoy would post it."""
    series = series_of(number)
    service = f"chaos-{series % 3}"
    tags = {
        "component": "proxy",
        "node_id": f"sidecar~10.1.2.{series}~{service}-abc-xyz.mesh~mesh.svc.cluster.local",
        "http.method": "GET",
        "http.status_code": "500" if is_error(number) else "200",
        "istio.canonical_service": service,
        "istio.namespace": "mesh",
    }
    if is_error(number):
        tags["error"] = "true"
    return {
        "traceId": f"{id_of(number):032x}",
        "id": f"{id_of(number):016x}",
        "kind": "SERVER",
        "name": f"op-{series}",
        "timestamp": now_us,
        "duration": 1_000 + number % 5_000,
        "localEndpoint": {"serviceName": f"{service}.mesh", "ipv4": f"10.1.2.{series}"},
        "tags": tags,
    }


def body(numbers: range, now_us: int) -> bytes:
    return json.dumps([span(number, now_us) for number in numbers]).encode()


class Truth:
    """What the clients know: one state for each span, by its number."""

    def __init__(self) -> None:
        self.states = array("B")

    def take(self, count: int) -> range:
        """New spans."""
        first = len(self.states)
        self.states.extend([UNSENT] * count)
        return range(first, first + count)

    def set(self, numbers: range, state: int) -> None:
        for number in numbers:
            self.states[number] = state

    def counts(self) -> dict[str, int]:
        return {word: self.states.count(state) for state, word in enumerate(WORDS)}
