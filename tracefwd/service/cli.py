"""The command line: parses, loads the configuration, hands over; every command's body lives elsewhere.

1. Exit codes: 0 fine, 1 failed, 2 usage or configuration.  Nothing starts before all mistakes are told.
2. A command imports its body when it is called: ``version`` and ``--help`` load neither YAML nor an event loop.
3. A refused argument is named, never repeated: it may be a secret given to a flag that does not exist.
"""

import argparse
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from tracefwd.errors import ConfigError, TracefwdError
from tracefwd.service import loading, output, signals
from tracefwd.service.arguments import (
    Parser,
    UsageError,
    add_convert,
    add_demo,
    add_diff,
    add_doctor,
    add_emulate,
    add_explain,
    add_gen,
    add_import_conf,
    add_json,
    add_metrics,
    add_print_config,
    add_rules,
    add_run,
    add_spool,
    add_validate,
)
from tracefwd.service.console_commands import CONSOLE_COMMANDS
from tracefwd.service.units import counted

FINE, FAILED, USAGE = 0, 1, 2


class Command(NamedTuple):
    """One row of the command table."""

    name: str
    purpose: str
    examples: tuple[str, ...]
    add_arguments: Callable[[Parser], None]
    execute: Callable[[argparse.Namespace], int]


# --- commands --------------------------------------------------------------------------------


def _run(arguments: argparse.Namespace) -> int:
    signals.before_the_loop()
    loaded = loading.load_checked(arguments)
    if loaded.wavefront is not None:
        from tracefwd.service import import_conf, logs

        logs.configure(loaded.settings.service)
        import_conf.log_account(loaded.wavefront, loaded.origins)
    from tracefwd.service import supervisor

    return supervisor.run(loaded, lambda: loading.load_checked(arguments))


def _demo(arguments: argparse.Namespace) -> int:
    from tracefwd.service import demo

    return demo.run(arguments.seconds, arguments.rate, arguments.otlp)


def _gen(arguments: argparse.Namespace) -> int:
    from tracefwd.service import gen

    return gen.run(arguments)


def _emulate(arguments: argparse.Namespace) -> int:
    from tracefwd.service import emulate, logs

    logs.setup("warning")
    options = emulate.EmulateOptions(
        listen=arguments.listen,
        trace_listen=arguments.trace_listen,
        record=arguments.record,
        version=arguments.version,
        token_file=arguments.token_file,
    )
    return emulate.run(options)


def _convert(arguments: argparse.Namespace) -> int:
    loaded = loading.load(arguments)
    from tracefwd.service import convert, logs

    logs.configure(loaded.settings.service)
    if arguments.metrics:
        from tracefwd.service import metrics_command

        return metrics_command.convert(loaded, arguments.files, arguments.source)
    return convert.run(loaded, arguments.files)


def _metrics(arguments: argparse.Namespace) -> int:
    loaded = loading.load(arguments)
    from tracefwd.service import logs, metrics_command

    logs.configure(loaded.settings.service)
    return metrics_command.check(loaded, arguments.file, arguments.source, as_json=arguments.json)


def _explain(arguments: argparse.Namespace) -> int:
    loaded = loading.load(arguments)
    from tracefwd.service import explain, logs

    logs.configure(loaded.settings.service)
    return explain.run(loaded, arguments.file, arguments.json)


def _rules(arguments: argparse.Namespace) -> int:
    from tracefwd.service import rules_test
    from tracefwd.service.config import load

    flags = {"rules.file": str(arguments.rules), "rules.port": arguments.port}
    loaded = load(arguments.config, os.environ, {**loading.flags(arguments), **flags})
    return rules_test.run(loaded, arguments.file, as_json=arguments.json)


def _diff(arguments: argparse.Namespace) -> int:
    from tracefwd.service import diff

    return diff.run(
        arguments.a, arguments.b, as_json=arguments.json, examples_max=arguments.examples
    )


def _spool(arguments: argparse.Namespace) -> int:
    from tracefwd.service import spool_command

    return spool_command.run(
        loading.load(arguments, runnable=arguments.action == "drain").settings, arguments
    )


def _validate(arguments: argparse.Namespace) -> int:
    from tracefwd.service import validate

    return validate.run(
        arguments.config,
        os.environ,
        loading.flags(arguments),
        wavefront_conf=arguments.wavefront_conf,
        as_json=arguments.json,
    )


def _doctor(arguments: argparse.Namespace) -> int:
    from tracefwd.service import doctor

    options = doctor.DoctorOptions(
        timeout_s=arguments.timeout,
        sends=not arguments.no_send,
        proxy_conf=arguments.proxy_conf,
        json=arguments.json,
    )
    return doctor.run(lambda: loading.load(arguments, runnable=True), options)


