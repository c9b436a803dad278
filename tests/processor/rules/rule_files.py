"""Rules files of one port, written as Python."""

from collections.abc import Mapping
from typing import Any

import yaml

from tracefwd.processor.rules import RuleSet, RulesFile, read_rules


def rules_file(*given: Mapping[str, Any], exact: bool = False) -> RulesFile:
    """The rules are named r0, r1, ... unless they have names."""
    named = [{"rule": f"r{index}", **rule} for index, rule in enumerate(given)]
    return read_rules(yaml.safe_dump({"1": named}), where="f", exact=exact)


def rules(*given: Mapping[str, Any], exact: bool = False) -> RuleSet:
    return rules_file(*given, exact=exact).for_port("1")
