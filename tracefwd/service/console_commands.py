"""Commands that look at a running tracefwd over its admin API: their rows for the table in ``cli.py``.

They share how they reach it: address, token, certificates.
"""

import argparse
import shlex
import sys
from collections.abc import Callable

from tracefwd.errors import StartError
from tracefwd.service.arguments import Parser, add_client_files, add_json
from tracefwd.service.units import UnitError, parse_duration

DEFAULT_ADMIN = "http://127.0.0.1:9412"
TAP_RATE_MAX = 1_000.0
HISTORY_S = 3_600.0
# The extra ``top`` of pyproject.toml, which has no name that a package index would know.
TEXTUAL = "textual>=1,<9"

Row = tuple[
    str,
    str,
    tuple[str, ...],
    Callable[[Parser], None],
    Callable[[argparse.Namespace], int],
]


def add_reach(parser: Parser) -> None:
    add = parser.add_argument
    add(
        "--admin",
        metavar="URL",
        default=DEFAULT_ADMIN,
        help=f"the admin port of a running tracefwd ({DEFAULT_ADMIN})",
    )
    add_client_files(parser)


def add_tap(parser: Parser) -> None:
    add_reach(parser)
    add = parser.add_argument
    add("--service", metavar="NAME", default="", help="of this service alone")
    add("--error", action="store_true", help="errors alone")
    add(
        "--min-duration",
        metavar="D",
        type=_duration,
        default=0.0,
        help="at least this long, such as 250ms",
    )
    add(
        "--rate",
        metavar="R",
        type=_rate,
        default=20.0,
        help="most spans a second, up to 1000 (20)",
    )
    add("--seconds", metavar="N", type=_seconds, help="end after N seconds")
    add_json(parser)


def _duration(text: str) -> float:
    try:
        return parse_duration(text)
    except UnitError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _rate(text: str) -> float:
    value = _seconds(text)
    if value > TAP_RATE_MAX:
        raise argparse.ArgumentTypeError(f"at most {TAP_RATE_MAX:g} spans a second are shown")
    return value


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError("a number above zero is expected, such as 10")
    return value


def _tap(arguments: argparse.Namespace) -> int:
    from tracefwd.service import tap
    from tracefwd.service.admin_client import reach

    options = tap.TapOptions(
        service=arguments.service,
        error=arguments.error,
        min_duration_ms=arguments.min_duration * 1e3,
        rate=arguments.rate,
        seconds=arguments.seconds,
        json=arguments.json,
    )
    return tap.run(reach(arguments), options)


def add_report(parser: Parser) -> None:
    add_reach(parser)
    add = parser.add_argument
    add(
        "--since",
        metavar="D",
        type=_since,
        default=HISTORY_S,
        help="how far back: up to the hour that is kept (1h)",
    )
    add(
        "--output",
        metavar="FILE",
        default="tracefwd-report.html",
        help="where to write; - is standard output (tracefwd-report.html)",
    )


def _since(text: str) -> float:
    seconds = _duration(text)
    if not 60 <= seconds <= HISTORY_S:
        raise argparse.ArgumentTypeError("from 1m to 1h, which is what is kept")
    return seconds


def _report(arguments: argparse.Namespace) -> int:
    from tracefwd.service import report
    from tracefwd.service.admin_client import reach

    options = report.ReportOptions(output=arguments.output, since_s=arguments.since)
    return report.run(reach(arguments), options)


def _top(arguments: argparse.Namespace) -> int:
    from tracefwd.service.admin_client import reach

    try:
        from tracefwd.service import top
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("textual", "rich"):
            raise
        command = shlex.join([sys.executable, "-m", "pip", "install", TEXTUAL])
        raise StartError(f"top needs Textual, which is not installed; run {command}") from error
    return top.run(reach(arguments))


CONSOLE_COMMANDS: tuple[Row, ...] = (
    (
        "top",
        "Watch a running tracefwd in a terminal: flow, services, targets, what was refused.",
        ("tracefwd top --admin https://tracefwd:9412 --token-file token",),
        add_reach,
        _top,
    ),
    (
        "tap",
        "Print spans of a running tracefwd as they come; what goes by unseen is counted.",
        (
            "tracefwd tap --service reviews --error",
            "tracefwd tap --min-duration 250ms --rate 5 --json",
        ),
        add_tap,
        _tap,
    ),
    (
        "report",
        "Write what a running tracefwd's console shows as one HTML file, to attach to a ticket.",
        ("tracefwd report --since 1h --output report.html",),
        add_report,
        _report,
    ),
)

__all__ = ["CONSOLE_COMMANDS", "add_reach"]
