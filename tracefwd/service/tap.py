"""``tracefwd tap``: spans of a running tracefwd as they come, a line each.

What a span says is a stranger's text: in lines it cannot move a terminal's cursor, colour it or turn it round
(``console/visible.py``), and as JSON everything beyond ASCII is escaped.  What goes by unseen is told
on standard error.
"""

import asyncio
import json
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tracefwd.console.visible import visible
from tracefwd.errors import StartError
from tracefwd.service.admin_client import AdminClient, AdminError, Reach, again

_SHOWN_TAGS = ("http.method", "http.url", "grpc.status_code", "response_flags", "error.message")


@dataclass(frozen=True)
class TapOptions:
    service: str
    error: bool
    min_duration_ms: float
    rate: float
    seconds: float | None
    json: bool


def run(where: Reach, options: TapOptions) -> int:
    """Until ``seconds`` are over or somebody interrupts; raises ``StartError`` if there is nothing to tap."""
    with suppress(KeyboardInterrupt):
        asyncio.run(_run(where, options))
    return 0


async def _run(where: Reach, options: TapOptions) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(options.seconds):
            await follow(where, options, _print, _tell)


async def follow(
    where: Reach, options: TapOptions, show: Callable[[str], None], tell: Callable[[str], None]
) -> None:
    """``show`` gets a line for each span, ``tell`` what is to be said beside; goes on over broken connections."""
    query = {
        "service": options.service,
        "error": "true" if options.error else "false",
        "min_duration_ms": f"{options.min_duration_ms:g}",
        "rate": f"{options.rate:g}",
    }
    connected = False
    async with AdminClient(where) as client:
        while True:
            try:
                async for line in client.lines("/api/v1/tap", query):
                    connected = True
                    _pass_on(line, options, show, tell)
            except AdminError as error:
                if not connected or not error.is_passing:
                    raise StartError(str(error)) from error
                tell(f"{error}; trying again")
            await again()


def _pass_on(
    line: bytes, options: TapOptions, show: Callable[[str], None], tell: Callable[[str], None]
) -> None:
    if not line:
        return
    document = json.loads(line)
    if options.json:
        # DEL is the one control character that JSON lets stand.
        show(json.dumps(document).replace("\x7f", "\\u007f"))
    elif document["type"] == "span":
        show(line_of(document["span"], document["tags"]))
    else:
        missed = [
            f"{document[name]:,} {words}"
            for name, words in (
                ("over_rate", "matched beyond --rate"),
                ("unexamined", "went by unexamined"),
                ("slow", "were too fast for this reader"),
            )
            if document[name]
        ]
        tell(f"missed: {', '.join(missed)}")


def line_of(row: dict[str, Any], tags: dict[str, str]) -> str:
    """One span for a person; every part is bounded."""
    moment = datetime.fromtimestamp(row["at"], UTC).strftime("%H:%M:%S.%f")[:-3]
    marks = [word for word, holds in (("ERROR", row["error"]), ("slow", row["slow"])) if holds]
    if row["fate"] != "kept":
        marks.append(row["fate"].replace("_", " "))
    more = [f"{key}={visible(tags[key], 120)}" for key in _SHOWN_TAGS if tags.get(key, "-") != "-"]
    parts = [
        moment,
        f"{visible(row['application'], 60)}/{visible(row['service'], 60)}",
        row["kind"] or "-",
        visible(row["operation"], 120),
        f"{row['duration_ms']:,.1f} ms",
        visible(row["status"], 20) or "-",
        *marks,
        *more,
        f"trace={visible(row['trace'], 40)}",
    ]
    return "  ".join(parts)


def _print(text: str) -> None:
    print(text, flush=True)


def _tell(text: str) -> None:
    print(f"tracefwd tap: {visible(text, 500)}", file=sys.stderr, flush=True)


__all__ = ["TapOptions", "follow", "line_of", "run"]
