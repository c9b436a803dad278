"""Does ``tracefwd doctor --proxy-conf`` say of a real proxy's file what that proxy then does?

Three proxies, each with a file of its own: plain, with a prefix, with point rules.  The doctor reads the file and sends
its test span through the proxy; the names that reach the backend are what is true.
"""

import json
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.processes import plain_environment, tracefwd
from tests.proxy.backend import Backend
from tests.proxy.real_proxy import real_proxy

_STEM = "tracing.derived.tracefwd-doctor.tracefwd-doctor.tracefwd-doctor"
_CALLS, _MILLIS = f"∆{_STEM}.invocation.count", f"∆{_STEM}.total_time.millis.count"
_DURATIONS = f"{_STEM}.duration.micros"
# A flush is 0.2 s; what has not come by then is not under way.
_ARRIVAL_S = 10.0
_ROOT = Path(__file__).parents[2]


def _ruled(metrics: int, folder: Path) -> Mapping[str, object]:
    rules = folder / "rules.yaml"
    rules.write_text(
        f"'{metrics}':\n"
        "  - {rule: rename, action: replaceRegex, scope: metricName, search: invocation, replace: calls}\n"
        "  - {rule: stop, action: block, scope: metricName, match: '.*total_time.*'}\n"
    )
    return {"preprocessorConfigFile": rules}


@dataclass(frozen=True)
class Case:
    """``told`` are the words of its warning about RED (none: a tick), ``crosses`` its crosses.

    ``checkin`` is what Wavefront says of the account.
    """

    name: str
    options: Callable[[int, Path], Mapping[str, object]]
    arrives: tuple[str, ...]
    told: tuple[str, ...] = ()
    crosses: tuple[str, ...] = ()
    checkin: Mapping[str, Any] = field(default_factory=dict)


CASES = (
    Case("plain", lambda *_: {}, (_CALLS, _MILLIS, _DURATIONS)),
    Case(
        "prefix=acme",
        lambda *_: {"prefix": "acme"},
        (_CALLS, _MILLIS, f"acme.{_DURATIONS}"),
        ("acme.tracing.derived", "∆ counters and ~ heartbeats keep their names"),
    ),
    Case(
        "point rules",
        _ruled,
        (f"∆{_STEM}.calls.count", _DURATIONS),
        ("rule rename changes RED", "rule stop blocks RED"),
    ),
    Case(
        "account without tracing and histograms",
        lambda *_: {},
        (_CALLS, _MILLIS),
        crosses=("account spans", "account span logs", "account distributions"),
        checkin={"traceDisabled": True, "spanLogsDisabled": True, "histogramDisabled": True},
    ),
)


def doctored(folder: Path, jar: Path, java: str, case: Case) -> list[str]:
    """What is wrong with the doctor's word, in words."""
    place = folder / f"doctor-{case.name.partition('=')[0].replace(' ', '-')}"
    place.mkdir()
    with (
        Backend(case.checkin) as backend,
        real_proxy(place, jar, java, backend.port, options=case.options) as proxy,
    ):
        command = tracefwd(
            "doctor", "--json", "--timeout", "20", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0",
            "--proxy-traces", proxy.traces, "--proxy-metrics", proxy.metrics,
            "--proxy-conf", str(place / "wavefront.conf"),
        )  # fmt: skip
        done = subprocess.run(
            command,
            cwd=_ROOT,
            env=plain_environment(),
            capture_output=True,
            timeout=120,
            check=False,
        )
        problems = _judged(case, done.returncode, json.loads(done.stdout))
        give_up_at = time.monotonic() + _ARRIVAL_S
        while _names(backend) != sorted(case.arrives) and time.monotonic() < give_up_at:
            time.sleep(0.1)
        if (names := _names(backend)) != sorted(case.arrives):
            problems.append(f"at the backend are {names}, not {sorted(case.arrives)}")
        spans = backend.lines().get("trace", [])
        if case.checkin:
            problems += [f"a span arrived: {spans}"] if spans else []
        elif len(spans) != 1 or '"application"="tracefwd-doctor"' not in spans[0]:
            problems.append(f"one test span should have arrived: {spans}")
        refused = {signal: lines for signal, lines in proxy.refused().items() if lines}
        # What a rule blocks is in the proxy's file of refused lines, too.
        if refused and "point rules" not in case.name:
            problems.append(f"the proxy refused {refused}")
    return [f"doctor, {case.name}: {problem}" for problem in problems]


def _judged(case: Case, code: int, tree: dict[str, Any]) -> list[str]:
    rows = {row["check"]: row for row in tree["checks"]}
    crosses = tuple(row["check"] for row in tree["checks"] if row["mark"] == "cross")
    problems = []
    if crosses != case.crosses or code != bool(crosses):
        problems.append(f"exit code {code}, crosses {crosses}, not {case.crosses}")
    problems += [
        f"{check} is {rows[check]['mark']}: {rows[check]['detail']}"
        for check in ("spans", "span logs", "points", "distributions", "trace port", "metrics port")
        if rows[check]["mark"] != "ok"
    ]
    red = [row for row in tree["checks"] if row["check"] == "RED on the metrics port"]
    words = " ".join(row["detail"] for row in red)
    if {row["mark"] for row in red} != {"warning" if case.told else "ok"}:
        problems.append(f"of RED it says {red}")
    problems += [
        f"of RED it does not say {text!r}: {words}" for text in case.told if text not in words
    ]
    return problems


def _names(backend: Backend) -> list[str]:
    lines = backend.lines()
    points = [line.split('"')[1] for line in lines.get("wavefront", []) if "doctor" in line]
    return sorted([*points, *(line.split('"')[1] for line in lines.get("histogram", []))])