def _print_config(arguments: argparse.Namespace) -> int:
    from tracefwd.service.config import show

    loaded = loading.load(arguments)
    text = show(
        loaded.settings,
        loaded.origins,
        format=arguments.format,
        origins_shown=arguments.origins,
    )
    sys.stdout.write(text)
    if loaded.wavefront is not None:
        # Not on standard output: that is the configuration, and loads again.
        account = loaded.wavefront.account(loaded.origins)
        _complain([f"wavefront.conf, {remark.sentence}" for remark in account])
    return FINE


def _import_conf(arguments: argparse.Namespace) -> int:
    from tracefwd.service import import_conf

    return import_conf.run(arguments.file, arguments.output)


def _version(arguments: argparse.Namespace) -> int:
    from tracefwd import __version__

    facts = {
        "name": "tracefwd",
        "version": __version__,
        "python": ".".join(map(str, sys.version_info[:3])),
        "implementation": sys.implementation.name,
        "platform": sys.platform,
    }
    if arguments.json:
        import json

        print(json.dumps(facts))
    else:
        python = f"{facts['implementation']} {facts['python']}"
        print(f"tracefwd {__version__} ({python}, {facts['platform']})")
    return FINE


_TARGET_EXAMPLE = (
    "--proxy-traces http://wavefront-proxy:30000 --proxy-metrics http://wavefront-proxy:2878"
)

COMMANDS: Mapping[str, Command] = {
    command.name: command
    for command in (
        Command(
            "run",
            "Receive spans and forward them to Wavefront until SIGTERM.",
            (
                f"tracefwd run {_TARGET_EXAMPLE}",
                "tracefwd run --direct https://example.wavefront.com --token-file /etc/tracefwd/token",
                "tracefwd run --config tracefwd.yaml --workers 2",
            ),
            add_run,
            _run,
        ),
        Command(
            "demo",
            "Run forwarder, Wavefront stand-in and synthetic traffic on this machine.",
            ("tracefwd demo --seconds 20",),
            add_demo,
            _demo,
        ),
        Command(
            "gen",
            "Post a mesh's spans at a steady rate, as Envoys do, and report the answers.",
            ("tracefwd gen --to http://127.0.0.1:9411 --rate 5000 --seconds 30 --json",),
            add_gen,
            _gen,
        ),
        Command(
            "emulate",
            "Run the Wavefront stand-in alone: strict about formats and limits.",
            ("tracefwd emulate --listen 127.0.0.1:2878 --trace-listen 127.0.0.1:30000",),
            add_emulate,
            _emulate,
        ),
        Command(
            "convert",
            "Print the lines that run would send for Zipkin bodies or Prometheus expositions.",
            (
                "tracefwd convert spans.json",
                "tracefwd convert --profile wavefront-proxy - < spans",
                "tracefwd convert --metrics federate.txt --config tracefwd.yaml",
            ),
            add_convert,
            _convert,
        ),
        Command(
            "explain",
            "Say what becomes of every field and tag of a Zipkin body, and why.",
            ("tracefwd explain spans.json", "tracefwd explain --json - < spans.json"),
            add_explain,
            _explain,
        ),
        Command(
            "rules",
            "Show what preprocessor rules do to the spans of a Zipkin body, rule by rule.",
            ("tracefwd rules test --rules preprocessor_rules.yaml spans.json",),
            add_rules,
            _rules,
        ),
        Command(
            "diff",
            "Compare two recordings of lines and explain every difference.",
            (
                "tracefwd diff java.jsonl tracefwd.jsonl",
                "tracefwd diff --json http://127.0.0.1:2878 http://127.0.0.1:12878",
            ),
            add_diff,
            _diff,
        ),
        Command(
            "metrics",
            "Say what the filters let pass of a Prometheus exposition, and which listed names it lacks.",
            ("tracefwd metrics check --config tracefwd.yaml federate.txt",),
            add_metrics,
            _metrics,
        ),
        Command(
            "spool",
            "Look at what a spool holds, check it, write it out, or send it.",
            (
                "tracefwd spool ls --spool /var/lib/tracefwd",
                "tracefwd spool verify --config tracefwd.yaml",
                "tracefwd spool export --spool /var/lib/tracefwd --output lines",
                f"tracefwd spool drain --spool /var/lib/tracefwd {_TARGET_EXAMPLE}",
            ),
            add_spool,
            _spool,
        ),
        Command(
            "validate",
            "Check a configuration and list all its mistakes; start nothing.",
            ("tracefwd validate --config tracefwd.yaml",),
            add_validate,
            _validate,
        ),
        Command(
            "doctor",
            "Look at everything that run needs (ports, names, TLS, token, targets, disk) and say what to do.",
            (
                f"tracefwd doctor {_TARGET_EXAMPLE}",
                "tracefwd doctor --config tracefwd.yaml --proxy-conf wavefront.conf --json",
            ),
            add_doctor,
            _doctor,
        ),
        Command(
            "print-config",
            "Print the effective configuration, secrets masked.",
            ("tracefwd print-config --config tracefwd.yaml --origins",),
            add_print_config,
            _print_config,
        ),
        Command(
            "import-conf",
            "Write the configuration that equals a Wavefront proxy's wavefront.conf, and say what became of its lines.",
            (
                "tracefwd import-conf /etc/wavefront/wavefront-proxy/wavefront.conf --output tracefwd.yaml",
            ),
            add_import_conf,
            _import_conf,
        ),
        Command(
            "version",
            "Print the version.",
            ("tracefwd version --json",),
            add_json,
            _version,
        ),
        *(Command(*row) for row in CONSOLE_COMMANDS),
    )
}


