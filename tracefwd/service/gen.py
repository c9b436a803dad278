"""``tracefwd gen``: from its arguments to a load."""

import argparse

from tracefwd.service import logs
from tracefwd.service.client_files import tls_to, token_of


def run(arguments: argparse.Namespace) -> int:
    """``StartError`` for files that cannot be used."""
    from tracefwd.generator import load

    logs.setup("warning")
    options = load.GenOptions(
        to=arguments.to,
        rate=arguments.rate,
        seconds=arguments.seconds,
        connections=arguments.connections,
        seed=arguments.seed,
        json=arguments.json,
        protocol=arguments.protocol,
        token=token_of(arguments.token_file),
        tls=tls_to(arguments.to, arguments.ca_file, arguments.cert_file, "--to"),
    )
    return load.run(options)


__all__ = ["run"]
