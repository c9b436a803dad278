"""Rules that follow their file: read again when it changes, and kept when what it says now cannot be used.

A worker asks once a second; an unchanged file costs one ``stat``.  Kubernetes exchanges a mounted file by a link, which
changes its identity, so that is looked at as well.
"""

import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from tracefwd.compose import load_rules
from tracefwd.errors import ConfigError
from tracefwd.settings import Settings

if TYPE_CHECKING:
    from tracefwd.processor.rules import RuleSet

LOG = logging.getLogger(__name__)


class Ruled(Protocol):
    """Whatever goes by rules."""

    def exchange(self, rules: "RuleSet") -> None: ...


class RulesWatch:
    def __init__(
        self,
        settings: Settings,
        ruled: Ruled | None,
        read: "Callable[[Settings], RuleSet | None]" = load_rules,
    ) -> None:
        """``ruled`` holds what the file said at the start; None: there is no file to watch."""
        self._settings = settings
        self._ruled = ruled
        self._read = read
        self._seen = self._look()

    def check(self) -> None:
        """Exchange the rules if their file has changed; never raises."""
        if self._ruled is None:
            return
        seen = self._look()
        if seen == self._seen:
            return
        self._seen = seen
        try:
            rules = self._read(self._settings)
        except ConfigError as error:
            LOG.error(  # noqa: TRY400 - the message is for the operator, the trace would be for us
                "the rules file cannot be used, the rules before it go on: %s",
                "; ".join(error.problems),
            )
            return
        assert rules is not None
        self._ruled.exchange(rules)
        LOG.info(
            "rules read again: %d for spans, %d for points, %d for lines",
            len(rules.spans),
            len(rules.points),
            len(rules.lines),
        )

    def _look(self) -> tuple[int, int, int] | None:
        if self._ruled is None:
            return None
        try:
            found = os.stat(self._settings.rules.file)  # noqa: PTH116 - asked each second
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size
