"""The arguments of every command, and an argparse that raises instead of leaving."""

import argparse
import math
from pathlib import Path
from typing import Any, NoReturn

from tracefwd.errors import TracefwdError

_SPANS_PER_SECOND_MAX = 1e6
# Said where sampling is shown for a body alone.
_NO_CEILING = "sampling.spans_per_second_max, which depends on the load, is left out"


class UsageError(TracefwdError):
    """The command line cannot be understood; ``prog`` is whose ``--help`` would explain it."""

    def __init__(self, prog: str, message: str) -> None:
        super().__init__(message)
        self.prog = prog


class Parser(argparse.ArgumentParser):
    """argparse that raises instead of leaving, and takes no abbreviations: a later flag must not change a script."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        raise UsageError(self.prog, message)


RUN_FLAGS = {
    "--listen": ("HOST:PORT", "where Envoys post their spans (default 0.0.0.0:9411)"),
    "--trace-listen": ("HOST:PORT", "also take Wavefront span lines here, over HTTP and TCP"),
    "--otlp-http": ("HOST:PORT", "also take OTLP over HTTP here (as --listen does at /v1/traces)"),
    "--otlp-grpc": ("HOST:PORT", "also take OTLP over gRPC here"),
    "--admin": ("HOST:PORT", "health, metrics, ledger (default 127.0.0.1:9412)"),
    "--proxy-traces": ("URL", "the Wavefront proxy's trace port, http://HOST:30000"),
    "--proxy-metrics": ("URL", "the Wavefront proxy's metrics port, http://HOST:2878"),
    "--direct": ("URL", "direct ingestion instead of a proxy, https://INSTANCE.wavefront.com"),
    "--token-file": ("FILE", "file with the API token"),
    "--profile": ("NAME", "mapping profile: istio (default) or wavefront-proxy"),
    "--workers": ("N", "processes that share the port (default 1)"),
    "--spool": ("DIR", "hold what is accepted on disk, in this folder (default: in memory)"),
    "--only": ("WHAT", "metrics: scrape prometheus_sources, take no spans; spans: do not scrape"),
}


# The keys of generator.connection.PROTOCOLS, likewise.
GEN_PROTOCOLS = ("zipkin-json", "zipkin-proto", "otlp-http", "otlp-grpc")
# The values of model.Signal, which would cost every --help an import.
SIGNALS = ("spans", "span_logs", "points", "distributions")


def add_config(parser: Parser) -> None:
    parser.add_argument("--config", metavar="FILE", type=Path, help="YAML configuration")


def add_profile(parser: Parser) -> None:
    metavar, text = RUN_FLAGS["--profile"]
    parser.add_argument("--profile", metavar=metavar, help=text)


def add_exact(parser: Parser) -> None:
    parser.add_argument(
        "--exact",
        action="store_const",
        const=True,
        help="profile wavefront-proxy: copy the Java proxy's defects, too",
    )


def add_json(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="JSON on standard output")


def add_run(parser: Parser) -> None:
    add_config(parser)
    parser.add_argument(
        "--wavefront-conf",
        metavar="FILE",
        type=Path,
        help="a Wavefront proxy's own wavefront.conf, below everything else",
    )
    # Values stay text here: the configuration checks them, and tells all mistakes together.
    for flag, (metavar, text) in RUN_FLAGS.items():
        parser.add_argument(flag, metavar=metavar, help=text)
    add_exact(parser)


def add_demo(parser: Parser) -> None:
    parser.add_argument("--seconds", metavar="N", type=_above_zero, help="end after N seconds")
    parser.add_argument(
        "--rate", metavar="R", type=_load, default=500.0, help="spans per second (500)"
    )
    parser.add_argument(
        "--otlp", action="store_true", help="the mesh exports by OTLP over gRPC instead of Zipkin"
    )


def add_gen(parser: Parser) -> None:
    add = parser.add_argument
    add("--to", metavar="URL", required=True, help="receiver, http://HOST:9411")
    add(
        "--protocol",
        choices=GEN_PROTOCOLS,
        default=GEN_PROTOCOLS[0],
        help=f"what Envoys speak ({GEN_PROTOCOLS[0]})",
    )
    add(
        "--rate",
        metavar="SPANS_PER_SECOND",
        type=_load,
        default=1000.0,
        help="offered load, whatever the receiver does (1000)",
    )
    add("--seconds", metavar="N", type=_above_zero, default=10.0, help="how long (10)")
    add("--connections", metavar="C", type=_count, default=16, help="like so many Envoys (16)")
    add("--seed", metavar="S", type=int, default=1, help="same seed, same spans (1)")
    add_client_files(parser)
    add_json(parser)


def add_client_files(parser: Parser) -> None:
    add = parser.add_argument
    add("--token-file", metavar="FILE", type=Path, help="its first line is shown as the token")
    add("--ca-file", metavar="FILE", type=Path, help="authorities (PEM) for https")
    add("--cert-file", metavar="FILE", type=Path, help="certificate and key (PEM) to show")


def add_emulate(parser: Parser) -> None:
    add = parser.add_argument
    add(
        "--listen",
        metavar="HOST:PORT",
        default="127.0.0.1:2878",
        help="metrics port, direct ingestion and queries (127.0.0.1:2878)",
    )
    add("--trace-listen", metavar="HOST:PORT", help="trace port")
    add("--record", metavar="FILE", type=Path, help="append every accepted line to this file")
    add("--version", metavar="V", default="current", help="imitate this proxy, such as 4.35")
    add("--token-file", metavar="FILE", type=Path, help="demand this API token")


def add_convert(parser: Parser) -> None:
    add_config(parser)
    add_profile(parser)
    add_exact(parser)
    parser.add_argument(
        "--metrics",
        action="store_true",
        help="the files are Prometheus expositions, such as an answer of /federate",
    )
    _add_source(parser)
    files_help = f"Zipkin bodies; - is stdin; {_NO_CEILING}"
    parser.add_argument("files", metavar="FILE", nargs="+", help=files_help)


def add_metrics(parser: Parser) -> None:
    parser.add_argument("action", choices=("check",), help="what to do with the exposition")
    add_config(parser)
    _add_source(parser)
    add_json(parser)
    parser.add_argument("file", metavar="FILE", help="a Prometheus exposition; - is stdin")


def _add_source(parser: Parser) -> None:
    parser.add_argument(
        "--source",
        metavar="NAME",
        default="",
        help="whose filters and names hold: one of prometheus_sources (default: the first)",
    )


def add_explain(parser: Parser) -> None:
    add_config(parser)
    add_profile(parser)
    add_json(parser)
    parser.add_argument("file", metavar="FILE", help=f"a Zipkin body; - is stdin; {_NO_CEILING}")


def add_rules(parser: Parser) -> None:
    parser.add_argument("action", choices=("test",), help="what to do with the rules")
    parser.add_argument(
        "--rules", metavar="FILE", type=Path, required=True, help="the preprocessor rules file"
    )
    parser.add_argument("--port", metavar="PORT", default="9411", help="its section (9411)")
    add_config(parser)
    add_profile(parser)
    add_json(parser)
    parser.add_argument("file", metavar="FILE", help="a Zipkin body; - is stdin")


def add_validate(parser: Parser) -> None:
    add_run(parser)
    add_json(parser)


def add_doctor(parser: Parser) -> None:
    add_run(parser)
    add = parser.add_argument
    add(
        "--proxy-conf",
        metavar="FILE",
        type=Path,
        help="the target proxy's own wavefront.conf: say what in it touches RED and spans",
    )
    add(
        "--no-send",
        action="store_true",
        help="send no test span and no test metrics (application tracefwd-doctor), but empty requests",
    )
    add(
        "--timeout",
        metavar="SECONDS",
        type=_above_zero,
        default=5.0,
        help="for each check; all run at once (5)",
    )
    add_json(parser)


def add_print_config(parser: Parser) -> None:
    add_run(parser)
    parser.add_argument(
        "--format", choices=("yaml", "json"), default="yaml", help="yaml (default) or json"
    )
    parser.add_argument("--origins", action="store_true", help="where each value comes from")


def add_import_conf(parser: Parser) -> None:
    parser.add_argument("file", metavar="FILE", type=Path, help="the proxy's wavefront.conf")
    parser.add_argument(
        "--output", metavar="FILE", default="-", help="where to write; - is standard output (-)"
    )


def add_spool(parser: Parser) -> None:
    add = parser.add_argument
    add(
        "action",
        choices=("ls", "cat", "verify", "drain", "export"),
        help="list; print lines; check all checksums; send everything and remove it; write lines to files",
    )
    add_run(parser)
    add("--lane", metavar="TARGET/SIGNAL", default="", help="cat: of this lane alone")
    add("--signal", choices=SIGNALS, help="export: of this signal alone")
    add("--output", metavar="DIR", type=Path, help="export: a file for each signal in this folder")
    add(
        "--seconds",
        metavar="N",
        type=_above_zero,
        default=300.0,
        help="drain: how long a target is waited for (300)",
    )
    add_json(parser)


def add_diff(parser: Parser) -> None:
    places = "a file of lines, or the URL of a stand-in (http://HOST:PORT)"
    parser.add_argument("a", metavar="A", help=places)
    parser.add_argument("b", metavar="B", help="the same, to compare with")
    parser.add_argument(
        "--examples", metavar="N", type=_count, default=3, help="examples of each kind (3)"
    )
    add_json(parser)


def _above_zero(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError("a number above zero is expected, such as 10")
    return value


def _load(text: str) -> float:
    """Whatever was due is sent, so far more than a machine can send would never end."""
    value = _above_zero(text)
    if value > _SPANS_PER_SECOND_MAX:
        raise argparse.ArgumentTypeError("at most 1000000 spans per second can be offered")
    return value


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text)):
        raise argparse.ArgumentTypeError("a whole number above zero is expected, such as 10")
    return int(text)


__all__ = [
    "RUN_FLAGS",
    "Parser",
    "UsageError",
    "add_client_files",
    "add_convert",
    "add_demo",
    "add_diff",
    "add_doctor",
    "add_emulate",
    "add_explain",
    "add_gen",
    "add_import_conf",
    "add_json",
    "add_metrics",
    "add_print_config",
    "add_run",
    "add_spool",
    "add_validate",
]
