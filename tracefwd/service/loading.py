"""From a command's arguments to the configuration that holds for it.

The loader itself is imported when it is called: ``--help`` needs no YAML.
"""

import argparse
import os
from typing import TYPE_CHECKING, Any

from tracefwd.errors import StartError
from tracefwd.service.arguments import RUN_FLAGS

if TYPE_CHECKING:
    from tracefwd.service.config import Loaded


def flags(arguments: argparse.Namespace) -> dict[str, Any]:
    """The given ones among the flags that are short for options, as typed."""
    names = [*RUN_FLAGS, "--exact"]
    values = {name: getattr(arguments, name[2:].replace("-", "_"), None) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def load(arguments: argparse.Namespace, *, runnable: bool = False) -> "Loaded":
    """Raises ``ConfigError`` with all mistakes; ``runnable`` as in ``config.load``."""
    from tracefwd.service import config

    conf = getattr(arguments, "wavefront_conf", None)
    given = flags(arguments)
    return config.load(arguments.config, os.environ, given, wavefront_conf=conf, runnable=runnable)


def load_checked(arguments: argparse.Namespace) -> "Loaded":
    """What can be run: every file that it names is there, too.  Raises ``StartError`` for those that are not."""
    from tracefwd.service.config import check_files

    loaded = load(arguments, runnable=True)
    unreadable = check_files(loaded.settings)
    if unreadable:
        raise StartError("\n".join(unreadable))
    return loaded


__all__ = ["flags", "load", "load_checked"]
