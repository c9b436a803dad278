"""``if`` as a nested map: one operator, below it lists of operators, at the leaves comparisons.

::

    if:
      all:
        - any:
            - startsWith: {scope: spanName, value: "inbound"}
            - equals: {scope: http.status_code, value: ["404", "410"]}
        - none:
            - contains: {scope: sourceName, value: "test"}

A value is compared as it stands; ``{{...}}`` means nothing here.  ``ignore`` is always true and what it holds is not
even read: it switches a part of a rule off.
"""

from collections.abc import Callable
from difflib import get_close_matches

from tracefwd.processor.rules import comparisons
from tracefwd.processor.rules.dialect import Refused
from tracefwd.processor.rules.expression import parse_expression
from tracefwd.processor.rules.subject import Kind, Subject, Test, reader

_LOGICAL: dict[str, Callable[[list[Test], Subject], bool]] = {
    "all": lambda tests, subject: all(test(subject) for test in tests),
    "any": lambda tests, subject: any(test(subject) for test in tests),
    "none": lambda tests, subject: not any(test(subject) for test in tests),
}
# A map in a map in a list ...: deeper is a mistake, and Python's own limit would raise something else.
_DEPTH_MAX = 50


def read_predicate(kind: Kind, value: object) -> Test:
    """``if``'s value in either form; raises ``Refused``, whose position is one in the expression."""
    if isinstance(value, str):
        return parse_expression(kind, value)
    if not isinstance(value, dict):
        raise Refused(0, "it is neither an expression nor a map", 'write {{key}} = "text"')
    if len(value) != 1:
        raise Refused(0, f"it has {len(value)} operators", "put them into one all, any or none")
    ((operator, operand),) = value.items()
    return _operator(kind, operator, operand, 0)


def _operator(kind: Kind, operator: object, operand: object, depth: int) -> Test:
    if depth > _DEPTH_MAX:
        raise Refused(0, f"it is nested more than {_DEPTH_MAX} deep", "")
    if operator == "ignore":
        return lambda _: True
    if isinstance(operator, str) and operator in _LOGICAL:
        return _logical(kind, operator, operand, depth)
    if isinstance(operator, str) and operator in comparisons.OPERATORS:
        return _comparison(kind, operator, operand)
    names = [*_LOGICAL, "ignore", *comparisons.OPERATORS]
    close = get_close_matches(str(operator), names, 1)
    suggestion = f"is it '{close[0]}'?" if close else f"use one of {', '.join(sorted(names))}"
    raise Refused(0, f"there is no operator '{operator}'", suggestion)


def _logical(kind: Kind, operator: str, operand: object, depth: int) -> Test:
    if not isinstance(operand, list):
        raise Refused(0, f"'{operator}' holds no list", "start each of its operators with '- '")
    tests: list[Test] = []
    for item in operand:
        if not isinstance(item, dict) or not item:
            raise Refused(0, f"an item of '{operator}' is no operator", "write '- equals: {...}'")
        if len(item) > 1 and not comparisons.OPERATORS.issuperset(item):
            # The proxy would read the first of them and forget the others.
            raise Refused(
                0,
                f"an item of '{operator}' has several keys ({', '.join(map(str, item))})",
                "indent scope and value below the comparison; one operator per '- '",
            )
        tests += [_operator(kind, name, inner, depth + 1) for name, inner in item.items()]
    combine = _LOGICAL[operator]
    return lambda subject: combine(tests, subject)


def _comparison(kind: Kind, operator: str, operand: object) -> Test:
    if not isinstance(operand, dict) or set(operand) != {"scope", "value"}:
        raise Refused(0, f"'{operator}' wants scope and value, and nothing else", "")
    scope, value = operand["scope"], operand["value"]
    if not isinstance(scope, str) or not scope:
        raise Refused(0, f"the scope of '{operator}' is no text", "name a tag, or put it in quotes")
    options = value if isinstance(value, list) else [value]
    if not all(isinstance(option, str) for option in options):
        raise Refused(
            0, f"the value of '{operator}' is no text or list of texts", "put it in quotes"
        )
    read = reader(kind, scope)
    if operator in {"=", "equals"}:
        wanted = frozenset(options)
        return lambda subject: read(subject) in wanted
    tests = [comparisons.against(operator, option) for option in options]
    if len(tests) == 1:
        (only,) = tests
        return lambda subject: only(read(subject))
    return lambda subject: any(test(read(subject)) for test in tests)
