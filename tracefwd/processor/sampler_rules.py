"""The arithmetic of sampling by trace id: a trace's place, and the line up to which a rate keeps.

A trace's place is the Java proxy's: the low 64 bits of the trace id as a signed number, its remainder by 10,000
without the sign.  A rate keeps the places up to its line, so that every replica, and a Java proxy beside us, keeps
the same traces, and a lower rate keeps a part of what a higher one keeps.

Between 0 and 1 the line is the proxy's (``place <= int(rate * 10_000)``).  At rate 0 that formula still keeps one
trace in 10,000: so does ``as_documented=False``; otherwise 0 keeps nothing, as it says.  Pure.
"""

from collections.abc import Mapping

PLACES = 10_000
# A line below every place, and one above: nothing and everything.
NOTHING = -1
EVERYTHING = PLACES

# What a span is sampled out by; also the labels of its count.
RATE = "rate"
SERVICE_RATE = "service_rate"
APPLICATION_RATE = "application_rate"
DURATION = "duration"
CEILING = "ceiling"
POLICIES = (RATE, SERVICE_RATE, APPLICATION_RATE, DURATION, CEILING)

Line = tuple[int, str]
"""The last place that is kept, and the policy that says so."""


def distance(trace_id: str) -> int:
    """A trace's place, 0..9999; the same for all its spans."""
    low = int(trace_id[-16:], 16)
    return (low if low < 0x8000000000000000 else 0x10000000000000000 - low) % 10_000


def line_of(rate: float, *, as_documented: bool) -> int:
    """The last place that ``rate`` (0..1) keeps."""
    if rate >= 1.0:
        return EVERYTHING
    if rate <= 0.0 and as_documented:
        return NOTHING
    return int(rate * PLACES)


class OwnRates:
    """Rates of single services (key ``APPLICATION/SERVICE``) and applications; the service's wins."""

    def __init__(self, rates: Mapping[str, Mapping[str, float]], *, as_documented: bool) -> None:
        def lines(group: str, policy: str) -> dict[str, Line]:
            found = rates.get(group, {})
            return {
                name: (line_of(rate, as_documented=as_documented), policy)
                for name, rate in found.items()
            }

        self._applications = lines("applications", APPLICATION_RATE)
        self._services = lines("services", SERVICE_RATE)

    def __bool__(self) -> bool:
        return bool(self._applications or self._services)

    def line(self, application: str, service: str, otherwise: Line) -> Line:
        if self._services:
            own = self._services.get(f"{application}/{service}")
            if own is not None:
                return own
        return self._applications.get(application, otherwise)
