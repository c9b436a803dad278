"""How the values of the Wavefront proxy's options become values of ours.

A rule takes the trimmed value, which is not blank, and gives our options by dotted key; it raises ``UnitError`` with
reason and suggestion for what the proxy could not use, either.  Where the proxy clamps, the rule clamps alike.

Pure.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tracefwd.service import units
from tracefwd.service.units import UnitError
from tracefwd.settings import RetrySettings

# Java's int.
_INT_MAX = 2**31 - 1
_INT = re.compile(r"[+-]?[0-9]{1,10}")
# Java's Double.parseDouble, without its hexadecimal form.
_DOUBLE = re.compile(
    r"[+-]?(?:[0-9]{1,20}\.?[0-9]{0,20}|\.[0-9]{1,20})(?:[eE][+-]?[0-9]{1,3})?[dDfF]?"
)
# What the proxy itself clamps to.
_BATCH_SPANS = (100, 5_000)
_BACKOFF_BASE_S = (1.0, 60.0)
_PORT_MAX = 65_535


@dataclass(frozen=True)
class Taken:
    """Our values by dotted key, and what is worth saying about them."""

    values: Mapping[str, Any]
    note: str = ""


Rule = Callable[[str], Taken]
"""Takes the trimmed value, which is not blank; raises ``UnitError`` with reason and suggestion."""


# --- how values are read ---------------------------------------------------------------------


def _int(text: str, low: int, example: str) -> int:
    if not _INT.fullmatch(text) or abs(int(text)) > _INT_MAX:
        raise UnitError(f"is not a whole number; write one such as {example}")
    value = int(text)
    if value < low:
        least = "zero or more" if low == 0 else "above zero"
        raise UnitError(f"must be {least}; write a whole number such as {example}")
    return value


def _double(text: str, example: str) -> float:
    value = float(text.rstrip("dDfF")) if _DOUBLE.fullmatch(text) else math.nan
    if not math.isfinite(value):
        raise UnitError(f"is not a number; write one such as {example}")
    return value


def _ports(text: str) -> list[int]:
    """A list of ports, as the proxy reads it: blank elements are nothing."""
    ports: list[int] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        if not _INT.fullmatch(part) or not 1 <= int(part) <= _PORT_MAX:
            raise UnitError("is no list of ports; write ports from 1 to 65535 with commas between")
        ports.append(int(part))
    return ports


# --- rules -----------------------------------------------------------------------------------


def first_port(key: str) -> Rule:
    """The first port, on all interfaces as in the proxy."""

    def rule(text: str) -> Taken:
        ports = _ports(text)
        if not ports:
            return Taken({}, "names no port")
        others = ", ".join(str(port) for port in ports[1:])
        note = f"one port only: let the senders of {others} use {ports[0]}" if others else ""
        return Taken({key: units.format_address("0.0.0.0", ports[0])}, note)  # noqa: S104

    return rule


def milliseconds(key: str, example: str, *, least: int = 1) -> Rule:
    def rule(text: str) -> Taken:
        return _duration(key, _int(text, least, example) / 1000)

    return rule


def seconds_or_never(key: str, example: str) -> Rule:
    """0 is never in the proxy; here it is the longest time."""

    def rule(text: str) -> Taken:
        return _duration(key, float(_int(text, 0, example) or math.inf))

    return rule


def _duration(key: str, seconds: float) -> Taken:
    longest = float(units.DURATION_S_MAX)
    if seconds > longest:
        return Taken({key: longest}, "the longest time there is")
    return Taken({key: seconds})


def count(key: str, example: str) -> Rule:
    return lambda text: Taken({key: _int(text, 1, example)})


def as_it_is(key: str) -> Rule:
    return lambda text: Taken({key: text})


def path(key: str) -> Rule:
    def rule(text: str) -> Taken:
        if "\0" in text or "\n" in text:
            raise UnitError("is no path; write the file's path")
        return Taken({key: text})

    return rule


def words(key: str) -> Rule:
    """A list with commas between; each word once, blank ones are nothing."""

    def rule(text: str) -> Taken:
        found = filter(None, (part.strip() for part in text.split(",")))
        return Taken({key: list(dict.fromkeys(found))})

    return rule


def sampling_rate(text: str) -> Taken:
    rate = _double(text, "0.25")
    if not 0 <= rate <= 1:
        raise UnitError("is out of range; write a value from 0.0 to 1.0")
    return Taken({"sampling.rate": rate})


def sampling_duration(text: str) -> Taken:
    taken = milliseconds("sampling.duration", "5000", least=0)(text)
    if not taken.values["sampling.duration"]:
        return taken
    note = (
        "without a rate below 1 only these spans are kept, as the proxy documents it; "
        "proxies since 8.1 keep all of them (sampling.as_documented: false)"
    )
    return Taken(taken.values, note)


def batch_items(text: str) -> Taken:
    wanted = _int(text, 0, "5000")
    low, high = _BATCH_SPANS
    items = min(max(wanted, low), high)
    note = "" if items == wanted else f"kept within {low} to {high}, as in the proxy"
    return Taken({"exporter.batch_items_max": items}, note)


def backoff_base(text: str) -> Taken:
    """The proxy waits one to two times its base after a first failure; the ceiling must not be below it."""
    wanted = _double(text, "2.0")
    low, high = _BACKOFF_BASE_S
    # Finer than a microsecond cannot be written.
    base_s = round(min(max(wanted, low), high), 6)
    values = {"exporter.retry.backoff_base": base_s}
    if base_s > RetrySettings().backoff_max:
        values["exporter.retry.backoff_max"] = base_s
    clamped = not low <= wanted <= high
    return Taken(values, f"kept within {low:g}s to {high:g}s, as in the proxy" if clamped else "")


def true_or_false(key: str) -> Rule:
    def rule(text: str) -> Taken:
        if text.lower() not in ("true", "false"):
            raise UnitError("is neither true nor false; write true or false")
        return Taken({key: text.lower() == "true"})

    return rule


__all__ = [
    "Rule",
    "Taken",
    "as_it_is",
    "backoff_base",
    "batch_items",
    "count",
    "first_port",
    "milliseconds",
    "path",
    "sampling_duration",
    "sampling_rate",
    "seconds_or_never",
    "true_or_false",
    "words",
]
