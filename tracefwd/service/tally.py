"""The parent's sum over its workers, living and dead.

1. Every part is a whole snapshot, so every sum balances.  While workers are exchanged, two of one slot live and count.
2. Sums of counters never go backwards: when a worker dies, its last snapshot is added to a base.  Its gauges go with
   it.  What it held is gone and becomes ``dropped{crash}``.
3. What a worker did between its last snapshot and its death (at most a second's worth) is unknown: spans that
   came in then are in no count, spans that were delivered then count as dropped.
4. A worker with a journal leaves its whole ledger there, to the last turn.  Its last snapshot stands in for it until a
   worker says that it has adopted that journal.  So do the few counters that a journal has as well.
5. Batches in the spool of one without a journal outlive it: they stay held until a successor of its slot speaks, who
   finds them there and counts them as received.  (Those that were being sent count as dropped, and again as received.)

Pure.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from tracefwd import ledger, metrics
from tracefwd.ledger import Section
from tracefwd.limits import REJECT_SAMPLES_MAX
from tracefwd.model import Signal
from tracefwd.service.control import Gathered, Noticed, Snapshot

# Beside the top level, which counts spans for the primary target.
SECTIONS = (Signal.SPAN_LOGS, Signal.POINTS, Signal.DISTRIBUTIONS)
_JOURNALLED = (
    "tracefwd_exporter_maybe_duplicated_items_total",
    "tracefwd_exporter_red_maybe_doubled_total",
)
STATES = ("received", "delivered", "sampled_out", "blocked", "rejected", "dropped", "held")


class Life(NamedTuple):
    """One worker process: its slot, and the how manieth of the slot it is."""

    slot: int
    number: int


def empty_ledger() -> dict[str, Any]:
    """The shape of every ledger, of a worker or of all."""
    return {
        **ledger.empty_section(),
        **{signal.value: ledger.empty_section() for signal in SECTIONS},
        "targets": {},
    }


def sections(whole: dict[str, Any]) -> dict[str, Section]:
    """Every section of a ledger under a name for people: ``spans``, ``points``, ``targets.a.spans``."""
    found: dict[str, Any] = {Signal.SPANS.value: whole}
    found.update((signal.value, whole[signal.value]) for signal in SECTIONS)
    for target, by_signal in whole["targets"].items():
        found.update((f"targets.{target}.{name}", part) for name, part in by_signal.items())
    return found


def by_state(section: Section) -> dict[str, int]:
    """A section with its reasons summed up."""
    return {
        **section,  # type: ignore[dict-item]  # the two mappings are replaced here
        "rejected": sum(section["rejected"].values()),
        "dropped": sum(section["dropped"].values()),
    }


def balance(whole: dict[str, Any], *, ended: bool = False) -> tuple[bool, str]:
    """Whether every section of the ledger balances, and one line that says so for its spans.

    ``ledger balanced: received 12 = delivered 10 + rejected 2 (syntax 2)``, or what is missing where.  ``ended``: no
    worker lives, so what is held is held by the spool.  Where no span ever came, it is for points.
    """
    missing = {
        name: gap for name, part in sections(whole).items() if (gap := ledger.imbalance(part))
    }
    points = whole[Signal.POINTS.value]
    is_points = points["received"] and not whole["received"]
    left, terms = _equation(points if is_points else whole, ended=ended)
    left = f"points {left}" if is_points else left
    if not missing:
        return True, f"ledger balanced: {left} = {terms}"
    gaps = ", ".join(f"{name} {gap:+d}" for name, gap in missing.items())
    return False, f"ledger NOT balanced: missing {gaps}; {left} ≠ {terms}"


def _equation(part: dict[str, Any], *, ended: bool) -> tuple[str, str]:
    """The two sides of a section's law."""
    terms = [f"delivered {part['delivered']}"]
    terms += [f"{state} {part[state]}" for state in ("sampled_out", "blocked") if part[state]]
    for state in ("rejected", "dropped"):
        if reasons := {reason: count for reason, count in part[state].items() if count}:
            detail = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
            terms.append(f"{state} {sum(reasons.values())} ({detail})")
    if part["held"]:
        terms.append(f"held {part['held']}{' (left in the spool)' if ended else ''}")
    return f"received {part['received']}", " + ".join(terms)


def _deaf(life: Life, news: Noticed | Gathered | None) -> None:
    """Nobody wants to know."""


