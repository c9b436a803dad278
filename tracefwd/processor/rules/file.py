"""A rules file: YAML of ports and their rules, read whole, with every mistake at once.

A key is a port, several ports with commas, or ``global``.  In the proxy, ``global`` rules go to the ports that were
named **before** it, at its place in their order, and to no other.  So they do here: a file must not begin to touch
ports that it did not touch before.  What is surprising about that is said in ``RulesFile.notes``.  A caller that is
none of the proxy's ports asks for port None and gets the ``global`` rules alone, wherever they stand.
"""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import NamedTuple

import yaml

from tracefwd.errors import ConfigError
from tracefwd.processor.rules.arguments import Arguments
from tracefwd.processor.rules.catalogue import ACTIONS, LINE_ACTIONS, LOG_ACTIONS, Action, Identity
from tracefwd.processor.rules.keys import KeyTable
from tracefwd.processor.rules.line_actions import SCOPES
from tracefwd.processor.rules.rule import AnyRule, LineRule, PointRule, SpanRule
from tracefwd.processor.rules.rule_set import RuleSet
from tracefwd.processor.rules.subject import SPAN

_GLOBAL = "global"
# What a metric's name may hold of a rule's.
_ID_BAD = re.compile(r"[^a-z0-9_-]")


class Section(NamedTuple):
    """The rules below one key.  ``ports`` is empty for ``global``."""

    ports: tuple[str, ...]
    rules: tuple[AnyRule, ...]


class RulesFile:
    """A file without mistakes.  ``notes`` are sentences for the log: what is legal and may surprise."""

    def __init__(self, sections: Sequence[Section], notes: Sequence[str], keys: KeyTable) -> None:
        self.sections = sections
        self.notes = notes
        self.keys = keys

    def ports(self) -> list[str]:
        """The ports that the file names, in its order."""
        return list(dict.fromkeys(port for section in self.sections for port in section.ports))

    def for_port(self, port: str | None) -> RuleSet:
        """A new rule set, counting from 0, for a port or (None) for what is no port of the proxy."""
        rules: list[AnyRule] = []
        named = port is None
        for section in self.sections:
            if port is not None and port in section.ports:
                named = True
                rules += section.rules
            elif not section.ports and named:
                rules += section.rules
        return RuleSet(
            [rule for rule in rules if type(rule) is SpanRule],
            [rule for rule in rules if isinstance(rule, PointRule)],
            [rule for rule in rules if isinstance(rule, LineRule)],
            keys=self.keys,
        )


def read_rules(text: str, *, where: str, exact: bool = False) -> RulesFile:
    """Read a rules file; raises ``ConfigError`` with every mistake: file, line, rule, reason, suggestion.

    ``where`` is the file's name in messages.  ``exact`` copies the proxy's defects (see the package's docstring).
    """
    reader = _Reader(where, exact=exact)
    sections = reader.read(text)
    if reader.problems:
        raise ConfigError(reader.problems)
    reader.keys.learn(())
    return RulesFile(sections, [*reader.notes, *_surprises(where, sections)], reader.keys)


def _surprises(where: str, sections: Sequence[Section]) -> list[str]:
    notes = []
    for index, section in enumerate(sections):
        if section.ports or not section.rules:
            continue
        before = {port for earlier in sections[:index] for port in earlier.ports}
        after = [port for later in sections[index + 1 :] for port in later.ports]
        if not before:
            notes.append(f"{where}: global rules apply to ports named before them, and none is")
        missed = [port for port in dict.fromkeys(after) if port not in before]
        if missed:
            notes.append(
                f"{where}: global rules do not apply to {', '.join(missed)}, named after them"
            )
    return notes


class _Loader(yaml.SafeLoader):
    """Builds sections one by one, so that a rule's line is known."""