# --- entry -----------------------------------------------------------------------------------

_ABOUT = """Forwards an Istio mesh's Zipkin spans to Wavefront.

commands:
{commands}

Options come from flags, over the environment (TRACEFWD_SECTION__KEY), over the file (--config), over a Wavefront
proxy's file (--wavefront-conf), over the defaults; 'tracefwd print-config --origins' shows them all."""


def _top_parser() -> Parser:
    rows = "\n".join(f"  {command.name:14}{command.purpose}" for command in COMMANDS.values())
    return Parser(
        prog="tracefwd",
        usage="tracefwd COMMAND [OPTIONS]",
        description=_ABOUT.format(commands=rows),
        epilog="example:\n  tracefwd demo --seconds 20\n\nexit codes: 0 fine, 1 failed, 2 usage or configuration",
    )


def command_parser(command: Command) -> Parser:
    """Public for the tests and the README's table of commands."""
    word = "example" if len(command.examples) == 1 else "examples"
    parser = Parser(
        prog=f"tracefwd {command.name}",
        description=command.purpose,
        epilog=f"{word}:\n" + "\n".join(f"  {example}" for example in command.examples),
    )
    command.add_arguments(parser)
    return parser


def _parse(argv: Sequence[str]) -> tuple[Command, argparse.Namespace] | int:
    """The command and its arguments, or an exit code when help was all that was asked for."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        top = _top_parser()
        top.print_help(sys.stdout if argv else sys.stderr)
        return FINE if argv else USAGE
    name = "version" if argv[0] == "--version" else argv[0]
    command = COMMANDS.get(name)
    if command is None:
        raise UsageError("tracefwd", _unknown_command(name))
    parser = command_parser(command)
    try:
        arguments, unknown = parser.parse_known_args(argv[1:])
    except SystemExit:
        # argparse has printed the help.
        return FINE
    if unknown:
        raise UsageError(parser.prog, _unknown_argument(parser, unknown))
    return command, arguments


def _unknown_command(name: str) -> str:
    import difflib

    if name.startswith("-"):
        return "the command comes first, then its flags"
    near = difflib.get_close_matches(name, COMMANDS, n=1)
    if near:
        return f"there is no such command; did you mean {near[0]}?"
    return f"there is no such command; commands are {', '.join(COMMANDS)}"


def _unknown_argument(parser: Parser, unknown: Sequence[str]) -> str:
    import difflib

    flags = [text.partition("=")[0] for text in unknown if text.startswith("--")]
    if not flags:
        # Not shown: it may be a secret whose flag was forgotten.
        return (
            f"{counted(len(unknown), 'argument')} too many; the value of an option needs its flag"
        )
    known = list(dict.fromkeys(re.findall(r"--[a-z][a-z-]*", parser.format_usage())))
    near = difflib.get_close_matches(flags[0], known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
    return f"there is no flag {flags[0]}; {hint}"


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code; nothing is raised for what a user, a file or the network did."""
    output.open_what_is_closed()
    try:
        parsed = _parse(sys.argv[1:] if argv is None else argv)
        if isinstance(parsed, int):
            return parsed
        command, arguments = parsed
        code = command.execute(arguments)
        sys.stdout.flush()
    except UsageError as exc:
        _complain([f"{exc.prog}: {exc}", f"'{exc.prog} --help' shows an example"])
        return USAGE
    except ConfigError as exc:
        _complain([f"tracefwd: {problem}" for problem in exc.problems])
        return USAGE
    except TracefwdError as exc:
        _complain([f"tracefwd: {line}" for line in str(exc).splitlines()])
        return FAILED
    except KeyboardInterrupt:
        return FAILED
    except OSError as exc:
        if sentence := output.sentence_of(exc):
            _complain([f"tracefwd: {sentence}"])
        output.leave()
        return FAILED
    return code


def _complain(lines: Sequence[str]) -> None:
    for line in lines:
        print(line, file=sys.stderr)


__all__ = ["COMMANDS", "Command", "Parser", "UsageError", "command_parser", "main"]
