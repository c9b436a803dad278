"""Breaker: may a lane send to this destination now?  Pure: time is an argument (seconds of any clock).

Three states.  *Up*: attempts flow; after a failure the lane takes a breath (``ready_at``), so that a target which
fails fast is not hammered by fresh batches.  *Down*: after ``FAILURES_MIN`` outages in a row over at least
``OUTAGE_S``; one probe (a real batch) at a time until one succeeds, everything else goes elsewhere or waits.
*Paused*: our credentials were refused; one probe at a time as well, but nothing goes elsewhere.

An answer that says "not now" (429, an expired token) is a failure but no outage: somebody is there, and
another destination would not be better.
"""

from math import inf

# A proxy's restart takes longer than a lost connection: five failures over five seconds tell them apart.
FAILURES_MIN = 5
OUTAGE_S = 5.0
# Between probes of a destination that is down, ± half: quick to return, and one request is no load.
PROBE_S = 3.0
# Between probes of one that refuses our credentials, ± half: a person or a rotation mends that, no hurry does.
PAUSE_S = 10.0


class Breaker:
    """One destination as one lane sees it."""

    __slots__ = (
        "_last_failure_at",
        "_outage_since",
        "_outages",
        "down",
        "failures",
        "paused",
        "probing",
        "ready_at",
        "rounds",
    )

    def __init__(self) -> None:
        self.down = False
        self.paused = False
        self.probing = False
        self.ready_at = 0.0
        self.failures = 0
        self.rounds = 0
        self._last_failure_at = -inf
        self._outages = 0
        self._outage_since = 0.0

    @property
    def open(self) -> bool:
        """Only a probe may go."""
        return self.down or self.paused

    def launched(self) -> bool:
        """An attempt starts; True: it is the probe, and no other starts before ``probed``."""
        if self.open:
            self.ready_at = inf
            self.probing = True
        return self.open

    def probed(self) -> None:
        """The probe has ended; one of ``succeeded`` and ``failed`` with ``wait`` is next."""
        self.probing = False

    def succeeded(self) -> None:
        """Somebody answered, and did not ask us to come again later."""
        self.down = False
        self.paused = False
        self.ready_at = 0.0
        self.failures = 0
        self.rounds = 0
        self._outages = 0

    def failed(self, now: float, launched_at: float, *, outage: bool) -> None:
        """Count a failed attempt; the caller says ``wait`` next, for as long as what it finds here asks for.

        ``rounds`` counts failures that began after the one before had ended: several requests that fail
        together are one reason to wait, not several.
        """
        self.failures += 1
        if launched_at >= self._last_failure_at:
            self.rounds += 1
        self._last_failure_at = now
        if not outage:
            self._outages = 0
            return
        if self._outages == 0:
            self._outage_since = now
        self._outages += 1
        if self._outages >= FAILURES_MIN and now - self._outage_since >= OUTAGE_S:
            self.down = True

    def wait(self, until: float) -> None:
        """Not before ``until``; an attempt that began before the probe does not make way for a second one."""
        if not self.probing:
            self.ready_at = until


def probe_wait_s(unit: float) -> float:
    """Seconds until the next probe; ``unit`` is 0 to 1."""
    return PROBE_S * (0.5 + unit)


def pause_s(unit: float) -> float:
    """Seconds until refused credentials are tried again; ``unit`` is 0 to 1."""
    return PAUSE_S * (0.5 + unit)