class Tally:
    """The base of the dead plus the last snapshot of each living worker.

    ``hear`` gets what workers say beside their snapshots, and None when one has gone.
    """

    def __init__(self, hear: Callable[[Life, Noticed | Gathered | None], None] = _deaf) -> None:
        self.hear = hear
        self._base = empty_ledger()
        self._base_samples: metrics.Samples = {}
        self._base_rejected: list[dict[str, str]] = []
        self._latest_rejected: dict[Life, list[dict[str, str]]] = {}
        self._latest_refused: dict[Life, list[dict[str, str]]] = {}
        self._latest_sources: dict[Life, list[dict[str, Any]]] = {}
        self._latest: dict[Life, Snapshot] = {}
        # By journal: the ledgers of the dead that nobody has adopted yet.
        self._left: dict[str, dict[str, Any]] = {}
        self._left_samples: dict[str, metrics.Samples] = {}
        # By slot: what rests in the spools of dead workers without a journal, as held.
        self._resting: dict[int, dict[str, Any]] = {}

    def update(self, life: Life, snapshot: Snapshot) -> None:
        self._resting.pop(life.slot, None)
        for name in snapshot.adopted:
            self._left.pop(name, None)
            self._left_samples.pop(name, None)
        self._latest[life] = snapshot
        if snapshot.rejected_samples is not None:
            self._latest_rejected[life] = snapshot.rejected_samples
        if snapshot.refused_lines is not None:
            self._latest_refused[life] = snapshot.refused_lines
        if snapshot.sources is not None:
            self._latest_sources[life] = snapshot.sources

    def sources(self, life: Life) -> list[dict[str, Any]]:
        """What a living scraper said when somebody last asked."""
        return self._latest_sources.get(life, [])

    def latest(self, life: Life) -> Snapshot | None:
        return self._latest.get(life)

    def lanes(self) -> list[list[dict[str, Any]]]:
        """What each living worker says of its lanes."""
        return [snapshot.lanes for snapshot in self._latest.values()]

    def refused_lines(self) -> list[dict[str, str]]:
        """Single lines that targets refused, newest first; of the living."""
        return _newest_first([line for part in self._latest_refused.values() for line in part])

    def retire(self, life: Life) -> int:
        """The worker is dead: fold its last snapshot into the base.  Spans that are lost by that are returned."""
        self.hear(life, None)
        self._latest_refused.pop(life, None)
        snapshot = self._latest.pop(life, None)
        if snapshot is None:
            return 0
        samples = _samples(snapshot, counters_only=True)
        lost = 0
        if snapshot.journal:
            self._left[snapshot.journal] = snapshot.ledger
            self._left_samples[snapshot.journal] = {
                name: samples.pop(name) for name in _JOURNALLED if name in samples
            }
        else:
            resting = self._resting.setdefault(life.slot, empty_ledger())
            ledger.add(resting, _take_resting(snapshot))
            lost = snapshot.ledger["held"]
            _crash(snapshot.ledger, samples)
            ledger.add(self._base, snapshot.ledger)
        metrics.add(self._base_samples, samples)
        self._latest_sources.pop(life, None)
        rejected = self._latest_rejected.pop(life, [])
        self._base_rejected = _newest_first(rejected + self._base_rejected)[:REJECT_SAMPLES_MAX]
        return lost

    def ledger(self) -> dict[str, Any]:
        total = empty_ledger()
        for left in (self._base, *self._left.values(), *self._resting.values()):
            ledger.add(total, left)
        for snapshot in self._latest.values():
            ledger.add(total, snapshot.ledger)
        return total

    def samples(self) -> metrics.Samples:
        total: metrics.Samples = {}
        for left in (self._base_samples, *self._left_samples.values()):
            metrics.add(total, left)
        for snapshot in self._latest.values():
            metrics.add(total, _samples(snapshot))
        return total

    def rejected_samples(self) -> list[dict[str, str]]:
        """Newest first; of the dead, those that somebody asked for while they lived."""
        living = [sample for part in self._latest_rejected.values() for sample in part]
        return _newest_first(living + self._base_rejected)


def _samples(snapshot: Snapshot, *, counters_only: bool = False) -> metrics.Samples:
    """As a mapping; ``counters_only`` leaves out what a dead worker no longer has."""
    found: metrics.Samples = {}
    for name, labels, value in snapshot.samples:
        metric = metrics.BY_NAME.get(name)
        if counters_only and metric is not None and metric.kind == "gauge":
            continue
        found.setdefault(name, {})[labels] = value
    return found


def _take_resting(snapshot: Snapshot) -> dict[str, Any]:
    """Takes the lines that rest in the worker's spool off its ledger; they become a ledger of their own."""
    whole, resting = snapshot.ledger, empty_ledger()
    for name, labels, number in snapshot.samples:
        if name != "tracefwd_spool_items":
            continue
        target, signal = labels
        part = whole["targets"].get(target, {}).get(signal)
        if part is None:
            continue  # no target of ours: nobody counts it as held
        items = min(int(number), part["held"])
        own = resting["targets"].setdefault(target, {}).setdefault(signal, ledger.empty_section())
        # Only the primary has a spool, and it is the primary that the sections beside the targets count for.
        all_spans = signal == Signal.SPANS.value
        pairs = [(part, own), (whole, resting) if all_spans else (whole[signal], resting[signal])]
        for given, taken in pairs:
            for state in ("received", "held"):
                given[state] -= items
                taken[state] += items
    return resting


def _newest_first(samples: list[dict[str, str]]) -> list[dict[str, str]]:
    return sorted(samples, key=lambda sample: float(sample["at"]), reverse=True)


def _crash(whole: dict[str, Any], samples: metrics.Samples) -> None:
    """What is held in any section is dropped, in the metrics as well."""
    dropped = samples.setdefault("tracefwd_exporter_dropped_items_total", {})
    for target, by_signal in whole["targets"].items():
        for signal, part in by_signal.items():
            if part["held"]:
                labels = (target, signal, "crash")
                dropped[labels] = dropped.get(labels, 0) + part["held"]
    for part in sections(whole).values():
        if part["held"]:
            part["dropped"]["crash"] = part["dropped"].get("crash", 0) + part["held"]
            part["held"] = 0