class _Reader:
    def __init__(self, where: str, *, exact: bool) -> None:
        self.where = where
        self.exact = exact
        self.problems: list[str] = []
        self.notes: list[str] = []
        self.keys = KeyTable()

    def read(self, text: str) -> list[Section]:
        loader = None
        try:
            loader = _Loader(text)
            root = loader.get_single_node()
            return [] if root is None else self._sections(loader, root)
        except yaml.YAMLError as error:
            self._unreadable(error)
        except RecursionError:
            self._problem(1, "the file is nested too deep", "")
        finally:
            if loader is not None:
                loader.dispose()
        return []

    def _unreadable(self, error: yaml.YAMLError) -> None:
        mark = getattr(error, "problem_mark", None)
        line = 1 if mark is None else mark.line + 1
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        self._problem(line, f"this is no YAML: {reason}", "check quotes, colons and indentation")

    def _problem(self, line: int, reason: str, suggestion: str, rule: str = "") -> None:
        about = f"rule '{rule}': " if rule else ""
        advice = f"; {suggestion}" if suggestion else ""
        self.problems.append(f"{self.where}:{line}: {about}{reason}{advice}")

    def _sections(self, loader: _Loader, root: yaml.Node) -> list[Section]:
        if not isinstance(root, yaml.MappingNode):
            if root.tag != "tag:yaml.org,2002:null":
                self._problem(
                    1, "the file is no map of ports", "start with '2878': and a list below"
                )
            return []
        loader.flatten_mapping(root)
        # As in the proxy, the last section of a port key counts, at the first one's place.
        found: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for key_node, value_node in root.value:
            key = str(loader.construct_object(key_node, deep=True))
            if key in found:
                line = found[key][0].start_mark.line + 1
                self.notes.append(
                    f"{self.where}:{line}: the section '{key}' is replaced by the one in line"
                    f" {key_node.start_mark.line + 1}; put their rules together"
                )
            found[key] = (key_node, value_node)
        sections = []
        for key, (key_node, value_node) in found.items():
            ports = self._ports(key, key_node.start_mark.line + 1)
            sections.append(Section(ports, tuple(self._rules(loader, key, value_node))))
        return sections

    def _ports(self, key: str, line: int) -> tuple[str, ...]:
        if key.lower() == _GLOBAL:
            return ()
        ports = tuple(port.strip() for port in key.split(","))
        if not all(ports):
            self._problem(line, f"'{key}' names no port", "write a port, '2878, 9411', or 'global'")
        return ports

    def _rules(self, loader: _Loader, key: str, node: yaml.Node) -> list[AnyRule]:
        if not isinstance(node, yaml.SequenceNode):
            if node.tag != "tag:yaml.org,2002:null":
                line = node.start_mark.line + 1
                self._problem(line, f"'{key}' holds no list of rules", "start each rule with '- '")
            return []
        rules = []
        for item in node.value:
            line = item.start_mark.line + 1
            given = loader.construct_object(item, deep=True)
            rule = self._rule(given, line)
            if rule is not None:
                rules.append(rule)
        return rules

    def _rule(self, given: object, line: int) -> AnyRule | None:
        if not isinstance(given, dict) or not given:
            self._problem(
                line, "the rule is empty", "give it 'rule' and 'action', or remove the '-'"
            )
            return None
        arguments = Arguments(given, SPAN, self.keys)
        name = arguments.optional("rule") or ""
        rule_id = _ID_BAD.sub("", name)
        if not rule_id:
            arguments.wrong("'rule' is missing or has none of a-z, 0-9, _ and -", "name the rule")
        action_name = arguments.text("action")
        rule = None
        if given.get("action") is not None:
            rule = self._built(arguments, Identity(rule_id, action_name, line))
        for mistake in arguments.mistakes:
            self._problem(line, mistake, "", name)
        return None if arguments.mistakes else rule

    def _built(self, arguments: Arguments, identity: Identity) -> AnyRule | None:
        on_line = arguments.given.get("scope") in SCOPES
        action = (LINE_ACTIONS if on_line else ACTIONS).get(identity.action)
        if action is None:
            self._no_action(arguments, identity, on_line=on_line)
            return None
        return self._with(action, arguments, identity)

    def _with(self, action: Action, arguments: Arguments, identity: Identity) -> AnyRule | None:
        arguments.kind = action.kind
        arguments.only(identity.action, action.takes)
        return action.build(identity, arguments, self.exact)

    def _no_action(self, arguments: Arguments, identity: Identity, *, on_line: bool) -> None:
        name = identity.action
        if name in LOG_ACTIONS:
            place = f"{self.where}:{identity.line}"
            self.notes.append(f"{place}: rule '{identity.id}': {name} is about logs; passed over")
        elif on_line and name in ACTIONS:
            scope = arguments.given["scope"]
            choice = "use replaceRegex, block or allow, or another scope"
            arguments.wrong(f"{name} cannot be applied to {scope}", choice)
        else:
            close = get_close_matches(name, ACTIONS, 1)
            suggestion = f"is it '{close[0]}'?" if close else "see the proxy's list of actions"
            arguments.wrong(f"there is no action '{name}'", suggestion)
