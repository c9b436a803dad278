"""Judgement over a chaos run: what every acknowledged span, every double and every sum must come to.

A request is *doubtful* when its sender may not have known that it was taken, or not have put that down:

* it got no whole 2xx;
* its sender hung up (killed, or at the end of its patience) within ``NEWS_S`` after the 2xx was written, which is what
  a process may take to read it and note it down.  Who sends more on the connection has noted it, but for a batch of the
  spool: that is over when its file is gone, which a thread sees to, so there it is the connection's end that tells;
* it was a piece of a request that was too large, which is over only when its last piece is.

Only what was in a doubtful request may come again.

The service has a count of its own of what may come twice.  It survives every kill, so nothing may have come again that
is not in it.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.chaos import truth
from tests.chaos.sink import Sink, Taken
from tests.chaos.truth import Truth

# From an answer's last byte to the journal: a turn of the loop, on a machine that others use as well.
NEWS_S = 0.5
_STATES = ("delivered", "sampled_out", "blocked", "held")


@dataclass
class Verdict:
    """``faults`` is empty if every promise was kept."""

    figures: dict[str, int | float] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def expect(self, ok: bool, text: str) -> None:
        if not ok:
            self.faults.append(text)


def gap(section: dict[str, Any]) -> int:
    """0 where the section balances."""
    gone = sum(section[state] for state in _STATES)
    return int(
        section["received"]
        - gone
        - sum(section["rejected"].values())
        - sum(section["dropped"].values())
    )


def gaps(whole: dict[str, Any]) -> dict[str, int]:
    """Every section of a ledger that does not balance."""
    parts = {"spans": whole}
    parts |= {name: whole[name] for name in ("span_logs", "points", "distributions")}
    for target, by_signal in whole["targets"].items():
        parts |= {f"{target}/{signal}": part for signal, part in by_signal.items()}
    return {name: missing for name, part in parts.items() if (missing := gap(part))}


def judge(
    known: Truth,
    sink: Sink,
    ledger: dict[str, Any] | None,
    again: dict[str, int] | None = None,
) -> Verdict:
    """``ledger`` is the last one, of a service that holds nothing any more; ``again`` what it says may be doubled."""
    found = Verdict()
    states = known.states
    lost = [
        n for n, state in enumerate(states) if state == truth.ACKNOWLEDGED and n not in sink.first
    ]
    refused = [n for n in sink.first if states[n] == truth.REFUSED]
    found.figures |= known.counts() | {"arrived": len(sink.first), "lost": len(lost)}
    found.expect(not lost, f"{len(lost)} acknowledged spans never arrived, such as {lost[:5]}")
    found.expect(not refused, f"{len(refused)} refused spans arrived, such as {refused[:5]}")
    found.expect(not sink.unread, f"lines that nobody understands: {sink.unread[:3]}")
    _judge_doubles(found, sink)
    _judge_red(found, sink)
    if ledger is not None:
        _judge_ledger(found, sink, ledger)
    if again is not None:
        _judge_counts(found, again)
    return found


def _lag_s(taken: Taken) -> float | None:
    """From its answer until the sender hung up; 0 if it was never answered, None if it is certain that it was heard."""
    if taken.answered_at is None:
        return 0.0
    return None if taken.hung_up_at is None else taken.hung_up_at - taken.answered_at


def _is_doubtful(taken: Taken) -> bool:
    lag_s = _lag_s(taken)
    return taken.is_piece or (lag_s is not None and lag_s <= NEWS_S)


def _judge_doubles(found: Verdict, sink: Sink) -> None:
    bound = sum(len(taken.spans) for taken in sink.requests if _is_doubtful(taken))
    newest = dict(sink.first)
    wrong: list[int] = []
    told = ""
    lag_max_s = 0.0
    of_spool = 0
    for span, request in sink.again:
        before = sink.requests[newest[span]]
        newest[span] = request
        of_spool += before.is_spooled
        if not _is_doubtful(before):
            wrong.append(span)
            whose = "of the spool" if before.is_spooled else "of memory"
            told = f"a batch {whose}, hung up {_lag_s(before)} s after it"
        elif not before.is_piece:
            lag_max_s = max(lag_max_s, _lag_s(before) or 0.0)
    found.figures |= {
        "duplicates": len(sink.again),
        "duplicates_bound": bound,
        "duplicates_of_spool": of_spool,
        "duplicates_lag_s": round(lag_max_s, 3),
    }
    found.expect(
        not wrong,
        f"{len(wrong)} spans came again although their 2xx was read, such as {wrong[-5:]} ({told})",
    )
    found.expect(len(sink.again) <= bound, f"{len(sink.again)} duplicates, bound {bound}")


def _judge_red(found: Verdict, sink: Sink) -> None:
    """Series by series, three sums: spans that arrived <= sum <= the same + what was in doubtful requests."""
    arrived = Counter(truth.series_of(span) for span in sink.first)
    errors = Counter(truth.series_of(span) for span in sink.first if truth.is_error(span))
    for name, wanted in (("invocations", arrived), ("errors", errors), ("durations", arrived)):
        total: Counter[int] = Counter()
        doubtful: Counter[int] = Counter()
        for taken in sink.requests:
            counts: Counter[int] = getattr(taken, name)
            if counts:
                total.update(counts)
                if _is_doubtful(taken):
                    doubtful.update(counts)
        surplus = total.total() - wanted.total()
        found.figures |= {f"red_{name}": total.total(), f"red_{name}_surplus": surplus}
        if name == "invocations":
            found.figures["red_surplus_bound"] = doubtful.total()
            unanswered = [taken for taken in sink.requests if taken.answered_at is None]
            found.figures["red_unanswered"] = sum(t.invocations.total() for t in unanswered)
        for series in range(truth.SERIES):
            least, most = wanted[series], wanted[series] + doubtful[series]
            found.expect(
                least <= total[series] <= most,
                f"RED {name} of series {series}: {total[series]}, not within {least}..{most}",
            )


def _judge_counts(found: Verdict, again: dict[str, int]) -> None:
    figures = found.figures
    for signal, name in (
        ("spans", "duplicates"),
        ("points", "red_invocations_surplus"),
        ("distributions", "red_durations_surplus"),
    ):
        figures[f"{name}_counted"] = again[signal]
        found.expect(
            figures[name] <= again[signal],
            f"{name} {figures[name]}, but only {again[signal]} were counted as maybe doubled",
        )


def _judge_ledger(found: Verdict, sink: Sink, ledger: dict[str, Any]) -> None:
    """Whatever died, what was received is counted, once."""
    arrived = len(sink.first)
    found.figures |= {"ledger_received": ledger["received"], "ledger_held": ledger["held"]}
    found.expect(not gaps(ledger), f"the last ledger does not balance: {gaps(ledger)}")
    for state in ("received", "delivered"):
        found.expect(
            ledger[state] == arrived, f"ledger: {state} {ledger[state]}, but {arrived} arrived"
        )
    found.expect(not ledger["dropped"], f"ledger: dropped {ledger['dropped']}")
    found.expect(not ledger["rejected"], f"ledger: rejected {ledger['rejected']}")
