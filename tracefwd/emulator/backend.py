"""What a Java proxy says to its backend (option ``server``), beside lines: check-ins and complaints.

The stand-in can be that backend, so that one sees what a Java proxy really sends, next to what tracefwd sends:

    POST …/v2/wfproxy/report?format=…    lines (trace, spanLogs, wavefront, histogram), as for direct ingestion
    POST …/v2/wfproxy/checkin            the proxy's own metrics; wants a configuration
    POST …/v2/wfproxy/…                  anything else is heard and forgotten

Pure.
"""

from typing import Any

REPORT = "report"
_MARK = "/v2/wfproxy/"
# What Wavefront tells its proxies; by their built-in 20 they would refuse most Envoy spans.
_TAGS_MAX = 50


def action_of(path: str) -> str | None:
    """``report``, ``checkin`` …; None for a path that is no proxy's.  What stands before depends on ``server``."""
    _, mark, action = path.partition(_MARK)
    return action.strip("/") if mark else None


def answer_to(action: str) -> dict[str, Any]:
    """The body of the 200 that a proxy wants to hear."""
    if action == "checkin":
        return {"validationConfiguration": {"spanAnnotationsCountLimit": _TAGS_MAX}}
    return {}
